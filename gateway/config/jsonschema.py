"""The JSON Schema (2020-12) of `policy-config.yaml`, made from the structs that the loader reads.

Editors check and complete with it. It says all that a JSON Schema can: what joins two places of a file (a target's id
used twice, a policy that looks over its own settings) is the loader's alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from gateway.config.registry import Registry, installed
from gateway.config.schema import CHOICES, KINDS, SETTINGS_OF, UNIQUE_BY, Configuration

_TEMPLATE: Final = "#/$defs/{name}"
_OWN_KEYWORDS: Final = (CHOICES, SETTINGS_OF, UNIQUE_BY)


def json_schema(registry: Registry | None = None) -> dict[str, Any]:
    """The schema, as a value that `json.dumps` takes."""
    registry = registry or installed()
    kinds = sorted(registry.policies)
    types = [Configuration, *(registry.policies[kind].Settings for kind in kinds)]
    (root, *settings), definitions = msgspec.json.schema_components(types, ref_template=_TEMPLATE)
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "policy-config.yaml",
        "description": "A configuration of the gateway: targets, policy chain, server.",
        **root,
        "$defs": definitions,
    }
    closed: dict[str, Any] = _closed(schema, registry, dict(zip(kinds, settings, strict=True)))
    return closed


def render(registry: Registry | None = None) -> str:
    """The schema as the text of a file."""
    return json.dumps(json_schema(registry), indent=2, ensure_ascii=False) + "\n"


def _closed(node: Any, registry: Registry, settings: Mapping[str, Any]) -> Any:
    """`node` with the gateway's own keywords turned into standard ones, and no object open to unknown keys."""
    if isinstance(node, list):
        return [_closed(item, registry, settings) for item in node]
    if not isinstance(node, dict):
        return node
    closed = {key: _closed(value, registry, settings) for key, value in node.items() if key not in _OWN_KEYWORDS}
    if "$ref" in node:
        # A section's default is that of its members, and stands with each of them.
        closed.pop("default", None)
    if CHOICES in node:
        closed["enum"] = sorted(registry.names(node[CHOICES]))
    if node.get(SETTINGS_OF) == KINDS:
        closed["properties"] = dict(settings)
        closed["additionalProperties"] = False
    elif "properties" in node and node.get("type") == "object":
        closed["additionalProperties"] = False
    return closed
