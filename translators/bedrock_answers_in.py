"""Answers of Amazon Bedrock's Converse API to the canonical form, whole and streamed (as a binary event stream).

Reference: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html.
Answers have no id of their own; one is made from their bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, Final

import orjson

from gateway.errors import UpstreamAuthFailed, UpstreamError, UpstreamInvalid, UpstreamStatus
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
from translators.event_stream import Message, MessageSplitter

_FINISHES: Final = {
    "end_turn": Finish.STOP,
    "stop_sequence": Finish.STOP,
    "tool_use": Finish.TOOL_CALLS,
    "max_tokens": Finish.LENGTH,
    "model_context_window_exceeded": Finish.LENGTH,
    "content_filtered": Finish.CONTENT_FILTER,
    "guardrail_intervened": Finish.CONTENT_FILTER,
}
_FAILED: Final = frozenset({"malformed_model_output", "malformed_tool_use"})
_PLAIN: Final = frozenset({"end_turn", "tool_use", "max_tokens"})


def decode(body: bytes) -> ChatAnswer:
    """Read a complete answer. Raises UpstreamInvalid where it is not one, UpstreamStatus where the model failed."""
    try:
        tree = orjson.loads(body)
        parts = list(_parts(tree["output"]["message"]["content"]))
        reason = tree.get("stopReason")
        calls = any(isinstance(part, ToolCall) for part in parts)
        choice = Choice(parts, finish_of(reason, calls), _native(reason))
        return ChatAnswer(_id(body), "", [choice], usage_of(tree.get("usage") or {}))
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        raise UpstreamInvalid("The provider's answer is not one of Bedrock's Converse API.") from None


def _id(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:24]


def finish_of(reason: Any, calls: bool) -> Finish:
    """Why the model stopped. Raises UpstreamStatus where it failed to answer."""
    if reason in _FAILED:
        raise UpstreamStatus(502, f"The model failed to answer: {reason}.", code=reason, type="server_error")
    finish = _FINISHES.get(reason, Finish.STOP)
    return Finish.STOP if finish is Finish.TOOL_CALLS and not calls else finish


def _native(reason: Any) -> str | None:
    return reason if isinstance(reason, str) and reason not in _PLAIN else None


def _parts(blocks: list[Any]) -> Iterator[Part]:
    """The input of the hidden tool is the answer; words beside it would spoil the JSON."""
    answered = any((block.get("toolUse") or {}).get("name") == ANSWER_TOOL for block in blocks)
    for block in blocks:
        if "text" in block:
            if not answered:
                yield Text(block["text"])
        elif "reasoningContent" in block:
            yield _thought(block["reasoningContent"])
        elif "toolUse" in block:
            use = block["toolUse"]
            arguments = orjson.dumps(use.get("input") or {}).decode()
            yield Text(arguments) if use["name"] == ANSWER_TOOL else ToolCall(use["toolUseId"], use["name"], arguments)


def _thought(content: dict[str, Any]) -> Part:
    if "redactedContent" in content:
        return RedactedThinking(content["redactedContent"], format=CLAUDE_FORMAT)
    text = content["reasoningText"]
    signature = text.get("signature")
    return Thinking(text["text"], signature, format=CLAUDE_FORMAT if signature else None)


def usage_of(usage: dict[str, Any]) -> Usage:
    """Bedrock counts the cached part of a prompt apart, as Anthropic does."""
    read, written = _count(usage, "cacheReadInputTokens"), _count(usage, "cacheWriteInputTokens")
    return Usage(
        prompt=_count(usage, "inputTokens") + read + written,
        completion=_count(usage, "outputTokens"),
        cached=read,
        written=written,
    )


def _count(usage: dict[str, Any], key: str) -> int:
    value = usage.get(key)
    return value if isinstance(value, int) else 0


# --- streams ---------------------------------------------------------------------------------------------------------

_STATUSES: Final = {
    "validationException": 400,
    "throttlingException": 429,
    "internalServerException": 500,
    "modelStreamErrorException": 502,
    "serviceUnavailableException": 503,
    "modelTimeoutException": 504,
}


class Reader:
    """Reads the events of one streamed answer."""

    __slots__ = ("_answers", "_begun", "_calls", "_reason", "_splitter", "_stopped", "_thoughts")

    def __init__(self) -> None:
        self._splitter = MessageSplitter()
        self._calls: dict[int, int] = {}
        self._thoughts: dict[int, int] = {}
        self._answers: set[int] = set()
        self._begun: set[int] = set()
        self._reason: str | None = None
        self._stopped = False

    def read(self, payload: bytes) -> Iterator[Event]:
        """What happened, event by event. Raises UpstreamStatus for an exception event, UpstreamInvalid for garbage."""
        for message in self._splitter.feed(payload):
            kind = message.headers.get(":message-type")
            if kind != "event":
                raise stream_error(message)
            try:
                tree = orjson.loads(message.payload)
                events = list(self._take(message.headers.get(":event-type", ""), tree, message.payload))
            except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
                raise UpstreamInvalid("The provider's stream is not one of Bedrock's Converse API.") from None
            yield from events

    def end(self) -> Iterator[Event]:
        """The stream ended: complete if there was a reason for it, with or without the count of tokens."""
        if self._reason is None or self._splitter.rest():
            raise UpstreamInvalid("The provider's stream ended before its answer did.")
        return self._stop({})

    def _stop(self, usage: dict[str, Any]) -> Iterator[Event]:
        if not self._stopped:
            self._stopped = True
            yield Stop(finish_of(self._reason, bool(self._calls)), _native(self._reason), usage_of(usage))

    def _take(self, kind: str, event: dict[str, Any], raw: bytes) -> Iterator[Event]:
        if kind == "messageStart":
            yield Start(_id(raw), "")
        elif kind == "contentBlockStart":
            yield from self._begin(event["contentBlockIndex"], event["start"])
        elif kind == "contentBlockDelta":
            yield from self._delta(event["contentBlockIndex"], event["delta"])
        elif kind == "contentBlockStop":
            yield from self._end_block(event["contentBlockIndex"])
        elif kind == "messageStop":
            self._reason = str(event["stopReason"])
        elif kind == "metadata":
            yield from self._stop(event.get("usage") or {})

    def _begin(self, index: int, start: dict[str, Any]) -> Iterator[Event]:
        use = start.get("toolUse")
        if use is None:
            return
        if use["name"] == ANSWER_TOOL:
            self._answers.add(index)
            return
        self._calls[index] = len(self._calls)
        yield CallStart(self._calls[index], use["toolUseId"], use["name"])

    def _delta(self, index: int, delta: dict[str, Any]) -> Iterator[Event]:
        if delta.get("text"):
            yield TextDelta(delta["text"])
        elif "toolUse" in delta:
            text = delta["toolUse"].get("input")
            if text:
                self._begun.add(index)
                yield TextDelta(text) if index in self._answers else CallDelta(self._calls[index], text)
        elif "reasoningContent" in delta:
            yield from self._reasoning(index, delta["reasoningContent"])

    def _reasoning(self, index: int, content: dict[str, Any]) -> Iterator[Event]:
        block = self._thoughts.setdefault(index, len(self._thoughts))
        if "redactedContent" in content:
            yield RedactedBlock(block, content["redactedContent"], CLAUDE_FORMAT)
        elif content.get("text") or content.get("signature"):
            signature = content.get("signature")
            yield ThinkingDelta(block, content.get("text") or "", signature, CLAUDE_FORMAT if signature else None)

    def _end_block(self, index: int) -> Iterator[Event]:
        """A call without a single piece of arguments takes none."""
        if index in self._begun:
            return
        if index in self._answers:
            yield TextDelta("{}")
        elif index in self._calls:
            yield CallDelta(self._calls[index], "{}")


def stream_error(message: Message) -> UpstreamError:
    """An exception within a stream, as the error that the same answer's status would have been."""
    kind = message.headers.get(":exception-type") or message.headers.get(":error-code") or "error"
    try:
        text = orjson.loads(message.payload).get("message") or kind
    except (orjson.JSONDecodeError, AttributeError):
        text = message.headers.get(":error-message") or kind
    if kind == "accessDeniedException":
        return UpstreamAuthFailed("The provider refused the gateway's credentials; the operator must mend them.")
    return UpstreamStatus(_STATUSES.get(kind, 500), str(text), code=kind, type="server_error")
