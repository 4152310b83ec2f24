"""The reference of all settings in `docs/configuration.md`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from msgspec import NODEFAULT, inspect

from gateway.config.load import load_text
from gateway.config.reference import MARK, reference, renew
from gateway.config.registry import Registry, installed
from gateway.config.schema import Configuration, Providers

PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"


def test_the_page_is_current() -> None:
    """Renew it with `python -m gateway.config.reference docs/configuration.md`."""
    text = PAGE.read_text(encoding="utf-8")
    assert text == renew(text)


def test_a_page_without_the_mark_is_left_alone(registry: Registry) -> None:
    with pytest.raises(ValueError, match="mark"):
        renew("# Mine\n", registry)
    assert renew(f"# Mine\n{MARK}old\n", registry) == f"# Mine\n{MARK}\n{reference(registry)}"


def test_one_setting_whole(registry: Registry) -> None:
    assert (
        "### `policy.word-list.share`\n\nnumber · default `0.5` · at least 0 · less than 1\n\nHow many are too many.\n"
        in reference(registry)
    )


def fields(type_: inspect.Type, path: str) -> Iterator[tuple[str, inspect.Type]]:
    """Every field within a type, each with its path."""
    if isinstance(type_, inspect.Metadata):
        yield from fields(type_.type, path)
    elif isinstance(type_, inspect.UnionType):
        for member in type_.types:
            yield from fields(member, path)
    elif isinstance(type_, inspect.ListType | inspect.VarTupleType):
        yield from fields(type_.item_type, f"{path}[]")
    elif isinstance(type_, inspect.StructType):
        for field in type_.fields:
            place = f"{path}.{field.encode_name}".removeprefix(".")
            yield place, field.type
            yield from fields(field.type, place)


def all_fields() -> list[tuple[str, inspect.Type]]:
    found = list(fields(inspect.type_info(Configuration), ""))
    for kind, policy in installed().policies.items():
        found += fields(inspect.type_info(policy.Settings), f"policy.{kind}")
    return found


@pytest.mark.parametrize(("path", "type_"), [pytest.param(*field, id=field[0]) for field in all_fields()])
def test_every_setting_has_a_description_and_a_heading(path: str, type_: inspect.Type) -> None:
    assert isinstance(type_, inspect.Metadata)
    assert (type_.extra_json_schema or {}).get("description", "").endswith((".", "`"))
    text = PAGE.read_text(encoding="utf-8")
    assert f"# `{path}`\n" in text or f"# `{path}[]`\n" in text


def defaults(cls: type[msgspec.Struct]) -> dict[str, object]:
    """A struct's defaults as a file would say them; what has none is left out, and so is what is not set."""
    found: dict[str, object] = {}
    for field in msgspec.structs.fields(cls):
        default = field.default_factory() if field.default_factory is not NODEFAULT else field.default
        if default is not NODEFAULT:
            found[field.encode_name] = msgspec.to_builtins(default)
    return found


def test_every_default_can_be_written_into_a_file(registry: Registry) -> None:
    head = {"pack": {"name": "a"}, "policies": {"chain": ["word-list"]}}
    targets = [{"id": "a", "provider": "mock", "model": "m"}]
    written = {
        **defaults(Configuration),
        **head,
        "providers": {**defaults(Providers), "targets": targets},
        "policy": {"word-list": defaults(registry.policies["word-list"].Settings)},
    }
    bare = {**head, "providers": {"targets": targets}}
    assert "gateway" in written
    full, short = (load_text(msgspec.yaml.encode(file), "f", registry=registry) for file in (written, bare))
    assert full.configuration == short.configuration
