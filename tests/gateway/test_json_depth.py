"""How deep a request body may be nested, and that the operator can allow less."""

from __future__ import annotations

from collections.abc import Callable

import orjson
import pytest

from gateway.errors import InvalidJSON, InvalidRequest
from gateway.json_depth import views
from gateway.services import VIEWS
from gateway.types import Operation
from tests.playbook import Play, configuration, dlp, target
from translators.strict import MAX_DEPTH

BODIES = {
    Operation.CHAT: b'{"model":"gpt-test","messages":[],"metadata":%b}',
    Operation.MESSAGES: b'{"model":"gpt-test","max_tokens":1,"messages":[],"metadata":%b}',
    Operation.RESPONSES: b'{"model":"gpt-test","input":"a","metadata":%b}',
    Operation.EMBEDDINGS: b'{"model":"gpt-test","input":"a","metadata":%b}',
    Operation.COMPLETIONS: b'{"model":"gpt-test","prompt":"a","metadata":%b}',
}


def nested(operation: Operation, levels: int) -> bytes:
    """A body of so many levels."""
    inner = b"[" * (levels - 1) + b"]" * (levels - 1)
    return BODIES[operation] % inner


def test_the_usual_bound_costs_nothing() -> None:
    assert views(MAX_DEPTH) is VIEWS


@pytest.mark.parametrize("operation", BODIES)
@pytest.mark.parametrize("levels", [8, 20, MAX_DEPTH])
def test_the_bound_is_exact(operation: Operation, levels: int) -> None:
    view = views(levels)[operation]
    assert view(nested(operation, levels)).model == "gpt-test"
    with pytest.raises(InvalidJSON, match=f"more than {levels} levels"):
        view(nested(operation, levels + 1))


def test_white_space_before_a_body_hides_nothing() -> None:
    with pytest.raises(InvalidJSON):
        views(8)[Operation.CHAT](b" \n" + nested(Operation.CHAT, 9))


def test_brackets_in_strings_are_no_levels() -> None:
    text = orjson.dumps({"model": "gpt-test", "messages": [], "user": '[{"' * 100 + "\\"})
    assert views(8)[Operation.CHAT](text).model == "gpt-test"


@pytest.mark.parametrize("body", [b"", b"[" * 50, b'{"a":' * 50, b"\xff" * 50, b'{"model":"m"' + b"[" * 50])
def test_what_is_no_json_is_refused_as_that(body: bytes) -> None:
    with pytest.raises((InvalidJSON, InvalidRequest)):
        views(8)[Operation.CHAT](body)


@pytest.mark.parametrize("provider", ["openai-compatible", "anthropic", "gemini", "bedrock", "cohere", "ollama"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses"])
def test_what_can_be_read_and_not_be_written_is_no_fault(
    provider: str, path: str, playbook: Callable[..., Play]
) -> None:
    """JSON is written with at most 254 levels: a policy that redacts, or a translation, cannot pass more on."""
    region = {"aws_region": "eu-central-1"} if provider == "bedrock" else {}
    text = configuration(
        target(provider=provider, **region), chain="audit-logger, dlp-filter", policies=dlp("redact", terms="[secret]")
    )
    play = playbook(text)
    inner = b"[" * 250 + b"]" * 250
    tool = b'{"type":"function","name":"f","function":{"name":"f","parameters":{"a":%b}},"input_schema":{"a":%b}}'
    for body in (
        b'{"model":"gpt-test","max_tokens":5,"messages":[{"role":"user","content":[{"type":"text","text":"secret",'
        b'"x":%b}]}],"input":[{"role":"user","content":[{"type":"input_text","text":"secret","x":%b}]}]}'
        % (inner, inner),
        b'{"model":"gpt-test","max_tokens":5,"messages":[{"role":"user","content":"a"}],"input":"a","tools":[%b]}'
        % (tool % (inner, inner)),
    ):
        play.ask(body, path)
        while play.threads:
            play.work()
        assert play.client.error is None or play.client.error.status == 400
        if play.client.error is None:
            play.provider().says(b"HTTP/1.1 500 Oops\r\ncontent-length: 2\r\n\r\n{}")
    assert play.faults == []


def test_an_answer_that_can_be_read_and_not_be_written_is_the_providers_fault(playbook: Callable[..., Play]) -> None:
    play = playbook(configuration(chain="audit-logger, dlp-filter", policies=dlp("redact", "[output]", "[secret]")))
    play.ask(nested(Operation.CHAT, 3))
    answer = b'{"id":"c","x":%b,"choices":[{"index":0,"message":{"role":"assistant","content":"a secret"}}]}'
    answer %= b"[" * 300 + b"]" * 300
    play.provider().says(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(answer)
    )
    play.provider().says(answer)
    assert play.client.transcript == ["refused: 502 upstream_invalid"]


def test_a_lower_bound_holds_for_every_request_of_a_connection(playbook: Callable[..., Play]) -> None:
    play = playbook()
    play.services.views = views(10)
    for levels, status in ((10, 0), (11, 400)):
        play.ask(nested(Operation.CHAT, levels))
        assert play.client.status == status
        if not status:
            play.provider().says(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
    assert play.client.error is not None
    assert play.client.error.code == "invalid_json"
