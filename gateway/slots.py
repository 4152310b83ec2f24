"""Float64 cells in a file that several processes map at once, and named series on top of them.

A cell is eight aligned bytes, written and read by one machine instruction, so a reader never sees half a value; it may
see one that is a few microseconds old. There are no locks: every cell has exactly one writing process, and whoever lays
out a file sees to that. Values outlive a killed process, since the pages belong to the file and not to the process.

This module knows nothing of metrics or limits, only cells and names.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from pathlib import Path
from typing import NamedTuple

import orjson

CELL = 8
"""Bytes of one cell."""


class SlotFile:
    """`count` cells of a file, mapped shared, followed by `text_bytes` of plain bytes.

    The file is made when it does not exist, and always has the same size for the same arguments, so several processes
    may open it at the same moment. It is sparse: a page costs memory and disk only once it is touched. Touching a page
    while the disk is full kills the process (SIGBUS); `reserve` the range first and get an OSError instead.
    """

    def __init__(self, path: Path, count: int, *, text_bytes: int = 0, exclusive: bool = False) -> None:
        """Raises OSError when the file cannot be opened, or BlockingIOError when `exclusive` and already held."""
        self.path = path
        self.count = count
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if exclusive:
                # The lock lives as long as the mapping, which keeps its own duplicate of the descriptor.
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            size = count * CELL + text_bytes
            if os.fstat(descriptor).st_size < size:
                os.ftruncate(descriptor, size)
            self.map = mmap.mmap(descriptor, size)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        self._bytes = memoryview(self.map)
        self._cell_bytes = self._bytes[: count * CELL]
        self.cells: memoryview[float] = self._cell_bytes.cast("d")

    def reserve(self, first: int, count: int) -> None:
        """Make the disk set the space of these cells aside. Raises OSError when there is none left."""
        if hasattr(os, "posix_fallocate"):  # not on macOS
            os.posix_fallocate(self._descriptor, first * CELL, count * CELL)

    def close(self) -> None:
        """Unmap. Views handed out as slices of `cells` must be released before; idempotent."""
        if self.map.closed:
            return
        self.cells.release()
        self._cell_bytes.release()
        self._bytes.release()
        self.map.close()
        os.close(self._descriptor)


class Series(NamedTuple):
    """One named row of cells as a reader finds it."""

    name: str
    labels: tuple[str, ...]
    values: list[float]


_FINGERPRINT = 0
_TEXT_USED = 1
_HEADER = 8


class SeriesFile:
    """Rows of cells, each with a name and label values, that one process writes and others may read at any time.

    The rows are listed in the text part, one JSON line each (`[name, [label, …], first cell, width]`). A line becomes
    visible when the number of bytes in use is raised, which happens after the line is complete. The fingerprint names
    the meaning of the rows: a file that carries another one is from another version of the program and is begun anew
    (by unlinking it: a reader may still have the old one mapped).
    """

    def __init__(self, path: Path, fingerprint: int, *, cells: int, text_bytes: int) -> None:
        """Raises BlockingIOError when another process writes this file, OSError when it cannot be made."""
        slots = SlotFile(path, cells, text_bytes=text_bytes, exclusive=True)
        if slots.cells[_FINGERPRINT] not in (0.0, float(fingerprint)):
            path.unlink()
            slots.close()
            slots = SlotFile(path, cells, text_bytes=text_bytes, exclusive=True)
        slots.reserve(0, cells + text_bytes // CELL)
        slots.cells[_FINGERPRINT] = float(fingerprint)
        self._slots = slots
        self._text = cells * CELL
        self._next = _HEADER
        self.cells = slots.cells
        self.rows: dict[tuple[str, tuple[str, ...]], int] = {}
        for name, labels, first, width in _directory(slots.map, self._text, int(self.cells[_TEXT_USED])):
            self.rows[name, tuple(labels)] = first
            self._next = first + width

    def add(self, name: str, labels: tuple[str, ...], width: int, *, spare: int = 0) -> int | None:
        """Give a new name `width` cells, all zero; the index of the first, or None when the file is full.

        Full means: fewer than `spare` bytes of text would be left.
        """
        used = int(self.cells[_TEXT_USED])
        line = orjson.dumps([name, labels, self._next, width], option=orjson.OPT_APPEND_NEWLINE)
        begin = self._text + used
        if self._next + width > self._slots.count or begin + len(line) + spare > len(self._slots.map):
            return None
        self._slots.map[begin : begin + len(line)] = line
        self.cells[_TEXT_USED] = float(used + len(line))
        first = self.rows[name, labels] = self._next
        self._next += width
        return first

    def close(self) -> None:
        """Unmap and let another process write; idempotent."""
        self._slots.close()


def read_series(path: Path, fingerprint: int, *, cells: int) -> list[Series]:
    """Every row of one file, while its writer goes on. Empty for a file of another version, or one just being made."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size < cells * CELL:
            return []
        with (
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
            memoryview(mapped) as whole,
            whole[: cells * CELL] as part,
            part.cast("d") as values,
        ):
            if values[_FINGERPRINT] != float(fingerprint):
                return []
            rows = _directory(mapped, cells * CELL, int(values[_TEXT_USED]))
            # One by one: copying the bytes could tear a value on some machines.
            return [
                Series(name, tuple(labels), [values[cell] for cell in range(first, first + width)])
                for name, labels, first, width in rows
            ]


def _directory(mapped: mmap.mmap, begin: int, used: int) -> list[tuple[str, list[str], int, int]]:
    return [tuple(orjson.loads(line)) for line in mapped[begin : begin + used].splitlines()]
