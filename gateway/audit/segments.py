"""Segments: the files that one writer's chain is cut into, one after the other.

A segment begins with a header line, ends with a seal, and is read-only from then on; the chain runs through all.
A new one is begun when the old one is large enough or the UTC day has changed, and only when there is a record to
write. The open segment is held by `flock` for as long as its writer lives, which is how others tell an unfinished
segment from an abandoned one. This module knows nothing of threads and of the journal, and it is told the time.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import final

from gateway.audit.chain import Chain
from gateway.audit.checkpoint import Notary, Position
from gateway.audit.commitments import Commitments
from gateway.audit.layout import (
    FORMAT_VERSION,
    Header,
    Opened,
    Seal,
    Sealed,
    SegmentName,
    SegmentState,
    date_of,
    encode,
    microseconds,
    segments_of,
)
from gateway.audit.manifest import ManifestFile, exclusive
from gateway.audit.record import InFlight
from gateway.audit.scan import Scan, SegmentDamaged, Standing, scan

SEGMENT_BYTES = 64 << 20
"""A segment of this size is sealed: 70,000 exchanges, checked in half a second."""


class SegmentBusy(Exception):
    """A living process holds the segment."""


def names_in(folder: Path) -> list[SegmentName]:
    """The segments that lie in a folder, in no particular order."""
    return [name for entry in os.scandir(folder) if (name := SegmentName.parse(entry.name))]


@final
class Segment:
    """The segment that is being written."""

    __slots__ = ("_fd", "_torn", "day", "name", "path", "records", "root", "size")

    def __init__(self, path: Path, name: SegmentName, fd: int) -> None:
        self.path = path
        self.name = name
        self.day = name.date
        self.size = os.fstat(fd).st_size
        self.records = 0
        self.root: bytes | None = None
        self._fd = fd
        self._torn = False

    @classmethod
    def create(cls, folder: Path, name: SegmentName) -> Segment:
        """A new, empty file, held by this process."""
        path = folder / str(name)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o640)
        fcntl.flock(fd, fcntl.LOCK_EX)
        return cls(path, name, fd)

    @classmethod
    def take_over(cls, folder: Path, name: SegmentName) -> Segment:
        """The last file of a writer that has ended. Raises SegmentBusy while the writer lives."""
        path = folder / str(name)
        # A sealed segment cannot be opened for writing, and need not.
        flags = os.O_RDWR if os.access(path, os.W_OK) else os.O_RDONLY
        fd = os.open(path, flags | os.O_APPEND | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise SegmentBusy(name) from None
        return cls(path, name, fd)

    def append(self, lines: bytes) -> None:
        """One write. Raises OSError, and then the file is, or will be before the next write, as it was."""
        if self._torn:
            os.ftruncate(self._fd, self.size)
        self._torn = True
        if os.write(self._fd, lines) != len(lines):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        self._torn = False
        self.size += len(lines)

    def resume(self, found: Scan) -> None:
        """Stand where the scan ended; an unfinished line, left by a crash, is cut off."""
        if found.length != self.size:
            os.ftruncate(self._fd, found.length)
        self.size = found.length
        self.records = found.records
        self.root = found.chain.hash if found.sealed else None

    def sync(self) -> None:
        """Wait until all is on the disk."""
        os.fdatasync(self._fd)

    def protect(self) -> None:
        """Make the file read-only."""
        os.fchmod(self._fd, 0o440)

    def close(self) -> None:
        """Let the file go. It stays as it is."""
        os.close(self._fd)


@final
class SegmentedChain:
    """One writer's chain, in segments. One thread at a time.

    `journal` is the absolute path of the file where the writer's records wait; it goes into the headers. Every method
    that writes raises OSError when the disk refuses, has then changed nothing that counts, and may be called again.
    With a `notary`, every seal is signed, and what `checkpoint` is asked for. `commitments` take the place of
    addresses.
    """

    def __init__(
        self,
        folder: Path,
        writer: str,
        *,
        journal: str,
        segment_bytes: int = SEGMENT_BYTES,
        notary: Notary | None = None,
        commitments: Commitments | None = None,
    ) -> None:
        self.folder = folder
        self._commitments = commitments
        self.writer = writer
        self.chain = Chain()
        self.in_flight = InFlight()
        self._notary = notary
        self._journal = journal
        self._segment_bytes = segment_bytes
        self._number = 0
        self._segment: Segment | None = None

    def write(self, records: Sequence[bytes], now: float) -> None:
        """Append records, at most a few hundred. `now` is in Unix seconds."""
        if self._commitments is not None:
            records = self._commitments.apply(records, now)
        segment = self._segment
        if segment is not None and (segment.root or self._is_over(segment, now)):
            self.seal(now)
            segment = None
        if segment is None:
            segment = self._begin(now)
        chain, lines = self.chain.extend(records)
        segment.append(lines)
        segment.records += len(records)
        self.chain = chain
        for record in records:
            self.in_flight.note(record)

    def tick(self, now: float) -> None:
        """Seal the open segment when its day is over, also when nothing happens."""
        if self._segment is not None and self._is_over(self._segment, now):
            self.seal(now)

    def sync(self) -> None:
        """Wait until all that was written is on the disk."""
        if self._segment is not None:
            self._segment.sync()

    def seal(self, now: float) -> None:
        """Complete the open segment, if there is one."""
        segment = self._segment
        if segment is None:
            return
        with exclusive(self.folder) as manifest:
            if segment.root is None:
                chain, line = self.chain.extend([encode(Seal(microseconds(now), segment.records))])
                segment.append(line)
                self.chain = chain
                segment.root = chain.hash
            segment.sync()
            listed = manifest.append(self._sealed_entry(segment, segment.root, now))
            segment.protect()
            if self._notary is not None:
                self._notary.sign((self._position(segment), Position.of_manifest(listed)), now)
        self.close()

    def checkpoint(self, now: float) -> bool:
        """Sign where the open segment stands, which must have been synced. False where that could not be done."""
        segment = self._segment
        if self._notary is None or segment is None:
            return True
        return self._notary.sign([self._position(segment)], now)

    def _position(self, segment: Segment) -> Position:
        return Position(self.writer, str(segment.name), self.chain)

    def close(self) -> None:
        """Let the open segment go as it is."""
        if self._segment is not None:
            self._segment.close()
            self._segment = None

    def _is_over(self, segment: Segment, now: float) -> bool:
        return segment.size >= self._segment_bytes or date_of(now) != segment.day

    def _sealed_entry(self, segment: Segment, root: bytes, now: float) -> Sealed:
        return Sealed(str(segment.name), microseconds(now), self.chain.sequence - 1, root.hex(), segment.records)

    def _begin(self, now: float) -> Segment:
        name = SegmentName(date_of(now), self.writer, self._number + 1)
        previous = self.chain.hash.hex()
        ids = self.in_flight.ids()
        header = Header(FORMAT_VERSION, str(name), microseconds(now), previous, self._journal, ids)
        chain, line = self.chain.extend([encode(header)])
        with exclusive(self.folder) as manifest:
            segment = Segment.create(self.folder, name)
            try:
                segment.append(line)
                # On the disk before it is listed: a listed segment always has its header.
                segment.sync()
                manifest.append(Opened(str(name), header.at, self.chain.sequence, previous))
            except BaseException:
                # Not listed, so nothing but its header can be in it.
                segment.path.unlink()
                segment.close()
                raise
        _sync_folder(self.folder)
        self.chain, self._segment, self._number = chain, segment, name.number
        return segment

    @classmethod
    def resume(
        cls,
        folder: Path,
        writer: str,
        mark: int | None,
        now: float,
        *,
        journal: str,
        notary: Notary | None = None,
        commitments: Commitments | None = None,
    ) -> tuple[SegmentedChain, Standing]:
        """The chain of a writer that has ended, to be carried on where it stopped.

        `mark` is the number of the next line as the writer's journal has it, None without a journal. An unfinished last
        line is cut off; what the writer could no longer tell the manifest is told now. Raises SegmentBusy while the
        writer lives, SegmentDamaged when the last segment does not hold together.
        """
        series = cls(folder, writer, journal=journal, notary=notary, commitments=commitments)
        with exclusive(folder) as manifest:
            listed = _listed(manifest, writer)
            _remove_unborn(folder, writer, listed)
            names = [*listed, *(name for name in names_in(folder) if name.writer == writer)]
            if not names:
                return series, Standing(missing=mark or 0)
            name = max(names, key=lambda name: name.number)
            series._number = name.number
            if not (folder / str(name)).exists():
                series.chain = _chain_after(name, listed[name])
                return series, Standing()
            series._segment = Segment.take_over(folder, name)
        try:
            return series, series._catch_up(series._segment, listed.get(name), mark, now)
        except BaseException:
            series.close()
            raise

    def _catch_up(self, segment: Segment, state: SegmentState | None, mark: int | None, now: float) -> Standing:
        found = scan(segment.path, mark)
        self.chain, self.in_flight = found.chain, found.in_flight
        segment.resume(found)
        with exclusive(self.folder) as manifest:
            if state is None:
                header = found.header
                manifest.append(Opened(header.segment, header.at, found.first, header.previous))
            if segment.root is not None and (state is None or state.sealed is None):
                manifest.append(self._sealed_entry(segment, segment.root, now))
        if segment.root is not None:
            segment.protect()
            self.close()
        return found.standing


def _listed(manifest: ManifestFile, writer: str) -> dict[SegmentName, SegmentState]:
    states = segments_of(manifest.entries())
    return {
        name: state for text, state in states.items() if (name := SegmentName.parse(text)) and name.writer == writer
    }


def _remove_unborn(folder: Path, writer: str, listed: Mapping[SegmentName, SegmentState]) -> None:
    """Delete a file whose writer ended before it had written so much as the header."""
    for name in names_in(folder):
        path = folder / str(name)
        if name.writer == writer and name not in listed and not _has_header(path):
            path.unlink()


def _has_header(path: Path) -> bool:
    with path.open("rb") as file:
        return file.readline().endswith(b"\n")


def _chain_after(name: SegmentName, state: SegmentState) -> Chain:
    """The chain after a segment that is not there any more, as the manifest has it."""
    if state.sealed is None:
        raise SegmentDamaged(f"{name} is missing")
    return Chain(state.sealed.sequence + 1, bytes.fromhex(state.sealed.root))


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
