"""A provider on loopback that keeps a pace, so that what a gateway adds can be told from what a provider takes.

It answers chat completions in OpenAI's format, one event per write. Each event carries the time at which it was
written (in `system_fingerprint`, where no policy looks), and `gateway.probe.client`, in the same process, compares it
with its own. It notes when a client leaves in the middle of a stream. Well-behaved clients only: it is asked by our
own gateway.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final, cast

import httptools

_HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\n%b\r\n\r\n"
_WORDS: Final = ("All", " is", " well", " and", " the", " harbour", " lies", " quiet")


@dataclass
class Pace:
    """How a stream runs: milliseconds to the first event and between events, and how many events."""

    first_ms: float = 0.0
    gap_ms: float = 2.0
    events: int = 20


class Provider:
    """What all its connections share. `pace` may be changed between requests."""

    def __init__(self) -> None:
        self.pace = Pace()
        self.port = 0
        self.requests = 0
        self._left: list[asyncio.Future[int]] = []

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self.port}"

    def next_departure(self) -> asyncio.Future[int]:
        """When the next client leaves in the middle of a stream: nanoseconds of the monotonic clock."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._left.append(future)
        return future

    def note_departure(self) -> None:
        """A client has left in the middle of a stream."""
        if self._left:
            future = self._left.pop(0)
            if not future.done():
                future.set_result(time.perf_counter_ns())


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[Provider]:
    """A provider on a free port of loopback while inside."""
    provider = Provider()
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(provider), "127.0.0.1", 0)
    provider.port = server.sockets[0].getsockname()[1]
    try:
        yield provider
    finally:
        server.close()


class _Connection(asyncio.Protocol):
    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._parser = httptools.HttpRequestParser(self)
        self._body = b""
        self._stream: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._stream is not None and not self._stream.done():
            self._stream.cancel()
            self._provider.note_departure()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.close()

    def on_message_begin(self) -> None:
        self._body = b""

    def on_body(self, data: bytes) -> None:
        self._body += data

    def on_message_complete(self) -> None:
        self._provider.requests += 1
        document = json.loads(self._body or b"{}")
        if document.get("stream"):
            usage = (document.get("stream_options") or {}).get("include_usage") is True
            self._stream = asyncio.ensure_future(self._send_stream(document.get("model", ""), usage))
        else:
            body = json.dumps(_completion(document.get("model", ""))).encode()
            self._transport.write(_HEAD % (b"application/json", b"Content-Length: %d" % len(body)) + body)

    async def _send_stream(self, model: str, usage: bool) -> None:
        """Events at times counted from the start, so that delays do not add up."""
        pace = self._provider.pace
        loop = asyncio.get_running_loop()
        begin = loop.time()
        head = _HEAD % (b"text/event-stream", b"Transfer-Encoding: chunked")
        for number in range(pace.events):
            due = begin + (pace.first_ms + number * pace.gap_ms) / 1000
            await asyncio.sleep(max(0.0, due - loop.time()))
            self._transport.write(head + _framed(_chunk(model, _WORDS[number % len(_WORDS)])))
            head = b""
        end = _framed(_chunk(model, None))
        if usage:
            counts = {"prompt_tokens": 9, "completion_tokens": pace.events, "total_tokens": 9 + pace.events}
            end += _framed({**_chunk(model, None), "choices": [], "usage": counts})
        self._transport.write(end + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")


def _framed(document: dict[str, Any]) -> bytes:
    event = b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(event), event)


def _chunk(model: str, word: str | None) -> dict[str, Any]:
    delta = {} if word is None else {"content": word}
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": "stop" if word is None else None}
    return {
        "id": "chatcmpl-probe",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": model,
        "system_fingerprint": f"kt_{time.perf_counter_ns()}",
        "choices": [choice],
    }


def _completion(model: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": "All is well.", "refusal": None}
    return {
        "id": "chatcmpl-probe",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
    }
