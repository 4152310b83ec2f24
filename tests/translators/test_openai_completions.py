"""Legacy completions in front of models that only chat."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from gateway.errors import InvalidRequest
from gateway.sse import FrameSplitter, data_of, frame_of
from gateway.types import Operation
from translators.dialect import Translated
from translators.plan import bind
from translators.providers import PROVIDERS, row_of, upstream_of

CHAT = bind(Operation.COMPLETIONS, row_of("perplexity"), now=lambda: 1_700_000_000)
CLAUDE = bind(Operation.COMPLETIONS, row_of("anthropic"))


def make(body: dict[str, Any], translation: Any = CHAT) -> Translated:
    raw = orjson.dumps({"model": "m", **body})
    made: Translated = translation.request(raw, translation.view(raw), model="up", replacements={}, meter=True)
    return made


def sent(body: dict[str, Any], translation: Any = CHAT) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(make(body, translation).body)
    return made


class TestRequest:
    @pytest.mark.parametrize("prompt", ["Once upon", ["Once upon"]])
    def test_the_prompt_is_a_message(self, prompt: Any) -> None:
        made = make({"prompt": prompt, "max_tokens": 50, "temperature": 0, "stop": ["\n"], "best_of": 1})
        assert json.loads(made.body) == {
            "model": "up",
            "messages": [{"role": "user", "content": "Once upon"}],
            "max_tokens": 50,
            "temperature": 0,
            "stop": ["\n"],
        }
        assert made.notes == ("prompt: asked as a user's message; this model only chats",)

    def test_without_a_limit_it_is_openais(self) -> None:
        assert sent({"prompt": "x"})["max_tokens"] == 16

    def test_to_claude(self) -> None:
        body = sent({"prompt": "x", "stream": True}, CLAUDE)
        assert (body["messages"][0]["role"], body["max_tokens"], body["stream"]) == ("user", 16, True)

    def test_log_probabilities(self) -> None:
        body = sent({"prompt": "x", "logprobs": 3})
        assert (body["logprobs"], body["top_logprobs"]) == (True, 3)
        assert "top_logprobs" not in sent({"prompt": "x", "logprobs": 0})

    @pytest.mark.parametrize(
        ("body", "param"),
        [
            ({}, "prompt"),
            ({"prompt": ""}, "prompt"),
            ({"prompt": [1, 2]}, "prompt"),
            ({"prompt": ["a", "b"]}, "prompt"),
            ({"prompt": "x", "suffix": "y"}, "suffix"),
            ({"prompt": "x", "best_of": 2}, "best_of"),
            ({"prompt": "x", "echo": True, "logprobs": 1}, "echo"),
        ],
    )
    def test_what_a_chat_cannot_do_is_refused(self, body: dict[str, Any], param: str) -> None:
        with pytest.raises(InvalidRequest) as caught:
            make(body)
        assert caught.value.param == param

    def test_several_answers_of_a_model_that_gives_one(self) -> None:
        with pytest.raises(InvalidRequest):
            make({"prompt": "x", "n": 2}, CLAUDE)

    def test_several_answers_in_a_stream(self) -> None:
        assert sent({"prompt": "x", "n": 2})["n"] == 2
        with pytest.raises(InvalidRequest) as caught:
            make({"prompt": "x", "n": 2, "stream": True})
        assert caught.value.param == "n"

    @pytest.mark.parametrize("name", PROVIDERS)
    def test_wherever_there_is_a_chat_there_are_completions(self, name: str) -> None:
        assert bind(Operation.COMPLETIONS, row_of(name))
        address = row_of(name).base_url or "https://host.example"
        assert upstream_of(row_of(name), base_url=address, model="m").path(Operation.COMPLETIONS, stream=True)


CHANCES = [
    {"token": "He", "logprob": -0.5, "top_logprobs": [{"token": "He", "logprob": -0.5}, {"token": "H", "logprob": -2}]},
    {"token": "llo", "logprob": -0.25, "top_logprobs": []},
]
OLDER = {
    "tokens": ["He", "llo"],
    "token_logprobs": [-0.5, -0.25],
    "top_logprobs": [{"He": -0.5, "H": -2}, None],
    "text_offset": [0, 2],
}


def answer(**choice: Any) -> bytes:
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    whole = {"index": 0, "message": {"content": "Hello"}, "finish_reason": "stop", **choice}
    return orjson.dumps({"id": "c", "choices": [whole, {**whole, "index": 1}], "usage": usage})


class TestAnswer:
    def test_whole(self) -> None:
        assert json.loads(CHAT.answer(answer(), "m")) == {
            "id": "cmpl-c",
            "object": "text_completion",
            "created": 1_700_000_000,
            "model": "m",
            "choices": [
                {"text": "Hello", "index": index, "logprobs": None, "finish_reason": "stop"} for index in (0, 1)
            ],
            "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
        }

    def test_with_its_prompt(self) -> None:
        carried = make({"prompt": "Say: ", "echo": True}).carried
        assert json.loads(CHAT.answer(answer(), "m", carried))["choices"][0]["text"] == "Say: Hello"

    def test_log_probabilities(self) -> None:
        told = json.loads(CHAT.answer(answer(logprobs={"content": CHANCES}), "m"))
        assert told["choices"][0]["logprobs"] == OLDER

    @pytest.mark.parametrize(("reason", "told"), [("length", "length"), ("content_filter", "content_filter")])
    def test_reasons(self, reason: str, told: str) -> None:
        assert json.loads(CHAT.answer(answer(finish_reason=reason), "m"))["choices"][0]["finish_reason"] == told

    def test_what_was_told_is_read(self) -> None:
        view = CHAT.read(CHAT.answer(answer(), "m"))
        assert [part.text for part in view.texts] == ["Hello", "Hello"]
        assert view.usage is not None
        assert view.usage.total == 5


def streamed(body: dict[str, Any], *deltas: dict[str, Any]) -> list[Any]:
    """Each chunk as it comes out, one call for each delta; then what the end brings."""
    made = make({"prompt": "Say: ", "stream": True, **body})
    translator = CHAT.stream("m", include_usage=bool(body.get("stream_options")), carried=made.carried)
    frames = [frame_of(orjson.dumps({"id": "c", "choices": [{"index": 0, "delta": {}, **delta}]})) for delta in deltas]
    frames.append(frame_of(b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}'))
    out = [translator.feed(frame) for frame in frames]
    last = translator.feed(b"data: [DONE]\n\n") + translator.finish()
    chunks = []
    for piece in [*out, last]:
        found = [data_of(frame) for frame in FrameSplitter().feed(piece)]
        chunks.append([data if data == b"[DONE]" else json.loads(data or b"") for data in found])
    return chunks


class TestStream:
    HELLO = ({"delta": {"content": "He"}}, {"delta": {"content": "llo"}}, {"finish_reason": "stop"})

    def test_each_piece_in_its_turn(self) -> None:
        first, second, _, _, last = streamed({}, *self.HELLO)
        assert [first[0]["choices"][0]["text"], second[0]["choices"][0]["text"]] == ["He", "llo"]
        assert last[0]["choices"][0] == {"text": "", "index": 0, "logprobs": None, "finish_reason": "stop"}
        assert last[1:] == [b"[DONE]"]
        assert "usage" not in last[0]

    def test_usage_where_it_was_asked_for(self) -> None:
        *_, last = streamed({"stream_options": {"include_usage": True}}, *self.HELLO)
        assert last[0]["usage"] is None
        assert last[1]["choices"] == []
        assert last[1]["usage"]["total_tokens"] == 5

    def test_with_its_prompt(self) -> None:
        first, second, *_ = streamed({"echo": True}, *self.HELLO)
        assert [first[0]["choices"][0]["text"], second[0]["choices"][0]["text"]] == ["Say: He", "llo"]

    def test_log_probabilities_go_on_counting(self) -> None:
        deltas = [{"delta": {"content": chance["token"]}, "logprobs": {"content": [chance]}} for chance in CHANCES]
        first, second, *_ = streamed({"logprobs": 2}, *deltas, {"finish_reason": "stop"})
        told = [chunk[0]["choices"][0]["logprobs"] for chunk in (first, second)]
        assert [one["text_offset"] for one in told] == [[0], [2]]
        assert told[0]["top_logprobs"] == [{"He": -0.5, "H": -2}]
