"""Request bodies that clients compressed: from the bytes on the wire to the JSON that everything else reads.

One coding of `gzip`, `deflate` and `zstd` is undone (RFC 9110, section 8.4.1; RFC 8878). What comes out is bounded, so
that a small body which unfolds to gigabytes costs no more than a large one: the work stops at the bound. It knows of no
request and no event loop: who calls it does so in a thread.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Generator, Iterator
from typing import Final

import zstandard

from gateway.errors import InvalidRequest, RequestTooLarge, UnsupportedEncoding

MAX_WINDOW: Final = 8 * 1024 * 1024
"""The largest window of the content coding `zstd` (RFC 9659, section 3), which bounds the decoder's own memory."""

_STEP: Final = 256 * 1024
"""Bytes that zlib unfolds at a time."""
_ZSTD_INPUT: Final = 256
"""Bytes that zstandard is given at a time: its decoder has no bound on what one call returns, and three bytes can stand
for a block of 128 KB."""
_GZIP: Final = 16 + zlib.MAX_WBITS
_ZLIB: Final = zlib.MAX_WBITS


Unfold = Callable[[bytes], Iterator[bytes]]
"""Undoes one coding, piece by piece."""


def unfolding(field: bytes | None) -> Unfold | None:
    """What undoes the coding that a Content-Encoding field names; None where the body is as it is.

    Raises UnsupportedEncoding for any that is not undone here; several at once are one such.
    """
    if field is None:
        return None
    name = field.strip().lower()
    if name in (b"", b"identity"):
        return None
    if name not in _CODINGS:
        raise UnsupportedEncoding(
            f"The Content-Encoding {name.decode('latin-1')[:100]!r} is not supported; send one of"
            f" {', '.join(SUPPORTED)}, or the body as it is.",
            headers=((b"accept-encoding", ", ".join(SUPPORTED).encode()),),
        )
    return _CODINGS[name]


def decoded(body: bytes, unfold: Unfold, limit: int) -> bytes:
    """The body without its coding, at most `limit` bytes.

    Raises RequestTooLarge where more than `limit` bytes would come out, and InvalidRequest for data that is damaged,
    cut or followed by more.
    """
    pieces = []
    size = 0
    try:
        for piece in unfold(body):
            size += len(piece)
            if size > limit:
                raise RequestTooLarge(f"The request body has more than {limit} bytes when it is decompressed.")
            pieces.append(piece)
    except (zlib.error, zstandard.ZstdError, EOFError):
        raise InvalidRequest(
            "The request body is not what its Content-Encoding says: it is damaged, or its end is missing."
        ) from None
    return b"".join(pieces)


def _gzip(body: bytes) -> Iterator[bytes]:
    """One member or several, one after the other (RFC 1952, section 2.2)."""
    while True:
        rest = yield from _inflated(body, _GZIP)
        if not rest:
            return
        body = rest


def _deflate(body: bytes) -> Iterator[bytes]:
    """`deflate` is the zlib format (RFC 9110, section 8.4.1.2), not the bare stream that some take it for."""
    if (yield from _inflated(body, _ZLIB)):
        raise EOFError


def _inflated(body: bytes, window: int) -> Generator[bytes, None, bytes]:
    """What one zlib stream unfolds to, and returned what follows it. Raises EOFError where its end is missing."""
    inflater = zlib.decompressobj(window)
    while not inflater.eof:
        piece = inflater.decompress(body, _STEP)
        body = inflater.unconsumed_tail
        if not piece and not body and not inflater.eof:
            raise EOFError
        yield piece
    return inflater.unused_data


def _zstd(body: bytes) -> Iterator[bytes]:
    """One frame or several, one after the other (RFC 8878, section 3)."""
    decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
    frame = decompressor.decompressobj()
    at = 0
    while at < len(body):
        if frame.eof:
            frame = decompressor.decompressobj()
        given = body[at : at + _ZSTD_INPUT]
        yield frame.decompress(given)
        at += len(given) - len(frame.unused_data)
    if not frame.eof:
        raise EOFError


_CODINGS: Final[dict[bytes, Unfold]] = {
    b"gzip": _gzip,
    b"x-gzip": _gzip,
    b"deflate": _deflate,
    b"zstd": _zstd,
}
SUPPORTED: Final = ("gzip", "deflate", "zstd")
"""What a client may send. `x-gzip` is an old name of `gzip` (RFC 9110, section 8.4.1.3)."""
