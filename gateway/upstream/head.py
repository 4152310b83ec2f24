"""A response head: bytes in, `ResponseHead` out, or UpstreamInvalid.

httptools (llhttp in strict mode) does the reading and refuses bare CR and LF, folded lines, NUL, white space before a
colon, a malformed status line, and Content-Length that is repeated, empty, no number, or beside Transfer-Encoding.
What it lets through and RFC 9112 leaves in doubt is refused here. No I/O; h11 is the second opinion in the tests.

A head of eight fields costs about 3 µs in all. A parser serves one head: it would want the body's bytes before the
next one, and a new one costs 0.3 µs. Splitting the head by hand was measured and is no faster.
"""

from __future__ import annotations

import enum
from typing import Any, Final

import httptools

from gateway.errors import UpstreamInvalid
from gateway.http1 import HOP_BY_HOP, FramingError, connection_options, content_length
from gateway.types import ResponseHead

MAX_FIELDS: Final = 256
"""Fields of one head; the largest seen from a provider is about 40."""

_FRAMING: Final = frozenset((b"connection", b"transfer-encoding", b"content-length"))


class Body(enum.Enum):
    """How the end of a response's body is known (RFC 9112, section 6.3)."""

    NONE = "no body"
    SIZED = "sized"
    CHUNKED = "chunked"
    UNTIL_CLOSE = "until close"


class _Collector:
    """What httptools calls. The hooks that are not needed are None, not absent: a failed look-up of each would make a
    parser cost 2 µs instead of 0.3."""

    on_message_begin = on_status = on_headers_complete = on_body = None
    on_message_complete = on_chunk_header = on_chunk_complete = None

    __slots__ = ("fields", "framing")

    def __init__(self) -> None:
        self.fields: list[tuple[bytes, bytes]] = []
        self.framing: dict[bytes, bytes] = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in _FRAMING:
            known = self.framing.get(name)
            self.framing[name] = value if known is None else known + b", " + value
        if name not in HOP_BY_HOP:
            self.fields.append((name, value))


def parse_head(data: bytes, *, to_head: bool = False) -> tuple[ResponseHead, Body, bool]:
    """Parse one whole head, its blank line included; `to_head`: it answers a HEAD request.

    Returns the head, how its body ends, and whether the provider keeps the connection (RFC 9112, section 9.3).
    Raises UpstreamInvalid.
    """
    version = data[:9]
    if version != b"HTTP/1.1 " and version != b"HTTP/1.0 ":
        raise UpstreamInvalid("The provider does not answer in HTTP/1.1. Check scheme and port of its base_url.")
    collector = _Collector()
    parser: Any = httptools.HttpResponseParser(collector)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass  # 101: the caller refuses it by its status
    except httptools.HttpParserError as error:
        raise UpstreamInvalid(f"The provider's response head is malformed: {error}.") from None
    fields = collector.fields
    if len(fields) > MAX_FIELDS:
        raise UpstreamInvalid(f"The provider's response has more than {MAX_FIELDS} header fields.")
    head = ResponseHead(parser.get_status_code(), data[13 : data.find(b"\r\n")], fields)
    framing = collector.framing
    if b" \r\n" in data or b"\t\r\n" in data:
        # llhttp leaves the white space after a value, which is no part of it (RFC 9112, section 5).
        head.headers = [(name, value.rstrip(b" \t")) for name, value in fields]
        framing = {name: value.rstrip(b" \t") for name, value in framing.items()}
    keep_alive = version == b"HTTP/1.1 "
    if b"connection" in framing:
        keep_alive = _apply_connection(framing[b"connection"], head, keep_alive)
    body = _frame(head, framing, to_head, version)
    return head, body, keep_alive and body is not Body.UNTIL_CLOSE


def _apply_connection(value: bytes, head: ResponseHead, http11: bool) -> bool:
    """Remove the fields that Connection names; whether the connection is kept."""
    options = connection_options(value)
    if not options <= {b"close", b"keep-alive"}:
        head.headers = [field for field in head.headers if field[0] not in options or field[0] == b"content-length"]
    return b"close" not in options and (http11 or b"keep-alive" in options)


def _frame(head: ResponseHead, framing: dict[bytes, bytes], to_head: bool, version: bytes) -> Body:
    """How the body ends, by the order of RFC 9112, section 6.3."""
    coding = framing.get(b"transfer-encoding")
    if coding is not None and (coding.lower() != b"chunked" or version != b"HTTP/1.1 "):
        raise UpstreamInvalid("The provider's Transfer-Encoding is not plain `chunked` on HTTP/1.1.")
    length = framing.get(b"content-length")
    if length is not None:
        try:
            head.content_length = content_length(length)
        except FramingError as error:
            raise UpstreamInvalid(f"The provider's response is malformed: {error}.") from None
    if to_head:
        return Body.NONE
    if head.status < 200 or head.status in (204, 304):
        head.content_length = 0
        return Body.NONE
    if coding is not None:
        head.chunked = True
        return Body.CHUNKED
    if length is None:
        return Body.UNTIL_CLOSE
    return Body.SIZED if head.content_length else Body.NONE
