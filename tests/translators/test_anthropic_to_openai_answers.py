"""Claude's answers as OpenAI's clients get them: section B of the list of translation pitfalls."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import orjson
import pytest

from gateway.errors import UpstreamAuthFailed, UpstreamInvalid, UpstreamStatus
from gateway.sse import FrameSplitter, data_of, frame_of
from gateway.types import Operation, Usage
from tests.recordings import Recording, select
from translators.canonical import ANSWER_TOOL
from translators.plan import bind
from translators.providers import PROVIDERS

BRIDGE = bind(Operation.CHAT, PROVIDERS["anthropic"], now=lambda: 1_700_000_000.9)
RECORDED = [item for item in select("anthropic", suffix="/messages") if item.status == 200]


def message(*blocks: dict[str, Any], stop_reason: str | None = "end_turn", **fields: Any) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-x",
        "content": list(blocks),
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": {"input_tokens": 10, "output_tokens": 5},
        **fields,
    }


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


def use(call_id: str, arguments: dict[str, Any], name: str = "f") -> dict[str, Any]:
    return {"type": "tool_use", "id": call_id, "name": name, "input": arguments}


def answer(*blocks: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return json.loads(BRIDGE.answer(orjson.dumps(message(*blocks, **fields)), "asked-for"))


def events(*items: dict[str, Any]) -> bytes:
    return b"".join(frame_of(orjson.dumps(item), item["type"].encode()) for item in items)


START = {"type": "message_start", "message": message(stop_reason=None)}
STOP = {"type": "message_stop"}
PING = {"type": "ping"}


def begin(index: int, block: dict[str, Any]) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index: int, kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **fields}}


def end(index: int) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def stop(reason: str = "end_turn", **usage: int) -> dict[str, Any]:
    return {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": usage}


def said(index: int, *pieces: str) -> list[dict[str, Any]]:
    return [begin(index, text("")), *(delta(index, "text_delta", text=piece) for piece in pieces), end(index)]


def called(index: int, call_id: str, *pieces: str, given: Any = None) -> list[dict[str, Any]]:
    start = begin(index, {"type": "tool_use", "id": call_id, "name": "f", "input": given or {}})
    return [start, *(delta(index, "input_json_delta", partial_json=piece) for piece in pieces), end(index)]


def stream(source: bytes, *, include_usage: bool = True, size: int = 1 << 30) -> tuple[bytes, Any]:
    translator = BRIDGE.stream("asked-for", include_usage=include_usage)
    out = b"".join(translator.feed(source[at : at + size]) for at in range(0, len(source), size))
    return out + translator.finish(), translator


def chunks(out: bytes) -> list[dict[str, Any]]:
    found = [data_of(frame) for frame in FrameSplitter().feed(out)]
    return [json.loads(data) for data in found if data is not None and data != b"[DONE]"]


def deltas(*items: dict[str, Any]) -> list[dict[str, Any]]:
    """The deltas of a stream of these events; start and stop are added."""
    out, _ = stream(events(START, *items, stop(), STOP))
    return [chunk["choices"][0]["delta"] for chunk in chunks(out) if chunk["choices"]][1:-1]


class TestAnswer:
    def test_the_frame(self) -> None:
        assert answer(text("hi"), usage={"input_tokens": 1, "output_tokens": 2, "service_tier": "standard"}) == {
            "id": "chatcmpl-msg_1",
            "object": "chat.completion",
            "created": 1_700_000_000,
            "model": "asked-for",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "hi", "refusal": None},
                    "logprobs": None,
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
            "service_tier": "default",
        }

    def test_B1_calls_are_counted_by_themselves(self) -> None:
        thinking = {"type": "thinking", "thinking": "t", "signature": "s"}
        body = answer(thinking, text("a"), use("x", {"a": 1}), use("y", {}), stop_reason="tool_use")
        assert [
            (call["id"], call["function"]["arguments"]) for call in body["choices"][0]["message"]["tool_calls"]
        ] == [
            ("x", '{"a":1}'),
            ("y", "{}"),
        ]
        assert body["choices"][0]["finish_reason"] == "tool_calls"

    def test_B7_B8_thinking_and_its_signature(self) -> None:
        given = [{"type": "thinking", "thinking": "t", "signature": "s+/="}, {"type": "redacted_thinking", "data": "R"}]
        body = answer(*given, text("a"))["choices"][0]["message"]
        assert body["reasoning_content"] == "t"
        assert body["reasoning_details"] == [
            {"type": "reasoning.text", "text": "t", "signature": "s+/=", "index": 0, "format": "anthropic-claude-v1"},
            {"type": "reasoning.encrypted", "data": "R", "index": 1, "format": "anthropic-claude-v1"},
        ]
        raw = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}, body]})
        back = BRIDGE.request(raw, BRIDGE.view(raw), model="claude-sonnet-4-5", replacements={}, meter=False)
        assert json.loads(back.body)["messages"][1]["content"][:2] == given

    def test_B9_all_text_blocks_joined(self) -> None:
        blocks = [text("a "), {"type": "text", "text": "b", "citations": [{"type": "char_location"}]}, text(" c")]
        assert answer(*blocks)["choices"][0]["message"]["content"] == "a b c"

    def test_B10_B12_usage_counts_the_cached_prompt(self) -> None:
        usage = {
            "input_tokens": 10,
            "cache_read_input_tokens": 90,
            "cache_creation_input_tokens": 20,
            "output_tokens": 5,
            "output_tokens_details": {"thinking_tokens": 3},
        }
        body = answer(text("a"), usage=usage)
        assert body["usage"] == {
            "prompt_tokens": 120,
            "completion_tokens": 5,
            "total_tokens": 125,
            "prompt_tokens_details": {"cached_tokens": 90, "cache_write_tokens": 20},
            "completion_tokens_details": {"reasoning_tokens": 3},
        }
        counted = BRIDGE.usage(orjson.dumps(body))
        assert counted == Usage(prompt=120, completion=5, cached=90, reasoning=3, written=20)

    def test_B15_what_was_not_counted_is_left_out(self) -> None:
        usage = {"input_tokens": 1, "output_tokens": 1, "cache_read_input_tokens": None}
        assert "prompt_tokens_details" not in answer(text("a"), usage=usage)["usage"]

    @pytest.mark.parametrize(
        ("reason", "finish", "native"),
        [
            ("end_turn", "stop", None),
            ("stop_sequence", "stop", "stop_sequence"),
            ("max_tokens", "length", None),
            ("refusal", "content_filter", "refusal"),
            ("model_context_window_exceeded", "length", "model_context_window_exceeded"),
            ("pause_turn", "stop", "pause_turn"),
            ("something_new", "stop", "something_new"),
            (None, "stop", None),
        ],
    )
    def test_B16_stop_reasons(self, reason: str, finish: str, native: str) -> None:
        choice = answer(text("a"), stop_reason=reason)["choices"][0]
        assert (choice["finish_reason"], choice.get("native_finish_reason")) == (finish, native)
        out, _ = stream(events(START, *said(0, "a"), stop(reason), STOP))
        last = [chunk for chunk in chunks(out) if chunk["choices"]][-1]["choices"][0]
        assert (last["finish_reason"], last.get("native_finish_reason")) == (finish, native)

    def test_B17_a_call_that_was_cut_is_kept(self) -> None:
        choice = answer(use("x", {"a": "hal"}), stop_reason="max_tokens")["choices"][0]
        assert choice["finish_reason"] == "length"
        assert choice["message"]["tool_calls"][0]["function"]["arguments"] == '{"a":"hal"}'

    def test_B18_only_calls_no_content(self) -> None:
        assert answer(use("x", {}), stop_reason="tool_use")["choices"][0]["message"]["content"] is None

    def test_A27_the_hidden_tool_is_the_answer(self) -> None:
        choice = answer(text("Here:"), use("x", {"a": 1}, ANSWER_TOOL), stop_reason="tool_use")["choices"][0]
        assert choice["message"] == {"role": "assistant", "content": '{"a":1}', "refusal": None}
        assert choice["finish_reason"] == "stop"

    def test_A27_real_calls_stay_calls(self) -> None:
        choice = answer(use("y", {}), stop_reason="tool_use")["choices"][0]
        assert choice["finish_reason"] == "tool_calls"

    def test_blocks_of_an_unknown_kind_are_passed_over(self) -> None:
        choice = answer({"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}, text("a"))["choices"]
        assert choice[0]["message"]["content"] == "a"

    @pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"content":5}', b'{"content":[5]}', b'{"content":[{}]}'])
    def test_garbage_is_a_bad_gateway(self, body: bytes) -> None:
        with pytest.raises(UpstreamInvalid):
            BRIDGE.answer(body, "m")


class TestStream:
    def test_B2_one_first_chunk_with_the_role(self) -> None:
        out, _ = stream(events(START, PING, *said(0, "a", "b"), stop(), STOP))
        found = [chunk["choices"][0]["delta"] for chunk in chunks(out) if chunk["choices"]]
        assert found == [{"role": "assistant", "content": ""}, {"content": "a"}, {"content": "b"}, {}]

    def test_B1_calls_are_counted_by_themselves(self) -> None:
        thinking = [begin(0, {"type": "thinking", "thinking": "", "signature": ""}), end(0)]
        found = deltas(*thinking, *said(1, "a"), *called(2, "x", "{}"), *called(3, "y", "{}"))
        assert [entry["index"] for item in found for entry in item.get("tool_calls", ())] == [0, 0, 1, 1]

    def test_B3_arguments_begin_empty(self) -> None:
        found = deltas(*called(0, "x", "", '{"a"', ":1}"))
        assert found[0]["tool_calls"] == [
            {"index": 0, "id": "x", "type": "function", "function": {"name": "f", "arguments": ""}}
        ]
        assert self.arguments(found) == '{"a":1}'

    def arguments(self, found: list[dict[str, Any]]) -> str:
        return "".join(entry["function"]["arguments"] for item in found for entry in item["tool_calls"])

    @pytest.mark.parametrize("pieces", [[], [""], ["", ""]])
    def test_B4_a_call_without_arguments(self, pieces: list[str]) -> None:
        assert self.arguments(deltas(*called(0, "x", *pieces))) == "{}"

    def test_B5_arguments_that_came_whole_with_the_block(self) -> None:
        assert self.arguments(deltas(*called(0, "x", given={"a": 1}))) == '{"a":1}'
        assert self.arguments(deltas(*called(0, "x", '{"a":1}', given={"a": 1}))) == '{"a":1}'

    def test_B6_a_ping_is_a_comment(self) -> None:
        translator = BRIDGE.stream("m", include_usage=False)
        assert translator.feed(events(START)) == b""
        assert translator.feed(events(PING)).endswith(b"\n\n: ping\n\n")
        assert translator.feed(events(PING)) == b": ping\n\n"

    def test_B7_thinking_and_its_signature_in_order(self) -> None:
        block = begin(0, {"type": "thinking", "thinking": "", "signature": ""})
        found = deltas(
            block,
            delta(0, "thinking_delta", thinking="a"),
            delta(0, "thinking_delta", thinking="b"),
            delta(0, "signature_delta", signature="s+/="),
            end(0),
            *said(1, "c"),
        )
        assert found == [
            {"reasoning_details": [{"type": "reasoning.text", "index": 0, "text": "a"}], "reasoning_content": "a"},
            {"reasoning_details": [{"type": "reasoning.text", "index": 0, "text": "b"}], "reasoning_content": "b"},
            {
                "reasoning_details": [
                    {"type": "reasoning.text", "index": 0, "signature": "s+/=", "format": "anthropic-claude-v1"}
                ]
            },
            {"content": "c"},
        ]

    def test_B8_redacted_thinking_is_carried_opaque(self) -> None:
        found = deltas(begin(0, {"type": "redacted_thinking", "data": "R"}), end(0), *said(1, "a"))
        assert found[0] == {
            "reasoning_details": [
                {"type": "reasoning.encrypted", "index": 0, "data": "R", "format": "anthropic-claude-v1"}
            ]
        }

    def test_B9_all_text_blocks_joined(self) -> None:
        citation = delta(1, "citations_delta", citation={"type": "char_location"})
        found = deltas(*said(0, "a "), begin(1, text("b")), citation, end(1), *said(2, " c"))
        assert "".join(item["content"] for item in found) == "a b c"

    @pytest.mark.parametrize(
        ("late", "prompt"),
        [
            ({"output_tokens": 5}, 120),
            ({"output_tokens": 5, "input_tokens": 0, "cache_read_input_tokens": 0}, 120),
            ({"output_tokens": 5, "input_tokens": 10, "cache_read_input_tokens": 90}, 120),
            ({"output_tokens": 5, "input_tokens": 30}, 140),
        ],
    )
    def test_B10_B11_counts_are_set_and_never_added(self, late: dict[str, int], prompt: int) -> None:
        early = {
            "input_tokens": 10,
            "cache_read_input_tokens": 90,
            "cache_creation_input_tokens": 20,
            "output_tokens": 1,
        }
        start = {"type": "message_start", "message": message(stop_reason=None, usage=early)}
        out, translator = stream(events(start, *said(0, "a"), stop(**late), stop(**late), STOP))
        assert translator.usage == Usage(prompt=prompt, completion=5, cached=90, written=20)
        assert chunks(out)[-1]["usage"]["total_tokens"] == prompt + 5

    def test_B13_usage_is_the_last_chunk_of_all(self) -> None:
        out, _ = stream(events(START, *said(0, "a"), stop(output_tokens=7), STOP))
        found = chunks(out)
        assert found[-2]["choices"][0]["finish_reason"] == "stop"
        assert (found[-1]["choices"], found[-1]["usage"]["completion_tokens"]) == ([], 7)
        assert all(chunk["usage"] is None for chunk in found[:-1])
        assert out.endswith(b"}\n\ndata: [DONE]\n\n")

    def test_B14_no_usage_unless_asked_for_but_metered(self) -> None:
        out, translator = stream(events(START, *said(0, "a"), stop(output_tokens=7), STOP), include_usage=False)
        assert b"usage" not in out
        assert translator.usage == Usage(prompt=10, completion=7)
        assert translator.answer().usage == translator.usage

    def test_B17_a_call_that_was_cut_is_kept(self) -> None:
        items = called(0, "x", '{"a":"hal')
        out, _ = stream(events(START, *items, stop("max_tokens"), STOP))
        assert (
            self.arguments([chunk["choices"][0]["delta"] for chunk in chunks(out) if chunk["choices"]][1:-1])
            == '{"a":"hal'
        )
        assert chunks(out)[-2]["choices"][0]["finish_reason"] == "length"

    def test_B19_one_end_mark(self) -> None:
        out, _ = stream(events(START, *said(0, "a"), stop(), STOP))
        assert out.count(b"[DONE]") == 1

    def test_B20_a_stream_that_breaks_has_no_end(self) -> None:
        translator = BRIDGE.stream("m", include_usage=True)
        out = translator.feed(events(START, *said(0, "a")))
        assert b'"finish_reason":"' not in out
        with pytest.raises(UpstreamInvalid):
            translator.finish()

    @pytest.mark.parametrize("before", [(), (START,)])
    def test_B21_an_error_before_any_content_is_a_real_answer(self, before: tuple[dict[str, Any], ...]) -> None:
        error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
        with pytest.raises(UpstreamStatus) as caught:
            BRIDGE.stream("m", include_usage=True).feed(events(*before, error))
        assert (caught.value.status, caught.value.type, caught.value.retryable) == (503, "overloaded_error", True)

    def test_B21_after_content_what_came_before_gets_through(self) -> None:
        translator = BRIDGE.stream("m", include_usage=True)
        error = {"type": "error", "error": {"type": "api_error", "message": "Oops"}}
        out = translator.feed(events(START, begin(0, text("")), delta(0, "text_delta", text="a"), error))
        assert b'"content":"a"' in out
        with pytest.raises(UpstreamStatus):
            translator.finish()

    def test_a_refused_credential_within_a_stream(self) -> None:
        error = {"type": "error", "error": {"type": "authentication_error", "message": "sk-x"}}
        with pytest.raises(UpstreamAuthFailed):
            BRIDGE.stream("m", include_usage=True).feed(events(error))

    @pytest.mark.parametrize(
        "source", [b"data: {\n\n", b"data: []\n\n", b"data: {}\n\n", events(delta(3, "text_delta"))]
    )
    def test_garbage_is_a_bad_gateway(self, source: bytes) -> None:
        with pytest.raises(UpstreamInvalid):
            BRIDGE.stream("m", include_usage=True).feed(source)

    def test_events_of_an_unknown_kind_are_passed_over(self) -> None:
        assert deltas({"type": "brand_new", "x": 1}, *said(0, "a")) == [{"content": "a"}]

    def test_A27_the_hidden_tool_is_the_answer(self) -> None:
        start = begin(0, {"type": "tool_use", "id": "x", "name": ANSWER_TOOL, "input": {}})
        pieces = [delta(0, "input_json_delta", partial_json=piece) for piece in ("", '{"a"', ":1}")]
        out, _ = stream(events(START, start, *pieces, end(0), stop("tool_use"), STOP))
        found = [chunk["choices"][0] for chunk in chunks(out) if chunk["choices"]]
        assert "".join(choice["delta"].get("content", "") for choice in found) == '{"a":1}'
        assert found[-1]["finish_reason"] == "stop"
        assert b"tool_calls" not in out

    def test_the_texts_are_there_for_output_policies(self) -> None:
        _, translator = stream(
            events(START, *said(0, "a", "b"), *called(1, "x", '{"k":', "1}"), stop("tool_use"), STOP)
        )
        seen = translator.answer()
        assert {(part.kind, part.text) for part in seen.texts} == {("message", "ab"), ("tool_arguments", '{"k":1}')}
        assert seen.finish_reason == "tool_calls"

    def test_each_event_gives_its_chunk_at_once(self) -> None:
        translator = BRIDGE.stream("m", include_usage=True)
        translator.feed(events(START, begin(0, text(""))))
        assert b'"content":"a"' in translator.feed(events(delta(0, "text_delta", text="a")))


STREAMS = [item for item in RECORDED if item.streams]


class TestRecorded:
    @pytest.mark.parametrize("recording", [item for item in RECORDED if not item.streams], ids=str)
    def test_answers(self, recording: Recording) -> None:
        source = orjson.loads(recording.response)
        body = json.loads(BRIDGE.answer(recording.response, "m"))
        choice = body["choices"][0]
        texts = [block["text"] for block in source["content"] if block["type"] == "text"]
        assert (choice["message"]["content"] or "") == "".join(texts)
        calls = [block["input"] for block in source["content"] if block["type"] == "tool_use"]
        given = choice["message"].get("tool_calls", [])
        assert [json.loads(call["function"]["arguments"]) for call in given] == calls
        assert (choice["finish_reason"] == "tool_calls") == (source["stop_reason"] == "tool_use")

    @pytest.mark.parametrize("recording", STREAMS, ids=str)
    def test_T1_streams_assemble_to_what_was_said_however_they_are_cut(self, recording: Recording) -> None:
        whole, translator = stream(recording.response)
        assert stream(recording.response, size=61)[0] == whole
        source = [json.loads(data) for frame in FrameSplitter().feed(recording.response) if (data := data_of(frame))]
        spoken = [item["delta"].get("text", "") for item in source if item["type"] == "content_block_delta"]
        started = [item["content_block"].get("text", "") for item in source if item["type"] == "content_block_start"]
        texts = [part.text for part in translator.answer().texts if part.kind == "message"]
        assert "".join(texts) == "".join(started) + "".join(spoken)
        assert b"\xef\xbf\xbd" not in whole

    def test_T1_cut_at_every_byte(self) -> None:
        source = min(
            STREAMS, key=lambda item: len(item.response) if "input_json_delta" in item.response_body else 1 << 30
        )
        whole, _ = stream(source.response)
        assert stream(source.response, size=1)[0] == whole
        for at in range(1, len(source.response), 3):
            translator = BRIDGE.stream("asked-for", include_usage=True)
            parts = [translator.feed(source.response[:at]), translator.feed(source.response[at:]), translator.finish()]
            assert b"".join(parts) == whole


@pytest.fixture
def client() -> Iterator[Callable[[bytes], openai.OpenAI]]:
    """The official SDK, in front of a provider that always answers the same."""
    opened = []

    def make(source: bytes) -> openai.OpenAI:
        def handle(request: httpx.Request) -> httpx.Response:
            view = BRIDGE.view(request.content)
            BRIDGE.request(request.content, view, model="claude-sonnet-4-5", replacements={}, meter=True)
            if view.stream:
                kind, content = "text/event-stream", stream(source, include_usage=view.include_usage)[0]
            else:
                kind, content = "application/json", BRIDGE.answer(source, view.model)
            return httpx.Response(200, headers={"content-type": kind}, content=content)

        transport = httpx.Client(transport=httpx.MockTransport(handle))
        opened.append(openai.OpenAI(api_key="x", base_url="http://gateway.invalid/v1", http_client=transport))
        return opened[-1]

    yield make
    for sdk in opened:
        sdk.close()


USER: Any = [{"role": "user", "content": "hi"}]


def test_the_sdk_reads_an_answer(client: Callable[[bytes], openai.OpenAI]) -> None:
    source = orjson.dumps(message(text("a"), use("x", {"k": 1}), stop_reason="tool_use"))
    choice = client(source).chat.completions.create(model="m", messages=USER).choices[0]
    assert choice.message.content == "a"
    assert choice.finish_reason == "tool_calls"


def test_the_sdk_assembles_a_stream_with_thinking(client: Callable[[bytes], openai.OpenAI]) -> None:
    thinking = [
        begin(0, {"type": "thinking", "thinking": "", "signature": ""}),
        delta(0, "thinking_delta", thinking="a"),
        delta(0, "thinking_delta", thinking="b"),
        delta(0, "signature_delta", signature="s"),
        end(0),
    ]
    source = events(START, *thinking, *said(1, "c", "d"), *called(2, "x", '{"k":', "1}"), stop("tool_use"), STOP)
    tool: Any = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    with client(source).chat.completions.stream(model="m", messages=USER, tools=[tool]) as chat:
        final: Any = chat.get_final_completion().choices[0].message
    assert final.content == "cd"
    assert final.tool_calls[0].function.arguments == '{"k":1}'
    assert final.reasoning_content == "ab"
    assert final.reasoning_details == [
        {"type": "reasoning.text", "index": 0, "text": "ab", "signature": "s", "format": "anthropic-claude-v1"}
    ]


@pytest.mark.parametrize("recording", STREAMS[::6], ids=str)
def test_the_sdk_reads_recorded_streams(recording: Recording, client: Callable[[bytes], openai.OpenAI]) -> None:
    with client(recording.response).chat.completions.stream(model="m", messages=USER) as chat:
        assert chat.get_final_completion().choices[0].finish_reason
