"""Pages of lists in the API: a cursor is a place in a list, as opaque text."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Sequence
from typing import Any, TypeVar

import orjson

from gateway.control.store.paging import Page, Place
from gateway.errors import InvalidRequest

Row = TypeVar("Row")


def page(limit: int, cursor: str | None) -> Page:
    """The page that is asked for, and one row more, which tells whether there is another. Raises InvalidRequest."""
    return Page(limit + 1, _place(cursor) if cursor else None)


def cut(rows: Sequence[Row], limit: int, at: str = "created_at", id: str = "id") -> tuple[Sequence[Row], str | None]:
    """The rows of the page, and the cursor of the next one. `at` and `id` name the fields that rows are ordered by."""
    if len(rows) <= limit:
        return rows, None
    last: Any = rows[limit - 1]
    return rows[:limit], cursor_of(Place(getattr(last, at, 0.0) or 0.0, getattr(last, id)))


def cursor_of(place: Place) -> str:
    """A place as text."""
    return base64.urlsafe_b64encode(orjson.dumps([place.at, place.id])).decode().rstrip("=")


def _place(cursor: str) -> Place:
    try:
        at, id = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        place = Place(float(at), id)
    except (ValueError, TypeError, binascii.Error, UnicodeEncodeError):
        raise InvalidRequest("`cursor` is not one that a list has given.", param="cursor") from None
    if not isinstance(id, str) or "\0" in id or not math.isfinite(place.at):
        raise InvalidRequest("`cursor` is not one that a list has given.", param="cursor")
    return place
