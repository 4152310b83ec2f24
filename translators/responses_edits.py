"""Changing the texts of a stream of Responses events while it flows.

A text comes in deltas, and then again whole in `….done`, in its part, in its item and in the response at the end: all
of them must say what the client has been told. What never came as deltas is judged where it first appears. Frames that
the editor adds take a number in the sequence, so those after it move up.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Final

import msgspec
import orjson

from gateway.sse import data_of, frame_of
from translators.editing import Change, Place, strings, tree_of, written

_KNOWN: Final = {
    "output_text": ("message", "content[{content}].text"),
    "refusal": ("refusal", "content[{content}].refusal"),
    "reasoning_text": ("reasoning", "content[{content}].text"),
    "reasoning_summary_text": ("reasoning", "summary[{summary}].text"),
    "function_call_arguments": ("tool_arguments", "arguments"),
    "custom_tool_call_input": ("tool_arguments", "input"),
    "mcp_call_arguments": ("tool_arguments", "arguments"),
    "code_interpreter_call_code": ("tool_arguments", "code"),
}
"""What comes as `response.<name>.delta`: its kind, and where it stands in its item."""
_WHOLE: Final = ("text", "refusal", "arguments", "input", "code")
_ITEM_KINDS: Final = {"reasoning": "reasoning", "function_call": "tool_arguments", "custom_tool_call": "tool_arguments"}
_ITEM_TEXTS: Final = ("content", "summary", "arguments", "input", "code", "output", "action", "results", "queries")


class _Event(msgspec.Struct, gc=False):
    type: str = ""
    output_index: int = 0
    content_index: int = 0
    summary_index: int = 0
    delta: str = ""


_EVENT: Final = msgspec.json.Decoder(_Event)


class _Text:
    """One text as it came, and as it went on."""

    __slots__ = ("came", "template", "went")

    def __init__(self, template: dict[str, Any]) -> None:
        self.came: list[str] = []
        self.went: list[str] = []
        self.template = template


class ResponsesEditor:
    """One stream of events of `/v1/responses`."""

    __slots__ = ("_change", "_open", "_over", "_shift")
    known: ClassVar[Mapping[str, tuple[str, str]]] = _KNOWN
    whole: ClassVar[tuple[str, ...]] = _WHOLE

    def __init__(self, change: Change) -> None:
        self._change = change
        self._open: dict[str, _Text] = {}
        self._over: dict[str, tuple[str, str]] = {}
        self._shift = 0

    def feed(self, frame: bytes) -> bytes:
        """One event."""
        data = data_of(frame)
        if data is None or data == b"[DONE]":
            return frame
        try:
            event = _EVENT.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self._repeated(tree_of(data), frame)
        name = event.type.removeprefix("response.")
        if name.endswith(".delta") and event.delta:
            return self._delta(name.removesuffix(".delta"), event, data, frame)
        if self._repeats(name):
            return self._repeated(tree_of(data), frame)
        return self._numbered(data, frame)

    def _repeats(self, name: str) -> bool:
        """Whether an event has texts whole, that came already or not."""
        return name.endswith((".done", ".added")) or name in _ENDS

    def finish(self) -> bytes:
        """Deltas for what was still held back of texts that never ended."""
        frames: list[bytes] = []
        for path in list(self._open):
            self._end(path, frames)
        return b"".join(frames)

    def _numbered(self, data: bytes, frame: bytes) -> bytes:
        if not self._shift:
            return frame
        return self._write(tree_of(data), frame)

    def _write(self, tree: dict[str, Any], frame: bytes) -> bytes:
        if self._shift and isinstance(tree.get("sequence_number"), int):
            tree["sequence_number"] += self._shift
        return written(tree, frame)

    def _delta(self, name: str, event: _Event, data: bytes, frame: bytes) -> bytes:
        kind, field = self.known.get(name, ("message", name))
        path = _path(event.output_index, field, event.content_index, event.summary_index)
        text = self._open.get(path)
        if text is None:
            text = self._open[path] = _Text(tree_of(data))
        new = self._change.text(path, kind, event.delta)
        text.came.append(event.delta)
        text.went.append(new)
        if new == event.delta:
            return self._numbered(data, frame)
        tree = tree_of(data)
        tree["delta"] = new
        if tree.get("logprobs"):
            tree["logprobs"] = []
        return self._write(tree, frame)

    def _end(self, path: str, frames: list[bytes], sequence: int | None = None) -> None:
        """A text is over: a delta for what was held back of it."""
        text = self._open.pop(path)
        if rest := self._change.end(path):
            delta = {**text.template, "delta": rest}
            if "logprobs" in delta:
                delta["logprobs"] = []
            if sequence is not None:
                delta["sequence_number"] = sequence + self._shift
            self._shift += 1
            text.went.append(rest)
            frames.append(frame_of(orjson.dumps(delta), str(delta["type"]).encode()))
        self._over[path] = "".join(text.came), "".join(text.went)

    def _repeated(self, tree: dict[str, Any], frame: bytes) -> bytes:
        """An event that has texts whole."""
        frames: list[bytes] = []
        sequence = tree.get("sequence_number")
        number = tree["output_index"] if isinstance(tree.get("output_index"), int) else 0
        changed = bool(self._shift)
        for place, path, kind in self._places(tree, number):
            if path in self._open:
                self._end(path, frames, sequence if isinstance(sequence, int) else None)
            old = place.text
            place.holder[place.key] = self._final(path, kind, old)
            if place.text != old:
                changed = True
                for holder in (place.holder, tree):
                    if isinstance(holder, dict) and holder.get("logprobs"):
                        holder["logprobs"] = []
        if frames or changed:
            return b"".join([*frames, self._write(tree, frame)])
        return frame

    def _final(self, path: str, kind: str, text: str) -> str:
        came, went = self._over.get(path, (None, ""))
        if came == text:
            return went
        again = f"{path}~" if came is not None else path
        new = self._change.text(again, kind, text) + self._change.end(again)
        self._over[path] = text, new
        return new

    def _places(self, tree: dict[str, Any], number: int) -> list[tuple[Place, str, str]]:
        """Every text of an event, with its path in the complete answer."""
        response = tree.get("response")
        if isinstance(response, dict) and isinstance(response.get("output"), list):
            return [
                place
                for index in range(len(response["output"]))
                for place in _item_texts(response["output"], index, index)
            ]
        if isinstance(tree.get("item"), dict):
            return _item_texts(tree, "item", number)
        content, summary = tree.get("content_index", 0), tree.get("summary_index")
        if isinstance(tree.get("annotation"), dict):
            where = f"output[{number}].content[{content}].annotations[{tree.get('annotation_index', 0)}]"
            return [(place, where + place.path, "message") for place in strings(tree, "annotation", "")]
        where = f"content[{content}]" if summary is None else f"summary[{summary}]"
        if isinstance(tree.get("part"), dict):
            kind = "message" if summary is None else "reasoning"
            texts = _strings_of(tree, "part", self.whole)
            return [(place, f"output[{number}].{where}{place.path}", kind) for place in texts]
        name = str(tree.get("type")).removeprefix("response.").removesuffix(".done")
        kind, field = self.known.get(name, ("message", ""))
        path = _path(number, field, content, summary or 0)
        return [
            (Place(tree, key, path), path, kind) for key in self.whole if isinstance(tree.get(key), str) and tree[key]
        ]


_ENDS: Final = frozenset({"completed", "incomplete", "failed"})


def _path(output: int, field: str, content: int, summary: int) -> str:
    return f"output[{output}].{field.format(content=content, summary=summary)}"


def _item_texts(holder: Any, key: Any, number: int) -> list[tuple[Place, str, str]]:
    item = holder[key]
    if not isinstance(item, dict):
        return []
    kind = _ITEM_KINDS.get(str(item.get("type")), "message")
    return [
        (place, f"output[{number}].{place.path}", kind)
        for field in _ITEM_TEXTS
        if field in item
        for place in strings(item, field, field)
        if ".logprobs[" not in place.path
    ]


def _strings_of(holder: Any, key: Any, names: Collection[str]) -> list[Place]:
    return [
        place._replace(path=f".{place.path}")
        for name in list(holder[key])
        if name in names
        for place in strings(holder[key], name, name)
    ]
