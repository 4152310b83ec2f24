"""How providers with a format of their own embed texts.

Gemini: https://ai.google.dev/api/embeddings#method:-models.batchembedcontents.
Cohere: https://docs.cohere.com/reference/embed.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

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


GEMINI: Final = Embedder(_gemini_request, _gemini_vectors, "task_type")
COHERE: Final = Embedder(_cohere_request, _cohere_vectors, "input_type")
