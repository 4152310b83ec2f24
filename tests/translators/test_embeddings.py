"""Embeddings: OpenAI's as they are, and in front of Gemini and Cohere."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai
import orjson
import pytest

from gateway.errors import InvalidRequest, UpstreamInvalid
from gateway.types import Operation, Usage
from tests.recordings import Recording, load, select
from translators import openai_embeddings
from translators.plan import bind
from translators.providers import PROVIDERS

GEMINI = bind(Operation.EMBEDDINGS, PROVIDERS["gemini"])
COHERE = bind(Operation.EMBEDDINGS, PROVIDERS["cohere"])
OPENAI = select("openai", "mistral", suffix="/embeddings")


@pytest.mark.parametrize("recording", OPENAI, ids=str)
def test_recorded_exchanges_of_openais_format(recording: Recording) -> None:
    view = openai_embeddings.view(recording.request)
    assert view.model == recording.request_body["model"]
    given = recording.request_body["input"]
    texts = [given] if isinstance(given, str) else [text for text in given if isinstance(text, str)]
    assert [part.text for part in view.texts()] == texts
    if recording.status == 200:
        usage = openai_embeddings.read(recording.response).usage
        assert usage == Usage(prompt=json.loads(recording.response)["usage"]["prompt_tokens"])


def test_no_text_hides_in_an_extension() -> None:
    view = openai_embeddings.view(b'{"model":"m","input":[[1,2]],"instruction":"x","user":"u"}')
    assert [(part.path, part.text) for part in view.texts()] == [("instruction", "x")]


@pytest.mark.parametrize("body", [b"", b"[]", b'{"usage":5}'])
def test_an_odd_answer_never_raises(body: bytes) -> None:
    assert openai_embeddings.read(body).usage is None


def translate(bridge: Any, body: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    raw = orjson.dumps({"model": "m", **body})
    translated = bridge.request(raw, bridge.view(raw), model="up", replacements={}, meter=True)
    return json.loads(translated.body), translated


def test_gemini_requests() -> None:
    body, translated = translate(GEMINI, {"input": ["a", "b"], "dimensions": 8, "task_type": "CLUSTERING"})
    common = {"model": "models/up", "outputDimensionality": 8, "taskType": "CLUSTERING"}
    assert body == {"requests": [{**common, "content": {"parts": [{"text": text}]}} for text in "ab"]}
    assert translated.notes == ()


def test_cohere_requests() -> None:
    body, translated = translate(COHERE, {"input": "a", "user": "u", "brand_new": 1})
    assert body == {"model": "up", "texts": ["a"], "input_type": "search_document", "embedding_types": ["float"]}
    assert set(translated.notes) == {"user: not supported by cohere", "brand_new: not supported by cohere"}
    body, _ = translate(COHERE, {"input": "a", "input_type": "search_query", "dimensions": 8})
    assert (body["input_type"], body["output_dimension"]) == ("search_query", 8)


@pytest.mark.parametrize("value", [[1, 2], [[1], [2]], [], 5, None])
def test_token_ids_are_refused(value: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        translate(GEMINI, {"input": value})
    assert caught.value.param == "input"


def test_redaction_comes_before_translation() -> None:
    raw = b'{"model":"m","input":["secret","b"]}'
    view = GEMINI.view(raw)
    assert b"secret" not in GEMINI.request(raw, view, model="up", replacements={0: "***"}, meter=True).body


@pytest.mark.parametrize("bridge", [GEMINI, COHERE], ids=["gemini", "cohere"])
@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"embeddings":5}'])
def test_garbage_is_a_bad_gateway(bridge: Any, body: bytes) -> None:
    with pytest.raises(UpstreamInvalid):
        bridge.answer(body, "m")


RECORDED = [
    *[(GEMINI, item) for item in load("gemini") if item.path.endswith(":batchEmbedContents")],
    *[(COHERE, item) for item in load("cohere") if item.path.endswith("/embed")],
]


@pytest.mark.parametrize(("bridge", "recording"), RECORDED, ids=[str(recording) for _, recording in RECORDED])
def test_the_sdk_reads_recorded_answers(bridge: Any, recording: Recording) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        translated = bridge.request(
            request.content, bridge.view(request.content), model="up", replacements={}, meter=True
        )
        return httpx.Response(200, content=bridge.answer(recording.response, "m", translated.carried))

    source = json.loads(recording.response)["embeddings"]
    vectors = source["float"] if isinstance(source, dict) else [item["values"] for item in source]
    transport = httpx.Client(transport=httpx.MockTransport(handle))
    with openai.OpenAI(api_key="x", base_url="http://gateway.invalid/v1", http_client=transport) as client:
        packed = client.embeddings.create(model="m", input="x")
        plain = client.embeddings.create(model="m", input="x", encoding_format="float")
    assert [item.embedding for item in plain.data] == vectors
    assert packed.data[0].embedding == pytest.approx(vectors[0], rel=1e-5)
    assert plain.usage.prompt_tokens >= 0


BEDROCK = bind(Operation.EMBEDDINGS, PROVIDERS["bedrock"])
VERTEX = bind(Operation.EMBEDDINGS, PROVIDERS["vertex"])


@pytest.mark.parametrize(
    ("model", "asked", "sent"),
    [
        ("amazon.titan-embed-text-v1", {"input": "a"}, {"inputText": "a"}),
        ("amazon.titan-embed-text-v2:0", {"input": ["a"], "dimensions": 256}, {"inputText": "a", "dimensions": 256}),
        (
            "eu.cohere.embed-v4:0",
            {"input": ["a", "b"], "input_type": "search_query", "dimensions": 256},
            {
                "texts": ["a", "b"],
                "input_type": "search_query",
                "embedding_types": ["float"],
                "output_dimension": 256,
            },
        ),
        (
            "arn:aws:bedrock:us-east-1::foundation-model/cohere.embed-multilingual-v3",
            {"input": "a"},
            {"texts": ["a"], "input_type": "search_document", "embedding_types": ["float"]},
        ),
    ],
)
def test_bedrock_requests(model: str, asked: dict[str, Any], sent: dict[str, Any]) -> None:
    body = orjson.dumps({"model": "m", **asked})
    made = BEDROCK.request(body, BEDROCK.view(body), model=model, replacements={}, meter=True)
    assert orjson.loads(made.body) == sent


@pytest.mark.parametrize(
    ("answer", "vectors", "tokens"),
    [
        # Titan, both versions; Cohere by type and, where no type was asked for, without one.
        ({"embedding": [1, 0.5], "inputTextTokenCount": 4}, [[1, 0.5]], 4),
        ({"embedding": [1], "embeddingsByType": {"float": [1]}, "inputTextTokenCount": 4}, [[1]], 4),
        ({"embeddings": {"float": [[1], [2]]}, "response_type": "embeddings_by_type"}, [[1], [2]], 0),
        ({"embeddings": [[1], [2]], "response_type": "embeddings_floats"}, [[1], [2]], 0),
    ],
)
def test_bedrock_answers(answer: dict[str, Any], vectors: list[Any], tokens: int) -> None:
    found = orjson.loads(BEDROCK.answer(orjson.dumps(answer), "m"))
    assert [item["embedding"] for item in found["data"]] == vectors
    assert found["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}


@pytest.mark.parametrize("answer", [{}, {"embeddings": {}}, {"embeddings": None}, []])
def test_bedrock_answers_without_vectors(answer: Any) -> None:
    with pytest.raises(UpstreamInvalid):
        BEDROCK.answer(orjson.dumps(answer), "m")


def test_titan_takes_one_text() -> None:
    body = b'{"model":"m","input":["a","b"]}'
    with pytest.raises(InvalidRequest, match="one text"):
        BEDROCK.request(body, BEDROCK.view(body), model="amazon.titan-embed-text-v1", replacements={}, meter=True)


@pytest.mark.parametrize("answer", [{}, {"predictions": [{}]}, {"predictions": None}])
def test_vertex_answers_without_vectors(answer: Any) -> None:
    with pytest.raises(UpstreamInvalid):
        VERTEX.answer(orjson.dumps(answer), "m")
