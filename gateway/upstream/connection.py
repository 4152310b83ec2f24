"""One connection to a provider: requests out, responses in, on an asyncio transport.

It serves one request at a time: the pool leases it, `send` writes the request, and a listener hears of the response as
it is read. What holds nothing but body is handed on as the very object that the transport delivered. When a response
is complete the connection has gone back to the pool, or is closed, before the listener hears of the end, so the next
request may have it at once. It refuses to know what a body means, how connections are made, and when to try again.

A connection that holds no request and becomes readable is dead, whatever came.
"""

from __future__ import annotations

import asyncio
import enum
import select
import socket
from collections.abc import Callable
from re import Match
from typing import Final, Protocol, cast

from gateway.errors import UpstreamError, UpstreamInvalid, UpstreamReset
from gateway.http1 import MORE, ChunkWalker, FramingError
from gateway.types import Origin, ResponseHead
from gateway.upstream.egress import Forwarding
from gateway.upstream.head import Body, parse_head
from gateway.upstream.template import Learner, Template

MAX_HEAD: Final = 64 * 1024
"""Bytes of one response head."""
MAX_INTERIM: Final = 8
"""Interim (1xx) responses before one final one."""
SMALL_WRITE: Final = 64 * 1024
"""Up to this size head and body are joined into one write; above, two buffers go out in one system call."""
HIGH_WATER: Final = 256 * 1024
"""Bytes that wait for a slow provider before `write_paused` is set; uvloop's own low mark would be 16 bytes."""
LOW_WATER: Final = 64 * 1024
PROBE_AFTER: Final = 1.0
"""Seconds idle after which a connection is probed before it is used again (a system call, 1.5 µs): the machine may
have slept, or the loop been too busy to see the provider close. Fresher ones are trusted to the event loop."""
KEEPALIVE_PROBE_SECONDS: Final = 45
"""TCP keep-alive: less than the shortest idle limit of common NAT gateways and load balancers (60 s)."""


class Listener(Protocol):
    """Hears of one response."""

    def on_response_head(self, head: ResponseHead, data: bytes, end: bool) -> None:
        """The head, with the bytes of the body that came in the same read. `end`: the message is complete."""

    def on_response_data(self, data: bytes, end: bool) -> None:
        """More of the body as it was read, with its chunk framing where `head.chunked`. May be empty at the end."""

    def on_response_failed(self, error: UpstreamError) -> None:
        """The response will not be completed: UpstreamReset or UpstreamInvalid. Never after the end."""


class Owner(Protocol):
    """What a connection tells the pool that owns it."""

    def on_connection_idle(self, connection: UpstreamConnection) -> None:
        """The connection can take another request."""

    def on_connection_lingering(self, connection: UpstreamConnection) -> None:
        """Nobody needs the rest of its response; it will be idle soon, or is to be aborted."""

    def on_connection_closed(self, connection: UpstreamConnection) -> None:
        """The connection is gone; told once."""


class State(enum.Enum):
    """What a connection is doing. `steps` are the states that may follow."""

    OPENING = "opening"
    IDLE = "idle"
    LEASED = "leased"
    WAITING = "waiting for a head"
    SIZED = "reading a sized body"
    CHUNKED = "reading a chunked body"
    UNTIL_CLOSE = "reading until close"
    CLOSED = "closed"

    steps: tuple[State, ...]


STEPS: Final = {
    State.OPENING: (State.IDLE, State.CLOSED),
    State.IDLE: (State.LEASED, State.CLOSED),
    State.LEASED: (State.WAITING, State.CLOSED),
    State.WAITING: (State.SIZED, State.CHUNKED, State.UNTIL_CLOSE, State.IDLE, State.CLOSED),
    State.SIZED: (State.IDLE, State.CLOSED),
    State.CHUNKED: (State.IDLE, State.CLOSED),
    State.UNTIL_CLOSE: (State.CLOSED,),
    State.CLOSED: (),
}
# Kept on the members: a look-up by enum member costs 0.2 µs, since enum hashes in Python; this way a step costs 0.05.
for _state, _steps in STEPS.items():
    _state.steps = _steps
# Bound once, for what every request runs: a look-up on an enum's class costs 0.15 µs, a module's name 0.01.
_IDLE: Final = State.IDLE
_LEASED: Final = State.LEASED
_WAITING: Final = State.WAITING
_CHUNKED: Final = State.CHUNKED
_CLOSED: Final = State.CLOSED
_SIZED_BODY: Final = Body.SIZED


class UpstreamConnection(asyncio.Protocol):
    """One HTTP/1.1 connection to one origin.

    `walker` belongs to the response that is being read, when it is chunked. `lane`, where the listener has set it, is
    asked first about every read of that response: it takes one that is exactly one whole chunk, and says so.
    `request_sent`: a byte of the latest request has been given to the transport, so it must not be tried again unasked.
    `write_paused`: the provider takes the request slower than it was written.
    """

    __slots__ = (
        "_buffer",
        "_forwarding",
        "_interim",
        "_keep_alive",
        "_learner",
        "_listener",
        "_origin",
        "_owner",
        "_paused_reading",
        "_remaining",
        "_state",
        "_template",
        "_to_head",
        "_transport",
        "generation",
        "idle_since",
        "lane",
        "request_sent",
        "served",
        "walker",
        "write_paused",
    )

    def __init__(self, owner: Owner, origin: Origin, generation: int = 0) -> None:
        self._owner = owner
        self._origin = origin
        self._forwarding: Forwarding | None = None
        self._state = State.OPENING
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._listener: Listener | None = None
        self._buffer = b""
        self._interim = 0
        self._to_head = False
        self._keep_alive = False
        self._remaining = 0
        self._paused_reading = False
        self._learner = Learner()
        self._template: Template | None = None
        self.generation = generation
        self.idle_since = 0.0
        self.served = 0
        self.request_sent = False
        self.write_paused = False
        self.walker: ChunkWalker | None = None
        self.lane: Callable[[bytes], bool] | None = None

    def __repr__(self) -> str:
        paused = ", reading paused" if self._paused_reading else ""
        blocked = ", provider slow" if self.write_paused else ""
        return f"<UpstreamConnection {self._origin} {self._state.value}, {self.served} served{paused}{blocked}>"

    @property
    def closed(self) -> bool:
        """The connection cannot be used any more."""
        return self._state is State.CLOSED

    def _enter(self, state: State) -> None:
        assert state in self._state.steps, f"{self!r} cannot become {state.value}"
        self._state = state

    # The pool's side

    def forward_through(self, forwarding: Forwarding) -> None:
        """The transport leads to a forward proxy, which wants requests in absolute form."""
        self._forwarding = forwarding

    def lease(self, now: float) -> bool:
        """Take the connection out of idleness for one request. False: it has turned out dead and is closed."""
        stale = now - self.idle_since > PROBE_AFTER and _readable(self._transport)
        if stale or self._transport.is_closing():
            self.close()
            return False
        assert _LEASED in self._state.steps, f"{self!r} cannot become {_LEASED.value}"
        self._state = _LEASED
        return True

    def close(self) -> None:
        """Close in an orderly way; for a connection that holds no request."""
        if self._state is not State.CLOSED:
            self._shut(at_once=False)

    # The exchange's side

    def send(self, head: bytes, body: bytes, listener: Listener) -> None:
        """Write one request. `head` is whole, blank line and Content-Length included."""
        self._listener = listener
        transport = self._transport
        if self._state is _CLOSED or transport.is_closing():
            self.request_sent = False
            asyncio.get_running_loop().call_soon(self._fail_unsent, listener)
            return
        assert _WAITING in self._state.steps, f"{self!r} cannot become {_WAITING.value}"
        self._state = _WAITING
        self._to_head = head.startswith(b"HEAD ")
        self._interim = 0
        self.request_sent = True
        if self._forwarding is not None:
            head = self._forwarding.rewrite(head)
        if len(body) > SMALL_WRITE:
            transport.writelines([head, body])
        else:
            transport.write(head + body)

    def give_back(self) -> None:
        """Nothing is sent after all: a leased connection is idle again."""
        self._state = _IDLE
        self._owner.on_connection_idle(self)

    def send_whole(self, request: bytes, listener: Listener, lane: Callable[[bytes], bool]) -> None:
        """`send` for a small POST on a connection leased in this very turn, and `lane` for its answer."""
        if self._forwarding is not None:
            end = request.index(b"\r\n\r\n") + 4
            self.send(request[:end], request[end:], listener)
        else:
            self._listener = listener
            self._state = _WAITING
            self._to_head = False
            self._interim = 0
            self.request_sent = True
            self._transport.write(request)
        self.lane = lane

    def whole(self, data: bytes) -> tuple[Template, Match[bytes]] | None:
        """If `data` is all of an ordinary answer whose head is known: that head, and the connection is idle again.
        None: nothing has been done."""
        template = self._template
        if template is None or not template.ordinary or self._state is not _WAITING or self._buffer:
            return None
        found = template.match(data)
        transport = self._transport
        if (
            found is None
            or len(data) - found.end() != int(found["length"])
            or found.end() > MAX_HEAD
            or self._paused_reading
            or transport.get_write_buffer_size()
            or transport.is_closing()
        ):
            return None
        self._keep_alive = True
        self._listener = self.lane = self.walker = None
        self.served += 1
        self._state = _IDLE
        self._owner.on_connection_idle(self)
        return template, found

    def hand_over(self, listener: Listener, successor: Listener) -> None:
        """Another one listens from now on."""
        if self._listener is listener:
            self._listener = successor
        self.lane = None

    def abort(self) -> None:
        """Drop the request: the socket is closed at once and the listener hears no more. Nothing after the end."""
        self._listener = None
        self.lane = None
        if self._state is not State.CLOSED and self._state is not State.IDLE:
            self._shut(at_once=True)

    def linger(self) -> None:
        """The listener has heard enough: read the response to its end, so that the connection can serve again.

        The listener hears no more; the pool gives the connection up if the end does not come soon.
        """
        if self._listener is not None:
            self._listener = _NOBODY
            self.lane = None
            self._owner.on_connection_lingering(self)
            self.resume_reading()

    def pause_reading(self) -> None:
        """Read no more from the provider until `resume_reading`. Nothing after the end."""
        if not self._paused_reading and self._listener is not None:
            self._paused_reading = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on. Harmless where reading was not paused."""
        if self._paused_reading:
            self._paused_reading = False
            if not self._transport.is_closing():
                self._transport.resume_reading()

    # Transport events

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(HIGH_WATER, LOW_WATER)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if hasattr(socket, "TCP_KEEPIDLE"):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_PROBE_SECONDS)
        self._enter(State.IDLE)

    def data_received(self, data: bytes) -> None:
        lane = self.lane
        if lane is not None and lane(data):
            return
        state = self._state
        if state is _WAITING:
            self._take_head(data)
        elif state is _CHUNKED:
            self._take_chunks(data)
        elif state is State.SIZED:
            self._take_sized(data)
        elif state is State.UNTIL_CLOSE:
            self._told().on_response_data(data, False)
        elif state is not State.CLOSED:
            self._shut(at_once=True)

    def eof_received(self) -> bool:
        if self._state is State.UNTIL_CLOSE:
            listener = self._told()
            self._finish(clean=False)
            listener.on_response_data(b"", True)
        else:
            self._lose("closed")
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._lose("reset" if error is not None else "closed")

    def pause_writing(self) -> None:
        self.write_paused = True

    def resume_writing(self) -> None:
        self.write_paused = False

    # Reading

    def _told(self) -> Listener:
        listener = self._listener
        assert listener is not None
        return listener

    def _take_head(self, data: bytes) -> None:
        """Collect a head, skip interim ones (RFC 9110, section 15.2), and begin the body."""
        template = self._template
        if self._buffer:
            data = self._buffer + data
        elif template is not None and not self._to_head:
            known = template.read(data)
            if known is not None and known[1] <= MAX_HEAD:
                self._keep_alive = True
                head, end = known
                self._begin(head, template.body, data[end:])
                return
        self._parse_head(data)

    def _parse_head(self, data: bytes) -> None:
        try:
            while True:
                end = data.find(b"\r\n\r\n", 0, MAX_HEAD) + 4
                if end < 4:
                    self._hold_head(data)
                    return
                text, data = data[:end], data[end:]
                head, body, keep_alive = parse_head(text, to_head=self._to_head)
                if head.status >= 200:
                    break
                self._skip_interim(head)
        except UpstreamInvalid as error:
            self._fail(error)
            return
        self._buffer = b""
        self._keep_alive = keep_alive
        if not self._to_head:
            self._template = self._learner.learn(text, head, body, keep_alive) or self._template
        self._begin(head, body, data)

    def _begin(self, head: ResponseHead, body: Body, data: bytes) -> None:
        """A head is read, and this came with it."""
        if (
            body is _SIZED_BODY
            and head.content_length == len(data)
            and self._keep_alive
            and not self._paused_reading
            and not self._transport.get_write_buffer_size()
            and not self._transport.is_closing()
        ):
            # The ordinary answer is whole in one read: `_begin_body` and `_finish` in one, for 0.6 µs instead of 1.2.
            listener = self._told()
            self._listener = self.lane = self.walker = None
            self.served += 1
            self._state = _IDLE
            self._owner.on_connection_idle(self)
            listener.on_response_head(head, data, True)
        else:
            self._begin_body(head, body, data)

    def _hold_head(self, data: bytes) -> None:
        if len(data) >= MAX_HEAD:
            raise UpstreamInvalid(f"The provider's response head is larger than {MAX_HEAD} bytes.")
        if data and not b"HTTP/1.".startswith(data[:7]):
            raise UpstreamInvalid("The provider does not answer in HTTP/1.1. Check scheme and port of its base_url.")
        self._buffer = data

    def _skip_interim(self, head: ResponseHead) -> None:
        if head.status == 101:
            raise UpstreamInvalid("The provider switched protocols without having been asked.")
        self._interim += 1
        if self._interim > MAX_INTERIM:
            raise UpstreamInvalid(f"The provider sent more than {MAX_INTERIM} interim responses.")

    def _begin_body(self, head: ResponseHead, body: Body, data: bytes) -> None:
        """Act on the body's framing and on its bytes that came with the head."""
        listener = self._told()
        end = MORE
        if body is Body.CHUNKED:
            self._enter(State.CHUNKED)
            self.walker = ChunkWalker()
            try:
                end = self.walker.feed(data) if data else MORE
            except FramingError as error:
                self._fail(UpstreamInvalid(f"The provider's chunked body is malformed: {error}."))
                return
        else:
            self.walker = None
            if body is Body.SIZED:
                self._enter(State.SIZED)
                length = head.content_length or 0
                self._remaining = length - len(data)
                end = length if self._remaining <= 0 else MORE
            elif body is Body.UNTIL_CLOSE:
                self._enter(State.UNTIL_CLOSE)
            else:
                end = 0
        if end == MORE:
            listener.on_response_head(head, data, False)
        else:
            self._finish(clean=end == len(data))
            listener.on_response_head(head, data[:end], True)

    def _take_chunks(self, data: bytes) -> None:
        listener = self._told()
        assert self.walker is not None
        try:
            end = self.walker.feed(data)
        except FramingError as error:
            self._fail(UpstreamInvalid(f"The provider's chunked body is malformed: {error}."))
            return
        if end == MORE:
            listener.on_response_data(data, False)
        else:
            self._finish(clean=end == len(data))
            # A slice of the whole is the same object: nothing is copied.
            listener.on_response_data(data[:end], True)

    def _take_sized(self, data: bytes) -> None:
        listener = self._told()
        remaining = self._remaining
        self._remaining -= len(data)
        if self._remaining > 0:
            listener.on_response_data(data, False)
        else:
            self._finish(clean=self._remaining == 0)
            listener.on_response_data(data[:remaining], True)

    # Ends

    def _finish(self, *, clean: bool) -> None:
        """The response is complete. `clean`: nothing came after it."""
        self._listener = None
        self.lane = None
        self.served += 1
        # A provider may answer before it has read the whole request; then the rest of it would still go out.
        written = not self._transport.get_write_buffer_size()
        if not (clean and self._keep_alive and written) or self._transport.is_closing():
            self._shut(at_once=not written)
            return
        self.resume_reading()
        self._enter(State.IDLE)
        self._owner.on_connection_idle(self)

    def _lose(self, how: str) -> None:
        """The provider ended the connection."""
        if self._state is State.CLOSED:
            return
        if self._state is State.WAITING:
            error = UpstreamReset(f"The provider {how} the connection before it answered.")
            error.reused = self.served > 0 and not self._buffer and not self._interim
        else:
            error = UpstreamReset(f"The provider {how} the connection in the middle of its answer.")
        self._fail(error)

    def _fail(self, error: UpstreamError) -> None:
        listener, self._listener = self._listener, None
        self.lane = None
        if self._state is not State.CLOSED:
            self._shut(at_once=True)
        if listener is not None:
            listener.on_response_failed(error)

    def _fail_unsent(self, listener: Listener) -> None:
        if self._listener is listener:
            error = UpstreamReset("The provider closed the connection before the request was sent.")
            error.reused = self.served > 0
            self._fail(error)

    def _shut(self, *, at_once: bool) -> None:
        self._enter(State.CLOSED)
        self._buffer = b""
        if self._transport is not None:
            if at_once:
                self._transport.abort()
            else:
                self._transport.close()
        self._owner.on_connection_closed(self)


class _Nobody:
    """Needs no more of a response."""

    def on_response_head(self, head: ResponseHead, data: bytes, end: bool) -> None: ...

    def on_response_data(self, data: bytes, end: bool) -> None: ...

    def on_response_failed(self, error: UpstreamError) -> None: ...


_NOBODY: Final = _Nobody()


def _readable(transport: asyncio.Transport) -> bool:
    """Whether anything, or the end, waits to be read from the socket."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.fileno() < 0:
        return True
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return bool(poll.poll(0))
