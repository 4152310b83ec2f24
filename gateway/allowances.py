"""What the control process tells the workers of their machine about limits: one record of float64 cells per scope.

A record says what others have spent of a budget this month, and, where nodes share their limits through Redis, how much
this machine may use until the next word from there (`gateway.control.sharing`). The control process is the only writer;
a worker reads on the way of a request and never waits. A page at the beginning says whether limits are shared at all,
when that was last so, and what holds when it is not.
"""

from __future__ import annotations

import enum
from math import inf
from pathlib import Path
from typing import Final, NamedTuple

from gateway.slots import CELL, SlotFile

KEY_PLACES: Final = 1 << 20
TEAM_PLACES: Final = 1 << 16
CONFIGURATION_PLACES: Final = 1 << 12
FIRST_TEAM: Final = KEY_PLACES
FIRST_CONFIGURATION: Final = FIRST_TEAM + TEAM_PLACES
PLACES: Final = FIRST_CONFIGURATION + CONFIGURATION_PLACES
"""A key's place is its slot; teams and configurations come behind. A place beyond counts for nobody else."""

FRESH_SECONDS: Final = 3.0
"""Limits that were not shared for so long are not shared: the control process, or Redis, is away."""

WAKE_SHARE: Final = 16
WAKE_MONEY_SHARE: Final = 64
"""What a machine may use of a limit, and of a budget, before it has heard what others use: one part of so many."""

_MODE, _AT, _AWAY = range(3)
_HEADER = 4096 // CELL

RECORD: Final = 8
_OWNER, _MONTH, _ELSEWHERE, _REQUESTS, _TOKENS, _RUNNING, _MONEY, _GRANTED = range(RECORD)


class Mode(enum.IntEnum):
    """How limits hold across machines."""

    OWN = 0
    """Each machine counts for itself."""
    SHARED = 1
    """Machines share them through Redis."""


class WhenAway(enum.IntEnum):
    """What holds while limits are to be shared and cannot be."""

    LOCAL = 0
    """Each machine counts for itself."""
    ALLOW = 1
    """Rates and concurrency are not limited."""
    REFUSE = 2
    """What is limited is refused."""


class Caps(NamedTuple):
    """The most that this machine's own use may come to: in the window, at the same time, in the month."""

    requests: float
    tokens: float
    running: float
    money: float


NO_CAPS: Final = Caps(inf, inf, inf, inf)


class Allowances:
    """The file, mapped by the control process and by each worker."""

    def __init__(self, run_folder: Path) -> None:
        """Raises OSError when the file cannot be made."""
        self._file = SlotFile(run_folder / "allowances.slots", _HEADER + PLACES * RECORD)
        self._file.reserve(0, _HEADER)
        self.header = self._file.cells[:_HEADER]

    def record(self, place: int) -> memoryview[float]:
        """The record at a place. To be released before `close`."""
        if not 0 <= place < PLACES:
            raise OSError(f"place {place} is beyond the table")
        first = _HEADER + place * RECORD
        self._file.reserve(first, RECORD)
        return self._file.cells[first : first + RECORD]

    def close(self) -> None:
        """Unmap; idempotent."""
        self.header.release()
        self._file.close()

    # The control process

    def tell_mode(self, mode: Mode, away: WhenAway, now: float) -> None:
        """Say how limits hold, as of `now`."""
        self.header[_AWAY] = away
        self.header[_AT] = now
        self.header[_MODE] = mode

    # Workers

    def away(self, now: float) -> WhenAway | None:
        """What holds because limits cannot be shared; None: they are."""
        header = self.header
        return None if now - header[_AT] < FRESH_SECONDS else WhenAway(int(header[_AWAY]))


class Allowance:
    """One scope's record, as either side sees it."""

    __slots__ = ("_cells", "_owner")

    def __init__(self, cells: memoryview[float], owner: float) -> None:
        self._cells = cells
        self._owner = owner

    def elsewhere(self, month: int) -> float:
        """What others have spent in a month, in nano-USD, as far as is known here."""
        cells = self._cells
        return cells[_ELSEWHERE] if cells[_MONTH] == month and cells[_OWNER] == self._owner else 0.0

    def caps(self) -> Caps | None:
        """What this machine was granted; None: nothing was heard yet."""
        cells = self._cells
        if cells[_OWNER] != self._owner or not cells[_GRANTED]:
            return None
        return Caps(cells[_REQUESTS], cells[_TOKENS], cells[_RUNNING], cells[_MONEY])

    def tell_elsewhere(self, month: int, spent: float) -> None:
        """Say what others have spent. A reader in between sees the old month or nothing, never a wrong sum."""
        self._own()
        cells = self._cells
        if cells[_MONTH] != month:
            cells[_MONTH] = 0.0
        cells[_ELSEWHERE] = spent
        cells[_MONTH] = month

    def grant(self, caps: Caps) -> None:
        """Say what this machine may use."""
        self._own()
        cells = self._cells
        cells[_REQUESTS], cells[_TOKENS], cells[_RUNNING], cells[_MONEY] = caps
        cells[_GRANTED] = 1.0

    def withdraw(self) -> None:
        """Nothing is granted any more."""
        if self._cells[_OWNER] == self._owner:
            self._cells[_GRANTED] = 0.0

    def release(self) -> None:
        """No more reading or writing."""
        self._cells.release()

    def _own(self) -> None:
        """The record may be of the scope that had the place before."""
        cells = self._cells
        if cells[_OWNER] != self._owner:
            cells[_OWNER] = 0.0
            cells[_MONTH:] = memoryview(bytes((RECORD - _MONTH) * CELL)).cast("d")
            cells[_OWNER] = self._owner
