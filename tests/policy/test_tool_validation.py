"""tool-validation: settings that cannot be used, and hostile schemas and arguments; its cases stand in YAML."""

from __future__ import annotations

import msgspec
import pytest

from policy.schemas import BadJSON, BadSchema, fault, parse
from policy.tool_validation import ToolValidation, ToolValidationSettings


@pytest.mark.parametrize(
    "schema", ["{", "[]", '{"type": "odd"}', '{"$ref": "https://x.test/"}', '{"pattern": "(?=a)b"}']
)
def test_schemas_that_cannot_be_used(schema: str) -> None:
    settings = msgspec.convert({"schemas": {"pay": schema}}, ToolValidationSettings)
    assert [problem.path for problem in ToolValidation.check(settings)] == ["schemas.pay"]


def test_schemas_may_refer_to_themselves() -> None:
    schema = b'{"type": "object", "properties": {"next": {"$ref": "#"}}, "additionalProperties": false}'
    assert fault(schema, parse('{"next": {"next": {}}}')) == ""
    assert fault(schema, parse('{"next": {"other": 1}}'))


def test_a_fault_never_tells_a_value() -> None:
    schema = b'{"properties": {"card": {"maxLength": 3}}, "required": ["card"]}'
    assert fault(schema, {"card": "4111 1111"}) == "/properties/card/maxLength"
    assert fault(b'{"enum": ["a"]}', "secret") == "/enum"


@pytest.mark.parametrize("arguments", ["{", "nul", '{"a": NaN}', '{"a": 1, "a": 1}', "[" * 100_000])
def test_arguments_that_cannot_be_read(arguments: str) -> None:
    with pytest.raises(BadJSON):
        parse(arguments)


@pytest.mark.parametrize(
    ("arguments", "value"), [("", {}), (" \n", {}), ("{}", {}), ('{"a": {"a": 1}}', {"a": {"a": 1}})]
)
def test_arguments(arguments: str, value: object) -> None:
    assert parse(arguments) == value


def test_a_pattern_cannot_blow_up() -> None:
    schema = b'{"pattern": "^(a+)+$"}'
    assert fault(schema, "a" * 100_000 + "b") == "/pattern"


def test_a_schema_has_a_size() -> None:
    with pytest.raises(BadSchema):
        fault(b'{"description": "%b"}' % (b"x" * 300_000), {})
