"""Whatever is done to a finished log, `verify` finds it, and says where."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.audit.chain import Chain, parse
from gateway.audit.layout import MANIFEST, Retired, encode
from gateway.audit.manifest import exclusive
from gateway.audit.retention import retire
from gateway.audit.segments import SegmentedChain
from gateway.audit.verify import Fault, NothingToVerify, Problem, verify
from tests.gateway.audit.support import DAY, JOURNAL, NOON, WRITER, exchanges, sealed_log, segments

OTHER = "fedcba9876543210"
OLD = "00000000000000aa"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three writers, seven segments, one of them retired; all sealed."""
    folder = tmp_path_factory.mktemp("log") / "audit"
    sealed_log(folder, OLD, 2, now=NOON - 9 * DAY)
    sealed_log(folder, WRITER, 20)
    sealed_log(folder, OTHER, 20, now=NOON + DAY)
    assert retire(folder, 5, NOON) == [f"2026-05-23-{OLD}-000001.jsonl"]
    assert len(segments(folder)) == 6
    return folder


@contextmanager
def copy_of(original: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "audit"
        shutil.copytree(original, folder)
        for path in folder.iterdir():
            path.chmod(0o640)
        yield folder


files = st.integers(0, 6)
"""Which file of the log: the manifest is one of them."""


def nth(folder: Path, number: int) -> Path:
    return [*segments(folder), folder / MANIFEST][number]


def first_problem(folder: Path) -> Problem:
    report = verify(folder)
    assert not report.ok
    return report.problems[0]


def test_an_untouched_log_is_whole(original: Path) -> None:
    report = verify(original)
    assert report.problems == []
    assert (report.writers, report.segments, report.open_segments, report.retired_segments) == (3, 6, 0, 1)
    assert report.records == 80
    assert report.bytes == sum(path.stat().st_size for path in segments(original))


@settings(max_examples=80, deadline=None)
@given(files, st.integers(0), st.integers(1, 255))
def test_a_changed_byte_is_found_in_its_line(original: Path, file: int, at: int, change: int) -> None:
    with copy_of(original) as folder:
        path = nth(folder, file)
        content = bytearray(path.read_bytes())
        at %= len(content)
        line = content[:at].count(b"\n") + 1
        content[at] ^= change
        path.write_bytes(content)
        assert (path.name, line) in [(problem.file, problem.line) for problem in verify(folder).problems]


def test_there_is_no_byte_that_does_not_count(tmp_path: Path) -> None:
    sealed_log(tmp_path, WRITER, 1)
    for path in (*segments(tmp_path), tmp_path / MANIFEST):
        path.chmod(0o640)
        content = path.read_bytes()
        with path.open("r+b", buffering=0) as file:
            for at, byte in enumerate(content):
                os.pwrite(file.fileno(), bytes([byte ^ 1]), at)
                assert not verify(tmp_path).ok, (path.name, at)
                os.pwrite(file.fileno(), bytes([byte]), at)
    assert verify(tmp_path).ok


@settings(max_examples=50, deadline=None)
@given(files, st.integers(0))
def test_a_dropped_line_is_found(original: Path, file: int, at: int) -> None:
    with copy_of(original) as folder:
        path = nth(folder, file)
        lines = path.read_bytes().splitlines(keepends=True)
        at %= len(lines)
        del lines[at]
        path.write_bytes(b"".join(lines))
        assert not verify(folder).ok


@settings(max_examples=50, deadline=None)
@given(files, st.integers(0), st.integers(0))
def test_lines_that_changed_places_are_found(original: Path, file: int, one: int, other: int) -> None:
    with copy_of(original) as folder:
        path = nth(folder, file)
        lines = path.read_bytes().splitlines(keepends=True)
        one %= len(lines)
        other %= len(lines)
        lines[one], lines[other] = lines[other], lines[one]
        path.write_bytes(b"".join(lines))
        report = verify(folder)
        assert report.ok == (one == other)


@settings(max_examples=50, deadline=None)
@given(files, st.integers(0), st.integers(0))
def test_a_doubled_line_is_found(original: Path, file: int, one: int, to: int) -> None:
    with copy_of(original) as folder:
        path = nth(folder, file)
        lines = path.read_bytes().splitlines(keepends=True)
        lines.insert(to % (len(lines) + 1), lines[one % len(lines)])
        path.write_bytes(b"".join(lines))
        assert not verify(folder).ok


@settings(max_examples=50, deadline=None)
@given(files, st.integers(0), st.integers(-3, 100).filter(bool))
def test_a_dropped_line_is_found_after_renumbering(original: Path, file: int, at: int, by: int) -> None:
    """What follows is renumbered so that no number is missing, or simply moved."""
    with copy_of(original) as folder:
        path = nth(folder, file)
        lines = path.read_bytes().splitlines(keepends=True)
        at %= len(lines)
        rest = [re.sub(rb'"seq":(\d+)', lambda found: b'"seq":%d' % (int(found[1]) + by), line) for line in lines[at:]]
        path.write_bytes(b"".join(lines[:at] + rest[1:] * (by == -1) + rest * (by != -1)))
        assert not verify(folder).ok


@settings(max_examples=80, deadline=None)
@given(files, st.integers(0))
def test_a_cut_file_is_found(original: Path, file: int, size: int) -> None:
    with copy_of(original) as folder:
        path = nth(folder, file)
        content = path.read_bytes()
        path.write_bytes(content[: size % len(content)])
        assert not verify(folder).ok


@pytest.mark.parametrize("file", range(7))
def test_a_removed_file_is_found(original: Path, file: int) -> None:
    with copy_of(original) as folder:
        path = nth(folder, file)
        path.unlink()
        problem = first_problem(folder)
        assert (problem.file, problem.line, problem.fault) == (path.name, None, Fault.MISSING)


@pytest.mark.parametrize("one", range(6))
@pytest.mark.parametrize("other", range(6))
def test_files_that_changed_places_are_found(original: Path, one: int, other: int) -> None:
    with copy_of(original) as folder:
        first, second = nth(folder, one), nth(folder, other)
        contents = first.read_bytes(), second.read_bytes()
        second.write_bytes(contents[0])
        first.write_bytes(contents[1])
        report = verify(folder)
        assert {problem.file for problem in report.problems} == ({first.name, second.name} if one != other else set())


@pytest.mark.parametrize("name", [f"2026-06-01-{WRITER}-000009.jsonl", "2026-06-01-00000000000000bb-000001.jsonl"])
def test_an_added_file_is_found(original: Path, name: str) -> None:
    with copy_of(original) as folder:
        shutil.copy(nth(folder, 1), folder / name)
        problem = first_problem(folder)
        assert (problem.file, problem.line, problem.fault) == (name, None, Fault.UNLISTED)


@pytest.mark.parametrize(
    ("change", "fault", "line"),
    [
        (lambda lines: lines.pop(3), Fault.REMOVED, 4),
        (lambda lines: lines.pop(), Fault.TRUNCATED, None),
        (lambda lines: lines.insert(5, lines[3]), Fault.DUPLICATED, 6),
        (lambda lines: lines.insert(3, lines.pop(5)), Fault.REORDERED, 4),
        (lambda lines: lines.append(Chain().extend([b"{}"])[1]), Fault.ADDED, None),
        (lambda lines: lines.__setitem__(3, lines[3].replace(b'"at":', b'"at":1')), Fault.ALTERED, 4),
        (lambda lines: lines.__setitem__(3, lines[3][:-9]), Fault.ALTERED, 4),
    ],
)
def test_what_was_done_is_named(original: Path, change: object, fault: Fault, line: int | None) -> None:
    with copy_of(original) as folder:
        path = nth(folder, 1)
        lines = path.read_bytes().splitlines(keepends=True)
        count = len(lines)
        change(lines)  # type: ignore[operator]
        path.write_bytes(b"".join(lines))
        problem = first_problem(folder)
        assert (problem.file, problem.fault) == (path.name, fault)
        assert problem.line == (line or (count + 1 if fault is Fault.ADDED else count))
        assert str(problem).startswith(f"{path.name}:{problem.line}: {fault}: ")


def test_a_line_of_another_segment_is_out_of_order(original: Path) -> None:
    with copy_of(original) as folder:
        path = nth(folder, 1)
        lines = path.read_bytes().splitlines(keepends=True)
        lines[3] = nth(folder, 0).read_bytes().splitlines(keepends=True)[3]
        path.write_bytes(b"".join(lines))
        problem = first_problem(folder)
        assert (problem.file, problem.line, problem.fault) == (path.name, 4, Fault.REORDERED)


def test_a_segment_that_was_written_anew_is_not_the_one_that_the_manifest_has(original: Path) -> None:
    """Every hash of the file fits, after its records were changed."""
    with copy_of(original) as folder:
        path = nth(folder, 0)
        lines = path.read_bytes().splitlines()
        _, forged = Chain().extend(parse(line).record.replace(b"gpt-4o", b"gpt-4x") for line in lines)
        path.write_bytes(forged)
        problem = first_problem(folder)
        assert (problem.file, problem.line, problem.fault) == (path.name, len(lines), Fault.ALTERED)


def test_one_bad_segment_does_not_cast_doubt_on_the_next(original: Path) -> None:
    with copy_of(original) as folder:
        path = nth(folder, 0)
        path.write_bytes(path.read_bytes().replace(b"gpt-4o", b"gpt-4x"))
        assert [problem.file for problem in verify(folder).problems] == [path.name]


def test_segments_are_checked_without_a_manifest_too(original: Path) -> None:
    with copy_of(original) as folder:
        (folder / MANIFEST).unlink()
        path = nth(folder, 4)
        path.write_bytes(path.read_bytes().replace(b"gpt-4o", b"gpt-4x", 1))
        assert [(problem.file, problem.fault) for problem in verify(folder).problems] == [
            (MANIFEST, Fault.MISSING),
            (path.name, Fault.ALTERED),
        ]


def test_a_retirement_before_its_time_is_found(original: Path) -> None:
    with copy_of(original) as folder:
        path = nth(folder, 0)
        with exclusive(folder) as manifest:
            manifest.append(Retired(path.name, int((NOON + DAY) * 1e6), 30))
        path.unlink()
        problem = first_problem(folder)
        assert (problem.file, problem.fault) == (path.name, Fault.RETIRED_EARLY)


def test_a_format_of_the_future_is_not_judged(tmp_path: Path) -> None:
    _, line = Chain().extend([encode({"kind": "manifest", "version": 2, "at": 0})])
    (tmp_path / MANIFEST).write_bytes(line)
    problem = first_problem(tmp_path)
    assert (problem.file, problem.line, problem.fault) == (MANIFEST, 1, Fault.UNKNOWN_VERSION)


def test_a_segment_without_a_line_is_found(original: Path) -> None:
    with copy_of(original) as folder:
        nth(folder, 2).write_bytes(b"")
        problem = first_problem(folder)
        assert (problem.line, problem.fault) == (1, Fault.TRUNCATED)


def test_there_must_be_a_log(tmp_path: Path) -> None:
    with pytest.raises(NothingToVerify):
        verify(tmp_path)
    with pytest.raises(NothingToVerify):
        verify(tmp_path / "none")


def test_a_log_in_use_is_whole(tmp_path: Path) -> None:
    series = SegmentedChain(tmp_path, WRITER, journal=JOURNAL)
    series.write(exchanges([1]), NOON)
    report = verify(tmp_path)
    assert (report.problems, report.open_segments, report.records) == ([], 1, 2)
    (path,) = segments(tmp_path)
    with path.open("ab") as file:
        # As a reader sees it in the middle of a write.
        file.write(b'{"seq":3,"hash":"00')
    assert verify(tmp_path).ok
    series.close()
    problem = first_problem(tmp_path)
    assert (problem.file, problem.line, problem.fault) == (path.name, 4, Fault.TRUNCATED)


def test_an_unsealed_segment_in_the_middle_is_found(tmp_path: Path) -> None:
    series = SegmentedChain(tmp_path, WRITER, journal=JOURNAL)
    series.write(exchanges([1]), NOON)
    series.close()
    again = SegmentedChain(tmp_path, WRITER, journal=JOURNAL)
    again.chain, again._number = series.chain, 1
    again.write(exchanges([2]), NOON)
    again.seal(NOON)
    assert [problem.fault for problem in verify(tmp_path).problems] == [Fault.UNSEALED]


def test_progress_is_told_on_a_long_log(tmp_path: Path) -> None:
    sealed_log(tmp_path, WRITER, 3000, segment_bytes=1 << 20)
    size = sum(path.stat().st_size for path in segments(tmp_path))
    told: list[tuple[int, int]] = []
    assert verify(tmp_path, lambda done, total: told.append((done, total))).ok
    assert len(told) == size >> 20
    assert all(0 < done <= size and total == size for done, total in told)
    assert told == sorted(told)


def test_every_fault_is_documented() -> None:
    text = (Path(__file__).parents[3] / "docs" / "audit-log.md").read_text(encoding="utf-8")
    assert [fault for fault in Fault if f"| `{fault}` |" not in text] == []


def test_the_documentation_shows_how_to_check_a_log_by_hand(original: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[3] / "docs" / "audit-log.md").read_text(encoding="utf-8")
    program = text.split("```python\n")[1].split("```")[0].replace("9f3a1c2b4d5e6f70", WRITER)
    with copy_of(original) as folder:
        monkeypatch.chdir(folder.parent)
        exec(program, {})
        path = nth(folder, 1)
        path.write_bytes(path.read_bytes().replace(b"gpt-4o", b"gpt-4x", 1))
        with pytest.raises(AssertionError, match=path.name):
            exec(program, {})
