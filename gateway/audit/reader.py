"""Reading the log back as exchanges: a start and its finish as one row; a change that somebody made is one, too.

It takes lines as they are and checks no hash; that is `verify`'s work. A line that is none is counted and passed over.
Rows are plain mappings of JSON values, times in ISO 8601 (UTC), so that commands only choose how to print them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
from msgspec import UNSET

from gateway.audit.chain import Malformed, parse
from gateway.audit.layout import Header, Seal, SegmentName, decode, microseconds
from gateway.audit.record import Change, Finish, Gap, Shadow, Start
from gateway.audit.segments import names_in

Row = Mapping[str, object]
Match = Callable[[Row], bool]

COLUMNS: Final = (
    "kind",
    "id",
    "started_at",
    "finished_at",
    "key",
    "team",
    "configuration",
    "policy_version",
    "operation",
    "model",
    "client",
    "outcome",
    "status",
    "code",
    "target",
    "attempts",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "bytes_sent",
    "duration_us",
    "first_byte_us",
    "sent_us",
    "stages_us",
    "cost_nanousd",
    "decisions",
    "notes",
    "attributes",
    "reason",
    "records",
    "actor",
    "actor_id",
    "via",
    "request_id",
    "action",
    "object_id",
    "object_name",
    "before",
    "after",
    "live",
    "verdicts",
)
"""Every field that a row may have. `kind` is `exchange`, `gap`, `change` or `shadow`. `reason` and `records` belong to
gaps, what follows them to changes, the last two to shadows."""

_OF_THE_RECORD = frozenset(("kind", "id", "at", "decisions"))
"""Fields that both records have, and that a row has in another form."""

_decoder: msgspec.json.Decoder[Start | Finish | Gap | Change | Shadow | Header | Seal] = msgspec.json.Decoder(
    Start | Finish | Gap | Change | Shadow | Header | Seal
)


class Joiner:
    """Puts one writer's records together. A finish without its start, or a start without its finish, is a row too."""

    def __init__(self) -> None:
        self._open: dict[str, list[Start]] = {}
        self.unreadable = 0

    def feed(self, line: bytes) -> Row | None:
        """Take one line without its line feed; returns the row that it completes."""
        try:
            record = decode(_decoder, parse(line).record)
        except Malformed:
            self.unreadable += 1
            return None
        match record:
            case Start():
                self._open.setdefault(record.id, []).append(record)
                return None
            case Finish():
                return _exchange(self._take(record.id), record)
            case Gap():
                return {
                    "kind": "gap",
                    "started_at": iso(record.at),
                    "finished_at": iso(record.at),
                    "reason": record.reason,
                    "records": record.records,
                }
            case Change() | Shadow():
                fields = msgspec.to_builtins(record)
                del fields["at"]
                return {**fields, "started_at": iso(record.at), "finished_at": iso(record.at)}
            case _:
                return None

    def _take(self, id: str) -> Start | None:
        starts = self._open.get(id)
        if not starts:
            return None
        start = starts.pop(0)
        if not starts:
            del self._open[id]
        return start

    def unfinished(self) -> Iterator[Row]:
        """The exchanges that have begun and not ended, as rows without an outcome."""
        for starts in self._open.values():
            for start in starts:
                yield _exchange(start, None)

    def __len__(self) -> int:
        return len(self._open)


def _exchange(start: Start | None, finish: Finish | None) -> Row:
    row: dict[str, object] = {"kind": "exchange", "id": (finish or start).id}  # type: ignore[union-attr]
    row["started_at"] = iso(start.at) if start else None
    row["finished_at"] = iso(finish.at) if finish else None
    for record in (start, finish):
        if record is not None:
            fields = msgspec.to_builtins(record)
            row.update({name: value for name, value in fields.items() if name not in _OF_THE_RECORD})
    row["decisions"] = [msgspec.to_builtins(d) for record in (start, finish) if record for d in record.decisions]
    if start is None or start.attributes is UNSET:
        row["attributes"] = {}
    return row


def iso(at: int) -> str:
    """Unix microseconds as ISO 8601 in UTC, to the millisecond. Such texts sort as their times do."""
    text = datetime.fromtimestamp(at / 1_000_000, UTC).isoformat(timespec="milliseconds")
    return text.removesuffix("+00:00") + "Z"


def time_of(row: Row) -> str:
    """When a row was written, or begun where it has no end yet."""
    return str(row["finished_at"] or row["started_at"])


class Reading:
    """A pass over a folder. `unreadable` counts lines that are none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.unreadable = 0

    def between(self, since: datetime | None, until: datetime | None) -> Iterator[Row]:
        """The exchanges that began in [since, until), and the gaps in it, writer by writer in the order of writing.

        The times are aware of their zone. Memory is bounded by the exchanges that were open at one time.
        """
        low = iso(microseconds(since.timestamp())) if since else ""
        high = iso(microseconds(until.timestamp())) if until else "~"
        joiners: dict[str, Joiner] = {}
        for name in sorted(names_in(self.folder), key=lambda name: (name.date, name.writer, name.number)):
            joiner = joiners.setdefault(name.writer, Joiner())
            # A record may be written shortly after the midnight that it was made before.
            if name.date < low[:10] and not _is_eve(name.date, low):
                continue
            if name.date > high[:10] and not len(joiner):
                continue
            for row in self._rows(name, joiner):
                if low <= str(row["started_at"] or row["finished_at"]) < high:
                    yield row
        for joiner in joiners.values():
            self.unreadable += joiner.unreadable
            yield from (row for row in joiner.unfinished() if low <= str(row["started_at"]) < high)

    def _rows(self, name: SegmentName, joiner: Joiner) -> Iterator[Row]:
        with (self.folder / str(name)).open("rb") as file:
            for line in file:
                if line.endswith(b"\n") and (row := joiner.feed(line[:-1])) is not None:
                    yield row

    def latest(self, count: int, match: Match) -> list[Row]:
        """The last `count` rows that match, oldest first, over all writers."""
        rows: list[Row] = []
        for written, name in self._newest_first():
            if len(rows) >= count and time_of(rows[0]) > iso(microseconds(written)):
                break
            joiner = Joiner()
            found = [*self._rows(name, joiner), *joiner.unfinished()]
            self.unreadable += joiner.unreadable
            rows = sorted([*rows, *filter(match, found)], key=time_of)[-count:]
        return rows

    def _newest_first(self) -> list[tuple[float, SegmentName]]:
        return sorted(
            (((self.folder / str(name)).stat().st_mtime, name) for name in names_in(self.folder)), reverse=True
        )


def _is_eve(date: str, low: str) -> bool:
    return (datetime.fromisoformat(low[:10]) - datetime.fromisoformat(date)).days <= 1


class Follower:
    """The rows that come in while one watches. `poll` returns those that have come since the last call."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._offsets: dict[SegmentName, int] = {}
        self._joiners: dict[str, Joiner] = {}

    def poll(self) -> list[Row]:
        """The new rows, in order of time. The first call reads what the newest segment of each writer holds."""
        first = not self._offsets
        rows: list[Row] = []
        for name in _last_of_each(names_in(self.folder)) if first else sorted(names_in(self.folder), key=_in_order):
            if first or name in self._offsets or self._is_new(name):
                rows.extend(self._read_on(name))
        return sorted(rows, key=time_of)

    def _is_new(self, name: SegmentName) -> bool:
        known = [other.number for other in self._offsets if other.writer == name.writer]
        return not known or name.number > max(known)

    def _read_on(self, name: SegmentName) -> Iterator[Row]:
        joiner = self._joiners.setdefault(name.writer, Joiner())
        try:
            file = (self.folder / str(name)).open("rb")
        except FileNotFoundError:
            return
        with file:
            file.seek(self._offsets.setdefault(name, 0))
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._offsets[name] += len(line)
                if (row := joiner.feed(line[:-1])) is not None:
                    yield row


def _in_order(name: SegmentName) -> tuple[str, int]:
    return name.writer, name.number


def _last_of_each(names: list[SegmentName]) -> list[SegmentName]:
    return list({name.writer: name for name in sorted(names, key=_in_order)}.values())
