"""Answers of Ollama's own chat API to the canonical form, whole and streamed (one JSON object a line).

Reference: https://github.com/ollama/ollama/blob/main/docs/api.md#generate-a-chat-completion.
Answers have no id of their own; one is made from their bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, Final

import orjson

from gateway.errors import UpstreamInvalid, UpstreamStatus
from gateway.types import Usage
from translators.canonical import (
    CallDelta,
    CallStart,
    ChatAnswer,
    Choice,
    Event,
    Finish,
    Part,
    Start,
    Stop,
    Text,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ToolCall,
)

MAX_LINE_BYTES: Final = 16 * 1024 * 1024


def decode(body: bytes) -> ChatAnswer:
    """Read a complete answer. Raises UpstreamInvalid where it is not one."""
    try:
        tree = orjson.loads(body)
        answer_id = _id(body)
        parts = list(_parts(tree["message"], answer_id))
        calls = any(isinstance(part, ToolCall) for part in parts)
        reason = tree.get("done_reason")
        choice = Choice(parts, _finish(reason, calls), _native(reason), logprobs=tree.get("logprobs"))
        return ChatAnswer(answer_id, str(tree.get("model") or ""), [choice], usage_of(tree))
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        raise UpstreamInvalid("The provider's answer is not one of Ollama's chat API.") from None


def _id(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:24]


def _finish(reason: Any, calls: bool) -> Finish:
    if reason == "length":
        return Finish.LENGTH
    return Finish.TOOL_CALLS if calls else Finish.STOP


def _native(reason: Any) -> str | None:
    return reason if isinstance(reason, str) and reason not in ("stop", "length") else None


def _parts(message: dict[str, Any], answer_id: str) -> Iterator[Part]:
    if message.get("thinking"):
        yield Thinking(message["thinking"])
    if message.get("content"):
        yield Text(message["content"])
    for number, call in enumerate(message.get("tool_calls") or ()):
        yield _call(call, f"call_{answer_id}_{number}")


def _call(call: dict[str, Any], call_id: str) -> ToolCall:
    function = call["function"]
    arguments = orjson.dumps(function.get("arguments") or {}).decode()
    return ToolCall(call.get("id") or call_id, function["name"], arguments)


def usage_of(tree: dict[str, Any]) -> Usage:
    """The counts of the last object."""
    return Usage(prompt=_count(tree, "prompt_eval_count"), completion=_count(tree, "eval_count"))


def _count(tree: dict[str, Any], key: str) -> int:
    value = tree.get(key)
    return value if isinstance(value, int) else 0


class Reader:
    """Reads the objects of one streamed answer."""

    __slots__ = ("_calls", "_done", "_id", "_pending")

    def __init__(self) -> None:
        self._pending = bytearray()
        self._id = ""
        self._calls = 0
        self._done = False

    def read(self, payload: bytes) -> Iterator[Event]:
        """What happened, event by event. Raises UpstreamStatus for an error object, UpstreamInvalid for garbage."""
        self._pending += payload
        if len(self._pending) > MAX_LINE_BYTES:
            raise UpstreamInvalid(f"The provider sent an object of more than {MAX_LINE_BYTES} bytes.")
        *lines, rest = self._pending.split(b"\n")
        self._pending = rest
        for line in lines:
            if line.strip():
                yield from self._line(bytes(line))

    def end(self) -> Iterator[Event]:
        """What a last line without its end tells. Raises UpstreamInvalid where `done` did not come."""
        if self._pending.strip():
            yield from self._line(bytes(self._pending))
        if not self._done:
            raise UpstreamInvalid("The provider's stream ended before its answer did.")

    def _line(self, line: bytes) -> Iterator[Event]:
        try:
            events = list(self._take(orjson.loads(line), line))
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
            raise UpstreamInvalid("The provider's stream is not one of Ollama's chat API.") from None
        yield from events

    def _take(self, piece: dict[str, Any], line: bytes) -> Iterator[Event]:
        if piece.get("error"):
            raise UpstreamStatus(502, str(piece["error"]), code=None, type="server_error")
        if not self._id:
            self._id = _id(line)
            yield Start(self._id, str(piece.get("model") or ""))
        message = piece.get("message") or {}
        if message.get("thinking"):
            yield ThinkingDelta(0, message["thinking"])
        if message.get("content"):
            yield TextDelta(message["content"], piece.get("logprobs"))
        for call in message.get("tool_calls") or ():
            whole = _call(call, f"call_{self._id}_{self._calls}")
            yield CallStart(self._calls, whole.id, whole.name)
            yield CallDelta(self._calls, whole.arguments)
            self._calls += 1
        if piece.get("done"):
            self._done = True
            reason = piece.get("done_reason")
            yield Stop(_finish(reason, self._calls > 0), _native(reason), usage_of(piece))
