"""The teams: who belongs together, and what a key of theirs may have at most.

The rules say what a member may ask for when they make a key by themselves. They change nothing about keys that there
are, and do not bind those who may manage all keys.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy import Select, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.control.store.database import Database
from gateway.control.store.errors import NameTaken, StillInUse, TeamNotFound
from gateway.control.store.paging import ALL, Page
from gateway.control.store.records import KeyRules, TeamUse
from gateway.control.store.revision import next_revision
from gateway.control.store.schema import gateway_keys, memberships, teams
from gateway.control.store.trail import Actor, note


class Team(msgspec.Struct, frozen=True, kw_only=True):
    """A team. `limits` is what all its keys together may use; `members` and `keys` are how many there are; times are
    Unix seconds, None for teams of old."""

    id: str
    name: str
    description: str
    key_rules: KeyRules
    created_at: float | None
    members: int
    keys: int
    limits: TeamUse = TeamUse()


class TeamChange(msgspec.Struct, frozen=True, kw_only=True):
    """What to change of a team; what is unset stays."""

    name: str | UnsetType = UNSET
    description: str | UnsetType = UNSET
    key_rules: KeyRules | UnsetType = UNSET
    limits: TeamUse | UnsetType = UNSET


class Teams:
    """The teams of one store. Methods raise StoreError, and then nothing was changed."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    async def create(
        self,
        name: str,
        description: str,
        rules: KeyRules,
        actor: Actor,
        limits: TeamUse = TeamUse(),  # noqa: B008 (immutable)
    ) -> Team:
        """Make a team. Raises NameTaken."""
        now = self._clock()
        row: dict[str, Any] = {
            "id": f"team_{secrets.token_hex(8)}",
            "name": name,
            "description": description,
            "key_rules": msgspec.to_builtins(rules),
            "created_at": now,
            **msgspec.structs.asdict(limits),
        }
        async with self._database.write() as connection:
            row["slot"] = await _slot(connection, row["id"])
            await _store(connection, insert(teams).values(row), name)
            team = await _get(connection, row["id"])
            await note(connection, now, actor, "team.create", team.id, team.name, None, _shown(team))
            return team

    async def get(self, reference: str) -> Team:
        """The team of this id or name. Raises TeamNotFound."""
        async with self._database.read() as connection:
            return await _get(connection, reference)

    async def search(self, *, search: str | None = None, member: str | None = None, page: Page = ALL) -> list[Team]:
        """Teams by name; `member` is a user's id. A page goes on after the name in its place's `id`."""
        query = _select()
        if search:
            query = query.where(teams.c.name.icontains(search, autoescape=True))
        if member is not None:
            query = query.where(teams.c.id.in_(select(memberships.c.team_id).where(memberships.c.user_id == member)))
        if page.after is not None:
            query = query.where(teams.c.name > page.after.id)
        query = query.order_by(teams.c.name)
        if page.limit is not None:
            query = query.limit(page.limit)
        async with self._database.read() as connection:
            return [_team(row) for row in (await connection.execute(query)).mappings()]

    async def change(self, reference: str, change: TeamChange, actor: Actor) -> Team:
        """Change a team. A new name and new limits are told to gateways with its keys.

        Raises TeamNotFound or NameTaken.
        """
        now = self._clock()
        values = {name: value for name, value in msgspec.structs.asdict(change).items() if value is not UNSET}
        if isinstance(change.key_rules, KeyRules):
            values["key_rules"] = msgspec.to_builtins(change.key_rules)
        async with self._database.write() as connection:
            revision = await next_revision(connection)
            before = await _get(connection, reference)
            if isinstance(change.limits, TeamUse):
                values |= {**msgspec.structs.asdict(change.limits), "slot": await _slot(connection, before.id)}
                del values["limits"]
            if values:
                await _store(
                    connection, update(teams).where(teams.c.id == before.id).values(**values), values.get("name")
                )
            after = await _get(connection, before.id)
            if (after.name, after.limits) != (before.name, before.limits):
                told = update(gateway_keys).where(gateway_keys.c.team_id == before.id).values(revision=revision)
                await connection.execute(told)
            if after != before:
                await note(connection, now, actor, "team.update", after.id, after.name, _shown(before), _shown(after))
            return after

    async def delete(self, reference: str, actor: Actor) -> Team:
        """Forget a team. Raises TeamNotFound, or StillInUse while there are keys of it."""
        now = self._clock()
        async with self._database.write() as connection:
            team = await _get(connection, reference)
            if team.keys:
                raise StillInUse(f"team {team.name!r} has {team.keys} gateway keys; delete them first")
            await connection.execute(delete(memberships).where(memberships.c.team_id == team.id))
            await connection.execute(delete(teams).where(teams.c.id == team.id))
            await note(connection, now, actor, "team.delete", team.id, team.name, _shown(team), None)
            return team


async def _slot(connection: AsyncConnection, id: str) -> int:
    """The team's place in the workers' tables: its own for ever, as teams are few."""
    slot = (await connection.execute(select(teams.c.slot).where(teams.c.id == id))).scalar()
    if slot is not None:
        return int(slot)
    return int((await connection.execute(select(func.coalesce(func.max(teams.c.slot), -1)))).scalar_one()) + 1


async def _store(connection: AsyncConnection, statement: Any, name: str | None) -> None:
    try:
        async with connection.begin_nested():
            await connection.execute(statement)
    except IntegrityError:
        raise NameTaken(f"there is a team {name!r} already") from None


def _select() -> Select[Any]:
    members = select(func.count()).where(memberships.c.team_id == teams.c.id).scalar_subquery()
    keys = select(func.count()).where(gateway_keys.c.team_id == teams.c.id).scalar_subquery()
    return select(teams, members.label("members"), keys.label("keys"))


async def _get(connection: AsyncConnection, reference: str) -> Team:
    query = _select().where(or_(teams.c.id == reference, teams.c.name == reference))
    rows = (await connection.execute(query)).mappings().all()
    exact = [row for row in rows if row["id"] == reference] or rows
    if not exact:
        raise TeamNotFound(f"there is no team {reference!r}")
    return _team(exact[0])


def _team(row: Mapping[Any, Any]) -> Team:
    rules = row["key_rules"]
    return Team(
        id=row["id"],
        name=row["name"],
        description=row["description"],
        key_rules=KeyRules() if rules is None else msgspec.convert(rules, KeyRules),
        created_at=row["created_at"],
        members=row["members"],
        keys=row["keys"],
        limits=TeamUse(**{name: row[name] for name in TeamUse.__struct_fields__}),
    )


def _shown(team: Team) -> dict[str, Any]:
    rules = msgspec.to_builtins(team.key_rules)
    limits = msgspec.to_builtins(team.limits)
    return {
        "name": team.name,
        "description": team.description,
        "key_rules": rules if any(rules.values()) else None,
        "limits": limits if any(value is not None for value in limits.values()) else None,
    }
