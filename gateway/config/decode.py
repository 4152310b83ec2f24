"""A tree of nodes to the structs of the schema, with every problem on the way reported and none guessed over.

The types decide. A text setting takes text, a number setting a plain decimal number, a switch `true` or `false`; what
YAML 1.1 would quietly make of `no`, `1:30` or `010` is an error that says what to write. The decoder walks whatever
struct it is given: it knows the language of the schema (`msgspec.inspect`) and asks the packages
that providers and policies come from for their own opinion; no setting is known by name here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct, inspect
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from gateway.config.document import Document, join, parent
from gateway.config.problems import did_you_mean
from gateway.config.registry import Registry
from gateway.config.schema import CHOICES, FORMATS, SETTINGS_OF, UNIQUE_BY, Target

_INTEGER: Final = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_NUMBER: Final = re.compile(r"-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,17})?([eE][-+]?[0-9]{1,2})?")
_SWITCHES: Final = {"true": True, "false": False}


class _Invalid:
    """Stands for a value that was reported, so that nothing more is said of it."""


_INVALID: Final = _Invalid()


class Decoder:
    """Decodes one document. `marks` maps the path of every setting in the file to its node, for later checks."""

    def __init__(self, document: Document, registry: Registry) -> None:
        self.document = document
        self.registry = registry
        self.marks: dict[str, Node] = {"": document.root} if document.root else {}

    def struct(self, node: Node, type_: type[Struct], path: str = "") -> Any:
        """The struct, or None when something in it was reported."""
        value = self._struct(node, _struct_type(type_), path)
        return None if value is _INVALID else value

    def _value(self, node: Node, type_: inspect.Type, path: str, keywords: Mapping[str, Any]) -> Any:
        if isinstance(type_, inspect.Metadata):
            return self._value(node, type_.type, path, {**keywords, **(type_.extra_json_schema or {})})
        self.marks[path] = node
        if isinstance(type_, inspect.UnionType):
            return self._union(node, type_, path, keywords)
        if isinstance(type_, inspect.StructType):
            return self._struct(node, type_, path)
        if isinstance(type_, inspect.DictType):
            return self._dict(node, type_, path, keywords)
        if isinstance(type_, tuple(_LISTS)):
            return self._list(node, type_, path, keywords)
        return self._scalar(node, type_, path, keywords)

    # Mappings

    def _struct(self, node: Node, type_: inspect.StructType, path: str) -> Any:
        if not isinstance(node, MappingNode):
            return self._mismatch(node, path, "a mapping")
        fields = {field.encode_name: field for field in type_.fields}
        values: dict[str, Any] = {}
        sound = True
        for key, child in self.document.pairs(node, path):
            member = join(path, key.value)
            if (field := fields.get(key.value)) is None:
                sound = False
                self._unknown(key, key.value, "key", fields, member)
            else:
                values[field.name] = self._value(child, field.type, member, {})
        for field in type_.fields:
            if field.required and field.name not in values:
                sound = False
                self._report(node, path, f"the required key `{field.encode_name}` is missing")
        if not sound or _INVALID in values.values():
            return _INVALID
        try:
            value = type_.cls(**values)
            if isinstance(value, Target):
                self.registry.check_target(value)
        except ValueError as error:
            return self._report(node, path, str(error))
        return value

    def _dict(self, node: Node, type_: inspect.DictType, path: str, keywords: Mapping[str, Any]) -> Any:
        if not isinstance(node, MappingNode):
            return self._mismatch(node, path, "a mapping")
        values: dict[Any, Any] = {}
        for key, child in self.document.pairs(node, path):
            member = join(path, key.value)
            if SETTINGS_OF in keywords:
                known = self.registry.names(keywords[SETTINGS_OF])
                values[key.value] = (
                    self.policy(child, key.value, member)
                    if key.value in known
                    else self._unknown(key, key.value, keywords[SETTINGS_OF], known, member)
                )
            else:
                # A key is always text: no mapping of the schema has another kind of key.
                name = self._text(key, key.value, type_.key_type, member, {})
                values[name] = self._value(child, type_.value_type, member, {})
        if _INVALID in values or _INVALID in values.values():
            return _INVALID
        return values if self._within(node, len(values), type_, path, "item") else _INVALID

    def policy(self, node: Node, kind: str, path: str) -> Any:
        """The settings of a policy of a known kind, looked over by the policy itself."""
        self.marks[path] = node
        policy = self.registry.policies[kind]
        settings = self._struct(node, _struct_type(policy.Settings), path)
        problems = [] if settings is _INVALID else policy.check(settings)
        for problem in problems:
            fault = f"{path}.{problem.path}" if problem.path else path
            self._report(self.mark(fault), fault, problem.message)
        return _INVALID if problems else settings

    def mark(self, path: str) -> Node:
        """The node of a setting, or of the nearest section above it that stands in the file."""
        while path not in self.marks:
            path = parent(path)
        return self.marks[path]

    # Lists

    def _list(self, node: Node, type_: Any, path: str, keywords: Mapping[str, Any]) -> Any:
        if not isinstance(node, SequenceNode):
            return self._mismatch(node, path, "a list")
        items = [self._value(item, type_.item_type, join(path, index), {}) for index, item in enumerate(node.value)]
        unique = True
        if keywords.get("uniqueItems") or isinstance(type_, inspect.SetType | inspect.FrozenSetType):
            unique = self._unique(node.value, node.value, path, "")
        elif UNIQUE_BY in keywords:
            fields = [_member(item, keywords[UNIQUE_BY]) for item in node.value]
            unique = self._unique(node.value, fields, path, keywords[UNIQUE_BY])
        if not unique or _INVALID in items or not self._within(node, len(items), type_, path, "item"):
            return _INVALID
        return _LISTS[type(type_)](items)

    def _unique(self, items: Sequence[Node], keys: Sequence[Node | None], path: str, field: str) -> bool:
        """Report every scalar that stands a second time, at its own place."""
        first: dict[str, int] = {}
        unique = True
        for index, key in enumerate(keys):
            if not isinstance(key, ScalarNode):
                continue
            if key.value in first:
                unique = False
                member = join(path, index)
                where = f"`{join(path, first[key.value])}` on line {items[first[key.value]].start_mark.line + 1}"
                name = f"{field} `{key.value}`" if field else f"`{key.value}`"
                self._report(key, join(member, field) if field else member, f"duplicate {name}: {where} has it too")
            first.setdefault(key.value, index)
        return unique

    # Unions

    def _union(self, node: Node, type_: inspect.UnionType, path: str, keywords: Mapping[str, Any]) -> Any:
        """The members of a union differ by the kind of node they take; the first that takes this one is meant."""
        members = [(member, _plain(member)) for member in type_.types]
        if _is_null(node) and any(isinstance(plain, inspect.NoneType) for _, plain in members):
            return None
        members = [(member, plain) for member, plain in members if not isinstance(plain, inspect.NoneType)]
        for member, plain in members:
            if _takes(plain, node):
                return self._value(node, member, path, keywords)
        if len(members) == 1:
            return self._value(node, members[0][0], path, keywords)
        return self._mismatch(node, path, " or ".join(_describe(plain) for _, plain in members))

    # Scalars

    def _scalar(self, node: Node, type_: inspect.Type, path: str, keywords: Mapping[str, Any]) -> Any:
        if not isinstance(node, ScalarNode) or (_is_null(node) and not node.style):
            return self._mismatch(node, path, _describe(type_))
        reader = _SCALARS.get(type(type_))
        if reader is None:
            raise TypeError(f"{path}: settings of type {type_!r} cannot be read from a file")
        return reader(self, node, type_, path, keywords)

    def _read_text(self, node: ScalarNode, type_: inspect.StrType, path: str, keywords: Mapping[str, Any]) -> Any:
        if not _is_text(node):
            return self._mismatch(node, path, "text", f'put it in quotes: "{node.value}"')
        return self._text(node, node.value, type_, path, keywords)

    def _text(self, node: Node, text: str, type_: inspect.Type, path: str, keywords: Mapping[str, Any]) -> Any:
        if isinstance(type_, inspect.Metadata):
            return self._text(node, text, type_.type, path, {**keywords, **(type_.extra_json_schema or {})})
        if not isinstance(type_, inspect.StrType):
            return text
        if choices := keywords.get(CHOICES):
            known = self.registry.names(choices)
            if text not in known:
                return self._unknown(node, text, choices, known, path)
        if not self._within(node, len(text), type_, path, "character"):
            return _INVALID
        if type_.pattern is not None and not _matches(type_.pattern, text):
            examples = " or ".join(f"`{example}`" for example in keywords.get("examples", ()))
            hint = f"like {examples}" if examples else f"the pattern is {type_.pattern}"
            # What may be a secret, put in the wrong place, must not go on to a terminal or a log.
            what = "the value" if keywords.get("writeOnly") else _quoted(text)
            return self._report(node, path, f"{what} does not have the right form", hint)
        try:
            FORMATS.get(keywords.get("format", ""), str)(text)
        except ValueError as error:
            return self._report(node, path, str(error))
        return text

    def _read_switch(self, node: ScalarNode, type_: inspect.BoolType, path: str, keywords: Mapping[str, Any]) -> Any:
        if not node.style and node.value in _SWITCHES:
            return _SWITCHES[node.value]
        meant = {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(node.value.lower(), "")
        return self._mismatch(node, path, "true or false", f"write `{meant}`" if meant else "")

    def _read_integer(self, node: ScalarNode, type_: inspect.IntType, path: str, keywords: Mapping[str, Any]) -> Any:
        if node.style or _INTEGER.fullmatch(node.value) is None:
            return self._mismatch(node, path, "a whole number", "write plain decimal digits" if not node.style else "")
        return self._in_range(node, int(node.value), type_, path)

    def _read_number(self, node: ScalarNode, type_: inspect.FloatType, path: str, keywords: Mapping[str, Any]) -> Any:
        if node.style or _NUMBER.fullmatch(node.value) is None:
            return self._mismatch(node, path, "a number", "write a plain decimal number" if not node.style else "")
        return self._in_range(node, float(node.value), type_, path)

    def _read_enum(self, node: ScalarNode, type_: inspect.EnumType, path: str, keywords: Mapping[str, Any]) -> Any:
        members = {str(member.value): member for member in type_.cls}
        return self._choice(node, members, path)

    def _read_literal(
        self, node: ScalarNode, type_: inspect.LiteralType, path: str, keywords: Mapping[str, Any]
    ) -> Any:
        return self._choice(node, {str(value): value for value in type_.values}, path)

    def _choice(self, node: ScalarNode, members: Mapping[str, Any], path: str) -> Any:
        known = ", ".join(f"`{member}`" for member in members)
        if not _is_text(node) and any(isinstance(member, str) for member in members.values()):
            return self._mismatch(node, path, f"one of {known}", "put it in quotes" if node.value in members else "")
        if node.value in members:
            return members[node.value]
        return self._unknown(node, node.value, "value", members, path)

    # What is said

    def _in_range(self, node: Node, number: float, type_: Any, path: str) -> Any:
        for bound, holds, words in _BOUNDS:
            limit = getattr(type_, bound)
            if limit is not None and not holds(number, limit):
                return self._report(node, path, f"{number:g} is out of range: it must be {words} {limit:g}")
        return number

    def _within(self, node: Node, length: int, type_: Any, path: str, unit: str) -> bool:
        low, high = type_.min_length, type_.max_length
        if low is not None and length < low:
            self._report(node, path, f"at least {low} {unit}{'' if low == 1 else 's'} must stand here")
        elif high is not None and length > high:
            self._report(node, path, f"at most {high} {unit}{'' if high == 1 else 's'} may stand here")
        else:
            return True
        return False

    def _mismatch(self, node: Node, path: str, expected: str, hint: str = "") -> _Invalid:
        if _is_null(node) and not getattr(node, "style", None):
            return self._report(node, path, f"expected {expected}, got nothing", "give it a value or remove the key")
        return self._report(node, path, f"expected {expected}, got {_found(node)}", hint)

    def _unknown(self, node: Node, word: str, what: str, known: Collection[str], path: str) -> _Invalid:
        return self._report(node, path, f"unknown {what} {_quoted(word)}", did_you_mean(word, known))

    def _report(self, node: Node, path: str, message: str, hint: str = "") -> _Invalid:
        self.document.report(node, path, message, hint)
        return _INVALID


_LISTS: Final[dict[type[inspect.Type], Callable[[list[Any]], Any]]] = {
    inspect.ListType: list,
    inspect.VarTupleType: tuple,
    inspect.SetType: set,
    inspect.FrozenSetType: frozenset,
}
_SCALARS: Final[Mapping[type[inspect.Type], Callable[..., Any]]] = {
    inspect.StrType: Decoder._read_text,
    inspect.BoolType: Decoder._read_switch,
    inspect.IntType: Decoder._read_integer,
    inspect.FloatType: Decoder._read_number,
    inspect.EnumType: Decoder._read_enum,
    inspect.LiteralType: Decoder._read_literal,
}
_BOUNDS: Final[Sequence[tuple[str, Callable[[float, float], bool], str]]] = (
    ("ge", lambda number, limit: number >= limit, "at least"),
    ("gt", lambda number, limit: number > limit, "more than"),
    ("le", lambda number, limit: number <= limit, "at most"),
    ("lt", lambda number, limit: number < limit, "less than"),
)


def _struct_type(cls: type[Struct]) -> inspect.StructType:
    type_ = inspect.type_info(cls)
    assert isinstance(type_, inspect.StructType)
    return type_


def _plain(type_: inspect.Type) -> inspect.Type:
    return _plain(type_.type) if isinstance(type_, inspect.Metadata) else type_


def _matches(pattern: str, text: str) -> bool:
    """As JSON Schema means it: a search, but with `$` at the very end only, not before a last line break as well."""
    match = re.fullmatch if pattern.startswith("^") and pattern.endswith("$") else re.search
    return match(pattern, text) is not None


def _member(node: Node, field: str) -> Node | None:
    if not isinstance(node, MappingNode):
        return None
    return next((value for key, value in node.value if key.value == field), None)


def _kind(node: Node) -> str:
    return node.tag.rpartition(":")[2]


def _is_null(node: Node) -> bool:
    return isinstance(node, ScalarNode) and _kind(node) == "null"


def _is_text(node: ScalarNode) -> bool:
    """Quoted, or plain and text in YAML 1.1 as well as in 1.2. A date is text: no reader mistakes its characters."""
    return bool(node.style) or _kind(node) in ("str", "timestamp", "value", "merge")


def _takes(type_: inspect.Type, node: Node) -> bool:
    if isinstance(type_, inspect.StructType | inspect.DictType):
        return isinstance(node, MappingNode)
    if isinstance(type_, tuple(_LISTS)):
        return isinstance(node, SequenceNode)
    if not isinstance(node, ScalarNode):
        return False
    kinds = {inspect.BoolType: ("bool",), inspect.IntType: ("int",), inspect.FloatType: ("int", "float")}
    return _kind(node) in kinds.get(type(type_), ("str", "timestamp"))


def _describe(type_: inspect.Type) -> str:
    if isinstance(type_, inspect.StructType | inspect.DictType):
        return "a mapping"
    if isinstance(type_, tuple(_LISTS)):
        return "a list"
    if isinstance(type_, inspect.EnumType):
        return "one of " + ", ".join(f"`{member.value}`" for member in type_.cls)
    if isinstance(type_, inspect.LiteralType):
        return "one of " + ", ".join(f"`{value}`" for value in type_.values)
    names = {inspect.BoolType: "true or false", inspect.IntType: "a whole number", inspect.FloatType: "a number"}
    return names.get(type(type_), "text")


def _found(node: Node) -> str:
    if isinstance(node, MappingNode):
        return "a mapping"
    if isinstance(node, SequenceNode):
        return "a list"
    assert isinstance(node, ScalarNode)
    # Text is not repeated: it could be a secret that was put in the wrong place.
    kinds = {"bool": "a switch", "int": "a number", "float": "a number"}
    kind = "" if node.style else kinds.get(_kind(node), "")
    return f"{kind}: {_quoted(node.value)}" if kind else "text"


def _quoted(text: str) -> str:
    return f"`{text if len(text) <= 60 else text[:57] + '...'}`"
