"""A WebSocket provider that sends back what it is sent, as cheaply as Python can: the other end of a load test.

    python -m loadtest.echo --port 9000

It takes any path, agrees on no extension, and expects what its clients send: whole, masked messages of less than
64 KB. Anything else ends the connection.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import re
from typing import Final, cast

import uvloop

GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_NONCE: Final = re.compile(rb"^sec-websocket-key:[ \t]*([A-Za-z0-9+/=]{24})", re.IGNORECASE | re.MULTILINE)
_TEXT, _BINARY, _CLOSE, _PING, _PONG = 1, 2, 8, 9, 10


def accept_token(nonce: bytes) -> bytes:
    """The answer to a client's key (RFC 6455, section 4.2.2)."""
    return base64.b64encode(hashlib.sha1(nonce + GUID).digest())


def mask(payload: bytes, key: bytes) -> bytes:
    """Put a mask on or take it off."""
    size = len(payload)
    stretched = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(stretched, "little")).to_bytes(size, "little")


def header(opcode: int, size: int, bit: int = 0) -> bytes:
    """The header of a whole frame of less than 64 KB."""
    return (
        bytes((0x80 | opcode, bit | size)) if size < 126 else bytes((0x80 | opcode, bit | 126, size >> 8, size & 255))
    )


def frames(data: bytes, *, masked: bool) -> tuple[list[tuple[int, bytes]], bytes]:
    """Opcodes and payloads (unmasked) of the whole frames in `data`, and the rest."""
    found = []
    at = 0
    while len(data) - at >= 2:
        size, start = data[at + 1] & 127, at + 2
        if size == 126:
            size, start = int.from_bytes(data[at + 2 : at + 4], "big"), at + 4
        end = start + size + (4 if masked else 0)
        if end > len(data):
            break
        payload = mask(data[start + 4 : end], data[start : start + 4]) if masked else data[start:end]
        found.append((data[at] & 15, payload))
        at = end
    return found, data[at:]


class Echo(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._open = False
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if not self._open:
            self._shake_hands(data)
            return
        out = []
        found, self._rest = frames(self._rest + data, masked=True)
        for opcode, payload in found:
            if opcode in (_TEXT, _BINARY, _CLOSE):
                out += [header(opcode, len(payload)), payload]
            elif opcode == _PING:
                out += [header(_PONG, len(payload)), payload]
        if out:
            self._transport.write(b"".join(out))

    def _shake_hands(self, data: bytes) -> None:
        head, separator, rest = (self._rest + data).partition(b"\r\n\r\n")
        if not separator:
            self._rest = head
            return
        nonce = _NONCE.search(head)
        if nonce is None:  # whoever asks whether the port is open, or what is not a handshake
            self._transport.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            self._transport.close()
            return
        self._open = True
        self._rest = b""
        self._transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
            b"sec-websocket-accept: %b\r\n\r\n" % accept_token(nonce[1])
        )
        if rest:
            self.data_received(rest)


async def _serve(host: str, port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Echo, host, port, backlog=4096)
    await server.serve_forever()


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.echo", description="A WebSocket provider that echoes.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    uvloop.run(_serve(arguments.host, arguments.port))


if __name__ == "__main__":
    main()
