"""Answers of OpenAI's Chat Completions, and of everything compatible, to the canonical form.

Tolerated are the ways of the others: reasoning as `reasoning_content`, `reasoning` or `reasoning_details`, content as a
list of parts, choices without delta, calls without index, a `stop` where calls were made, streams without `[DONE]`.

Reference: https://platform.openai.com/docs/api-reference/chat/object and .../chat-streaming.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec
import orjson

from gateway.errors import UpstreamAuthFailed, UpstreamInvalid, UpstreamStatus
from gateway.sse import FrameSplitter, data_of
from gateway.types import Usage
from translators.canonical import (
    CallDelta,
    CallStart,
    ChatAnswer,
    Choice,
    Event,
    Finish,
    Logprobs,
    Part,
    RedactedBlock,
    RedactedThinking,
    Refusal,
    RefusalDelta,
    Start,
    Stop,
    Text,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ToolCall,
)
from translators.openai_chat import ChatUsage

_FINISHES: Final = {
    "stop": Finish.STOP,
    "length": Finish.LENGTH,
    "tool_calls": Finish.TOOL_CALLS,
    "function_call": Finish.TOOL_CALLS,
    "content_filter": Finish.CONTENT_FILTER,
}


def decode(body: bytes) -> ChatAnswer:
    """Read a complete answer. Raises UpstreamInvalid where it is not one."""
    try:
        tree = orjson.loads(body)
        return ChatAnswer(
            id=str(tree.get("id") or ""),
            model=str(tree.get("model") or ""),
            choices=[_choice(choice, index) for index, choice in enumerate(tree["choices"])],
            usage=_usage(tree.get("usage")),
            service_tier=tree.get("service_tier"),
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError, msgspec.ValidationError):
        raise UpstreamInvalid("The provider's answer is not a chat completion.") from None


def _usage(value: Any) -> Usage | None:
    return None if value is None else msgspec.convert(value, ChatUsage).usage()


def _choice(choice: dict[str, Any], position: int) -> Choice:
    message = choice.get("message") or {}
    parts = [*_thoughts(message), *_texts(message.get("content"))]
    if message.get("refusal"):
        parts.append(Refusal(message["refusal"]))
    calls = [_call(call) for call in message.get("tool_calls") or ()]
    if function := message.get("function_call"):
        calls.append(ToolCall(f"call_{function['name']}", function["name"], function.get("arguments") or ""))
    reason = choice.get("finish_reason")
    return Choice(
        [*parts, *calls],
        finish_of(reason, bool(calls)),
        native_of(choice, reason),
        choice.get("index", position),
        (choice.get("logprobs") or {}).get("content"),
    )


def _texts(content: Any) -> Iterator[Part]:
    """Content as a text, or (Mistral) as parts, thinking among them."""
    if isinstance(content, str):
        if content:
            yield Text(content)
        return
    for part in content or ():
        if part["type"] == "text" and part["text"]:
            yield Text(part["text"])
        elif part["type"] == "thinking":
            yield Thinking("".join(piece.text for piece in _texts(part["thinking"]) if isinstance(piece, Text)))


def _thoughts(message: dict[str, Any]) -> Iterator[Part]:
    details = message.get("reasoning_details") or ()
    for detail in details:
        if detail.get("type") == "reasoning.encrypted":
            yield RedactedThinking(detail.get("data") or "", format=detail.get("format"))
        else:
            text = detail.get("text") or detail.get("summary") or ""
            yield Thinking(text, detail.get("signature"), format=detail.get("format"))
    plain = message.get("reasoning_content") or message.get("reasoning")
    if not details and isinstance(plain, str) and plain:
        yield Thinking(plain)


def _call(call: dict[str, Any]) -> ToolCall:
    google = (call.get("extra_content") or {}).get("google") or {}
    function = call["function"]
    return ToolCall(
        call.get("id") or "",
        function["name"],
        function.get("arguments") or "",
        signature=google.get("thought_signature"),
    )


def finish_of(reason: Any, calls: bool) -> Finish:
    """Why the model stopped. Some servers say `stop` where they called a tool."""
    finish = _FINISHES.get(reason, Finish.STOP) if isinstance(reason, str) else Finish.STOP
    return Finish.TOOL_CALLS if calls and finish is Finish.STOP else finish


def native_of(choice: dict[str, Any], reason: Any) -> str | None:
    """The provider's own word, where it says more than OpenAI's."""
    native = choice.get("native_finish_reason")
    if native is None and isinstance(reason, str) and reason not in _FINISHES:
        native = reason
    return native if isinstance(native, str) else None


# --- streams ---------------------------------------------------------------------------------------------------------


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _Call(msgspec.Struct, gc=False):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None
    extra_content: dict[str, Any] | None = None


class _Detail(msgspec.Struct, gc=False):
    type: str = ""
    index: int | None = None
    text: str | None = None
    summary: str | None = None
    data: str | None = None
    signature: str | None = None
    format: str | None = None


class _Delta(msgspec.Struct, gc=False):
    content: str | list[dict[str, Any]] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    reasoning_details: list[_Detail] | None = None
    tool_calls: list[_Call] | None = None


class _Chances(msgspec.Struct, gc=False):
    content: list[dict[str, Any]] | None = None


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    delta: _Delta | None = None
    logprobs: _Chances | None = None
    finish_reason: str | None = None
    native_finish_reason: str | None = None


class _GroqUsage(msgspec.Struct, gc=False):
    usage: ChatUsage | None = None


class _Error(msgspec.Struct, gc=False):
    message: str = ""
    type: str | None = None
    code: str | int | None = None
    param: str | None = None


class _Chunk(msgspec.Struct, gc=False):
    id: str | None = None
    model: str | None = None
    choices: list[_Choice] | None = None
    usage: ChatUsage | None = None
    x_groq: _GroqUsage | None = None
    error: _Error | str | None = None


_CHUNK: Final = msgspec.json.Decoder(_Chunk)


class Reader:
    """Reads the chunks of one streamed answer; of several choices only the first, which is all that others can say."""

    __slots__ = ("_calls", "_finish", "_native", "_splitter", "_started", "_stopped", "_usage")

    def __init__(self) -> None:
        self._splitter = FrameSplitter()
        self._calls: dict[int | str, int] = {}
        self._usage: Usage | None = None
        self._finish: str | None = None
        self._native: str | None = None
        self._started = False
        self._stopped = False

    def read(self, payload: bytes) -> Iterator[Event]:
        """What happened, event by event. Raises UpstreamStatus for an error chunk, UpstreamInvalid for garbage."""
        for frame in self._splitter.feed(payload):
            data = data_of(frame)
            if data is None:
                continue
            if data == b"[DONE]":
                yield from self._stop()
                continue
            try:
                chunk = _CHUNK.decode(data)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                raise UpstreamInvalid("The provider's stream is not one of chat completions.") from None
            yield from self._take(chunk)

    def end(self) -> Iterator[Event]:
        """The stream ended: complete if there was a finish reason, with or without its end mark."""
        if self._finish is None:
            raise UpstreamInvalid("The provider's stream ended before its answer did.")
        return self._stop()

    def _stop(self) -> Iterator[Event]:
        if not self._stopped and self._finish is not None:
            self._stopped = True
            yield Stop(finish_of(self._finish, bool(self._calls)), self._native, self._usage)

    def _take(self, chunk: _Chunk) -> Iterator[Event]:
        if chunk.error is not None:
            raise _stream_error(chunk.error)
        usage = chunk.usage
        if usage is None and chunk.x_groq is not None:
            usage = chunk.x_groq.usage
        if usage is not None:
            self._usage = usage.usage()
        if not self._started and chunk.choices:
            self._started = True
            yield Start(chunk.id or "", chunk.model or "", self._usage)
        for choice in chunk.choices or ():
            if choice.index != 0:
                continue
            if choice.delta is not None:
                yield from self._delta(choice.delta, None if choice.logprobs is None else choice.logprobs.content)
            if choice.finish_reason is not None:
                self._finish = choice.finish_reason
                known = choice.finish_reason in _FINISHES
                self._native = choice.native_finish_reason or (None if known else choice.finish_reason)

    def _delta(self, delta: _Delta, logprobs: Logprobs | None) -> Iterator[Event]:
        if delta.reasoning_details:
            yield from self._details(delta.reasoning_details)
        elif thought := delta.reasoning_content or delta.reasoning:
            yield ThinkingDelta(0, thought)
        if isinstance(delta.content, str):
            if delta.content:
                yield TextDelta(delta.content, logprobs)
        elif delta.content:
            for part in _texts(delta.content):
                yield ThinkingDelta(0, part.text) if isinstance(part, Thinking) else TextDelta(_text_of(part))
        if delta.refusal:
            yield RefusalDelta(delta.refusal)
        for call in delta.tool_calls or ():
            yield from self._call(call)

    def _details(self, details: list[_Detail]) -> Iterator[Event]:
        for position, detail in enumerate(details):
            block = position if detail.index is None else detail.index
            if detail.type == "reasoning.encrypted":
                yield RedactedBlock(block, detail.data or "", detail.format)
            elif detail.text or detail.summary or detail.signature:
                yield ThinkingDelta(block, detail.text or detail.summary or "", detail.signature, detail.format)

    def _call(self, call: _Call) -> Iterator[Event]:
        """A call begins where its index is new; without an index (some servers), where its id is."""
        function = call.function or _Function()
        key: int | str | None = call.index
        if key is None:
            key = call.id or next(reversed(self._calls), "")
        number = self._calls.get(key)
        if number is None:
            number = self._calls[key] = len(self._calls)
            google = (call.extra_content or {}).get("google") or {}
            call_id = call.id or f"call_{number}"
            yield CallStart(number, call_id, function.name or "", google.get("thought_signature"))
        if function.arguments:
            yield CallDelta(number, function.arguments)


def _text_of(part: Part) -> str:
    return part.text if isinstance(part, Text) else ""


def _stream_error(error: _Error | str) -> UpstreamStatus | UpstreamAuthFailed:
    """An error chunk; its code may be a status."""
    if isinstance(error, str):
        return UpstreamStatus(502, error, code=None)
    status = error.code if isinstance(error.code, int) and 400 <= error.code < 600 else _STATUS_BY_TYPE.get(error.type)
    if status in (401, 403):
        return UpstreamAuthFailed("The provider refused the gateway's credentials; the operator must mend them.")
    code = error.code if isinstance(error.code, str) else None
    return UpstreamStatus(status or 502, error.message, code=code, type=error.type or "api_error", param=error.param)


_STATUS_BY_TYPE: Final[dict[str | None, int]] = {
    "invalid_request_error": 400,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "server_error": 500,
    "tokens": 429,
    "requests": 429,
}
