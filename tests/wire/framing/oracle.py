"""What h11 makes of the same bytes. It is strict, it is not ours, and it shares no code with llhttp.

seen = requests_by_h11(data)
seen.requests  those that are whole, in order
seen.refused   it found something that is no HTTP and stopped there
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import h11

_ROOM = 1 << 20


class Request(NamedTuple):
    """One whole request, its fields in lower case and in order."""

    method: bytes
    target: bytes
    fields: list[tuple[bytes, bytes]]
    body: bytes
    version: bytes
    trailers: list[tuple[bytes, bytes]]


class Seen(NamedTuple):
    """What stands in the bytes of one connection."""

    requests: list[Request]
    raw: list[bytes]
    """The bytes of each of them."""
    refused: bool
    rest: bytes
    """What stands behind the last whole request."""


def requests_by_h11(data: bytes, rewrite: Callable[[bytes], bytes] = bytes) -> Seen:
    """The requests of one connection, until it ends, closes or cannot be understood. `rewrite` is applied to what is
    left before each of them."""
    found: list[Request] = []
    raw: list[bytes] = []
    rest = data
    while rest:
        rest = rewrite(rest)
        server = h11.Connection(h11.SERVER, max_incomplete_event_size=_ROOM)
        server.receive_data(rest)
        try:
            request = _next(server)
        except h11.RemoteProtocolError:
            return Seen(found, raw, True, rest)
        if request is None:
            break
        found.append(request)
        raw.append(rest[: len(rest) - len(server.trailing_data[0])])
        rest = server.trailing_data[0]
        if server.their_state is h11.MUST_CLOSE and not _is_kept_by_us(request):
            break
    return Seen(found, raw, False, rest)


def _is_kept_by_us(request: Request) -> bool:
    """HTTP/1.0 with `Connection: keep-alive`: the gateway honours it (`differences.TAKEN`)."""
    options = [
        option.strip().lower()
        for name, value in request.fields
        if name == b"connection"
        for option in value.split(b",")
    ]
    return request.version == b"1.0" and b"keep-alive" in options and b"close" not in options


def _next(server: h11.Connection) -> Request | None:
    head: h11.Request | None = None
    pieces = []
    while True:
        event = server.next_event()
        if isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            pieces.append(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage):
            assert head is not None
            trailers = list(event.headers)
            return Request(head.method, head.target, list(head.headers), b"".join(pieces), head.http_version, trailers)
        else:
            return None


class Response(NamedTuple):
    """One response. `whole`: it has come to its end."""

    status: int
    fields: list[tuple[bytes, bytes]]
    body: bytes
    whole: bool
    kept: bool
    """The connection may serve again, and nothing stands behind the response."""
    trailers: Sequence[tuple[bytes, bytes]] = ()


def response_by_h11(data: bytes, *, closed: bool, method: str = "POST") -> Response | None:
    """The final response to one request. `closed`: the connection ends after these bytes. None: it is no HTTP, or not
    even a head."""
    client = h11.Connection(h11.CLIENT, max_incomplete_event_size=_ROOM)
    client.send(h11.Request(method=method, target="/", headers=[("host", "x"), ("content-length", "0")]))
    client.send(h11.EndOfMessage())
    if data:
        client.receive_data(data)
    if closed:
        client.receive_data(b"")
    head: h11.Response | None = None
    pieces: list[bytes] = []
    try:
        while True:
            event = client.next_event()
            if isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                pieces.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                kept = client.their_state is h11.DONE and not client.trailing_data[0]
                assert head is not None
                trailers = list(event.headers)
                return Response(head.status_code, list(head.headers), b"".join(pieces), True, kept, trailers)
            elif event is h11.NEED_DATA or event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                break
    except h11.RemoteProtocolError:
        pass
    return Response(head.status_code, list(head.headers), b"".join(pieces), False, False) if head else None
