"""The client's side over TLS, on real sockets: the same promises as in clear text, where TLS could break them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
import trustme

from gateway.config.schema import TLS
from gateway.downstream.certificate import Certificate
from gateway.downstream.http import Server
from tests.gateway.downstream.support import JSON, LIMITS, Application, Held
from tests.playbook import Clock
from tests.provider import Gate
from tests.wire.client import RawClient
from tests.wire.requests import get


class Stand:
    """A server that speaks TLS, and a client that trusts it."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        leaf = authority.issue_cert("localhost")
        (folder / "cert.pem").write_bytes(b"".join(one.bytes() for one in leaf.cert_chain_pems))
        (folder / "key.pem").write_bytes(leaf.private_key_pem.bytes())
        self.certificate = Certificate(TLS(cert_file=str(folder / "cert.pem"), key_file=str(folder / "key.pem")))
        self.trusting = ssl.create_default_context()
        authority.configure_trust(self.trusting)
        self.application = Application()
        self.clock = Clock(1000.0)
        self.server = Server(self.application, LIMITS, self.clock, lambda: 0.0)
        self.told: dict[str, Gate] = {name: Gate() for name in ("body", "gone", "paused", "resumed")}
        self.application.on_open = self._watch
        self.port = 0

    def _watch(self, handler: Held) -> None:
        handler.on_event = lambda event: self.told[event].open() if event in self.told else None

    @property
    def handler(self) -> Held:
        return self.application.handlers[-1]

    @contextlib.asynccontextmanager
    async def client(self, *, receive_buffer: int | None = None) -> AsyncIterator[RawClient]:
        sock = socket.socket()
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        reader, writer = await asyncio.open_connection(
            sock=sock, ssl=self.trusting, server_hostname="localhost", limit=65536
        )
        try:
            yield RawClient(reader, writer)
        finally:
            writer.transport.abort()


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    stand = Stand(tmp_path)
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(
        stand.server, "127.0.0.1", 0, ssl=stand.certificate.context, ssl_shutdown_timeout=2.0
    )
    stand.port = listener.sockets[0].getsockname()[1]
    yield stand
    listener.close()
    for connection in list(stand.server.connections):
        connection._transport.abort()


def post(body: bytes, *lines: bytes, target: bytes = b"/echo") -> bytes:
    return get(b"Content-Length: %d" % len(body), *lines, target=target, method=b"POST") + body


async def test_keep_alive_and_pipelining(stand: Stand) -> None:
    async with stand.client() as client:
        client.says(b"".join(post(b"%d" % number) for number in range(50)))
        found = await client.answers(50)
        assert [orjson.loads(body)["body"] for _, body in found] == [str(number) for number in range(50)]
        assert len(stand.server.connections) == 1
        (connection,) = stand.server.connections
        assert connection.peer == "127.0.0.1"
        assert connection._transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_the_connection_ends_with_the_last_answer(stand: Stand) -> None:
    async with stand.client() as client:
        client.says(post(b"abc", b"Connection: close"))
        heard = await client.hears_the_end()
        assert heard.startswith(b"HTTP/1.1 200 ")


async def test_a_client_that_leaves(stand: Stand) -> None:
    async with stand.client() as client:
        client.says(get(target=b"/hold"))
        await stand.told["body"]
        client._writer.close()  # closing alert, then FIN
        await stand.told["gone"]


async def test_a_client_that_vanishes(stand: Stand) -> None:
    async with stand.client() as client:
        client.says(get(target=b"/hold"))
        await stand.told["body"]
        client.resets()
        await stand.told["gone"]


async def test_a_slow_reader_is_noticed_and_loses_nothing(stand: Stand) -> None:
    async with stand.client(receive_buffer=8192) as client:
        client.stops_reading()
        client.says(get(target=b"/hold"))
        await stand.told["body"]
        answer = stand.handler.client
        answer.begin(200, JSON, length=None, data=b"", end=False, raw=False)
        sent = 0
        while not stand.told["paused"].is_open:
            answer.send(b"x" * 10_000, end=False, raw=False)
            sent += 10_000
            await asyncio.sleep(0)
        client.reads_on()
        await client.hears_until(stand.told["resumed"])
        answer.send(b"", end=True, raw=False)
        await client.hears(b"\r\n0\r\n\r\n")
        ((_, body),) = await client.answers(1)
        assert body == b"x" * sent


async def test_a_refusal_is_readable_although_the_client_still_sends(stand: Stand) -> None:
    async with stand.client() as client:
        client.says(post(b"x" * 20_000_000))
        heard = await client.hears_the_end()
        assert heard.startswith(b"HTTP/1.1 413 ")
        assert heard.endswith(b"}")


@pytest.mark.parametrize(
    "said", [get(), b"\x16\x03\x01\x00\x05hello", b"\x16\x03\x01", b"\x80" * 300], ids=["http", "tls?", "part", "noise"]
)
async def test_what_is_no_tls_never_reaches_the_server(stand: Stand, said: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", stand.port)
    writer.write(said)
    writer.write_eof()
    with contextlib.suppress(ConnectionError):
        assert b"HTTP" not in await reader.read()
    writer.close()
    async with stand.client() as client:
        client.says(get())
        await client.answers(1)
    assert len(stand.application.handlers) == 1


async def test_a_renewed_certificate_is_for_those_who_come_later(stand: Stand, tmp_path: Path) -> None:
    async with stand.client() as early:
        other = trustme.CA()
        leaf = other.issue_cert("localhost")
        (tmp_path / "cert.pem").write_bytes(b"".join(one.bytes() for one in leaf.cert_chain_pems))
        (tmp_path / "key.pem").write_bytes(leaf.private_key_pem.bytes())
        assert stand.certificate.renewed()
        stand.certificate.adopt()
        early.says(get())
        await early.answers(1)
        with pytest.raises(ssl.SSLCertVerificationError):
            async with stand.client():
                pass
        other.configure_trust(stand.trusting)
        async with stand.client() as late:
            late.says(get())
            await late.answers(1)
