"""A value that satisfies a JSON Schema, always the same one: what the mock provider answers where a shape is asked for.

It knows what OpenAI's structured outputs and tool parameters use (types, properties, items, enum, const, anyOf, allOf,
$ref, bounds and a few formats); a schema with more than that gets a value that may miss the rest. It is no validator.
"""

from __future__ import annotations

import math
from typing import Any, Final

MAX_DEPTH: Final = 24
MAX_ITEMS: Final = 100

_FORMATS: Final = {
    "date-time": "2024-01-01T00:00:00Z",
    "date": "2024-01-01",
    "time": "00:00:00Z",
    "duration": "P1D",
    "email": "user@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def sample(schema: Any) -> Any:
    """The sample of a whole schema."""
    return _sample(schema, schema if isinstance(schema, dict) else {}, "value", 0)


def _sample(schema: Any, root: dict[str, Any], name: str, depth: int) -> Any:
    if not isinstance(schema, dict) or depth > MAX_DEPTH:
        return None
    schema = _resolve(schema, root)
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    for key in ("enum", "examples"):
        if isinstance(schema.get(key), list) and schema[key]:
            return schema[key][0]
    for key in ("anyOf", "oneOf"):
        if isinstance(schema.get(key), list) and schema[key]:
            return _sample(_plainest(schema[key], root, depth), root, name, depth + 1)
    return _of_type(schema, root, name, depth)


def _resolve(schema: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    """Follow `$ref` within the document and merge `allOf`; a circle of bare references ends in the empty schema."""
    for _ in range(MAX_DEPTH):
        ref = schema.get("$ref")
        if not isinstance(ref, str):
            break
        siblings = {key: value for key, value in schema.items() if key != "$ref"}
        schema = {**_find(ref, root), **siblings}
    else:
        return {}
    parts = schema.get("allOf")
    if not isinstance(parts, list):
        return schema
    merged = {key: value for key, value in schema.items() if key != "allOf"}
    for part in parts:
        if isinstance(part, dict):
            part = {**_find(part["$ref"], root), **part} if "$ref" in part else part
            properties = {**merged.get("properties", {}), **part.get("properties", {})}
            required = [*merged.get("required", []), *part.get("required", [])]
            merged = {**part, **merged, "properties": properties, "required": required}
    return merged


def _find(ref: Any, root: dict[str, Any]) -> dict[str, Any]:
    """The part of the document that a JSON pointer names (RFC 6901)."""
    node: Any = root
    for step in str(ref).removeprefix("#").split("/")[1:]:
        node = node.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(node, dict) else None
    return node if isinstance(node, dict) else {}


def _plainest(options: list[Any], root: dict[str, Any], depth: int) -> Any:
    """The first option that is not null, and near the bottom one that does not go deeper."""
    kinds = [option for option in options if isinstance(option, dict) and option.get("type") != "null"]
    if depth > MAX_DEPTH // 2:
        kinds = [o for o in options if isinstance(o, dict) and "$ref" not in o and o.get("type") != "object"] or kinds
    return kinds[0] if kinds else options[0]


def _of_type(schema: dict[str, Any], root: dict[str, Any], name: str, depth: int) -> Any:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((option for option in kind if option != "null"), "null")
    if kind is None:
        kind = "object" if "properties" in schema else "array" if "items" in schema else "string"
    if kind == "object":
        return _object(schema, root, depth)
    if kind == "array":
        return _array(schema, root, name, depth)
    if kind in ("integer", "number"):
        return _number(schema, kind == "integer")
    if kind == "boolean":
        return True
    return None if kind == "null" else _string(schema, name)


def _object(schema: dict[str, Any], root: dict[str, Any], depth: int) -> dict[str, Any]:
    """All properties; near the bottom of a recursive schema only the required ones."""
    properties = schema.get("properties")
    required = schema.get("required") or ()
    return {
        name: _sample(value, root, name, depth + 1)
        for name, value in (properties if isinstance(properties, dict) else {}).items()
        if depth < MAX_DEPTH // 2 or name in required
    }


def _array(schema: dict[str, Any], root: dict[str, Any], name: str, depth: int) -> list[Any]:
    prefix = schema.get("prefixItems")
    if isinstance(prefix, list):
        return [_sample(item, root, name, depth + 1) for item in prefix]
    least = schema.get("minItems")
    count = (
        least if isinstance(least, int) and least > 0 else int(depth < MAX_DEPTH // 2 and schema.get("maxItems") != 0)
    )
    return [_sample(schema.get("items"), root, name, depth + 1) for _ in range(min(count, MAX_ITEMS))]


def _number(schema: dict[str, Any], whole: bool) -> float | int:
    """1, or the nearest number within the bounds."""
    low, above = _bound(schema, "minimum", -math.inf), _bound(schema, "exclusiveMinimum", -math.inf)
    high, below = _bound(schema, "maximum", math.inf), _bound(schema, "exclusiveMaximum", math.inf)
    value = min(1.0, high, below - 1)
    value = max(value, math.ceil(low) if whole and math.isfinite(low) else low)
    if value <= above:
        value = math.floor(above) + 1
    step = _bound(schema, "multipleOf", 0)
    if step > 0:
        value = math.ceil(value / step) * step
    return int(value) if whole else value


def _bound(schema: dict[str, Any], key: str, default: float) -> float:
    value = schema.get(key)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else default


def _string(schema: dict[str, Any], name: str) -> str:
    text = _FORMATS.get(str(schema.get("format")), f"mock {name}")
    least, most = schema.get("minLength"), schema.get("maxLength")
    if isinstance(least, int) and len(text) < least:
        text = text.ljust(min(least, 10_000), ".")
    return text[:most] if isinstance(most, int) and most >= 0 else text
