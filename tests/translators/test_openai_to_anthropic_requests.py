"""OpenAI chat requests as Claude gets them: section A of the list of translation pitfalls."""

from __future__ import annotations

import base64
import json
from itertools import pairwise
from typing import Any, ClassVar

import orjson
import pytest

from gateway.errors import InvalidRequest
from gateway.types import Operation
from tests.recordings import Recording, select
from translators.canonical import ANSWER_TOOL
from translators.plan import bind
from translators.providers import PROVIDERS

BRIDGE = bind(Operation.CHAT, PROVIDERS["anthropic"])
OLD, FOUR, NEW, UNFORCED = "claude-3-5-haiku-latest", "claude-sonnet-4-5", "claude-opus-4-7", "claude-opus-5-5"
USER = {"role": "user", "content": "hi"}
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(24)).decode()


def translate(body: dict[str, Any], model: str = FOUR) -> tuple[dict[str, Any], tuple[str, ...]]:
    raw = orjson.dumps({"model": "m", **body})
    view = BRIDGE.view(raw)
    translated = BRIDGE.request(raw, view, model=model, replacements={}, meter=True)
    assert not translated.strip_usage
    return json.loads(translated.body), translated.notes


def sent(body: dict[str, Any], model: str = FOUR) -> dict[str, Any]:
    """The translated request; there must be nothing to note."""
    translated, notes = translate(body, model)
    assert notes == ()
    return translated


def refused(body: dict[str, Any], model: str = FOUR) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        translate(body, model)
    return caught.value


def call(call_id: str, arguments: str = "{}", name: str = "f") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def tool(name: str = "f", **function: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object"}, **function}}


def assistant(*calls: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls), **fields}


def result(call_id: str, content: Any = "ok", **fields: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content, **fields}


class TestMessages:
    def test_A1_results_of_parallel_tools_are_one_user_message(self) -> None:
        body = sent({"messages": [USER, assistant(call("a"), call("b")), result("a"), result("b")]})
        assert body["messages"][-1] == {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": "ok"},
                {"type": "tool_result", "tool_use_id": "b", "content": "ok"},
            ],
        }

    def test_A2_text_after_results_stays_after_them(self) -> None:
        turns = [USER, assistant(call("a"), call("b")), result("a"), {"role": "user", "content": "and?"}, result("b")]
        kinds = [block["type"] for block in sent({"messages": turns})["messages"][-1]["content"]]
        assert kinds == ["tool_result", "tool_result", "text"]

    def test_A3_no_arguments_are_an_empty_object(self) -> None:
        block = sent({"messages": [USER, assistant(call("a", "")), result("a")]})["messages"][1]["content"][0]
        assert block == {"type": "tool_use", "id": "a", "name": "f", "input": {}}

    @pytest.mark.parametrize("arguments", ["{", "[1]", '"x"', "null"])
    def test_A4_broken_arguments_are_noted(self, arguments: str) -> None:
        body, notes = translate({"messages": [USER, assistant(call("a", arguments)), result("a")]})
        assert body["messages"][1]["content"][0]["input"] == {}
        assert notes == ("messages[1].tool_calls[0]: arguments that are no JSON object were sent as {}",)

    def test_arguments_go_through_digit_for_digit(self) -> None:
        arguments = '{"big": 123456789012345678901234567890, "f": 1.0, "e": 1e2, "b": 2, "a": 1}'
        raw = orjson.dumps({"model": "m", "messages": [USER, assistant(call("a", arguments)), result("a")]})
        encoded = BRIDGE.request(raw, BRIDGE.view(raw), model=FOUR, replacements={}, meter=False).body
        assert arguments.encode() in encoded

    def test_A12_system_and_developer_messages_are_hoisted_in_order(self) -> None:
        cache = {"type": "ephemeral"}
        body = sent(
            {
                "messages": [
                    {"role": "system", "content": "a", "cache_control": cache},
                    USER,
                    {"role": "developer", "content": [{"type": "text", "text": "b"}]},
                ]
            }
        )
        assert body["system"] == [
            {"type": "text", "text": "a", "cache_control": cache},
            {"type": "text", "text": "b"},
        ]
        assert body["messages"] == [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]

    def test_A13_cache_markers_keep_their_place(self) -> None:
        cache = {"type": "ephemeral", "ttl": "1h"}
        body = sent(
            {
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "a", "cache_control": cache}]},
                    assistant(call("x")),
                    result("x", [{"type": "text", "text": "b"}], cache_control=cache),
                ],
                "tools": [{**tool(), "cache_control": cache}],
            }
        )
        assert body["messages"][0]["content"][0]["cache_control"] == cache
        assert body["messages"][2]["content"][0]["cache_control"] == cache
        assert body["tools"][0]["cache_control"] == cache

    def test_A13_openais_own_markers_are_understood(self) -> None:
        part = {"type": "text", "text": "a", "prompt_cache_breakpoint": {"mode": "explicit"}}
        block = sent({"messages": [{"role": "user", "content": [part]}]})["messages"][0]["content"][0]
        assert block == {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}

    def test_A13_only_four_markers(self) -> None:
        parts = [{"type": "text", "text": str(n), "cache_control": {"type": "ephemeral"}} for n in range(6)]
        body, notes = translate({"messages": [{"role": "user", "content": parts}]})
        marked = [block["text"] for block in body["messages"][0]["content"] if "cache_control" in block]
        assert marked == ["2", "3", "4", "5"]
        assert notes == ("cache_control: only the last 4 markers were kept",)

    def test_A14_an_image_address_is_passed_on(self) -> None:
        part = {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "auto"}}
        block = sent({"messages": [{"role": "user", "content": [part]}]})["messages"][0]["content"][0]
        assert block == {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}

    def test_A15_an_image_as_data(self) -> None:
        part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
        block = sent({"messages": [{"role": "user", "content": [part]}]})["messages"][0]["content"][0]
        assert block["source"] == {"type": "base64", "media_type": "image/png", "data": PNG}

    def test_A15_the_first_bytes_say_what_an_image_is(self) -> None:
        part = {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{PNG}"}}
        body, notes = translate({"messages": [{"role": "user", "content": [part]}]})
        assert body["messages"][0]["content"][0]["source"]["media_type"] == "image/png"
        assert notes == ("messages[0].content[0]: the image is image/png, not image/jpeg",)

    def test_an_image_that_claude_does_not_take(self) -> None:
        part = {"type": "image_url", "image_url": {"url": "data:image/tiff;base64,SUkqAA=="}}
        assert refused({"messages": [{"role": "user", "content": [part]}]}).param == "messages[0].content[0]"

    def test_A16_an_image_in_a_tools_result(self) -> None:
        part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
        body = sent({"messages": [USER, assistant(call("a")), result("a", [{"type": "text", "text": "x"}, part])]})
        content = body["messages"][2]["content"][0]["content"]
        assert [block["type"] for block in content] == ["text", "image"]

    def test_A26_an_empty_turn_is_skipped_and_its_neighbours_merged(self) -> None:
        body = sent({"messages": [USER, {"role": "assistant", "content": ""}, {"role": "user", "content": "b"}]})
        assert body["messages"] == [
            {"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "text", "text": "b"}]}
        ]

    def test_blank_text_is_skipped(self) -> None:
        parts = [{"type": "text", "text": " \n"}, {"type": "text", "text": "a"}]
        assert len(sent({"messages": [{"role": "user", "content": parts}]})["messages"][0]["content"]) == 1

    def test_an_empty_result_has_no_content(self) -> None:
        block = sent({"messages": [USER, assistant(call("a")), result("a", "")]})["messages"][2]["content"][0]
        assert block == {"type": "tool_result", "tool_use_id": "a"}

    def test_a_last_assistant_turn_does_not_end_in_space(self) -> None:
        body = sent({"messages": [USER, {"role": "assistant", "content": "So, "}]})
        assert body["messages"][1]["content"][0]["text"] == "So,"

    def test_a_lone_system_prompt_is_spoken_by_the_user(self) -> None:
        body, notes = translate({"messages": [{"role": "system", "content": "a"}]})
        assert body["messages"][0]["role"] == "user"
        assert len(notes) == 1

    def test_nothing_to_say_is_refused(self) -> None:
        assert refused({"messages": [{"role": "user", "content": ""}]}).param == "messages"

    @pytest.mark.parametrize(
        ("message", "param"),
        [
            ("x", "messages[0]"),
            ({"role": "judge", "content": "x"}, "messages[0]"),
            ({"role": "user", "content": 5}, "messages[0].content"),
            ({"role": "user", "content": [{"type": "video_url"}]}, "messages[0].content[0]"),
            ({"role": "user", "content": [{"type": "text", "text": None}]}, "messages[0].content[0].text"),
            ({"role": "user", "content": [{"type": "image_url"}]}, "messages[0].content[0].image_url.url"),
            (
                {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "A", "format": "mp3"}}]},
                "messages[0].content[0]",
            ),
            ({"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}, "messages[0].content[0]"),
            ({"role": "tool", "content": "x"}, "messages[0].tool_call_id"),
            ({"role": "assistant", "audio": {"id": "a"}}, "messages[0].audio"),
            ({"role": "assistant", "tool_calls": [{"type": "custom"}]}, "messages[0].tool_calls[0]"),
        ],
    )
    def test_what_cannot_be_sent_is_refused_by_its_path(self, message: Any, param: str) -> None:
        assert refused({"messages": [message]}).param == param

    def test_files(self) -> None:
        text = base64.b64encode("grün".encode()).decode()
        parts = [
            {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}},
            {"type": "file", "file": {"filename": "b.txt", "file_data": f"data:text/plain;base64,{text}"}},
        ]
        assert sent({"messages": [{"role": "user", "content": parts}]})["messages"][0]["content"] == [
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="},
                "title": "a.pdf",
            },
            {
                "type": "document",
                "source": {"type": "text", "media_type": "text/plain", "data": "grün"},
                "title": "b.txt",
            },
        ]

    def test_functions_before_there_were_tools(self) -> None:
        body, notes = translate(
            {
                "messages": [
                    USER,
                    {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
                    {"role": "function", "name": "f", "content": "ok"},
                ],
                "functions": [{"name": "f", "parameters": {"type": "object"}}],
                "function_call": {"name": "f"},
            }
        )
        assert body["messages"][1]["content"][0]["id"] == body["messages"][2]["content"][0]["tool_use_id"]
        assert body["tool_choice"] == {"type": "tool", "name": "f"}
        assert notes[0] == "functions[0]: answered as tool_calls"

    def test_unknown_fields_are_noted(self) -> None:
        part = {"type": "text", "text": "a", "shade": 1}
        _, notes = translate({"messages": [{"role": "user", "content": [part], "mood": "x", "name": "eve"}]})
        assert set(notes) == {
            "messages[0].mood: not understood",
            "messages[0].content[0].shade: not understood",
            "messages[0].name: not supported by Claude",
        }


class TestThinkingInHistory:
    BLOCKS = (
        {"type": "thinking", "thinking": "hm", "signature": "S+/=="},
        {"type": "redacted_thinking", "data": "R"},
    )

    @pytest.mark.parametrize(
        "fields",
        [
            {"thinking_blocks": list(BLOCKS), "reasoning_content": "hm"},
            {
                "reasoning_details": [
                    {"type": "reasoning.text", "text": "hm", "signature": "S+/==", "index": 0},
                    {"type": "reasoning.encrypted", "data": "R", "index": 1},
                ]
            },
            {
                "reasoning_details": [
                    {"type": "reasoning.text", "text": "h", "index": 0},
                    {"type": "reasoning.text", "text": "m", "index": 0},
                    {"type": "reasoning.text", "signature": "S+/==", "index": 0},
                    {"type": "reasoning.encrypted", "data": "R", "index": 1},
                ]
            },
        ],
    )
    def test_A10_thinking_then_text_then_calls(self, fields: dict[str, Any]) -> None:
        turn = assistant(call("a"), **{**fields, "content": "I will"})
        body = sent({"messages": [USER, turn, result("a")], "tools": [tool()]})
        assert body["messages"][1]["content"] == [
            *self.BLOCKS,
            {"type": "text", "text": "I will"},
            {"type": "tool_use", "id": "a", "name": "f", "input": {}},
        ]

    def test_A10_reasoning_without_a_signature_is_left_out_and_noted(self) -> None:
        turn = {"role": "assistant", "content": "a", "reasoning_content": "hm"}
        body, notes = translate({"messages": [USER, turn, USER]})
        assert body["messages"][1]["content"] == [{"type": "text", "text": "a"}]
        assert notes == ("messages[1].reasoning_content: reasoning without Claude's signature was left out",)

    def test_A10_the_signature_of_another_provider_is_left_out_and_noted(self) -> None:
        detail = {"type": "reasoning.text", "text": "hm", "signature": "S", "format": "openai-responses-v1", "index": 0}
        turn = {"role": "assistant", "content": "a", "reasoning_details": [detail]}
        body, notes = translate({"messages": [USER, turn, USER]})
        assert body["messages"][1]["content"] == [{"type": "text", "text": "a"}]
        assert len(notes) == 1

    def test_C25_a_long_id_of_a_call_is_shortened_alike_everywhere(self) -> None:
        long = "call_" + "x" * 80 + "__ts_a+b"
        body = sent({"messages": [USER, assistant(call(long)), result(long)]})
        used = body["messages"][1]["content"][0]["id"]
        assert body["messages"][2]["content"][0]["tool_use_id"] == used
        assert len(used) <= 64

    def test_A11_thinking_is_off_when_the_last_tool_call_lost_its_thinking(self) -> None:
        body, notes = translate({"messages": [USER, assistant(call("a")), result("a")], "reasoning_effort": "low"})
        assert "thinking" not in body
        assert notes == ("reasoning_effort: left out: the last tool call came without its thinking",)

    def test_A11_with_its_thinking_it_stays_on(self) -> None:
        turn = assistant(call("a"), thinking_blocks=list(self.BLOCKS))
        body = sent({"messages": [USER, turn, result("a")], "reasoning_effort": "low"})
        assert body["thinking"]["type"] == "enabled"


class TestTools:
    @pytest.mark.parametrize(
        ("choice", "expected"),
        [
            ("auto", {"type": "auto"}),
            ("required", {"type": "any"}),
            ("none", {"type": "none"}),
            ({"type": "function", "function": {"name": "f"}}, {"type": "tool", "name": "f"}),
        ],
    )
    def test_A5_tool_choice(self, choice: Any, expected: dict[str, Any]) -> None:
        assert sent({"messages": [USER], "tools": [tool()], "tool_choice": choice})["tool_choice"] == expected

    def test_A5_allowed_tools_leave_the_others_out(self) -> None:
        choice = {
            "type": "allowed_tools",
            "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "g"}}]},
        }
        body = sent({"messages": [USER], "tools": [tool("f"), tool("g")], "tool_choice": choice})
        assert [entry["name"] for entry in body["tools"]] == ["g"]
        assert body["tool_choice"] == {"type": "any"}

    def test_A6_only_parallel_calls_are_forbidden(self) -> None:
        body = sent({"messages": [USER], "tools": [tool()], "parallel_tool_calls": False})
        assert body["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}

    def test_A6_none_stays_none(self) -> None:
        body = sent({"messages": [USER], "tools": [tool()], "parallel_tool_calls": False, "tool_choice": "none"})
        assert body["tool_choice"] == {"type": "none"}

    def test_A7_no_tools_no_choice(self) -> None:
        assert "tool_choice" not in sent({"messages": [USER], "parallel_tool_calls": False, "tool_choice": "auto"})

    def test_A8_a_forced_tool_gives_way_to_a_budget_for_thinking(self) -> None:
        body, notes = translate(
            {"messages": [USER], "tools": [tool()], "tool_choice": "required", "reasoning_effort": "low"}
        )
        assert body["thinking"]["type"] == "enabled"
        assert body["tool_choice"] == {"type": "auto"}
        assert notes == ("tool_choice: a tool cannot be forced with thinking; sent as auto",)

    def test_A8_adaptive_thinking_and_a_forced_tool_go_together(self) -> None:
        body = sent({"messages": [USER], "tools": [tool()], "tool_choice": "required", "reasoning_effort": "low"}, NEW)
        assert (body["thinking"], body["tool_choice"]) == ({"type": "adaptive"}, {"type": "any"})

    def test_A8_models_that_take_no_forced_tool(self) -> None:
        body, notes = translate({"messages": [USER], "tools": [tool()], "tool_choice": "required"}, UNFORCED)
        assert body["tool_choice"] == {"type": "auto"}
        assert notes == ("tool_choice: a tool cannot be forced with this model; sent as auto",)

    @pytest.mark.parametrize("function", [{}, {"parameters": None}, {"parameters": {}}])
    def test_A23_no_parameters(self, function: dict[str, Any]) -> None:
        given = {"type": "function", "function": {"name": "f", "description": "d", **function}}
        assert sent({"messages": [USER], "tools": [given]})["tools"] == [
            {"name": "f", "description": "d", "input_schema": {"type": "object", "properties": {}}}
        ]

    def test_A24_a_schema_passes_byte_for_byte(self) -> None:
        schema = b'{"type":"object", "$defs":{"x":{"type":"number","minimum":1.0}},"x-mine":{"b":1,"a":2e3}}'
        raw = b'{"model":"m","messages":[{"role":"user","content":"x"}],"tools":[{"type":"function","function":'
        raw += b'{"name":"f","parameters":%b}}]}' % schema
        encoded = BRIDGE.request(raw, BRIDGE.view(raw), model=FOUR, replacements={}, meter=False).body
        assert b'"input_schema":' + schema in encoded

    def test_A24_strict_where_the_schema_allows_it(self) -> None:
        closed = {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False}
        body = sent({"messages": [USER], "tools": [tool(strict=True, parameters=closed)]})
        assert body["tools"][0]["strict"] is True
        body, notes = translate({"messages": [USER], "tools": [tool(strict=True)]})
        assert "strict" not in body["tools"][0]
        assert len(notes) == 1

    @pytest.mark.parametrize("given", [{"type": "web_search"}, {"type": "custom", "custom": {"name": "x"}}, {}])
    def test_A25_a_tool_of_another_kind_is_refused(self, given: dict[str, Any]) -> None:
        error = refused({"messages": [USER], "tools": [tool(), given]})
        assert error.param == "tools[1]"
        assert repr(given.get("type")) in error.message


class TestOutput:
    CLOSED: ClassVar[dict[str, Any]] = {
        "type": "object",
        "properties": {"a": {"type": "string"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    BOUND: ClassVar[dict[str, Any]] = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 1}}}

    def ask(self, schema: dict[str, Any]) -> dict[str, Any]:
        return {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}

    def test_A27_native_where_supported(self) -> None:
        body = sent({"messages": [USER], "response_format": self.ask(self.CLOSED), "tools": [tool()]})
        assert body["output_config"] == {"format": {"type": "json_schema", "schema": self.CLOSED}}
        assert len(body["tools"]) == 1
        assert "tool_choice" not in body

    def test_A27_else_a_hidden_tool(self) -> None:
        body = sent({"messages": [USER], "response_format": self.ask(self.CLOSED)}, OLD)
        assert body["tools"] == [
            {"name": ANSWER_TOOL, "description": "Give the answer: n.", "input_schema": self.CLOSED}
        ]
        assert body["tool_choice"] == {"type": "tool", "name": ANSWER_TOOL}

    def test_A27_beside_the_clients_own_tools(self) -> None:
        body = sent({"messages": [USER], "response_format": self.ask(self.BOUND), "tools": [tool()]})
        assert [entry["name"] for entry in body["tools"]] == ["f", ANSWER_TOOL]
        assert body["tool_choice"] == {"type": "any"}

    def test_A27_when_the_clients_tools_must_not_be_called(self) -> None:
        given = {"response_format": self.ask(self.BOUND), "tools": [tool()], "tool_choice": "none"}
        assert sent({"messages": [USER], **given})["tool_choice"] == {"type": "tool", "name": ANSWER_TOOL}

    def test_a_schema_with_bounds_on_a_model_that_cannot_be_forced(self) -> None:
        body, notes = translate({"messages": [USER], "response_format": self.ask(self.BOUND)}, UNFORCED)
        assert body["output_config"]["format"]["schema"] == {
            "type": "object",
            "properties": {"a": {"type": "integer"}},
            "additionalProperties": False,
        }
        assert len(notes) == 1

    def test_any_json_object(self) -> None:
        body = sent({"messages": [USER], "response_format": {"type": "json_object"}})
        assert body["tools"][0]["input_schema"] == {"type": "object"}
        body, notes = translate({"messages": [USER], "response_format": {"type": "json_object"}}, UNFORCED)
        assert body["system"][-1]["text"] == f"Answer by calling the tool {ANSWER_TOOL}."
        assert notes == ("response_format: asked for in words; this model cannot be held to it",)

    def test_plain_text_asks_for_nothing(self) -> None:
        assert "tools" not in sent({"messages": [USER], "response_format": {"type": "text"}})

    def test_another_kind_is_refused(self) -> None:
        assert refused({"messages": [USER], "response_format": {"type": "grammar"}}).param == "response_format"


class TestSettings:
    def test_A9_a_budget_leaves_room_below_max_tokens(self) -> None:
        body, notes = translate({"messages": [USER], "reasoning_effort": "high", "max_tokens": 4000})
        assert body["thinking"] == {"type": "enabled", "budget_tokens": 2000}
        assert notes == ("reasoning_effort: a budget of 24576 tokens was cut to 2000 by max_tokens 4000",)

    def test_A9_no_room_no_thinking(self) -> None:
        body, notes = translate({"messages": [USER], "reasoning_effort": "low", "max_tokens": 1024})
        assert "thinking" not in body
        assert notes == ("reasoning_effort: left out: max_tokens 1024 leaves no room for thinking",)

    def test_A9_a_budget_of_the_clients_own(self) -> None:
        thinking = {"type": "enabled", "budget_tokens": 5000}
        body, notes = translate({"messages": [USER], "thinking": thinking, "max_tokens": 3000})
        assert body["thinking"]["budget_tokens"] == 2999
        assert len(notes) == 1

    def test_A9_without_a_limit_the_budget_is_added_to_the_default(self) -> None:
        body = sent({"messages": [USER], "reasoning_effort": "high"})
        assert (body["max_tokens"], body["thinking"]["budget_tokens"]) == (32_000 + 24_576, 24_576)

    def test_effort_on_models_that_know_it(self) -> None:
        body = sent({"messages": [USER], "reasoning_effort": "xhigh"}, NEW)
        assert (body["thinking"], body["output_config"]) == ({"type": "adaptive"}, {"effort": "xhigh"})
        body, notes = translate({"messages": [USER], "reasoning_effort": "minimal"}, NEW)
        assert body["output_config"] == {"effort": "low"}
        assert len(notes) == 1

    def test_effort_on_models_that_do_not_think(self) -> None:
        body, notes = translate({"messages": [USER], "reasoning_effort": "high"}, OLD)
        assert "thinking" not in body
        assert notes == ("reasoning_effort: this model does not think",)

    @pytest.mark.parametrize(
        ("model", "thinking"),
        [(OLD, None), (FOUR, None), (NEW, {"type": "disabled"}), ("claude-sonnet-5-5", {"type": "between_tools"})],
    )
    def test_no_effort_at_all(self, model: str, thinking: Any) -> None:
        assert sent({"messages": [USER], "reasoning_effort": "none"}, model).get("thinking") == thinking

    def test_thinking_that_cannot_be_switched_off(self) -> None:
        _, notes = translate({"messages": [USER], "reasoning_effort": "none"}, UNFORCED)
        assert notes == ("reasoning_effort: thinking cannot be switched off for this model",)

    def test_A17_max_tokens(self) -> None:
        assert sent({"messages": [USER]})["max_tokens"] == 32_000
        assert sent({"messages": [USER]}, OLD)["max_tokens"] == 8192
        assert sent({"messages": [USER], "max_tokens": 5})["max_tokens"] == 5
        assert sent({"messages": [USER], "max_tokens": 5, "max_completion_tokens": 7})["max_tokens"] == 7

    @pytest.mark.parametrize("key", ["temperature", "top_p"])
    def test_A18_zero_is_a_value(self, key: str) -> None:
        assert sent({"messages": [USER], key: 0})[key] == 0

    def test_A19_a_number_keeps_its_digits(self) -> None:
        raw = b'{"model":"m","messages":[{"role":"user","content":"x"}],"temperature":0.7}'
        body = BRIDGE.request(raw, BRIDGE.view(raw), model=FOUR, replacements={}, meter=False).body
        assert b'"temperature":0.7,' in body or b'"temperature":0.7}' in body

    def test_A20_temperature_or_top_p(self) -> None:
        both = {"messages": [USER], "temperature": 0.5, "top_p": 0.5}
        body, notes = translate(both)
        assert ("top_p" in body, body["temperature"]) == (False, 0.5)
        assert notes == ("top_p: not supported together with temperature",)
        assert sent(both, OLD)["top_p"] == 0.5
        body, notes = translate(both, NEW)
        assert not {"temperature", "top_p"} & body.keys()
        assert set(notes) == {
            "temperature: not supported with this model",
            "top_p: not supported with this model",
        }

    def test_sampling_is_left_out_with_a_budget_for_thinking(self) -> None:
        body, notes = translate({"messages": [USER], "temperature": 0.5, "reasoning_effort": "low"})
        assert "temperature" not in body
        assert notes == ("temperature: not supported with thinking",)
        assert "temperature" not in sent({"messages": [USER], "temperature": 1, "reasoning_effort": "low"})

    def test_A21_too_high_a_temperature(self) -> None:
        body, notes = translate({"messages": [USER], "temperature": 1.6})
        assert body["temperature"] == 1
        assert notes == ("temperature: 1.6 is above Claude's highest; sent as 1",)

    @pytest.mark.parametrize(("stop", "expected"), [("X", ["X"]), (["X", "Y"], ["X", "Y"])])
    def test_A22_stop(self, stop: Any, expected: list[str]) -> None:
        assert sent({"messages": [USER], "stop": stop})["stop_sequences"] == expected

    def test_A22_blank_stops_are_left_out(self) -> None:
        body, notes = translate({"messages": [USER], "stop": ["\n", "X", ""]})
        assert body["stop_sequences"] == ["X"]
        assert notes == ("stop: not supported by Claude",)

    def test_A28_the_user_is_hashed(self) -> None:
        one, again = (sent({"messages": [USER], "user": "a@b.c"})["metadata"]["user_id"] for _ in range(2))
        assert one == again
        assert len(one) == 64
        assert one.isalnum()
        assert one != sent({"messages": [USER], "user": "x@b.c"})["metadata"]["user_id"]

    def test_A29_what_claude_does_not_have_is_noted(self) -> None:
        settings = {
            "logprobs": True,
            "top_logprobs": 2,
            "seed": 7,
            "logit_bias": {"1": 1},
            "service_tier": "flex",
            "frequency_penalty": 0.5,
            "metadata": {"a": "b"},
            "something_new": None,
            "brand_new": 1,
        }
        _, notes = translate({"messages": [USER], **settings})
        assert set(notes) == {f"{key}: not supported by Claude" for key, value in settings.items() if value is not None}

    def test_A29_values_that_ask_for_nothing_are_not_noted(self) -> None:
        sent(
            {
                "messages": [USER],
                "n": 1,
                "logprobs": False,
                "frequency_penalty": 0,
                "logit_bias": {},
                "service_tier": "auto",
                "store": False,
                "modalities": ["text"],
                "stop": None,
            }
        )

    def test_A29_several_answers_are_refused(self) -> None:
        assert refused({"messages": [USER], "n": 2}).param == "n"

    def test_stream_is_asked_for(self) -> None:
        assert sent({"messages": [USER], "stream": True, "stream_options": {"include_usage": True}})["stream"] is True
        assert "stream" not in sent({"messages": [USER]})


def test_redaction_comes_before_translation() -> None:
    raw = orjson.dumps({"model": "m", "messages": [USER, assistant(call("a", '{"x":"secret"}')), result("a", "no")]})
    view = BRIDGE.view(raw)
    index = next(i for i, part in enumerate(view.texts()) if part.kind == "tool_arguments")
    translated = BRIDGE.request(raw, view, model=FOUR, replacements={index: '{"x":"***"}'}, meter=False)
    assert json.loads(translated.body)["messages"][1]["content"][0]["input"] == {"x": "***"}
    assert b"secret" not in translated.body


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "assistant", "tool_calls": 5}]},
        {"messages": [{"role": "assistant", "refusal": 5}]},
        {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_data": "data:a/b;base64,x"}}]}]},
        {"messages": [USER], "user": 5},
        {"messages": [USER], "stop": 5},
        {"messages": [USER], "tools": {}},
        {"messages": [USER], "tools": [{"type": "function", "function": 5}]},
        {"messages": [USER], "tools": [{"type": "function", "function": {"name": "f", "parameters": [1]}}]},
        {"messages": [USER], "tool_choice": 5},
        {"messages": [USER], "response_format": 5},
        {"messages": [USER], "service_tier": []},
    ],
)
def test_an_odd_type_is_a_bad_request(body: dict[str, Any]) -> None:
    refused(body)


@pytest.mark.parametrize("model", [OLD, FOUR, NEW, UNFORCED])
@pytest.mark.parametrize("recording", select("openai", "groq", suffix="chat/completions")[::5], ids=str)
def test_recorded_requests(recording: Recording, model: str) -> None:
    raw = recording.request
    try:
        translated = BRIDGE.request(raw, BRIDGE.view(raw), model=model, replacements={}, meter=True)
    except InvalidRequest:
        return
    body = json.loads(translated.body)
    roles = [message["role"] for message in body["messages"]]
    assert all(one != following for one, following in pairwise(roles))
    said = [part.text for part in BRIDGE.view(raw).texts() if part.role == "user" and part.path.endswith("content")]
    assert all(orjson.dumps(text) in translated.body for text in said if text.strip())
