"""JSON Schema for tool calls: arguments as a model wrote them, held against the schema that was declared.

The validator is `jsonschema-rs`. Schemas come from clients, so it is told to fetch nothing (`$ref` to an address is an
error) and to match patterns in linear time. A fault is told as the place in the schema that was not met, never with a
value of the arguments.
"""

from __future__ import annotations

import functools
import json
from typing import Any

MAX_SCHEMA_BYTES = 256 * 1024
"""A larger schema is not compiled."""


class BadSchema(ValueError):
    """The schema itself cannot be used."""


class BadJSON(ValueError):
    """The arguments are not JSON, or are JSON that can be read in two ways."""


def parse(arguments: str) -> Any:
    """The value of some arguments; nothing at all stands for an empty object. Raises BadJSON.

    A key that occurs twice is refused: which of the two counts differs by reader (RFC 8259, section 4).
    """
    if not arguments.strip():
        return {}
    try:
        return json.loads(arguments, object_pairs_hook=_once, parse_constant=_no_constant)
    except RecursionError:
        raise BadJSON("nested too deeply") from None
    except json.JSONDecodeError:
        raise BadJSON("not JSON") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise BadJSON("a key occurs twice")
    return found


def _no_constant(name: str) -> Any:
    raise BadJSON("not JSON")


def fault(schema: bytes, value: Any) -> str:
    """The place in the schema that a value does not meet, as a JSON pointer; empty if it meets all.

    Raises BadSchema.
    """
    error = next(_validator(schema).iter_errors(value), None)
    return "" if error is None else "/" + "/".join(map(str, error.schema_path))


def check_schema(schema: bytes) -> None:
    """Raises BadSchema for a schema that cannot be used."""
    _validator(schema)


@functools.lru_cache(maxsize=512)
def _validator(schema: bytes) -> Any:
    if len(schema) > MAX_SCHEMA_BYTES:
        raise BadSchema(f"larger than {MAX_SCHEMA_BYTES} bytes")
    import jsonschema_rs  # 5 MB, and most chains look at no tool

    try:
        return jsonschema_rs.validator_for(
            json.loads(schema), offline=True, validate_formats=False, pattern_options=jsonschema_rs.RegexOptions()
        )
    except (ValueError, RecursionError, jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as error:
        raise BadSchema("not a JSON Schema that can be used without fetching anything") from error
