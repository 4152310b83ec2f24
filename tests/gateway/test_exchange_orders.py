"""An exchange in any order of events: whatever happens when, it ends once, gives back what it holds, and records it.

Hypothesis makes the stories: reads of the provider, good and bad, pauses and departures of the client, time, threads,
connections that come or do not, revocation. Each ends with the client's departure, so that every exchange is over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.errors import Draining, InvalidAPIKey, Overloaded, UpstreamUnreachable
from gateway.exchange import Exchange, State
from tests.playbook import Client, Play, configuration, dlp, gateway_key, target
from tests.provider import LAST_CHUNK, chunk, head, respond

DELTA = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3}}\n\n'
SSE = head(200, ("content-type", "text/event-stream"), chunked=True)
JSON = orjson.dumps({"choices": [{"message": {"role": "assistant", "content": "Hi"}}]})
READS = [
    SSE,
    chunk(DELTA % b"Hi"),
    chunk(DELTA % b"a secret"),
    chunk(DELTA % (b"x " * 150_000)),
    chunk(DELTA[:20]),
    chunk(DELTA[20:] % b"Hi"),
    chunk(USAGE),
    chunk(b"data: [DONE]\n\n"),
    LAST_CHUNK,
    SSE + chunk(DELTA % b"Hi") + chunk(USAGE) + chunk(b"data: [DONE]\n\n") + LAST_CHUNK,
    respond(JSON),
    head(200, ("content-type", "application/json"), length=len(JSON)),
    JSON[:10],
    JSON[10:],
    head(200, ("content-type", "application/json"), chunked=True),
    chunk(JSON),
    respond(orjson.dumps({"choices": [{"message": {"content": "x " * 150_000}}]})),
    respond(b'{"error":{"code":"a"}}', 400),
    respond(b'{"error":{"code":"b"}}', 429),
    respond(b'{"error":{"code":"c"}}', 500),
    respond(b"", 401),
    head(500, chunked=True),
    head(200, ("content-encoding", "gzip"), ("content-type", "application/json"), length=5),
    head(204),
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"garbage\r\n\r\n",
]
EVENTS = st.one_of(
    st.sampled_from(range(len(READS))),
    st.sampled_from(
        ["resets", "closes", "pause", "resume", "work", "connect", "refuse", "unreachable", "revoke", "drain"]
    ),
    st.sampled_from([0.3, 5.0, 130.0, 400.0]),
)
SOUND: list[list[int]] = [
    [],
    [0],
    [0, 1],
    [0, 1, 3, 7],
    [0, 4],
    [0, 1, 6, 7],
    [11],
    [11, 12],
    [14, 15],
    [19],
    [19, 19, 0],
]
"""How an answer may begin before something happens: as indices of READS."""
STORIES = st.builds(lambda sound, rest: [*sound, *rest], st.sampled_from(SOUND), st.lists(EVENTS, max_size=8))
KEY = gateway_key(max_concurrency=1, tokens_per_minute=10**12)
FALLBACK = "  fallback: {max_attempts: 4, circuit_breaker: {enabled: false}}"
TWO = (target("one"), target("two", timeouts="{total_seconds: 600}"))
WORLDS = {
    "plain": configuration(*TWO, providers=FALLBACK),
    "one target": configuration(target(), providers=FALLBACK),
    "reviewed": configuration(
        *TWO, providers=FALLBACK, chain="audit-logger, dlp-filter", policies=dlp(phase="[input, output]")
    ),
    "redacted": configuration(
        *TWO, providers=FALLBACK, chain="audit-logger, dlp-filter", policies=dlp("redact", "[input, output]")
    ),
    "translated": configuration(target(provider="anthropic"), providers=FALLBACK),
}


@pytest.fixture(scope="module")
def plays(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Play]]:
    """One worker for each world."""
    made: dict[str, Play] = {}

    def play(world: str) -> Play:
        if world not in made:
            made[world] = Play(tmp_path_factory.mktemp("play"), WORLDS[world], key=KEY)
        return made[world]

    yield play
    for one in made.values():
        one.close()


def happens(play: Play, exchange: Exchange, event: int | float | str, *, departed: bool) -> None:
    """One event, where it can happen at all."""
    over = exchange.state in (State.ENDED, State.METERING)
    provider = play.pool.providers[-1] if play.pool.providers else None
    waits = any(ticket.state == "waiting" for ticket in play.pool.tickets)
    if isinstance(event, float):
        play.advance(event)
    elif isinstance(event, int):
        if provider is not None and not provider.connection.closed:
            provider.says(READS[event])
    elif event in ("resets", "closes"):
        if provider is not None and not provider.connection.closed:
            getattr(provider, event)()
    elif event in ("pause", "resume"):
        if not over and not departed:
            exchange.on_client_paused() if event == "pause" else exchange.on_client_resumed()
    elif event == "work" and play.threads:
        play.work()
    elif event == "connect" and waits:
        play.pool.connect()
    elif event in ("refuse", "unreachable") and waits:
        play.pool.fail(Overloaded() if event == "refuse" else UpstreamUnreachable())
    elif event in ("revoke", "drain"):
        exchange.end_early(InvalidAPIKey() if event == "revoke" else Draining())


def begin(play: Play) -> None:
    """A fresh stage: what earlier stories left is checked already."""
    for provider in play.pool.providers:
        if not provider.connection.closed:
            provider.resets()
    play.pool.providers.clear()
    play.pool.tickets.clear()
    play.pool.free.clear()
    play.threads.clear()
    play.audit.clear()
    play.counted.clear()
    play.opened.clear()


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    world=st.sampled_from(list(WORLDS)),
    stream=st.booleans(),
    size=st.sampled_from([1, 1, 1, 150_000]),
    idle=st.booleans(),
    old=st.booleans(),
    story=STORIES,
)
def test_any_order(
    plays: Callable[[str], Play],
    world: str,
    stream: bool,
    size: int,
    idle: bool,
    old: bool,
    story: list[int | float | str],
) -> None:
    play = plays(world)
    begin(play)
    play.pool.idle = idle
    body = {"model": "gpt-test", "max_tokens": 9, "messages": [{"role": "user", "content": "x " * size}]}
    exchange = play.ask({**body, "stream": stream}, client=Client(takes_chunks=not old))
    assert exchange.state is not State.ENDED, play.client
    for event in story:
        happens(play, exchange, event, departed=False)
        assert play.client.faults == []
    left_early = exchange.state not in (State.ENDED, State.METERING)
    if left_early:
        exchange.on_client_gone()
    for event in story:  # whatever still comes changes nothing
        happens(play, exchange, event, departed=True)
    while play.threads:
        play.work()
    told = play.client.transcript
    assert " ended, " in repr(exchange)
    assert left_early or play.client.over, told
    assert [record["kind"] for record in play.records] == ["start", "finish"]
    finish = play.finish()
    if left_early:
        assert (finish["outcome"], finish["status"]) == ("cancelled", 499)
    elif finish["outcome"] == "completed":
        assert told[-1].endswith("end")
    elif finish["outcome"] in ("refused", "failed"):
        assert len(told) == 1
        assert told[0].endswith(f"refused: {finish['status']} {finish['code']}") or "end" in told[0]
    else:
        assert finish["outcome"] == "truncated"
        assert told[-1] == "aborted" or finish["code"] == "output_blocked"
    for provider in play.pool.providers:
        assert (
            provider.connection.closed
            or "idle" in repr(provider.connection)
            or provider.connection in play.pool.lingering
        )
    # A policy that takes longer than it may is reported, and is no fault of the exchange.
    play.faults = [fault for fault in play.faults if not isinstance(fault, TimeoutError)]
    play.check()
