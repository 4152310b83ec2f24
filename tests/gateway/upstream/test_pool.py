"""The pools against a real provider on loopback: reuse, queue, deadlines, and leaving in every phase."""

from __future__ import annotations

import asyncio
import logging
import select
from collections.abc import Callable

import pytest

from gateway.errors import Overloaded, UpstreamReset, UpstreamTimeout, UpstreamUnreachable
from gateway.types import Destination, Origin
from gateway.upstream.connection import UpstreamConnection
from gateway.upstream.pool import LINGER_SECONDS, WARM_RETRY_SECONDS, Pools
from tests.gateway.upstream.support import GET, Clock, Recorder, ask, exchange, pools_of, to
from tests.provider import (
    CLOSE,
    EOF,
    LAST_CHUNK,
    RESET,
    STALL,
    Gate,
    ScriptedProvider,
    Step,
    chunk,
    deaf_port,
    head,
    refusing_port,
    respond,
    stream,
    trickle,
)

OK = respond(b"ok")


async def turns(count: int = 3) -> None:
    """Let what is ready to run, run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until something has happened that nobody is told of."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_one_connection_serves_many_requests() -> None:
    async with ScriptedProvider(OK) as provider, pools_of() as pools:
        for _ in range(5):
            assert (await exchange(pools, to(provider))).events == [("head", 200, b"ok", True)]
        assert (len(provider.requests), len(provider.connections)) == (5, 1)
        assert repr(pools) == "<Pools [<Pool test: 1 idle, 0 busy, 0 opening, 0 waiting>]>"


@pytest.mark.parametrize(
    "answer",
    [
        stream(b"data: 1\n\n", b"data: [DONE]\n\n"),
        trickle(respond(b"hello")),
        head(204),
        [b"HTTP/1.1 100 C\r\n\r\n", OK],
    ],
    ids=["chunked", "trickled", "empty", "interim"],
)
async def test_connections_are_reused_whatever_the_framing(answer: list[bytes]) -> None:
    async with ScriptedProvider(answer) as provider, pools_of() as pools:
        for _ in range(3):
            assert (await exchange(pools, to(provider))).error is None
        assert len(provider.connections) == 1


@pytest.mark.parametrize(
    "answer", [[respond(b"ok", 200, ("connection", "close"))], [OK, CLOSE], [head(200), b"ok", CLOSE], [OK, b"more"]]
)
async def test_connections_that_end_are_not_reused(answer: list[bytes]) -> None:
    async with ScriptedProvider(answer) as provider, pools_of() as pools:
        for index in range(2):
            assert (await exchange(pools, to(provider))).body == b"ok"
            await provider.connections[index].closed
            await turns()
        assert len(provider.connections) == 2


async def test_the_request_goes_out_as_it_was_given() -> None:
    body = b"x" * 300_000
    post = b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % len(body)
    async with ScriptedProvider(OK) as provider, pools_of() as pools:
        await exchange(pools, to(provider), post, body)
        await exchange(pools, to(provider), GET)
        assert [request.raw for request in provider.requests] == [post + body, GET]
        assert len(provider.connections) == 1


async def test_the_most_recently_used_connection_is_taken_first_and_the_oldest_ages_out() -> None:
    clock, go = Clock(), Gate()
    async with ScriptedProvider([go, OK], [go, OK], OK) as provider, pools_of(clock) as pools:
        destination = to(provider, keepalive_seconds=60)
        both = [Recorder(), Recorder()]
        for recorder in both:
            ask(pools, destination, recorder)
        await provider.requests.at(1)
        go.open()
        for recorder in both:
            await recorder.over
        clock.now += 59
        pools.sweep(clock.now)
        assert "2 idle" in repr(pools)
        last = await exchange(pools, destination)
        clock.now += 2
        pools.sweep(clock.now)
        assert "1 idle" in repr(pools)
        assert last.connection is not None
        assert not last.connection.closed  # type: ignore[union-attr]


async def test_two_requests_share_one_connection_in_order() -> None:
    go = Gate()
    async with ScriptedProvider([head(200, length=2), go, b"ok"], OK) as provider, pools_of() as pools:
        destination = to(provider, max_connections=1)
        first, second, third = Recorder(), Recorder(), Recorder()
        for recorder in (first, second, third):
            ask(pools, destination, recorder)
        await first.begun
        assert repr(pools) == "<Pools [<Pool test: 0 idle, 1 busy, 0 opening, 2 waiting>]>"
        go.open()
        await third.over
        assert [recorder.body for recorder in (first, second, third)] == [b"ok"] * 3
        assert len(provider.connections) == 1


async def test_a_newcomer_does_not_overtake_those_who_wait() -> None:
    go = Gate()
    async with ScriptedProvider([go, OK], OK) as provider, pools_of() as pools:
        destination = to(provider, max_connections=1)
        order: list[str] = []

        class Named(Recorder):
            def __init__(self, name: str) -> None:
                super().__init__()
                self.name = name

            def on_connection(self, connection: object) -> None:
                order.append(self.name)
                super().on_connection(connection)  # type: ignore[arg-type]

            def on_response_head(self, *arguments: object) -> None:
                super().on_response_head(*arguments)  # type: ignore[arg-type]
                if self.name == "first":
                    ask(pools, destination, newcomer)

        first, second, newcomer = Named("first"), Named("second"), Named("newcomer")
        ask(pools, destination, first)
        ask(pools, destination, second)
        await provider.requests.at(0)
        go.open()
        await newcomer.over
        assert order == ["first", "second", "newcomer"]


# Refusals and deadlines


async def test_a_full_queue_is_overloaded() -> None:
    async with ScriptedProvider([STALL]) as provider, pools_of() as pools:
        destination = to(provider, max_connections=1, max_queue=1)
        first, queued, refused, left = Recorder(), Recorder(), Recorder(), Recorder()
        for recorder in (first, queued, refused):
            ask(pools, destination, recorder)
        assert refused.events == [], "never from within the call"
        ticket = ask(pools, destination, left)
        assert ticket is not None
        assert repr(ticket) == "<Ticket test refused>"
        ticket.cancel()
        await refused.over
        assert isinstance(refused.error, Overloaded)
        assert (b"retry-after", b"1") in refused.error.headers
        assert (queued.events, left.events) == ([], [])


async def test_a_request_that_has_queued_too_long_is_overloaded() -> None:
    clock = Clock()
    async with ScriptedProvider([STALL]) as provider, pools_of(clock) as pools:
        destination = to(provider, max_connections=1, queue_seconds=2)
        first, early, late = Recorder(), Recorder(), Recorder()
        ask(pools, destination, first)
        await provider.requests.at(0)
        ask(pools, destination, early)
        clock.now += 1.5
        ask(pools, destination, late)
        clock.now += 1
        pools.sweep(clock.now)
        assert isinstance(early.error, Overloaded)
        assert "within 2 s" in early.error.message
        assert late.events == []
        assert repr(pools) == "<Pools [<Pool test: 0 idle, 1 busy, 0 opening, 1 waiting>]>"


async def test_a_connect_that_takes_too_long_is_a_timeout() -> None:
    clock = Clock()
    with deaf_port() as port:
        async with pools_of(clock) as pools:
            recorder = Recorder()
            ask(pools, to(port, connect_seconds=3, queue_seconds=1), recorder)
            await turns()
            clock.now += 2
            pools.sweep(clock.now)
            assert recorder.events == []
            assert repr(pools) == "<Pools [<Pool test: 0 idle, 0 busy, 1 opening, 1 waiting>]>"
            clock.now += 2
            pools.sweep(clock.now)
            assert isinstance(recorder.error, UpstreamTimeout)
            assert "more than 3 s to connect" in recorder.error.message
            assert repr(pools) == "<Pools [<Pool test: 0 idle, 0 busy, 0 opening, 0 waiting>]>"


async def test_a_refused_connect_is_unreachable() -> None:
    async with pools_of() as pools:
        recorder = await exchange(pools, to(refusing_port()))
        assert isinstance(recorder.error, UpstreamUnreachable)
        assert "refused" in recorder.error.message.lower()


async def test_each_of_those_who_wait_gets_an_attempt_of_its_own() -> None:
    async with pools_of() as pools:
        recorders = [Recorder() for _ in range(3)]
        destination = to(refusing_port(), max_connections=1)
        for recorder in recorders:
            ask(pools, destination, recorder)
        for recorder in recorders:
            await recorder.over
            assert isinstance(recorder.error, UpstreamUnreachable)


async def test_a_bug_while_connecting_ends_the_wait(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        async def resolve(self, host: str) -> list[str]:
            raise RuntimeError("a bug")

        def close(self) -> None:
            pass

    with caplog.at_level(logging.ERROR):
        async with pools_of(resolver=Broken()) as pools:
            recorder = await exchange(pools, to(1, host="provider.test"))
    assert recorder.events == [("no connection", "InternalError")]
    assert "a bug" in caplog.text


# How an answer may end


@pytest.mark.parametrize(
    "answer",
    [
        [RESET],
        [CLOSE],
        [EOF],
        [b"HTTP/1.1 200", RESET],
        [head(200, length=5), b"he", CLOSE],
        [*stream(b"1")[:-1], RESET],
    ],
    ids=["reset", "close", "half-close", "in head", "in body", "in chunks"],
)
async def test_a_provider_that_breaks_off(answer: list[bytes]) -> None:
    async with ScriptedProvider(answer, OK) as provider, pools_of() as pools:
        recorder = await exchange(pools, to(provider))
        assert isinstance(recorder.error, UpstreamReset)
        assert not recorder.error.reused
        await provider.connections[0].closed
        assert repr(pools) == "<Pools [<Pool test: 0 idle, 0 busy, 0 opening, 0 waiting>]>"
        assert (await exchange(pools, to(provider))).body == b"ok"


async def test_an_idle_connection_that_the_provider_closes_is_forgotten() -> None:
    go = Gate()
    async with ScriptedProvider([OK, go, CLOSE], OK) as provider, pools_of() as pools:
        first = await exchange(pools, to(provider))
        go.open()
        await provider.connections[0].closed
        await turns()
        assert "0 idle" in repr(pools)
        second = await exchange(pools, to(provider))
        assert second.body == b"ok"
        assert second.connection is not first.connection


async def test_a_connection_that_dies_as_it_is_reused_says_that_it_was_stale() -> None:
    async with ScriptedProvider(OK, [RESET]) as provider, pools_of() as pools:
        await exchange(pools, to(provider))
        recorder = await exchange(pools, to(provider))
        assert isinstance(recorder.error, UpstreamReset)
        assert recorder.error.reused
        assert recorder.connection is not None
        assert recorder.connection.request_sent
        assert len(provider.connections) == 1


async def test_a_connection_that_was_idle_for_long_is_probed() -> None:
    """The provider has closed, and the event loop has not seen it yet: a pool may not give such a connection."""
    clock, go = Clock(), Gate()
    with ScriptedProvider([OK, go, CLOSE]).in_thread() as provider:
        async with pools_of(clock) as pools:
            first = await exchange(pools, to(provider))
            go.open()
            sock = first.connection._transport.get_extra_info("socket")  # type: ignore[union-attr]
            select.select([sock], [], [], 20)  # blocks this loop, so that nothing is read meanwhile
            assert "1 idle" in repr(pools)
            clock.now += 2
            assert pools.take(to(provider)) is None
            assert "0 idle" in repr(pools)
            assert isinstance(first.connection, UpstreamConnection)
            assert first.connection.closed


# Leaving


async def test_leaving_the_queue() -> None:
    go = Gate()
    async with ScriptedProvider([go, OK], OK) as provider, pools_of() as pools:
        destination = to(provider, max_connections=1)
        first, second = Recorder(), Recorder()
        ask(pools, destination, first)
        ticket = ask(pools, destination, second)
        assert ticket is not None
        await provider.requests.at(0)
        ticket.cancel()
        ticket.cancel()
        assert repr(ticket) == "<Ticket test cancelled>"
        assert repr(pools) == "<Pools [<Pool test: 0 idle, 1 busy, 0 opening, 0 waiting>]>"
        go.open()
        await first.over
        await turns()
        assert (second.events, len(provider.requests)) == ([], 1)


async def test_leaving_while_connecting_gives_the_opening_up() -> None:
    with deaf_port() as port:
        async with pools_of() as pools:
            recorder = Recorder()
            ticket = ask(pools, to(port), recorder)
            assert ticket is not None
            await turns()
            ticket.cancel()
            assert repr(pools) == "<Pools [<Pool test: 0 idle, 0 busy, 0 opening, 0 waiting>]>"
            await turns()
            assert recorder.events == []


async def test_an_opening_is_kept_while_another_request_waits_for_it() -> None:
    async with ScriptedProvider(OK) as provider, pools_of() as pools:
        destination = to(provider, max_connections=1)
        first, second = Recorder(), Recorder()
        ticket = ask(pools, destination, first)
        ask(pools, destination, second)
        assert ticket is not None
        ticket.cancel()
        await second.over
        assert (first.events, second.body, len(provider.connections)) == ([], b"ok", 1)


async def test_leaving_during_the_tls_handshake_closes_the_socket() -> None:
    async with ScriptedProvider(greeting=[STALL]) as provider, pools_of() as pools:
        ticket = ask(pools, to(provider, tls=True), Recorder())
        assert ticket is not None
        connection = await provider.connections.at(0)
        await connection.spoke
        assert connection.received.startswith(b"\x16\x03")  # a ClientHello
        ticket.cancel()
        await connection.closed
        assert "0 opening" in repr(pools)


@pytest.mark.parametrize(
    "answer",
    [
        [STALL],
        [b"HTTP/1.1 200", STALL],
        [head(200, length=9), b"some", STALL],
        [*stream(b"1")[:-1], STALL],
        [head(200), STALL],
    ],
    ids=["waiting", "in head", "sized", "streaming", "until close"],
)
async def test_leaving_at_any_later_time_closes_the_socket(answer: list[bytes]) -> None:
    async with ScriptedProvider(answer) as provider, pools_of() as pools:
        recorder = Recorder()
        ask(pools, to(provider), recorder)
        await provider.requests.at(0)
        if len(answer) > 2:
            await recorder.begun
        assert recorder.connection is not None
        recorder.connection.abort()
        events = list(recorder.events)
        await provider.connections[0].closed
        assert repr(pools) == "<Pools [<Pool test: 0 idle, 0 busy, 0 opening, 0 waiting>]>"
        assert recorder.events == events


async def test_leaving_makes_room_for_the_next() -> None:
    async with ScriptedProvider([STALL], OK) as provider, pools_of() as pools:
        destination = to(provider, max_connections=1)
        first, second = Recorder(), Recorder()
        ask(pools, destination, first)
        ask(pools, destination, second)
        await provider.requests.at(0)
        assert first.connection is not None
        first.connection.abort()
        await second.over
        assert second.body == b"ok"


# Back-pressure


async def test_a_paused_reader_stops_the_provider() -> None:
    """What the kernel and one read hold may still come; the provider's own buffer then fills."""
    total = 16 * 1024 * 1024
    answer = [head(200, length=total), bytes(total)]
    with ScriptedProvider(answer).in_thread() as provider:
        async with pools_of() as pools:

            class Pausing(Recorder):
                def on_response_head(self, *arguments: object) -> None:
                    super().on_response_head(*arguments)  # type: ignore[arg-type]
                    assert self.connection is not None
                    self.connection.pause_reading()

            recorder = Pausing()
            ask(pools, to(provider), recorder)
            await recorder.begun
            assert ", reading paused" in repr(recorder.connection)
            await turns(100)
            assert len(recorder.body) < 1024 * 1024
            assert recorder.connection is not None
            recorder.connection.resume_reading()
            await recorder.over
            assert sum(map(len, recorder.reads)) == total


async def test_a_stream_is_handed_on_as_it_comes() -> None:
    go, events = Gate(), [chunk(b"data: 1\n\n"), chunk(b"data: 2\n\n")]
    answer: list[Step] = [head(200, chunked=True), events[0], go, events[1], LAST_CHUNK]
    async with ScriptedProvider(answer) as provider, pools_of() as pools:
        recorder = Recorder()
        ask(pools, to(provider), recorder)
        assert await recorder.read(len(events[0])) == events[0]
        go.open()
        await recorder.over
        assert recorder.body == events[0] + events[1] + LAST_CHUNK


# Upkeep


async def test_warm_connections_are_opened_ahead_and_again() -> None:
    clock = Clock()
    async with ScriptedProvider(OK) as provider, pools_of(clock) as pools:
        destination = to(provider, warm=2, keepalive_seconds=10)
        pools.keep([destination])
        await provider.connections.at(1)
        await turns(5)
        assert repr(pools) == "<Pools [<Pool test: 2 idle, 0 busy, 0 opening, 0 waiting>]>"
        clock.now += 100
        pools.sweep(clock.now)
        assert "2 idle" in repr(pools), "the last warm ones do not age out"
        (await exchange(pools, destination)).connection.close()  # type: ignore[union-attr]
        pools.sweep(clock.now)
        await provider.connections.at(2)
        await turns(5)
        assert "2 idle" in repr(pools)


async def test_warm_connections_that_fail_are_not_tried_again_at_once(caplog: pytest.LogCaptureFixture) -> None:
    clock, port = Clock(), refusing_port()
    async with pools_of(clock) as pools:
        pools.keep([to(port, warm=1)])
        await until(lambda: "0 opening" in repr(pools))
        pools.sweep(clock.now + WARM_RETRY_SECONDS - 1)
        assert "0 opening" in repr(pools)
        pools.sweep(clock.now + WARM_RETRY_SECONDS)
        assert "1 opening" in repr(pools)
    assert "cannot be reached" in caplog.text


async def test_no_more_than_max_idle_are_kept() -> None:
    go = Gate()
    async with ScriptedProvider([go, OK]) as provider, pools_of() as pools:
        recorders = [Recorder() for _ in range(3)]
        for recorder in recorders:
            ask(pools, to(provider, max_idle=1), recorder)
        await provider.requests.at(2)
        go.open()
        for recorder in recorders:
            await recorder.over
        assert repr(pools) == "<Pools [<Pool test: 1 idle, 0 busy, 0 opening, 0 waiting>]>"


async def test_a_new_generation_uses_no_old_connection() -> None:
    go = Gate()
    async with ScriptedProvider([go, OK], [go, OK], OK) as provider, pools_of() as pools:
        destination = to(provider)
        idle, busy = Recorder(), Recorder()
        ask(pools, destination, idle)
        ask(pools, destination, busy)
        await provider.requests.at(1)
        pools.expire()
        go.open()
        await idle.over
        await busy.over
        assert (idle.body, busy.body) == (b"ok", b"ok")
        assert "0 idle, 0 busy" in repr(pools)
        third = await exchange(pools, destination)
        pools.expire()
        assert isinstance(third.connection, UpstreamConnection)
        assert third.connection.closed
        assert len(provider.connections) == 3


async def test_a_destination_that_no_configuration_uses_finishes_and_goes() -> None:
    go = Gate()
    async with ScriptedProvider([go, OK], OK) as provider, pools_of() as pools:
        destination = to(provider)
        recorder = Recorder()
        ask(pools, destination, recorder)
        await provider.requests.at(0)
        pools.keep([])
        assert repr(pools) == "<Pools [<Pool test: 0 idle, 1 busy, 0 opening, 0 waiting, retired>]>"
        go.open()
        await recorder.over
        pools.sweep(0)
        assert repr(pools) == "<Pools []>"
        pools.keep([destination])
        assert (await exchange(pools, destination)).body == b"ok"
        assert "1 idle" in repr(pools)


async def test_a_reloaded_configuration_keeps_its_connections() -> None:
    async with ScriptedProvider(OK) as provider, pools_of() as pools:
        await exchange(pools, to(provider))
        pools.keep([to(provider)])
        await exchange(pools, to(provider))
        assert len(provider.connections) == 1


async def test_close_ends_everything_and_calls_nobody() -> None:
    async with ScriptedProvider([STALL]) as provider:
        async with pools_of() as pools:
            busy, queued, opening = Recorder(), Recorder(), Recorder()
            ask(pools, to(provider, max_connections=1), busy)
            await provider.requests.at(0)
            ask(pools, to(provider, max_connections=1), queued)
            ask(pools, to(provider), opening)
        await provider.connections[0].closed
        assert (busy.events, queued.events, opening.events) == ([], [], [])


async def test_a_unix_socket(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = str(tmp_path_factory.mktemp("s") / "c")
    async with ScriptedProvider(OK, unix_path=path) as provider, pools_of() as pools:
        destination = Destination("control", Origin("control", 0, tls=False, unix_path=path))
        for _ in range(2):
            assert (await exchange(pools, destination)).body == b"ok"
        assert len(provider.connections) == 1


def test_pools_are_made_before_the_loop_runs() -> None:
    loop = asyncio.new_event_loop()
    try:
        assert repr(Pools(loop, clock=loop.time)) == "<Pools []>"
    finally:
        loop.close()


async def test_the_rest_of_an_answer_that_nobody_needs_is_read_and_the_connection_serves_again() -> None:
    go = Gate()
    async with (
        ScriptedProvider([*stream(b"data: [DONE]\n\n")[:-1], go, LAST_CHUNK], OK) as provider,
        pools_of() as pools,
    ):
        recorder = Recorder()
        ask(pools, to(provider), recorder)
        await recorder.read(len(chunk(b"data: [DONE]\n\n")))
        recorder.connection.linger()
        assert repr(pools) == "<Pools [<Pool test: 0 idle, 1 busy, 0 opening, 0 waiting>]>"
        go.open()
        await until(lambda: "1 idle" in repr(pools))
        assert (await exchange(pools, to(provider))).body == b"ok"
        assert len(provider.connections) == 1
        assert ("data", LAST_CHUNK, True) not in recorder.events


async def test_an_answer_that_nobody_needs_and_that_does_not_end_costs_the_connection() -> None:
    clock = Clock()
    async with ScriptedProvider([*stream(b"data: [DONE]\n\n")[:-1], STALL]) as provider, pools_of(clock) as pools:
        recorder = Recorder()
        ask(pools, to(provider), recorder)
        await recorder.read(len(chunk(b"data: [DONE]\n\n")))
        recorder.connection.linger()
        clock.now += LINGER_SECONDS
        pools.sweep(clock.now)
        assert not recorder.connection.closed
        clock.now += 0.1
        pools.sweep(clock.now)
        assert recorder.connection.closed
        assert recorder.error is None
        await provider.connections[0].closed
