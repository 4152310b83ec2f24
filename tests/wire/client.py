"""A client that says exactly these bytes on a real socket, and hears exactly those."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator

from tests.gateway.downstream.support import answers
from tests.provider import PATIENCE, Gate


class RawClient:
    """One connection. Every wait has the patience of the tests, so that a fault fails and does not hang."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._heard = bytearray()

    @property
    def heard(self) -> bytes:
        """All that has come so far."""
        return bytes(self._heard)

    def says(self, data: bytes) -> None:
        self._writer.write(data)

    async def says_slowly(self, *parts: bytes) -> None:
        """Each part in a segment of its own."""
        for part in parts:
            self._writer.write(part)
            await self._writer.drain()
            await asyncio.sleep(0)

    async def hears(self, end: bytes) -> bytes:
        """All that has come, once it ends so."""
        async with asyncio.timeout(PATIENCE):
            while not self._heard.endswith(end):
                data = await self._reader.read(65536)
                assert data, f"the gateway closed after {self.heard!r}"
                self._heard += data
        return self.heard

    async def hears_until(self, gate: Gate) -> None:
        """Read on until something has happened, after which more will come."""
        async with asyncio.timeout(PATIENCE):
            while not gate.is_open:
                self._heard += await self._reader.read(65536)

    async def answers(self, count: int, *methods: bytes) -> list[tuple[int, bytes]]:
        """So many whole answers."""
        async with asyncio.timeout(PATIENCE):
            while len(found := answers(self.heard, *methods)) < count:
                data = await self._reader.read(65536)
                assert data, f"the gateway closed after {self.heard!r}"
                self._heard += data
        return found

    async def hears_the_end(self) -> bytes:
        """All that comes until the gateway closes its side."""
        async with asyncio.timeout(PATIENCE):
            self._heard += await self._reader.read()
        return self.heard

    def half_closes(self) -> None:
        """FIN; it still reads."""
        self._writer.write_eof()

    def resets(self) -> None:
        """RST."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    def stops_reading(self) -> None:
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]

    def reads_on(self) -> None:
        self._writer.transport.resume_reading()  # type: ignore[attr-defined]


@contextlib.asynccontextmanager
async def connected(port: int, *, receive_buffer: int | None = None) -> AsyncIterator[RawClient]:
    """A client of a loopback port; `receive_buffer` bounds what the kernel takes for one that does not read."""
    sock = socket.socket()
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    reader, writer = await asyncio.open_connection(sock=sock, limit=65536)
    try:
        yield RawClient(reader, writer)
    finally:
        writer.transport.abort()
