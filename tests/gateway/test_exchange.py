"""The life of a request, played without sockets: every phase, every state, every end."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from gateway.config.schema import AuthMode
from gateway.errors import AuditUnavailable, Draining, InvalidAPIKey, Overloaded, UpstreamTimeout, UpstreamUnreachable
from gateway.exchange import READ_INLINE_BYTES, SCREEN_SECONDS, Exchange, State
from gateway.routes import BreakerState
from tests.playbook import Client, Play, configuration, dlp, gateway_key, target
from tests.provider import LAST_CHUNK, chunk, head, respond

CHAT: dict[str, Any] = {"model": "gpt-test", "messages": [{"role": "user", "content": "Hello"}]}
STREAM: dict[str, Any] = {**CHAT, "stream": True}
STREAM_WITH_USAGE: dict[str, Any] = {**STREAM, "stream_options": {"include_usage": True}}

USAGE = {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21}
SSE_HEAD = head(200, ("content-type", "text/event-stream; charset=utf-8"), chunked=True)
DONE = b"data: [DONE]\n\n"
USAGE_FRAME = b'data: {"id":"c","choices":[],"usage":%b}\n\n' % orjson.dumps(USAGE)
REVOKED = InvalidAPIKey("This gateway key was revoked or has expired.")

TWO = configuration(target("one"), target("two"))


def answer(text: str = "Hi there", **more: Any) -> bytes:
    """A complete answer, as OpenAI gives it."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return orjson.dumps({"id": "c", "object": "chat.completion", "choices": [choice], "usage": USAGE, **more})


def delta(text: str) -> bytes:
    """One event of a stream."""
    return b'data: {"id":"c","choices":[{"index":0,"delta":{"content":%b}}]}\n\n' % orjson.dumps(text)


def error_body(code: str = "rate_limit_exceeded", message: str = "Slow down") -> bytes:
    return orjson.dumps({"error": {"message": message, "type": "requests", "param": None, "code": code}})


def events(body: bytes) -> list[Any]:
    """The data of each event: JSON, or the text that it is."""
    data = [frame.partition(b"data: ")[2] for frame in body.split(b"\n\n") if frame]
    return [orjson.loads(one) if one.startswith(b"{") else one.decode() for one in data]


# A good answer


def test_json_passes_as_it_is(play: Play) -> None:
    exchange = play.ask(CHAT, headers=["Content-Type: application/json", "X-Stainless-Lang: python"])
    assert repr(exchange).endswith(" chat to one waiting for the provider, 0 bytes sent>")
    assert play.provider().asked.startswith(b"POST /v1/chat/completions HTTP/1.1\r\nhost: one.test\r\n")
    assert play.provider().body == CHAT
    body = answer()
    play.provider().says(respond(body, 200, ("openai-processing-ms", "7")))
    assert play.client.transcript == [f"200 sized {len(body)}: {len(body)} bytes, end"]
    assert play.client.body == b"" or play.client.writes == [body]
    assert play.client.headers["openai-processing-ms"] == "7"
    assert play.client.headers["content-type"] == "application/json"
    assert repr(exchange).endswith(f" chat to one ended, {len(body)} bytes sent>")


def test_the_record_of_a_good_answer(play: Play) -> None:
    exchange = play.ask(CHAT)
    play.clock.now += 0.25
    body = answer()
    play.provider().says(respond(body))
    start, finish = play.records
    assert start["kind"] == "start"
    assert (start["key"], start["model"], start["operation"], start["client"]) == (
        "key_1",
        "gpt-test",
        "chat",
        "192.0.2.7",
    )
    assert finish["id"] == start["id"] == exchange.id
    assert (finish["outcome"], finish["status"], finish["code"], finish["target"]) == ("completed", 200, None, "one")
    assert (finish["prompt_tokens"], finish["completion_tokens"], finish["attempts"]) == (9, 12, 1)
    assert (finish["bytes_sent"], finish["duration_us"], finish["first_byte_us"]) == (len(body), 250_000, 250_000)
    assert finish["sent_us"] == 0


def test_the_metrics_of_a_good_answer(play: Play) -> None:
    play.ask(CHAT)
    play.provider().says(respond(answer()))
    assert play.metric("keeptrusts_gateway_requests_total") == 1
    assert play.metric("keeptrusts_llm_tokens_total") == 21
    assert play.metric("keeptrusts_gateway_request_duration_seconds_count") == 1


def test_a_sized_answer_in_parts(play: Play) -> None:
    body = answer("long" * 100)
    play.ask(CHAT)
    first, second = body[:50], body[50:]
    play.provider().says(head(200, ("content-type", "application/json"), length=len(body)), first, second)
    assert play.client.transcript == [f"200 sized {len(body)}: 0 bytes", "50 bytes", f"{len(body) - 50} bytes, end"]
    assert play.client.writes[1] is first
    assert play.client.writes[2] is second
    assert play.finish()["completion_tokens"] == 12


def test_a_chunked_answer_is_passed_on_with_its_framing(play: Play) -> None:
    play.ask(CHAT)
    read = chunk(answer()) + LAST_CHUNK
    play.provider().says(head(200, ("content-type", "application/json"), chunked=True), read)
    assert play.client.transcript == ["200 chunked: 0 framed bytes", f"{len(read)} framed bytes, end"]
    assert play.client.writes[1] is read
    assert play.finish()["completion_tokens"] == 12


def test_an_answer_that_ends_with_the_connection(play: Play) -> None:
    play.ask(CHAT)
    body = answer()
    play.provider().says(head(200, ("content-type", "application/json")), body)
    play.provider().closes()
    assert play.client.transcript == ["200 chunked: 0 bytes", f"{len(body)} bytes", "0 bytes, end"]
    assert play.client.body == body


def test_a_client_of_http_1_0_gets_payload_only(play: Play) -> None:
    play.ask(CHAT, client=Client(takes_chunks=False))
    body = answer()
    play.provider().says(head(200, ("content-type", "application/json"), chunked=True), chunk(body), LAST_CHUNK)
    assert play.client.transcript == ["200 chunked: 0 bytes", f"{len(body)} bytes", "0 bytes, end"]
    assert play.client.body == body


def test_a_stream_hands_on_the_very_objects_that_were_read(play: Play) -> None:
    play.ask(STREAM_WITH_USAGE)
    reads = [chunk(delta("Hel")), chunk(delta("lo")), chunk(USAGE_FRAME), chunk(DONE) + LAST_CHUNK]
    play.provider().says(SSE_HEAD, *reads)
    _, *writes = play.client.writes  # the head goes on at once
    assert all(written is read for written, read in zip(writes, reads, strict=True))
    assert play.client.headers["cache-control"] == "no-cache"
    assert play.client.headers["x-accel-buffering"] == "no"
    assert (play.finish()["prompt_tokens"], play.finish()["completion_tokens"]) == (9, 12)


def test_a_stream_goes_on_in_the_turn_in_which_it_was_read(play: Play) -> None:
    play.ask(STREAM)
    play.provider().says(SSE_HEAD)
    assert play.client.transcript == ["200 chunked: 0 framed bytes"]
    play.provider().says(chunk(delta("one")))
    assert play.client.body == delta("one")
    play.provider().says(chunk(delta("two")))
    assert play.client.body == delta("one") + delta("two")


def test_usage_is_asked_for_and_taken_out_again(play: Play) -> None:
    play.ask(STREAM)
    assert play.provider().body == STREAM_WITH_USAGE
    play.provider().says(SSE_HEAD, chunk(delta("Hi")), chunk(USAGE_FRAME), chunk(DONE) + LAST_CHUNK)
    assert play.client.body == delta("Hi") + DONE
    assert play.finish()["completion_tokens"] == 12


def test_usage_is_taken_out_of_the_middle_of_a_read(play: Play) -> None:
    play.ask(STREAM)
    play.provider().says(SSE_HEAD, chunk(delta("Hi")) + chunk(USAGE_FRAME) + chunk(DONE) + LAST_CHUNK)
    assert play.client.body == delta("Hi") + DONE
    assert play.client.transcript[-1].endswith("end")


def test_a_stream_whole_in_one_read(play: Play) -> None:
    play.ask(STREAM_WITH_USAGE)
    play.provider().says(SSE_HEAD + chunk(delta("Hi")) + chunk(USAGE_FRAME) + chunk(DONE) + LAST_CHUNK)
    assert play.client.body == delta("Hi") + USAGE_FRAME + DONE
    assert len(play.client.transcript) == 1


def test_a_json_answer_to_a_stream_passes(play: Play) -> None:
    play.ask(STREAM)
    play.provider().says(respond(answer()))
    assert play.client.writes == [answer()]


def test_the_type_of_a_stream_is_read_in_any_case(playbook: Callable[..., Play]) -> None:
    play = playbook(configuration(chain="dlp-filter", policies=dlp(phase="[output]")))
    play.ask(STREAM)
    loud = head(200, ("content-type", "Text/Event-Stream"), chunked=True)
    play.provider().says(loud, chunk(delta("a secret")), chunk(DONE) + LAST_CHUNK)
    assert events(play.client.body)[-1]["error"]["code"] == "output_blocked"


def test_an_answer_in_a_coding_that_nobody_asked_for_keeps_its_name(play: Play) -> None:
    """The provider was told `accept-encoding: identity`; one that compresses all the same must not become garbage."""
    play.ask(CHAT)
    assert play.provider().headers["accept-encoding"] == "identity"
    play.provider().says(respond(b"\x1f\x8b-zipped", 200, ("content-encoding", "gzip")))
    assert play.client.headers["content-encoding"] == "gzip"
    assert play.client.writes == [b"\x1f\x8b-zipped"]


def test_an_answer_in_a_coding_that_policies_cannot_read_is_refused(playbook: Callable[..., Play]) -> None:
    play = playbook(configuration(chain="dlp-filter", policies=dlp(phase="[output]")))
    play.ask(CHAT)
    play.provider().says(respond(b"coded", 200, ("content-encoding", "br")))
    assert play.client.transcript == ["refused: 502 upstream_invalid"]


def test_a_provider_that_says_nothing_of_its_type(play: Play) -> None:
    play.ask(CHAT)
    play.provider().says(head(200, length=2) + b"{}")
    assert play.client.writes == [b"{}"]


def test_what_the_provider_says_of_itself_and_its_host_stays_behind(play: Play) -> None:
    play.ask(CHAT, headers=["X-Request-Id: mine-1"])
    fields = [
        ("set-cookie", "a=b"),
        ("strict-transport-security", "max-age=1"),
        ("alt-svc", "h3"),
        ("x-request-id", "req_theirs"),
        ("connection", "keep-alive, x-hop"),
        ("x-hop", "1"),
        ("keep-alive", "timeout=5"),
        ("proxy-authenticate", "x"),
        ("x-ratelimit-remaining-requests", "99"),
    ]
    play.provider().says(respond(b"{}", 200, *fields))
    assert play.client.headers == {
        "content-type": "application/json",
        "x-request-id": "mine-1",
        "x-provider-request-id": "req_theirs",
        "x-ratelimit-remaining-requests": "99",
        "server-timing": "gateway;dur=0.000, policies;dur=0.000, upstream;dur=0.000",
    }


# The request as the provider sees it


def test_the_key_stays_here_and_the_provider_gets_its_own(play: Play) -> None:
    play.ask(CHAT, headers=["api-key: kt_gk_2", "x-api-key: kt_gk_3", "Cookie: kt_gk_4", "Origin: http://localhost"])
    assert b"kt_gk_" not in play.provider().asked
    assert play.provider().headers["authorization"] == "Bearer sk-provider"
    assert "cookie" not in play.provider().headers


def test_the_providers_model_is_asked_for(playbook: Callable[..., Play]) -> None:
    play = playbook(configuration(target(model="gpt-nice", upstream_model="gpt-4o-2024")))
    body = b'{ "messages":[], "model" : "gpt-nice" }'
    play.ask(body)
    assert play.provider().asked.endswith(b'{ "messages":[], "model" : "gpt-4o-2024" }')


@pytest.mark.parametrize("name", ["gpt-test", "one", "openai-compatible/gpt-test"])
def test_a_target_has_three_names(play: Play, name: str) -> None:
    play.ask({**CHAT, "model": name})
    assert play.provider().body["model"] == "gpt-test"
    play.provider().says(respond(answer()))
    assert play.client.status == 200
    assert play.records[0]["model"] == name


def test_the_operators_fields_win_over_the_clients(playbook: Callable[..., Play]) -> None:
    play = playbook(configuration(target(headers="{X-Team: platform}")))
    play.ask(CHAT, headers=["X-Team: mine", "X-Other: mine", "User-Agent: test/1"])
    sent = play.provider().asked.lower()
    assert sent.count(b"x-team:") == 1
    assert b"x-team: platform\r\n" in sent
    assert b"x-other: mine\r\n" in sent
    assert b"user-agent: test/1\r\n" in sent


def test_the_trace_goes_on(play: Play) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    exchange = play.ask(CHAT, headers=[f"traceparent: {trace}"])
    assert play.provider().headers["traceparent"] == trace
    assert play.provider().headers["x-request-id"] == exchange.id
    play.provider().says(respond(b"{}"))
    assert play.client.headers["x-request-id"] == exchange.id


def test_a_clients_own_request_id_goes_both_ways_and_into_the_log(play: Play) -> None:
    play.ask(CHAT, headers=["X-Request-ID: trace-7"])
    assert play.provider().headers["x-request-id"] == "trace-7"
    play.provider().says(respond(b"{}"))
    assert play.client.headers["x-request-id"] == "trace-7"
    assert play.records[0]["attributes"] == {"client_request_id": "trace-7"}


def test_a_passed_through_credential(playbook: Callable[..., Play]) -> None:
    play = playbook(mode=AuthMode.PASSTHROUGH)
    play.ask(CHAT, key=b"sk-mine", headers=["OpenAI-Organization: org-1"])
    assert play.provider().headers["authorization"] == "Bearer sk-mine"
    assert play.provider().headers["openai-organization"] == "org-1"
    play.provider().says(respond(error_body("invalid_api_key", "Incorrect API key"), 401))
    assert play.client.transcript[0].startswith("401 ")


# What is refused before anything is sent


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "invalid_json"),
        (b"{", 400, "invalid_json"),
        (b"[]", 400, "invalid_request"),
        (b'{"messages":[]}', 404, "model_not_found"),
        (b'{"model":"gpt-9","messages":[]}', 404, "model_not_found"),
        (b'{"model":7,"messages":[]}', 400, "invalid_request"),
        (b'{"model":"gpt-test","stream":"yes"}', 400, "invalid_request"),
    ],
)
def test_bodies_that_cannot_be_served(play: Play, body: bytes, status: int, code: str) -> None:
    play.ask(body)
    assert play.client.transcript == [f"refused: {status} {code}"]
    assert play.pool.providers == []
    assert (play.finish()["outcome"], play.finish()["status"], play.finish()["code"]) == ("refused", status, code)


def test_a_body_of_an_unknown_coding_is_refused(play: Play) -> None:
    play.ask(b"\x1f\x8b", headers=["Content-Encoding: compress"])
    assert play.client.transcript == ["refused: 415 unsupported_encoding"]


def test_a_body_that_broke_off(play: Play) -> None:
    exchange = play.open()
    assert exchange is not None
    exchange.on_body_failed(Overloaded())
    assert play.client.transcript == ["refused: 503 overloaded"]


@pytest.mark.parametrize(
    ("models", "asked", "allowed"),
    [
        ({"gpt-test"}, "gpt-test", True),
        ({"gpt-test"}, "one", True),
        ({"gpt-test"}, "openai-compatible/gpt-test", True),
        ({"one"}, "one", True),
        ({"one"}, "gpt-test", False),
        ({"two"}, "one", False),
        ({"other"}, "gpt-test", False),
        (set(), "gpt-test", False),
    ],
)
def test_a_keys_models(playbook: Callable[..., Play], models: set[str], asked: str, allowed: bool) -> None:
    play = playbook(TWO, key=gateway_key(models=frozenset(models)))
    play.ask({**CHAT, "model": asked})
    if allowed:
        play.provider().says(respond(answer()))
        assert play.client.status == 200
    else:
        assert play.client.transcript == ["refused: 403 model_not_allowed"]


def test_a_target_that_does_not_offer_the_operation(playbook: Callable[..., Play]) -> None:
    play = playbook(configuration(target(provider="deepseek")))
    play.ask({"model": "gpt-test", "prompt": "x"}, path="/v1/images/generations")
    assert play.client.transcript == ["refused: 404 model_not_found"]


def test_no_secret_no_target(playbook: Callable[..., Play]) -> None:
    play = playbook(environment={})
    play.ask(CHAT)
    assert play.client.transcript == ["refused: 503 upstream_unavailable"]
    assert "PROVIDER_KEY" in str(play.client.error)


def test_a_target_without_its_secret_is_passed_over(playbook: Callable[..., Play]) -> None:
    broken = target("zero").replace("PROVIDER_KEY", "NO_SUCH_KEY")
    play = playbook(configuration(broken, target("one")))
    play.ask(CHAT)
    play.provider().says(respond(answer()))
    assert (play.client.status, play.finish()["target"], play.finish()["attempts"]) == (200, "one", 1)


def test_requests_per_minute(playbook: Callable[..., Play]) -> None:
    play = playbook(key=gateway_key(requests_per_minute=1))
    play.ask(CHAT)
    play.provider().says(respond(answer(), 200, ("x-ratelimit-remaining-requests", "99")))
    assert play.client.headers["x-ratelimit-remaining-requests"] == "0"  # the key's own number, alone
    play.ask(CHAT)
    assert play.client.transcript == ["refused: 429 rate_limit_exceeded"]
    assert play.client.headers["retry-after"] == "60"


def test_requests_at_the_same_time(playbook: Callable[..., Play]) -> None:
    play = playbook(key=gateway_key(max_concurrency=1))
    play.ask(CHAT)
    play.ask(CHAT)
    assert play.client.transcript == ["refused: 429 rate_limit_exceeded"]
    play.provider(0).says(respond(answer()))
    play.ask(CHAT)
    assert play.client.transcript == []
    play.opened[-1].on_client_gone()  # type: ignore[union-attr]
    play.client = Client()


def used_tokens(play: Play) -> int:
    """Tokens that the key has used, as the next answer's header tells."""
    exchange = play.ask(CHAT)
    assert exchange.hold is not None
    headers = dict(exchange.hold.headers)
    exchange.on_client_gone()
    estimate = exchange.hold.estimate
    return int(headers[b"x-ratelimit-limit-tokens"]) - int(headers[b"x-ratelimit-remaining-tokens"]) - estimate


def test_tokens_are_settled_by_what_was_used(playbook: Callable[..., Play]) -> None:
    play = playbook(key=gateway_key(tokens_per_minute=10_000))
    play.ask({**CHAT, "max_tokens": 5000})
    play.provider().says(respond(answer()))
    assert used_tokens(play) == 21


def test_an_answer_without_usage_leaves_the_estimate_standing(playbook: Callable[..., Play]) -> None:
    play = playbook(key=gateway_key(tokens_per_minute=10_000))
    play.ask({**CHAT, "max_tokens": 5000})
    play.provider().says(respond(b'{"choices":[]}'))
    assert used_tokens(play) >= 5000


def test_a_request_that_a_provider_did_not_answer_takes_no_tokens(playbook: Callable[..., Play]) -> None:
    play = playbook(key=gateway_key(tokens_per_minute=10_000))
    play.ask({**CHAT, "max_tokens": 5000})
    play.provider().says(respond(error_body(), 500))
    assert used_tokens(play) == 0


def test_what_was_broken_off_leaves_the_estimate_standing(playbook: Callable[..., Play]) -> None:
    play = playbook(key=gateway_key(tokens_per_minute=10_000))
    exchange = play.ask({**STREAM, "max_tokens": 5000})
    play.provider().says(SSE_HEAD, chunk(delta("Hi")))
    exchange.on_client_gone()
    assert used_tokens(play) >= 5000


def test_what_no_provider_received_is_given_back(playbook: Callable[..., Play]) -> None:
    play = playbook(
        configuration(chain="dlp-filter", policies=dlp()),
        key=gateway_key(tokens_per_minute=10_000, requests_per_minute=9),
    )
    play.ask({**CHAT, "max_tokens": 5000, "messages": [{"role": "user", "content": "a secret"}]})
    assert play.client.transcript == ["refused: 409 input_blocked"]
    assert used_tokens(play) == 0


def test_a_negative_max_tokens_gives_nothing(playbook: Callable[..., Play]) -> None:
    play = playbook(key=gateway_key(tokens_per_minute=10_000))
    exchange = play.ask({**CHAT, "max_tokens": -50_000})
    if exchange.state is not State.ENDED:
        assert exchange.hold is not None
        assert exchange.hold.estimate >= 0
        exchange.on_client_gone()


# Policies


def test_a_refused_prompt_goes_nowhere(playbook: Callable[..., Play]) -> None:
    play = playbook(configuration(chain="audit-logger, dlp-filter", policies=dlp()))
    play.ask({**CHAT, "messages": [{"role": "user", "content": "my Secret"}]})
    assert play.client.transcript == ["refused: 409 input_blocked"]
    assert play.client.headers["x-should-retry"] == "false"
    error = orjson.loads(play.client.writes[0])["error"]
    assert (error["type"], error["policy"]) == ("policy_violation", "dlp-filter")
    assert play.pool.providers == []
    start, finish = play.records
    assert start["decisions"][0]["verdict"] == "block"
    assert (finish["outcome"], finish["status"], finish["target"]) == ("refused", 409, None)
    assert play.metric("keeptrusts_gateway_policy_evaluations_total") == 1


def test_a_redaction_reaches_the_provider(playbook: Callable[..., Play]) -> None:
    play = playbook(configuration(chain="dlp-filter", policies=dlp("redact")))
    play.ask({**CHAT, "messages": [{"role": "user", "content": "my secret, please"}]})
    assert play.provider().body["messages"][0]["content"] == "my [REDACTED:term], please"
    play.provider().says(respond(answer()))
    assert play.client.status == 200


def test_a_large_prompt_is_screened_in_a_thread(playbook: Callable[..., Play]) -> None:
    play = playbook(configuration(chain="dlp-filter", policies=dlp()))
    exchange = play.ask({**CHAT, "messages": [{"role": "user", "content": "x " * 150_000}]})
    assert repr(exchange).endswith(" chat screening in a thread, 0 bytes sent>")
    assert play.pool.providers == []
    play.work()
    assert exchange.state is State.WAITING
    play.provider().says(respond(answer()))
    assert play.client.status == 200


def test_a_large_prompt_refused_in_a_thread(playbook: Callable[..., Play]) -> None:
    play = playbook(configuration(chain="dlp-filter", policies=dlp()))
    play.ask({**CHAT, "messages": [{"role": "user", "content": "x " * 150_000 + "secret"}]})
    play.work()
    assert play.client.transcript == ["refused: 409 input_blocked"]


def test_done_waits_for_the_verdict(playbook: Callable[..., Play]) -> None:
    play = playbook(configuration(chain="dlp-filter", policies=dlp(phase="[output]")))
    exchange = play.ask(STREAM)
    play.provider().says(SSE_HEAD, chunk(delta("all ")), chunk(delta("good")))
    assert play.client.body == delta("all ") + delta("good")
    play.provider().says(chunk(DONE))
    assert play.client.body == delta("all ") + delta("good") + DONE
    assert play.client.transcript[-1] == "14 bytes, end"
    assert exchange.state is State.ENDED


def test_done_ends_the_answer_though_not_the_providers_message(play: Play) -> None:
    """SDKs close their connection on [DONE]: that must neither count as leaving nor cost the provider's connection."""
    exchange = play.ask(STREAM)
    play.provider().says(SSE_HEAD, chunk(delta("Hi")), chunk(USAGE_FRAME))
    play.provider().says(chunk(DONE))
    assert exchange.state is State.ENDED
    assert play.client.transcript[-1] == "14 bytes, end"
    exchange.on_client_gone()
    assert (play.finish()["outcome"], play.finish()["prompt_tokens"]) == ("completed", 9)
    assert play.pool.free == []
    play.provider().says(chunk(b": said to nobody\n\n"), LAST_CHUNK)
    assert play.client.body == delta("Hi") + DONE
    assert play.pool.free == [play.provider()]


def test_a_stream_without_a_media_type_is_a_stream_if_one_was_asked_for(play: Play) -> None:
    play.ask(STREAM)
    play.provider().says(head(200, chunked=True), chunk(delta("Hi")), chunk(USAGE_FRAME), chunk(DONE) + LAST_CHUNK)
    assert play.client.body == delta("Hi") + DONE
    assert play.finish()["prompt_tokens"] == 9


def test_a_refused_stream_ends_in_an_error_and_not_in_done(playbook: Callable[..., Play]) -> None:
    play = playbook(configuration(chain="audit-logger, dlp-filter", policies=dlp(phase="[output]")))
    play.ask(STREAM)
    play.provider().says(SSE_HEAD, chunk(delta("the sec")), chunk(delta("ret")), chunk(DONE))
    assert play.client.transcript[-1].endswith("bytes, end")
    assert b"[DONE]" not in play.client.body
    error = events(play.client.body)[-1]["error"]
    assert (error["code"], error["policy"]) == ("output_blocked", "dlp-filter")
    assert play.provider().gone
    finish = play.finish()
    assert (finish["outcome"], finish["code"]) == ("truncated", "output_blocked")
    assert finish["decisions"][0]["verdict"] == "block"


def test_a_refused_stream_without_done(playbook: Callable[..., Play]) -> None:
    """A provider that ends without `[DONE]` does not escape the output phase."""
    play = playbook(configuration(chain="dlp-filter", policies=dlp(phase="[output]")))
    play.ask(STREAM)
    play.provider().says(SSE_HEAD, chunk(delta("a secret")), LAST_CHUNK)
    assert events(play.client.body)[-1]["error"]["code"] == "output_blocked"


def test_a_refused_json_answer(playbook: Callable[..., Play]) -> None:
    play = playbook(configuration(chain="dlp-filter", policies=dlp(phase="[output]")))
    play.ask(CHAT)
    play.provider().says(respond(answer("a secret")))
    assert play.client.transcript == ["refused: 409 output_blocked"]
    assert play.client.headers["x-should-retry"] == "false"


def test_a_reviewed_json_answer_is_passed_whole(playbook: Callable[..., Play]) -> None:
    play = playbook(configuration(chain="dlp-filter", policies=dlp(phase="[output]")))
    play.ask(CHAT)
    body = answer()
    play.provider().says(head(200, ("content-type", "application/json"), length=len(body)), body[:20], body[20:])
    assert play.client.transcript == [f"200 sized {len(body)}: {len(body)} bytes, end"]
    assert play.client.writes == [body]


def test_a_redacted_json_answer(playbook: Callable[..., Play]) -> None:
    play = playbook(configuration(chain="dlp-filter", policies=dlp("redact", "[output]")))
    play.ask(CHAT)
    play.provider().says(respond(answer("a secret")))
    assert play.client.status == 200
    got = orjson.loads(play.client.writes[0])
    assert got["choices"][0]["message"]["content"] == "a [REDACTED:term]"
    assert got["usage"] == USAGE
    assert play.client.transcript[0].startswith(f"200 sized {len(play.client.writes[0])}: ")


def test_a_stream_cannot_be_redacted_any_more(playbook: Callable[..., Play]) -> None:
    play = playbook(configuration(chain="dlp-filter", policies=dlp("redact", "[output]")))
    play.ask(STREAM)
    play.provider().says(SSE_HEAD, chunk(delta("a secret")), chunk(DONE) + LAST_CHUNK)
    assert events(play.client.body)[-1]["error"]["code"] == "output_blocked"


def test_a_long_stream_is_reviewed_in_a_thread(playbook: Callable[..., Play]) -> None:
    play = playbook(configuration(chain="dlp-filter", policies=dlp(phase="[output]")))
    exchange = play.ask(STREAM)
    play.provider().says(SSE_HEAD, chunk(delta("x " * 150_000)), chunk(DONE))
    assert repr(exchange).split()[-4:-3] == ["thread,"]
    assert DONE not in play.client.body
    play.provider().says(LAST_CHUNK)
    assert not play.client.over
    play.work()
    assert play.client.over
    assert play.client.body.endswith(DONE)


def test_a_long_stream_refused_in_a_thread(playbook: Callable[..., Play]) -> None:
    play = playbook(configuration(chain="dlp-filter", policies=dlp(phase="[output]")))
    play.ask(STREAM)
    play.provider().says(SSE_HEAD, chunk(delta("secret " + "x " * 150_000)), chunk(DONE) + LAST_CHUNK)
    play.work()
    assert events(play.client.body)[-1]["error"]["code"] == "output_blocked"


def test_a_review_may_take_longer_than_the_provider_may_be_silent(playbook: Callable[..., Play]) -> None:
    brief = target(timeouts="{idle_seconds: 10}")
    play = playbook(configuration(brief, chain="audit-logger, dlp-filter", policies=dlp(phase="[output]")))
    exchange = play.ask(STREAM)
    play.provider().says(SSE_HEAD, chunk(delta("x " * 150_000)), chunk(DONE))
    play.advance(25)
    play.work()
    assert exchange.state is State.ENDED
    assert play.finish()["outcome"] == "completed"


@pytest.mark.parametrize("fail_mode", ["block", "allow"])
def test_what_a_review_that_hangs_means(playbook: Callable[..., Play], fail_mode: str) -> None:
    """The thread never comes back: the fail mode speaks, and a thread that comes back after all is not heard."""
    text = configuration(
        chain="audit-logger, dlp-filter", policies=dlp(phase="[output]"), gateway=f"gateway: {{fail_mode: {fail_mode}}}"
    )
    play = playbook(text)
    exchange = play.ask(STREAM)
    play.provider().says(SSE_HEAD, chunk(delta("secret " + "x " * 150_000)), chunk(DONE))
    play.advance(SCREEN_SECONDS + 0.1)
    assert exchange.state is State.ENDED
    if fail_mode == "allow":
        assert play.client.body.endswith(DONE)
    else:
        assert events(play.client.body)[-1]["error"]["code"] == "output_blocked"
    assert play.finish()["decisions"][0]["reason"] == "dlp-filter.error"
    told = list(play.client.transcript)
    play.work()
    assert play.client.transcript == told
    assert isinstance(play.faults.pop(), TimeoutError)


@pytest.mark.parametrize("fail_mode", ["block", "allow"])
def test_what_a_review_of_json_that_hangs_means(playbook: Callable[..., Play], fail_mode: str) -> None:
    text = configuration(
        chain="audit-logger, dlp-filter", policies=dlp(phase="[output]"), gateway=f"gateway: {{fail_mode: {fail_mode}}}"
    )
    play = playbook(text)
    play.ask(CHAT)
    play.provider().says(respond(answer("secret " + "x " * 150_000)))
    play.advance(SCREEN_SECONDS + 0.1)
    if fail_mode == "allow":
        assert play.client.status == 200
    else:
        assert play.client.transcript == ["refused: 409 output_blocked"]
    play.work()
    assert isinstance(play.faults.pop(), TimeoutError)


def test_a_screening_that_hangs(playbook: Callable[..., Play]) -> None:
    play = playbook(configuration(chain="audit-logger, dlp-filter", policies=dlp()))
    _screening(play)
    play.advance(SCREEN_SECONDS + 0.1)
    assert play.client.transcript == ["refused: 409 input_blocked"]
    play.work()
    assert play.client.transcript == ["refused: 409 input_blocked"]
    assert isinstance(play.faults.pop(), TimeoutError)


# Large requests


LARGE = {**CHAT, "messages": [{"role": "user", "content": "x " * READ_INLINE_BYTES}]}


def test_a_large_request_is_read_in_a_thread(play: Play) -> None:
    for _ in range(2):  # the second one knows its way already
        exchange = play.ask(LARGE)
        assert (exchange.state, play.client.transcript) == (State.DECODING, [])
        play.work()
        assert exchange.state is State.WAITING
        assert orjson.loads(play.provider().asked)["messages"] == LARGE["messages"]  # head and body are two writes
        play.provider().says(respond(answer()))
        assert play.client.status == 200


def test_a_large_request_that_is_not_json(play: Play) -> None:
    play.ask(b"{" + b" " * READ_INLINE_BYTES)
    play.work()
    assert play.client.transcript == ["refused: 400 invalid_json"]


def test_a_large_request_that_nobody_reads(play: Play) -> None:
    play.ask(LARGE)
    play.advance(SCREEN_SECONDS + 0.1)
    assert play.client.transcript == ["refused: 503 overloaded"]
    play.work()
    assert play.client.transcript == ["refused: 503 overloaded"]


def test_what_stands_before_the_json_hides_no_second_reading(playbook: Callable[..., Play]) -> None:
    play = playbook(configuration(chain="dlp-filter", policies=dlp("redact")))
    play.ask(b'\n{"model":"gpt-test","messages":[{"role":"user","content":"a secret","content":"secret"}]}')
    assert play.client.transcript == ["refused: 400 invalid_request"]


# The provider's own errors


@pytest.mark.parametrize("status", [400, 404, 413, 422, 429, 500, 503])
def test_the_providers_own_words(play: Play, status: int) -> None:
    play.ask(CHAT)
    body = error_body()
    play.provider().says(respond(body, status, ("retry-after", "7")))
    assert play.client.status == status
    assert play.client.writes == [body]
    assert play.client.headers["retry-after"] == "7"
    assert (play.finish()["outcome"], play.finish()["status"], play.finish()["code"]) == (
        "failed",
        status,
        "provider_error",
    )


def test_the_providers_own_words_in_chunks(play: Play) -> None:
    play.ask(STREAM)
    body = error_body()
    play.provider().says(
        head(400, ("content-type", "application/json"), chunked=True), chunk(body[:9]), chunk(body[9:]), LAST_CHUNK
    )
    assert play.client.transcript == [f"400 sized {len(body)}: {len(body)} bytes, end"]
    assert play.client.writes == [body]


@pytest.mark.parametrize("status", [401, 403])
def test_the_gateways_own_credential_refused(play: Play, status: int) -> None:
    play.ask(CHAT)
    play.provider().says(respond(error_body("invalid_api_key", "Incorrect API key sk-provider"), status))
    assert play.client.transcript == ["refused: 502 upstream_auth_failed"]
    assert play.client.headers["x-should-retry"] == "false"
    assert b"sk-provider" not in play.client.writes[0]


def test_a_redirect_is_no_answer(play: Play) -> None:
    play.ask(CHAT)
    play.provider().says(respond(b"", 307, ("location", "https://elsewhere.test/")))
    assert play.client.status == 502
    assert "location" not in play.client.headers


def test_an_error_that_is_too_long(play: Play) -> None:
    play.ask(CHAT)
    play.provider().says(head(500, length=2_000_000), b"x" * 1_500_000)
    assert play.client.transcript == ["refused: 502 upstream_invalid"]
    assert play.provider().gone


@pytest.mark.parametrize(
    ("reads", "code"),
    [
        ([b"SSH-2.0-OpenSSH_9.6\r\n"], "upstream_invalid"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"], "upstream_invalid"),
        ([SSE_HEAD + b"zz\r\n"], "upstream_invalid"),
        ([b""], "upstream_reset"),
        ([head(400, length=10)], "upstream_reset"),
    ],
)
def test_no_answer_at_all(play: Play, reads: list[bytes], code: str) -> None:
    play.ask(STREAM)
    play.provider().says(*[read for read in reads if read])
    if code == "upstream_reset":
        play.provider().resets()
    assert play.client.transcript == [f"refused: 502 {code}"]


def test_an_answer_that_breaks_off(play: Play) -> None:
    play.ask(CHAT)
    play.provider().says(head(200, ("content-type", "application/json"), length=100), b"{")
    play.provider().resets()
    assert play.client.transcript == ["200 sized 100: 0 bytes", "1 bytes", "aborted"]
    assert (play.finish()["outcome"], play.finish()["code"]) == ("truncated", "upstream_reset")


def test_a_stream_that_breaks_off_ends_in_an_error(play: Play) -> None:
    play.ask(STREAM)
    play.provider().says(SSE_HEAD, chunk(delta("Hi")))
    play.provider().resets()
    assert play.client.transcript[-1] == "aborted"
    assert events(play.client.body)[-1]["error"]["code"] == "upstream_reset"
    assert (play.finish()["outcome"], play.finish()["code"]) == ("truncated", "upstream_reset")


def test_a_stream_that_breaks_off_within_an_event(play: Play) -> None:
    """What is left of the event is not given to the client: the error would become part of it."""
    play.ask(STREAM)
    whole, part = delta("Hi"), delta("there")[:20]
    play.provider().says(SSE_HEAD, chunk(whole + part))
    play.provider().resets()
    assert play.client.body.startswith(whole + b'data: {"error"')


def test_framing_that_breaks_in_the_middle(play: Play) -> None:
    play.ask(STREAM)
    play.provider().says(SSE_HEAD, chunk(delta("Hi")), b"nonsense\r\n")
    assert events(play.client.body)[-1]["error"]["code"] == "upstream_invalid"
    assert play.provider().gone
    assert play.client.transcript[-1] == "aborted"


# Connections


def test_waiting_for_a_connection(play: Play) -> None:
    play.pool.idle = False
    exchange = play.ask(CHAT)
    assert repr(exchange).endswith(" chat to one waiting for a connection, 0 bytes sent>")
    play.pool.connect()
    assert exchange.state is State.WAITING
    play.provider().says(respond(answer()))
    assert play.client.status == 200


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (UpstreamUnreachable(), "502 upstream_unreachable"),
        (UpstreamTimeout(), "504 upstream_timeout"),
        (Overloaded(), "503 overloaded"),
    ],
)
def test_no_connection(play: Play, error: Any, shown: str) -> None:
    play.pool.idle = False
    play.ask(CHAT)
    play.pool.fail(error)
    assert play.client.transcript == [f"refused: {shown}"]
    assert play.targets["one"].in_flight == 0


# Another target


FAILURES: dict[str, Callable[[Play], None]] = {
    "429": lambda play: play.provider().says(respond(error_body(), 429)),
    "500": lambda play: play.provider().says(respond(error_body(), 500)),
    "401": lambda play: play.provider().says(respond(error_body(), 401)),
    "reset": lambda play: play.provider().resets(),
    "garbage": lambda play: play.provider().says(b"garbage\r\n\r\n"),
    "silence": lambda play: play.advance(121),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_the_second_target_answers(playbook: Callable[..., Play], failure: str) -> None:
    play = playbook(TWO)
    play.ask(STREAM)
    FAILURES[failure](play)
    assert play.client.transcript == []
    assert play.provider().destination.name == "two"
    play.provider().says(SSE_HEAD, chunk(delta("Hi")), chunk(USAGE_FRAME), chunk(DONE) + LAST_CHUNK)
    assert play.client.body == delta("Hi") + DONE
    assert (play.finish()["outcome"], play.finish()["target"], play.finish()["attempts"]) == ("completed", "two", 2)
    assert play.metric("keeptrusts_gateway_upstream_retries_total") == 1


@pytest.mark.parametrize("status", [400, 404, 422])
def test_an_error_of_the_client_is_not_tried_elsewhere(playbook: Callable[..., Play], status: int) -> None:
    play = playbook(TWO)
    play.ask(CHAT)
    play.provider().says(respond(error_body(), status))
    assert (play.client.status, len(play.pool.providers)) == (status, 1)


def test_nothing_is_tried_again_once_a_byte_has_gone_out(playbook: Callable[..., Play]) -> None:
    play = playbook(TWO)
    play.ask(STREAM)
    play.provider().says(SSE_HEAD, chunk(delta("Hi")))
    play.provider().resets()
    assert len(play.pool.providers) == 1
    assert play.client.transcript[-1] == "aborted"


def test_only_what_the_operator_named_is_tried_again(playbook: Callable[..., Play]) -> None:
    play = playbook(configuration(target("one"), target("two"), providers="  fallback: {triggers: [timeout]}"))
    play.ask(CHAT)
    play.provider().says(respond(error_body(), 500))
    assert (play.client.status, len(play.pool.providers)) == (500, 1)


def test_a_second_round_after_a_pause(playbook: Callable[..., Play]) -> None:
    play = playbook(configuration(target("one"), target("two"), providers="  fallback: {max_attempts: 4}"))
    exchange = play.ask(CHAT)
    for _ in range(2):
        play.provider().says(respond(error_body(), 503))
    assert repr(exchange).endswith(" pausing before another attempt, 0 bytes sent>")
    assert 0.125 <= play.pauses[0] <= 0.25
    play.advance(0.25)
    assert play.provider().destination.name == "one"
    for _ in range(2):
        play.provider().says(respond(error_body("mine"), 503))
    assert (play.client.status, play.client.writes) == (503, [error_body("mine")])
    assert play.finish()["attempts"] == 4


def test_pauses_grow(playbook: Callable[..., Play]) -> None:
    providers = "  fallback: {max_attempts: 20, circuit_breaker: {enabled: false}}"
    play = playbook(configuration(target("one"), target("two"), providers=providers))
    play.ask(CHAT)
    longest = []
    for _ in range(7):
        play.provider().says(respond(error_body(), 503))
        play.provider().says(respond(error_body(), 503))
        longest += play.pauses
        play.advance(play.pauses[0])
    for pause, bound in zip(longest, [0.25, 0.5, 1, 2, 4, 4, 4], strict=True):
        assert bound / 2 <= pause <= bound
    play.opened[-1].on_client_gone()  # type: ignore[union-attr]


def test_a_pause_is_as_long_as_the_provider_asks(playbook: Callable[..., Play]) -> None:
    play = playbook(configuration(target("one"), target("two"), providers="  fallback: {max_attempts: 4}"))
    play.ask(CHAT)
    for _ in range(2):
        play.provider().says(respond(error_body(), 429, ("retry-after", "3")))
    assert 3.125 <= play.pauses[0] <= 3.25
    play.advance(3.25)
    play.provider().says(respond(answer()))
    assert play.client.status == 200


@pytest.mark.parametrize("asked", ["5", "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_a_pause_that_is_too_long_is_the_clients(asked: str, playbook: Callable[..., Play]) -> None:
    play = playbook(configuration(target("one"), target("two"), providers="  fallback: {max_attempts: 4}"))
    play.ask(CHAT)
    for _ in range(2):
        play.provider().says(respond(error_body(), 429, ("retry-after", asked)))
    assert play.client.status == 429
    assert play.client.headers["retry-after"] == asked
    assert play.finish()["attempts"] == 2


def test_the_whole_state_of_a_failed_attempt_is_forgotten(playbook: Callable[..., Play]) -> None:
    """A whole error answer, then a stream under review: its end is the second provider's, not the first's."""
    play = playbook(configuration(target("one"), target("two"), chain="dlp-filter", policies=dlp(phase="[output]")))
    exchange = play.ask(STREAM)
    play.provider().says(respond(error_body(), 500))
    play.provider().says(SSE_HEAD, chunk(delta("Hi")), chunk(DONE))
    assert exchange.state is State.ENDED
    assert play.client.body == delta("Hi") + DONE


def test_a_target_that_has_failed_is_not_the_next_one(playbook: Callable[..., Play]) -> None:
    """The first is left alone, so the second was tried; then the third comes, not the second again."""
    play = playbook(configuration(target("one"), target("two"), target("three")))
    for _ in range(5):
        play.targets["one"].breaker.failed(play.clock.now)
    play.ask(CHAT)
    assert play.provider().destination.name == "two"
    play.provider().says(respond(error_body(), 500))
    assert play.provider().destination.name == "three"
    play.provider().says(respond(answer()))
    assert play.client.status == 200


def test_a_lone_target_left_is_tried_again_only_after_a_pause(playbook: Callable[..., Play]) -> None:
    play = playbook(TWO)
    for _ in range(5):
        play.targets["two"].breaker.failed(play.clock.now)
    exchange = play.ask(CHAT)
    play.provider().says(respond(error_body(), 500))
    assert exchange.state is State.BACKING_OFF
    play.advance(0.25)
    assert play.provider().destination.name == "one"
    play.provider().says(respond(answer()))
    assert play.client.status == 200


def test_a_target_without_the_operation_is_passed_over(playbook: Callable[..., Play]) -> None:
    speechless = target("zero", provider="deepseek")
    play = playbook(configuration(speechless, target("one")))
    play.ask({"model": "gpt-test", "prompt": "x"}, path="/v1/images/generations")
    assert play.provider().destination.name == "one"
    play.provider().says(respond(b"{}"))
    assert play.client.status == 200


# The circuit breaker


def test_a_failing_target_is_left_alone_and_tried_again(play: Play) -> None:
    breaker = play.targets["one"].breaker
    for _ in range(5):
        play.ask(CHAT)
        play.provider().says(respond(error_body(), 500))
    assert repr(breaker) == "<Breaker open, 5 failures in a row>"
    play.ask(CHAT)
    assert play.client.transcript == ["refused: 503 upstream_unavailable"]
    play.advance(31)
    play.ask(CHAT)
    assert repr(breaker) == "<Breaker trying, 5 failures in a row>"
    play.provider().says(respond(answer()))
    assert breaker.state is BreakerState.CLOSED


@pytest.mark.parametrize("status", [400, 404, 422])
def test_an_error_of_the_client_says_that_the_target_is_well(play: Play, status: int) -> None:
    breaker = play.targets["one"].breaker
    for _ in range(5):
        breaker.failed(play.clock.now)
    play.advance(31)
    play.ask(CHAT)
    play.provider().says(respond(error_body(), status))
    assert breaker.state is BreakerState.CLOSED


def test_what_is_not_the_targets_fault_does_not_open_it(play: Play) -> None:
    for _ in range(6):
        play.pool.idle = False
        play.ask(CHAT)
        play.pool.fail(Overloaded())
        play.pool.idle = True
        play.ask(CHAT).on_client_gone()
        play.ask(CHAT)
        play.provider().says(respond(error_body(), 400))
    assert play.targets["one"].breaker.state is BreakerState.CLOSED


# Time


def test_a_silent_provider(play: Play) -> None:
    play.ask(CHAT)
    play.advance(119.9)
    assert play.client.transcript == []
    play.advance(0.2)
    assert play.client.transcript == ["refused: 504 upstream_timeout"]
    assert play.provider().gone


def test_a_provider_that_stops_in_the_middle(play: Play) -> None:
    play.ask(STREAM)
    play.provider().says(SSE_HEAD, chunk(delta("Hi")))
    play.advance(299.9)
    play.provider().says(chunk(delta("again")))
    for _ in range(3):  # progress is looked at once in `idle_seconds`
        play.advance(299.9)
    assert events(play.client.body)[-1]["error"]["code"] == "upstream_timeout"
    assert play.client.transcript[-1] == "aborted"


def test_an_answer_that_is_collected_makes_progress(playbook: Callable[..., Play]) -> None:
    play = playbook(configuration(chain="dlp-filter", policies=dlp(phase="[output]")))
    play.ask(CHAT)
    body = answer("long" * 100)
    play.provider().says(head(200, ("content-type", "application/json"), length=len(body)))
    for start in range(0, len(body), 50):
        play.advance(200)
        play.provider().says(body[start : start + 50])
    assert play.client.writes == [body]


def test_an_event_that_grows_makes_progress(play: Play) -> None:
    play.ask(STREAM)
    play.provider().says(SSE_HEAD)
    frame = delta("long" * 100)
    for start in range(0, len(frame), 50):
        play.advance(200)
        play.provider().says(chunk(frame[start : start + 50]))
    assert play.client.body == frame
    play.opened[-1].on_client_gone()  # type: ignore[union-attr]


def test_a_slow_client_is_not_the_providers_fault(play: Play) -> None:
    exchange = play.ask(STREAM)
    play.provider().says(SSE_HEAD, chunk(delta("Hi")))
    exchange.on_client_paused()
    assert play.provider().transport.events == ["paused"]
    play.advance(301)
    play.advance(299)
    exchange.on_client_resumed()
    assert play.provider().transport.events == ["paused", "resumed"]
    play.advance(2)
    assert not play.client.over
    play.provider().says(chunk(DONE) + LAST_CHUNK)
    assert play.finish()["outcome"] == "completed"


def test_a_client_that_was_slow_before_the_provider_answered(play: Play) -> None:
    exchange = play.ask(STREAM)
    exchange.on_client_paused()
    exchange.on_client_resumed()
    exchange.on_client_paused()
    play.provider().says(SSE_HEAD, chunk(delta("Hi")))
    assert play.provider().transport.events[-1] == "paused"
    exchange.on_client_gone()


def test_a_slow_client_while_another_attempt_is_made(playbook: Callable[..., Play]) -> None:
    play = playbook(TWO)
    exchange = play.ask(STREAM)
    exchange.on_client_paused()
    play.provider().says(respond(error_body(), 500))
    play.provider().says(SSE_HEAD)
    assert play.provider().transport.events == ["paused"]
    exchange.on_client_gone()


TOTAL = configuration(
    target("one", timeouts="{total_seconds: 10}"),
    target("two", timeouts="{total_seconds: 10}"),
    providers="  fallback: {max_attempts: 20, circuit_breaker: {enabled: false}}",
)


def test_the_total_bound_while_waiting(playbook: Callable[..., Play]) -> None:
    play = playbook(TOTAL)
    play.ask(CHAT)
    play.advance(9.9)
    assert play.client.transcript == []
    play.advance(0.2)
    assert play.client.transcript == ["refused: 504 upstream_timeout"]
    assert len(play.pool.providers) == 1


def test_the_total_bound_while_connecting(playbook: Callable[..., Play]) -> None:
    play = playbook(TOTAL)
    play.pool.idle = False
    play.ask(CHAT)
    play.advance(10.1)
    assert play.client.transcript == ["refused: 504 upstream_timeout"]
    assert play.pool.tickets[0].state == "cancelled"


def test_the_total_bound_while_pausing(playbook: Callable[..., Play]) -> None:
    play = playbook(TOTAL)
    exchange = play.ask(CHAT)
    play.advance(9.95)
    play.provider().says(respond(error_body(), 503))
    play.provider().says(respond(error_body(), 503))
    assert exchange.state is State.BACKING_OFF
    play.advance(0.1)
    assert play.client.transcript == ["refused: 504 upstream_timeout"]


def test_the_total_bound_of_a_stream_whose_client_is_slow(playbook: Callable[..., Play]) -> None:
    play = playbook(TOTAL)
    exchange = play.ask(STREAM)
    play.provider().says(SSE_HEAD, chunk(delta("Hi")))
    exchange.on_client_paused()
    play.advance(9.9)
    assert not play.client.over
    play.advance(0.2)
    assert events(play.client.body)[-1]["error"]["code"] == "upstream_timeout"


# Every state, and an end from outside


def _reading(play: Play) -> Any:
    return play.open()


def _decoding(play: Play) -> Any:
    return play.ask(gzip.compress(orjson.dumps(STREAM)), headers=["Content-Encoding: gzip"])


def _screening(play: Play) -> Any:
    return play.ask({**CHAT, "messages": [{"role": "user", "content": "x " * 150_000}]})


def _connecting(play: Play) -> Any:
    play.pool.idle = False
    return play.ask(STREAM)


def _waiting(play: Play) -> Any:
    return play.ask(STREAM)


def _backing_off(play: Play) -> Any:
    exchange = play.ask(STREAM)
    play.provider().says(respond(error_body(), 503))
    play.provider().says(respond(error_body(), 503))
    return exchange


def _head_only(play: Play) -> Any:
    exchange = play.ask(STREAM)
    play.provider().says(SSE_HEAD)
    return exchange


def _collecting(play: Play) -> Any:
    exchange = play.ask(CHAT)
    play.provider().says(head(200, ("content-type", "application/json"), length=500), b"{")
    return exchange


def _streaming(play: Play) -> Any:
    exchange = play.ask(STREAM)
    play.provider().says(SSE_HEAD, chunk(delta("Hi")))
    return exchange


def _reviewing(play: Play) -> Any:
    exchange = play.ask(STREAM)
    play.provider().says(SSE_HEAD, chunk(delta("x " * 150_000)), chunk(DONE))
    return exchange


def _reviewing_json(play: Play) -> Any:
    exchange = play.ask(CHAT)
    play.provider().says(respond(answer("x " * 150_000)))
    return exchange


MOMENTS: dict[Callable[[Play], Any], tuple[State, bool]] = {
    _reading: (State.READING, False),
    _decoding: (State.DECODING, False),
    _screening: (State.SCREENING, False),
    _connecting: (State.CONNECTING, False),
    _waiting: (State.WAITING, False),
    _backing_off: (State.BACKING_OFF, False),
    _head_only: (State.RELAYING, True),
    _collecting: (State.RELAYING, False),
    _streaming: (State.RELAYING, True),
    _reviewing: (State.REVIEWING, True),
    _reviewing_json: (State.REVIEWING, False),
}
ANY_MOMENT = pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: moment.__name__.strip("_"))


@pytest.fixture
def screened(playbook: Callable[..., Play]) -> Play:
    """Two targets, policies in both phases, a key with limits."""
    return playbook(
        configuration(
            target("one"),
            target("two"),
            chain="audit-logger, dlp-filter",
            policies=dlp(phase="[input, output]"),
            providers="  fallback: {max_attempts: 4}",
        ),
        key=gateway_key(max_concurrency=1, requests_per_minute=1000),
    )


def nothing_is_held(play: Play) -> None:
    """Connection, place in the queue, timer and share of the limits have been given back."""
    assert all(
        provider.gone or provider.connection in [one.connection for one in play.pool.free]
        for provider in play.pool.providers
    )
    assert all(ticket.state != "waiting" for ticket in play.pool.tickets)
    assert play.pauses == []
    play.pool.idle = True
    exchange = play.ask(CHAT)  # refused if the last one still counted
    assert exchange.state is State.WAITING
    exchange.on_client_gone()


@ANY_MOMENT
def test_the_client_leaves(screened: Play, moment: Callable[[Play], Any]) -> None:
    play = screened
    exchange = moment(play)
    assert exchange.state is MOMENTS[moment][0]
    told = list(play.client.transcript)
    exchange.on_client_gone()
    assert exchange.state is State.ENDED
    assert play.client.transcript == told
    finish = play.finish()
    assert (finish["outcome"], finish["status"]) == ("cancelled", 499)
    assert finish["bytes_sent"] == exchange.progress
    while play.threads:
        play.work()
    exchange.on_client_gone()
    assert play.client.transcript == told
    assert len([one for one in play.records if one["kind"] == "finish"]) == 1
    nothing_is_held(play)


@ANY_MOMENT
def test_the_key_is_revoked(screened: Play, moment: Callable[[Play], Any]) -> None:
    play = screened
    exchange = moment(play)
    exchange.end_early(REVOKED)
    assert exchange.state is State.ENDED
    if MOMENTS[moment][1]:
        assert events(play.client.body)[-1]["error"]["code"] == "invalid_api_key"
        assert b"[DONE]" not in play.client.body
        assert play.client.transcript[-1] == "aborted"
        assert play.finish()["outcome"] == "truncated"
    else:
        assert play.client.transcript == ["refused: 401 invalid_api_key"]
        assert play.finish()["outcome"] == "refused"
    while play.threads:
        play.work()
    nothing_is_held(play)


@ANY_MOMENT
def test_the_worker_must_go(screened: Play, moment: Callable[[Play], Any]) -> None:
    play = screened
    exchange = moment(play)
    exchange.end_early(Draining())
    exchange.end_early(Draining())
    assert play.client.transcript[-1] == ("aborted" if MOMENTS[moment][1] else "refused: 503 draining")
    while play.threads:
        play.work()


@ANY_MOMENT
def test_nothing_lasts_for_ever(screened: Play, moment: Callable[[Play], Any]) -> None:
    """Whatever the state, an exchange that hears nothing more does not stay: all but those that others end."""
    play = screened
    exchange = moment(play)
    for _ in range(40):
        play.advance(100)
    if exchange.state in (State.READING, State.CONNECTING):
        exchange.on_client_gone()  # the connection and the pool have deadlines of their own
    assert exchange.state is State.ENDED
    play.faults = [fault for fault in play.faults if not isinstance(fault, TimeoutError)]


def test_a_large_answer_is_metered_after_the_client_has_it(play: Play) -> None:
    """Its connection may serve the next request by then: nothing that happens to the key may touch it."""
    body = answer("x" * 300_000)
    exchange = play.ask(CHAT)
    play.provider().says(respond(body))
    assert play.client.over
    exchange.end_early(REVOKED)
    exchange.on_client_gone()
    assert play.client.transcript == [f"200 sized {len(body)}: {len(body)} bytes, end"]
    play.work()
    assert exchange.state is State.ENDED
    finish = play.finish()
    assert (finish["outcome"], finish["completion_tokens"], finish["bytes_sent"]) == ("completed", 12, len(body))


# The audit log


def test_nothing_is_sent_before_it_is_recorded(play: Play) -> None:
    records: list[int] = []
    take = play.pool.take

    def watched(destination: Any) -> Any:
        records.append(len(play.audit))
        return take(destination)

    play.pool.take = watched  # type: ignore[method-assign]
    play.ask(CHAT)
    assert records == [1]


def test_the_end_is_recorded_before_the_client_has_it(play: Play) -> None:
    records: list[int] = []
    send = play.client.__class__._take

    class Watched(Client):
        def _take(self, begin: str, data: bytes, end: bool, raw: bool) -> None:
            records.append(len(play.audit))
            send(self, begin, data, end, raw)

    play.ask(STREAM, client=Watched())
    play.provider().says(SSE_HEAD, chunk(delta("Hi")), chunk(DONE) + LAST_CHUNK)
    assert records == [1, 1, 2]


def test_a_full_log_means_no_service(play: Play) -> None:
    play.audit_error = AuditUnavailable()
    play.ask(CHAT)
    assert play.client.transcript == ["refused: 503 audit_unavailable"]
    assert play.pool.providers == []


def test_without_audit_logger_nothing_is_recorded(playbook: Callable[..., Play]) -> None:
    play = playbook(configuration(chain=""))
    play.audit_error = AuditUnavailable()
    play.ask(CHAT)
    play.provider().says(respond(answer()))
    assert play.client.status == 200
    assert play.records == []


QUIET = configuration(policies="\n  audit-logger: {log_all_access: false}\n")


def test_without_log_all_access_what_was_sent_is_recorded(playbook: Callable[..., Play]) -> None:
    play = playbook(QUIET)
    play.ask(CHAT)
    play.provider().says(respond(answer()))
    assert [record["kind"] for record in play.records] == ["start", "finish"]


def test_without_log_all_access_what_was_never_sent_is_not(playbook: Callable[..., Play]) -> None:
    play = playbook(QUIET)
    play.ask({**CHAT, "model": "gpt-9"})
    assert play.client.transcript == ["refused: 404 model_not_found"]
    assert play.records == []


# A fault of our own


def test_a_fault_before_the_answer(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(play.pool, "take", lambda destination: 1 / 0)
    exchange = play.ask(CHAT)
    assert play.client.transcript == ["refused: 500 internal_error"]
    assert "division" not in play.client.writes[0].decode()
    assert [repr(fault) for fault in play.faults] == ["ZeroDivisionError('division by zero')"]
    play.faults.clear()
    assert exchange.state is State.ENDED


def test_a_fault_in_a_translation(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    lane = next(iter(play.targets["one"].lanes.values()))
    monkeypatch.setattr(lane, "translation", None)
    play.ask(CHAT)
    assert play.client.transcript == ["refused: 500 internal_error"]
    assert play.finish()["code"] == "internal_error"
    play.faults.clear()


def test_a_fault_in_the_middle_of_a_stream(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    play.ask(STREAM)
    play.provider().says(SSE_HEAD, chunk(delta("Hi")))
    monkeypatch.setattr(Exchange, "_flow", lambda exchange, data, end: 1 / 0)
    play.provider().says(chunk(delta("Hi")) + chunk(delta("there")))
    assert events(play.client.body)[-1]["error"]["code"] == "internal_error"
    assert play.client.transcript[-1] == "aborted"
    assert len(play.faults) == 1
    assert play.provider().gone
    play.faults.clear()


def test_a_fault_in_a_thread(playbook: Callable[..., Play]) -> None:
    play = playbook(configuration(chain="dlp-filter", policies=dlp(phase="[input, output]")))
    _screening(play)
    _, then = play.threads.pop()
    then(ZeroDivisionError("division by zero"))
    assert play.client.transcript == ["refused: 500 internal_error"]
    assert len(play.faults) == 1
    play.faults.clear()


def test_a_fault_in_a_review(playbook: Callable[..., Play]) -> None:
    play = playbook(configuration(chain="dlp-filter", policies=dlp(phase="[output]")))
    _reviewing(play)
    _, then = play.threads.pop()
    then(ZeroDivisionError("division by zero"))
    assert events(play.client.body)[-1]["error"]["code"] == "internal_error"
    play.faults.clear()


def test_a_transcript_is_json(play: Play) -> None:
    """Every record is one line of JSON, whatever the model is called."""
    play.ask({**CHAT, "model": "née\n\u2028 \U0001f600" + "x" * 1000})
    for record in play.audit:
        assert b"\n" not in record
        json.loads(record)
    assert len(play.records[0]["model"]) <= 256


# A connection that turned out dead before a byte of the request was written


def test_a_request_that_was_never_written_goes_out_again(play: Play) -> None:
    exchange = play.ask(CHAT)
    first = play.provider(0)
    first.connection.request_sent = False
    first.closes()
    assert exchange.state is State.WAITING
    assert play.provider(1).asked == first.asked
    play.provider(1).says(respond(answer()))
    assert play.finish()["outcome"] == "completed"
    assert play.finish()["attempts"] == 1


def test_it_goes_out_again_only_so_often(play: Play) -> None:
    play.ask(CHAT)
    for index in range(4):
        play.provider(index).connection.request_sent = False
        play.provider(index).closes()
    assert len(play.pool.providers) == 4
    assert play.finish()["code"] == "upstream_reset"


def test_the_use_of_a_key_is_counted_once(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str] = []
    monkeypatch.setattr(play.services, "count_use", lambda key, now: used.append(key.id))
    play.ask(CHAT)
    play.provider().says(respond(answer()))
    assert len(used) == 1
    play.ask({**CHAT, "model": "none"})
    assert len(used) == 2
