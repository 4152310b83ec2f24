"""Cells in shared files: what one process writes, another one reads; what a killed process wrote, stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.slots import CELL, SeriesFile, SlotFile, read_series

CELLS = 64
TEXT = 256


def series_file(path: Path, fingerprint: int = 7) -> SeriesFile:
    return SeriesFile(path, fingerprint, cells=CELLS, text_bytes=TEXT)


def test_two_maps_of_one_file_share_their_cells(tmp_path: Path) -> None:
    one, other = SlotFile(tmp_path / "cells", 16), SlotFile(tmp_path / "cells", 16)
    one.cells[3] = 1.5
    assert other.cells[3] == 1.5
    other.cells[3] += 1
    assert one.cells[3] == 2.5


def test_a_new_file_is_sparse_and_private(tmp_path: Path) -> None:
    file = SlotFile(tmp_path / "cells", 1 << 20)
    status = (tmp_path / "cells").stat()
    assert status.st_size == CELL << 20
    assert status.st_blocks == 0
    assert status.st_mode & 0o777 == 0o600
    file.reserve(1000, 10)
    assert 0 < (tmp_path / "cells").stat().st_blocks * 512 <= 1 << 16


def test_an_exclusive_file_has_one_writer_at_a_time(tmp_path: Path) -> None:
    first = SlotFile(tmp_path / "cells", 16, exclusive=True)
    with pytest.raises(BlockingIOError):
        SlotFile(tmp_path / "cells", 16, exclusive=True)
    first.close()
    first.close()
    SlotFile(tmp_path / "cells", 16, exclusive=True).close()


def test_series_are_found_again_by_name(tmp_path: Path) -> None:
    file = series_file(tmp_path / "s")
    a = file.add("a", ("x", 'quote " and\nline'), 1)
    b = file.add("b", (), 3)
    assert a is not None
    assert b == a + 1
    file.cells[b + 2] = 5.0
    expected = [("a", ("x", 'quote " and\nline'), [0.0]), ("b", (), [0.0, 0.0, 5.0])]
    assert read_series(tmp_path / "s", 7, cells=CELLS) == expected
    file.close()
    again = series_file(tmp_path / "s")
    assert again.rows == {("a", ("x", 'quote " and\nline')): a, ("b", ()): b}
    assert again.add("c", (), 1) == b + 3
    assert again.cells[b + 2] == 5.0


@pytest.mark.parametrize(("labels", "width"), [(("x" * TEXT,), 1), (("x",), CELLS)])
def test_a_full_file_says_so_and_stays_as_it_is(tmp_path: Path, labels: tuple[str, ...], width: int) -> None:
    file = series_file(tmp_path / "s")
    assert file.add("a", labels, width) is None
    assert file.add("a", ("y",), 1) is not None
    assert [row.labels for row in read_series(tmp_path / "s", 7, cells=CELLS)] == [("y",)]


def test_spare_text_is_left_for_those_who_may_take_it(tmp_path: Path) -> None:
    file = series_file(tmp_path / "s")
    assert file.add("a", ("x" * 150,), 1, spare=128) is None
    assert file.add("a", ("x" * 150,), 1) is not None


def test_a_file_of_another_version_is_begun_anew_under_a_reader(tmp_path: Path) -> None:
    file = series_file(tmp_path / "s")
    first = file.add("a", (), 1)
    assert first is not None
    file.cells[first] = 3.0
    file.close()
    reader = SlotFile(tmp_path / "s", CELLS, text_bytes=TEXT)
    newer = series_file(tmp_path / "s", fingerprint=8)
    assert newer.rows == {}
    assert reader.cells[first] == 3.0, "the old file is still whole for whoever has it open"
    assert read_series(tmp_path / "s", 7, cells=CELLS) == []
    assert read_series(tmp_path / "s", 8, cells=CELLS) == []


def test_a_file_that_is_just_being_made_has_no_series(tmp_path: Path) -> None:
    (tmp_path / "s").touch()
    assert read_series(tmp_path / "s", 7, cells=CELLS) == []
    (tmp_path / "s").write_bytes(bytes(CELLS * CELL + TEXT))
    assert read_series(tmp_path / "s", 7, cells=CELLS) == []
