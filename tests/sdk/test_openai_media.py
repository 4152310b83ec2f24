"""Audio, images and moderations by the official Python SDK: what it sends arrives, what comes back it can read."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, AzureOpenAI, OpenAI

from gateway.sse import frame_of
from tests.provider import LAST_CHUNK, Gate, Request, Step, chunk, head, respond, stream
from tests.sdk.conftest import BLOCKED_TERM, Stand

SOUND = b"RIFF" + os.urandom(300_000)
PICTURE = b"\x89PNG\r\n\x1a\n" + os.urandom(5000)
USAGE = {"type": "tokens", "input_tokens": 14, "output_tokens": 5, "total_tokens": 19}


@pytest.fixture
def client(stand: Stand) -> Iterator[OpenAI]:
    with OpenAI(api_key=stand.key, base_url=stand.gateway.api, max_retries=0) as client:
        yield client


@pytest.fixture
async def async_client(stand: Stand) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(api_key=stand.key, base_url=stand.gateway.api, max_retries=0) as client:
        yield client


@pytest.fixture
def azure(stand: Stand) -> Iterator[AzureOpenAI]:
    with AzureOpenAI(
        api_key=stand.key, azure_endpoint=stand.gateway.url, api_version="2025-03-01-preview", max_retries=0
    ) as client:
        yield client


def the(stand: Stand) -> Request:
    """The only request that the provider has had."""
    (request,) = stand.script.requests
    return request


def events(*trees: dict[str, Any]) -> list[Any]:
    return stream(*[frame_of(json.dumps(tree).encode()) for tree in trees])


def field(request: Request, name: str) -> str:
    """The value of a form's field."""
    _, _, rest = request.body.partition(f'name="{name}"\r\n\r\n'.encode())
    return rest.partition(b"\r\n")[0].decode()


class TestSpeech:
    def test_a_sound(self, client: OpenAI, stand: Stand) -> None:
        stand.script.answer(respond(SOUND, content_type="audio/mpeg"))
        answer = client.audio.speech.create(model="scripted", voice="alloy", input="Hello")
        assert answer.content == SOUND
        assert answer.response.headers["content-type"] == "audio/mpeg"
        assert the(stand).target == "/v1/audio/speech"
        assert json.loads(the(stand).body)["input"] == "Hello"

    async def test_a_sound_as_it_comes(self, async_client: AsyncOpenAI, stand: Stand) -> None:
        go = Gate()
        answer: list[Step] = [
            head(200, ("content-type", "audio/mpeg"), chunked=True),
            chunk(SOUND[:500]),
            go,
            chunk(SOUND[500:]),
        ]
        stand.script.answer([*answer, LAST_CHUNK])
        create = async_client.audio.speech.with_streaming_response.create
        async with create(model="scripted", voice="alloy", input="Hello") as response:
            pieces = response.iter_bytes()
            first = await anext(pieces)
            go.open()  # the rest comes only after the beginning has been heard
            assert first + b"".join([piece async for piece in pieces]) == SOUND

    def test_a_sound_as_events(self, client: OpenAI, stand: Stand) -> None:
        told = events(
            {"type": "speech.audio.delta", "audio": base64.b64encode(SOUND[:3000]).decode()},
            {"type": "speech.audio.done", "usage": USAGE},
        )
        stand.script.answer(told)
        create = client.audio.speech.with_streaming_response.create
        with create(model="aliased", voice="alloy", input="Hello", stream_format="sse") as response:
            lines = [line for line in response.iter_lines() if line]
        assert json.loads(lines[-1].removeprefix("data: "))["usage"] == USAGE
        assert json.loads(the(stand).body)["model"] == "the-providers-own-name"


class TestTranscriptions:
    def test_a_form_arrives_byte_for_byte(self, client: OpenAI, stand: Stand) -> None:
        stand.script.answer(respond(json.dumps({"text": "hello", "usage": USAGE}).encode()))
        answer = client.audio.transcriptions.create(
            model="scripted",
            file=("ä.wav", io.BytesIO(SOUND)),
            timestamp_granularities=["word", "segment"],
            response_format="json",
        )
        assert answer.text == "hello"
        request = the(stand)
        assert request.target == "/v1/audio/transcriptions"
        boundary = request.headers["content-type"].partition("boundary=")[2].encode()
        assert request.body.startswith(b"--" + boundary)
        assert request.body.count(SOUND) == 1
        assert request.body.count(b'name="timestamp_granularities[]"') == 2
        assert field(request, "model") == "scripted"

    def test_an_alias_is_the_only_change(self, client: OpenAI, stand: Stand) -> None:
        stand.script.answer(*[respond(b'{"text":"a"}')] * 2)
        for model in ("scripted", "aliased"):
            client.audio.transcriptions.create(
                model=model, file=("a.wav", SOUND), extra_headers={"content-type": "multipart/form-data; boundary=abc"}
            )
        plain, renamed = stand.script.requests
        assert renamed.body == plain.body.replace(b"\r\n\r\nscripted\r\n", b"\r\n\r\nthe-providers-own-name\r\n")
        assert plain.body != renamed.body

    def test_verbose_and_plain(self, client: OpenAI, stand: Stand) -> None:
        stand.script.answer(
            respond(b'{"text":"a","language":"en","duration":1.0,"segments":[],"words":[]}'),
            respond(b"1\n00:00 --> 00:01\na\n", content_type="text/plain"),
        )
        verbose = client.audio.transcriptions.create(
            model="scripted", file=("a.wav", SOUND), response_format="verbose_json"
        )
        assert verbose.duration == 1.0
        subtitles: object = client.audio.transcriptions.create(
            model="scripted", file=("a.wav", SOUND), response_format="srt"
        )
        assert subtitles == "1\n00:00 --> 00:01\na\n"

    async def test_a_transcript_as_it_comes(self, async_client: AsyncOpenAI, stand: Stand) -> None:
        go = Gate()
        told = events(
            {"type": "transcript.text.delta", "delta": "hel"},
            {"type": "transcript.text.delta", "delta": "lo"},
            {"type": "transcript.text.done", "text": "hello", "usage": USAGE},
        )
        stand.script.answer([*told[:2], go, *told[2:]])
        answer = await async_client.audio.transcriptions.create(model="scripted", file=("a.wav", SOUND), stream=True)
        kinds = []
        async for event in answer:
            kinds.append(event.type)
            go.open()
        assert kinds == ["transcript.text.delta", "transcript.text.delta", "transcript.text.done"]
        assert field(the(stand), "stream") == "true"

    def test_translations(self, client: OpenAI, stand: Stand) -> None:
        stand.script.answer(respond(b'{"text":"hello"}'))
        assert client.audio.translations.create(model="scripted", file=("a.wav", SOUND)).text == "hello"
        assert the(stand).target == "/v1/audio/translations"

    def test_the_providers_error(self, client: OpenAI, stand: Stand) -> None:
        stand.script.answer(respond(b'{"error":{"message":"too short","type":"invalid_request_error"}}', 400))
        with pytest.raises(openai.BadRequestError, match="too short"):
            client.audio.transcriptions.create(model="scripted", file=("a.wav", SOUND))

    def test_a_model_that_is_not_there(self, client: OpenAI) -> None:
        with pytest.raises(openai.NotFoundError):
            client.audio.transcriptions.create(model="nobody", file=("a.wav", SOUND))

    def test_a_prompt_is_read_by_policies(self, stand: Stand) -> None:
        with (
            OpenAI(api_key=stand.guarded_key, base_url=stand.gateway.api, max_retries=0) as guarded,
            pytest.raises(openai.ConflictError),
        ):
            guarded.audio.transcriptions.create(model="scripted", file=("a.wav", SOUND), prompt=f"of {BLOCKED_TERM}")
        assert stand.script.requests == []


class TestImages:
    def test_made(self, client: OpenAI, stand: Stand) -> None:
        data = [{"b64_json": base64.b64encode(PICTURE).decode()}]
        stand.script.answer(respond(json.dumps({"created": 1, "data": data, "usage": {**USAGE}}).encode()))
        answer = client.images.generate(model="scripted", prompt="a cat")
        assert answer.data
        assert base64.b64decode(answer.data[0].b64_json or "") == PICTURE

    def test_made_as_it_comes(self, client: OpenAI, stand: Stand) -> None:
        common = {"b64_json": base64.b64encode(PICTURE).decode(), "created_at": 1, "size": "auto", "quality": "low"}
        stand.script.answer(
            events(
                {"type": "image_generation.partial_image", "partial_image_index": 0, **common},
                {"type": "image_generation.completed", "usage": USAGE, **common},
            )
        )
        told = client.images.generate(model="scripted", prompt="a cat", stream=True, partial_images=1)
        assert [event.type for event in told] == ["image_generation.partial_image", "image_generation.completed"]

    def test_edited(self, client: OpenAI, stand: Stand) -> None:
        stand.script.answer(respond(b'{"created":1,"data":[{"b64_json":"AAAA"}]}'))
        answer = client.images.edit(
            model="aliased", prompt="héllo", image=[("a.png", PICTURE), ("b.png", PICTURE)], mask=("m.png", PICTURE)
        )
        assert answer.data
        request = the(stand)
        assert request.target == "/v1/images/edits"
        assert request.body.count(PICTURE) == 3
        assert (field(request, "model"), field(request, "prompt")) == ("the-providers-own-name", "héllo")

    def test_varied(self, client: OpenAI, stand: Stand) -> None:
        stand.script.answer(respond(b'{"created":1,"data":[{"url":"https://x"}]}'))
        answer = client.images.create_variation(model="scripted", image=("a.png", PICTURE))
        assert answer.data
        assert the(stand).target == "/v1/images/variations"


def test_moderations(client: OpenAI, stand: Stand) -> None:
    stand.script.answer(respond(b'{"id":"modr-1","model":"m","results":[]}'))
    assert client.moderations.create(model="aliased", input=["a", "b"]).id == "modr-1"
    assert json.loads(the(stand).body) == {"model": "the-providers-own-name", "input": ["a", "b"]}


class TestAzure:
    def test_a_deployment_is_named_in_the_path(self, azure: AzureOpenAI, stand: Stand) -> None:
        stand.script.answer(respond(b'{"text":"hello"}'), respond(SOUND, content_type="audio/mpeg"))
        assert azure.audio.transcriptions.create(model="aliased", file=("a.wav", SOUND)).text == "hello"
        assert azure.audio.speech.create(model="scripted", voice="alloy", input="Hello").content == SOUND
        transcription, speech = stand.script.requests
        assert (transcription.target, speech.target) == ("/v1/audio/transcriptions", "/v1/audio/speech")
        assert field(transcription, "model") == "the-providers-own-name"

    def test_images(self, azure: AzureOpenAI, stand: Stand) -> None:
        stand.script.answer(*[respond(b'{"created":1,"data":[{"b64_json":"AAAA"}]}')] * 2)
        assert azure.images.generate(model="scripted", prompt="a cat").data
        assert azure.images.edit(model="scripted", prompt="a cat", image=("a.png", PICTURE)).data
        assert [request.target for request in stand.script.requests] == ["/v1/images/generations", "/v1/images/edits"]


class TestResponsesOnly:
    """Chat by a model that speaks only Responses."""

    def test_chat(self, client: OpenAI, stand: Stand) -> None:
        said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hello."}]}
        body = {"id": "resp_1", "model": "codex", "status": "completed", "output": [said]}
        stand.script.answer(respond(json.dumps(body).encode()))
        answer = client.chat.completions.create(model="codex", messages=[{"role": "user", "content": "hi"}])
        assert answer.choices[0].message.content == "Hello."
        assert the(stand).target == "/v1/responses"

    def test_streamed(self, client: OpenAI, stand: Stand) -> None:
        response = {"id": "resp_1", "model": "codex", "status": "in_progress", "output": []}
        stand.script.answer(
            events(
                {"type": "response.created", "response": response},
                {"type": "response.output_text.delta", "output_index": 0, "delta": "Hel"},
                {"type": "response.output_text.delta", "output_index": 0, "delta": "lo."},
                {"type": "response.completed", "response": {**response, "status": "completed"}},
            )
        )
        chunks = list(
            client.chat.completions.create(model="codex", messages=[{"role": "user", "content": "hi"}], stream=True)
        )
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello."
        assert chunks[-1].choices[0].finish_reason == "stop"
