"""HTTP/1.1 framing without I/O: where a message ends, and what may not stand in it.

Both sides of the gateway use it. It promises to refuse what RFC 9112 leaves in doubt, and to never copy a body: a
chunked body is *walked*, so that the bytes that were read can be the bytes that are written. It knows nothing of
sockets, exchanges or providers.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from typing import Final

HOP_BY_HOP: Final = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
"""Fields that concern one connection only (RFC 9110, section 7.6.1) and are never forwarded."""

MORE: Final = -1
"""`ChunkWalker.feed`: the message goes on after this data."""

MAX_OVERHEAD: Final = 8192
"""Bytes of chunk extensions, and of trailers, that one message may carry."""

_SIZE_LINE = re.compile(rb"([0-9a-fA-F]{1,15})((?:;[\t\x20-\x7e\x80-\xff]*)?)")
_SPACED_SIZE_LINE = re.compile(rb"([0-9a-fA-F]{1,15})((?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?)")
_TRAILER_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[\t\x20-\x7e\x80-\xff]*")
_DIGITS = re.compile(rb"[0-9]{1,18}")
_FORBIDDEN_TRAILERS = HOP_BY_HOP | {
    b"api-key", b"authorization", b"content-encoding", b"content-length", b"content-type", b"cookie", b"host",
    b"set-cookie", b"x-api-key",
}  # fmt: skip

# Providers send events of a few hundred sizes, so a size line is nearly always one that was parsed before: a look-up
# costs 0.04 µs, matching and converting it 0.35. Bounded by the length of the line (five bytes at most).
KNOWN_SIZES: dict[bytes, int] = {}


class FramingError(ValueError):
    """The bytes are not a well-formed HTTP/1.1 message."""


def content_length(value: bytes) -> int:
    """The value of a Content-Length field (RFC 9112, section 6.2). Only digits: no sign, list, space or underscore."""
    if _DIGITS.fullmatch(value) is None:
        raise FramingError("Content-Length is not a number")
    return int(value)


def connection_options(value: bytes) -> frozenset[bytes]:
    """The options of a Connection field (RFC 9110, section 7.6.1), in lower case."""
    return frozenset(option.strip(b" \t") for option in value.lower().split(b","))


class _At(enum.Enum):
    """What the walker expects next."""

    SIZE = "chunk size"
    DATA = "chunk data"
    DATA_END = "end of chunk data"
    TRAILER = "trailer"
    DONE = "nothing"


class ChunkWalker:
    """Walks a chunked body (RFC 9112, section 7.1) to find its end, its payload and its faults.

    After `feed`, `one` says whether the data was exactly one whole chunk; its payload is `data[start:stop]`.
    Otherwise `spans` lists the payload's places. Splits at any byte are fine.
    """

    __slots__ = (
        "_at", "_line", "_max_overhead", "_overhead", "_remaining", "_size_line", "one", "spans", "start", "stop",
    )  # fmt: skip

    def __init__(self, max_overhead: int = MAX_OVERHEAD, *, spaced: bool = False) -> None:
        """`spaced`: white space before an extension is taken (RFC 9112, section 7.1.1). Not where the bytes are passed
        on: no sender may produce it, and not every recipient bears it."""
        self._at = _At.SIZE
        self._max_overhead = max_overhead
        self._size_line = _SPACED_SIZE_LINE if spaced else _SIZE_LINE
        self._line = b""
        self._overhead = 0
        self._remaining = 0
        self.one = False
        self.start = 0
        self.stop = 0
        self.spans: list[tuple[int, int]] = []

    def __repr__(self) -> str:
        return f"<ChunkWalker expects {self._at.value}>"

    @property
    def done(self) -> bool:
        """The last chunk and its trailers have been seen."""
        return self._at is _At.DONE

    @property
    def aligned(self) -> bool:
        """What has been fed ends between two chunks, so that new framing may begin here."""
        return (self._at is _At.SIZE and not self._line) or self._at is _At.DONE

    def feed(self, data: bytes) -> int:
        """Walk over `data`; return MORE, or the offset just past the end of the message.

        Raises FramingError. The ordinary case, one read that is one chunk, costs 0.3 µs; the general one about 1.
        """
        if self._at is _At.SIZE and not self._line:
            end = data.find(b"\r\n", 0, 8)
            size = KNOWN_SIZES.get(data[:end])
            if size and end + size + 4 == len(data) and data.endswith(b"\r\n"):
                self.one = True
                self.start = end + 2
                self.stop = end + 2 + size
                return MORE
        return self._walk(data)

    def payload(self, data: bytes) -> bytes:
        """The payload that `data`, the last that was fed, carries."""
        if self.one:
            return data[self.start : self.stop]
        if len(self.spans) == 1:
            start, stop = self.spans[0]
            return data[start:stop]
        return b"".join([data[start:stop] for start, stop in self.spans])

    def _walk(self, data: bytes) -> int:
        self.one = False
        spans = self.spans = []
        position, length = 0, len(data)
        while position < length:
            if self._at is _At.DATA:
                stop = min(position + self._remaining, length)
                spans.append((position, stop))
                self._remaining -= stop - position
                position = stop
                if not self._remaining:
                    self._at = _At.DATA_END
            elif self._at is _At.DONE:
                raise FramingError("data after the end of the message")
            else:
                position = self._take_line(data, position)
                if self.done:
                    return position
        return MORE

    def _take_line(self, data: bytes, position: int) -> int:
        """Collect one line, which may have been split, and act on it. Returns where the next piece begins."""
        limit = 2 if self._at is _At.DATA_END else self._max_overhead
        newline = data.find(b"\n", position)
        if newline < 0:
            self._line += data[position:]
            if len(self._line) > limit or (limit == 2 and self._line != b"\r"):
                raise FramingError(f"malformed or too long: {self._at.value}")
            return len(data)
        line = self._line + data[position : newline + 1]
        self._line = b""
        if len(line) > limit or not line.endswith(b"\r\n"):
            raise FramingError(f"malformed or too long: {self._at.value}")
        if self._at is _At.SIZE:
            self._take_size(line[:-2])
        elif self._at is _At.DATA_END:
            self._at = _At.SIZE
        elif line == b"\r\n":
            self._at = _At.DONE
        else:
            self._take_trailer(line[:-2])
        return newline + 1

    def _take_size(self, line: bytes) -> None:
        match = self._size_line.fullmatch(line)
        if match is None:
            raise FramingError("malformed chunk size")
        size = int(match[1], 16)
        if match[2]:
            self._count_overhead(len(match[2]))
        elif len(line) <= 5:
            KNOWN_SIZES[line] = size
        self._remaining = size
        self._at = _At.DATA if size else _At.TRAILER

    def _take_trailer(self, line: bytes) -> None:
        match = _TRAILER_LINE.fullmatch(line)
        if match is None or match[1].lower() in _FORBIDDEN_TRAILERS:
            raise FramingError("malformed or forbidden trailer field")
        self._count_overhead(len(line) + 2)

    def _count_overhead(self, count: int) -> None:
        self._overhead += count
        if self._overhead > self._max_overhead:
            raise FramingError("too many chunk extensions or trailers")


def chunk(payload: bytes) -> bytes:
    """One chunk that carries `payload`, which must not be empty (an empty chunk ends the message)."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


LAST_CHUNK: Final = b"0\r\n\r\n"


def header_lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Fields as they stand in a head, each with its line end."""
    return b"".join([b"%b: %b\r\n" % field for field in headers])
