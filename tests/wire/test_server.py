"""A real server on a real socket: what only kernel and event loop can show."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import orjson
import pytest

from gateway.downstream.http import Server
from tests.gateway.downstream.support import JSON, LIMITS, Application, Held
from tests.playbook import Clock
from tests.provider import Gate
from tests.wire.client import RawClient, connected
from tests.wire.requests import MALFORMED, get


class Stand:
    """The server, its application and its clock."""

    def __init__(self) -> None:
        self.application = Application()
        self.clock = Clock(1000.0)
        self.server = Server(self.application, LIMITS, self.clock, lambda: 0.0)
        self.opened = Gate()
        self.told: dict[str, Gate] = {name: Gate() for name in ("body", "gone", "paused", "resumed")}
        self.application.on_open = self._watch
        self.port = 0

    def _watch(self, handler: Held) -> None:
        def tell(event: str) -> None:
            handler.events.append(event)
            if event in self.told:
                self.told[event].open()

        handler.on_event = tell
        self.opened.open()

    @property
    def handler(self) -> Held:
        return self.application.handlers[-1]

    def advance(self, seconds: float) -> None:
        self.clock.now += seconds
        self.server.sweep()

    @contextlib.asynccontextmanager
    async def client(self, **options: int) -> AsyncIterator[RawClient]:
        async with connected(self.port, **options) as client:
            yield client


@pytest.fixture
async def stand() -> AsyncIterator[Stand]:
    stand = Stand()
    listener = await asyncio.get_running_loop().create_server(stand.server, "127.0.0.1", 0)
    stand.port = listener.sockets[0].getsockname()[1]
    yield stand
    listener.close()
    for connection in list(stand.server.connections):
        connection._transport.abort()


def post(body: bytes, *lines: bytes, target: bytes = b"/echo") -> bytes:
    return get(b"Content-Length: %d" % len(body), *lines, target=target, method=b"POST") + body


async def test_keep_alive(stand: Stand) -> None:
    async with stand.client() as client:
        for number in range(5):
            client.says(post(b"%d" % number))
            found = await client.answers(number + 1)
            assert orjson.loads(found[-1][1])["body"] == str(number)
        assert len(stand.server.connections) == 1


async def test_many_in_one_write(stand: Stand) -> None:
    async with stand.client() as client:
        client.says(b"".join(post(b"%d" % number) for number in range(300)))
        found = await client.answers(300)
        assert [orjson.loads(body)["body"] for _, body in found] == [str(number) for number in range(300)]


async def test_a_request_in_segments_of_one_byte(stand: Stand) -> None:
    async with stand.client() as client:
        request = post(b"abc")
        await client.says_slowly(*[request[at : at + 1] for at in range(len(request))])
        assert orjson.loads((await client.answers(1))[0][1])["body"] == "abc"


async def test_nagle_is_off(stand: Stand) -> None:
    async with stand.client() as client:
        client.says(get())
        await client.answers(1)
        (connection,) = stand.server.connections
        sock = connection._transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_a_client_that_waits_to_be_told(stand: Stand) -> None:
    async with stand.client() as client:
        request = post(b"abc", b"Expect: 100-continue")
        client.says(request[:-3])
        await client.hears(b"HTTP/1.1 100 Continue\r\n\r\n")
        client.says(b"abc")
        await client.hears(b"}")
        assert stand.handler.body == b"abc"


@pytest.mark.parametrize(
    "request_", [get(target=b"/hold"), post(b"abcdef", target=b"/hold")[:-3]], ids=["answering", "body"]
)
async def test_a_half_close_is_a_cancel(stand: Stand, request_: bytes) -> None:
    async with stand.client() as client:
        client.says(request_)
        await stand.opened
        client.half_closes()
        await stand.told["gone"]
        assert await client.hears_the_end() == b""
        assert stand.server.connections == set()


async def test_a_half_close_right_behind_the_request(stand: Stand) -> None:
    async with stand.client() as client:
        client.says(get(target=b"/hold"))
        client.half_closes()
        await stand.told["gone"]


async def test_a_reset_is_a_cancel(stand: Stand) -> None:
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
        (connection,) = stand.server.connections
        assert connection._transport.get_write_buffer_size() <= 64 * 1024 + 10_100
        client.reads_on()
        await client.hears_until(stand.told["resumed"])
        answer.send(b"", end=True, raw=False)
        await client.hears(b"\r\n0\r\n\r\n")
        ((_, body),) = await client.answers(1)
        assert body == b"x" * sent


async def test_a_refusal_is_readable_although_the_client_still_sends(stand: Stand) -> None:
    """More than both sockets' buffers hold, so that a close without reading would reset the connection."""
    async with stand.client() as client:
        client.says(post(b"x" * 20_000_000))
        assert (await client.hears_the_end()).startswith(b"HTTP/1.1 413 ")
        assert orjson.loads(client.heard.partition(b"\r\n\r\n")[2])["error"]["code"] == "request_too_large"


@pytest.mark.parametrize(
    "name", ["two lengths", "bare LF everywhere", "http/2 preface", "chunk size that is none", "tls"]
)
async def test_the_connection_ends_with_a_refusal(stand: Stand, name: str) -> None:
    data, status = MALFORMED[name]
    async with stand.client() as client:
        client.says(data)
        assert (await client.hears_the_end()).startswith(b"HTTP/1.1 %d " % status)


async def test_a_last_answer_is_whole(stand: Stand) -> None:
    """A megabyte to a client that reads slowly, and then the end: neither cut nor reset."""
    async with stand.client(receive_buffer=8192) as client:
        client.stops_reading()
        client.says(get(b"Connection: close", target=b"/hold") + get() * 10)
        await stand.told["body"]
        stand.handler.client.reply(200, JSON, b"x" * 1_000_000)
        stand.advance(5)
        client.reads_on()
        assert (await client.hears_the_end()).endswith(b"\r\n\r\n" + b"x" * 1_000_000)


async def test_idle_connections_end(stand: Stand) -> None:
    async with stand.client() as client:
        client.says(get())
        await client.answers(1)
        stand.advance(76)
        heard = client.heard
        assert await client.hears_the_end() == heard


async def test_a_client_that_does_not_close_is_closed(stand: Stand) -> None:
    async with stand.client() as client:
        client.says(get(b"Connection: close"))
        await client.hears_the_end()
        while stand.server.connections:
            stand.advance(2.1)
            await asyncio.sleep(0)


async def test_draining(stand: Stand) -> None:
    async with stand.client() as idle, stand.client() as busy:
        idle.says(get())
        await idle.answers(1)
        busy.says(get(target=b"/hold"))
        await stand.told["body"]
        stand.server.drain()
        await idle.hears_the_end()
        stand.handler.client.reply(200, JSON, b"{}")
        assert b"connection: close" in await busy.hears_the_end()


async def test_many_connections(stand: Stand) -> None:
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(stand.client()) for _ in range(200)]
        for client in clients:
            client.says(get())
        for client in clients:
            assert (await client.answers(1))[0][0] == 200
        assert len(stand.server.connections) == 200
    while stand.server.connections:  # noqa: ASYNC110 (nobody tells when the last one has gone)
        await asyncio.sleep(0)
    assert repr(stand.server) == "<Server 0 connections, 0 bytes of bodies held>"
