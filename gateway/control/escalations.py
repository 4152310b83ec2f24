"""The queue of requests that wait for a person.

An escalation is `pending` until somebody approves or refuses it. An approved one lets exactly the request through that
it was made for, once, and is `used` then. What nobody decides or uses in time is `expired`, which is told from its time
and stored nowhere. All of it is one table of the store, so that it holds for all workers and nodes; that an approval is
used once is a condition of the statement that uses it.
"""

from __future__ import annotations

import enum
import secrets
from collections.abc import Callable
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, and_, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.control.store.database import Database
from gateway.control.store.errors import StoreError
from gateway.control.store.schema import escalations
from gateway.control.store.trail import Actor
from gateway.control.store.trail import note as remember
from gateway.oversight import Answer, Referral

MAX_PENDING: Final = 10_000
"""So many may wait; further ones are turned away, so that a client in a loop cannot fill the disk."""

KEPT_SECONDS: Final = 90 * 86_400
"""How long an escalation can be looked up after its end; the audit log keeps who did what for longer."""


class State(enum.StrEnum):
    """What has become of an escalation."""

    PENDING = "pending"
    APPROVED = "approved"
    REFUSED = "refused"
    USED = "used"
    EXPIRED = "expired"


_DONE: Final = {State.APPROVED: "approve", State.REFUSED: "refuse"}


class EscalationNotFound(StoreError):
    """There is no escalation of this id."""


class EscalationDecided(StoreError):
    """The escalation is not pending any more."""


class QueueFull(StoreError):
    """Too many escalations wait already."""


class Escalation(msgspec.Struct, frozen=True, kw_only=True):
    """One request that waits or has waited. Times are Unix seconds."""

    id: str
    state: State
    created_at: float
    expires_at: float
    decided_at: float | None
    decided_by: str | None
    note: str | None
    used_at: float | None
    request_id: str
    key_id: str | None
    key_name: str | None
    team: str | None
    configuration_id: str
    model: str
    operation: str
    policy: str
    reason: str
    detail: str
    text: str | None


class Escalations:
    """The queue in one store. Methods raise StoreError, and then nothing was changed."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    async def refer(self, told: Referral) -> Answer:
        """Use up an approval of this request, or say that it waits or was refused, or let it wait from now on."""
        now = self._clock()
        table = escalations.c
        async with self._database.write() as connection:
            query = select(table.id, table.state).where(table.fingerprint == told.fingerprint, table.expires_at > now)
            found = await connection.execute(query.order_by(table.created_at.desc()))
            for row in found.all():
                if row.state == State.USED:
                    continue
                if row.state == State.APPROVED and not await _use(connection, row.id, now):
                    continue
                return Answer(row.state, row.id)
            return Answer(State.PENDING.value, await self._open(connection, told, now))

    async def _open(self, connection: AsyncConnection, told: Referral, now: float) -> str:
        table = escalations.c
        await connection.execute(delete(escalations).where(table.expires_at < now - KEPT_SECONDS))
        waiting = select(func.count()).select_from(escalations)
        waiting = waiting.where(table.state == State.PENDING, table.expires_at > now)
        if (await connection.execute(waiting)).scalar_one() >= MAX_PENDING:
            raise QueueFull(f"{MAX_PENDING} escalations wait already; decide some, or wait for them to expire")
        id = f"esc_{secrets.token_hex(8)}"
        row = {name: value for name, value in msgspec.to_builtins(told).items() if name in table}
        row |= {"id": id, "state": State.PENDING, "created_at": now, "expires_at": now + told.valid_seconds}
        await connection.execute(insert(escalations).values(row))
        return id

    async def search(self, state: State | None = None, *, limit: int = 200) -> list[Escalation]:
        """The newest escalations, of one state or of all."""
        now = self._clock()
        query = select(escalations).order_by(escalations.c.created_at.desc(), escalations.c.id).limit(limit)
        if state is not None:
            query = query.where(_in_state(state, now))
        async with self._database.read() as connection:
            rows = await connection.execute(query)
            return [_escalation(row, now) for row in rows.mappings()]

    async def get(self, id: str) -> Escalation:
        """One escalation. Raises EscalationNotFound."""
        async with self._database.read() as connection:
            return await self._get(connection, id)

    async def decide(
        self, id: str, *, approve: bool, by: str | None, note: str | None = None, actor: Actor | None = None
    ) -> Escalation:
        """Approve or refuse one that is pending. An approval, or a refusal, holds for as long as it could have waited.

        Raises EscalationNotFound or EscalationDecided.
        """
        now = self._clock()
        table = escalations.c
        state = State.APPROVED if approve else State.REFUSED
        statement = (
            update(escalations)
            .where(table.id == id, _in_state(State.PENDING, now))
            .values(state=state, decided_at=now, decided_by=by, note=note, expires_at=now + table.valid_seconds)
        )
        async with self._database.write() as connection:
            decided = (await connection.execute(statement)).rowcount
            escalation = await self._get(connection, id)
            if decided:
                acting = actor or Actor(by or "unknown", "command_line")
                after = {"state": state.value, "note": note}
                await remember(connection, now, acting, f"escalation.{_DONE[state]}", id, id, None, after)
        if not decided:
            raise EscalationDecided(f"escalation {id} is {escalation.state} already")
        return escalation

    async def _get(self, connection: AsyncConnection, id: str) -> Escalation:
        rows = await connection.execute(select(escalations).where(escalations.c.id == id))
        row = rows.mappings().first()
        if row is None:
            raise EscalationNotFound(f"there is no escalation {id!r}; `kt escalation list` shows those there are")
        return _escalation(row, self._clock())


async def _use(connection: AsyncConnection, id: str, now: float) -> bool:
    """Use an approval up. False: somebody else was quicker."""
    statement = update(escalations).where(escalations.c.id == id, escalations.c.state == State.APPROVED)
    return (await connection.execute(statement.values(state=State.USED, used_at=now))).rowcount == 1


def _in_state(state: State, now: float) -> ColumnElement[bool]:
    table = escalations.c
    if state is State.EXPIRED:
        return and_(table.state.in_((State.PENDING, State.APPROVED)), table.expires_at <= now)
    if state in (State.PENDING, State.APPROVED):
        return and_(table.state == state, table.expires_at > now)
    return table.state == state


def _escalation(row: Any, now: float) -> Escalation:
    state = State(row["state"])
    if state in (State.PENDING, State.APPROVED) and row["expires_at"] <= now:
        state = State.EXPIRED
    fields = {name: row[name] for name in Escalation.__struct_fields__ if name != "state"}
    return Escalation(state=state, **fields)
