"""OpenAI embeddings: the dialect of `/v1/embeddings`.

`input` is a string, a list of strings, or token ids, which carry no text that could be read. Fields that the reference
does not have may carry text too (an instruction, a title): their strings are shown to policies like the input.

Reference: https://platform.openai.com/docs/api-reference/embeddings.
"""

from __future__ import annotations

from typing import Final

import msgspec
import orjson

from gateway.types import TextPart, Usage
from translators import paths, strict
from translators.dialect import AnswerView
from translators.identity import Format
from translators.openai_passthrough import CompletionsTap

_SETTINGS = frozenset({"model", "dimensions", "encoding_format", "user"})


class _Head(msgspec.Struct, gc=False):
    model: str = ""
    input: msgspec.Raw = msgspec.Raw(b"")


class _UsageCounts(msgspec.Struct, gc=False):
    prompt_tokens: int | None = None


class _Answer(msgspec.Struct, gc=False):
    """Only the usage: the vectors, nearly all of the body, are skipped."""

    usage: _UsageCounts | None = None


_HEAD: Final = msgspec.json.Decoder(_Head)
_ANSWER: Final = msgspec.json.Decoder(_Answer)


class EmbeddingsView:
    """A request for embeddings."""

    __slots__ = ("_body", "model")

    stream = False
    include_usage = False
    max_output_tokens: int | None = None

    def __init__(self, body: bytes, model: str) -> None:
        self.model = model
        self._body = body

    def texts(self) -> list[TextPart]:
        """The strings of `input`, and of whatever else is no known setting."""
        tree = orjson.loads(self._body)
        return [
            part
            for key, value in tree.items()
            if key not in _SETTINGS
            for part in paths.texts(value, paths.join("", key), "user", "input")
        ]


def view(body: bytes) -> EmbeddingsView:
    """Read a request body. Raises InvalidJSON or InvalidRequest."""
    head = strict.decode(_HEAD, body)
    strict.check_unique(body, b'"input"', bytes(head.input))
    return EmbeddingsView(body, head.model)


def read(body: bytes) -> AnswerView:
    """The usage; an embedding has no text."""
    try:
        usage = _ANSWER.decode(body).usage
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return AnswerView(None)
    return AnswerView(Usage(prompt=usage.prompt_tokens or 0) if usage else None)


FORMAT = Format(view, read, CompletionsTap)
