"""What stands where the exchange would be: it asks for a connection, sends a request and writes down what it hears."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from gateway.errors import GatewayError, UpstreamError
from gateway.types import Destination, Origin, PoolSettings, ResponseHead, Timeouts
from gateway.upstream.connection import UpstreamConnection
from gateway.upstream.mock import MockConnection
from gateway.upstream.pool import Pools, Ticket
from tests.provider import Gate, ScriptedProvider

GET = b"GET /v1/models HTTP/1.1\r\nhost: provider\r\n\r\n"


class Clock:
    """A clock that a test moves by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Recorder:
    """Waiter and listener. `events` is the transcript; gates open as things happen."""

    def __init__(self, head: bytes = GET, body: bytes = b"") -> None:
        self.request = (head, body)
        self.events: list[tuple[Any, ...]] = []
        self.reads: list[bytes] = []
        self.error: GatewayError | None = None
        self.head: ResponseHead | None = None
        self.connection: UpstreamConnection | MockConnection | None = None
        self.connected = Gate()
        self.begun = Gate()
        self.over = Gate()
        self._more = asyncio.Event()

    def on_connection(self, connection: UpstreamConnection | MockConnection) -> None:
        self.connection = connection
        connection.send(*self.request, self)
        self.connected.open()

    def on_connect_failed(self, error: GatewayError) -> None:
        self._fail("no connection", error)

    def on_response_head(self, head: ResponseHead, data: bytes, end: bool) -> None:
        self.head = head
        self.events.append(("head", head.status, data, end))
        self._take(data, end)

    def on_response_data(self, data: bytes, end: bool) -> None:
        self.events.append(("data", data, end))
        self._take(data, end)

    def on_response_failed(self, error: UpstreamError) -> None:
        self._fail("failed", error)

    def _take(self, data: bytes, end: bool) -> None:
        self.reads.append(data)
        self.begun.open()
        self._more.set()
        if end:
            self.over.open()

    def _fail(self, what: str, error: GatewayError) -> None:
        assert not self.over.is_open, "called after the end"
        self.error = error
        self.events.append((what, type(error).__name__))
        self.over.open()

    @property
    def body(self) -> bytes:
        """All of the body so far, chunk framing included."""
        return b"".join(self.reads)

    async def read(self, count: int) -> bytes:
        """Wait for so many bytes of body."""
        async with asyncio.timeout(20):
            while len(self.body) < count:
                self._more.clear()
                await self._more.wait()
        return self.body


def ask(pools: Pools, destination: Destination, recorder: Recorder) -> Ticket | None:
    """What an exchange does when it wants to send: an idle connection at once, or a ticket."""
    connection = pools.take(destination)
    if connection is None:
        return pools.wait(destination, recorder)
    recorder.on_connection(connection)
    return None


async def exchange(pools: Pools, destination: Destination, head: bytes = GET, body: bytes = b"") -> Recorder:
    """One request, to its end."""
    recorder = Recorder(head, body)
    ask(pools, destination, recorder)
    await recorder.over
    return recorder


def to(
    provider: ScriptedProvider | int,
    *,
    host: str = "127.0.0.1",
    tls: bool = False,
    ca_file: str | None = None,
    connect_seconds: float = 5.0,
    **settings: Any,
) -> Destination:
    """The provider as a destination; `settings` are those of its pool."""
    port = provider if isinstance(provider, int) else provider.port
    timeouts = Timeouts(connect_seconds=connect_seconds)
    return Destination("test", Origin(host, port, tls=tls), PoolSettings(**settings), timeouts, ca_file)


@contextlib.asynccontextmanager
async def pools_of(clock: Clock | None = None, **options: Any) -> AsyncIterator[Pools]:
    """Pools that are closed at the end of the test."""
    pools = Pools(asyncio.get_running_loop(), clock=clock or Clock(), **options)
    yield pools
    pools.close()
    await asyncio.sleep(0)
