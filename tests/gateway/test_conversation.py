"""Conversations over WebSockets, played without sockets: what goes on, what is refused in-band, and every end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import orjson
import pytest

from gateway.errors import (
    AuditUnavailable,
    Draining,
    InvalidAPIKey,
    UpstreamStatus,
    UpstreamUnreachable,
)
from gateway.oversight import Oversight
from gateway.ports import Pool as PoolPort
from gateway.types import Destination, Origin
from tests.playbook import configuration, dlp, gateway_key, target
from tests.provider import respond
from tests.talk import Talk
from tests.talk_events import CREATE, answer, created, delta, done, heard, item

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
    assert talk.socket.closed == (1001, "")
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


def test_the_id_that_a_client_reads_finds_the_records(talks: Callable[..., Talk]) -> None:
    talk, other = talks(), talks()
    talk.join()
    assert talk.records[0]["id"] == talk.upgrade.request_id
    assert b"x-request-id: %b\r\n" % talk.upgrade.request_id.encode() in talk.socket.asked.fields
    other.join(headers=["X-Request-Id: my-own"])
    assert other.upgrade.request_id == "my-own"
    assert other.records[0]["attributes"] == {"client_request_id": "my-own"}
    other.says(CREATE)
    assert other.records[1]["attributes"] == {"socket": other.records[0]["id"], "client_request_id": "my-own"}
