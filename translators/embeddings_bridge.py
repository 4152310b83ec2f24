"""OpenAI's embeddings in front of providers with a format of their own.

Texts go in, vectors come out; the providers differ only in what they call things. Token ids mean nothing to another
provider's model and are refused.

Reference: https://platform.openai.com/docs/api-reference/embeddings.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
import orjson

from gateway.errors import InvalidRequest, UpstreamError, UpstreamInvalid, Wire
from gateway.types import ResponseHead
from translators import openai_embeddings, paths, provider_errors
from translators.dialect import EVENT_STREAM, NOTHING_CARRIED, Carried, RequestView, StreamTranslator, Tap, Translated
from translators.notes import Notes
from translators.providers import Asked, Provider

_UNDERSTOOD: Final = frozenset({"model", "input", "dimensions", "encoding_format", "user"})


class EmbeddingsRequest(msgspec.Struct, frozen=True):
    """What is asked for. `task` is what the vectors are for, by the provider's own word, where the client knows it."""

    texts: Sequence[str]
    dimensions: int | None = None
    task: str | None = None


class Vectors(msgspec.Struct, frozen=True):
    """What comes back: a vector for each text in order, and the tokens that the provider counted."""

    vectors: Sequence[Sequence[float]]
    tokens: int = 0


class Embedder(msgspec.Struct, frozen=True):
    """How a provider embeds. `task` is the name of the field in which its clients say what vectors are for."""

    encode: Callable[[EmbeddingsRequest, Asked], bytes]
    decode: Callable[[Any], Vectors]
    task: str


class EmbeddingsBridge:
    """The Translation of OpenAI's embeddings to one provider's."""

    identity = False
    wire = Wire.OPENAI
    stream_media = EVENT_STREAM

    def __init__(self, embedder: Embedder, provider: Provider) -> None:
        self._embedder = embedder
        self._provider = provider
        self.view = openai_embeddings.view
        self.read = openai_embeddings.read
        self.usage = openai_embeddings.FORMAT.usage_of
        self.plain = None

    def request(
        self, body: bytes, view: RequestView, *, model: str, replacements: Mapping[int, str], meter: bool
    ) -> Translated:
        """The provider's request. Raises InvalidRequest for what it cannot embed."""
        if replacements:
            body = paths.replace_texts(body, view.texts(), replacements)
        tree = orjson.loads(body)
        notes = Notes()
        task = tree.pop(self._embedder.task, None)
        for key in tree.keys() - _UNDERSTOOD:
            notes.add(key, f"not supported by {self._provider.name}")
        if tree.get("user") is not None:
            notes.add("user", f"not supported by {self._provider.name}")
        request = EmbeddingsRequest(_texts(tree.get("input")), tree.get("dimensions"), task)
        encoded = self._embedder.encode(request, Asked(model, self._provider))
        echo = {"encoding_format": tree.get("encoding_format")}
        return Translated(encoded, notes.all(), carried=Carried(echo=echo))

    def answer(self, body: bytes, model: str, carried: Carried = NOTHING_CARRIED) -> bytes:
        """The vectors as OpenAI sends them. Raises UpstreamInvalid."""
        try:
            found = self._embedder.decode(orjson.loads(body))
            wanted = carried.echo.get("encoding_format")
            data = [
                {"object": "embedding", "index": index, "embedding": _packed(vector) if wanted == "base64" else vector}
                for index, vector in enumerate(found.vectors)
            ]
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError, struct.error):
            raise UpstreamInvalid("The provider's answer has no embeddings.") from None
        usage = {"prompt_tokens": found.tokens, "total_tokens": found.tokens}
        return orjson.dumps({"object": "list", "data": data, "model": model, "usage": usage})

    def error(self, head: ResponseHead, body: bytes, *, passthrough: bool = False) -> UpstreamError:
        """The provider's error answer as the gateway's error."""
        return provider_errors.read(head, body, self._provider.name, passthrough=passthrough)

    def stream(self, model: str, *, include_usage: bool, carried: Carried = NOTHING_CARRIED) -> StreamTranslator:
        """Never called: embeddings do not stream."""
        raise TypeError("embeddings do not stream")

    def tap(self) -> Tap:
        """Never called: embeddings do not stream."""
        raise TypeError("embeddings do not stream")


def _texts(value: Any) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise InvalidRequest("`input` must be a text or a list of texts; this model takes no token ids.", param="input")
    return texts


def _packed(vector: Sequence[float]) -> str:
    """Little-endian float32 as base64, which OpenAI's SDKs ask for."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
