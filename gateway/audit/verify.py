"""Verification: does the log hold together, and if not, where is the first bad place of each file?

It recomputes every hash of every segment and of the manifest, and compares the two: a segment that is gone, that nobody
listed, or that ends before its seal is found as well as a changed byte. It reads only, needs nothing but the folder (a
copy will do), and may run while the log is being written: the unfinished end of a living writer's segment is no fault.
With a public key it also checks that the log contains every signed checkpoint. What it cannot know without one stands
in docs/audit-log.md.
"""

from __future__ import annotations

import enum
import fcntl
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import msgspec

from gateway.audit.chain import Chain, Link, Malformed, Unlinked, parse
from gateway.audit.checkpoint import CHECKPOINTS, BadCheckpoint, Checkpoint, check_signatures, read_checkpoints
from gateway.audit.commitments import committed, openings
from gateway.audit.layout import (
    FORMAT_VERSION,
    MANIFEST,
    SEAL_PREFIX,
    SECONDS_PER_DAY,
    Entry,
    Founded,
    Header,
    SegmentName,
    SegmentState,
    decode_entry,
    decode_header,
    segments_of,
)
from gateway.audit.manifest import shared
from gateway.audit.ratchet import Ratchet
from gateway.audit.segments import names_in

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


class Fault(enum.StrEnum):
    """What is wrong at a place."""

    ALTERED = "altered"
    REMOVED = "removed"
    REORDERED = "reordered"
    DUPLICATED = "duplicated"
    ADDED = "added"
    TRUNCATED = "truncated"
    MISSING = "missing"
    UNLISTED = "unlisted"
    UNSEALED = "unsealed"
    RETIRED_EARLY = "retired_early"
    REWRITTEN = "rewritten"
    UNKNOWN_VERSION = "unknown_version"


class Problem(msgspec.Struct, frozen=True):
    """One bad place. `line` counts from one; None where the file as a whole is meant."""

    file: str
    line: int | None
    fault: Fault
    message: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.fault}: {self.message}"


class Report(msgspec.Struct):
    """What was checked and what was found.

    `problems` has at most one per file, and `records` and `bytes` count up to it: what follows a break proves nothing.
    """

    writers: int = 0
    segments: int = 0
    open_segments: int = 0
    retired_segments: int = 0
    records: int = 0
    bytes: int = 0
    checkpoints: int = 0
    """Checkpoints that the log agrees with."""
    unsigned_records: int | None = None
    """Records after their writer's last checkpoint; None where neither key nor secret was given."""
    commitments: int = 0
    """Records that have a commitment in the place of an address."""
    erased: int | None = None
    """Those whose salt has been forgotten; None where the salts are not here."""
    problems: list[Problem] = []

    @property
    def ok(self) -> bool:
        return not self.problems


class NothingToVerify(Exception):
    """The folder holds no audit log."""


class _Found(Exception):
    """The first problem of a file; it ends that file's check."""

    def __init__(self, line: int | None, fault: Fault, message: str) -> None:
        super().__init__(message)
        self.line, self.fault, self.message = line, fault, message


class _File(NamedTuple):
    """A segment as it was when the check began: its size, and whether its writer held it."""

    size: int
    live: bool


class _Snapshot(NamedTuple):
    manifest: bytes | None
    files: dict[SegmentName, _File]


Progress = Callable[[int, int], None]
"""Called now and then with the bytes that were checked and the bytes that there are."""


def verify(
    folder: Path,
    progress: Progress | None = None,
    *,
    public_key: Ed25519PublicKey | None = None,
    secret: Ratchet | None = None,
    checkpoints: Path | None = None,
    salts: Path | None = None,
) -> Report:
    """Check a whole audit folder, with a public key or a first secret against its checkpoints too.

    `checkpoints` is the checkpoint file, the folder's own unless given; `salts` the salts folder, for the report to say
    how many commitments cannot be opened any more. Raises NothingToVerify, and OSError when a file
    cannot be read.
    """
    # Before the log: what is signed by now is in the files, what is signed later may not be.
    proof = public_key is not None or secret is not None
    signed = _Signed(checkpoints or folder / CHECKPOINTS, public_key, secret) if proof else None
    snapshot = _snapshot(folder)
    known = frozenset(openings(salts)) if salts is not None else None
    return _Verification(folder, snapshot, progress, signed, known).run()


class _Signed:
    """The checkpoints, by writer and line number; those that the log was found to contain are crossed off."""

    def __init__(self, path: Path, key: Ed25519PublicKey | None, secret: Ratchet | None) -> None:
        self.name = path.name
        self.problem: Problem | None = None
        self.met = 0
        self.last: dict[str, int] = {}
        self._open: dict[str, dict[int, list[Checkpoint]]] = defaultdict(lambda: defaultdict(list))
        try:
            data = read_checkpoints(path)
        except FileNotFoundError:
            self.problem = Problem(self.name, None, Fault.MISSING, "the checkpoints are gone, or there never were any")
            return
        numbers: list[int] = []
        for found in check_signatures(data, key, secret):
            if isinstance(found, BadCheckpoint):
                self._note(found, numbers)
            else:
                numbers.append(found.number)
                self._open[found.writer][found.sequence].append(found)
                self.last[found.writer] = max(found.sequence, self.last.get(found.writer, -1))
        if not data:
            self.problem = Problem(self.name, None, Fault.TRUNCATED, "there is no checkpoint")

    def _note(self, bad: BadCheckpoint, numbers: list[int]) -> None:
        if self.problem is not None:
            return
        fault = Fault.ALTERED
        if bad.found is not None:
            fault = Fault.REMOVED if bad.found > bad.expected else Fault.DUPLICATED
            if fault is Fault.DUPLICATED and bad.found not in numbers:
                fault = Fault.REORDERED
        self.problem = Problem(self.name, bad.expected, fault, bad.reason)

    def meet(self, writer: str, sequence: int, digest: bytes, line: int | None) -> None:
        """A line of the log. Raises _Found where a checkpoint says that it was another."""
        for checkpoint in self._open[writer].pop(sequence, ()) if writer in self._open else ():
            if checkpoint.hash != digest.hex():
                raise _Found(
                    line, Fault.REWRITTEN, f"record {sequence} is not the one that {self._place(checkpoint)} signed"
                )
            self.met += 1

    def pass_over(self, writer: str, first: int, last: int) -> None:
        """Lines that are not here any more, rightly; their segment's last one has been met in the manifest."""
        wanted = self._open.get(writer, {})
        for sequence in [one for one in wanted if first <= one < last]:
            del wanted[sequence]

    def unmet(self) -> Iterator[Problem]:
        """The first checkpoint of each writer that the log does not contain."""
        for wanted in self._open.values():
            for checkpoint in sorted((one for some in wanted.values() for one in some), key=lambda one: one.sequence)[
                :1
            ]:
                text = f"record {checkpoint.sequence}, which {self._place(checkpoint)} signed, is not there"
                yield Problem(checkpoint.file, None, Fault.REMOVED, text)

    def _place(self, checkpoint: Checkpoint) -> str:
        return f"{self.name}:{checkpoint.number}"


def _snapshot(folder: Path) -> _Snapshot:
    """The folder at one instant: while the manifest is held, no segment is begun, sealed or retired."""
    if not folder.is_dir():
        raise NothingToVerify(f"{folder} is not a folder")
    try:
        with shared(folder) as manifest:
            return _Snapshot(manifest.read(), _files(folder))
    except FileNotFoundError:
        files = _files(folder)
        if not files:
            raise NothingToVerify(f"{folder} holds no audit log") from None
        return _Snapshot(None, files)


def _files(folder: Path) -> dict[SegmentName, _File]:
    return {name: _look_at(folder / str(name)) for name in names_in(folder)}


def _look_at(path: Path) -> _File:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            live = False
        except BlockingIOError:
            live = True
        except OSError:
            # A file system without locks has no living writer.
            live = False
        return _File(os.fstat(file.fileno()).st_size, live)


class _Verification:
    """One run over one snapshot."""

    _PROGRESS_BYTES = 1 << 20

    def __init__(
        self,
        folder: Path,
        snapshot: _Snapshot,
        progress: Progress | None,
        signed: _Signed | None,
        known: frozenset[str] | None,
    ) -> None:
        """`known`: the commitments that can be opened, where the salts are here."""
        self.folder = folder
        self._known = known
        self.snapshot = snapshot
        self.report = Report(erased=None if known is None else 0)
        self._progress = progress
        self._signed = signed
        self._total = sum(file.size for file in snapshot.files.values())
        self._announced = 0

    def run(self) -> Report:
        states, trusted = self._check_manifest()
        names = sorted({*states, *self.snapshot.files}, key=lambda name: (name.writer, name.number, name.date))
        for _, group in groupby(names, key=lambda name: name.writer):
            self.report.writers += 1
            self._check_writer(list(group), states, trusted)
        if self._signed is not None:
            self._conclude(self._signed)
        # The manifest first, then files as they are listed: by date.
        self.report.problems.sort(key=lambda problem: (problem.file != MANIFEST, problem.file))
        return self.report

    def _conclude(self, signed: _Signed) -> None:
        """Name what was signed and is not there, but only where no fault of the same file has been named already."""
        report = self.report
        report.checkpoints = signed.met
        report.unsigned_records = report.unsigned_records or 0
        named = {problem.file for problem in report.problems}
        report.problems += [problem for problem in signed.unmet() if problem.file not in named]
        if signed.problem is not None:
            report.problems.append(signed.problem)

    def _note(self, file: str, found: _Found) -> None:
        self.report.problems.append(Problem(file, found.line, found.fault, found.message))

    def _check_manifest(self) -> tuple[dict[SegmentName, SegmentState], bool]:
        """The segments that the manifest knows, as far as it holds together, and whether it does to its end."""
        entries: list[Entry] = []
        trusted = True
        try:
            if self.snapshot.manifest is None:
                raise _Found(None, Fault.MISSING, "the manifest is gone")
            for entry in _manifest_entries(self.snapshot.manifest, self._signed):
                entries.append(entry)  # noqa: PERF402 (one by one: those before a break count)
        except _Found as found:
            self._note(MANIFEST, found)
            trusted = False
        states = segments_of(entries)
        return {name: state for text, state in states.items() if (name := SegmentName.parse(text))}, trusted

    def _check_writer(
        self, names: list[SegmentName], states: Mapping[SegmentName, SegmentState], trusted: bool
    ) -> None:
        chain: Chain | None = Chain()
        for name in names:
            state = states.get(name)
            try:
                if trusted:
                    self._compare(name, state, last=name is names[-1])
                if name in self.snapshot.files:
                    chain = self._check_segment(name, state, chain, trusted)
            except _Found as found:
                self._note(str(name), found)
                chain = None
            if state is not None and state.sealed is not None:
                # The manifest's word is as good: one broken segment does not cast doubt on the next.
                chain = Chain(state.sealed.sequence + 1, bytes.fromhex(state.sealed.root))

    def _compare(self, name: SegmentName, state: SegmentState | None, *, last: bool) -> None:
        """What the manifest says of a segment, against what is in the folder."""
        present = name in self.snapshot.files
        if state is None:
            raise _Found(None, Fault.UNLISTED, "the manifest does not know this segment")
        if state.retired is not None:
            self.report.retired_segments += 1
            _check_retirement(state)
            self._meet_retired(name, state)
        elif not present:
            raise _Found(None, Fault.MISSING, "the manifest lists this segment, and it is gone")
        if state.sealed is None and not last:
            raise _Found(None, Fault.UNSEALED, "not sealed, and yet its writer went on to another segment")

    def _meet_retired(self, name: SegmentName, state: SegmentState) -> None:
        """Of a segment that is gone the manifest has the root, and the seal was signed."""
        if self._signed is None or state.sealed is None or name in self.snapshot.files:
            return
        last = state.sealed.sequence
        self._signed.pass_over(name.writer, state.opened.sequence, last)
        self._signed.meet(name.writer, last, bytes.fromhex(state.sealed.root), None)

    def _check_segment(
        self, name: SegmentName, state: SegmentState | None, chain: Chain | None, trusted: bool
    ) -> Chain:
        """Follow a segment's chain from its header to its end; returns the chain's end."""
        file = self.snapshot.files[name]
        self.report.segments += 1
        with (self.folder / str(name)).open("rb") as stream:
            walk = _Walk(name, stream, file, chain)
            try:
                for size in walk.lines():
                    self._advance(size)
                    self._count_commitment(walk.record)
                    if self._signed is not None:
                        self._meet(self._signed, name.writer, walk)
            finally:
                self.report.bytes += walk.bytes
                self.report.records += walk.records
        if not walk.sealed:
            self.report.open_segments += 1
        if state is not None and state.sealed is not None:
            walk.expect_root(state.sealed.root)
        elif walk.sealed and trusted:
            raise _Found(walk.number, Fault.UNSEALED, "sealed, and the manifest does not say so")
        return walk.chain

    def _count_commitment(self, record: bytes) -> None:
        commitment = committed(record)
        if commitment is None:
            return
        self.report.commitments += 1
        if self._known is not None and self.report.erased is not None:
            self.report.erased += commitment not in self._known

    def _meet(self, signed: _Signed, writer: str, walk: _Walk) -> None:
        sequence = walk.chain.sequence - 1
        signed.meet(writer, sequence, walk.chain.hash, walk.number)
        if sequence > signed.last.get(writer, -1) and walk.number > 1 and not walk.sealed:
            self.report.unsigned_records = (self.report.unsigned_records or 0) + 1

    def _advance(self, size: int) -> None:
        self._announced += size
        if self._progress is not None and self._announced // self._PROGRESS_BYTES != (
            (self._announced - size) // self._PROGRESS_BYTES
        ):
            self._progress(self._announced, self._total)


class _Walk:
    """A segment, line by line. `number` is the last line's number in the file, `record` what it holds."""

    def __init__(self, name: SegmentName, stream: BinaryIO, file: _File, chain: Chain | None) -> None:
        self.number = 0
        self.records = 0
        self.bytes = 0
        self.sealed = False
        self.record = b""
        self._name = name
        self._stream = stream
        self._file = file
        self.chain, self._first = self._begin(chain)

    def _begin(self, chain: Chain | None) -> tuple[Chain, int]:
        """The chain that the header follows. Where that is not known (a break before), the header's own word."""
        try:
            link = parse(self._stream.readline(self._file.size).removesuffix(b"\n"))
            header = decode_header(link.record)
        except Malformed:
            raise _Found(1, Fault.TRUNCATED if not self._file.size else Fault.ALTERED, "no segment header") from None
        _check_header(header, self._name)
        self._stream.seek(0)
        if chain is None:
            chain = Chain(link.sequence, bytes.fromhex(header.previous))
        return chain, link.sequence

    def lines(self) -> Iterator[int]:
        """Check line after line; yields their sizes."""
        while self.bytes < self._file.size:
            line = self._stream.readline(self._file.size - self.bytes)
            if not line.endswith(b"\n"):
                self._end_inside(line)
                return
            self.number += 1
            self._step(line[:-1])
            self.bytes += len(line)
            yield len(line)

    def _step(self, line: bytes) -> None:
        if self.sealed:
            raise _Found(self.number, Fault.ADDED, "a line after the seal")
        try:
            self.chain, record = self.chain.step(line)
            self.record = record
        except Malformed as error:
            raise _Found(self.number, Fault.ALTERED, str(error)) from None
        except Unlinked as error:
            raise _explain(self.number, self.chain, error.link, self._first, self._stream) from None
        if record.startswith(SEAL_PREFIX):
            self.sealed = True
        elif self.number > 1:
            self.records += 1

    def _end_inside(self, line: bytes) -> None:
        if not line:
            raise _Found(self.number + 1, Fault.TRUNCATED, "the file became shorter during the check")
        if not self._file.live:
            raise _Found(self.number + 1, Fault.TRUNCATED, "the file ends inside a line")

    def expect_root(self, root: str) -> None:
        """The manifest says that the segment is sealed, and with which hash it ends."""
        if not self.sealed:
            raise _Found(self.number + 1, Fault.TRUNCATED, "the segment was sealed, and ends before its seal")
        if self.chain.hash.hex() != root:
            raise _Found(self.number, Fault.ALTERED, "the seal is not the one that the manifest has")


def _check_header(header: Header, name: SegmentName) -> None:
    if header.version != FORMAT_VERSION:
        raise _Found(1, Fault.UNKNOWN_VERSION, f"format version {header.version}, this program knows {FORMAT_VERSION}")
    if header.segment != str(name):
        raise _Found(1, Fault.ALTERED, f"the header is that of {header.segment}")


def _check_retirement(state: SegmentState) -> None:
    retired, sealed = state.retired, state.sealed
    assert retired is not None
    if sealed is None:
        raise _Found(None, Fault.RETIRED_EARLY, "retired without having been sealed")
    if retired.at - sealed.at < retired.retention_days * SECONDS_PER_DAY * 1_000_000:
        raise _Found(None, Fault.RETIRED_EARLY, f"retired before its {retired.retention_days} days were over")


def _manifest_entries(data: bytes, signed: _Signed | None) -> Iterator[Entry]:
    chain = Chain()
    lines = data.split(b"\n")
    for number, line in enumerate(lines[:-1], 1):
        try:
            chain, record = chain.step(line)
            entry = decode_entry(record)
        except Malformed as error:
            raise _Found(number, Fault.ALTERED, str(error)) from None
        except Unlinked as error:
            raise _explain_manifest(number, chain, error.link, lines[number:-1]) from None
        if signed is not None:
            signed.meet("", chain.sequence - 1, chain.hash, number)
        if isinstance(entry, Founded) != (number == 1):
            raise _Found(number, Fault.ALTERED, "a manifest begins with its version, and only there")
        if isinstance(entry, Founded) and entry.version != FORMAT_VERSION:
            raise _Found(number, Fault.UNKNOWN_VERSION, f"format version {entry.version}")
        yield entry
    if lines[-1]:
        raise _Found(len(lines), Fault.TRUNCATED, "the file ends inside a line")


def _explain(number: int, chain: Chain, link: Link, first: int, rest: BinaryIO) -> _Found:
    return _classify(number, chain.sequence, link.sequence, first, (line.rstrip(b"\n") for line in rest))


def _explain_manifest(number: int, chain: Chain, link: Link, rest: list[bytes]) -> _Found:
    return _classify(number, chain.sequence, link.sequence, 0, iter(rest))


def _classify(number: int, expected: int, found: int, first: int, rest: Iterator[bytes]) -> _Found:
    """Name what has happened, from the numbers that lines carry. Whoever renumbered as well has altered lines."""
    if found == expected:
        return _Found(number, Fault.ALTERED, f"record {found} does not match its hash")
    if found < expected:
        if found >= first:
            return _Found(number, Fault.DUPLICATED, f"record {found} again, where record {expected} should be")
        return _Found(number, Fault.REORDERED, f"record {found}, where record {expected} should be")
    if any(_sequence_of(line) == expected for line in rest):
        return _Found(number, Fault.REORDERED, f"record {found}, where record {expected} should be; that stands later")
    return _Found(number, Fault.REMOVED, f"record {found}, where record {expected} should be; that is gone")


def _sequence_of(line: bytes) -> int | None:
    try:
        return parse(line).sequence
    except Malformed:
        return None
