"""`count_tokens` in front of every provider: passed on, asked of the provider's own counter, or estimated and noted."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from gateway.errors import InvalidRequest, UpstreamInvalid
from gateway.types import Operation, Usage
from translators.dialect import Translated, estimated_tokens
from translators.plan import bind
from translators.providers import PROVIDERS, row_of, upstream_of
from translators.token_counts import MAX_COUNTED_BYTES

TOOL = {"name": "look", "description": "d", "input_schema": {"type": "object", "properties": {}}}
BODY: dict[str, Any] = {
    "model": "m",
    "system": "be kind",
    "messages": [{"role": "user", "content": "hello"}],
    "tools": [TOOL],
}


def count(provider: str, model: str, body: dict[str, Any] = BODY) -> Translated:
    translation = bind(Operation.COUNT_TOKENS, row_of(provider))
    raw = orjson.dumps(body)
    return translation.request(raw, translation.view(raw), model=model, replacements={}, meter=True)


def test_to_anthropic_it_passes() -> None:
    translation = bind(Operation.COUNT_TOKENS, row_of("anthropic"))
    assert translation.identity
    assert upstream_of(row_of("anthropic")).path(Operation.COUNT_TOKENS, stream=False) == "/v1/messages/count_tokens"
    raw = orjson.dumps(BODY)
    assert translation.request(raw, translation.view(raw), model="m", replacements={}, meter=True).body is raw
    assert translation.usage(b'{"input_tokens":9}') == Usage()


def test_gemini() -> None:
    made = count("gemini", "gemini-2.5-flash")
    inner = json.loads(made.body)["generateContentRequest"]
    assert inner["model"] == "models/gemini-2.5-flash"
    assert inner["systemInstruction"] == {"parts": [{"text": "be kind"}]}
    assert inner["tools"]
    assert upstream_of(row_of("gemini"), model="g").path(Operation.COUNT_TOKENS, stream=False).endswith("g:countTokens")
    answer = bind(Operation.COUNT_TOKENS, row_of("gemini")).answer(b'{"totalTokens":31,"promptTokensDetails":[]}', "m")
    assert answer == b'{"input_tokens":31}'


def test_vertex_takes_no_wrapper() -> None:
    assert json.loads(count("vertex", "gemini-2.5-flash").body).keys() == {"contents", "systemInstruction", "tools"}


def test_bedrock_for_claude() -> None:
    made = json.loads(count("bedrock", "anthropic.claude-sonnet-4-5", {**BODY, "max_tokens": 9}).body)
    assert made["input"]["converse"].keys() == {"messages", "system", "toolConfig"}
    answer = bind(Operation.COUNT_TOKENS, row_of("bedrock")).answer(b'{"inputTokens":31}', "m")
    assert answer == b'{"input_tokens":31}'


def test_openai() -> None:
    made = json.loads(count("openai", "gpt-5", {**BODY, "max_tokens": 9, "stream": True}).body)
    assert made.keys() == {"model", "input", "tools"}
    path = upstream_of(row_of("openai")).path(Operation.COUNT_TOKENS, stream=False)
    assert path == "/v1/responses/input_tokens"
    answer = bind(Operation.COUNT_TOKENS, row_of("openai")).answer(b'{"input_tokens":31}', "m")
    assert answer == b'{"input_tokens":31}'


@pytest.mark.parametrize(
    ("provider", "model"), [("groq", "m"), ("cohere", "m"), ("mock", "m"), ("bedrock", "amazon.nova-pro-v1:0")]
)
def test_who_has_no_counter_is_not_asked(provider: str, model: str) -> None:
    made = count(provider, model)
    assert made.local is not None
    assert json.loads(made.local)["input_tokens"] == pytest.approx(len(orjson.dumps(BODY)) / 4, abs=2)
    assert made.notes == (f"input_tokens: estimated; {provider} has no counter for this model",)


def test_C23_a_very_large_one_is_estimated() -> None:
    big = {**BODY, "messages": [{"role": "user", "content": "word " * (MAX_COUNTED_BYTES // 4)}]}
    made = count("gemini", "gemini-2.5-flash", big)
    assert made.local is not None
    assert "too large" in made.notes[0]


@pytest.mark.parametrize("name", PROVIDERS)
def test_wherever_there_is_a_chat_there_is_a_count(name: str) -> None:
    assert bind(Operation.COUNT_TOKENS, row_of(name))


@pytest.mark.parametrize("answer", [b"", b"{}", b"[]", b'{"totalTokens":"x"}'])
def test_an_answer_without_a_number(answer: bytes) -> None:
    with pytest.raises(UpstreamInvalid):
        bind(Operation.COUNT_TOKENS, row_of("gemini")).answer(answer, "m")


def test_a_request_that_cannot_be_asked() -> None:
    with pytest.raises(InvalidRequest):
        count("gemini", "gemini-2.5-flash", {"model": "m", "messages": []})


class TestEstimate:
    def test_four_bytes_a_token(self) -> None:
        assert estimated_tokens(b"x" * 400) == 101

    @pytest.mark.parametrize(
        "image",
        [
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 1_000_000}},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 1_000_000}},
        ],
    )
    def test_a_picture_is_not_a_million_bytes_of_text(self, image: dict[str, Any]) -> None:
        body = orjson.dumps({"messages": [{"role": "user", "content": [image, image]}]})
        assert 3200 <= estimated_tokens(body) < 3400

    @pytest.mark.parametrize("body", [b"base64", b'base64"data"', b';base64,"', b'"base64","data":"' + b"A" * 5000])
    def test_odd_ends(self, body: bytes) -> None:
        assert estimated_tokens(body) == len(body) // 4 + 1

    def test_text_about_base64(self) -> None:
        body = b'{"content":"what is base64, and why is it ' + b"x" * 4000 + b'"}'
        assert estimated_tokens(body) > 0
