"""Every test of the store's rules, on PostgreSQL instead of SQLite."""

from __future__ import annotations

from gateway.control.store.store import Store
from tests.gateway.control.test_store import *  # noqa: F403 (the tests themselves)
from tests.gateway.control.test_store import SCOPE
from tests.postgres import PostgresServer


async def test_only_hash_and_prefix_are_kept(store: Store, url: str, server: PostgresServer) -> None:
    """In place of the one that looks into SQLite's files."""
    new = await store.create_key(SCOPE)
    secret = new.secret.reveal()
    kept = server.query("SELECT k::text FROM gateway_keys k", url.rpartition("/")[2])
    assert new.record.key.hash.hex() in kept
    assert secret[:12] in kept
    assert secret[12:] not in kept
