"""Loads a WebSocket server that echoes: many sockets, messages at a fixed rate or as fast as they come back.

A message is a text of 200 bytes that carries the time at which it was due, so a client that falls behind counts against
the server, not for it. What is timed is the round trip, a message each way.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, cast

import uvloop

from loadtest.client import Address, LoadError
from loadtest.echo import frames, header, mask

MESSAGE_BYTES: Final = 200
_KEY: Final = b"\x37\xfa\x21\x3d"
_BEFORE: Final = b'{"type":"conversation.item.create","item":{"type":"message","id":"'
_AFTER: Final = b'","content":[{"type":"input_text","text":"%b"}]}}'
_DIGITS: Final = 20
_FILL: Final = b"a plain sentence about rivers and gardens, said to fill the message up to its size "
PATIENCE: Final = 30.0
AT_ONCE: Final = 100
"""Handshakes under way at the same time."""


def message(due: int) -> bytes:
    """One message, masked and framed. `due` is in nanoseconds."""
    room = MESSAGE_BYTES - len(_BEFORE) - _DIGITS - len(_AFTER) + 2
    payload = b"%b%020d%b" % (_BEFORE, due, _AFTER % (_FILL * 2)[:room])
    return header(1, len(payload), 0x80) + _KEY + mask(payload, _KEY)


def due_in(payload: bytes) -> int:
    """When an echoed message was due."""
    start = len(_BEFORE)
    return int(payload[start : start + _DIGITS])


def handshake(target: str, host: str, key: str) -> bytes:
    """A client's opening handshake."""
    nonce = base64.b64encode(os.urandom(16)).decode()
    lines = [f"GET {target} HTTP/1.1", f"host: {host}", "connection: Upgrade", "upgrade: websocket"]
    lines += ["sec-websocket-version: 13", f"sec-websocket-key: {nonce}"]
    if key:
        lines.append(f"authorization: Bearer {key}")
    return "\r\n".join([*lines, "", ""]).encode()


@dataclass
class Samples:
    """Round trips of one run: nanoseconds each, and how long the run took in seconds."""

    seconds: float = 0.0
    latency: list[int] = field(default_factory=list)


class Client(asyncio.Protocol):
    """One socket. `on_echo` hears of each message that has come back, by the time at which it was due."""

    def __init__(self, opening: bytes) -> None:
        self._opening = opening
        self._rest = b""
        self._is_open = False
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.on_echo: Callable[[Client, int], None] = lambda client, due: None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._opening)

    def data_received(self, data: bytes) -> None:
        if not self._is_open:
            head, separator, self._rest = (self._rest + data).partition(b"\r\n\r\n")
            if not separator:
                self._rest = head
                return
            self._is_open = True
            if not head.startswith(b"HTTP/1.1 101 "):
                said = head.partition(b"\r\n")[0].decode("latin-1")
                self.opened.set_exception(LoadError(f"no upgrade: {said}"))
                return
            self.opened.set_result(None)
            data = b""
        found, self._rest = frames(self._rest + data, masked=False)
        for opcode, payload in found:
            if opcode == 1:
                self.on_echo(self, due_in(payload))
            elif opcode == 9:
                self._transport.write(header(10, len(payload), 0x80) + _KEY + mask(payload, _KEY))

    def connection_lost(self, error: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(LoadError("the connection closed during the handshake"))

    def send(self, due: int) -> None:
        """Send one message."""
        self._transport.write(message(due))

    def close(self) -> None:
        """Go without a word: what a closing handshake costs is not what is measured."""
        self._transport.abort()


async def connect(address: Address, opening: Callable[[], bytes], count: int) -> list[Client]:
    """So many open sockets; `AT_ONCE` handshakes at a time. Raises LoadError."""
    clients: list[Client] = []
    loop = asyncio.get_running_loop()
    while len(clients) < count:
        some = min(AT_ONCE, count - len(clients))
        made = [await loop.create_connection(lambda: Client(opening()), *address) for _ in range(some)]
        clients += [client for _, client in made]
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*(client.opened for _, client in made))
    return clients


async def _close(clients: list[Client]) -> None:
    for client in clients:
        client.close()
    await asyncio.sleep(0)


def closed_loop(address: Address, opening: Callable[[], bytes], *, sockets: int, seconds: float) -> Samples:
    """Each socket sends its next message when the last has come back: as many as go."""

    async def run() -> Samples:
        clients = await connect(address, opening, sockets)
        samples = Samples()
        begin = time.monotonic_ns()
        end = begin + int(seconds * 1e9)
        left = asyncio.Semaphore(0)

        def again(client: Client, due: int) -> None:
            now = time.monotonic_ns()
            samples.latency.append(now - due)
            if now < end:
                client.send(now)
            else:
                left.release()

        for client in clients:
            client.on_echo = again
            client.send(time.monotonic_ns())
        async with asyncio.timeout(seconds + PATIENCE):
            for _ in clients:
                await left.acquire()
        samples.seconds = (time.monotonic_ns() - begin) / 1e9
        await _close(clients)
        return samples

    return uvloop.run(run())


def open_loop(address: Address, opening: Callable[[], bytes], *, sockets: int, rate: float, seconds: float) -> Samples:
    """So many messages a second over all sockets in turn, whether or not they come back."""

    async def run() -> Samples:
        clients = await connect(address, opening, sockets)
        samples = Samples()
        count = int(rate * seconds)
        done = asyncio.Event()

        def came(client: Client, due: int) -> None:
            samples.latency.append(time.monotonic_ns() - due)
            if len(samples.latency) == count:
                done.set()

        for client in clients:
            client.on_echo = came
        turn = itertools.cycle(clients)
        begin = time.monotonic_ns()
        sent = 0
        while sent < count:
            due = begin + int(sent * 1e9 / rate)
            wait = due - time.monotonic_ns()
            if wait > 0:
                await asyncio.sleep(wait / 1e9)
                continue
            next(turn).send(due)
            sent += 1
            if sent % 16 == 0:
                await asyncio.sleep(0)  # when behind, what has come back is still taken in
        async with asyncio.timeout(PATIENCE):
            await done.wait()
        samples.seconds = (time.monotonic_ns() - begin) / 1e9
        await _close(clients)
        return samples

    return uvloop.run(run())


def idle(address: Address, opening: Callable[[], bytes], *, sockets: int, while_open: Callable[[], None]) -> None:
    """Open so many sockets, send one message on each, and have the caller look at the server meanwhile."""

    async def run() -> None:
        clients = await connect(address, opening, sockets)
        left = asyncio.Semaphore(0)
        for client in clients:
            client.on_echo = lambda client, due: left.release()
            client.send(time.monotonic_ns())
        async with asyncio.timeout(PATIENCE):
            for _ in clients:
                await left.acquire()
        while_open()
        await _close(clients)

    uvloop.run(run())
