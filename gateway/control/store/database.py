"""One database behind an async engine: how it is opened, brought up to date, read, written, and how it fails.

`read` and `write` give a connection inside a transaction; there is one writer at a time. Whatever a driver raises
leaves here as a `StoreError`, told apart by codes and types, never by a message's words. What is SQLite's or
PostgreSQL's own stands in the module of that name.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Protocol

from sqlalchemy import Connection, inspect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from gateway.control.store import HEAD
from gateway.control.store.errors import StoreError, StoreUnavailable
from gateway.control.store.location import Location


class Driver(Protocol):
    """What differs between the kinds of database."""

    errors: tuple[type[Exception], ...]
    """What the driver itself raises."""
    read_options: Mapping[str, Any]
    """With these, all statements of a transaction see one state of the database."""

    def engine(self) -> AsyncEngine: ...

    async def begin_write(self, connection: AsyncConnection) -> None: ...

    async def stamp(self) -> object: ...

    async def close(self) -> None: ...

    def translate(self, error: BaseException | None) -> StoreError: ...


class Database:
    """An open database whose schema is the newest."""

    def __init__(self, location: Location, busy_seconds: float) -> None:
        self.location = location
        self._driver = _driver(location, busy_seconds)
        self._engine = engine = self._driver.engine()
        self._reading = engine.execution_options(**self._driver.read_options)
        self._writing = engine.execution_options(writing=True)

    @classmethod
    async def open(cls, location: Location, *, create: bool = True, busy_seconds: float = 5.0) -> Database:
        """Connect, and create or migrate the schema as needed.

        `busy_seconds` is how long any one statement waits for another process's lock. `create` makes a SQLite file; a
        PostgreSQL database must be there. Raises StoreError.
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
        await self._driver.close()
        await self._engine.dispose()

    @contextlib.asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection for statements that see one state of the database."""
        with self._translated():
            async with self._reading.connect() as connection, connection.begin():
                yield connection

    @contextlib.asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A connection for statements that are done together or not at all, after those of any other writer."""
        with self._translated():
            async with self._writing.connect() as connection, connection.begin():
                await self._driver.begin_write(connection)
                yield connection

    async def stamp(self) -> object:
        """A value that differs from an earlier one when something may have been written since; cheap.

        Raises StoreMissing or StoreReplaced when this is not the database any more that its name means.
        """
        with self._translated():
            return await self._driver.stamp()

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
            raise self._driver.translate(error.orig) from error
        except self._driver.errors as error:
            raise self._driver.translate(error) from error
        except (OSError, TimeoutError, PoolTimeout) as error:  # refused, unreachable, too slow
            reason = str(error) or type(error).__name__
            raise StoreUnavailable(f"the store {self.location} cannot be reached ({reason})") from error


def _driver(location: Location, busy_seconds: float) -> Driver:
    if location.path is not None:
        from gateway.control.store.sqlite import SQLite

        return SQLite(location, busy_seconds)
    from gateway.control.store.postgres import Postgres  # 0.1 s, for those who have one

    return Postgres(location, busy_seconds)


def _current_version(connection: Connection) -> str | None:
    """The migration that the database stands at; None for an empty database."""
    tables = inspect(connection)
    if not tables.has_table("alembic_version"):
        return None
    return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
