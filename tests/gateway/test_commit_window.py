"""`commit_window`: a provider that dies at the beginning of its stream is replaced, and the client never knows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from gateway.commit_window import MAX_HELD
from gateway.exchange import Exchange, State
from tests.playbook import Play, configuration, dlp, target
from tests.provider import LAST_CHUNK, chunk, head, respond

STREAM: dict[str, Any] = {
    "model": "gpt-test",
    "stream": True,
    "stream_options": {"include_usage": True},
    "messages": [{"role": "user", "content": "Hello"}],
}
SSE = ("content-type", "text/event-stream")
SSE_HEAD = head(200, SSE, chunked=True)
DONE = b"data: [DONE]\n\n"
WINDOW = "  fallback: {commit_window: {events: 3, seconds: 0.5}}"
TWO = configuration(target("one"), target("two"), providers=WINDOW)
CLAUDE = target("claude", provider="anthropic", upstream_model="claude-sonnet-4-5")


def delta(text: str) -> bytes:
    return b'data: {"id":"c","choices":[{"index":0,"delta":{"content":%b}}]}\n\n' % orjson.dumps(text)


def claude(kind: str, **fields: Any) -> bytes:
    """One event of Anthropic's stream."""
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps({"type": kind, **fields}))


CLAUDE_BEGINS = claude(
    "message_start", message={"id": "m", "type": "message", "role": "assistant", "content": [], "usage": {}}
) + claude("content_block_start", index=0, content_block={"type": "text", "text": ""})


def claude_says(text: str) -> bytes:
    return claude("content_block_delta", index=0, delta={"type": "text_delta", "text": text})


def streams(play: Play, *pieces: bytes) -> Exchange:
    """A client asks, and the first provider begins a stream with these pieces, one read each."""
    exchange = play.ask(STREAM)
    play.provider().says(SSE_HEAD, *map(chunk, pieces))
    return exchange


def finishes(play: Play, *pieces: bytes) -> None:
    play.provider().says(SSE_HEAD, *map(chunk, pieces), LAST_CHUNK)


@pytest.fixture
def two(playbook: Callable[..., Play]) -> Play:
    return playbook(TWO)


def test_it_goes_on_with_the_event_that_fills_it(two: Play) -> None:
    streams(two, delta("a"), delta("b"))
    assert two.client.transcript == []
    two.provider().says(chunk(delta("c")))
    assert two.client.body == delta("a") + delta("b") + delta("c")
    two.provider().says(chunk(delta("d")))
    assert two.client.body.endswith(delta("d"))
    two.provider().says(chunk(DONE), LAST_CHUNK)
    assert two.client.body.endswith(DONE)
    assert two.finish()["outcome"] == "completed"
    assert two.pauses == []


def test_it_goes_on_when_its_time_is_over(two: Play) -> None:
    streams(two, delta("a"))
    two.advance(0.49)
    assert two.client.transcript == []
    two.advance(0.02)
    assert two.client.body == delta("a")
    two.provider().says(chunk(delta("b")), chunk(DONE), LAST_CHUNK)
    assert two.client.body == delta("a") + delta("b") + DONE


def test_a_short_answer_goes_on_at_its_end(two: Play) -> None:
    streams(two, delta("a"), DONE, b"")
    assert two.client.body == delta("a") + DONE
    assert two.pauses == []


def test_comments_are_no_events(two: Play) -> None:
    streams(two, *[b": processing\n\n"] * 5)
    assert two.client.transcript == []
    two.provider().says(chunk(delta("a") + delta("b") + delta("c")))
    assert two.client.body == b": processing\n\n" * 5 + delta("a") + delta("b") + delta("c")
    two.opened[-1].on_client_gone()  # type: ignore[union-attr]


def test_what_is_held_is_bounded(playbook: Callable[..., Play]) -> None:
    play = playbook(
        configuration(target("one"), target("two"), providers="  fallback: {commit_window: {events: 1000}}")
    )
    exchange = streams(play, *[delta("x" * 50_000)] * 5)
    assert play.client.transcript == []
    play.provider().says(chunk(delta("x" * 50_000)))
    assert len(play.client.body) > MAX_HELD
    exchange.on_client_gone()


def dies(play: Play) -> None:
    play.provider().resets()


def closes(play: Play) -> None:
    play.provider().closes()


def says_openai_error(play: Play) -> None:
    play.provider().says(chunk(b'data: {"error":{"message":"busy","type":"server_error","code":null}}\n\n'))


@pytest.mark.parametrize("fails", [dies, closes, says_openai_error])
def test_a_provider_that_fails_in_it_is_replaced_unseen(fails: Callable[[Play], None], two: Play) -> None:
    streams(two, delta("lost"), delta("words"))
    fails(two)
    assert two.client.transcript == []
    assert two.provider().destination.name == "two"
    finishes(two, delta("Hi"), delta(" there"), DONE)
    assert two.client.body == delta("Hi") + delta(" there") + DONE
    finish = two.finish()
    assert (finish["outcome"], finish["target"], finish["attempts"]) == ("completed", "two", 2)
    assert two.pauses == []


def test_a_provider_that_stalls_in_it_is_replaced_too(playbook: Callable[..., Play]) -> None:
    hasty = [target(name, timeouts="{idle_seconds: 0.1}") for name in ("one", "two")]
    play = playbook(configuration(*hasty, providers=WINDOW))
    streams(play, delta("lost"))
    play.advance(0.15)  # the sweep notes that something has come
    play.advance(0.15)
    assert play.provider().destination.name == "two"
    finishes(play, delta("Hi"), DONE)
    assert play.client.body == delta("Hi") + DONE


def test_the_first_ones_timer_does_not_release_the_second_ones_window(two: Play) -> None:
    exchange = streams(two, delta("lost"))
    two.advance(0.3)
    two.provider().resets()
    two.provider().says(SSE_HEAD, chunk(delta("kept")))
    two.advance(0.3)
    assert two.client.transcript == []
    two.advance(0.3)
    assert two.client.body == delta("kept")
    exchange.on_client_gone()


def test_after_it_nothing_is_spliced(two: Play) -> None:
    streams(two, delta("a"), delta("b"), delta("c"))
    two.provider().resets()
    assert len(two.pool.providers) == 1
    assert two.client.body.startswith(delta("a") + delta("b") + delta("c"))
    assert DONE not in two.client.body
    assert two.client.transcript[-1] == "aborted"
    assert two.finish()["outcome"] == "truncated"


def test_where_no_other_target_is_left_the_failure_is_a_status(playbook: Callable[..., Play]) -> None:
    providers = "  fallback: {max_attempts: 1, commit_window: {}}"
    play = playbook(configuration(target("one"), target("two"), providers=providers))
    streams(play, delta("a"))
    says_openai_error(play)
    assert play.client.transcript == ["refused: 500 None"]
    assert orjson.loads(play.client.body)["error"]["message"] == "busy"


@pytest.mark.parametrize(
    "text", [configuration(target("one"), providers=WINDOW), configuration(target("one"), target("two"))]
)
def test_a_lone_target_and_no_setting_hold_nothing(text: str, playbook: Callable[..., Play]) -> None:
    play = playbook(text)
    exchange = streams(play, delta("a"))
    assert play.client.body == delta("a")
    exchange.on_client_gone()


def test_it_leads_from_one_dialect_to_another(playbook: Callable[..., Play]) -> None:
    """Claude dies after two events of its own; the answer is the other's, and none of Claude's words are in it."""
    play = playbook(configuration(CLAUDE, target("gpt"), providers=WINDOW))
    streams(play, CLAUDE_BEGINS, claude_says("lost"))
    assert play.client.transcript == []
    play.provider().says(chunk(claude("error", error={"type": "overloaded_error", "message": "Overloaded"})))
    assert play.provider().destination.name == "gpt"
    finishes(play, delta("Hi"), DONE)
    assert play.client.body == delta("Hi") + DONE
    assert play.finish()["target"] == "gpt"


def test_it_leads_a_client_of_anthropic_from_claude_to_claude(playbook: Callable[..., Play]) -> None:
    other = target("other", provider="anthropic", upstream_model="claude-sonnet-4-5")
    play = playbook(configuration(CLAUDE, other, providers="  fallback: {commit_window: {events: 5}}"))
    play.ask({"model": "gpt-test", "max_tokens": 9, "stream": True, "messages": STREAM["messages"]}, "/v1/messages")
    play.provider().says(SSE_HEAD, chunk(CLAUDE_BEGINS), chunk(claude_says("lost")))
    play.provider().says(chunk(claude("error", error={"type": "overloaded_error", "message": "Overloaded"})))
    assert play.client.transcript == []
    ends = claude("content_block_stop", index=0) + claude("message_stop")
    finishes(play, CLAUDE_BEGINS, claude_says("Hi"), ends)
    assert play.client.body == CLAUDE_BEGINS + claude_says("Hi") + ends


def test_policies_read_only_the_answer_that_the_client_gets(playbook: Callable[..., Play]) -> None:
    play = playbook(
        configuration(
            target("one"),
            target("two"),
            providers=WINDOW,
            chain="audit-logger, dlp-filter",
            policies=dlp(phase="[output]"),
        )
    )
    streams(play, delta("a secret"))
    play.provider().resets()
    finishes(play, delta("fine"), DONE)
    assert play.client.body == delta("fine") + DONE
    assert play.finish()["outcome"] == "completed"


def test_a_client_that_leaves_in_it_leaves_nothing_behind(two: Play) -> None:
    exchange = streams(two, delta("a"))
    exchange.on_client_gone()
    assert exchange.state is State.ENDED
    assert two.provider().gone
    two.advance(5)
    assert two.client.transcript == []
    assert two.finish()["outcome"] == "cancelled"


def test_an_answer_that_is_no_stream_is_not_held(two: Play) -> None:
    two.ask({**STREAM, "stream": False})
    two.provider().says(respond(b"{}", 200, ("content-type", "application/json")))
    assert two.client.body == b"{}"
