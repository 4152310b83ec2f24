"""Log probabilities: asked for by OpenAI's clients, answered by whoever has them, and noted where nobody has."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from gateway.sse import FrameSplitter, data_of
from gateway.types import Operation
from translators.plan import bind
from translators.providers import row_of

GEMINI_RESULT = {
    "topCandidates": [
        {"candidates": [{"token": "é", "logProbability": -0.25}, {"token": "e", "logProbability": -2.5}]},
        {"candidates": [{"token": "!", "logProbability": -0.5}]},
    ],
    "chosenCandidates": [{"token": "é", "logProbability": -0.25}, {"token": "!", "logProbability": -0.5}],
}
EXPECTED: list[dict[str, Any]] = [
    {
        "token": "é",
        "logprob": -0.25,
        "bytes": [195, 169],
        "top_logprobs": [
            {"token": "é", "logprob": -0.25, "bytes": [195, 169]},
            {"token": "e", "logprob": -2.5, "bytes": [101]},
        ],
    },
    {
        "token": "!",
        "logprob": -0.5,
        "bytes": [33],
        "top_logprobs": [{"token": "!", "logprob": -0.5, "bytes": [33]}],
    },
]
GEMINI = {
    "responseId": "r",
    "candidates": [
        {"content": {"parts": [{"text": "é!"}]}, "finishReason": "STOP", "index": 0, "logprobsResult": GEMINI_RESULT}
    ],
    "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 2},
}
OLLAMA = {"model": "m", "message": {"role": "assistant", "content": "é!"}, "done": True, "logprobs": EXPECTED}
CHAT = {
    "id": "c",
    "choices": [
        {"index": 0, "message": {"content": "é!"}, "logprobs": {"content": EXPECTED}, "finish_reason": "stop"},
    ],
}


def request(operation: Operation, provider: str, body: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    translation = bind(operation, row_of(provider))
    raw = orjson.dumps({"model": "m", **body})
    made = translation.request(raw, translation.view(raw), model="some-model", replacements={}, meter=True)
    return json.loads(made.body), made.notes


MESSAGES = {"messages": [{"role": "user", "content": "hi"}]}
INCLUDED = {"input": "hi", "include": ["message.output_text.logprobs"], "top_logprobs": 2}


class TestAsked:
    def test_of_gemini(self) -> None:
        body, notes = request(Operation.CHAT, "gemini", {**MESSAGES, "logprobs": True, "top_logprobs": 2})
        assert body["generationConfig"] == {"responseLogprobs": True, "logprobs": 2}
        assert notes == ()

    @pytest.mark.parametrize("provider", ["perplexity", "ollama-native"])
    def test_by_a_client_of_responses(self, provider: str) -> None:
        body, notes = request(Operation.RESPONSES, provider, INCLUDED)
        assert (body["logprobs"], body["top_logprobs"]) == (True, 2)
        assert notes == ()

    def test_a_number_of_them_alone_means_nothing(self) -> None:
        body, notes = request(Operation.RESPONSES, "perplexity", {"input": "hi", "top_logprobs": 2})
        assert "top_logprobs" not in body
        assert len(notes) == 1

    @pytest.mark.parametrize("provider", ["anthropic", "bedrock", "cohere"])
    def test_A29_of_who_has_none_it_is_noted(self, provider: str) -> None:
        _, notes = request(Operation.CHAT, provider, {**MESSAGES, "logprobs": True, "top_logprobs": 2})
        assert {note.partition(":")[0] for note in notes} >= {"logprobs", "top_logprobs"}

    @pytest.mark.parametrize("provider", ["anthropic", "bedrock", "cohere", "ollama-native", "gemini"])
    def test_A29_a_seed_is_passed_or_noted(self, provider: str) -> None:
        body, notes = request(Operation.CHAT, provider, {**MESSAGES, "seed": 7})
        assert ("7" in json.dumps(body)) != any(note.startswith("seed:") for note in notes)


class TestAnswered:
    @pytest.mark.parametrize(("provider", "answer"), [("gemini", GEMINI), ("ollama-native", OLLAMA)])
    def test_to_a_client_of_chat(self, provider: str, answer: dict[str, Any]) -> None:
        translation = bind(Operation.CHAT, row_of(provider))
        choice = json.loads(translation.answer(orjson.dumps(answer), "m"))["choices"][0]
        assert choice["logprobs"] == {"content": EXPECTED, "refusal": None}

    @pytest.mark.parametrize(
        ("provider", "answer"), [("gemini", GEMINI), ("ollama-native", OLLAMA), ("perplexity", CHAT)]
    )
    def test_to_a_client_of_responses(self, provider: str, answer: dict[str, Any]) -> None:
        translation = bind(Operation.RESPONSES, row_of(provider))
        (item,) = json.loads(translation.answer(orjson.dumps(answer), "m"))["output"]
        assert item["content"][0]["logprobs"] == EXPECTED

    @pytest.mark.parametrize(
        ("provider", "piece"),
        [
            ("gemini", b"data: " + orjson.dumps(GEMINI) + b"\n\n"),
            ("ollama-native", orjson.dumps(OLLAMA) + b"\n"),
        ],
    )
    def test_in_a_stream(self, provider: str, piece: bytes) -> None:
        chunks = streamed(Operation.CHAT, provider, piece)
        told = [chunk["choices"][0]["logprobs"] for chunk in chunks if chunk["choices"][0]["logprobs"]]
        assert told == [{"content": EXPECTED, "refusal": None}]

    def test_in_a_stream_of_responses(self) -> None:
        delta = {"index": 0, "delta": {"content": "é!"}, "logprobs": {"content": EXPECTED}}
        stop = {"index": 0, "delta": {}, "finish_reason": "stop"}
        piece = b"".join(b"data: %b\n\n" % orjson.dumps({"id": "c", "choices": [one]}) for one in (delta, stop))
        told = {event["type"]: event for event in streamed(Operation.RESPONSES, "perplexity", piece)}
        assert told["response.output_text.delta"]["logprobs"] == EXPECTED
        assert told["response.output_text.done"]["logprobs"] == EXPECTED
        assert told["response.completed"]["response"]["output"][0]["content"][0]["logprobs"] == EXPECTED


def streamed(operation: Operation, provider: str, piece: bytes) -> list[dict[str, Any]]:
    translator = bind(operation, row_of(provider)).stream("m", include_usage=False)
    out = translator.feed(piece) + translator.finish()
    found = [data_of(frame) for frame in FrameSplitter().feed(out)]
    return [json.loads(data) for data in found if data and data != b"[DONE]"]
