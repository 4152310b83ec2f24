"""Who changed what: one row for each change, written in the transaction that makes it.

So a change without its row, or a row without its change, cannot be. From here rows go into the hash-chained audit log
(`gateway.control.trail`), in batches; they stay here for those who look things up. A row has what differs, before and
after, in the words of the API. No secret is ever handed to this module, and none is kept by it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.control.store.database import Database
from gateway.control.store.paging import ALL, Page, newest_first, page_of
from gateway.control.store.schema import changes

KEPT_SECONDS: Final = 90 * 86_400
"""How long a change can be looked up here; the audit log keeps it for longer."""


class Actor(msgspec.Struct, frozen=True):
    """Who makes a change. `via`: `session`, `access_key`, `api_token`, `command_line`, `sign_in` or `gateway`."""

    name: str
    via: str
    id: str | None = None
    client: str | None = None
    request_id: str | None = None


THE_GATEWAY: Final = Actor("gateway", "gateway")


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One change. `before` and `after` have the fields that differ; `before` is empty for what is new."""

    id: str
    at: float
    actor: str
    actor_id: str | None
    via: str
    client: str | None
    request_id: str | None
    action: str
    object_id: str
    object_name: str
    before: dict[str, Any]
    after: dict[str, Any]


class ChangeFilter(msgspec.Struct, frozen=True):
    """Which changes to list; `action` may end with a dot, which means all that begin so."""

    actor_id: str | None = None
    object_id: str | None = None
    action: str | None = None


async def note(
    connection: AsyncConnection,
    now: float,
    actor: Actor,
    action: str,
    object_id: str,
    object_name: str,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> None:
    """Note a change inside the transaction that makes it. Fields that are the same before and after are left out."""
    was, became = _differing(before or {}, after or {})
    row = {
        "id": f"chg_{secrets.token_hex(8)}",
        "at": now,
        "actor": actor.name,
        "actor_id": actor.id,
        "via": actor.via,
        "client": actor.client,
        "request_id": actor.request_id,
        "action": action,
        "object_id": object_id,
        "object_name": object_name,
        "before": was,
        "after": became,
    }
    await connection.execute(insert(changes).values(row))


def _differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return (
        {name: before[name] for name in names if before.get(name) is not None},
        {name: after[name] for name in names if name in after},
    )


class Trail:
    """The changes of one store. Methods raise StoreError."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    async def search(self, wanted: ChangeFilter = ChangeFilter(), page: Page = ALL) -> list[Change]:  # noqa: B008
        """Changes, newest first."""
        column = changes.c
        query = select(changes)
        if wanted.actor_id is not None:
            query = query.where(column.actor_id == wanted.actor_id)
        if wanted.object_id is not None:
            query = query.where(column.object_id == wanted.object_id)
        if wanted.action is not None:
            exact = not wanted.action.endswith(".")
            query = query.where(
                column.action == wanted.action if exact else column.action.startswith(wanted.action, autoescape=True)
            )
        query = newest_first(page_of(query, page, column.at, column.id), column.at, column.id)
        async with self._database.read() as connection:
            return [_change(row) for row in (await connection.execute(query)).mappings()]

    async def waiting(self) -> bool:
        """Whether there is a change that is not in the audit log."""
        query = select(changes.c.id).where(changes.c.recorded_at.is_(None)).limit(1)
        async with self._database.read() as connection:
            return (await connection.execute(query)).first() is not None

    async def hand_over(self, take: Callable[[Sequence[Change]], None], limit: int = 200) -> int:
        """Give the oldest changes that are not in the audit log to `take`, and mark them once it has returned.

        What `take` raises leaves them as they are. If this process ends in between, they are given once more. Returns
        how many there were.
        """
        column = changes.c
        waiting = select(changes).where(column.recorded_at.is_(None)).order_by(column.at, column.id).limit(limit)
        async with self._database.write() as connection:
            # Several nodes may be at it: each takes what no other has in its hands.
            rows = (await connection.execute(waiting.with_for_update(skip_locked=True))).mappings().all()
            if rows:
                take([_change(row) for row in rows])
            now = self._clock()
            ids = [row["id"] for row in rows]
            await connection.execute(update(changes).where(column.id.in_(ids)).values(recorded_at=now))
            await connection.execute(delete(changes).where(column.at < now - KEPT_SECONDS, column.recorded_at < now))
            return len(ids)


def _change(row: Mapping[Any, Any]) -> Change:
    return Change(**{name: row[name] for name in Change.__struct_fields__})
