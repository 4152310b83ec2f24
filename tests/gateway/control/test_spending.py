"""What was spent, as ledgers say it, and what a team may use, as its keys are told."""

from __future__ import annotations

import pytest

from gateway.allowances import FIRST_TEAM
from gateway.control.store.records import KeyScope, TeamUse
from gateway.control.store.spending import Spent
from gateway.control.store.store import Store
from gateway.control.store.teams import TeamChange
from gateway.control.store.trail import THE_GATEWAY
from gateway.prices import NANO
from tests.gateway.control.conftest import Clock

MONTH = 202611


async def test_a_ledger_says_its_sums_whole(store: Store) -> None:
    spending = store.spending
    await spending.write("one", [Spent("key", "a", MONTH, 5), Spent("team", "t", MONTH, 7)])
    await spending.write("two", [Spent("key", "a", MONTH, 10)])
    await spending.write("one", [Spent("key", "a", MONTH, 6)])
    await spending.write("one", [Spent("key", "a", MONTH, 6)])
    assert await spending.total("key", MONTH) == {"a": 16}
    assert await spending.total("key", MONTH, ["a", "b"]) == {"a": 16}
    assert await spending.total("key", MONTH, []) == {}
    assert await spending.total("team", MONTH) == {"t": 7}
    assert await spending.total("key", MONTH + 1) == {}
    await spending.write("one", [])


async def test_a_sum_never_falls(store: Store) -> None:
    await store.spending.write("one", [Spent("key", "a", MONTH, 5)])
    await store.spending.write("one", [Spent("key", "a", MONTH, 0)])
    assert await store.spending.total("key", MONTH) == {"a": 5}


async def test_what_others_have_said_since(store: Store, clock: Clock) -> None:
    spending = store.spending
    await spending.write("one", [Spent("key", "a", MONTH, 5)])
    clock.now += 10.0
    await spending.write("two", [Spent("key", "a", MONTH, 6), Spent("key", "b", MONTH - 1, 9)])
    assert await spending.changed(MONTH, 0.0) == {("key", "a", "one"): 5, ("key", "a", "two"): 6}
    assert await spending.changed(MONTH, clock.now) == {("key", "a", "two"): 6}
    assert await spending.changed(MONTH, 0.0, but="two") == {("key", "a", "one"): 5}


async def test_nine_million_dollars_fit(store: Store) -> None:
    await store.spending.write("one", [Spent("key", "a", MONTH, 9_000_000 * NANO)])
    assert await store.spending.total("key", MONTH) == {"a": 9_000_000 * NANO}


async def test_what_a_team_may_use_is_told_with_its_keys(store: Store) -> None:
    for name in ("one", "two"):
        await store.create_key(KeyScope(name=name, team="red"))
    await store.create_key(KeyScope(name="three", team="blue"))
    await store.create_key(KeyScope(name="four"))
    before = (await store.changes_since(0)).revision
    limits = TeamUse(requests_per_minute=10, budget_usd_per_month=2.5)
    team = await store.teams.change("red", TeamChange(limits=limits), THE_GATEWAY)
    assert team.limits == limits
    changes = await store.changes_since(before)
    assert {key.name for key in changes.keys} == {"one", "two"}
    (scope,) = {key.team_scope for key in changes.keys}
    assert scope is not None
    assert (scope.kind, scope.id, scope.name, scope.place) == ("team", team.id, "red", FIRST_TEAM)
    assert (scope.requests_per_minute, scope.budget) == (10, 2_500_000_000)

    other = await store.teams.change("blue", TeamChange(limits=TeamUse(max_concurrency=1)), THE_GATEWAY)
    assert (await store.get_key("three")).key.team_scope.place == FIRST_TEAM + 1  # type: ignore[union-attr]
    await store.teams.change(other.id, TeamChange(limits=TeamUse()), THE_GATEWAY)
    assert (await store.get_key("three")).key.team_scope is None
    assert (await store.get_key("four")).key.team_scope is None


@pytest.mark.parametrize("change", [TeamChange(description="x"), TeamChange(limits=TeamUse(requests_per_minute=10))])
async def test_what_changes_nothing_for_keys_is_not_told(change: TeamChange, store: Store) -> None:
    await store.create_key(KeyScope(name="one", team="red"))
    await store.teams.change("red", TeamChange(limits=TeamUse(requests_per_minute=10)), THE_GATEWAY)
    before = (await store.changes_since(0)).revision
    await store.teams.change("red", change, THE_GATEWAY)
    assert (await store.changes_since(before)).keys == []
