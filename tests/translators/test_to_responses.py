"""Clients of chat and messages in front of models that speak only OpenAI's Responses API."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import orjson
import pytest

from gateway.errors import InvalidRequest, UpstreamError, UpstreamInvalid, UpstreamStatus
from gateway.sse import FrameSplitter, data_of, frame_of
from gateway.types import Operation, Usage
from tests.recordings import Recording, select
from translators.canonical import CallDelta, CallStart, RedactedBlock, Stop, TextDelta, ThinkingDelta
from translators.plan import bind
from translators.providers import row_of
from translators.responses_answers_in import Reader, decode

ROW = row_of("openai", "responses")
CHAT = bind(Operation.CHAT, ROW, now=lambda: 1_700_000_000)
MESSAGES = bind(Operation.MESSAGES, ROW)
RECORDED = [item for item in select("openai", "azure-openai", "openrouter", suffix="/responses") if item.status == 200]
WHOLE = [item for item in RECORDED if not item.streams]
STREAMS = [item for item in RECORDED if item.streams]
CIPHER = "gAAAAAB+/x==" * 30


def translate(
    translation: Any, body: dict[str, Any], model: str = "gpt-5-codex"
) -> tuple[dict[str, Any], tuple[str, ...]]:
    raw = orjson.dumps({"model": "m", **body})
    made = translation.request(raw, translation.view(raw), model=model, replacements={}, meter=True)
    return json.loads(made.body), made.notes


def sent(translation: Any, body: dict[str, Any], model: str = "gpt-5-codex") -> dict[str, Any]:
    """The provider's request; there must be nothing to note."""
    made, notes = translate(translation, body, model)
    assert notes == ()
    return made


def asked(text: str = "hi") -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


def streamed(*events: dict[str, Any]) -> bytes:
    return b"".join(frame_of(orjson.dumps(event), event.get("type", "").encode()) for event in events)


def response(*items: dict[str, Any], **more: Any) -> dict[str, Any]:
    usage = {
        "input_tokens": 100,
        "input_tokens_details": {"cached_tokens": 75},
        "output_tokens": 30,
        "output_tokens_details": {"reasoning_tokens": 20},
        "total_tokens": 130,
    }
    return {"id": "resp_1", "model": "gpt-5", "status": "completed", "output": list(items), "usage": usage, **more}


THOUGHT = {"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": CIPHER}
SPOKEN = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "content": [{"type": "output_text", "text": "Let me see.", "annotations": []}],
}
CALLED = {"id": "fc_1", "type": "function_call", "call_id": "call_1", "name": "look", "arguments": '{"at":1}'}


class TestRequest:
    def test_a_plain_chat(self) -> None:
        body = {**asked(), "max_completion_tokens": 50}
        assert sent(CHAT, body, "gpt-4.1") == {
            "model": "gpt-4.1",
            "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}],
            "store": False,
            "max_output_tokens": 50,
        }

    def test_a_model_that_thinks_gives_its_thoughts_encrypted(self) -> None:
        body = sent(CHAT, {**asked(), "reasoning_effort": "low", "stream": True})
        assert body["reasoning"] == {"effort": "low"}
        assert body["include"] == ["reasoning.encrypted_content"]
        assert body["stream"] is True
        assert "stream_options" not in body

    def test_one_that_does_not_is_not_asked_to(self) -> None:
        body, notes = translate(CHAT, {**asked(), "reasoning_effort": "low"}, "gpt-4.1")
        assert "reasoning" not in body
        assert "include" not in body
        assert notes == ("thinking: this model is not known to think",)

    def test_turns_become_items_in_their_order(self) -> None:
        calls = [
            {"id": "a", "type": "function", "function": {"name": "look", "arguments": '{"at":1}'}},
            {"id": "b" * 86, "type": "function", "function": {"name": "look", "arguments": ""}},
        ]
        body = sent(
            CHAT,
            {
                "messages": [
                    {"role": "developer", "content": "be kind"},
                    {"role": "user", "content": "hi"},
                    {"role": "assistant", "content": "I look.", "tool_calls": calls},
                    {"role": "tool", "tool_call_id": "a", "content": "one"},
                    {"role": "tool", "tool_call_id": "b" * 86, "content": "two"},
                    {"role": "user", "content": "go on"},
                ]
            },
        )
        kinds = [(item["type"], item.get("role")) for item in body["input"]]
        assert kinds == [
            ("message", "system"),
            ("message", "user"),
            ("message", "assistant"),
            ("function_call", None),
            ("function_call", None),
            ("function_call_output", None),
            ("function_call_output", None),
            ("message", "user"),
        ]
        assert body["input"][2]["content"] == [{"type": "output_text", "text": "I look."}]
        assert body["input"][3] == {"type": "function_call", "call_id": "a", "name": "look", "arguments": '{"at":1}'}
        assert body["input"][4]["arguments"] == "{}"
        assert body["input"][4]["call_id"] == body["input"][6]["call_id"]

    def test_C25_a_long_id_of_a_call_fits(self) -> None:
        call = {"id": "x" * 86, "type": "function", "function": {"name": "f", "arguments": "{}"}}
        body = sent(CHAT, {"messages": [{"role": "assistant", "tool_calls": [call]}, asked()["messages"][0]]})
        assert len(body["input"][0]["call_id"]) <= 64

    def test_tools_say_whether_they_are_strict(self) -> None:
        schema = b'{"type":"object","$defs":{"b":{},"a":{}},"properties":{"n":{"const":1.0}}}'
        raw = b'{"model":"m","messages":[{"role":"user","content":"x"}],"parallel_tool_calls":false,"tool_choice":'
        raw += b'{"type":"function","function":{"name":"f"}},"tools":[{"type":"function","function":{"name":"f",'
        raw += (
            b'"description":"d","parameters":%b}},{"type":"function","function":{"name":"g","strict":true}}]}' % schema
        )
        made = CHAT.request(raw, CHAT.view(raw), model="gpt-5", replacements={}, meter=True)
        assert schema in made.body
        body = json.loads(made.body)
        assert [(tool["name"], tool["strict"]) for tool in body["tools"]] == [("f", False), ("g", True)]
        assert body["tools"][0]["description"] == "d"
        assert body["tools"][1]["parameters"] == {"type": "object", "properties": {}}
        assert body["tool_choice"] == {"type": "function", "name": "f"}
        assert body["parallel_tool_calls"] is False

    @pytest.mark.parametrize("choice", ["auto", "required", "none"])
    def test_choices_by_name(self, choice: str) -> None:
        tools = [{"type": "function", "function": {"name": "f"}}]
        assert sent(CHAT, {**asked(), "tools": tools, "tool_choice": choice})["tool_choice"] == choice

    def test_structured_output_and_verbosity(self) -> None:
        shape = {"name": "n", "schema": {"type": "object"}, "strict": True}
        body = {**asked(), "response_format": {"type": "json_schema", "json_schema": shape}, "verbosity": "low"}
        assert sent(CHAT, body)["text"] == {"format": {"type": "json_schema", **shape}, "verbosity": "low"}
        assert sent(CHAT, {**asked(), "response_format": {"type": "json_object"}})["text"] == {
            "format": {"type": "json_object"}
        }

    def test_images_and_files(self) -> None:
        content = [
            {"type": "image_url", "image_url": {"url": "https://x/i.png", "detail": "low"}},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
            {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}},
        ]
        body = sent(CHAT, {"messages": [{"role": "user", "content": content}]})
        assert body["input"][0]["content"] == [
            {"type": "input_image", "image_url": "https://x/i.png", "detail": "low"},
            {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo=", "detail": "auto"},
            {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="},
        ]

    def test_C9_C10_C11_results_of_tools(self) -> None:
        image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
        results = [
            {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "see"}, image]},
            {"type": "tool_result", "tool_use_id": "b"},
            {"type": "tool_result", "tool_use_id": "c", "is_error": True, "content": "no"},
            {"type": "text", "text": "and?"},
        ]
        body = sent(MESSAGES, {"max_tokens": 99, "messages": [{"role": "user", "content": results}]})
        shown = [
            {"type": "input_text", "text": "see"},
            {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo=", "detail": "auto"},
        ]
        assert [item.get("output") for item in body["input"]] == [shown, "", "Error: no", None]

    def test_what_the_responses_api_does_not_have_is_noted(self) -> None:
        body = {**asked(), "seed": 1, "stop": "X", "logit_bias": {"1": 1}, "frequency_penalty": 1, "max_tokens": 5}
        made, notes = translate(CHAT, body, "gpt-4.1")
        assert made["max_output_tokens"] == 16
        assert {note.partition(":")[0] for note in notes} == {
            "seed",
            "stop_sequences",
            "logit_bias",
            "frequency_penalty",
            "max_tokens",
        }

    def test_several_answers_are_refused(self) -> None:
        with pytest.raises(InvalidRequest) as caught:
            translate(CHAT, {**asked(), "n": 2})
        assert caught.value.param == "n"

    def test_log_probabilities_are_included(self) -> None:
        body = sent(CHAT, {**asked(), "logprobs": True, "top_logprobs": 2}, "gpt-4.1")
        assert body["include"] == ["message.output_text.logprobs"]
        assert body["top_logprobs"] == 2


class TestReasoningGoesBackByteForByte:
    def test_by_chat(self) -> None:
        answer = json.loads(CHAT.answer(orjson.dumps(response(THOUGHT, CALLED)), "m"))
        message = answer["choices"][0]["message"]
        assert message["reasoning_details"][0]["data"] == CIPHER
        result = {"role": "tool", "tool_call_id": "call_1", "content": "x"}
        body = sent(CHAT, {"messages": [*asked()["messages"], message, result]})
        assert body["input"][1] == {"type": "reasoning", "summary": [], "encrypted_content": CIPHER}
        assert body["input"][2]["call_id"] == "call_1"

    @pytest.mark.parametrize("summary", [[], [{"type": "summary_text", "text": "I look."}]])
    def test_by_messages(self, summary: list[Any]) -> None:
        answer = json.loads(MESSAGES.answer(orjson.dumps(response({**THOUGHT, "summary": summary}, CALLED)), "m"))
        history = [*asked()["messages"], {"role": "assistant", "content": answer["content"]}]
        history.append({"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call_1", "content": "x"}]})
        body = sent(MESSAGES, {"max_tokens": 99, "messages": history})
        assert body["input"][1] == {"type": "reasoning", "summary": summary, "encrypted_content": CIPHER}

    def test_another_providers_model_is_not_sent_it(self) -> None:
        answer = json.loads(MESSAGES.answer(orjson.dumps(response(THOUGHT, SPOKEN)), "m"))
        history = [*asked()["messages"], {"role": "assistant", "content": answer["content"]}, *asked()["messages"]]
        claude = bind(Operation.CHAT, row_of("anthropic"))
        assert CIPHER in json.dumps(answer)
        bedrock = bind(Operation.MESSAGES, row_of("bedrock"))
        made, notes = translate(bedrock, {"max_tokens": 9, "messages": history}, "anthropic.claude-sonnet-4-5")
        assert CIPHER not in json.dumps(made)
        assert len(notes) == 1
        assert not claude.identity

    def test_claudes_own_signature_is_not_sent_to_openai(self) -> None:
        turn = {"role": "assistant", "content": [{"type": "thinking", "thinking": "t", "signature": "Sig=="}]}
        turn["content"].append({"type": "text", "text": "x"})  # type: ignore[attr-defined]
        body, notes = translate(MESSAGES, {"max_tokens": 99, "messages": [asked()["messages"][0], turn]})
        assert [item["type"] for item in body["input"]] == ["message", "message"]
        assert notes == ("messages[1].content[0]: reasoning of another format is not sent to openai",)


class TestAnswer:
    def test_a_chat_completion(self) -> None:
        answer = json.loads(CHAT.answer(orjson.dumps(response(THOUGHT, SPOKEN, CALLED)), "m"))
        assert answer["id"] == "chatcmpl-1"
        choice = answer["choices"][0]
        assert choice["finish_reason"] == "tool_calls"
        assert choice["message"]["content"] == "Let me see."
        assert choice["message"]["tool_calls"][0]["function"] == {"name": "look", "arguments": '{"at":1}'}
        assert answer["usage"] == {
            "prompt_tokens": 100,
            "completion_tokens": 30,
            "total_tokens": 130,
            "prompt_tokens_details": {"cached_tokens": 75},
            "completion_tokens_details": {"reasoning_tokens": 20},
        }

    def test_C7_a_message(self) -> None:
        answer = json.loads(MESSAGES.answer(orjson.dumps(response(SPOKEN)), "m"))
        assert answer["stop_reason"] == "end_turn"
        assert answer["usage"]["input_tokens"] == 25
        assert answer["usage"]["cache_read_input_tokens"] == 75

    @pytest.mark.parametrize(
        ("reason", "finish"),
        [("max_output_tokens", "length"), ("content_filter", "content_filter"), ("else", "length")],
    )
    def test_an_incomplete_answer(self, reason: str, finish: str) -> None:
        tree = response(SPOKEN, status="incomplete", incomplete_details={"reason": reason})
        choice = json.loads(CHAT.answer(orjson.dumps(tree), "m"))["choices"][0]
        assert choice["finish_reason"] == finish
        assert choice.get("native_finish_reason") == (reason if reason == "else" else None)

    def test_a_refusal(self) -> None:
        said = {**SPOKEN, "content": [{"type": "refusal", "refusal": "No."}]}
        message = json.loads(CHAT.answer(orjson.dumps(response(said)), "m"))["choices"][0]["message"]
        assert message["refusal"] == "No."
        assert message["content"] is None

    @pytest.mark.parametrize(
        ("code", "status"), [("server_error", 500), ("rate_limit_exceeded", 429), ("invalid_image", 400)]
    )
    def test_a_failed_answer_is_an_error(self, code: str, status: int) -> None:
        tree = response(status="failed", error={"code": code, "message": "sorry"})
        with pytest.raises(UpstreamStatus, match="sorry") as caught:
            CHAT.answer(orjson.dumps(tree), "m")
        assert caught.value.status == status

    @pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"output":[{}]}', b'{"output":[{"type":"function_call"}]}'])
    def test_what_is_no_response(self, body: bytes) -> None:
        with pytest.raises(UpstreamInvalid):
            CHAT.answer(body, "m")

    def test_log_probabilities(self) -> None:
        chance = {"token": "Let", "logprob": -0.1, "bytes": [76, 101, 116], "top_logprobs": []}
        said = {**SPOKEN, "content": [{"type": "output_text", "text": "Let me see.", "logprobs": [chance]}]}
        choice = json.loads(CHAT.answer(orjson.dumps(response(said)), "m"))["choices"][0]
        assert choice["logprobs"] == {"content": [chance], "refusal": None}


def events(*told: dict[str, Any]) -> list[Any]:
    reader = Reader()
    return [*reader.read(streamed(*told)), *reader.end()]


BEGUN = {"type": "response.created", "response": {"id": "resp_1", "model": "gpt-5", "status": "in_progress"}}
ENDED = {"type": "response.completed", "response": response()}


def added(place: int, item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "response.output_item.added", "output_index": place, "item": item}


def done(place: int, item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "response.output_item.done", "output_index": place, "item": item}


class TestStream:
    def test_thought_text_and_call(self) -> None:
        told = events(
            BEGUN,
            added(0, {**THOUGHT, "encrypted_content": ""}),
            {"type": "response.reasoning_summary_part.added", "output_index": 0, "summary_index": 0},
            {"type": "response.reasoning_summary_text.delta", "output_index": 0, "delta": "I"},
            {"type": "response.reasoning_summary_part.added", "output_index": 0, "summary_index": 1},
            {"type": "response.reasoning_summary_text.delta", "output_index": 0, "delta": "look"},
            done(0, THOUGHT),
            added(1, {**SPOKEN, "content": []}),
            {"type": "response.output_text.delta", "output_index": 1, "delta": "Let me"},
            done(1, SPOKEN),
            added(2, {**CALLED, "arguments": ""}),
            {"type": "response.function_call_arguments.delta", "output_index": 2, "delta": '{"at":1}'},
            done(2, CALLED),
            ENDED,
        )
        assert told[1:-1] == [
            ThinkingDelta(0, "I"),
            ThinkingDelta(0, "\n\n"),
            ThinkingDelta(0, "look"),
            ThinkingDelta(0, "", CIPHER, "openai-responses-v1"),
            TextDelta("Let me"),
            CallStart(0, "call_1", "look"),
            CallDelta(0, '{"at":1}'),
        ]
        assert isinstance(told[-1], Stop)
        assert told[-1].usage == Usage(100, 30, 75, 20)

    def test_items_that_come_only_when_they_are_done(self) -> None:
        told = events(
            BEGUN, done(0, THOUGHT), added(1, SPOKEN), done(1, SPOKEN), added(2, CALLED), done(2, CALLED), ENDED
        )
        assert told[1:-1] == [
            RedactedBlock(0, CIPHER, "openai-responses-v1"),
            TextDelta("Let me see."),
            CallStart(0, "call_1", "look"),
            CallDelta(0, '{"at":1}'),
        ]

    def test_T9_usage_of_an_incomplete_answer(self) -> None:
        short = response(status="incomplete", incomplete_details={"reason": "max_output_tokens"})
        stop = events(BEGUN, {"type": "response.incomplete", "response": short})[-1]
        assert (stop.finish, stop.usage.total) == ("length", 130)

    @pytest.mark.parametrize(
        "failure",
        [
            {"type": "error", "code": "rate_limit_exceeded", "message": "slow"},
            {"type": "error", "error": {"code": "rate_limit_exceeded", "message": "slow"}},
            {"type": "response.failed", "response": {"error": {"code": "rate_limit_exceeded", "message": "slow"}}},
        ],
    )
    def test_an_error_within(self, failure: dict[str, Any]) -> None:
        with pytest.raises(UpstreamStatus, match="slow") as caught:
            events(BEGUN, failure)
        assert caught.value.status == 429

    @pytest.mark.parametrize("told", [(), (BEGUN,), (BEGUN, {"type": "response.output_text.delta"}), ({},)])
    def test_a_stream_that_is_none_or_breaks(self, told: Iterable[dict[str, Any]]) -> None:
        with pytest.raises(UpstreamError):
            events(*told)


def meaning(stream: bytes, cuts: Iterable[int] = ()) -> dict[str, Any]:
    """What a chat client has in the end."""
    translator = CHAT.stream("m", include_usage=True)
    out, last = b"", 0
    for cut in [*cuts, len(stream)]:
        out += translator.feed(stream[last:cut])
        last = cut
    out += translator.finish()
    text, thought, calls, usage, finish = "", "", dict[int, list[str]](), None, None
    for frame in FrameSplitter().feed(out):
        data = data_of(frame)
        if data in (None, b"[DONE]"):
            continue
        chunk = json.loads(data or b"")
        usage = chunk.get("usage") or usage
        for choice in chunk["choices"]:
            finish = choice["finish_reason"] or finish
            text += choice["delta"].get("content") or ""
            thought += choice["delta"].get("reasoning_content") or ""
            for call in choice["delta"].get("tool_calls") or ():
                made = calls.setdefault(call["index"], ["", ""])
                made[0] += call["function"].get("name") or ""
                made[1] += call["function"]["arguments"]
    return {"text": text, "thought": thought, "calls": calls, "usage": usage, "finish": finish}


@pytest.mark.parametrize("recorded", STREAMS, ids=str)
def test_a_recorded_stream_means_what_its_last_event_says(recorded: Recording) -> None:
    found = meaning(recorded.response)
    frames = [data_of(frame) for frame in FrameSplitter().feed(recorded.response)]
    trees = [json.loads(data) for data in frames if data and data != b"[DONE]"]
    (last,) = (tree["response"] for tree in trees if tree["type"] in ("response.completed", "response.incomplete"))
    message = json.loads(CHAT.answer(orjson.dumps(last), "m"))
    choice = message["choices"][0]
    assert found["text"] == (choice["message"]["content"] or "")
    calls = [call["function"] for call in choice["message"].get("tool_calls", ())]
    assert [tuple(call) for call in found["calls"].values()] == [(call["name"], call["arguments"]) for call in calls]
    assert found["finish"] == choice["finish_reason"]
    assert found["usage"] == message["usage"]


@pytest.mark.parametrize("recorded", STREAMS[:2], ids=str)
def test_T1_a_recorded_stream_cut_anywhere(recorded: Recording) -> None:
    whole = meaning(recorded.response)
    step = max(1, len(recorded.response) // 400)
    assert all(meaning(recorded.response, [cut]) == whole for cut in range(1, len(recorded.response), step))
    assert meaning(recorded.response, range(1, len(recorded.response))) == whole


@pytest.mark.parametrize("recorded", WHOLE, ids=str)
def test_a_recorded_answer_is_read(recorded: Recording) -> None:
    if json.loads(recorded.response)["status"] == "queued":  # asked for in the background, which is never translated
        with pytest.raises(UpstreamInvalid, match="queued"):
            decode(recorded.response)
        return
    answer = decode(recorded.response)
    assert answer.choices
    assert answer.usage is not None
    assert answer.usage.total == json.loads(recorded.response)["usage"]["total_tokens"]
