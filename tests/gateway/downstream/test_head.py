"""Request heads: what they become, and h11's second opinion on everything that is accepted."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import h11
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.downstream.head import HeadLimits, RequestHead, Template, parse_head
from gateway.errors import HeadTooLarge, MalformedHTTP
from tests.gateway.downstream.support import Held, Wire
from tests.wire.requests import get


def parse(data: bytes, **limits: int) -> RequestHead:
    return parse_head(data, HeadLimits(**limits))


def test_a_head() -> None:
    head = parse(
        b"POST /v1/chat/completions?a=b&c HTTP/1.1\r\nHost: localhost:41002\r\nAuthorization: Bearer x\r\n"
        b"Content-Type: application/json\r\nX-Stainless-Lang:python\r\ncontent-length: 12\r\n\r\n"
    )
    assert (head.method, head.path, head.query) == (b"POST", b"/v1/chat/completions", b"a=b&c")
    assert head.own == {b"host": b"localhost:41002", b"authorization": b"Bearer x", b"content-length": b"12"}
    assert head.lines == [b"content-type: application/json\r\n", b"x-stainless-lang: python\r\n"]
    assert head.block == b"".join(head.lines)
    assert (head.length, head.keep_alive, head.http10, head.upgrade) == (12, True, False, False)
    assert head.forwarded(b"x-stainless-lang") == b"python"
    assert head.forwarded(b"x-other") is None


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/", b"/", b""),
        (b"/a?", b"/a", b""),
        (b"/a?b?c=/d", b"/a", b"b?c=/d"),
        (b"//a", b"//a", b""),
        (b"/../a;x=%2F", b"/../a;x=%2F", b""),
        (b"*", b"*", b""),
        (b"http://gateway", b"/", b""),
        (b"http://gateway/", b"/", b""),
        (b"http://gateway/a?b", b"/a", b"b"),
        (b"http://gateway?b=c", b"/", b"b=c"),
        (b"HTTPS://gateway:443/a", b"/a", b""),
        (b"http://[::1]:41002/a", b"/a", b""),
        (b"/http://other/", b"/http://other/", b""),
    ],
)
def test_targets(target: bytes, path: bytes, query: bytes) -> None:
    head = parse(get(target=target, method=b"OPTIONS"))
    assert (head.path, head.query) == (path, query)


def test_the_host_of_an_absolute_target_wins() -> None:
    """RFC 9112, section 3.2.2."""
    assert parse(get(target=b"http://elsewhere:8080?x")).own[b"host"] == b"elsewhere:8080"


def test_connect_names_an_authority() -> None:
    assert parse(get(target=b"example.test:443", method=b"CONNECT")).path == b"example.test:443"


def test_white_space_around_values() -> None:
    head = parse(b"POST / HTTP/1.1\r\nHost: \t gateway \t\r\nContent-Length:  7\t \r\nX-A: \t b c \t\r\nX-B:\t\r\n\r\n")
    assert (head.own[b"host"], head.length) == (b"gateway", 7)
    assert head.lines == [b"x-a: b c\r\n", b"x-b: \r\n"]


@pytest.mark.parametrize(
    ("connection", "version", "kept"),
    [
        (None, b"1.1", True),
        (b"keep-alive", b"1.1", True),
        (b"close", b"1.1", False),
        (b"Close", b"1.1", False),
        (b"CLOSE", b"1.1", False),
        (b"keep-alive, close", b"1.1", False),
        (b"x-one , close", b"1.1", False),
        (b"closed", b"1.1", True),
        (None, b"1.0", False),
        (b"keep-alive", b"1.0", True),
        (b"Keep-Alive", b"1.0", True),
        (b"KEEP-ALIVE", b"1.0", True),
        (b"close, keep-alive", b"1.0", False),
        (b"x", b"1.0", False),
    ],
)
def test_keep_alive(connection: bytes | None, version: bytes, kept: bool) -> None:
    lines = [] if connection is None else [b"Connection: " + connection]
    assert parse(get(*lines, version=b"HTTP/" + version)).keep_alive is kept


def test_several_connection_fields() -> None:
    head = parse(get(b"Connection: x-one", b"X-One: 1", b"X-Two: 2", b"connection: close, X-Two", b"X-Three: 3"))
    assert head.lines == [b"x-three: 3\r\n"]
    assert not head.keep_alive


def test_fields_of_one_hop_are_not_forwarded() -> None:
    hops = [b"TE: trailers", b"Trailer: x", b"Keep-Alive: timeout=5", b"Proxy-Authorization: x", b"Proxy-Connection: x"]
    own = [b"Cookie: a", b"Cookie: b", b"Accept-Encoding: gzip", b"X-Forwarded-For: 192.0.2.1", b"Forwarded: for=x"]
    assert parse(get(*hops, *own)).lines == []


@pytest.mark.parametrize(
    ("sound", "kept"), [(b"trace-7", True), (b"a b", False), (b"\xc3\xa9", False), (b"x" * 129, False)]
)
def test_only_a_sound_request_id_is_taken(sound: bytes, kept: bool) -> None:
    assert (b"x-request-id" in parse(get(b"X-Request-ID: " + sound)).own) is kept


def test_upgrade_is_noted() -> None:
    head = parse(get(b"Connection: Upgrade", b"Upgrade: websocket"))
    assert head.upgrade
    assert head.lines == []


def test_an_expectation_of_http_1_0_is_ignored() -> None:
    assert not parse(get(b"Expect: 100-continue", version=b"HTTP/1.0")).expects_continue
    assert parse(get(b"Expect: 100-Continue")).expects_continue


def test_http_1_0_needs_no_host() -> None:
    assert parse(b"GET / HTTP/1.0\r\n\r\n").http10


def test_the_number_of_fields() -> None:
    fields = [b"X-%d: y" % number for number in range(9)]
    assert len(parse(get(*fields), fields=10).lines) == 9
    with pytest.raises(HeadTooLarge, match="more than 9"):
        parse(get(*fields), fields=9)


@pytest.mark.parametrize(
    "name", [b"Content-Length", b"content-length", b"CONTENT-LENGTH"], ids=["usual", "lower", "upper"]
)
def test_a_template_knows_its_own_head(name: bytes) -> None:
    data = b"POST /5?5 HTTP/1.1\r\nX: 5\r\nHost: 5\r\n" + name + b":5\r\nY: 5\r\n\r\n"
    head = parse(data)
    template = Template(data, head)
    assert template.match(data + b"hello") == (5, len(data))
    longer = data.replace(b":5\r\n", b":1234\r\n")
    assert template.match(longer + b"hello") == (1234, len(longer))
    for other in (data[:-1], data[1:], data.replace(b"Y: 5", b"Y: 6"), data.replace(b":5\r\n", b":\r\n"), b""):
        assert template.match(other)[1] == 0


# h11's opinion

Rewrite = Callable[[bytes], bytes]
DIFFERENCES: dict[str, Rewrite] = {
    "RFC 9112, section 2.2: an empty line before a request should be ignored; h11 refuses it": (
        lambda data: data.removeprefix(b"\r\n")
    ),
    "RFC 9112, section 7.1.1: white space before a chunk extension must be taken; h11 refuses it": (
        lambda data: re.sub(rb"(\r\n[0-9a-fA-F]+)[ \t]+;", rb"\1;", data)
    ),
}
"""Where the gateway accepts what h11 does not: the reason, and how the request reads to h11. Absolute form (3.2.2) is
left by h11 to its user to take apart. Every other difference is a fault of the gateway."""

TOKEN = st.sampled_from([b"X-Name", b"x", b"Accept", b"X_y", b"Content-Type", b"te", b"A!#$%&'*+-.^_`|~9"])
FRAMING = st.sampled_from(
    [
        b"Content-Length: 3",
        b"content-length:3",
        b"Content-Length: 0",
        b"Content-Length: 03",
        b"Content-Length: 3,3",
        b"Content-Length: +3",
        b"Content-Length: 3 ",
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: Chunked",
        b"Transfer-Encoding: chunked, identity",
        b"Transfer-Encoding : chunked",
        b"Transfer-Encoding:\tchunked\t",
        b"Transfer-Encoding: \x0bchunked",
        b"Connection: close",
        b"Connection: keep-alive, x-name",
        b"Expect: 100-continue",
        b"Host: other",
    ]
)
VALUE = st.one_of(st.binary(max_size=6), st.text(alphabet="abc \t;,=\"'\r\n\0\x7f\x0b", max_size=8).map(str.encode))
FIELD = st.one_of(
    FRAMING,
    st.tuples(TOKEN, st.sampled_from([b": ", b":", b":\t", b" : ", b";"]), VALUE).map(b"".join),
    st.binary(max_size=8),
)
LINE = st.tuples(
    st.sampled_from([b"GET", b"POST", b"HEAD", b"OPTIONS", b"post", b"P@ST", b""]),
    st.sampled_from([b" ", b"  ", b"\t", b""]),
    st.one_of(
        st.sampled_from([b"/echo", b"/echo?a=b", b"*", b"/e%20", b"http://h/echo", b"echo", b"/e#f", b""]),
        st.binary(max_size=5).map(lambda raw: b"/" + raw),
    ),
    st.sampled_from([b" ", b"  ", b"\t", b""]),
    st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"http/1.1", b""]),
).map(b"".join)
BODIES: list[tuple[list[bytes], list[bytes]]] = [
    ([], [b"", b"abc"]),
    ([b"Content-Length: 3"], [b"abc", b"abcdef", b"ab"]),
    (
        [b"Transfer-Encoding: chunked"],
        [
            b"3\r\nabc\r\n0\r\n\r\n",
            b"3;x=y\r\nabc\r\n0\r\n\r\n",
            b'3;x="y\r\nabc\r\n0\r\n\r\n',
            b"3 ;x\r\nabc\r\n0\r\n\r\n",
            b"03\r\nabc\r\n00\r\nX-Trailer: 1\r\n\r\n",
            b"3\r\nabc\r\n0\r\nX-Trailer : 1\r\n\r\n",
            b"3\nabc\r\n0\r\n\r\n",
            b"3\r\nabcd\r\n0\r\n\r\n",
            b"0x3\r\nabc\r\n0\r\n\r\n",
            b"3 \r\nabc\r\n0\r\n\r\n",
        ],
    ),
]


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A request that is sound, or nearly: up to three of its parts are replaced, added or damaged."""
    framing, bodies = draw(st.sampled_from(BODIES))
    lines = [b"POST /echo HTTP/1.1", b"Host: gateway", *framing, *draw(st.lists(FIELD, max_size=2))]
    ends = [b"\r\n"] * (len(lines) + 1)
    body = draw(st.sampled_from(bodies))
    for fault in draw(st.lists(st.sampled_from(["line", "field", "end", "byte"]), max_size=2)):
        if fault == "line":
            lines[0] = draw(LINE)
        elif fault == "field":
            lines[draw(st.integers(1, len(lines) - 1))] = draw(FIELD)
        elif fault == "end":
            ends[draw(st.integers(0, len(lines)))] = draw(st.sampled_from([b"\n", b"\r", b"\r\r\n", b"\r\n\r\n"]))
        else:
            index = draw(st.integers(0, len(lines) - 1))
            at = draw(st.integers(0, len(lines[index])))
            lines[index] = lines[index][:at] + draw(st.binary(max_size=2)) + lines[index][at + 1 :]
    head = b"".join(line + end for line, end in zip(lines, ends, strict=False))
    return head + ends[-1] + body


def seen_by_h11(data: bytes) -> tuple[bytes, bytes, list[tuple[bytes, bytes]], bytes] | None:
    """Method, target, fields and body of the first request, or None where h11 refuses it or waits for more."""
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    server.receive_data(data)
    request: h11.Request | None = None
    body = b""
    while True:
        try:
            event = server.next_event()
        except h11.RemoteProtocolError:
            return None
        if isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage) and request is not None:
            return request.method, request.target, list(request.headers), body
        else:
            return None


def seen_by_us(data: bytes) -> Held | None:
    """The handler of the first request whose body is whole, or None."""
    wire = Wire()
    wire.sends(data)
    first = wire.application.handlers[0] if wire.application.handlers else None
    return first if first is not None and first.body is not None else None


def forwarded(fields: Iterable[tuple[bytes, bytes]], head: RequestHead) -> list[bytes]:
    """Of h11's fields, those that are not the gateway's own and not named by Connection, as lines."""
    named = {
        option.strip(b" \t") for name, value in fields if name == b"connection" for option in value.lower().split(b",")
    }
    lines = [b"%b: %b\r\n" % field for field in fields if field[0] not in named]
    return [line for line in lines if line in head.lines or line.partition(b":")[0] not in head.own]


@settings(max_examples=300, deadline=None)
@given(requests())
@example(b"\r\n" + get())
@example(get(target=b"http://gateway/echo"))
@example(get(b"Content-Length: 3 ") + b"abc")
@example(b"GET  /echoHTTP/1.1\r\nHost: gateway\r\n\r\n")
def test_h11_accepts_what_we_accept(data: bytes) -> None:
    ours = seen_by_us(data)
    if ours is None:
        return
    for rewrite in DIFFERENCES.values():
        data = rewrite(data)
    theirs = seen_by_h11(data)
    assert theirs is not None, f"h11 refuses {data!r}"
    head = ours.head
    method, target, fields, body = theirs
    assert (head.method, ours.body) == (method, body)
    if target.startswith(b"/") or target == b"*":  # else absolute form
        assert target.partition(b"?")[::2] == (head.path, head.query)
    assert forwarded(fields, head) == head.lines


def test_only_these_errors() -> None:
    with pytest.raises(MalformedHTTP):
        parse(b"\r\n\r\n")
