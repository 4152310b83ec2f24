"""`POST /v1/messages/count_tokens` in front of providers that are not Anthropic.

Some have a counter of their own (Gemini, Vertex, Bedrock for Claude, OpenAI's Responses API): the request goes to it as
it would go to the model, and its number comes back. For all others, and for very large requests, the gateway says an
estimate by itself, which is noted: four bytes a token, a picture or document at what Claude takes for a large one.

Reference: https://platform.claude.com/docs/en/api/messages-count-tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, NoReturn

import msgspec
import orjson

from gateway.errors import InvalidRequest, UpstreamError, UpstreamInvalid, Wire
from gateway.types import ResponseHead, Usage
from translators import anthropic_messages, anthropic_requests_in, paths, provider_errors
from translators.bridge import ODD, Outbound
from translators.dialect import (
    EVENT_STREAM,
    NOTHING_CARRIED,
    AnswerView,
    Carried,
    RequestView,
    Translated,
    estimated_tokens,
)
from translators.identity import Format
from translators.notes import Notes
from translators.providers import Asked, Provider

MAX_COUNTED_BYTES: Final = 512 * 1024
"""Larger requests are not translated only to be counted: 1 MB takes the event loop 3 ms. Their size is estimated when
they are read, beside the event loop: 4 ms for 5 MB."""

_SPENT: Final = Usage()
"""Counting costs no tokens."""


def _read(body: bytes) -> AnswerView:
    return AnswerView(_SPENT)


def _usage(body: bytes) -> Usage:
    return _SPENT


def _no_stream() -> NoReturn:
    raise TypeError("a count is one answer")


class CountView(anthropic_messages.MessagesView):
    """A request, read once. `tokens` is how many it has, roughly, where it is too large to be counted."""

    __slots__ = ("tokens",)

    def __init__(self, body: bytes, head: anthropic_messages.Head) -> None:
        super().__init__(body, head)
        self.tokens = estimated_tokens(body) if len(body) > MAX_COUNTED_BYTES else 0


def view(body: bytes) -> CountView:
    """Read a request body. Raises InvalidJSON or InvalidRequest."""
    return CountView(body, anthropic_messages.head(body))


FORMAT: Final = Format(view, _read, anthropic_messages.MessagesTap, wire=Wire.ANTHROPIC, usage=_usage)
"""Where client and provider both speak Anthropic's."""


class Counter(msgspec.Struct, frozen=True):
    """A provider's own counter.

    `encode` makes its request of the model's and the model's name, `field` is where its answer has the number, and
    `serves` says for which models it is there.
    """

    outbound: Outbound
    encode: Callable[[bytes, str], bytes]
    field: str
    serves: Callable[[str], bool] = bool


class CountBridge:
    """The Translation of Anthropic's count to one provider's, or to none."""

    identity = False
    wire = Wire.ANTHROPIC
    stream_media = EVENT_STREAM

    def __init__(self, counter: Counter | None, provider: Provider) -> None:
        self._counter = counter
        self._provider = provider
        self.view = view
        self.read = _read
        self.usage = _usage
        self.plain = None

    def request(
        self, body: bytes, view: RequestView, *, model: str, replacements: Mapping[int, str], meter: bool
    ) -> Translated:
        """The counter's request, or (`local`) the answer. Raises InvalidRequest for what the model cannot be asked."""
        if replacements:
            body = paths.replace_texts(body, view.texts(), replacements)
        counter = self._counter
        if counter is None or not counter.serves(model):
            return _estimate(body, view, f"estimated; {self._provider.name} has no counter for this model")
        if len(body) > MAX_COUNTED_BYTES:
            return _estimate(body, view, "estimated; the request is too large to be counted")
        notes = Notes()
        try:
            request, _ = counter.outbound.names.shorten(anthropic_requests_in.decode(body, notes))
            encoded = counter.outbound.encode(request, Asked(model, self._provider), notes)
        except ODD as error:
            raise InvalidRequest(f"The request has a field of the wrong type: {error}") from error
        return Translated(counter.encode(encoded, model), notes.all())

    def answer(self, body: bytes, model: str, carried: Carried = NOTHING_CARRIED) -> bytes:
        """The count as Anthropic says it. Raises UpstreamInvalid."""
        assert self._counter is not None
        try:
            count = orjson.loads(body)[self._counter.field]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            count = None
        if not isinstance(count, int):
            raise UpstreamInvalid("The provider's answer has no number of tokens.")
        return _answer(count)

    def error(self, head: ResponseHead, body: bytes, *, passthrough: bool = False) -> UpstreamError:
        """The provider's error answer as the gateway's error."""
        return provider_errors.read(head, body, self._provider.name, passthrough=passthrough)

    def stream(self, model: str, *, include_usage: bool, carried: Carried = NOTHING_CARRIED) -> NoReturn:
        """Never called."""
        _no_stream()

    def tap(self) -> NoReturn:
        """Never called."""
        _no_stream()


def _estimate(body: bytes, view: RequestView, why: str) -> Translated:
    known = view.tokens if isinstance(view, CountView) else 0
    return Translated(b"", (f"input_tokens: {why}",), local=_answer(known or estimated_tokens(body)))


def _answer(count: int) -> bytes:
    return b'{"input_tokens":%d}' % count


# --- how each wants to be asked --------------------------------------------------------------------------------------

_FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def _only(encoded: bytes, keys: Collection[str]) -> bytes:
    """The members of a JSON object by these names, as they stand."""
    kept = {key: raw for key, raw in _FIELDS.decode(encoded).items() if key in keys}
    return msgspec.json.encode(kept)


def gemini(encoded: bytes, model: str) -> bytes:
    """https://ai.google.dev/api/tokens#method:-models.counttokens: the request whole, with its model."""
    return b'{"generateContentRequest":{"model":%b,%b}' % (orjson.dumps(f"models/{model}"), encoded[1:])


def vertex(encoded: bytes, model: str) -> bytes:
    """https://docs.cloud.google.com/vertex-ai/generative-ai/docs/model-reference/count-tokens"""
    return _only(encoded, ("contents", "systemInstruction", "tools"))


def bedrock(encoded: bytes, model: str) -> bytes:
    """https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_CountTokens.html"""
    kept = _only(encoded, ("messages", "system", "toolConfig", "additionalModelRequestFields"))
    return b'{"input":{"converse":%b}}' % kept


def bedrock_serves(model: str) -> bool:
    """Claude by its own name; inference profiles have no counter."""
    return model.startswith("anthropic.")


_COUNTED: Final = ("model", "input", "tools", "tool_choice", "parallel_tool_calls", "text", "reasoning")


def responses(encoded: bytes, model: str) -> bytes:
    """https://platform.openai.com/docs/api-reference/responses/input-tokens"""
    return _only(encoded, _COUNTED)


def counters(outbound: Mapping[str, Outbound]) -> Mapping[str, Counter]:
    """The counters by their dialect's name, each with the dialect of its provider's chat."""
    table: dict[str, tuple[str, Any]] = {
        "gemini_count": ("gemini_generate", (gemini, "totalTokens")),
        "vertex_count": ("gemini_generate", (vertex, "totalTokens")),
        "bedrock_count": ("bedrock_converse", (bedrock, "inputTokens", bedrock_serves)),
        "responses_count": ("openai_responses", (responses, "input_tokens")),
    }
    return {name: Counter(outbound[chat], *rest) for name, (chat, rest) in table.items()}
