"""What proves who somebody is, after the password: sessions, access keys, one-time links. Only hashes are kept.

Each is found by the hash of its secret, in one statement, together with its user. What has expired, or belongs to
somebody who is not active, is not found.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import and_, delete, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.control.identity.credentials import SHOWN_LENGTH, hashed, new_access_key, new_token
from gateway.control.store.database import Database
from gateway.control.store.errors import AccessKeyNotFound, SessionNotFound, StillInUse
from gateway.control.store.schema import access_keys, one_time_tokens, sessions, users
from gateway.control.store.trail import Actor, note
from gateway.control.store.users import User, find_user
from gateway.secrets import Secret

SEEN_SECONDS: Final = 60.0
"""How old the time of last use may be, so that not every request writes."""

MAX_SESSIONS: Final = 50
"""Of one user; the oldest one ends."""

MAX_ACCESS_KEYS: Final = 100
"""Of one user."""

MAX_AGENT: Final = 200
SETUP: Final = "setup"
INVITATION: Final = "invitation"


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody signed in. Times are Unix seconds."""

    id: str
    user_id: str
    method: str
    client: str
    agent: str
    created_at: float
    seen_at: float
    expires_at: float


class AccessKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key of a user's for the API and the command line. Times are Unix seconds."""

    id: str
    prefix: str
    name: str
    user_id: str
    created_at: float
    expires_at: float | None
    last_used_at: float | None


class NewAccessKey(NamedTuple):
    """A key that was just made, and the secret, seen only here."""

    record: AccessKey
    secret: Secret


class NewSession(NamedTuple):
    """A session that was just begun, and its cookie's value."""

    record: Session
    secret: Secret


class Access:
    """The credentials of one store. Methods raise StoreError, and then nothing was changed."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    # Sessions

    async def begin_session(
        self, user_id: str, *, method: str, client: str, agent: str, seconds: float, actor: Actor
    ) -> NewSession:
        """A new session, always with a new secret. Sessions that have ended are cleared away by the way."""
        now = self._clock()
        secret = new_token()
        session = Session(
            id=f"sess_{secrets.token_hex(8)}",
            user_id=user_id,
            method=method,
            client=client,
            agent=agent[:MAX_AGENT],
            created_at=now,
            seen_at=now,
            expires_at=now + seconds,
        )
        async with self._database.write() as connection:
            user = await find_user(connection, user_id)
            await connection.execute(delete(sessions).where(sessions.c.expires_at <= now))
            await _make_room(connection, user_id)
            row = {**msgspec.structs.asdict(session), "hash": hashed(secret.reveal())}
            await connection.execute(insert(sessions).values(row))
            await connection.execute(update(users).where(users.c.id == user_id).values(last_sign_in_at=now))
            await note(connection, now, actor, "session.begin", user.id, user.email, None, {"method": method})
        return NewSession(session, secret)

    async def session_of(self, secret: str, idle_seconds: float) -> tuple[Session, User] | None:
        """The session with this secret and its user, if it is good. One unused for `idle_seconds` is not."""
        now = self._clock()
        column = sessions.c
        async with self._database.read() as connection:
            query = select(sessions).where(
                column.hash == hashed(secret), column.expires_at > now, column.seen_at > now - idle_seconds
            )
            row = (await connection.execute(query)).mappings().first()
            user = None if row is None else await find_user(connection, row["user_id"])
        if row is None or user is None or not user.active:
            return None
        session = _session(row)
        if session.seen_at < now - SEEN_SECONDS:
            async with self._database.write() as connection:
                await connection.execute(update(sessions).where(column.id == session.id).values(seen_at=now))
        return session, user

    async def sessions(self, user_id: str) -> list[Session]:
        """The sessions of a user that have not expired, newest first."""
        column = sessions.c
        query = select(sessions).where(column.user_id == user_id, column.expires_at > self._clock())
        async with self._database.read() as connection:
            rows = await connection.execute(query.order_by(column.created_at.desc(), column.id))
            return [_session(row) for row in rows.mappings()]

    async def end_session(self, user_id: str, id: str, actor: Actor) -> None:
        """End a session of this user's. Raises SessionNotFound."""
        now = self._clock()
        column = sessions.c
        async with self._database.write() as connection:
            ended = await connection.execute(delete(sessions).where(column.id == id, column.user_id == user_id))
            if not ended.rowcount:
                raise SessionNotFound(f"there is no session {id!r}")
            await note(connection, now, actor, "session.end", id, actor.name)

    async def end_sessions(self, user_id: str, actor: Actor) -> int:
        """End all sessions of a user; how many there were."""
        now = self._clock()
        async with self._database.write() as connection:
            user = await find_user(connection, user_id)
            ended = (await connection.execute(delete(sessions).where(sessions.c.user_id == user_id))).rowcount
            if ended:
                await note(connection, now, actor, "session.end_all", user.id, user.email, {"sessions": ended}, None)
            return ended

    # Access keys

    async def create_access_key(self, user_id: str, name: str, expires_at: float | None, actor: Actor) -> NewAccessKey:
        """Make an access key. Raises StillInUse where the user has too many."""
        now = self._clock()
        secret = new_access_key()
        key = AccessKey(
            id=f"ak_{secrets.token_hex(8)}",
            prefix=secret.reveal()[:SHOWN_LENGTH],
            name=name,
            user_id=user_id,
            created_at=now,
            expires_at=expires_at,
            last_used_at=None,
        )
        async with self._database.write() as connection:
            await find_user(connection, user_id)
            own = select(access_keys.c.id).where(access_keys.c.user_id == user_id)
            if len((await connection.execute(own)).all()) >= MAX_ACCESS_KEYS:
                raise StillInUse(f"one user has at most {MAX_ACCESS_KEYS} access keys; delete some")
            row = {**msgspec.structs.asdict(key), "hash": hashed(secret.reveal())}
            await connection.execute(insert(access_keys).values(row))
            after = {"prefix": key.prefix, "expires_at": expires_at}
            await note(connection, now, actor, "access_key.create", key.id, name, None, after)
        return NewAccessKey(key, secret)

    async def access_key_of(self, secret: str) -> tuple[AccessKey, User] | None:
        """The access key with this secret and its user, if it is good."""
        now = self._clock()
        column = access_keys.c
        live = or_(column.expires_at.is_(None), column.expires_at > now)
        async with self._database.read() as connection:
            query = select(access_keys).where(and_(column.hash == hashed(secret), live))
            row = (await connection.execute(query)).mappings().first()
            user = None if row is None else await find_user(connection, row["user_id"])
        if row is None or user is None or not user.active:
            return None
        key = _access_key(row)
        if key.last_used_at is None or key.last_used_at < now - SEEN_SECONDS:
            async with self._database.write() as connection:
                await connection.execute(update(access_keys).where(column.id == key.id).values(last_used_at=now))
        return key, user

    async def access_keys(self, user_id: str) -> list[AccessKey]:
        """The access keys of a user, newest first."""
        column = access_keys.c
        query = select(access_keys).where(column.user_id == user_id)
        async with self._database.read() as connection:
            rows = await connection.execute(query.order_by(column.created_at.desc(), column.id))
            return [_access_key(row) for row in rows.mappings()]

    async def delete_access_key(self, user_id: str, id: str, actor: Actor) -> AccessKey:
        """End an access key of this user's. Raises AccessKeyNotFound."""
        now = self._clock()
        column = access_keys.c
        async with self._database.write() as connection:
            query = select(access_keys).where(column.id == id, column.user_id == user_id)
            row = (await connection.execute(query)).mappings().first()
            if row is None:
                raise AccessKeyNotFound(f"there is no access key {id!r}")
            await connection.execute(delete(access_keys).where(column.id == id))
            before = {"prefix": row["prefix"], "expires_at": row["expires_at"]}
            await note(connection, now, actor, "access_key.delete", id, row["name"], before, None)
            return _access_key(row)

    # One-time links

    async def issue(self, purpose: str, user_id: str | None, seconds: float) -> Secret:
        """The secret of a new one-time link. Of one user only the newest one is good; of expired ones none is kept."""
        now = self._clock()
        secret = new_token()
        column = one_time_tokens.c
        row = {
            "hash": hashed(secret.reveal()),
            "purpose": purpose,
            "user_id": user_id,
            "created_at": now,
            "expires_at": now + seconds,
        }
        async with self._database.write() as connection:
            old = column.expires_at <= now
            if user_id is not None:
                old = or_(old, and_(column.user_id == user_id, column.purpose == purpose))
            await connection.execute(delete(one_time_tokens).where(old))
            await connection.execute(insert(one_time_tokens).values(row))
        return secret

    async def redeem(self, purpose: str, secret: str) -> tuple[bool, str | None]:
        """Use a link up: whether it was good, and for which user."""
        column = one_time_tokens.c
        wanted = and_(column.hash == hashed(secret), column.purpose == purpose, column.expires_at > self._clock())
        async with self._database.write() as connection:
            row = (await connection.execute(select(one_time_tokens).where(wanted))).mappings().first()
            used = (await connection.execute(delete(one_time_tokens).where(wanted))).rowcount
        return (row is not None and used == 1), (None if row is None else row["user_id"])

    async def is_good(self, purpose: str, secret: str) -> bool:
        """Whether a link could be used, without using it."""
        column = one_time_tokens.c
        wanted = and_(column.hash == hashed(secret), column.purpose == purpose, column.expires_at > self._clock())
        async with self._database.read() as connection:
            return (await connection.execute(select(column.purpose).where(wanted))).first() is not None


async def _make_room(connection: AsyncConnection, user_id: str) -> None:
    column = sessions.c
    query = select(column.id).where(column.user_id == user_id).order_by(column.created_at.desc(), column.id)
    old = list((await connection.execute(query.offset(MAX_SESSIONS - 1))).scalars())
    if old:
        await connection.execute(delete(sessions).where(column.id.in_(old)))


def _session(row: Mapping[Any, Any]) -> Session:
    return Session(**{name: row[name] for name in Session.__struct_fields__})


def _access_key(row: Mapping[Any, Any]) -> AccessKey:
    return AccessKey(**{name: row[name] for name in AccessKey.__struct_fields__})
