"""What all workers of this machine use of each scope right now, read from their shared files while they go on."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gateway.control.roster import Roster
from gateway.limits import SLOTS_PER_FILE, window_file, window_record
from gateway.purse import MoneyFile, Peer, month_of, used_of
from gateway.slots import CELL, SlotFile
from gateway.types import Scope
from gateway.window import HEADER, RECORD, RUNNING, SECOND, WINDOW, Column, owner_of, used_by


class Tally(NamedTuple):
    """One scope's use by a whole machine. `second` is when it was last used, `money` what it has spent in `month` and
    holds, in nano-USD."""

    second: int
    requests: float
    tokens: float
    running: float
    month: int
    money: float


class Tallies:
    """Reads the files of one run folder."""

    def __init__(self, run_folder: Path, workers: int) -> None:
        self._run_folder = run_folder
        self._workers = workers
        self._seen_version = -1
        self._by_file: dict[int, list[Scope]] = {}
        self._windows: dict[int, _Windows] = {}
        self._money: list[MoneyFile] = []

    def active(self, roster: Roster, now: float) -> list[tuple[Scope, Tally]]:
        """The limited scopes that were used in the last minute, or run. Raises OSError.

        100,000 scopes of which none is active take 6 ms, each active one 10 µs.
        """
        fresh = roster.version != self._seen_version
        if fresh:
            self._seen_version = roster.version
            self._by_file.clear()
            for scope in roster:
                if scope.place >= 0:
                    self._by_file.setdefault(scope.place // SLOTS_PER_FILE, []).append(scope)
        self._open(fresh)
        month = month_of(now).number
        return [
            (scope, self._tally(windows, scope, int(now), month))
            for windows in self._windows.values()
            for scope in windows.active(int(now))
        ]

    def close(self) -> None:
        """Unmap everything."""
        for windows in self._windows.values():
            windows.file.close()
        for money in self._money:
            money.close()
        self._windows.clear()
        self._money.clear()

    def _open(self, fresh: bool) -> None:
        """A file is there once a worker has used it; it is not made here."""
        for number, scopes in self._by_file.items():
            windows = self._windows.get(number)
            if windows is None:
                path, cells = window_file(self._run_folder, self._workers, number)
                if not path.exists():
                    continue
                windows = self._windows[number] = _Windows(SlotFile(path, cells), self._workers)
                windows.watch(scopes)
            elif fresh:
                windows.watch(scopes)
        if not self._money and any(self._run_folder.glob("money-*.slots")):
            self._money = [MoneyFile(self._run_folder, worker) for worker in range(self._workers)]

    def _tally(self, windows: _Windows, scope: Scope, second: int, month: int) -> Tally:
        owner = owner_of(scope.id)
        columns = windows.columns(scope.place)
        try:
            latest = max(int(column.cells[SECOND]) for column in columns)
            tally = Tally(latest, *used_by(columns, owner, second), month, self._spent(scope, owner, month))
        finally:
            for view in [view for column in columns for view in column]:
                view.release()
        return tally

    def _spent(self, scope: Scope, owner: float, month: int) -> float:
        if scope.budget is None:
            return 0.0
        peers = [Peer(file.record(scope.place), file.run) for file in self._money]
        spent = used_of(peers, owner, month)
        for peer in peers:
            peer.cells.release()
        return spent


class _Windows:
    """One file of windows, and the scopes in it."""

    def __init__(self, file: SlotFile, workers: int) -> None:
        self.file = file
        self._workers = workers
        self._scopes: list[Scope] = []
        self._slots: npt.NDArray[np.int64] = np.empty(0, np.int64)

    def watch(self, scopes: list[Scope]) -> None:
        """Look after these from now on."""
        self._scopes = scopes
        self._slots = np.array([scope.place % SLOTS_PER_FILE for scope in scopes], np.int64)

    def active(self, second: int) -> list[Scope]:
        """Those that may have been used in the last minute."""
        cells = np.frombuffer(self.file.map, np.float64, offset=HEADER * CELL)
        table = cells.reshape(self._workers, SLOTS_PER_FILE, RECORD)
        lately = (table[:, self._slots, SECOND] > second - WINDOW).any(axis=0)
        running = (table[:, self._slots, RUNNING] > 0).any(axis=0)
        del table, cells  # an array that is left would keep the file from being closed
        return [self._scopes[index] for index in np.flatnonzero(lately | running)]

    def columns(self, place: int) -> list[Column]:
        """The workers' records of a place; to be released."""
        cells = self.file.cells
        return [
            Column(cells[window_record(worker, place)], cells[worker : worker + 1]) for worker in range(self._workers)
        ]
