"""Response heads: what is read, what is refused; h11 as the second opinion."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import UpstreamInvalid
from gateway.upstream.head import MAX_FIELDS, Body, parse_head


def lines(*fields: str, status: str = "HTTP/1.1 200 OK") -> bytes:
    return "\r\n".join([status, *fields, "", ""]).encode("latin-1")


def test_an_ordinary_head() -> None:
    data = lines(
        "Content-Type: application/json",
        "X-Request-ID:  abc \t",
        "Content-Length: 12",
        "Set-Cookie: a=1",
        "Set-Cookie: b=2",
    )
    head, body, keep_alive = parse_head(data)
    assert (head.status, head.reason, body, keep_alive) == (200, b"OK", Body.SIZED, True)
    assert (head.content_length, head.chunked) == (12, False)
    assert head.headers == [
        (b"content-type", b"application/json"),
        (b"x-request-id", b"abc"),
        (b"content-length", b"12"),
        (b"set-cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
    ]


@pytest.mark.parametrize(
    ("fields", "body", "length"),
    [
        (["Content-Length: 0"], Body.NONE, 0),
        (["Content-Length: 7 "], Body.SIZED, 7),
        (["Transfer-Encoding: chunked"], Body.CHUNKED, None),
        (["Transfer-Encoding: Chunked "], Body.CHUNKED, None),
        ([], Body.UNTIL_CLOSE, None),
    ],
)
def test_how_the_body_ends(fields: list[str], body: Body, length: int | None) -> None:
    head, found, _ = parse_head(lines(*fields))
    assert (found, head.content_length, head.chunked) == (body, length, body is Body.CHUNKED)


@pytest.mark.parametrize("status", [204, 304, 100, 103])
@pytest.mark.parametrize("fields", [["Content-Length: 5"], ["Transfer-Encoding: chunked"], []])
def test_statuses_that_have_no_body(status: int, fields: list[str]) -> None:
    head, body, keep_alive = parse_head(lines(*fields, status=f"HTTP/1.1 {status} X"))
    assert (body, keep_alive, head.content_length, head.chunked) == (Body.NONE, True, 0, False)


def test_an_answer_to_head_has_no_body_but_its_length() -> None:
    head, body, _ = parse_head(lines("Content-Length: 5"), to_head=True)
    assert (body, head.content_length) == (Body.NONE, 5)
    head, body, keep_alive = parse_head(lines("Transfer-Encoding: chunked"), to_head=True)
    assert (body, head.content_length, head.chunked, keep_alive) == (Body.NONE, None, False, True)


@pytest.mark.parametrize(
    ("status", "fields", "kept"),
    [
        ("HTTP/1.1 200 OK", [], True),
        ("HTTP/1.1 200 OK", ["Connection: close"], False),
        ("HTTP/1.1 200 OK", ["Connection: Keep-Alive"], True),
        ("HTTP/1.1 200 OK", ["Connection: x-a", "Connection: CLOSE"], False),
        ("HTTP/1.0 200 OK", [], False),
        ("HTTP/1.0 200 OK", ["Connection: keep-alive"], True),
        ("HTTP/1.0 200 OK", ["Connection: keep-alive, close"], False),
    ],
)
def test_whether_the_connection_is_kept(status: str, fields: list[str], kept: bool) -> None:
    """RFC 9112, section 9.3."""
    assert parse_head(lines("Content-Length: 1", *fields, status=status))[2] is kept


def test_a_body_until_close_never_keeps_the_connection() -> None:
    assert parse_head(lines("Connection: keep-alive"))[2] is False


def test_hop_by_hop_fields_and_those_that_connection_names_are_removed_but_for_the_length() -> None:
    head, _, keep_alive = parse_head(
        lines(
            "Connection: close, X-Debug, content-length",
            "Keep-Alive: timeout=5",
            "Proxy-Authenticate: Basic",
            "Trailer: x",
            "Upgrade: h2c",
            "X-Debug: 1",
            "x-debug: 2",
            "X-Kept: 1",
            "Content-Length: 2",
        )
    )
    assert head.headers == [(b"x-kept", b"1"), (b"content-length", b"2")]
    assert (head.content_length, keep_alive) == (2, False)
    assert b"debug: " not in head.raw.lower()


def test_fields_travel_as_they_came_and_the_media_type_in_lower_case() -> None:
    head, _, _ = parse_head(lines("Content-Type: Text/Event-Stream; Charset=UTF-8", "X-A:  B", "x-a: c"))
    assert head.raw == b"Content-Type: Text/Event-Stream; Charset=UTF-8\r\nX-A:  B\r\nx-a: c\r\n"
    assert head.media == b"text/event-stream; charset=utf-8"
    assert head.get(b"x-a") == b"B"
    assert head.get(b"x-b") is None


@pytest.mark.parametrize(
    "data",
    [
        lines("Content-Length: 5", "Transfer-Encoding: chunked"),
        lines("Transfer-Encoding: chunked", "Content-Length: 5"),
        lines("Content-Length: 5", "Content-Length: 6"),
        lines("Content-Length: 5", "Content-Length: 5"),
        lines("Content-Length: 5, 5"),
        lines("Content-Length: +5"),
        lines("Content-Length: -5"),
        lines("Content-Length: 0x5"),
        lines("Content-Length: 1_0"),
        lines("Content-Length:"),
        lines("Content-Length: 99999999999999999999999"),
        lines("Transfer-Encoding: gzip, chunked"),
        lines("Transfer-Encoding: gzip"),
        lines("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
        lines("Transfer-Encoding: chunked;a=b"),
        lines("Transfer-Encoding: xchunked", status="HTTP/1.1 204 X"),
        lines("Transfer-Encoding: chunked", status="HTTP/1.0 200 OK"),
        lines("A : b"),
        lines("A: b", " folded"),
        lines("A: b", "\tfolded"),
        lines("A: b\rc"),
        lines("A: b\nC: d"),
        lines("A: b\0c"),
        lines("A: b\x01c"),
        lines("No colon"),
        lines(": no name"),
        lines("A\x80: b"),
        lines(status="HTTP/1.1 20 OK"),
        lines(status="HTTP/1.1 2000 OK"),
        lines(status="HTTP/1.1 2x0 OK"),
        lines(status="HTTP/1.1  200 OK"),
        lines(status="HTTP/1.1\t200 OK"),
        lines(status="HTTP/1.2 200 OK"),
        lines(status="HTTP/2 200"),
        lines(status="http/1.1 200 OK"),
        lines(status="ICY 200 OK"),
        lines(status="\r\nHTTP/1.1 200 OK"),
        lines(status="HTTP/1.1 200 O\rK"),
        lines(status="HTTP/1.1 200 O\0K"),
        lines(status="HTTP/1.1 200 O\x7fK"),
        lines(status="HTTP/1.1 099 OK"),
        lines(status="HTTP/1.1 000"),
        lines(*[f"a{index}: b" for index in range(MAX_FIELDS + 1)]),
    ],
)
def test_what_is_refused(data: bytes) -> None:
    with pytest.raises(UpstreamInvalid):
        parse_head(data)


def test_a_reason_may_be_empty() -> None:
    assert parse_head(lines(status="HTTP/1.1 200 "))[0].reason == b""
    assert parse_head(lines(status="HTTP/1.1 200"))[0].reason == b""


_TOKEN = st.text(st.sampled_from("abcXYZ019-_!~"), min_size=1, max_size=8).map(lambda name: f"X-{name}")
_VALUE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20).map(str.strip)


@given(st.integers(200, 599), st.lists(st.tuples(_TOKEN, _VALUE), max_size=6), st.integers(0, 10**9))
def test_what_is_accepted_h11_reads_the_same(status: int, fields: list[tuple[str, str]], length: int) -> None:
    data = lines(
        *[f"{name}: {value}" for name, value in fields], f"Content-Length: {length}", status=f"HTTP/1.1 {status} X"
    )
    head, _, keep_alive = parse_head(data)
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    client.receive_data(data)
    second = client.next_event()
    assert isinstance(second, h11.Response)
    assert (head.status, head.headers) == (
        second.status_code,
        [(bytes(name), bytes(value)) for name, value in second.headers],
    )
    assert keep_alive


@given(st.binary(max_size=40))
def test_what_h11_refuses_is_refused(middle: bytes) -> None:
    """The other way does not hold: h11 takes bare LF and some characters that we refuse."""
    data = b"HTTP/1.1 200 OK\r\nA: b\r\n" + middle + b"\r\nContent-Length: 0\r\n\r\n"
    data = data[: data.find(b"\r\n\r\n") + 4]
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    client.receive_data(data)
    try:
        client.next_event()
    except h11.RemoteProtocolError:
        with pytest.raises(UpstreamInvalid):
            parse_head(data)
