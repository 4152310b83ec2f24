"""Two sockets and a plain conversation between them, on real connections: what one side does, the other must see."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path

import orjson
import pytest

from gateway.config.schema import AuthMode
from gateway.errors import InternalError
from gateway.frames import BINARY, TEXT, frame
from gateway.upgrades import MAX_SOCKETS
from gateway.websocket import HIGH_WATER
from tests.playbook import KEY
from tests.provider import Authority
from tests.relaying import REALTIME, Gateway, gateway_before
from tests.websockets import Closed, Echo, Peer, Provider, Refused

MIB = 1 << 20


async def refused(gateway: Gateway, target: str = REALTIME, **more: object) -> tuple[int, str]:
    """Status and code of a refused upgrade."""
    with pytest.raises(Refused) as caught:
        await gateway.connect(target, **more)
    return caught.value.status, orjson.loads(caught.value.body)["error"]["code"]


async def test_messages_go_through(tmp_path: Path) -> None:
    async with gateway_before(tmp_path, Echo()) as gateway:
        client = await gateway.connect(subprotocols=["realtime", f"openai-insecure-api-key.{KEY.decode()}"], headers=())
        for message in ("hello", b"\x00\xff", "", "ä" * 100_000, b"x" * MIB):
            await client.send(message)
            assert await client.receive() == message
        assert client.subprotocol == "realtime"
        assert client.headers["x-more"] == "1"
        request = gateway.provider.peers[0].request
        assert request is not None
        assert request.subprotocols == ["realtime"]
        assert KEY not in b"".join(value for _, value in request.extra_headers)
        assert await client.close(4000, "bye") == Closed(4000)
        assert await gateway.provider.peers[0].ended() == Closed(4000, "bye")
        assert gateway.relays[0].ends[0] == ("client", 4000)


@pytest.mark.parametrize("provider_compresses", [False, True])
async def test_compressed_messages_go_through(tmp_path: Path, provider_compresses: bool) -> None:
    """Compression is agreed on with the client where the provider has agreed on it."""
    async with gateway_before(tmp_path, Echo(compress=provider_compresses)) as gateway:
        client = await gateway.connect(compress=True)
        assert client.compressed is provider_compresses is gateway.provider.peers[0].compressed
        for message in ("hello" * 10, "hello" * 10, b"x" * MIB):
            await client.send(message)
            assert await client.receive() == message


@pytest.mark.parametrize("code", [1000, 1001, 1008, 3000, 4999])
async def test_close_codes_go_both_ways(tmp_path: Path, code: int) -> None:
    async def close(peer: Peer) -> None:
        await peer.receive()
        await peer.close(code, "why")

    async with gateway_before(tmp_path, Provider(close)) as gateway:
        client = await gateway.connect()
        await client.send("go")
        assert await client.closed() == Closed(code, "why")


async def test_a_client_that_vanishes_takes_its_providers_socket_with_it(tmp_path: Path) -> None:
    async with gateway_before(tmp_path, Echo()) as gateway:
        client = await gateway.connect()
        client.drop()
        assert (await gateway.provider.peers[0].ended()).code == 1011
        assert gateway.relays[0].ends[0] == ("client", 1006)


async def test_a_provider_that_vanishes(tmp_path: Path) -> None:
    async def vanish(peer: Peer) -> None:
        await peer.receive()
        peer.drop()

    async with gateway_before(tmp_path, Provider(vanish)) as gateway:
        client = await gateway.connect()
        await client.send("go")
        assert (await client.closed()).code == 1011


async def test_a_slow_client_slows_the_provider(tmp_path: Path) -> None:
    """It sends without end; what waits for the client is the high mark and a message, whatever its zeal."""
    sent = 0

    async def flood(peer: Peer) -> None:
        nonlocal sent
        while True:
            peer.writer.write(frame(BINARY, bytes(MIB), masked=False))
            await peer.writer.drain()
            sent += 1

    async with gateway_before(tmp_path, Provider(flood)) as gateway:
        client = await gateway.connect()
        side = gateway.relays[0].client
        await side.paused.wait()
        for _ in range(500):
            await asyncio.sleep(0)
        assert side.socket is not None
        transport = side.socket._transport
        assert HIGH_WATER < transport.get_write_buffer_size() <= HIGH_WATER + MIB + 10
        assert gateway.sockets.held < 2 * MIB
        before = sent
        for _ in range(before + 5):
            assert await client.receive() == bytes(MIB)
        assert sent > before


async def test_a_slow_provider_slows_the_client(tmp_path: Path) -> None:
    read_on = asyncio.Event()

    async def wait(peer: Peer) -> None:
        await read_on.wait()
        left = 24 * MIB
        while left > 0:
            left -= len(await peer.reader.read(MIB))
        await peer.send("all of it")

    async with gateway_before(tmp_path, Provider(wait)) as gateway:
        client = await gateway.connect()

        async def flood() -> None:
            for _ in range(24):
                client.writer.write(frame(BINARY, bytes(MIB), masked=True))
                await client.writer.drain()

        task = asyncio.create_task(flood())
        await gateway.relays[0].provider.paused.wait()
        assert not task.done()
        assert gateway.sockets.held < 2 * MIB
        read_on.set()
        assert await client.receive() == "all of it"
        await task


async def test_too_large_a_message_closes_with_1009_and_is_never_held(tmp_path: Path) -> None:
    async with gateway_before(tmp_path, Echo()) as gateway:
        client = await gateway.connect()
        message = frame(TEXT, b"x" * (2 * MIB), masked=True)
        for at in range(0, len(message), 65536):
            client.writer.write(message[at : at + 65536])
        assert (await client.closed()).code == 1009
        assert gateway.sockets.held == 0
        assert (await gateway.provider.peers[0].ended()).code == 1009


async def test_what_was_sent_with_the_handshake_is_heard(tmp_path: Path) -> None:
    """A client that does not wait for the answer (RFC 6455 does not forbid it)."""
    async with gateway_before(tmp_path, Echo()) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        request = (
            f"GET {REALTIME} HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
            "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            f"authorization: Bearer {KEY.decode()}\r\n\r\n"
        )
        writer.write(request.encode() + frame(TEXT, b"early", masked=True))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        assert await reader.readexactly(7) == b"\x81\x05early"
        writer.close()


async def test_draining_closes_with_1001(tmp_path: Path) -> None:
    async with gateway_before(tmp_path, Echo()) as gateway:
        client = await gateway.connect()
        assert gateway.sockets.clients == 1
        gateway.sockets.drain()
        assert (await client.closed()).code == 1001
        assert (await gateway.provider.peers[0].ended()).code == 1001


async def test_over_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    trusting = ssl.create_default_context(cafile=authority.ca_file)
    async with gateway_before(tmp_path, Echo(), tls=authority.server_context("localhost")) as gateway:
        client = await gateway.connect(tls=trusting)
        for message in ("hello", "x" * MIB):
            await client.send(message)
            assert await client.receive() == message
        await client.send(b"y" * (MIB + 1))
        assert (await client.closed()).code == 1009
        client = await gateway.connect(tls=trusting)
        assert (await client.close(4000)).code == 4000


async def test_the_gateway_compresses_by_itself(tmp_path: Path) -> None:
    """For a client whose provider does without."""
    async with gateway_before(tmp_path, Echo()) as gateway:
        gateway.compresses = True
        client = await gateway.connect(compress=True)
        assert client.compressed
        for message in ("hello", "x" * 10_000, b"y" * 10_000, "z" * MIB):
            await client.send(message)
            assert await client.receive() == message


async def test_a_connection_that_has_served_requests_can_become_a_socket(tmp_path: Path) -> None:
    async with gateway_before(tmp_path, Echo()) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        fields = f"host: localhost\r\nauthorization: Bearer {KEY.decode()}\r\n"
        upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
        nonce = "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        writer.write(
            f"GET /v1/models HTTP/1.1\r\n{fields}\r\nGET {REALTIME} HTTP/1.1\r\n{fields}{upgrade}{nonce}\r\n".encode()
        )
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        assert b"HTTP/1.1 101 " in await reader.readuntil(b"\r\n\r\n")
        writer.write(frame(TEXT, b"hello", masked=True))
        assert await reader.readexactly(7) == b"\x81\x05hello"
        writer.close()


# Refusals


async def test_a_providers_refusal_is_an_http_answer(tmp_path: Path) -> None:
    async def nothing(peer: Peer) -> None: ...

    async with gateway_before(tmp_path, Provider(nothing)) as gateway:
        gateway.provider.port = gateway.port  # which serves no such path without a key
        assert await refused(gateway) == (502, "upstream_auth_failed")


async def test_who_may_not(tmp_path: Path) -> None:
    async with gateway_before(tmp_path, Echo()) as gateway:
        assert await refused(gateway, headers=()) == (401, "invalid_api_key")
        assert await refused(gateway, headers=(("authorization", "Bearer kt_gk_wrong"),)) == (401, "invalid_api_key")
        subprotocols = ("realtime", "openai-insecure-api-key.kt_gk_wrong")
        assert await refused(gateway, headers=(), subprotocols=subprotocols) == (401, "invalid_api_key")
        assert await refused(gateway, "/v1/nothing") == (404, "not_found")
        gateway.play.services.draining = True
        assert await refused(gateway) == (503, "draining")


async def test_a_page_of_another_site_gets_no_socket(tmp_path: Path) -> None:
    async with gateway_before(tmp_path, Echo(), mode=AuthMode.AUTO) as gateway:
        for origin in ("https://evil.example", "null", "http://localhost.evil.example"):
            assert await refused(gateway, headers=(("origin", origin),)) == (403, "forbidden_origin")
        assert await refused(gateway, headers=(), host="evil.example") == (403, "forbidden_origin")
        client = await gateway.connect(headers=(("origin", "http://localhost:3000"),))
        await client.send("hello")
        assert await client.receive() == "hello"
        client.drop()


async def test_too_many_and_turned_off(tmp_path: Path) -> None:
    async with gateway_before(tmp_path, Echo()) as gateway:
        gateway.sockets.open.update(object() for _ in range(MAX_SOCKETS))  # type: ignore[misc]
        assert await refused(gateway) == (503, "overloaded")
        gateway.sockets.open.clear()
        gateway.upgrades.enabled = False
        assert await refused(gateway) == (404, "not_found")


async def test_a_fault_in_a_conversation_is_an_internal_error(tmp_path: Path) -> None:
    async with gateway_before(tmp_path, Echo()) as gateway:
        gateway.fault = RuntimeError("a bug")
        assert await refused(gateway) == (500, "internal_error")
        assert gateway.play.faults == [gateway.fault]
        gateway.play.faults.clear()
        gateway.fault = InternalError()
        assert await refused(gateway) == (500, "internal_error")


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        ("GET /v1/realtime", 426),
        ("GET /v1/responses", 405),
        ("GET /v1/chat/completions", 405),
        ("POST /v1/realtime", 404),
    ],
)
async def test_without_an_upgrade(tmp_path: Path, request_line: str, status: int) -> None:
    async with gateway_before(tmp_path, Echo()) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(
            f"{request_line} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY.decode()}\r\n\r\n".encode()
        )
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(f"HTTP/1.1 {status} ".encode())
        assert (b"upgrade: websocket\r\n" in head) is (status == 426)
        writer.close()


async def test_a_client_that_leaves_before_its_answer_cancels_the_opening(tmp_path: Path) -> None:
    async with gateway_before(tmp_path, Echo()) as gateway:
        silent = await asyncio.start_server(lambda reader, writer: asyncio.sleep(0), "127.0.0.1", 0)
        gateway.provider.port = silent.sockets[0].getsockname()[1]
        waiting = asyncio.create_task(gateway.connect())
        while not gateway.upstream.openings:  # noqa: ASYNC110 (asked as often as there is anything to ask)
            await asyncio.sleep(0)
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
        for connection in list(gateway.downstream.connections):
            connection.eof_received()
        assert not gateway.upstream.openings
        silent.close()
