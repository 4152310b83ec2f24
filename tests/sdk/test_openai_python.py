"""The official Python SDK as a judge: `base_url` and `api_key` are changed, nothing else, and everything works.

What the mock provider says is known, so most tests compare with what OpenAI's own endpoint would have given to the same
call. Errors must become the SDK's own exception classes, and be retried exactly where a retry makes sense.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import openai
import pytest
from openai import AsyncAzureOpenAI, AsyncOpenAI, AzureOpenAI, OpenAI
from openai.types.chat import ChatCompletionChunk
from pydantic import BaseModel

from tests.provider import RESET, chunk, head, respond, stream
from tests.sdk.conftest import BLOCKED_TERM, PROVIDER_SECRET, Stand

MESSAGES: list[Any] = [{"role": "user", "content": "Say héllo, 世界 🦜"}]
MODELS = ["mock-gpt", "mock-embed", "scripted", "aliased", "codex"]
ANSWER = "Mock answer to: Say héllo, 世界 🦜"
API_VERSION = "2024-10-21"
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather at a place.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city", "days"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}


class Event(BaseModel):
    name: str
    guests: list[str]
    at: int


@pytest.fixture
def client(stand: Stand) -> Iterator[OpenAI]:
    with OpenAI(api_key=stand.key, base_url=stand.gateway.api, max_retries=0) as client:
        yield client


@pytest.fixture
async def async_client(stand: Stand) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(api_key=stand.key, base_url=stand.gateway.api, max_retries=0) as client:
        yield client


class TestChat:
    def test_answers(self, client: OpenAI) -> None:
        completion = client.chat.completions.create(model="mock-gpt", messages=MESSAGES)
        assert completion.choices[0].message.content == ANSWER
        assert completion.choices[0].finish_reason == "stop"
        assert completion.usage is not None
        assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens
        assert completion._request_id is not None

    async def test_answers_async(self, async_client: AsyncOpenAI) -> None:
        completion = await async_client.chat.completions.create(model="mock-gpt", messages=MESSAGES)
        assert completion.choices[0].message.content == ANSWER

    def test_streams_without_the_gateways_own_usage_chunk(self, client: OpenAI) -> None:
        chunks = list(client.chat.completions.create(model="mock-gpt", messages=MESSAGES, stream=True))
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == ANSWER
        assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == "stop"
        assert all(len(chunk.choices) == 1 for chunk in chunks)

    async def test_streams_async_with_usage_where_it_was_asked_for(self, async_client: AsyncOpenAI) -> None:
        stream = await async_client.chat.completions.create(
            model="mock-gpt", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == ANSWER
        assert chunks[-1].choices == []
        assert chunks[-1].usage is not None

    def test_stream_helper(self, client: OpenAI) -> None:
        with client.chat.completions.stream(model="mock-gpt", messages=MESSAGES) as stream:
            deltas = [event.delta for event in stream if event.type == "content.delta"]
            final = stream.get_final_completion()
        assert "".join(deltas) == final.choices[0].message.content == ANSWER

    async def test_stream_helper_async(self, async_client: AsyncOpenAI) -> None:
        async with async_client.chat.completions.stream(model="mock-gpt", messages=MESSAGES) as stream:
            kinds = [event.type async for event in stream]
            final = await stream.get_final_completion()
        assert kinds[-1] == "content.done"
        assert final.choices[0].message.content == ANSWER

    def test_a_stream_may_be_left(self, client: OpenAI) -> None:
        with client.chat.completions.create(model="mock-gpt", messages=MESSAGES, stream=True) as stream:
            next(iter(stream))
        assert client.chat.completions.create(model="mock-gpt", messages=MESSAGES).choices

    def test_several_choices(self, client: OpenAI) -> None:
        chunks = client.chat.completions.create(model="mock-gpt", messages=MESSAGES, n=3, stream=True)
        assert {chunk.choices[0].index for chunk in chunks} == {0, 1, 2}

    def test_calls_a_required_tool(self, client: OpenAI) -> None:
        completion = client.chat.completions.create(
            model="mock-gpt", messages=MESSAGES, tools=[WEATHER], tool_choice="required"
        )
        (call,) = completion.choices[0].message.tool_calls or ()
        assert call.type == "function"
        assert call.function.name == "get_weather"
        again = client.chat.completions.create(
            model="mock-gpt",
            messages=[
                *MESSAGES,
                completion.choices[0].message,
                {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
            ],
            tools=[WEATHER],
            tool_choice="required",
        )
        assert again.choices[0].message.content == "The tool answered: sunny"

    def test_streams_a_tool_call(self, client: OpenAI) -> None:
        with client.chat.completions.stream(
            model="mock-gpt", messages=MESSAGES, tools=[WEATHER], tool_choice="required"
        ) as stream:
            done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
        assert [event.name for event in done] == ["get_weather"]
        assert set(done[0].parsed_arguments or {}) == {"city", "days"}  # type: ignore[call-overload]

    def test_parses_structured_output(self, client: OpenAI) -> None:
        completion = client.chat.completions.parse(model="mock-gpt", messages=MESSAGES, response_format=Event)
        assert isinstance(completion.choices[0].message.parsed, Event)

    async def test_streams_structured_output_async(self, async_client: AsyncOpenAI) -> None:
        async with async_client.chat.completions.stream(
            model="mock-gpt", messages=MESSAGES, response_format=Event
        ) as stream:
            final = await stream.get_final_completion()
        assert isinstance(final.choices[0].message.parsed, Event)

    def test_large_bodies(self, client: OpenAI) -> None:
        text = "A line of a long document, ünïcode included.\n" * 20_000
        completion = client.chat.completions.create(model="mock-gpt", messages=[{"role": "user", "content": text}])
        assert completion.choices[0].message.content == f"Mock answer to: {text}"


class TestOtherOperations:
    def test_embeddings(self, client: OpenAI) -> None:
        inputs = ["one", "two"]
        # The SDK itself asks for base64 unless told otherwise, and decodes it.
        decoded = client.embeddings.create(model="mock-embed", input=inputs, dimensions=64)
        floats = client.embeddings.create(model="mock-embed", input=inputs, dimensions=64, encoding_format="float")
        raw = client.embeddings.create(model="mock-embed", input=inputs, dimensions=64, encoding_format="base64")
        assert [item.embedding for item in decoded.data] == [
            pytest.approx(item.embedding, abs=1e-6) for item in floats.data
        ]
        assert all(isinstance(item.embedding, str) for item in raw.data)

    async def test_embeddings_async(self, async_client: AsyncOpenAI) -> None:
        answer = await async_client.embeddings.create(model="mock-embed", input=[[1, 2, 3]])
        assert len(answer.data[0].embedding) == 256

    def test_models(self, client: OpenAI) -> None:
        assert [model.id for model in client.models.list()] == MODELS
        assert client.models.retrieve("mock-gpt").owned_by == "mock"
        with pytest.raises(openai.NotFoundError) as caught:
            client.models.retrieve("none")
        assert caught.value.code == "model_not_found"

    async def test_models_async(self, async_client: AsyncOpenAI) -> None:
        assert [model.id async for model in async_client.models.list()] == MODELS

    def test_completions(self, client: OpenAI) -> None:
        answer = client.completions.create(model="mock-gpt", prompt="Hello")
        assert answer.choices[0].text == "Mock answer to: Hello"
        chunks = list(client.completions.create(model="mock-gpt", prompt="Hello", stream=True))
        assert "".join(chunk.choices[0].text for chunk in chunks) == "Mock answer to: Hello"

    def test_moderations(self, client: OpenAI) -> None:
        assert not client.moderations.create(model="mock-gpt", input="Hello").results[0].flagged

    def test_responses(self, client: OpenAI) -> None:
        answer = client.responses.create(model="mock-gpt", input="Hello")
        assert answer.output_text == "Mock answer to: Hello"
        events = list(client.responses.create(model="mock-gpt", input="Hello", stream=True))
        assert events[0].type == "response.created"
        assert events[-1].type == "response.completed"
        with client.responses.stream(model="mock-gpt", input="Hello") as stream:
            stream.until_done()
            assert stream.get_final_response().output_text == "Mock answer to: Hello"

    async def test_responses_async(self, async_client: AsyncOpenAI) -> None:
        answer = await async_client.responses.create(model="mock-gpt", input=[{"role": "user", "content": "Hello"}])
        assert answer.output_text == "Mock answer to: Hello"


class TestRawAccess:
    def test_with_raw_response(self, client: OpenAI) -> None:
        raw = client.chat.completions.with_raw_response.create(
            model="mock-gpt", messages=MESSAGES, extra_headers={"x-request-id": "my-own-id"}
        )
        assert raw.status_code == 200
        assert raw.headers["content-type"] == "application/json"
        assert raw.request_id == "my-own-id"
        assert raw.parse().choices[0].message.content == ANSWER

    def test_with_streaming_response(self, client: OpenAI) -> None:
        with client.chat.completions.with_streaming_response.create(
            model="mock-gpt", messages=MESSAGES, stream=True
        ) as raw:
            assert raw.headers["content-type"].startswith("text/event-stream")
            assert raw.headers["cache-control"] == "no-cache"
            assert raw.headers["x-accel-buffering"] == "no"
            lines = [line for line in raw.iter_lines() if line]
        assert lines[-1] == "data: [DONE]"

    async def test_with_streaming_response_async(self, async_client: AsyncOpenAI) -> None:
        async with async_client.chat.completions.with_streaming_response.create(
            model="mock-gpt", messages=MESSAGES
        ) as raw:
            completion = await raw.parse()
        assert completion.choices[0].message.content == ANSWER

    def test_a_keys_limits_are_shown(self, stand: Stand) -> None:
        key = stand.gateway.create_key("limits-shown", rpm=7)
        with OpenAI(api_key=key, base_url=stand.gateway.api) as client:
            raw = client.chat.completions.with_raw_response.create(model="mock-gpt", messages=MESSAGES)
        assert raw.headers["x-ratelimit-limit-requests"] == "7"
        assert raw.headers["x-ratelimit-remaining-requests"] == "6"


class TestErrors:
    def test_wrong_key(self, stand: Stand) -> None:
        wrong = OpenAI(api_key="sk-something-else", base_url=stand.gateway.api, max_retries=0)
        with pytest.raises(openai.AuthenticationError) as caught:
            wrong.chat.completions.create(model="mock-gpt", messages=MESSAGES)
        assert caught.value.code == "invalid_api_key"
        assert caught.value.type == "authentication_error"
        assert caught.value.request_id

    def test_revoked_key(self, stand: Stand) -> None:
        key = stand.gateway.create_key("short-lived")
        client = OpenAI(api_key=key, base_url=stand.gateway.api, max_retries=0)
        assert list(client.models.list())
        stand.gateway.kt("gateway-key", "revoke", "short-lived")
        with pytest.raises(openai.AuthenticationError, match="revoked"):
            list(client.models.list())

    def test_unknown_model(self, client: OpenAI) -> None:
        with pytest.raises(openai.NotFoundError) as caught:
            client.chat.completions.create(model="none", messages=MESSAGES)
        assert caught.value.code == "model_not_found"
        assert caught.value.param == "model"

    def test_unknown_path(self, client: OpenAI) -> None:
        with pytest.raises(openai.NotFoundError) as caught:
            client.fine_tuning.jobs.list()
        assert caught.value.code == "not_found"

    def test_model_that_the_key_does_not_allow(self, stand: Stand) -> None:
        key = stand.gateway.create_key("narrow", models="mock-embed")
        client = OpenAI(api_key=key, base_url=stand.gateway.api, max_retries=0)
        assert [model.id for model in client.models.list()] == ["mock-embed"]
        with pytest.raises(openai.PermissionDeniedError) as caught:
            client.chat.completions.create(model="mock-gpt", messages=MESSAGES)
        assert caught.value.code == "model_not_allowed"

    def test_bad_request(self, client: OpenAI) -> None:
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(model="mock-gpt", messages=[])
        assert caught.value.param == "messages"

    def test_wrong_shape(self, client: OpenAI) -> None:
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(model="mock-gpt", messages="Hello")  # type: ignore[call-overload]
        assert caught.value.code == "invalid_request"

    @pytest.mark.parametrize("streams", [False, True])
    def test_policy_refusal_is_a_conflict_and_not_retried(
        self, stand: Stand, monkeypatch: pytest.MonkeyPatch, streams: bool
    ) -> None:
        monkeypatch.setattr(time, "sleep", pytest.fail)  # between two tries the SDK sleeps
        client = OpenAI(api_key=stand.guarded_key, base_url=stand.gateway.api, max_retries=5)
        with pytest.raises(openai.ConflictError) as caught:
            client.chat.completions.create(
                model="scripted", messages=[{"role": "user", "content": f"About {BLOCKED_TERM}"}], stream=streams
            )
        assert caught.value.code == "input_blocked"
        assert caught.value.type == "policy_violation"
        assert caught.value.body["policy"] == "dlp-filter"  # type: ignore[index]
        assert BLOCKED_TERM not in str(caught.value)
        assert stand.script.requests == []

    def test_rate_limit_of_the_key(self, stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
        pauses: list[float] = []
        key = stand.gateway.create_key("slow", rpm=1)
        monkeypatch.setattr(time, "sleep", pauses.append)
        client = OpenAI(api_key=key, base_url=stand.gateway.api, max_retries=1)
        client.chat.completions.create(model="mock-gpt", messages=MESSAGES)
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(model="mock-gpt", messages=MESSAGES)
        assert caught.value.code == "rate_limit_exceeded"
        # The SDK waits as long as it was told to, and no pause of its own making.
        retry_after = int(caught.value.response.headers["retry-after"])
        assert len(pauses) == 1
        assert retry_after <= pauses[0] <= retry_after + 1

    def test_rate_limit_of_the_provider(self, stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
        pauses: list[float] = []
        monkeypatch.setattr(time, "sleep", pauses.append)
        refusal = b'{"error":{"message":"Slow down.","type":"requests","param":null,"code":"rate_limit_exceeded"}}'
        answer = b'{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[]}'
        stand.script.answer(respond(refusal, 429, ("retry-after", "17")), respond(answer))
        client = OpenAI(api_key=stand.key, base_url=stand.gateway.api, max_retries=2)
        assert client.chat.completions.create(model="scripted", messages=MESSAGES).id == "c"
        assert pauses == [17]
        assert len(stand.script.requests) == 2

    def test_error_of_the_provider_in_its_own_words(self, client: OpenAI, stand: Stand) -> None:
        refusal = b'{"error":{"message":"Too long.","type":"invalid_request_error","param":"m","code":"long","x":1}}'
        stand.script.answer(respond(refusal, 400, ("x-request-id", "req_provider")))
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(model="scripted", messages=MESSAGES)
        assert caught.value.response.content == refusal
        assert caught.value.response.headers["x-provider-request-id"] == "req_provider"

    def test_refused_credentials_of_the_gateway_are_not_the_clients_fault(
        self, stand: Stand, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(time, "sleep", pytest.fail)
        stand.script.answer(respond(b'{"error":{"message":"Incorrect API key provided: sk-abc."}}', 401))
        client = OpenAI(api_key=stand.key, base_url=stand.gateway.api, max_retries=5)
        with pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.create(model="scripted", messages=MESSAGES)
        assert caught.value.status_code == 502
        assert caught.value.code == "upstream_auth_failed"
        assert "sk-abc" not in str(caught.value)
        assert len(stand.script.requests) == 1

    def test_provider_that_resets(self, client: OpenAI, stand: Stand) -> None:
        stand.script.answer([RESET], [RESET])
        with pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.create(model="scripted", messages=MESSAGES)
        assert caught.value.status_code == 502
        assert caught.value.code == "upstream_reset"

    def test_stream_that_breaks_ends_in_an_error(self, client: OpenAI, stand: Stand) -> None:
        first = b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[]}\n\n'
        opening = head(200, ("content-type", "text/event-stream"), chunked=True)
        stand.script.answer([opening, chunk(first), RESET])
        stream = client.chat.completions.create(model="scripted", messages=MESSAGES, stream=True)
        assert next(stream).id == "c"
        with pytest.raises(openai.APIError) as caught:
            next(stream)
        assert caught.value.code == "upstream_reset"

    async def test_errors_async(self, async_client: AsyncOpenAI) -> None:
        with pytest.raises(openai.NotFoundError):
            await async_client.chat.completions.create(model="none", messages=MESSAGES, stream=True)


class TestWhatTheProviderSees:
    def test_credentials_are_the_gateways_and_the_rest_is_the_clients(self, client: OpenAI, stand: Stand) -> None:
        stand.script.answer(respond(b'{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[]}'))
        client.chat.completions.create(
            model="scripted", messages=MESSAGES, extra_headers={"x-team": "research", "x-request-id": "abc"}
        )
        (request,) = stand.script.requests
        assert request.target == "/v1/chat/completions"
        assert request.headers["authorization"] == f"Bearer {PROVIDER_SECRET}"
        assert request.headers["x-request-id"] == "abc"
        assert request.headers["x-team"] == "research"
        assert request.headers["accept-encoding"] == "identity"
        assert "kt_gk_" not in request.raw.decode()

    def test_extra_body_reaches_it_unchanged(self, client: OpenAI, stand: Stand) -> None:
        stand.script.answer(respond(b'{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[]}'))
        client.chat.completions.create(model="scripted", messages=MESSAGES, extra_body={"new_field": {"a": [1, None]}})
        assert b'"new_field":{"a":[1,null]}' in stand.script.requests[0].body.replace(b" ", b"")

    def test_usage_is_asked_for_and_its_chunk_removed(self, client: OpenAI, stand: Stand) -> None:
        base = b'"id":"c","object":"chat.completion.chunk","created":1,"model":"m"'
        word = b'data: {%b,"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}\n\n' % base
        usage = b'"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}'
        counted = b'data: {%b,"choices":[],%b}\n\n' % (base, usage)
        stand.script.answer(stream(word, counted, b"data: [DONE]\n\n"))
        chunks = list(client.chat.completions.create(model="scripted", messages=MESSAGES, stream=True))
        assert [chunk.choices[0].delta.content for chunk in chunks] == ["Hi"]
        assert b'"stream_options":{"include_usage":true}' in stand.script.requests[0].body

    def test_what_is_left_of_asking_for_usage_is_a_null(self, client: OpenAI, stand: Stand) -> None:
        """OpenAI then writes `"usage":null` into every other chunk. Chunks go on as they are, so it stays: `usage` is
        None either way, but it counts as set.
        """
        base = b'"id":"c","object":"chat.completion.chunk","created":1,"model":"m"'
        word = b'{%b,"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}' % base
        counted = b'{%b,"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}' % base
        frames = [b"data: %b\n\n" % data for data in (word[:-1] + b',"usage":null}', counted, b"[DONE]")]
        stand.script.answer(stream(*frames))
        (got,) = list(client.chat.completions.create(model="scripted", messages=MESSAGES, stream=True))
        direct = ChatCompletionChunk.model_validate_json(word)
        assert got.model_dump() == direct.model_dump()
        assert got.model_fields_set - direct.model_fields_set == {"usage"}


class TestAzure:
    """`AzureOpenAI`, with its paths, its `api-key` header and its `api-version` in the query."""

    @pytest.fixture
    def azure(self, stand: Stand) -> Iterator[AzureOpenAI]:
        with AzureOpenAI(
            api_key=stand.key, azure_endpoint=stand.gateway.url, api_version=API_VERSION, max_retries=0
        ) as client:
            yield client

    def test_chat(self, azure: AzureOpenAI) -> None:
        completion = azure.chat.completions.create(model="mock-gpt", messages=MESSAGES)
        assert completion.choices[0].message.content == ANSWER
        chunks = azure.chat.completions.create(model="mock-gpt", messages=MESSAGES, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == ANSWER

    def test_deployment_of_the_client(self, stand: Stand) -> None:
        with AzureOpenAI(
            api_key=stand.key,
            azure_endpoint=stand.gateway.url,
            azure_deployment="mock-gpt",
            api_version=API_VERSION,
            max_retries=0,
        ) as client:
            completion = client.chat.completions.create(model="whatever", messages=MESSAGES)
        assert completion.choices[0].message.content == ANSWER

    def test_embeddings_completions_and_models(self, azure: AzureOpenAI) -> None:
        assert azure.embeddings.create(model="mock-embed", input="one").data
        assert azure.completions.create(model="mock-gpt", prompt="Hello").choices
        assert [model.id for model in azure.models.list()] == MODELS

    def test_responses(self, azure: AzureOpenAI) -> None:
        assert azure.responses.create(model="mock-gpt", input="Hello").output_text == "Mock answer to: Hello"

    def test_token_in_place_of_a_key(self, stand: Stand) -> None:
        with AzureOpenAI(
            azure_ad_token=stand.key, azure_endpoint=stand.gateway.url, api_version=API_VERSION, max_retries=0
        ) as client:
            assert client.chat.completions.create(model="mock-gpt", messages=MESSAGES).choices

    def test_the_gateway_key_wins_over_another_credential_beside_it(self, stand: Stand) -> None:
        with OpenAI(
            api_key="sk-left-over", base_url=stand.gateway.api, default_headers={"api-key": stand.key}, max_retries=0
        ) as client:
            assert client.chat.completions.create(model="mock-gpt", messages=MESSAGES).choices

    def test_the_v1_surface(self, stand: Stand) -> None:
        with OpenAI(api_key=stand.key, base_url=f"{stand.gateway.url}/openai/v1/", max_retries=0) as client:
            assert client.chat.completions.create(model="mock-gpt", messages=MESSAGES).choices
            assert client.responses.create(model="mock-gpt", input="Hello").output

    def test_unknown_deployment(self, azure: AzureOpenAI) -> None:
        with pytest.raises(openai.NotFoundError) as caught:
            azure.chat.completions.create(model="none", messages=MESSAGES)
        assert caught.value.code == "model_not_found"

    def test_wrong_key(self, stand: Stand) -> None:
        client = AzureOpenAI(api_key="wrong", azure_endpoint=stand.gateway.url, api_version=API_VERSION, max_retries=0)
        with pytest.raises(openai.AuthenticationError):
            client.chat.completions.create(model="mock-gpt", messages=MESSAGES)

    async def test_async(self, stand: Stand) -> None:
        async with AsyncAzureOpenAI(
            api_key=stand.key, azure_endpoint=stand.gateway.url, api_version=API_VERSION, max_retries=0
        ) as client:
            completion = await client.chat.completions.create(model="mock-gpt", messages=MESSAGES)
            assert completion.choices[0].message.content == ANSWER
            stream = await client.chat.completions.create(model="mock-gpt", messages=MESSAGES, stream=True)
            assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == ANSWER

    def test_version_does_not_reach_a_provider_that_knows_none(self, azure: AzureOpenAI, stand: Stand) -> None:
        stand.script.answer(respond(b'{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[]}'))
        azure.chat.completions.create(model="scripted", messages=MESSAGES)
        assert stand.script.requests[0].target == "/v1/chat/completions"
        assert "kt_gk_" not in stand.script.requests[0].raw.decode()
