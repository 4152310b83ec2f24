"""The canonical form to answers of OpenAI's Chat Completions.

Fields that OpenAI does not have stand where others of the field put them: `reasoning_content` (the text) and
`reasoning_details` (text, signature and opaque blocks, as OpenRouter writes them; a client sends them back as they
are), `native_finish_reason`, and `cache_write_tokens` in the prompt's details.

Reference: https://platform.openai.com/docs/api-reference/chat/object.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from gateway.types import Usage
from translators.canonical import (
    CallDelta,
    CallStart,
    ChatAnswer,
    Choice,
    Event,
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

_EXACT: Final = {"stop", "length", "tool_calls", "content_filter", "end_turn", "tool_use", "max_tokens"}
"""Native reasons that say no more than OpenAI's word for them."""


def encode(answer: ChatAnswer, model: str, created: int, carried: Carried) -> bytes:
    """A complete answer as OpenAI writes it. `created` is in Unix seconds."""
    body: dict[str, Any] = {
        "id": f"chatcmpl-{answer.id}",
        "object": "chat.completion",
        "created": created,
        "model": model or answer.model,
        "choices": [_choice(choice) for choice in answer.choices],
    }
    if answer.usage is not None:
        body["usage"] = usage_of(answer.usage)
    if answer.service_tier is not None:
        body["service_tier"] = "default" if answer.service_tier == "standard" else answer.service_tier
    return orjson.dumps(body)


def _choice(choice: Choice) -> dict[str, Any]:
    encoded = {
        "index": choice.index,
        "message": _message(choice),
        "logprobs": None if choice.logprobs is None else {"content": choice.logprobs, "refusal": None},
        "finish_reason": choice.finish.value,
    }
    if choice.native_reason is not None and choice.native_reason not in _EXACT:
        encoded["native_finish_reason"] = choice.native_reason
    return encoded


def _message(choice: Choice) -> dict[str, Any]:
    texts = [part.text for part in choice.parts if isinstance(part, Text)]
    refusals = [part.text for part in choice.parts if isinstance(part, Refusal)]
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "".join(texts) if texts else None,
        "refusal": "".join(refusals) if refusals else None,
    }
    thoughts = [part for part in choice.parts if isinstance(part, Thinking | RedactedThinking)]
    if thoughts:
        readable = "".join(part.text for part in thoughts if isinstance(part, Thinking))
        if readable:
            message["reasoning_content"] = readable
        message["reasoning_details"] = [_detail(part, index) for index, part in enumerate(thoughts)]
    calls = [call_of(part) for part in choice.parts if isinstance(part, ToolCall)]
    if calls:
        message["tool_calls"] = calls
    return message


def _detail(part: Thinking | RedactedThinking, index: int) -> dict[str, Any]:
    detail: dict[str, Any] = {"index": index}
    if isinstance(part, RedactedThinking):
        detail |= {"type": "reasoning.encrypted", "data": part.data}
    else:
        detail |= {"type": "reasoning.text", "text": part.text}
        if part.signature is not None:
            detail["signature"] = part.signature
    if part.format is not None:
        detail["format"] = part.format
    return detail


def call_of(call: ToolCall) -> dict[str, Any]:
    """One entry of `tool_calls`."""
    entry: dict[str, Any] = {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments or "{}"},
    }
    if call.signature is not None:
        entry["extra_content"] = {"google": {"thought_signature": call.signature}}
    return entry


def usage_of(usage: Usage) -> dict[str, Any]:
    """Usage as OpenAI writes it; details that the provider did not count are left out."""
    body: dict[str, Any] = {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.total,
    }
    prompt = {"cached_tokens": usage.cached, "cache_write_tokens": usage.written}
    if counted := {key: value for key, value in prompt.items() if value}:
        body["prompt_tokens_details"] = counted
    if usage.reasoning:
        body["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning}
    return body


# --- streams ---------------------------------------------------------------------------------------------------------


class Writer:
    """Writes the chunks of one answer.

    The first chunk, which only says who speaks, is held until there is something after it: an error that comes right
    after the start can then still become a proper HTTP answer.
    """

    __slots__ = ("_created", "_head", "_held", "_include_usage", "_model", "_tail")

    def __init__(self, model: str, created: int, include_usage: bool, carried: Carried) -> None:
        self._model = model
        self._created = created
        self._include_usage = include_usage
        self._held = b""
        self._head = b""
        self._tail = b',"usage":null}\n\n' if include_usage else b"}\n\n"

    def write(self, event: Event) -> bytes:
        """The chunks for one event."""
        if isinstance(event, TextDelta):
            chances = event.logprobs
            told = b"null" if chances is None else orjson.dumps({"content": chances, "refusal": None})
            frame = self._delta(b'{"content":%b}' % orjson.dumps(event.text), told)
        elif isinstance(event, Start):
            self._start(event)
            return b""
        else:
            frame = self._seldom(event)
        if self._held:
            frame, self._held = self._held + frame, b""
        return frame

    def end(self) -> bytes:
        """The end mark."""
        return b"data: [DONE]\n\n"

    def _start(self, event: Start) -> None:
        base = {
            "id": f"chatcmpl-{event.id}",
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self._model or event.model,
        }
        self._head = b"data: " + orjson.dumps(base)[:-1] + b',"choices":['
        self._held = self._delta(b'{"role":"assistant","content":""}')

    def _delta(self, delta: bytes, logprobs: bytes = b"null") -> bytes:
        return b'%b{"index":0,"delta":%b,"logprobs":%b,"finish_reason":null}]%b' % (
            self._head,
            delta,
            logprobs,
            self._tail,
        )

    def _seldom(self, event: Event) -> bytes:
        match event:
            case ThinkingDelta(block, text, signature):
                return self._thinking(block, text, signature, event.format)
            case RedactedBlock(block, data):
                detail = {"type": "reasoning.encrypted", "index": block, "data": data}
                if event.format is not None:
                    detail["format"] = event.format
                return self._delta(orjson.dumps({"reasoning_details": [detail]}))
            case CallStart(call, call_id, name, signature):
                entry = {"index": call, **call_of(ToolCall(call_id, name, "{}", signature=signature))}
                entry["function"] = {"name": name, "arguments": ""}
                return self._delta(orjson.dumps({"tool_calls": [entry]}))
            case CallDelta(call, arguments):
                piece = {"index": call, "function": {"arguments": arguments}}
                return self._delta(orjson.dumps({"tool_calls": [piece]}))
            case RefusalDelta(text):
                return self._delta(orjson.dumps({"refusal": text}))
            case Ping():
                return b": ping\n\n"
            case Stop():
                return self._stop(event)
        return b""

    def _thinking(self, block: int, text: str, signature: str | None, format: str | None) -> bytes:
        """The format stands only beside the signature: clients join the strings of all pieces."""
        detail: dict[str, Any] = {"type": "reasoning.text", "index": block}
        delta: dict[str, Any] = {"reasoning_details": [detail]}
        if text:
            detail["text"] = text
            delta["reasoning_content"] = text
        if signature is not None:
            detail["signature"] = signature
            if format is not None:
                detail["format"] = format
        return self._delta(orjson.dumps(delta))

    def _stop(self, event: Stop) -> bytes:
        choice: dict[str, Any] = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": event.finish.value}
        if event.native_reason is not None and event.native_reason not in _EXACT:
            choice["native_finish_reason"] = event.native_reason
        last = self._head + orjson.dumps(choice) + b"]" + self._tail
        if not self._include_usage:
            return last
        return b'%b%b],"usage":%b}\n\n' % (last, self._head, orjson.dumps(usage_of(event.usage or Usage())))
