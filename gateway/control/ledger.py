"""Brings what workers have spent into the store, and what others have spent to the workers.

A worker's file of money (`gateway.purse`) is a ledger with an id of its own: its sums are written whole under that id,
as often as they change, so nothing that is lost on the way or said twice makes them wrong. What all other ledgers of
the store say of this month (other machines, and files that no worker uses any more) is told to the workers through
`gateway.allowances`. While the store cannot be used, workers go on with what was told last, and their sums wait.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from gateway.allowances import Allowance, Allowances
from gateway.control.roster import Roster
from gateway.control.store.errors import StoreError
from gateway.control.store.spending import Spent
from gateway.purse import RECORD, MoneyFile, month_of, sums
from gateway.types import Scope
from gateway.window import owner_of

if TYPE_CHECKING:
    from gateway.control.store.store import Store

SECONDS: Final = 1.0
"""How old the sums may be, in the store and at the workers. Twice this, and other machines know."""

OVERLAP_SECONDS: Final = 30.0
"""How far the clocks of machines may differ, and how long a transaction may take."""

WHOLE_SECONDS: Final = 300.0
"""How often everything is read again, whatever clocks say."""

log = logging.getLogger(__name__)


class Ledger:
    """The sums of one gateway. `workers` is how many workers it has."""

    def __init__(
        self,
        run_folder: Path,
        workers: int,
        store: Callable[[], Store | None],
        roster: Roster,
        allowances: Allowances,
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._run_folder = run_folder
        self._workers = workers
        self._store = store
        self._roster = roster
        self._allowances = allowances
        self._wall = wall
        self._files: dict[int, _Sums] = {}
        self._seen_version = -1
        self._scopes: dict[tuple[str, str], Scope] = {}
        self._elsewhere: dict[tuple[str, str], dict[str, int]] = {}
        self._told: dict[tuple[str, str], tuple[int, int]] = {}
        self._month = 0
        self._read_at = self._whole_at = 0.0
        self._fault = ""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.step()
            await asyncio.sleep(SECONDS)

    async def step(self) -> None:
        """Write what is new, read what is new, tell it. Never raises for what may be wrong with store or disk."""
        store = self._store()
        if store is None:
            return
        try:
            self._look_up()
            await self._write(store)
            await self._read(store)
            self._tell()
        except (StoreError, OSError) as error:
            self._report(str(error))
        else:
            self._report("")

    def close(self) -> None:
        """Unmap everything."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _look_up(self) -> None:
        """Which scopes have a budget now, and which files of money there are."""
        fresh = self._roster.version != self._seen_version
        if fresh:
            self._seen_version = self._roster.version
            self._scopes = {(one.kind, one.id): one for one in self._roster if one.budget is not None}
        for path in self._run_folder.glob("money-*.slots"):
            worker = path.stem.removeprefix("money-")
            if worker.isdecimal() and int(worker) not in self._files:
                self._files[int(worker)] = _Sums(self._run_folder, int(worker))
                fresh = True
        if fresh:
            for file in self._files.values():
                file.watch(list(self._scopes.values()))

    async def _write(self, store: Store) -> None:
        for file in self._files.values():
            changed = file.changed()
            if changed:
                await store.spending.write(file.ledger, changed)
            file.confirm()

    async def _read(self, store: Store) -> None:
        now = self._wall()
        month = month_of(now).number
        whole = month != self._month or now - self._whole_at > WHOLE_SECONDS
        since = 0.0 if whole else self._read_at - OVERLAP_SECONDS
        found = await store.spending.changed(month, since)
        if whole:
            self._month, self._whole_at = month, now
            self._elsewhere.clear()
        self._read_at = now
        own = {file.ledger for worker, file in self._files.items() if worker < self._workers}
        for (kind, id, ledger), spent in found.items():
            if ledger not in own:
                self._elsewhere.setdefault((kind, id), {})[ledger] = spent

    def _tell(self) -> None:
        for name, scope in self._scopes.items():
            spent = sum(self._elsewhere.get(name, {}).values())
            if spent and self._told.get(name) != (self._month, spent):
                allowance = Allowance(self._allowances.record(scope.place), owner_of(scope.id))
                allowance.tell_elsewhere(self._month, spent)
                allowance.release()
                self._told[name] = self._month, spent

    def _report(self, fault: str) -> None:
        if fault != self._fault:
            self._fault = fault
            if fault:
                log.warning("what was spent cannot be stored; workers go on counting", extra={"reason": fault})
            else:
                log.info("what was spent can be stored again")


class _Sums:
    """One worker's file, and what of it the store knows."""

    def __init__(self, run_folder: Path, worker: int) -> None:
        self._file = MoneyFile(run_folder, worker)
        self._places: npt.NDArray[np.int64] = np.empty(0, np.int64)
        self._scopes: list[Scope] = []
        self._stored: dict[tuple[str, str, int], int] = {}
        self._seen = self._taken = np.empty(0)
        self._asked: list[Spent] = []

    @property
    def ledger(self) -> str:
        return f"{int(self._file.ledger):013x}"

    def watch(self, scopes: list[Scope]) -> None:
        """Look after these from now on."""
        self._scopes = scopes
        self._places = np.array([scope.place for scope in scopes], np.int64)
        self._seen = np.empty(0)

    def changed(self) -> list[Spent]:
        """What the store does not know yet. 100,000 scopes of which nothing changed: 3 ms."""
        table = self._file.table()
        self._taken = table[self._places].ravel() if len(self._places) else np.empty(0)
        del table
        if self._seen.shape == self._taken.shape:
            rows = np.unique(np.flatnonzero(self._seen != self._taken) // RECORD)
        else:
            rows = np.arange(len(self._scopes))
        self._asked = []
        for row in rows:
            scope = self._scopes[int(row)]
            cells: memoryview[Any] = self._taken.data[row * RECORD : (row + 1) * RECORD]
            for month, spent in sums(cells, owner_of(scope.id)):
                if spent > self._stored.get((scope.kind, scope.id, month), 0):
                    self._asked.append(Spent(scope.kind, scope.id, month, spent))
        return self._asked

    def confirm(self) -> None:
        """The store has what `changed` returned last."""
        self._seen = self._taken
        self._stored.update({(one.kind, one.id, one.month): one.nanousd for one in self._asked})

    def close(self) -> None:
        self._file.close()
