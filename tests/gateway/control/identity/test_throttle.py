"""Counting failed attempts: when somebody must wait, for how long, and that memory is bounded."""

from __future__ import annotations

import pytest

from gateway.control.identity import throttle as module
from gateway.control.identity.throttle import (
    ACCOUNT_FAILURES,
    ADDRESS_FAILURES,
    PAIR_FAILURES,
    WINDOW_SECONDS,
    Throttle,
)
from gateway.errors import TooManyAttempts
from tests.gateway.control.conftest import Clock


@pytest.fixture
def throttle(clock: Clock) -> Throttle:
    return Throttle(clock)


def waits(throttle: Throttle, account: str, address: str) -> int:
    try:
        throttle.admit(account, address)
    except TooManyAttempts as error:
        return int(dict(error.headers)[b"retry-after"])
    return 0


def test_an_account_waits_at_the_address_that_has_failed(throttle: Throttle, clock: Clock) -> None:
    for _ in range(PAIR_FAILURES):
        assert waits(throttle, "ada", "192.0.2.1") == 0
        throttle.failed("ada", "192.0.2.1")
    assert waits(throttle, "ada", "192.0.2.1") == WINDOW_SECONDS
    assert waits(throttle, "ada", "198.51.100.1") == 0  # where Ada herself is, perhaps
    assert waits(throttle, "bob", "192.0.2.1") == 0
    clock.now += WINDOW_SECONDS - 0.5
    assert waits(throttle, "ada", "192.0.2.1") == 1
    clock.now += 0.5
    assert waits(throttle, "ada", "192.0.2.1") == 0
    throttle.failed("ada", "192.0.2.1")  # a new window
    assert waits(throttle, "ada", "192.0.2.1") == 0


def test_an_account_waits_everywhere_when_it_is_tried_from_everywhere(throttle: Throttle) -> None:
    for number in range(ACCOUNT_FAILURES):
        assert waits(throttle, "ada", f"2001:db8:{number:x}::1") == 0
        throttle.failed("ada", f"2001:db8:{number:x}::1")
    assert waits(throttle, "ada", "198.51.100.1") == WINDOW_SECONDS
    assert waits(throttle, "bob", "198.51.100.1") == 0


def test_a_link_is_nobodys_and_its_failures_hold_nobody_else_up(throttle: Throttle) -> None:
    for _ in range(ADDRESS_FAILURES):
        throttle.failed(None, "192.0.2.1")
    with pytest.raises(TooManyAttempts):
        throttle.admit(None, "192.0.2.1")
    throttle.admit(None, "192.0.2.2")


def test_an_address_waits_whomever_it_tries(throttle: Throttle) -> None:
    for number in range(ADDRESS_FAILURES):
        throttle.failed(f"user{number}", "192.0.2.1")
    assert waits(throttle, "ada", "192.0.2.1") > 0
    assert waits(throttle, "ada", "192.0.2.2") == 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("no address", "local", True),
    ],
)
def test_what_one_address_is(throttle: Throttle, one: str, other: str, same: bool) -> None:
    for number in range(ADDRESS_FAILURES):
        throttle.failed(f"user{number}", one)
    assert (waits(throttle, "ada", other) > 0) is same


def test_success_clears_the_account_there_and_not_the_address(throttle: Throttle) -> None:
    for _ in range(PAIR_FAILURES - 1):
        throttle.failed("ada", "192.0.2.1")
    throttle.succeeded("ada", "192.0.2.1")
    for _ in range(PAIR_FAILURES - 1):
        throttle.failed("ada", "192.0.2.1")
    assert waits(throttle, "ada", "192.0.2.1") == 0
    for _ in range(ADDRESS_FAILURES - 2 * (PAIR_FAILURES - 1)):
        throttle.failed("another", "192.0.2.1")
    assert waits(throttle, "bob", "192.0.2.1") > 0


def test_memory_is_bounded(throttle: Throttle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ROWS", 100)
    for number in range(1000):
        throttle.failed(f"user{number}" + "x" * 1000, f"2001:db8:{number:x}::1")
    assert list(throttle.rows) == [100, 100, 100]
