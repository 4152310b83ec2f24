"""The tools that answers call and that requests declare, in every format, whole and in pieces."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from translators import anthropic_messages, openai_chat, openai_passthrough
from translators.collected import MAX_TEXT_CHARS, Collected
from translators.dialect import Called
from translators.tools import Declared, declared

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
ARGUMENTS = '{"city": "Oslo"}'


def frame(event: object) -> bytes:
    return b"data: %b\n\n" % orjson.dumps(event)


def chat(message: dict[str, Any]) -> bytes:
    return orjson.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]})


CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": ARGUMENTS}}
PLACE = "choices[0].message.tool_calls[0].function.arguments"


def test_a_chat_answer() -> None:
    custom = {"id": "c2", "type": "custom", "custom": {"name": "grep", "input": "x"}}
    old = {"name": "old", "arguments": ""}
    view = openai_chat.read(chat({"content": None, "tool_calls": [CALL, custom], "function_call": old}))
    assert view.calls == [
        Called("weather", ARGUMENTS, PLACE),
        Called("grep", "x", "choices[0].message.tool_calls[1].custom.input"),
        Called("old", "", "choices[0].message.function_call.arguments"),
    ]


def test_an_odd_chat_answer() -> None:
    view = openai_chat.read(chat({"content": [{"type": "text", "text": "Hi"}], "tool_calls": [CALL]}))
    assert view.calls == [Called("weather", ARGUMENTS, PLACE)]


def test_a_chat_stream() -> None:
    tap = openai_chat.ChatTap()
    for function in ({"name": "weather", "arguments": ""}, {"arguments": ARGUMENTS[:5]}, {"arguments": ARGUMENTS[5:]}):
        tap.feed(frame({"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": function}]}}]}))
    assert tap.answer().calls == [Called("weather", ARGUMENTS, PLACE)]


def test_a_messages_answer() -> None:
    content = [
        {"type": "text", "text": "Hi"},
        {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Oslo"}},
        {"type": "server_tool_use", "id": "t2", "name": "web_search", "input": {}},
    ]
    view = anthropic_messages.read(orjson.dumps({"content": content}))
    assert view.calls == [Called("weather", '{"city":"Oslo"}', "content[1].input")]


def test_a_messages_stream() -> None:
    tap = anthropic_messages.MessagesTap()
    block = {"type": "tool_use", "id": "t1", "name": "weather", "input": {}}
    tap.feed(frame({"type": "content_block_start", "index": 1, "content_block": block}))
    for piece in (ARGUMENTS[:5], ARGUMENTS[5:]):
        delta = {"type": "input_json_delta", "partial_json": piece}
        tap.feed(frame({"type": "content_block_delta", "index": 1, "delta": delta}))
    assert tap.answer().calls == [Called("weather", ARGUMENTS, "content[1].input")]


RESPONSE = {
    "status": "completed",
    "output": [
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hi"}]},
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": ARGUMENTS},
        {"type": "custom_tool_call", "call_id": "c2", "name": "grep", "input": "x"},
        {"type": "web_search_call", "id": "w1"},
    ],
}
CALLS = [Called("weather", ARGUMENTS, "output[1].arguments"), Called("grep", "x", "output[2].input")]


def test_a_response() -> None:
    assert openai_passthrough.read(orjson.dumps(RESPONSE)).calls == CALLS


def test_a_response_in_events() -> None:
    tap = openai_passthrough.ResponsesTap()
    tap.feed(frame({"type": "response.completed", "response": RESPONSE}))
    assert tap.answer().calls == CALLS


@pytest.mark.parametrize(
    "entry",
    [
        {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}},
        {"type": "function", "name": "weather", "parameters": SCHEMA},
        {"name": "weather", "input_schema": SCHEMA},
    ],
)
def test_ways_to_declare(entry: object) -> None:
    assert declared(orjson.dumps({"tools": [entry]})) == [Declared("weather", orjson.dumps(SCHEMA))]


def test_other_declarations() -> None:
    tools = [{"type": "web_search"}, {"type": "custom", "custom": {"name": "grep"}}, "odd", {"name": 1}]
    body = orjson.dumps({"tools": tools, "functions": [{"name": "old", "parameters": SCHEMA}]})
    assert declared(body) == [Declared("grep", None), Declared("old", orjson.dumps(SCHEMA))]


@pytest.mark.parametrize("body", [b"", b"no", b"[]", b'{"tools": {}}', b'{"tools": null}'])
def test_no_declarations(body: bytes) -> None:
    assert declared(body) == []


def test_names_are_bounded() -> None:
    collected = Collected()
    collected.call(0, "a", "x" * MAX_TEXT_CHARS)
    collected.call(1, "a", "y")
    assert collected.truncated
    assert len(collected.calls("{}")) == 1
