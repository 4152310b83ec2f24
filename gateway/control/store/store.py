"""The store of the control plane: gateway keys and their teams, and what has changed since a revision.

It is the one owner of the rules about keys: how one is made, rotated, revoked and found, and which slot it has. It
keeps no key, only hashes. It knows nothing of workers; they learn of changes through the feed (`gateway.control.feed`).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import (
    ColumnElement,
    Double,
    Select,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    union_all,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.control import keys
from gateway.control.escalations import Escalations
from gateway.control.keys import KeyState
from gateway.control.store.access import Access
from gateway.control.store.configurations import Configurations
from gateway.control.store.database import Database
from gateway.control.store.errors import KeyAmbiguous, KeyNotActive, KeyNotFound
from gateway.control.store.location import Location
from gateway.control.store.paging import ALL, Page, newest_first, page_of
from gateway.control.store.records import Changes, KeyRecord, KeyScope, TeamUse, key_of, noted, record_of, scope_of
from gateway.control.store.revision import next_revision
from gateway.control.store.schema import deleted_keys, free_slots, gateway_keys, meta, teams
from gateway.control.store.spending import Spending
from gateway.control.store.teams import Teams
from gateway.control.store.trail import THE_GATEWAY, Actor, Trail, note
from gateway.control.store.users import Users
from gateway.key_usage import KeyUse
from gateway.secrets import Secret

SLOT_REST_SECONDS = 120.0
"""A slot is given to another key only after this: the marks of its last minute must have left the limits' window, and
what was used through it must have been counted."""


class NewKey(NamedTuple):
    """A key that was just made; `secret` is the key itself, seen only here."""

    record: KeyRecord
    secret: Secret


class Rotation(NamedTuple):
    """The key that takes over, and the old one as it is now."""

    new: NewKey
    old: KeyRecord


class KeyFilter(NamedTuple):
    """Which keys to list. `search` is part of a name, prefix, owner or id, in upper or lower case."""

    state: KeyState | None = None
    team: str | None = None
    owner: str | None = None
    configuration_id: str | None = None
    search: str | None = None
    owner_id: str | None = None


class Store:
    """An open store. Methods raise StoreError, and then nothing was changed. Times are Unix seconds."""

    def __init__(self, database: Database, store_id: str, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock
        self.id = store_id

    @classmethod
    async def open(
        cls, url: str, *, create: bool = True, busy_seconds: float = 5.0, clock: Callable[[], float] = time.time
    ) -> Store:
        """Open the store that `url` (or a path) names, make it if there is none and `create`, and migrate it."""
        database = await Database.open(Location(url), create=create, busy_seconds=busy_seconds)
        async with database.read() as connection:
            store_id: str = (await connection.execute(select(meta.c.store_id))).scalar_one()
        return cls(database, store_id, clock)

    @property
    def location(self) -> Location:
        """Where it is."""
        return self._database.location

    @property
    def escalations(self) -> Escalations:
        """The requests that wait for a person."""
        return Escalations(self._database, self._clock)

    @property
    def users(self) -> Users:
        """The people who sign in."""
        return Users(self._database, self._clock)

    @property
    def teams(self) -> Teams:
        """The teams."""
        return Teams(self._database, self._clock)

    @property
    def access(self) -> Access:
        """Sessions, access keys and one-time links."""
        return Access(self._database, self._clock)

    @property
    def configurations(self) -> Configurations:
        """Configurations that are kept here."""
        return Configurations(self._database, self._clock)

    @property
    def spending(self) -> Spending:
        """What was spent."""
        return Spending(self._database, self._clock)

    @property
    def trail(self) -> Trail:
        """Who changed what."""
        return Trail(self._database, self._clock)

    async def close(self) -> None:
        """Close all connections; idempotent."""
        await self._database.close()

    async def create_key(
        self,
        scope: KeyScope,
        *,
        expires_at: float | None = None,
        owner_id: str | None = None,
        actor: Actor = THE_GATEWAY,
    ) -> NewKey:
        """Make a key. Its team is made too if there is none of that name."""
        async with self._database.write() as connection:
            revision = await next_revision(connection)
            new = await self._insert(connection, revision, scope, expires_at, owner_id, actor.name)
            await self._note(connection, actor, "gateway_key.create", None, new.record)
            return new

    async def list_keys(self, wanted: KeyFilter = KeyFilter(), page: Page = ALL) -> list[KeyRecord]:  # noqa: B008
        """The keys that a filter lets through, newest first."""
        at, id = gateway_keys.c.created_at, gateway_keys.c.id
        query = page_of(_select_keys().where(*_conditions(wanted, self._clock())), page, at, id)
        async with self._database.read() as connection:
            rows = await connection.execute(newest_first(query, at, id))
            return [record_of(row) for row in rows.mappings()]

    async def get_key(self, reference: str) -> KeyRecord:
        """The key of this id, name or prefix (twelve characters), or of the key itself. Of several keys of one name
        the only active one that has no successor is meant. Raises KeyNotFound or KeyAmbiguous."""
        async with self._database.read() as connection:
            return await self._find(connection, reference)

    async def rotate_key(
        self,
        reference: str,
        overlap_seconds: float,
        *,
        expires_at: float | None = None,
        actor: Actor = THE_GATEWAY,
    ) -> Rotation:
        """Make a key with the same scope in place of this one, which stays good for `overlap_seconds` at most.

        The new key expires at `expires_at`, by default after as long a life as the old one had. Raises KeyNotActive.
        """
        async with self._database.write() as connection:
            revision = await next_revision(connection)
            old = await self._find(connection, reference)
            now = self._clock()
            _require_rotatable(old, now)
            if expires_at is None and old.key.expires_at is not None:
                expires_at = now + old.key.expires_at - old.key.created_at
            new = await self._insert(connection, revision, scope_of(old.key), expires_at, old.owner_id, actor.name)
            end = now + overlap_seconds
            if old.key.expires_at is not None:
                end = min(end, old.key.expires_at)
            await _change(connection, old.key.id, revision, expires_at=end, rotated_to=new.record.key.id)
            ending = await self._find(connection, old.key.id)
            await self._note(connection, actor, "gateway_key.rotate", old, ending)
            await self._note(connection, actor, "gateway_key.create", None, new.record)
            return Rotation(new, ending)

    async def revoke_key(self, reference: str, actor: Actor = THE_GATEWAY) -> KeyRecord:
        """End a key now. A key that was revoked before stays as it is."""
        async with self._database.write() as connection:
            record = await self._find(connection, reference)
            if record.key.revoked_at is not None:
                return record
            revision = await next_revision(connection)
            now = self._clock()
            await _release_slots(connection, gateway_keys.c.id == record.key.id, now, revision)
            await _change(connection, record.key.id, revision, revoked_at=now)
            revoked = await self._find(connection, record.key.id)
            await self._note(connection, actor, "gateway_key.revoke", record, revoked)
            return revoked

    async def revoke_keys_of(self, owner_id: str, actor: Actor) -> list[KeyRecord]:
        """End all good keys of a user now; those that were ended."""
        good = [one.key.id for one in await self.list_keys(KeyFilter(KeyState.ACTIVE, owner_id=owner_id))]
        return [await self.revoke_key(id, actor) for id in good]

    async def delete_key(self, reference: str, actor: Actor = THE_GATEWAY) -> KeyRecord:
        """Forget a key, good or not; the record is what it was. `revision` in it is the one of the deletion."""
        async with self._database.write() as connection:
            record = await self._find(connection, reference)
            revision = await next_revision(connection)
            now = self._clock()
            await _release_slots(connection, gateway_keys.c.id == record.key.id, now, revision)
            await connection.execute(delete(gateway_keys).where(gateway_keys.c.id == record.key.id))
            row = {"id": record.key.id, "deleted_at": now, "revision": revision}
            await connection.execute(insert(deleted_keys).values(row))
            await self._note(connection, actor, "gateway_key.delete", record, None)
            return msgspec.structs.replace(record, revision=revision)

    async def stamp(self) -> object:
        """A value that differs from an earlier one when something may have changed since. Raises StoreReplaced."""
        return await self._database.stamp()

    async def changes_since(self, revision: int) -> Changes:
        """What has changed after `revision`; from 0, all keys there are."""
        async with self._database.read() as connection:
            now = (await connection.execute(select(meta.c.store_id, meta.c.revision))).one()
            rows = await connection.execute(_select_keys().where(gateway_keys.c.revision > revision))
            found = [key_of(row) for row in rows.mappings()]
            gone: list[str] = []
            if revision > 0:
                query = select(deleted_keys.c.id).where(deleted_keys.c.revision > revision)
                gone = list((await connection.execute(query)).scalars())
            return Changes(now.store_id, now.revision, found, gone)

    async def touch(self, used: Mapping[str, KeyUse]) -> None:
        """Add to the counts of keys, by id. It is no change that gateways must know: the revision stays."""
        if not used:
            return
        last = gateway_keys.c.last_used_at
        used_at = bindparam("used_at", type_=Double)
        statement = (
            update(gateway_keys)
            .where(gateway_keys.c.id == bindparam("key_id"))
            .values(
                request_count=gateway_keys.c.request_count + bindparam("requests"),
                last_used_at=case((or_(last.is_(None), last < used_at), used_at), else_=last),
            )
        )
        rows = [{"key_id": id, "requests": use.requests, "used_at": use.last_used_at} for id, use in used.items()]
        async with self._database.write() as connection:
            await connection.execute(statement, rows)

    async def _note(
        self, connection: AsyncConnection, actor: Actor, action: str, before: KeyRecord | None, after: KeyRecord | None
    ) -> None:
        key = (after or before).key  # type: ignore[union-attr]
        was, became = (None if one is None else noted(one) for one in (before, after))
        await note(connection, self._clock(), actor, action, key.id, key.name, was, became)

    async def _insert(
        self,
        connection: AsyncConnection,
        revision: int,
        scope: KeyScope,
        expires_at: float | None,
        owner_id: str | None,
        created_by: str | None,
    ) -> NewKey:
        now = self._clock()
        secret = keys.generate()
        id = f"gk_{secrets.token_hex(8)}"
        row = {
            "id": id,
            "hash": keys.hash_key(secret.reveal().encode()),
            "prefix": keys.shown_prefix(secret.reveal()),
            "name": scope.name,
            "slot": await _take_slot(connection, now, revision),
            "configuration_id": scope.configuration_id,
            "team_id": None if scope.team is None else await _team(connection, scope.team),
            "owner": scope.owner,
            "owner_id": owner_id,
            "models": None if scope.models is None else sorted(scope.models),
            "requests_per_minute": scope.requests_per_minute,
            "tokens_per_minute": scope.tokens_per_minute,
            "max_concurrency": scope.max_concurrency,
            "budget_usd_per_month": scope.budget_usd_per_month,
            "created_at": now,
            "created_by": created_by,
            "expires_at": expires_at,
            "revision": revision,
        }
        await connection.execute(insert(gateway_keys).values(row))
        return NewKey(await self._find(connection, id), secret)

    async def _find(self, connection: AsyncConnection, reference: str) -> KeyRecord:
        column = gateway_keys.c
        if keys.checksum_ok(reference):
            condition = column.hash == keys.hash_key(reference.encode())
        else:
            condition = or_(column.id == reference, column.name == reference, column.prefix == reference)
        rows = await connection.execute(_select_keys().where(condition))
        found = [record_of(row) for row in rows.mappings()]
        if len(found) > 1:
            now = self._clock()
            exact = [record for record in found if record.key.id == reference]
            active = [record for record in found if keys.state_of(record.key, now) is KeyState.ACTIVE]
            current = [record for record in active if record.rotated_to is None]
            found = exact or (current if len(current) == 1 else found)
        if not found:
            raise KeyNotFound(f"no gateway key has the id, name or prefix {keys.shown_prefix(reference)!r}")
        if len(found) > 1:
            ids = ", ".join(f"{record.key.id} ({record.key.prefix}…)" for record in found)
            raise KeyAmbiguous(f"{len(found)} gateway keys go by {reference!r}; name one by its id: {ids}")
        return found[0]


def _select_keys() -> Select[Any]:
    joined = gateway_keys.outerjoin(teams, gateway_keys.c.team_id == teams.c.id)
    limits = [teams.c[name].label(f"team_{name}") for name in ("slot", *TeamUse.__struct_fields__)]
    return select(gateway_keys, teams.c.name.label("team"), *limits).select_from(joined)


def _require_rotatable(record: KeyRecord, now: float) -> None:
    state = keys.state_of(record.key, now)
    if state is not KeyState.ACTIVE:
        raise KeyNotActive(f"gateway key {record.key.name!r} ({record.key.id}) is {state}; create a new one")
    if record.rotated_to is not None:
        message = f"gateway key {record.key.name!r} ({record.key.id}) was rotated already; rotate {record.rotated_to}"
        raise KeyNotActive(message)


def _conditions(wanted: KeyFilter, now: float) -> list[ColumnElement[bool]]:
    column = gateway_keys.c
    conditions: list[ColumnElement[bool]] = []
    if wanted.state is KeyState.REVOKED:
        conditions.append(column.revoked_at.is_not(None))
    elif wanted.state is KeyState.EXPIRED:
        conditions.append(and_(column.revoked_at.is_(None), column.expires_at <= now))
    elif wanted.state is KeyState.ACTIVE:
        conditions.append(column.revoked_at.is_(None))
        conditions.append(or_(column.expires_at.is_(None), column.expires_at > now))
    for value, where in (
        (wanted.team, teams.c.name),
        (wanted.owner, column.owner),
        (wanted.owner_id, column.owner_id),
        (wanted.configuration_id, column.configuration_id),
    ):
        if value is not None:
            conditions.append(where == value)
    if wanted.search:
        searched = (column.name, column.prefix, column.owner, column.id)
        conditions.append(or_(*(where.icontains(wanted.search, autoescape=True) for where in searched)))
    return conditions


async def _change(connection: AsyncConnection, id: str, revision: int, **values: object) -> None:
    await connection.execute(update(gateway_keys).where(gateway_keys.c.id == id).values(revision=revision, **values))


async def _team(connection: AsyncConnection, name: str) -> str:
    id = (await connection.execute(select(teams.c.id).where(teams.c.name == name))).scalar()
    if id is None:
        id = f"team_{secrets.token_hex(8)}"
        await connection.execute(insert(teams).values(id=id, name=name))
    return str(id)


async def _take_slot(connection: AsyncConnection, now: float, revision: int) -> int:
    """The lowest slot that nobody has had for a while, or a new one."""
    await _release_slots(connection, gateway_keys.c.expires_at <= now, now, revision)
    rested = select(func.min(free_slots.c.slot)).where(free_slots.c.free_since <= now - SLOT_REST_SECONDS)
    slot = (await connection.execute(rested)).scalar()
    if slot is not None:
        await connection.execute(delete(free_slots).where(free_slots.c.slot == slot))
        return int(slot)
    slots = union_all(select(gateway_keys.c.slot), select(free_slots.c.slot)).subquery()
    return int((await connection.execute(select(func.coalesce(func.max(slots.c.slot), -1)))).scalar_one()) + 1


async def _release_slots(
    connection: AsyncConnection, condition: ColumnElement[bool], now: float, revision: int
) -> None:
    """Take the slots of these keys away; each such key is changed by it."""
    owned = and_(condition, gateway_keys.c.slot.is_not(None))
    freed = select(gateway_keys.c.slot, literal(now, Double)).where(owned)
    await connection.execute(insert(free_slots).from_select(["slot", "free_since"], freed))
    await connection.execute(update(gateway_keys).where(owned).values(slot=None, revision=revision))
