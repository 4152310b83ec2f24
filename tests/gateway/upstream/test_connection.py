"""One connection, played without a socket: every cut, every state, every end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.errors import UpstreamInvalid, UpstreamReset
from gateway.types import Origin
from gateway.upstream.connection import MAX_HEAD, MAX_INTERIM, SMALL_WRITE, STEPS, State, UpstreamConnection
from tests.gateway.upstream.support import GET, Recorder
from tests.provider import LAST_CHUNK, chunk, head, respond


class Wire(asyncio.Transport):
    """A transport without a socket, which keeps what is written and how it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[Any] = []
        self.unsent = 0
        self.ended = ""
        self.reading = True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high is not None
        assert low is not None
        assert high > low > 0

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def write(self, data: Any) -> None:
        self.written.append(data)

    def writelines(self, list_of_data: Any) -> None:
        self.written.append(list(list_of_data))

    def close(self) -> None:
        self.ended = self.ended or "closed"

    def abort(self) -> None:
        self.ended = "aborted"

    def is_closing(self) -> bool:
        return bool(self.ended)

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Owner:
    """The pool, as far as a connection sees it."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def on_connection_idle(self, connection: UpstreamConnection) -> None:
        assert connection._state is State.IDLE
        self.told.append("idle")

    def on_connection_closed(self, connection: UpstreamConnection) -> None:
        assert connection.closed
        self.told.append("closed")


class Scene:
    """A connection with a request sent on it."""

    def __init__(self, request: bytes = GET, body: bytes = b"", served: int = 0) -> None:
        self.wire, self.owner = Wire(), Owner()
        self.connection = UpstreamConnection(self.owner, Origin("provider", 80, tls=False))
        self.connection.connection_made(self.wire)
        self.connection.idle_since = 5.0
        self.connection.served = served
        self.listener = Recorder(request, body)
        assert self.connection.lease(5.0)
        self.listener.on_connection(self.connection)

    def read(self, *pieces: bytes) -> list[tuple[Any, ...]]:
        """The provider's bytes, each as one read; returns the transcript so far."""
        for piece in pieces:
            if not self.wire.is_closing():
                self.connection.data_received(piece)
        return self.listener.events

    def lose(self, error: Exception | None = None) -> None:
        """The provider ends the connection: by FIN, or by an error."""
        if error is None:
            self.connection.eof_received()
        self.connection.connection_lost(error)


async def test_a_whole_response_in_one_read() -> None:
    scene = Scene()
    assert repr(scene.connection) == "<UpstreamConnection http://provider:80 waiting for a head, 0 served>"
    assert scene.wire.written == [GET]
    assert scene.read(respond(b"hello")) == [("head", 200, b"hello", True)]
    assert repr(scene.connection) == "<UpstreamConnection http://provider:80 idle, 1 served>"
    assert (scene.owner.told, scene.wire.ended) == (["idle"], "")


SIZED = respond(b"hello")
CHUNKED = head(200, chunked=True) + chunk(b"data: 1\n\n") + chunk(b"data: [DONE]\n\n") + b"0\r\nx-trailer: 1\r\n\r\n"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + SIZED
EMPTY = head(204)


@pytest.mark.parametrize("response", [SIZED, CHUNKED, INTERIM, EMPTY], ids=["sized", "chunked", "interim", "empty"])
async def test_a_response_may_be_cut_at_every_byte(response: bytes) -> None:
    whole = Scene()
    whole.read(response)
    for cut in range(1, len(response)):
        scene = Scene()
        scene.read(response[:cut])
        assert not scene.listener.over.is_open
        assert scene.owner.told == []
        scene.read(response[cut:])
        assert scene.listener.body == whole.listener.body
        assert scene.listener.head == whole.listener.head
        assert scene.listener.events[-1][-1] is True
        assert scene.owner.told == ["idle"]


@pytest.mark.parametrize("response", [SIZED, CHUNKED, INTERIM, EMPTY], ids=["sized", "chunked", "interim", "empty"])
@pytest.mark.parametrize("error", [None, ConnectionResetError()], ids=["fin", "rst"])
async def test_a_response_that_breaks_off_at_any_byte_fails_once(response: bytes, error: Exception | None) -> None:
    for cut in range(len(response)):
        scene = Scene()
        scene.read(response[:cut])
        scene.lose(error)
        assert scene.listener.events[-1] == ("failed", "UpstreamReset")
        assert not any(event[-1] is True for event in scene.listener.events)
        assert scene.owner.told == ["closed"]
        assert scene.wire.ended == "aborted"


async def test_byte_by_byte() -> None:
    scene = Scene()
    scene.read(*[CHUNKED[index : index + 1] for index in range(len(CHUNKED))])
    assert scene.listener.body == CHUNKED.partition(b"\r\n\r\n")[2]
    assert scene.owner.told == ["idle"]


async def test_what_holds_only_body_is_handed_on_as_the_object_that_was_read() -> None:
    events = [chunk(b"data: 1\n\n"), chunk(b"data: 2\n\n"), LAST_CHUNK]
    scene = Scene()
    scene.read(head(200, chunked=True), *events)
    assert [read is event for read, event in zip(scene.listener.reads[1:], events, strict=True)] == [True] * 3
    scene = Scene()
    pieces = [b"hel", b"lo"]
    scene.read(head(200, length=5), *pieces)
    assert [read is piece for read, piece in zip(scene.listener.reads[1:], pieces, strict=True)] == [True] * 2


async def test_the_walker_knows_the_payload_of_what_was_read() -> None:
    scene = Scene()
    data = chunk(b"data: 1\n\n")
    scene.read(head(200, chunked=True) + data)
    assert scene.connection.walker is not None
    assert scene.connection.walker.payload(data) == b"data: 1\n\n"
    scene.read(LAST_CHUNK)
    assert scene.connection.walker.done
    sized = Scene()
    sized.read(SIZED)
    assert sized.connection.walker is None


async def test_a_lane_is_asked_first_and_only_for_the_response_that_it_was_set_for() -> None:
    scene, taken = Scene(), []

    def lane(data: bytes) -> bool:
        if data == chunk(b"data: 1\n\n"):
            taken.append(data)
            return True
        return False

    scene.read(head(200, chunked=True))
    scene.connection.lane = lane
    scene.read(chunk(b"data: 1\n\n"), chunk(b"data: 2\n\n"), chunk(b"data: 1\n\n"), LAST_CHUNK)
    assert taken == [chunk(b"data: 1\n\n")] * 2
    assert scene.listener.reads == [b"", chunk(b"data: 2\n\n"), LAST_CHUNK]
    assert scene.connection.lane is None
    assert scene.owner.told == ["idle"]


@pytest.mark.parametrize("end", ["abort", "reset", "malformed"])
async def test_a_lane_ends_with_its_response(end: str) -> None:
    scene = Scene()
    taken: list[bytes] = []

    def lane(data: bytes) -> bool:
        taken.append(data)
        return False

    scene.read(head(200, chunked=True))
    scene.connection.lane = lane
    if end == "abort":
        scene.connection.abort()
    elif end == "reset":
        scene.lose(ConnectionResetError())
    else:
        scene.read(b"zz\r\n")
    asked = len(taken)
    scene.connection.data_received(b"late")
    assert len(taken) == asked


async def test_the_connection_is_free_before_the_listener_hears_of_the_end() -> None:
    scene = Scene()

    class Next(Recorder):
        def on_response_data(self, data: bytes, end: bool) -> None:
            super().on_response_data(data, end)
            if end:
                assert scene.owner.told == ["idle"]
                assert scene.connection.lease(5.0)
                scene.connection.send(GET, b"", second)

    first, second = Next(), Recorder()
    scene.connection._listener = first
    scene.read(head(200, length=2), b"ok", respond(b"again"))
    assert first.events[-1] == ("data", b"ok", True)
    assert second.events == [("head", 200, b"again", True)]
    assert scene.owner.told == ["idle", "idle"]


async def test_a_body_until_close() -> None:
    scene = Scene()
    scene.read(head(200), b"one", b"two")
    assert "reading until close" in repr(scene.connection)
    scene.lose()
    assert scene.listener.events == [
        ("head", 200, b"", False),
        ("data", b"one", False),
        ("data", b"two", False),
        ("data", b"", True),
    ]
    assert scene.owner.told == ["closed"]


async def test_a_body_until_close_that_is_reset_is_not_complete() -> None:
    scene = Scene()
    scene.read(head(200), b"one")
    scene.lose(ConnectionResetError())
    assert scene.listener.events[-1] == ("failed", "UpstreamReset")


@pytest.mark.parametrize(
    "response",
    [
        SIZED + b"x",
        CHUNKED + b"HTTP/1.1 200 OK\r\n",
        EMPTY + b"\r\n",
        head(200, ("connection", "close"), length=2) + b"ok",
        head(204, ("connection", "close")),
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
    ],
)
async def test_after_a_complete_response_that_ends_the_connection_it_is_closed(response: bytes) -> None:
    """Also where something follows the message: whatever it is, it is no answer to a request of ours."""
    scene = Scene()
    scene.read(response)
    assert scene.listener.events[-1][-1] is True
    assert (scene.owner.told, scene.wire.ended) == (["closed"], "closed")


async def test_extra_bytes_do_not_reach_the_listener() -> None:
    scene = Scene()
    scene.read(head(200, length=2), b"okay")
    assert scene.listener.reads == [b"", b"ok"]


async def test_an_early_answer_to_a_request_that_is_not_written_yet_ends_the_connection() -> None:
    scene = Scene(body=b"x" * 100)
    scene.wire.unsent = 50
    scene.read(respond(b"no", 413))
    assert scene.listener.events == [("head", 413, b"no", True)]
    assert (scene.owner.told, scene.wire.ended) == (["closed"], "aborted")


@pytest.mark.parametrize("unasked", [b"HTTP/1.1 408 Request Timeout\r\n\r\n", b"x"])
async def test_an_idle_connection_that_becomes_readable_is_dead(unasked: bytes) -> None:
    scene = Scene()
    scene.read(SIZED, unasked)
    assert scene.owner.told == ["idle", "closed"]
    assert scene.listener.events == [("head", 200, b"hello", True)]
    assert not scene.connection._state.steps


async def test_an_idle_connection_that_the_provider_closes_is_dead() -> None:
    for error in (None, ConnectionResetError()):
        scene = Scene()
        scene.read(SIZED)
        scene.lose(error)
        assert scene.owner.told == ["idle", "closed"]


async def test_a_connection_that_is_closing_is_not_leased() -> None:
    scene = Scene()
    scene.read(SIZED)
    scene.wire.close()
    assert not scene.connection.lease(5.0)
    assert scene.owner.told == ["idle", "closed"]


async def test_a_stale_connection_says_so() -> None:
    scene = Scene(served=1)
    scene.lose()
    assert isinstance(scene.listener.error, UpstreamReset)
    assert scene.listener.error.reused
    assert scene.connection.request_sent


@pytest.mark.parametrize("received", [b"H", b"HTTP/1.1 100 Continue\r\n\r\n", head(200, length=5)])
async def test_a_reused_connection_that_has_answered_is_not_stale(received: bytes) -> None:
    scene = Scene(served=1)
    scene.read(received)
    scene.lose()
    assert isinstance(scene.listener.error, UpstreamReset)
    assert not scene.listener.error.reused


async def test_a_new_connection_is_not_stale() -> None:
    scene = Scene()
    scene.lose()
    assert isinstance(scene.listener.error, UpstreamReset)
    assert not scene.listener.error.reused


async def test_a_request_on_a_connection_that_has_just_gone_is_not_sent() -> None:
    scene = Scene()
    scene.read(SIZED)
    assert scene.connection.lease(5.0)
    scene.connection.connection_lost(None)
    second, third = Recorder(), Recorder()
    scene.connection.send(GET, b"", second)
    assert second.events == []
    await second.over
    assert second.events == [("failed", "UpstreamReset")]
    assert not scene.connection.request_sent
    assert scene.wire.written == [GET]
    scene.connection.send(GET, b"", third)
    scene.connection.abort()
    await asyncio.sleep(0)
    assert third.events == []


@pytest.mark.parametrize(
    ("response", "words"),
    [
        (b"\x15\x03\x01\x00\x02\x02\x50", "does not answer in HTTP/1.1"),
        (b"\x00\x00\x12\x04\x00\x00\x00\x00\x00", "does not answer in HTTP/1.1"),
        (b"HTTP/2 200\r\n\r\n", "does not answer in HTTP/1.1"),
        (b"<html>" * 10, "does not answer in HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n", "malformed"),
        (b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", "switched protocols"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * (MAX_INTERIM + 1), "interim"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"b" * MAX_HEAD, "larger than"),
        (head(200, ("a", "b" * MAX_HEAD), length=0), "larger than"),
        (head(200, chunked=True) + b"x\r\n", "chunked body is malformed"),
    ],
)
async def test_what_is_not_http_is_invalid(response: bytes, words: str) -> None:
    for pieces in ([response], [response[:5], response[5:]]):
        scene = Scene()
        scene.read(*pieces)
        assert scene.listener.events == [("failed", "UpstreamInvalid")]
        assert words in str(scene.listener.error)
        assert (scene.owner.told, scene.wire.ended) == (["closed"], "aborted")


async def test_a_malformed_chunk_later_on_is_invalid() -> None:
    scene = Scene()
    scene.read(head(200, chunked=True), chunk(b"one"), b"zz\r\n")
    assert isinstance(scene.listener.error, UpstreamInvalid)
    assert scene.listener.events[-1] == ("failed", "UpstreamInvalid")


async def test_a_head_request_gets_no_body() -> None:
    scene = Scene(b"HEAD / HTTP/1.1\r\nhost: x\r\n\r\n")
    scene.read(head(200, length=5))
    assert scene.listener.events == [("head", 200, b"", True)]
    assert scene.listener.head is not None
    assert scene.listener.head.content_length == 5
    assert scene.owner.told == ["idle"]


@pytest.mark.parametrize(
    "received", [[], [b"HTTP/1.1 2"], [head(200, length=5)], [head(200, chunked=True), chunk(b"x")], [head(200)]]
)
async def test_abort_closes_at_once_and_tells_nobody(received: list[bytes]) -> None:
    scene = Scene()
    scene.read(*received)
    before = list(scene.listener.events)
    scene.connection.abort()
    assert (scene.owner.told, scene.wire.ended) == (["closed"], "aborted")
    scene.connection.data_received(b"late")
    scene.lose()
    scene.connection.abort()
    assert scene.listener.events == before
    assert scene.owner.told == ["closed"]


async def test_after_the_end_the_connection_is_not_the_listeners_any_more() -> None:
    scene = Scene()
    scene.read(SIZED)
    scene.connection.pause_reading()
    scene.connection.abort()
    assert (scene.wire.reading, scene.wire.ended) == (True, "")


async def test_reading_is_paused_and_resumed_once_and_goes_on_after_the_end() -> None:
    scene = Scene()
    scene.read(head(200, length=2))
    scene.connection.pause_reading()
    scene.connection.pause_reading()
    assert not scene.wire.reading
    assert ", reading paused" in repr(scene.connection)
    scene.connection.resume_reading()
    assert scene.wire.reading
    scene.connection.pause_reading()
    scene.read(b"ok")
    assert scene.wire.reading
    assert scene.owner.told == ["idle"]


async def test_a_slow_provider_is_seen() -> None:
    scene = Scene()
    scene.connection.pause_writing()
    assert scene.connection.write_paused
    assert ", provider slow" in repr(scene.connection)
    scene.connection.resume_writing()
    assert not scene.connection.write_paused


async def test_small_requests_are_one_buffer_and_large_ones_are_not_copied() -> None:
    small, large = b"s" * SMALL_WRITE, b"l" * (SMALL_WRITE + 1)
    assert Scene(body=small).wire.written == [GET + small]
    (buffers,) = Scene(body=large).wire.written
    assert buffers == [GET, large]
    assert buffers[1] is large


async def test_a_step_that_the_table_does_not_allow_is_a_bug() -> None:
    scene = Scene()
    with pytest.raises(AssertionError, match=r"waiting for a head, 0 served> cannot become waiting for a head"):
        scene.connection.send(GET, b"", Recorder())


def test_every_state_can_end_and_nothing_follows_the_end() -> None:
    assert set(STEPS) == set(State)
    assert all(State.CLOSED in steps for state, steps in STEPS.items() if state is not State.CLOSED)
    assert STEPS[State.CLOSED] == ()
