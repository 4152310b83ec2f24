"""Opening a store: its file, its schema, and each way in which it can fail."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from gateway.control.store import HEAD
from gateway.control.store.database import Database
from gateway.control.store.errors import (
    StoreDamaged,
    StoreError,
    StoreLocked,
    StoreMissing,
    StoreNewer,
    StoreReadOnly,
    StoreReplaced,
    StoreUnavailable,
)
from gateway.control.store.location import Location
from gateway.control.store.migrate import configuration
from gateway.control.store.records import KeyScope
from gateway.control.store.schema import metadata
from gateway.control.store.store import Store


def path_of(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


async def test_the_file_is_for_its_user_only(url: str) -> None:
    before = os.umask(0)
    try:
        store = await Store.open(url)
        await store.create_key(KeyScope(name="a"))
        folder = path_of(url).parent
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}
        assert modes == dict.fromkeys(("gateway.db", "gateway.db-wal", "gateway.db-shm"), 0o600)
        await store.close()
    finally:
        os.umask(before)


async def test_readers_do_not_wait_and_foreign_keys_hold(url: str) -> None:
    database = await Database.open(Location(url))
    async with database.read() as connection:
        assert (await connection.exec_driver_sql("PRAGMA journal_mode")).scalar() == "wal"
        assert (await connection.exec_driver_sql("PRAGMA foreign_keys")).scalar() == 1
        assert (await connection.exec_driver_sql("PRAGMA synchronous")).scalar() == 2
    await database.close()


async def test_the_migrations_make_the_schema(url: str) -> None:
    def differences(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), metadata))

    database = await Database.open(Location(url))
    async with database.read() as connection:
        assert await connection.run_sync(differences) == []
    await database.close()
    assert ScriptDirectory.from_config(configuration()).get_heads() == [HEAD]


async def test_many_may_make_the_store_at_once(url: str) -> None:
    stores = await asyncio.gather(*(Store.open(url) for _ in range(8)))
    assert len({store.id for store in stores}) == 1
    await asyncio.gather(*(store.close() for store in stores))


async def test_a_failed_migration_leaves_nothing_behind(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("power cut")

    monkeypatch.setattr("alembic.op.create_index", fail)
    with pytest.raises(RuntimeError):
        await Store.open(url)
    monkeypatch.undo()
    with sqlite3.connect(path_of(url)) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == []
    connection.close()
    await (await Store.open(url)).close()


async def test_a_store_of_a_newer_version_is_left_alone(url: str) -> None:
    await (await Store.open(url)).close()
    with sqlite3.connect(path_of(url)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(StoreNewer, match="newer version of kt"):
        await Store.open(url)


async def test_a_missing_store_is_made_only_when_asked_for(url: str) -> None:
    with pytest.raises(StoreMissing, match="gateway-key create"):
        await Store.open(url, create=False)
    assert not path_of(url).exists()


async def test_a_locked_store_says_so(store: Store, url: str) -> None:
    holder = sqlite3.connect(path_of(url), isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreLocked, match="locked by another process"):
        await store.create_key(KeyScope(name="a"))
    assert await store.list_keys() == [], "readers go on"
    holder.execute("ROLLBACK")
    await store.create_key(KeyScope(name="a"))
    holder.close()


async def test_an_exclusively_locked_store_cannot_even_be_opened(url: str) -> None:
    await (await Store.open(url)).close()
    holder = sqlite3.connect(path_of(url), isolation_level=None)
    holder.execute("PRAGMA locking_mode = EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreLocked):
        await Store.open(url, busy_seconds=0.05)
    holder.close()
    await (await Store.open(url)).close()


async def test_what_is_no_database_says_so(url: str) -> None:
    path_of(url).parent.mkdir()
    path_of(url).write_text("this is a text file, and not a short one either\n" * 100)
    with pytest.raises(StoreDamaged, match="not a SQLite database"):
        await Store.open(url)


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="needs a file system that nobody can write")
async def test_a_place_where_no_file_can_be_made_says_so() -> None:
    with pytest.raises(StoreError, match=r"cannot be|no permission"):
        await Store.open("/sys/kernel/keeptrusts/gateway.db")


async def test_a_store_that_cannot_be_written_says_so(store: Store) -> None:
    async with store._database._engine.connect() as connection:
        await connection.exec_driver_sql("PRAGMA query_only = ON")
    with pytest.raises(StoreReadOnly, match="read-only"):
        await store.create_key(KeyScope(name="a"))


async def test_a_file_that_was_put_in_the_place_of_another_is_noticed(store: Store, url: str) -> None:
    await store.stamp()
    path = path_of(url)
    path.rename(path.with_suffix(".old"))
    with pytest.raises(StoreMissing):
        await store.stamp()
    path.touch()
    with pytest.raises(StoreReplaced):
        await store.stamp()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mysql://host/db", "'mysql' is not supported"),
        ("sqlite://", "names no file"),
        ("sqlite:///", "must be a file"),
        ("", "must be a file"),
        ("sqlite:///gateway.db?mode=ro", "options"),
        ("sqlite:///:memory:", "must be a file"),
        ("://", "'' is not supported"),
    ],
)
def test_what_is_no_store(text: str, message: str) -> None:
    with pytest.raises(StoreUnavailable, match=message) as caught:
        Location(text)
    assert "secret" not in str(caught.value)


def test_ways_to_name_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/ada")
    assert Location("gateway.db").path == tmp_path / "gateway.db"
    assert Location("sqlite:///gateway.db").path == tmp_path / "gateway.db"
    assert Location("sqlite:////var/lib/gateway.db").path == Path("/var/lib/gateway.db")
    assert Location("~/gateway.db").path == Path("/home/ada/gateway.db")
    assert Location("a%20b.db").path == tmp_path / "a%20b.db"
    postgres = Location("postgresql://ada:secret@db.example/keys?ssl=require")
    assert postgres.path is None
    assert str(postgres) == "postgresql://ada@db.example/keys"


async def test_a_url_that_cannot_be_read_does_not_show_its_password() -> None:
    with pytest.raises(StoreUnavailable, match="cannot be read") as caught:
        await Store.open("postgresql://user:secret@host:port/db")
    assert "secret" not in str(caught.value)
