"""How a connection to a provider comes about: look the name up, race the addresses, tunnel, shake hands.

This is the slow path, so coroutines are right for it. A dial that is cancelled closes its sockets before it ends. Every
foreign exception becomes an UpstreamUnreachable that says the next step; deadlines are the pool's.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Sequence
from typing import Final, Protocol, cast

from gateway.errors import UpstreamInvalid, UpstreamUnreachable
from gateway.types import Destination, Origin
from gateway.upstream.connection import MAX_HEAD
from gateway.upstream.dns import Resolver
from gateway.upstream.egress import Egress, Forwarding, Proxy
from gateway.upstream.head import parse_head
from gateway.upstream.tls import HANDSHAKE_SECONDS, SHUTDOWN_SECONDS, Contexts, explain

_log = logging.getLogger(__name__)

STAGGER_SECONDS: Final = 0.25
"""Head start of one address before the next is tried beside it (RFC 8305, section 5)."""


class Dialled(Protocol):
    """What a transport is opened for: an asyncio protocol, `connection.UpstreamConnection` for one."""

    @property
    def closed(self) -> bool:
        """It has been lost again."""
        ...

    def forward_through(self, forwarding: Forwarding) -> None:
        """The transport leads to a forward proxy, which wants requests in absolute form."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Here is the transport; it delivers to this object already."""


class Dialler:
    """Opens connections; what it knows is shared by all pools of a worker."""

    def __init__(
        self, resolver: Resolver, egress: Egress, contexts: Contexts, stagger_seconds: float = STAGGER_SECONDS
    ) -> None:
        self._resolver = resolver
        self._egress = egress
        self._contexts = contexts
        self._stagger_seconds = stagger_seconds

    def prepare(self, destination: Destination) -> None:
        """Read the certificates that the destination needs now, rather than in its first request (20 ms)."""
        if destination.origin.tls:
            try:
                self._contexts.get(destination.ca_file)
            except UpstreamUnreachable as error:
                _log.warning("target %s: %s", destination.name, error.message)

    def close(self) -> None:
        """Let the resolver's threads go."""
        self._resolver.close()

    async def dial(self, destination: Destination, connection: Dialled, *, tunnel: bool = False) -> None:
        """Open a transport to the destination and give it to `connection`. Raises UpstreamUnreachable.

        `tunnel`: a proxy is asked for a tunnel, TLS or not, for what is not HTTP.
        """
        origin = destination.origin
        proxy = self._egress.proxy_for(origin)
        first_hop = origin if proxy is None else Origin(proxy.host, proxy.port, tls=False)
        transport, dialling = await self._reach(first_hop)
        try:
            if proxy is not None and (tunnel or origin.tls):
                await _tunnel(transport, dialling, proxy, origin)
            elif proxy is not None:
                connection.forward_through(proxy.forwarding(origin))
            if dialling.spoken_to:
                raise UpstreamUnreachable(
                    f"{origin} closed the connection at once or spoke first: that is no HTTP server."
                    " Check scheme and port of the target's base_url."
                )
            if origin.tls:
                transport = await self._shake_hands(transport, destination, connection)
            else:
                transport.set_protocol(cast(asyncio.Protocol, connection))
            connection.connection_made(transport)
        except BaseException:
            transport.abort()
            raise

    async def _reach(self, origin: Origin) -> tuple[asyncio.Transport, _Dialling]:
        """A TCP (or Unix) transport to the origin."""
        try:
            if origin.unix_path is not None:
                loop = asyncio.get_running_loop()
                transport, dialling = await loop.create_unix_connection(_Dialling, origin.unix_path)
                return transport, dialling
            addresses = await self._resolver.resolve(origin.host)
        except OSError as error:
            raise UpstreamUnreachable(
                f"{origin} cannot be reached: {error.strerror or error}. Check the host in the target's base_url."
            ) from None
        return await self._race(addresses, origin)

    async def _race(self, addresses: Sequence[str], origin: Origin) -> tuple[asyncio.Transport, _Dialling]:
        """Try the addresses in turn, each beside those that have not answered yet; the first to connect wins."""
        loop = asyncio.get_running_loop()
        waiting = list(addresses)
        running: set[asyncio.Task[tuple[asyncio.Transport, _Dialling]]] = set()
        problems: list[str] = []
        try:
            while waiting or running:
                if waiting:
                    address = waiting.pop(0)
                    running.add(loop.create_task(_connect(address, origin.port), name=f"connect {address}"))
                done, _ = await asyncio.wait(
                    running,
                    timeout=self._stagger_seconds if waiting else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task in done:
                    error = task.exception()
                    if error is None:
                        running.discard(task)
                        return task.result()
                    running.discard(task)
                    problems.append(str(getattr(error, "strerror", None) or error))
        finally:
            for task in running:
                task.cancel()
                task.add_done_callback(_close_late)
        raise UpstreamUnreachable(f"{origin} cannot be reached: {'; '.join(dict.fromkeys(problems))}.")

    async def _shake_hands(
        self, transport: asyncio.Transport, destination: Destination, connection: Dialled
    ) -> asyncio.Transport:
        origin = destination.origin
        context = self._contexts.get(destination.ca_file)
        try:
            secured = await asyncio.get_running_loop().start_tls(
                transport,
                cast(asyncio.Protocol, connection),
                context,
                server_hostname=origin.host,
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
                ssl_shutdown_timeout=SHUTDOWN_SECONDS,
            )
        except (OSError, ssl.SSLError) as error:
            raise explain(error, origin) from None
        except BaseException:
            # Cancelled: start_tls closes in its own time, a client that has left must not wait for that.
            transport.abort()
            raise
        if secured is None or connection.closed:
            raise UpstreamUnreachable(f"TLS to {origin} failed: the provider closed the connection.")
        return secured


class _Dialling(asyncio.Protocol):
    """Holds a transport until a connection takes it over; reads a proxy's answer meanwhile."""

    def __init__(self) -> None:
        self._received = b""
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None

    @property
    def spoken_to(self) -> bool:
        """The other side has sent something that nobody asked for, or has closed."""
        return bool(self._received) or self._ended

    def data_received(self, data: bytes) -> None:
        self._received += data
        self._wake()

    def eof_received(self) -> bool:
        self._ended = True
        self._wake()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def take_head(self) -> bytes:
        """The head of an answer, blank line included; what follows it stays. Empty: there will be none."""
        while (end := self._received.find(b"\r\n\r\n") + 4) < 4:
            if self._ended or len(self._received) > MAX_HEAD:
                return b""
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        head, self._received = self._received[:end], self._received[end:]
        return head


async def _connect(address: str, port: int) -> tuple[asyncio.Transport, _Dialling]:
    return await asyncio.get_running_loop().create_connection(_Dialling, address, port)


def _close_late(task: asyncio.Task[tuple[asyncio.Transport, _Dialling]]) -> None:
    """A connection that came about after another had won, or after nobody wanted it any more."""
    if not task.cancelled() and task.exception() is None:
        task.result()[0].abort()


async def _tunnel(transport: asyncio.Transport, dialling: _Dialling, proxy: Proxy, origin: Origin) -> None:
    """Ask the proxy for a tunnel; any 2xx means that the bytes after its head are the provider's."""
    transport.write(proxy.connect_request(origin))
    data = await dialling.take_head()
    if not data:
        raise UpstreamUnreachable(f"{proxy} closed the connection instead of making a tunnel to {origin}.")
    try:
        head, _, _ = parse_head(data)
    except UpstreamInvalid:
        raise UpstreamUnreachable(f"{proxy} does not answer as an HTTP proxy. Check HTTPS_PROXY.") from None
    if head.status == 407:
        raise UpstreamUnreachable(f"{proxy} wants other credentials. Put user:password@ into HTTPS_PROXY.")
    if not 200 <= head.status < 300:
        raise UpstreamUnreachable(f"{proxy} refused a tunnel to {origin} with status {head.status}.")
