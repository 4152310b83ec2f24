"""SQLite as the store: its file, its ways to fail, and how a change is noticed.

It runs in WAL mode, so readers never wait for a writer; writers come one after the other.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any, Final

import aiosqlite
from sqlalchemy import URL, Connection, event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from gateway.control.store.errors import (
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreReadOnly,
    StoreReplaced,
    StoreUnavailable,
)
from gateway.control.store.location import Location

# https://www.sqlite.org/rescode.html; the low byte is the primary code.
_ERRORS: Final[dict[int, tuple[type[StoreError], str]]] = {
    sqlite3.SQLITE_BUSY: (StoreLocked, "is locked by another process; try again, or find who holds it (`fuser`)"),
    sqlite3.SQLITE_LOCKED: (StoreLocked, "is locked; try again"),
    sqlite3.SQLITE_READONLY: (StoreReadOnly, "cannot be written: its file, folder or disk is read-only"),
    sqlite3.SQLITE_FULL: (StoreFull, "has no space left on its disk"),
    sqlite3.SQLITE_CANTOPEN: (StoreUnavailable, "cannot be opened; look at the permissions of its file and folder"),
    sqlite3.SQLITE_PERM: (StoreUnavailable, "cannot be opened: no permission"),
    sqlite3.SQLITE_IOERR: (StoreUnavailable, "cannot be read or written: its disk fails"),
    sqlite3.SQLITE_CORRUPT: (StoreDamaged, "is damaged; restore it from a backup"),
    sqlite3.SQLITE_NOTADB: (StoreDamaged, "is not a SQLite database"),
}


class SQLite:
    """One SQLite file."""

    errors: tuple[type[Exception], ...] = (sqlite3.Error,)
    read_options: Mapping[str, Any] = {}

    def __init__(self, location: Location, busy_seconds: float) -> None:
        self._location = location
        self._busy_seconds = busy_seconds
        self._file = self._identity()
        self._watch: aiosqlite.Connection | None = None

    def engine(self) -> AsyncEngine:
        """Connections to the file."""
        database = self._location.file_uri.partition("?")[0]
        url = URL.create("sqlite+aiosqlite", database=database, query={"mode": "rw", "uri": "true"})
        # Parameters are hidden from errors and logs: they would show who owns what.
        options = {"timeout": self._busy_seconds}
        engine = create_async_engine(url, hide_parameters=True, pool_size=2, max_overflow=2, connect_args=options)
        event.listen(engine.sync_engine, "connect", _prepare)
        event.listen(engine.sync_engine, "begin", _begin)
        return engine

    async def begin_write(self, connection: AsyncConnection) -> None:
        """Nothing is left to do: BEGIN IMMEDIATE has waited for the writer before this one."""

    async def stamp(self) -> object:
        """35 µs, where reading a row in a transaction costs 800: several hops to the driver's thread."""
        self._location.require()
        if self._identity() != self._file:
            raise StoreReplaced(f"another file has taken the place of the store {self._location}")
        if self._watch is None:
            self._watch = await aiosqlite.connect(self._location.file_uri, timeout=self._busy_seconds, uri=True)
        # https://www.sqlite.org/pragma.html#pragma_data_version: tells of commits by any other connection.
        return tuple(await self._watch.execute_fetchall("PRAGMA data_version"))

    async def close(self) -> None:
        """Close the connection of `stamp`; idempotent."""
        watch, self._watch = self._watch, None
        if watch is not None:
            await watch.close()

    def translate(self, error: BaseException | None) -> StoreError:
        """What a driver's error means to an operator."""
        code = getattr(error, "sqlite_errorcode", None)
        if code is not None and code & 0xFF in _ERRORS:
            kind, words = _ERRORS[code & 0xFF]
            return kind(f"the store {self._location} {words}")
        return StoreUnavailable(f"the store {self._location} refused a statement ({error})")

    def _identity(self) -> tuple[int, int] | None:
        """Which file it is, whatever its name; None where there is none."""
        assert self._location.path is not None
        try:
            found = self._location.path.stat()
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino


def _prepare(connection: Any, _: object) -> None:
    """Take transactions into our own hands (sqlite3 would not begin one for DDL), and set what SQLite leaves off."""
    connection.isolation_level = None
    cursor = connection.cursor()
    # FULL: a revocation that was reported as done must not be undone by a power cut.
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Connection) -> None:
    # A transaction that reads first and then writes fails at once, without waiting, if another wrote in between;
    # IMMEDIATE waits for its turn at the beginning.
    writing = connection.get_execution_options().get("writing", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")
