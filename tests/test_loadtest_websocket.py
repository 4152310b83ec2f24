"""The WebSocket load tools: what they say of others must be true, so wsproto looks at what they send."""

from __future__ import annotations

import asyncio
import json
import threading
from array import array
from collections.abc import Iterator

import pytest

from loadtest import socket_client
from loadtest.client import LoadError, percentile
from loadtest.echo import Echo, frames
from tests.websockets import Peer, Provider, echo


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The echo, in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(loop.create_server(Echo, "127.0.0.1", 0), loop)  # type: ignore[arg-type]
    yield server.result(10).sockets[0].getsockname()[1]
    loop.call_soon_threadsafe(server.result().close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


def opening() -> bytes:
    return socket_client.handshake("/v1/realtime?model=m", "localhost", "")


async def test_the_echo_echoes(port: int) -> None:
    peer = await Peer.connect(port, "/any")
    for message in ("hello", "x" * 60_000, b"\x00\xff"):
        await peer.send(message)
        assert await peer.receive() == message
    assert (await peer.close(4000)).code == 4000


def test_a_message_is_what_it_is_said_to_be() -> None:
    ((opcode, payload),), rest = frames(socket_client.message(1234), masked=True)
    assert (opcode, rest) == (1, b"")
    assert len(payload) == socket_client.MESSAGE_BYTES
    assert json.loads(payload)["type"] == "conversation.item.create"
    assert socket_client.due_in(payload) == 1234


def test_loads_flat_out_and_at_a_rate(port: int) -> None:
    address = ("127.0.0.1", port)
    samples = socket_client.closed_loop(address, opening, sockets=3, seconds=0.1)
    assert len(samples.latency) >= 3
    assert samples.seconds >= 0.1
    samples = socket_client.open_loop(address, opening, sockets=3, rate=500, seconds=0.2)
    assert len(samples.latency) == 100
    assert percentile(array("q", samples.latency), 0.5) > 0


def test_looks_at_idle_sockets_while_they_are_open(port: int) -> None:
    looked = []
    socket_client.idle(("127.0.0.1", port), opening, sockets=5, while_open=lambda: looked.append(1))
    assert looked == [1]


async def test_what_the_client_sends_is_a_websocket() -> None:
    async with Provider(echo) as provider:
        samples = await asyncio.to_thread(
            socket_client.open_loop, ("127.0.0.1", provider.port), opening, sockets=2, rate=200, seconds=0.1
        )
        assert len(samples.latency) == 20
        assert len(provider.peers) == 2


def test_an_answer_that_is_no_upgrade_is_an_error(port: int) -> None:
    with pytest.raises(LoadError, match=r"no upgrade: HTTP/1\.1 400 Bad Request"):
        socket_client.closed_loop(("127.0.0.1", port), lambda: b"GET / HTTP/1.1\r\n\r\n", sockets=1, seconds=0.1)
