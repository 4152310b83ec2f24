"""The canonical form to answers of Anthropic's Messages API: what Claude Code and the Anthropic SDKs read.

Reference: https://platform.claude.com/docs/en/api/messages and .../build-with-claude/streaming.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import orjson

from gateway.sse import frame_of
from gateway.types import Usage
from translators.canonical import (
    CallDelta,
    CallStart,
    ChatAnswer,
    Event,
    Finish,
    Part,
    Ping,
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
from translators.dialect import Carried
from translators.sealed_thoughts import sealed

_REASONS: Final = {
    Finish.STOP: "end_turn",
    Finish.LENGTH: "max_tokens",
    Finish.TOOL_CALLS: "tool_use",
    Finish.CONTENT_FILTER: "refusal",
}


def encode(answer: ChatAnswer, model: str, created: int, carried: Carried) -> bytes:
    """A complete answer as Anthropic writes it; of several choices the first."""
    choice = answer.choices[0] if answer.choices else None
    body = _message(answer.id, model or answer.model)
    if choice is not None:
        body["content"] = list(_blocks(choice.parts))
        body["stop_reason"] = _REASONS[choice.finish]
    body["usage"] = usage_of(answer.usage or Usage())
    return orjson.dumps(body)


def _message(answer_id: str, model: str) -> dict[str, Any]:
    return {
        "id": answer_id if answer_id.startswith("msg_") else f"msg_{answer_id}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _blocks(parts: Iterable[Part]) -> Iterable[dict[str, Any]]:
    for part in parts:
        match part:
            case Text(text) | Refusal(text):
                yield {"type": "text", "text": text}
            case Thinking(text, signature):
                yield {"type": "thinking", "thinking": text, "signature": sealed(signature or "", part.format)}
            case RedactedThinking(data):
                yield {"type": "redacted_thinking", "data": sealed(data, part.format)}
            case ToolCall():
                yield {"type": "tool_use", "id": part.id, "name": part.name, "input": _input(part.arguments)}


def _input(arguments: str) -> Any:
    """A call's arguments as an object; what is no JSON object was cut off, and `{}` is all that can be said."""
    value = _parsed(arguments)
    return orjson.Fragment(arguments) if isinstance(value, dict) and value else {}


def _parsed(arguments: str) -> Any:
    try:
        return orjson.loads(arguments) if arguments.strip() else {}
    except orjson.JSONDecodeError:
        return None


def usage_of(usage: Usage) -> dict[str, Any]:
    """Anthropic counts the cached part of a prompt apart from the rest; some providers count a part in both ways."""
    written = min(usage.written, usage.prompt - usage.cached)
    return {
        "input_tokens": usage.prompt - usage.cached - written,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": usage.cached,
        "output_tokens": usage.completion,
    }


# --- streams ---------------------------------------------------------------------------------------------------------


class _Block:
    """A block that is being written, or that waits for the one before it to end."""

    __slots__ = ("begun", "key", "pieces", "start", "waiting")

    def __init__(self, key: tuple[str, int], start: dict[str, Any]) -> None:
        self.key = key
        self.start = start
        self.waiting: list[dict[str, Any]] = []
        self.pieces: list[str] = []
        self.begun = False


class Writer:
    """Writes the events of one message.

    Blocks follow each other here, each with one start and one stop, while calls may come interleaved: a call that
    begins before the arguments of the one before it are complete waits. The first event, which tells nothing yet, is
    held until there is something after it: an error right after the start can then still become a proper HTTP answer.
    """

    __slots__ = ("_blocks", "_held", "_index", "_model", "_prompt_tokens")

    def __init__(self, model: str, created: int, include_usage: bool, carried: Carried) -> None:
        self._model = model
        self._prompt_tokens = carried.prompt_tokens
        self._blocks: list[_Block] = []
        self._index = -1
        self._held = b""

    def write(self, event: Event) -> bytes:
        """The frames for one event."""
        if isinstance(event, Start):
            self._held = self._start(event)
            return b""
        frames = self._write(event)
        if self._held and frames:
            frames, self._held = self._held + frames, b""
        return frames

    def end(self) -> bytes:
        """The end mark."""
        return _frame("message_stop")

    def _start(self, event: Start) -> bytes:
        """Claude Code reads the size of the prompt here; where the provider tells it only at the end, an estimate."""
        usage = event.usage if event.usage is not None and event.usage.prompt else Usage(prompt=self._prompt_tokens)
        message = {**_message(event.id, self._model or event.model), "usage": usage_of(usage)}
        return _frame("message_start", message=message)

    def _write(self, event: Event) -> bytes:
        match event:
            case TextDelta(text) | RefusalDelta(text):
                return self._add(("text", 0), {"type": "text", "text": ""}, {"type": "text_delta", "text": text})
            case ThinkingDelta():
                return self._thinking(event)
            case RedactedBlock(block, data):
                start = {"type": "redacted_thinking", "data": sealed(data, event.format)}
                return self._add(("redacted", block), start, None)
            case CallStart(call, call_id, name):
                begun: dict[str, Any] = {"type": "tool_use", "id": call_id, "name": name, "input": {}}
                return self._add(("call", call), begun, None)
            case CallDelta(call, arguments):
                return self._add(("call", call), None, {"type": "input_json_delta", "partial_json": arguments})
            case Ping():
                return _frame("ping")
            case Stop():
                return self._stop(event)
        return b""

    def _thinking(self, event: ThinkingDelta) -> bytes:
        start = {"type": "thinking", "thinking": "", "signature": ""}
        frames = b""
        if event.text:
            delta = {"type": "thinking_delta", "thinking": event.text}
            frames = self._add(("thinking", event.block), start, delta)
        if event.signature is not None:
            delta = {"type": "signature_delta", "signature": sealed(event.signature, event.format)}
            frames += self._add(("thinking", event.block), start, delta)
        return frames

    def _add(self, key: tuple[str, int], start: dict[str, Any] | None, delta: dict[str, Any] | None) -> bytes:
        """More of a block: of the open one, of one that waits, or of a new one."""
        block = self._find(key)
        if block is None and start is None:
            return b""  # white space after the arguments of a call that is closed already
        if block is None:
            block = _Block(key, start or {})
            self._blocks.append(block)
        if delta is not None:
            block.waiting.append(delta)
            if key[0] == "call":
                block.pieces.append(delta["partial_json"])
        return self._advance()

    def _find(self, key: tuple[str, int]) -> _Block | None:
        """The block to add to. A text goes on only while nothing has come after it."""
        candidates = self._blocks if key[0] == "call" else self._blocks[-1:]
        return next((block for block in candidates if block.key == key), None)

    def _advance(self, *, over: bool = False) -> bytes:
        """Write what can be written: the first block, and the next ones as soon as it is done."""
        frames = []
        while self._blocks:
            block = self._blocks[0]
            frames.append(self._flush(block))
            done = over or (len(self._blocks) > 1 and _is_complete(block))
            if not done:
                break
            frames.append(_frame("content_block_stop", index=self._index))
            del self._blocks[0]
        return b"".join(frames)

    def _flush(self, block: _Block) -> bytes:
        frames = []
        if not block.begun:
            block.begun = True
            self._index += 1
            frames.append(_frame("content_block_start", index=self._index, content_block=block.start))
        frames += [_frame("content_block_delta", index=self._index, delta=delta) for delta in block.waiting]
        block.waiting.clear()
        return b"".join(frames)

    def _stop(self, event: Stop) -> bytes:
        frames = self._advance(over=True)
        delta = {"stop_reason": _REASONS[event.finish], "stop_sequence": None}
        return frames + _frame("message_delta", delta=delta, usage=usage_of(event.usage or Usage()))


def _is_complete(block: _Block) -> bool:
    """Whether nothing more can come: arguments that are a whole JSON value cannot grow."""
    return block.key[0] != "call" or isinstance(_parsed("".join(block.pieces) or "x"), dict)


def _frame(kind: str, **fields: Any) -> bytes:
    return frame_of(orjson.dumps({"type": kind, **fields}), kind.encode())
