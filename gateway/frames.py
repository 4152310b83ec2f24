"""WebSocket framing (RFC 6455, section 5) without I/O: bytes to messages and back, for both sides.

`Reader` promises that what it gives out is whole, within its bound and, where it is text, valid UTF-8; that the bound
is seen from a frame's header, before any of its payload is kept; and that a message which came in one frame keeps that
frame as the bytes that were read, so that it can be forwarded without being made anew. It refuses whatever the RFC
leaves no room for, with the close code that the RFC gives. It knows nothing of sockets, pings that are due or policies.

A text of 200 bytes costs 2 µs to read from a client, most of it for taking the mask off; wsproto takes 12, and inflates
without a bound. It does the handshakes, and is the second opinion in the tests.
"""

from __future__ import annotations

import os
from typing import Final

from gateway import deflate

CONTINUATION: Final = 0
TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10

MAX_CONTROL: Final = 125
"""Bytes of a control frame's payload (section 5.5)."""
MAX_REASON: Final = MAX_CONTROL - 2
FREE_FRAGMENTS: Final = 1024
"""Fragments that a message may have however small it is; further ones need 16 bytes each. Without a bound, a message
of empty fragments never ends and costs 1 µs for every 6 bytes."""
FRAGMENT_BYTES: Final = 16
_WHOLE_TEXT: Final = 0x80 | TEXT
_WHOLE_BINARY: Final = 0x80 | BINARY
_NO_KEY: Final = b"\0\0\0\0"
_SMALL: Final = 500
"""Bytes up to which one big integer is the quicker way to mask: 200 cost 1.8 µs, by the tables 2.5; 8,000 cost 32 and
18. numpy takes 4 for those, but a worker that needs it for nothing else would load it (0.1 s, 20 MB)."""
_IDENTITY: Final = int.from_bytes(bytes(range(256)), "big")
_TABLES: Final = [(_IDENTITY ^ int.from_bytes(bytes((byte,)) * 256, "big")).to_bytes(256, "big") for byte in range(256)]
"""For each byte of a key, what it makes of each byte."""
_OPCODES: Final = frozenset((CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG))
# Codes that may stand in a close frame: RFC 6455, section 7.4, and the IANA registry (1012 to 1014).
_SENDABLE: Final = frozenset((1000, 1001, 1002, 1003, *range(1007, 1015)))


class FrameError(Exception):
    """The peer broke the protocol or a bound. `code` is the close code, `reason` says which rule, in a few words."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason


class Message:
    """One whole message; see `socket_ports.Message`.

    `raw` is the frame that it came in, as it was read; None where it came in several. `masked` and `deflated` say what
    `raw` is like.
    """

    __slots__ = ("_data", "_key", "_text", "deflated", "is_text", "masked", "raw", "size")

    def __init__(
        self,
        is_text: bool,
        data: bytes,
        text: str | None,
        raw: bytes | None,
        masked: bool,
        deflated: bool = False,
        key: bytes = _NO_KEY,
    ) -> None:
        """`data` is still to be unmasked with `key`, unless that is all zeros."""
        self.is_text = is_text
        self.size = len(data)
        self.raw = raw
        self.masked = masked
        self.deflated = deflated
        self._data = data
        self._text = text
        self._key = key

    def __repr__(self) -> str:
        return f"<Message {'text' if self.is_text else 'binary'}, {self.size} bytes>"

    @property
    def data(self) -> bytes:
        """The payload."""
        if self._key is not _NO_KEY:
            self._data = mask(self._data, self._key)
            self._key = _NO_KEY
        return self._data

    @property
    def text(self) -> str:
        """The payload as text."""
        if self._text is None:
            self._text = self.data.decode()
        return self._text


class Control:
    """A control frame: `opcode` is CLOSE, PING or PONG."""

    __slots__ = ("opcode", "payload")

    def __init__(self, opcode: int, payload: bytes) -> None:
        self.opcode = opcode
        self.payload = payload


class Reader:
    """Reads what one peer sends: `feed` it, then ask `next` until it says None."""

    __slots__ = (
        "_at", "_buffer", "_compressed", "_count", "_inflates", "_joined", "_masked", "_max_size", "_need", "_opcode",
        "_partial",
    )  # fmt: skip

    def __init__(self, *, masked: bool, max_size: int, inflates: bool = False) -> None:
        """`masked`: the peer is a client. `max_size` bounds a message, in bytes, inflated. `inflates`:
        permessage-deflate was agreed on."""
        self._masked = masked
        self._max_size = max_size
        self._inflates = inflates
        self._buffer = b""
        self._at = 0
        # A frame that comes in many reads: collected here until `_need` bytes are there. Not as a list of the reads: of
        # one byte each they would take forty times the memory that is counted.
        self._partial = bytearray()
        self._need = 0
        # A message that comes in many frames; `_opcode` is CONTINUATION while there is none.
        self._opcode = CONTINUATION
        self._compressed = False
        self._joined = bytearray()
        self._count = 0

    def __repr__(self) -> str:
        inside = f", inside a message of {self._count} fragments" if self._opcode else ""
        return f"<Reader {self.held} bytes held{inside}>"

    @property
    def held(self) -> int:
        """Bytes that are kept because their frame or message is not whole."""
        return len(self._buffer) - self._at + len(self._partial) + len(self._joined)

    def drop(self) -> None:
        """Forget what is held: the reader is of no more use."""
        self._buffer = b""
        self._at = 0
        self._partial = bytearray()
        self._joined = bytearray()

    def feed(self, data: bytes) -> None:
        """Take what was read."""
        if self._partial:
            self._partial += data
            if len(self._partial) >= self._need:
                self._buffer = bytes(self._partial)
                self._at = 0
                self._partial = bytearray()
        elif self._at == len(self._buffer):
            self._buffer = data
            self._at = 0
        else:
            self._buffer = self._buffer[self._at :] + data
            self._at = 0

    def take(self, data: bytes) -> Message | None:
        """The ordinary read: nothing was held, and it is one whole message, in one frame, not compressed. None: it is
        something else, to be fed. Raises FrameError. 40 % less than `feed` and `next`."""
        size = len(data)
        if self._buffer or self._partial or self._opcode or size < 6:
            return None
        first, second = data[0], data[1]
        masked = self._masked
        if (first != _WHOLE_TEXT and first != _WHOLE_BINARY) or (second >= 128) is not masked:
            return None
        length, start = second & 0x7F, 2
        if length == 126:
            length, start = data[2] << 8 | data[3], 4
            if length < 126:
                return None
        elif length == 127:
            return None
        if masked:
            key = data[start : start + 4]
            start += 4
        else:
            key = _NO_KEY
        if start + length != size or length > self._max_size:
            return None
        if first == _WHOLE_BINARY:
            return Message(False, data[start:], None, data, masked, False, key)
        payload = mask(data[start:], key)
        try:
            return Message(True, payload, payload.decode(), data, masked)
        except UnicodeDecodeError:
            raise _not_utf8() from None

    def next(self) -> Message | Control | None:
        """The next message or control frame, or None: more must be read. Raises FrameError; after that the reader is of
        no more use."""
        while not self._partial:
            data, at = self._buffer, self._at
            rest = len(data) - at
            if rest < 2:
                self._wait(2)
                break
            first, second = data[at], data[at + 1]
            length = second & 0x7F
            start = at + 2
            if length >= 126:
                start += 2 if length == 126 else 8
                if rest < start - at:
                    self._check(first, second, 0)
                    self._wait(start - at)
                    break
                length = _long_length(data, at + 2, start)
            self._check(first, second, length)
            key = _NO_KEY
            if second & 0x80:
                key = data[start : start + 4]
                start += 4
            end = start + length
            if end > len(data):
                self._wait(end - at)
                break
            self._at = end
            payload = data[start:end]
            opcode = first & 0x0F
            if opcode >= CLOSE:
                return Control(opcode, mask(payload, key))
            if first & 0x80 and opcode:
                raw = data if end - at == len(data) else data[at:end]
                return self._whole(opcode, payload, key, raw, deflated=bool(first & 0x40))
            message = self._take_fragment(first, opcode, mask(payload, key))
            if message is not None:
                return message
        return None

    def _wait(self, need: int) -> None:
        """A frame is not whole: `need` bytes of it must be there before it is worth looking again."""
        rest = self._buffer[self._at :]
        self._buffer = b""
        self._at = 0
        self._partial += rest
        self._need = need

    def _check(self, first: int, second: int, length: int) -> None:
        """Refuse what a header can show to be wrong; `length` 0 where it is not known yet."""
        opcode = first & 0x0F
        if first == 0x81 and length <= self._max_size and bool(second & 0x80) is self._masked and not self._opcode:
            return  # the ordinary frame: a whole text
        if bool(second & 0x80) is not self._masked:
            raise FrameError(1002, "a client masks its frames" if self._masked else "a server does not mask its frames")
        if opcode not in _OPCODES:
            raise FrameError(1002, "unknown opcode")
        starts = opcode in (TEXT, BINARY)
        if first & 0x30 or (first & 0x40 and not (self._inflates and starts)):
            raise FrameError(1002, "a reserved bit is set")
        if opcode >= CLOSE:
            if not first & 0x80 or second & 0x7F > MAX_CONTROL:
                raise FrameError(1002, "a control frame is fragmented or too long")
            return
        if starts is bool(self._opcode):
            raise FrameError(1002, "a message within a message" if starts else "nothing to continue")
        if len(self._joined) + length > self._max_size:
            raise _too_large(self._max_size)

    def _whole(self, opcode: int, payload: bytes, key: bytes, raw: bytes, *, deflated: bool) -> Message:
        """A message in one frame."""
        masked = self._masked
        if deflated:
            payload = self._inflate(mask(payload, key))
            key = _NO_KEY
        if opcode == BINARY:
            return Message(False, payload, None, raw, masked, deflated, key)
        payload = mask(payload, key)
        return Message(True, payload, _decode(payload), raw, masked, deflated)

    def _take_fragment(self, first: int, opcode: int, payload: bytes) -> Message | None:
        """Add to a message; the message, once it is whole."""
        if opcode:
            self._opcode = opcode
            self._compressed = bool(first & 0x40)
        self._joined += payload
        self._count += 1
        if self._count > FREE_FRAGMENTS + len(self._joined) // FRAGMENT_BYTES:
            raise FrameError(1008, "a message in too many fragments")
        if not first & 0x80:
            return None
        data, is_text = bytes(self._joined), self._opcode == TEXT
        self._joined = bytearray()
        self._opcode = CONTINUATION
        self._count = 0
        if self._compressed:
            data = self._inflate(data)
        return Message(is_text, data, _decode(data) if is_text else None, None, self._masked)

    def _inflate(self, payload: bytes) -> bytes:
        try:
            return deflate.inflate(payload, self._max_size)
        except deflate.TooLarge:
            raise _too_large(self._max_size) from None
        except deflate.Broken:
            raise FrameError(1007, "the compressed data is broken") from None


def _too_large(max_size: int) -> FrameError:
    return FrameError(1009, f"a message may have {max_size} bytes")


def _long_length(data: bytes, start: int, end: int) -> int:
    """A length of 16 or 64 bits, which must not fit into fewer (section 5.2)."""
    length = int.from_bytes(data[start:end], "big")
    if length >= 1 << 63 or length < (126 if end - start == 2 else 1 << 16):
        raise FrameError(1002, "a length is written in the wrong size")
    return length


def _decode(payload: bytes) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError:
        raise _not_utf8() from None


def _not_utf8() -> FrameError:
    return FrameError(1007, "text is not UTF-8")


def mask(payload: bytes, key: bytes) -> bytes:
    """Put a mask on a payload or take it off (section 5.3)."""
    size = len(payload)
    if key is _NO_KEY or not size:
        return payload
    if size <= _SMALL:
        stretched = key * (size // 4) + key[: size % 4]
        return (int.from_bytes(payload, "little") ^ int.from_bytes(stretched, "little")).to_bytes(size, "little")
    masked = bytearray(payload)
    for place, byte in enumerate(key):
        masked[place::4] = masked[place::4].translate(_TABLES[byte])
    return bytes(masked)


def frame(opcode: int, payload: bytes, *, masked: bool, deflated: bool = False) -> bytes:
    """A whole message, or a control frame, in one frame. `masked`: it is a client's."""
    size = len(payload)
    first = 0xC0 | opcode if deflated else 0x80 | opcode
    bit = 0x80 if masked else 0
    if size < 126:
        header = bytes((first, bit | size))
    elif size < 1 << 16:
        header = bytes((first, bit | 126, size >> 8, size & 0xFF))
    else:
        header = bytes((first, bit | 127)) + size.to_bytes(8, "big")
    if not masked:
        return header + payload
    # From the system's entropy, as section 5.3 wants it: no page may foresee what its bytes will look like.
    key = os.urandom(4)
    return b"%b%b%b" % (header, key, mask(payload, key))


def close_payload(code: int | None, reason: str) -> bytes:
    """What a close frame says; nothing for a code that must not be sent (section 7.4.1)."""
    if code is None or not _is_sendable(code):
        return b""
    encoded = reason.encode()
    if len(encoded) > MAX_REASON:
        encoded = encoded[:MAX_REASON].decode(errors="ignore").encode()
    return code.to_bytes(2, "big") + encoded


def read_close(payload: bytes) -> tuple[int, str]:
    """Code and reason of a close frame; 1005 where it gives none. Raises FrameError."""
    if not payload:
        return 1005, ""
    code = int.from_bytes(payload[:2], "big")
    if len(payload) < 2 or not _is_sendable(code):
        raise FrameError(1002, "an invalid close code")
    return code, _decode(payload[2:])


def _is_sendable(code: int) -> bool:
    return code in _SENDABLE or 3000 <= code <= 4999
