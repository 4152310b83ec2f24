"""The chunk walker: every split, every fault, and h11 as the second opinion."""

from __future__ import annotations

from itertools import pairwise

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http1 import LAST_CHUNK, MORE, ChunkWalker, FramingError, chunk, connection_options, content_length

EVENTS = (b'data: {"a":1}\n\n', "data: grüße\n\n".encode(), b"data: [DONE]\n\n")
BODY = b"".join(map(chunk, EVENTS)) + LAST_CHUNK


def walk(walker: ChunkWalker, pieces: list[bytes]) -> tuple[bytes, int]:
    payload, end = b"", MORE
    for piece in pieces:
        end = walker.feed(piece)
        payload += walker.payload(piece)
    return payload, end


def test_one_read_that_is_one_chunk_is_recognised_after_its_size_is_known() -> None:
    walker = ChunkWalker()
    for _ in range(2):
        assert walker.feed(chunk(EVENTS[0])) == MORE
        assert walker.payload(chunk(EVENTS[0])) == EVENTS[0]
    assert walker.one
    assert repr(walker) == "<ChunkWalker expects chunk size>"


@pytest.mark.parametrize("cut", range(1, len(BODY)))
def test_a_split_at_any_byte_changes_nothing(cut: int) -> None:
    walker = ChunkWalker()
    payload, end = walk(walker, [BODY[:cut], BODY[cut:]])
    assert payload == b"".join(EVENTS)
    assert end == len(BODY) - cut
    assert walker.done


def test_byte_by_byte() -> None:
    walker = ChunkWalker()
    payload, end = walk(walker, [BODY[i : i + 1] for i in range(len(BODY))])
    assert (payload, end) == (b"".join(EVENTS), 1)


def test_the_end_is_found_before_a_following_message() -> None:
    walker = ChunkWalker()
    assert walker.feed(BODY + b"HTTP/1.1 200 OK\r\n") == len(BODY)
    with pytest.raises(FramingError):
        walker.feed(b"more")


def test_extensions_and_trailers_are_allowed_within_bounds() -> None:
    walker = ChunkWalker()
    data = b"5;name=value\r\nhello\r\n0\r\nx-checksum: 1\r\n\r\n"
    assert walker.feed(data) == len(data)
    assert walker.payload(data) == b"hello"


@pytest.mark.parametrize(
    "data",
    [
        b"+5\r\nhello\r\n",
        b"0x5\r\nhello\r\n",
        b"1_0\r\nhello\r\n",
        b" 5\r\nhello\r\n",
        b"5 \r\nhello\r\n",
        b"-1\r\n",
        b"\r\n",
        b"5\nhello\r\n",
        b"5\r\nhelloX\r\n",
        b"5\r\nhello\n",
        b"5\r\nhello\rX",
        b"g\r\n",
        b"ffffffffffffffff\r\n",
        b"5;a\rb\r\nhello\r\n",
        b"5;" + b"a" * 9000 + b"\r\n",
        b"5" * 9000,
        b"0\r\nx : 1\r\n\r\n",
        b"0\r\n folded\r\n\r\n",
        b"0\r\ncontent-length: 5\r\n\r\n",
        b"0\r\n" + b"x: 1\r\n" * 2000 + b"\r\n",
        b"1;" + b"a" * 5000 + b"\r\nx\r\n1;" + b"a" * 5000 + b"\r\nx\r\n",
    ],
)
def test_anything_doubtful_is_refused_whole_and_byte_by_byte(data: bytes) -> None:
    with pytest.raises(FramingError):
        ChunkWalker().feed(data)
    with pytest.raises(FramingError):
        walk(ChunkWalker(), [data[i : i + 1] for i in range(len(data))])


@given(
    payloads=st.lists(st.binary(min_size=1, max_size=300), max_size=8),
    cuts=st.lists(st.integers(0, 3000), max_size=6),
)
def test_agrees_with_h11(payloads: list[bytes], cuts: list[int]) -> None:
    body = b"".join(map(chunk, payloads)) + LAST_CHUNK
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    pieces = [body[a:b] for a, b in pairwise(edges) if a != b]
    payload, _ = walk(ChunkWalker(), pieces)

    oracle = h11.Connection(h11.CLIENT)
    oracle.send(h11.Request(method="GET", target="/", headers=[("host", "a")]))
    oracle.send(h11.EndOfMessage())
    oracle.receive_data(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + body)
    seen = b""
    while not isinstance(event := oracle.next_event(), h11.EndOfMessage):
        if isinstance(event, h11.Data):
            seen += bytes(event.data)
    assert payload == seen == b"".join(payloads)


@pytest.mark.parametrize("value", [b"", b"+5", b"-1", b"5 ", b"1_0", b"0x5", b"5, 5", b"9" * 19, "５".encode()])
def test_content_length_takes_digits_only(value: bytes) -> None:
    with pytest.raises(FramingError):
        content_length(value)


def test_content_length() -> None:
    assert content_length(b"0") == 0
    assert content_length(b"000123") == 123


def test_connection_options() -> None:
    assert connection_options(b"Keep-Alive, X-Foo") == {b"keep-alive", b"x-foo"}
