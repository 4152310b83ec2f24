"""The one number that orders all changes of what a gateway must know."""

from __future__ import annotations

from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.control.store.schema import meta


async def next_revision(connection: AsyncConnection) -> int:
    """Each writer's first statement: whoever comes second waits here until the first has committed."""
    statement = update(meta).values(revision=meta.c.revision + 1).returning(meta.c.revision)
    return int((await connection.execute(statement)).scalar_one())
