"""Framing, said in bytes: each case is read whole and byte by byte, and wsproto is the second opinion."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong, TextMessage
from wsproto.extensions import PerMessageDeflate

from gateway import deflate
from gateway.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FREE_FRAGMENTS,
    PING,
    PONG,
    TEXT,
    Control,
    FrameError,
    Message,
    Reader,
    close_payload,
    frame,
    mask,
    read_close,
)

KEY = b"\x37\xfa\x21\x3d"
LIMIT = 1000
How = Callable[[bytes], list[bytes]]


def whole(data: bytes) -> list[bytes]:
    return [data]


def byte_by_byte(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


both = pytest.mark.parametrize("how", [whole, byte_by_byte])


def read(data: bytes, how: How = whole, **settings_: object) -> list[Message | Control]:
    reader = Reader(**{"masked": False, "max_size": LIMIT, **settings_})  # type: ignore[arg-type]
    found: list[Message | Control] = []
    for piece in how(data):
        reader.feed(piece)
        while (event := reader.next()) is not None:
            found.append(event)
    return found


def told(events: list[Message | Control]) -> list[tuple[object, ...]]:
    return [
        ("text" if one.is_text else "binary", one.data) if isinstance(one, Message) else (one.opcode, one.payload)
        for one in events
    ]


def fails(data: bytes, how: How = whole, **settings_: object) -> int:
    with pytest.raises(FrameError) as caught:
        read(data, how, **settings_)
    return caught.value.code


def fragment(opcode: int, payload: bytes, *, fin: bool = False, rsv1: bool = False) -> bytes:
    first = (0x80 if fin else 0) | (0x40 if rsv1 else 0) | opcode
    return bytes((first,)) + frame(TEXT, payload, masked=False)[1:]


@both
def test_the_examples_of_the_rfc(how: How) -> None:
    """RFC 6455, section 5.7."""
    assert told(read(b"\x81\x05Hello", how)) == [("text", b"Hello")]
    assert told(read(b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", how, masked=True)) == [("text", b"Hello")]
    assert told(read(b"\x01\x03Hel\x80\x02lo", how)) == [("text", b"Hello")]
    assert told(read(b"\x89\x05Hello\x8a\x05Hello", how)) == [(PING, b"Hello"), (PONG, b"Hello")]
    assert told(read(b"\x82\x7e\x01\x00" + bytes(256), how)) == [("binary", bytes(256))]
    assert told(read(b"\x82\x7f\0\0\0\0\0\x01\0\0" + bytes(65536), max_size=65536)) == [("binary", bytes(65536))]


@both
def test_control_frames_come_within_a_message(how: How) -> None:
    data = fragment(TEXT, b"one") + b"\x89\x00" + fragment(CONTINUATION, b", ") + b"\x8a\x00\x80\x03two\x82\x01x"
    assert told(read(data, how)) == [(PING, b""), (PONG, b""), ("text", b"one, two"), ("binary", b"x")]


def test_a_message_in_one_frame_keeps_the_bytes_that_were_read() -> None:
    data = frame(TEXT, b"Hello", masked=True)
    (message,) = read(data, masked=True)
    assert isinstance(message, Message)
    assert message.raw is data
    assert message.masked
    assert message.text == "Hello"
    _, second = read(data + data, masked=True)
    assert isinstance(second, Message)
    assert second.raw == data
    (joined,) = read(fragment(TEXT, b"Hel") + fragment(CONTINUATION, b"lo", fin=True))
    assert isinstance(joined, Message)
    assert joined.raw is None


def test_binary_is_unmasked_only_for_who_wants_it() -> None:
    (message,) = read(frame(BINARY, b"audio", masked=True), masked=True)
    assert isinstance(message, Message)
    assert message.size == 5
    assert message.data == b"audio" == message.data


@both
@pytest.mark.parametrize(
    ("data", "code", "masked"),
    [
        (b"\x81\x05Hello", 1002, True),  # a client that does not mask
        (b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", 1002, False),  # a server that does
        (b"\xa1\x00", 1002, False),  # RSV2
        (b"\x91\x00", 1002, False),  # RSV3
        (b"\xc1\x00", 1002, False),  # RSV1 without an extension
        (b"\x83\x00", 1002, False),  # reserved opcodes
        (b"\x8b\x00", 1002, False),
        (b"\x09\x00", 1002, False),  # a ping in fragments
        (b"\x89\x7e\x00\x7e" + bytes(126), 1002, False),  # a ping that is too long
        (b"\x80\x00", 1002, False),  # nothing to continue
        (b"\x01\x00\x81\x00", 1002, False),  # a message within a message
        (b"\x81\x7e\x00\x7d" + bytes(125), 1002, False),  # a length in the wrong size
        (b"\x81\x7f\0\0\0\0\0\0\xff\xff", 1002, False),
        (b"\x81\x7f\x80\0\0\0\0\0\0\0", 1002, False),
        (b"\x81\x02\xc3\x28", 1007, False),  # not UTF-8
        (b"\x81\x03\xed\xa0\x80", 1007, False),  # a surrogate
        (b"\x01\x01\xc3\x80\x01\x28", 1007, False),  # not UTF-8 across fragments
        (b"\x81\x7e\x03\xe9", 1009, False),  # too large, known from its header
        (b"\x82\x7f\0\0\x01\0\0\0\0\0", 1009, False),
        (b"\x02\x7e\x02\x00" + bytes(512) + b"\x80\x7e\x02\x00", 1009, False),  # too large over two frames
    ],
)
def test_what_must_not_be(how: How, data: bytes, code: int, masked: bool) -> None:
    assert fails(data, how, masked=masked) == code


def test_too_large_a_message_is_refused_before_any_of_it_is_kept() -> None:
    reader = Reader(masked=False, max_size=1 << 20)
    reader.feed(b"\x82\x7f" + (1 << 21).to_bytes(8, "big"))
    with pytest.raises(FrameError, match="1009"):
        reader.next()


def test_a_bomb_of_empty_fragments_ends() -> None:
    reader = Reader(masked=False, max_size=LIMIT)
    reader.feed(fragment(TEXT, b"") + FREE_FRAGMENTS * fragment(CONTINUATION, b""))
    with pytest.raises(FrameError, match="1008"):
        reader.next()
    many = (
        fragment(BINARY, bytes(64)) + 5000 * fragment(CONTINUATION, bytes(64)) + fragment(CONTINUATION, b"", fin=True)
    )
    (message,) = read(many, max_size=1 << 20)
    assert isinstance(message, Message)
    assert message.size == 5001 * 64


def test_a_frame_in_many_reads_is_joined_once() -> None:
    """Held bytes are what was fed, whatever the pieces; and nothing is held when the message has been given out."""
    payload = os.urandom(900)
    data = frame(BINARY, payload, masked=True)
    reader = Reader(masked=True, max_size=LIMIT)
    for at in range(0, len(data) - 7, 7):
        reader.feed(data[at : at + 7])
        assert reader.next() is None
        assert reader.held == at + 7
    reader.feed(data[at + 7 :])
    message = reader.next()
    assert isinstance(message, Message)
    assert message.data == payload
    assert reader.next() is None
    assert repr(reader) == "<Reader 0 bytes held>"


def test_reads_of_one_byte_each_take_no_more_memory_than_is_counted() -> None:
    data = frame(BINARY, bytes(50_000), masked=True)
    reader = Reader(masked=True, max_size=1 << 20)
    tracemalloc.start()
    try:
        for piece in byte_by_byte(data[:40_000]):
            reader.feed(piece)
            reader.next()
        used = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert reader.held == 40_000
    assert used < 4 * reader.held


@given(st.binary(max_size=2000), st.binary(min_size=4, max_size=4))
def test_a_mask_is_what_the_rfc_says(payload: bytes, key: bytes) -> None:
    masked = mask(payload, key)
    assert masked == bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))
    assert mask(masked, key) == payload


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
@pytest.mark.parametrize("masked", [False, True])
def test_what_is_written_is_read_again(size: int, masked: bool) -> None:
    payload = bytes(size)
    assert told(read(frame(BINARY, payload, masked=masked), masked=masked, max_size=size)) == [("binary", payload)]


# permessage-deflate


@both
def test_a_compressed_message_is_inflated(how: How) -> None:
    """RFC 7692, section 7.2.3: in one frame, in two, with no compression, with a final block, in two blocks."""
    hello = [
        bytes.fromhex("c107f248cdc9c90700"),
        bytes.fromhex("4103f248cd8004c9c90700"),
        bytes.fromhex("c10b000500faff48656c6c6f00"),
        bytes.fromhex("c108f348cdc9c9070000"),
        bytes.fromhex("c10df248050000 00ffffcac9c90700"),
    ]
    for data in hello:
        assert told(read(data, how, inflates=True)) == [("text", b"Hello")]


def test_a_compressed_frame_can_be_forwarded_too() -> None:
    data = frame(TEXT, deflate.compress(b"Hello"), masked=True, deflated=True)
    (message,) = read(data, masked=True, inflates=True)
    assert isinstance(message, Message)
    assert message.raw is data
    assert message.deflated
    assert message.size == 5


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (deflate.compress(bytes(LIMIT)), None),
        (deflate.compress(bytes(LIMIT + 1)), 1009),
        (deflate.compress(bytes(100_000_000)), 1009),  # 100 MB in 97 KB
        (b"\xff\xff\xff", 1007),
        (deflate.compress(b"\xff"), 1007),  # inflates to what is not UTF-8
        (b"\x03\x00" * 100, 1007),  # a hundred empty streams, one after the other
    ],
)
def test_a_compression_bomb_ends(payload: bytes, code: int | None) -> None:
    data = frame(TEXT, payload, masked=True, deflated=True)
    bounds = {"masked": True, "inflates": True, "max_size": LIMIT if len(payload) < LIMIT else 100_000}
    if code is None:
        (message,) = read(data, **bounds)
        assert isinstance(message, Message)
        assert message.size == LIMIT
    else:
        assert fails(data, **bounds) == code


def test_inflating_stops_at_the_bound() -> None:
    with pytest.raises(deflate.TooLarge):
        deflate.inflate(deflate.compress(bytes(1001)), 1000)
    assert deflate.inflate(deflate.compress(bytes(1000)), 1000) == bytes(1000)
    assert deflate.inflate(deflate.compress(b""), 0) == b""
    both_streams = deflate.compress(b"Hello")[:-1] + b"\x00"
    assert deflate.inflate(both_streams, 100) == b"Hello"


@pytest.mark.parametrize("opcode", [CONTINUATION, PING])
def test_only_the_beginning_of_a_message_says_that_it_is_compressed(opcode: int) -> None:
    data = fragment(TEXT, b"", rsv1=True) if opcode == CONTINUATION else b""
    assert fails(data + fragment(opcode, b"", fin=True, rsv1=True), inflates=True) == 1002


# Closing


def test_close_frames() -> None:
    assert read_close(close_payload(1000, "done")) == (1000, "done")
    assert read_close(close_payload(None, "done")) == (1005, "")
    assert close_payload(1006, "") == close_payload(1005, "") == close_payload(1015, "") == b""
    assert len(close_payload(4000, "ä" * 100)) == 124
    assert read_close(close_payload(4000, "ä" * 100)) == (4000, "ä" * 61)
    for payload in (b"\x03", b"\x03\xec", b"\x03\xed", b"\x03\xf7", b"\x0b\xb7", b"\x13\x88", b"\x00\x00"):
        with pytest.raises(FrameError, match="1002"):
            read_close(payload)
    with pytest.raises(FrameError, match="1007"):
        read_close(b"\x03\xe8\xff")


# The second opinion


def opinion(data: bytes) -> list[tuple[object, ...]]:
    """What wsproto makes of a client's bytes."""
    extension = PerMessageDeflate(client_no_context_takeover=True, server_no_context_takeover=True)
    extension.accept("permessage-deflate; client_no_context_takeover")
    connection = Connection(ConnectionType.SERVER, [extension])
    found: list[tuple[object, ...]] = []
    collected: list[bytes] = []
    connection.receive_data(data)
    events: list[Event] = list(connection.events())
    for event in events:
        if isinstance(event, TextMessage | BytesMessage):
            collected.append(event.data.encode() if isinstance(event, TextMessage) else bytes(event.data))
            if event.message_finished:
                found.append(("text" if isinstance(event, TextMessage) else "binary", b"".join(collected)))
                collected = []
        elif isinstance(event, Ping | Pong):
            found.append((PING if isinstance(event, Ping) else PONG, bytes(event.payload)))
        elif isinstance(event, CloseConnection):
            found.append((CLOSE, int(event.code)))
            return found
    return found


def ours(data: bytes) -> list[tuple[object, ...]]:
    """Up to the close frame, after which nothing counts; a refusal is one of ours."""
    reader = Reader(masked=True, max_size=1 << 20, inflates=True)
    reader.feed(data)
    found: list[tuple[object, ...]] = []
    try:
        while (event := reader.next()) is not None:
            if isinstance(event, Control) and event.opcode == CLOSE:
                found.append((CLOSE, read_close(event.payload)[0]))
                break
            found += told([event])
    except FrameError as error:
        found.append((CLOSE, error.code))
    return found


def masked_frame(first: int, payload: bytes) -> bytes:
    return bytes((first,)) + frame(TEXT, payload, masked=True)[1:]


def compressed(opcode: int, payload: bytes, cut: int) -> bytes:
    """A compressed message, in two fragments."""
    data = deflate.compress(payload)
    return masked_frame(0x40 | opcode, data[:cut]) + masked_frame(0x80, data[cut:])


payloads = st.one_of(
    st.binary(max_size=140),
    st.text(max_size=60).map(str.encode),
    st.integers(995, 1020).map(lambda code: code.to_bytes(2, "big") + b"why"),
)
# What is no DEFLATE data at all, or ends in the middle, wsproto takes for as much of it as there is.
firsts = st.one_of(
    st.sampled_from([0x81, 0x82, 0x01, 0x02, 0x00, 0x80, 0x88, 0x89, 0x8A]),
    st.integers(0, 255).filter(lambda first: not (first & 0x40 and first & 0x0F in (TEXT, BINARY))),
)
frames_of_all_kinds = st.one_of(
    st.builds(masked_frame, firsts, payloads),
    st.builds(compressed, st.sampled_from([TEXT, BINARY]), st.text(max_size=60).map(str.encode), st.integers(0, 20)),
    st.builds(compressed, st.sampled_from([TEXT, BINARY]), st.binary(max_size=60), st.integers(0, 20)),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(frames_of_all_kinds, min_size=1, max_size=8))
@example([masked_frame(0x81, b"text"), masked_frame(0x88, b"\x03\xf6")])
def test_wsproto_is_of_the_same_opinion(frames: list[bytes]) -> None:
    """The same messages from the same bytes, and the same refusals; but it sees in the middle of a message what we see
    at its end, and does not know 1014 (IANA's registry of close codes)."""
    data = b"".join(frames) + masked_frame(0x80, b"")
    found, expected = ours(data), opinion(data)
    if expected[-1] == (CLOSE, 1007):
        before = len(expected) - 1
        assert found[:before] == expected[:-1]
        assert all(isinstance(kind, int) for kind, _ in found[before:])
    elif (CLOSE, 1014) in found:
        assert [*found[:-1], (CLOSE, 1002)] == expected
    else:
        assert found == expected
