"""The OpenAPI 3.1 description of the API, made from the table of routes and the types of what goes in and out.

https://spec.openapis.org/oas/v3.1.0. Its schemas are JSON Schema 2020-12, which is what msgspec writes.
"""

from __future__ import annotations

import http
import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from gateway.control.identity.roles import GRANTS
from gateway.control.rest import shapes
from gateway.control.rest.call import MAX_PART, PART_PATTERN, Route

REF: Final = "#/components/schemas/{name}"
_PART: Final = re.compile(r"\{(\w+)\}")
_WITH_ETAG: Final = ("configuration", "change_configuration", "roll_back_configuration")
_AS_CSV: Final = ("usage",)
_WANT_VERSION: Final = ("change_configuration", "release_configuration", "roll_back_configuration")


def describe(routes: Sequence[Route], prefix: str = "/api/v1") -> dict[str, Any]:
    """The description of these routes."""
    types = [shapes.ErrorAnswer, *_types(routes)]
    shown, components = msgspec.json.schema_components(types, ref_template=REF)
    schemas = dict(zip(types, shown, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(prefix + route.path, {})[route.method.lower()] = _operation(route, schemas, components)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Keeptrusts gateway",
            "version": "1",
            "description": "Users, teams, gateway keys and configurations of a gateway.",
        },
        "tags": [{"name": tag} for tag in dict.fromkeys(route.tag for route in routes)],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "access_key": {"type": "http", "scheme": "bearer", "description": "`kt_ak_…`"},
                "session": {"type": "apiKey", "in": "cookie", "name": "kt_session"},
            },
        },
    }


def _types(routes: Sequence[Route]) -> list[Any]:
    found = [one for route in routes for one in (route.body, route.query, route.answer) if one is not None]
    return list(dict.fromkeys(found))


def _operation(route: Route, schemas: dict[Any, Any], components: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "tags": [route.tag],
        "parameters": [
            *(_path_parameter(name) for name in _PART.findall(route.path)),
            *([_VERSION] if route.name in _WANT_VERSION else []),
            *(_query_parameters(schemas[route.query], components) if route.query is not None else ()),
        ],
        "responses": _responses(route, schemas),
    }
    if route.description:
        operation["description"] = route.description
    if route.body is not None:
        content = {"application/json": {"schema": schemas[route.body]}}
        operation["requestBody"] = {"required": not route.body_optional, "content": content}
    if route.needs:
        operation["security"] = [{"access_key": []}, {"session": []}]
        operation["x-permissions"] = sorted(route.needs)
        operation["x-roles"] = [role.value for role, granted in GRANTS.items() if granted & route.needs]
    return operation


def _responses(route: Route, schemas: dict[Any, Any]) -> dict[str, Any]:
    good: dict[str, Any] = {"description": http.HTTPStatus(route.status).phrase}
    if route.answer is not None:
        good["content"] = {"application/json": {"schema": schemas[route.answer]}}
    if route.name in _AS_CSV:
        good["content"]["text/csv"] = {"schema": {"type": "string"}}
    if route.name in _WITH_ETAG:
        good["headers"] = {"ETag": {"schema": {"type": "string"}, "description": "For `If-Match`."}}
    errors = {400, 401, 403, 413, 415, 500, 503, *route.errors}
    body = {"application/json": {"schema": schemas[shapes.ErrorAnswer]}}
    return {
        str(route.status): good,
        **{str(status): {"description": http.HTTPStatus(status).phrase, "content": body} for status in sorted(errors)},
    }


def _path_parameter(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": MAX_PART, "pattern": PART_PATTERN}
    if name == "number":
        schema = {"type": "integer", "minimum": 0, "maximum": 999_999_999}
    return {"name": name, "in": "path", "required": True, "schema": schema}


_VERSION: Final = {
    "name": "If-Match",
    "in": "header",
    "required": False,  # without it the answer is 428, which says more than 400 does
    "description": 'The `ETag` of what was changed; `"0"` where a file, or nothing, is in force.',
    "schema": {"type": "string", "pattern": '^"[0-9]{1,9}"$'},
}


def _query_parameters(schema: dict[str, Any], components: dict[str, Any]) -> list[dict[str, Any]]:
    """The fields of a query's type, one by one. A parameter is there or not: none of them is null."""
    struct = components[schema["$ref"].rpartition("/")[2]]
    required = struct.get("required", ())
    return [
        {"name": name, "in": "query", "required": name in required, "schema": _parameter(_not_null(field))}
        for name, field in struct["properties"].items()
    ]


def _parameter(schema: dict[str, Any]) -> dict[str, Any]:
    """Whatever a text of a query is, it has no NUL (`server._query`)."""
    free = schema.get("type") == "string" and "pattern" not in schema and "enum" not in schema
    return {**schema, "pattern": "^[^\\x00]*$"} if free else schema


def _not_null(schema: dict[str, Any]) -> dict[str, Any]:
    kinds = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
    rest = {name: value for name, value in schema.items() if name not in ("anyOf", "default")}
    default = {} if schema.get("default") is None else {"default": schema["default"]}
    if not kinds:
        return {**rest, **default}
    return {**kinds[0], **rest, **default} if len(kinds) == 1 else {"anyOf": kinds, **rest, **default}
