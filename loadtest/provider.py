"""A paced stand-in for OpenAI's API, cheap enough not to be what is measured.

It answers chat completions, whole or as a stream, at a pace that the command line sets: so many milliseconds to the
first event, so many between events, one event per write. Every event carries the monotonic clock's nanoseconds at the
moment of writing (19 digits in its text), so that a client on the same machine can tell how long that very event was
under way. It promises correct HTTP/1.1 towards well-behaved clients and proxies, and nothing about odd ones.

    python -m loadtest.provider --port 41900 --ttft-ms 200 --gap-ms 20 --chunks 100

With `--faults N` every Nth request meets one of the faults of real providers, in turn: an error, a limit, a connection
that is reset before the answer or in its middle, an answer that stops.
"""

from __future__ import annotations

import argparse
import asyncio
import enum
import functools
import json
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any, cast

import httptools
import uvloop

MODEL = "gpt-4o"
STAMP_DIGITS = 19
STAMP_KEY = b'"content":" '
"""What stands before an event's time stamp; the text's leading space keeps it apart from other content."""

_HEAD = (
    "HTTP/1.1 {status}\r\nDate: {date}\r\nContent-Type: {content_type}\r\n{framing}\r\n"
    "access-control-expose-headers: X-Request-ID\r\nopenai-organization: loadtest\r\nopenai-processing-ms: 4\r\n"
    "openai-version: 2020-10-01\r\nx-ratelimit-limit-requests: 10000\r\nx-ratelimit-limit-tokens: 30000000\r\n"
    "x-ratelimit-remaining-requests: 9999\r\nx-ratelimit-remaining-tokens: 29999970\r\n"
    "x-ratelimit-reset-requests: 6ms\r\nx-ratelimit-reset-tokens: 0s\r\n"
    "x-request-id: req_0123456789abcdef0123456789abcdef\r\nstrict-transport-security: max-age=31536000\r\n"
    "X-Content-Type-Options: nosniff\r\n\r\n"
)


@dataclass(frozen=True)
class Pace:
    """What is answered and when. Times in milliseconds; sizes in bytes."""

    ttft_ms: float = 0.0
    gap_ms: float = 0.0
    chunks: int = 20
    chunk_bytes: int = 320
    body_bytes: int = 1024
    faults: int = 0


class Fault(enum.Enum):
    """What a provider may do wrong."""

    ERROR = "error"
    LIMIT = "limit"
    RESET = "reset"
    CUT = "cut"
    STALL = "stall"


@dataclass
class Counts:
    """What `/stats` tells of this worker since it started."""

    connections: int = 0
    requests: int = 0
    streams_open: int = 0
    streams_cancelled: int = 0
    faults: int = 0


def _head(status: str, content_type: str, framing: str) -> bytes:
    date = formatdate(usegmt=True)
    return _HEAD.format(status=status, date=date, content_type=content_type, framing=framing).encode()


def _whole(status: str, document: object) -> bytes:
    body = json.dumps(document, separators=(",", ":")).encode()
    return _head(status, "application/json", f"Content-Length: {len(body)}") + body


def _padded(document: dict[str, Any], fill: dict[str, Any], field: str, size: int) -> dict[str, Any]:
    """`document`, whose part `fill` gets so much text in `field` that the whole serialises to `size` bytes or more."""
    fill[field] += "x" * (size - len(json.dumps(document, separators=(",", ":"))))
    return document


class Answers:
    """Every answer as ready bytes, made once."""

    def __init__(self, pace: Pace) -> None:
        self.completion = _whole("200 OK", self._completion(pace.body_bytes))
        self.models = _whole("200 OK", {"object": "list", "data": [self._model()]})
        self.not_found = _whole(
            "404 Not Found", {"error": {"message": "no such path", "type": "invalid_request_error"}}
        )
        self.error = _whole("500 Internal Server Error", {"error": {"message": "it broke", "type": "server_error"}})
        self.limit = _whole("429 Too Many Requests", {"error": {"message": "too fast", "type": "rate_limit_error"}})
        self.stream_head = _head("200 OK", "text/event-stream; charset=utf-8", "Transfer-Encoding: chunked")
        self.first = self._stamped({"role": "assistant"}, pace.chunk_bytes)
        self.event = self._stamped({}, pace.chunk_bytes)
        self.stop = self._framed(self._chunk([{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}]))
        tokens = {"prompt_tokens": 9, "completion_tokens": pace.chunks, "total_tokens": 9 + pace.chunks}
        self.usage = self._framed({**self._chunk([]), "usage": tokens})
        self.done = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"

    @staticmethod
    def _model() -> dict[str, Any]:
        return {"id": MODEL, "object": "model", "created": 1715367049, "owned_by": "loadtest"}

    @staticmethod
    def _completion(size: int) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": "All is well. ", "refusal": None, "annotations": []}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        document = {
            "id": "chatcmpl-loadtest",
            "object": "chat.completion",
            "created": 1715367049,
            "model": MODEL,
            "choices": [choice],
            "usage": {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21},
            "service_tier": "default",
            "system_fingerprint": "fp_loadtest",
        }
        return _padded(document, message, "content", size)

    @staticmethod
    def _chunk(choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": "chatcmpl-loadtest",
            "object": "chat.completion.chunk",
            "created": 1715367049,
            "model": MODEL,
            "system_fingerprint": "fp_loadtest",
            "choices": choices,
        }

    @staticmethod
    def _framed(document: dict[str, Any]) -> bytes:
        event = b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n"
        return b"%x\r\n%b\r\n" % (len(event), event)

    def _stamped(self, delta: dict[str, Any], size: int) -> tuple[bytes, bytes]:
        """The bytes before and after an event's time stamp."""
        delta = {**delta, "content": " " + "0" * STAMP_DIGITS}
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
        event = self._framed(_padded(self._chunk([choice]), delta, "content", size))
        at = event.index(STAMP_KEY) + len(STAMP_KEY)
        return event[:at], event[at + STAMP_DIGITS :]


class Stream:
    """One answer on its way out: an event per tick, at times counted from the start so that delays do not add up."""

    def __init__(self, connection: Connection, with_usage: bool, fault: Fault | None = None) -> None:
        self._connection = connection
        self._with_usage = with_usage
        self._breaks_after = connection.pace.chunks // 2 if fault in (Fault.CUT, Fault.STALL) else -1
        self._fault = fault
        self._sent = 0
        pace = connection.pace
        self._gap = pace.gap_ms / 1000
        self._due = connection.loop.time() + pace.ttft_ms / 1000
        self._timer: asyncio.Handle = connection.loop.call_at(self._due, self._tick)

    def cancel(self) -> None:
        """Send no more."""
        self._timer.cancel()

    def resume(self) -> None:
        """Go on after the transport had been full."""
        self._schedule()

    def _tick(self) -> None:
        connection = self._connection
        answers = connection.answers
        before, after = answers.event if self._sent else answers.first
        event = b"%b%019d%b" % (before, time.monotonic_ns(), after)
        connection.write(event if self._sent else answers.stream_head + event)
        self._sent += 1
        self._due += self._gap
        if self._sent == self._breaks_after:
            if self._fault is Fault.CUT:
                connection.abort()
            return
        if not connection.full:
            self._schedule()

    def _schedule(self) -> None:
        loop = self._connection.loop
        step = self._tick if self._sent < self._connection.pace.chunks else self._finish
        # With no gap, a turn of the loop still lies between two events: one write, one segment.
        self._timer = loop.call_at(self._due, step) if self._gap else loop.call_soon(step)

    def _finish(self) -> None:
        answers = self._connection.answers
        self._connection.write(answers.stop)
        if self._with_usage:
            self._connection.write(answers.usage)
        self._connection.write(answers.done)
        self._connection.end_stream()


class Connection(asyncio.Protocol):
    """One client. Requests are answered in turn; a pipelined one would wait for nobody, and no proxy sends one."""

    def __init__(self, pace: Pace, answers: Answers, counts: Counts) -> None:
        self.pace = pace
        self.answers = answers
        self.counts = counts
        self.loop = asyncio.get_running_loop()
        self.full = False
        self._stream: Stream | None = None
        self._delayed: asyncio.Handle | None = None
        self._keep_alive = True
        self._path = b""
        self._body: list[bytes] = []
        self._parser = httptools.HttpRequestParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.write = self._transport.write
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._transport.set_write_buffer_limits(high=64 * 1024)
        self.counts.connections += 1

    def connection_lost(self, exc: Exception | None) -> None:
        if self._delayed is not None:
            self._delayed.cancel()
        if self._stream is not None:
            self._stream.cancel()
            self._stream = None
            self.counts.streams_open -= 1
            self.counts.streams_cancelled += 1

    def pause_writing(self) -> None:
        self.full = True

    def resume_writing(self) -> None:
        self.full = False
        if self._stream is not None:
            self._stream.resume()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.close()

    def on_url(self, url: bytes) -> None:
        self._path = url

    def on_body(self, part: bytes) -> None:
        self._body.append(part)

    def on_message_complete(self) -> None:
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body.clear()
        self._keep_alive = self._parser.should_keep_alive()
        self.counts.requests += 1
        if self._path == b"/v1/chat/completions":
            fault = self._next_fault()
            if fault is Fault.RESET:
                self.abort()
                return
            if fault in (Fault.ERROR, Fault.LIMIT):
                self._answer(self.answers.error if fault is Fault.ERROR else self.answers.limit)
                return
            if _true(body, b'"stream"'):
                self.counts.streams_open += 1
                self._stream = Stream(self, _true(body, b'"include_usage"'), fault)
                return
            answer = self.answers.completion
            if self.pace.ttft_ms:
                self._delayed = self.loop.call_later(self.pace.ttft_ms / 1000, self._answer, answer)
                return
        elif self._path == b"/v1/models":
            answer = self.answers.models
        elif self._path == b"/stats":
            answer = _whole("200 OK", vars(self.counts))
        else:
            answer = self.answers.not_found
        self._answer(answer)

    def abort(self) -> None:
        """Close with a reset, whatever is under way."""
        self._transport.abort()

    def _next_fault(self) -> Fault | None:
        if not self.pace.faults or self.counts.requests % self.pace.faults:
            return None
        self.counts.faults += 1
        return list(Fault)[self.counts.faults % len(Fault)]

    def end_stream(self) -> None:
        """Called by the stream after its last byte."""
        self._stream = None
        self.counts.streams_open -= 1
        self._close_unless_kept()

    def _answer(self, answer: bytes) -> None:
        self._transport.write(answer)
        self._close_unless_kept()

    def _close_unless_kept(self) -> None:
        if not self._keep_alive:
            self._transport.close()


def _true(body: bytes, key: bytes) -> bool:
    """Whether a member named `key` is true. Inside a string its quotes would be escaped, so that a find is enough."""
    at = body.find(key)
    while at >= 0:
        at += len(key)
        if body[at : at + 12].replace(b" ", b"").startswith(b":true"):
            return True
        at = body.find(key, at)
    return False


async def serve(listener: socket.socket, pace: Pace) -> None:
    """Serve on `listener` until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    factory = functools.partial(Connection, pace, Answers(pace), Counts())
    server = await loop.create_server(factory, sock=listener, backlog=4096)
    stopped = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stopped.set)
    await stopped.wait()
    server.close()


def listen(port: int) -> socket.socket:
    """A socket on loopback whose port further workers can share."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", port))
    return listener


def _arguments() -> argparse.Namespace:
    default = Pace()
    parser = argparse.ArgumentParser(prog="python -m loadtest.provider", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--port", type=int, default=0, help="on 127.0.0.1; 0 (default) takes a free one")
    parser.add_argument("--ttft-ms", type=float, default=default.ttft_ms, help="until the first event, or the answer")
    parser.add_argument("--gap-ms", type=float, default=default.gap_ms, help="between two events")
    parser.add_argument("--chunks", type=int, default=default.chunks, help="events with text in a stream")
    parser.add_argument("--chunk-bytes", type=int, default=default.chunk_bytes, help="size of such an event's JSON")
    parser.add_argument("--body-bytes", type=int, default=default.body_bytes, help="size of an answer that is whole")
    parser.add_argument(
        "--faults", type=int, default=default.faults, help="every so many requests meet a fault; 0: none"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes that share the port")
    return parser.parse_args()


def main() -> int:
    """Start the workers, say where they listen, and wait for them."""
    arguments = _arguments()
    pace = Pace(
        arguments.ttft_ms,
        arguments.gap_ms,
        arguments.chunks,
        arguments.chunk_bytes,
        arguments.body_bytes,
        arguments.faults,
    )
    listener = listen(arguments.port)
    port = listener.getsockname()[1]
    listeners = [listener, *(listen(port) for _ in range(arguments.workers - 1))]
    print(f"provider listening on http://127.0.0.1:{port}/v1", flush=True)
    children = []
    for own in listeners[1:]:
        if (pid := os.fork()) == 0:
            listener.close()
            uvloop.run(serve(own, pace))
            os._exit(0)
        children.append(pid)
        own.close()
    uvloop.run(serve(listener, pace))
    for pid in children:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
