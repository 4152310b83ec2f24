"""A request head: bytes in, `RequestHead` out, or MalformedHTTP.

httptools (llhttp in strict mode) does the reading and refuses bare CR and LF, folded lines, NUL, white space before a
colon and malformed versions. What it lets through and RFC 9112 leaves in doubt is refused here. No I/O; h11 is the
second opinion in the tests.

One head of seven fields costs about 5 µs. A client that keeps its connection sends the same head again and again, but
for its Content-Length: `Template` recognises it by comparing bytes, for 0.5 µs.
"""

from __future__ import annotations

import re
from typing import Any, Final

import httptools
import msgspec

from gateway.errors import ExpectationFailed, HeadTooLarge, MalformedHTTP, TargetTooLong
from gateway.http1 import HOP_BY_HOP, FramingError, connection_options, content_length

# Fields that the gateway itself acts on, or that concern this connection only: they are never forwarded.
_OWN: Final = HOP_BY_HOP | frozenset(
    (
        b"host",
        b"content-length",
        b"expect",
        b"authorization",
        b"api-key",
        b"x-api-key",
        b"accept-encoding",
        b"content-encoding",
        b"cookie",
        b"origin",
        b"referer",
        b"x-request-id",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-proto",
        b"x-real-ip",
        b"forwarded",
        # These belong to a provider's credential, which is the gateway's.
        b"openai-organization",
        b"openai-project",
    )
)
# A second one of these makes the request ambiguous. RFC 9110, section 5.3, lets other fields be repeated.
_SINGLE: Final = frozenset(
    (
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"authorization",
        b"api-key",
        b"x-api-key",
        b"content-encoding",
        b"expect",
        b"origin",
    )
)
_REQUEST_ID: Final = re.compile(rb"[!-~]{1,128}")
_URL: Final = re.compile(rb"https?://([^/?#@]+)((?:[/?][^#]*)?)", re.IGNORECASE)
_PLAIN_CONNECTION: Final = frozenset((b"keep-alive", b"close", b"Keep-Alive", b"Close"))


class HeadLimits(msgspec.Struct, frozen=True):
    """Bounds of a request head, in bytes and in fields."""

    head_bytes: int = 32 * 1024
    fields: int = 100
    target_bytes: int = 8 * 1024


class RequestHead(msgspec.Struct):
    """A request head that has passed every check.

    `own` holds the fields that concern the gateway, by lower-case name; `lines` the others, ready to be forwarded, each
    as `name: value` in lower case and with its line end, and `block` is these lines joined. `length` is None for a
    chunked body. `endpoint`, `credential`, `course` and `warm` are for whoever serves the request to note what it made
    of the head, since the same object serves further requests of the connection.
    """

    method: bytes
    path: bytes
    query: bytes
    own: dict[bytes, bytes]
    lines: list[bytes]
    length: int | None
    keep_alive: bool
    http10: bool = False
    upgrade: bool = False
    block: bytes = b""
    endpoint: Any = None
    course: Any = None
    warm: Any = None
    credential: bytes | None = None

    @property
    def expects_continue(self) -> bool:
        """The client waits for `100 Continue` before it sends the body (RFC 9110, section 10.1.1)."""
        return b"expect" in self.own

    def all_forwarded(self, name: bytes) -> list[bytes]:
        """Every value of a field that is not the gateway's own. A walk: for rare questions only."""
        start = name + b": "
        return [line[len(start) : -2] for line in self.lines if line.startswith(start)]

    def forwarded(self, name: bytes) -> bytes | None:
        """The first value of a field that is not the gateway's own, or None. A walk: for rare questions only."""
        start = name + b": "
        for line in self.lines:
            if line.startswith(start):
                return line[len(start) : -2]
        return None


class Template:
    """A head with a Content-Length, and where it stands: the same head with another length needs no second parsing."""

    __slots__ = ("_after", "_before", "_value_at", "head")

    def __init__(self, data: bytes, head: RequestHead) -> None:
        at = data.lower().index(b"\r\ncontent-length:") + 17
        value = head.own[b"content-length"]
        at = data.index(value, at)
        self._before = data[:at]
        self._value_at = at
        self._after = data[at + len(value) :]
        self.head = head

    def match(self, data: bytes) -> tuple[int, int]:
        """The body's length and where the body begins, if `data` begins with this head; else (-1, 0)."""
        if data.startswith(self._before):
            at = self._value_at
            end = data.find(b"\r", at, at + 20)
            value = data[at:end]
            if value.isdigit() and data.startswith(self._after, end):
                return int(value), end + len(self._after)
        return -1, 0


class _Collector:
    """What httptools calls. The hooks that are not needed are None, not absent: a failed look-up of each would make a
    parser cost 2 µs instead of 0.2."""

    on_message_begin = on_status = on_headers_complete = on_body = None
    on_message_complete = on_chunk_header = on_chunk_complete = None

    __slots__ = ("fields", "target")

    def __init__(self) -> None:
        self.target = b""
        self.fields: list[tuple[bytes, bytes]] = []

    def on_url(self, url: bytes) -> None:
        self.target = url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value))


def parse_head(data: bytes, limits: HeadLimits) -> RequestHead:
    """Parse one whole head, its blank line included. Raises MalformedHTTP or a kind of it, or ExpectationFailed."""
    collector = _Collector()
    parser: Any = httptools.HttpRequestParser(collector)
    upgrade = False
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        upgrade = True
    except httptools.HttpParserError as error:
        raise MalformedHTTP(f"Malformed HTTP request: {error}. Send one well-formed HTTP/1.1 request.") from None
    line_end = data.find(b"\r\n")
    version = data[line_end - 9 : line_end]
    if (
        data.count(b" ", 0, line_end) != 2
        or (version != b" HTTP/1.1" and version != b" HTTP/1.0")
        or data.startswith((b"\r", b"\n"))  # llhttp skips them
    ):
        raise MalformedHTTP("Malformed request line: it is `METHOD target HTTP/1.1`, with one space between two parts.")
    if len(collector.target) > limits.target_bytes:
        raise TargetTooLong(f"The request target is longer than {limits.target_bytes} bytes.")
    if len(collector.fields) > limits.fields:
        raise HeadTooLarge(f"The request has more than {limits.fields} header fields.")
    if b" \r\n" in data or b"\t\r\n" in data:
        # llhttp leaves white space after a value, which is no part of it (RFC 9112, section 5).
        collector.fields = [(name, value.rstrip(b" \t")) for name, value in collector.fields]
    return _judge(parser.get_method(), version == b" HTTP/1.0", upgrade, collector)


def _judge(method: bytes, http10: bool, upgrade: bool, collector: _Collector) -> RequestHead:
    own: dict[bytes, bytes] = {}
    lines: list[bytes] = []
    for name, value in collector.fields:
        name = name.lower()
        if name not in _OWN:
            lines.append(b"%b: %b\r\n" % (name, value))
        elif name not in own:
            own[name] = value
        elif name in _SINGLE:
            raise MalformedHTTP(f"The field {name.decode()} stands in the request more than once.")
        else:
            own[name] += b", " + value
    request_id = own.get(b"x-request-id")
    if request_id is not None and not _REQUEST_ID.fullmatch(request_id):
        del own[b"x-request-id"]  # it would be echoed, sent on and recorded: the gateway's own is taken instead
    if b"host" not in own and not http10:
        raise MalformedHTTP("The Host field is missing (RFC 9112, section 3.2).")
    path, query = _target(method, collector.target, own)
    length = _body_length(own, http10)
    if b"expect" in own:
        _check_expectation(own, http10)
    keep_alive = not http10
    connection = own.get(b"connection")
    if connection is not None:
        keep_alive = _apply_connection(connection, lines, http10)
    return RequestHead(method, path, query, own, lines, length, keep_alive, http10, upgrade, b"".join(lines))


def _target(method: bytes, target: bytes, own: dict[bytes, bytes]) -> tuple[bytes, bytes]:
    """Path and query of a request target in origin form; absolute form is taken apart (RFC 9112, section 3.2)."""
    if not target.startswith(b"/"):
        if target == b"*" or method == b"CONNECT":
            return target, b""
        url = _URL.fullmatch(target)
        if url is None:
            raise MalformedHTTP("The request target is neither a path nor a URL.")
        own[b"host"], target = url[1], url[2]
        if not target.startswith(b"/"):
            target = b"/" + target
    if b"#" in target:
        raise MalformedHTTP("A fragment has no place in a request target.")
    path, _, query = target.partition(b"?")
    return path, query


def _body_length(own: dict[bytes, bytes], http10: bool) -> int | None:
    encoding = own.get(b"transfer-encoding")
    if encoding is not None:
        if encoding.lower() != b"chunked" or http10 or b"content-length" in own:
            raise MalformedHTTP(
                "Ambiguous body length: only `Transfer-Encoding: chunked`, alone, on HTTP/1.1 is taken."
            )
        return None
    value = own.get(b"content-length")
    if value is None:
        return 0
    try:
        return content_length(value)
    except FramingError as error:
        raise MalformedHTTP(f"{error}.") from None


def _check_expectation(own: dict[bytes, bytes], http10: bool) -> None:
    if own[b"expect"].lower() != b"100-continue":
        raise ExpectationFailed
    if http10:  # RFC 9110, section 10.1.1: ignored in a request of HTTP/1.0
        del own[b"expect"]


def _apply_connection(value: bytes, lines: list[bytes], http10: bool) -> bool:
    """Remove the fields that Connection names; whether the connection may be kept."""
    if value in _PLAIN_CONNECTION:
        return value[0] in b"kK"
    options = connection_options(value)
    lines[:] = [line for line in lines if line.partition(b":")[0] not in options]
    return b"close" not in options and (not http10 or b"keep-alive" in options)
