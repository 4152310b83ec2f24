"""Every malformed or ambiguous request is refused, however its bytes arrive, and its connection is closed."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.downstream.http import DownstreamLimits
from gateway.errors import MalformedHTTP
from tests.gateway.downstream.support import Wire
from tests.wire.requests import MALFORMED, get

EACH = pytest.mark.parametrize("name", MALFORMED)


def refused(wire: Wire, name: str) -> None:
    """One answer, with the right status; nothing reached a handler; the connection is over."""
    status = MALFORMED[name][1]
    assert [code for code, _ in wire.answers] == [status], wire.transport.written
    assert b"connection: close\r\n" in wire.transport.written
    assert all(handler.body is None for handler in wire.application.handlers)
    assert wire.closed
    assert wire.server.buffered == 0


def test_there_are_enough() -> None:
    assert len(MALFORMED) >= 80


@EACH
def test_whole(name: str) -> None:
    wire = Wire()
    wire.sends(MALFORMED[name][0])
    refused(wire, name)


@pytest.mark.parametrize("name", [name for name, (data, _) in MALFORMED.items() if len(data) < 20_000])
def test_byte_by_byte(name: str) -> None:
    data = MALFORMED[name][0]
    wire = Wire()
    wire.sends(*[data[index : index + 1] for index in range(len(data))])
    refused(wire, name)


@EACH
def test_cut_at_random_places(name: str) -> None:
    data = MALFORMED[name][0]
    places = random.Random(name)
    for _ in range(5):
        cuts = sorted(places.randrange(len(data) + 1) for _ in range(4))
        wire = Wire()
        wire.sends(
            *[data[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True) if start < stop]
        )
        refused(wire, name)


@EACH
def test_behind_a_good_request(name: str) -> None:
    """What stands before is served; what stands behind is not."""
    wire = Wire()
    wire.sends(get(b"X-Name: good") + MALFORMED[name][0] + get(target=b"/echo/behind"))
    first, second = [status for status, _ in wire.answers]
    assert first == 200
    # What has no end of its own becomes another fault by what stands behind it.
    assert second in (MALFORMED[name][1], 400)
    assert wire.closed
    assert not any(handler.head.path == b"/echo/behind" for handler in wire.application.handlers)


def test_after_a_repeated_head() -> None:
    """A head that was recognised by its bytes gives no way around the checks."""
    good = b"POST /echo HTTP/1.1\r\nHost: gateway\r\nContent-Length: 3\r\nX-Name: a\r\n\r\nabc"
    for wrong in (b"+3", b"3,3", b" 3 3", b"0x3", b"", b"-1", b"\xb2", b"3\r\nContent-Length: 4", b"9" * 30):
        wire = Wire()
        wire.sends(good, good, good.replace(b"Content-Length: 3", b"Content-Length: " + wrong))
        assert [status for status, _ in wire.answers] == [200, 200, 400], wrong
        assert wire.closed


def test_a_repeated_head_with_a_body_too_large() -> None:
    wire = Wire(DownstreamLimits(body_bytes=10))
    for size in (10, 10, 11):
        wire.sends(b"POST /echo HTTP/1.1\r\nHost: gateway\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
    assert [status for status, _ in wire.answers] == [200, 200, 413]


def test_a_repeated_head_with_other_lengths() -> None:
    wire = Wire()
    for body in (b"abc", b"a", b"abcdefghijklmnop", b"", b"x" * 5000):
        wire.sends(
            b"POST /echo HTTP/1.1\r\nHost: gateway\r\nContent-Length: %d\r\nX-Name: a\r\n\r\n" % len(body) + body
        )
        assert wire.handler.body == body
    assert len(wire.answers) == 5


def test_a_repeated_head_in_parts() -> None:
    wire = Wire()
    request = b"POST /echo HTTP/1.1\r\nHost: gateway\r\ncontent-length:   3  \r\nX-Name: 3\r\n\r\nabc"
    for _ in range(2):
        wire.sends(request)
    for cut in range(1, len(request)):
        wire.sends(request[:cut], request[cut:])
        assert wire.handler.body == b"abc"
    assert len(wire.answers) == 2 + len(request) - 1


@given(st.binary(max_size=200))
def test_no_bytes_make_the_connection_raise(data: bytes) -> None:
    wire = Wire()
    wire.sends(data)
    assert len(wire.application.refused) <= 1
    for error in wire.application.refused:
        assert isinstance(error, MalformedHTTP)
