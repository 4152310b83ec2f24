"""The seam for changing the texts of a stream while it flows.

An *editor* reads the frames of one dialect, in the form in which the client gets them, and asks a `Change` what becomes
of each piece of text. A frame whose texts stay as they are is passed on as the very object it was; only others are
written anew. What a change holds back comes out with a later piece, or in a frame of its own before the text's end.
What a change is (a guard, placeholders that become values) the dialects do not know.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import orjson

from gateway.errors import UpstreamInvalid
from gateway.sse import event_of, frame_of
from translators import paths


class Change(Protocol):
    """What becomes of texts. `path` is where a text will stand in the complete answer, and tells texts apart."""

    def text(self, path: str, kind: str, text: str) -> str:
        """More of a text; what of it goes on now. Raises GatewayError to end the stream."""
        ...

    def end(self, path: str) -> str:
        """A text is over, or there is no such: what of it was held back. Raises GatewayError."""
        ...


class Editor(Protocol):
    """One stream on its way."""

    def feed(self, frame: bytes) -> bytes:
        """Take in one complete frame and return the frames that go on, possibly none."""
        ...

    def finish(self) -> bytes:
        """The stream is over: frames for what was still held back."""
        ...


class Place(NamedTuple):
    """One string within a tree: it is `holder[key]`. `path` counts from where the search began."""

    holder: Any
    key: Any
    path: str

    @property
    def text(self) -> str:
        return str(self.holder[self.key])


NOT_TEXT = frozenset(
    {"type", "role", "id", "name", "index", "format", "signature", "status", "call_id", "data", "phase"}
)
"""Markers of a format, and bytes in disguise."""


def strings(holder: Any, key: Any, path: str) -> Iterator[Place]:
    """Every non-empty string at `holder[key]` and below. Items that say their index are counted by it."""
    value = holder[key]
    if isinstance(value, str):
        if value:
            yield Place(holder, key, path)
    elif isinstance(value, list):
        for position, item in enumerate(value):
            index = item.get("index", position) if isinstance(item, dict) else position
            yield from strings(value, position, f"{path}[{index}]")
    elif isinstance(value, dict):
        for name in list(value):
            if name not in NOT_TEXT:
                yield from strings(value, name, paths.join(path, name))


def tree_of(data: bytes) -> dict[str, Any]:
    """The event's JSON. What cannot be read cannot be judged: raises UpstreamInvalid."""
    try:
        tree = orjson.loads(data)
    except orjson.JSONDecodeError:
        tree = _leniently(data)
    return tree if isinstance(tree, dict) else {}


def _leniently(data: bytes) -> Any:
    """With lone surrogates: some providers cut a character's two halves apart, which orjson refuses."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise UpstreamInvalid("The provider sent an event that is not JSON, so that policies cannot read it.") from None


def written(tree: Any, frame: bytes) -> bytes:
    """A frame of another content, under the same name of event."""
    try:
        data = orjson.dumps(tree)
    except TypeError:  # lone surrogates
        data = json.dumps(tree, separators=(",", ":")).encode()
    return frame_of(data, event_of(frame))


def nested(path: str, text: str) -> dict[str, Any]:
    """The smallest object that has a text at a path; items of lists say their index."""
    value: Any = text
    for step in reversed(paths.steps(path)):
        if isinstance(step, str):
            value = {step: value}
        else:
            value = [{"index": step, **value} if isinstance(value, dict) else value]
    assert isinstance(value, dict)
    return value
