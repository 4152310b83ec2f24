"""The tools that a request declares, whatever the format it declares them in.

OpenAI chat and Responses, functions of old, and Anthropic's messages differ only in where the name and the schema
stand. Tools that the provider itself runs (web search, code) have no schema and are not called by name; they are left
out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson


class Declared(NamedTuple):
    """A tool's name and the JSON Schema of its arguments; None where there is none."""

    name: str
    parameters: bytes | None


def declared(body: bytes) -> list[Declared]:
    """The tools of a request body; none for what is no JSON object."""
    try:
        tree = orjson.loads(body)
    except orjson.JSONDecodeError:
        return []
    return declared_in(tree) if isinstance(tree, dict) else []


def declared_in(tree: dict[str, Any]) -> list[Declared]:
    """The same of a JSON object that was read."""
    return list(_tools(tree))


def _tools(tree: dict[str, Any]) -> Iterator[Declared]:
    for key in ("tools", "functions"):
        found = tree.get(key)
        for entry in found if isinstance(found, list) else ():
            if isinstance(entry, dict):
                yield from _tool(entry)


def _tool(entry: dict[str, Any]) -> Iterator[Declared]:
    inner = next((entry[key] for key in ("function", "custom") if isinstance(entry.get(key), dict)), entry)
    name = inner.get("name")
    if isinstance(name, str):
        schema = inner.get("parameters", inner.get("input_schema"))
        yield Declared(name, orjson.dumps(schema) if isinstance(schema, dict | bool) else None)
