"""A worker's keys: the log is written by the real writer, whole, torn, replaced and broken."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from gateway.control.feed import KeyLog
from gateway.key_log import Delete, Mark, Put, encode_lines
from gateway.keyring import HEARTBEAT_SECONDS, MAX_WORKERS, Keyring, WorkerSlots, WorkerState, WorkerStatus
from gateway.types import GatewayKey, Scope

NOW = 1_750_000_000.0


def key(number: int, **fields: object) -> GatewayKey:
    made = GatewayKey(f"gk_{number}", number.to_bytes(32, "big"), f"kt_gk_{number:06}", f"key {number}", number)
    return msgspec.structs.replace(made, **fields)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.log"


@pytest.fixture
def key_log(path: Path) -> KeyLog:
    log = KeyLog(path)
    log.begin("store", 1, [key(1), key(2)])
    return log


@pytest.fixture
def ring(path: Path, key_log: KeyLog) -> Keyring:
    ring = Keyring(path)
    assert ring.load(NOW)
    return ring


def ids(keys: list[GatewayKey]) -> list[str]:
    return [one.id for one in keys]


def test_before_there_is_a_log_there_are_no_keys(path: Path) -> None:
    ring = Keyring(path)
    assert ring.poll(NOW) == []
    assert not ring.load(NOW)
    assert not ring.ready
    assert repr(ring) == "<Keyring: 0 keys, revision -1, generation 0>"


def test_a_snapshot_is_read(ring: Keyring) -> None:
    assert ring.get(key(1).hash) == key(1)
    assert ring.get(key(3).hash) is None
    assert repr(ring) == "<Keyring: 2 keys, revision 1, generation 1>"


def test_every_field_survives_the_log(path: Path, key_log: KeyLog, ring: Keyring) -> None:
    full = GatewayKey(
        "gk_full", bytes(range(32)), "kt_gk_abcdef", "naïve “name”\n", 7, "config", "team", "owner",
        frozenset(("b", "a")), 1, 2, 3, 4.5, 1.25, NOW + 0.1, NOW + 0.2,
        Scope("team", "team_1", "team", 1 << 20, 5, 6, 7, 8),
    )  # fmt: skip
    assert None not in msgspec.structs.astuple(full)
    key_log.append(2, [full], [])
    ring.poll(NOW)
    assert ring.get(full.hash) == full


def test_a_new_key_is_there_and_nothing_has_to_end(key_log: KeyLog, ring: Keyring) -> None:
    key_log.append(2, [key(3)], [])
    assert ring.poll(NOW) == []
    assert ring.get(key(3).hash) == key(3)
    assert ring.revision == 2


def test_changed_and_deleted_keys_are_told(key_log: KeyLog, ring: Keyring) -> None:
    revoked = key(1, revoked_at=NOW)
    key_log.append(2, [revoked], ["gk_2", "gk_unknown"])
    assert ring.poll(NOW + 0.1) == [revoked, key(2, revoked_at=NOW + 0.1)]
    assert ring.get(key(1).hash) == revoked
    assert ring.get(key(2).hash) is None
    assert ring.poll(NOW) == []


def test_a_key_that_is_told_again_as_it_was_stays_the_same_object(key_log: KeyLog, ring: Keyring) -> None:
    before = ring.get(key(1).hash)
    key_log.append(2, [key(1)], [])
    assert ring.poll(NOW) == []
    assert ring.get(key(1).hash) is before


def test_a_poll_reads_no_more_lines_than_it_may(path: Path, key_log: KeyLog) -> None:
    ring = Keyring(path, max_lines=10)
    ring.load(NOW)
    key_log.append(2, [key(number) for number in range(10, 35)], [])
    counts = []
    while ring.poll(NOW) == [] and (not counts or ring.behind):
        counts.append(len(ring))
    assert counts == [12, 22]
    assert (len(ring), ring.revision, ring.behind) == (27, 2, False)


def test_a_hundred_thousand_keys_come_piece_by_piece_and_in_force_at_once(path: Path) -> None:
    log = KeyLog(path)
    log.begin("store", 1, [key(1)])
    ring = Keyring(path)
    ring.load(NOW)
    log.begin("store", 2, (key(number) for number in range(2, 100_002)))
    polls = 0
    told: list[GatewayKey] = []
    while ring.revision == 1:
        assert told == []
        assert ring.get(key(1).hash) is not None, "the old keys serve until the new ones are complete"
        assert len(ring) == 1
        told = ring.poll(NOW)
        polls += 1
    assert ids(told) == ["gk_1"]
    assert len(ring) == 100_000
    assert polls >= 100_000 // 200


def test_a_torn_last_line_waits_for_its_rest(path: Path, ring: Keyring) -> None:
    data = encode_lines([Put(key(3)), Mark(2)])
    for cut in range(1, len(data)):
        with path.open("ab") as file:
            file.write(data[cut - 1 : cut])
        ring.poll(NOW)
        assert ring.revision == 1
    with path.open("ab") as file:
        file.write(data[-1:])
    ring.poll(NOW)
    assert ring.revision == 2
    assert ring.get(key(3).hash) == key(3)


def test_after_a_torn_line_the_next_generation_says_it_all(path: Path, ring: Keyring) -> None:
    with path.open("ab") as file:
        file.write(encode_lines([Put(key(3)), Mark(2)])[:-5])
    ring.poll(NOW)
    assert len(ring) == 3, "a whole line is true even though its mark is missing"
    KeyLog(path).begin("store", 3, [key(2), key(3, team="red")])
    assert ids(polled(ring)) == ["gk_3", "gk_1"]
    assert repr(ring) == "<Keyring: 2 keys, revision 3, generation 2>"


def polled(ring: Keyring) -> list[GatewayKey]:
    told = ring.poll(NOW)
    while ring.behind:
        told += ring.poll(NOW)
    return told


def test_a_generation_that_continues_is_not_read_again(
    path: Path, key_log: KeyLog, ring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.control.feed.COMPACT_BYTES", 0)
    before = ring.get(key(1).hash)
    key_log.append(2, [key(3)], ["gk_2"])
    key_log._snapshot_bytes = 0
    assert key_log.compact_if_long()
    key_log.append(3, [key(4)], [])
    monkeypatch.setattr("gateway.keyring._Aside", None)
    assert ids(polled(ring)) == ["gk_2"]
    assert ring.get(key(1).hash) is before
    assert repr(ring) == "<Keyring: 3 keys, revision 3, generation 2>"


def test_who_comes_later_reads_the_compacted_snapshot(
    path: Path, key_log: KeyLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.control.feed.COMPACT_BYTES", 0)
    changes = [[key(3)], [key(3, team="red")], [key(1, revoked_at=NOW)]]
    for revision, changed in enumerate(changes, 2):
        key_log.append(revision, changed, [])
    key_log.append(5, [], ["gk_2"])
    size = path.stat().st_size
    assert key_log.compact_if_long()
    assert not key_log.compact_if_long()
    assert path.stat().st_size < size
    ring = Keyring(path)
    ring.load(NOW)
    assert {id: ring.get(key(id).hash) for id in (1, 2, 3)} == {
        1: key(1, revoked_at=NOW),
        2: None,
        3: key(3, team="red"),
    }
    assert ring.revision == 5


def test_a_newer_generation_replaces_one_that_is_half_read(path: Path, key_log: KeyLog) -> None:
    ring = Keyring(path, max_lines=3)
    ring.load(NOW)
    key_log.begin("store", 2, [key(number) for number in range(10)])
    ring.poll(NOW)
    ring.poll(NOW)
    assert repr(ring) == "<Keyring: 2 keys, revision 1, generation 1, reading generation 2>"
    key_log.begin("store", 3, [key(1)])
    polled(ring)
    assert repr(ring) == "<Keyring: 1 keys, revision 3, generation 3>"


def test_a_log_that_goes_away_leaves_the_keys(path: Path, key_log: KeyLog, ring: Keyring) -> None:
    path.unlink()
    assert ring.poll(NOW) == []
    assert len(ring) == 2
    KeyLog(path).begin("store", 2, [key(1)])
    assert ids(polled(ring)) == ["gk_2"]


@pytest.mark.parametrize("line", [b"{}\n", b'{"op":"put"}\n', b"\xff\xfe\n", b"\n", b'{"op":"grant"}\n'])
def test_a_line_that_makes_no_sense_stops_reading_until_the_next_generation(
    line: bytes, path: Path, ring: Keyring, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "gateway.keyring"):
        with path.open("ab") as file:
            file.write(line + encode_lines([Delete("gk_1"), Mark(2)]))
        for _ in range(3):
            assert ring.poll(NOW) == []
        assert (len(ring), ring.revision) == (2, 1)
        KeyLog(path).begin("store", 3, [key(1)])
        assert ids(polled(ring)) == ["gk_2"]
    assert caplog.messages == [
        "keys log cannot be read; keys stay as they are",
        "keys log can be read again",
    ]


def test_a_file_that_is_no_log_changes_nothing(path: Path, ring: Keyring) -> None:
    other = path.with_name("other")
    other.write_text("hello\nworld\n")
    other.rename(path)
    for _ in range(3):
        assert ring.poll(NOW) == []
    assert len(ring) == 2
    KeyLog(path).begin("store", 3, [])
    assert sorted(ids(polled(ring))) == ["gk_1", "gk_2"]


def test_keys_expire_once(path: Path) -> None:
    log = KeyLog(path)
    log.begin("store", 1, [key(1, expires_at=NOW + 1), key(2, expires_at=NOW + 2), key(3, expires_at=NOW - 1), key(4)])
    ring = Keyring(path)
    ring.load(NOW)
    assert ring.expired(NOW) == [], "what had expired before it was met has nothing open"
    assert ids(ring.expired(NOW + 1)) == ["gk_1"]
    assert ring.expired(NOW + 1) == []
    assert ids(ring.expired(NOW + 5)) == ["gk_2"]
    assert ring.get(key(1).hash) is not None


def test_an_expiry_that_moved_counts_where_it_is_now(key_log: KeyLog, ring: Keyring) -> None:
    key_log.append(2, [key(1, expires_at=NOW + 10)], [])
    key_log.append(3, [key(1, expires_at=NOW - 1)], [])
    assert ids(ring.poll(NOW)) == ["gk_1", "gk_1"]
    assert ids(ring.expired(NOW)) == ["gk_1"]
    assert ring.expired(NOW + 20) == []


def test_a_revoked_or_deleted_key_does_not_expire_too(key_log: KeyLog, ring: Keyring) -> None:
    key_log.append(2, [key(1, expires_at=NOW + 1), key(2, expires_at=NOW + 1)], [])
    key_log.append(3, [key(1, expires_at=NOW + 1, revoked_at=NOW)], ["gk_2"])
    ring.poll(NOW)
    assert ring.expired(NOW + 2) == []


def test_many_expiries_at_once_are_told_in_portions(path: Path) -> None:
    KeyLog(path).begin("store", 1, [key(number, expires_at=NOW + 1) for number in range(25)])
    ring = Keyring(path, max_lines=10)
    ring.load(NOW)
    assert [len(ring.expired(NOW + 1)) for _ in range(4)] == [10, 10, 5, 0]


def test_a_closed_keyring_keeps_its_keys(ring: Keyring) -> None:
    ring.close()
    ring.close()
    assert ring.get(key(1).hash) == key(1)


def test_a_worker_tells_what_it_has_in_force(tmp_path: Path) -> None:
    assert WorkerSlots.read(tmp_path) == []
    slots = WorkerSlots(tmp_path, 3)
    assert WorkerSlots.read(tmp_path) == [WorkerStatus(3, os.getpid(), WorkerState.STARTING, -1, "", 0.0)]
    slots.publish(state=WorkerState.READY, keys_revision=7, configuration="00ab" + "f" * 60, heartbeat=NOW)
    slots.publish(keys_revision=8)
    (status,) = WorkerSlots.read(tmp_path)
    assert status == WorkerStatus(3, os.getpid(), WorkerState.READY, 8, "00abffffffff", NOW)
    slots.close()
    WorkerSlots(tmp_path, 0)
    assert [one.worker for one in WorkerSlots.read(tmp_path)] == [0, 3]
    with pytest.raises(ValueError):
        WorkerSlots(tmp_path, MAX_WORKERS)


def test_which_worker_is_live() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()

    def live(pid: int, state: WorkerState, heartbeat: float) -> bool:
        return WorkerStatus(0, pid, state, 0, "", heartbeat).is_live(NOW)

    assert live(os.getpid(), WorkerState.READY, NOW - 1)
    assert not live(os.getpid(), WorkerState.READY, NOW - HEARTBEAT_SECONDS)
    assert not live(os.getpid(), WorkerState.READY, NOW + HEARTBEAT_SECONDS), "from before the clock was set back"
    assert not live(os.getpid(), WorkerState.STOPPED, NOW)
    assert not live(ended.pid, WorkerState.READY, NOW)
    assert live(1, WorkerState.DRAINING, NOW), "a process of somebody else"
