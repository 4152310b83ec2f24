"""The journal: where a worker's event loop leaves its audit records, and where the writer thread takes them.

A ring in a file that is mapped shared, with one producer (the event loop) and one consumer (the writer). To append is a
copy into memory: no system call, no lock. The mapping belongs to the kernel, so what was appended outlives a `kill -9`
of the worker, and whoever opens the file next finds every record that the writer had not yet taken. This module knows
nothing of what the records mean, of the chain, or of segments.

Layout (in the machine's byte order; positions count bytes since the beginning of time, so that they never go back):

    0     magic, capacity (u64), id of the writer (16 bytes)
    64    head (u64): where the next record goes; written by the producer, after the record
    128   dropped (u64): records that found no room and were let go; written by the producer
    192   two slots of {turn, tail, sequence, reported (u64 each), crc32}; written by the consumer in turn
    4096  the ring: frames of a word (length, and crc32 in its upper half) and the payload, each on a multiple of eight
          and never across the end

A process is killed between two instructions, never inside an aligned eight-byte store, so `head` is always right after
a `kill -9`. The checksums are for the machine going down: then the pages reach the disk in any order. They are seeded
with the record's position, so that a frame of an earlier lap does not pass for one of this lap.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from pathlib import Path
from typing import NamedTuple, final
from zlib import crc32

from gateway.errors import AuditUnavailable

DEFAULT_CAPACITY = 16 << 20
"""Five seconds of 5,000 exchanges a second at 320 bytes a record: longer than a disk stalls, short of hoarding."""

_MAGIC = b"KTJRNL1\n"
_IDENTITY = struct.Struct("=8sQ16s")
_SLOT = struct.Struct("=QQQQ")
_SLOT_SUM = struct.Struct("=I")
_HEAD, _DROPPED = 64 // 8, 128 // 8
_SLOTS = (192, 256)
_RING = 4096
_AHEAD = 1 << 20
"""Bytes before the producer that are kept mapped: what comes in a third of a second at 5,000 exchanges a second."""
_PART = 1 << 17
"""Mapped at once, in 20 µs."""
_POPULATE_WRITE = 23
"""MADV_POPULATE_WRITE (madvise(2)); Python has no name for it yet."""
_SKIP = 0xFFFF_FFFF
"""In place of a length: nothing more before the end of the ring."""


class JournalBusy(Exception):
    """A living process holds the journal."""


class JournalInvalid(Exception):
    """The file is not a journal, or not one of this version."""


class Mark(NamedTuple):
    """How far the consumer has got: all before `tail` is in the chain, whose next line will have number `sequence`.

    `reported` is how many dropped records the chain's gaps have named.
    """

    tail: int = 0
    sequence: int = 0
    reported: int = 0


class Batch(NamedTuple):
    """Records taken from the ring, and the position after them. `damaged`: the next frame does not fit its checksum."""

    records: list[bytes]
    position: int
    damaged: bool = False


@final
class Journal:
    """One worker's journal, held by this process alone for as long as it is open."""

    __slots__ = (
        "_base",
        "_bound",
        "_capacity",
        "_dropped",
        "_fd",
        "_head",
        "_map",
        "_mark",
        "_mask",
        "_ready",
        "_turn",
        "_words",
        "path",
        "writer",
    )

    def __init__(self, path: Path, fd: int) -> None:
        """Take an open and locked file; use `create` or `open` instead."""
        self.path = path
        self._fd = fd
        self._map = mmap.mmap(fd, os.fstat(fd).st_size, flags=mmap.MAP_SHARED)
        self._words = memoryview(self._map).cast("Q")
        _, self._capacity, writer = _IDENTITY.unpack_from(self._map)
        self.writer = writer.decode("ascii")
        self._mask = self._capacity - 1
        self._turn, self._mark = self._latest_mark()
        self._head = self._words[_HEAD]
        self._dropped = self._words[_DROPPED]
        self._base = 0
        self._bound = 0
        self._ready = 0
        self.make_ready()

    @classmethod
    def create(cls, path: Path, writer: str, capacity: int = DEFAULT_CAPACITY) -> Journal:
        """A new, empty journal for the writer of this id (16 hexadecimal digits).

        `capacity` is the ring's size in bytes, a power of two from 4096. The disk space is taken at once: a hole in a
        mapped file turns a full disk into a SIGBUS, which kills the worker.
        """
        if capacity < 4096 or capacity & (capacity - 1):
            raise ValueError("the capacity of a journal is a power of two, 4096 at the least")
        # Made under another name and locked before it gets its own, so that no recovery takes it for a leftover.
        making = path.with_name(f".{path.name}.{os.getpid()}")
        fd = os.open(making, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            os.posix_fallocate(fd, 0, _RING + capacity)
            os.pwrite(fd, _IDENTITY.pack(_MAGIC, capacity, writer.encode("ascii")), 0)
            journal = cls(path, fd)
            os.rename(making, path)
        except BaseException:
            os.close(fd)
            making.unlink(missing_ok=True)
            raise
        return journal

    @classmethod
    def open(cls, path: Path) -> Journal:
        """A journal that another process has left behind.

        Raises JournalBusy while its owner, or another recovery, is at it; FileNotFoundError when it is gone;
        JournalInvalid when the file is something else.
        """
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            _lock_leftover(path, fd)
            _check_identity(path, fd)
            return cls(path, fd)
        except BaseException:
            os.close(fd)
            raise

    def append(self, payload: bytes, last: bool = False) -> None:
        """Add a record; it is safe against the end of this process when the call returns. Event loop only.

        An eighth of the ring is kept for records marked `last`, which end what an earlier record has begun. Raises
        AuditUnavailable when there is no room.
        """
        # 0.5 µs for 300 bytes, 0.25 of them the checksum. Two stores through a view of 64-bit words cost half of what
        # `struct.pack_into` does.
        position = self._head
        length = len(payload)
        end = position + (length + 15 & -8)
        if end > self._bound:
            size = end - position
            position = self._make_room(size, last)
            end = position + size
        offset = position + self._base
        words = self._words
        words[offset >> 3] = crc32(payload, position) << 32 | length
        offset += 8
        self._map[offset : offset + length] = payload
        self._head = words[_HEAD] = end

    def _make_room(self, size: int, last: bool) -> int:
        """The position where a frame of this size can go. Looks at the consumer's progress, which `append` does not.

        Sets `_base`, the place in the file of position 0 of this lap, and `_bound`, up to where `append` need not ask.
        """
        if self.closed:
            raise AuditUnavailable("The audit log is closed.")
        free_until = self._mark.tail + self._capacity
        limit = free_until - self._capacity // 8
        position = self._head
        rest = self._capacity - (position & self._mask)
        skip = rest if size > rest else 0
        if position + skip + size > (free_until if last else limit):
            raise AuditUnavailable("The audit log cannot take a record: its disk does not keep up or is full.")
        if skip:
            self._words[(_RING + (position & self._mask)) >> 3] = _SKIP
            position += skip
        lap = position & -self._capacity
        self._base = _RING - lap
        self._bound = min(limit, lap + self._capacity)
        return position

    def make_ready(self) -> None:
        """Have the kernel map the pages that the producer comes to next, so that it meets no page fault. For the
        consumer, from time to time; only the first lap has any to map. So a worker without traffic has one part in
        memory instead of the whole ring. Where the kernel cannot do it (before Linux 5.14, on macOS) the producer does
        without."""
        end = _RING + self._capacity
        while self._ready < end and self._ready < self._head + _AHEAD:
            try:
                self._map.madvise(_POPULATE_WRITE, self._ready, min(_PART, end - self._ready))
            except OSError:
                self._ready = end
            else:
                self._ready += _PART

    def drop(self) -> None:
        """Count a record that found no room. Event loop only."""
        self._dropped += 1
        if not self.closed:
            self._words[_DROPPED] = self._dropped

    @property
    def closed(self) -> bool:
        """`close` was called."""
        return self._fd < 0

    @property
    def dropped(self) -> int:
        """Records that found no room, since the journal was made."""
        return self._dropped

    @property
    def head(self) -> int:
        """Where the next record goes."""
        return self._head

    @property
    def mark(self) -> Mark:
        """How far the consumer has got."""
        return self._mark

    @property
    def backlog(self) -> int:
        """Bytes that wait for the consumer."""
        return self._head - self._mark.tail

    def take(self, limit: int, *, checked: bool = False) -> Batch:
        """Up to `limit` records from the consumer's mark on. They stay in the ring until `advance`.

        `checked` is for a journal that was left behind: a frame that is not whole ends the batch. In the process that
        wrote the frames the checksum would only cost.
        """
        records: list[bytes] = []
        ring, words, mask = self._map, self._words, self._mask
        position, head = self._mark.tail, self._head
        while position < head and len(records) < limit:
            offset = _RING + (position & mask)
            frame = words[offset >> 3]
            length = frame & 0xFFFF_FFFF
            if length == _SKIP:
                position += self._capacity - (position & mask)
                continue
            payload = ring[offset + 8 : offset + 8 + length]
            if checked and (len(payload) != length or crc32(payload, position) != frame >> 32):
                return Batch(records, position, damaged=True)
            records.append(payload)
            position += (length + 15) & -8
        return Batch(records, position)

    def advance(self, mark: Mark) -> None:
        """Free the ring up to the mark's tail. Consumer only.

        The two slots take turns, so that one of them is whole at every instant.
        """
        self._turn += 1
        packed = _SLOT.pack(self._turn, *mark)
        offset = _SLOTS[self._turn & 1]
        self._map[offset : offset + _SLOT.size + 4] = packed + _SLOT_SUM.pack(crc32(packed))
        self._mark = mark

    def _latest_mark(self) -> tuple[int, Mark]:
        """The newer of the two slots that fit their checksum: its turn and its mark."""
        turn, mark = 0, Mark()
        for offset in _SLOTS:
            packed = self._map[offset : offset + _SLOT.size]
            found, *values = _SLOT.unpack(packed)
            if found > turn and _SLOT_SUM.unpack_from(self._map, offset + _SLOT.size)[0] == crc32(packed):
                turn, mark = found, Mark(*values)
        return turn, mark

    def close(self, *, remove: bool = False) -> None:
        """Let the file go, and delete it where everything in it has been taken. Further calls do nothing."""
        if self.closed:
            return
        if remove:
            self.path.unlink(missing_ok=True)
        self._words.release()
        self._map.close()
        os.close(self._fd)
        # The first look of `append` is at the bound; nothing gets past it any more.
        self._fd, self._bound = -1, 0

    def __repr__(self) -> str:
        return f"<Journal {self.path.name} head={self._head} tail={self._mark.tail} of {self._capacity}>"


def _lock_leftover(path: Path, fd: int) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise JournalBusy(path) from None
    if os.fstat(fd).st_nlink == 0:
        # Another recovery took it between our `open` and our lock.
        raise FileNotFoundError(path)


def _check_identity(path: Path, fd: int) -> None:
    identity = os.pread(fd, _IDENTITY.size, 0)
    if len(identity) < _IDENTITY.size:
        raise JournalInvalid(f"{path} is too short to be an audit journal")
    magic, capacity, writer = _IDENTITY.unpack(identity)
    if magic != _MAGIC or os.fstat(fd).st_size != _RING + capacity or capacity & (capacity - 1) or not writer.isalnum():
        raise JournalInvalid(f"{path} is not an audit journal of this version")
