"""Reading requests, answers and streams of chat completions."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.errors import InvalidJSON, InvalidRequest
from gateway.sse import FrameSplitter, frame_of
from gateway.types import TextPart, Usage
from tests.recordings import Recording, select
from translators import collected, openai_chat, paths

CHATS = select(
    "openai", "azure-openai", "groq", "mistral", "deepseek", "together", "vllm", "cerebras", "openrouter", "ollama",
    suffix="chat/completions",
)  # fmt: skip


def texts(body: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    return [(part.path, part.role, part.kind, part.text) for part in openai_chat.view(orjson.dumps(body)).texts()]


class TestView:
    def test_the_few_fields(self) -> None:
        view = openai_chat.view(
            b'{"model":"m","stream":true,"stream_options":{"include_usage":true},"max_tokens":5,'
            b'"max_completion_tokens":7,"messages":[]}'
        )
        assert (view.model, view.stream, view.include_usage, view.max_output_tokens) == ("m", True, True, 7)

    def test_nulls_are_absent(self) -> None:
        view = openai_chat.view(b'{"model":"m","stream":null,"stream_options":null,"max_tokens":null,"messages":[]}')
        assert (view.stream, view.include_usage, view.max_output_tokens) == (False, False, None)

    def test_a_missing_model_is_empty_because_azure_names_it_in_the_path(self) -> None:
        assert openai_chat.view(b'{"messages":[]}').model == ""

    @pytest.mark.parametrize(
        ("body", "param"),
        [
            (b'{"model":1}', "model"),
            (b'{"stream":"yes"}', "stream"),
            (b'{"stream_options":{"include_usage":1}}', "stream_options.include_usage"),
        ],
    )
    def test_wrong_types(self, body: bytes, param: str) -> None:
        with pytest.raises(InvalidRequest) as caught:
            openai_chat.view(body)
        assert caught.value.param == param

    def test_invalid_json(self) -> None:
        with pytest.raises(InvalidJSON):
            openai_chat.view(b'{"messages": [}')


class TestRequestTexts:
    def test_all_roles_and_parts_in_order(self) -> None:
        assert texts(
            {
                "model": "m",
                "messages": [
                    {"role": "developer", "content": "a"},
                    {"role": "system", "content": [{"type": "text", "text": "b"}]},
                    {
                        "role": "user",
                        "name": "eve",
                        "content": [
                            {"type": "text", "text": "c"},
                            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                            {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
                        ],
                    },
                    {
                        "role": "assistant",
                        "content": None,
                        "refusal": "d",
                        "tool_calls": [
                            {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
                            {"id": "2", "type": "custom", "custom": {"name": "g", "input": "e"}},
                        ],
                    },
                    {"role": "tool", "tool_call_id": "1", "content": "f"},
                    {"role": "function", "name": "h", "content": "g"},
                    {"role": "assistant", "function_call": {"name": "h", "arguments": "i"}},
                ],
            }
        ) == [
            ("messages[0].content", "developer", "message", "a"),
            ("messages[1].content[0].text", "system", "message", "b"),
            ("messages[2].name", "user", "message", "eve"),
            ("messages[2].content[0].text", "user", "message", "c"),
            ("messages[3].refusal", "assistant", "refusal", "d"),
            ("messages[3].tool_calls[0].function.arguments", "assistant", "tool_arguments", '{"x":1}'),
            ("messages[3].tool_calls[1].custom.input", "assistant", "tool_arguments", "e"),
            ("messages[4].content", "tool", "tool_result", "f"),
            ("messages[5].name", "function", "tool_result", "h"),
            ("messages[5].content", "function", "tool_result", "g"),
            ("messages[6].function_call.arguments", "assistant", "tool_arguments", "i"),
        ]

    def test_tool_definitions_schemas_and_predictions(self) -> None:
        schema = {"type": "object", "properties": {"a.b": {"type": "string", "description": "x", "enum": ["y"]}}}
        found = texts(
            {
                "model": "m",
                "tools": [{"type": "function", "function": {"name": "f", "description": "d", "parameters": schema}}],
                "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"title": "t"}}},
                "prediction": {"type": "content", "content": "p"},
                "messages": [{"role": "user", "content": "u"}],
            }
        )
        assert [(path, text) for path, _, _, text in found] == [
            ("tools[0].function.name", "f"),
            ("tools[0].function.description", "d"),
            ('tools[0].function.parameters.properties["a.b"].description', "x"),
            ('tools[0].function.parameters.properties["a.b"].enum[0]', "y"),
            ("messages[0].content", "u"),
            ("response_format.json_schema.name", "n"),
            ("response_format.json_schema.schema.title", "t"),
            ("prediction.content", "p"),
        ]

    @pytest.mark.parametrize(
        ("body", "hidden"),
        [
            ({"messages": [{"role": "user", "content": "a", "note": "HIDDEN"}]}, "messages[0].note"),
            ({"messages": [{"role": "user", "content": {"text": "HIDDEN"}}]}, "messages[0].content.text"),
            ({"messages": [{"role": "user", "content": ["HIDDEN"]}]}, "messages[0].content[0]"),
            (
                {"messages": [{"role": "user", "content": [{"type": "document", "body": "HIDDEN"}]}]},
                "messages[0].content[0].body",
            ),
            (
                {"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "more": "HIDDEN"}]}]},
                "messages[0].content[0].more",
            ),
            (
                {"messages": [{"role": "user", "content": [{"type": "file", "file": {"filename": "HIDDEN"}}]}]},
                "messages[0].content[0].file.filename",
            ),
            (
                {
                    "messages": [
                        {
                            "role": "assistant",
                            "reasoning_details": [{"type": "reasoning.text", "text": "HIDDEN"}],
                        }
                    ]
                },
                "messages[0].reasoning_details[0].text",
            ),
            ({"messages": ["HIDDEN"]}, "messages[0]"),
            ({"messages": {"0": "HIDDEN"}}, 'messages["0"]'),
            ({"messages": [], "documents": [{"body": "HIDDEN"}]}, "documents[0].body"),
        ],
    )
    def test_no_text_hides_in_an_extension(self, body: dict[str, Any], hidden: str) -> None:
        assert hidden in [path for path, _, _, text in texts({"model": "m", **body}) if text == "HIDDEN"]

    @pytest.mark.parametrize("recording", CHATS, ids=str)
    def test_recorded_requests(self, recording: Recording) -> None:
        view = openai_chat.view(recording.request)
        assert view.model == recording.request_body.get("model", "")
        found = view.texts()
        assert found
        assert all(part.text == at(recording.request_body, part) for part in found)


def at(body: Any, part: TextPart) -> Any:
    for step in paths.steps(part.path):
        body = body[step]
    return body


def follow(stream: bytes) -> openai_chat.ChatTap:
    tap = openai_chat.ChatTap()
    for frame in FrameSplitter().feed(stream):
        tap.feed(frame)
    return tap


def chunk(**fields: Any) -> bytes:
    return frame_of(orjson.dumps(fields))


class TestAnswers:
    def test_usage_with_details(self) -> None:
        answer = openai_chat.read(
            b'{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":8,"total_tokens":17,'
            b'"prompt_tokens_details":{"cached_tokens":7},"completion_tokens_details":{"reasoning_tokens":6}}}'
        )
        assert answer.usage == Usage(prompt=9, completion=8, cached=7, reasoning=6)

    def test_every_text_of_every_choice(self) -> None:
        message = {
            "content": "a",
            "refusal": "b",
            "reasoning_content": "c",
            "audio": {"id": "x", "data": "AAAA", "transcript": "d"},
            "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "e"}}, {"custom": {"input": "f"}}],
        }
        body = {"choices": [{"message": message}, {"index": 1, "message": {"content": "g"}, "finish_reason": "stop"}]}
        answer = openai_chat.read(orjson.dumps(body))
        assert {(part.path, part.kind, part.text) for part in answer.texts} == {
            ("choices[0].message.content", "message", "a"),
            ("choices[0].message.refusal", "refusal", "b"),
            ("choices[0].message.reasoning_content", "reasoning", "c"),
            ("choices[0].message.audio.transcript", "message", "d"),
            ("choices[0].message.tool_calls[0].function.arguments", "tool_arguments", "e"),
            ("choices[0].message.tool_calls[1].custom.input", "tool_arguments", "f"),
            ("choices[1].message.content", "message", "g"),
        }
        assert answer.finish_reason == "stop"

    @pytest.mark.parametrize(
        "body", [b"", b"[]", b"null", b"<html>", b'{"choices":1}', b'{"choices":[1]}', b"[" * 2000]
    )
    def test_an_odd_answer_never_raises(self, body: bytes) -> None:
        assert openai_chat.read(body).usage is None

    def test_content_as_parts(self) -> None:
        answer = openai_chat.read(
            b'{"choices":[{"index":0,"message":{"content":[{"type":"thinking","thinking":[{"type":"text","text":"a"}]},'
            b'{"type":"text","text":"b"}]}}],"usage":{"prompt_tokens":1}}'
        )
        assert [part.text for part in answer.texts] == ["a", "b"]
        assert answer.usage == Usage(prompt=1)

    @pytest.mark.parametrize("recording", [r for r in CHATS if r.status == 200 and not r.streams], ids=str)
    def test_recorded_answers(self, recording: Recording) -> None:
        answer = openai_chat.read(recording.response)
        if recording.response:
            body = orjson.loads(recording.response)
            assert answer.usage is not None
            assert answer.usage.total == body["usage"]["total_tokens"]
            said = [choice.get("message", {}).get("content") for choice in body["choices"]]
            assert {text for text in said if isinstance(text, str) and text} <= {part.text for part in answer.texts}


class TestTap:
    def test_texts_as_the_complete_answer_would_have_them(self) -> None:
        tap = follow(
            chunk(choices=[{"index": 0, "delta": {"role": "assistant", "content": ""}}])
            + chunk(choices=[{"index": 0, "delta": {"content": "a"}}, {"index": 1, "delta": {"content": "x"}}])
            + chunk(choices=[{"index": 0, "delta": {"content": "b", "reasoning_content": "r"}}])
            + chunk(choices=[{"index": 0, "delta": {"tool_calls": [{"index": 1, "function": {"arguments": "{"}}]}}])
            + chunk(choices=[{"index": 0, "delta": {"tool_calls": [{"index": 1, "function": {"arguments": "}"}}]}}])
            + chunk(choices=[{"index": 0, "delta": {}, "finish_reason": "tool_calls"}], usage=None)
            + chunk(choices=[], usage={"prompt_tokens": 3, "completion_tokens": 4})
            + b"data: [DONE]\n\n"
        )
        answer = tap.answer()
        assert {part.path: part.text for part in answer.texts} == {
            "choices[0].message.content": "ab",
            "choices[1].message.content": "x",
            "choices[0].message.reasoning_content": "r",
            "choices[0].message.tool_calls[1].function.arguments": "{}",
        }
        assert (answer.finish_reason, answer.usage) == ("tool_calls", Usage(prompt=3, completion=4))

    def test_D1_first_chunk_without_choices(self) -> None:
        tap = follow(chunk(choices=[], prompt_filter_results=[{"prompt_index": 0}]))
        assert tap.answer().texts == []

    def test_D2_choice_without_delta(self) -> None:
        tap = follow(
            chunk(choices=[{"index": 0, "content_filter_offsets": {}, "finish_reason": None}])
            + chunk(choices=[{"index": 0, "delta": {"content": "a"}}])
        )
        assert [part.text for part in tap.answer().texts] == ["a"]

    def test_groq_counts_in_a_field_of_its_own(self) -> None:
        tap = follow(chunk(choices=[], x_groq={"id": "x", "usage": {"prompt_tokens": 2, "completion_tokens": 3}}))
        assert tap.usage == Usage(prompt=2, completion=3)

    def test_deltas_with_content_parts(self) -> None:
        tap = follow(chunk(choices=[{"index": 0, "delta": {"content": [{"type": "text", "text": "a"}]}}]) * 2)
        assert [part.text for part in tap.answer().texts] == ["aa"]

    @pytest.mark.parametrize(
        "frame", [b": ping\n\n", b"data: {\n\n", b"data: 1\n\n", b'data: {"choices":1}\n\n', b"\n\n"]
    )
    def test_an_odd_frame_never_raises(self, frame: bytes) -> None:
        assert follow(frame).answer().texts == []

    def test_text_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(collected, "MAX_TEXT_CHARS", 10)
        answer = follow(chunk(choices=[{"index": 0, "delta": {"content": "1234"}}]) * 5).answer()
        assert [part.text for part in answer.texts] == ["12341234"]
        assert answer.truncated

    @pytest.mark.parametrize("recording", [r for r in CHATS if r.status == 200 and r.streams], ids=str)
    def test_recorded_streams(self, recording: Recording) -> None:
        tap = follow(recording.response)
        answer = tap.answer()
        if '"usage":{' in recording.response_body:
            assert answer.usage is not None
            assert answer.usage.completion > 0
        if '"finish_reason":"' in recording.response_body:
            assert answer.finish_reason is not None
