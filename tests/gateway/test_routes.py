"""Which target comes first, which is left alone, and what may be tried again."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from gateway.config.schema import CircuitBreaker, Fallback, FallbackTrigger, RoutingStrategy
from gateway.errors import (
    GatewayError,
    InternalError,
    ModelNotFound,
    OutputBlocked,
    Overloaded,
    UpstreamAuthFailed,
    UpstreamInvalid,
    UpstreamReset,
    UpstreamStatus,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from gateway.routes import Breaker, Route, Target, asked_pause, trigger_of
from gateway.types import Destination, Origin


def target(id: str, *, weight: int = 1, fault: str | None = None) -> Target:
    destination = Destination(id, Origin("provider.test", 443))
    breaker = Breaker(CircuitBreaker())
    return Target(id, "p", "m", "m", destination=destination, lanes={}, breaker=breaker, weight=weight, fault=fault)


def route(strategy: RoutingStrategy, *targets: Target) -> Route:
    return Route(targets, strategy, Fallback())


def order(candidates: tuple[Target, ...]) -> str:
    return "".join(one.id for one in candidates)


def test_ordered_is_always_the_same_tuple() -> None:
    one = route(RoutingStrategy.ORDERED, target("a"), target("b"))
    assert one.candidates() is one.candidates()
    assert order(one.candidates()) == "ab"
    assert repr(one) == "<Route ordered ['a', 'b']>"


@pytest.mark.parametrize("strategy", RoutingStrategy)
def test_one_target_needs_no_strategy(strategy: RoutingStrategy) -> None:
    one = route(strategy, target("a"))
    assert one.candidates() is one.targets


def test_round_robin() -> None:
    one = route(RoutingStrategy.ROUND_ROBIN, target("a"), target("b"), target("c"))
    assert [order(one.candidates()) for _ in range(4)] == ["abc", "bca", "cab", "abc"]


def test_weighted_by_weight() -> None:
    one = route(RoutingStrategy.WEIGHTED, target("a", weight=8), target("b", weight=2), target("c", weight=1))
    one._random.seed(7)
    orders = Counter(order(one.candidates()) for _ in range(11_000))
    first = Counter[str]()
    for text, count in orders.items():
        first[text[0]] += count
    assert len(orders) == 6  # the others follow, each in every place
    for id, share in (("a", 8000), ("b", 2000), ("c", 1000)):
        assert abs(first[id] - share) < 200


def test_lowest_latency_tries_what_it_does_not_know() -> None:
    a, b, c = target("a"), target("b"), target("c")
    one = route(RoutingStrategy.LOWEST_LATENCY, a, b, c)
    a.answered(0.5)
    b.answered(0.2)
    assert order(one.candidates()) == "cba"
    c.answered(0.3)
    assert order(one.candidates()) == "bca"


def test_latency_is_a_moving_average() -> None:
    a = target("a")
    a.answered(1.0)
    assert a.latency == 1.0
    a.answered(2.0)
    assert a.latency == pytest.approx(1.2)


def test_least_busy_in_proportion_to_weight() -> None:
    a, b = target("a", weight=4), target("b")
    one = route(RoutingStrategy.LEAST_BUSY, a, b)
    a.in_flight, b.in_flight = 3, 1
    assert order(one.candidates()) == "ab"
    a.in_flight = 5
    assert order(one.candidates()) == "ba"


def test_a_target_says_how_it_is() -> None:
    one = target("a")
    assert repr(one) == "<Target a closed, 0 in flight>"
    assert one.usable(0.0)
    broken = target("b", fault="its secret is missing")
    assert repr(broken) == "<Target b its secret is missing, 0 in flight>"
    assert not broken.usable(0.0)


# The circuit breaker


def breaker(**settings: Any) -> Breaker:
    return Breaker(CircuitBreaker(failure_threshold=3, open_seconds=30.0, **settings))


def test_failures_in_a_row_open_it() -> None:
    one = breaker()
    for _ in range(2):
        one.failed(0.0)
    one.succeeded()
    for _ in range(2):
        one.failed(0.0)
    assert repr(one) == "<Breaker closed, 2 failures in a row>"
    one.failed(0.0)
    assert repr(one) == "<Breaker open, 3 failures in a row>"
    assert not one.allows(29.9)


def test_past_its_time_one_request_tries() -> None:
    one = breaker()
    for _ in range(3):
        one.failed(0.0)
    assert one.allows(30.0)
    assert repr(one) == "<Breaker trying, 3 failures in a row>"
    assert not one.allows(30.1)
    one.succeeded()
    assert repr(one) == "<Breaker closed, 0 failures in a row>"
    assert one.allows(30.2)


def test_a_failed_try_opens_it_again_at_once() -> None:
    one = breaker()
    for _ in range(3):
        one.failed(0.0)
    assert one.allows(30.0)
    one.failed(31.0)
    assert not one.allows(60.9)
    assert one.allows(61.0)


def test_a_try_that_came_to_nothing_does_not_shut_it_out_for_ever() -> None:
    """The client left, say: neither a success nor a failure of the target."""
    one = breaker()
    for _ in range(3):
        one.failed(0.0)
    assert one.allows(30.0)
    assert not one.allows(59.9)
    assert one.allows(60.0)


def test_requests_that_were_under_way_do_not_prolong_it() -> None:
    one = breaker()
    for _ in range(3):
        one.failed(0.0)
    one.failed(20.0)
    assert one.allows(30.0)


def test_one_that_is_off_never_opens() -> None:
    one = breaker(enabled=False)
    for _ in range(100):
        one.failed(0.0)
    assert one.allows(0.0)


# What may be tried again


def status(code: int) -> UpstreamStatus:
    return UpstreamStatus(code, "no", code=None)


@pytest.mark.parametrize(
    ("error", "trigger"),
    [
        (status(429), FallbackTrigger.RATE_LIMIT),
        (status(500), FallbackTrigger.SERVER_ERROR),
        (status(503), FallbackTrigger.SERVER_ERROR),
        (status(400), None),
        (status(404), None),
        (UpstreamStatus(402, "nothing left", code=None), FallbackTrigger.RATE_LIMIT),
        (UpstreamTimeout(), FallbackTrigger.TIMEOUT),
        (UpstreamUnreachable(), FallbackTrigger.CONNECTION),
        (UpstreamReset(), FallbackTrigger.CONNECTION),
        (UpstreamInvalid(), FallbackTrigger.SERVER_ERROR),
        (UpstreamAuthFailed(), FallbackTrigger.SERVER_ERROR),
        (Overloaded(), None),
        (ModelNotFound(), None),
        (OutputBlocked("no", policy="p"), None),
        (InternalError(), None),
    ],
)
def test_triggers(error: GatewayError, trigger: FallbackTrigger | None) -> None:
    assert trigger_of(error) is trigger


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ((), 0.0),
        (((b"retry-after", b"2"),), 2.0),
        (((b"retry-after", b"0.5"),), 0.5),
        (((b"retry-after-ms", b"1500"), (b"retry-after", b"9")), 1.5),
        (((b"retry-after", b"Wed, 21 Oct 2026 07:28:00 GMT"),), float("inf")),
        (((b"retry-after", b"-1"),), float("inf")),
    ],
)
def test_the_pause_that_a_provider_asks_for(fields: tuple[tuple[bytes, bytes], ...], seconds: float) -> None:
    assert asked_pause(UpstreamStatus(429, "slow down", code=None, headers=fields)) == seconds
