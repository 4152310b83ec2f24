"""The official Anthropic SDK in front of a model that speaks only OpenAI's Responses API: a loop with a tool."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from gateway.sse import frame_of
from tests.provider import respond, stream
from tests.sdk.conftest import Stand

CIPHER = "gAAAAAB+/x==" * 30
THOUGHT = {"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": CIPHER}
CALL = {
    "id": "fc_1",
    "type": "function_call",
    "call_id": "call_1",
    "name": "get_weather",
    "arguments": '{"city":"Bern"}',
}
USAGE = {"input_tokens": 100, "input_tokens_details": {"cached_tokens": 40}, "output_tokens": 20, "total_tokens": 120}
BASE: dict[str, Any] = {"id": "resp_1", "model": "gpt-5-codex", "status": "in_progress", "output": []}
TOOLS: list[Any] = [
    {"name": "get_weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}},
]


@pytest.fixture
def client(stand: Stand) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(api_key=stand.key, base_url=stand.gateway.url, max_retries=0) as client:
        yield client


def events(*trees: dict[str, Any]) -> list[Any]:
    return stream(*[frame_of(json.dumps(tree).encode(), tree["type"].encode()) for tree in trees])


def test_a_thought_and_a_call_there_and_back(client: anthropic.Anthropic, stand: Stand) -> None:
    stand.script.answer(
        events(
            {"type": "response.created", "response": BASE},
            {"type": "response.output_item.added", "output_index": 0, "item": {**THOUGHT, "encrypted_content": ""}},
            {"type": "response.output_item.done", "output_index": 0, "item": THOUGHT},
            {"type": "response.output_item.added", "output_index": 1, "item": {**CALL, "arguments": ""}},
            {"type": "response.function_call_arguments.delta", "output_index": 1, "delta": '{"city":'},
            {"type": "response.function_call_arguments.delta", "output_index": 1, "delta": '"Bern"}'},
            {"type": "response.output_item.done", "output_index": 1, "item": CALL},
            {"type": "response.completed", "response": {**BASE, "status": "completed", "usage": USAGE}},
        ),
        respond(
            json.dumps(
                {
                    **BASE,
                    "status": "completed",
                    "output": [{"type": "message", "content": [{"type": "output_text", "text": "Rain."}]}],
                    "usage": USAGE,
                }
            ).encode()
        ),
    )
    history: list[Any] = [{"role": "user", "content": "Weather in Bern?"}]
    with client.messages.stream(model="codex", max_tokens=500, messages=history, tools=TOOLS) as told:
        message = told.get_final_message()
    assert message.stop_reason == "tool_use"
    assert message.usage.input_tokens == 60
    assert message.usage.cache_read_input_tokens == 40
    thought, call = message.content
    assert thought.type == "redacted_thinking"
    assert call.type == "tool_use"
    assert call.input == {"city": "Bern"}
    history += [
        {"role": "assistant", "content": message.content},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "It rains."}]},
    ]
    answer = client.messages.create(model="codex", max_tokens=500, messages=history, tools=TOOLS)
    assert answer.content[0].type == "text"
    assert answer.content[0].text == "Rain."
    first, second = [json.loads(request.body) for request in stand.script.requests]
    assert (first["stream"], "stream" in second) == (True, False)
    assert second["input"][1:] == [
        {"type": "reasoning", "summary": [], "encrypted_content": CIPHER},
        {"type": "function_call", "call_id": "call_1", "name": "get_weather", "arguments": '{"city":"Bern"}'},
        {"type": "function_call_output", "call_id": "call_1", "output": "It rains."},
    ]


def test_the_providers_error_within_a_stream(client: anthropic.Anthropic, stand: Stand) -> None:
    failed = {**BASE, "status": "failed", "error": {"code": "rate_limit_exceeded", "message": "slow down"}}
    stand.script.answer(
        events({"type": "response.created", "response": BASE}, {"type": "response.failed", "response": failed})
    )
    with (
        pytest.raises(anthropic.RateLimitError, match="slow down"),
        client.messages.stream(model="codex", max_tokens=500, messages=[{"role": "user", "content": "x"}]) as told,
    ):
        told.get_final_message()
