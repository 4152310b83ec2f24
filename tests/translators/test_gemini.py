"""Gemini behind OpenAI's and Anthropic's clients: section E of the list of translation pitfalls."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from gateway.errors import InvalidRequest, UpstreamAuthFailed, UpstreamInvalid, UpstreamStatus
from gateway.sse import FrameSplitter, data_of, frame_of
from gateway.types import Operation, Usage
from tests.recordings import Recording, load, select
from translators.canonical import ANSWER_TOOL
from translators.gemini_requests_out import NO_SIGNATURE
from translators.plan import bind
from translators.providers import PROVIDERS

BRIDGE = bind(Operation.CHAT, PROVIDERS["gemini"], now=lambda: 1_700_000_000)
TWO, THREE, PRO = "gemini-2.5-flash", "gemini-3-flash-preview", "gemini-3-pro-preview"
USER = {"role": "user", "content": "hi"}
SIGNATURE = "CiQB+/=="
RECORDED = [item for item in (*load("gemini"), *load("vertex")) if "enerateContent" in item.path and item.status == 200]


def translate(body: dict[str, Any], model: str = TWO) -> tuple[dict[str, Any], tuple[str, ...]]:
    raw = orjson.dumps({"model": "m", **body})
    translated = BRIDGE.request(raw, BRIDGE.view(raw), model=model, replacements={}, meter=True)
    return json.loads(translated.body), translated.notes


def sent(body: dict[str, Any], model: str = TWO) -> dict[str, Any]:
    """The translated request; there must be nothing to note."""
    translated, notes = translate(body, model)
    assert notes == ()
    return translated


def call(call_id: str, arguments: str = "{}", name: str = "f", **fields: Any) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}, **fields}


def assistant(*calls: dict[str, Any], content: str | None = None) -> dict[str, Any]:
    return {"role": "assistant", "content": content, "tool_calls": list(calls)}


def result(call_id: str, content: Any = "ok") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def tool(name: str = "f", **function: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object"}, **function}}


class TestRequest:
    def test_E16_the_frame(self) -> None:
        body = sent(
            {
                "messages": [{"role": "system", "content": "s"}, USER, {"role": "assistant", "content": "yes"}, USER],
                "max_tokens": 5,
                "temperature": 0,
                "top_p": 0.5,
                "stop": "X",
                "seed": 7,
                "n": 2,
                "presence_penalty": 0.1,
            }
        )
        assert body == {
            "systemInstruction": {"parts": [{"text": "s"}]},
            "contents": [
                {"role": "user", "parts": [{"text": "hi"}]},
                {"role": "model", "parts": [{"text": "yes"}]},
                {"role": "user", "parts": [{"text": "hi"}]},
            ],
            "generationConfig": {
                "maxOutputTokens": 5,
                "temperature": 0,
                "topP": 0.5,
                "stopSequences": ["X"],
                "seed": 7,
                "candidateCount": 2,
                "presencePenalty": 0.1,
            },
        }

    def test_E3_a_signature_goes_back_from_its_field(self) -> None:
        extra = {"google": {"thought_signature": SIGNATURE}}
        body = sent({"messages": [USER, assistant(call("a", extra_content=extra)), result("a")]}, THREE)
        assert body["contents"][1]["parts"] == [
            {"functionCall": {"name": "f", "args": {}}, "thoughtSignature": SIGNATURE}
        ]

    def test_E3_a_signature_goes_back_from_the_id_alone(self) -> None:
        given = reply({"functionCall": {"name": "f", "args": {}}, "thoughtSignature": SIGNATURE})
        call_id = given["message"]["tool_calls"][0]["id"]
        body = sent({"messages": [USER, assistant(call(call_id)), result(call_id)]}, THREE)
        assert body["contents"][1]["parts"][0]["thoughtSignature"] == SIGNATURE
        assert body["contents"][2]["parts"][0]["functionResponse"]["name"] == "f"

    def test_E4_a_call_of_another_model_gets_the_placeholder(self) -> None:
        history = [USER, assistant(call("a"), call("b")), result("a"), result("b")]
        parts = sent({"messages": history}, THREE)["contents"][1]["parts"]
        assert [part.get("thoughtSignature") for part in parts] == [NO_SIGNATURE, None]
        assert "thoughtSignature" not in sent({"messages": history}, TWO)["contents"][1]["parts"][0]

    def test_E11_a_schema_goes_through_whole(self) -> None:
        schema = {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "type": "object",
            "properties": {"a": {"type": "integer", "exclusiveMinimum": 0}, "b": {"const": "x"}},
            "additionalProperties": False,
        }
        body = sent({"messages": [USER], "tools": [tool(description="d", parameters=schema)]})
        assert body["tools"] == [
            {"functionDeclarations": [{"name": "f", "description": "d", "parametersJsonSchema": schema}]}
        ]

    def test_E12_siblings_of_a_reference_are_merged_with_it(self) -> None:
        schema = {
            "type": "object",
            "properties": {"a": {"$ref": "#/$defs/x", "description": "d"}, "b": {"$ref": "#/$defs/x"}},
            "$defs": {"x": {"type": "object", "properties": {"again": {"$ref": "#/$defs/x", "title": "t"}}}},
        }
        declared = sent({"messages": [USER], "tools": [tool(parameters=schema)]})["tools"][0]["functionDeclarations"][0]
        properties = declared["parametersJsonSchema"]["properties"]
        assert properties["a"]["type"] == "object"
        assert properties["a"]["description"] == "d"
        assert properties["b"] == {"$ref": "#/$defs/x"}

    @pytest.mark.parametrize("content", ['{"$ref": "#/x"}', '{"a": {"$defs": 1}}'])
    def test_E13_a_result_that_looks_like_a_reference_is_wrapped(self, content: str) -> None:
        body = sent({"messages": [USER, assistant(call("a")), result("a", content)]})
        assert body["contents"][2]["parts"][0]["functionResponse"]["response"] == {"result": content}

    @pytest.mark.parametrize(
        ("content", "response"),
        [('{"t": 1.0}', {"t": 1.0}), ("sunny", {"result": "sunny"}), ("[1]", {"result": "[1]"}), ("", {"result": ""})],
    )
    def test_E14_a_result_finds_its_name_and_is_an_object(self, content: str, response: Any) -> None:
        body = sent({"messages": [USER, assistant(call("a", name="weather")), result("a", content)]})
        assert body["contents"][2]["parts"][0] == {"functionResponse": {"name": "weather", "response": response}}

    def test_E14_a_result_of_no_call_is_refused(self) -> None:
        with pytest.raises(InvalidRequest) as caught:
            translate({"messages": [USER, result("nobody")]})
        assert caught.value.param == "messages[1]"

    def test_E15_no_filler_on_a_turn_of_calls(self) -> None:
        body = sent({"messages": [USER, assistant(call("a"), content=""), result("a")]})
        assert [list(part) for part in body["contents"][1]["parts"]] == [["functionCall"]]

    def test_results_come_first_in_a_turn(self) -> None:
        history = [USER, assistant(call("a"), call("b")), result("a"), USER, result("b")]
        parts = sent({"messages": history})["contents"][2]["parts"]
        assert ["functionResponse" in part for part in parts] == [True, True, False]

    def test_arguments_go_through_digit_for_digit(self) -> None:
        arguments = '{"f": 1.0, "b": 2, "a": 1}'
        raw = orjson.dumps({"model": "m", "messages": [USER, assistant(call("a", arguments)), result("a")]})
        assert arguments.encode() in BRIDGE.request(raw, BRIDGE.view(raw), model=TWO, replacements={}, meter=False).body

    def test_broken_arguments_are_noted(self) -> None:
        body, notes = translate({"messages": [USER, assistant(call("a", "{")), result("a")]})
        assert body["contents"][1]["parts"][0]["functionCall"]["args"] == {}
        assert len(notes) == 1

    def test_media(self) -> None:
        parts = [
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
            {"type": "image_url", "image_url": {"url": "https://example.com/a.webp?x=1"}},
            {"type": "input_audio", "input_audio": {"data": "BBBB", "format": "mp3"}},
            {"type": "file", "file": {"file_data": "data:application/pdf;base64,CCCC"}},
        ]
        assert sent({"messages": [{"role": "user", "content": parts}]})["contents"][0]["parts"] == [
            {"inlineData": {"mimeType": "image/png", "data": "AAAA"}},
            {"fileData": {"fileUri": "https://example.com/a.webp?x=1", "mimeType": "image/webp"}},
            {"inlineData": {"mimeType": "audio/mp3", "data": "BBBB"}},
            {"inlineData": {"mimeType": "application/pdf", "data": "CCCC"}},
        ]

    @pytest.mark.parametrize(
        ("choice", "config"),
        [
            ("auto", {"mode": "AUTO"}),
            ("required", {"mode": "ANY"}),
            ("none", {"mode": "NONE"}),
            ({"type": "function", "function": {"name": "f"}}, {"mode": "ANY", "allowedFunctionNames": ["f"]}),
        ],
    )
    def test_tool_choice(self, choice: Any, config: dict[str, Any]) -> None:
        body = sent({"messages": [USER], "tools": [tool()], "tool_choice": choice})
        assert body["toolConfig"] == {"functionCallingConfig": config}

    def test_structured_output(self) -> None:
        schema = {"type": "object", "properties": {"a": {"type": "string"}}}
        wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
        config = sent({"messages": [USER], "response_format": wanted})["generationConfig"]
        assert config == {"responseMimeType": "application/json", "responseJsonSchema": schema}
        config = sent({"messages": [USER], "response_format": {"type": "json_object"}})["generationConfig"]
        assert config == {"responseMimeType": "application/json"}

    @pytest.mark.parametrize(
        ("choice", "config"),
        [
            (None, {"mode": "ANY"}),
            ("none", {"mode": "ANY", "allowedFunctionNames": [ANSWER_TOOL]}),
            ({"type": "function", "function": {"name": "f"}}, {"mode": "ANY", "allowedFunctionNames": ["f"]}),
        ],
    )
    def test_structured_output_with_tools_before_gemini_3(self, choice: Any, config: dict[str, Any]) -> None:
        wanted = {"response_format": {"type": "json_object"}, "tools": [tool()], "tool_choice": choice}
        body = sent({"messages": [USER], **wanted})
        assert [entry["name"] for entry in body["tools"][0]["functionDeclarations"]] == ["f", ANSWER_TOOL]
        assert body["toolConfig"]["functionCallingConfig"] == config
        body = sent({"messages": [USER], **wanted}, THREE)
        assert len(body["tools"][0]["functionDeclarations"]) == 1
        assert body["generationConfig"]["responseMimeType"] == "application/json"

    @pytest.mark.parametrize(
        ("model", "effort", "thinking", "noted"),
        [
            (TWO, "high", {"thinkingBudget": 24_576, "includeThoughts": True}, False),
            (TWO, "none", {"thinkingBudget": 0}, False),
            ("gemini-2.5-pro", "none", {"thinkingBudget": 128}, True),
            (THREE, "medium", {"thinkingLevel": "medium", "includeThoughts": True}, False),
            (THREE, "none", {"thinkingLevel": "minimal"}, True),
            (THREE, "xhigh", {"thinkingLevel": "high", "includeThoughts": True}, True),
            (PRO, "medium", {"thinkingLevel": "high", "includeThoughts": True}, True),
            (PRO, "low", {"thinkingLevel": "low", "includeThoughts": True}, False),
            ("gemini-2.0-flash", "high", None, True),
        ],
    )
    def test_thinking(self, model: str, effort: str, thinking: Any, noted: bool) -> None:
        body, notes = translate({"messages": [USER], "reasoning_effort": effort}, model)
        assert body.get("generationConfig", {}).get("thinkingConfig") == thinking
        assert bool(notes) == noted

    def test_what_gemini_does_not_have_is_noted(self) -> None:
        settings = {"logit_bias": {"1": 1}, "metadata": {"a": "b"}, "user": "u", "brand_new": 1}
        _, notes = translate(
            {"messages": [USER], "parallel_tool_calls": False, "tools": [tool(strict=True)], **settings}
        )
        assert set(notes) == {
            *(f"{key}: not supported by Gemini" for key in settings),
            "parallel_tool_calls: not supported by Gemini",
            "tools[0].function.strict: not supported by Gemini",
        }

    def test_a_lone_system_prompt_is_spoken_by_the_user(self) -> None:
        body, notes = translate({"messages": [{"role": "system", "content": "a"}]})
        assert body == {"contents": [{"role": "user", "parts": [{"text": "a"}]}]}
        assert len(notes) == 1

    def test_a_long_name_of_a_tool_is_shortened(self) -> None:
        body = sent({"messages": [USER], "tools": [tool("a" * 90), tool("mcp.server:tool")]})
        names = [entry["name"] for entry in body["tools"][0]["functionDeclarations"]]
        assert len(names[0]) == 64
        assert names[1] == "mcp.server:tool"

    @pytest.mark.parametrize("model", [TWO, THREE])
    @pytest.mark.parametrize("recording", select("openai", suffix="chat/completions")[::6], ids=str)
    def test_recorded_requests(self, recording: Recording, model: str) -> None:
        raw = recording.request
        try:
            translated = BRIDGE.request(raw, BRIDGE.view(raw), model=model, replacements={}, meter=True)
        except InvalidRequest:
            return
        said = [part.text for part in BRIDGE.view(raw).texts() if part.role == "user" and part.path.endswith("content")]
        assert all(orjson.dumps(text) in translated.body for text in said)


def response(*parts: dict[str, Any], reason: str | None = "STOP", **fields: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}, "index": 0}
    if reason is not None:
        candidate["finishReason"] = reason
    return {"candidates": [candidate], "responseId": "r", "modelVersion": "gemini-x", **fields}


def answer(body: dict[str, Any]) -> dict[str, Any]:
    return json.loads(BRIDGE.answer(orjson.dumps(body), "m"))


def reply(*parts: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """The first choice of an answer."""
    return answer(response(*parts, **fields))["choices"][0]


def stream(*pieces: dict[str, Any], size: int = 1 << 30) -> tuple[list[dict[str, Any]], Any]:
    source = b"".join(frame_of(orjson.dumps(piece)).replace(b"\n\n", b"\r\n\r\n") for piece in pieces)
    out, translator = passed(source, size)
    found = [data_of(frame) for frame in FrameSplitter().feed(out)]
    return [json.loads(data) for data in found if data not in (None, b"[DONE]")], translator


def passed(source: bytes, size: int = 1 << 30) -> tuple[bytes, Any]:
    translator = BRIDGE.stream("m", include_usage=True)
    out = b"".join(translator.feed(source[at : at + size]) for at in range(0, len(source), size))
    return out + translator.finish(), translator


F = {"functionCall": {"name": "f", "args": {"a": 1}}}


class TestAnswer:
    def test_E1_E2_calls(self) -> None:
        choice = reply(F, F)
        assert choice["finish_reason"] == "tool_calls"
        assert [entry["id"] for entry in choice["message"]["tool_calls"]] == ["call_r_0", "call_r_1"]
        assert choice["message"]["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"a":1}'}

    def test_E3_a_signature_has_its_field(self) -> None:
        entry = reply({**F, "thoughtSignature": SIGNATURE})["message"]["tool_calls"][0]
        assert entry["extra_content"] == {"google": {"thought_signature": SIGNATURE}}

    def test_E5_thoughts_are_part_of_the_completion(self) -> None:
        usage = {
            "promptTokenCount": 5,
            "toolUsePromptTokenCount": 2,
            "candidatesTokenCount": 10,
            "thoughtsTokenCount": 30,
            "cachedContentTokenCount": 4,
        }
        assert answer(response({"text": "a"}, usageMetadata=usage))["usage"] == {
            "prompt_tokens": 7,
            "completion_tokens": 40,
            "total_tokens": 47,
            "prompt_tokens_details": {"cached_tokens": 4},
            "completion_tokens_details": {"reasoning_tokens": 30},
        }

    @pytest.mark.parametrize("reason", ["NO_IMAGE", "SAFETY", "RECITATION", "PROHIBITED_CONTENT"])
    def test_E7_a_filtered_answer_is_one_choice(self, reason: str) -> None:
        choices = answer({"candidates": [{"finishReason": reason}]})["choices"]
        assert len(choices) == 1
        assert choices[0]["message"]["content"] is None
        assert (choices[0]["finish_reason"], choices[0]["native_finish_reason"]) == ("content_filter", reason)

    @pytest.mark.parametrize("reason", ["MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL"])
    def test_E8_a_call_that_failed_is_an_error_of_its_own(self, reason: str) -> None:
        with pytest.raises(UpstreamStatus) as caught:
            reply(reason=reason)
        assert (caught.value.status, caught.value.code, caught.value.retryable) == (502, reason.lower(), True)

    def test_E9_a_blocked_prompt(self) -> None:
        choice = answer({"promptFeedback": {"blockReason": "SAFETY"}})["choices"][0]
        assert (choice["finish_reason"], choice["native_finish_reason"]) == ("content_filter", "SAFETY")
        body = response({"text": "a"}, promptFeedback={"blockReason": ""})
        assert answer(body)["choices"][0]["finish_reason"] == "stop"

    def test_E10_calls_of_a_filtered_answer_are_kept(self) -> None:
        choice = reply(F, reason="SAFETY")
        assert choice["finish_reason"] == "content_filter"
        assert len(choice["message"]["tool_calls"]) == 1

    def test_E15_texts_are_joined(self) -> None:
        assert reply({"text": "a"}, {"text": "b"})["message"]["content"] == "ab"

    def test_thoughts(self) -> None:
        message = reply({"text": "hm", "thought": True}, {"text": "a"})["message"]
        assert (message["reasoning_content"], message["content"]) == ("hm", "a")

    def test_the_hidden_tool_is_the_answer(self) -> None:
        choice = reply({"functionCall": {"name": ANSWER_TOOL, "args": {"a": 1}}})
        assert (choice["message"]["content"], choice["finish_reason"]) == ('{"a":1}', "stop")

    def test_several_candidates(self) -> None:
        body = {"candidates": [{"content": {"parts": [{"text": text}]}, "index": n} for n, text in enumerate("ab")]}
        assert [choice["message"]["content"] for choice in answer(body)["choices"]] == ["a", "b"]

    @pytest.mark.parametrize("reason", ["MAX_TOKENS", "OTHER"])
    def test_other_reasons(self, reason: str) -> None:
        choice = reply({"text": "a"}, reason=reason)
        expected = ("length", None) if reason == "MAX_TOKENS" else ("stop", "OTHER")
        assert (choice["finish_reason"], choice.get("native_finish_reason")) == expected

    @pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"candidates":5}', b'{"candidates":[5]}'])
    def test_garbage_is_a_bad_gateway(self, body: bytes) -> None:
        with pytest.raises(UpstreamInvalid):
            BRIDGE.answer(body, "m")


class TestStream:
    def test_E1_a_call_and_a_later_stop(self) -> None:
        found, _ = stream(response(F, reason=None), response({"text": ""}))
        assert found[-2]["choices"][0]["finish_reason"] == "tool_calls"

    def test_E2_calls_in_different_pieces(self) -> None:
        found, _ = stream(response({"text": "a"}, reason=None), response(F, reason=None), response(F))
        entries = [entry for chunk in found for c in chunk["choices"] for entry in c["delta"].get("tool_calls", ())]
        assert [entry["index"] for entry in entries] == [0, 0, 1, 1]
        assert [entry["id"] for entry in entries if "id" in entry] == ["call_r_0", "call_r_1"]

    def test_E3_a_signature_has_its_field(self) -> None:
        found, _ = stream(response({**F, "thoughtSignature": SIGNATURE}))
        entry = found[1]["choices"][0]["delta"]["tool_calls"][0]
        assert entry["extra_content"] == {"google": {"thought_signature": SIGNATURE}}

    def test_E6_a_large_event_over_many_reads(self) -> None:
        large = response({**F, "thoughtSignature": "S" * 50_000})
        assert stream(large, size=1000)[0] == stream(large)[0]

    def test_E7_E8_reasons(self) -> None:
        found, _ = stream({"candidates": [{"finishReason": "SAFETY"}]})
        assert found[-2]["choices"][0]["finish_reason"] == "content_filter"
        with pytest.raises(UpstreamStatus):
            stream({"candidates": [{"finishReason": "MALFORMED_FUNCTION_CALL"}]})
        found, _ = stream({"promptFeedback": {"blockReason": "SAFETY"}})
        assert found[-2]["choices"][0]["native_finish_reason"] == "SAFETY"

    def test_usage_is_the_last_that_was_told(self) -> None:
        first = response({"text": "a"}, reason=None, usageMetadata={"promptTokenCount": 5, "candidatesTokenCount": 1})
        last = response({"text": "b"}, usageMetadata={"candidatesTokenCount": 7, "thoughtsTokenCount": 2})
        found, translator = stream(first, last)
        assert translator.usage == Usage(prompt=5, completion=9, reasoning=2)
        assert found[-1]["usage"]["total_tokens"] == 14

    def test_thoughts_and_text_in_order(self) -> None:
        found, _ = stream(response({"text": "hm", "thought": True}, {"text": "a"}))
        deltas = [chunk["choices"][0]["delta"] for chunk in found if chunk["choices"]]
        assert [delta.get("reasoning_content") or delta.get("content") for delta in deltas] == ["", "hm", "a", None]

    def test_a_stream_that_breaks_has_no_end(self) -> None:
        translator = BRIDGE.stream("m", include_usage=True)
        translator.feed(frame_of(orjson.dumps(response({"text": "a"}, reason=None))))
        with pytest.raises(UpstreamInvalid):
            translator.finish()

    def test_errors_within_a_stream(self) -> None:
        with pytest.raises(UpstreamStatus) as caught:
            stream({"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}})
        assert (caught.value.status, caught.value.code) == (503, "UNAVAILABLE")
        with pytest.raises(UpstreamAuthFailed):
            stream({"error": {"code": 403, "message": "no"}})

    @pytest.mark.parametrize("source", [b"data: {\n\n", b"data: []\n\n", b'data: {"candidates":[5]}\n\n'])
    def test_garbage_is_a_bad_gateway(self, source: bytes) -> None:
        with pytest.raises(UpstreamInvalid):
            BRIDGE.stream("m", include_usage=True).feed(source)


def test_anthropics_clients_reach_it_too() -> None:
    bridge = bind(Operation.MESSAGES, PROVIDERS["gemini"])
    body = bridge.answer(orjson.dumps(response({"text": "a"}, {**F, "thoughtSignature": SIGNATURE})), "m")
    message = json.loads(body)
    assert [block["type"] for block in message["content"]] == ["text", "tool_use"]
    used = message["content"][1]
    history = [USER, {"role": "assistant", "content": [used]}]
    history.append({"role": "user", "content": [{"type": "tool_result", "tool_use_id": used["id"], "content": "ok"}]})
    raw = orjson.dumps({"model": "m", "max_tokens": 5, "messages": history})
    back = json.loads(bridge.request(raw, bridge.view(raw), model=THREE, replacements={}, meter=False).body)
    assert back["contents"][1]["parts"][0]["thoughtSignature"] == SIGNATURE


class TestRecorded:
    @pytest.mark.parametrize("recording", [item for item in RECORDED if not item.streams], ids=str)
    def test_answers(self, recording: Recording) -> None:
        source = orjson.loads(recording.response)
        body = json.loads(BRIDGE.answer(recording.response, "m"))
        for choice, candidate in zip(body["choices"], source.get("candidates", ()), strict=False):
            parts = candidate.get("content", {}).get("parts", ())
            texts = [part["text"] for part in parts if "text" in part and not part.get("thought")]
            assert (choice["message"]["content"] or "") == "".join(texts)
            calls = [part["functionCall"] for part in parts if "functionCall" in part]
            given = [json.loads(entry["function"]["arguments"]) for entry in choice["message"].get("tool_calls", ())]
            assert given == [function["args"] for function in calls]

    @pytest.mark.parametrize("recording", [item for item in RECORDED if item.streams], ids=str)
    def test_T1_streams_assemble_to_what_was_said_however_they_are_cut(self, recording: Recording) -> None:
        whole, translator = passed(recording.response)
        assert passed(recording.response, size=61)[0] == whole
        texts = ""
        for line in recording.response_body.splitlines():
            if line.startswith("data:"):
                for candidate in json.loads(line[5:]).get("candidates", ()):
                    parts = candidate.get("content", {}).get("parts", ())
                    texts += "".join(part.get("text", "") for part in parts if not part.get("thought"))
        said = "".join(part.text for part in translator.answer().texts if part.kind == "message")
        assert said == texts
