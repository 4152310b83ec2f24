"""A conversation's socket to a provider: which target it goes to, and how it comes about.

Targets are tried in the order of their route until one opens a socket; after that the conversation stays with it. It
knows nothing of what the messages say.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Protocol

from gateway.errors import GatewayError, ModelNotFound, UpstreamUnavailable
from gateway.routes import trigger_of
from gateway.socket_ports import Message, Socket, SocketListener, SocketRequest
from gateway.types import Operation

if TYPE_CHECKING:
    from gateway.config.schema import Fallback
    from gateway.routes import SocketLane, Target
    from gateway.services import Services
    from gateway.snapshot import Binding
    from gateway.socket_ports import Opening, Upgrade

_FORWARDED_NOT: Final = re.compile(rb"(?:content-[a-z]+|accept|accept-language|sec-[a-z-]+|pragma|cache-control): ")
"""Fields that say nothing to a provider of WebSockets, or something about another hop."""


class UplinkOwner(Protocol):
    """Who is told of an uplink (`conversation.Session`)."""

    def on_uplink_open(self, uplink: Uplink) -> None:
        """It is open, or will be when this call has returned."""

    def on_uplink_failed(self, uplink: Uplink, error: GatewayError) -> None:
        """There will be none."""

    def on_uplink_message(self, uplink: Uplink, message: Message) -> None:
        """The provider says something."""

    def on_uplink_closed(self, uplink: Uplink, code: int, reason: str) -> None:
        """The provider's socket is gone."""

    def on_uplink_paused(self, uplink: Uplink) -> None:
        """The provider reads slower than it is sent to."""

    def on_uplink_resumed(self, uplink: Uplink) -> None:
        """The provider has caught up."""


class Uplink:
    """One provider's socket. Messages can be given to it once it is open."""

    __slots__ = (
        "_attempts",
        "_began",
        "_candidates",
        "_fallback",
        "_opening",
        "_operation",
        "_owner",
        "_services",
        "_turn",
        "_upgrade",
        "binding",
        "socket",
        "target",
    )  # fmt: skip

    target: Target

    def __init__(
        self,
        services: Services,
        owner: UplinkOwner,
        upgrade: Upgrade,
        binding: Binding,
        operation: Operation,
        candidates: Sequence[Target],
        fallback: Fallback,
    ) -> None:
        self._services = services
        self._owner = owner
        self._upgrade = upgrade
        self._operation = operation
        self._candidates = candidates
        self._fallback = fallback
        self._turn = 0
        self._attempts = 0
        self._began = 0.0
        self._opening: Opening | None = None
        self.binding = binding
        self.socket: Socket | None = None

    def __repr__(self) -> str:
        state = "opening" if self._opening else "open" if self.socket and self.socket.is_open else "closed"
        return f"<Uplink to {self.target.id} {state}>"

    def dial(self) -> None:
        """Ask the next target that can be used for a socket. Raises ModelNotFound or UpstreamUnavailable."""
        now = self._services.clock()
        while self._turn < len(self._candidates):
            target = self._candidates[self._turn]
            self._turn += 1
            lane = target.sockets.get(self._operation)
            if lane is not None and target.usable(now):
                self._attempts += 1
                self.target = target
                self._began = now
                request = self._request(target, lane)
                self._opening = self._services.sockets.open(request, self)
                return
        raise self._unusable()

    def _request(self, target: Target, lane: SocketLane) -> SocketRequest:
        upgrade = self._upgrade
        lines = [
            line
            for line in upgrade.head.lines
            if not _FORWARDED_NOT.match(line) and line.partition(b":")[0] not in target.own_fields
        ]
        credential = self.binding.credential or lane.credential
        shown = b"x-request-id: %b\r\n" % upgrade.request_id.encode("latin-1")
        return SocketRequest(
            target.destination,
            lane.target(upgrade.head.query),
            b"".join((lane.fields, credential, *lines, shown)),
            upgrade.subprotocols,
            compress=upgrade.compressible,
            passthrough=bool(self.binding.credential),
        )

    def _unusable(self) -> GatewayError:
        able = [target for target in self._candidates if self._operation in target.sockets]
        if not able:
            providers = " or ".join(sorted({target.provider for target in self._candidates}))
            return ModelNotFound(
                f"The provider {providers} of this model does not offer {self._operation.value} over a WebSocket.",
                param="model",
            )
        faults = sorted({target.fault for target in able if target.fault})
        why = f": {'; '.join(faults)}." if faults else "; try again in a moment."
        return UpstreamUnavailable(f"No target of this model can be used right now{why}")

    # What the dialler tells

    def on_socket_open(self, socket: Socket) -> SocketListener:
        """A target has opened a socket."""
        self._opening = None
        self.socket = socket
        self.target.in_flight += 1
        self.target.answered(self._services.clock() - self._began)
        self._owner.on_uplink_open(self)
        return self

    def on_socket_failed(self, error: GatewayError) -> None:
        """This target will not: another one, where the operator allows it, or the error."""
        self._opening = None
        trigger = trigger_of(error)
        if trigger is not None:
            self.target.breaker.failed(self._services.clock())
        else:
            self.target.breaker.succeeded()
        if trigger in self._fallback.triggers and self._attempts < self._fallback.max_attempts:
            try:
                self.dial()
            except GatewayError:
                pass
            else:
                return
        self._owner.on_uplink_failed(self, error)

    # What the conversation asks

    def forward(self, message: Message) -> None:
        """A client's message as it was read."""
        assert self.socket is not None
        self.socket.forward(message)

    def send(self, data: bytes, *, is_text: bool = True) -> None:
        """A message with this content."""
        assert self.socket is not None
        if is_text:
            self.socket.send_text(data)
        else:
            self.socket.send_binary(data)

    def pause_reading(self, reason: str) -> None:
        """Hear no further message until all reasons are gone."""
        if self.socket is not None:
            self.socket.pause_reading(reason)

    def resume_reading(self, reason: str) -> None:
        """One reason is gone."""
        if self.socket is not None:
            self.socket.resume_reading(reason)

    def close(self, code: int | None, reason: str) -> None:
        """The conversation is over."""
        opening, self._opening = self._opening, None
        if opening is not None:
            opening.cancel()
        if self.socket is not None:
            self.socket.close(code, reason)

    # What the socket tells

    def on_message(self, message: Message) -> None:
        """The provider says something."""
        self._owner.on_uplink_message(self, message)

    def on_closed(self, code: int, reason: str) -> None:
        """The provider's socket is gone."""
        self.target.in_flight -= 1
        self._owner.on_uplink_closed(self, code, reason)

    def on_paused(self) -> None:
        """The provider reads slowly."""
        self._owner.on_uplink_paused(self)

    def on_resumed(self) -> None:
        """It has caught up."""
        self._owner.on_uplink_resumed(self)
