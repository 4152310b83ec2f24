"""Answers of OpenAI's Responses API to the canonical form, whole and streamed.

An answer is a list of items. Reasoning, messages and calls of functions are read; what OpenAI's own tools did beside
them is passed over, since the text tells of it. The encrypted part of reasoning is kept byte for byte.

Reference: https://platform.openai.com/docs/api-reference/responses/object and .../responses-streaming.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import orjson

from gateway.errors import UpstreamError, UpstreamInvalid, UpstreamStatus
from gateway.sse import FrameSplitter, data_of
from gateway.types import ResponseHead, Usage
from translators import provider_errors
from translators.canonical import (
    RESPONSES_FORMAT,
    CallDelta,
    CallStart,
    ChatAnswer,
    Choice,
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

Tree = dict[str, Any]

_INCOMPLETE: Final = {"max_output_tokens": Finish.LENGTH, "content_filter": Finish.CONTENT_FILTER}
_STATUS: Final = {
    "server_error": 500,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "vector_store_timeout": 504,
}
"""https://platform.openai.com/docs/api-reference/responses/object#responses-object-error; every other code is the
request's fault."""
_UNFINISHED: Final = frozenset({"queued", "in_progress", "cancelled"})
_PARAGRAPH: Final = "\n\n"


def decode(body: bytes) -> ChatAnswer:
    """Read a complete answer. Raises UpstreamInvalid where it is not one, UpstreamStatus where the model failed."""
    try:
        tree = orjson.loads(body)
        _refuse_failed(tree, body)
        parts = [part for item in tree["output"] for part in _parts(item)]
        logprobs = [chance for item in tree["output"] for chance in _logprobs_of(item)]
        calls = any(isinstance(part, ToolCall) for part in parts)
        choice = Choice(parts, _finish(tree, calls), _native(tree), logprobs=logprobs or None)
        tier = tree.get("service_tier")
        return ChatAnswer(_id(tree), str(tree.get("model") or ""), [choice], usage_of(tree.get("usage")), tier)
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        raise UpstreamInvalid("The provider's answer is not a response.") from None


def _id(response: Tree) -> str:
    return str(response.get("id") or "").removeprefix("resp_")


def _refuse_failed(response: Tree, data: bytes) -> None:
    status = response.get("status")
    if status == "failed":
        raise _error(response.get("error") or {}, data)
    if status in _UNFINISHED:
        raise UpstreamInvalid(f"The provider's answer is not there yet; its status is {status}.")


def _error(error: Any, data: bytes) -> UpstreamError:
    """An error within an answer, as the error that the same answer's status would have been."""
    code = error.get("code") if isinstance(error, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    if not isinstance(message, str):
        return provider_errors.read(ResponseHead(502, b"", b""), data, "The provider")
    status = _STATUS.get(str(code), 400) if code else 502
    kind = "server_error" if status >= 500 else "rate_limit_error" if status == 429 else "invalid_request_error"
    param = error.get("param")
    return UpstreamStatus(status, message, code=code, type=kind, param=param if isinstance(param, str) else None)


def _finish(response: Tree, calls: bool) -> Finish:
    reason = (response.get("incomplete_details") or {}).get("reason")
    if response.get("status") == "incomplete":
        return _INCOMPLETE.get(str(reason), Finish.LENGTH)
    return Finish.TOOL_CALLS if calls else Finish.STOP


def _native(response: Tree) -> str | None:
    reason = (response.get("incomplete_details") or {}).get("reason")
    return reason if isinstance(reason, str) and reason not in _INCOMPLETE else None


def _parts(item: Tree) -> Iterator[Part]:
    kind = item["type"]
    if kind == "reasoning":
        yield from _thought(item)
    elif kind == "function_call":
        yield ToolCall(item["call_id"], item["name"], item.get("arguments") or "")
    elif kind == "message":
        for part in item.get("content") or ():
            if part["type"] == "output_text" and part["text"]:
                yield Text(part["text"])
            elif part["type"] == "refusal":
                yield Refusal(part["refusal"])


def _thought(item: Tree) -> Iterator[Part]:
    text, sealed = _text_of(item), item.get("encrypted_content")
    if sealed and not text:
        yield RedactedThinking(sealed, format=RESPONSES_FORMAT)
    elif text:
        yield Thinking(text, sealed, format=RESPONSES_FORMAT if sealed else None)


def _text_of(item: Tree) -> str:
    """What can be read of a thought: its summary, or (open models) itself."""
    return _PARAGRAPH.join(piece["text"] for piece in [*(item.get("summary") or ()), *(item.get("content") or ())])


def _logprobs_of(item: Tree) -> Iterator[Any]:
    if item["type"] == "message":
        for part in item.get("content") or ():
            yield from part.get("logprobs") or ()


def usage_of(usage: Any) -> Usage | None:
    """Usage as the Responses API writes it."""
    if not isinstance(usage, dict):
        return None
    return Usage(
        prompt=_count(usage, "input_tokens"),
        completion=_count(usage, "output_tokens"),
        cached=_count(usage.get("input_tokens_details"), "cached_tokens"),
        reasoning=_count(usage.get("output_tokens_details"), "reasoning_tokens"),
    )


def _count(counts: Any, key: str) -> int:
    value = counts.get(key) if isinstance(counts, dict) else None
    return value if isinstance(value, int) else 0


# --- streams ---------------------------------------------------------------------------------------------------------


class _Item:
    """An item that has begun: its number among those of its kind, and whether any of its content has been told."""

    __slots__ = ("number", "told")

    def __init__(self, number: int) -> None:
        self.number = number
        self.told = False


class Reader:
    """Reads the events of one response. What a server tells only when an item is done is told then."""

    __slots__ = ("_calls", "_items", "_splitter", "_started", "_stopped", "_thoughts")

    def __init__(self) -> None:
        self._splitter = FrameSplitter()
        self._items: dict[int, _Item] = {}
        self._calls = 0
        self._thoughts = 0
        self._started = False
        self._stopped = False

    def read(self, payload: bytes) -> Iterator[Event]:
        """What happened, event by event. Raises UpstreamStatus for an error, UpstreamInvalid for garbage."""
        for frame in self._splitter.feed(payload):
            data = data_of(frame)
            if data is None or data == b"[DONE]":
                continue
            try:
                events = list(self._take(orjson.loads(data), data))
            except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
                raise UpstreamInvalid("The provider's stream is not one of the Responses API.") from None
            yield from events

    def end(self) -> Iterator[Event]:
        """Nothing is left to tell. Raises UpstreamInvalid where the last event did not come."""
        if not self._stopped:
            raise UpstreamInvalid("The provider's stream ended before its answer did.")
        return iter(())

    def _take(self, event: Tree, data: bytes) -> Iterator[Event]:
        kind = event["type"]
        if kind == "error" or kind == "response.failed":
            response = event.get("response") or {}
            raise _error(response.get("error") or event.get("error") or event, data)
        if kind == "keepalive":
            yield Ping()
        elif kind in _BEGINS:
            yield from self._start(event["response"])
        elif kind in _ENDS:
            yield from self._start(event["response"])
            yield self._stop(event["response"])
        elif (read := _READ.get(kind)) is not None:
            yield from read(self, event)

    def _start(self, response: Tree) -> Iterator[Event]:
        if not self._started:
            self._started = True
            yield Start(_id(response), str(response.get("model") or ""), usage_of(response.get("usage")))

    def _stop(self, response: Tree) -> Stop:
        self._stopped = True
        return Stop(_finish(response, self._calls > 0), _native(response), usage_of(response.get("usage")))

    def _item(self, event: Tree) -> _Item:
        """The item that an event is about; a thought that nobody announced begins here."""
        place = event["output_index"]
        item = self._items.get(place)
        if item is None:
            item = self._items[place] = _Item(self._thoughts)
            self._thoughts += 1
        return item

    def _added(self, event: Tree) -> Iterator[Event]:
        item, place = event["item"], event["output_index"]
        if item["type"] == "function_call":
            self._items[place] = _Item(self._calls)
            yield CallStart(self._calls, item["call_id"], item["name"])
            self._calls += 1
        elif item["type"] == "reasoning":
            self._items[place] = _Item(self._thoughts)
            self._thoughts += 1
        else:
            self._items[place] = _Item(0)

    def _text(self, event: Tree) -> Iterator[Event]:
        self._item(event).told = True
        chances: Logprobs | None = event.get("logprobs") or None
        if event["delta"]:
            yield TextDelta(event["delta"], chances)

    def _refusal(self, event: Tree) -> Iterator[Event]:
        self._item(event).told = True
        yield RefusalDelta(event["delta"])

    def _thinking(self, event: Tree) -> Iterator[Event]:
        item = self._item(event)
        item.told = True
        yield ThinkingDelta(item.number, event["delta"])

    def _part_added(self, event: Tree) -> Iterator[Event]:
        """A summary may have several parts: paragraphs."""
        item = self._item(event)
        if item.told:
            yield ThinkingDelta(item.number, _PARAGRAPH)

    def _arguments(self, event: Tree) -> Iterator[Event]:
        item = self._item(event)
        item.told = True
        yield CallDelta(item.number, event["delta"])

    def _done(self, event: Tree) -> Iterator[Event]:
        item, open_item = event["item"], self._item(event)
        if item["type"] == "reasoning":
            yield from self._thought_done(item, open_item)
        elif open_item.told:
            return
        elif item["type"] == "function_call" and item.get("arguments"):
            yield CallDelta(open_item.number, item["arguments"])
        else:
            for part in _parts(item):
                if isinstance(part, Text):
                    yield TextDelta(part.text)
                elif isinstance(part, Refusal):
                    yield RefusalDelta(part.text)

    def _thought_done(self, item: Tree, open_item: _Item) -> Iterator[Event]:
        """What was told already is not told again; what encrypts it always comes here."""
        sealed = item.get("encrypted_content") or None
        text = "" if open_item.told else _text_of(item)
        if sealed is not None and not text and not open_item.told:
            yield RedactedBlock(open_item.number, sealed, RESPONSES_FORMAT)
        elif text or sealed is not None:
            yield ThinkingDelta(open_item.number, text, sealed, None if sealed is None else RESPONSES_FORMAT)


_BEGINS: Final = frozenset({"response.created", "response.in_progress", "response.queued"})
_ENDS: Final = frozenset({"response.completed", "response.incomplete"})
_READ: Final[dict[str, Callable[[Reader, Tree], Iterator[Event]]]] = {
    "response.output_item.added": Reader._added,
    "response.output_item.done": Reader._done,
    "response.output_text.delta": Reader._text,
    "response.refusal.delta": Reader._refusal,
    "response.reasoning_summary_text.delta": Reader._thinking,
    "response.reasoning_text.delta": Reader._thinking,
    "response.reasoning_summary_part.added": Reader._part_added,
    "response.function_call_arguments.delta": Reader._arguments,
}
