"""One socket on a played transport: what is told to whom, and how each connection ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.deflate import Deflate, compress
from gateway.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Control,
    Message,
    Reader,
    close_payload,
    frame,
    read_close,
)
from gateway.websocket import COMPRESS_FROM, COMPRESS_TO, MAX_PER_TURN, Socket, SocketLimits, Sockets
from tests.playbook import Clock, Transport

LIMITS = SocketLimits(message_bytes=100_000)
PIECES = [
    frame(TEXT, b"a short text", masked=True),
    frame(TEXT, b"x" * 125, masked=True),
    frame(TEXT, b"x" * 126, masked=True),
    frame(TEXT, b"", masked=True),
    frame(BINARY, bytes(300), masked=True),
    frame(TEXT, compress(b"compressed " * 20), masked=True, deflated=True),
    b"\x01" + frame(TEXT, b"in two ", masked=True)[1:] + frame(CONTINUATION, b"parts", masked=True),
    frame(PING, b"ping", masked=True),
    frame(PONG, b"", masked=True),
    frame(TEXT, b"\xff", masked=True),
    b"\x83" + frame(TEXT, b"no such opcode", masked=True)[1:],
    frame(TEXT, b"not masked", masked=False),
    frame(CLOSE, close_payload(1000, "bye"), masked=True),
]
"""What a client may send, and what it may not, each in as many bytes as it takes."""


class Listener:
    """Writes down what it is told. `on_event` may do something about it."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.messages: list[Message] = []
        self.on_event: Callable[[str], None] = lambda event: None

    def _note(self, event: str) -> None:
        self.events.append(event)
        self.on_event(event)

    def on_message(self, message: Message) -> None:
        self.messages.append(message)
        self._note(message.text if message.is_text else f"{message.size} bytes")

    def on_closed(self, code: int, reason: str) -> None:
        self._note(f"closed {code} {reason}".rstrip())

    def on_paused(self) -> None:
        self._note("paused")

    def on_resumed(self) -> None:
        self._note("resumed")


class Played:
    """A socket with its listener, on a transport and a clock that are played. `peer` is told apart by `masks`."""

    def __init__(self, *, masks: bool = False, deflate: bool = False, limits: SocketLimits = LIMITS) -> None:
        self.clock = Clock(1000.0)
        self.faults: list[Exception] = []
        self.sockets = Sockets(limits, self.clock, lambda where, fault: self.faults.append(fault))
        self.listener = Listener()
        self.transport = Transport()
        self.masks = masks
        self.socket = self.add(deflate=deflate)

    def add(self, *, deflate: bool = False) -> Socket:
        agreed = Deflate()
        agreed.agreed = deflate
        socket = Socket(self.sockets, masks=self.masks, subprotocol=None, deflate=agreed)
        socket.prepare(self.transport)
        socket.take_over(self.listener, b"")
        return socket

    def says(self, *frames: tuple[int, bytes] | bytes) -> None:
        """The peer sends these frames in one read."""
        self.socket.data_received(
            b"".join(one if isinstance(one, bytes) else frame(*one, masked=not self.masks) for one in frames)
        )

    @property
    def sent(self) -> list[tuple[int, bytes]]:
        """What the socket has sent, frame by frame."""
        reader = Reader(masked=self.masks, max_size=1 << 24, inflates=True)
        reader.feed(self.transport.written)
        found = []
        while (event := reader.next()) is not None:
            if isinstance(event, Control):
                found.append((event.opcode, event.payload))
            else:
                found.append((TEXT if event.is_text else BINARY, event.data))
        return found

    def advance(self, seconds: float) -> None:
        """Time passes, with a sweep every 100 ms as in a worker."""
        for _ in range(round(seconds * 10)):
            self.clock.now += 0.1
            self.sockets.sweep()

    def lose(self) -> None:
        self.socket.connection_lost(None)


async def turn() -> None:
    """Let everything run that is due."""
    for _ in range(3):
        await asyncio.sleep(0)


both_sides = pytest.mark.parametrize("masks", [False, True])


@both_sides
async def test_messages_go_both_ways(masks: bool) -> None:
    play = Played(masks=masks)
    play.says((TEXT, b"one"), (BINARY, b"two"))
    play.socket.send_text("three")
    play.socket.send_text(b"four")
    play.socket.send_binary(b"five")
    assert play.listener.events == ["one", "3 bytes"]
    assert play.sent == [(TEXT, b"three"), (TEXT, b"four"), (BINARY, b"five")]
    assert repr(play.socket) == f"<Socket of a {'provider' if masks else 'client'}, open>"


async def test_a_message_is_forwarded_as_the_bytes_that_were_read() -> None:
    client, provider = Played(), Played(masks=True)
    data = frame(TEXT, b"hello", masked=True)
    client.socket.data_received(data)
    provider.socket.forward(client.listener.messages[0])
    assert provider.transport.writes[0] is data
    data = frame(TEXT, b"hello", masked=False)
    provider.socket.data_received(data)
    client.socket.forward(provider.listener.messages[0])
    assert client.transport.writes[0] is data


async def test_a_message_is_framed_anew_where_it_must_be() -> None:
    """Fragments are joined; and a mask is put on or taken off where both sides are alike."""
    client, provider = Played(), Played(masks=True)
    provider.says(b"\x01\x02he", b"\x80\x03llo")
    client.socket.forward(provider.listener.messages[0])
    assert client.transport.writes == [b"\x81\x05hello"]
    client.says((TEXT, b"hello"))
    client.socket.forward(client.listener.messages[0])
    assert client.transport.writes == [b"\x81\x05hello"] * 2


async def test_what_one_side_compressed_goes_on_as_it_is_or_inflated() -> None:
    compressing, plain = Played(deflate=True), Played()
    data = frame(TEXT, compress(b"hello" * 100), masked=True, deflated=True)
    compressing.socket.data_received(data)
    (message,) = compressing.listener.messages
    provider = Played(masks=True, deflate=True)
    provider.socket.forward(message)
    assert provider.transport.writes[0] is data
    plain_provider = Played(masks=True)
    plain_provider.socket.forward(message)
    assert plain_provider.sent == [(TEXT, b"hello" * 100)]
    plain.says(b"\xc1" + data[1:])
    assert plain.listener.events == ["closed 1002 a reserved bit is set"]


async def test_our_own_messages_are_compressed_where_it_is_worth_it() -> None:
    play = Played(deflate=True)
    sizes = (COMPRESS_FROM - 1, COMPRESS_FROM, COMPRESS_TO, COMPRESS_TO + 1)
    for size in sizes:
        play.socket.send_text("x" * size)
    assert [len(data) > 4000 for data in play.transport.writes] == [True, False, False, True]
    assert play.sent == [(TEXT, b"x" * size) for size in sizes]


@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=6), st.lists(st.integers(1, 200), max_size=8))
def test_it_does_not_matter_how_reads_are_cut(pieces: list[bytes], sizes: list[int]) -> None:
    """Whole frames take a shorter way than parts of them; what is heard and answered is the same."""

    async def hear(reads: list[bytes]) -> tuple[list[str], list[tuple[int, bytes]]]:
        play = Played(deflate=True)
        for read in reads:
            play.socket.data_received(read)
        return play.listener.events, play.sent

    data = b"".join(pieces)
    cut, at = [], 0
    for size in [*sizes, len(data)]:
        if at < len(data):
            cut.append(data[at : at + size])
            at += size
    assert asyncio.run(hear(cut)) == asyncio.run(hear([data])) == asyncio.run(hear(pieces))


# Pausing


async def test_nothing_is_delivered_in_a_pause() -> None:
    play = Played()
    play.listener.on_event = lambda event: play.socket.pause_reading("screening") if event == "one" else None
    play.says((TEXT, b"one"), (TEXT, b"two"))
    assert play.listener.events == ["one"]
    assert "reading paused (screening)" in repr(play.socket)
    play.socket.pause_reading("other side")
    play.socket.resume_reading("screening")
    await turn()
    assert play.listener.events == ["one"]
    play.socket.resume_reading("other side")
    assert play.listener.events == ["one"]  # never within the call
    await turn()
    assert play.listener.events == ["one", "two"]
    assert play.transport.events == ["paused", "resumed"]


async def test_a_read_with_too_many_messages_gives_others_a_turn() -> None:
    play = Played()
    play.says(*[(BINARY, b"")] * (2 * MAX_PER_TURN + 1))
    assert len(play.listener.events) == MAX_PER_TURN
    assert play.transport.events == ["paused"]
    await turn()
    assert len(play.listener.events) == 2 * MAX_PER_TURN + 1
    assert play.transport.events[-1] == "resumed"


async def test_a_slow_peer_is_told_of_and_back() -> None:
    play = Played()
    play.socket.pause_writing()
    assert "client slow" in repr(play.socket)
    play.socket.resume_writing()
    assert play.listener.events == ["paused", "resumed"]


async def test_a_peer_that_takes_nothing_is_dropped_and_a_slow_one_is_not() -> None:
    play = Played(limits=SocketLimits(write_idle_seconds=10))
    play.transport.unsent = 100_000
    play.socket.pause_writing()
    for _ in range(5):
        play.advance(8)
        play.transport.unsent -= 1000
    assert play.listener.events == ["paused"]
    play.advance(11)
    assert play.listener.events == ["paused", "closed 1006"]
    assert play.transport.events == ["aborted"]


# Pings


@both_sides
async def test_pings_are_answered(masks: bool) -> None:
    play = Played(masks=masks)
    play.says((PING, b"a"), (TEXT, b"one"), (PING, b"b"))
    assert play.sent == [(PONG, b"a"), (PONG, b"b")]


async def test_a_flood_of_pings_that_nobody_reads_the_answers_of_piles_nothing_up() -> None:
    play = Played()
    play.socket.pause_writing()
    play.says(*[(PING, b"%d" % number) for number in range(100)])
    assert play.sent == []
    play.socket.resume_writing()
    assert play.sent == [(PONG, b"99")]


@both_sides
async def test_a_peer_that_is_gone_without_a_word_is_found_out(masks: bool) -> None:
    play = Played(masks=masks)
    play.advance(19)
    assert play.sent == []
    play.advance(2)
    assert play.sent == [(PING, b"")]
    play.advance(18)
    assert play.listener.events == []
    play.advance(2)
    assert play.listener.events == ["closed 1006"]
    assert play.transport.events == ["aborted"]
    play.lose()
    assert play.listener.events == ["closed 1006"]
    assert not play.sockets.open


@both_sides
async def test_a_peer_that_answers_stays(masks: bool) -> None:
    play = Played(masks=masks, limits=SocketLimits(idle_seconds=1000))
    for number in range(1, 10):
        play.advance(21)
        assert len(play.sent) == number
        play.says((PONG, b""))
    assert play.listener.events == []


async def test_a_peer_that_is_not_read_is_not_asked_whether_it_is_there() -> None:
    play = Played()
    play.socket.pause_reading("other side")
    play.advance(1000)
    assert play.sent == []
    assert play.listener.events == []
    play.socket.resume_reading("other side")
    play.advance(21)
    assert play.sent == [(PING, b"")]


# Ends


@both_sides
async def test_the_peer_closes(masks: bool) -> None:
    """The code is echoed; the server closes the connection, the client waits for that (RFC 6455, section 7.1.1)."""
    play = Played(masks=masks)
    play.says((CLOSE, close_payload(4000, "bye")), (TEXT, b"after"))
    assert play.listener.events == ["closed 4000 bye"]
    assert play.sent == [(CLOSE, close_payload(4000, ""))]
    assert play.transport.events == ([] if masks else ["closed"])
    play.socket.send_text("late")
    play.socket.close()
    assert len(play.transport.writes) == 1
    play.advance(4)
    assert play.transport.events[-1] == "aborted"
    play.lose()
    assert not play.sockets.open


async def test_the_peer_closes_without_a_code() -> None:
    play = Played()
    play.says((CLOSE, b""))
    assert play.listener.events == ["closed 1005"]
    assert play.sent == [(CLOSE, b"")]


@both_sides
async def test_we_close(masks: bool) -> None:
    play = Played(masks=masks)
    play.socket.close(1008, "policy")
    assert play.listener.events == []  # never within the call
    assert not play.socket.is_open
    await turn()
    assert play.listener.events == ["closed 1008 policy"]
    play.says((TEXT, b"on its way"), (CLOSE, close_payload(1008, "")))
    assert play.sent == [(CLOSE, close_payload(1008, "policy"))]
    assert play.listener.events == ["closed 1008 policy"]
    assert play.transport.events == ([] if masks else ["closed"])


@pytest.mark.parametrize("code", [None, 1005, 1006, 1015])
async def test_codes_that_cannot_be_sent_close_without_one(code: int | None) -> None:
    play = Played()
    play.socket.close(code, "why")
    assert play.sent == [(CLOSE, b"")]
    await turn()
    assert play.listener.events == [f"closed {code or 1005} why"]


async def test_a_peer_that_does_not_answer_our_close_is_dropped() -> None:
    play = Played()
    play.socket.pause_reading("screening")
    play.socket.close(1000)
    assert play.transport.events == ["paused", "resumed"]
    play.advance(2)
    assert "aborted" not in play.transport.events
    play.advance(2)
    assert play.transport.events[-1] == "aborted"


async def test_the_peer_vanishes() -> None:
    play = Played()
    assert play.socket.eof_received() is False
    assert play.listener.events == ["closed 1006"]
    play.socket.send_text("late")
    play.lose()
    assert play.listener.events == ["closed 1006"]
    assert play.transport.writes == []


async def test_we_drop_the_connection() -> None:
    play = Played()
    play.socket.abort()
    play.socket.send_text("late")
    play.lose()
    assert play.listener.events == []
    assert play.transport.events == ["aborted"]


@both_sides
async def test_what_breaks_the_rules_is_told_why_and_heard_no_more(masks: bool) -> None:
    play = Played(masks=masks)
    play.says((TEXT, b"one"), (TEXT, b"\xff"), (TEXT, b"two"))
    play.says((TEXT, b"three"))
    assert play.listener.events == ["one", "closed 1007 text is not UTF-8"]
    assert play.sent == [(CLOSE, close_payload(1007, "text is not UTF-8"))]
    assert play.transport.events == ["eof"]  # a reset would destroy the frame on its way
    play.advance(4)
    assert play.transport.events == ["eof", "aborted"]


async def test_too_large_a_message_is_not_collected() -> None:
    play = Played()
    play.says(b"\x81\xff" + (2 << 20).to_bytes(8, "big") + b"\0\0\0\0")
    assert play.listener.events == ["closed 1009 a message may have 100000 bytes"]
    for _ in range(32):
        play.socket.data_received(bytes(65536))
    assert play.sockets.held == 0
    assert read_close(play.sent[0][1]) == (1009, "a message may have 100000 bytes")


async def test_a_bad_close_frame_is_answered_with_what_is_wrong() -> None:
    play = Played()
    play.says((CLOSE, b"\x03\xed"))
    assert play.listener.events == ["closed 1002 an invalid close code"]


async def test_a_fault_of_ours_ends_the_connection_and_is_reported() -> None:
    play = Played()

    def fail(event: str) -> None:
        if event == "one":
            raise RuntimeError("a bug")

    play.listener.on_event = fail
    play.says((TEXT, b"one"), (TEXT, b"two"))
    assert [str(fault) for fault in play.faults] == ["a bug"]
    assert play.listener.events == ["one", "closed 1011 the gateway failed; see its log"]


async def test_a_client_that_is_silent_for_too_long() -> None:
    play = Played(limits=SocketLimits(idle_seconds=60, ping_seconds=1000))
    play.advance(59)
    play.socket.send_text("a message in either direction counts")
    play.advance(59)
    play.says((PING, b"a ping does not"))
    assert play.listener.events == []
    play.advance(2)
    assert play.listener.events == ["closed 1001 silent for 60 s"]


async def test_the_silence_of_a_provider_is_its_conversations_to_judge() -> None:
    play = Played(masks=True, limits=SocketLimits(idle_seconds=60, ping_seconds=1000))
    play.advance(100)
    assert play.listener.events == []


async def test_draining_tells_clients_to_come_back_elsewhere() -> None:
    play, provider = Played(), Played(masks=True)
    for one in (play, provider):
        one.sockets.drain()
    assert play.listener.events == ["closed 1001 the gateway is shutting down"]
    assert provider.listener.events == []


async def test_unfinished_messages_have_a_bound_over_all_sockets() -> None:
    """The one that would make it too much goes; the others stay."""
    play = Played(limits=SocketLimits(message_bytes=100_000, buffered_bytes=150_000))
    first, second = play.socket, play.add()
    half = frame(BINARY, bytes(90_000), masked=True)[:80_000]
    first.data_received(half)
    assert play.sockets.held == 80_000
    second.data_received(half)
    assert play.listener.events == ["closed 1013 the gateway holds too many unfinished messages"]
    assert play.sockets.held == 80_000
    first.connection_lost(None)
    assert play.sockets.held == 0
    assert repr(play.sockets) == "<Sockets 1 open, 0 bytes of messages held>"


async def test_what_came_with_the_handshake_is_delivered_after_it() -> None:
    play = Played()
    socket = Socket(play.sockets, masks=False, subprotocol="realtime", deflate=None)
    socket.prepare(play.transport)
    socket.take_over(play.listener, frame(TEXT, b"early", masked=True))
    assert play.listener.events == []
    await turn()
    assert play.listener.events == ["early"]
    assert play.sockets.clients == 2
