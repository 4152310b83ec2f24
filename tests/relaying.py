"""A gateway's data plane with a plain conversation: two sockets, and everything that one says goes to the other.

    async with gateway_before(tmp_path, Echo()) as gateway:
        client = await gateway.connect()

The server, the application, the sockets of both sides and the dialler are the real ones; only the conversation, which
would look at messages, is not, so that what the protocol makes of any message can be seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

from gateway.config.schema import AuthMode
from gateway.downstream.http import DownstreamLimits, Server
from gateway.errors import GatewayError
from gateway.services import Services
from gateway.socket_ports import INTERNAL_ERROR, VANISHED, Message, Opening, Socket, SocketRequest, Upgrade
from gateway.types import Destination, Origin
from gateway.upgrades import Upgrades
from gateway.upstream.pool import Pools
from gateway.upstream.websocket import UpstreamSockets
from gateway.websocket import SocketLimits, Sockets
from tests.playbook import KEY, Play
from tests.websockets import Peer, Provider

MIB = 1 << 20
REALTIME = "/v1/realtime?model=gpt-test"


class Side:
    """Hears of one socket, for the other."""

    def __init__(self, relay: Relay, name: str) -> None:
        self.relay = relay
        self.name = name
        self.socket: Socket | None = None
        self.paused = asyncio.Event()

    @property
    def other(self) -> Side:
        return self.relay.provider if self is self.relay.client else self.relay.client

    def on_message(self, message: Message) -> None:
        assert self.other.socket is not None
        self.other.socket.forward(message)

    def on_closed(self, code: int, reason: str) -> None:
        self.relay.ends.append((self.name, code))
        other = self.other.socket
        if other is not None:
            other.close(INTERNAL_ERROR if code == VANISHED else code, reason)

    def on_paused(self) -> None:
        self.paused.set()
        if self.other.socket is not None:
            self.other.socket.pause_reading(self.name)

    def on_resumed(self) -> None:
        if self.other.socket is not None:
            self.other.socket.resume_reading(self.name)


class Relay:
    """A conversation that forwards everything. `ends` are what its sides have seen."""

    def __init__(self, gateway: Gateway, upgrade: Upgrade) -> None:
        self.upgrade = upgrade
        self.client = Side(self, "client")
        self.provider = Side(self, "provider")
        self.ends: list[tuple[str, int]] = []
        self.compresses = gateway.compresses
        request = SocketRequest(
            Destination("one", Origin("127.0.0.1", gateway.provider.port, tls=False)),
            b"/v1/realtime",
            b"host: provider\r\n" + upgrade.head.block,
            upgrade.subprotocols,
            compress=upgrade.compressible,
        )
        self.opening: Opening = gateway.upstream.open(request, self)

    def on_socket_open(self, socket: Socket) -> Side:
        self.provider.socket = socket
        self.client.socket = self.upgrade.accept(
            self.client,
            subprotocol=socket.subprotocol,
            fields=b"x-more: 1\r\n",
            compress=socket.compressed or self.compresses,
        )
        return self.provider

    def on_socket_failed(self, error: GatewayError) -> None:
        self.upgrade.refuse(error)

    def on_client_gone(self) -> None:
        self.opening.cancel()


class Gateway:
    """A server whose upgrades are relayed to one provider."""

    def __init__(self, folder: Path, provider: Provider, mode: AuthMode, limits: SocketLimits) -> None:
        self.play = Play(folder, mode=mode)
        self.provider = provider
        self.limits = limits
        self.relays: list[Relay] = []
        self.compresses = False
        """Whether compression is agreed on with a client though the provider does without."""
        self.fault: Exception | None = None

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        loop = asyncio.get_running_loop()
        self.pools = Pools(loop, clock=loop.time)
        self.sockets = Sockets(self.limits, time.monotonic, lambda where, fault: self.play.faults.append(fault))
        self.upstream = UpstreamSockets(loop, self.sockets, self.pools.dialler, loop.time)
        application = self.play.application
        self.upgrades = application.upgrades = Upgrades(self.play.services, self.sockets, self.converse, enabled=True)
        self.downstream = Server(application, DownstreamLimits(), time.monotonic, time.time)
        self._server = await loop.create_server(self.downstream, "127.0.0.1", 0, ssl=tls)
        self.port: int = self._server.sockets[0].getsockname()[1]

    def converse(self, services: Services, upgrade: Upgrade) -> Relay:
        if self.fault is not None:
            raise self.fault
        self.relays.append(Relay(self, upgrade))
        return self.relays[-1]

    async def stop(self) -> None:
        self._server.close()
        self.sockets.abort()
        self.upstream.close()
        for connection in list(self.downstream.connections):
            connection.close()
        self.pools.close()
        await asyncio.sleep(0)

    async def connect(self, target: str = REALTIME, **more: object) -> Peer:
        headers = more.pop("headers", (("authorization", f"Bearer {KEY.decode()}"),))
        return await Peer.connect(self.port, target, headers=headers, **more)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def gateway_before(
    folder: Path,
    provider: Provider,
    mode: AuthMode = AuthMode.REQUIRED,
    message_bytes: int = MIB,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Gateway]:
    """`tls`: clients connect with TLS."""
    async with provider:
        gateway = Gateway(folder, provider, mode, SocketLimits(message_bytes=message_bytes))
        await gateway.start(tls)
        try:
            yield gateway
        finally:
            await gateway.stop()
        assert gateway.play.faults == []
