"""Chat over a WebSocket: each message is a chat request, and the answer's chunks come back as messages.

Every request is an ordinary `Exchange`, so limits, policies, translation, fallback and records are those of HTTP, and
every provider is reached. Requests on one socket are answered one after the other, in their order; a few may wait.
docs/websocket.md describes the protocol.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import msgspec

from gateway import surface
from gateway.errors import GatewayError, InvalidAPIKey
from gateway.exchange import Exchange
from gateway.message_client import MessageClient
from gateway.socket_ports import Message, Socket, close_code

if TYPE_CHECKING:
    from gateway.downstream.head import RequestHead
    from gateway.services import Services
    from gateway.socket_ports import Upgrade
    from gateway.surface import Endpoint

MAX_WAITING: Final = 16
MAX_WAITING_BYTES: Final = 256 * 1024
"""Requests that wait while one is answered; then the client is no longer read."""
_NEVER: Final = float("inf")


class ChatSocket:
    """One client's socket."""

    def __init__(self, services: Services, upgrade: Upgrade) -> None:
        """Answers the upgrade at once."""
        self.services = services
        self.binding = upgrade.binding
        self.deadline = self.total_deadline = _NEVER
        self._peer = upgrade.peer
        self._endpoint, self._head = request_of(upgrade, b"/v1/chat/completions")
        self._meters = services.socket_metrics[upgrade.kind.value]
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._exchange: Exchange | None = None
        self._advancing = False
        self._full = False
        self._over = False
        fields = b"x-request-id: %b\r\n" % upgrade.request_id.encode("latin-1")
        # A chunk of an answer is too short for compression to be worth what it costs.
        self._socket: Socket = upgrade.accept(self, fields=fields, compress=False)
        self._meters.open.inc()
        services.active.add(self)

    def __repr__(self) -> str:
        state = "over" if self._over else "open"
        return f"<ChatSocket {state}, {len(self._waiting)} requests wait, {self._exchange!r} is answered>"

    def on_message(self, message: Message) -> None:
        """A request."""
        self._meters.came(message.size)
        if self._over:
            return
        self._waiting.append(message.data)
        self._waiting_bytes += message.size
        self._advance()
        full = len(self._waiting) >= MAX_WAITING or self._waiting_bytes >= MAX_WAITING_BYTES
        if full and not self._full:
            self._full = True
            self._socket.pause_reading("requests")

    def _advance(self) -> None:
        """Answer what waits, unless an answer is under way. A loop, as one that is refused at once calls back."""
        if self._advancing:
            return
        self._advancing = True
        try:
            while self._waiting and self._exchange is None and not self._over:
                body = self._waiting.popleft()
                self._waiting_bytes -= len(body)
                self._answer(body)
        finally:
            self._advancing = False
        if self._full and len(self._waiting) < MAX_WAITING and self._waiting_bytes < MAX_WAITING_BYTES:
            self._full = False
            self._socket.resume_reading("requests")

    def _answer(self, body: bytes) -> None:
        binding = self.services.snapshot.renewed(self.binding)
        if binding is None:
            self.end_early(InvalidAPIKey("This gateway key was revoked or has expired."))
            return
        self.binding = binding
        client = MessageClient(self._peer, self._send, self._done)
        exchange = self._exchange = Exchange(self.services, self._endpoint, binding, self._head, client)
        exchange.on_body(body)

    def _send(self, message: bytes) -> None:
        if not self._over:
            self._meters.went(len(message))
            self._socket.send_text(message)

    def _done(self) -> None:
        self._exchange = None
        self._advance()

    def on_paused(self) -> None:
        """The client reads slowly: so does the exchange."""
        if self._exchange is not None:
            self._exchange.on_client_paused()

    def on_resumed(self) -> None:
        """The client has caught up."""
        if self._exchange is not None:
            self._exchange.on_client_resumed()

    def on_closed(self, code: int, reason: str) -> None:
        """The client has left: what is under way is cancelled, at the provider too."""
        self._end()

    def on_client_gone(self) -> None:
        """Never: the upgrade was answered at once."""
        self._end()

    def end_early(self, error: GatewayError) -> None:
        """The key was revoked, or the worker must go."""
        if self._over:
            return
        exchange = self._exchange
        if exchange is not None:
            exchange.end_early(error)
        self._end()
        self._socket.close(close_code(error), error.message)

    def on_deadline(self, now: float) -> None:
        """It waits for nothing itself; exchanges have deadlines of their own."""

    def _end(self) -> None:
        if self._over:
            return
        self._over = True
        self._waiting.clear()
        self.services.active.discard(self)
        self._meters.open.dec()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.on_client_gone()


def request_of(upgrade: Upgrade, path: bytes) -> tuple[Endpoint, RequestHead]:
    """Endpoint and head of the HTTP requests that the messages of a socket stand for."""
    endpoint = msgspec.structs.replace(surface.find(b"POST", path), model=upgrade.model)
    lines = [line for line in upgrade.head.lines if not line.startswith((b"content-type:", b"accept:"))]
    lines.append(b"content-type: application/json\r\n")
    head = msgspec.structs.replace(
        upgrade.head, method=b"POST", path=path, lines=lines, block=b"".join(lines), endpoint=endpoint, upgrade=False
    )
    return endpoint, head
