"""Responses in WebSocket mode: sockets to the targets that are named, lanes, and exchanges where there is no socket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from gateway.errors import (
    UpstreamAuthFailed,
    UpstreamStatus,
    UpstreamUnreachable,
)
from tests.playbook import configuration, dlp, gateway_key, target
from tests.provider import LAST_CHUNK, chunk, head
from tests.talk import Talk
from tests.talk_events import CREATE, GUARDED, responses, wish

# Responses in WebSocket mode


def test_responses_connect_to_whom_the_first_message_names(talks: Callable[..., Talk]) -> None:
    talk = talks(configuration(target(upstream_model="gpt-5"), target("two", "other")))
    client = talk.join("/v1/responses")
    assert talk.providers == []
    talk.says(wish())
    assert client.pauses == {"connecting"}
    assert talk.socket.asked.target == b"/v1/responses"
    talk.socket.accepts()
    assert client.pauses == set()
    assert talk.told() == [wish(model="gpt-5")]
    talk.socket.says(*responses("Hi"))
    assert talk.hears() == responses("Hi")
    talk.says(wish("again", previous_response_id="resp_1"))
    assert len(talk.providers) == 1
    talk.socket.says(*responses("Hi", id="resp_2"))
    talk.says(wish(model="other"))
    assert len(talk.providers) == 2
    talk.socket.accepts()
    assert talk.told() == [wish(model="other")]
    talk.socket.says(*responses("Ho", id="resp_3"))
    assert [one["target"] for one in talk.turns] == ["one", "one", "two"]
    assert {one["start"]["operation"] for one in talk.turns} == {"responses"}


@pytest.mark.parametrize(
    ("model", "code"), [("unknown", "model_not_found"), ("other", "model_not_allowed"), (None, "model_not_found")]
)
def test_models_of_responses_are_checked_in_band(talks: Callable[..., Talk], model: str | None, code: str) -> None:
    talk = talks(configuration(target(), target("two", "other")), key=gateway_key(models=frozenset({"gpt-test"})))
    talk.join("/v1/responses")
    named: dict[str, Any] = {"model": model} if model else {}
    talk.says({**CREATE, "input": "x", "stream_id": "lane", **named})
    (error,) = talk.hears()
    assert (error["type"], error["error"]["code"], error["stream_id"]) == ("error", code, "lane")
    assert error["status"] in (403, 404)
    assert talk.providers == []


def test_a_provider_that_cannot_be_reached_is_told_in_band(talks: Callable[..., Talk]) -> None:
    talk = talks()
    client = talk.join("/v1/responses")
    talk.says(wish())
    talk.socket.refuses(UpstreamUnreachable("no way"))
    assert talk.hears()[0]["error"]["code"] == "upstream_unreachable"
    assert client.pauses == set()
    assert client.is_open
    talk.says(wish())
    talk.socket.accepts()
    assert talk.told() == [wish()]


def test_lanes_are_responses_of_their_own(talks: Callable[..., Talk]) -> None:
    talk = talks(GUARDED)
    talk.join("/v1/responses")
    talk.says(wish(stream_id="a"))
    talk.socket.accepts()
    talk.says(wish(stream_id="b"))
    one = responses("A ban", "ned phrase", id="resp_a", stream_id="a")
    two = responses("B ban", "ana", id="resp_b", stream_id="b")
    for pair in zip(one, two, strict=True):
        talk.socket.says(*pair)
    heard = talk.hears()
    said = {lane: "".join(x.get("delta", "") for x in heard if x["stream_id"] == lane) for lane in "ab"}
    assert said == {"a": "A [REDACTED:term]", "b": "B banana"}
    assert [one["outcome"] for one in talk.turns] == ["completed", "completed"]


def test_an_error_event_ends_the_response_of_its_lane(talks: Callable[..., Talk]) -> None:
    talk = talks()
    talk.join("/v1/responses")
    talk.says(wish(stream_id="a"))
    talk.socket.accepts()
    talk.socket.says(
        {"type": "error", "status": 400, "stream_id": "a", "error": {"code": "previous_response_not_found"}}
    )
    assert talk.turns[0]["outcome"] == "failed"
    assert talk.hears()[0]["error"]["code"] == "previous_response_not_found"


def test_a_blocked_answer_of_responses_ends_with_an_error(talks: Callable[..., Talk]) -> None:
    talk = talks(GUARDED.replace("redact", "block"))
    talk.join("/v1/responses")
    talk.says(wish())
    talk.socket.accepts()
    talk.socket.says(*responses("A banned ", "phrase"))
    heard = talk.hears()
    assert heard[-1]["type"] == "error"
    assert (heard[-1]["status"], heard[-1]["error"]["code"]) == (409, "output_blocked")
    assert b"phrase" not in b"".join(talk.client_socket.sent)
    assert talk.turns[0]["outcome"] == "truncated"


def test_steering_is_screened(talks: Callable[..., Talk]) -> None:
    talk = talks(configuration(policies=dlp(), chain="dlp-filter"))
    talk.join("/v1/responses")
    talk.says({"type": "response.steer", "previous_response_id": "resp_1", "input": "x"})
    assert talk.hears()[0]["error"]["code"] == "invalid_request"
    talk.says(wish())
    talk.socket.accepts()
    talk.told()
    talk.socket.says(responses("x")[0])
    talk.says({"type": "response.steer", "previous_response_id": "resp_1", "input": "the secret"})
    assert talk.told() == []
    talk.says({"type": "response.steer", "previous_response_id": "resp_1", "input": "go on"})
    assert [one["type"] for one in talk.told()] == ["response.steer"]


# Responses by an exchange, where the target has no WebSocket


def test_a_target_without_a_websocket_answers_over_http(talks: Callable[..., Talk]) -> None:
    talk = talks(configuration(target(provider="anthropic"), target("two", "other")))
    talk.join("/v1/responses")
    talk.says(wish(max_output_tokens=9, stream_id="lane"))
    assert talk.providers == []
    assert talk.provider().asked.startswith(b"POST /v1/messages ")
    assert talk.provider().body["stream"] is True
    events: list[dict[str, Any]] = [
        {
            "type": "message_start",
            "message": {"id": "m", "role": "assistant", "model": "x", "content": [], "usage": {}},
        },
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}},
        {"type": "message_stop"},
    ]
    frames = b"".join(b"event: %b\ndata: %b\n\n" % (one["type"].encode(), orjson.dumps(one)) for one in events)
    talk.provider().says(head(200, ("content-type", "text/event-stream"), chunked=True) + chunk(frames) + LAST_CHUNK)
    heard = talk.hears()
    assert heard[0]["type"] == "response.created"
    assert heard[-1]["type"] == "response.completed"
    assert heard[-1]["response"]["output"][0]["content"][0]["text"] == "Hi"
    assert {one["stream_id"] for one in heard} == {"lane"}
    talk.says(wish(model="other"))
    talk.socket.accepts()
    assert talk.told() == [wish(model="other")]


def test_what_has_no_counterpart_over_http_is_refused(talks: Callable[..., Talk]) -> None:
    talk = talks(configuration(target(provider="anthropic")))
    talk.join("/v1/responses")
    talk.says(wish(generate=False))
    assert talk.hears()[0]["error"]["param"] == "generate"
    assert talk.pool.providers == []


def test_an_exchange_of_a_conversation_is_screened_once(talks: Callable[..., Talk]) -> None:
    text = configuration(target(provider="anthropic"), policies=dlp(), chain="audit-logger, dlp-filter")
    talk = talks(text)
    talk.join("/v1/responses")
    talk.says(wish("the secret", stream_id="lane"))
    (error,) = talk.hears()
    assert (error["type"], error["status"], error["stream_id"]) == ("error", 409, "lane")
    assert error["error"]["code"] == "input_blocked"
    (refused,) = talk.turns
    assert (refused["outcome"], refused["start"].get("attributes")) == ("refused", None)


@pytest.mark.parametrize("refusal", [UpstreamStatus(404, "no", code=None), UpstreamAuthFailed("403")])
def test_a_server_that_knows_no_websockets_is_asked_over_http(talks: Callable[..., Talk], refusal: Any) -> None:
    talk = talks()
    talk.join("/v1/responses")
    for number in range(2):
        talk.says(wish())
        if number == 0:
            talk.socket.refuses(refusal)
        assert talk.provider().asked.startswith(b"POST /v1/responses ")
        assert talk.provider().body == {"model": "gpt-test", "input": "hello", "stream": True}
        frames = b"".join(b"data: %b\n\n" % orjson.dumps(one) for one in responses("Hi"))
        answer_head = head(200, ("content-type", "text/event-stream"), chunked=True)
        talk.provider().says(answer_head + chunk(frames) + LAST_CHUNK)
        assert talk.hears() == responses("Hi")
    assert len(talk.providers) == 1


def test_one_of_two_providers_leaves(talks: Callable[..., Talk]) -> None:
    talk = talks(configuration(target(), target("two", "other")))
    talk.join("/v1/responses")
    for model in ("gpt-test", "other"):
        talk.says(wish(model=model, stream_id=model))
        talk.socket.accepts()
    one, two = talk.providers
    one.says(responses("x", stream_id="gpt-test")[0])
    talk.hears()
    one.leaves(1011, "restarting")
    (error,) = talk.hears()
    assert (error["error"]["code"], error["stream_id"]) == ("upstream_reset", "gpt-test")
    assert talk.client_socket.is_open
    two.says(*responses("y", stream_id="other"))
    assert talk.hears() == responses("y", stream_id="other")
    assert [turn["outcome"] for turn in talk.turns] == ["failed", "completed"]
    talk.says(wish())
    assert len(talk.providers) == 3
