"""A first look at a SQLite store's keys with nothing but the standard library.

Workers serve nobody before they have the keys, and SQLAlchemy takes 0.3 s to import; this takes 5 ms. It reads one
thing, only where all is as expected, and reports no error: whoever gets None opens the store and hears what is wrong.
"""

from __future__ import annotations

import contextlib
import sqlite3
from typing import Final

import orjson

from gateway.control.store import HEAD
from gateway.control.store.errors import StoreError
from gateway.control.store.location import Location
from gateway.control.store.records import Changes, key_of

_BUSY_SECONDS: Final = 0.2
_KEYS: Final = """
    SELECT gateway_keys.*, teams.name AS team, teams.slot AS team_slot,
           teams.requests_per_minute AS team_requests_per_minute, teams.tokens_per_minute AS team_tokens_per_minute,
           teams.max_concurrency AS team_max_concurrency, teams.budget_usd_per_month AS team_budget_usd_per_month
    FROM gateway_keys LEFT JOIN teams ON teams.id = gateway_keys.team_id
"""


def glance(store_url: str) -> Changes | None:
    """All keys, as `Store.changes_since(0)` gives them, or None where this shortcut does not lead."""
    try:
        location = Location(store_url)
        if location.path is None:
            return None
        uri = location.file_uri
        with contextlib.closing(sqlite3.connect(uri, _BUSY_SECONDS, isolation_level=None, uri=True)) as connection:
            return _read(connection)
    except (sqlite3.Error, StoreError):
        return None


def _read(connection: sqlite3.Connection) -> Changes | None:
    connection.row_factory = sqlite3.Row
    connection.execute("BEGIN")
    if connection.execute("SELECT version_num FROM alembic_version").fetchone()[0] != HEAD:
        return None
    store_id, revision = connection.execute("SELECT store_id, revision FROM meta").fetchone()
    rows = [dict(row) for row in connection.execute(_KEYS)]
    for row in rows:
        if row["models"] is not None:
            row["models"] = orjson.loads(row["models"])
    return Changes(store_id, revision, [key_of(row) for row in rows], [])
