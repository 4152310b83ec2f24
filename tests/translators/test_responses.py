"""OpenAI's Responses API in front of models that only chat."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import orjson
import pytest
from pydantic import BaseModel

from gateway.errors import InvalidRequest, UpstreamInvalid, UpstreamStatus
from gateway.sse import FrameSplitter, data_of, event_of, frame_of
from gateway.types import Operation, Usage
from tests.recordings import Recording, select
from translators import openai_passthrough
from translators.dialect import Carried
from translators.plan import bind
from translators.providers import PROVIDERS

CLAUDE = bind(Operation.RESPONSES, PROVIDERS["anthropic"], now=lambda: 1_700_000_000)
CHAT = bind(Operation.RESPONSES, PROVIDERS["perplexity"])
RECORDED = select("openai", "azure-openai", "openrouter", suffix="/responses")
RECORDED_CLAUDE = [item for item in select("anthropic", suffix="/messages") if item.status == 200]


def translate(body: dict[str, Any], model: str = "claude-sonnet-4-5") -> tuple[dict[str, Any], tuple[str, ...]]:
    raw = orjson.dumps({"model": "m", **body})
    translated = CLAUDE.request(raw, CLAUDE.view(raw), model=model, replacements={}, meter=True)
    return json.loads(translated.body), translated.notes


def sent(body: dict[str, Any], model: str = "claude-sonnet-4-5") -> dict[str, Any]:
    """The translated request; there must be nothing to note."""
    translated, notes = translate(body, model)
    assert notes == ()
    return translated


def chat(body: dict[str, Any]) -> dict[str, Any]:
    """The request as a chat-only server gets it."""
    raw = orjson.dumps({"model": "m", **body})
    return json.loads(CHAT.request(raw, CHAT.view(raw), model="up", replacements={}, meter=True).body)


class TestRequest:
    def test_a_plain_text(self) -> None:
        body = chat({"input": "hi", "instructions": "be kind", "max_output_tokens": 5, "temperature": 0.5})
        assert body == {
            "model": "up",
            "messages": [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}],
            "max_tokens": 5,
            "temperature": 0.5,
        }

    def test_the_items_of_a_turn_become_one_message(self) -> None:
        items = [
            {"role": "user", "content": "hi"},
            {"type": "reasoning", "id": "rs", "summary": [{"type": "summary_text", "text": "hm"}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "let me"}]},
            {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"},
            {"type": "function_call", "call_id": "b", "name": "g", "arguments": '{"x":1}'},
            {"type": "function_call_output", "call_id": "a", "output": "one"},
            {"type": "function_call_output", "call_id": "b", "output": [{"type": "input_text", "text": "two"}]},
        ]
        assert chat({"input": items})["messages"] == [
            {"role": "user", "content": "hi"},
            {
                "role": "assistant",
                "content": "let me",
                "tool_calls": [
                    {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                    {"id": "b", "type": "function", "function": {"name": "g", "arguments": '{"x":1}'}},
                ],
            },
            {"role": "tool", "tool_call_id": "a", "content": "one"},
            {"role": "tool", "tool_call_id": "b", "content": "two"},
        ]

    def test_media(self) -> None:
        parts = [
            {"type": "input_text", "text": "a"},
            {"type": "input_image", "image_url": "https://example.com/a.png", "detail": "high"},
            {"type": "input_image", "image_url": "data:image/png;base64,AAAA"},
            {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="},
        ]
        assert chat({"input": [{"role": "user", "content": parts}]})["messages"][0]["content"] == [
            {"type": "text", "text": "a"},
            {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "high"}},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
            {
                "type": "file",
                "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="},
            },
        ]

    def test_tools_choice_and_output(self) -> None:
        schema = {"type": "object", "properties": {}, "additionalProperties": False}
        tools = [{"type": "function", "name": name, "parameters": schema, "strict": True} for name in "fg"]
        form = {"type": "json_schema", "name": "n", "schema": schema, "strict": True}
        choice = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "g"}]}
        body = chat({"input": "x", "tools": tools, "tool_choice": choice, "text": {"format": form}})
        assert [tool["function"]["name"] for tool in body["tools"]] == ["g"]
        assert body["tool_choice"] == "required"
        assert body["response_format"] == {
            "type": "json_schema",
            "json_schema": {"name": "n", "schema": schema, "strict": True},
        }
        named = {"type": "function", "name": "f"}
        assert chat({"input": "x", "tools": tools, "tool_choice": named})["tool_choice"]["function"] == {"name": "f"}

    def test_claudes_reasoning_goes_there_and_back(self) -> None:
        thinking = {"type": "thinking", "thinking": "hm", "signature": "s+/="}
        hidden = {"type": "redacted_thinking", "data": "R:R"}
        use = {"type": "tool_use", "id": "a", "name": "f", "input": {}}
        given = orjson.dumps({"id": "1", "content": [thinking, hidden, use], "stop_reason": "tool_use"})
        response = json.loads(CLAUDE.answer(given, "m"))
        assert [item["type"] for item in response["output"]] == ["reasoning", "reasoning", "function_call"]
        back = [*response["output"], {"type": "function_call_output", "call_id": "a", "output": "ok"}]
        body = sent({"input": [{"role": "user", "content": "x"}, *back]})
        assert body["messages"][1]["content"] == [thinking, hidden, use]

    def test_openais_own_reasoning_is_left_out_and_noted(self) -> None:
        item = {"type": "reasoning", "id": "r", "summary": [], "encrypted_content": "gAAAAB"}
        _, notes = translate({"input": [{"role": "user", "content": "x"}, item]})
        assert notes == ("input[1]: reasoning without Claude's signature was left out",)

    def test_what_openais_servers_did_is_left_out_and_noted(self) -> None:
        _, notes = translate({"input": [{"role": "user", "content": "x"}, {"type": "web_search_call", "id": "w"}]})
        assert notes == ("input[1]: a web_search_call item was left out",)

    def test_settings(self) -> None:
        ask = {"reasoning": {"effort": "low", "summary": "auto"}, "store": True, "truncation": "disabled"}
        body = sent({"input": "x", "include": ["reasoning.encrypted_content"], **ask}, "claude-opus-4-7")
        assert body["output_config"] == {"effort": "low"}
        _, notes = translate({"input": "x", "truncation": "auto", "max_tool_calls": 3, "include": ["other"]})
        assert set(notes) == {
            "truncation: not supported by Claude",
            "max_tool_calls: not supported by Claude",
            "include: other is not there",
        }

    @pytest.mark.parametrize(
        ("body", "param"),
        [
            ({}, "input"),
            ({"input": []}, "input"),
            ({"input": [5]}, "input[0]"),
            ({"input": [{"role": "judge", "content": "x"}]}, "input[0]"),
            ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]"),
            ({"input": [{"role": "user", "content": [{"type": "input_beam"}]}]}, "input[0].content[0]"),
            ({"input": "x", "previous_response_id": "r"}, "previous_response_id"),
            ({"input": "x", "conversation": "c"}, "conversation"),
            ({"input": "x", "background": True}, "background"),
            ({"input": "x", "tools": [{"type": "web_search"}]}, "tools[0]"),
            ({"input": "x", "tool_choice": {"type": "web_search"}}, "tool_choice"),
            ({"input": "x", "text": {"format": {"type": "grammar"}}}, "text.format"),
        ],
    )
    def test_what_cannot_be_done_is_refused_by_its_path(self, body: dict[str, Any], param: str) -> None:
        with pytest.raises(InvalidRequest) as caught:
            translate(body)
        assert caught.value.param == param

    @pytest.mark.parametrize(
        "body", [{"input": "x", "tools": 5}, {"input": "x", "text": 5}, {"input": "x", "reasoning": 5}]
    )
    def test_an_odd_type_is_a_bad_request(self, body: dict[str, Any]) -> None:
        with pytest.raises(InvalidRequest):
            translate(body)

    @pytest.mark.parametrize("recording", RECORDED, ids=str)
    def test_recorded_requests(self, recording: Recording) -> None:
        raw = recording.request
        view = CLAUDE.view(raw)
        try:
            translated = CLAUDE.request(raw, view, model="claude-sonnet-4-5", replacements={}, meter=True)
        except InvalidRequest:
            return
        said = [part.text for part in view.texts() if part.role == "user" and part.path.endswith(("text", "content"))]
        assert all(orjson.dumps(text)[1:-1] in translated.body for text in said)


def blocks(*items: dict[str, Any], reason: str = "end_turn") -> bytes:
    usage = {"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": 4}
    return orjson.dumps({"id": "msg_1", "model": "c", "content": list(items), "stop_reason": reason, "usage": usage})


TEXT = {"type": "text", "text": "a"}
USE = {"type": "tool_use", "id": "x", "name": "f", "input": {"k": 1}}


class TestAnswer:
    def test_the_frame(self) -> None:
        raw = orjson.dumps({"model": "m", "input": "x", "temperature": 0.5, "metadata": {"a": "b"}, "store": True})
        carried = CLAUDE.request(raw, CLAUDE.view(raw), model="c", replacements={}, meter=True).carried
        body = json.loads(CLAUDE.answer(blocks(TEXT), "m", carried))
        assert (body["object"], body["status"], body["created_at"]) == ("response", "completed", 1_700_000_000)
        assert (body["temperature"], body["metadata"], body["store"]) == (0.5, {"a": "b"}, False)
        assert body["usage"] == {
            "input_tokens": 14,
            "input_tokens_details": {"cached_tokens": 4},
            "output_tokens": 5,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 19,
        }
        assert CLAUDE.usage(orjson.dumps(body)) == Usage(prompt=14, completion=5, cached=4)

    def test_items(self) -> None:
        thinking = {"type": "thinking", "thinking": "t", "signature": "s"}
        output = json.loads(CLAUDE.answer(blocks(thinking, TEXT, TEXT, USE, reason="tool_use"), "m"))["output"]
        assert [item["type"] for item in output] == ["reasoning", "message", "function_call"]
        assert output[1]["content"] == [{"type": "output_text", "text": "aa", "annotations": [], "logprobs": []}]
        assert (output[2]["call_id"], output[2]["arguments"]) == ("x", '{"k":1}')
        assert len({item["id"] for item in output}) == 3

    @pytest.mark.parametrize(("reason", "why"), [("max_tokens", "max_output_tokens"), ("refusal", "content_filter")])
    def test_T9_an_incomplete_answer(self, reason: str, why: str) -> None:
        body = json.loads(CLAUDE.answer(blocks(TEXT, reason=reason), "m"))
        assert (body["status"], body["incomplete_details"]) == ("incomplete", {"reason": why})
        assert body["usage"]["output_tokens"] == 5


def events(source: bytes, bridge: Any = CHAT, size: int = 1 << 30) -> tuple[list[dict[str, Any]], Any]:
    translator = bridge.stream("m", include_usage=False, carried=Carried(echo={"temperature": 0.5}))
    out = b"".join(translator.feed(source[at : at + size]) for at in range(0, len(source), size)) + translator.finish()
    frames = [frame for frame in FrameSplitter().feed(out) if not frame.startswith(b":")]
    found = [json.loads(data_of(frame) or b"") for frame in frames]
    assert [event["type"].encode() for event in found] == [event_of(frame) for frame in frames]
    well_formed(found)
    return found, translator


def well_formed(found: list[dict[str, Any]]) -> None:
    """Numbered in order; each item added once and done once, and the last event repeats what was done."""
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    assert [event["type"] for event in found[:2]] == ["response.created", "response.in_progress"]
    added = [event for event in found if event["type"] == "response.output_item.added"]
    done = [event for event in found if event["type"] == "response.output_item.done"]
    assert [event["output_index"] for event in added] == list(range(len(added)))
    assert sorted(event["output_index"] for event in done) == list(range(len(added)))
    last = found[-1]["response"]
    assert last["output"] == [event["item"] for event in sorted(done, key=lambda event: event["output_index"])]
    for event in found:
        if event["type"].endswith(".delta"):
            assert added[event["output_index"]]["item"]["id"] == event["item_id"]
    for event in done:
        pieces = [
            other["delta"]
            for other in found
            if other["type"].endswith(".delta") and other["output_index"] == event["output_index"]
        ]
        assert "".join(pieces) == text_of(event["item"]) or (text_of(event["item"]) == "{}" and not pieces)


def text_of(item: dict[str, Any]) -> str:
    if item["type"] == "function_call":
        return str(item["arguments"])
    parts = item["summary"] if item["type"] == "reasoning" else item["content"]
    return "".join(part.get("text") or part.get("refusal") or "" for part in parts)


def chunk(delta: dict[str, Any] | None = None, reason: str | None = None, **fields: Any) -> bytes:
    choice = {"index": 0, "delta": delta or {}, "finish_reason": reason}
    return frame_of(orjson.dumps({"id": "x", "model": "up", "choices": [choice], **fields}))


def call(index: int, arguments: str = "", call_id: str | None = None) -> dict[str, Any]:
    function: dict[str, Any] = {"arguments": arguments}
    entry: dict[str, Any] = {"index": index, "function": function}
    if call_id is not None:
        function["name"] = "f"
        entry["id"] = call_id
    return entry


DONE = b"data: [DONE]\n\n"


class TestStream:
    def test_reasoning_text_and_calls(self) -> None:
        usage = {"prompt_tokens": 3, "completion_tokens": 4}
        source = (
            chunk({"role": "assistant", "content": ""})
            + chunk({"reasoning_content": "h"})
            + chunk({"reasoning_content": "m"})
            + chunk({"content": "a"})
            + chunk({"content": "b"})
            + chunk({"tool_calls": [call(0, "", "c")]})
            + chunk({"tool_calls": [call(0, '{"k":')]})
            + chunk({"tool_calls": [call(0, "1}")]})
            + chunk(reason="tool_calls")
            + chunk(choices=[], usage=usage)
            + DONE
        )
        found, translator = events(source)
        assert [event["type"].removeprefix("response.") for event in found] == [
            "created",
            "in_progress",
            "output_item.added",
            "reasoning_summary_part.added",
            "reasoning_summary_text.delta",
            "reasoning_summary_text.delta",
            "reasoning_summary_text.done",
            "reasoning_summary_part.done",
            "output_item.done",
            "output_item.added",
            "content_part.added",
            "output_text.delta",
            "output_text.delta",
            "output_text.done",
            "content_part.done",
            "output_item.done",
            "output_item.added",
            "function_call_arguments.delta",
            "function_call_arguments.delta",
            "function_call_arguments.done",
            "output_item.done",
            "completed",
        ]
        last = found[-1]["response"]
        assert (last["status"], last["temperature"], last["usage"]["total_tokens"]) == ("completed", 0.5, 7)
        assert translator.usage == Usage(prompt=3, completion=4)
        seen = translator.answer()
        assert {(part.kind, part.text) for part in seen.texts} == {
            ("reasoning", "hm"),
            ("message", "ab"),
            ("tool_arguments", '{"k":1}'),
        }

    def test_F8_output_index_counts_items(self) -> None:
        source = chunk({"content": "a"}) + chunk({"tool_calls": [call(0, "{}", "c"), call(1, "{}", "d")]})
        found, _ = events(source + chunk(reason="tool_calls") + DONE)
        deltas = [event for event in found if event["type"] == "response.function_call_arguments.delta"]
        assert [event["output_index"] for event in deltas] == [1, 2]

    def test_interleaved_calls(self) -> None:
        source = (
            chunk({"tool_calls": [call(0, "", "c"), call(1, "", "d")]})
            + chunk({"tool_calls": [call(1, '{"b"'), call(0, '{"a"')]})
            + chunk({"tool_calls": [call(1, ":2}"), call(0, ":1}")]})
            + chunk(reason="tool_calls")
            + DONE
        )
        found, _ = events(source)
        assert [item["arguments"] for item in found[-1]["response"]["output"]] == ['{"a":1}', '{"b":2}']

    def test_a_refusal(self) -> None:
        found, _ = events(chunk({"refusal": "n"}) + chunk({"refusal": "o"}) + chunk(reason="stop") + DONE)
        assert found[-1]["response"]["output"][0]["content"] == [{"type": "refusal", "refusal": "no"}]

    def test_T9_an_incomplete_answer_is_metered(self) -> None:
        usage = {"prompt_tokens": 3, "completion_tokens": 4}
        found, translator = events(chunk({"content": "a"}) + chunk(reason="length", usage=usage) + DONE)
        assert found[-1]["type"] == "response.incomplete"
        assert found[-1]["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
        assert translator.usage == Usage(prompt=3, completion=4)

    def test_an_error_before_any_content_is_a_real_answer(self) -> None:
        error = frame_of(b'{"error":{"message":"slow down","type":"rate_limit_error"}}')
        with pytest.raises(UpstreamStatus):
            CHAT.stream("m", include_usage=False).feed(chunk({"content": ""}) + error)

    def test_a_stream_that_breaks_has_no_end(self) -> None:
        translator = CHAT.stream("m", include_usage=False)
        assert b"response.completed" not in translator.feed(chunk({"content": "a"}))
        with pytest.raises(UpstreamInvalid):
            translator.finish()

    @pytest.mark.parametrize("recording", [item for item in RECORDED_CLAUDE if item.streams], ids=str)
    def test_T1_recorded_streams_of_claude(self, recording: Recording) -> None:
        found, _ = events(recording.response, CLAUDE)
        assert events(recording.response, CLAUDE, size=61)[0] == found


class TestPassedOn:
    @pytest.mark.parametrize("recording", [item for item in RECORDED if item.streams and item.status == 200], ids=str)
    def test_the_tap_reads_what_the_end_repeats(self, recording: Recording) -> None:
        tap = openai_passthrough.ResponsesTap()
        frames = FrameSplitter().feed(recording.response)
        ends = [frame for frame in frames if b'"response.completed"' in frame or b'"response.incomplete"' in frame]
        for frame in frames:
            if frame not in ends:
                tap.feed(frame)
        before = {(part.kind, part.text) for part in tap.answer().texts if part.kind == "message"}
        for frame in ends:
            tap.feed(frame)
        assert tap.usage is not None
        after = {(part.kind, part.text) for part in tap.answer().texts if part.kind == "message"}
        assert before <= after


@pytest.fixture
def client() -> Iterator[Callable[[bytes, Any], openai.OpenAI]]:
    """The official SDK, in front of a provider that always answers the same."""
    opened = []

    def make(source: bytes, bridge: Any) -> openai.OpenAI:
        def handle(request: httpx.Request) -> httpx.Response:
            view = bridge.view(request.content)
            carried = bridge.request(
                request.content, view, model="claude-sonnet-4-5", replacements={}, meter=True
            ).carried
            if not view.stream:
                return httpx.Response(200, json=json.loads(bridge.answer(source, view.model, carried)))
            translator = bridge.stream(view.model, include_usage=False, carried=carried)
            content = translator.feed(source) + translator.finish()
            return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=content)

        transport = httpx.Client(transport=httpx.MockTransport(handle))
        opened.append(openai.OpenAI(api_key="x", base_url="http://gateway.invalid/v1", http_client=transport))
        return opened[-1]

    yield make
    for sdk in opened:
        sdk.close()


class Answer(BaseModel):
    a: str


def test_the_sdk_reads_an_answer(client: Callable[[bytes, Any], openai.OpenAI]) -> None:
    answer = client(blocks(TEXT, USE, reason="tool_use"), CLAUDE).responses.create(model="m", input="x")
    assert answer.output_text == "a"
    assert answer.output[1].type == "function_call"


def test_the_sdk_parses_structured_output(client: Callable[[bytes, Any], openai.OpenAI]) -> None:
    given = blocks({"type": "text", "text": '{"a":"b"}'})
    answer = client(given, CLAUDE).responses.parse(model="m", input="x", text_format=Answer)
    assert answer.output_parsed == Answer(a="b")


def test_the_sdk_reads_a_stream(client: Callable[[bytes, Any], openai.OpenAI]) -> None:
    source = (
        chunk({"reasoning_content": "hm"})
        + chunk({"content": "a"})
        + chunk({"content": "b"})
        + chunk({"tool_calls": [call(0, '{"k":1}', "c")]})
        + chunk(reason="tool_calls")
        + DONE
    )
    with client(source, CHAT).responses.stream(model="m", input="x") as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert final.output_text == "ab"
    assert kinds[-1] == "response.completed"
