"""The month of one key, team or configuration: what was spent, and what is held for requests that run.

Money is counted in whole nano-USD, as float64 cells which hold nine million dollars exactly. Each worker has a file
`money-<worker>.slots` and is its only writer; a budget is compared with what all workers of the machine have spent and
hold, and with what the control process says that others have spent (`gateway.allowances`). The file outlives the
worker, and the control process brings its sums into the store (`gateway.control.ledger`).

A request is admitted while anything is left after all that runs has cost the most it can. So a budget is overdrawn by
one request at most, and a request that may cost more than is left is not refused for what it may cost.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.allowances import PLACES, Allowance
from gateway.slots import CELL, SlotFile

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

RECORD: Final = 8
_OWNER, _RUN, _MONTH, _SPENT, _HELD, _LAST_MONTH, _LAST_SPENT = range(7)
_HEADER = 4096 // CELL
_RUNS, _LEDGER = 0, 1  # cells of the header


class Month(NamedTuple):
    """A calendar month in UTC: its number (`202611`), and when it ends (Unix seconds)."""

    number: int
    end: float


def month_of(now: float) -> Month:
    """The month of a moment in Unix seconds."""
    at = datetime.fromtimestamp(now, UTC)
    year, month = (at.year + 1, 1) if at.month == 12 else (at.year, at.month + 1)
    return Month(at.year * 100 + at.month, datetime(year, month, 1, tzinfo=UTC).timestamp())


class MoneyFile:
    """One worker's records, at the places of scopes."""

    def __init__(self, run_folder: Path, worker: int) -> None:
        """Raises OSError when the file cannot be made."""
        self._file = SlotFile(path_of(run_folder, worker), _HEADER + PLACES * RECORD)
        self._file.reserve(0, _HEADER)
        self.run = self._file.cells[_RUNS : _RUNS + 1]
        """How often a worker has begun to use this file."""

    def begin(self) -> None:
        """This process is the file's writer from now on."""
        if not self.ledger:
            self._file.cells[_LEDGER] = float(secrets.randbits(52) | 1)
        self.run[0] += 1.0

    @property
    def ledger(self) -> float:
        """The random number by which the store knows these sums from others; 0: nothing was ever counted."""
        return self._file.cells[_LEDGER]

    def table(self) -> npt.NDArray[np.float64]:
        """All records as an array, a row for each place. Nobody may hold it when the file is closed."""
        import numpy as np  # 80 ms, and workers do without

        return np.frombuffer(self._file.map, np.float64, PLACES * RECORD, _HEADER * CELL).reshape(PLACES, RECORD)

    def record(self, place: int, *, reserve: bool = False) -> memoryview[float]:
        """The record at a place. To be released before `close`. Raises OSError for a place beyond, or a full disk."""
        if not 0 <= place < PLACES:
            raise OSError(f"place {place} is beyond the table")
        first = _HEADER + place * RECORD
        if reserve:
            self._file.reserve(first, RECORD)
        return self._file.cells[first : first + RECORD]

    def close(self) -> None:
        """Unmap; idempotent."""
        self.run.release()
        self._file.close()


def path_of(run_folder: Path, worker: int) -> Path:
    """Where a worker's file is."""
    return run_folder / f"money-{worker}.slots"


class Peer(NamedTuple):
    """Another worker's record of the same scope; `run` is the cell that tells its present run."""

    cells: memoryview[float]
    run: memoryview[float]


class Purse:
    """This worker's record of one scope's money, mirrored in plain attributes, and what others have."""

    __slots__ = (
        "_allowance", "_cells", "_month", "_owner", "budget", "elsewhere", "end", "held", "peers", "second", "spent",
    )  # fmt: skip

    def __init__(
        self,
        owner: float,
        cells: memoryview[float],
        run: float,
        peers: tuple[Peer, ...],
        allowance: Allowance,
        now: float,
    ) -> None:
        """Go on with what the cells hold if it is about this scope, else begin anew."""
        if cells[_OWNER] != owner:
            cells[_OWNER] = 0.0
            cells[_RUN:] = memoryview(bytes((RECORD - _RUN) * CELL)).cast("d")
            cells[_OWNER] = owner
        if cells[_RUN] != run:  # what was held in an earlier life of this worker died with it
            cells[_HELD] = 0.0
            cells[_RUN] = run
        self.budget = inf
        self._owner = owner
        self._cells = cells
        self.peers = peers
        self._allowance = allowance
        self._month = int(cells[_MONTH])
        self.spent = cells[_SPENT]
        """What this worker has spent this month."""
        self.held = cells[_HELD]
        """What this worker holds."""
        self.end = 0.0
        """When the month ends."""
        self.elsewhere = 0.0
        """What others have spent this month, as far as was known at `second`."""
        self.second = 0
        self.look(int(now))

    def __repr__(self) -> str:
        return f"<Purse {self._month}: {self.spent:.0f} spent, {self.held:.0f} held of {self.budget:.0f}>"

    def look(self, second: int) -> None:
        """What changes once a second at most: the month, and what others have spent."""
        self.second = second
        if second >= self.end:
            self._turn(second)
        self.elsewhere = self._allowance.elsewhere(self._month)

    def used_here(self, now: float) -> tuple[float, float]:
        """What this machine has spent this month, and what it holds."""
        if int(now) != self.second:
            self.look(int(now))
        spent, held, month, owner = self.spent, self.held, self._month, self._owner
        for cells, run in self.peers:
            if cells[_OWNER] == owner:
                if cells[_MONTH] == month:
                    spent += cells[_SPENT]
                if cells[_RUN] == run[0]:
                    held += cells[_HELD]
        return spent, held

    def used(self, now: float) -> tuple[float, float]:
        """What all have spent this month, and what this machine holds. 0.3 µs with one worker."""
        spent, held = self.used_here(now)
        return spent + self.elsewhere, held

    def hold(self, amount: float) -> None:
        """Set money aside for a request."""
        self.held = self._cells[_HELD] = self.held + amount

    def settle(self, held: float, cost: float, now: float) -> None:
        """A request is over: what was set aside is free, and its cost is spent, in the month in which it ended."""
        if now >= self.end:
            self._turn(now)
        cells = self._cells
        if cost:
            self.spent = cells[_SPENT] = self.spent + cost
        self.held = cells[_HELD] = self.held - held

    def detach(self) -> None:
        """The place belongs to another scope now, or the file is closed: what still runs counts into the void."""
        shared, self._cells = self._cells, memoryview(bytearray(RECORD * CELL)).cast("d")
        self._cells[_OWNER] = self._owner
        peers, self.peers = self.peers, ()
        shared.release()
        for peer in peers:
            peer.cells.release()
        self._allowance.release()
        self._allowance = Allowance(memoryview(bytearray(RECORD * CELL)).cast("d"), self._owner)

    def _turn(self, now: float) -> None:
        """Begin a month, where it is another one. The last one's sum stays beside it until the store has it."""
        month = month_of(now)
        cells = self._cells
        # A clock that goes back does not undo a month: what was spent counts on in the later one.
        if month.number > self._month:
            if self._month:
                cells[_LAST_MONTH] = 0.0
                cells[_LAST_SPENT] = self.spent
                cells[_LAST_MONTH] = self._month
            self.spent = cells[_SPENT] = 0.0
            self.elsewhere = 0.0
            self._month = month.number
            cells[_MONTH] = self._month
        self.end = month.end


def used_of(peers: Iterable[Peer], owner: float, month: int) -> float:
    """What these workers have spent for a scope in a month, and hold."""
    used = 0.0
    for cells, run in peers:
        if cells[_OWNER] == owner:
            if cells[_MONTH] == month:
                used += cells[_SPENT]
            if cells[_RUN] == run[0]:
                used += cells[_HELD]
    return used


class Sum(NamedTuple):
    """What one worker has spent for one scope in one month."""

    month: int
    spent: int


def sums(cells: memoryview[float], owner: float) -> Iterable[Sum]:
    """What a record says, while its worker goes on; empty where it is about another scope."""
    if cells[_OWNER] != owner:
        return
    # Months are read first, since they are written last.
    for month_cell, spent_cell in ((_LAST_MONTH, _LAST_SPENT), (_MONTH, _SPENT)):
        month = int(cells[month_cell])
        spent = int(cells[spent_cell])
        if month and month == cells[month_cell]:
            yield Sum(month, spent)
