"""WebSocket peers for tests, on wsproto: an opinion of their own on every byte that the gateway sends.

    async with Echo() as provider:                 # a provider that sends back what it is sent
        client = await Peer.connect(port, "/v1/realtime?model=m")
        await client.send("hello")
        assert await client.receive() == "hello"
        assert await client.close(4000) == 4000

`Peer.connect` raises `Refused` where the answer is no upgrade. A provider that does something else than echo is a
`Provider` with a coroutine that is given each peer.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.extensions import Extension, PerMessageDeflate

PATIENCE = 20.0
"""Seconds after which a wait of a test gives up: a deadline against hanging, never something that a test relies on."""
READ = 65536


@dataclass
class Refused(Exception):
    """The answer to a handshake that was no upgrade."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Closed(Exception):
    """The other side has closed; `code` 1006: without a word."""

    code: int
    reason: str = ""


class Peer:
    """One side of a WebSocket. `request` is what a client asked, `headers` what a server answered."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: WSConnection) -> None:
        self.reader = reader
        self.writer = writer
        self.connection = connection
        self.request: Request | None = None
        self.headers: dict[str, str] = {}
        self.subprotocol: str | None = None
        self.compressed = False
        self._messages: list[str | bytes] = []
        self._parts: list[str | bytes] = []
        self._closed: Closed | None = None
        self._over = asyncio.Event()

    @classmethod
    async def connect(
        cls,
        port: int,
        target: str,
        *,
        host: str = "localhost",
        headers: Sequence[tuple[str, str]] = (),
        subprotocols: Sequence[str] = (),
        compress: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> Peer:
        """A client on a loopback port. Raises Refused."""
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, limit=READ, ssl=tls, server_hostname=host if tls is not None else None
        )
        peer = cls(reader, writer, WSConnection(ConnectionType.CLIENT))
        extensions: list[Extension] = [PerMessageDeflate()] if compress else []
        fields = [(name.encode(), value.encode()) for name, value in headers]
        request = Request(host, target, extensions, fields, list(subprotocols))  # type: ignore[arg-type]
        writer.write(peer.connection.send(request))
        refusal: Refused | None = None
        async with asyncio.timeout(PATIENCE):
            while True:
                peer.connection.receive_data(await reader.read(READ) or None)
                for event in peer.connection.events():
                    if isinstance(event, AcceptConnection):
                        peer.headers = {name.decode().lower(): value.decode() for name, value in event.extra_headers}
                        peer.subprotocol = event.subprotocol
                        peer.compressed = bool(event.extensions)
                        peer._take_waiting()
                        return peer
                    if isinstance(event, RejectConnection):
                        found = {name.decode().lower(): value.decode() for name, value in event.headers}
                        refusal = Refused(event.status_code, found, b"")
                    if isinstance(event, RejectData):
                        assert refusal is not None
                        refusal.body += event.data
                        if event.body_finished:
                            writer.close()
                            raise refusal

    async def accept(self, *, compress: bool = False) -> None:
        """Take a client's handshake."""
        while self.request is None:
            self.connection.receive_data(await self.reader.read(READ) or None)
            for event in self.connection.events():
                assert isinstance(event, Request)
                self.request = event
        self.subprotocol = next(iter(self.request.subprotocols), None)
        extensions: list[Extension] = [PerMessageDeflate()] if compress else []
        self.writer.write(self.connection.send(AcceptConnection(self.subprotocol, extensions)))
        self.compressed = any(extension.enabled() for extension in extensions)
        self._take_waiting()

    async def send(self, message: str | bytes) -> None:
        """Send one message, and wait while the other side is slow."""
        event = TextMessage(message) if isinstance(message, str) else BytesMessage(message)
        self.writer.write(self.connection.send(event))
        await self.writer.drain()

    async def receive(self) -> str | bytes:
        """The next message. Raises Closed."""
        async with asyncio.timeout(PATIENCE):
            while not self._messages:
                if self._closed is not None:
                    raise self._closed
                data = await self._read()
                if not data:
                    self._end(Closed(1006))
                    continue
                self.connection.receive_data(data)
                self._take_waiting()
        return self._messages.pop(0)

    async def _read(self) -> bytes:
        try:
            return await self.reader.read(READ)
        except ConnectionError:
            return b""

    def _take_waiting(self) -> None:
        for event in self.connection.events():
            if isinstance(event, TextMessage | BytesMessage):
                self._parts.append(event.data if isinstance(event, TextMessage) else bytes(event.data))
                if event.message_finished:
                    empty: str | bytes = "" if isinstance(event, TextMessage) else b""
                    self._messages.append(empty.join(self._parts))  # type: ignore[arg-type]
                    self._parts = []
            elif isinstance(event, Ping):
                self.writer.write(self.connection.send(event.response()))
            elif isinstance(event, CloseConnection):
                self._end(Closed(int(event.code), event.reason or ""))
                if self.connection.state.name == "REMOTE_CLOSING":
                    self.writer.write(self.connection.send(event.response()))
                self.writer.close()

    def _end(self, how: Closed) -> None:
        self._closed = how
        self._over.set()

    async def ended(self) -> Closed:
        """How the other side has closed, for one who does not read the messages: `serve` does."""
        async with asyncio.timeout(PATIENCE):
            await self._over.wait()
        assert self._closed is not None
        return self._closed

    async def closed(self) -> Closed:
        """How the other side closes; messages before it are dropped."""
        try:
            while True:
                await self.receive()
        except Closed as end:
            return end

    async def close(self, code: int = 1000, reason: str = "") -> Closed:
        """Close; what the other side answers."""
        self.writer.write(self.connection.send(CloseConnection(code, reason)))
        return await self.closed()

    def drop(self) -> None:
        """Go without a word."""
        transport = self.writer.transport
        transport.abort()


class Provider:
    """A WebSocket server on loopback, on a free port unless one is given.

    `serve` is run for each peer; `peers` are all there were.
    """

    def __init__(self, serve: Callable[[Peer], Awaitable[None]], *, compress: bool = False, port: int = 0) -> None:
        self._serve = serve
        self._compress = compress
        self._server: asyncio.Server
        self._tasks: set[asyncio.Task[None]] = set()
        self.peers: list[Peer] = []
        self.port = port

    async def __aenter__(self) -> Provider:
        self._server = await asyncio.start_server(self._take, "127.0.0.1", self.port, limit=READ)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for peer in self.peers:
            peer.writer.transport.abort()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        peer = Peer(reader, writer, WSConnection(ConnectionType.SERVER))
        await peer.accept(compress=self._compress)
        self.peers.append(peer)
        try:
            await self._serve(peer)
        except (Closed, ConnectionError):
            writer.close()
        except asyncio.CancelledError:
            pass  # the test is over


async def echo(peer: Peer) -> None:
    """Send back what is sent."""
    while True:
        await peer.send(await peer.receive())


def Echo(*, compress: bool = False, port: int = 0) -> Provider:
    """A provider that echoes."""
    return Provider(echo, compress=compress, port=port)
