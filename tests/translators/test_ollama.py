"""Ollama's own chat API behind OpenAI's clients."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from gateway.errors import InvalidRequest, UpstreamInvalid, UpstreamStatus
from gateway.sse import FrameSplitter, data_of
from gateway.types import Operation, Usage
from tests.recordings import Recording, load
from translators import ollama_answers_in
from translators.plan import bind
from translators.providers import PROVIDERS

BRIDGE = bind(Operation.CHAT, PROVIDERS["ollama-native"])
USER = {"role": "user", "content": "hi"}
RECORDED = [item for item in load("ollama") if item.path == "/api/chat"]


def streams(recording: Recording) -> bool:
    return len(recording.response_body.strip().splitlines()) > 1


def translate(body: dict[str, Any], model: str = "qwen3") -> tuple[dict[str, Any], tuple[str, ...]]:
    raw = orjson.dumps({"model": "m", **body})
    translated = BRIDGE.request(raw, BRIDGE.view(raw), model=model, replacements={}, meter=True)
    return json.loads(translated.body), translated.notes


def sent(body: dict[str, Any], model: str = "qwen3") -> dict[str, Any]:
    """The translated request; there must be nothing to note."""
    translated, notes = translate(body, model)
    assert notes == ()
    return translated


def tool(name: str = "f") -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}


class TestRequest:
    def test_the_frame(self) -> None:
        settings = {"max_tokens": 5, "temperature": 0, "top_p": 0.5, "stop": "X", "seed": 7, "stream": True}
        body = sent({"messages": [{"role": "developer", "content": "s"}, USER], **settings, "options": {"num_ctx": 9}})
        assert body == {
            "model": "qwen3",
            "messages": [{"role": "system", "content": "s"}, USER],
            "stream": True,
            "options": {"num_predict": 5, "temperature": 0, "top_p": 0.5, "stop": ["X"], "seed": 7, "num_ctx": 9},
        }

    def test_calls_and_results(self) -> None:
        call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1.0}'}}
        history = [
            USER,
            {"role": "assistant", "content": "so", "reasoning_content": "hm", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "a", "content": "ok"},
            USER,
        ]
        assert sent({"messages": history})["messages"][1:] == [
            {
                "role": "assistant",
                "content": "so",
                "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1.0}}}],
                "thinking": "hm",
            },
            {"role": "tool", "content": "ok", "tool_name": "f"},
            USER,
        ]

    def test_images(self) -> None:
        part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
        messages = [{"role": "user", "content": [{"type": "text", "text": "a"}, part]}]
        assert sent({"messages": messages})["messages"] == [{"role": "user", "content": "a", "images": ["AAAA"]}]
        with pytest.raises(InvalidRequest):
            translate({"messages": [{"role": "user", "content": [{**part, "image_url": {"url": "https://x/y"}}]}]})

    def test_structured_output_and_thinking(self) -> None:
        schema = {"type": "object", "properties": {"a": {"type": "string"}}}
        wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
        assert sent({"messages": [USER], "response_format": wanted})["format"] == schema
        assert sent({"messages": [USER], "response_format": {"type": "json_object"}})["format"] == "json"
        assert sent({"messages": [USER], "reasoning_effort": "low"})["think"] is True
        assert sent({"messages": [USER], "reasoning_effort": "none"})["think"] is False
        assert sent({"messages": [USER], "reasoning_effort": "xhigh"}, "gpt-oss:20b")["think"] == "high"

    def test_tool_choice(self) -> None:
        assert len(sent({"messages": [USER], "tools": [tool()], "tool_choice": "auto"})["tools"]) == 1
        assert "tools" not in sent({"messages": [USER], "tools": [tool()], "tool_choice": "none"})
        _, notes = translate({"messages": [USER], "tools": [tool()], "tool_choice": "required"})
        assert notes == ("tool_choice: Ollama cannot be made to call a tool; sent as auto",)
        named = {"type": "function", "function": {"name": "g"}}
        body, _ = translate({"messages": [USER], "tools": [tool("f"), tool("g")], "tool_choice": named})
        assert [entry["function"]["name"] for entry in body["tools"]] == ["g"]

    def test_what_ollama_does_not_have_is_noted(self) -> None:
        _, notes = translate({"messages": [USER], "logit_bias": {"1": 1}, "user": "u", "brand_new": 1})
        assert set(notes) == {f"{key}: not supported by Ollama" for key in ("logit_bias", "user", "brand_new")}


def passed(source: bytes, size: int = 1 << 30) -> tuple[bytes, Any]:
    translator = BRIDGE.stream("m", include_usage=True)
    out = b"".join(translator.feed(source[at : at + size]) for at in range(0, len(source), size))
    return out + translator.finish(), translator


def line(done: bool = False, **fields: Any) -> bytes:
    return orjson.dumps({"model": "q", "message": {"role": "assistant", "content": "", **fields}, "done": done}) + b"\n"


END = b'{"done":true,"done_reason":"stop","prompt_eval_count":3,"eval_count":4}'
CALL = {"function": {"name": "f", "arguments": {"x": 1}}}


class TestAnswers:
    def test_a_stream(self) -> None:
        source = line(thinking="hm") + line(content="a") + line(tool_calls=[CALL]) + line(tool_calls=[CALL]) + END
        out, translator = passed(source)
        found = [data_of(frame) for frame in FrameSplitter().feed(out)]
        chunks = [json.loads(data) for data in found if data not in (None, b"[DONE]")]
        deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]
        assert [entry["index"] for delta in deltas for entry in delta.get("tool_calls", ())] == [0, 0, 1, 1]
        assert deltas[1]["reasoning_content"] == "hm"
        assert chunks[-2]["choices"][0]["finish_reason"] == "tool_calls"
        assert translator.usage == Usage(prompt=3, completion=4)

    def test_an_error_within_a_stream(self) -> None:
        with pytest.raises(UpstreamStatus):
            passed(b'{"error":"out of memory"}\n')

    @pytest.mark.parametrize("source", [line(content="a"), b"{\n", b"[]\n", b'{"message":5}\n'])
    def test_a_stream_that_breaks_has_no_end(self, source: bytes) -> None:
        with pytest.raises(UpstreamInvalid):
            passed(source)

    def test_an_endless_line_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ollama_answers_in, "MAX_LINE_BYTES", 10)
        with pytest.raises(UpstreamInvalid):
            passed(line(content="a"))

    @pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"message":5}'])
    def test_garbage_is_a_bad_gateway(self, body: bytes) -> None:
        with pytest.raises(UpstreamInvalid):
            BRIDGE.answer(body, "m")


class TestRecorded:
    @pytest.mark.parametrize("recording", [item for item in RECORDED if not streams(item)], ids=str)
    def test_answers(self, recording: Recording) -> None:
        source = orjson.loads(recording.response)["message"]
        message = json.loads(BRIDGE.answer(recording.response, "m"))["choices"][0]["message"]
        assert (message["content"] or "") == source["content"]
        assert message.get("reasoning_content", "") == source.get("thinking", "")
        given = [json.loads(entry["function"]["arguments"]) for entry in message.get("tool_calls", ())]
        assert given == [entry["function"]["arguments"] for entry in source.get("tool_calls", ())]

    @pytest.mark.parametrize("recording", [item for item in RECORDED if streams(item)], ids=str)
    def test_T1_streams_assemble_to_what_was_said_however_they_are_cut(self, recording: Recording) -> None:
        whole, translator = passed(recording.response)
        assert passed(recording.response, size=61)[0] == whole
        said = "".join(json.loads(one)["message"]["content"] for one in recording.response_body.splitlines())
        assert "".join(part.text for part in translator.answer().texts if part.kind == "message") == said
