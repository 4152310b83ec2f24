"""One side of a conversation: a WebSocket that is open, on an asyncio transport.

Both sides are alike once the handshake is over, so both are this class; a client's side masks what it sends, a server's
side minds the silence. The handshakes are `downstream.websocket` and `upstream.websocket`, which hand over a transport.
A socket promises its listener whole, valid messages in order, none while it is paused, and one last word. It answers
pings, finds out when its peer is gone without saying so, and refuses to know what a message means.

There are no timers: deadlines are attributes, and `Sockets.sweep` looks at them.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable
from typing import Final, cast

import msgspec

from gateway.deflate import FULL_WINDOW, Deflate, compress
from gateway.frames import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Control,
    FrameError,
    Message,
    Reader,
    close_payload,
    frame,
    read_close,
)
from gateway.socket_ports import GOING_AWAY, INTERNAL_ERROR, TRY_AGAIN_LATER, VANISHED, SocketListener
from gateway.socket_ports import Message as AnyMessage

HIGH_WATER: Final = 64 * 1024
"""Bytes that wait for a slow peer before its listener is told; uvloop's own low mark would be 16 bytes."""
LOW_WATER: Final = 16 * 1024
MAX_PER_TURN: Final = 128
"""Messages and control frames that one socket may have handled in one turn of the loop; one read can carry 40,000 empty
ones. The rest follows in the next turn, after everyone else."""
COMPRESS_FROM: Final = 4096
COMPRESS_TO: Final = 128 * 1024
"""Bytes of a message of our own between which it is compressed: below, 50 µs save little; above, it would keep the loop
for longer than others should wait. What the other side has compressed stays so, whatever its size."""
MAX_SWEPT: Final = 1000
"""Deadlines that one sweep looks at: 0.1 ms."""
NEVER: Final = float("inf")


class SocketLimits(msgspec.Struct, frozen=True):
    """Bounds on what a socket may hold, in bytes, and how long it may take, in seconds.

    `message_bytes` and `idle_seconds` are the operator's (`gateway.websocket`); so are `buffered_bytes`, which all
    unfinished messages of a worker share, and `write_idle_seconds`, for a peer that takes nothing at all. A peer that
    was silent for `ping_seconds` is sent a ping and has `pong_seconds` to be heard of: 40 s altogether, less than the
    60 s after which common load balancers forget a connection. The closing handshake may take `close_seconds`.
    """

    message_bytes: int = 1_048_576
    idle_seconds: float = 300.0
    buffered_bytes: int = 1024 * 1024 * 1024
    write_idle_seconds: float = 300.0
    ping_seconds: float = 20.0
    pong_seconds: float = 20.0
    close_seconds: float = 3.0


class Sockets:
    """What all sockets of a worker share: bounds, a clock, and who is there."""

    def __init__(
        self,
        limits: SocketLimits,
        clock: Callable[[], float],
        report: Callable[[str, Exception], None],
    ) -> None:
        """`report` is told of a fault in a listener, with the socket's `repr`."""
        self.limits = limits
        self.clock = clock
        self.report = report
        self.now = clock()
        """The time of the last sweep: exact enough for silences, and free."""
        self.held = 0
        """Bytes of unfinished messages, over all sockets."""
        self.open: set[Socket] = set()
        self._sweeping: list[Socket] = []

    def __repr__(self) -> str:
        return f"<Sockets {len(self.open)} open, {self.held} bytes of messages held>"

    @property
    def clients(self) -> int:
        """How many of them are clients'."""
        return sum([not socket.masks for socket in self.open])

    def sweep(self) -> None:
        """Look at up to 1,000 deadlines; called every 100 ms."""
        now = self.now = self.clock()
        if not self._sweeping:
            self._sweeping = list(self.open)
        for socket in self._sweeping[-MAX_SWEPT:]:
            if socket.deadline <= now:
                socket.on_deadline(now)
        del self._sweeping[-MAX_SWEPT:]

    def drain(self) -> None:
        """The grace period is over: every client is told to come back elsewhere (1001)."""
        for socket in [socket for socket in self.open if not socket.masks]:
            socket.end(GOING_AWAY, "the gateway is shutting down")

    def abort(self) -> None:
        """Drop what is left."""
        for socket in list(self.open):
            socket.abort()


class State(enum.Enum):
    """How far a socket has come. `steps` are the states that may follow."""

    OPEN = "open"
    CLOSING = "close sent"
    FAILED = "failed, throwing input away"
    FINISHED = "closed, or dropped"
    GONE = "gone"
    """Reached from anywhere: the other side has the last word on that."""

    steps: tuple[State, ...]


STEPS: Final = {
    State.OPEN: (State.CLOSING, State.FAILED, State.FINISHED),
    State.CLOSING: (State.FAILED, State.FINISHED),
    State.FAILED: (),
    State.FINISHED: (),
    State.GONE: (),
}
for _state, _steps in STEPS.items():
    _state.steps = _steps
_OPEN: Final = State.OPEN
_CLOSING: Final = State.CLOSING
"""For the hot path: a look-up on an enum's class costs 0.15 µs, a module's name 0.01."""


class Socket(asyncio.Protocol):
    """See `socket_ports.Socket`. `masks`: we are the client, the peer is a provider."""

    __slots__ = (
        "_delivering",
        "_heard_at",
        "_held",
        "_listener",
        "_pauses",
        "_pinged_at",
        "_pong",
        "_reader",
        "_sockets",
        "_spoke_at",
        "_state",
        "_transport",
        "_unsent",
        "_window_bits",
        "_write_paused",
        "compressed",
        "deadline",
        "masks",
        "subprotocol",
    )

    def __init__(self, sockets: Sockets, *, masks: bool, subprotocol: str | None, deflate: Deflate | None) -> None:
        """`deflate` is what the handshake came to; None, or not agreed: no compression."""
        self._sockets = sockets
        self.masks = masks
        self.subprotocol = subprotocol
        self.compressed = deflate is not None and deflate.agreed
        self._window_bits = deflate.window_bits if deflate is not None else FULL_WINDOW
        self._reader = Reader(masked=not masks, max_size=sockets.limits.message_bytes, inflates=self.compressed)
        self._state = State.OPEN
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._listener: SocketListener | None = None
        self._pauses: set[str] | None = None
        self._delivering = False
        self._held = 0
        self._write_paused = False
        self._unsent = 0
        self._pong: bytes | None = None
        self._heard_at = self._spoke_at = sockets.now
        self._pinged_at = NEVER
        self.deadline = NEVER

    def __repr__(self) -> str:
        peer = "provider" if self.masks else "client"
        paused = f", reading paused ({', '.join(sorted(self._pauses))})" if self._pauses else ""
        slow = f", {peer} slow" if self._write_paused else ""
        return f"<Socket of a {peer}, {self._state.value}{paused}{slow}>"

    @property
    def is_open(self) -> bool:
        """Neither side has said that it closes."""
        return self._state is _OPEN

    def _enter(self, state: State) -> None:
        assert state in self._state.steps, f"{self!r} cannot become {state.value}"
        self._state = state

    def prepare(self, transport: asyncio.Transport) -> None:
        """The handshake is over: from now on it can be sent to."""
        self._transport = transport
        transport.set_write_buffer_limits(HIGH_WATER, LOW_WATER)
        self._sockets.open.add(self)

    def take_over(self, listener: SocketListener, data: bytes) -> None:
        """Begin to read, for this listener; `data` came behind the handshake. Nothing is delivered within this call."""
        self._listener = listener
        self._transport.set_protocol(self)
        now = self._sockets.now
        self._heard_at = self._spoke_at = now
        if self._state is _OPEN:
            self._plan(now)
        if data:
            self._reader.feed(data)
            asyncio.get_running_loop().call_soon(self._deliver)

    # Sending

    def send_text(self, text: str | bytes) -> None:
        """Send one text message."""
        self._send(TEXT, text.encode() if isinstance(text, str) else text)

    def send_binary(self, data: bytes) -> None:
        """Send one binary message."""
        self._send(BINARY, data)

    def forward(self, message: AnyMessage) -> None:
        """Send a message that the other side has received."""
        assert isinstance(message, Message)
        raw = message.raw
        # Client frames carry a mask already, a provider's must not. A compressed frame stands by itself (`deflate`).
        if (
            raw is None
            or message.masked is not self.masks
            or (message.deflated and not (self.compressed and self._window_bits == FULL_WINDOW))
        ):
            self._send(TEXT if message.is_text else BINARY, message.data)
        elif self._state is _OPEN:
            self._spoke_at = self._sockets.now
            self._transport.write(raw)

    def _send(self, opcode: int, payload: bytes) -> None:
        if self._state is not _OPEN:
            return
        self._spoke_at = self._sockets.now
        deflated = self.compressed and COMPRESS_FROM <= len(payload) <= COMPRESS_TO
        if deflated:
            payload = compress(payload, self._window_bits)
        self._transport.write(frame(opcode, payload, masked=self.masks, deflated=deflated))

    # Reading

    def data_received(self, data: bytes) -> None:
        sockets = self._sockets
        self._heard_at = sockets.now
        self._pinged_at = NEVER
        if self._state is _OPEN and not self._pauses and not self._delivering:
            self._delivering = True
            try:
                message = self._reader.take(data)
                if message is not None:
                    self._spoke_at = sockets.now
                    self._listener.on_message(message)  # type: ignore[union-attr]
                    return
            except Exception as error:
                self._fail_by(error)
                return
            finally:
                self._delivering = False
        if self._state is _OPEN or self._state is _CLOSING:
            self._reader.feed(data)
            self._deliver()
        # Otherwise it is thrown away, so that the peer can read why.

    def _deliver(self) -> None:
        """Hand out what is whole, until there is no more, or a pause, or others' turn."""
        if self._delivering:
            return
        self._delivering = True
        reader, left = self._reader, MAX_PER_TURN
        try:
            while left and ((self._state is _OPEN and not self._pauses) or self._state is _CLOSING):
                event = reader.next()
                if event is None:
                    break
                left -= 1
                if isinstance(event, Control):
                    self._take_control(event)
                elif self._state is _OPEN:
                    self._spoke_at = self._sockets.now
                    listener = self._listener
                    assert listener is not None
                    listener.on_message(event)
        except Exception as error:
            self._fail_by(error)
        finally:
            self._delivering = False
        self._account()
        if not left:
            self._pause_transport()
            asyncio.get_running_loop().call_soon(self._deliver_on)

    def _deliver_on(self) -> None:
        """The next turn, after one that had too much."""
        if not self._pauses:
            self._resume_transport()
            self._deliver()

    def _account(self) -> None:
        """Count what is held; a socket that would make it too much has to go."""
        held = self._reader.held if self._state is _OPEN or self._state is _CLOSING else 0
        if held == self._held:
            return
        sockets = self._sockets
        sockets.held += held - self._held
        self._held = held
        if sockets.held > sockets.limits.buffered_bytes and not self._pauses:
            self._fail(TRY_AGAIN_LATER, "the gateway holds too many unfinished messages")

    def _take_control(self, control: Control) -> None:
        if control.opcode == PING:
            if self._write_paused:
                self._pong = control.payload  # only the newest needs an answer (RFC 6455, section 5.5.3)
            elif self._state is _OPEN:
                self._transport.write(frame(PONG, control.payload, masked=self.masks))
        elif control.opcode == CLOSE:
            self._take_close(control.payload)

    def pause_reading(self, reason: str) -> None:
        """Deliver no further message until every reason is gone."""
        if self._state is not _OPEN:
            return
        if self._pauses is None:
            self._pauses = set()
            self._pinged_at = NEVER  # the answer would not be read
            self._pause_transport()
        self._pauses.add(reason)

    def resume_reading(self, reason: str) -> None:
        """One reason is gone."""
        if self._pauses is None:
            return
        self._pauses.discard(reason)
        if not self._pauses:
            self._pauses = None
            # The silence was ours.
            self._heard_at = self._spoke_at = self._sockets.now
            self._resume_transport()
            asyncio.get_running_loop().call_soon(self._deliver)

    def _pause_transport(self) -> None:
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def _resume_transport(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    # Back-pressure

    def pause_writing(self) -> None:
        self._write_paused = True
        self._watch_writing(self._sockets.now)
        if self._listener is not None:
            self._listener.on_paused()

    def resume_writing(self) -> None:
        self._write_paused = False
        self._heard_at = self._sockets.now  # it reads, so it is there
        if self._pong is not None and self._state is _OPEN:
            self._transport.write(frame(PONG, self._pong, masked=self.masks))
        self._pong = None
        if self._state is _OPEN:
            self._plan(self._sockets.now)
        if self._listener is not None:
            self._listener.on_resumed()

    def _watch_writing(self, now: float) -> None:
        """A slow peer has time to take some of what was written, and more as long as it takes some."""
        limits = self._sockets.limits
        self._unsent = self._transport.get_write_buffer_size()
        self.deadline = now + (limits.write_idle_seconds if self._state is _OPEN else limits.close_seconds)

    # Ends

    def close(self, code: int | None = 1000, reason: str = "") -> None:
        """Begin the closing handshake."""
        if self._state is _OPEN:
            self._send_close(code, reason)
            self._enter(State.CLOSING)
            shown = VANISHED - 1 if code is None else code
            asyncio.get_running_loop().call_soon(self._tell_closed, shown, reason)

    def end(self, code: int, reason: str) -> None:
        """Close by the gateway's own wish; the listener is told at once."""
        if self._state is _OPEN:
            self._send_close(code, reason)
            self._enter(State.CLOSING)
            self._tell_closed(code, reason)

    def abort(self) -> None:
        """Drop the connection at once."""
        self._listener = None
        self._drop()

    def _drop(self) -> None:
        self.deadline = NEVER
        if self._state is not State.GONE:
            self._state = State.FINISHED
            self._transport.abort()

    def _fail(self, code: int, reason: str) -> None:
        """End a connection that cannot be read any more (RFC 6455, section 7.1.7)."""
        if self._state is _OPEN:
            self._send_close(code, reason)
        elif self._state is not State.CLOSING:
            return
        self._enter(State.FAILED)
        self._reader.drop()
        self._account()
        if self._transport.can_write_eof():
            # A close now, with input unread, would reset the connection and destroy the frame that says why.
            self._transport.write_eof()
        else:
            self._transport.close()
        self._tell_closed(code, reason)

    def _fail_by(self, error: Exception) -> None:
        """The peer broke the rules, or the listener failed."""
        if isinstance(error, FrameError):
            self._fail(error.code, error.reason)
        else:
            self._sockets.report(repr(self), error)
            self._fail(INTERNAL_ERROR, "the gateway failed; see its log")

    def _send_close(self, code: int | None, reason: str) -> None:
        """Call it before the state changes."""
        self._transport.write(frame(CLOSE, close_payload(code, reason), masked=self.masks))
        self._unsent = self._transport.get_write_buffer_size()
        self.deadline = self._sockets.now + self._sockets.limits.close_seconds
        if self._pauses is not None:
            self._pauses = None
            self._resume_transport()

    def _take_close(self, payload: bytes) -> None:
        """The peer's close frame: the answer to ours, or to be answered with the same code (section 5.5.1)."""
        code, reason = read_close(payload)
        if self._state is _OPEN:
            self._send_close(code, "")
        self._enter(State.FINISHED)
        if not self.masks:
            self._transport.close()  # the server closes first (section 7.1.1); the client waits for that
        self._tell_closed(code, reason)

    def _tell_closed(self, code: int, reason: str) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.on_closed(code, reason)

    def eof_received(self) -> bool:
        if self._state is not State.GONE:
            self._state = State.FINISHED
        self._tell_closed(VANISHED, "")
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._state = State.GONE
        self.deadline = NEVER
        self._account()
        self._sockets.open.discard(self)
        self._tell_closed(VANISHED, "")

    # Deadlines

    def on_deadline(self, now: float) -> None:
        """A deadline has passed, or it is time to see which comes next."""
        limits = self._sockets.limits
        if self._write_paused or self._state is not _OPEN:
            if self._transport.get_write_buffer_size() < self._unsent:
                self._watch_writing(now)
            else:
                self._vanish()
        elif not self.masks and not self._pauses and now - self._spoke_at >= limits.idle_seconds:
            self.end(GOING_AWAY, f"silent for {limits.idle_seconds:g} s")
        elif now - self._pinged_at >= limits.pong_seconds:
            self._vanish()
        else:
            if self._pinged_at == NEVER and not self._pauses and now - self._heard_at >= limits.ping_seconds:
                self._pinged_at = now
                self._transport.write(frame(PING, b"", masked=self.masks))
            self._plan(now)

    def _plan(self, now: float) -> None:
        """When to look next."""
        limits = self._sockets.limits
        if self._pauses:
            self.deadline = now + limits.ping_seconds
        elif self._pinged_at != NEVER:
            self.deadline = self._pinged_at + limits.pong_seconds
        else:
            self.deadline = self._heard_at + limits.ping_seconds
        if not self.masks and not self._pauses:
            self.deadline = min(self.deadline, self._spoke_at + limits.idle_seconds)

    def _vanish(self) -> None:
        """The peer is gone without a word."""
        self._tell_closed(VANISHED, "")
        self._drop()
