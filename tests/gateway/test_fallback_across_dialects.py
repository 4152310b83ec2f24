"""A target of one format fails, one of another answers: the client reads its own format and knows nothing of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from gateway.errors import UpstreamUnreachable
from tests.playbook import Play, configuration, target
from tests.provider import LAST_CHUNK, chunk, head, respond

CLAUDE = target("claude", provider="anthropic", upstream_model="claude-sonnet-4-5")
GPT = target("gpt")
JSON = ("content-type", "application/json")
SSE_HEAD = head(200, ("content-type", "text/event-stream"), chunked=True)
ASKED: dict[str, Any] = {
    "model": "gpt-test",
    "max_tokens": 50,
    "messages": [{"role": "user", "content": "Hello"}],
}
PATHS = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}

MESSAGE = orjson.dumps(
    {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5",
        "content": [{"type": "text", "text": "Hi there"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 3, "output_tokens": 2},
    }
)
COMPLETION = orjson.dumps(
    {
        "id": "c",
        "object": "chat.completion",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "Hi there"}, "finish_reason": "stop"},
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    }
)
EMPTY_ACCOUNT = b'{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low."}}'
ANSWERS = {"claude": MESSAGE, "gpt": COMPLETION}
FAILURES: dict[str, Callable[[Play], None]] = {
    "overloaded": lambda play: play.provider().says(respond(b"{}", 529, JSON)),
    "rate limit": lambda play: play.provider().says(respond(b"{}", 429, JSON)),
    "reset": lambda play: play.provider().resets(),
    "an empty account": lambda play: play.provider().says(respond(EMPTY_ACCOUNT, 400, JSON)),
    "error before any content": lambda play: play.provider().says(
        SSE_HEAD, chunk(b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"no"}}\n\n')
    ),
}


def text_of(client: str, body: bytes) -> str:
    answer = orjson.loads(body)
    text = answer["choices"][0]["message"]["content"] if client == "openai" else answer["content"][0]["text"]
    assert isinstance(text, str)
    return text


@pytest.mark.parametrize("client", PATHS)
@pytest.mark.parametrize("first", [CLAUDE, GPT], ids=["claude first", "gpt first"])
@pytest.mark.parametrize("status", [429, 500, 529])
def test_an_answer_of_the_other_format(client: str, first: str, status: int, playbook: Callable[..., Play]) -> None:
    play = playbook(configuration(first, GPT if first is CLAUDE else CLAUDE))
    play.ask(ASKED, PATHS[client])
    failed = play.provider().destination.name
    play.provider().says(respond(b"{}", status, JSON))
    answering = play.provider().destination.name
    assert {failed, answering} == {"claude", "gpt"}
    play.provider().says(respond(ANSWERS[answering], 200, JSON))
    assert play.client.status == 200
    assert text_of(client, play.client.body) == "Hi there"
    finish = play.finish()
    assert (finish["outcome"], finish["target"], finish["attempts"]) == ("completed", answering, 2)
    assert finish["prompt_tokens"] == 3


@pytest.mark.parametrize("failure", FAILURES)
def test_every_failure_of_a_translated_target_leads_on(failure: str, playbook: Callable[..., Play]) -> None:
    play = playbook(configuration(CLAUDE, GPT))
    play.ask({**ASKED, "stream": failure == "error before any content"})
    FAILURES[failure](play)
    assert play.client.transcript == []
    assert play.provider().destination.name == "gpt"
    delta = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'
    if failure == "error before any content":
        play.provider().says(SSE_HEAD, chunk(delta), chunk(b"data: [DONE]\n\n"), LAST_CHUNK)
        assert play.client.body == delta + b"data: [DONE]\n\n"
    else:
        play.provider().says(respond(COMPLETION, 200, JSON))
        assert text_of("openai", play.client.body) == "Hi there"


def test_no_connection_leads_on(playbook: Callable[..., Play]) -> None:
    play = playbook(configuration(CLAUDE, GPT))
    play.pool.idle = False
    play.ask(ASKED)
    play.pool.fail(UpstreamUnreachable("no route"))
    play.pool.connect()
    play.provider().says(respond(COMPLETION, 200, JSON))
    assert text_of("openai", play.client.body) == "Hi there"


def test_the_notes_are_those_of_the_target_that_answered(playbook: Callable[..., Play]) -> None:
    play = playbook(configuration(CLAUDE, GPT))
    play.ask({**ASKED, "seed": 7})
    play.provider().says(respond(b"{}", 529, JSON))
    assert play.provider().body["seed"] == 7
    play.provider().says(respond(COMPLETION, 200, JSON))
    assert "x-kt-translation-notes" not in play.client.headers
    assert play.finish()["notes"] == []


def test_when_all_fail_the_last_ones_error_is_in_the_clients_format(playbook: Callable[..., Play]) -> None:
    play = playbook(configuration(GPT, CLAUDE, providers="  fallback: {max_attempts: 2}"))
    play.ask(ASKED, "/v1/messages")
    play.provider().says(respond(b'{"error":{"message":"busy","type":"server_error"}}', 500, JSON))
    play.provider().says(respond(b"{}", 529, JSON, ("retry-after", "9")))
    assert play.client.status in (503, 529)
    assert play.client.headers["retry-after"] == "9"
    assert play.provider().destination.name == "claude"
