"""Bodies that were compressed: from the bytes on the wire to those that everything else reads.

One coding of `gzip`, `deflate`, `br` and `zstd` is undone (RFC 9110, section 8.4.1; RFC 7932; RFC 8878), piece by
piece, so that who asks for the pieces can stop: a small body which unfolds to gigabytes then costs no more than a large
one. It knows of no request and no event loop: who decodes a whole request body (`decoded`) does so in a thread.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Final, Protocol

import brotli
import zstandard

from gateway.errors import InvalidRequest, RequestTooLarge, UnsupportedEncoding

MAX_WINDOW: Final = 8 * 1024 * 1024
"""The largest window of the content coding `zstd` (RFC 9659, section 3), which bounds the decoder's own memory."""

_STEP: Final = 256 * 1024
"""Bytes that zlib and brotli unfold at a time."""
_ZSTD_INPUT: Final = 256
"""Bytes that zstandard is given at a time: its decoder has no bound on what one call returns, and three bytes can stand
for a block of 128 KB."""
_GZIP: Final = 16 + zlib.MAX_WBITS
_ZLIB: Final = zlib.MAX_WBITS


class Unfolding(Protocol):
    """One coding on its way to being undone, whatever the pieces in which it comes."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What some more of it unfolds to, piece by piece. Raises what `FAULTS` names."""
        ...

    @property
    def complete(self) -> bool:
        """What has come so far is whole."""
        ...


class _Zlib:
    """`deflate` is the zlib format (RFC 9110, section 8.4.1.2), not the bare stream that some take it for. `gzip` may
    be several members, one after the other (RFC 1952, section 2.2)."""

    __slots__ = ("_members", "_stream", "_window")

    def __init__(self, window: int, *, members: bool) -> None:
        self._window = window
        self._members = members
        self._stream = zlib.decompressobj(window)

    @property
    def complete(self) -> bool:
        return self._stream.eof

    def feed(self, data: bytes) -> Iterator[bytes]:
        full = False
        while data or full:
            if self._stream.eof:
                if not self._members:
                    raise EOFError
                self._stream = zlib.decompressobj(self._window)
            piece = self._stream.decompress(data, _STEP)
            data = self._stream.unconsumed_tail or self._stream.unused_data
            full = len(piece) == _STEP and not self._stream.eof  # there may be more without any more input
            yield piece


class _Zstd:
    """One frame or several, one after the other (RFC 8878, section 3)."""

    __slots__ = ("_decompressor", "_frame")

    def __init__(self) -> None:
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
        self._frame = self._decompressor.decompressobj()

    @property
    def complete(self) -> bool:
        return self._frame.eof

    def feed(self, data: bytes) -> Iterator[bytes]:
        at = 0
        while at < len(data):
            if self._frame.eof:
                self._frame = self._decompressor.decompressobj()
            given = data[at : at + _ZSTD_INPUT]
            yield self._frame.decompress(given)
            at += len(given) - len(self._frame.unused_data)


class _Brotli:
    """One stream (RFC 7932); its window, and so the decoder's own memory, is 16 MB at most (section 9.1)."""

    __slots__ = ("_stream",)

    def __init__(self) -> None:
        self._stream = brotli.Decompressor()

    @property
    def complete(self) -> bool:
        return bool(self._stream.is_finished())

    def feed(self, data: bytes) -> Iterator[bytes]:
        piece = data and self._stream.process(data, output_buffer_limit=_STEP)
        while piece:
            yield piece
            piece = self._stream.process(b"", output_buffer_limit=_STEP)


_CODINGS: Final[dict[bytes, Callable[[], Unfolding]]] = {
    b"gzip": lambda: _Zlib(_GZIP, members=True),
    b"x-gzip": lambda: _Zlib(_GZIP, members=True),
    b"deflate": lambda: _Zlib(_ZLIB, members=False),
    b"br": _Brotli,
    b"zstd": _Zstd,
}
SUPPORTED: Final = ("gzip", "deflate", "br", "zstd")
"""What a client may send. `x-gzip` is an old name of `gzip` (RFC 9110, section 8.4.1.3)."""
FAULTS: Final = (zlib.error, brotli.error, zstandard.ZstdError, EOFError)
"""What data that is damaged, or followed by more, comes to."""


def undo(coding: bytes) -> Unfolding | None:
    """What undoes a coding, by its name in lower case; None for any that is not undone here."""
    make = _CODINGS.get(coding)
    return None if make is None else make()


def unfolding(field: bytes | None) -> Unfolding | None:
    """What undoes the coding that a request's Content-Encoding names; None where the body is as it is.

    Raises UnsupportedEncoding for any that is not undone here; several at once are one such.
    """
    if field is None:
        return None
    name = field.strip().lower()
    if name in (b"", b"identity"):
        return None
    found = undo(name)
    if found is None:
        raise UnsupportedEncoding(
            f"The Content-Encoding {name.decode('latin-1')[:100]!r} is not supported; send one of"
            f" {', '.join(SUPPORTED)}, or the body as it is.",
            headers=((b"accept-encoding", ", ".join(SUPPORTED).encode()),),
        )
    return found


def decoded(body: bytes, coding: Unfolding, limit: int) -> bytes:
    """A request body without its coding, at most `limit` bytes.

    Raises RequestTooLarge where more than `limit` bytes would come out, and InvalidRequest for data that is damaged,
    cut or followed by more.
    """
    pieces = []
    size = 0
    try:
        for piece in coding.feed(body):
            size += len(piece)
            if size > limit:
                raise RequestTooLarge(f"The request body has more than {limit} bytes when it is decompressed.")
            pieces.append(piece)
        whole = coding.complete
    except FAULTS:
        whole = False
    if not whole:
        raise InvalidRequest(
            "The request body is not what its Content-Encoding says: it is damaged, or its end is missing."
        )
    return b"".join(pieces)
