"""The settings' pages of `docs/configuration.md`, written from the structs that the loader reads.

`python -m gateway.config.reference docs/configuration.md` renews what stands in the file below its mark; the text above
the mark is written by hand.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import NODEFAULT, inspect

from gateway.config.lint import NOT_IN_FORCE
from gateway.config.registry import Registry, installed
from gateway.config.schema import CHOICES, SETTINGS_OF, UNIQUE_BY, Configuration

MARK: Final = "<!-- Below: written by `python -m gateway.config.reference`, from gateway/config/schema.py. -->\n"

_UNITS: Final = {"seconds": "seconds", "bytes": "bytes", "days": "days", "depth": "levels", "percent": "percent"}
_BOUNDS: Final = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
_LENGTHS: Final = {"min_length": "at least", "max_length": "at most"}


def reference(registry: Registry | None = None) -> str:
    """Markdown: a heading for every section and every setting, with type, unit, default, bounds and meaning."""
    return "\n".join(_section(Configuration, "", registry or installed())) + "\n"


def renew(page: str, registry: Registry | None = None) -> str:
    """The page with its generated part written anew. Raises ValueError where the page lacks the mark."""
    head, mark, _ = page.partition(MARK)
    if not mark:
        raise ValueError("the page has no mark below which settings could stand")
    return f"{head}{MARK}\n{reference(registry)}"


def _section(cls: type[msgspec.Struct], path: str, registry: Registry) -> Iterator[str]:
    """The settings of a struct, then the sections within it."""
    type_ = inspect.type_info(cls)
    assert isinstance(type_, inspect.StructType)
    sections: list[Iterator[str]] = []
    for field in type_.fields:
        place = f"{path}.{field.encode_name}" if path else field.encode_name
        plain, keywords = _unwrap(field.type)
        if SETTINGS_OF in keywords:
            sections.append(_policies(place, keywords, registry))
        elif (found := _struct_within(plain)) is not None:
            inner, suffix = found
            sections.append(_subsection(field, inner.cls, place + suffix, keywords, registry))
        else:
            yield from _setting(field, place, plain, keywords, registry)
    for section in sections:
        yield from section


def _subsection(
    field: inspect.Field, cls: type[msgspec.Struct], path: str, keywords: Mapping[str, Any], registry: Registry
) -> Iterator[str]:
    yield from _heading("##", path, keywords.get("description", ""))
    if field.required:
        yield "Required.\n"
    yield from _section(cls, path, registry)


def _policies(path: str, keywords: Mapping[str, Any], registry: Registry) -> Iterator[str]:
    yield from _heading("##", path, keywords["description"])
    for kind in sorted(registry.policies):
        settings = registry.policies[kind].Settings
        yield from _heading("##", f"{path}.{kind}", _first_sentence(settings))
        yield from _section(settings, f"{path}.{kind}", registry)


def _setting(
    field: inspect.Field, path: str, plain: inspect.Type, keywords: Mapping[str, Any], registry: Registry
) -> Iterator[str]:
    yield from _heading("###", path, "")
    facts = [_name_of(plain, keywords, registry) + _unit(path, plain), _default(field), *_bounds(plain)]
    yield " · ".join(fact for fact in facts if fact) + "\n"
    if description := keywords.get("description"):
        yield f"{description}\n"
    yield from _not_in_force(path)


def _heading(level: str, path: str, description: str) -> Iterator[str]:
    yield f"{level} `{path}`\n"
    if description:
        yield f"{description}\n"
        yield from _not_in_force(path)


def _not_in_force(path: str) -> Iterator[str]:
    if instead := NOT_IN_FORCE.get(path):
        yield f"*Accepted, but not in force yet: {instead}. `kt policy lint` says so, too.*\n"


def _unwrap(type_: inspect.Type) -> tuple[inspect.Type, dict[str, Any]]:
    """The type itself, an optional one without its None, and all schema keywords around it."""
    if isinstance(type_, inspect.Metadata):
        plain, keywords = _unwrap(type_.type)
        return plain, {**keywords, **(type_.extra_json_schema or {})}
    if isinstance(type_, inspect.UnionType):
        members = [member for member in type_.types if not isinstance(member, inspect.NoneType)]
        if len(members) == 1:
            return _unwrap(members[0])
    return type_, {}


def _struct_within(type_: inspect.Type) -> tuple[inspect.StructType, str] | None:
    """The struct that a setting is, or that its items are, and what that adds to the path."""
    if isinstance(type_, inspect.StructType):
        return type_, ""
    if isinstance(type_, inspect.ListType | inspect.VarTupleType):
        item, _ = _unwrap(type_.item_type)
        return (item, "[]") if isinstance(item, inspect.StructType) else None
    return None


def _name_of(type_: inspect.Type, keywords: Mapping[str, Any], registry: Registry) -> str:
    if CHOICES in keywords:
        return "one of " + _words(sorted(registry.names(keywords[CHOICES])))
    if isinstance(type_, inspect.EnumType):
        return "one of " + _words([member.value for member in type_.cls])
    if isinstance(type_, inspect.LiteralType):
        return "one of " + _words(type_.values)
    if isinstance(type_, inspect.ListType | inspect.VarTupleType | inspect.SetType | inspect.FrozenSetType):
        distinct = "different " if keywords.get("uniqueItems") or UNIQUE_BY in keywords else ""
        return f"list of {distinct}items, each {_name_of(*_unwrap(type_.item_type), registry)}"
    if isinstance(type_, inspect.DictType):
        return f"mapping of names to {_name_of(*_unwrap(type_.value_type), registry)}"
    if isinstance(type_, inspect.StructType):
        return "settings"
    if isinstance(type_, inspect.UnionType):
        return " or ".join(_name_of(*_unwrap(member), registry) for member in type_.types)
    names = {inspect.BoolType: "true or false", inspect.IntType: "whole number", inspect.FloatType: "number"}
    name = names.get(type(type_), "text")
    examples = keywords.get("examples", ())
    return f"{name} like {_words(examples, ' or ')}" if examples else name


def _unit(path: str, type_: inspect.Type) -> str:
    unit = _UNITS.get(path.rpartition("_")[2])
    return f", {unit}" if unit and isinstance(type_, inspect.IntType | inspect.FloatType) else ""


def _default(field: inspect.Field) -> str:
    if field.required:
        return "required"
    default = field.default_factory() if field.default is NODEFAULT else field.default
    if default is None:
        return "not set"
    if isinstance(default, float):
        return f"default `{default:g}`"
    text = msgspec.json.encode(default).decode()
    return f"default `{text[1:-1] if isinstance(default, str) and default else text}`"


def _bounds(type_: inspect.Type) -> Iterator[str]:
    for table, unit in ((_BOUNDS, ""), (_LENGTHS, " characters" if isinstance(type_, inspect.StrType) else " entries")):
        for bound, words in table.items():
            if (limit := getattr(type_, bound, None)) is not None and (bound, limit) != ("min_length", 1):
                yield f"{words} {limit}{unit}"


def _words(values: Sequence[object], between: str = ", ") -> str:
    return between.join(f"`{value}`" for value in values)


def _first_sentence(cls: type[msgspec.Struct]) -> str:
    return (cls.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")


if __name__ == "__main__":
    for file in map(Path, sys.argv[1:]):
        file.write_text(renew(file.read_text(encoding="utf-8")), encoding="utf-8")
