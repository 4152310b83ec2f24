"""`explain`: says what an exchange would do, and is held against what an exchange does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import orjson
import pytest

from gateway.config.load import load_text
from gateway.errors import GatewayError, InvalidJSON, InvalidRequest, MalformedHTTP, NotFound
from gateway.explain import Question, compile_apart, explain
from tests.playbook import Play, configuration, dlp, target

CHAT: dict[str, Any] = {"model": "gpt-test", "messages": [{"role": "user", "content": "Hello"}], "seed": 7}
CLAUDE = target("claude", provider="anthropic", upstream_model="claude-sonnet-4-5")
GPT = target("gpt")
SECRET = "sk-provider"


def explained(
    text: str, body: Any = CHAT, environment: Mapping[str, str] = {"PROVIDER_KEY": SECRET}, **more: Any
) -> Any:
    snapshot = compile_apart([load_text(text, "play.yaml")], environment)
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    told = explain(snapshot, Question(msgspec.Raw(raw), **more))
    assert SECRET not in orjson.dumps(told).decode()
    return told


@pytest.mark.parametrize("provider", ["openai-compatible", "anthropic", "gemini", "cohere", "ollama"])
@pytest.mark.parametrize("stream", [False, True])
def test_it_shows_what_an_exchange_sends(provider: str, stream: bool, playbook: Callable[..., Play]) -> None:
    text = configuration(target("one", provider=provider))
    body = {**CHAT, "stream": stream}
    play = playbook(text)
    exchange = play.ask(body, headers=["X-Mine: 1", "OpenAI-Beta: x=1"])
    (told,) = explained(text, body, headers={"X-Mine": "1", "OpenAI-Beta": "x=1"})["targets"]
    sent = play.provider()
    assert told["body"] == sent.body
    assert told["notes"] == list(exchange.translated.notes)
    expected = {name: value for name, value in sent.headers.items() if name not in ("x-request-id", "content-length")}
    masked = {name: "[secret]" if SECRET in value else value for name, value in expected.items()}
    assert told["headers"] == masked
    assert told["url"] == f"http://one.test{sent.asked.split(b' ')[1].decode()}"
    exchange.on_client_gone()


def test_the_route_is_told_in_order_with_why_a_target_is_left_out() -> None:
    nameless = target("keyless").replace("PROVIDER_KEY", "ABSENT")
    told = explained(configuration(nameless, CLAUDE, GPT, gateway="gateway: {strict_translation: true}"))
    assert [one["id"] for one in told["targets"]] == ["keyless", "claude", "gpt"]
    keyless, claude, gpt = told["targets"]
    assert "`ABSENT` is not set" in keyless["refusal"]
    assert "seed" in claude["refusal"]
    assert claude["param"] == "seed"
    assert (gpt["refusal"], gpt["translated"]) == (None, False)
    assert told["outcome"] == {"status": None, "code": None, "message": "sent to gpt", "target": "gpt"}
    assert told["strategy"] == {"name": "ordered", "order": "in the order of the configuration"}


def test_policies_speak_and_their_redaction_is_in_the_body() -> None:
    text = configuration(GPT, policies=dlp(action="redact"), chain="audit-logger, dlp-filter")
    told = explained(text, {"model": "gpt-test", "messages": [{"role": "user", "content": "a secret"}]})
    assert told["policies"]["verdict"] == "redact"
    assert told["policies"]["redacted_texts"] == 1
    assert [one["policy"] for one in told["policies"]["decisions"] if one["verdict"] == "redact"] == ["dlp-filter"]
    assert "secret" not in told["targets"][0]["body"]["messages"][0]["content"]


def test_a_refusal_is_an_outcome_and_the_translation_is_shown_all_the_same() -> None:
    text = configuration(CLAUDE, policies=dlp(), chain="audit-logger, dlp-filter")
    told = explained(text, {"model": "gpt-test", "messages": [{"role": "user", "content": "a secret"}]})
    assert (told["outcome"]["status"], told["outcome"]["code"]) == (409, "input_blocked")
    assert told["targets"][0]["translated"]


@pytest.mark.parametrize(
    ("text", "body", "status", "code"),
    [
        (configuration(GPT), {**CHAT, "model": "none"}, 404, "model_not_found"),
        (configuration(CLAUDE), {**CHAT, "n": 2}, 400, "invalid_request"),
        (configuration(GPT.replace("PROVIDER_KEY", "ABSENT")), CHAT, 503, "upstream_unavailable"),
    ],
)
def test_what_would_be_refused_is_told_with_its_status(text: str, body: Any, status: int, code: str) -> None:
    outcome = explained(text, body)["outcome"]
    assert (outcome["status"], outcome["code"], outcome["target"]) == (status, code, None)


def test_secrets_in_an_operators_own_headers_are_masked() -> None:
    headers = "{x-api-key: abc, x-team-token: def, x-team: blue}"
    told = explained(configuration(target("one", headers=headers)))["targets"][0]["headers"]
    assert (told["x-api-key"], told["x-team-token"], told["x-team"]) == ("[secret]", "[secret]", "blue")


def test_a_clients_credentials_are_not_shown_at_all() -> None:
    told = explained(configuration(GPT), headers={"Authorization": "Bearer kt_gk_mine", "Cookie": "a=b"})
    assert "kt_gk_mine" not in str(told)
    assert "cookie" not in told["targets"][0]["headers"]


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"body": b"{"}, InvalidJSON),
        ({"path": "/nowhere"}, NotFound),
        ({"path": "/v1/models"}, GatewayError),
        ({"path": "/v1/audio/transcriptions"}, InvalidRequest),
        ({"path": "/v1/messages HTTP/1.1\r\nX: y"}, InvalidRequest),
        ({"headers": {"a": "b\nc: d"}}, InvalidRequest),
        ({"headers": {"a b": "c"}}, MalformedHTTP),
        ({"configuration": "other"}, InvalidRequest),
    ],
)
def test_what_is_no_question(more: dict[str, Any], error: type[GatewayError]) -> None:
    with pytest.raises(error):
        explained(configuration(GPT), **more)


def test_who_is_not_asked_is_named() -> None:
    settings = "\n  human-oversight: {}\n"
    told = explained(configuration(GPT, policies=settings, chain="audit-logger, human-oversight"))
    assert told["policies"]["not_asked"] == ["human-oversight"]
