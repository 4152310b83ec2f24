"""PostgreSQL as the store: how it is reached, its ways to fail, and how a change is noticed.

The URL is read by asyncpg as libpq would read it, so `sslmode`, several hosts, `target_session_attrs`, PGPASSFILE and
the like mean what a database administrator expects. Writers come one after the other, as on SQLite, so that every rule
that holds there (revisions in their order, one key a slot) holds here: an advisory lock is each writer's first step.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any, Final

import asyncpg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from gateway.control.store.errors import (
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreMissing,
    StoreReadOnly,
    StoreUnavailable,
)
from gateway.control.store.location import Location

_WRITERS: Final = 0x6B742D73746F7265
"""The advisory lock's number: `kt-store`."""

_SLOW_SECONDS: Final = 30.0
"""A statement that takes longer fails; one that waits for a lock does so long before."""

# https://www.postgresql.org/docs/current/errcodes-appendix.html; a code, or the class it belongs to.
_ERRORS: Final[dict[str, tuple[type[StoreError], str]]] = {
    "55P03": (StoreLocked, "is locked by another session; try again, or find who holds it (`pg_locks`)"),
    "40001": (StoreLocked, "was changed by somebody else at the same moment; try again"),
    "40P01": (StoreLocked, "was changed by somebody else at the same moment; try again"),
    "25006": (StoreReadOnly, "cannot be written: it is read-only, perhaps a standby"),
    "42501": (StoreReadOnly, "does not permit it: its user lacks a privilege"),
    "53100": (StoreFull, "has no space left on its disk"),
    "53": (StoreUnavailable, "has too few resources: connections or memory"),
    "3D000": (StoreMissing, "does not exist; make the database first (`createdb`)"),
    "28": (StoreUnavailable, "does not accept the user or its password"),
    "57": (StoreUnavailable, "is shutting down or starting up"),
    "08": (StoreUnavailable, "cannot be reached"),
    "XX": (StoreDamaged, "is damaged; restore it from a backup"),
}


class Postgres:
    """One PostgreSQL database."""

    # ConnectionError and TimeoutError are OSErrors, which everybody looks for anyway.
    errors: tuple[type[Exception], ...] = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
    read_options: Mapping[str, Any] = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}

    def __init__(self, location: Location, busy_seconds: float) -> None:
        self._location = location
        self._busy_seconds = busy_seconds
        self._watch: asyncpg.Connection[Any] | None = None
        self._open: weakref.WeakSet[asyncpg.Connection[Any]] = weakref.WeakSet()

    def engine(self) -> AsyncEngine:
        """Connections to the database. One that a restart of the server has ended is noticed before it is used."""
        return create_async_engine(
            "postgresql+asyncpg://",
            async_creator=self._connect,
            hide_parameters=True,
            pool_size=2,
            max_overflow=2,
            pool_timeout=self._busy_seconds + _SLOW_SECONDS,
            pool_pre_ping=True,
        )

    async def begin_write(self, connection: AsyncConnection) -> None:
        """Wait for the writer before this one, for as long as a busy store may be waited for."""
        milliseconds = max(round(self._busy_seconds * 1000), 1)  # 0 would mean: for ever
        await connection.execute(text("SELECT set_config('lock_timeout', :limit, true)"), {"limit": str(milliseconds)})
        await connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _WRITERS})

    async def stamp(self) -> object:
        """0.3 ms on a connection of its own, without a transaction."""
        if self._watch is None or self._watch.is_closed():
            self._watch = await self._connect()
        row = await self._watch.fetchrow("SELECT store_id, revision FROM meta", timeout=self._busy_seconds)
        return None if row is None else tuple(row)

    async def close(self) -> None:
        """End all connections; idempotent. A polite goodbye would wait for a server that may be gone."""
        self._watch = None
        for connection in list(self._open):
            connection.terminate()

    def translate(self, error: BaseException | None) -> StoreError:
        """What a driver's error means to an operator."""
        code = getattr(error, "sqlstate", None) or ""
        found = _ERRORS.get(code) or _ERRORS.get(code[:2])
        if found is None:
            return StoreUnavailable(f"the store {self._location} refused a statement ({type(error).__name__}: {error})")
        kind, words = found
        return kind(f"the store {self._location} {words}")

    async def _connect(self) -> asyncpg.Connection[Any]:
        try:
            connection = await asyncpg.connect(
                self._location.url,
                timeout=self._busy_seconds + 1.0,
                command_timeout=_SLOW_SECONDS,
                server_settings={"application_name": "keeptrusts-gateway"},
            )
        except (ValueError, asyncpg.ClientConfigurationError):
            # Its words may repeat the URL, password and all.
            raise StoreUnavailable(f"the store's URL cannot be read: {self._location}") from None
        self._open.add(connection)
        return connection
