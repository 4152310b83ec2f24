"""A load generator for one core: HTTP/1.1 over keep-alive connections, by hand on `epoll`, without an event loop.

Two ways to load: `closed` (every connection sends its next request when its answer is complete: how much can be done)
and `paced` (requests fall due at a fixed rate, whatever the server does: how long it takes). Paced latencies count
from the moment a request was *due*, not from when a connection was free to send it, so a server that stalls cannot
hide its stall by not being asked (no coordinated omission). All samples are kept and percentiles are exact.

It trusts what it is aimed at to frame answers plainly, and checks status and completeness of each.
"""

from __future__ import annotations

import ctypes
import gc
import math
import re
import select
import socket
import time
from array import array
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from loadtest.provider import STAMP_DIGITS, STAMP_KEY

Address = tuple[str, int]

_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_LAST_CHUNK = b"0\r\n\r\n"
_READ = 256 * 1024
_PR_SET_TIMERSLACK = 29
_EPOLL_TIMEOUT_GOOD_FROM = 1.0
"""Seconds. epoll's timeout counts in milliseconds; select's in microseconds, but costs a second call."""


class LoadError(Exception):
    """A slice that cannot be trusted: a wrong status, a lost connection, an answer that did not come."""


def percentile(samples: array[int], share: float) -> float:
    """The value below or at which `share` (0 to 1) of the samples lie, in microseconds; NaN of none."""
    if not samples:
        return math.nan
    return sorted(samples)[max(0, math.ceil(share * len(samples)) - 1)] / 1000


@dataclass
class Samples:
    """What a slice saw. Times in nanoseconds."""

    seconds: float = 0.0
    latency: array[int] = field(default_factory=lambda: array("q"))
    """Until the answer was complete: from when the request was due (paced), or sent (closed)."""
    first_event: array[int] = field(default_factory=lambda: array("q"))
    """Until the first event of a stream could be read."""
    transit: array[int] = field(default_factory=lambda: array("q"))
    """From the provider's write of an event to its being read here."""
    gap: array[int] = field(default_factory=lambda: array("q"))
    """Between two reads of one stream that brought events."""

    @property
    def requests(self) -> int:
        """Complete answers."""
        return len(self.latency)

    @property
    def events(self) -> int:
        """Events with text."""
        return len(self.transit)


class Reader(Protocol):
    """Takes one connection's bytes and says when an answer is complete."""

    def begin(self, due: int) -> None:
        """A request was sent that was due at this time (nanoseconds)."""

    def feed(self, data: bytes, now: int) -> bool:
        """Take what was read; true when the answer is complete."""


def _check_status(data: bytes) -> None:
    if not data.startswith(b"HTTP/1.1 200"):
        raise LoadError(f"unexpected answer: {data[:400].decode('latin-1')}")


class WholeReader:
    """An answer that is wanted whole; only its length matters."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples
        self._due = 0
        self._missing = -1  # bytes yet to come; -1: the head is not complete; -2: until the last chunk
        self._head = b""

    def begin(self, due: int) -> None:
        self._due = due
        self._missing = -1

    def feed(self, data: bytes, now: int) -> bool:
        if self._missing == -1:
            data = self._head + data
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._head = data
                return False
            self._head = b""
            _check_status(data)
            length = _CONTENT_LENGTH.search(data, 0, end)
            self._missing = int(length[1]) + end + 4 if length else -2
        if self._missing == -2:
            complete = data.endswith(_LAST_CHUNK)
        else:
            self._missing -= len(data)
            complete = self._missing == 0
        if complete:
            self._samples.latency.append(now - self._due)
        return complete


class EventReader:
    """A stream of server-sent events, with the provider's time stamps."""

    def __init__(self, samples: Samples, on_first: Callable[[], None], on_last: Callable[[], None]) -> None:
        self._samples = samples
        self._on_first = on_first
        self._on_last = on_last
        self._due = 0
        self._previous = 0
        self._rest = b""

    def begin(self, due: int) -> None:
        self._due = due
        self._previous = 0
        self._rest = b""

    def feed(self, data: bytes, now: int) -> bool:
        if not self._previous and not self._rest:
            _check_status(data)
        data = self._rest + data
        if stamped := self._stamps(data, now):
            if self._previous:
                self._samples.gap.append(now - self._previous)
            else:
                self._samples.first_event.append(now - self._due)
                self._on_first()
            self._previous = now
        self._rest = data[max(stamped, len(data) - len(STAMP_KEY) - STAMP_DIGITS + 1) :]
        if not data.endswith(_LAST_CHUNK):
            return False
        self._samples.latency.append(now - self._due)
        self._on_last()
        return True

    def _stamps(self, data: bytes, now: int) -> int:
        """Note the age of every event in `data`; the offset after the last complete stamp, 0 if there is none."""
        after = 0
        at = data.find(STAMP_KEY)
        while at >= 0 and len(data) - at >= len(STAMP_KEY) + STAMP_DIGITS:
            start = at + len(STAMP_KEY)
            after = start + STAMP_DIGITS
            self._samples.transit.append(now - int(data[start:after]))
            at = data.find(STAMP_KEY, after)
        return after


class _Connection:
    __slots__ = ("fd", "reader", "sock", "unsent")

    def __init__(self, address: Address, reader: Reader) -> None:
        self.sock = socket.create_connection(address, timeout=5)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        self.fd = self.sock.fileno()
        self.reader = reader
        self.unsent = b""


def _precise_timers() -> None:
    """Let the kernel wake this thread on time; by default it may be 50 µs late, several times what is measured."""
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1000, 0, 0, 0)


class Load:
    """Connections to one address that send one request over and over."""

    def __init__(self, address: Address, request: bytes, connections: int, reader: Callable[[], Reader]) -> None:
        self._request = request
        self._epoll = select.epoll()
        self._connections = {}
        for _ in range(connections):
            connection = _Connection(address, reader())
            self._connections[connection.fd] = connection
            self._epoll.register(connection.fd, select.EPOLLIN)
        self._idle = deque(self._connections.values())
        _precise_timers()

    def __enter__(self) -> Load:
        gc.disable()
        return self

    def __exit__(self, *_: object) -> None:
        gc.enable()
        self._epoll.close()
        for connection in self._connections.values():
            connection.sock.close()

    def closed(self, seconds: float) -> float:
        """Keep every connection busy for `seconds`, then await the last answers. The seconds that it really took."""
        start = time.monotonic_ns()
        end = start + int(seconds * 1e9)
        while self._idle:
            self._send(self._idle.pop(), time.monotonic_ns())
        while len(self._idle) < len(self._connections):
            for connection in self._await(5.0):
                now = time.monotonic_ns()
                if now < end:
                    self._send(connection, now)
                else:
                    self._idle.append(connection)
        return (time.monotonic_ns() - start) / 1e9

    def paced(self, rate: float, count: int) -> float:
        """Send `count` requests, `rate` a second, and await all answers. The seconds that it took."""
        interval = int(1e9 / rate)
        start = time.monotonic_ns()
        sent = 0
        while sent < count or len(self._idle) < len(self._connections):
            now = time.monotonic_ns()
            while sent < count and self._idle and start + sent * interval <= now:
                self._send(self._idle.popleft(), start + sent * interval)
                sent += 1
            due = (start + sent * interval - now) / 1e9 if sent < count and self._idle else 5.0
            self._idle.extend(self._await(max(due, 0.0), patient=due < 5.0))
        return (time.monotonic_ns() - start) / 1e9

    def _send(self, connection: _Connection, due: int) -> None:
        connection.reader.begin(due)
        sent = connection.sock.send(self._request)
        if sent < len(self._request):
            connection.unsent = self._request[sent:]
            self._epoll.modify(connection.fd, select.EPOLLIN | select.EPOLLOUT)

    def _await(self, seconds: float, *, patient: bool = False) -> list[_Connection]:
        """The connections whose answers became complete within `seconds`, once anything happened on any."""
        for_us = seconds < _EPOLL_TIMEOUT_GOOD_FROM
        ready = [] if for_us and not select.select([self._epoll], [], [], seconds)[0] else self._epoll.poll(seconds)
        if not ready and not patient:
            waiting = len(self._connections) - len(self._idle)
            raise LoadError(f"{waiting} answers did not come within {seconds:g} s")
        complete = []
        for fd, events in ready:
            connection = self._connections[fd]
            if events & select.EPOLLOUT:
                self._send_rest(connection)
            if events & ~select.EPOLLOUT and self._receive(connection):
                complete.append(connection)
        return complete

    def _send_rest(self, connection: _Connection) -> None:
        connection.unsent = connection.unsent[connection.sock.send(connection.unsent) :]
        if not connection.unsent:
            self._epoll.modify(connection.fd, select.EPOLLIN)

    def _receive(self, connection: _Connection) -> bool:
        try:
            data = connection.sock.recv(_READ)
        except ConnectionResetError:
            data = b""
        if not data:
            raise LoadError("the server closed a connection")
        return connection.reader.feed(data, time.monotonic_ns())


def request(body: bytes, *, host: str, key: str = "", fields: str = "") -> bytes:
    """A chat completion request as an SDK sends it. `fields`: further header lines, each with its end."""
    authorization = f"Authorization: Bearer {key}\r\n" if key else ""
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nAccept: application/json\r\n"
        f"Accept-Encoding: identity\r\nConnection: keep-alive\r\nContent-Type: application/json\r\n"
        f"User-Agent: OpenAI/Python 1.60.0\r\n{fields}{authorization}Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def closed_loop(address: Address, message: bytes, *, connections: int, seconds: float) -> Samples:
    """As many requests as go in `seconds` on so many connections."""
    samples = Samples()
    with Load(address, message, connections, lambda: WholeReader(samples)) as load:
        samples.seconds = load.closed(seconds)
    return samples


def open_loop(address: Address, message: bytes, *, connections: int, rate: float, seconds: float) -> Samples:
    """Requests at a fixed rate. `connections` bounds those in flight; waiting for a free one counts as latency."""
    samples = Samples()
    with Load(address, message, connections, lambda: WholeReader(samples)) as load:
        samples.seconds = load.paced(rate, round(rate * seconds))
    return samples


def streams(
    address: Address,
    message: bytes,
    *,
    count: int,
    rate: float,
    on_all_flowing: Callable[[Samples], None] = lambda samples: None,
    on_first_done: Callable[[Samples], None] = lambda samples: None,
) -> Samples:
    """Open `count` streams, `rate` a second, and read them all to their ends.

    The two calls mark the time in which nothing but events flows: after the last stream's first event, and at the
    first stream's end. Each is made at most once, and the second only after the first.
    """
    samples = Samples()
    waiting = {"first": count, "flowing": 0}

    def first() -> None:
        waiting["first"] -= 1
        if not waiting["first"]:
            waiting["flowing"] = 1
            on_all_flowing(samples)

    def last() -> None:
        if waiting["flowing"]:
            waiting["flowing"] = 0
            on_first_done(samples)

    with Load(address, message, count, lambda: EventReader(samples, first, last)) as load:
        samples.seconds = load.paced(rate, count)
    return samples
