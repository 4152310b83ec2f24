"""Configurations that are kept in the store: their versions, and which one is in force.

A version never changes: to go back is to put an earlier number in force, and to edit is to add one. What a version says
is not looked at here; whoever stores one has checked it. A configuration that is released goes back to its file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.control.store.database import Database
from gateway.control.store.errors import VersionChanged, VersionNotFound
from gateway.control.store.paging import ALL, Page
from gateway.control.store.revision import next_revision
from gateway.control.store.schema import configuration_versions, configurations
from gateway.control.store.trail import Actor, note


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a configuration. `created_at` is in Unix seconds."""

    configuration_id: str
    number: int
    text: str
    author: str
    note: str
    created_at: float


class Configurations:
    """The configurations of one store. Methods raise StoreError, and then nothing was changed."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    async def in_force(self) -> list[Version]:
        """The version in force of each configuration that is kept here, by id."""
        own, versions = configurations.c, configuration_versions.c
        joined = configuration_versions.join(
            configurations, (own.id == versions.configuration_id) & (own.number == versions.number)
        )
        query = select(configuration_versions).select_from(joined).order_by(own.id)
        async with self._database.read() as connection:
            return [_version(row) for row in (await connection.execute(query)).mappings()]

    async def numbers(self) -> dict[str, int]:
        """The number in force of each configuration that is kept here: cheap, to see whether anything is new."""
        async with self._database.read() as connection:
            rows = await connection.execute(select(configurations.c.id, configurations.c.number))
            return {row.id: row.number for row in rows}

    async def versions(self, id: str, page: Page = ALL) -> list[Version]:
        """The versions of a configuration, newest first. A page goes on below the number in its place's `at`."""
        column = configuration_versions.c
        query = select(configuration_versions).where(column.configuration_id == id).order_by(column.number.desc())
        if page.after is not None:
            query = query.where(column.number < int(page.after.at))
        if page.limit is not None:
            query = query.limit(page.limit)
        async with self._database.read() as connection:
            return [_version(row) for row in (await connection.execute(query)).mappings()]

    async def version(self, id: str, number: int | None = None) -> Version:
        """A version, or the one in force. Raises VersionNotFound."""
        async with self._database.read() as connection:
            return await _get(connection, id, number)

    async def add(self, id: str, text: str, remark: str, *, expected: int, actor: Actor) -> Version:
        """Add a version and put it in force. `expected` is the number in force that the author has seen, 0 for none.

        Raises VersionChanged where it is another one by now.
        """
        now = self._clock()
        column = configuration_versions.c
        async with self._database.write() as connection:
            await next_revision(connection)
            await _require(connection, id, expected)
            last = select(func.coalesce(func.max(column.number), 0)).where(column.configuration_id == id)
            number = int((await connection.execute(last)).scalar_one()) + 1
            row = {
                "configuration_id": id,
                "number": number,
                "text": text,
                "author": actor.name,
                "note": remark,
                "created_at": now,
            }
            await connection.execute(insert(configuration_versions).values(row))
            await _put_in_force(connection, id, number, expected, now)
            before = {"number": expected} if expected else None
            after = {"number": number, "note": remark or None}
            await note(connection, now, actor, "configuration.update", id, id, before, after)
            return await _get(connection, id, number)

    async def put_in_force(self, id: str, number: int, *, expected: int, actor: Actor) -> Version:
        """Put an earlier, or a later, version in force. Raises VersionNotFound or VersionChanged."""
        now = self._clock()
        async with self._database.write() as connection:
            await next_revision(connection)
            version = await _get(connection, id, number)
            await _require(connection, id, expected)
            await _put_in_force(connection, id, number, expected, now)
            before, after = {"number": expected}, {"number": number}
            await note(connection, now, actor, "configuration.roll_back", id, id, before, after)
            return version

    async def release(self, id: str, *, expected: int, actor: Actor) -> None:
        """Keep it here no longer: its file holds again, or nothing. The versions stay. Raises VersionChanged."""
        now = self._clock()
        async with self._database.write() as connection:
            await next_revision(connection)
            await _require(connection, id, expected)
            if not expected:
                raise VersionNotFound(f"the configuration {id!r} is not kept in the store")
            await connection.execute(delete(configurations).where(configurations.c.id == id))
            await note(connection, now, actor, "configuration.release", id, id, {"number": expected}, None)


async def _put_in_force(connection: AsyncConnection, id: str, number: int, before: int, now: float) -> None:
    if before:
        statement = update(configurations).where(configurations.c.id == id).values(number=number, changed_at=now)
        await connection.execute(statement)
    else:
        await connection.execute(insert(configurations).values(id=id, number=number, changed_at=now))


async def _require(connection: AsyncConnection, id: str, expected: int) -> None:
    current = (await connection.execute(select(configurations.c.number).where(configurations.c.id == id))).scalar() or 0
    if current != expected:
        raise VersionChanged(f"version {current} of the configuration {id!r} is in force, not {expected}")


async def _get(connection: AsyncConnection, id: str, number: int | None) -> Version:
    column = configuration_versions.c
    query = select(configuration_versions).where(column.configuration_id == id)
    if number is None:
        number = (await connection.execute(select(configurations.c.number).where(configurations.c.id == id))).scalar()
    row = (await connection.execute(query.where(column.number == number))).mappings().first()
    if row is None:
        raise VersionNotFound(f"the store has no version {number} of the configuration {id!r}")
    return _version(row)


def _version(row: Mapping[Any, Any]) -> Version:
    return Version(**{name: row[name] for name in Version.__struct_fields__})
