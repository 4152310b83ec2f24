"""What a provider's format cannot express: told, or refused with `strict_translation`, and led to a target that can."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from tests.playbook import Play, configuration, target
from tests.provider import respond

CLAUDE = target("claude", provider="anthropic", upstream_model="claude-sonnet-4-5")
GPT = target("gpt")
SEEDED: dict[str, Any] = {
    "model": "gpt-test",
    "messages": [{"role": "user", "content": "Hello"}],
    "seed": 7,
    "logit_bias": {"1": 2},
}
STRICT = "gateway: {strict_translation: true}"
JSON_HEAD = ("content-type", "application/json")


def message(text: str = "Hi") -> bytes:
    """A complete answer, as Anthropic gives it."""
    return orjson.dumps(
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "claude-sonnet-4-5",
            "content": [{"type": "text", "text": text}],
            "stop_reason": "end_turn",
            "usage": {"input_tokens": 3, "output_tokens": 2},
        }
    )


def completion(text: str = "Hi") -> bytes:
    """A complete answer, as OpenAI gives it."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return orjson.dumps({"id": "c", "object": "chat.completion", "choices": [choice]})


def test_without_it_the_loss_is_told_to_the_client_and_in_the_record(playbook: Callable[..., Play]) -> None:
    play = playbook(configuration(CLAUDE))
    play.ask(SEEDED)
    assert "seed" not in play.provider().body
    play.provider().says(respond(message(), 200, JSON_HEAD))
    told = play.client.headers["x-kt-translation-notes"].split("; ")
    assert {note.partition(":")[0] for note in told} == {"seed", "logit_bias"}
    assert play.finish()["notes"] == told


def test_with_it_the_request_is_refused_with_every_path(playbook: Callable[..., Play]) -> None:
    play = playbook(configuration(CLAUDE, gateway=STRICT))
    play.ask(SEEDED)
    assert play.client.transcript == ["refused: 400 invalid_request"]
    error = orjson.loads(play.client.body)["error"]
    assert "seed: " in error["message"]
    assert "logit_bias: " in error["message"]
    assert error["param"] in ("seed", "logit_bias")
    assert play.pool.providers == []
    finish = play.finish()
    assert (finish["outcome"], finish["status"], finish["attempts"]) == ("refused", 400, 0)


def test_an_anthropic_client_reads_the_refusal_in_its_own_shape(playbook: Callable[..., Play]) -> None:
    play = playbook(configuration(GPT, gateway=STRICT))
    play.ask(
        {"model": "gpt-test", "max_tokens": 9, "top_k": 3, "messages": [{"role": "user", "content": "Hello"}]},
        "/v1/messages",
    )
    assert play.client.status == 400
    body = orjson.loads(play.client.body)
    assert body["type"] == "error"
    assert body["error"]["type"] == "invalid_request_error"
    assert "top_k" in body["error"]["message"]


def test_what_loses_nothing_passes(playbook: Callable[..., Play]) -> None:
    play = playbook(configuration(CLAUDE, gateway=STRICT))
    play.ask({"model": "gpt-test", "messages": [{"role": "user", "content": "Hello"}], "n": 1})
    play.provider().says(respond(message(), 200, JSON_HEAD))
    assert play.client.status == 200
    assert "x-kt-translation-notes" not in play.client.headers


def test_the_second_request_of_a_connection_is_refused_too(playbook: Callable[..., Play]) -> None:
    play = playbook(configuration(CLAUDE, gateway=STRICT))
    connection, transport = play.connect()

    def send(body: dict[str, Any]) -> None:
        data = orjson.dumps(body)
        connection.data_received(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost:41002\r\n"
            b"authorization: Bearer kt_gk_00000000000000000000000000000000000000\r\n"
            b"content-length: %d\r\n\r\n%b" % (len(data), data)
        )

    send({"model": "gpt-test", "messages": [{"role": "user", "content": "Hello"}]})
    play.provider().says(respond(message(), 200, JSON_HEAD))
    send({"model": "gpt-test", "messages": [{"role": "user", "content": "Hello"}], "seed": 7})
    assert transport.written.count(b"HTTP/1.1 200") == 1
    assert transport.written.count(b"HTTP/1.1 400") == 1
    connection.connection_lost(None)


@pytest.mark.parametrize("gateway", ["", STRICT])
@pytest.mark.parametrize("asked", [{"seed": 7}, {"n": 2}])
def test_a_target_that_cannot_be_asked_is_passed_over(
    gateway: str, asked: dict[str, Any], playbook: Callable[..., Play]
) -> None:
    """In strict translation for every loss, without it only for what changes the request's meaning."""
    play = playbook(configuration(CLAUDE, GPT, gateway=gateway))
    play.ask({"model": "gpt-test", "messages": [{"role": "user", "content": "Hello"}], **asked})
    led_on = bool(gateway) or "n" in asked
    assert play.provider().destination.name == ("gpt" if led_on else "claude")
    play.provider().says(respond(completion() if led_on else message(), 200, JSON_HEAD))
    assert play.client.status == 200
    assert play.finish()["attempts"] == 1


def test_where_the_able_target_fails_its_failure_is_told(playbook: Callable[..., Play]) -> None:
    play = playbook(configuration(CLAUDE, GPT, gateway=STRICT, providers="  fallback: {max_attempts: 2}"))
    play.ask(SEEDED)
    play.provider().says(respond(b"{}", 503, JSON_HEAD))
    play.advance(1)
    assert play.provider().destination.name == "gpt"
    play.provider().says(respond(b"{}", 503, JSON_HEAD))
    assert play.client.status == 503
    finish = play.finish()
    assert (finish["target"], finish["attempts"]) == ("gpt", 2)


def test_a_stream_is_refused_before_it_begins(playbook: Callable[..., Play]) -> None:
    play = playbook(configuration(CLAUDE, gateway=STRICT))
    play.ask({**SEEDED, "stream": True})
    assert play.client.status == 400
    assert play.client.headers.get("content-type") != "text/event-stream"
