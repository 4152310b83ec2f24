"""Bedrock's Converse behind OpenAI's clients: section F of the list of translation pitfalls."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from gateway.errors import InvalidRequest, UpstreamAuthFailed, UpstreamInvalid, UpstreamStatus
from gateway.sse import FrameSplitter, data_of
from gateway.types import Operation, Usage
from tests.recordings import Recording, load, select
from tests.translators.test_event_stream import message
from translators.bedrock_requests_out import EMPTY
from translators.canonical import ANSWER_TOOL
from translators.event_stream import MessageSplitter
from translators.plan import bind
from translators.providers import PROVIDERS, upstream_of

BRIDGE = bind(Operation.CHAT, PROVIDERS["bedrock"])
CLAUDE, NOVA, LLAMA = "anthropic.claude-sonnet-4-5-20250929-v1:0", "us.amazon.nova-2-lite-v1:0", "meta.llama3-8b"
USER = {"role": "user", "content": "hi"}
POINT = {"cachePoint": {"type": "default"}}
RECORDED = [item for item in load("bedrock") if item.path.endswith(("/converse", "/converse-stream"))]
GOOD = [item for item in RECORDED if item.status == 200]


def translate(body: dict[str, Any], model: str = CLAUDE) -> tuple[dict[str, Any], tuple[str, ...]]:
    raw = orjson.dumps({"model": "m", **body})
    translated = BRIDGE.request(raw, BRIDGE.view(raw), model=model, replacements={}, meter=True)
    return json.loads(translated.body), translated.notes


def sent(body: dict[str, Any], model: str = CLAUDE) -> dict[str, Any]:
    """The translated request; there must be nothing to note."""
    translated, notes = translate(body, model)
    assert notes == ()
    return translated


def call(call_id: str, arguments: str = "{}", name: str = "f") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def assistant(*calls: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls), **fields}


def result(call_id: str, content: Any = "ok") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def tool(name: str = "f", **function: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object"}, **function}}


class TestRequest:
    def test_the_frame(self) -> None:
        body = sent(
            {
                "messages": [{"role": "system", "content": "s"}, USER],
                "max_tokens": 5,
                "temperature": 0.5,
                "stop": ["X", " "],
                "stream": True,
            }
        )
        assert body == {
            "system": [{"text": "s"}],
            "messages": [{"role": "user", "content": [{"text": "hi"}]}],
            "inferenceConfig": {"maxTokens": 5, "temperature": 0.5, "stopSequences": ["X"]},
        }

    def test_F1_a_history_with_tools_that_are_not_offered_any_more(self) -> None:
        body, notes = translate({"messages": [USER, assistant(call("a", '{"x":1}')), result("a"), USER]})
        assert "toolConfig" not in body
        assert [block for turn in body["messages"] for block in turn["content"]] == [
            {"text": "hi"},
            {"text": '[I called the tool f with {"x":1}]'},
            {"text": "[The tool f answered: ok]"},
            {"text": "hi"},
        ]
        assert len(notes) == 1

    def test_F2_turns_alternate(self) -> None:
        history = [
            USER,
            assistant(call("a"), call("b")),
            result("a"),
            {"role": "system", "content": "s"},
            result("b"),
            USER,
        ]
        body = sent({"messages": history, "tools": [tool()]})
        assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "user"]
        assert [next(iter(block)) for block in body["messages"][2]["content"]] == ["toolResult", "toolResult", "text"]

    def test_F2_the_user_speaks_first(self) -> None:
        body = sent({"messages": [{"role": "assistant", "content": "a"}, USER]})
        assert body["messages"][0] == {"role": "user", "content": [{"text": EMPTY}]}

    def test_F3_cache_points_are_blocks_of_their_own(self) -> None:
        mark = {"cache_control": {"type": "ephemeral"}}
        body = sent(
            {
                "messages": [
                    {"role": "system", "content": [{"type": "text", "text": "s", **mark}]},
                    {"role": "user", "content": [{"type": "text", "text": "a", **mark}, {"type": "text", "text": "b"}]},
                    assistant(call("x")),
                    {**result("x"), **mark},
                ],
                "tools": [{**tool(), **mark}],
            }
        )
        assert body["system"] == [{"text": "s"}, POINT]
        assert body["messages"][0]["content"] == [{"text": "a"}, POINT, {"text": "b"}]
        assert [next(iter(block)) for block in body["messages"][2]["content"]] == ["toolResult", "cachePoint"]
        assert [next(iter(entry)) for entry in body["toolConfig"]["tools"]] == ["toolSpec", "cachePoint"]

    def test_F4_reasoning_before_calls(self) -> None:
        details = [
            {"type": "reasoning.text", "text": "hm", "signature": "S+/=", "index": 0},
            {"type": "reasoning.encrypted", "data": "R", "index": 1},
        ]
        turn = assistant(call("a"), content="then", reasoning_details=details)
        body = sent({"messages": [USER, turn, result("a")], "tools": [tool()]})
        assert body["messages"][1]["content"] == [
            {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "S+/="}}},
            {"reasoningContent": {"redactedContent": "R"}},
            {"text": "then"},
            {"toolUse": {"toolUseId": "a", "name": "f", "input": {}}},
        ]

    @pytest.mark.parametrize("content", ["", " ", [{"type": "text", "text": ""}]])
    def test_F5_nothing_blank_is_sent(self, content: Any) -> None:
        body = sent({"messages": [USER, assistant(call("a")), result("a", content)], "tools": [tool(description="")]})
        assert body["messages"][2]["content"][0]["toolResult"]["content"] == [{"text": EMPTY}]
        assert "description" not in body["toolConfig"]["tools"][0]["toolSpec"]

    def test_F9_top_k_is_the_models_own(self) -> None:
        assert sent({"messages": [USER], "top_k": 5})["additionalModelRequestFields"] == {"top_k": 5}
        nova = sent({"messages": [USER], "top_k": 5}, NOVA)
        assert nova["additionalModelRequestFields"] == {"inferenceConfig": {"topK": 5}}

    def test_F10_an_arn_is_encoded_once(self) -> None:
        arn = "arn:aws:bedrock:us-east-1:123:inference-profile/us.x-v1:0"
        upstream = upstream_of(
            PROVIDERS["bedrock"], base_url="https://bedrock-runtime.us-east-1.amazonaws.com", model=arn
        )
        encoded = "arn%3Aaws%3Abedrock%3Aus-east-1%3A123%3Ainference-profile%2Fus.x-v1%3A0"
        assert upstream.path(Operation.CHAT, stream=False) == f"/model/{encoded}/converse"
        assert upstream.path(Operation.CHAT, stream=True) == f"/model/{encoded}/converse-stream"

    def test_F11_an_image_by_its_address_is_refused(self) -> None:
        part = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
        with pytest.raises(InvalidRequest) as caught:
            translate({"messages": [{"role": "user", "content": [part]}]})
        assert caught.value.param == "messages[0].content[0]"

    def test_media(self) -> None:
        parts = [
            {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,AAAA"}},
            {"type": "file", "file": {"filename": "a_b  c.pdf", "file_data": "data:application/pdf;base64,BBBB"}},
        ]
        assert sent({"messages": [{"role": "user", "content": parts}]})["messages"][0]["content"] == [
            {"image": {"format": "jpeg", "source": {"bytes": "AAAA"}}},
            {"document": {"format": "pdf", "source": {"bytes": "BBBB"}, "name": "a-b c"}},
        ]

    @pytest.mark.parametrize(
        ("choice", "expected"),
        [
            ("auto", {"auto": {}}),
            ("required", {"any": {}}),
            ({"type": "function", "function": {"name": "f"}}, {"tool": {"name": "f"}}),
        ],
    )
    def test_tool_choice(self, choice: Any, expected: dict[str, Any]) -> None:
        body = sent({"messages": [USER], "tools": [tool()], "tool_choice": choice})
        assert body["toolConfig"]["toolChoice"] == expected

    def test_no_tools_at_all(self) -> None:
        body, notes = translate({"messages": [USER], "tools": [tool()], "tool_choice": "none"})
        assert "toolConfig" not in body
        assert notes == ("tool_choice: Bedrock has no `none`; the tools were left out",)

    def test_structured_output(self) -> None:
        closed = {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False}
        wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": closed}}
        form = sent({"messages": [USER], "response_format": wanted})["outputConfig"]["textFormat"]
        assert json.loads(form["structure"]["jsonSchema"]["schema"]) == closed
        body = sent({"messages": [USER], "response_format": wanted}, NOVA)
        assert body["toolConfig"]["toolChoice"] == {"tool": {"name": ANSWER_TOOL}}
        body = sent({"messages": [USER], "response_format": wanted, "tools": [tool()]}, NOVA)
        assert body["toolConfig"]["toolChoice"] == {"any": {}}

    @pytest.mark.parametrize(
        ("model", "effort", "own"),
        [
            (CLAUDE, "low", {"thinking": {"type": "enabled", "budget_tokens": 2048}}),
            (
                "us.anthropic.claude-opus-4-7",
                "high",
                {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}},
            ),
            (NOVA, "low", {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "low"}}),
            (NOVA, "none", {"reasoningConfig": {"type": "disabled"}}),
            ("openai.gpt-oss-120b-1:0", "high", {"reasoning_effort": "high"}),
        ],
    )
    def test_thinking(self, model: str, effort: str, own: dict[str, Any]) -> None:
        assert sent({"messages": [USER], "reasoning_effort": effort}, model)["additionalModelRequestFields"] == own

    def test_a_model_that_does_not_think(self) -> None:
        _, notes = translate({"messages": [USER], "reasoning_effort": "high"}, LLAMA)
        assert notes == ("reasoning_effort: this model is not known to think",)

    def test_what_bedrock_does_not_have_is_noted(self) -> None:
        settings = {"logprobs": True, "seed": 1, "metadata": {"a": "b"}, "user": "u", "brand_new": 1}
        _, notes = translate({"messages": [USER], "parallel_tool_calls": False, "tools": [tool()], **settings})
        assert set(notes) == {f"{key}: not supported by Bedrock" for key in (*settings, "parallel_tool_calls")}

    @pytest.mark.parametrize("model", [CLAUDE, NOVA])
    @pytest.mark.parametrize("recording", select("openai", suffix="chat/completions")[::8], ids=str)
    def test_recorded_requests(self, recording: Recording, model: str) -> None:
        raw = recording.request
        try:
            translated = BRIDGE.request(raw, BRIDGE.view(raw), model=model, replacements={}, meter=True)
        except InvalidRequest:
            return
        roles = [turn["role"] for turn in json.loads(translated.body)["messages"]]
        assert roles == [("user", "assistant")[index % 2] for index in range(len(roles))]
        assert b'{"text":""}' not in translated.body


def event(kind: str, **payload: Any) -> bytes:
    return message(orjson.dumps(payload), message_type="event", event_type=kind)


def exception(kind: str) -> bytes:
    return message(b'{"message":"slow down"}', message_type="exception", exception_type=kind)


def delta(index: int, **fields: Any) -> bytes:
    return event("contentBlockDelta", contentBlockIndex=index, delta=fields)


START = event("messageStart", role="assistant")
END = event("messageStop", stopReason="end_turn")
COUNTS = event("metadata", usage={"inputTokens": 3, "outputTokens": 4, "cacheReadInputTokens": 2})


def begin(index: int, call_id: str, name: str = "f") -> bytes:
    use = {"toolUseId": call_id, "name": name}
    return event("contentBlockStart", contentBlockIndex=index, start={"toolUse": use})


def stop(index: int) -> bytes:
    return event("contentBlockStop", contentBlockIndex=index)


def passed(source: bytes, size: int = 1 << 30) -> tuple[bytes, Any]:
    translator = BRIDGE.stream("m", include_usage=True)
    out = b"".join(translator.feed(source[at : at + size]) for at in range(0, len(source), size))
    return out + translator.finish(), translator


def chunks(source: bytes) -> list[dict[str, Any]]:
    found = [data_of(frame) for frame in FrameSplitter().feed(passed(source)[0])]
    return [json.loads(data) for data in found if data not in (None, b"[DONE]")]


def calls_of(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [entry for chunk in found for one in chunk["choices"] for entry in one["delta"].get("tool_calls", ())]


class TestStream:
    def test_F8_the_first_call_has_index_0(self) -> None:
        source = START + delta(0, text="a") + stop(0) + begin(1, "x") + delta(1, toolUse={"input": '{"k":'})
        source += delta(1, toolUse={"input": "1}"}) + stop(1) + event("messageStop", stopReason="tool_use") + COUNTS
        entries = [
            entry for c in chunks(source) for one in c["choices"] for entry in one["delta"].get("tool_calls", ())
        ]
        assert [entry["index"] for entry in entries] == [0, 0, 0]
        assert "".join(entry["function"]["arguments"] for entry in entries) == '{"k":1}'

    def test_a_call_without_arguments(self) -> None:
        source = START + begin(0, "x") + stop(0) + event("messageStop", stopReason="tool_use") + COUNTS
        entries = [
            entry for c in chunks(source) for one in c["choices"] for entry in one["delta"].get("tool_calls", ())
        ]
        assert "".join(entry["function"]["arguments"] for entry in entries) == "{}"

    def test_reasoning(self) -> None:
        source = START + delta(0, reasoningContent={"text": "hm"}) + delta(0, reasoningContent={"signature": "S"})
        source += stop(0) + delta(1, text="a") + END + COUNTS
        deltas = [one["delta"] for c in chunks(source) for one in c["choices"]]
        assert deltas[1]["reasoning_content"] == "hm"
        assert deltas[2]["reasoning_details"][0]["signature"] == "S"

    def test_usage_and_finish(self) -> None:
        out, translator = passed(START + delta(0, text="a") + END + COUNTS)
        assert translator.usage == Usage(prompt=5, completion=4, cached=2)
        assert out.endswith(b"data: [DONE]\n\n")
        assert b'"finish_reason":"stop"' in passed(START + delta(0, text="a") + END)[0]

    @pytest.mark.parametrize(
        ("kind", "status"),
        [("throttlingException", 429), ("validationException", 400), ("serviceUnavailableException", 503)],
    )
    def test_F7_an_exception_is_an_error(self, kind: str, status: int) -> None:
        with pytest.raises(UpstreamStatus) as caught:
            passed(START + exception(kind))
        assert (caught.value.status, caught.value.message, caught.value.code) == (status, "slow down", kind)

    def test_F7_an_exception_after_content(self) -> None:
        translator = BRIDGE.stream("m", include_usage=True)
        assert b'"content":"a"' in translator.feed(START + delta(0, text="a") + exception("modelStreamErrorException"))
        with pytest.raises(UpstreamStatus):
            translator.finish()

    def test_a_refused_credential(self) -> None:
        with pytest.raises(UpstreamAuthFailed):
            passed(exception("accessDeniedException"))

    @pytest.mark.parametrize("source", [START, START + END[:-3], b"data: {}\n\n" * 3])
    def test_a_stream_that_breaks_has_no_end(self, source: bytes) -> None:
        with pytest.raises(UpstreamInvalid):
            passed(source)

    def test_the_hidden_tool_is_the_answer(self) -> None:
        source = START + begin(0, "x", ANSWER_TOOL) + delta(0, toolUse={"input": '{"a":1}'}) + stop(0)
        found = chunks(source + event("messageStop", stopReason="tool_use") + COUNTS)
        assert "".join(one["delta"].get("content", "") for c in found for one in c["choices"]) == '{"a":1}'
        assert found[-2]["choices"][0]["finish_reason"] == "stop"


class TestAnswer:
    @pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"output":{}}', b'{"output":{"message":{"content":[5]}}}'])
    def test_F12_an_answer_without_content_is_a_bad_gateway(self, body: bytes) -> None:
        with pytest.raises(UpstreamInvalid):
            BRIDGE.answer(body, "m")

    @pytest.mark.parametrize(
        ("reason", "finish", "native"),
        [
            ("end_turn", "stop", None),
            ("max_tokens", "length", None),
            ("stop_sequence", "stop", "stop_sequence"),
            ("guardrail_intervened", "content_filter", "guardrail_intervened"),
            ("content_filtered", "content_filter", "content_filtered"),
        ],
    )
    def test_reasons(self, reason: str, finish: str, native: str | None) -> None:
        body = {"output": {"message": {"content": [{"text": "a"}]}}, "stopReason": reason}
        choice = json.loads(BRIDGE.answer(orjson.dumps(body), "m"))["choices"][0]
        assert (choice["finish_reason"], choice.get("native_finish_reason")) == (finish, native)

    def test_a_model_that_failed(self) -> None:
        body = {"output": {"message": {"content": []}}, "stopReason": "malformed_tool_use"}
        with pytest.raises(UpstreamStatus):
            BRIDGE.answer(orjson.dumps(body), "m")


class TestRecorded:
    @pytest.mark.parametrize("recording", [item for item in GOOD if item.path.endswith("/converse")], ids=str)
    def test_answers(self, recording: Recording) -> None:
        source = orjson.loads(recording.response)
        content = source["output"].get("message", {}).get("content")
        if content is None:
            with pytest.raises(UpstreamInvalid):
                BRIDGE.answer(recording.response, "m")
            return
        message = json.loads(BRIDGE.answer(recording.response, "m"))["choices"][0]["message"]
        assert (message["content"] or "") == "".join(block.get("text", "") for block in content)
        given = [json.loads(entry["function"]["arguments"]) for entry in message.get("tool_calls", ())]
        assert given == [block["toolUse"]["input"] for block in content if "toolUse" in block]

    @pytest.mark.parametrize("recording", [item for item in GOOD if item.path.endswith("stream")], ids=str)
    def test_T1_streams_assemble_to_what_was_said_however_they_are_cut(self, recording: Recording) -> None:
        whole, translator = passed(recording.response)
        assert passed(recording.response, size=61)[0] == whole
        texts = ""
        for one in MessageSplitter().feed(recording.response):
            if one.headers[":event-type"] == "contentBlockDelta":
                texts += json.loads(one.payload)["delta"].get("text", "")
        assert "".join(part.text for part in translator.answer().texts if part.kind == "message") == texts
