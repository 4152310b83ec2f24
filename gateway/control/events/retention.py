"""What the index lets go: events whose segments are gone or that are too many, and sums that are too old.

A few thousand rows a step, so that a reader never waits long for the writer.
"""

from __future__ import annotations

import contextlib
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from gateway.audit.segments import names_in
from gateway.control.events.schema import KEPT_SECONDS, number_at

KEPT_EVENTS: Final = 2_000_000
"""How many events the index keeps; those before are in the log, for as long as its retention says."""
_ROWS: Final = 5_000


def retire(connection: sqlite3.Connection, folder: Path, now: float, *, kept: int = KEPT_EVENTS) -> bool:
    """Delete some of what is to go. True: there may be more of it. Raises sqlite3.Error."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        deleted = _events_before(connection, _first_number(connection, folder, kept))
        for level, seconds in KEPT_SECONDS.items():
            for table in ("usage", "totals", "verdicts", "latencies"):
                before = int(now) - seconds
                connection.execute(f"DELETE FROM {table} WHERE level = ? AND bucket < ?", (level, before))  # noqa: S608
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
    return deleted == _ROWS


def _first_number(connection: sqlite3.Connection, folder: Path, kept: int) -> int:
    """The number of the first event that stays."""
    with contextlib.suppress(FileNotFoundError):
        dates = [name.date for name in names_in(folder)]
        oldest = min(dates, default="1970-01-01")
        midnight = int(datetime.fromisoformat(oldest).replace(tzinfo=UTC).timestamp())
        query = "SELECT number FROM events ORDER BY number DESC LIMIT 1 OFFSET ?"
        surplus = connection.execute(query, (kept,)).fetchone()
        return max(number_at(midnight * 1_000_000), surplus[0] + 1 if surplus else 0)
    return 0


def _events_before(connection: sqlite3.Connection, number: int) -> int:
    rows = connection.execute("SELECT number FROM events WHERE number < ? ORDER BY number LIMIT ?", (number, _ROWS))
    numbers = rows.fetchall()
    connection.executemany("DELETE FROM client_ids WHERE number = ?", numbers)
    connection.executemany("DELETE FROM events WHERE number = ?", numbers)
    return len(numbers)
