from __future__ import annotations

import fcntl
import json
import os
import stat
from pathlib import Path

import pytest

from gateway.audit.chain import Chain
from gateway.audit.layout import MANIFEST, Opened, SegmentName
from gateway.audit.manifest import exclusive
from gateway.audit.retention import retire
from gateway.audit.scan import SegmentDamaged, Standing
from gateway.audit.segments import SegmentBusy, SegmentedChain
from gateway.audit.verify import verify
from tests.gateway.audit.support import (
    DAY,
    JOURNAL,
    NOON,
    WRITER,
    exchanges,
    ids,
    manifest,
    no_file_beyond,
    records,
    sealed_log,
    segments,
    start,
)

OTHER = "fedcba9876543210"
ROOT = "0" * 64


@pytest.fixture
def series(tmp_path: Path) -> SegmentedChain:
    return SegmentedChain(tmp_path / "audit", WRITER, journal=JOURNAL)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (f"2026-06-01-{WRITER}-000001.jsonl", SegmentName("2026-06-01", WRITER, 1)),
        (f"2026-06-01-{WRITER}-1234567.jsonl", SegmentName("2026-06-01", WRITER, 1234567)),
        (f"2026-06-01-{WRITER}-1.jsonl", None),
        (f"2026-06-01-{WRITER}-000001.jsonl.gz", None),
        (MANIFEST, None),
    ],
)
def test_names(text: str, name: SegmentName | None) -> None:
    assert SegmentName.parse(text) == name
    assert name is None or str(name) == text


def test_nothing_to_write_makes_no_file(series: SegmentedChain) -> None:
    series.seal(NOON)
    series.tick(NOON)
    assert not series.folder.exists()


def test_a_segment_has_a_header_and_a_seal_and_is_read_only(series: SegmentedChain) -> None:
    series.write(exchanges([1]), NOON)
    (path,) = segments(series.folder)
    assert path.name == f"2026-06-01-{WRITER}-000001.jsonl"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    series.seal(NOON + 5)
    header, _, _, seal = records(series.folder)
    assert header == {
        "kind": "segment",
        "version": 1,
        "segment": path.name,
        "at": int(NOON * 1e6),
        "previous": "0" * 64,
        "journal": JOURNAL,
        "in_flight": [],
    }
    assert seal == {"kind": "seal", "at": int((NOON + 5) * 1e6), "records": 2}
    assert stat.S_IMODE(path.stat().st_mode) == 0o440


def test_the_manifest_tells_what_became_of_segments(series: SegmentedChain) -> None:
    series.write(exchanges([1]), NOON)
    series.seal(NOON + 5)
    (path,) = segments(series.folder)
    root = json.loads(path.read_bytes().splitlines()[-1])["hash"]
    at, name = int(NOON * 1e6), path.name
    assert manifest(series.folder) == [
        {"kind": "manifest", "version": 1, "at": at},
        {"kind": "opened", "segment": name, "at": at, "sequence": 0, "previous": "0" * 64},
        {"kind": "sealed", "segment": name, "at": at + 5_000_000, "sequence": 3, "root": root, "records": 2},
    ]


def test_a_large_segment_is_followed_by_another(tmp_path: Path) -> None:
    sealed_log(tmp_path, WRITER, 30)
    first, second, *_ = (path.read_bytes().splitlines() for path in segments(tmp_path))
    root = json.loads(first[-1])
    header = json.loads(second[0])
    assert header["seq"] == root["seq"] + 1
    assert header["record"]["previous"] == root["hash"]
    assert ids(tmp_path, "start") == [f"0123-{number}" for number in range(30)]
    assert verify(tmp_path).ok


def test_a_day_ends_at_midnight_utc(series: SegmentedChain) -> None:
    midnight = NOON + DAY / 2
    series.write(exchanges([1]), midnight - 0.001)
    series.tick(midnight - 0.001)
    assert [entry["kind"] for entry in manifest(series.folder)] == ["manifest", "opened"]
    series.tick(midnight)
    assert [entry["kind"] for entry in manifest(series.folder)] == ["manifest", "opened", "sealed"]
    series.tick(midnight + DAY)
    series.write(exchanges([2]), midnight + DAY)
    series.write(exchanges([3]), midnight + 2 * DAY)
    series.seal(midnight + 2 * DAY)
    assert [path.name[:10] for path in segments(series.folder)] == ["2026-06-01", "2026-06-03", "2026-06-04"]
    assert verify(series.folder).ok


def test_a_header_carries_the_exchanges_in_flight(series: SegmentedChain) -> None:
    series.write([start("a"), *exchanges(["b"]), start("c")], NOON)
    series.seal(NOON)
    series.write(exchanges(["a"])[1:], NOON)
    assert records(series.folder)[-2]["in_flight"] == ["a", "c"]


def test_what_the_disk_refuses_can_be_written_later(tmp_path: Path) -> None:
    """The folder's place is taken by a file, as when a volume is not mounted."""
    folder = tmp_path / "volume" / "audit"
    folder.parent.write_bytes(b"")
    series = SegmentedChain(folder, WRITER, journal=JOURNAL)
    for _ in range(3):
        with pytest.raises(OSError, match="volume"):
            series.write(exchanges([1]), NOON)
    folder.parent.unlink()
    series.write(exchanges([1]), NOON)
    series.seal(NOON)
    assert ids(folder, "start") == ["1"]
    assert verify(folder).ok


@pytest.fixture
def long_manifest(series: SegmentedChain) -> Path:
    """A manifest of more than 8000 bytes, so that a limit can hit it and no young segment."""
    for number in range(16):
        sealed_log(series.folder, f"{number:016x}", 1)
    path = series.folder / MANIFEST
    assert path.stat().st_size > 8000
    return path


def test_a_seal_that_the_manifest_could_not_take_is_not_written_twice(
    series: SegmentedChain, long_manifest: Path
) -> None:
    series.write(exchanges([1]), NOON)
    size = long_manifest.stat().st_size
    for _ in range(2):
        with no_file_beyond(size + 10), pytest.raises(OSError, match=r"too large|space"):
            series.seal(NOON)
        assert long_manifest.stat().st_size == size
    series.write(exchanges([2]), NOON)
    series.seal(NOON)
    assert [record["kind"] for record in records(series.folder)].count("seal") == 16 + 2
    assert verify(series.folder).ok


def test_a_segment_that_the_manifest_could_not_take_is_not_begun(series: SegmentedChain, long_manifest: Path) -> None:
    before = segments(series.folder)
    with no_file_beyond(long_manifest.stat().st_size + 10), pytest.raises(OSError, match=r"too large|space"):
        series.write(exchanges([1]), NOON)
    assert segments(series.folder) == before
    series.write(exchanges([1]), NOON)
    series.seal(NOON)
    assert verify(series.folder).ok


def test_a_batch_that_the_disk_took_half_of_is_taken_back(series: SegmentedChain) -> None:
    series.write(exchanges([1]), NOON)
    (path,) = segments(series.folder)
    limit = path.stat().st_size + 1000
    for _ in range(3):
        with no_file_beyond(limit), pytest.raises(OSError, match=r"too large|space"):
            series.write(exchanges(range(2, 5)), NOON)
    series.write(exchanges(range(2, 5)), NOON)
    series.seal(NOON)
    assert ids(series.folder, "start") == ["1", "2", "3", "4"]
    assert verify(series.folder).ok


def test_a_manifest_line_that_a_crash_left_unfinished_is_cut_off(tmp_path: Path) -> None:
    sealed_log(tmp_path, WRITER, 1)
    with (tmp_path / MANIFEST).open("ab") as file:
        file.write(b'{"seq":3,"hash":"00')
    sealed_log(tmp_path, OTHER, 1)
    assert verify(tmp_path).ok


def test_recording_goes_on_after_the_manifest_was_damaged(tmp_path: Path) -> None:
    sealed_log(tmp_path, WRITER, 1)
    with (tmp_path / MANIFEST).open("ab") as file:
        file.write(b"was here\n")
    sealed_log(tmp_path, OTHER, 1)
    assert ids(tmp_path, "start") == ["0123-0", "fedc-0"]
    (problem,) = verify(tmp_path).problems
    assert (problem.file, problem.line) == (MANIFEST, 4)


def test_writers_take_turns_at_the_manifest(tmp_path: Path) -> None:
    with exclusive(tmp_path):
        fd = os.open(tmp_path / MANIFEST, os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(fd)


# Retention


def test_retention_takes_whole_sealed_segments_and_says_so(tmp_path: Path) -> None:
    sealed_log(tmp_path, WRITER, 1, now=NOON)
    sealed_log(tmp_path, OTHER, 1, now=NOON + 2 * DAY)
    first, second = (path.name for path in segments(tmp_path))
    assert retire(tmp_path, 3, NOON + 3 * DAY - 1) == []
    assert retire(tmp_path, 3, NOON + 3 * DAY) == [first]
    assert [path.name for path in segments(tmp_path)] == [second]
    assert manifest(tmp_path)[-1] == {
        "kind": "retired",
        "segment": first,
        "at": int((NOON + 3 * DAY) * 1e6),
        "retention_days": 3,
    }
    report = verify(tmp_path)
    assert (report.problems, report.retired_segments) == ([], 1)
    assert retire(tmp_path, 3, NOON + 4 * DAY) == []


def test_retention_leaves_open_segments_and_what_follows_them(series: SegmentedChain) -> None:
    series.write(exchanges([1]), NOON)
    assert retire(series.folder, 1, NOON + 10 * DAY) == []
    series.write(exchanges([2]), NOON + 10 * DAY)
    assert retire(series.folder, 1, NOON + 10 * DAY + 1) == []
    series.seal(NOON + 11 * DAY)
    assert len(retire(series.folder, 1, NOON + 11 * DAY + 1)) == 1
    assert ids(series.folder, "start") == ["2"]
    assert verify(series.folder).ok


def test_a_retired_segment_that_is_still_there_goes_the_next_time(tmp_path: Path) -> None:
    sealed_log(tmp_path, WRITER, 1)
    (path,) = segments(tmp_path)
    content = path.read_bytes()
    retire(tmp_path, 1, NOON + 2 * DAY)
    path.write_bytes(content)
    assert verify(tmp_path).ok
    retire(tmp_path, 1, NOON + 2 * DAY)
    assert not path.exists()


def test_retention_of_nothing(tmp_path: Path) -> None:
    assert retire(tmp_path / "none", 1, NOON) == []
    assert not (tmp_path / "none").exists()


# Carrying on where a writer stopped


def resume(folder: Path, mark: int | None = None) -> tuple[SegmentedChain, Standing]:
    return SegmentedChain.resume(folder, WRITER, mark, NOON, journal=JOURNAL)


def test_a_living_writer_is_left_alone(series: SegmentedChain) -> None:
    series.write(exchanges([1]), NOON)
    with pytest.raises(SegmentBusy):
        resume(series.folder)


def test_an_unfinished_line_is_cut_off(series: SegmentedChain) -> None:
    series.write(exchanges([1]), NOON)
    end = series.chain
    series.close()
    (path,) = segments(series.folder)
    with path.open("ab") as file:
        file.write(b'{"seq":3,"hash":"00')
    again, standing = resume(series.folder, end.sequence)
    assert (again.chain, standing) == (end, Standing())
    again.write(exchanges([2]), NOON)
    again.seal(NOON)
    assert verify(series.folder).ok


def test_lines_past_the_mark_are_counted(series: SegmentedChain) -> None:
    series.write(exchanges([1]), NOON)
    mark = series.chain.sequence
    series.write([*exchanges([2]), start("3")], NOON)
    series.close()
    again, standing = resume(series.folder, mark)
    assert standing == Standing(records=3)
    assert again.in_flight.ids() == ["3"]
    again.close()


def test_lines_that_never_reached_the_disk_are_counted(series: SegmentedChain) -> None:
    series.write(exchanges([1]), NOON)
    series.close()
    again, standing = resume(series.folder, series.chain.sequence + 7)
    assert standing == Standing(missing=7)
    again.close()


def test_a_damaged_segment_gets_nothing_added(series: SegmentedChain) -> None:
    series.write(exchanges([1, 2]), NOON)
    series.close()
    (path,) = segments(series.folder)
    content = path.read_bytes().replace(b'"model":"gpt-4o"', b'"model":"gpt-4x"', 1)
    path.write_bytes(content)
    with pytest.raises(SegmentDamaged, match="does not follow"):
        resume(series.folder)
    assert path.read_bytes() == content


def test_a_missing_segment_is_not_made_up_for(series: SegmentedChain) -> None:
    series.write(exchanges([1]), NOON)
    series.close()
    segments(series.folder)[0].unlink()
    with pytest.raises(SegmentDamaged, match="missing"):
        resume(series.folder)


def test_a_writer_whose_segments_are_all_retired_goes_on_after_them(tmp_path: Path) -> None:
    sealed_log(tmp_path, WRITER, 1)
    retire(tmp_path, 1, NOON + 2 * DAY)
    again, standing = resume(tmp_path, 4)
    assert standing == Standing()
    again.write(exchanges([2]), NOON + 2 * DAY)
    again.seal(NOON + 2 * DAY)
    assert [path.name[-12:] for path in segments(tmp_path)] == ["000002.jsonl"]
    assert verify(tmp_path).ok


def test_what_the_writer_could_not_tell_the_manifest_is_told(series: SegmentedChain) -> None:
    """Killed after the seal and before the manifest's line."""
    series.write(exchanges([1]), NOON)
    before = (series.folder / MANIFEST).read_bytes()
    series.seal(NOON)
    (series.folder / MANIFEST).write_bytes(before)
    assert not verify(series.folder).ok
    again, _ = resume(series.folder)
    assert verify(series.folder).ok
    again.write(exchanges([2]), NOON)
    again.seal(NOON)
    assert verify(series.folder).ok


def test_a_segment_that_was_begun_and_not_listed_is_listed(series: SegmentedChain) -> None:
    series.write(exchanges([1]), NOON)
    (series.folder / MANIFEST).write_bytes(b"")
    series.close()
    again, _ = resume(series.folder)
    again.seal(NOON)
    assert verify(series.folder).ok


@pytest.mark.parametrize("content", [b"", b'{"seq":4,"hash"'])
def test_a_segment_that_has_not_even_a_header_is_taken_away(tmp_path: Path, content: bytes) -> None:
    sealed_log(tmp_path, WRITER, 1)
    (tmp_path / f"2026-06-01-{WRITER}-000002.jsonl").write_bytes(content)
    again, _ = resume(tmp_path)
    again.write(exchanges([2]), NOON)
    again.seal(NOON)
    assert verify(tmp_path).ok


def test_nothing_written_means_nothing_to_resume(tmp_path: Path) -> None:
    series, standing = resume(tmp_path / "audit", 0)
    assert (series.chain, standing) == (Chain(), Standing())


def test_entries_come_out_as_they_went_in(tmp_path: Path) -> None:
    with exclusive(tmp_path) as file:
        file.append(Opened("a", 1, 0, ROOT), Opened("b", 2, 0, ROOT))
        assert list(file.entries())[1:] == [Opened("a", 1, 0, ROOT), Opened("b", 2, 0, ROOT)]
