from __future__ import annotations

from typing import Any

import pytest

from translators.schema_sample import sample


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({}, "mock value"),
        (None, None),
        ({"const": 5}, 5),
        ({"enum": ["b", "c"]}, "b"),
        ({"type": ["null", "integer"]}, 1),
        ({"type": "integer", "minimum": 2.5}, 3),
        ({"type": "integer", "exclusiveMinimum": 7}, 8),
        ({"type": "number", "maximum": -2}, -2),
        ({"type": "number", "exclusiveMaximum": 1}, 0),
        ({"type": "integer", "minimum": 10, "multipleOf": 4}, 12),
        ({"type": "boolean"}, True),
        ({"type": "null"}, None),
        ({"type": "string", "minLength": 12}, "mock value.."),
        ({"type": "string", "maxLength": 3}, "moc"),
        ({"type": "string", "format": "date"}, "2024-01-01"),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, [1, 1]),
        ({"type": "array", "items": {"type": "integer"}, "maxItems": 0}, []),
        ({"prefixItems": [{"const": 1}, {"const": 2}], "type": "array"}, [1, 2]),
        ({"anyOf": [{"type": "null"}, {"type": "integer"}]}, 1),
        ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"const": 1}}}, 1),
        ({"properties": {"x": {"type": "integer"}}}, {"x": 1}),
        (
            {
                "allOf": [{"$ref": "#/$defs/a"}, {"properties": {"y": {"const": 2}}}],
                "$defs": {"a": {"type": "object", "properties": {"x": {"const": 1}}}},
            },
            {"x": 1, "y": 2},
        ),
    ],
)
def test_sample(schema: Any, value: Any) -> None:
    assert sample(schema) == value


def test_a_recursive_schema_ends() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/n"}, "all": {"items": {"$ref": "#/$defs/n"}}}}
    assert "next" in sample({"$ref": "#/$defs/n", "$defs": {"n": node}})


def test_a_circle_of_references_ends() -> None:
    assert sample({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}) == "mock value"
