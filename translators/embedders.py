"""How providers with a format of their own embed texts.

Gemini: https://ai.google.dev/api/embeddings#method:-models.batchembedcontents.
Cohere: https://docs.cohere.com/reference/embed.
Bedrock, where the model decides: https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-titan-embed-text.html
and model-parameters-embed.html.
Vertex AI: https://docs.cloud.google.com/vertex-ai/generative-ai/docs/model-reference/text-embeddings-api.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from gateway.errors import InvalidRequest
from translators.embeddings_bridge import Embedder, EmbeddingsRequest, Vectors
from translators.providers import Asked


def _gemini_request(request: EmbeddingsRequest, asked: Asked) -> bytes:
    common: dict[str, Any] = {"model": f"models/{asked.model}"}
    if request.dimensions is not None:
        common["outputDimensionality"] = request.dimensions
    if request.task is not None:
        common["taskType"] = request.task
    return orjson.dumps({"requests": [{**common, "content": {"parts": [{"text": text}]}} for text in request.texts]})


def _gemini_vectors(tree: Any) -> Vectors:
    usage = tree.get("usageMetadata") or {}
    return Vectors([item["values"] for item in tree["embeddings"]], usage.get("promptTokenCount") or 0)


def _cohere_request(request: EmbeddingsRequest, asked: Asked) -> bytes:
    body: dict[str, Any] = {
        "model": asked.model,
        "texts": request.texts,
        "input_type": request.task or "search_document",
        "embedding_types": ["float"],
    }
    if request.dimensions is not None:
        body["output_dimension"] = request.dimensions
    return orjson.dumps(body)


def _cohere_vectors(tree: Any) -> Vectors:
    billed = (tree.get("meta") or {}).get("billed_units") or {}
    return Vectors(tree["embeddings"]["float"], int(billed.get("input_tokens") or 0))


def _bedrock_request(request: EmbeddingsRequest, asked: Asked) -> bytes:
    """Titan and Cohere; a model's name may have a region before it (`eu.cohere.embed-v4:0`) or be an ARN."""
    if "cohere." in asked.model:
        return _cohere_on_bedrock(request)
    if len(request.texts) != 1:
        raise InvalidRequest(
            "Amazon Titan embeds one text in each request; send each `input` by itself.", param="input"
        )
    body: dict[str, Any] = {"inputText": request.texts[0]}
    if request.dimensions is not None:
        body["dimensions"] = request.dimensions
    return orjson.dumps(body)


def _cohere_on_bedrock(request: EmbeddingsRequest) -> bytes:
    body: dict[str, Any] = {
        "texts": request.texts,
        "input_type": request.task or "search_document",
        "embedding_types": ["float"],
    }
    if request.dimensions is not None:
        body["output_dimension"] = request.dimensions
    return orjson.dumps(body)


def _bedrock_vectors(tree: Any) -> Vectors:
    if "embedding" in tree:
        return Vectors([tree["embedding"]], tree.get("inputTextTokenCount") or 0)
    found = tree["embeddings"]
    return Vectors(found["float"] if isinstance(found, dict) else found, 0)


def _vertex_request(request: EmbeddingsRequest, asked: Asked) -> bytes:
    common: dict[str, Any] = {} if request.task is None else {"task_type": request.task}
    body: dict[str, Any] = {"instances": [{**common, "content": text} for text in request.texts]}
    if request.dimensions is not None:
        body["parameters"] = {"outputDimensionality": request.dimensions}
    return orjson.dumps(body)


def _vertex_vectors(tree: Any) -> Vectors:
    found = [item["embeddings"] for item in tree["predictions"]]
    tokens = sum((item.get("statistics") or {}).get("token_count") or 0 for item in found)
    return Vectors([item["values"] for item in found], int(tokens))


BEDROCK: Final = Embedder(_bedrock_request, _bedrock_vectors, "input_type")
VERTEX: Final = Embedder(_vertex_request, _vertex_vectors, "task_type")
GEMINI: Final = Embedder(_gemini_request, _gemini_vectors, "task_type")
COHERE: Final = Embedder(_cohere_request, _cohere_vectors, "input_type")
