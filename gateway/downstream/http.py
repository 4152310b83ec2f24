"""The client's side of a connection: HTTP/1.1 and 1.0 requests in, answers out, on an asyncio transport.

One connection serves one request at a time; what a client pipelines waits, in order and bounded. A head is parsed once
it is whole, a body is handed on once it is whole, an answer is written as it comes. The connection refuses to know
what a request means: an `Application` opens a `Handler` for each, and the handler calls `begin` and `send`.

A client that closes its side while its request is in flight has left: the handler is told at once, since tokens cost
money. Deadlines are attributes, and one sweep looks at them.
"""

from __future__ import annotations

import asyncio
import enum
import socket
from collections.abc import Callable
from typing import Final, Protocol, cast

import msgspec

from gateway.downstream.access import Access
from gateway.downstream.head import HeadLimits, RequestHead, Template, parse_head
from gateway.downstream.render import STATUS_LINES, http_date, status_line
from gateway.errors import (
    GatewayError,
    HeadTooLarge,
    MalformedHTTP,
    Overloaded,
    RequestTimeout,
    RequestTooLarge,
    TargetTooLong,
    Wire,
    envelope,
)
from gateway.http1 import LAST_CHUNK, MAX_OVERHEAD, MORE, ChunkWalker, FramingError

HIGH_WATER: Final = 64 * 1024
"""Bytes that wait for a slow client before its provider is slowed; uvloop's own low mark would be 16 bytes."""
LOW_WATER: Final = 16 * 1024
MAX_PIPELINED: Final = 64 * 1024
"""Bytes of further requests that are kept while one is being answered; more stay in the socket."""
MAX_DISCARDED: Final = 64 * 1024 * 1024
"""Bytes of a refused body that are read and thrown away, so that the client can read its answer (RFC 9112, 9.6)."""
LINE_OVERHEAD: Final = 64
"""What a request line has besides its target, at most: method, version, spaces."""
_BODILESS: Final = (204, 304)
NEVER: Final = float("inf")
SMALL_WRITE: Final = 64 * 1024
"""Up to this size head and body are joined into one write; above, two buffers go out in one system call."""


class DownstreamLimits(msgspec.Struct, frozen=True):
    """Bounds on what one client connection may hold and how long it may take, in bytes and seconds."""

    head: HeadLimits = HeadLimits()
    body_bytes: int = 32 * 1024 * 1024
    chunk_overhead_bytes: int = MAX_OVERHEAD
    buffered_bytes: int = 1024 * 1024 * 1024
    head_seconds: float = 10.0
    body_idle_seconds: float = 30.0
    keepalive_seconds: float = 75.0
    linger_seconds: float = 2.0
    write_idle_seconds: float = 300.0


class Handler(Protocol):
    """One request in the making; `exchange.Exchange` is one."""

    def on_body(self, body: bytes) -> None:
        """The request is whole."""

    def on_body_failed(self, error: GatewayError) -> None:
        """The rest of the request did not come, or was malformed or too large: answer with the error."""

    def on_client_gone(self) -> None:
        """The client has left; nothing can be sent any more."""

    def on_client_paused(self) -> None:
        """The client reads slower than it is written to."""

    def on_client_resumed(self) -> None:
        """The client has caught up."""


class Application(Protocol):
    """What a server does with requests."""

    def open(self, head: RequestHead, client: DownstreamConnection) -> Handler | None:
        """A head has arrived. Returns its handler, or None when it has been answered already."""

    def refuse(self, error: GatewayError, head: RequestHead | None, client: DownstreamConnection) -> None:
        """A request cannot be taken; it has no handler, and no head where that is what cannot be read. Answer it."""


class Server:
    """What all client connections of a worker share."""

    def __init__(
        self, application: Application, limits: DownstreamLimits, clock: Callable[[], float], wall: Callable[[], float]
    ) -> None:
        self.application = application
        self.limits = limits
        self.access: Access | None = None
        self.clock = clock
        self.wall = wall
        self.connections: set[DownstreamConnection] = set()
        self.draining = False
        self.accepted = 0
        self.buffered = 0
        self._sweeping: list[DownstreamConnection] = []

    def __repr__(self) -> str:
        return f"<Server {len(self.connections)} connections, {self.buffered} bytes of bodies held>"

    def __call__(self) -> DownstreamConnection:
        """The protocol factory."""
        return DownstreamConnection(self)

    def configure(self, limits: DownstreamLimits, access: Access | None) -> None:
        """Other bounds are in force from now on, and other rules on who may connect; also on connections that are
        open, whose next head is judged anew."""
        self.limits = limits
        self.access = access
        for connection in self.connections:
            connection.forget_head()

    def sweep(self) -> None:
        """Look at up to 1,000 deadlines; called every 100 ms, so 10,000 idle connections cost 0.1 ms a call."""
        if not self._sweeping:
            self._sweeping = list(self.connections)
        now = self.clock()
        for connection in self._sweeping[-1000:]:
            if connection.deadline < now:
                connection.on_deadline()
        del self._sweeping[-1000:]

    @property
    def unfinished(self) -> int:
        """Connections on which a request is under way, or part of an answer is still to be sent."""
        return sum([connection.unfinished for connection in self.connections])

    def drain(self) -> None:
        """Close idle connections now, busy ones after their answer."""
        self.draining = True
        for connection in list(self.connections):
            connection.drain()


class State(enum.Enum):
    """What a client connection is doing."""

    HEAD = "waiting for a head"
    BODY = "reading a body"
    BUSY = "answering"
    DISCARDING = "answered, throwing input away"
    CLOSED = "closed"


# Bound once, for what every request runs: a look-up on an enum's class costs 0.15 µs, a module's name 0.01.
_HEAD: Final = State.HEAD
_BUSY: Final = State.BUSY
_OK: Final = STATUS_LINES[200]


class DownstreamConnection(asyncio.Protocol):
    """One client connection."""

    __slots__ = (
        "_address",
        "_advancing",
        "_body_left",
        "_buffer",
        "_chunked_answer",
        "_discarded",
        "_handler",
        "_keep_alive",
        "_paused_reading",
        "_pieces",
        "_server",
        "_state",
        "_stripped",
        "_template",
        "_transport",
        "_unsent",
        "_walker",
        "_write_paused",
        "deadline",
        "head",
        "peer",
    )

    def __init__(self, server: Server) -> None:
        self._server = server
        self._state = State.HEAD
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._buffer = b""
        self._stripped = False
        self._template: Template | None = None
        self._pieces: list[bytes] = []
        self._body_left = 0
        self._walker: ChunkWalker | None = None
        self._handler: Handler | None = None
        self._advancing = False
        self._keep_alive = False
        self._chunked_answer = False
        self._paused_reading = False
        self._write_paused = False
        self._unsent = 0
        self._discarded = 0
        self.head: RequestHead | None = None
        self._address = ""
        self.peer = ""
        self.deadline = 0.0

    def __repr__(self) -> str:
        paused = ", client paused" if self._write_paused else ""
        return f"<DownstreamConnection {self.peer or 'unconnected'} {self._state.value}{paused}>"

    # Transport events

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(HIGH_WATER, LOW_WATER)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer = transport.get_extra_info("peername")
        self.peer = self._address = peer[0] if isinstance(peer, tuple) else "local"
        self._server.accepted += 1
        self._server.connections.add(self)
        self.deadline = self._server.clock() + self._server.limits.head_seconds

    def data_received(self, data: bytes) -> None:
        state = self._state
        if state is _HEAD and not self._write_paused:
            if self._buffer:
                self._buffer += data
                self._advance()
            elif not self._take_whole(data):
                self._buffer = data
                self._advance()
                if self._buffer and self._state is State.HEAD:
                    self.deadline = self._server.clock() + self._server.limits.head_seconds
        elif state is State.BODY:
            self._take_body(data)
            self._advance()
        elif state is State.BUSY or state is State.HEAD:
            self._hold(data)
        elif state is State.DISCARDING:
            self._discarded += len(data)
            if self._discarded > MAX_DISCARDED:
                self._transport.abort()

    def eof_received(self) -> bool:
        """A FIN, at any time, means that the client has left (RFC 9112, section 9.6, lets us take it so)."""
        self._leave()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._leave()
        self._release_body()
        self._state = State.CLOSED
        self._server.connections.discard(self)

    def pause_writing(self) -> None:
        self._write_paused = True
        self._await_delivery()
        if self._handler is not None:
            self._handler.on_client_paused()

    def resume_writing(self) -> None:
        self._write_paused = False
        self._unsent = 0
        if self._state is State.BUSY:
            self.deadline = NEVER
        elif self._state is State.HEAD:
            self._await_head()
            self._advance()
        elif self._state is State.DISCARDING:
            self._await_delivery()
        if self._handler is not None:
            self._handler.on_client_resumed()

    # Reading

    def _take_whole(self, data: bytes) -> bool:
        """The ordinary request: the head of the one before, and its whole body, in one read. 2.5 µs of 35 less than the
        general way, which takes everything else."""
        template = self._template
        if template is None or self._advancing or self._paused_reading:
            return False
        length, end = template.match(data)
        server = self._server
        if not end or end + length != len(data) or length > server.limits.body_bytes:
            return False
        self.head = head = template.head
        self._stripped = False
        self._keep_alive = True
        self._state = _BUSY
        self.deadline = NEVER
        warm = head.warm
        if warm is not None and warm.take(data[end:]):
            if self._state is _BUSY:
                self._handler = warm
            return True
        handler = server.application.open(head, self)
        if handler is not None and self._state is _BUSY:
            self._handler = handler
            handler.on_body(data[end:])
        return True

    def _advance(self) -> None:
        """Serve what is in the buffer, one request after the other, without recursion."""
        if self._advancing:
            return
        self._advancing = True
        try:
            # A client that does not read its answers gets no further ones to pile up.
            while self._buffer and self._state is State.HEAD and not self._write_paused and self._take_head():
                pass
        except GatewayError as error:
            self._keep_alive = False
            self._server.application.refuse(error, self.head, self)
        finally:
            self._advancing = False
        if self._paused_reading and self._state is not State.BUSY and not self._write_paused:
            self._read_on()

    def _take_head(self) -> bool:
        """Take one head off the buffer and open its exchange. False: more bytes are needed."""
        data = self._buffer
        template = self._template
        if template is not None:
            length, end = template.match(data)
            if end:
                self._buffer = b""
                self._stripped = False
                self.head = head = template.head
                self._keep_alive = True
                self._begin(head, length, data, end)
                return True
        return self._parse_head(data)

    def _parse_head(self, data: bytes) -> bool:
        limits = self._server.limits
        if data.startswith(b"\r\n") and not self._stripped:
            # RFC 9112, section 2.2: one empty line before a request is ignored.
            self._stripped = True
            data = self._buffer = data[2:]
        end = data.find(b"\r\n\r\n") + 4
        self.head = None
        if end < 4 or end > limits.head.head_bytes:
            self._check_part(data, limits.head)
            return False
        self._template = None
        head = self.head = parse_head(data[:end], limits.head)
        access = self._server.access
        if access is not None:
            self.peer = access.client(self._address, head.own.get(b"x-forwarded-for"))
            access.check(self.peer)
        if head.length and head.keep_alive and not head.expects_continue:
            self._template = Template(data[:end], head)
        self._stripped = False
        self._buffer = b""
        self._keep_alive = head.keep_alive
        self._begin(head, head.length, data, end)
        return True

    def _check_part(self, data: bytes, limits: HeadLimits) -> None:
        """Refuse what cannot become a head, or not in time, however it goes on."""
        longest_line = limits.target_bytes + LINE_OVERHEAD
        if len(data) > longest_line and data.find(b"\r\n", 0, longest_line) < 0:
            raise TargetTooLong(f"The request target is longer than {limits.target_bytes} bytes.")
        if len(data) > limits.head_bytes:
            raise HeadTooLarge(f"The request head is larger than {limits.head_bytes} bytes.")
        if data.count(b"\n") != data.count(b"\r\n") or b"\0" in data:
            raise MalformedHTTP("This is no HTTP/1.1 request: every line of its head ends in CR and LF.")

    def _begin(self, head: RequestHead, length: int | None, data: bytes, end: int) -> None:
        """A head has been read; `length` is that of the body, which begins at `end`."""
        if length is None or end + length > len(data):
            self._begin_body(head, length, data[end:])
            return
        limits = self._server.limits
        if length > limits.body_bytes:
            raise RequestTooLarge(f"The request body is larger than {limits.body_bytes} bytes.")
        # The ordinary case: the whole request is here.
        self._buffer = data[end + length :]
        self._state = State.BUSY
        self.deadline = NEVER
        handler = self._server.application.open(head, self)
        if handler is not None and self._state is State.BUSY:
            self._handler = handler
            handler.on_body(data[end : end + length])

    def _begin_body(self, head: RequestHead, length: int | None, rest: bytes) -> None:
        limits = self._server.limits
        if length is not None and length > limits.body_bytes:
            raise RequestTooLarge(f"The request body is larger than {limits.body_bytes} bytes.")
        if self._server.buffered > limits.buffered_bytes:
            raise Overloaded("The gateway holds too many unfinished requests; try again soon.")
        self._state = State.BODY
        handler = self._server.application.open(head, self)
        if self._state is not State.BODY:
            return
        self._handler = handler
        self._walker = ChunkWalker(limits.chunk_overhead_bytes, spaced=True) if length is None else None
        self._body_left = limits.body_bytes if length is None else length
        if head.expects_continue and not rest:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.deadline = self._server.clock() + limits.body_idle_seconds
        if rest:
            self._take_body(rest)

    def _take_body(self, data: bytes) -> None:
        """Collect a body that did not come whole with its head."""
        rest = b""
        if self._walker is None:
            if len(data) > self._body_left:
                data, rest = data[: self._body_left], data[self._body_left :]
            piece, done = data, len(data) == self._body_left
        else:
            try:
                end = self._walker.feed(data)
            except FramingError as error:
                self._fail_body(MalformedHTTP(f"Malformed chunked body: {error}."))
                return
            piece, done = self._walker.payload(data), end != MORE
            if done:
                rest = data[end:]
        self._body_left -= len(piece)
        if self._body_left < 0:
            self._fail_body(RequestTooLarge(f"The request body is larger than {self._server.limits.body_bytes} bytes."))
            return
        self._pieces.append(piece)
        self._server.buffered += len(piece)
        self.deadline = self._server.clock() + self._server.limits.body_idle_seconds
        if done:
            self._buffer = rest
            body = b"".join(self._pieces)
            self._release_body()
            self._state = State.BUSY
            self.deadline = NEVER
            if self._handler is not None:
                self._handler.on_body(body)

    def _fail_body(self, error: GatewayError) -> None:
        self._release_body()
        self._keep_alive = False
        if self._handler is not None:
            self._handler.on_body_failed(error)

    def _release_body(self) -> None:
        self._server.buffered -= sum(map(len, self._pieces))
        self._pieces.clear()
        self._walker = None

    def _hold(self, data: bytes) -> None:
        """Keep pipelined bytes; reading goes on up to a bound, so that a client's FIN is noticed while it waits."""
        self._buffer += data
        if len(self._buffer) > MAX_PIPELINED and not self._paused_reading:
            self._paused_reading = True
            self._transport.pause_reading()

    # Writing

    @property
    def takes_chunks(self) -> bool:
        """The client understands chunked framing, so a chunked body may be passed on as it is."""
        return self.head is not None and not self.head.http10

    def begin(
        self, status: int, fields: bytes, *, length: int | None, data: bytes, end: bool, raw: bool, reason: bytes = b""
    ) -> None:
        """Send an answer's head with the first bytes of its body, in one write.

        `fields` are rendered header lines without framing fields. `length` None: the body is chunked (for HTTP/1.0: it
        ends with the connection). `raw`: `data` carries its chunk framing already.
        """
        head = self.head
        assert head is not None
        if (
            end
            and length is not None
            and status == 200
            and self._keep_alive
            and self._state is _BUSY
            and length <= SMALL_WRITE
            and head.method == b"POST"
            and not head.http10
            and not self._server.draining
        ):
            # The ordinary answer, whole: rendered at once, for 0.17 µs less than by what follows.
            self._chunked_answer = False
            self._transport.write(b"%b%bcontent-length: %d\r\n\r\n%b" % (_OK, fields, length, data))
            self._finish()
            return
        bodiless = head.method == b"HEAD" or status in _BODILESS
        if length is not None:
            framing = b"\r\n" if status in _BODILESS else b"content-length: %d\r\n\r\n" % length
            self._chunked_answer = False
        else:
            self._chunked_answer = not (head.http10 or bodiless)
            if head.http10:
                self._keep_alive = False
            framing = b"transfer-encoding: chunked\r\n\r\n" if self._chunked_answer else b"\r\n"
        if self._server.draining or self._state is State.BODY:
            self._keep_alive = False
        if not self._keep_alive:
            framing = b"connection: close\r\n" + framing
        elif head.http10:
            framing = b"connection: keep-alive\r\n" + framing
        if bodiless:
            data = b""
        elif self._chunked_answer and not raw:
            data = self._frame(data, end)
        prefix = (STATUS_LINES.get(status) or status_line(status, reason)) + fields + framing
        if len(data) > SMALL_WRITE:
            self._transport.writelines([prefix, data])
        else:
            self._transport.write(prefix + data)
        if end:
            self._finish()

    def answer_whole(self, fields: bytes, body: bytes) -> None:
        """`begin` for a good JSON answer that is whole."""
        server, transport = self._server, self._transport
        if not self._keep_alive or server.draining or len(body) > SMALL_WRITE or transport.is_closing():
            self.begin(200, fields, length=len(body), data=body, end=True, raw=False)
            return
        self._handler = None
        self._state = _HEAD
        transport.write(b"%b%bcontent-length: %d\r\n\r\n%b" % (_OK, fields, len(body), body))
        if not self._write_paused:
            self.deadline = server.clock() + server.limits.keepalive_seconds
        if self._buffer or self._paused_reading:
            if not self._write_paused:
                self._await_head()
            self._advance()

    def switch_protocols(self, answer: bytes) -> tuple[asyncio.Transport, bytes]:
        """Answer 101 and give the transport away, with what was read behind the request; this object is done."""
        self._handler = None
        self._state = State.CLOSED
        self.deadline = NEVER
        self._server.connections.discard(self)
        data, self._buffer = self._buffer, b""
        if self._paused_reading:
            self._read_on()
        self._transport.write(answer)
        return self._transport, data

    def hand_over(self, handler: Handler, successor: Handler) -> None:
        """Another one serves the request from now on."""
        if self._handler is handler:
            self._handler = successor

    @property
    def write(self) -> Callable[[bytes], None]:
        """Where bytes of a chunked body go that carry their framing already: to the transport itself, which saves each
        chunk of a stream a call (0.02 µs of 0.7)."""
        return self._transport.write

    def send(self, data: bytes, *, end: bool, raw: bool) -> None:
        """Send more of the body. `raw` data, framing included, goes out as the very object that it is."""
        if self._chunked_answer and not raw:
            data = self._frame(data, end)
        if data and not (self.head is not None and self.head.method == b"HEAD"):
            self._transport.write(data)
        if end:
            self._finish()

    def _frame(self, payload: bytes, end: bool) -> bytes:
        """A payload as one chunk; with the last chunk behind it at the end."""
        if payload:
            return b"%x\r\n%b\r\n%b" % (len(payload), payload, LAST_CHUNK if end else b"")
        return LAST_CHUNK if end else b""

    def reply(self, status: int, fields: bytes, body: bytes) -> None:
        """Send a whole answer that the gateway made itself."""
        date = b"date: %b\r\n" % http_date(self._server.wall())
        self.begin(status, fields + date, length=len(body), data=body, end=True, raw=False)

    def refuse(self, error: GatewayError, request_id: str = "", wire: Wire = Wire.OPENAI, fields: bytes = b"") -> None:
        """Send an error in the client's own format, once, and close where the connection cannot be trusted."""
        if error.closes:
            self._keep_alive = False
        if self.head is None:
            # The head could not be read: there is nothing to go by but HTTP/1.1.
            self.head = RequestHead(b"", b"", b"", {}, [], 0, keep_alive=False)
        extra = b"".join([b"%b: %b\r\n" % field for field in error.headers])
        self.reply(
            error.status,
            b"content-type: application/json\r\n" + fields + extra,
            envelope(error, request_id, wire),
        )

    def abort(self) -> None:
        """The answer cannot be completed: let the client see that, by closing without an end mark."""
        self._handler = None
        self._keep_alive = False
        if not self._transport.is_closing():
            self._state = State.DISCARDING
            self._await_delivery()
            self._transport.close()

    def _finish(self) -> None:
        self._handler = None
        if self._pieces:
            self._release_body()
        if self._keep_alive and not (self._server.draining or self._transport.is_closing()):
            self._state = State.HEAD
            if not self._write_paused:
                self._await_head()
            if self._buffer or self._paused_reading:
                self._advance()
        else:
            self._linger()

    def _await_head(self) -> None:
        limits = self._server.limits
        self.deadline = self._server.clock() + (limits.head_seconds if self._buffer else limits.keepalive_seconds)

    def _await_delivery(self) -> None:
        """The client gets time to take what was written, and more as long as it takes some of it; then to close."""
        limits = self._server.limits
        self._unsent = self._transport.get_write_buffer_size()
        waiting = self._unsent or self._write_paused
        self.deadline = self._server.clock() + (limits.write_idle_seconds if waiting else limits.linger_seconds)

    def _read_on(self) -> None:
        self._paused_reading = False
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def _linger(self) -> None:
        """Close in two steps: a reset now could destroy the answer on its way (RFC 9112, section 9.6)."""
        self._state = State.DISCARDING
        self._buffer = b""
        self._await_delivery()
        if self._paused_reading:
            self._read_on()
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    # Ends

    @property
    def unfinished(self) -> bool:
        """A request is under way, or the client has not taken the whole of an answer yet."""
        return self._state in (State.BODY, State.BUSY) or self._transport.get_write_buffer_size() > 0

    def on_deadline(self) -> None:
        """The deadline of the present state has passed."""
        self.deadline = NEVER
        if self._state is State.BODY:
            self._fail_body(RequestTimeout("The request body did not arrive in time."))
        elif self._state is State.CLOSED:
            pass
        elif self._transport.get_write_buffer_size() < self._unsent:
            self._await_delivery()  # slow, but not gone
        elif self._state is not State.HEAD or self._write_paused:
            self._leave()
            self._transport.abort()
        elif self._buffer:
            self._keep_alive = False
            error = RequestTimeout("The request head did not arrive in time.")
            self._server.application.refuse(error, None, self)
        else:
            self._linger()

    def close(self) -> None:
        """Close after what has been written has gone out."""
        self._transport.close()

    def forget_head(self) -> None:
        """The next head is read by all the rules, also where it is the one before."""
        self._template = None

    def drain(self) -> None:
        """Close now if idle; otherwise the answer that is under way is the last."""
        if self._state is State.HEAD and not self._buffer:
            self._linger()

    def _leave(self) -> None:
        handler, self._handler = self._handler, None
        if handler is not None:
            self._release_body()
            handler.on_client_gone()
