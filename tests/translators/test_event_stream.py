"""AWS event streams, whole and cut at every byte."""

from __future__ import annotations

import struct
import zlib

import pytest

from gateway.errors import UpstreamInvalid
from tests.recordings import Recording, load
from translators import event_stream
from translators.event_stream import MessageSplitter

RECORDED = [item for item in load("bedrock") if item.response_body_encoding == "base64"]


def message(payload: bytes, **headers: str) -> bytes:
    """One message on the wire; names of headers get their colon and hyphens."""
    raw = b""
    for key, value in headers.items():
        name = ":" + key.replace("_", "-")
        raw += bytes([len(name)]) + name.encode() + b"\x07" + struct.pack("!H", len(value)) + value.encode()
    prelude = struct.pack("!II", 16 + len(raw) + len(payload), len(raw))
    prelude += struct.pack("!I", zlib.crc32(prelude))
    body = prelude + raw + payload
    return body + struct.pack("!I", zlib.crc32(body))


def test_one_message() -> None:
    found = MessageSplitter().feed(message(b"{}", message_type="event", event_type="x"))
    assert [(one.headers, one.payload) for one in found] == [({":message-type": "event", ":event-type": "x"}, b"{}")]


def test_F6_cut_at_every_byte() -> None:
    source = message(b"{}", message_type="event") + message(b"[]", message_type="event")
    whole = MessageSplitter().feed(source)
    for at in range(len(source)):
        splitter = MessageSplitter()
        assert splitter.feed(source[:at]) + splitter.feed(source[at:]) == whole
        assert splitter.rest() == b""


def test_headers_of_other_types_are_passed_over() -> None:
    raw = b"\x01a\x00" + b"\x01b\x04\x00\x00\x00\x01" + b"\x01c\x06\x00\x02hi" + b"\x01d\x07\x00\x02yo"
    prelude = struct.pack("!II", 16 + len(raw), len(raw))
    prelude += struct.pack("!I", zlib.crc32(prelude))
    source = prelude + raw
    source += struct.pack("!I", zlib.crc32(source))
    assert MessageSplitter().feed(source)[0].headers == {"d": "yo"}


@pytest.mark.parametrize("at", [0, 9, 20, -1])
def test_a_damaged_message_is_refused(at: int) -> None:
    source = bytearray(message(b"{}", message_type="event"))
    source[at] ^= 0xFF
    with pytest.raises(UpstreamInvalid):
        MessageSplitter().feed(bytes(source))


def test_an_endless_message_is_refused() -> None:
    prelude = struct.pack("!II", event_stream.MAX_MESSAGE_BYTES + 1, 0)
    with pytest.raises(UpstreamInvalid):
        MessageSplitter().feed(prelude + struct.pack("!I", zlib.crc32(prelude)))


@pytest.mark.parametrize("recording", RECORDED, ids=str)
def test_recorded_streams_are_whole(recording: Recording) -> None:
    splitter = MessageSplitter()
    whole = splitter.feed(recording.response)
    assert splitter.rest() == b""
    assert all(one.headers[":message-type"] == "event" for one in whole)
    cut = MessageSplitter()
    assert [
        one for at in range(0, len(recording.response), 7) for one in cut.feed(recording.response[at : at + 7])
    ] == whole
