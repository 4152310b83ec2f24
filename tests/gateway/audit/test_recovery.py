"""A worker is gone. Every record that it had appended is in the log, once, and every exchange has an end."""

from __future__ import annotations

import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gateway.audit.journal import Journal, Mark
from gateway.audit.layout import MANIFEST
from gateway.audit.recovery import Recovered, recover
from gateway.audit.segments import SegmentedChain
from gateway.audit.verify import Fault, verify
from gateway.audit.writer import AuditLog
from tests.gateway.audit.support import DAY, NOON, WRITER, exchanges, finish, ids, records, sealed_log, segments, start

ROOT = Path(__file__).parents[3]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "audit"


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


def spawn(mode: str, folder: Path, run_folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.gateway.audit.child", mode, str(folder), str(run_folder)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )


def run_and_kill(mode: str, folder: Path, run_folder: Path, after: int) -> int:
    """Kill a child when it has begun `after` exchanges; returns how many it said it had begun."""
    with spawn(mode, folder, run_folder) as child:
        assert child.stdout is not None
        count = 0
        while count < after and len(piece := child.stdout.read(8)) == 8:
            (count,) = struct.unpack("<Q", piece)
        child.send_signal(signal.SIGKILL)
        rest = child.stdout.read()
    whole = rest[: len(rest) // 8 * 8]
    return struct.unpack("<Q", whole[-8:])[0] if whole else count


def assert_complete(folder: Path, said: int) -> None:
    """All exchanges that the child said it had begun, and perhaps one more, each once, each with an end."""
    starts = ids(folder, "start")
    assert starts == [str(number) for number in range(len(starts))]
    assert said <= len(starts) <= said + 1
    finishes = [record for record in records(folder) if record["kind"] == "finish"]
    assert sorted(int(record["id"]) for record in finishes) == list(range(len(starts)))
    interrupted = [int(record["id"]) for record in finishes if record["outcome"] == "interrupted"]
    assert interrupted == list(range(len(starts) - len(interrupted), len(starts)))
    assert min(3, len(starts)) <= len(interrupted) <= 4
    assert [record for record in records(folder) if record["kind"] == "gap"] == []
    report = verify(folder)
    assert (report.problems, report.open_segments) == ([], 0)


@pytest.mark.parametrize("after", [1, 500, 4000])
def test_killed_while_it_writes(folder: Path, run_folder: Path, after: int) -> None:
    said = run_and_kill("write", folder, run_folder, after)
    recover(run_folder, folder)
    assert_complete(folder, said)
    assert list(run_folder.iterdir()) == []


def test_killed_before_anything_was_written(folder: Path, run_folder: Path) -> None:
    said = run_and_kill("hoard", folder, run_folder, 1000)
    assert not folder.exists()
    done = recover(run_folder, folder)
    assert_complete(folder, said)
    assert (done.writers, done.gaps) == (1, 0)
    assert done.records >= 2 * said - 4


def test_recovery_may_be_killed_too(folder: Path, run_folder: Path) -> None:
    """Again and again, wherever it happens to be; the one that lives finishes the work and repeats nothing."""
    said = run_and_kill("hoard", folder, run_folder, 3000)
    luck = random.Random(4)
    for _ in range(4):
        size = sum(path.stat().st_size for path in segments(folder)) if folder.exists() else 0
        wanted = size + luck.randrange(1, 400_000)
        with spawn("recover", folder, run_folder) as child:
            while child.poll() is None and sum(path.stat().st_size for path in folder.glob("2*.jsonl")) < wanted:
                time.sleep(0.001)
            child.kill()
    recover(run_folder, folder)
    assert_complete(folder, said)


def test_the_next_worker_recovers_by_itself(folder: Path, run_folder: Path) -> None:
    said = run_and_kill("hoard", folder, run_folder, 100)
    log = AuditLog(folder, run_folder, 0)
    log.start()
    while len(list(run_folder.iterdir())) > 1:
        time.sleep(0.005)
    assert log.close()
    assert_complete(folder, said)


# The same, step by step


def abandon(folder: Path, run_folder: Path, written: int, marked: int, total: int = 6) -> None:
    """A worker that dies with `total` records in its journal, of which `written` are in the segment already, and
    `marked` known in the journal to be so."""
    path = run_folder / "audit-0.journal"
    journal = Journal.create(path, WRITER, 4096)
    series = SegmentedChain(folder, WRITER, journal=str(path))
    for record in exchanges(range(total // 2)):
        journal.append(record)
    if marked:
        series.write(journal.take(marked).records, NOON)
        journal.advance(Mark(journal.take(marked).position, series.chain.sequence))
    if written > marked:
        series.write(journal.take(written - marked).records, NOON)
    journal.close()
    series.close()


@pytest.mark.parametrize(("written", "marked"), [(w, m) for w in range(7) for m in range(w + 1)])
def test_nothing_is_lost_and_nothing_comes_twice(folder: Path, run_folder: Path, written: int, marked: int) -> None:
    abandon(folder, run_folder, written, marked)
    done = recover(run_folder, folder, clock=lambda: NOON)
    assert done == Recovered(writers=1, records=6 - written)
    assert ids(folder, "start") == ids(folder, "finish") == ["0", "1", "2"]
    assert verify(folder).ok
    assert recover(run_folder, folder) == Recovered()


def test_dropped_records_become_a_gap_once(folder: Path, run_folder: Path) -> None:
    path = run_folder / "audit-0.journal"
    journal = Journal.create(path, WRITER, 4096)
    journal.append(start("1"))
    journal.drop()
    journal.drop()
    journal.close()
    assert recover(run_folder, folder).gaps == 1
    assert [record["records"] for record in records(folder) if record["kind"] == "gap"] == [2]


def test_a_gap_past_the_mark_is_not_repeated(folder: Path, run_folder: Path) -> None:
    path = run_folder / "audit-0.journal"
    journal = Journal.create(path, WRITER, 4096)
    journal.drop()
    series = SegmentedChain(folder, WRITER, journal=str(path))
    series.write([b'{"kind":"gap","at":1,"reason":"journal_full","records":1}'], NOON)
    series.close()
    journal.close()
    assert recover(run_folder, folder).gaps == 0
    assert [record["kind"] for record in records(folder)] == ["segment", "gap", "seal"]


def test_what_a_machine_took_down_with_it_is_named(folder: Path, run_folder: Path) -> None:
    """Two lines had not reached the disk, and in the journal the third frame is damaged."""
    abandon(folder, run_folder, written=2, marked=2)
    (segment,) = segments(folder)
    segment.write_bytes(b"".join(segment.read_bytes().splitlines(keepends=True)[:1]))
    path = run_folder / "audit-0.journal"
    content = path.read_bytes()
    at = content.index(finish("2"))
    path.write_bytes(content[:at] + b"?" + content[at + 1 :])
    recover(run_folder, folder, clock=lambda: NOON)
    assert [(record["kind"], record.get("id"), record.get("reason")) for record in records(folder)] == [
        ("segment", None, None),
        ("gap", None, "not_synced"),
        ("start", "1", None),
        ("finish", "1", None),
        ("start", "2", None),
        ("gap", None, "journal_damaged"),
        ("finish", "2", None),
        ("seal", None, None),
    ]
    assert records(folder)[1]["records"] == 2
    assert verify(folder).ok
    assert recover(run_folder, folder) == Recovered()


def test_a_segment_whose_journal_is_lost_is_finished(folder: Path, run_folder: Path) -> None:
    """As when the run folder was in memory and the machine restarted."""
    abandon(folder, run_folder, written=3, marked=3)
    (run_folder / "audit-0.journal").unlink()
    assert recover(run_folder, folder, clock=lambda: NOON) == Recovered(writers=1, interrupted=1, gaps=1)
    assert [(record["kind"], record.get("reason")) for record in records(folder)][4:] == [
        ("gap", "journal_lost"),
        ("finish", None),
        ("seal", None),
    ]
    assert verify(folder).ok
    assert recover(run_folder, folder) == Recovered()


def test_a_journal_that_is_lost_while_days_go_by_is_no_obstacle(folder: Path, run_folder: Path) -> None:
    """The gap comes into a new segment, since the old one's day is over; the recovery ends in between."""
    abandon(folder, run_folder, written=3, marked=3)
    lost = run_folder / "audit-0.journal"
    lost.unlink()
    series, _ = SegmentedChain.resume(folder, WRITER, None, NOON + DAY, journal=str(lost))
    series.write(exchanges(["1"])[1:], NOON + DAY)
    series.close()
    assert recover(run_folder, folder, clock=lambda: NOON + DAY) == Recovered(writers=1, gaps=1)
    assert len(segments(folder)) == 2
    assert (verify(folder).problems, verify(folder).open_segments) == ([], 0)


def test_a_segment_whose_journal_is_elsewhere_is_left_alone(folder: Path, run_folder: Path, tmp_path: Path) -> None:
    """Two gateways on two ports share the audit folder; each recovers its own."""
    abandon(folder, run_folder, written=3, marked=3)
    other = tmp_path / "other"
    other.mkdir()
    assert recover(other, folder) == Recovered()
    assert recover(run_folder, folder).records == 3
    assert verify(folder).ok


def test_the_living_are_left_alone(folder: Path, run_folder: Path) -> None:
    log = AuditLog(folder, run_folder, 0)
    log.start()
    log.append(start("1"))
    while not log.stats.written:
        time.sleep(0.005)
    log.append(start("2"))
    assert recover(run_folder, folder) == Recovered()
    assert log.close()
    assert ids(folder, "start") == ["1", "2"]


def test_evidence_is_not_touched(folder: Path, run_folder: Path) -> None:
    abandon(folder, run_folder, written=4, marked=2)
    (segment,) = segments(folder)
    content = segment.read_bytes().replace(b"gpt-4o", b"gpt-4x", 1)
    segment.write_bytes(content)
    assert recover(run_folder, folder).records == 4
    assert segment.read_bytes() == content
    assert len(segments(folder)) == 2
    (problem,) = verify(folder).problems
    assert problem.file == segment.name


def test_a_segment_with_lines_after_its_seal_is_evidence_too(folder: Path, run_folder: Path) -> None:
    sealed_log(folder, WRITER, 1)
    (segment,) = segments(folder)
    segment.chmod(0o640)
    content = segment.read_bytes() * 2
    segment.write_bytes(content)
    Journal.create(run_folder / "audit-0.journal", WRITER, 4096).close()
    recover(run_folder, folder)
    assert segment.read_bytes() == content
    (problem,) = verify(folder).problems
    assert (problem.file, problem.fault) == (segment.name, Fault.ADDED)


def test_what_is_no_journal_is_left_alone(folder: Path, run_folder: Path) -> None:
    stray = run_folder / "audit-9.journal"
    stray.write_bytes(b"something else")
    assert recover(run_folder, folder) == Recovered()
    assert stray.exists()


def test_a_disk_that_refuses_keeps_the_journal(folder: Path, run_folder: Path) -> None:
    abandon(folder, run_folder, written=2, marked=2)
    aside = folder.rename(folder.with_name("aside"))
    folder.write_bytes(b"")
    with pytest.raises(OSError, match="audit"):
        recover(run_folder, folder)
    folder.unlink()
    aside.rename(folder)
    assert recover(run_folder, folder).records == 4
    assert verify(folder).ok


def test_a_copy_can_be_verified_elsewhere(folder: Path, run_folder: Path, tmp_path: Path) -> None:
    abandon(folder, run_folder, written=4, marked=4)
    recover(run_folder, folder)
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    os.chmod(copy / MANIFEST, 0o400)
    assert verify(copy).ok
