"""YAML text to a tree of nodes that remember where they stood; nothing is converted to a value yet.

It promises that a tree is small enough to walk: the file's size, its depth and what aliases expand to are bounded
before anything recurses. It refuses what would make two readers of the file disagree: duplicate keys, other encodings
than UTF-8, several documents, tags of other languages. It knows no setting.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from gateway.config.problems import ConfigurationInvalid, Problem

MAX_BYTES: Final = 1024 * 1024
"""A file of a thousand targets with every setting written out has half of this."""
MAX_DEPTH: Final = 32
"""The deepest setting stands at eight."""
MAX_NODES: Final = 100_000
"""Scalars, lists and mappings, each alias counted with all it stands for."""

_TAG: Final = "tag:yaml.org,2002:"
_MERGE: Final = f"{_TAG}merge"
_PLAIN_TAGS: Final = frozenset(
    _TAG + kind for kind in ("null", "bool", "int", "float", "str", "timestamp", "merge", "value", "seq", "map")
)
# libyaml is ten times faster than the Python parser and finds the same marks; wheels of PyYAML always bring it.
_Loader: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# YAML 1.1, section 5.1. The parsers check it too, but name the place in bytes or in characters as they please.
_UNPRINTABLE: Final = re.compile(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SYNTAX_HINTS: Final = {
    "\t": "indent with spaces, not with tabs",
    "@": "put the value in quotes",
    "`": "put the value in quotes",
    ":": "put a value that has `: ` in it in quotes",
}

Pair = tuple[ScalarNode, Node]


class Document:
    """One file's tree, and the problems found in its form."""

    def __init__(self, file: str, root: Node | None) -> None:
        self.file = file
        self.root = root
        self.problems: list[Problem] = []

    def report(self, node: Node, path: str, message: str, hint: str = "") -> None:
        """Add an error at the place where `node` begins."""
        mark = node.start_mark
        path, message, hint = map(_printable, (path, message, hint))
        self.problems.append(Problem(self.file, mark.line + 1, mark.column + 1, path, message, hint))

    def pairs(self, node: MappingNode, path: str) -> Iterator[Pair]:
        """A mapping's keys and values, what `<<` merges in last; a key that stands twice is reported and left out."""
        seen: dict[str, ScalarNode] = {}
        merged: list[Node] = []
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                self.report(key, path, "a key must be a word, not a list or a mapping")
            elif key.tag == _MERGE:
                merged.append(value)
            elif key.value in seen:
                first = seen[key.value].start_mark.line + 1
                self.report(key, join(path, key.value), f"the key `{key.value}` stands twice (first on line {first})")
            else:
                seen[key.value] = key
                yield key, value
        for key, value in self._merged(merged, path):
            if key.value not in seen:
                seen[key.value] = key
                yield key, value

    def _merged(self, sources: list[Node], path: str) -> Iterator[Pair]:
        for source in sources:
            for part in source.value if isinstance(source, SequenceNode) else [source]:
                if isinstance(part, MappingNode):
                    yield from self.pairs(part, path)
                else:
                    self.report(part, path, "only a mapping can be merged in with `<<`")


def join(path: str, part: str | int) -> str:
    """The path of a member: `gateway` and `listen` make `gateway.listen`, `chain` and 0 make `chain[0]`."""
    if isinstance(part, int):
        return f"{path}[{part}]"
    return f"{path}.{part}" if path else part


def parent(path: str) -> str:
    """The path of what `path` is a member of; of a section it is the empty path, which is the whole file."""
    return path[: max(path.rfind("."), path.rfind("["), 0)]


def parse(content: bytes, file: str) -> Document:
    """Read YAML. Raises ConfigurationInvalid where there is no tree to go on with; an empty file has the root None."""
    text = _decode(content, file)
    try:
        _check_events(text, file)
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        raise ConfigurationInvalid([_syntax_problem(error, text, file)]) from error
    document = Document(file, root)
    if root is not None:
        _check_tree(document, root)
    return document


def _printable(text: str) -> str:
    """With what a terminal would obey, or a log take for a new line, written as an escape."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _decode(content: bytes, file: str) -> str:
    if len(content) > MAX_BYTES:
        raise ConfigurationInvalid([Problem(file, 0, 0, "", f"the file is larger than {MAX_BYTES} bytes")])
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = "the file is not UTF-8"
        raise ConfigurationInvalid([_problem_after(content[: error.start].decode(), file, message)]) from error
    if found := _UNPRINTABLE.search(text):
        message = f"the character U+{ord(found[0]):04X} may not stand in YAML"
        raise ConfigurationInvalid([_problem_after(text[: found.start()], file, message)])
    return text


def _problem_after(text: str, file: str, message: str) -> Problem:
    return Problem(file, text.count("\n") + 1, len(text) - text.rfind("\n"), "", message)


def _check_events(text: str, file: str) -> None:
    """Bound depth and size before `compose`, which recurses. The scanner itself does not."""
    depth = documents = 0
    for count, event in enumerate(yaml.parse(text, Loader=_Loader)):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.DocumentStartEvent):
            documents += 1
        if depth > MAX_DEPTH:
            raise _invalid_at(event, file, f"nested deeper than {MAX_DEPTH} levels")
        if documents > 1:
            raise _invalid_at(event, file, "only one document may stand in a file")
        if count > 2 * MAX_NODES:
            raise _invalid_at(event, file, f"the file has more than {MAX_NODES} values")


def _invalid_at(event: yaml.Event, file: str, message: str) -> ConfigurationInvalid:
    mark = event.start_mark
    assert mark is not None
    return ConfigurationInvalid([Problem(file, mark.line + 1, mark.column + 1, "", message)])


def _check_tree(document: Document, root: Node) -> None:
    """Bound what aliases expand to, and refuse tags that are no plain YAML."""
    budget = MAX_NODES
    stack: list[tuple[Node, int]] = [(root, 1)]
    while stack:
        node, depth = stack.pop()
        budget -= 1
        if budget < 0 or depth > MAX_DEPTH + 1:
            document.report(node, "", f"the aliases expand to more than {MAX_NODES} values or {MAX_DEPTH} levels")
            raise ConfigurationInvalid(document.problems)
        if node.tag not in _PLAIN_TAGS:
            document.report(node, "", f"the tag `{node.tag.replace(_TAG, '!!')}` is not supported", "remove it")
        stack.extend((child, depth + 1) for child in _children(node))
    if document.problems:
        raise ConfigurationInvalid(document.problems)


def _children(node: Node) -> Iterator[Node]:
    if isinstance(node, SequenceNode):
        yield from node.value
    elif isinstance(node, MappingNode):
        for key, value in node.value:
            yield key
            yield value


def _syntax_problem(error: yaml.MarkedYAMLError, text: str, file: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    context = f" {error.context}" if error.context else ""
    message = f"not valid YAML: {error.problem or 'cannot be read'}{context}"
    if mark is None:
        return Problem(file, 0, 0, "", message)
    line = text.splitlines()[mark.line : mark.line + 1]
    hint = _SYNTAX_HINTS.get(line[0][mark.column : mark.column + 1], "") if line else ""
    return Problem(file, mark.line + 1, mark.column + 1, "", message, hint)
