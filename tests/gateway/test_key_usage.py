"""Use of keys: counted by workers, told once, whoever dies."""

from __future__ import annotations

from pathlib import Path

import msgspec

from gateway.key_usage import MAX_SLOTS, KeyUsage, KeyUse, UsageReader
from gateway.types import GatewayKey

NOW = 1_750_000_000.0
A = GatewayKey("gk_a", b"a", "kt_gk_a", "a", 0, created_at=NOW)
B = GatewayKey("gk_b", b"b", "kt_gk_b", "b", 700, created_at=NOW)
OWNERS = {0: A, 700: B}


def test_counts_of_all_workers_are_summed_and_told_once(tmp_path: Path) -> None:
    workers = [KeyUsage(tmp_path, 0), KeyUsage(tmp_path, 1)]
    reader = UsageReader(tmp_path)
    assert reader.collect(OWNERS) == {}
    workers[0].count(A, NOW + 1)
    workers[0].count(A, NOW + 2)
    workers[1].count(A, NOW + 1.5)
    workers[1].count(B, NOW + 3)
    assert reader.collect(OWNERS) == {"gk_a": KeyUse(3, NOW + 2), "gk_b": KeyUse(1, NOW + 3)}
    assert reader.collect(OWNERS) == {"gk_a": KeyUse(3, NOW + 2), "gk_b": KeyUse(1, NOW + 3)}, "not confirmed"
    workers[0].count(A, NOW + 4)
    reader.confirm()
    assert reader.collect(OWNERS) == {"gk_a": KeyUse(1, NOW + 4)}
    reader.confirm()
    assert reader.collect(OWNERS) == {}
    reader.close()


def test_neither_end_loses_anything_when_it_starts_again(tmp_path: Path) -> None:
    worker = KeyUsage(tmp_path, 0)
    worker.count(A, NOW + 1)
    reader = UsageReader(tmp_path)
    reader.collect(OWNERS)
    reader.confirm()
    reader.close()
    worker.count(A, NOW + 2)
    worker.close()
    KeyUsage(tmp_path, 0).count(A, NOW + 3)
    assert UsageReader(tmp_path).collect(OWNERS) == {"gk_a": KeyUse(2, NOW + 3)}


def test_a_slot_s_earlier_key_is_not_taken_for_the_new_one(tmp_path: Path) -> None:
    KeyUsage(tmp_path, 0).count(A, NOW + 1)
    heir = msgspec.structs.replace(A, id="gk_heir", created_at=NOW + 100)
    reader = UsageReader(tmp_path)
    assert reader.collect({0: heir}) == {}
    reader.confirm()
    KeyUsage(tmp_path, 0).count(heir, NOW + 101)
    assert reader.collect({0: heir}) == {"gk_heir": KeyUse(1, NOW + 101)}


def test_a_key_without_a_place_is_not_counted(tmp_path: Path) -> None:
    usage = KeyUsage(tmp_path, 0)
    for slot in (-1, MAX_SLOTS):
        usage.count(msgspec.structs.replace(A, slot=slot), NOW)
    assert UsageReader(tmp_path).collect(OWNERS) == {}


def test_the_file_takes_only_what_is_used(tmp_path: Path) -> None:
    usage = KeyUsage(tmp_path, 0)
    usage.count(A, NOW)
    usage.count(B, NOW)
    found = (tmp_path / "usage-0.slots").stat()
    assert found.st_blocks * 512 <= 4 * 4096 < found.st_size
