"""Cohere behind OpenAI's clients."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from gateway.errors import InvalidRequest, UpstreamInvalid, UpstreamStatus
from gateway.sse import FrameSplitter, data_of, frame_of
from gateway.types import Operation, Usage
from tests.recordings import Recording, load
from translators.plan import bind
from translators.providers import PROVIDERS

BRIDGE = bind(Operation.CHAT, PROVIDERS["cohere"])
USER = {"role": "user", "content": "hi"}
RECORDED = [item for item in load("cohere") if item.path == "/v2/chat"]


def translate(body: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    raw = orjson.dumps({"model": "m", **body})
    translated = BRIDGE.request(raw, BRIDGE.view(raw), model="command-a", replacements={}, meter=True)
    return json.loads(translated.body), translated.notes


def sent(body: dict[str, Any]) -> dict[str, Any]:
    """The translated request; there must be nothing to note."""
    translated, notes = translate(body)
    assert notes == ()
    return translated


def tool(name: str = "f", **function: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object"}, **function}}


CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}


class TestRequest:
    def test_the_frame(self) -> None:
        body = sent(
            {
                "messages": [{"role": "developer", "content": "s"}, USER],
                "max_tokens": 5,
                "temperature": 0,
                "top_p": 0.5,
                "stop": "X",
                "seed": 7,
                "stream": True,
            }
        )
        assert body == {
            "model": "command-a",
            "messages": [{"role": "system", "content": "s"}, USER],
            "max_tokens": 5,
            "temperature": 0,
            "p": 0.5,
            "stop_sequences": ["X"],
            "seed": 7,
            "stream": True,
        }

    def test_calls_their_plan_and_results(self) -> None:
        history = [
            USER,
            {"role": "assistant", "content": "let me", "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "a", "content": "ok"},
        ]
        assert sent({"messages": history})["messages"][1:] == [
            {"role": "assistant", "tool_calls": [CALL], "tool_plan": "let me"},
            {"role": "tool", "tool_call_id": "a", "content": "ok"},
        ]

    @pytest.mark.parametrize(("choice", "expected"), [("auto", None), ("required", "REQUIRED"), ("none", "NONE")])
    def test_tool_choice(self, choice: str, expected: str | None) -> None:
        assert sent({"messages": [USER], "tools": [tool()], "tool_choice": choice}).get("tool_choice") == expected

    def test_a_named_tool_is_left_alone(self) -> None:
        choice = {"type": "function", "function": {"name": "g"}}
        body, notes = translate({"messages": [USER], "tools": [tool("f"), tool("g")], "tool_choice": choice})
        assert [entry["function"]["name"] for entry in body["tools"]] == ["g"]
        assert body["tool_choice"] == "REQUIRED"
        assert len(notes) == 1

    def test_strict_tools_structured_output_thinking(self) -> None:
        schema = {"type": "object", "properties": {"a": {"type": "string"}}}
        wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
        body = sent({"messages": [USER], "tools": [tool(strict=True)], "response_format": wanted})
        assert body["strict_tools"] is True
        assert body["response_format"] == {"type": "json_object", "json_schema": schema}
        assert sent({"messages": [USER], "reasoning_effort": "none"})["thinking"] == {"type": "disabled"}
        thinking = sent({"messages": [USER], "reasoning_effort": "low"})["thinking"]
        assert thinking == {"type": "enabled", "token_budget": 2048}

    def test_images(self) -> None:
        part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}}
        assert sent({"messages": [{"role": "user", "content": [part]}]})["messages"][0]["content"] == [part]

    def test_what_cohere_does_not_have_is_noted(self) -> None:
        settings = {"logprobs": True, "logit_bias": {"1": 1}, "user": "u", "brand_new": 1}
        _, notes = translate({"messages": [USER], "parallel_tool_calls": False, "tools": [tool()], **settings})
        assert set(notes) == {f"{key}: not supported by Cohere" for key in (*settings, "parallel_tool_calls")}

    @pytest.mark.parametrize(
        ("body", "param"),
        [
            ({"messages": [USER], "n": 2}, "n"),
            ({"messages": [{"role": "user", "content": ""}]}, "messages"),
            (
                {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_data": "AAAA"}}]}]},
                "messages[0].content[0]",
            ),
        ],
    )
    def test_what_cannot_be_sent_is_refused(self, body: dict[str, Any], param: str) -> None:
        with pytest.raises(InvalidRequest) as caught:
            translate(body)
        assert caught.value.param == param


def stream(*events: dict[str, Any]) -> tuple[list[dict[str, Any]], Any]:
    out, translator = passed(b"".join(frame_of(orjson.dumps(event), event["type"].encode()) for event in events))
    found = [data_of(frame) for frame in FrameSplitter().feed(out)]
    return [json.loads(data) for data in found if data not in (None, b"[DONE]")], translator


def passed(source: bytes, size: int = 1 << 30) -> tuple[bytes, Any]:
    translator = BRIDGE.stream("m", include_usage=True)
    out = b"".join(translator.feed(source[at : at + size]) for at in range(0, len(source), size))
    return out + translator.finish(), translator


def end(reason: str = "COMPLETE") -> dict[str, Any]:
    usage = {"billed_units": {"input_tokens": 1}, "tokens": {"input_tokens": 9, "output_tokens": 4}}
    return {"type": "message-end", "delta": {"finish_reason": reason, "usage": usage}}


class TestAnswers:
    @pytest.mark.parametrize(
        ("reason", "finish", "native"),
        [
            ("COMPLETE", "stop", None),
            ("STOP_SEQUENCE", "stop", "STOP_SEQUENCE"),
            ("MAX_TOKENS", "length", None),
            ("TOOL_CALL", "tool_calls", None),
            ("BRAND_NEW", "stop", "BRAND_NEW"),
        ],
    )
    def test_reasons(self, reason: str, finish: str, native: str | None) -> None:
        body = {"id": "x", "message": {"content": [{"type": "text", "text": "a"}]}, "finish_reason": reason}
        choice = json.loads(BRIDGE.answer(orjson.dumps(body), "m"))["choices"][0]
        assert (choice["finish_reason"], choice.get("native_finish_reason")) == (finish, native)
        found, translator = stream({"type": "message-start", "id": "x"}, end(reason))
        assert found[-2]["choices"][0]["finish_reason"] == finish
        assert translator.usage == Usage(prompt=9, completion=4)

    def test_a_model_that_failed(self) -> None:
        body = {"id": "x", "message": {"content": []}, "finish_reason": "ERROR"}
        with pytest.raises(UpstreamStatus):
            BRIDGE.answer(orjson.dumps(body), "m")
        with pytest.raises(UpstreamStatus):
            stream({"type": "message-start", "id": "x"}, end("TIMEOUT"))

    def test_a_stream_that_breaks_has_no_end(self) -> None:
        with pytest.raises(UpstreamInvalid):
            stream({"type": "message-start", "id": "x"})

    @pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"message":{"content":[{}]}}'])
    def test_garbage_is_a_bad_gateway(self, body: bytes) -> None:
        with pytest.raises(UpstreamInvalid):
            BRIDGE.answer(body, "m")
        with pytest.raises(UpstreamInvalid):
            passed(b"data: %b\n\n" % body)


class TestRecorded:
    @pytest.mark.parametrize("recording", [item for item in RECORDED if not item.streams], ids=str)
    def test_answers(self, recording: Recording) -> None:
        source = orjson.loads(recording.response)
        body = json.loads(BRIDGE.answer(recording.response, "m"))
        message, given = source["message"], body["choices"][0]["message"]
        texts = [part["text"] for part in message.get("content", ()) if part["type"] == "text"]
        assert (given["content"] or "") == "".join(texts)
        calls = [call["function"] for call in message.get("tool_calls", ())]
        assert [call["function"] for call in given.get("tool_calls", ())] == calls
        assert body["usage"]["prompt_tokens"] == source["usage"]["tokens"]["input_tokens"]

    @pytest.mark.parametrize("recording", [item for item in RECORDED if item.streams], ids=str)
    def test_T1_streams_assemble_to_what_was_said_however_they_are_cut(self, recording: Recording) -> None:
        whole, translator = passed(recording.response)
        assert passed(recording.response, size=7)[0] == whole
        source = [json.loads(line[5:]) for line in recording.response_body.splitlines() if line.startswith("data: {")]
        texts = [
            item["delta"]["message"]["content"].get("text", "")
            for item in source
            if item["type"] in ("content-start", "content-delta")
        ]
        said = "".join(part.text for part in translator.answer().texts if part.kind == "message")
        assert said == "".join(texts)
