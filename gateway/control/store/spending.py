"""What was spent: by key, team or configuration, by month, as each gateway has counted it.

A gateway writes its own sums whole, under the id of its ledger, as often as it likes: whatever is lost or said twice on
the way, the sum stays right. What all have spent is the sum over ledgers. Amounts are whole nano-USD.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from sqlalchemy import func, select
from sqlalchemy.dialects import postgresql, sqlite

from gateway.control.store.database import Database
from gateway.control.store.schema import spending


class Spent(NamedTuple):
    """One sum. `kind` is `key`, `team` or `configuration`; `month` is a number such as 202611."""

    kind: str
    id: str
    month: int
    nanousd: int


class Spending:
    """The sums of one store. Methods raise StoreError, and then nothing was changed."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    async def write(self, ledger: str, sums: Iterable[Spent]) -> None:
        """Say what a ledger has counted. A sum that is less than was said before changes nothing."""
        now = self._clock()
        rows = [
            {"kind": one.kind, "scope_id": one.id, "month": one.month, "ledger": ledger, "nanousd": one.nanousd,
             "updated_at": now}
            for one in sums
        ]  # fmt: skip
        if not rows:
            return
        async with self._database.write() as connection:
            insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
            statement = insert(spending)
            new = statement.excluded
            statement = statement.on_conflict_do_update(
                index_elements=list(spending.primary_key.columns),
                set_={"nanousd": new.nanousd, "updated_at": new.updated_at},
                where=spending.c.nanousd < new.nanousd,
            )
            await connection.execute(statement, rows)

    async def changed(self, month: int, since: float, *, but: str = "") -> dict[tuple[str, str, str], int]:
        """What ledgers other than `but` have said of a month since a time, by kind, id and ledger."""
        column = spending.c
        query = select(column.kind, column.scope_id, column.ledger, column.nanousd).where(
            column.month == month, column.updated_at >= since, column.ledger != but
        )
        async with self._database.read() as connection:
            return {(row[0], row[1], row[2]): row[3] for row in await connection.execute(query)}

    async def total(self, kind: str, month: int, ids: Iterable[str] | None = None) -> Mapping[str, int]:
        """What all have spent in a month, by id; of some ids, or of all."""
        column = spending.c
        query = select(column.scope_id, func.sum(column.nanousd)).where(column.kind == kind, column.month == month)
        if ids is not None:
            query = query.where(column.scope_id.in_(list(ids)))
        async with self._database.read() as connection:
            rows = await connection.execute(query.group_by(column.scope_id))
            return {row[0]: int(row[1]) for row in rows}
