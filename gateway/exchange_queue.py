"""Requests that come as messages over a WebSocket, each answered by an ordinary `Exchange`, one after the other.

So limits, policies, translation, fallback and records are those of HTTP, and every provider is reached. A few requests
may wait while one is answered; then the client is no longer read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec

from gateway import surface
from gateway.errors import InvalidAPIKey
from gateway.exchange import Exchange
from gateway.message_client import MessageClient

if TYPE_CHECKING:
    from gateway.errors import GatewayError
    from gateway.services import Services
    from gateway.snapshot import Binding
    from gateway.socket_ports import Socket, Upgrade

MAX_WAITING: Final = 16
MAX_WAITING_BYTES: Final = 256 * 1024
_PAUSE: Final = "requests"

Send = Callable[[bytes], None]


class ExchangeQueue:
    """The requests of one socket."""

    def __init__(self, services: Services, upgrade: Upgrade, path: bytes) -> None:
        """`path` is where such a request would be sent over HTTP."""
        endpoint = msgspec.structs.replace(surface.find(b"POST", path), model=upgrade.model)
        lines = [line for line in upgrade.head.lines if not line.startswith((b"content-type:", b"accept:"))]
        lines.append(b"content-type: application/json\r\n")
        self._services = services
        self._peer = upgrade.peer
        self._endpoint = endpoint
        self._head = msgspec.structs.replace(
            upgrade.head,
            method=b"POST",
            path=path,
            lines=lines,
            block=b"".join(lines),
            endpoint=endpoint,
            upgrade=False,
        )
        self._waiting: deque[tuple[Binding, bytes, Send]] = deque()
        self._bytes = 0
        self._exchange: Exchange | None = None
        self._advancing = False
        self._full = False
        self._over = False
        self.socket: Socket
        """The client's; set once its upgrade is answered."""

    def __repr__(self) -> str:
        return f"<ExchangeQueue {len(self._waiting)} requests wait, {self._exchange!r} is answered>"

    def ask(self, binding: Binding, body: bytes, send: Send) -> None:
        """A request, of this key; `send` takes each message of its answer."""
        self._waiting.append((binding, body, send))
        self._bytes += len(body)
        self._advance()
        if self._is_full and not self._full:
            self._full = True
            self.socket.pause_reading(_PAUSE)

    @property
    def _is_full(self) -> bool:
        return len(self._waiting) >= MAX_WAITING or self._bytes >= MAX_WAITING_BYTES

    def _advance(self) -> None:
        """Answer what waits, unless an answer is under way. A loop, as a request that is refused at once calls back."""
        if self._advancing:
            return
        self._advancing = True
        try:
            while self._waiting and self._exchange is None and not self._over:
                asked, body, send = self._waiting.popleft()
                self._bytes -= len(body)
                client = MessageClient(self._peer, send, self._done)
                binding = self._services.snapshot.renewed(asked, self._services.wall())
                if binding is None:
                    client.refuse(InvalidAPIKey("This gateway key was revoked or has expired."))
                    continue
                self._exchange = Exchange(self._services, self._endpoint, binding, self._head, client)
                self._exchange.on_body(body)
        finally:
            self._advancing = False
        if self._full and not self._is_full:
            self._full = False
            self.socket.resume_reading(_PAUSE)

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

    def end(self, error: GatewayError | None = None) -> None:
        """The socket closes: what is under way is cancelled, at the provider too, or ended by an error."""
        self._over = True
        self._waiting.clear()
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return
        if error is None:
            exchange.on_client_gone()
        else:
            exchange.end_early(error)
