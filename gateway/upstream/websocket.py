"""The provider's side of a WebSocket handshake (RFC 6455, section 4.1), and how the socket comes about.

A provider's socket is dialled as every connection to a provider is: the same names, addresses, proxies and trusted
certificates; a proxy always makes a tunnel, since it would not know what to do with frames (section 4.1, step 3).
wsproto writes the request and judges the answer. A socket serves one conversation and is never pooled. What a provider
says instead of an upgrade is its error, in the gateway's one error tree.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import socket as sockets_api
from collections.abc import Callable
from typing import Any, Final, cast

from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, RejectConnection, RejectData, Request
from wsproto.utilities import ProtocolError

from gateway.deflate import Deflate
from gateway.errors import GatewayError, InternalError, UpstreamInvalid, UpstreamReset, UpstreamTimeout
from gateway.http1 import header_lines
from gateway.socket_ports import SocketOpener, SocketRequest
from gateway.types import ResponseHead
from gateway.upstream.connection import KEEPALIVE_PROBE_SECONDS, MAX_HEAD, MAX_INTERIM
from gateway.upstream.dial import Dialler
from gateway.upstream.egress import Forwarding
from gateway.websocket import Socket, Sockets
from translators import provider_errors

MAX_REFUSAL: Final = 64 * 1024
"""Bytes of a refusal's body that are read: a provider's error is a few hundred."""

_log = logging.getLogger(__name__)


class State(enum.Enum):
    """How far an opening has come. `steps` are the states that may follow."""

    DIALLING = "dialling"
    SHAKING_HANDS = "waiting for the answer"
    REFUSED = "reading a refusal"
    DONE = "done"

    steps: tuple[State, ...]


State.DIALLING.steps = (State.SHAKING_HANDS, State.DONE)
State.SHAKING_HANDS.steps = (State.REFUSED, State.DONE)
State.REFUSED.steps = (State.DONE,)
State.DONE.steps = ()


class UpstreamSockets:
    """Opens sockets to providers, for one worker."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sockets: Sockets, dialler: Dialler, clock: Callable[[], float]
    ) -> None:
        self.loop = loop
        self.sockets = sockets
        self.dialler = dialler
        self.clock = clock
        self.openings: set[SocketOpening] = set()

    def __repr__(self) -> str:
        return f"<UpstreamSockets {len(self.openings)} opening>"

    def open(self, request: SocketRequest, opener: SocketOpener) -> SocketOpening:
        """Begin to open a socket; the opener hears how it ends."""
        opening = SocketOpening(self, request, opener)
        self.openings.add(opening)
        return opening

    def sweep(self, now: float) -> None:
        """Give up what takes too long; called every 100 ms."""
        for opening in [opening for opening in self.openings if opening.deadline < now]:
            opening.on_deadline()

    def close(self) -> None:
        """Give everything up; no opener is called any more."""
        for opening in list(self.openings):
            opening.cancel()


class SocketOpening(asyncio.Protocol):
    """One socket in the making."""

    def __init__(self, owner: UpstreamSockets, request: SocketRequest, opener: SocketOpener) -> None:
        self._owner = owner
        self._request = request
        self._opener = opener
        self._state = State.DIALLING
        self._transport: asyncio.Transport | None = None
        self._deflate = Deflate()
        self._handshake: Any = WSConnection(ConnectionType.CLIENT)  # wsproto's own type is private
        self._received = b""
        self._interim = 0
        self._refusal: RejectConnection | None = None
        self._body = b""
        self.deadline = owner.clock() + request.destination.timeouts.connect_seconds
        self._task = owner.loop.create_task(self._dial(), name=f"open a socket to {request.destination.name}")

    def __repr__(self) -> str:
        return f"<SocketOpening {self._request.destination.name} {self._state.value}>"

    def _enter(self, state: State) -> None:
        assert state in self._state.steps, f"{self!r} cannot become {state.value}"
        self._state = state

    def cancel(self) -> None:
        """Nobody wants the socket any more."""
        if self._state is not State.DONE:
            self._finish()
            self._abort()

    # What the dialler asks of a connection

    @property
    def closed(self) -> bool:
        """The provider has closed already."""
        return self._state is State.DONE

    def forward_through(self, forwarding: Forwarding) -> None:
        """Never called: a socket goes through a tunnel."""
        raise NotImplementedError

    async def _dial(self) -> None:
        try:
            await self._owner.dialler.dial(self._request.destination, self, tunnel=True)
        except GatewayError as error:
            self._fail(error)
        except Exception as fault:
            _log.exception("opening a socket for %r failed unexpectedly", self)
            self._fail(InternalError(str(fault)))

    # Transport events

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._state is State.DONE:
            self._abort()
            return
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (sockets_api.AF_INET, sockets_api.AF_INET6):
            sock.setsockopt(sockets_api.IPPROTO_TCP, sockets_api.TCP_NODELAY, 1)
            sock.setsockopt(sockets_api.SOL_SOCKET, sockets_api.SO_KEEPALIVE, 1)
            if hasattr(sockets_api, "TCP_KEEPIDLE"):
                sock.setsockopt(sockets_api.IPPROTO_TCP, sockets_api.TCP_KEEPIDLE, KEEPALIVE_PROBE_SECONDS)
        self._enter(State.SHAKING_HANDS)
        self.deadline = self._owner.clock() + self._request.destination.timeouts.first_byte_seconds
        self._transport.write(self._handshake.send(self._asked()))

    def _asked(self) -> Request:
        request = self._request
        pairs = [line.split(b": ", 1) for line in request.fields.split(b"\r\n") if line]
        fields = [(name.lower(), value) for name, value in pairs]
        host = next((value for name, value in fields if name == b"host"), None)
        return Request(
            host=(host or str(request.destination.origin).partition("://")[2].encode()).decode("latin-1"),
            target=request.target.decode("latin-1"),
            subprotocols=list(request.subprotocols),
            extensions=[self._deflate] if request.compress else [],
            extra_headers=[field for field in fields if field[0] != b"host"],
        )

    def data_received(self, data: bytes) -> None:
        try:
            if self._state is State.SHAKING_HANDS:
                self._take_head(data)
            elif self._state is State.REFUSED:
                self._take(data)
        except (ProtocolError, ValueError) as error:
            self._fail(UpstreamInvalid(f"The provider's WebSocket handshake is wrong: {error}."))

    def _take_head(self, data: bytes) -> None:
        """Collect a head, skip interim ones; what follows the one that opens the socket is frames."""
        data = self._received + data
        while (end := data.find(b"\r\n\r\n", 0, MAX_HEAD) + 4) >= 4:
            if not data.startswith(b"HTTP/1.1 1"):
                self._received = b""
                self._take(data)
                return
            if data.startswith(b"HTTP/1.1 101 "):
                self._received = data[end:]
                self._take(data[:end])
                return
            self._interim += 1
            if self._interim > MAX_INTERIM:
                raise ValueError("there are too many interim responses before it")
            data = data[end:]
        if len(data) > MAX_HEAD:
            raise ValueError("its head is too large")
        self._received = data

    def _take(self, data: bytes | None) -> None:
        """Have wsproto read the answer; None: it has ended."""
        self._handshake.receive_data(data)
        for event in self._handshake.events():
            if isinstance(event, AcceptConnection):
                self._open(event.subprotocol)
            elif isinstance(event, RejectConnection):
                self._enter(State.REFUSED)
                self._refusal = event
                if not event.has_body:
                    self._refuse()
            elif isinstance(event, RejectData):
                self._body += event.data
                if event.body_finished or len(self._body) > MAX_REFUSAL:
                    self._refuse()
            if self._state is State.DONE:
                return

    def eof_received(self) -> bool:
        if self._state is State.REFUSED:
            try:
                self._take(None)
            except ProtocolError:
                self._refuse()  # what has come says more than that some of it is missing
        else:
            self._lose()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        if self._state is State.REFUSED:
            self._refuse()
        else:
            self._lose()

    # Ends

    def on_deadline(self) -> None:
        """It takes too long."""
        origin, timeouts = self._request.destination.origin, self._request.destination.timeouts
        if self._state is State.DIALLING:
            self._fail(UpstreamTimeout(f"{origin} took more than {timeouts.connect_seconds:g} s to connect."))
        else:
            seconds = timeouts.first_byte_seconds
            self._fail(UpstreamTimeout(f"{origin} took more than {seconds:g} s to answer the WebSocket handshake."))

    def _open(self, subprotocol: str | None) -> None:
        transport = self._transport
        assert transport is not None
        self._finish()
        socket = Socket(self._owner.sockets, masks=True, subprotocol=subprotocol, deflate=self._deflate)
        socket.prepare(transport)
        try:
            listener = self._opener.on_socket_open(socket)
        except Exception as fault:
            self._owner.sockets.report(repr(self._opener), fault)
            socket.abort()
        else:
            socket.take_over(listener, self._received)

    def _refuse(self) -> None:
        refusal = self._refusal
        assert refusal is not None
        raw = header_lines((bytes(name), bytes(value)) for name, value in refusal.headers)
        head = ResponseHead(refusal.status_code, b"", raw)
        self._fail(
            provider_errors.read(
                head, self._body, self._request.destination.name, passthrough=self._request.passthrough
            )
        )

    def _lose(self) -> None:
        self._fail(UpstreamReset("The provider closed the connection before it answered the WebSocket handshake."))

    def _fail(self, error: GatewayError) -> None:
        if self._state is not State.DONE:
            self._finish()
            self._abort()
            self._opener.on_socket_failed(error)

    def _finish(self) -> None:
        self._state = State.DONE
        self._owner.openings.discard(self)

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
        if self._task is not asyncio.current_task(self._owner.loop):
            self._task.cancel()
