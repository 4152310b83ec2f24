"""Answers of Anthropic's Messages API to the canonical form.

Reference: https://platform.claude.com/docs/en/api/messages and .../build-with-claude/streaming.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec
import orjson

from gateway.errors import UpstreamAuthFailed, UpstreamError, UpstreamInvalid, UpstreamStatus
from gateway.sse import FrameSplitter, data_of
from gateway.types import Usage
from translators.canonical import (
    ANSWER_TOOL,
    CLAUDE_FORMAT,
    CallDelta,
    CallStart,
    ChatAnswer,
    Choice,
    Event,
    Finish,
    Part,
    Ping,
    RedactedBlock,
    RedactedThinking,
    Start,
    Stop,
    Text,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ToolCall,
)

FINISHES: Final = {
    "end_turn": Finish.STOP,
    "stop_sequence": Finish.STOP,
    "tool_use": Finish.TOOL_CALLS,
    "max_tokens": Finish.LENGTH,
    "model_context_window_exceeded": Finish.LENGTH,
    "refusal": Finish.CONTENT_FILTER,
}
"""`pause_turn` and reasons yet unknown become `stop`; the native reason is told beside."""


def decode(body: bytes) -> ChatAnswer:
    """Read a complete answer. Raises UpstreamInvalid where it is not one."""
    try:
        message = orjson.loads(body)
        parts = list(_parts(message["content"]))
        return ChatAnswer(
            id=str(message.get("id") or ""),
            model=str(message.get("model") or ""),
            choices=[_choice(parts, message.get("stop_reason"))],
            usage=usage_of(message.get("usage") or {}),
            service_tier=(message.get("usage") or {}).get("service_tier"),
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        raise UpstreamInvalid("The provider's answer is not a message of Anthropic's API.") from None


def _choice(parts: list[Part], reason: Any) -> Choice:
    finish = finish_of(reason, any(isinstance(part, ToolCall) for part in parts))
    return Choice(parts, finish, reason if isinstance(reason, str) else None)


def finish_of(reason: Any, calls: bool) -> Finish:
    """OpenAI's word. A `tool_use` that only gave the JSON answer is a plain stop."""
    finish = FINISHES.get(reason, Finish.STOP) if isinstance(reason, str) else Finish.STOP
    return Finish.STOP if finish is Finish.TOOL_CALLS and not calls else finish


def _parts(blocks: list[Any]) -> Iterator[Part]:
    """Blocks of server tools, which no translated request asks for, and of kinds yet unknown are passed over.

    The input of the hidden tool is the answer; words beside it would spoil the JSON.
    """
    answers = [block for block in blocks if block["type"] == "tool_use" and block["name"] == ANSWER_TOOL]
    for block in blocks:
        kind = block["type"]
        if kind == "text" and not answers:
            yield Text(block["text"])
        elif kind == "thinking":
            yield Thinking(block["thinking"], block.get("signature"), format=CLAUDE_FORMAT)
        elif kind == "redacted_thinking":
            yield RedactedThinking(block["data"], format=CLAUDE_FORMAT)
        elif kind == "tool_use":
            arguments = orjson.dumps(block["input"]).decode()
            yield Text(arguments) if block in answers else ToolCall(block["id"], block["name"], arguments)


def usage_of(usage: dict[str, Any]) -> Usage:
    """Anthropic counts the cached part of a prompt apart; OpenAI's `prompt_tokens` has it all."""
    read = _count(usage, "cache_read_input_tokens")
    written = _count(usage, "cache_creation_input_tokens")
    return Usage(
        prompt=_count(usage, "input_tokens") + read + written,
        completion=_count(usage, "output_tokens"),
        cached=read,
        reasoning=_count(usage.get("output_tokens_details") or {}, "thinking_tokens"),
        written=written,
    )


def _count(usage: dict[str, Any], key: str) -> int:
    value = usage.get(key)
    return value if isinstance(value, int) else 0


# --- streams ---------------------------------------------------------------------------------------------------------


class _Delta(msgspec.Struct, gc=False):
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None


class _Block(msgspec.Struct, gc=False):
    type: str = ""
    id: str = ""
    name: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    input: msgspec.Raw = msgspec.Raw(b"{}")


class _Message(msgspec.Struct, gc=False):
    id: str = ""
    model: str = ""
    usage: dict[str, Any] | None = None


class _Error(msgspec.Struct, gc=False):
    type: str = "api_error"
    message: str = ""


class _Event(msgspec.Struct, gc=False):
    type: str
    index: int = 0
    delta: _Delta | None = None
    content_block: _Block | None = None
    message: _Message | None = None
    usage: dict[str, Any] | None = None
    error: _Error | None = None


_EVENT: Final = msgspec.json.Decoder(_Event)

_STATUSES: Final = {
    "invalid_request_error": 400,
    "billing_error": 402,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "overloaded_error": 503,
    "timeout_error": 504,
}


class _Open:
    """A block that has begun: what it is, which of its kind it is, and whether anything of it has come."""

    __slots__ = ("begun", "input", "kind", "number")

    def __init__(self, kind: str, number: int, given: bytes) -> None:
        self.kind = kind
        self.number = number
        self.input = given
        self.begun = False


class Reader:
    """Reads the events of one streamed message."""

    __slots__ = ("_blocks", "_calls", "_done", "_reason", "_splitter", "_thoughts", "_usage")

    def __init__(self) -> None:
        self._splitter = FrameSplitter()
        self._blocks: dict[int, _Open] = {}
        self._calls = 0
        self._thoughts = 0
        self._usage: dict[str, Any] = {}
        self._reason: str | None = None
        self._done = False

    def read(self, payload: bytes) -> Iterator[Event]:
        """What happened, event by event. Raises UpstreamStatus for an error event, UpstreamInvalid for garbage."""
        for frame in self._splitter.feed(payload):
            data = data_of(frame)
            if data is None:
                continue
            try:
                event = _EVENT.decode(data)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                raise UpstreamInvalid("The provider's stream is not one of Anthropic's API.") from None
            yield from self._take(event)

    def end(self) -> Iterator[Event]:
        """Nothing is left to tell. Raises UpstreamInvalid where `message_stop` did not come."""
        if not self._done:
            raise UpstreamInvalid("The provider's stream ended before its answer did.")
        return iter(())

    def _take(self, event: _Event) -> Iterator[Event]:
        if event.delta is not None and event.type == "content_block_delta":
            return self._delta(event.index, event.delta)
        if event.content_block is not None and event.type == "content_block_start":
            return self._begin(event.index, event.content_block)
        if event.type == "content_block_stop":
            return self._finish(event.index)
        if event.type == "error":
            raise stream_error(event.error or _Error())
        return self._outside_blocks(event)

    def _outside_blocks(self, event: _Event) -> Iterator[Event]:
        if event.message is not None and event.type == "message_start":
            self._count(event.message.usage)
            yield Start(event.message.id, event.message.model, usage_of(self._usage))
        elif event.type == "message_delta":
            self._count(event.usage)
            if event.delta is not None:
                self._reason = event.delta.stop_reason or self._reason
        elif event.type == "message_stop":
            self._done = True
            yield Stop(finish_of(self._reason, self._calls > 0), self._reason, usage_of(self._usage))
        elif event.type == "ping":
            yield Ping()

    def _count(self, usage: dict[str, Any] | None) -> None:
        """Counts are cumulative: a later one replaces, a missing or lesser one (0) does not."""
        for key, value in (usage or {}).items():
            known = self._usage.get(key)
            if not (isinstance(value, int) and isinstance(known, int) and value < known) and value is not None:
                self._usage[key] = value

    def _begin(self, index: int, block: _Block) -> Iterator[Event]:
        kind, number = block.type, 0
        if kind == "tool_use" and block.name == ANSWER_TOOL:
            kind = "answer"
        elif kind == "tool_use":
            number = self._calls
            self._calls += 1
            yield CallStart(number, block.id, block.name)
        elif kind in ("thinking", "redacted_thinking"):
            number = self._thoughts
            self._thoughts += 1
        self._blocks[index] = _Open(kind, number, bytes(block.input))
        if kind == "redacted_thinking":
            yield RedactedBlock(number, block.data or "", CLAUDE_FORMAT)
        elif kind == "text" and block.text:
            yield TextDelta(block.text)
        elif kind == "thinking" and (block.thinking or block.signature):
            yield ThinkingDelta(number, block.thinking or "", block.signature or None, CLAUDE_FORMAT)

    def _delta(self, index: int, delta: _Delta) -> Iterator[Event]:
        block = self._blocks.get(index)
        if block is None:
            raise UpstreamInvalid("The provider's stream continues a block that has not begun.")
        if block.kind == "text" and delta.text:
            yield TextDelta(delta.text)
        elif block.kind == "thinking" and (delta.thinking or delta.signature):
            yield ThinkingDelta(block.number, delta.thinking or "", delta.signature, CLAUDE_FORMAT)
        elif delta.partial_json:
            block.begun = True
            yield from self._arguments(block, delta.partial_json)

    def _finish(self, index: int) -> Iterator[Event]:
        """A call without a single piece of arguments has what its block began with, or takes none."""
        block = self._blocks.pop(index, None)
        if block is not None and not block.begun:
            yield from self._arguments(block, block.input.decode())

    def _arguments(self, block: _Open, text: str) -> Iterator[Event]:
        if block.kind == "tool_use":
            yield CallDelta(block.number, text)
        elif block.kind == "answer":
            yield TextDelta(text)


def stream_error(error: _Error) -> UpstreamError:
    """An error event as the error that the same answer's status would have been."""
    if error.type in ("authentication_error", "permission_error"):
        return UpstreamAuthFailed("The provider refused the gateway's credentials; the operator must mend them.")
    status = _STATUSES.get(error.type, 500)
    return UpstreamStatus(status, error.message or error.type, code=None, type=error.type)
