"""Places in a JSON body, written as `messages[2].content[0].text`, and the texts that stand there.

A key that is not an identifier is written `["a.b"]`. The same notation serves policies (where a text stands), redaction
(where to put the text that takes its place) and notes (what could not be expressed).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import orjson

from gateway.types import TextPart

_STEP = re.compile(r'\.?([A-Za-z_]\w*)|\[(\d+)\]|\[("(?:[^"\\]|\\.)*")\]')
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*\Z", re.ASCII)

NOT_TEXT = frozenset(
    {"type", "$ref", "$schema", "format", "id", "role", "cache_control", "media_type", "mime_type", "detail", "status"}
)
"""Keys whose string is a marker of the format, as long as it looks like one (`_MARKER`)."""

_MARKER = re.compile(r"[^\s]{0,64}\Z")


def join(path: str, key: str) -> str:
    """The path of member `key` of the object at `path`."""
    if not _IDENTIFIER.match(key):
        return f"{path}[{orjson.dumps(key).decode()}]"
    return f"{path}.{key}" if path else key


def steps(path: str) -> list[str | int]:
    """The keys and indices that lead to a place."""
    return [key or (int(index) if index else orjson.loads(quoted)) for key, index, quoted in _STEP.findall(path)]


def put(tree: Any, path: str, text: str) -> None:
    """Set the value at `path`. Raises KeyError or IndexError where there is none."""
    *way, last = steps(path)
    for step in way:
        tree = tree[step]
    tree[last] = text


def replace_texts(body: bytes, parts: Sequence[TextPart], replacements: Mapping[int, str]) -> bytes:
    """A JSON body with other texts in the places of some of its parts; `replacements` goes by index. A part without a
    path is the whole of a body that is plain text."""
    if len(parts) == 1 and not parts[0].path:
        return replacements[0].encode()
    tree = orjson.loads(body)
    for index, text in replacements.items():
        put(tree, parts[index].path, text)
    return orjson.dumps(tree)


def texts(value: Any, path: str, role: str, kind: str, skip: Collection[str] = NOT_TEXT) -> Iterator[TextPart]:
    """Every non-empty string within `value`, whatever its shape; the strings of the keys in `skip` are left out."""
    if isinstance(value, str):
        if value:
            yield TextPart(value, role, kind, path)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from texts(item, f"{path}[{index}]", role, kind, skip)
    elif isinstance(value, dict):
        for key, item in value.items():
            if not (key in skip and isinstance(item, str) and _MARKER.match(item)):
                yield from texts(item, join(path, key), role, kind, skip)
