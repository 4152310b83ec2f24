"""Chat over a WebSocket: each message is a chat request, and the answer's chunks come back as messages.

docs/websocket.md describes the protocol; `exchange_queue` does the work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.errors import GatewayError, InvalidAPIKey
from gateway.exchange_queue import ExchangeQueue
from gateway.socket_ports import Message, Socket, close_code

if TYPE_CHECKING:
    from gateway.services import Services
    from gateway.socket_ports import Upgrade

_NEVER: Final = float("inf")


class ChatSocket:
    """One client's socket."""

    def __init__(self, services: Services, upgrade: Upgrade) -> None:
        """Answers the upgrade at once."""
        self.services = services
        self.binding = upgrade.binding
        self.deadline = self.total_deadline = _NEVER
        self._meters = services.socket_metrics[upgrade.kind.value]
        self._requests = ExchangeQueue(services, upgrade, b"/v1/chat/completions")
        self._over = False
        fields = b"x-request-id: %b\r\n" % upgrade.request_id.encode("latin-1")
        # A chunk of an answer is too short for compression to be worth what it costs.
        self._socket: Socket = upgrade.accept(self, fields=fields, compress=False)
        self._requests.socket = self._socket
        self._meters.open.inc()
        services.active.add(self)

    def __repr__(self) -> str:
        return f"<ChatSocket {'over' if self._over else 'open'}, {self._requests!r}>"

    def on_message(self, message: Message) -> None:
        """A request."""
        self._meters.came(message.size)
        if self._over:
            return
        binding = self.services.snapshot.renewed(self.binding, self.services.wall())
        if binding is None:
            self.end_early(InvalidAPIKey("This gateway key was revoked or has expired."))
            return
        self.binding = binding
        self._requests.ask(binding, message.data, self._send)

    def _send(self, message: bytes) -> None:
        if not self._over:
            self._meters.went(len(message))
            self._socket.send_text(message)

    def on_paused(self) -> None:
        """The client reads slowly."""
        self._requests.on_paused()

    def on_resumed(self) -> None:
        """The client has caught up."""
        self._requests.on_resumed()

    def on_closed(self, code: int, reason: str) -> None:
        """The client has left."""
        self._end(None)

    def on_client_gone(self) -> None:
        """Never: the upgrade was answered at once."""
        self._end(None)

    def end_early(self, error: GatewayError) -> None:
        """The key was revoked, or the worker must go."""
        if not self._over:
            self._end(error)
            self._socket.close(close_code(error), error.message)

    def on_deadline(self, now: float) -> None:
        """It waits for nothing itself; exchanges have deadlines of their own."""

    def _end(self, error: GatewayError | None) -> None:
        if self._over:
            return
        self._requests.end(error)
        self._over = True
        self.services.active.discard(self)
        self._meters.open.dec()
