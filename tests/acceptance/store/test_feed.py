"""The feed of keys from a PostgreSQL store that is locked, frozen, stopped, put back and replaced."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.control.store.records import KeyScope
from gateway.control.store.store import Store
from tests.gateway.control.test_feed import (  # noqa: F401 (tests of both kinds of store)
    Plant,
    no_patience,
    test_a_life_of_a_key,
    test_several_changes_between_two_looks_are_one_batch,
    test_what_has_not_changed_is_not_written,
)
from tests.postgres import PostgresServer, postgres_server


@pytest.fixture
async def plant(url: str, tmp_path: Path) -> AsyncIterator[Plant]:
    made = Plant(url, tmp_path)
    await made.feed.step(create=True)
    made.poll()
    yield made
    await made.feed.close()
    made.log.close()
    made.ring.close()


async def test_a_locked_store_leaves_the_keys_in_force(
    plant: Plant, store: Store, url: str, server: PostgresServer
) -> None:
    key = (await store.create_key(KeyScope(name="a"))).record.key
    await plant.step()
    with server.session("LOCK TABLE gateway_keys, meta IN ACCESS EXCLUSIVE MODE", url.rpartition("/")[2]):
        assert await plant.step() == []
        assert plant.feed.fault
        assert plant.ring.get(key.hash) == key
    revoked = await store.revoke_key("a")
    assert await plant.step() == [revoked.key]
    assert plant.feed.fault == ""


async def test_a_server_that_stops_and_comes_back(tmp_path: Path) -> None:
    with postgres_server() as server:
        url = server.database()
        store = await Store.open(url)
        plant = Plant(url, tmp_path)
        key = (await store.create_key(KeyScope(name="a"))).record.key
        await plant.step()
        for away, back in ((server.stop, server.start), (server.freeze, server.thaw)):
            away()
            assert await plant.step() == []
            assert plant.feed.fault
            assert plant.ring.get(key.hash) == key
            back()
            assert await plant.step() == []
            assert plant.feed.fault == ""
        revoked = await store.revoke_key("a")
        assert await plant.step() == [revoked.key]
        await plant.feed.close()
        await store.close()
        plant.log.close()
        plant.ring.close()


async def test_another_database_replaces_all_keys(plant: Plant, store: Store, url: str, server: PostgresServer) -> None:
    old = (await store.create_key(KeyScope(name="old"))).record.key
    await plant.step()
    await store.close()
    name = url.rpartition("/")[2]
    server.query(f"DROP DATABASE {name} WITH (FORCE)")
    await plant.step()
    assert plant.feed.fault
    assert plant.ring.get(old.hash) == old
    server.query(f"CREATE DATABASE {name}")
    other = await Store.open(url)
    new = (await other.create_key(KeyScope(name="new"))).record.key
    changed = await plant.step()
    assert [key.name for key in changed] == ["old"]
    assert changed[0].revoked_at is not None
    assert plant.ring.get(new.hash) == new
    assert plant.ring.get(old.hash) is None
    await other.close()
