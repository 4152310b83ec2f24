"""A provider that answers 400 to the gateway's own wish for usage is asked again without it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.playbook import Play, configuration, target

CHAT = {"model": "gpt-test", "messages": [{"role": "user", "content": "hi"}], "stream": True}
REFUSAL = b'{"error":{"message":"stream_options: Extra inputs are not permitted","type":"invalid_request_error"}}'
NO = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n%b"
CHUNK = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":"stop"}]}\n\n'


def refuses(play: Play, body: bytes = REFUSAL) -> None:
    play.provider().says(NO % (len(body), body))


def answers(play: Play) -> None:
    events = CHUNK + b"data: [DONE]\n\n"
    play.provider().says(STREAM % (len(events), events))


@pytest.mark.parametrize(
    ("path", "body"), [("/v1/chat/completions", CHAT), ("/v1/messages", {**CHAT, "max_tokens": 9})]
)
def test_T10_once_more_without_it_and_from_then_on(play: Play, path: str, body: dict[str, object]) -> None:
    play.ask(body, path)
    assert play.provider().body["stream_options"] == {"include_usage": True}
    refuses(play)
    assert "stream_options" not in play.provider().body
    answers(play)
    assert play.client.status == 200
    assert b"Hi" in b"".join(play.client.writes)
    assert "usage is estimated" in play.client.headers["x-kt-translation-notes"]
    assert "usage is estimated" in play.finish()["notes"][-1]
    play.ask(body, path)
    assert "stream_options" not in play.provider().body
    answers(play)
    assert play.client.status == 200


def test_T10_it_is_retried_only_once(play: Play) -> None:
    play.ask(CHAT)
    refuses(play)
    refuses(play)
    assert play.client.status == 400
    assert play.client.body == REFUSAL


def test_T10_what_the_client_asked_for_is_its_own(play: Play) -> None:
    play.ask({**CHAT, "stream_options": {"include_usage": True}})
    refuses(play)
    assert play.client.status == 400


def test_another_refusal_is_the_clients(play: Play) -> None:
    play.ask(CHAT)
    refuses(play, b'{"error":{"message":"bad temperature"}}')
    assert play.client.status == 400


def test_B22_an_error_to_a_stream_is_json(playbook: Callable[..., Play]) -> None:
    for provider in ("openai-compatible", "anthropic"):
        play = playbook(configuration(target(provider=provider)))
        play.ask(CHAT)
        refuses(play, b'{"error":{"message":"bad temperature","type":"invalid_request_error"}}')
        assert play.client.status == 400
        assert play.client.transcript[-1].endswith("end") or play.client.transcript[-1].startswith("refused: 400")
        assert b"bad temperature" in play.client.body
