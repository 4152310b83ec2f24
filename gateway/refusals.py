"""Which of the requests that were not let in the audit log has: all of them, unless somebody floods.

Who has no key costs the gateway next to nothing, and must not be able to fill its disk. So records of refused keys have
a rate; what goes beyond it is counted, in a metric and, as soon as there is room for a record again, in the log itself,
which thus never says less than that so many were left out. It knows no request and no log.
"""

from __future__ import annotations

from typing import Final

BURST: Final = 200
"""Records at once: a client with a wrong key retries some times, and a fleet of them starts together."""
PER_SECOND: Final = 20.0
"""Records a second of one worker after that: about 1 GB a year, where a flood would write that in minutes."""


class Refusals:
    """A bucket of records, and how many refusals found it empty."""

    __slots__ = ("_at", "_room", "left_out")

    def __init__(self, now: float) -> None:
        """`now`, here and below, in seconds of a clock that never goes back."""
        self._room = float(BURST)
        self._at = now
        self.left_out = 0

    def __repr__(self) -> str:
        return f"<Refusals: room for {int(self._room)}, {self.left_out} left out>"

    def admit(self, now: float) -> bool:
        """Whether a refusal gets a record of its own; otherwise it is counted."""
        if self._take_room(now):
            return True
        self.left_out += 1
        return False

    def due(self, now: float) -> bool:
        """Whether it is time for a record that says how many were left out."""
        return self.left_out > 0 and self._take_room(now)

    def _take_room(self, now: float) -> bool:
        self._room = min(self._room + (now - self._at) * PER_SECOND, float(BURST))
        self._at = now
        if self._room < 1.0:
            return False
        self._room -= 1.0
        return True

    def take(self) -> int:
        """How many have been left out since the last record, which now says so."""
        count, self.left_out = self.left_out, 0
        return count
