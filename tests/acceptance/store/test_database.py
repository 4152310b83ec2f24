"""Opening a PostgreSQL store: its schema, and each way in which it can fail."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection

from gateway.control.store.database import Database
from gateway.control.store.errors import (
    StoreError,
    StoreLocked,
    StoreMissing,
    StoreNewer,
    StoreReadOnly,
    StoreUnavailable,
)
from gateway.control.store.location import Location
from gateway.control.store.records import KeyScope
from gateway.control.store.schema import metadata
from gateway.control.store.store import Store
from tests.gateway_process import HOST, free_port
from tests.postgres import PostgresServer


def name_of(url: str) -> str:
    return url.rpartition("/")[2]


async def test_the_migrations_make_the_schema(url: str) -> None:
    def differences(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), metadata))

    database = await Database.open(Location(url))
    async with database.read() as connection:
        assert await connection.run_sync(differences) == []
    await database.close()


async def test_many_may_make_the_store_at_once(url: str) -> None:
    stores = await asyncio.gather(*(Store.open(url) for _ in range(8)))
    assert len({store.id for store in stores}) == 1
    await asyncio.gather(*(store.close() for store in stores))


async def test_a_failed_migration_leaves_nothing_behind(
    url: str, server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("power cut")

    monkeypatch.setattr("alembic.op.create_index", fail)
    with pytest.raises(RuntimeError):
        await Store.open(url)
    monkeypatch.undo()
    assert server.query("SELECT relname FROM pg_stat_user_tables", name_of(url)) == ""
    await (await Store.open(url)).close()


async def test_a_store_of_a_newer_version_is_left_alone(url: str, server: PostgresServer) -> None:
    await (await Store.open(url)).close()
    server.query("UPDATE alembic_version SET version_num = '9999'", name_of(url))
    with pytest.raises(StoreNewer, match="newer version of kt"):
        await Store.open(url)


async def test_a_database_that_does_not_exist_says_so(server: PostgresServer) -> None:
    with pytest.raises(StoreMissing, match="createdb"):
        await Store.open(server.url("nowhere"))


async def test_a_locked_store_says_so(store: Store, url: str, server: PostgresServer) -> None:
    with server.session("UPDATE meta SET revision = revision", name_of(url)):
        with pytest.raises(StoreLocked, match="locked by another session"):
            await store.create_key(KeyScope(name="a"))
        assert await store.list_keys() == [], "readers go on"
    await store.create_key(KeyScope(name="a"))


async def test_a_store_that_cannot_be_written_says_so(url: str, server: PostgresServer) -> None:
    await (await Store.open(url)).close()
    server.query(f"ALTER DATABASE {name_of(url)} SET default_transaction_read_only = on")
    store = await Store.open(url)
    with pytest.raises(StoreReadOnly, match="standby"):
        await store.create_key(KeyScope(name="a"))
    await store.close()


async def test_a_server_that_is_not_there_says_so() -> None:
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        await Store.open(f"postgresql://ada:hidden@{HOST}:{free_port()}/keys", busy_seconds=0.2)


@pytest.mark.parametrize("text", ["postgresql://ada:hidden@host:port/db", "postgresql://ada:hidden@host/db?sslmode=x"])
async def test_no_error_shows_a_password(text: str) -> None:
    with pytest.raises(StoreError, match="cannot be read") as caught:
        await Store.open(text)
    assert "hidden" not in str(caught.value)


async def test_a_session_that_the_server_ended_is_left_alone(store: Store, url: str, server: PostgresServer) -> None:
    await store.create_key(KeyScope(name="a"))
    before = await store.stamp()
    server.query(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name_of(url)}'")
    assert [record.key.name for record in await store.list_keys()] == ["a"]
    with contextlib.suppress(StoreUnavailable):  # unless it has heard of its end already
        await store.stamp()
    assert await store.stamp() == before


async def test_writers_come_one_after_the_other(url: str) -> None:
    stores = [await Store.open(url) for _ in range(4)]
    made = await asyncio.gather(*(store.create_key(KeyScope(name=f"k{n}")) for n in range(8) for store in stores))
    assert sorted(new.record.revision for new in made) == list(range(1, 33))
    assert sorted(new.record.key.slot for new in made) == list(range(32))
    await asyncio.gather(*(store.close() for store in stores))
