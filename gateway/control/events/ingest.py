"""From the audit log into the index: each finish joined to its start, numbered, and added to the sums.

One batch of lines is one transaction, and how far the log has been read is part of it: whatever happens, each record
counts once. Exchanges that have begun and not ended are remembered by the place of their start in the log. Only one
process indexes a log, the one that holds the lock beside the index. It has no thread and no loop: it is told when to
look.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from gateway.audit.layout import Header, Seal, SegmentName
from gateway.audit.record import Finish, Gap, Outcome, Start
from gateway.audit.segments import names_in
from gateway.control.events.schema import (
    DIMENSIONS,
    EVENT_COLUMNS,
    FACETS,
    TIE_BITS,
    number_at,
    open_for_writing,
    remove,
)
from gateway.control.events.sums import ADDED, DURATION, FIRST_BYTE, Sums
from gateway.types import Decision, Verdict

BATCH_BYTES: Final = 1 << 21
"""So much of the log is one transaction: some 2,800 events, whose sums are written together."""
MAX_OPEN: Final = 200_000
"""Exchanges that may be open at a time; of more than these the oldest are shown without their beginning."""

OUTCOMES: Final = tuple(Outcome)
VERDICTS: Final = (Verdict.ALLOW, Verdict.REDACT, Verdict.ESCALATE, Verdict.BLOCK)
"""By their strictness."""

_OUTCOME_INDEX: Final = {outcome: index for index, outcome in enumerate(OUTCOMES)}
_VERDICT_INDEX: Final = {verdict: index for index, verdict in enumerate(VERDICTS)}
_FAILED: Final = (Outcome.FAILED, Outcome.TRUNCATED, Outcome.INTERRUPTED)
_EVENT: Final = f"INSERT INTO events ({', '.join(EVENT_COLUMNS)}) VALUES (?{', ?' * (len(EVENT_COLUMNS) - 1)})"  # noqa: S608
_FACET: Final = (
    "INSERT INTO facets VALUES (?, ?, ?, ?) "
    "ON CONFLICT DO UPDATE SET events = events + excluded.events, last = max(last, excluded.last)"
)
_UNKNOWN: Final = 0
"""The number of no name: what an event does not have, or what nobody but a client has named."""


class _Line(msgspec.Struct):
    record: Start | Finish | Gap | Header | Seal


_decode = msgspec.json.Decoder(_Line).decode


class Catalogue(msgspec.Struct, frozen=True):
    """What the configurations in force name: the provider of each (configuration, target), and the models."""

    providers: Mapping[tuple[str, str], str] = {}
    models: frozenset[str] = frozenset()


class Locked(Exception):
    """Another process indexes this log."""


class _Begun(NamedTuple):
    """A start without its finish, and where it stands."""

    start: Start
    file: int
    offset: int


class _File(NamedTuple):
    """How far a segment has been read."""

    id: int
    offset: int = 0
    done: bool = False


class Indexer:
    """The one writer of an index."""

    def __init__(self, folder: Path, path: Path) -> None:
        """`folder` is the audit log, `path` the index. Raises Locked, OSError or sqlite3.Error."""
        self._folder = folder
        self._path = path
        self._lock = _take_lock(path.with_name(path.name + ".lock"))
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        """Open the index, and know what it knows."""
        self.connection = connection = open_for_writing(self._path)
        query = connection.execute
        self.names: dict[str, int] = {text: id for id, text in query("SELECT id, text FROM names")}
        series = query(f"SELECT id, {', '.join(DIMENSIONS)} FROM series")  # noqa: S608
        self.series: dict[tuple[int, ...], int] = {tuple(row[1:]): row[0] for row in series}
        self._files: dict[SegmentName, _File] = {}
        for id, text, offset, done in query("SELECT id, name, offset, done FROM files"):
            if (name := SegmentName.parse(text)) is not None:
                self._files[name] = _File(id, offset, bool(done))
        self.begun: dict[tuple[str, str], list[_Begun]] = {}
        self._recall_begun()

    def _recall_begun(self) -> None:
        by_id = {file.id: self._folder / str(name) for name, file in self._files.items()}
        for writer, file, offset in self.connection.execute("SELECT writer, file, offset FROM begun").fetchall():
            record = read_record(by_id[file], offset) if file in by_id else None
            if isinstance(record, Start):
                self.begun.setdefault((writer, record.id), []).append(_Begun(record, file, offset))

    def close(self) -> None:
        """Let the index go; idempotent."""
        with contextlib.suppress(AttributeError):
            self.connection.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def rebuild(self) -> None:
        """Throw the index away; the next steps make it anew."""
        self.connection.close()
        remove(self._path)
        self._begin()

    def step(self, catalogue: Catalogue, now: float) -> tuple[list[int], bool]:
        """Read on, at most `BATCH_BYTES`. Gives the numbers of the new events, and whether there may be more to read.

        `now` is in Unix seconds.
        Raises sqlite3.Error or OSError; then nothing of this step has happened, and it may be tried again.
        """
        for name in self._unfinished():
            data = self._read(name)
            if data:
                return self._take(name, data, catalogue, now), True
        return [], False

    def _unfinished(self) -> list[SegmentName]:
        files = self._files
        try:
            names = [name for name in names_in(self._folder) if name not in files or not files[name].done]
        except FileNotFoundError:  # no exchange has been recorded yet
            return []
        return sorted(names, key=lambda name: (name.date, name.writer, name.number))

    def _read(self, name: SegmentName) -> bytes:
        """The whole lines that come next in a segment."""
        try:
            with (self._folder / str(name)).open("rb") as file:
                file.seek(self._files[name].offset if name in self._files else 0)
                data = file.read(BATCH_BYTES)
                if len(data) == BATCH_BYTES and b"\n" not in data:  # a header that names very many open exchanges
                    data += file.readline()
        except FileNotFoundError:  # retired meanwhile
            return b""
        return data[: data.rfind(b"\n") + 1]

    def _take(self, name: SegmentName, data: bytes, catalogue: Catalogue, now: float) -> list[int]:
        connection = self.connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            file = self._files.get(name) or self._list(name)
            batch = _Batch(self, name.writer, file, catalogue)
            batch.take(data)
            numbers = batch.write(now)
            read = _File(file.id, file.offset + len(data), batch.sealed)
            connection.execute("UPDATE files SET offset = ?, done = ? WHERE id = ?", (read.offset, read.done, read.id))
            connection.execute("COMMIT")
        except BaseException:
            # What this process remembers is ahead of the index: begin again with what the index says.
            connection.close()
            self._begin()
            raise
        self._files[name] = read
        return numbers

    def _list(self, name: SegmentName) -> _File:
        id = self.connection.execute("INSERT INTO files (name, offset, done) VALUES (?, 0, 0)", (str(name),)).lastrowid
        assert id is not None
        return _File(id)

    def name(self, text: str | None) -> int:
        """The number of a name, given to it if it has none yet."""
        if not text:
            return _UNKNOWN
        id = self.names.get(text)
        if id is None:
            id = self.connection.execute("INSERT INTO names (text) VALUES (?)", (text,)).lastrowid
            assert id is not None
            self.names[text] = id
        return id


class _Batch:
    """Lines of one segment, in one transaction."""

    def __init__(self, indexer: Indexer, writer: str, file: _File, catalogue: Catalogue) -> None:
        self._indexer = indexer
        self._writer = writer
        self._file = file
        self._catalogue = catalogue
        self._sums = Sums(indexer.series)
        self._events: dict[int, tuple[object, ...]] = {}
        self._client_ids: list[tuple[str, int]] = []
        self._facets: dict[tuple[str, int], list[int]] = {}
        self._began: dict[tuple[int, int], str] = {}
        self._ended: list[tuple[int, int]] = []
        self._gaps: list[tuple[int, str, int | None, int, int]] = []
        self.sealed = False

    def take(self, data: bytes) -> None:
        """Every line; one that is none of ours is passed over: `verify` is who complains."""
        offset = self._file.offset
        for line in data.splitlines(keepends=True):
            try:
                record = _decode(line).record
            except (msgspec.DecodeError, UnicodeDecodeError):
                offset += len(line)
                continue
            match record:
                case Start():
                    self._begin(record, offset)
                case Finish():
                    self._end(record, offset)
                case Gap():
                    self._gaps.append((record.at, record.reason, record.records, self._file.id, offset))
                case Seal():
                    self.sealed = True
            offset += len(line)

    def _begin(self, start: Start, offset: int) -> None:
        begun = self._indexer.begun
        begun.setdefault((self._writer, start.id), []).append(_Begun(start, self._file.id, offset))
        self._began[self._file.id, offset] = start.id
        if len(begun) > MAX_OPEN:
            oldest = begun.pop(next(iter(begun)))
            self._forget(oldest)

    def _end(self, finish: Finish, offset: int) -> None:
        waiting = self._indexer.begun.get((self._writer, finish.id))
        begun = None
        if waiting:
            begun = waiting.pop(0)
            if not waiting:
                del self._indexer.begun[self._writer, finish.id]
            self._forget([begun])
        self._add(begun, finish, offset)

    def _forget(self, those: Sequence[_Begun]) -> None:
        for one in those:
            if self._began.pop((one.file, one.offset), None) is None:
                self._ended.append((one.file, one.offset))

    def _add(self, begun: _Begun | None, finish: Finish, offset: int) -> None:
        start = begun.start if begun else None
        number = self._number(finish)
        decisions = [*(start.decisions if start else ()), *finish.decisions]
        verdict, policy = _strictest(decisions)
        names, asked = self._names(start, finish, policy)
        status = finish.status or 0
        self._count(names, number)
        self._count(
            {"verdict": verdict, "outcome": _OUTCOME_INDEX[finish.outcome], "status": status, "class": status // 100},
            number,
        )
        cost = None if finish.cost_nanousd is None else finish.cost_nanousd / 1_000_000_000
        tokens = (finish.prompt_tokens, finish.completion_tokens, finish.cached_tokens, finish.reasoning_tokens)
        self._events[number] = (
            *(number, finish.id, *(names[kind] for kind in FACETS)),
            *(status, _OUTCOME_INDEX[finish.outcome], verdict, asked, start.at if start else None),
            *(finish.duration_us, finish.first_byte_us, finish.sent_us, *tokens, cost),
            *(finish.attempts, len(finish.notes)),
            *((begun.file, begun.offset) if begun else (None, None)),
            *(self._file.id, offset),
        )
        if start is not None and start.attributes:
            own = start.attributes.get("client_request_id")
            if own:
                self._client_ids.append((own, number))
        self._sums.add(
            finish.at // 60_000_000 * 60,
            (*(names[kind] for kind in DIMENSIONS if kind != "status"), status),
            (
                1,
                finish.outcome is Outcome.COMPLETED,
                finish.outcome is Outcome.REFUSED,
                finish.outcome in _FAILED,
                finish.outcome is Outcome.CANCELLED,
                *(VERDICTS[verdict] is one for one in (Verdict.BLOCK, Verdict.REDACT, Verdict.ESCALATE)),
                *tokens,
                cost or 0.0,
            ),
            ((ADDED, finish.sent_us), (FIRST_BYTE, finish.first_byte_us), (DURATION, finish.duration_us)),
            [(self._indexer.name(one.policy), _VERDICT_INDEX[one.verdict]) for one in decisions],
        )

    def _count(self, values: Mapping[str, int], number: int) -> None:
        facets = self._facets
        for facet in values.items():
            counted = facets.get(facet)
            if counted is None:
                facets[facet] = [1, number]
            else:
                counted[0] += 1
                counted[1] = number

    def _names(self, start: Start | None, finish: Finish, policy: str | None) -> tuple[dict[str, int], str | None]:
        """The numbers of an event's names, and the model that a client asked for where nobody else has named it."""
        name = self._indexer.name
        configuration = start.configuration if start else None
        target = finish.target
        provider = self._catalogue.providers.get((configuration, target)) if configuration and target else None
        model = start.model if start else None
        known = bool(model) and (target is not None or model in self._catalogue.models)
        names = {
            "key": name(start.key if start else None),
            "team": name(start.team if start else None),
            "model": name(model) if known else _UNKNOWN,
            "target": name(target),
            "provider": name(provider),
            "configuration": name(configuration),
            "operation": name(start.operation if start else None),
            "code": name(finish.code),
            "policy": name(policy),
        }
        return names, None if known else model

    def _number(self, finish: Finish) -> int:
        """An event's number: the same one each time the index is made, unless two events of one microsecond meet."""
        lowest = number_at(finish.at)
        tie = zlib.crc32(finish.id.encode())
        for step in range(1 << TIE_BITS):
            number = lowest | ((tie + step) % (1 << TIE_BITS))
            if number not in self._events and not self._is_taken(number):
                return number
        return lowest  # more than 1,024 in one microsecond: the first of them gives way

    def _is_taken(self, number: int) -> bool:
        return (
            self._indexer.connection.execute("SELECT 1 FROM events WHERE number = ?", (number,)).fetchone() is not None
        )

    def write(self, now: float) -> list[int]:
        """Put everything into the index; gives the numbers of the events."""
        connection = self._indexer.connection
        connection.executemany(_EVENT.replace("INSERT", "INSERT OR REPLACE", 1), self._events.values())
        connection.executemany("INSERT OR IGNORE INTO client_ids VALUES (?, ?)", self._client_ids)
        connection.executemany(_FACET, [(*facet, *counted) for facet, counted in self._facets.items()])
        connection.executemany("INSERT OR IGNORE INTO gaps VALUES (?, ?, ?, ?, ?)", self._gaps)
        connection.executemany("DELETE FROM begun WHERE file = ? AND offset = ?", self._ended)
        connection.executemany("INSERT INTO begun VALUES (?, ?, ?)", [(self._writer, *place) for place in self._began])
        self._sums.write(connection, now)
        return sorted(self._events)


def _strictest(decisions: Sequence[Decision]) -> tuple[int, str | None]:
    """The strictest verdict, and the policy that gave it first; no policy where all allowed."""
    verdict, policy = 0, None
    for decision in decisions:
        index = _VERDICT_INDEX[decision.verdict]
        if index > verdict:
            verdict, policy = index, decision.policy
    return verdict, policy


def read_record(path: Path, offset: int) -> Start | Finish | Gap | Header | Seal | None:
    """The record that begins there in a segment; None where there is none any more."""
    line = read_line(path, offset)
    try:
        return _decode(line).record if line else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def read_line(path: Path, offset: int) -> bytes:
    """The line that begins there in a segment; empty where there is none any more."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.readline()
    except OSError:
        return b""


def _take_lock(path: Path) -> int:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Locked(f"another process indexes the audit log into {path}") from None
    return descriptor
