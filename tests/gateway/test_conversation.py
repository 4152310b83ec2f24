"""Conversations over WebSockets, played without sockets: what goes on, what is refused in-band, and every end."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any, cast

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.errors import (
    AuditUnavailable,
    Draining,
    InvalidAPIKey,
    UpstreamAuthFailed,
    UpstreamStatus,
    UpstreamUnreachable,
)
from gateway.oversight import Oversight
from gateway.ports import Pool as PoolPort
from gateway.types import Destination, Origin
from tests.playbook import configuration, dlp, gateway_key, target
from tests.provider import LAST_CHUNK, chunk, head, respond
from tests.talk import Talk

CREATE: dict[str, Any] = {"type": "response.create"}


def item(text: str, **more: Any) -> dict[str, Any]:
    content = [{"type": "input_text", "text": text}]
    return {"type": "conversation.item.create", "item": {"type": "message", "role": "user", "content": content}, **more}


def created(id: str = "resp_1") -> dict[str, Any]:
    return {"type": "response.created", "event_id": "event_1", "response": {"id": id, "status": "in_progress"}}


PLACE: dict[str, Any] = {"response_id": "resp_1", "item_id": "item_1", "output_index": 0, "content_index": 0}


def delta(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "response.output_audio_transcript.delta", "event_id": "event_2", **PLACE, "delta": text, **more}


def done(text: str, id: str = "resp_1", status: str = "completed") -> dict[str, Any]:
    part = {"type": "output_audio", "transcript": text}
    output = [{"id": "item_1", "type": "message", "role": "assistant", "content": [part]}]
    usage = {"input_tokens": 7, "output_tokens": 5, "input_token_details": {"cached_tokens": 2}}
    return {"type": "response.done", "response": {"id": id, "status": status, "output": output, "usage": usage}}


def answer(*pieces: str) -> list[dict[str, Any]]:
    """All events of a response with a transcript, in the order of the documentation."""
    whole = "".join(pieces)
    part = {"type": "audio", "transcript": whole}
    content = [{"type": "output_audio", "transcript": whole}]
    spoken = {"id": "item_1", "type": "message", "role": "assistant", "content": content}
    empty = {**spoken, "content": []}
    added = {"type": "response.output_item.added", "response_id": "resp_1", "output_index": 0, "item": empty}
    return [
        created(),
        added,
        {"type": "conversation.item.added", "item": empty},
        {"type": "response.content_part.added", **PLACE, "part": {"type": "audio", "transcript": ""}},
        *[delta(piece) for piece in pieces],
        {"type": "response.output_audio_transcript.done", **PLACE, "transcript": whole},
        {"type": "response.content_part.done", **PLACE, "part": part},
        {"type": "conversation.item.done", "item": spoken},
        {"type": "response.output_item.done", "response_id": "resp_1", "output_index": 0, "item": spoken},
        done(whole),
    ]


# Opening


def test_the_model_of_the_path_is_the_providers_own_there(talks: Callable[..., Talk]) -> None:
    talk = talks(configuration(target(upstream_model="gpt-realtime")))
    upgrade = talk.knock(
        "/v1/realtime?model=gpt-test&intent=x",
        headers=["OpenAI-Beta: realtime=v1", "Accept: */*"],
        subprotocols=["realtime"],
    )
    asked = talk.socket.asked
    assert asked.target == b"/v1/realtime?model=gpt-realtime&intent=x"
    assert asked.subprotocols == ("realtime",)
    assert b"host: one.test\r\n" in asked.fields
    assert b"authorization: Bearer sk-provider\r\n" in asked.fields
    assert b"openai-beta: realtime=v1\r\n" in asked.fields
    assert b"accept" not in asked.fields
    assert b"kt_gk" not in asked.fields
    assert upgrade.client is None
    talk.socket.accepts("realtime")
    assert talk.client_socket.subprotocol == "realtime"
    assert talk.metric("keeptrusts_gateway_open_websockets") == 1


_DEPLOYMENT = "deployment=gpt-test"


@pytest.mark.parametrize(
    ("path", "base_url", "asked"),
    [
        (
            f"/openai/realtime?api-version=2024-10-01-preview&{_DEPLOYMENT}",
            "https://x.test",
            f"/openai/realtime?api-version=2024-10-21&{_DEPLOYMENT}",
        ),
        ("/openai/v1/realtime?model=gpt-test", "https://x.test/openai/v1", "/openai/v1/realtime?model=gpt-test"),
    ],
)
def test_azures_paths(talks: Callable[..., Talk], path: str, base_url: str, asked: str) -> None:
    one = target(provider="azure-openai").replace("http://one.test/v1", base_url)
    talk = talks(configuration(one))
    talk.join(path)
    assert talk.socket.asked.target == asked.encode()
    assert b"api-key: sk-provider\r\n" in talk.socket.asked.fields


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v1/realtime", "invalid_request"),
        ("/v1/realtime?model=unknown", "model_not_found"),
        ("/v1/realtime?model=other", "model_not_allowed"),
        ("/v1/realtime?model=claude", "model_not_found"),
    ],
)
def test_what_cannot_be_opened_is_refused_over_http(talks: Callable[..., Talk], path: str, code: str) -> None:
    targets = target(), target("two", "other"), target("three", "claude", "anthropic")
    talk = talks(configuration(*targets), key=gateway_key(models=frozenset({"gpt-test", "claude"})))
    upgrade = talk.knock(path)
    assert upgrade.error is not None
    assert upgrade.error.code == code
    assert talk.providers == []


def test_another_target_where_the_first_one_opens_nothing(talks: Callable[..., Talk]) -> None:
    talk = talks(configuration(target(), target("two")))
    upgrade = talk.knock("/v1/realtime?model=gpt-test")
    talk.providers[0].refuses(UpstreamUnreachable("no"))
    assert upgrade.error is None
    talk.providers[1].accepts()
    talk.says(CREATE)
    assert talk.told() == [CREATE]


def test_a_providers_refusal_is_the_answer(talks: Callable[..., Talk]) -> None:
    talk = talks()
    upgrade = talk.knock("/v1/realtime?model=gpt-test")
    talk.socket.refuses(UpstreamStatus(403, "no realtime for you", code="forbidden"))
    assert upgrade.error is not None
    assert upgrade.error.message == "no realtime for you"
    assert talk.finish()["status"] == 403


def test_a_client_that_leaves_before_it_is_accepted(talks: Callable[..., Talk]) -> None:
    talk = talks()
    talk.knock("/v1/realtime?model=gpt-test")
    talk.conversation.on_client_gone()
    assert talk.socket.cancelled
    assert talk.finish()["outcome"] == "cancelled"


def test_a_policy_that_judges_by_model_or_operation_speaks_first(talks: Callable[..., Talk]) -> None:
    policies = "\n  model-access: {operations: [chat]}\n"
    talk = talks(configuration(policies=policies, chain="audit-logger, model-access"))
    upgrade = talk.knock("/v1/realtime?model=gpt-test")
    assert upgrade.error is not None
    assert (upgrade.error.status, upgrade.error.code) == (409, "input_blocked")
    assert talk.providers == []


# What a client says


def test_an_unguarded_message_goes_on_as_it_was_read(talks: Callable[..., Talk]) -> None:
    talk = talks()
    talk.join()
    odd = b'{ "type": "conversation.item.delete",  "item_id":"x" }'
    talk.says(odd)
    assert talk.socket.sent == [odd]
    assert [one.data for one in talk.socket.forwarded] == [odd]


def test_audio_goes_on_unread_under_any_policy(talks: Callable[..., Talk]) -> None:
    talk = talks(configuration(policies=dlp(terms="[secret]"), chain="dlp-filter"))
    talk.join()
    audio = b'{"type":"input_audio_buffer.append","audio":"secretAA=="}'
    talk.says(audio)
    assert [one.data for one in talk.socket.forwarded] == [audio]


def test_a_redacted_message_is_the_same_otherwise(talks: Callable[..., Talk]) -> None:
    talk = talks(configuration(policies=dlp("redact"), chain="audit-logger, dlp-filter"))
    talk.join()
    talk.says(b'{"type": "session.update", "session": {"speed": 1.50,  "instructions": "keep the secret"}}')
    assert talk.socket.sent == [
        b'{"type": "session.update", "session": {"speed": 1.50,  "instructions": "keep the [REDACTED:term]"}}'
    ]
    talk.says(CREATE)
    talk.socket.says(created(), done("fine"))
    verdicts = [one["verdict"] for one in talk.turns[0]["start"]["decisions"]]
    assert verdicts == ["redact"]


_TOOL = {"type": "function", "name": "f"}
_SPOKEN = {"type": "input_audio", "audio": "AA", "transcript": "secret"}


@pytest.mark.parametrize(
    "message",
    [
        item("a secret", event_id="mine"),
        {"type": "session.update", "session": {"instructions": "secret"}},
        {"type": "session.update", "session": {"tools": [{**_TOOL, "description": "secret"}]}},
        {"type": "session.update", "session": {"audio": {"input": {"transcription": {"prompt": "say secret"}}}}},
        {"type": "session.update", "session": {"prompt": {"id": "p", "variables": {"name": "secret"}}}},
        {"type": "response.create", "response": {"instructions": "secret"}},
        {"type": "response.create", "response": {"input": [item("the secret")["item"]]}},
        {"type": "response.create", "response": {"tools": [{**_TOOL, "parameters": {"x": "secret"}}]}},
        {"type": "conversation.item.create", "item": {"type": "function_call_output", "output": "secret"}},
        {"type": "conversation.item.create", "item": {"type": "message", "role": "user", "content": [_SPOKEN]}},
        {"type": "conversation.item.create", "item": {"type": "mcp_approval_response", "reason": "secret"}},
        {"type": "some.new.event", "whatever": {"deep": ["the secret"]}},
    ],
)
def test_a_blocked_message_is_answered_and_not_forwarded(talks: Callable[..., Talk], message: dict[str, Any]) -> None:
    talk = talks(configuration(policies=dlp(), chain="audit-logger, dlp-filter"))
    talk.join()
    talk.says(message)
    assert talk.socket.sent == []
    (error,) = talk.hears()
    assert error["type"] == "error"
    assert error["error"]["code"] == "input_blocked"
    assert error["error"]["policy"] == "dlp-filter"
    assert error["error"]["event_id"] == message.get("event_id")
    assert talk.client_socket.is_open
    refused = talk.finish()
    assert (refused["outcome"], refused["status"], refused["code"]) == ("refused", 409, "input_blocked")
    assert refused["id"] == error["error"]["request_id"]
    talk.says(item("fine"))
    assert talk.told() == [item("fine")]


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"not json", "invalid_json"),
        (b'{"type":"session.update","session":{"instructions":"a","instructions":"b"}}', "invalid_request"),
        (b'{"type":"input_audio_buffer.append","audio":"AA","audio":"BB"}', "invalid_request"),
        (b"[1]", "invalid_request"),
        (b'{"no":"type"}', "invalid_request"),
    ],
)
def test_what_two_parsers_could_read_differently_is_refused(
    talks: Callable[..., Talk], message: bytes, code: str
) -> None:
    talk = talks(configuration(policies=dlp(), chain="dlp-filter"))
    talk.join()
    talk.says(message)
    assert talk.socket.sent == []
    assert talk.hears()[0]["error"]["code"] == code


def test_a_large_message_is_screened_in_a_thread_and_keeps_its_place(talks: Callable[..., Talk]) -> None:
    talk = talks(configuration(policies=dlp("redact"), chain="dlp-filter"))
    client = talk.join()
    talk.says(item("x " * 20_000 + "secret"))
    assert client.pauses == {"examination"}
    assert talk.socket.sent == []
    talk.work()
    assert client.pauses == set()
    assert talk.told()[0]["item"]["content"][0]["text"].endswith("x [REDACTED:term]")


def test_a_thread_that_does_not_come_back(talks: Callable[..., Talk]) -> None:
    talk = talks(configuration(policies=dlp(), chain="dlp-filter"))
    client = talk.join()
    talk.says(item("x " * 20_000))
    talk.advance(31.0)
    assert talk.hears()[0]["error"]["code"] == "input_blocked"
    assert client.pauses == set()
    talk.faults.clear()
    talk.work()
    assert talk.told() == []


def test_values_have_one_placeholder_throughout_and_come_back(talks: Callable[..., Talk]) -> None:
    policies = "\n  pii-detector: {entities: [email], restore: true}\n"
    talk = talks(configuration(policies=policies, chain="pii-detector"))
    talk.join()
    talk.says(item("I am a@example.com"), item("Write b@example.com, not a@example.com"), CREATE)
    texts = [one["item"]["content"][0]["text"] for one in talk.told()[:2]]
    assert texts == ["I am <EMAIL_1>", "Write <EMAIL_3>, not <EMAIL_1>"]
    talk.socket.says(*answer("Dear <EM", "AIL_3>, <EMAIL_1> says hello"))
    heard = talk.hears()
    said = "".join(one["delta"] for one in heard if one["type"].endswith(".delta"))
    assert said == "Dear b@example.com, a@example.com says hello"
    assert heard[-1]["response"]["output"][0]["content"][0]["transcript"] == said


# Models named in frames


def test_a_forbidden_model_in_a_frame_is_refused_in_band(talks: Callable[..., Talk]) -> None:
    talk = talks(configuration(target(), target("two", "other")), key=gateway_key(models=frozenset({"gpt-test"})))
    talk.join()
    for model, code in (("other", "model_not_allowed"), ("unknown", "model_not_found")):
        talk.says({"type": "session.update", "event_id": "e", "session": {"type": "realtime", "model": model}})
        (error,) = talk.hears()
        assert (error["error"]["code"], error["error"]["event_id"]) == (code, "e")
    assert talk.told() == []
    assert talk.client_socket.is_open


def test_another_model_needs_another_connection(talks: Callable[..., Talk]) -> None:
    talk = talks(configuration(target(), target("two", "other")))
    talk.join()
    talk.says({"type": "session.update", "session": {"model": "other"}})
    assert talk.hears()[0]["error"]["param"] == "session.model"


def test_an_alias_in_a_frame_is_the_providers_own_name_there(talks: Callable[..., Talk]) -> None:
    talk = talks(configuration(target(upstream_model="gpt-realtime")))
    talk.join()
    talk.says(b'{"type":"session.update", "session":{"mod\\u0065l":"gpt-test" }}')
    assert talk.socket.sent == [b'{"type":"session.update", "session":{"mod\\u0065l":"gpt-realtime" }}']


def test_a_transcribers_model_must_be_on_the_keys_list(talks: Callable[..., Talk]) -> None:
    update = {"type": "session.update", "session": {"audio": {"input": {"transcription": {"model": "whisper-1"}}}}}
    talk = talks(key=gateway_key(models=frozenset({"gpt-test"})))
    talk.join()
    talk.says(update)
    assert talk.hears()[0]["error"]["code"] == "model_not_allowed"
    free = talks()
    free.join()
    free.says(update)
    assert free.told() == [update]


# What a provider says


def test_an_unguarded_answer_is_forwarded_and_recorded(talks: Callable[..., Talk]) -> None:
    talk = talks()
    talk.join()
    talk.says(item("hello"), CREATE)
    assert [one["kind"] for one in talk.records] == ["start", "start"]
    events = answer("Hi ", "there")
    talk.socket.says(*events)
    assert talk.hears() == events
    assert len(talk.client_socket.forwarded) == len(events)
    (turn,) = talk.turns
    assert (turn["outcome"], turn["status"], turn["target"]) == ("completed", 200, "one")
    assert (turn["prompt_tokens"], turn["completion_tokens"], turn["cached_tokens"]) == (7, 5, 2)
    assert turn["start"]["operation"] == "realtime"
    assert turn["start"]["attributes"]["socket"] == talk.records[0]["id"]
    assert talk.metric("keeptrusts_llm_tokens_total") == 12
    assert talk.metric("keeptrusts_gateway_websocket_messages_total") == 2 + len(events)


GUARDED = configuration(
    policies=dlp("redact", "[output]", "['banned phrase']", ", streaming: guard"), chain="audit-logger, dlp-filter"
)


def test_a_phrase_over_ten_deltas_is_redacted_everywhere(talks: Callable[..., Talk]) -> None:
    talk = talks(GUARDED)
    talk.join()
    talk.says(CREATE)
    pieces = ["A b", "a", "n", "n", "e", "d ", "ph", "ra", "s", "e, and more"]
    talk.socket.says(*answer(*pieces))
    heard = talk.hears()
    expected = "A [REDACTED:term], and more"
    assert "".join(one["delta"] for one in heard if one["type"].endswith(".delta")) == expected
    by_type = {one["type"]: one for one in heard}
    assert by_type["response.output_audio_transcript.done"]["transcript"] == expected
    assert by_type["response.content_part.done"]["part"]["transcript"] == expected
    assert by_type["conversation.item.done"]["item"]["content"][0]["transcript"] == expected
    assert by_type["response.output_item.done"]["item"]["content"][0]["transcript"] == expected
    assert by_type["response.done"]["response"]["output"][0]["content"][0]["transcript"] == expected
    assert [one["verdict"] for one in talk.turns[0]["decisions"]] == ["redact"]


def test_what_stays_as_it_is_goes_on_as_the_bytes_it_was(talks: Callable[..., Talk]) -> None:
    talk = talks(GUARDED)
    talk.join()
    talk.says(CREATE)
    events = answer("Quite ", "harmless")
    talk.socket.says(*events)
    assert talk.hears() == events
    assert len(talk.client_socket.forwarded) == len(events)


@pytest.mark.parametrize("name", ["response.text", "response.output_text", "response.function_call_arguments",
                                  "response.audio_transcript", "response.mcp_call_arguments"])  # fmt: skip
def test_texts_of_all_names_are_guarded(talks: Callable[..., Talk], name: str) -> None:
    talk = talks(GUARDED)
    talk.join()
    talk.says(CREATE)
    talk.socket.says(created(), delta("a banned ", type=f"{name}.delta"), delta("phrase", type=f"{name}.delta"))
    assert b"banned" not in b"".join(talk.client_socket.sent[1:])


def test_audio_is_forwarded_unread(talks: Callable[..., Talk]) -> None:
    talk = talks(GUARDED)
    talk.join()
    talk.says(CREATE)
    audio = b'{"type":"response.output_audio.delta","response_id":"resp_1","item_id":"item_1","delta":"AAAA"}'
    talk.socket.says(created(), audio)
    assert talk.client_socket.forwarded[-1].data == audio


def test_a_blocked_answer_is_cancelled_and_fails(talks: Callable[..., Talk]) -> None:
    talk = talks(GUARDED.replace("redact", "block"))
    talk.join()
    talk.says(CREATE)
    talk.told()
    talk.socket.says(created(), delta("A banned "), delta("phrase"), delta(" and more"))
    heard = talk.hears()
    assert "".join(one.get("delta", "") for one in heard) == "A "
    assert heard[-1]["error"]["code"] == "output_blocked"
    assert talk.told() == [{"type": "response.cancel", "response_id": "resp_1"}]
    talk.socket.says(
        b'{"type":"response.output_audio.delta","response_id":"resp_1","delta":"AAAA"}', done("A banned phrase")
    )
    (last,) = talk.hears()
    assert last["type"] == "response.done"
    assert last["response"]["status"] == "failed"
    assert last["response"]["output"] == []
    turn = talk.turns[0]
    assert (turn["outcome"], turn["code"], turn["completion_tokens"]) == ("truncated", "output_blocked", 5)
    talk.says(CREATE)
    talk.socket.says(created("resp_2"), done("fine", "resp_2"))
    assert talk.hears()[-1]["response"]["status"] == "completed"


def test_hold_done_has_the_last_word(talks: Callable[..., Talk]) -> None:
    talk = talks(configuration(policies=dlp("block", "[output]", "[falcon]"), chain="audit-logger, dlp-filter"))
    talk.join()
    talk.says(CREATE)
    events = answer("A fal", "con")
    talk.socket.says(*events)
    heard = talk.hears()
    assert heard[: len(events) - 1] == events[:-1]
    assert heard[-2]["error"]["code"] == "output_blocked"
    assert heard[-1]["response"]["status"] == "failed"
    assert talk.told() == [CREATE]


def test_buffered_answers_come_when_they_have_been_judged(talks: Callable[..., Talk]) -> None:
    policies = dlp("redact", "[output]", "[falcon]", ", streaming: buffer")
    talk = talks(configuration(policies=policies, chain="dlp-filter"))
    talk.join()
    talk.says(CREATE)
    events = answer("A fal", "con")
    talk.socket.says(*events[:-1])
    assert talk.hears() == []
    talk.socket.says(events[-1])
    heard = talk.hears()
    assert "".join(one["delta"] for one in heard if one["type"].endswith(".delta")) == "A [REDACTED:term]"
    assert heard[-1]["response"]["output"][0]["content"][0]["transcript"] == "A [REDACTED:term]"


def test_a_long_answer_is_reviewed_in_a_thread_and_nothing_overtakes_it(talks: Callable[..., Talk]) -> None:
    talk = talks(configuration(policies=dlp("block", "[output]", "[falcon]"), chain="dlp-filter"))
    talk.join()
    talk.says(CREATE)
    talk.socket.says(created(), done("long " * 10_000))
    assert talk.socket.pauses == {"review"}
    assert [one["type"] for one in talk.hears()] == ["response.created"]
    talk.work()
    assert talk.socket.pauses == set()
    assert [one["type"] for one in talk.hears()] == ["response.done"]


def test_what_a_user_was_heard_to_say_is_guarded(talks: Callable[..., Talk]) -> None:
    talk = talks(GUARDED)
    talk.join()
    place = {"item_id": "item_9", "content_index": 0}
    name = "conversation.item.input_audio_transcription"
    talk.socket.says(
        {"type": f"{name}.delta", **place, "delta": "my banned "},
        {"type": f"{name}.delta", **place, "delta": "phrase."},
        {"type": f"{name}.completed", **place, "transcript": "my banned phrase."},
    )
    heard = talk.hears()
    assert "".join(one.get("delta", "") for one in heard) == "my [REDACTED:term]."
    assert heard[-1]["transcript"] == "my [REDACTED:term]."


def test_a_response_that_nobody_asked_for_is_a_turn_as_well(talks: Callable[..., Talk]) -> None:
    talk = talks()
    talk.join()
    talk.socket.says(*answer("I heard you stop"))
    (turn,) = talk.turns
    assert (turn["outcome"], turn["completion_tokens"]) == ("completed", 5)


@pytest.mark.parametrize(
    ("status", "outcome"), [("failed", "failed"), ("cancelled", "cancelled"), ("incomplete", "completed")]
)
def test_how_a_response_ends(talks: Callable[..., Talk], status: str, outcome: str) -> None:
    talk = talks()
    talk.join()
    talk.says(CREATE)
    talk.socket.says(created(), done("", status=status))
    assert talk.turns[0]["outcome"] == outcome


def test_an_error_about_a_wish_ends_it(talks: Callable[..., Talk]) -> None:
    talk = talks()
    talk.join()
    talk.says({**CREATE, "event_id": "one"}, {**CREATE, "event_id": "two"})
    talk.socket.says({"type": "error", "event_id": "e", "error": {"code": "x", "event_id": "two"}})
    assert [one["outcome"] for one in talk.turns] == ["failed"]
    talk.socket.says(created(), done("fine"))
    assert [one["outcome"] for one in talk.turns] == ["failed", "completed"]


# Limits


def test_a_limit_is_told_in_band_and_settled_by_what_was_used(talks: Callable[..., Talk]) -> None:
    talk = talks(key=gateway_key(requests_per_minute=2, max_concurrency=1))
    talk.join()
    talk.says(CREATE)
    talk.told()
    talk.says({**CREATE, "event_id": "second"})
    (error,) = talk.hears()
    assert (error["error"]["code"], error["error"]["event_id"]) == ("rate_limit_exceeded", "second")
    assert talk.told() == []
    talk.socket.says(created(), done("x"))
    talk.says(CREATE)
    assert talk.told() == [CREATE]
    talk.socket.says(created("resp_2"), done("x", "resp_2"))
    talk.hears()
    talk.says(CREATE)
    assert talk.hears()[0]["error"]["code"] == "rate_limit_exceeded"


def test_a_response_that_nobody_asked_for_is_cancelled_beyond_the_limit(talks: Callable[..., Talk]) -> None:
    talk = talks(key=gateway_key(requests_per_minute=1))
    talk.join()
    talk.socket.says(*answer("one"))
    talk.hears()
    talk.socket.says(created("resp_2"))
    assert talk.told() == [{"type": "response.cancel", "response_id": "resp_2"}]
    talk.socket.says(done("no", "resp_2", "cancelled"))
    assert [one["type"] for one in talk.hears()] == ["error", "response.done"]
    assert talk.turns[-1]["outcome"] == "refused"


# Ends


def test_close_codes_go_both_ways(talks: Callable[..., Talk]) -> None:
    one, two = talks(), talks()
    one.join()
    one.client_socket.leaves(4001, "my own")
    assert one.socket.closed == (4001, "my own")
    two.join()
    two.says(CREATE)
    two.socket.leaves(1013, "too busy")
    assert two.client_socket.closed == (1013, "too busy")
    assert two.turns[0]["outcome"] == "failed"


def test_a_provider_that_vanishes(talks: Callable[..., Talk]) -> None:
    talk = talks()
    talk.join()
    talk.socket.leaves(1006)
    assert talk.client_socket.closed is not None
    assert talk.client_socket.closed[0] == 1011


@pytest.mark.parametrize(("error", "code"), [(InvalidAPIKey("revoked"), 1008), (Draining(), 1001)])
def test_early_ends(talks: Callable[..., Talk], error: Any, code: int) -> None:
    talk = talks()
    talk.join()
    talk.says(CREATE)
    for one in list(talk.services.active):
        one.end_early(error)
    assert talk.client_socket.closed is not None
    assert talk.client_socket.closed[0] == code
    assert talk.socket.closed is not None
    assert talk.turns[0]["outcome"] == "truncated"


def test_a_slow_side_slows_the_other(talks: Callable[..., Talk]) -> None:
    talk = talks()
    client = talk.join()
    client.listener.on_paused()
    assert talk.socket.pauses == {"client"}
    client.listener.on_resumed()
    assert talk.socket.pauses == set()
    talk.socket.listener.on_paused()
    assert client.pauses
    talk.socket.listener.on_resumed()
    assert client.pauses == set()


# Responses in WebSocket mode


def wish(text: str = "hello", model: str = "gpt-test", **more: Any) -> dict[str, Any]:
    return {"type": "response.create", "model": model, "input": text, **more}


def responses(*pieces: str, id: str = "resp_1", **more: Any) -> list[dict[str, Any]]:
    whole = "".join(pieces)
    part = {"type": "output_text", "text": whole, "annotations": []}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "content": [part]}
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    usage = {"input_tokens": 3, "output_tokens": 4}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": {"id": id, "output": []}},
        *[{"type": "response.output_text.delta", **place, "delta": piece} for piece in pieces],
        {"type": "response.output_text.done", **place, "text": whole},
        {"type": "response.completed", "response": {"id": id, "output": [message], "usage": usage}},
    ]
    return [{**event, "sequence_number": number, **more} for number, event in enumerate(events)]


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


# Speech


def heard(text: str, item_id: str = "item_9") -> dict[str, Any]:
    kind = "conversation.item.input_audio_transcription.completed"
    return {"type": kind, "item_id": item_id, "content_index": 0, "transcript": text}


def test_speech_that_is_refused_is_taken_out_and_not_answered(talks: Callable[..., Talk]) -> None:
    talk = talks(configuration(policies=dlp(), chain="audit-logger, dlp-filter"))
    talk.join()
    talk.socket.says(created(), heard("tell me the secret"))
    assert talk.told() == [
        {"type": "conversation.item.delete", "item_id": "item_9"},
        {"type": "response.cancel", "response_id": "resp_1"},
    ]
    kinds = [one["type"] for one in talk.hears()]
    assert kinds == ["response.created", "error", "error", heard("")["type"]]
    talk.socket.says(delta("The secret is"), done("The secret is", status="cancelled"))
    (last,) = talk.hears()
    assert (last["type"], last["response"]["status"], last["response"]["output"]) == ("response.done", "failed", [])
    assert [turn["code"] for turn in talk.turns] == ["input_blocked", "input_blocked"]


def test_speech_that_is_fine_is_recorded_with_the_next_response(talks: Callable[..., Talk]) -> None:
    talk = talks(configuration(policies=dlp("redact"), chain="audit-logger, dlp-filter"))
    talk.join()
    talk.socket.says(heard("the secret"), heard("more", "item_10"), *answer("fine"))
    assert talk.told() == []
    assert [one["verdict"] for one in talk.turns[0]["start"]["decisions"]] == ["redact"]


# What else may stand in the way


def test_nothing_happens_unrecorded(talks: Callable[..., Talk]) -> None:
    talk = talks()
    talk.join()
    talk.audit_error = AuditUnavailable()
    talk.says(CREATE)
    assert talk.told() == []
    assert talk.hears()[0]["error"]["code"] == "audit_unavailable"
    talk.audit_error = None
    talk.says(CREATE)
    assert talk.told() == [CREATE]


def test_a_new_configuration_holds_from_the_next_message_on(talks: Callable[..., Talk]) -> None:
    talk, newer = talks(), talks(configuration(policies=dlp(), chain="dlp-filter"))
    talk.join()
    talk.says(item("a secret"))
    talk.services.snapshot = newer.services.snapshot
    talk.says(item("a secret"))
    assert talk.told() == [item("a secret")]
    assert talk.hears()[0]["error"]["code"] == "input_blocked"


def test_a_model_that_is_gone_ends_its_conversations(talks: Callable[..., Talk]) -> None:
    talk, newer = talks(), talks(configuration(target(model="other")))
    talk.join()
    talk.services.snapshot = newer.services.snapshot
    talk.says(item("hello"))
    assert talk.client_socket.closed is not None
    assert talk.client_socket.closed[0] == 1008


MODERATED = configuration(
    policies="\n  external-moderation: {url: 'https://moderation.test/check', phase: [input, output]}\n",
    chain="audit-logger, external-moderation",
)


def moderates(talk: Talk, **said: Any) -> None:
    talk.provider().says(respond(orjson.dumps(said)))


def test_a_moderation_service_is_asked_and_nothing_overtakes_the_question(talks: Callable[..., Talk]) -> None:
    talk = talks(MODERATED)
    client = talk.join()
    talk.says(item("hello"))
    assert client.pauses == {"examination"}
    assert talk.provider().body["texts"][0]["text"] == "hello"
    moderates(talk, verdict="allow")
    assert client.pauses == set()
    assert talk.told() == [item("hello")]
    talk.says(item("bad"))
    moderates(talk, verdict="block", message="No.")
    assert talk.hears()[0]["error"]["code"] == "input_blocked"
    talk.says(CREATE)
    talk.socket.says(created(), done("an answer"))
    assert talk.socket.pauses == {"review"}
    assert talk.provider().body["texts"][0]["text"] == "an answer"
    moderates(talk, verdict="block", message="No.")
    assert talk.socket.pauses == set()
    assert [one["type"] for one in talk.hears()] == ["response.created", "error", "response.done"]


def test_a_client_that_leaves_while_a_service_is_asked(talks: Callable[..., Talk]) -> None:
    talk = talks(MODERATED)
    talk.join()
    talk.says(item("hello"))
    talk.client_socket.leaves()
    assert talk.provider().gone


_WORDS = st.lists(st.sampled_from(["banned phrase", "banned", "phrase", " ", "x", "ban", ", "]), max_size=12)


def test_however_an_answer_is_cut_nothing_banned_leaves(talks: Callable[..., Talk]) -> None:
    talk = talks(GUARDED)
    talk.join()

    @settings(max_examples=40, deadline=None)
    @given(_WORDS.map("".join), st.data())
    def cut(text: str, data: st.DataObject) -> None:
        cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=8).map(sorted))
        pieces = [piece for piece in (text[a:b] for a, b in pairwise([0, *cuts, len(text)])) if piece]
        talk.says(CREATE)
        talk.socket.says(*answer(*pieces))
        heard_events = talk.hears()
        said = "".join(one["delta"] for one in heard_events if one["type"].endswith(".delta"))
        assert said == re.sub(r"\bbanned phrase\b", "[REDACTED:term]", text)
        assert heard_events[-1]["response"]["output"][0]["content"][0]["transcript"] == said

    cut()


_TYPES = [
    "session.update", "conversation.item.create", "response.create", "response.cancel", "response.steer", "error",
    "session.created", "response.created", "response.done", "response.completed", "response.failed", "response.x.delta",
    "response.output_item.added", "response.output_text.delta", "response.output_text.done", "conversation.item.done",
    "response.content_part.done", "conversation.item.input_audio_transcription.delta",
    "conversation.item.input_audio_transcription.completed", "response.output_audio.delta", "of.tomorrow",
]  # fmt: skip
_LEAVES = st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "x", "banned phrase", "gpt-test", "a"])
_ANY = st.recursive(
    _LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "id", "text", "content", "output", "model", "usage", "item"]), inner)
    ),
    max_leaves=6,
)
_EVENTS = st.fixed_dictionaries(
    {"type": st.sampled_from(_TYPES) | _ANY},
    optional={
        name: _ANY | st.sampled_from(["a", "resp_1"])
        for name in ("response", "response_id", "item", "item_id", "delta", "text", "transcript", "part", "session",
                     "output_index", "content_index", "stream_id", "event_id", "error", "model", "input", "audio")
    },
)  # fmt: skip


@pytest.mark.parametrize("streaming", ["hold_done", "guard", "buffer"])
@pytest.mark.parametrize("path", ["/v1/realtime?model=gpt-test", "/v1/responses"])
def test_whatever_is_said_is_no_fault_of_the_gateway(talks: Callable[..., Talk], path: str, streaming: str) -> None:
    text = GUARDED.replace("streaming: guard", f"streaming: {streaming}").replace("[output]", "[input, output]")

    @settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(st.tuples(st.booleans(), _EVENTS), max_size=12))
    def converse(said: list[tuple[bool, dict[str, Any]]]) -> None:
        talk.join(path)
        if talk.upgrade.kind.value == "responses":
            talk.says(wish())
            talk.socket.accepts()
        for by_client, event in said:
            if not talk.client_socket.is_open:
                break
            (talk.client_socket if by_client else talk.socket).says(event)
        talk.leave()
        talk.check()

    talk = talks(text)
    converse()


# Silence, and what comes too late


def test_a_provider_that_does_not_begin_in_time(talks: Callable[..., Talk]) -> None:
    talk = talks(configuration(target(timeouts="{first_byte_seconds: 5, idle_seconds: 20}")))
    talk.join()
    talk.advance(100)
    talk.says({**CREATE, "event_id": "mine"})
    talk.advance(4)
    assert talk.hears() == []
    talk.advance(2)
    (error,) = talk.hears()
    assert (error["error"]["code"], error["error"]["event_id"]) == ("upstream_timeout", "mine")
    assert (talk.turns[0]["outcome"], talk.turns[0]["status"]) == ("failed", 504)
    assert talk.client_socket.is_open


def test_a_provider_that_stops_in_the_middle(talks: Callable[..., Talk]) -> None:
    talk = talks(configuration(target(timeouts="{first_byte_seconds: 5, idle_seconds: 20}")))
    talk.join("/v1/responses")
    talk.says(wish())
    talk.socket.accepts()
    talk.socket.says(responses("x")[0])
    talk.hears()
    talk.advance(19)
    assert talk.hears() == []
    talk.advance(2)
    assert talk.hears()[0]["error"]["code"] == "upstream_timeout"


@pytest.mark.parametrize("path", ["/v1/realtime?model=gpt-test", "/v1/responses"])
def test_an_answer_without_its_beginning_is_guarded_all_the_same(talks: Callable[..., Talk], path: str) -> None:
    talk = talks(GUARDED)
    talk.join(path)
    if talk.upgrade.kind.value == "responses":
        talk.says(wish(stream_id="other"))
        talk.socket.accepts()
        events = responses("A banned ", "phrase, and")[1:]
    else:
        events = answer("A banned ", "phrase, and")[4:]
    talk.socket.says(*events)
    heard_events = talk.hears()
    assert "".join(one.get("delta", "") for one in heard_events) == "A [REDACTED:term], and"
    assert b"banned" not in b"".join(orjson.dumps(one) for one in heard_events)


def test_a_piece_without_any_name_is_guarded_all_the_same(talks: Callable[..., Talk]) -> None:
    talk = talks(GUARDED)
    talk.join()
    talk.socket.says({"type": "response.output_text.done", "text": "a banned phrase"})
    assert talk.hears()[0]["text"] == "a [REDACTED:term]"


def shown(content: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    one = {"id": "item_7", "type": "message", "role": "user", "content": content, **more}
    return {"type": "conversation.item.done", "item": one}


def test_a_clients_own_words_are_shown_to_it_as_it_wrote_them(talks: Callable[..., Talk]) -> None:
    talk = talks(GUARDED.replace("redact", "block"))
    talk.join()
    echo = shown([{"type": "input_text", "text": "a banned phrase"}])
    talk.socket.says(echo)
    assert talk.hears() == [echo]
    talk.socket.says(shown([{"type": "input_audio", "transcript": "a banned phrase"}]))
    assert talk.hears()[0]["error"]["code"] == "output_blocked"
    talk.socket.says(shown([{"type": "output_text", "text": "a banned phrase"}], role="assistant"))
    assert talk.hears()[0]["error"]["code"] == "output_blocked"


def test_a_clients_own_words_are_shown_with_its_values(talks: Callable[..., Talk]) -> None:
    policies = "\n  pii-detector: {entities: [email], restore: true}\n"
    talk = talks(configuration(policies=policies, chain="pii-detector"))
    talk.join()
    talk.says(item("I am a@example.com"))
    talk.socket.says(shown(talk.told()[0]["item"]["content"]))
    assert talk.hears()[0]["item"]["content"][0]["text"] == "I am a@example.com"


# Other policies, other faults


def test_a_message_waits_for_a_person_and_goes_on_once_it_is_approved(talks: Callable[..., Talk]) -> None:
    settings = "{rules: [{name: all, operations: [realtime]}]}"
    policies = f"\n  human-oversight: {settings}\n"
    talk = talks(configuration(policies=policies, chain="audit-logger, human-oversight"))
    control = Destination("control", Origin("control", 0, tls=False))
    loop, pool = cast(asyncio.AbstractEventLoop, talk), cast(PoolPort, talk.pool)
    talk.services.oversight = Oversight(loop, pool, control)
    client = talk.join()
    for state in ("pending", "approved"):
        talk.says(CREATE)
        assert client.pauses == {"examination"}
        talk.provider().says(respond(orjson.dumps({"state": state, "id": "esc_1"})))
        assert client.pauses == set()
    assert talk.hears()[0]["error"]["code"] == "escalation_required"
    assert talk.told() == [CREATE]


def test_without_anybody_to_ask_an_escalation_is_a_refusal(talks: Callable[..., Talk]) -> None:
    policies = "\n  human-oversight: {rules: [{name: all, operations: [realtime]}]}\n"
    talk = talks(configuration(policies=policies, chain="human-oversight"))
    talk.join()
    talk.says(CREATE)
    assert talk.hears()[0]["error"]["code"] == "escalation_required"


def test_calls_are_held_against_the_tools_of_the_session(talks: Callable[..., Talk]) -> None:
    talk = talks(configuration(chain="audit-logger, tool-validation"))
    talk.join()
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tool = {"type": "function", "name": "weather", "parameters": schema}
    talk.says({"type": "session.update", "session": {"tools": [tool]}})
    for number, (arguments, status) in enumerate([('{"city": "Oslo"}', "completed"), ('{"city": 7}', "failed")]):
        talk.says(CREATE)
        named = f"resp_{number}"
        call = {"id": "item_1", "type": "function_call", "name": "weather", "call_id": "c", "arguments": arguments}
        response = {"id": named, "status": "completed", "output": [call]}
        talk.socket.says(created(named), {"type": "response.done", "response": response})
        assert talk.hears()[-1]["response"]["status"] == status


def test_transcripts_under_buffer_come_whole(talks: Callable[..., Talk]) -> None:
    policies = dlp("redact", "[output]", "[falcon]", ", streaming: buffer")
    talk = talks(configuration(policies=policies, chain="dlp-filter"))
    talk.join()
    piece = {"type": "conversation.item.input_audio_transcription.delta", "item_id": "item_9", "delta": "a falcon"}
    talk.socket.says(piece, heard("a falcon flies"))
    assert [one["transcript"] for one in talk.hears()] == ["a [REDACTED:term] flies"]
    talk.socket.says(heard("fine"))
    assert talk.hears() == [heard("fine")]


def test_a_transcript_that_is_refused_under_buffer_is_an_error(talks: Callable[..., Talk]) -> None:
    policies = dlp("block", "[output]", "[falcon]", ", streaming: buffer")
    talk = talks(configuration(policies=policies, chain="dlp-filter"))
    talk.join()
    talk.socket.says(heard("a falcon flies"))
    assert [one["error"]["code"] for one in talk.hears()] == ["output_blocked"]


def test_a_fault_of_ours_ends_the_conversation_and_is_reported(talks: Callable[..., Talk]) -> None:
    talk = talks()
    talk.join()

    def broken(message: Any) -> None:
        raise RuntimeError("a bug")

    talk.socket.forward = broken  # type: ignore[method-assign]
    talk.says(CREATE)
    assert talk.client_socket.closed == (1011, "The gateway failed; see its log.")
    assert [repr(fault) for fault in talk.faults] == ["RuntimeError('a bug')"]
    talk.faults.clear()


def test_a_key_that_is_known_no_longer(talks: Callable[..., Talk]) -> None:
    talk = talks()
    talk.join()
    snapshot = talk.services.snapshot
    snapshot.bindings.clear()
    snapshot.find_key = lambda digest: None
    talk.says(CREATE)
    assert talk.client_socket.closed is not None
    assert talk.client_socket.closed[0] == 1008


def test_an_answer_that_is_too_large_to_be_judged(talks: Callable[..., Talk], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.turn.MAX_COLLECTED", 1000)
    policies = dlp("redact", "[output]", "[falcon]", ", streaming: buffer")
    talk = talks(configuration(policies=policies, chain="dlp-filter"))
    talk.join()
    talk.says(CREATE)
    talk.socket.says(created(), delta("x" * 2000))
    assert talk.hears()[0]["error"]["code"] == "upstream_invalid"
    assert talk.told()[-1]["type"] == "response.cancel"
