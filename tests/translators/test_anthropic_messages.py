"""Anthropic's Messages read where they pass as they are."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.errors import InvalidRequest, Wire
from gateway.sse import FrameSplitter
from gateway.types import Operation, Usage
from tests.recordings import Recording, select
from translators import anthropic_messages, collected, paths
from translators.plan import bind
from translators.providers import PROVIDERS

RECORDED = select("anthropic", suffix="/messages")


def texts(body: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    view = anthropic_messages.view(orjson.dumps({"model": "m", "max_tokens": 5, **body}))
    return [(part.path, part.role, part.kind, part.text) for part in view.texts()]


def test_identity() -> None:
    same = bind(Operation.MESSAGES, PROVIDERS["anthropic"])
    body = b'{"model":"m","max_tokens":5,"stream":true,"messages":[]}'
    view = same.view(body)
    assert (same.identity, same.wire) == (True, Wire.ANTHROPIC)
    assert (view.model, view.stream, view.max_output_tokens) == ("m", True, 5)
    assert same.request(body, view, model="m", replacements={}, meter=True).body is body
    renamed = same.request(body, view, model="up", replacements={}, meter=True)
    assert renamed.body == b'{"model":"up","max_tokens":5,"stream":true,"messages":[]}'
    assert not renamed.strip_usage


@pytest.mark.parametrize("body", [b'{"model":1}', b'{"model":"m","model":"n","messages":[]}'])
def test_a_bad_request(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        anthropic_messages.view(body)


def test_every_text_in_order() -> None:
    assert texts(
        {
            "system": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}],
            "tools": [{"name": "f", "description": "b", "input_schema": {"properties": {"x": {"title": "c"}}}}],
            "messages": [
                {"role": "user", "content": "d"},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "e", "signature": "S"},
                        {"type": "text", "text": "f"},
                        {"type": "tool_use", "id": "1", "name": "f", "input": {"x": {"y": ["g"]}}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "h"}]},
                        {"type": "tool_result", "tool_use_id": "1", "content": "i"},
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA"}},
                        {"type": "document", "title": "j", "source": {"type": "text", "data": "k"}},
                    ],
                },
            ],
            "output_config": {"format": {"schema": {"title": "l"}}},
        }
    ) == [
        ("tools[0].name", "system", "tool_definition", "f"),
        ("tools[0].description", "system", "tool_definition", "b"),
        ("tools[0].input_schema.properties.x.title", "system", "tool_definition", "c"),
        ("system[0].text", "system", "message", "a"),
        ("messages[0].content", "user", "message", "d"),
        ("messages[1].content[0].thinking", "assistant", "reasoning", "e"),
        ("messages[1].content[1].text", "assistant", "message", "f"),
        ("messages[1].content[2].input.x.y[0]", "assistant", "tool_arguments", "g"),
        ("messages[2].content[0].content[0].text", "tool", "tool_result", "h"),
        ("messages[2].content[1].content", "tool", "tool_result", "i"),
        ("messages[2].content[3].title", "user", "message", "j"),
        ("messages[2].content[3].source.data", "user", "message", "k"),
        ("output_config.format.schema.title", "system", "instructions", "l"),
    ]


@pytest.mark.parametrize(
    ("body", "hidden"),
    [
        ({"messages": [{"role": "user", "content": "a", "note": "HIDDEN"}]}, "messages[0].note"),
        ({"messages": [{"role": "user", "content": [{"type": "new", "x": "HIDDEN"}]}]}, "messages[0].content[0].x"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "x": "HIDDEN"}]}]},
            "messages[0].content[0].x",
        ),
        ({"messages": ["HIDDEN"]}, "messages[0]"),
        ({"messages": {"x": "HIDDEN"}}, "messages.x"),
        ({"messages": [], "mcp_servers": [{"prompt": "HIDDEN"}]}, "mcp_servers[0].prompt"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "new", "source": {"type": "text", "data": "HIDDEN"}}]}
                ]
            },
            "messages[0].content[0].source.data",
        ),
    ],
)
def test_no_text_hides_in_an_extension(body: dict[str, Any], hidden: str) -> None:
    assert hidden in [path for path, _, _, text in texts(body) if text == "HIDDEN"]


@pytest.mark.parametrize("recording", RECORDED[::2], ids=str)
def test_recorded_requests(recording: Recording) -> None:
    view = anthropic_messages.view(recording.request)
    found = view.texts()
    assert found
    for part in found:
        value: Any = recording.request_body
        for step in paths.steps(part.path):
            value = value[step]
        assert value == part.text


@pytest.mark.parametrize("recording", [item for item in RECORDED if item.status == 200][::2], ids=str)
def test_recorded_answers(recording: Recording) -> None:
    if recording.streams:
        tap = anthropic_messages.MessagesTap()
        for frame in FrameSplitter().feed(recording.response):
            tap.feed(frame)
        answer = tap.answer()
    else:
        answer = anthropic_messages.read(recording.response)
        assert answer.usage == anthropic_messages.usage(recording.response)
    assert answer.usage is not None
    assert answer.usage.completion > 0
    assert answer.finish_reason


def test_counts_are_cumulative() -> None:
    tap = anthropic_messages.MessagesTap()
    tap.feed(b'data: {"type":"message_start","message":{"usage":{"input_tokens":9,"output_tokens":1}}}\n\n')
    tap.feed(b'data: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":7}}\n\n')
    assert tap.usage == Usage(prompt=9, completion=7)
    assert tap.answer().finish_reason == "end_turn"


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"usage":5}', b'{"content":5,"stop_reason":5}'])
def test_an_odd_answer_never_raises(body: bytes) -> None:
    assert anthropic_messages.read(body).usage is None
    assert anthropic_messages.usage(body) is None
    anthropic_messages.MessagesTap().feed(b"data: %b\n\n" % body)


def test_text_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collected, "MAX_TEXT_CHARS", 10)
    tap = anthropic_messages.MessagesTap()
    for _ in range(5):
        tap.feed(b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"1234"}}\n\n')
    assert [part.text for part in tap.answer().texts] == ["12341234"]
    assert tap.answer().truncated
