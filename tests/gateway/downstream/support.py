"""A small application behind a real `Server`: it echoes what it is asked, and lets a test be the handler."""

from __future__ import annotations

from collections.abc import Callable

import h11
import orjson

from gateway.downstream.head import RequestHead
from gateway.downstream.http import DownstreamConnection, DownstreamLimits, Server
from gateway.errors import GatewayError, NotFound
from tests.playbook import Clock, Transport

JSON = b"content-type: application/json\r\n"
LIMITS = DownstreamLimits(body_bytes=1_000_000)


class Held:
    """A handler that answers when the test says so. `events` is what it was told."""

    def __init__(self, head: RequestHead, client: DownstreamConnection) -> None:
        self.head = head
        self.client = client
        self.events: list[str] = []
        self.body: bytes | None = None
        self.on_event: Callable[[str], None] = self.events.append

    def on_body(self, body: bytes) -> None:
        self.body = body
        self.on_event("body")

    def on_body_failed(self, error: GatewayError) -> None:
        self.on_event(f"body failed: {error.code}")
        self.client.refuse(error)

    def on_client_gone(self) -> None:
        self.on_event("gone")

    def on_client_paused(self) -> None:
        self.on_event("paused")

    def on_client_resumed(self) -> None:
        self.on_event("resumed")


class Echo(Held):
    """Answers with what it was asked, as soon as the body is whole."""

    def on_body(self, body: bytes) -> None:
        self.body = body
        head = self.head
        told = {
            "method": head.method.decode(),
            "path": head.path.decode("latin-1"),
            "query": head.query.decode("latin-1"),
            "lines": [line.decode("latin-1") for line in head.lines],
            "body": body.decode("latin-1"),
        }
        self.client.reply(200, JSON, orjson.dumps(told))


class Application:
    """`/echo…` is echoed, `/none` is answered 404 by the application itself, `/hold…` is held for the test."""

    def __init__(self) -> None:
        self.handlers: list[Held] = []
        self.refused: list[GatewayError] = []
        self.on_open: Callable[[Held], None] = lambda handler: None

    def open(self, head: RequestHead, client: DownstreamConnection) -> Held | None:
        if head.path == b"/none":
            client.refuse(NotFound())
            return None
        handler = (Held if head.path.startswith(b"/hold") else Echo)(head, client)
        self.handlers.append(handler)
        self.on_open(handler)
        return handler

    def refuse(self, error: GatewayError, head: RequestHead | None, client: DownstreamConnection) -> None:
        self.refused.append(error)
        client.refuse(error)


class Wire:
    """One client on a connection without a socket: bytes in, bytes out, and a clock that the test moves."""

    def __init__(self, limits: DownstreamLimits = LIMITS) -> None:
        self.application = Application()
        self.clock = Clock(1000.0)
        self.server = Server(self.application, limits, self.clock, lambda: 0.0)
        self.transport = Transport()
        self.connection = self.server()
        self.connection.connection_made(self.transport)

    def sends(self, *reads: bytes) -> None:
        """One read of the gateway for each, as long as it reads."""
        for read in reads:
            if not self.transport.is_closing():
                self.connection.data_received(read)

    def advance(self, seconds: float) -> None:
        self.clock.now += seconds
        self.server.sweep()

    @property
    def answers(self) -> list[tuple[int, bytes]]:
        """Status and body of every answer so far."""
        return answers(self.transport.written, *[handler.head.method for handler in self.application.handlers])

    @property
    def handler(self) -> Held:
        return self.application.handlers[-1]

    @property
    def closed(self) -> bool:
        """The gateway takes no further request on this connection."""
        return self.transport.is_closing() or "eof" in self.transport.events


def answers(written: bytes, *methods: bytes) -> list[tuple[int, bytes]]:
    """A client's reading of what the gateway wrote, by h11: status and body of each whole answer."""
    found: list[tuple[int, bytes]] = []
    rest = written
    while rest:
        client = h11.Connection(h11.CLIENT)
        method = methods[len(found)] if len(found) < len(methods) else b"GET"
        client.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
        client.send(h11.EndOfMessage())
        client.receive_data(rest)
        status, body = 0, b""
        while True:
            event = client.next_event()
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                break
            elif event is h11.NEED_DATA:
                return found
        found.append((status, body))
        rest = client.trailing_data[0]
    return found
