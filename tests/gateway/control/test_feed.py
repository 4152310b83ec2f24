"""From the store to a worker's keyring, through real files, whatever happens in between."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.control.feed import Feed, KeyLog
from gateway.control.store.glance import glance
from gateway.control.store.records import KeyScope
from gateway.control.store.store import Store
from gateway.key_log import log_path, read_header
from gateway.key_usage import KeyUse
from gateway.keyring import Keyring
from gateway.types import GatewayKey
from tests.gateway.control.conftest import Clock

NOW = 1_750_000_000.0


class Plant:
    """A feed and a keyring on either side of one log."""

    def __init__(self, url: str, run_folder: Path) -> None:
        self.told: list[str] = []
        self.log = KeyLog(log_path(run_folder))
        self.feed = Feed(url, self.log, self._note)
        self.ring = Keyring(log_path(run_folder))

    def _note(self, keys: object) -> None:
        assert isinstance(keys, list)
        self.told += [key.name for key in keys]

    async def step(self) -> list[GatewayKey]:
        await self.feed.step()
        return self.poll()

    def poll(self) -> list[GatewayKey]:
        changed = self.ring.poll(NOW)
        while self.ring.behind:
            changed += self.ring.poll(NOW)
        return changed


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.control.feed.BUSY_SECONDS", 0.02)


@pytest.fixture
async def plant(url: str, tmp_path: Path) -> AsyncIterator[Plant]:
    made = Plant(url, tmp_path)
    await made.feed.step(create=True)
    made.poll()
    yield made
    await made.feed.close()
    made.log.close()
    made.ring.close()


def path_of(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


def files_below(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def test_a_life_of_a_key(plant: Plant, store: Store) -> None:
    new = (await store.create_key(KeyScope(name="a", team="red"))).record.key
    assert await plant.step() == []
    assert plant.ring.get(new.hash) == new

    rotation = await store.rotate_key("a", 60.0)
    assert await plant.step() == [rotation.old.key]
    assert plant.ring.get(rotation.new.record.key.hash) == rotation.new.record.key

    revoked = await store.revoke_key(new.id)
    assert await plant.step() == [revoked.key]

    await store.delete_key(new.id)
    assert await plant.step() == [revoked.key]
    assert plant.ring.get(new.hash) is None
    assert plant.ring.revision == plant.feed.revision == 4
    assert plant.told == ["a", "a", "a", "a"]


async def test_what_has_not_changed_is_not_written(plant: Plant, store: Store, tmp_path: Path) -> None:
    await store.create_key(KeyScope(name="a"))
    await plant.step()
    size = log_path(tmp_path).stat().st_size
    await plant.step()
    id = (await store.list_keys())[0].key.id
    await store.touch({id: KeyUse(1, NOW)})
    await plant.step()
    assert log_path(tmp_path).stat().st_size == size


async def test_several_changes_between_two_looks_are_one_batch(plant: Plant, store: Store) -> None:
    for name in "abc":
        await store.create_key(KeyScope(name=name))
    await store.delete_key("b")
    await plant.step()
    assert len(plant.ring) == 2
    assert plant.ring.revision == 4


async def test_a_locked_store_leaves_the_keys_in_force(
    plant: Plant, store: Store, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    new = (await store.create_key(KeyScope(name="a"))).record.key
    await plant.step()
    await store.close()
    await plant.feed.close()
    holder = sqlite3.connect(path_of(url), isolation_level=None)
    holder.execute("PRAGMA locking_mode = EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    with caplog.at_level(logging.INFO, "gateway.control"):
        for _ in range(3):
            assert await plant.step() == []
            assert plant.ring.get(new.hash) == new
        assert "locked" in plant.feed.fault
        holder.execute("UPDATE gateway_keys SET revoked_at = 1, revision = 2")
        holder.execute("UPDATE meta SET revision = 2")
        holder.execute("COMMIT")
        holder.close()
        assert [key.id for key in await plant.step()] == [new.id]
    assert plant.feed.fault == ""
    assert caplog.messages == ["keys cannot be told; those that are known stay in force", "keys can be told again"]


async def test_a_writer_does_not_hold_the_feed_up(plant: Plant, store: Store, url: str) -> None:
    await store.create_key(KeyScope(name="a"))
    holder = sqlite3.connect(path_of(url), isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    await plant.step()
    holder.close()
    assert plant.feed.fault == ""
    assert len(plant.ring) == 1


async def test_a_store_that_is_gone_leaves_the_keys_in_force_and_is_not_made_anew(
    plant: Plant, store: Store, url: str
) -> None:
    new = (await store.create_key(KeyScope(name="a"))).record.key
    await plant.step()
    await store.close()
    path = path_of(url)
    path.rename(path.with_suffix(".away"))
    for _ in range(2):
        assert await plant.step() == []
    assert not path.exists()
    assert "there is no store" in plant.feed.fault
    path.with_suffix(".away").rename(path)
    await plant.step()
    assert plant.feed.fault == ""
    assert plant.ring.get(new.hash) == new


async def test_a_store_put_back_from_a_backup_counts_as_it_is(plant: Plant, store: Store, url: str) -> None:
    old = (await store.create_key(KeyScope(name="old"))).record.key
    backup = sqlite3.connect(":memory:")
    live = sqlite3.connect(path_of(url))
    live.backup(backup)
    await store.create_key(KeyScope(name="new"))
    await plant.step()
    assert (len(plant.ring), plant.ring.revision) == (2, 2)
    backup.backup(live)
    backup.close()
    live.close()
    assert [key.name for key in await plant.step()] == ["new"]
    assert plant.ring.get(old.hash) == old
    assert plant.ring.revision == 1


async def test_another_store_replaces_all_keys(plant: Plant, store: Store, url: str, tmp_path: Path) -> None:
    await store.create_key(KeyScope(name="a"))
    await plant.step()
    await store.close()
    other = await Store.open(str(tmp_path / "other.db"))
    theirs = (await other.create_key(KeyScope(name="theirs"))).record.key
    await other.close()
    path = path_of(url)
    (tmp_path / "other.db").rename(path)
    for left_over in ("-wal", "-shm"):  # SQLite would take them for the new file's
        path.with_name(path.name + left_over).unlink()
    await plant.step()
    assert [key.name for key in await plant.step()] == ["a"]
    assert plant.ring.get(theirs.hash) == theirs


async def test_a_log_that_cannot_be_written_whole_is_begun_anew(
    plant: Plant, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a full disk does: a part of the batch is written, then nothing."""
    real = os.write
    await store.create_key(KeyScope(name="a"))
    monkeypatch.setattr("gateway.control.feed.os.write", lambda descriptor, data: real(descriptor, data[:100]))
    await plant.step()
    assert "no space" in plant.feed.fault
    assert len(plant.ring) == 0
    monkeypatch.undo()
    await plant.step()
    assert plant.feed.fault == ""
    assert len(plant.ring) == 1
    header = read_header(log_path(tmp_path))
    assert header is not None
    assert (header.generation, header.continues) == (2, None)


async def test_a_folder_that_takes_no_file_leaves_the_old_log(
    plant: Plant, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    await store.create_key(KeyScope(name="a"))
    monkeypatch.setattr("gateway.control.feed.os.write", full)
    for _ in range(2):
        await plant.step()
    monkeypatch.undo()
    assert not (tmp_path / "keys.log.new").exists()
    await plant.step()
    assert len(plant.ring) == 1


async def test_a_log_grown_long_is_compacted_and_nobody_notices(
    plant: Plant, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.control.feed.COMPACT_BYTES", 1000)
    held = (await store.create_key(KeyScope(name="held"))).record.key
    await plant.step()
    kept = plant.ring.get(held.hash)
    for number in range(10):
        await store.create_key(KeyScope(name=f"{number}"))
        assert await plant.step() == []
        await store.delete_key(f"{number}")
        assert [key.name for key in await plant.step()] == [f"{number}"]
    header = read_header(log_path(tmp_path))
    assert header is not None
    assert header.continues == header.generation - 1 >= 1
    assert log_path(tmp_path).stat().st_size < 3000
    assert plant.ring.get(held.hash) is kept
    assert (len(plant.ring), plant.ring.revision) == (1, 21)


async def test_a_spoilt_log_is_begun_anew(
    plant: Plant, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with log_path(tmp_path).open("ab") as file:
        file.write(b"spoilt\n")
    await store.create_key(KeyScope(name="a"))
    await plant.step()
    assert len(plant.ring) == 0
    monkeypatch.setattr("gateway.control.feed.COMPACT_BYTES", 0)
    plant.log._snapshot_bytes = 0
    await store.create_key(KeyScope(name="b"))
    await plant.step()
    await plant.step()
    assert len(plant.ring) == 2


async def test_the_plain_key_is_in_no_file_and_no_log_line(
    plant: Plant, store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        new = await store.create_key(KeyScope(name="a"))
        await plant.step()
        new = (await store.rotate_key("a", 0.0)).new
        await plant.step()
    secret = new.secret.reveal()
    assert secret[12:] not in caplog.text
    assert secret[12:] not in repr(new)
    files = files_below(tmp_path)
    assert files.keys() >= {"gateway.db", "gateway.db-wal", "keys.log"}
    assert secret[12:].encode() not in b"".join(files.values())


async def test_a_glance_sees_what_the_store_sees(store: Store, url: str, clock: Clock) -> None:
    everything = KeyScope(
        name="a",
        configuration_id="c",
        team="t",
        owner="o",
        models=frozenset(("x", "y")),
        requests_per_minute=1,
        tokens_per_minute=2,
        max_concurrency=3,
        budget_usd_per_month=4.5,
    )
    await store.create_key(everything, expires_at=clock.now + 1.0)
    await store.create_key(KeyScope(name="b"))
    await store.revoke_key("b")
    assert glance(url) == await store.changes_since(0)


async def test_a_glance_at_anything_else_sees_nothing(url: str, tmp_path: Path) -> None:
    assert glance(url) is None
    assert not path_of(url).exists()
    assert glance("postgresql://host/db") is None
    (tmp_path / "text").write_text("hello " * 1000)
    assert glance(str(tmp_path / "text")) is None
    sqlite3.connect(tmp_path / "empty.db").execute("CREATE TABLE other (x)").connection.close()
    assert glance(str(tmp_path / "empty.db")) is None
    await (await Store.open(url)).close()
    connection = sqlite3.connect(path_of(url))
    with connection:
        connection.execute("UPDATE alembic_version SET version_num = '0000'")
    connection.close()
    assert glance(url) is None


async def test_a_feed_begins_with_a_glance(store: Store, url: str, tmp_path: Path) -> None:
    await store.create_key(KeyScope(name="a"))
    plant = Plant(url, tmp_path)
    plant.feed.begin()
    plant.poll()
    assert plant.feed.store is None
    assert (len(plant.ring), plant.ring.revision, plant.told) == (1, 1, ["a"])
    await plant.step()
    header = read_header(log_path(tmp_path))
    assert header is not None
    assert header.generation == 1, "the store had nothing to add"
    await plant.feed.close()
