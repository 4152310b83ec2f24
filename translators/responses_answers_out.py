"""The canonical form to answers of OpenAI's Responses API.

An answer is a list of items: reasoning, a message, calls. In a stream every item has its own events, from
`output_item.added` to `output_item.done`, and the last event repeats the whole response.

Reference: https://platform.openai.com/docs/api-reference/responses and .../responses-streaming.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
    Logprobs,
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
from translators.responses_requests_in import pack

Item = dict[str, Any]

_INCOMPLETE: Final = {Finish.LENGTH: "max_output_tokens", Finish.CONTENT_FILTER: "content_filter"}


def encode(answer: ChatAnswer, model: str, created: int, carried: Carried) -> bytes:
    """A complete answer as a response; of several choices the first."""
    response_id = f"resp_{answer.id}"
    choice = answer.choices[0] if answer.choices else None
    items = list(_items(choice.parts, response_id, choice.logprobs)) if choice is not None else []
    finish = choice.finish if choice is not None else Finish.STOP
    body = _response(response_id, model or answer.model, created, carried.echo)
    return orjson.dumps(_finished(body, items, finish, answer.usage))


def _response(response_id: str, model: str, created: int, echo: Mapping[str, Any]) -> dict[str, Any]:
    """A response as it begins."""
    return {
        "id": response_id,
        "object": "response",
        "created_at": created,
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "metadata": {},
        "model": model,
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": False,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": None,
        **{key: value for key, value in echo.items() if value is not None and key != "store"},
    }


def _finished(response: dict[str, Any], items: list[Item], finish: Finish, usage: Usage | None) -> dict[str, Any]:
    reason = _INCOMPLETE.get(finish)
    ended = {
        "status": "completed" if reason is None else "incomplete",
        "incomplete_details": None if reason is None else {"reason": reason},
        "output": items,
        "usage": None if usage is None else usage_of(usage),
    }
    return {**response, **ended}


def _items(parts: Iterable[Part], response_id: str, logprobs: Logprobs | None) -> Iterable[Item]:
    """Each thought and each call is an item; all texts together are one message."""
    content = [_content(part) for part in parts if isinstance(part, Text | Refusal)]
    number = 0
    for part in parts:
        if isinstance(part, Thinking | RedactedThinking):
            yield _reasoning(part, f"rs_{response_id}_{number}")
            number += 1
        elif isinstance(part, Text | Refusal) and content:
            message = _message(f"msg_{response_id}", content)
            if logprobs and message["content"][0]["type"] == "output_text":
                message["content"][0]["logprobs"] = logprobs
            yield message
            content = []
        elif isinstance(part, ToolCall):
            yield _call(part, f"fc_{response_id}_{number}")
            number += 1


def _content(part: Text | Refusal) -> Item:
    if isinstance(part, Refusal):
        return {"type": "refusal", "refusal": part.text}
    return {"type": "output_text", "text": part.text, "annotations": [], "logprobs": []}


def _message(item_id: str, content: list[Item]) -> Item:
    return {"id": item_id, "type": "message", "status": "completed", "role": "assistant", "content": _joined(content)}


def _joined(content: list[Item]) -> list[Item]:
    """Texts that follow each other are one."""
    joined: list[Item] = []
    for part in content:
        if joined and joined[-1]["type"] == part["type"] == "output_text":
            joined[-1] = {**part, "text": joined[-1]["text"] + part["text"]}
        else:
            joined.append(part)
    return joined


def _reasoning(part: Thinking | RedactedThinking, item_id: str) -> Item:
    text = part.text if isinstance(part, Thinking) else ""
    item: Item = {"id": item_id, "type": "reasoning", "summary": [_summary(text)] if text else []}
    packed = pack(part)
    if packed is not None:
        item["encrypted_content"] = packed
    return item


def _summary(text: str) -> Item:
    return {"type": "summary_text", "text": text}


def _call(call: ToolCall, item_id: str) -> Item:
    return {
        "id": item_id,
        "type": "function_call",
        "status": "completed",
        "call_id": call.id,
        "name": call.name,
        "arguments": call.arguments or "{}",
    }


def usage_of(usage: Usage) -> dict[str, Any]:
    """Usage as the Responses API writes it: details are always there."""
    return {
        "input_tokens": usage.prompt,
        "input_tokens_details": {"cached_tokens": usage.cached},
        "output_tokens": usage.completion,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.total,
    }


# --- streams ---------------------------------------------------------------------------------------------------------


class _Open:
    """An item that is being written: its place in the output, the item, and the text that it has so far."""

    __slots__ = ("item", "key", "logprobs", "pieces", "place", "signed")

    def __init__(self, key: tuple[str, int], place: int, item: Item) -> None:
        self.key = key
        self.place = place
        self.item = item
        self.pieces: list[str] = []
        self.logprobs: list[Any] = []
        self.signed: Thinking | RedactedThinking | None = None


class Writer:
    """Writes the events of one response. An item is done when another begins; the calls of a turn may interleave.

    The first events, which tell nothing yet, are held until there is something after them: an error right after the
    start can then still become a proper HTTP answer.
    """

    __slots__ = ("_created", "_echo", "_held", "_items", "_last", "_model", "_open", "_response", "_sequence")

    def __init__(self, model: str, created: int, include_usage: bool, carried: Carried) -> None:
        self._model = model
        self._created = created
        self._echo = carried.echo
        self._response: dict[str, Any] = {}
        self._items: list[Item] = []
        self._open: list[_Open] = []
        self._sequence = -1
        self._held = b""
        self._last = b""

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
        """The last event, with the whole response."""
        return self._last

    def _start(self, event: Start) -> bytes:
        response_id = f"resp_{event.id}"
        self._response = _response(response_id, self._model or event.model, self._created, self._echo)
        begun = {"response": self._response}
        return self._frame("response.created", **begun) + self._frame("response.in_progress", **begun)

    def _frame(self, kind: str, **fields: Any) -> bytes:
        self._sequence += 1
        return frame_of(orjson.dumps({"type": kind, "sequence_number": self._sequence, **fields}), kind.encode())

    def _write(self, event: Event) -> bytes:
        match event:
            case TextDelta(text, logprobs):
                return self._text(text, ("text", 0), logprobs or ())
            case RefusalDelta(text):
                return self._text(text, ("refusal", 0))
            case ThinkingDelta() | RedactedBlock():
                return self._thinking(event)
            case CallStart() | CallDelta():
                return self._call(event)
            case Ping():
                return b": ping\n\n"
            case Stop():
                return self._stop(event)
        return b""

    # Each kind of item: how it begins, what each piece of it is, how it ends.

    def _text(self, text: str, key: tuple[str, int], logprobs: Logprobs = ()) -> bytes:
        frames = self._close(keep=key)
        part = _content(Text("") if key[0] == "text" else Refusal(""))
        item = self._find(key)
        if item is None:
            item, added = self._begin(key, {**_message(self._id("msg"), []), "status": "in_progress"})
            frames += added
            frames += self._frame("response.content_part.added", **self._at(item, content_index=0), part=part)
        item.pieces.append(text)
        item.logprobs += logprobs
        kind = "output_text" if key[0] == "text" else "refusal"
        more: dict[str, Any] = {"logprobs": logprobs} if key[0] == "text" else {}
        return frames + self._frame(f"response.{kind}.delta", **self._at(item, content_index=0), delta=text, **more)

    def _thinking(self, event: ThinkingDelta | RedactedBlock) -> bytes:
        key = ("thinking", event.block)
        frames = self._close(keep=key)
        item = self._find(key)
        if item is None:
            item, added = self._begin(key, {"id": self._id("rs"), "type": "reasoning", "summary": []})
            frames += added
        if isinstance(event, RedactedBlock):
            item.signed = RedactedThinking(event.data, format=event.format)
            return frames
        if event.signature is not None:
            item.signed = Thinking("", event.signature, format=event.format)
        if event.text:
            place = self._at(item, summary_index=0)
            if not item.pieces:
                frames += self._frame("response.reasoning_summary_part.added", **place, part=_summary(""))
            item.pieces.append(event.text)
            frames += self._frame("response.reasoning_summary_text.delta", **place, delta=event.text)
        return frames

    def _call(self, event: CallStart | CallDelta) -> bytes:
        key = ("call", event.call)
        if isinstance(event, CallStart):
            frames = self._close()
            call = _call(ToolCall(event.id, event.name, ""), self._id("fc"))
            return frames + self._begin(key, {**call, "arguments": "", "status": "in_progress"})[1]
        item = self._find(key)
        if item is None:
            return b""  # white space after the arguments of a call that is closed already
        item.pieces.append(event.arguments)
        return self._frame("response.function_call_arguments.delta", **self._at(item), delta=event.arguments)

    def _find(self, key: tuple[str, int]) -> _Open | None:
        return next((item for item in self._open if item.key == key), None)

    def _id(self, prefix: str) -> str:
        return f"{prefix}_{self._response.get('id', '')}_{len(self._items)}"

    def _begin(self, key: tuple[str, int], item: Item) -> tuple[_Open, bytes]:
        opened = _Open(key, len(self._items), item)
        self._open.append(opened)
        self._items.append(item)
        return opened, self._frame("response.output_item.added", output_index=opened.place, item=item)

    def _at(self, item: _Open, **index: int) -> dict[str, Any]:
        return {"item_id": item.item["id"], "output_index": item.place, **index}

    def _close(self, *, keep: tuple[str, int] | None = None, over: bool = False) -> bytes:
        """End the items that are open: all but the one to go on with, and calls that may still be growing."""
        frames = []
        for item in list(self._open):
            growing = item.key[0] == "call" and not _is_whole(item.pieces)
            if over or (item.key != keep and not growing):
                self._open.remove(item)
                frames.append(self._done(item))
        return b"".join(frames)

    def _done(self, item: _Open) -> bytes:
        text = "".join(item.pieces)
        finished, frames = item.item, b""
        if item.key[0] == "call":
            finished = {**finished, "arguments": text or "{}", "status": "completed"}
            place = self._at(item)
            frames = self._frame("response.function_call_arguments.done", **place, arguments=text or "{}")
        elif item.key[0] == "thinking":
            finished = self._thought(item, text)
            if text:
                place, summary = self._at(item, summary_index=0), _summary(text)
                frames = self._frame("response.reasoning_summary_text.done", **place, text=text)
                frames += self._frame("response.reasoning_summary_part.done", **place, part=summary)
        else:
            frames, finished = self._message_done(item, text)
        self._items[item.place] = finished
        return frames + self._frame("response.output_item.done", output_index=item.place, item=finished)

    def _thought(self, item: _Open, text: str) -> Item:
        packed = pack(item.signed) if item.signed is not None else None
        finished = {**item.item, "summary": [_summary(text)] if text else []}
        return finished if packed is None else {**finished, "encrypted_content": packed}

    def _message_done(self, item: _Open, text: str) -> tuple[bytes, Item]:
        spoken = item.key[0] == "text"
        part = _content(Text(text) if spoken else Refusal(text))
        place = self._at(item, content_index=0)
        if spoken:
            part["logprobs"] = item.logprobs
            frames = self._frame("response.output_text.done", **place, text=text, logprobs=item.logprobs)
        else:
            frames = self._frame("response.refusal.done", **place, refusal=text)
        frames += self._frame("response.content_part.done", **place, part=part)
        return frames, {**item.item, "status": "completed", "content": [part]}

    def _stop(self, event: Stop) -> bytes:
        frames = self._close(over=True)
        response = _finished(self._response, self._items, event.finish, event.usage or Usage())
        self._last = self._frame(f"response.{response['status']}", response=response)
        return frames


def _is_whole(pieces: list[str]) -> bool:
    """Whether a call's arguments are complete: a whole JSON object cannot grow."""
    try:
        return isinstance(orjson.loads("".join(pieces)), dict)
    except orjson.JSONDecodeError:
        return False
