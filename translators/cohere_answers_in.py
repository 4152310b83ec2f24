"""Answers of Cohere's Chat API, version 2, to the canonical form, whole and streamed.

Reference: https://docs.cohere.com/reference/chat and .../chat-stream. The plan before a tool call is reasoning here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import orjson

from gateway.errors import UpstreamInvalid, UpstreamStatus
from gateway.sse import FrameSplitter, data_of
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

_FINISHES: Final = {
    "COMPLETE": Finish.STOP,
    "STOP_SEQUENCE": Finish.STOP,
    "MAX_TOKENS": Finish.LENGTH,
    "TOOL_CALL": Finish.TOOL_CALLS,
    "ERROR_TOXIC": Finish.CONTENT_FILTER,
}
_FAILED: Final = {"ERROR": 502, "TIMEOUT": 504}


def decode(body: bytes) -> ChatAnswer:
    """Read a complete answer. Raises UpstreamInvalid where it is not one, UpstreamStatus where the model failed."""
    try:
        tree = orjson.loads(body)
        reason = tree.get("finish_reason")
        choice = Choice(list(_parts(tree["message"])), _finish(reason), _native(reason))
        return ChatAnswer(str(tree.get("id") or ""), "", [choice], usage_of(tree.get("usage") or {}))
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        raise UpstreamInvalid("The provider's answer is not one of Cohere's Chat API.") from None


def _finish(reason: Any) -> Finish:
    if reason in _FAILED:
        raise UpstreamStatus(
            _FAILED[reason], f"The model failed to answer: {reason}.", code=str(reason).lower(), type="server_error"
        )
    return _FINISHES.get(reason, Finish.STOP)


def _native(reason: Any) -> str | None:
    plain = reason in ("COMPLETE", "MAX_TOKENS", "TOOL_CALL")
    return reason if isinstance(reason, str) and not plain else None


def _parts(message: dict[str, Any]) -> Iterator[Part]:
    if message.get("tool_plan"):
        yield Thinking(message["tool_plan"])
    for part in message.get("content") or ():
        if part["type"] == "text":
            yield Text(part["text"])
        elif part["type"] == "thinking":
            yield Thinking(part["thinking"])
    for call in message.get("tool_calls") or ():
        function = call["function"]
        yield ToolCall(call["id"], function["name"], function.get("arguments") or "")


def usage_of(usage: dict[str, Any]) -> Usage:
    """The tokens that the model saw; what is billed leaves out Cohere's own prompt."""
    tokens = usage.get("tokens") or usage.get("billed_units") or {}
    return Usage(
        prompt=_count(tokens, "input_tokens"),
        completion=_count(tokens, "output_tokens"),
        cached=_count(usage, "cached_tokens"),
    )


def _count(usage: dict[str, Any], key: str) -> int:
    value = usage.get(key)
    return int(value) if isinstance(value, int | float) else 0


# --- streams ---------------------------------------------------------------------------------------------------------


class Reader:
    """Reads the events of one streamed answer. A plan and each block of thinking are blocks of reasoning."""

    __slots__ = ("_done", "_planned", "_splitter")

    def __init__(self) -> None:
        self._splitter = FrameSplitter()
        self._planned = False
        self._done = False

    def read(self, payload: bytes) -> Iterator[Event]:
        """What happened, event by event. Raises UpstreamStatus where the model failed, UpstreamInvalid for garbage."""
        for frame in self._splitter.feed(payload):
            data = data_of(frame)
            if data is None or data == b"[DONE]":
                continue
            try:
                events = list(self._take(orjson.loads(data)))
            except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
                raise UpstreamInvalid("The provider's stream is not one of Cohere's Chat API.") from None
            yield from events

    def end(self) -> Iterator[Event]:
        """Nothing is left to tell. Raises UpstreamInvalid where `message-end` did not come."""
        if not self._done:
            raise UpstreamInvalid("The provider's stream ended before its answer did.")
        return iter(())

    def _take(self, event: dict[str, Any]) -> Iterator[Event]:
        kind = event["type"]
        delta = event.get("delta") or {}
        message = delta.get("message") or {}
        if kind == "message-start":
            yield Start(str(event.get("id") or ""), "")
        elif kind in ("content-start", "content-delta"):
            yield from self._content(event.get("index", 0), message.get("content") or {})
        elif kind == "tool-plan-delta":
            self._planned = True
            yield ThinkingDelta(0, message["tool_plan"])
        elif kind in ("tool-call-start", "tool-call-delta"):
            yield from _call(event["index"], message["tool_calls"], kind == "tool-call-start")
        elif kind == "message-end":
            self._done = True
            reason = delta.get("finish_reason")
            yield Stop(_finish(reason), _native(reason), usage_of(delta.get("usage") or {}))

    def _content(self, index: int, content: dict[str, Any]) -> Iterator[Event]:
        if content.get("text"):
            yield TextDelta(content["text"])
        if content.get("thinking"):
            yield ThinkingDelta(index + self._planned, content["thinking"])


def _call(index: int, call: dict[str, Any], begins: bool) -> Iterator[Event]:
    function = call["function"]
    if begins:
        yield CallStart(index, call["id"], function["name"])
    if function.get("arguments"):
        yield CallDelta(index, function["arguments"])
