"""Expressions made from others: what could still become a match, and what announces one.

While a text flows, the characters that must wait are those at its end that some further text could complete. For an
expression E that is what `E` matches and all non-empty beginnings of it, at the end of the text: here `live(E)` writes
that as an expression again, so that RE2 can look for it from the end backwards and stops where nothing is alive.

A filter that only has to say whether an expression may occur is quicker without its long tail: `announcement`.

The syntax is RE2's (https://github.com/google/re2/wiki/Syntax) as far as `scan.refusal` lets it through. Only its
structure is understood; what a class or an escape matches is left to RE2.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

CHAIN = 128
"""So many items of a sequence are nested in each other; RE2 refuses a thousand."""

_TOKEN = re.compile(
    r"\\Q(?P<quoted>.*?)(?:\\E|\Z)"
    r"|(?P<assertion>\^|\$|\\[bBA]|\\z)"
    r"|(?P<group>\((?:\?P?<\w+>|\?(?P<flags>[a-zA-Z]*(?:-[a-zA-Z]+)?)(?P<scope>[:)]))?)"
    r"|(?P<close>\))|(?P<bar>\|)"
    r"|(?P<repeat>[*+?]|\{\d+(?:,\d*)?\})\??"
    r"|(?P<atom>\[\^?\]?(?:\[:\^?\w+:\]|\\[pP]\{[^}]*\}|\\x\{[^}]*\}|\\.|[^\]\\])*\]"
    r"|\\x\{[^}]*\}|\\x[0-9a-fA-F]{2}|\\[pP]\{[^}]*\}|\\[pP].|\\[0-7]{1,3}|\\.|.)",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Atom:
    """One character of some class."""

    source: str


@dataclass(frozen=True, slots=True)
class Assertion:
    """A place, as `\\b`; no character."""

    source: str


@dataclass(frozen=True, slots=True)
class Sequenced:
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    branches: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    item: Node
    least: int
    most: int | None


@dataclass(frozen=True, slots=True)
class Group:
    """A group that captures: what stands before the first one is the match's surroundings."""

    item: Node


Node = Atom | Assertion | Sequenced | Choice | Repeat | Group


class Live(NamedTuple):
    """Three expressions: what must stand before the beginning and is none of it, the beginning, its first character."""

    before: str
    begun: str
    first: str


def live(expression: str, *, placed: bool = False) -> Live:
    """An expression for all non-empty beginnings of matches, complete matches included.

    With `placed` the match is group 1. Where only one character at most must stand before and after the group, it is
    neither a beginning by itself nor waited for longer than until it has come.
    """
    node = _loose(parse(expression))
    if placed and isinstance(node, Sequenced):
        split = next((place for place, item in enumerate(node.items) if isinstance(item, Group)), None)
        if split is not None:
            before, group, after = (Sequenced(part) for part in _parts(node.items, split))
            if _at_most_one(before):
                rest = group if _at_most_one(after) else Sequenced((group, after))
                return Live(_full(before), _begun(rest), _either(_firsts(rest)))
    return Live("", _begun(node), _either(_firsts(node)))


FEW: Final = 3


def _loose(node: Node) -> Node:
    """With any number of times for more than a few: an automaton need not count, and what is alive a little longer only
    waits a little longer. 195 formats of keys, counted, take 6 ms for each piece of a stream; like this, 20 µs."""
    match node:
        case Sequenced(items):
            return Sequenced(tuple(map(_loose, items)))
        case Choice(branches):
            return Choice(tuple(map(_loose, branches)))
        case Group(item):
            return Group(_loose(item))
        case Repeat(item, least, most):
            few = most is not None and most <= FEW
            return Repeat(_loose(item), least if few else min(least, 1), most if few else None)
    return node


def _parts(items: tuple[Node, ...], split: int) -> tuple[tuple[Node, ...], ...]:
    return items[:split], items[split : split + 1], items[split + 1 :]


def _at_most_one(node: Node) -> bool:
    longest = _longest(node)
    return longest is not None and longest <= 1


WIDE: Final = 8


def announcement(expression: str) -> str:
    """An expression that occurs wherever this one does: without what long repeats say before and after a punctuation
    mark.

    `[\\w.]+@[\\w.]+\\.[a-z]+` is announced by `[\\w.]@[\\w.]`, since an automaton would follow each word of a text to
    see whether an `@` ends it. That takes 40 patterns in Hyperscan from 70 µs to 25 on a prompt of 32 KB; what else it
    announces costs a search of its own.
    """
    node = parse(expression)
    if not isinstance(node, Sequenced):
        return expression
    items = node.items
    mark = next((place for place, item in enumerate(items) if _is_mark(item)), len(items))
    begin, before = 0, items[:mark]
    if mark < len(items) and mark and isinstance(last := items[mark - 1], Repeat) and last.least and _is_wide(last):
        begin, before = mark - 1, (last.item,)
    for place in range(mark + 1, len(items)):
        item = items[place]
        if isinstance(item, Repeat) and _is_wide(item):
            least = Repeat(item.item, item.least, item.least) if item.least else Sequenced(())
            return _full(Sequenced((*before, *items[mark:place], least)))
    return _full(Sequenced((*before, *items[mark:]))) if begin else expression


def _is_mark(item: Node) -> bool:
    return isinstance(item, Atom) and _MARK.fullmatch(item.source) is not None


def _is_wide(item: Repeat) -> bool:
    return item.most is None or item.most - item.least >= WIDE


_MARK: Final = re.compile(r"(?:\(\?[is]+:)?\\?[@#%&/:;=<>{}\[\]|~_,-]\)?")


def spelled_out(expression: str) -> str:
    """With `\\w` as the class that it is: under `(?i)` RE2 folds it, to `ſ` and the Kelvin sign, and Hyperscan does so
    only with a class that is written out."""
    if r"\w" not in expression:
        return expression
    return "".join(map(_spelled_out, _TOKEN.finditer(expression)))


def _spelled_out(token: re.Match[str]) -> str:
    if token[0] == r"\w":
        return f"[{_WORD}]"
    if token.lastgroup == "atom" and token[0].startswith("["):
        return _ESCAPED.sub(lambda escaped: _WORD if escaped[0] == r"\w" else escaped[0], token[0])
    return token[0]


_WORD: Final = "0-9A-Za-z_"
_ESCAPED: Final = re.compile(r"\\.", re.DOTALL)


def parse(expression: str) -> Node:
    """The structure of an expression that RE2 has accepted."""
    return _Parser(expression).whole()


class _Parser:
    def __init__(self, expression: str) -> None:
        self._tokens = list(_TOKEN.finditer(expression))
        self._at = 0

    def whole(self) -> Node:
        return self._choice("")

    def _choice(self, flags: str) -> Node:
        branches = []
        sequence: list[Node] = []
        while self._at < len(self._tokens):
            token = self._tokens[self._at]
            self._at += 1
            match token.lastgroup:
                case "close":
                    break
                case "bar":
                    branches.append(Sequenced(tuple(sequence)))
                    sequence = []
                case "repeat":
                    sequence[-1] = _repeat(sequence[-1], token["repeat"])
                case "quoted":
                    sequence += [Atom(_flagged(re.escape(char), flags)) for char in token["quoted"]]
                case "assertion":
                    sequence.append(Assertion(token[0]))
                case "atom":
                    sequence.append(Atom(_flagged(token[0], flags)))
                case _:
                    flags = self._group(token, flags, sequence)
        branches.append(Sequenced(tuple(sequence)))
        return branches[0] if len(branches) == 1 else Choice(tuple(branches))

    def _group(self, token: re.Match[str], flags: str, sequence: list[Node]) -> str:
        """A group, or `(?i)`, which changes what follows; returns the flags that hold after it."""
        if token["scope"] is None:
            sequence.append(Group(self._choice(flags)))
            return flags
        changed = _changed(flags, token["flags"])
        if token["scope"] == ")":
            return changed
        sequence.append(self._choice(changed))
        return flags


def _changed(flags: str, change: str) -> str:
    on, _, off = change.partition("-")
    return "".join(flag for flag in "is" if (flag in flags or flag in on) and flag not in off)


def _flagged(source: str, flags: str) -> str:
    return f"(?{flags}:{source})" if flags else source


def _repeat(item: Node, written: str) -> Repeat:
    if written in "*+?":
        return Repeat(item, int(written == "+"), 1 if written == "?" else None)
    least, comma, most = written[1:-1].partition(",")
    return Repeat(item, int(least), (int(most) if most else None) if comma else int(least))


def _full(node: Node) -> str:
    """The expression again, without captures."""
    match node:
        case Atom(source) | Assertion(source):
            return source
        case Sequenced(items):
            return "".join(map(_full, items))
        case Choice(branches):
            return _either(map(_full, branches))
        case Group(item):
            return _group(_full(item))
        case Repeat(item, least, most):
            return _group(_full(item)) + _times(least, most)


def _begun(node: Node) -> str:
    """All non-empty beginnings; empty for a node that has no character."""
    match node:
        case Atom(source):
            return source
        case Assertion():
            return _NEVER
        case Sequenced(items):
            return _either(_begun_sequence(items))
        case Choice(branches):
            return _either(map(_begun, branches))
        case Group(item):
            return _begun(item)
        case Repeat(item, _, most):
            if most == 0:
                return _NEVER
            if isinstance(item, Atom):
                return item.source + _times(1, most)
            begun = _begun(item)
            fewer = None if most is None else most - 1
            return begun if begun == _NEVER else _group(_full(item)) + _times(0, fewer) + _group(begun)


def _begun_sequence(items: Sequence[Node]) -> Iterator[str]:
    """In pieces of `CHAIN` items: each after the whole of those before it."""
    for start in range(0, len(items), CHAIN):
        begun = _chain(items[start : start + CHAIN])
        yield begun if begun == _NEVER else "".join(map(_full, items[:start])) + _group(begun)


def _chain(items: Sequence[Node]) -> str:
    """`abc` is begun by `a(?:b(?:c)?)?`."""
    begun = _NEVER
    for item in reversed(items):
        if isinstance(item, Atom):
            begun = item.source + ("" if begun == _NEVER else f"{_group(begun)}?")
        elif begun == _NEVER:
            begun = _begun(item)
        else:
            begun = _either((_begun(item), _full(item) + _group(begun)))
    return begun


def _firsts(node: Node) -> Iterator[str]:
    """What may be a match's first character."""
    match node:
        case Atom(source):
            yield source
        case Group(item) | Repeat(item):
            yield from _firsts(item)
        case Choice(branches):
            for branch in branches:
                yield from _firsts(branch)
        case Sequenced(items):
            for item in items:
                yield from _firsts(item)
                if _shortest(item) > 0:
                    break


def _shortest(node: Node) -> int:
    """The least number of characters that can match."""
    match node:
        case Atom():
            return 1
        case Assertion():
            return 0
        case Group(item):
            return _shortest(item)
        case Sequenced(items):
            return sum(map(_shortest, items))
        case Choice(branches):
            return min(map(_shortest, branches))
        case Repeat(item, least):
            return least * _shortest(item)


_NEVER: Final = r"[^\x00-\x{10FFFF}]"


def _either(expressions: Iterator[str] | Sequence[str]) -> str:
    distinct = [one for one in dict.fromkeys(expressions) if one != _NEVER]
    if not distinct:
        return _NEVER
    return distinct[0] if len(distinct) == 1 else _group("|".join(distinct))


def _group(expression: str) -> str:
    return f"(?:{expression})"


def _times(least: int, most: int | None) -> str:
    if most is None:
        return "*" if least == 0 else "+" if least == 1 else f"{{{least},}}"
    return f"{{{least},{most}}}"


def _longest(node: Node) -> int | None:
    """The greatest number of characters that can match; None: no bound."""
    match node:
        case Atom():
            return 1
        case Assertion():
            return 0
        case Group(item):
            return _longest(item)
        case Sequenced(items):
            lengths = [_longest(item) for item in items]
            return None if None in lengths else sum(length or 0 for length in lengths)
        case Choice(branches):
            lengths = [_longest(branch) for branch in branches]
            return None if None in lengths else max(length or 0 for length in lengths)
        case Repeat(item, _, most):
            length = _longest(item)
            return 0 if length == 0 else None if length is None or most is None else length * most
