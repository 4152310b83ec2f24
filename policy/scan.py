"""One pass over all texts for all patterns of a chain.

The pass is a filter: it says which patterns occur at all, and on most texts that is none. Hyperscan does it in one
automaton (package `hyperscan`); where there is no wheel for it, an RE2 set does the same. Only for patterns that
occurred does RE2 then say where, part by part, so that both filters give the same matches. Nothing here backtracks.

Syntax is what both take: RE2's, without look-around and back-references. `^` and `$` match at every line, `\\w`, `\\d`
and `\\b` know ASCII, `\\p{L}` knows Unicode, matches are the leftmost and of those the longest. A vertical tab counts
as a newline, since the two engines disagree whether it is white space.

Texts are joined by a newline. A pattern may match across the joint, which costs a second look and changes nothing,
because places are searched in each part alone. No match in a part can be lost in the joined text: to `\\b`, `^` and `$`
a newline is the same as the end of a text, and what could tell them apart (`\\A`, `\\z`, `(?-m)`) is refused.

Measured on one core for 40 patterns of which 30 are terms, text without a match (µs): 1 KB 1.4 with Hyperscan, 3.4
with RE2; 4 KB 3 and 9; 1 MB 990 and 1,900. Asking Hyperscan for all matches instead of the first of each pattern costs
13 at 1 KB; asking it for the start of matches too, it refuses common patterns ("too large"). Its literal mode is twice
as fast on a list of 1,000 terms, but takes no other pattern into the same database.
"""

from __future__ import annotations

import functools
import re
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

import re2

from gateway.types import TextPart
from policy.base import CrowdedError, Match, Pattern
from policy.prefix import announcement, spelled_out
from policy.text import encode, is_encodable, placed

try:
    import hyperscan
except ImportError:  # no wheel for this platform
    hyperscan = None  # type: ignore[assignment]

_PREPARED = 512
"""So many patterns are compiled before anybody asks, the longest first: 0.2 ms and 25 KB each. Of a longer list most
never occur."""
_UNPREPARED = 8
"""As many places as it takes to compile a pattern when it occurs for the first time."""

MAX_SPANS = 10_000
"""So many matches of one pattern in one part are told apart; what follows the last counts as one match to the end."""

MAX_DOUBTED = 8
"""So many patterns that the filter has reported are looked for one by one before texts are taken out of their body: 1
to 2 µs for each and KB. With more of them something is likely there."""

SEARCH_BUDGET_BYTES = 1 << 31
"""Bytes that the searches for one pattern without an upper length may have before them in one part, summed. Each search
is linear, but `(a.*z)|a` on a megabyte of `a` reads to the end once for each match. It allows 2,048 matches in a MB."""

_FILTER_MEMORY_BYTES = 128 * 1024 * 1024
_UNBOUNDED = re.compile(r"\\.|([*+]|\{\d+,\})", re.DOTALL)
_REFUSED_ESCAPES = {
    "A": r"use `^`, which matches at every line",
    "z": r"use `$`, which matches at every line",
    "v": r"use `\s`",
    "C": r"use `.`",
}
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_INLINE_FLAGS = re.compile(r"\\.|\(\?(\w*-?\w*)[:)]", re.DOTALL)
_EMPTY_PROBES = (b"", b"a", b" ", b"aa", b"a ", b" a", b"  ", b"\n", b"a\n")

Filter = Callable[[bytes], Collection[int]]
"""The numbers of the patterns that occur in some bytes, each at least once."""

Engine = Callable[[tuple[str, ...]], Filter]
"""Makes the filter for some expressions. Raises `PatternError` for one that it cannot take."""


class PatternError(ValueError):
    """An expression that cannot be searched for in linear time, or would mean different things to the two engines."""

    def __init__(self, message: str, number: int = 0) -> None:
        super().__init__(message)
        self.number = number


def hyperscan_filter(expressions: tuple[str, ...]) -> Filter:
    """All expressions in one Hyperscan database, in block mode, each reported once."""
    database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    try:
        _hyperscan_compile(database, expressions)
    except hyperscan.error as error:
        raise _culprit(expressions, error) from error
    return _Hyperscan(database)


def _hyperscan_compile(database: Any, expressions: Sequence[str]) -> None:
    flags = hyperscan.HS_FLAG_UTF8 | hyperscan.HS_FLAG_MULTILINE | hyperscan.HS_FLAG_SINGLEMATCH
    database.compile(
        expressions=[encode(spelled_out(expression)) for expression in expressions],
        ids=list(range(len(expressions))),
        elements=len(expressions),
        flags=[flags] * len(expressions),
    )


def _culprit(expressions: Sequence[str], error: Exception) -> PatternError:
    """Hyperscan does not say which of several expressions it refused."""
    for number, expression in enumerate(expressions):
        try:
            _hyperscan_compile(hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK), [expression])
        except hyperscan.error as own:
            return PatternError(f"Hyperscan: {own}", number)
    return PatternError(f"Hyperscan, all patterns together: {error}")


class _Hyperscan:
    """A database and a scratch space for each thread: two scans in one scratch are an error (HS_SCRATCH_IN_USE)."""

    def __init__(self, database: Any) -> None:
        self._database = database
        self._local = threading.local()

    def __call__(self, data: bytes) -> Collection[int]:
        found: list[int] = []
        try:
            scratch = self._local.scratch
        except AttributeError:
            scratch = self._local.scratch = hyperscan.Scratch(self._database)
        self._database.scan(data, _note, 0, found, scratch)
        return found


def _note(number: int, start: int, end: int, flags: int, found: list[int]) -> None:
    found.append(number)


def re2_filter(expressions: tuple[str, ...]) -> Filter:
    """All expressions in RE2 sets: one, or as few as fit into memory."""
    patterns = re2.Set.SearchSet(_options(max_mem=_FILTER_MEMORY_BYTES))
    for number, expression in enumerate(expressions):
        try:
            patterns.Add(_multiline(expression))
        except re2.error as error:
            raise PatternError(f"RE2: {error}", number) from None
    try:
        patterns.Compile()
    except re2.error:
        if len(expressions) == 1:
            raise PatternError("RE2: needs too much memory") from None
        middle = len(expressions) // 2
        return _either(re2_filter(expressions[:middle]), re2_filter(expressions[middle:]), middle)
    return lambda data: patterns.Match(data) or ()


def _either(low: Filter, high: Filter, offset: int) -> Filter:
    return lambda data: [*low(data), *(number + offset for number in high(data))]


DEFAULT_ENGINE: Engine = re2_filter if hyperscan is None else hyperscan_filter


def refusal(expression: str) -> str | None:
    """Why an expression, as a customer wrote it, cannot be searched for; None if it can."""
    if "\0" in expression:
        return r"contains a NUL character; write it as `\x{0}`"
    if not is_encodable(expression):
        return "contains a lone surrogate, which no text can contain"
    for escape in _ESCAPE.finditer(expression):
        if escape[1] in _REFUSED_ESCAPES:
            return f"`{escape[0]}` is not supported: {_REFUSED_ESCAPES[escape[1]]}"
    for flags in _INLINE_FLAGS.finditer(expression):
        on, _, off = (flags[1] or "").partition("-")
        if not (set(on) <= set("ims") and set(off) <= set("is")):
            return f"`{flags[0]}` is not supported: the flags are `i`, `m` (always on) and `s`"
    try:
        search = _compiled(expression).search
        DEFAULT_ENGINE((expression,))
    except PatternError as error:
        return f"{error} (patterns run in linear time: RE2 syntax, without look-around and back-references)"
    if any((match := search(probe)) and match.start() == match.end() for probe in _EMPTY_PROBES):
        return "can match the empty text, and so would match everywhere"
    return None


class Scanner:
    """All patterns of a chain, compiled. Immutable but for scratch space; safe in any number of threads."""

    def __init__(self, patterns: tuple[Pattern, ...], engine: Engine = DEFAULT_ENGINE) -> None:
        self._filter = engine(
            tuple(pattern.regex if pattern.placed else announcement(pattern.regex) for pattern in patterns)
        )
        self.places = tuple(map(Place, patterns))

    @property
    def occurring(self) -> Filter:
        """The numbers of the patterns that occur in some bytes, which `readable` has made."""
        return self._filter

    def prepare(self) -> None:
        """Compile now what would be compiled at the first occurrence, so that no request waits for all of it."""
        for place in sorted(self.places, key=lambda place: -place.size)[:_PREPARED]:
            place.prepare()

    def find(self, texts: Sequence[TextPart], most: int = sys.maxsize) -> tuple[Match, ...]:
        """Every match, in order of place; `Match.pattern` is the number of the pattern in this scanner.

        Raises CrowdedError where that means to look at more than `most` places.
        """
        found = self._filter(readable(encode("\n".join([part.text for part in texts]))))
        return self._locate(texts, found, most) if found else ()

    def occurs(self, data: bytes) -> bool:
        """Whether any pattern matches in bytes that `readable` has made: the filter alone may be wrong about one."""
        found = self._filter(data)
        return len(found) > MAX_DOUBTED or any(self.places[number].occurs(data) for number in found)

    def _locate(self, texts: Sequence[TextPart], found: Collection[int], most: int) -> tuple[Match, ...]:
        matches: list[Match] = []
        for part, text in enumerate(texts):
            data = readable(encode(text.text))
            for number in found if len(texts) == 1 else self._filter(data):
                place = self.places[number]
                most -= 1 if place.is_prepared else _UNPREPARED
                for one in place.candidates(data):
                    most -= 1
                    if most < 0:
                        raise CrowdedError
                    if one.confirmed:
                        matches.append(Match(part, one.start, one.end, number))
                if most < 0:
                    raise CrowdedError
        return tuple(sorted(matches, key=lambda one: (*placed(one), one.pattern)))


@functools.lru_cache(maxsize=32)
def scanner(patterns: tuple[Pattern, ...], engine: Engine = DEFAULT_ENGINE) -> Scanner:
    """The scanner for these patterns; shared by the phases and the configurations that look for the same."""
    return Scanner(patterns, engine)


class Candidate(NamedTuple):
    """A match at bytes `start` to `end`, whose surroundings begin at `whole`; `confirmed` by the pattern's check."""

    whole: int
    start: int
    end: int
    confirmed: bool


class Place:
    """Where one pattern matches. Compiled when it first occurs: a list of 1,000 terms would cost 0.2 s and 25 MB."""

    def __init__(self, pattern: Pattern) -> None:
        self._pattern = pattern
        self.once = pattern.once
        self._check = pattern.check
        self._group = 1 if pattern.placed else 0
        self.size = len(pattern.placed or pattern.regex)
        self._bounded = _is_bounded(pattern.placed or pattern.regex)

    def occurs(self, data: bytes) -> bool:
        """Whether it matches anywhere, its check not asked."""
        return self._search(data, 0) is not None

    def prepare(self) -> None:
        """Compile now what would be compiled at the first occurrence: up to some milliseconds, in a stream's way."""
        _ = self._search

    @property
    def is_prepared(self) -> bool:
        """Whether it has been compiled."""
        return "_search" in self.__dict__

    @functools.cached_property
    def _search(self) -> Callable[[bytes, int], Any]:
        search: Callable[[bytes, int], Any] = _compiled(self._pattern.placed or self._pattern.regex).search
        return search

    def candidates(self, data: bytes, position: int = 0) -> Iterator[Candidate]:
        """Matches that do not overlap, from left to right; after too many of them one match to the end of the text.
        From `position` on, and they may look at what stands before it. What is not confirmed takes its place all the
        same."""
        count = ahead = 0
        while (match := self._search(data, position)) is not None:
            start, end = match.span(self._group)
            count += 1
            ahead += len(data) - position
            if count > MAX_SPANS or (ahead > SEARCH_BUDGET_BYTES and not self._bounded):
                yield Candidate(match.start(), start, len(data), True)
                return
            position = end
            confirmed = self._check is None or self._check(data[start:end])
            yield Candidate(match.start(), start, end, confirmed)
            if confirmed and self.once:
                return


def literals(values: Sequence[bytes]) -> Callable[[bytes], Iterator[tuple[int, int, bytes]]]:
    """What finds these values in some bytes, the first of them where several begin at one place: start, end, value.

    By RE2: an alternation of 64 values keeps `re` busy for 20 ms in 256 KB, and all other threads waiting."""
    options = _options(log_errors=False)
    options.encoding = re2.Options.Encoding.LATIN1
    pattern = re2.compile(b"|".join(map(re2.escape, values)), options)
    return lambda data: ((match.start(), match.end(), match[0]) for match in pattern.finditer(data))


def _is_bounded(expression: str) -> bool:
    return all(token[1] is None for token in _UNBOUNDED.finditer(expression))


def _compiled(expression: str) -> Any:
    try:
        return re2.compile(_multiline(expression), _options(longest_match=True))
    except re2.error as error:
        raise PatternError(error.args[0].decode("utf-8", "replace")) from None


def _multiline(expression: str) -> str:
    return f"(?m){expression}"


def _options(**changes: Any) -> Any:
    options = re2.Options()
    options.log_errors = False
    for name, value in changes.items():
        setattr(options, name, value)
    return options


def readable(data: bytes) -> bytes:
    """What both engines read alike."""
    return data.replace(b"\x0b", b"\n") if b"\x0b" in data else data
