"""Changing the texts of a stream of chat chunks, or of completions chunks, while it flows.

A chunk with nothing but content is read by a typed decode (1 µs); every other shape is walked, so that no text passes
unread, whatever a provider adds. Log probabilities name tokens: where a text changes they are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from gateway.sse import data_of
from translators.editing import Change, Place, nested, strings, tree_of, written


class _Delta(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    content: str = ""
    role: str | None = None
    refusal: None = None
    tool_calls: None = None
    function_call: None = None


class _Choice(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    delta: _Delta
    index: int = 0
    logprobs: None = None
    finish_reason: None = None


class _Chunk(msgspec.Struct, gc=False):
    choices: tuple[_Choice]


_CHUNK: Final = msgspec.json.Decoder(_Chunk)
_KINDS: Final = {
    "refusal": "refusal",
    "tool_calls": "tool_arguments",
    "function_call": "tool_arguments",
    "reasoning": "reasoning",
    "reasoning_content": "reasoning",
    "reasoning_details": "reasoning",
}


class ChatEditor:
    """One stream of `chat.completion.chunk` events."""

    __slots__ = ("_change", "_latest", "_open")

    def __init__(self, change: Change) -> None:
        self._change = change
        self._open: dict[int, dict[str, str]] = {}
        self._latest: dict[str, Any] = {}

    def feed(self, frame: bytes) -> bytes:
        """One chunk, or the end mark."""
        data = data_of(frame)
        if data is None:
            return frame
        if data == b"[DONE]":
            return self.finish() + frame
        try:
            choice = _CHUNK.decode(data).choices[0]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self._walk(tree_of(data), frame)
        delta = choice.delta
        if not delta.content:
            return frame
        place = self._place(choice.index, "content")
        text = self._change.text(place, "message", delta.content)
        if text == delta.content:
            return frame
        tree = tree_of(data)
        self._latest = tree
        tree["choices"][0]["delta"]["content"] = text
        return written(tree, frame)

    def finish(self) -> bytes:
        """Chunks for what was still held back where a stream ends without a finish reason."""
        return b"".join([self._rest(number) for number in list(self._open)])

    def _place(self, number: int, path: str) -> str:
        """The path of a text in the complete answer, which is open from now on."""
        texts = self._open.get(number)
        if texts is None:
            texts = self._open[number] = {}
        place = texts.get(path)
        if place is None:
            place = texts[path] = f"choices[{number}].{self._within(path)}"
        return place

    def _walk(self, tree: dict[str, Any], frame: bytes) -> bytes:
        self._latest = tree
        changed = False
        before = b""
        choices = tree.get("choices")
        for position, choice in enumerate(choices if isinstance(choices, list) else ()):
            if not isinstance(choice, dict):
                continue
            number = choice["index"] if isinstance(choice.get("index"), int) else position
            places = list(self._texts(choice))
            edited = [self._edit(number, place) for place in places]
            if any(edited) and choice.get("logprobs") is not None:
                choice["logprobs"] = None
            changed = any(edited) or changed
            if choice.get("finish_reason"):
                for place in places:
                    rest = self._change.end(self._place(number, place.path))
                    if rest:
                        place.holder[place.key] += rest
                        changed = True
                before += self._rest(number)
        return before + (written(tree, frame) if changed else frame)

    def _edit(self, number: int, place: Place) -> bool:
        old = place.text
        kind = self._kind(place.path)
        new = self._change.text(self._place(number, place.path), kind, old)
        place.holder[place.key] = new
        return new != old

    def _rest(self, number: int) -> bytes:
        """A choice is over: chunks for what was held back of its texts."""
        chunks = []
        for path, place in self._open.pop(number, {}).items():
            if rest := self._change.end(place):
                choice = {"index": number, **self._piece(path, rest), "finish_reason": None}
                chunk = {key: value for key, value in self._latest.items() if key != "usage"}
                chunks.append(written({**chunk, "choices": [choice]}, b"data: \n\n"))
        return b"".join(chunks)

    # What differs between chat and completions.

    def _texts(self, choice: dict[str, Any]) -> Iterator[Place]:
        delta = choice.get("delta")
        for key in list(delta) if isinstance(delta, dict) else ():
            if key != "role":
                yield from strings(delta, key, key)

    def _within(self, path: str) -> str:
        return f"message.{path}"

    def _kind(self, path: str) -> str:
        return _KINDS.get(path.partition("[")[0].partition(".")[0], "message")

    def _piece(self, path: str, text: str) -> dict[str, Any]:
        return {"delta": nested(path, text)}


class CompletionsEditor(ChatEditor):
    """One stream of `text_completion` events."""

    __slots__ = ()

    def _texts(self, choice: dict[str, Any]) -> Iterator[Place]:
        if "text" in choice:
            yield from strings(choice, "text", "text")

    def _within(self, path: str) -> str:
        return path

    def _kind(self, path: str) -> str:
        return "message"

    def _piece(self, path: str, text: str) -> dict[str, Any]:
        return {path: text, "logprobs": None}
