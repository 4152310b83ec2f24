"""The users: people who sign in, what role they have, which teams they are in.

It keeps a password only as the hash that it is given, and knows no rule about who may do what; one rule about users
themselves it does keep: there is always an active owner, once there has been one.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy import Select, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.control.identity.roles import Role
from gateway.control.store.database import Database
from gateway.control.store.errors import LastOwner, NameTaken, TeamNotFound, UserNotFound
from gateway.control.store.paging import ALL, Page, newest_first, page_of
from gateway.control.store.schema import access_keys, memberships, one_time_tokens, sessions, teams, users
from gateway.control.store.trail import Actor, note


class TeamRef(msgspec.Struct, frozen=True):
    """A team that somebody is in."""

    id: str
    name: str


class User(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who may sign in. Times are Unix seconds. `has_password` and `has_provider` say by which ways."""

    id: str
    email: str
    name: str
    role: Role
    active: bool
    has_password: bool
    has_provider: bool
    created_at: float
    last_sign_in_at: float | None
    teams: tuple[TeamRef, ...] = ()


class UserChange(msgspec.Struct, frozen=True, kw_only=True):
    """What to change of a user; what is unset stays."""

    name: str | UnsetType = UNSET
    role: Role | UnsetType = UNSET
    active: bool | UnsetType = UNSET


class UserFilter(NamedTuple):
    """Which users to list. `search` is part of a name or e-mail address, in upper or lower case."""

    search: str | None = None
    role: Role | None = None
    team_id: str | None = None


def normalised(email: str) -> str:
    """An e-mail address as it is compared. The part before the @ could matter in theory; no provider lets it."""
    return email.strip().lower()


class Users:
    """The users of one store. Methods raise StoreError, and then nothing was changed."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    async def count(self) -> int:
        """How many there are, active or not."""
        async with self._database.read() as connection:
            return int((await connection.execute(select(func.count()).select_from(users))).scalar_one())

    async def create(
        self,
        email: str,
        name: str,
        role: Role,
        actor: Actor,
        *,
        password_hash: str | None = None,
        subject: str | None = None,
        team_ids: Sequence[str] = (),
        first: bool = False,
    ) -> User:
        """Make a user. `first`: only if there is none yet. Raises NameTaken or TeamNotFound."""
        now = self._clock()
        id = f"user_{secrets.token_hex(8)}"
        row = {
            "id": id,
            "email": normalised(email),
            "name": name,
            "role": role.value,
            "password_hash": password_hash,
            "subject": subject,
            "active": True,
            "created_at": now,
        }
        async with self._database.write() as connection:
            if first and (await connection.execute(select(users.c.id).limit(1))).first() is not None:
                raise NameTaken("there are users already; sign in, or have an owner invite you")
            try:
                async with connection.begin_nested():
                    await connection.execute(insert(users).values(row))
            except IntegrityError:
                raise NameTaken(f"there is a user {row['email']!r} already") from None
            for team_id in dict.fromkeys(team_ids):
                await _join(connection, team_id, id, now)
            user = await find_user(connection, id)
            await note(connection, now, actor, "user.create", user.id, user.email, None, _shown(user))
            return user

    async def get(self, id: str) -> User:
        """The user of this id or e-mail address. Raises UserNotFound."""
        async with self._database.read() as connection:
            return await find_user(connection, id)

    async def by_subject(self, subject: str) -> User | None:
        """The user that an OIDC provider knows by this."""
        async with self._database.read() as connection:
            id = (await connection.execute(select(users.c.id).where(users.c.subject == subject))).scalar()
            return None if id is None else await find_user(connection, id)

    async def password_hash(self, email: str) -> tuple[str | None, str | None]:
        """The id of who has this e-mail address, and the hash of their password. Neither, where there is no such user;
        it takes one statement either way."""
        async with self._database.read() as connection:
            query = select(users.c.id, users.c.password_hash).where(users.c.email == normalised(email))
            row = (await connection.execute(query)).first()
            return (None, None) if row is None else (row.id, row.password_hash)

    async def search(self, wanted: UserFilter = UserFilter(), page: Page = ALL) -> list[User]:  # noqa: B008
        """The users that a filter lets through, newest first."""
        column = users.c
        query = select(column.id)
        if wanted.search:
            query = query.where(
                or_(*(one.icontains(wanted.search, autoescape=True) for one in (column.name, column.email)))
            )
        if wanted.role is not None:
            query = query.where(column.role == wanted.role.value)
        if wanted.team_id is not None:
            members = select(memberships.c.user_id).where(memberships.c.team_id == wanted.team_id)
            query = query.where(column.id.in_(members))
        query = newest_first(page_of(query, page, column.created_at, column.id), column.created_at, column.id)
        async with self._database.read() as connection:
            return await _many(connection, list((await connection.execute(query)).scalars()))

    async def change(self, id: str, change: UserChange, actor: Actor) -> User:
        """Change a user. Who is not active any more has no session left. Raises UserNotFound or LastOwner."""
        now = self._clock()
        values = {name: value for name, value in msgspec.structs.asdict(change).items() if value is not UNSET}
        async with self._database.write() as connection:
            before = await find_user(connection, id)
            if values:
                await connection.execute(update(users).where(users.c.id == before.id).values(**values))
            after = await find_user(connection, before.id)
            await _require_an_owner(connection, before)
            if not after.active:
                await connection.execute(delete(sessions).where(sessions.c.user_id == after.id))
            if after != before:
                action = "user.update" if after.active == before.active else _switched(after)
                await note(connection, now, actor, action, after.id, after.email, _shown(before), _shown(after))
            return after

    async def set_password(self, id: str, password_hash: str, actor: Actor, *, keep_session: str | None = None) -> User:
        """Set the password; all sessions end but `keep_session`."""
        now = self._clock()
        async with self._database.write() as connection:
            user = await find_user(connection, id)
            await connection.execute(update(users).where(users.c.id == user.id).values(password_hash=password_hash))
            ended = delete(sessions).where(sessions.c.user_id == user.id)
            await connection.execute(ended if keep_session is None else ended.where(sessions.c.id != keep_session))
            await note(connection, now, actor, "user.password", user.id, user.email)
            return await find_user(connection, user.id)

    async def rehash(self, id: str, password_hash: str) -> None:
        """The same password with newer parameters: no change that anybody must know of."""
        async with self._database.write() as connection:
            await connection.execute(update(users).where(users.c.id == id).values(password_hash=password_hash))

    async def link(self, id: str, subject: str, actor: Actor) -> User:
        """Let an OIDC provider's user be this one. Raises NameTaken where it is another's already."""
        now = self._clock()
        async with self._database.write() as connection:
            user = await find_user(connection, id)
            try:
                async with connection.begin_nested():
                    await connection.execute(update(users).where(users.c.id == user.id).values(subject=subject))
            except IntegrityError:
                raise NameTaken("another user signs in with this account already") from None
            await note(connection, now, actor, "user.link", user.id, user.email)
            return await find_user(connection, user.id)

    async def map_teams(self, id: str, names: Sequence[str], of: Sequence[str], actor: Actor) -> User:
        """Be in exactly those teams of the names in `of` that are in `names`; other teams stay as they are."""
        now = self._clock()
        async with self._database.write() as connection:
            before = await find_user(connection, id)
            found = select(teams.c.id, teams.c.name).where(teams.c.name.in_(list(of)))
            for team in (await connection.execute(found)).all():
                if team.name in names:
                    await _join(connection, team.id, before.id, now)
                else:
                    await _leave(connection, team.id, before.id)
            after = await find_user(connection, before.id)
            if after != before:
                await note(connection, now, actor, "user.update", after.id, after.email, _shown(before), _shown(after))
            return after

    async def join(self, team_id: str, id: str, actor: Actor) -> User:
        """Put a user into a team. Raises UserNotFound or TeamNotFound."""
        return await self._move(team_id, id, actor, "team.join", _joined)

    async def leave(self, team_id: str, id: str, actor: Actor) -> User:
        """Take a user out of a team."""
        return await self._move(team_id, id, actor, "team.leave", _left)

    async def _move(self, team_id: str, id: str, actor: Actor, action: str, step: Callable[..., Any]) -> User:
        now = self._clock()
        async with self._database.write() as connection:
            before = await find_user(connection, id)
            await step(connection, team_id, before.id, now)
            after = await find_user(connection, before.id)
            if after != before:
                await note(connection, now, actor, action, after.id, after.email, _shown(before), _shown(after))
            return after

    async def delete(self, id: str, actor: Actor) -> User:
        """Forget a user, with sessions and access keys. Their gateway keys are not touched. Raises LastOwner."""
        now = self._clock()
        async with self._database.write() as connection:
            user = await find_user(connection, id)
            for table in (memberships, sessions, access_keys, one_time_tokens):
                await connection.execute(delete(table).where(table.c.user_id == user.id))
            await connection.execute(delete(users).where(users.c.id == user.id))
            await _require_an_owner(connection, user)
            await note(connection, now, actor, "user.delete", user.id, user.email, _shown(user), None)
            return user

    async def signed_in(self, id: str) -> None:
        """Note when somebody has signed in."""
        async with self._database.write() as connection:
            await connection.execute(update(users).where(users.c.id == id).values(last_sign_in_at=self._clock()))


async def _joined(connection: AsyncConnection, team_id: str, user_id: str, now: float) -> None:
    await _join(connection, team_id, user_id, now)


async def _left(connection: AsyncConnection, team_id: str, user_id: str, now: float) -> None:
    await _leave(connection, team_id, user_id)


async def _join(connection: AsyncConnection, team_id: str, user_id: str, now: float) -> None:
    if (await connection.execute(select(teams.c.id).where(teams.c.id == team_id))).first() is None:
        raise TeamNotFound(f"there is no team {team_id!r}")
    at = memberships.c
    member = select(at.user_id).where(at.team_id == team_id, at.user_id == user_id)
    if (await connection.execute(member)).first() is None:
        row = {"team_id": team_id, "user_id": user_id, "created_at": now}
        await connection.execute(insert(memberships).values(row))


async def _leave(connection: AsyncConnection, team_id: str, user_id: str) -> None:
    at = memberships.c
    await connection.execute(delete(memberships).where(at.team_id == team_id, at.user_id == user_id))


async def _require_an_owner(connection: AsyncConnection, before: User) -> None:
    if before.role is not Role.OWNER or not before.active:
        return
    left = select(users.c.id).where(users.c.role == Role.OWNER.value, users.c.active.is_(True)).limit(1)
    if (await connection.execute(left)).first() is None:
        raise LastOwner(f"{before.email} is the last active owner; make another user an owner first")


async def find_user(connection: AsyncConnection, id: str) -> User:
    """The user of this id or e-mail address, in a transaction of somebody else. Raises UserNotFound."""
    query: Select[Any] = select(users.c.id).where(or_(users.c.id == id, users.c.email == normalised(id)))
    found = await _many(connection, list((await connection.execute(query)).scalars()))
    if not found:
        raise UserNotFound(f"there is no user {id!r}")
    return found[0]


async def _many(connection: AsyncConnection, ids: Sequence[str]) -> list[User]:
    """These users, in this order, with their teams: two statements however many they are."""
    rows = (await connection.execute(select(users).where(users.c.id.in_(ids)))).mappings().all()
    joined = memberships.join(teams, memberships.c.team_id == teams.c.id)
    query = select(memberships.c.user_id, teams.c.id, teams.c.name).select_from(joined)
    query = query.where(memberships.c.user_id.in_(ids)).order_by(teams.c.name)
    own: dict[str, list[TeamRef]] = {}
    for user_id, team_id, name in (await connection.execute(query)).all():
        own.setdefault(user_id, []).append(TeamRef(team_id, name))
    by_id = {row["id"]: _user(row, own.get(row["id"], [])) for row in rows}
    return [by_id[id] for id in ids if id in by_id]


def _user(row: Mapping[Any, Any], own: Sequence[TeamRef]) -> User:
    return User(
        id=row["id"],
        email=row["email"],
        name=row["name"],
        role=Role(row["role"]),
        active=bool(row["active"]),
        has_password=row["password_hash"] is not None,
        has_provider=row["subject"] is not None,
        created_at=row["created_at"],
        last_sign_in_at=row["last_sign_in_at"],
        teams=tuple(own),
    )


def _switched(user: User) -> str:
    return "user.enable" if user.active else "user.disable"


def _shown(user: User) -> dict[str, Any]:
    return {
        "email": user.email,
        "name": user.name,
        "role": user.role.value,
        "active": user.active,
        "teams": [team.name for team in user.teams],
    }
