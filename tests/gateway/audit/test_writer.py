from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.audit.verify import verify
from gateway.audit.writer import AuditLog
from gateway.errors import AuditUnavailable
from gateway.types import FailMode
from tests.gateway.audit.support import (
    DAY,
    NOON,
    eventually,
    exchanges,
    finish,
    ids,
    manifest,
    records,
    sealed_log,
    segments,
    start,
)

ROOT = Path(__file__).parents[3]


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "volume" / "audit"


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def log(folder: Path, run_folder: Path, clock: Clock) -> Iterator[AuditLog]:
    log = AuditLog(folder, run_folder, 0, clock=clock, journal_bytes=4096)
    yield log
    log.close()


@pytest.fixture
def forgiving(folder: Path, run_folder: Path, clock: Clock) -> Iterator[AuditLog]:
    log = AuditLog(folder, run_folder, 1, fail_mode=FailMode.ALLOW, clock=clock, journal_bytes=4096)
    yield log
    log.close()


def take_the_volume_away(folder: Path) -> None:
    """A file is where the volume should be: every attempt to write fails for real."""
    folder.parent.write_bytes(b"")


def bring_the_volume_back(folder: Path) -> None:
    folder.parent.unlink()


def fill(log: AuditLog) -> int:
    """Append until there is no more room; returns how many starts were taken."""
    count = 0
    while True:
        try:
            log.append(start(str(count)))
        except AuditUnavailable:
            return count
        count += 1


def test_what_is_appended_is_written_by_and_by(log: AuditLog, folder: Path, run_folder: Path) -> None:
    log.start()
    for record in exchanges(range(5)):
        log.append(record)
    eventually(lambda: log.stats.written == 10)
    assert ids(folder, "start") == ids(folder, "finish") == ["0", "1", "2", "3", "4"]
    assert log.stats.backlog_bytes == 0
    assert verify(folder).ok
    assert [path.name for path in run_folder.iterdir()] == [f"audit-0-{log.writer}.journal"]


def test_the_end_is_a_seal_and_no_journal(log: AuditLog, folder: Path, run_folder: Path) -> None:
    log.start()
    log.append(start("done"))
    log.conclude(finish("done"))
    log.append(start("open"))
    assert log.close()
    assert [(record["kind"], record.get("outcome")) for record in records(folder)] == [
        ("segment", None),
        ("start", None),
        ("finish", "completed"),
        ("start", None),
        ("finish", "interrupted"),
        ("seal", None),
    ]
    assert list(run_folder.iterdir()) == []
    assert log.stats.written == 3
    assert log.close()
    with pytest.raises(AuditUnavailable):
        log.append(start("late"))
    log.conclude(finish("late"))


def test_a_log_that_was_never_started_is_written_at_its_end(log: AuditLog, folder: Path) -> None:
    log.append(start("1"))
    assert log.close()
    assert ids(folder, "start") == ["1"]


def test_a_log_without_records_leaves_nothing(log: AuditLog, folder: Path, run_folder: Path) -> None:
    log.start()
    assert log.close()
    assert not folder.exists()
    assert list(run_folder.iterdir()) == []


def test_workers_write_side_by_side(folder: Path, run_folder: Path) -> None:
    logs = [AuditLog(folder, run_folder, number, segment_bytes=4096) for number in range(3)]
    for log in logs:
        log.start()
    for number in range(300):
        for log in logs:
            log.append(start(f"{log.writer}-{number}"))
            log.conclude(finish(f"{log.writer}-{number}"))
    assert [log.close() for log in logs] == [True, True, True]
    assert len(segments(folder)) > 5
    assert sorted(ids(folder, "finish")) == sorted(f"{log.writer}-{number}" for log in logs for number in range(300))
    report = verify(folder)
    assert (report.problems, report.writers, report.records) == ([], 3, 1800)


# A disk that refuses


def test_block_refuses_when_the_journal_is_full(log: AuditLog, folder: Path) -> None:
    take_the_volume_away(folder)
    log.start()
    count = fill(log)
    log.conclude(finish("0"))
    eventually(lambda: log.stats.errors)
    stats = log.stats
    assert (stats.failing, stats.written, stats.dropped) == (True, 0, 0)
    assert stats.backlog_bytes > 4096 * 7 // 8
    bring_the_volume_back(folder)
    eventually(lambda: not log.stats.failing)
    log.append(start("again"))
    assert log.close()
    assert ids(folder, "start") == [*(str(number) for number in range(count)), "again"]
    assert ids(folder, "finish")[0] == "0"
    assert log.stats.gaps == 0
    assert verify(folder).ok


def test_allow_goes_on_and_leaves_a_gap(forgiving: AuditLog, folder: Path) -> None:
    take_the_volume_away(folder)
    forgiving.start()
    for number in range(30):
        forgiving.append(start(str(number)))
    dropped = forgiving.stats.dropped
    assert 0 < dropped < 30
    bring_the_volume_back(folder)
    eventually(lambda: forgiving.stats.gaps)
    written = records(folder)
    assert ids(folder, "start") == [str(number) for number in range(30 - dropped)]
    assert written[-1] == {"kind": "gap", "at": int(NOON * 1e6), "reason": "journal_full", "records": dropped}
    assert forgiving.close()
    assert forgiving.stats.gaps == 1
    assert verify(folder).ok


def test_an_end_that_finds_no_room_is_a_gap_too(log: AuditLog, folder: Path) -> None:
    fill(log)
    while not log.stats.dropped:
        log.conclude(finish("0"))
    assert log.close()
    (gap,) = (record for record in records(folder) if record["kind"] == "gap")
    assert gap["records"] == 1


def test_what_cannot_be_written_at_the_end_waits_for_recovery(
    log: AuditLog, folder: Path, run_folder: Path, clock: Clock
) -> None:
    take_the_volume_away(folder)
    log.start()
    log.append(start("1"))
    assert not log.close()
    assert len(list(run_folder.iterdir())) == 1
    bring_the_volume_back(folder)
    second = AuditLog(folder, run_folder, 0, clock=clock, journal_bytes=4096)
    second.start()
    eventually(lambda: len(list(run_folder.iterdir())) == 1)
    assert second.close()
    assert ids(folder, "start") == ids(folder, "finish") == ["1"]
    assert verify(folder).ok


def test_a_disk_that_fills_up_in_the_middle_of_a_write(folder: Path, run_folder: Path) -> None:
    """In a process of its own, whose files may not grow beyond 100,000 bytes until the journal is full."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.gateway.audit.child", "limited", str(folder), str(run_folder)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
    )
    accepted, written = struct.unpack("<QQ", done.stdout)
    assert accepted == written > 400
    assert ids(folder, "start") == [str(number) for number in range(accepted)]
    assert len(segments(folder)) == 1
    assert segments(folder)[0].stat().st_size > 100_000
    assert verify(folder).ok


# Time


def test_midnight_seals_the_segment(log: AuditLog, folder: Path, clock: Clock) -> None:
    log.start()
    log.append(start("1"))
    eventually(lambda: log.stats.written == 1)
    assert manifest(folder)[-1]["kind"] == "opened"
    clock.now = NOON + DAY / 2
    eventually(lambda: manifest(folder)[-1]["kind"] == "sealed")
    log.append(finish("1"))
    assert log.close()
    assert [path.name[:10] for path in segments(folder)] == ["2026-06-01", "2026-06-02"]
    assert records(folder)[3]["in_flight"] == ["1"]
    assert verify(folder).ok


def test_retention_runs_at_the_start_and_every_day(folder: Path, run_folder: Path, clock: Clock) -> None:
    sealed_log(folder, "00000000000000aa", 1, now=NOON - 3 * DAY)
    sealed_log(folder, "00000000000000bb", 1, now=NOON - DAY)
    log = AuditLog(folder, run_folder, 0, retention_days=2, clock=clock)
    log.start()
    eventually(lambda: [path.name[:10] for path in segments(folder)] == ["2026-05-31"])
    clock.now = NOON + DAY
    eventually(lambda: segments(folder) == [])
    assert log.close()
    assert [entry["kind"] for entry in manifest(folder)].count("retired") == 2
    assert verify(folder).ok


def test_without_a_retention_everything_stays(folder: Path, run_folder: Path, clock: Clock) -> None:
    sealed_log(folder, "00000000000000aa", 1, now=NOON - 9999 * DAY)
    log = AuditLog(folder, run_folder, 0, clock=clock)
    log.start()
    log.append(start("1"))
    assert log.close()
    assert len(segments(folder)) == 2
