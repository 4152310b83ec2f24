"""What was spent on its way from workers to the store, and from there to the workers of other machines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from gateway.allowances import Allowances
from gateway.control.ledger import Ledger
from gateway.control.roster import Roster
from gateway.control.store.store import Store
from gateway.errors import BudgetExceeded
from gateway.limits import Limits, scopes_of
from gateway.prices import NANO
from gateway.purse import month_of
from gateway.types import GatewayKey, Scope
from tests.gateway.control.conftest import Clock

TEAM = Scope("team", "team_1", "red", (1 << 20) + 3, budget=5 * NANO)
KEY = GatewayKey("gk_1", b"", "kt_gk_ab", "dev", 7, budget_usd_per_month=1.0, team_scope=TEAM)
SCOPES = scopes_of(KEY, None)


class Machine:
    """Workers and the control process of one machine."""

    def __init__(self, folder: Path, store: Store | None, clock: Clock, *, workers: int = 1) -> None:
        folder.mkdir(exist_ok=True)
        self.store = store
        self.clock = clock
        self.workers = [Limits(folder, number, workers) for number in range(workers)]
        self.roster = Roster()
        self.roster.note_keys([KEY])
        self.allowances = Allowances(folder)
        self.ledger = Ledger(folder, workers, lambda: self.store, self.roster, self.allowances, wall=clock)

    def spend(self, cost: int, worker: int = 0) -> None:
        hold = self.workers[worker].admit(SCOPES, 0, 1, self.clock.now)
        assert hold is not None
        hold.settle(1, self.clock.now, cost)
        hold.release()

    def close(self) -> None:
        for limits in self.workers:
            limits.close()
        self.ledger.close()
        self.allowances.close()


@contextmanager
def machine(folder: Path, store: Store | None, clock: Clock, *, workers: int = 1) -> Iterator[Machine]:
    made = Machine(folder, store, clock, workers=workers)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(autouse=True)
def november(clock: Clock) -> None:
    clock.now = datetime(2026, 11, 24, tzinfo=UTC).timestamp()


async def totals(store: Store, clock: Clock) -> tuple[int, int]:
    """Of the key and of the team."""
    month = month_of(clock.now).number
    key, team = await store.spending.total("key", month), await store.spending.total("team", month)
    return key.get("gk_1", 0), team.get("team_1", 0)


async def test_sums_come_into_the_store_once(tmp_path: Path, store: Store, clock: Clock) -> None:
    with machine(tmp_path / "a", store, clock, workers=2) as one:
        one.spend(100)
        one.spend(20, worker=1)
        await one.ledger.step()
        await one.ledger.step()
        assert await totals(store, clock) == (120, 120)
        one.spend(3)
        await one.ledger.step()
        assert await totals(store, clock) == (123, 123)


async def test_a_restart_counts_nothing_twice(tmp_path: Path, store: Store, clock: Clock) -> None:
    for workers in (2, 2, 1, 3):
        with machine(tmp_path / "a", store, clock, workers=workers) as one:
            one.spend(100)
            await one.ledger.step()
    assert await totals(store, clock) == (400, 400)
    with machine(tmp_path / "a", store, clock, workers=1) as one:
        one.spend(0)
        await one.ledger.step()
        purse = one.workers[0]._rows[7].purse
        assert purse is not None
        assert purse.used(clock.now) == (400, 0), "what workers that are no more have spent counts as spent elsewhere"


async def test_what_one_machine_spends_another_knows(tmp_path: Path, store: Store, clock: Clock) -> None:
    with machine(tmp_path / "a", store, clock) as one, machine(tmp_path / "b", store, clock) as other:
        one.spend(NANO)
        other.spend(0)
        await one.ledger.step()
        await other.ledger.step()
        clock.now += 1.0
        with pytest.raises(BudgetExceeded, match=r"\$1.0000 of \$1.00"):
            other.spend(1)
        clock.now = datetime(2026, 12, 1, tzinfo=UTC).timestamp()
        await other.ledger.step()
        other.spend(1)
        await other.ledger.step()
        assert await totals(store, clock) == (1, 1)


async def test_a_new_run_folder_counts_as_another_machine(tmp_path: Path, store: Store, clock: Clock) -> None:
    with machine(tmp_path / "a", store, clock) as one:
        one.spend(NANO)
        await one.ledger.step()
    with machine(tmp_path / "b", store, clock) as fresh:
        await fresh.ledger.step()
        with pytest.raises(BudgetExceeded):
            fresh.spend(1)


async def test_without_a_store_sums_wait(
    tmp_path: Path, store: Store, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    with machine(tmp_path / "a", None, clock) as one:
        one.spend(5)
        await one.ledger.step()
        one.store = store
        await store.close()
        store._database.location.path.unlink()  # type: ignore[union-attr]
        await one.ledger.step()
        await one.ledger.step()
        assert [record.getMessage() for record in caplog.records] == [
            "what was spent cannot be stored; workers go on counting"
        ]
        one.spend(5)
        one.store = await Store.open(str(store.location), clock=clock)
        await one.ledger.step()
        assert await totals(one.store, clock) == (10, 10)
        await one.store.close()


async def test_the_last_of_a_month_is_not_lost(tmp_path: Path, store: Store, clock: Clock) -> None:
    with machine(tmp_path / "a", store, clock) as one:
        one.spend(5)
        clock.now = datetime(2026, 12, 1, tzinfo=UTC).timestamp()
        one.spend(7)
        await one.ledger.step()
        assert await store.spending.total("key", 202611) == {"gk_1": 5}
        assert await store.spending.total("key", 202612) == {"gk_1": 7}


async def test_a_budget_that_is_given_later_is_kept_from_then_on(tmp_path: Path, store: Store, clock: Clock) -> None:
    with machine(tmp_path / "a", store, clock) as one:
        one.roster.note_keys([msgspec.structs.replace(KEY, budget_usd_per_month=None, team_scope=None)])
        one.spend(5)
        await one.ledger.step()
        assert await totals(store, clock) == (0, 5)
        one.roster.note_keys([KEY])
        await one.ledger.step()
        assert await totals(store, clock) == (5, 5)
