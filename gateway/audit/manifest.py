"""The manifest: which segments there are, so that a whole segment cannot vanish unnoticed.

One file for all writers of an audit folder, append-only and a hash chain of its own (the same line format as in the
segments). Writers take turns by `flock`, in their writer threads, never on an event loop. This module knows what
happens to segments, not what is in them.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import final

from gateway.audit.chain import Chain, Malformed, parse
from gateway.audit.layout import FORMAT_VERSION, MANIFEST, Entry, Founded, decode_entry, encode

_TAIL_BYTES = 1 << 16
"""Far more than one entry; the last line is looked for in so much of the file's end."""


@contextmanager
def exclusive(folder: Path) -> Iterator[ManifestFile]:
    """The manifest, for this writer alone. Makes the folder and the file where need be. Waits for other writers."""
    folder.mkdir(mode=0o750, parents=True, exist_ok=True)
    fd = os.open(folder / MANIFEST, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield ManifestFile(fd)
    finally:
        os.close(fd)


@contextmanager
def shared(folder: Path) -> Iterator[ManifestFile]:
    """The manifest for reading: while it is held, no segment is begun, sealed or retired.

    Raises FileNotFoundError where there is none.
    """
    fd = os.open(folder / MANIFEST, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)
        except OSError as error:
            # A copy on a file system without locks has no writer either.
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
        yield ManifestFile(fd)
    finally:
        os.close(fd)


@final
class ManifestFile:
    """The open and locked manifest."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def read(self) -> bytes:
        """The whole file as it stands."""
        size = os.fstat(self._fd).st_size
        parts: list[bytes] = []
        while size > 0 and (part := os.pread(self._fd, size, sum(map(len, parts)))):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def entries(self) -> Iterator[Entry]:
        """The entries, without a check of the chain. Lines that are none are passed over: `verify` names them."""
        for line in self.read().split(b"\n"):
            try:
                yield decode_entry(parse(line).record)
            except Malformed:
                continue

    def append(self, *entries: Entry) -> Chain:
        """Write entries through to the disk; returns the chain's end. Raises OSError: none of them is in the file."""
        chain, size = self._end()
        if size == 0:
            first = entries[0]
            entries = (Founded(FORMAT_VERSION, first.at), *entries)
        end, lines = chain.extend(map(encode, entries))
        try:
            if os.write(self._fd, lines) != len(lines):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), MANIFEST)
            os.fdatasync(self._fd)
        except OSError:
            os.ftruncate(self._fd, size)
            raise
        return end

    def _end(self) -> tuple[Chain, int]:
        """The chain's end and the file's size, after cutting off a line that a crash left unfinished."""
        size = os.fstat(self._fd).st_size
        start = max(0, size - _TAIL_BYTES)
        tail = os.pread(self._fd, size - start, start)
        whole = tail.rfind(b"\n") + 1
        if whole != len(tail):
            size = start + whole
            os.ftruncate(self._fd, size)
        if not whole:
            return Chain(), size
        line = tail[tail.rfind(b"\n", 0, whole - 1) + 1 : whole - 1]
        try:
            link = parse(line)
        except Malformed:
            # Somebody was at it. Recording goes on; `verify` names the line, whatever follows.
            return Chain(0, sha256(line).digest()), size
        return Chain(link.sequence + 1, link.hash), size
