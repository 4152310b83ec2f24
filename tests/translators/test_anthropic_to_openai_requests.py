"""Anthropic's requests as OpenAI's models get them: section C of the list of translation pitfalls, first half."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from gateway.errors import InvalidRequest, Wire
from gateway.types import Operation
from tests.recordings import Recording, select
from translators.plan import bind
from translators.providers import PROVIDERS, Provider

USER = {"role": "user", "content": "hi"}
MARK = {"type": "ephemeral"}


def translate(
    body: dict[str, Any], model: str = "gpt-4o", provider: Provider = PROVIDERS["openai"]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    bridge = bind(Operation.MESSAGES, provider)
    raw = orjson.dumps({"model": "claude-x", "max_tokens": 100, **body})
    translated = bridge.request(raw, bridge.view(raw), model=model, replacements={}, meter=True)
    return json.loads(translated.body), translated.notes


def sent(body: dict[str, Any], model: str = "gpt-4o", provider: Provider = PROVIDERS["openai"]) -> dict[str, Any]:
    """The translated request; there must be nothing to note."""
    translated, notes = translate(body, model, provider)
    assert notes == ()
    return translated


def refused(body: dict[str, Any]) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        translate(body)
    return caught.value


def use(call_id: str, arguments: Any = None, name: str = "f") -> dict[str, Any]:
    return {"type": "tool_use", "id": call_id, "name": name, "input": arguments or {}}


def result(call_id: str, **fields: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": call_id, **fields}


def turns(*blocks: dict[str, Any]) -> list[dict[str, Any]]:
    return [USER, {"role": "assistant", "content": [use("a")]}, {"role": "user", "content": list(blocks)}]


def test_the_wire_is_anthropics() -> None:
    assert bind(Operation.MESSAGES, PROVIDERS["openai"]).wire is Wire.ANTHROPIC


class TestMessages:
    def test_plain(self) -> None:
        assert sent({"messages": [USER, {"role": "assistant", "content": "yes"}, USER]}) == {
            "model": "gpt-4o",
            "messages": [USER, {"role": "assistant", "content": "yes"}, USER],
            "max_completion_tokens": 100,
        }

    def test_results_come_before_what_else_the_user_said(self) -> None:
        body = sent({"messages": turns({"type": "text", "text": "and"}, result("a", content="ok"))})
        assert body["messages"][1:] == [
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "a", "content": "ok"},
            {"role": "user", "content": "and"},
        ]

    def test_C9_an_image_in_a_result_becomes_a_picture_for_the_model(self) -> None:
        image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
        body = sent({"messages": turns(result("a", content=[image]))})
        assert body["messages"][2:] == [
            {"role": "tool", "tool_call_id": "a", "content": "(see the next message)"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Result of the tool call a:"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                ],
            },
        ]

    def test_C10_a_result_without_content(self) -> None:
        assert sent({"messages": turns(result("a"))})["messages"][2] == {
            "role": "tool",
            "tool_call_id": "a",
            "content": "",
        }

    def test_C11_an_error_is_marked(self) -> None:
        body = sent({"messages": turns(result("a", is_error=True, content=[{"type": "text", "text": "no"}]))})
        assert body["messages"][2]["content"] == "Error: no"

    def test_C14_a_system_message_keeps_its_place(self) -> None:
        body = sent({"messages": [USER, {"role": "system", "content": "now"}, USER]})
        assert [message["role"] for message in body["messages"]] == ["user", "system", "user"]

    def test_C15_C16_a_system_prompt_of_blocks(self) -> None:
        blocks = [{"type": "text", "text": "a", "cache_control": MARK}, {"type": "text", "text": "b"}]
        body, notes = translate({"system": blocks, "messages": [USER]})
        assert body["messages"][0] == {"role": "system", "content": "a\n\nb"}
        assert notes == ("cache_control: this provider decides by itself what to cache",)
        assert b"cache_control" not in orjson.dumps(body)

    def test_C16_a_marker_becomes_a_breakpoint_where_the_model_takes_them(self) -> None:
        blocks = [{"type": "text", "text": "a", "cache_control": MARK}, {"type": "text", "text": "b"}]
        body = sent({"system": blocks, "messages": [{"role": "user", "content": blocks}]}, "gpt-5.6")
        marked = {"type": "text", "text": "a", "prompt_cache_breakpoint": {"mode": "explicit"}}
        assert body["messages"][0]["content"] == [marked, {"type": "text", "text": "b"}]
        assert body["messages"][1]["content"] == [marked, {"type": "text", "text": "b"}]

    def test_C20_reasoning_goes_back_where_a_tool_was_called(self) -> None:
        thinking = {"type": "thinking", "thinking": "hm", "signature": "s"}
        history = [
            USER,
            {"role": "assistant", "content": [thinking, {"type": "text", "text": "hello"}]},
            USER,
            {"role": "assistant", "content": [thinking, use("a")]},
            {"role": "user", "content": [result("a")]},
        ]
        body = sent({"messages": history}, "deepseek-reasoner", PROVIDERS["deepseek"])
        assert [message.get("reasoning_content") for message in body["messages"]] == [None, None, None, "hm", None]
        body, notes = translate({"messages": history})
        assert all("reasoning_content" not in message for message in body["messages"])
        assert notes == (
            "messages[1]: its reasoning is not sent to openai",
            "messages[3]: its reasoning is not sent to openai",
        )

    def test_media(self) -> None:
        blocks = [
            {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
            {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}},
            {"type": "document", "title": "t", "source": {"type": "text", "media_type": "text/plain", "data": "grün"}},
        ]
        assert sent({"messages": [{"role": "user", "content": blocks}]})["messages"][0]["content"] == [
            {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
            {
                "type": "file",
                "file": {"filename": "document.pdf", "file_data": "data:application/pdf;base64,JVBERi0="},
            },
            {"type": "text", "text": "t:\n\ngrün"},
        ]

    def test_blocks_of_anthropics_own_servers_are_left_out_and_noted(self) -> None:
        blocks = [
            {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
            {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
            {"type": "text", "text": "found"},
        ]
        body, notes = translate({"messages": [USER, {"role": "assistant", "content": blocks}, USER]})
        assert body["messages"][1] == {"role": "assistant", "content": "found"}
        assert len(notes) == 2

    @pytest.mark.parametrize(
        ("message", "param"),
        [
            ("x", "messages[0]"),
            ({"role": "judge", "content": "x"}, "messages[0]"),
            ({"role": "user", "content": 5}, "messages[0].content"),
            ({"role": "user", "content": [5]}, "messages[0].content[0]"),
            ({"role": "user", "content": [{"type": "hologram"}]}, "messages[0].content[0]"),
            ({"role": "user", "content": [{"type": "image", "source": {"type": "beam"}}]}, "messages[0].content[0]"),
            (
                {"role": "user", "content": [{"type": "image", "source": {"type": "file", "file_id": "f"}}]},
                "messages[0].content[0]",
            ),
        ],
    )
    def test_what_cannot_be_sent_is_refused_by_its_path(self, message: Any, param: str) -> None:
        assert refused({"messages": [message]}).param == param

    @pytest.mark.parametrize(
        "body",
        [
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            {"messages": [{"role": "assistant", "content": [{"type": "tool_use"}]}]},
            {"messages": [USER], "tools": 5},
            {"messages": [USER], "tool_choice": 5},
            {"messages": [USER], "thinking": 5},
            {"messages": [USER], "output_config": {"format": {}}},
            {"messages": [USER], "metadata": 5},
            {"messages": 5},
        ],
    )
    def test_an_odd_type_is_a_bad_request(self, body: dict[str, Any]) -> None:
        refused(body)


class TestTools:
    SCHEMA = b'{"type":"object", "properties":{"a":{"minimum":1.0}}}'

    @pytest.mark.parametrize("kind", [{}, {"type": "custom"}, {"type": None}])
    def test_C12_a_tool_without_a_type(self, kind: dict[str, Any]) -> None:
        tool = {"name": "f", "description": "d", "input_schema": {"type": "object"}, **kind}
        assert sent({"messages": [USER], "tools": [tool]})["tools"] == [
            {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}
        ]

    def test_C13_tools_that_only_anthropic_has_are_left_out_and_noted(self) -> None:
        tools = [{"type": "web_search_20250305", "name": "web_search"}, {"name": "f", "input_schema": {}}]
        body, notes = translate({"messages": [USER], "tools": tools})
        assert [tool["function"]["name"] for tool in body["tools"]] == ["f"]
        assert notes == ("tools[0]: the tool web_search_20250305 was left out; only Anthropic has it",)

    def test_a_schema_passes_byte_for_byte(self) -> None:
        raw = b'{"model":"c","max_tokens":1,"messages":[{"role":"user","content":"x"}],"tools":[{"name":"f",'
        raw += b'"input_schema":%b}]}' % self.SCHEMA
        bridge = bind(Operation.MESSAGES, PROVIDERS["openai"])
        encoded = bridge.request(raw, bridge.view(raw), model="m", replacements={}, meter=False).body
        assert b'"parameters":' + self.SCHEMA in encoded

    @pytest.mark.parametrize(
        ("choice", "expected", "parallel"),
        [
            ({"type": "auto"}, "auto", None),
            ({"type": "any"}, "required", None),
            ({"type": "none"}, "none", None),
            ({"type": "tool", "name": "f"}, {"type": "function", "function": {"name": "f"}}, None),
            ({"type": "auto", "disable_parallel_tool_use": True}, "auto", False),
        ],
    )
    def test_tool_choice(self, choice: dict[str, Any], expected: Any, parallel: Any) -> None:
        body = sent({"messages": [USER], "tools": [{"name": "f", "input_schema": {}}], "tool_choice": choice})
        assert (body["tool_choice"], body.get("parallel_tool_calls")) == (expected, parallel)

    def test_C24_a_long_name_is_shortened_and_restored(self) -> None:
        name = "mcp__server.with.dots__" + "a_tool_with_a_very_long_name_" * 3
        bridge = bind(Operation.MESSAGES, PROVIDERS["openai"])
        body = {
            "model": "c",
            "max_tokens": 5,
            "tools": [{"name": name, "input_schema": {}}, {"name": "f", "input_schema": {}}],
            "tool_choice": {"type": "tool", "name": name},
            "messages": [USER, {"role": "assistant", "content": [use("a", name=name)]}, USER],
        }
        raw = orjson.dumps(body)
        one, two = (bridge.request(raw, bridge.view(raw), model="m", replacements={}, meter=False) for _ in range(2))
        assert one == two
        encoded = json.loads(one.body)
        short = encoded["tools"][0]["function"]["name"]
        assert len(short) == 64
        assert "." not in short
        assert encoded["tools"][1]["function"]["name"] == "f"
        assert encoded["tool_choice"]["function"]["name"] == short
        assert encoded["messages"][1]["tool_calls"][0]["function"]["name"] == short
        assert one.carried.names == {short: name}
        call = {"id": "b", "type": "function", "function": {"name": short, "arguments": "{}"}}
        completion = {"choices": [{"message": {"tool_calls": [call]}, "finish_reason": "tool_calls"}]}
        answer = json.loads(bridge.answer(orjson.dumps(completion), "c", one.carried))
        assert answer["content"][0]["name"] == name
        stream = bridge.stream("c", include_usage=True, carried=one.carried)
        chunk = {"id": "x", "choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, **call}]}}]}
        assert name.encode() in stream.feed(b"data: %b\n\n" % orjson.dumps(chunk))


class TestSettings:
    @pytest.mark.parametrize(
        ("provider", "field"),
        [("openai", "max_completion_tokens"), ("azure-openai", "max_completion_tokens"), ("vllm", "max_tokens")],
    )
    def test_the_limit_by_the_name_that_the_provider_knows(self, provider: str, field: str) -> None:
        assert sent({"messages": [USER]}, "m", PROVIDERS[provider])[field] == 100

    def test_a_limit_above_the_models_own(self) -> None:
        body, notes = translate({"messages": [USER], "max_tokens": 32_000})
        assert body["max_completion_tokens"] == 16_384
        assert notes == ("max_tokens: 32000 is above this model's limit; sent as 16384",)

    def test_C17_a_long_user_id_is_hashed(self) -> None:
        long = {"user_id": "user_" + "x" * 150}
        one, two = (sent({"messages": [USER], "metadata": long})["user"] for _ in range(2))
        assert one == two
        assert len(one) == 64
        assert sent({"messages": [USER], "metadata": {"user_id": "u-1"}})["user"] == "u-1"

    def test_C19_what_openai_does_not_have_is_noted(self) -> None:
        extras = {"top_k": 5, "context_management": {"edits": []}, "container": "c", "brand_new": 1}
        body, notes = translate({"messages": [USER], **extras})
        assert not extras.keys() & body.keys()
        assert set(notes) == {f"{key}: not supported by openai" for key in extras}
        assert sent({"messages": [USER], "top_k": 5}, "m", PROVIDERS["vllm"])["top_k"] == 5

    @pytest.mark.parametrize(
        ("thinking", "effort"),
        [({"type": "enabled", "budget_tokens": 2000}, "low"), ({"type": "enabled", "budget_tokens": 30_000}, "high")],
    )
    def test_C19_a_budget_becomes_an_effort(self, thinking: dict[str, Any], effort: str) -> None:
        body, notes = translate({"messages": [USER], "thinking": thinking}, "gpt-5-mini")
        assert body["reasoning_effort"] == effort
        assert notes == (f"thinking.budget_tokens: sent as reasoning_effort {effort}",)

    def test_C19_effort_passes_by_name(self) -> None:
        body = sent({"messages": [USER], "thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}, "o3")
        assert body["reasoning_effort"] == "high"

    @pytest.mark.parametrize(("model", "effort"), [("gpt-5.1", "none"), ("gpt-5-mini", "minimal"), ("o3", "low")])
    def test_C19_thinking_switched_off(self, model: str, effort: str) -> None:
        body, notes = translate({"messages": [USER], "thinking": {"type": "disabled"}}, model)
        assert body["reasoning_effort"] == effort
        assert bool(notes) == (effort != "none")

    def test_C19_a_model_that_does_not_think(self) -> None:
        body, notes = translate({"messages": [USER], "thinking": {"type": "enabled", "budget_tokens": 2000}})
        assert "reasoning_effort" not in body
        assert notes == ("thinking: this model is not known to think",)

    def test_sampling(self) -> None:
        body = sent({"messages": [USER], "temperature": 0.2, "top_p": 0.5, "stop_sequences": ["X"]})
        assert (body["temperature"], body["top_p"], body["stop"]) == (0.2, 0.5, ["X"])
        body, notes = translate({"messages": [USER], "temperature": 0.2}, "gpt-5")
        assert "temperature" not in body
        assert notes == ("temperature: not supported by models that think",)

    def test_more_stops_than_openai_takes(self) -> None:
        body, notes = translate({"messages": [USER], "stop_sequences": list("abcde")})
        assert body["stop"] == list("abcd")
        assert len(notes) == 1

    def test_a_stream_asks_for_usage_where_it_may(self) -> None:
        assert sent({"messages": [USER], "stream": True})["stream_options"] == {"include_usage": True}
        assert "stream_options" not in sent({"messages": [USER], "stream": True}, "m", PROVIDERS["mistral"])

    @pytest.mark.parametrize("key", ["output_format", "output_config"])
    def test_structured_output(self, key: str) -> None:
        shape = {"type": "json_schema", "schema": {"type": "object"}}
        value = shape if key == "output_format" else {"format": shape}
        assert sent({"messages": [USER], key: value})["response_format"] == {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True},
        }


ONLY_ANTHROPICS = (b'"container_upload"', b'"tool_addition"', b'"type":"compaction"')
RECORDED = [
    item
    for item in select("anthropic", suffix="/messages")[::3]
    if not any(kind in item.request for kind in ONLY_ANTHROPICS)
]


@pytest.mark.parametrize("recording", RECORDED, ids=str)
def test_recorded_requests(recording: Recording) -> None:
    bridge = bind(Operation.MESSAGES, PROVIDERS["openai"])
    raw = recording.request
    view = bridge.view(raw)
    translated = bridge.request(raw, view, model="gpt-5", replacements={}, meter=True)
    said = [part.text for part in view.texts() if part.kind == "message" and part.role == "user"]
    assert all(orjson.dumps(text)[1:-1] in translated.body for text in said)
