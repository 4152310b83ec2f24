"""AWS event streams: binary messages with headers, as Bedrock streams them. Bytes in, messages out; no I/O.

A message is: total length and length of headers (4 bytes each, big-endian), CRC of these 8 bytes, headers, payload,
CRC of all before it. https://docs.aws.amazon.com/AmazonS3/latest/userguide/RESTSelectObjectAppendix.html
"""

from __future__ import annotations

import struct
import zlib
from typing import Final

import msgspec

from gateway.errors import UpstreamInvalid

MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024
"""AWS allows 24 MiB; no model sends an event that comes near."""

_PRELUDE: Final = struct.Struct("!III")
_CRC_BYTES: Final = 4
_STRING: Final = 7
_FIXED_SIZES: Final = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""Bytes of the values of each type of header that has a fixed size; strings and bytes tell theirs."""


class Message(msgspec.Struct, frozen=True):
    """One message; only headers that are strings are kept, which are all that Bedrock sends."""

    headers: dict[str, str]
    payload: bytes


class MessageSplitter:
    """Collects stream bytes, cut anywhere, into complete messages. Raises UpstreamInvalid for what is none."""

    __slots__ = ("_pending",)

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """The messages that `data` completes, in order."""
        pending = self._pending
        pending += data
        messages = []
        start = 0
        while len(pending) - start >= _PRELUDE.size:
            total, header_bytes, crc = _PRELUDE.unpack_from(pending, start)
            if zlib.crc32(pending[start : start + 8]) != crc or total > MAX_MESSAGE_BYTES:
                raise UpstreamInvalid("The provider's stream is not an event stream of AWS.")
            if len(pending) - start < total:
                break
            messages.append(_message(bytes(pending[start : start + total]), header_bytes))
            start += total
        del pending[:start]
        return messages

    def rest(self) -> bytes:
        """The bytes of the message that is not complete yet."""
        return bytes(self._pending)


def _message(raw: bytes, header_bytes: int) -> Message:
    end = len(raw) - _CRC_BYTES
    body = _PRELUDE.size + header_bytes
    if body > end or zlib.crc32(raw[:end]) != int.from_bytes(raw[end:]):
        raise UpstreamInvalid("The provider's stream has a damaged event.")
    return Message(_headers(raw[_PRELUDE.size : body]), raw[body:end])


def _headers(raw: bytes) -> dict[str, str]:
    headers = {}
    at = 0
    try:
        while at < len(raw):
            name_end = at + 1 + raw[at]
            name, kind = raw[at + 1 : name_end].decode(), raw[name_end]
            at = name_end + 1
            if kind in _FIXED_SIZES:
                at += _FIXED_SIZES[kind]
                continue
            size = int.from_bytes(raw[at : at + 2])
            value, at = raw[at + 2 : at + 2 + size], at + 2 + size
            if kind == _STRING:
                headers[name] = value.decode()
    except (IndexError, UnicodeDecodeError):
        raise UpstreamInvalid("The provider's stream has a damaged event.") from None
    return headers
