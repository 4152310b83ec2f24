"""Reading the last segment of a writer that has ended, to know where its chain stopped.

It looks, and changes nothing: what is cut off, written or sealed afterwards is for `segments` and `recovery`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from gateway.audit.chain import Chain, Malformed, Unlinked, parse
from gateway.audit.layout import SEAL_PREFIX, Header, decode, decode_header
from gateway.audit.record import Gap, GapReason, InFlight

_EXCHANGE_PREFIXES = (b'{"kind":"start",', b'{"kind":"finish",')
_GAP_PREFIX = b'{"kind":"gap",'
_gap_decoder = msgspec.json.Decoder(Gap)


class SegmentDamaged(Exception):
    """A segment does not hold together; nothing may be added to it. `kt audit verify` says where."""


class Standing(NamedTuple):
    """What recovery finds at the end of a writer's segments: lines that the journal's mark does not know of yet."""

    records: int = 0
    """Records of exchanges from the mark on."""
    reported: int = 0
    """Dropped records that gaps from the mark on have named."""
    missing: int = 0
    """Lines before the mark that are not there: they had not reached the disk when the machine went down."""


class Scan(NamedTuple):
    """A segment, read through by recovery."""

    header: Header
    first: int
    """The number of the header's line."""
    chain: Chain
    in_flight: InFlight
    length: int
    """Bytes up to the end of the last whole line."""
    records: int
    sealed: bool
    standing: Standing


def scan(path: Path, mark: int | None) -> Scan:
    """Read the last segment of a writer that has ended, to know where its chain stopped and what was in flight.

    An unfinished last line is left out. Raises SegmentDamaged for anything else that does not follow.
    """
    try:
        with path.open("rb") as file:
            return _scan(file, mark)
    except (Malformed, Unlinked) as error:
        raise SegmentDamaged(f"{path.name}: {error}") from error


def _scan(file: BinaryIO, mark: int | None) -> Scan:
    head = parse(file.readline().rstrip(b"\n"))
    header = decode_header(head.record)
    chain, in_flight = Chain(head.sequence, bytes.fromhex(header.previous)), InFlight(header.in_flight)
    length, records, sealed = 0, -1, False
    past_mark: list[bytes] = []
    file.seek(0)
    for line in file:
        if not line.endswith(b"\n"):
            break
        if sealed:
            raise Malformed("a line after the seal")
        chain, record = chain.step(line[:-1])
        in_flight.note(record)
        length += len(line)
        if record.startswith(SEAL_PREFIX):
            sealed = True
        else:
            records += 1
        if mark is not None and chain.sequence > mark:
            past_mark.append(record)
    missing = max(0, (mark or 0) - chain.sequence)
    return Scan(header, head.sequence, chain, in_flight, length, records, sealed, _standing(past_mark, missing))


def _standing(past_mark: Iterable[bytes], missing: int) -> Standing:
    records = reported = 0
    for record in past_mark:
        if record.startswith(_EXCHANGE_PREFIXES):
            records += 1
        elif record.startswith(_GAP_PREFIX):
            gap = decode(_gap_decoder, record)
            reported += (gap.records or 0) if gap.reason is GapReason.JOURNAL_FULL else 0
    return Standing(records, reported, missing)
