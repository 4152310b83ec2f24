"""One database behind an async engine: how it is opened, brought up to date, read, written, and how it fails.

`read` and `write` give a connection inside a transaction. Whatever a driver raises leaves here as a `StoreError`, told
apart by codes and types, never by a message's words. SQLite runs in WAL mode: readers never wait for a writer.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import aiosqlite
from sqlalchemy import URL, Connection, event, inspect, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from gateway.control.store import HEAD
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
_SQLITE_ERRORS: Final[dict[int, tuple[type[StoreError], str]]] = {
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


class Database:
    """An open database whose schema is the newest."""

    def __init__(self, location: Location, busy_seconds: float) -> None:
        self.location = location
        self._busy_seconds = busy_seconds
        self._engine = engine = _engine(location, busy_seconds)
        self._writing = engine.execution_options(writing=True)
        self._file = _identity(location)
        self._watch: aiosqlite.Connection | None = None

    @classmethod
    async def open(cls, location: Location, *, create: bool = True, busy_seconds: float = 5.0) -> Database:
        """Connect, and create or migrate the schema as needed.

        `busy_seconds` is how long any one statement waits for another process's lock. Raises StoreError.
        """
        if create:
            location.create()
        location.require()
        database = cls(location, busy_seconds)
        try:
            await database._bring_up_to_date()
        except BaseException:
            await database.close()
            raise
        return database

    async def close(self) -> None:
        """Give all connections back; idempotent."""
        if self._watch is not None:
            await self._watch.close()
            self._watch = None
        await self._engine.dispose()

    @contextlib.asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection for statements that see one state of the database."""
        with self._translated():
            async with self._engine.connect() as connection, connection.begin():
                yield connection

    @contextlib.asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A connection for statements that are done together or not at all."""
        with self._translated():
            async with self._writing.connect() as connection, connection.begin():
                yield connection

    async def stamp(self) -> object:
        """A value that differs from an earlier one when something may have been written since.

        On SQLite it costs 35 µs, where reading a row in a transaction costs 800: several hops to the driver's thread.
        Raises StoreMissing or StoreReplaced when this is not the database any more that its name means.
        """
        if self.location.path is None:
            return object()
        self.location.require()
        if _identity(self.location) != self._file:
            raise StoreReplaced(f"another file has taken the place of the store {self.location}")
        with self._translated():
            if self._watch is None:
                self._watch = await aiosqlite.connect(self.location.file_uri, timeout=self._busy_seconds, uri=True)
            # https://www.sqlite.org/pragma.html#pragma_data_version: tells of commits by any other connection.
            return tuple(await self._watch.execute_fetchall("PRAGMA data_version"))

    async def _bring_up_to_date(self) -> None:
        async with self.read() as connection:
            current = await connection.run_sync(_current_version)
        if current == HEAD:
            return
        # What Alembic says of itself is for its developers; warnings still come through.
        logging.getLogger("alembic").setLevel(logging.WARNING)
        from gateway.control.store.migrate import upgrade  # 160 ms, and seldom needed

        async with self.write() as connection:
            await connection.run_sync(upgrade, str(self.location))

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise self._translate(error.orig) from error
        except sqlite3.Error as error:
            raise self._translate(error) from error
        except (OSError, TimeoutError) as error:  # asyncpg: refused, unreachable, too slow
            raise StoreUnavailable(f"the store {self.location} cannot be reached ({error})") from error

    def _translate(self, error: BaseException | None) -> StoreError:
        code = getattr(error, "sqlite_errorcode", None)
        if code is not None and code & 0xFF in _SQLITE_ERRORS:
            kind, words = _SQLITE_ERRORS[code & 0xFF]
            return kind(f"the store {self.location} {words}")
        return StoreUnavailable(f"the store {self.location} refused a statement ({error})")


def _identity(location: Location) -> tuple[int, int] | None:
    """Which file it is, whatever its name; None for a server, or where there is none."""
    if location.path is None:
        return None
    try:
        found = location.path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _engine_url(location: Location) -> URL:
    if location.path is not None:
        database = location.file_uri.partition("?")[0]
        return URL.create("sqlite+aiosqlite", database=database, query={"mode": "rw", "uri": "true"})
    try:
        return make_url(location.url).set(drivername="postgresql+asyncpg")
    except (ArgumentError, ValueError):  # ValueError: a port that is no number
        raise StoreUnavailable(f"the store's URL cannot be read: {location}") from None


def _engine(location: Location, busy_seconds: float) -> AsyncEngine:
    options = {"timeout": busy_seconds}  # the same word for both drivers: for a lock, and for a connection
    try:
        # Parameters are hidden from errors and logs: they would show who owns what.
        engine = create_async_engine(
            _engine_url(location), hide_parameters=True, pool_size=2, max_overflow=2, connect_args=options
        )
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise StoreUnavailable(f"the store {location} needs a driver that is not installed ({error})") from error
    if location.path is not None:
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _: object) -> None:
    """Take transactions into our own hands (sqlite3 would not begin one for DDL), and set what SQLite leaves off."""
    connection.isolation_level = None
    cursor = connection.cursor()
    # FULL: a revocation that was reported as done must not be undone by a power cut.
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and then writes fails at once, without waiting, if another wrote in between;
    # IMMEDIATE waits for its turn at the beginning.
    writing = connection.get_execution_options().get("writing", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


def _current_version(connection: Connection) -> str | None:
    """The migration that the database stands at; None for an empty database."""
    tables = inspect(connection)
    if not tables.has_table("alembic_version"):
        return None
    return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
