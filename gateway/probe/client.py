"""A client that measures: one HTTP/1.1 connection, one request at a time, and when each event of the answer came.

`kt doctor` and `kt bench` aim it at a gateway or straight at a provider. It promises times of the monotonic clock in
nanoseconds, taken in the same turn of the event loop in which bytes were read, and trusts the server to frame its
answers plainly. It knows nothing of the gateway's own code.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, NamedTuple, cast
from urllib.parse import urlsplit

import certifi
import httptools

ANSWER_SECONDS: Final = 60.0
"""How long one answer may take, whole."""
STAMP: Final = re.compile(rb'"system_fingerprint":"kt_(\d+)"')
"""Where an event of `gateway.probe.provider` says when it was written. Not in the text, which a policy may change."""


class ProbeError(Exception):
    """Nothing can be measured; the message says why and what to do."""


class Place(NamedTuple):
    """Where to send requests: a base URL, taken apart. `prefix` is what stands before `/v1`."""

    host: str
    port: int
    tls: bool
    prefix: str

    @property
    def authority(self) -> str:
        """For the Host field: without the port where it is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.authority}{self.prefix}"


def place_of(url: str) -> Place:
    """`http://host:port`, with or without a trailing `/v1`. Raises ProbeError."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ProbeError(f"{url!r} is not a URL; write http://host:port or https://host.") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ProbeError(f"{url!r} is not a URL; write http://host:port or https://host.")
    tls = parts.scheme == "https"
    prefix = parts.path.rstrip("/").removesuffix("/v1")
    return Place(parts.hostname, port or (443 if tls else 80), tls, prefix)


@dataclass
class Reply:
    """One answer. Times in nanoseconds of the monotonic clock; `first` and `ended` are 0 until then."""

    sent: int
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    first: int = 0
    ended: int = 0
    arrivals: list[int] = field(default_factory=list)
    """When each server-sent event was complete; several that came in one read have one time."""
    transits: list[int] = field(default_factory=list)
    """From the provider's write of an event to its arrival, for events that carry a stamp."""
    body: bytes = b""

    @property
    def first_event_us(self) -> float:
        """From sending to the first event."""
        return (self.arrivals[0] - self.sent) / 1000

    @property
    def total_us(self) -> float:
        """From sending to the end."""
        return (self.ended - self.sent) / 1000

    @property
    def gaps_us(self) -> list[float]:
        """Between two events each."""
        return [(later - earlier) / 1000 for earlier, later in pairwise(self.arrivals)]

    @property
    def streams(self) -> bool:
        """Whether it is an event stream."""
        return self.headers.get("content-type", "").startswith("text/event-stream")

    def refusal(self) -> str:
        """What an error answer says, in one line."""
        try:
            message = json.loads(self.body)["error"]["message"]
        except (ValueError, KeyError, TypeError):
            message = self.body[:200].decode("utf-8", "replace")
        return f"{self.status}: {message}"


class Client(asyncio.Protocol):
    """One connection. `ask` sends and waits for the whole answer; `begin` and `first_event` leave in the middle."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._transport: asyncio.Transport | None = None
        self._parser: Any = None
        self._reply: Reply | None = None
        self._whole: asyncio.Future[Reply] | None = None
        self._begun: asyncio.Future[None] | None = None
        self._tail = b""
        self._unzip: Callable[[bytes], bytes] | None = None
        self._reusable = True

    @classmethod
    async def open(cls, place: Place, context: ssl.SSLContext | None = None) -> Client:
        """Connect. Raises ProbeError."""
        loop = asyncio.get_running_loop()
        client = cls(place)
        try:
            async with asyncio.timeout(10):
                await loop.create_connection(
                    lambda: client, place.host, place.port, ssl=(context or _context()) if place.tls else None
                )
        except (OSError, TimeoutError) as error:
            reason = getattr(error, "strerror", None) or str(error) or "no answer within 10 s"
            raise ProbeError(f"{place} cannot be reached: {reason}.") from None
        return client

    @property
    def usable(self) -> bool:
        """Whether another request may be sent on it."""
        return self._reusable and self._transport is not None and not self._transport.is_closing()

    async def ask(self, request: bytes) -> Reply:
        """Send a request and read its answer to the end. Raises ProbeError."""
        whole = self.begin(request)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await whole
        except TimeoutError:
            raise ProbeError(f"{self.place} did not complete an answer within {ANSWER_SECONDS:g} s.") from None

    def begin(self, request: bytes) -> asyncio.Future[Reply]:
        """Send a request; the answer comes later."""
        assert self._transport is not None
        loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._whole = loop.create_future()
        self._begun = loop.create_future()
        self._tail = b""
        self._unzip = None
        self._reply = Reply(time.perf_counter_ns())
        self._transport.write(request)
        return self._whole

    async def first_event(self) -> None:
        """Wait until the answer's first byte of body has come. Raises ProbeError."""
        assert self._begun is not None
        async with asyncio.timeout(ANSWER_SECONDS):
            await self._begun

    def close(self) -> None:
        """Leave: a FIN, whatever is under way."""
        if self._transport is not None:
            self._transport.close()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if (sock := transport.get_extra_info("socket")) is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        if self._whole is None or self._whole.done():
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"{self.place} does not answer with HTTP/1.1: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        self._reusable = False
        self._fail(f"{self.place} closed the connection before its answer was complete.")

    def _fail(self, message: str) -> None:
        for future in (self._begun, self._whole):
            if future is not None and not future.done():
                future.set_exception(ProbeError(message))
                future.exception()  # it may be that nobody waits any more

    # httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        assert self._reply is not None
        self._reply.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        assert self._reply is not None
        self._reply.status = self._parser.get_status_code()
        if self._reply.headers.get("content-encoding") == "gzip":
            self._unzip = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16).decompress

    def on_body(self, data: bytes) -> None:
        now = time.perf_counter_ns()
        reply = self._reply
        assert reply is not None
        assert self._begun is not None
        if self._unzip is not None:
            data = self._unzip(data)
        if not reply.first:
            reply.first = now
            if not self._begun.done():
                self._begun.set_result(None)
        if reply.streams and reply.status == 200:
            *events, self._tail = (self._tail + data).split(b"\n\n")
            for event in events:
                reply.arrivals.append(now)
                if stamp := STAMP.search(event):
                    reply.transits.append(now - int(stamp[1]))
        else:
            reply.body += data

    def on_message_complete(self) -> None:
        reply, whole = self._reply, self._whole
        assert reply is not None
        assert whole is not None
        reply.ended = time.perf_counter_ns()
        self._reusable = self._parser.should_keep_alive()
        if not whole.done():
            whole.set_result(reply)


_shared_context: ssl.SSLContext | None = None


def _context() -> ssl.SSLContext:
    """The system's roots and certifi's, as the gateway trusts them; read once."""
    global _shared_context
    if _shared_context is None:
        _shared_context = ssl.create_default_context()
        _shared_context.load_verify_locations(certifi.where())
    return _shared_context


def get(place: Place, path: str, key: str = "") -> bytes:
    """A GET of one of the gateway's own paths."""
    return _head("GET", place, path, key) + b"\r\n"


def chat(place: Place, document: dict[str, Any], key: str = "") -> bytes:
    """A chat completion request, as an SDK sends it."""
    body = json.dumps(document, separators=(",", ":")).encode()
    fields = b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    return _head("POST", place, "/v1/chat/completions", key) + fields + body


def _head(method: str, place: Place, path: str, key: str) -> bytes:
    lines = [f"{method} {place.prefix}{path} HTTP/1.1", f"Host: {place.authority}", "Accept: */*"]
    # As SDKs offer it: a proxy that compresses a stream holds it back for that, and must show itself.
    lines += ["Accept-Encoding: gzip", "User-Agent: kt"]
    if key:
        lines.append(f"Authorization: Bearer {key}")
    return "\r\n".join([*lines, ""]).encode("latin-1")


def percentile(samples: Sequence[float], share: float) -> float:
    """The least sample that `share` (0 to 1) of all do not exceed; 0 of none."""
    if not samples:
        return 0.0
    ordered = sorted(samples)
    return ordered[max(0, min(len(ordered) - 1, -int(-share * len(ordered) // 1) - 1))]
