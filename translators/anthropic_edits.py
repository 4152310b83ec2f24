"""Changing the texts of a stream of Messages events while it flows.

Text, thinking and the JSON of a tool's input come in deltas of their block; what a block's start or a citation brings
is whole. A signature holds only for the thinking that it was made for: where that changes, a provider will refuse it.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import orjson

from gateway.sse import data_of, frame_of
from translators.editing import Change, strings, tree_of, written

_DELTAS: Final = {
    "text_delta": ("text", "text", "message"),
    "thinking_delta": ("thinking", "thinking", "reasoning"),
    "input_json_delta": ("partial_json", "input", "tool_arguments"),
}
"""The delta's own field, the block's field, the kind."""
_OF_FIELD: Final = {field: (kind, key) for kind, (key, field, _) in _DELTAS.items()}
_STARTS: Final = {"text": "message", "thinking": "reasoning"}
_OPAQUE: Final = frozenset({"citation", "content", "input"})


class _Delta(msgspec.Struct, gc=False):
    type: str = ""
    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None


class _Event(msgspec.Struct, gc=False):
    type: str = ""
    index: int = 0
    delta: _Delta | None = None


_EVENT: Final = msgspec.json.Decoder(_Event)


class MessagesEditor:
    """One stream of events of `/v1/messages`."""

    __slots__ = ("_change", "_open")

    def __init__(self, change: Change) -> None:
        self._change = change
        self._open: dict[int, dict[str, str]] = {}

    def feed(self, frame: bytes) -> bytes:
        """One event."""
        data = data_of(frame)
        if data is None:
            return frame
        try:
            event = _EVENT.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self._whole(tree_of(data), frame)
        if event.type == "content_block_delta" and event.delta is not None and event.delta.type in _DELTAS:
            return self._delta(event.index, event.delta, data, frame)
        if event.type == "content_block_stop":
            return self._rest(event.index) + frame
        if event.type in ("message_delta", "message_stop"):
            return self.finish() + frame
        if event.type in ("content_block_start", "content_block_delta"):
            return self._whole(tree_of(data), frame)
        return frame

    def finish(self) -> bytes:
        """Deltas for what was still held back of blocks that never ended."""
        return b"".join([self._rest(number) for number in list(self._open)])

    def _place(self, number: int, field: str) -> str:
        fields = self._open.setdefault(number, {})
        place = fields.get(field)
        if place is None:
            place = fields[field] = f"content[{number}].{field}"
        return place

    def _delta(self, number: int, delta: _Delta, data: bytes, frame: bytes) -> bytes:
        key, field, kind = _DELTAS[delta.type]
        old = getattr(delta, key) or ""
        new = self._change.text(self._place(number, field), kind, old)
        if new == old:
            return frame
        tree = tree_of(data)
        tree["delta"][key] = new
        return written(tree, frame)

    def _whole(self, tree: dict[str, Any], frame: bytes) -> bytes:
        """A block's start may bring the beginning of its text or all of a tool's result; a citation brings a quote."""
        number = tree["index"] if isinstance(tree.get("index"), int) else 0
        block = tree.get("content_block")
        holder = block if isinstance(block, dict) else tree.get("delta")
        if not isinstance(holder, dict):
            return frame
        changed = False
        for key in list(holder):
            value = holder[key]
            if key in _STARTS and isinstance(value, str) and value:
                holder[key] = self._change.text(self._place(number, key), _STARTS[key], value)
                changed = changed or holder[key] != value
            elif key in _OPAQUE:
                for place in list(strings(holder, key, key)):
                    old, path = place.text, f"content[{number}].{place.path}"
                    kind = "tool_arguments" if key == "input" else "message"
                    place.holder[place.key] = self._change.text(path, kind, old) + self._change.end(path)
                    changed = changed or place.text != old
        return written(tree, frame) if changed else frame

    def _rest(self, number: int) -> bytes:
        frames = []
        for field, place in self._open.pop(number, {}).items():
            if rest := self._change.end(place):
                kind, key = _OF_FIELD[field]
                delta = {"type": "content_block_delta", "index": number, "delta": {"type": kind, key: rest}}
                frames.append(frame_of(orjson.dumps(delta), b"content_block_delta"))
        return b"".join(frames)
