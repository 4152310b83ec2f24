"""The mock provider, asked by the official SDK."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import orjson
import pytest
from pydantic import BaseModel

from gateway.errors import InvalidRequest
from gateway.sse import data_of
from gateway.types import Operation
from translators import mock
from translators.providers import PROVIDERS

PATHS = {
    "/v1/chat/completions": Operation.CHAT,
    "/v1/completions": Operation.COMPLETIONS,
    "/v1/embeddings": Operation.EMBEDDINGS,
    "/v1/moderations": Operation.MODERATIONS,
    "/v1/responses": Operation.RESPONSES,
}


def handle(request: httpx.Request) -> httpx.Response:
    answer = mock.respond(PATHS[request.url.path], request.content)
    return httpx.Response(answer.status, headers=list(answer.headers), content=b"".join(answer.frames))


@pytest.fixture
def client() -> Iterator[openai.OpenAI]:
    transport = httpx.Client(transport=httpx.MockTransport(handle))
    with openai.OpenAI(api_key="x", base_url="http://mock.invalid/v1", http_client=transport, max_retries=0) as client:
        yield client


USER: Any = [{"role": "user", "content": "hello there"}]
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 3}},
            "required": ["city"],
        },
    },
}


def test_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="m", messages=USER)
    assert answer.choices[0].message.content == "Mock answer to: hello there"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer == client.chat.completions.create(model="m", messages=USER)


def test_several_choices_limit_and_stop(client: openai.OpenAI) -> None:
    assert len(client.chat.completions.create(model="m", messages=USER, n=3).choices) == 3
    cut = client.chat.completions.create(model="m", messages=USER, max_tokens=2).choices[0]
    assert (cut.message.content, cut.finish_reason) == ("Mock ans", "length")
    stopped = client.chat.completions.create(model="m", messages=USER, stop=[" to"]).choices[0]
    assert (stopped.message.content, stopped.finish_reason) == ("Mock answer", "stop")


def test_stream(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(model="m", messages=USER, stream=True, stream_options={"include_usage": True})
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "Mock answer to: hello there"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage == client.chat.completions.create(model="m", messages=USER).usage
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_no_usage_chunk_unless_asked_for(client: openai.OpenAI) -> None:
    assert all(chunk.choices for chunk in client.chat.completions.create(model="m", messages=USER, stream=True))


def test_one_frame_for_each_event() -> None:
    answer = mock.respond(Operation.CHAT, orjson.dumps({"model": "m", "messages": USER, "stream": True}))
    assert all(frame.endswith(b"\n\n") and data_of(frame) is not None for frame in answer.frames)
    assert answer.frames[-1] == b"data: [DONE]\n\n"
    assert len(answer.frames) == 1 + 5 + 1 + 1


def test_a_required_tool_is_called(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="m", messages=USER, tools=[TOOL], tool_choice="required")
    assert answer.choices[0].finish_reason == "tool_calls"
    call: Any = answer.choices[0].message.tool_calls[0]
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "mock city", "days": 3})
    result: Any = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    history: Any = [*USER, answer.choices[0].message, result]
    after = client.chat.completions.create(model="m", messages=history, tools=[TOOL], tool_choice="required")
    assert after.choices[0].message.content == "The tool answered: sunny"


def test_a_named_tool_is_called_in_a_stream(client: openai.OpenAI) -> None:
    choice: Any = {"type": "function", "function": {"name": "weather"}}
    with client.chat.completions.stream(model="m", messages=USER, tools=[TOOL], tool_choice=choice) as stream:
        answer = stream.get_final_completion()
    call: Any = answer.choices[0].message.tool_calls[0]
    assert json.loads(call.function.arguments) == {"city": "mock city", "days": 3}


def test_auto_calls_nothing(client: openai.OpenAI) -> None:
    assert client.chat.completions.create(model="m", messages=USER, tools=[TOOL]).choices[0].message.tool_calls is None


class Step(BaseModel):
    text: str
    score: float


class Plan(BaseModel):
    steps: list[Step]
    done: bool


def test_structured_output(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(model="m", messages=USER, response_format=Plan)
    assert answer.choices[0].message.parsed == Plan(steps=[Step(text="mock text", score=1)], done=True)


def test_embeddings(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model="m", input=["a", "b", "a"], dimensions=8)
    vectors = [item.embedding for item in answer.data]
    assert [len(vector) for vector in vectors] == [8, 8, 8]
    assert vectors[0] == vectors[2] != vectors[1]
    assert math.isclose(math.hypot(*vectors[0]), 1, rel_tol=1e-6)
    floats = client.embeddings.create(model="m", input="a", dimensions=8, encoding_format="float").data[0].embedding
    assert floats == pytest.approx(vectors[0], abs=1e-7)


def test_embeddings_of_token_ids(client: openai.OpenAI) -> None:
    assert len(client.embeddings.create(model="m", input=[1, 2, 3]).data) == 1
    assert len(client.embeddings.create(model="m", input=[[1, 2], [3]]).data) == 2


def test_completions(client: openai.OpenAI) -> None:
    assert client.completions.create(model="m", prompt="x").choices[0].text == "Mock answer to: x"
    parts = client.completions.create(model="m", prompt="x", stream=True)
    assert "".join(part.choices[0].text for part in parts) == "Mock answer to: x"


def test_moderations(client: openai.OpenAI) -> None:
    assert [result.flagged for result in client.moderations.create(input=["a", "b"]).results] == [False, False]


def test_responses(client: openai.OpenAI) -> None:
    answer = client.responses.create(model="m", input="hello")
    assert answer.output_text == "Mock answer to: hello"
    with client.responses.stream(model="m", input="hello") as stream:
        kinds = [event.type for event in stream]
        assert stream.get_final_response().output_text == "Mock answer to: hello"
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"


def test_a_cut_response_is_incomplete(client: openai.OpenAI) -> None:
    answer = client.responses.create(model="m", input="hello", max_output_tokens=1)
    assert (answer.status, answer.output_text) == ("incomplete", "Mock")


@pytest.mark.parametrize(
    ("operation", "body"),
    [
        (Operation.CHAT, b"{"),
        (Operation.CHAT, b"[]"),
        (Operation.CHAT, b'{"messages":[]}'),
        (Operation.CHAT, b'{"messages":[{}],"n":0}'),
        (Operation.EMBEDDINGS, b'{"input":[]}'),
        (Operation.EMBEDDINGS, b'{"input":"x","dimensions":-1}'),
        (Operation.RESPONSES, b"{}"),
        (Operation.SPEECH, b"{}"),
    ],
)
def test_a_bad_request_is_refused(operation: Operation, body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        mock.respond(operation, body)


def test_the_row_offers_what_the_mock_answers() -> None:
    offered = PROVIDERS["mock"].endpoints.keys()
    assert offered == set(PATHS.values())


def test_a_stream_has_the_pace_that_its_metadata_ask_for() -> None:
    chat = {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True}
    assert mock.respond(Operation.CHAT, orjson.dumps(chat)).gap_seconds == 0
    paced = {**chat, "metadata": {"mock_gap_ms": "40"}}
    assert mock.respond(Operation.CHAT, orjson.dumps(paced)).gap_seconds == 0.04


@pytest.mark.parametrize("gap", ["1001", "-1", "fast", 40])
def test_a_pace_that_is_none_is_refused(gap: object) -> None:
    request = {"messages": [{"role": "user", "content": "x"}], "stream": True, "metadata": {"mock_gap_ms": gap}}
    with pytest.raises(InvalidRequest) as caught:
        mock.respond(Operation.CHAT, orjson.dumps(request))
    assert caught.value.param == "metadata.mock_gap_ms"
