"""The hash chain: how one line of the audit log holds on to all lines before it.

A line is `{"seq":n,"hash":"<hex>","record":{...}}`. Its hash is SHA-256 over the hash of the line before it (32 bytes),
`n` (eight bytes, big-endian) and the record's bytes as they stand in the line. The first line of a chain follows
`GENESIS`. Records are opaque here: bytes that hold one JSON object and no line feed. No file and no clock either.
"""

from __future__ import annotations

import re
from binascii import hexlify
from collections.abc import Iterable
from hashlib import sha256
from typing import NamedTuple

GENESIS = bytes(32)
"""What the first line of a chain follows."""

_LINE = re.compile(rb'\{"seq":(0|[1-9][0-9]{0,18}),"hash":"([0-9a-f]{64})","record":(\{.*\})\}')


class Link(NamedTuple):
    """One line of the log, taken apart: its number, its hash and its record."""

    sequence: int
    hash: bytes
    record: bytes


class Malformed(ValueError):
    """A line that this format does not know."""


class Unlinked(ValueError):
    """A line that does not follow the one before it."""

    def __init__(self, link: Link) -> None:
        super().__init__(f"line number {link.sequence} does not follow")
        self.link = link


class Chain(NamedTuple):
    """The end of a chain: the number that the next line gets, and the hash that it follows. A value, never changed."""

    sequence: int = 0
    hash: bytes = GENESIS

    def extend(self, records: Iterable[bytes]) -> tuple[Chain, bytes]:
        """The chain after these records, and the lines to write. Until they are written, keep the old value."""
        # 1.1 µs a record of 380 bytes: 0.55 SHA-256 (asked for one digest; a second one costs 0.35), 0.25 the line.
        sequence, previous = self
        lines: list[bytes] = []
        for record in records:
            previous = _digest(previous, sequence, record)
            lines.append(b'{"seq":%d,"hash":"%b","record":%b}\n' % (sequence, hexlify(previous), record))
            sequence += 1
        return Chain(sequence, previous), b"".join(lines)

    def step(self, line: bytes) -> tuple[Chain, bytes]:
        """The chain after one line (without its line feed), and the line's record. Raises Malformed or Unlinked."""
        link = parse(line)
        if link.sequence != self.sequence or link.hash != _digest(self.hash, self.sequence, link.record):
            raise Unlinked(link)
        return Chain(link.sequence + 1, link.hash), link.record


def _digest(previous: bytes, sequence: int, record: bytes) -> bytes:
    return sha256(previous + sequence.to_bytes(8, "big") + record).digest()


def parse(line: bytes) -> Link:
    """Take one line, without its line feed, apart. Raises Malformed."""
    match = _LINE.fullmatch(line)
    if match is None:
        raise Malformed("not a line of an audit log")
    return Link(int(match[1]), bytes.fromhex(match[2].decode("ascii")), match[3])
