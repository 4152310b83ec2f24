"""The index's file: its tables, and how it is opened or begun anew.

An event's number is the microsecond in which it ended, shifted by ten bits, plus a tie-breaker: one integer that is row
id, order of time, filter by time and cursor of a page at once. Names (of keys, models, …) are numbered once in `names`.
The sums are kept twice for each minute, hour and day: in `totals` by one name at a time, which answers for everything
at once, and in `usage` by combinations of names (`series` numbers those that occur), which answers for a part of it.
"""

from __future__ import annotations

import contextlib
import enum
import os
import sqlite3
from pathlib import Path
from typing import Final

VERSION: Final = 1
"""Of the tables. A file of another version is thrown away and made anew from the log."""

TIE_BITS: Final = 10
"""So many events can end in one microsecond: 1,024."""

_MICROSECONDS: Final = 1_000_000


class Level(enum.IntEnum):
    """How long a time the sums of one row are of, in seconds."""

    MINUTE = 60
    HOUR = 3600
    DAY = 86_400


KEPT_SECONDS: Final = {Level.MINUTE: 2 * 86_400, Level.HOUR: 62 * 86_400, Level.DAY: 800 * 86_400}
"""How long the sums are kept."""

DIMENSIONS: Final = ("key", "team", "model", "target", "provider", "configuration", "status")
"""What the sums can be told apart by. All but `status` are numbers of names."""

ALTOGETHER: Final = len(DIMENSIONS)
"""The number of no dimension in `totals`; the others have their place in `DIMENSIONS`."""

MEASURES: Final = (
    "requests",
    "completed",
    "refused",
    "failed",
    "cancelled",
    "blocked",
    "redacted",
    "escalated",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "cost_usd",
)
"""What is summed up. `failed` counts truncated and interrupted exchanges too."""

FACETS: Final = ("key", "team", "model", "target", "provider", "configuration", "operation", "code", "policy")
"""Columns of an event that hold a number of a name and can be filtered by."""

EVENT_COLUMNS: Final = (
    "number",
    "request",
    *FACETS,
    "status",
    "outcome",
    "verdict",
    "asked",
    "started",
    "duration_us",
    "first_byte_us",
    "added_us",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "cost_usd",
    "attempts",
    "notes",
    "start_file",
    "start_offset",
    "finish_file",
    "finish_offset",
)

_INDEXED: Final = ("key", "team", "model", "target", "provider", "configuration", "code", "status", "request")

_TABLES: Final = f"""
CREATE TABLE files (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, offset INTEGER NOT NULL, done INTEGER NOT NULL);
CREATE TABLE begun (writer TEXT NOT NULL, file INTEGER NOT NULL, offset INTEGER NOT NULL,
                    PRIMARY KEY (file, offset)) WITHOUT ROWID;
CREATE TABLE names (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE);
CREATE TABLE facets (kind TEXT NOT NULL, name INTEGER NOT NULL, events INTEGER NOT NULL, last INTEGER NOT NULL,
                     PRIMARY KEY (kind, name)) WITHOUT ROWID;
CREATE TABLE events (number INTEGER PRIMARY KEY, request TEXT NOT NULL,
                     {" INTEGER NOT NULL, ".join(FACETS)} INTEGER NOT NULL,
                     status INTEGER NOT NULL, outcome INTEGER NOT NULL, verdict INTEGER NOT NULL, asked TEXT,
                     started INTEGER, duration_us INTEGER, first_byte_us INTEGER, added_us INTEGER,
                     prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
                     cached_tokens INTEGER NOT NULL, reasoning_tokens INTEGER NOT NULL, cost_usd REAL,
                     attempts INTEGER NOT NULL, notes INTEGER NOT NULL, start_file INTEGER, start_offset INTEGER,
                     finish_file INTEGER NOT NULL, finish_offset INTEGER NOT NULL);
CREATE INDEX events_class ON events (status / 100);
CREATE INDEX events_verdict ON events (verdict) WHERE verdict > 0;
CREATE INDEX events_policy ON events (policy) WHERE policy > 0;
CREATE INDEX events_outcome ON events (outcome) WHERE outcome > 0;
CREATE TABLE client_ids (text TEXT NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (text, number)) WITHOUT ROWID;
CREATE INDEX client_ids_number ON client_ids (number);
CREATE TABLE series (id INTEGER PRIMARY KEY, {" INTEGER NOT NULL, ".join(DIMENSIONS)} INTEGER NOT NULL,
                     UNIQUE ({", ".join(DIMENSIONS)}));
CREATE TABLE usage (level INTEGER NOT NULL, series INTEGER NOT NULL, bucket INTEGER NOT NULL,
                    {" REAL NOT NULL, ".join(MEASURES)} REAL NOT NULL,
                    PRIMARY KEY (level, series, bucket)) WITHOUT ROWID;
CREATE TABLE totals (level INTEGER NOT NULL, dimension INTEGER NOT NULL, bucket INTEGER NOT NULL, name INTEGER NOT NULL,
                     {" REAL NOT NULL, ".join(MEASURES)} REAL NOT NULL,
                     PRIMARY KEY (level, dimension, bucket, name)) WITHOUT ROWID;
CREATE TABLE verdicts (level INTEGER NOT NULL, bucket INTEGER NOT NULL, policy INTEGER NOT NULL,
                       verdict INTEGER NOT NULL, count INTEGER NOT NULL,
                       PRIMARY KEY (level, bucket, policy, verdict)) WITHOUT ROWID;
CREATE TABLE latencies (level INTEGER NOT NULL, bucket INTEGER NOT NULL, kind INTEGER NOT NULL, bin INTEGER NOT NULL,
                        count INTEGER NOT NULL, PRIMARY KEY (level, bucket, kind, bin)) WITHOUT ROWID;
CREATE TABLE gaps (at INTEGER NOT NULL, reason TEXT NOT NULL, records INTEGER, file INTEGER NOT NULL,
                   offset INTEGER NOT NULL, PRIMARY KEY (file, offset)) WITHOUT ROWID;
"""


def number_at(microseconds: int) -> int:
    """The lowest number of an event that ended at this time (Unix microseconds) or later."""
    return microseconds << TIE_BITS


def time_of(number: int) -> float:
    """When an event ended, in Unix seconds."""
    return (number >> TIE_BITS) / _MICROSECONDS


def open_for_writing(path: Path) -> sqlite3.Connection:
    """The index, made anew where there is none, where it is of another version, or where it is no database.

    Only one may write: whoever has the lock beside it (`ingest.Indexer`). Raises sqlite3.Error or OSError.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        connection = _open(path)
        if connection.execute("PRAGMA user_version").fetchone()[0] in (VERSION, 0):
            _prepare(connection)
            return connection
        connection.close()
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode not in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            raise
    remove(path)
    connection = _open(path)
    _prepare(connection)
    return connection


def nothing() -> sqlite3.Connection:
    """An index of no events, in memory: what is asked before the first one has been made."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(_TABLES)
    return connection


def open_for_reading(path: Path) -> sqlite3.Connection:
    """The index, to be asked by one thread at a time. Raises sqlite3.OperationalError where there is none."""
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, check_same_thread=False, isolation_level=None)
    connection.execute("PRAGMA busy_timeout = 2000")
    connection.execute("PRAGMA cache_size = -32768")
    connection.execute("PRAGMA mmap_size = 1073741824")
    return connection


def remove(path: Path) -> None:
    """Throw the index away."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _open(path: Path) -> sqlite3.Connection:
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    return sqlite3.connect(path, check_same_thread=False, isolation_level=None)


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA busy_timeout = 5000")
    connection.execute("PRAGMA cache_size = -65536")
    if connection.execute("PRAGMA user_version").fetchone()[0] == VERSION:
        return
    indices = "".join(f"CREATE INDEX events_{column} ON events ({column});" for column in _INDEXED)
    connection.executescript(f"BEGIN; {_TABLES} {indices} PRAGMA user_version = {VERSION}; COMMIT;")
