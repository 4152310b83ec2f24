"""Budgets, limits of teams and configurations, and what the control process allows: by hand, in exact numbers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.allowances import FRESH_SECONDS, Allowance, Allowances, Caps, Mode, WhenAway
from gateway.errors import BudgetExceeded, RateLimited
from gateway.limits import Hold, Limits, ceiling_of
from gateway.prices import NANO, Price, Rates
from gateway.types import Scope
from gateway.window import owner_of

T = datetime(2026, 11, 24, 12, tzinfo=UTC).timestamp()
DECEMBER = datetime(2026, 12, 1, tzinfo=UTC).timestamp()
_places = itertools.count()


class Target:
    """Of a target, only the price matters here: a nano-dollar for each token."""

    price = Price(Rates(0.001, 0.001))


TARGETS: Any = (Target(),)


def scope(kind: str = "key", name: str = "dev", place: int | None = None, **limits: Any) -> Scope:
    return Scope(kind, f"{kind}-{name}", name, next(_places) if place is None else place, **limits)


@pytest.fixture
def limits(tmp_path: Path) -> Iterator[Limits]:
    opened = Limits(tmp_path, 0, 1)
    yield opened
    opened.close()


def admit(limits: Limits, *scopes: Scope, prompt: int = 0, output: int = 100, now: float = T) -> Hold:
    hold = limits.admit(scopes, prompt, output, now, TARGETS)
    assert hold is not None
    return hold


def refuse(limits: Limits, *scopes: Scope, prompt: int = 0, output: int = 100, now: float = T) -> RateLimited:
    with pytest.raises(RateLimited) as caught:
        admit(limits, *scopes, prompt=prompt, output=output, now=now)
    return caught.value


def money(limits: Limits, scope: Scope, now: float = T) -> tuple[int, int]:
    """Spent and held."""
    purse = limits._rows[scope.place].purse
    assert purse is not None
    spent, held = purse.used(now)
    return int(spent), int(held)


# Money


def test_the_most_a_request_may_cost_is_held_until_it_ends(limits: Limits) -> None:
    key = scope(budget=1000)
    hold = admit(limits, key, prompt=40, output=100)
    assert money(limits, key) == (0, 140), "a token for each byte of the prompt"
    hold.settle(30, T, 25)
    assert money(limits, key) == (25, 0)
    hold.release()
    hold.settle(99, T, 99)
    hold.refund()
    assert money(limits, key) == (25, 0), "each ends once"


@pytest.mark.parametrize("end", ["refund", "release", "spend", "settle"])
def test_however_it_ends_nothing_stays_held(end: str, limits: Limits) -> None:
    key = scope(budget=1000)
    hold = admit(limits, key)
    if end == "refund":
        hold.refund()
    elif end == "spend":
        hold.spend(7, T)
    elif end == "settle":
        hold.settle(0, T)
    hold.release()
    assert money(limits, key) == (7 if end == "spend" else 0, 0)


def test_a_budget_is_overdrawn_by_one_request_at_most(limits: Limits) -> None:
    key = scope(budget=250)
    holds = [admit(limits, key), admit(limits, key), admit(limits, key)]
    error = refuse(limits, key)
    assert isinstance(error, BudgetExceeded)
    assert error.message == (
        "Monthly budget of gateway key 'dev' reached: $0.0000 of $0.00 are spent and $0.0000 set aside for requests"
        " that run. Try again in 1 s."
    )
    assert dict(error.headers) == {b"retry-after": b"1"}, "it may do once they have ended"
    for hold in holds:
        hold.settle(100, T, 100)
        hold.release()
    assert money(limits, key) == (300, 0)
    error = refuse(limits, key)
    assert dict(error.headers) == {b"retry-after": b"%d" % (DECEMBER - T), b"x-should-retry": b"false"}
    assert "the next month begins in 6.5 days" in error.message


def test_what_a_request_may_cost_is_no_reason_to_refuse_it(limits: Limits) -> None:
    key = scope(budget=10)
    admit(limits, key, prompt=100_000, output=100_000).settle(1, T, 1)
    admit(limits, key, prompt=100_000, output=100_000)
    refuse(limits, key)


def test_a_budget_of_nothing_allows_nothing(limits: Limits) -> None:
    refuse(limits, scope(budget=0))


def test_a_month_begins_with_all_of_the_budget(limits: Limits) -> None:
    key = scope(budget=100)
    admit(limits, key).settle(100, T, 100)
    late = scope(budget=100)
    over_the_end = admit(limits, late, now=DECEMBER - 1)
    refuse(limits, key, now=DECEMBER - 1)
    admit(limits, key, now=DECEMBER).settle(1, DECEMBER, 1)
    assert money(limits, key, DECEMBER) == (1, 0)
    over_the_end.settle(50, DECEMBER + 5, 50)
    assert money(limits, late, DECEMBER + 5) == (50, 0), "spent in the month in which it ended"


def test_a_model_without_a_price_costs_nothing_here(limits: Limits) -> None:
    class Free:
        price = None

    key = scope(budget=100)
    hold = limits.admit((key,), 10, 10, T, (Free(),))  # type: ignore[arg-type]
    assert hold is not None
    hold.settle(10, T, None)
    assert money(limits, key) == (0, 0)


def test_of_several_targets_the_dearest_counts() -> None:
    class Dear:
        price = Price(Rates(1.0, 2.0))

    assert ceiling_of((Target(), Dear()), 10, 5, T) == 10 * 1000 + 5 * 2000  # type: ignore[arg-type]
    assert ceiling_of((Dear(),), 0, 0, T) == 16_384 * 2000, "no limit was named"  # type: ignore[arg-type]


def test_sums_outlive_the_worker_and_holds_do_not(tmp_path: Path) -> None:
    key = scope(budget=1000)
    first = Limits(tmp_path, 0, 1)
    admit(first, key).settle(100, T, 60)
    admit(first, key)
    first.close()
    second = Limits(tmp_path, 0, 1)
    admit(second, key)
    assert money(second, key) == (60, 100)
    second.close()


def test_workers_share_a_budget(tmp_path: Path) -> None:
    key = scope(budget=250)
    one, other = Limits(tmp_path, 0, 2), Limits(tmp_path, 1, 2)
    admit(one, key)
    admit(other, key)
    admit(one, key).settle(60, T, 60)
    assert money(one, key) == money(other, key) == (60, 200)
    refuse(other, key)
    one.close()
    again = Limits(tmp_path, 0, 2)
    admit(again, key, prompt=0, output=1)
    assert money(other, key) == (60, 101), "what the dead one held is free"
    for limits in (again, other):
        limits.close()


def test_another_key_at_the_same_place_begins_anew(tmp_path: Path) -> None:
    limits = Limits(tmp_path, 0, 1)
    old, new = scope(name="old", place=9, budget=100), scope(name="new", place=9, budget=100)
    running = admit(limits, old)
    admit(limits, new, output=7)
    running.settle(100, T, 100)
    running.release()
    assert money(limits, new) == (0, 7)
    limits.close()


def test_a_budget_that_changes_counts_what_was_spent(limits: Limits) -> None:
    small, large = scope(place=5, budget=100), scope(place=5, budget=1000)
    admit(limits, small).settle(100, T, 100)
    refuse(limits, small)
    admit(limits, large).settle(100, T, 100)
    assert money(limits, large) == (200, 0)


# Several scopes


def test_all_scopes_of_a_request_are_charged(limits: Limits) -> None:
    key, team = scope(budget=1000, requests_per_minute=10), scope("team", budget=500, tokens_per_minute=1000)
    hold = admit(limits, key, team)
    assert money(limits, key) == money(limits, team) == (0, 100)
    hold.settle(50, T, 40)
    hold.release()
    assert money(limits, key) == money(limits, team) == (40, 0)
    assert limits._rows[team.place].used() == (1, 50)
    assert limits._rows[team.place].running == 0


def test_one_that_refuses_leaves_the_others_uncharged(limits: Limits) -> None:
    key, team = scope(requests_per_minute=10), scope("team", "red", requests_per_minute=1)
    configuration = scope("configuration", "play", max_concurrency=5)
    admit(limits, key, team, configuration)
    error = refuse(limits, key, team, configuration)
    assert error.message.startswith("Rate limit of team 'red' reached: 1 of 1 requests per minute")
    assert [limits._rows[one.place].used()[0] for one in (key, team, configuration)] == [1, 1, 1]
    assert limits._rows[configuration.place].running == 1


def test_the_headers_are_those_of_which_the_least_is_left(limits: Limits) -> None:
    key = scope(requests_per_minute=5, tokens_per_minute=100_000)
    team = scope("team", requests_per_minute=100, tokens_per_minute=1000)
    shown = dict(admit(limits, key, team).headers)
    assert (shown[b"x-ratelimit-limit-requests"], shown[b"x-ratelimit-limit-tokens"]) == (b"5", b"1000")
    assert (shown[b"x-ratelimit-remaining-requests"], shown[b"x-ratelimit-remaining-tokens"]) == (b"4", b"900")


def test_a_refund_gives_everything_back(limits: Limits) -> None:
    key, team = scope(budget=1000, requests_per_minute=1), scope("team", budget=1000)
    hold = admit(limits, key, team)
    hold.refund()
    hold.release()
    admit(limits, key, team)


# What the control process says


@pytest.fixture
def allowances(tmp_path: Path) -> Iterator[Allowances]:
    opened = Allowances(tmp_path)
    yield opened
    opened.close()


def tell(allowances: Allowances, scope: Scope) -> Allowance:
    return Allowance(allowances.record(scope.place), owner_of(scope.id))


def test_what_others_have_spent_counts(limits: Limits, allowances: Allowances) -> None:
    key = scope(budget=1000)
    admit(limits, key).settle(1, T, 1)
    others = tell(allowances, key)
    others.tell_elsewhere(202611, 998)
    admit(limits, key, now=T + 1).settle(1, T, 1)
    refuse(limits, key, now=T + 1)
    others.tell_elsewhere(202610, 10**12)
    admit(limits, key, now=T + 2)
    others.release()


def test_a_cap_is_what_this_machine_may_use(limits: Limits, allowances: Allowances) -> None:
    key = scope(requests_per_minute=100, max_concurrency=50, budget=10 * NANO)
    allowances.tell_mode(Mode.SHARED, WhenAway.LOCAL, T)
    mine = tell(allowances, key)
    mine.grant(Caps(2, float("inf"), 50, 10 * NANO))
    admit(limits, key)
    admit(limits, key)
    error = refuse(limits, key)
    assert "other machines use the rest of it" in error.message
    assert (b"retry-after", b"1") in error.headers
    mine.grant(Caps(100, float("inf"), 2, 10 * NANO))
    refuse(limits, key)
    mine.grant(Caps(100, float("inf"), 50, 150))
    assert isinstance(refuse(limits, key), BudgetExceeded)
    mine.grant(Caps(100, float("inf"), 50, 10 * NANO))
    admit(limits, key)
    mine.release()


def test_a_machine_that_has_not_heard_yet_may_use_a_small_part(limits: Limits, allowances: Allowances) -> None:
    allowances.tell_mode(Mode.SHARED, WhenAway.LOCAL, T)
    key = scope(requests_per_minute=160)
    for _ in range(10):
        admit(limits, key)
    refuse(limits, key)
    tight = scope(requests_per_minute=1, tokens_per_minute=100, max_concurrency=1, budget=1)
    admit(limits, tight)
    refuse(limits, tight)


@pytest.mark.parametrize(("away", "admitted"), [(WhenAway.LOCAL, 3), (WhenAway.ALLOW, 10), (WhenAway.REFUSE, 0)])
def test_while_limits_cannot_be_shared_the_operators_rule_holds(
    away: WhenAway, admitted: int, limits: Limits, allowances: Allowances
) -> None:
    allowances.tell_mode(Mode.SHARED, away, T - FRESH_SECONDS)
    key = scope(requests_per_minute=3)
    for _ in range(admitted):
        admit(limits, key)
    if away is not WhenAway.ALLOW:
        assert ("cannot be shared" in refuse(limits, key).message) == (away is WhenAway.REFUSE)


def test_budgets_hold_whatever_rule_there_is(limits: Limits, allowances: Allowances) -> None:
    allowances.tell_mode(Mode.SHARED, WhenAway.ALLOW, 0.0)
    key = scope(budget=100)
    admit(limits, key).settle(100, T, 100)
    refuse(limits, key)
