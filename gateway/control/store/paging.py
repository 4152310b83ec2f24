"""Pages of lists: so many rows, after a place that the one before ended with.

A place is a time and an id, the order in which every list is: newest first, the id where times are equal. So rows that
come or go in between neither repeat others nor make them skipped.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, TypeVar

from sqlalchemy import ColumnElement, Select, and_, or_

Row = TypeVar("Row", bound=tuple[Any, ...])


class Place(NamedTuple):
    """Where a page ends: the time and the id of its last row."""

    at: float
    id: str


class Page(NamedTuple):
    """So many rows after a place. None: without a bound, from the beginning."""

    limit: int | None = None
    after: Place | None = None


ALL: Final = Page()


def page_of(query: Select[Row], page: Page, at: ColumnElement[Any], id: ColumnElement[Any]) -> Select[Row]:
    """The query for this page of it."""
    if page.after is not None:
        query = query.where(or_(at < page.after.at, and_(at == page.after.at, id > page.after.id)))
    return query if page.limit is None else query.limit(page.limit)


def newest_first(query: Select[Row], at: ColumnElement[Any], id: ColumnElement[Any]) -> Select[Row]:
    """The query in the order in which pages are."""
    return query.order_by(at.desc(), id)
