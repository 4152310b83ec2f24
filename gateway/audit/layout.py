"""What lies in an audit folder: the names of segments, and every record around those of exchanges.

Segments are named `<UTC date>-<writer>-<number>.jsonl`; each begins with a `Header`, ends with a `Seal`. The manifest's
entries tell what happened to them. Only shapes here: no file is opened and nothing is hashed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated, NamedTuple, TypeVar

import msgspec

from gateway.audit.chain import Malformed

MANIFEST = "manifest.jsonl"
FORMAT_VERSION = 1
"""Version of the line format and of these records; it stands in the manifest and in every segment's header."""

SECONDS_PER_DAY = 86_400

T = TypeVar("T")
Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
"""A SHA-256 in hexadecimal."""

_NAME = re.compile(r"(\d{4}-\d\d-\d\d)-([0-9a-f]{16})-(\d{6,})\.jsonl")


class SegmentName(NamedTuple):
    """The parts of a segment's file name."""

    date: str
    writer: str
    number: int

    def __str__(self) -> str:
        return f"{self.date}-{self.writer}-{self.number:06d}.jsonl"

    @classmethod
    def parse(cls, name: str) -> SegmentName | None:
        """The parts, or None where the file is no segment."""
        match = _NAME.fullmatch(name)
        return cls(match[1], match[2], int(match[3])) if match else None


class Header(msgspec.Struct, frozen=True, tag="segment", tag_field="kind"):
    """A segment's first record. `journal` is where records that belong to it may still wait, `in_flight` the ids of
    the exchanges that earlier segments have begun."""

    version: int
    segment: str
    at: int
    previous: Digest
    journal: str
    in_flight: Sequence[str]


class Seal(msgspec.Struct, frozen=True, tag="seal", tag_field="kind"):
    """A segment's last record: how many records stand between header and seal. Its line's hash is the root."""

    at: int
    records: int


class Founded(msgspec.Struct, frozen=True, tag="manifest", tag_field="kind"):
    """The manifest's first line."""

    version: int
    at: int


class Opened(msgspec.Struct, frozen=True, tag="opened", tag_field="kind"):
    """A segment was begun; its first line has number `sequence` and follows the hash `previous`."""

    segment: str
    at: int
    sequence: int
    previous: Digest


class Sealed(msgspec.Struct, frozen=True, tag="sealed", tag_field="kind"):
    """A segment is complete. `root` is its last line's hash, `sequence` the number of that line."""

    segment: str
    at: int
    sequence: int
    root: Digest
    records: int


class Retired(msgspec.Struct, frozen=True, tag="retired", tag_field="kind"):
    """A sealed segment was deleted, being older than the retention."""

    segment: str
    at: int
    retention_days: int


Entry = Founded | Opened | Sealed | Retired

SEAL_PREFIX = b'{"kind":"seal",'

encode = msgspec.json.Encoder().encode
_header_decoder = msgspec.json.Decoder(Header)
_entry_decoder: msgspec.json.Decoder[Entry] = msgspec.json.Decoder(Entry)


def decode_header(record: bytes) -> Header:
    """A segment's first record. Raises Malformed where it is something else."""
    return decode(_header_decoder, record)


def decode_entry(record: bytes) -> Entry:
    """One entry of the manifest. Raises Malformed for anything else."""
    return decode(_entry_decoder, record)


def decode(decoder: msgspec.json.Decoder[T], record: bytes) -> T:
    """What a decoder makes of a record. Raises Malformed, whatever it is that the decoder does not like."""
    try:
        return decoder.decode(record)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed(str(error)) from None


class SegmentState(msgspec.Struct):
    """What the manifest says of one segment."""

    opened: Opened
    sealed: Sealed | None = None
    retired: Retired | None = None


def segments_of(entries: Iterable[Entry]) -> dict[str, SegmentState]:
    """The segments by name, in the order in which they were opened."""
    states: dict[str, SegmentState] = {}
    for entry in entries:
        match entry:
            case Opened():
                states[entry.segment] = SegmentState(entry)
            case Sealed() if entry.segment in states:
                states[entry.segment].sealed = entry
            case Retired() if entry.segment in states:
                states[entry.segment].retired = entry
            case _:
                pass
    return states


def microseconds(now: float) -> int:
    """A time in Unix seconds as records carry it."""
    return round(now * 1_000_000)


def date_of(now: float) -> str:
    """The UTC date of a time in Unix seconds, as segments are named."""
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d")
