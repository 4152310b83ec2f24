"""OpenAI's answers as Anthropic's clients get them: section C of the list of translation pitfalls, second half."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from gateway.errors import UpstreamInvalid, UpstreamStatus
from gateway.sse import FrameSplitter, data_of, event_of, frame_of
from gateway.types import Operation, Usage
from tests.recordings import Recording, select
from translators.dialect import Carried
from translators.plan import bind
from translators.providers import PROVIDERS

BRIDGE = bind(Operation.MESSAGES, PROVIDERS["openai"])
CARRIED = Carried(prompt_tokens=42)
RECORDED = [
    item
    for item in select("openai", "azure-openai", "groq", "mistral", "deepseek", "together", "openrouter", "vllm",
                       suffix="chat/completions")
    if item.status == 200 and item.response and '"error"' not in item.response_body
]  # fmt: skip


def answer(message: dict[str, Any], reason: str = "stop", **fields: Any) -> dict[str, Any]:
    completion = {"id": "x", "model": "up", "choices": [{"index": 0, "message": message, "finish_reason": reason}]}
    return json.loads(BRIDGE.answer(orjson.dumps({**completion, **fields}), "claude-x"))


def chunk(delta: dict[str, Any] | None = None, reason: str | None = None, **fields: Any) -> bytes:
    choice = {"index": 0, "delta": delta or {}, "finish_reason": reason}
    return frame_of(orjson.dumps({"id": "x", "model": "up", "choices": [choice], **fields}))


DONE = b"data: [DONE]\n\n"


def call(index: int, arguments: str = "", call_id: str | None = None, name: str = "f") -> dict[str, Any]:
    function: dict[str, Any] = {"arguments": arguments}
    entry: dict[str, Any] = {"index": index, "function": function}
    if call_id is not None:
        function["name"] = name
        entry |= {"id": call_id, "type": "function"}
    return entry


def stream(source: bytes, size: int = 1 << 30) -> tuple[bytes, Any]:
    translator = BRIDGE.stream("claude-x", include_usage=True, carried=CARRIED)
    out = b"".join(translator.feed(source[at : at + size]) for at in range(0, len(source), size))
    return out + translator.finish(), translator


def events(source: bytes) -> list[dict[str, Any]]:
    """The events of a stream, after the checks that hold for every one."""
    frames = FrameSplitter().feed(stream(source)[0])
    found = [json.loads(data_of(frame) or b"") for frame in frames]
    assert [event["type"].encode() for event in found] == [event_of(frame) for frame in frames]
    well_formed(found)
    return found


def well_formed(found: list[dict[str, Any]]) -> None:
    """One start, one stop; blocks in order, each opened and closed once with its deltas inside."""
    kinds = [event["type"] for event in found if event["type"] != "ping"]
    assert kinds[0] == "message_start"
    assert kinds[-2:] == ["message_delta", "message_stop"]
    assert kinds.count("message_start") == kinds.count("message_stop") == kinds.count("message_delta") == 1
    open_block, count = None, 0
    for event in found:
        if event["type"] == "content_block_start":
            assert open_block is None
            assert event["index"] == count
            open_block, count = count, count + 1
        elif event["type"] == "content_block_delta":
            assert event["index"] == open_block
        elif event["type"] == "content_block_stop":
            assert event["index"] == open_block
            open_block = None
    assert open_block is None


def blocks(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The content that a client assembles."""
    content: list[dict[str, Any]] = []
    for event in found:
        if event["type"] == "content_block_start":
            content.append(dict(event["content_block"]))
            content[-1].pop("input", None)
        elif event["type"] == "content_block_delta":
            for key, value in event["delta"].items():
                if key != "type":
                    content[-1][key] = content[-1].get(key, "") + value
    return content


class TestAnswer:
    def test_the_frame(self) -> None:
        usage = {"prompt_tokens": 3, "completion_tokens": 4}
        assert answer({"role": "assistant", "content": "a"}, usage=usage) == {
            "id": "msg_x",
            "type": "message",
            "role": "assistant",
            "model": "claude-x",
            "content": [{"type": "text", "text": "a"}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {
                "input_tokens": 3,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
                "output_tokens": 4,
            },
        }

    def test_C7_the_cached_prompt_is_counted_apart(self) -> None:
        details = {"cached_tokens": 75}
        usage = {"prompt_tokens": 100, "completion_tokens": 5, "prompt_tokens_details": details}
        body = answer({"content": "a"}, usage=usage)["usage"]
        assert (body["input_tokens"], body["cache_read_input_tokens"], body["output_tokens"]) == (25, 75, 5)

    def test_text_thinking_and_calls(self) -> None:
        message = {
            "content": "a",
            "reasoning_content": "hm",
            "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"x": 1.0}'}}],
        }
        body = answer(message, "tool_calls")
        assert body["content"] == [
            {"type": "thinking", "thinking": "hm", "signature": ""},
            {"type": "text", "text": "a"},
            {"type": "tool_use", "id": "c", "name": "f", "input": {"x": 1.0}},
        ]
        assert body["stop_reason"] == "tool_use"

    @pytest.mark.parametrize(
        ("reason", "expected"),
        [
            ("stop", "end_turn"),
            ("length", "max_tokens"),
            ("tool_calls", "tool_use"),
            ("function_call", "tool_use"),
            ("content_filter", "refusal"),
            ("brand_new", "end_turn"),
        ],
    )
    def test_C21_stop_reasons(self, reason: str, expected: str) -> None:
        assert answer({"content": "a"}, reason)["stop_reason"] == expected
        found = events(chunk({"content": "a"}) + chunk(reason=reason) + DONE)
        assert found[-2]["delta"]["stop_reason"] == expected

    def test_calls_that_ended_with_stop(self) -> None:
        calls = [{"id": "c", "function": {"name": "f", "arguments": ""}}]
        body = answer({"content": None, "tool_calls": calls}, "stop")
        assert (body["stop_reason"], body["content"][0]["input"]) == ("tool_use", {})

    def test_a_refusal_is_text(self) -> None:
        assert answer({"content": None, "refusal": "no"})["content"] == [{"type": "text", "text": "no"}]

    @pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"choices":5}', b'{"choices":[5]}'])
    def test_garbage_is_a_bad_gateway(self, body: bytes) -> None:
        with pytest.raises(UpstreamInvalid):
            BRIDGE.answer(body, "m")


class TestStream:
    def test_C1_text_then_a_call(self) -> None:
        found = events(
            chunk({"role": "assistant", "content": ""})
            + chunk({"content": "let me"})
            + chunk({"tool_calls": [call(0, "", "c")]})
            + chunk({"tool_calls": [call(0, '{"a":')]})
            + chunk({"tool_calls": [call(0, "1}")]})
            + chunk(reason="tool_calls")
            + DONE
        )
        assert blocks(found) == [
            {"type": "text", "text": "let me"},
            {"type": "tool_use", "id": "c", "name": "f", "partial_json": '{"a":1}'},
        ]
        assert found[-2]["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}

    def test_C2_interleaved_calls_are_told_one_after_the_other(self) -> None:
        found = events(
            chunk({"tool_calls": [call(0, "", "c"), call(1, "", "d", "g")]})
            + chunk({"tool_calls": [call(1, '{"b"')]})
            + chunk({"tool_calls": [call(0, '{"a"')]})
            + chunk({"tool_calls": [call(1, ":2}"), call(0, ":1}")]})
            + chunk(reason="tool_calls")
            + DONE
        )
        assert [(block["id"], block["partial_json"]) for block in blocks(found)] == [
            ("c", '{"a":1}'),
            ("d", '{"b":2}'),
        ]

    def test_C2_a_call_that_follows_a_whole_one_does_not_wait(self) -> None:
        translator = BRIDGE.stream("m", include_usage=True)
        translator.feed(chunk({"tool_calls": [call(0, '{"a":1}', "c")]}))
        assert b'"partial_json":"{' in translator.feed(chunk({"tool_calls": [call(1, '{"b":2}', "d")]}))

    def test_C3_a_first_delta_with_text(self) -> None:
        found = events(chunk({"role": "assistant", "content": "a"}) + chunk(reason="stop") + DONE)
        assert blocks(found) == [{"type": "text", "text": "a"}]

    def test_C4_text_and_a_call_in_one_delta(self) -> None:
        delta = {"content": "a", "tool_calls": [call(0, "{}", "c")]}
        assert blocks(events(chunk(delta) + chunk(reason="tool_calls") + DONE)) == [
            {"type": "text", "text": "a"},
            {"type": "tool_use", "id": "c", "name": "f", "partial_json": "{}"},
        ]

    def test_C5_empty_content_between_arguments(self) -> None:
        found = events(
            chunk({"content": "", "tool_calls": [call(0, '{"a"', "c")]})
            + chunk({"content": ""})
            + chunk({"content": "", "tool_calls": [call(0, ":1}")]})
            + chunk(reason="tool_calls")
            + DONE
        )
        assert [block["type"] for block in blocks(found)] == ["tool_use"]
        assert all(event["delta"] != {"type": "text_delta", "text": ""} for event in found if "delta" in event)

    def test_C6_the_start_tells_the_size_of_the_prompt(self) -> None:
        usage = {"prompt_tokens": 40, "completion_tokens": 2}
        found = events(chunk({"content": "a"}) + chunk(reason="stop") + chunk(usage=usage, choices=[]) + DONE)
        assert found[0]["message"]["usage"]["input_tokens"] == 42
        assert found[-2]["usage"]["input_tokens"] == 40

    def test_C7_usage_at_the_end(self) -> None:
        usage = {"prompt_tokens": 100, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 75}}
        source = chunk({"content": "a"}) + chunk(reason="stop") + chunk(usage=usage, choices=[]) + DONE
        assert events(source)[-2]["usage"] == {
            "input_tokens": 25,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 75,
            "output_tokens": 5,
        }
        assert stream(source)[1].usage == Usage(prompt=100, completion=5, cached=75)

    @pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
    def test_C8_reasoning_is_a_block_of_its_own(self, field: str) -> None:
        found = events(
            chunk({field: "h"}) + chunk({field: "m"}) + chunk({"content": "a"}) + chunk(reason="stop") + DONE
        )
        assert blocks(found) == [
            {"type": "thinking", "thinking": "hm", "signature": ""},
            {"type": "text", "text": "a"},
        ]

    def test_C8_reasoning_with_its_signature(self) -> None:
        details = [
            {"type": "reasoning.text", "index": 0, "text": "hm"},
            {"type": "reasoning.text", "index": 0, "signature": "s"},
            {"type": "reasoning.encrypted", "index": 1, "data": "R"},
        ]
        source = b"".join(chunk({"reasoning_details": [detail]}) for detail in details)
        assert blocks(events(source + chunk(reason="stop") + DONE)) == [
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "redacted_thinking", "data": "R"},
        ]

    def test_a_stream_without_its_end_mark_is_complete_with_a_reason(self) -> None:
        assert blocks(events(chunk({"content": "a"}) + chunk(reason="stop"))) == [{"type": "text", "text": "a"}]

    def test_B20_a_stream_that_breaks_has_no_end(self) -> None:
        translator = BRIDGE.stream("m", include_usage=True)
        assert b"message_stop" not in translator.feed(chunk({"content": "a"}))
        with pytest.raises(UpstreamInvalid):
            translator.finish()

    def test_B21_an_error_before_any_content_is_a_real_answer(self) -> None:
        error = frame_of(b'{"error":{"message":"slow down","type":"rate_limit_error","code":"rate_limit_exceeded"}}')
        with pytest.raises(UpstreamStatus) as caught:
            BRIDGE.stream("m", include_usage=True).feed(chunk({"role": "assistant", "content": ""}) + error)
        assert (caught.value.status, caught.value.code) == (429, "rate_limit_exceeded")

    def test_D1_D2_azures_odd_chunks(self) -> None:
        first = frame_of(b'{"id":"","model":"","choices":[],"prompt_filter_results":[]}')
        filtered = frame_of(b'{"choices":[{"index":0,"content_filter_offsets":{},"finish_reason":null}]}')
        found = events(first + filtered + chunk({"content": "a"}) + chunk(reason="stop") + DONE)
        assert blocks(found) == [{"type": "text", "text": "a"}]

    def test_calls_without_an_index(self) -> None:
        def bare(call_id: str, name: str) -> dict[str, Any]:
            return {"id": call_id, "function": {"name": name, "arguments": "{}"}}

        found = events(
            chunk({"tool_calls": [bare("c", "f")]}) + chunk({"tool_calls": [bare("d", "g")]}) + chunk(reason="stop")
        )
        assert [(block["id"], block["name"]) for block in blocks(found)] == [("c", "f"), ("d", "g")]
        assert found[-2]["delta"]["stop_reason"] == "tool_use"

    @pytest.mark.parametrize("source", [b"data: {\n\n", b"data: []\n\n", b'data: {"choices":5}\n\n'])
    def test_garbage_is_a_bad_gateway(self, source: bytes) -> None:
        with pytest.raises(UpstreamInvalid):
            BRIDGE.stream("m", include_usage=True).feed(source)

    def test_the_texts_are_there_for_output_policies(self) -> None:
        source = chunk({"content": "a"}) + chunk({"content": "b", "tool_calls": [call(0, "{}", "c")]})
        seen = stream(source + chunk(reason="tool_calls") + DONE)[1].answer()
        assert [(part.kind, part.text) for part in seen.texts] == [("message", "ab"), ("tool_arguments", "{}")]
        assert seen.finish_reason == "tool_use"


def said(recording: Recording) -> str:
    """The text of a recorded stream, taken from its first choice without any of our code."""
    text = ""
    for line in recording.response_body.splitlines():
        if line.startswith("data:") and "[DONE]" not in line:
            for choice in json.loads(line[5:]).get("choices") or ():
                delta = choice.get("delta") or {}
                content = delta.get("content") or delta.get("refusal")
                if choice.get("index", 0) == 0 and content:
                    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
                    text += "".join(part["text"] for part in parts if part["type"] == "text")
    return text


class TestRecorded:
    @pytest.mark.parametrize("recording", [item for item in RECORDED if item.streams], ids=str)
    def test_T1_streams_assemble_to_what_was_said_however_they_are_cut(self, recording: Recording) -> None:
        if '"finish_reason":"' not in recording.response_body.replace(" ", ""):
            with pytest.raises(UpstreamInvalid):
                stream(recording.response)
            return
        found = events(recording.response)
        assert "".join(block["text"] for block in blocks(found) if block["type"] == "text") == said(recording)
        assert stream(recording.response, size=61)[0] == stream(recording.response)[0]

    def test_T1_cut_at_every_byte(self) -> None:
        calling = ('"tool_calls":[', '"finish_reason":"')
        sizes = {
            len(item.response): item
            for item in RECORDED
            if item.streams and all(word in item.response_body for word in calling)
        }
        source = sizes[min(sizes)].response
        whole, _ = stream(source)
        assert stream(source, size=1)[0] == whole

    @pytest.mark.parametrize("recording", [item for item in RECORDED if not item.streams][::2], ids=str)
    def test_answers(self, recording: Recording) -> None:
        source = orjson.loads(recording.response)
        message = source["choices"][0].get("message") or {}
        body = json.loads(BRIDGE.answer(recording.response, "m"))
        if isinstance(message.get("content"), str):
            assert "".join(block.get("text", "") for block in body["content"]) == message["content"]
        functions = [call["function"] for call in message.get("tool_calls") or ()]
        functions += [message["function_call"]] if message.get("function_call") else []
        assert [block["input"] for block in body["content"] if block["type"] == "tool_use"] == [
            json.loads(function.get("arguments") or "{}") for function in functions
        ]
        counted = sum(count for key, count in body["usage"].items() if key != "output_tokens")
        assert counted == source["usage"]["prompt_tokens"]
