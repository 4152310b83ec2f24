"""Matching in a text while it flows, holding back only what could still become a match.

A `Watch` is what a chain looks for, compiled once. A `Flow` is one text: pieces go in, and what may go on comes out, in
the same call. Of each piece two things are asked: which patterns occur (the chain's filter, `scan.py`), and where the
first beginning of a match stands that the text's end has not refuted (`prefix.py`, one RE2 search from the end
backwards). What stands before that place goes on, its matches judged; the rest waits. So a text without such a
beginning is never held, and a text cut anywhere has the matches that it has as a whole.

State is text, not automata: what waits, and a little of what has gone, for the surroundings of matches. It is looked at
again with the next piece, which keeps both engines and all validators usable as they are.

Measured on one core for pieces of five characters, 1,000 terms and 12 patterns of personal data: 3 to 5 µs a piece.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, NamedTuple

import re2

from gateway.types import TextPart
from policy import prefix, scan
from policy.base import BEFORE, Match, Pattern, Redaction
from policy.text import encode, merged

MAX_HELD: Final = 64 * 1024
"""Characters of one text that may wait. A longer match is not waited for: it is an error of the policy."""

_EDGE: Final = 2
"""Characters of what has gone that word boundaries, line starts and what must stand before a term may look at."""
_LIVE_MEMORY_BYTES: Final = 256 * 1024 * 1024

_PREPARED: Final = 512
"""Up to so many patterns are made ready for their first match; a list of 1,000 terms would take 0.2 s and 25 MB."""

Judge = Callable[[TextPart, Sequence[Match]], Sequence[Redaction]]
"""Is shown a window of the text with its complete matches, and says what to put in the place of which. May raise, to
end the stream."""


class HeldTooLongError(Exception):
    """So much text is a beginning of a match that it cannot wait any longer."""


class Watch:
    """What is looked for in flowing texts. Immutable but for scratch space; safe in any number of threads."""

    __slots__ = ("after", "find", "live", "looks_back", "places")

    def __init__(self, patterns: tuple[Pattern, ...], after: Sequence[int], engine: scan.Engine) -> None:
        """`after`: for each pattern, bytes after a match that are needed to judge it. Raises PatternError."""
        scanner = scan.scanner(patterns, engine)
        begun = [prefix.live(pattern.placed or pattern.regex, placed=bool(pattern.placed)) for pattern in patterns]
        self.find = scanner.occurring
        self.places = scanner.places
        for place in scanner.places if len(scanner.places) <= _PREPARED else ():
            place.prepare()
        self.after = tuple(after)
        self.looks_back = tuple(bool(one.before) for one in begun)
        self.live = _live(begun)


def _live(begun: Sequence[prefix.Live]) -> Callable[[bytes], int]:
    """Where the first living beginning in some bytes starts, or -1."""
    grouped: dict[str, list[str]] = {}
    for one in begun:
        grouped.setdefault(one.before, []).append(f"(?:{one.begun})")
    expression = "|".join(f"{before}(?:{'|'.join(rest)})" for before, rest in grouped.items())
    try:
        search = _compiled(rf"(?m)(?:{expression})\z").search
        begins = _compiled("|".join(sorted({one.first for one in begun}))).match
    except scan.PatternError:
        if len(begun) == 1:
            raise
        return _earlier(_live(begun[: len(begun) // 2]), _live(begun[len(begun) // 2 :]))

    def live(data: bytes) -> int:
        match = search(data)
        if match is None:
            return -1
        start: int = match.start()
        # The character before a term is part of the match, and need not wait.
        return start if begins(data, start) is not None else start + _width(data[start])

    return live


def _width(byte: int) -> int:
    """Bytes of the character that begins with a byte (RFC 3629, section 3)."""
    return 1 if byte < 0xC0 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4


def _earlier(one: Callable[[bytes], int], other: Callable[[bytes], int]) -> Callable[[bytes], int]:
    def live(data: bytes) -> int:
        places = [place for place in (one(data), other(data)) if place >= 0]
        return min(places, default=-1)

    return live


def _compiled(expression: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _LIVE_MEMORY_BYTES
    try:
        return re2.compile(expression, options)
    except re2.error as error:
        reason = error.args[0]
        reason = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        raise scan.PatternError(f"cannot be followed in a stream (`streaming: guard`): {reason}") from None


class _Seen(NamedTuple):
    """A match in a window. `whole` is where its surroundings begin, which must not go before it is decided."""

    start: int
    end: int
    pattern: int
    whole: int
    confirmed: bool


class Flow:
    """One text on its way. `part` says whose it is and where it stands; its own text is empty."""

    __slots__ = ("_before", "_done", "_ends", "_gone", "_held", "_judge", "_part", "_watch")

    def __init__(self, watch: Watch, part: TextPart, judge: Judge) -> None:
        self._watch = watch
        self._part = part
        self._judge = judge
        self._before = ""
        self._held = ""
        self._gone = 0
        self._ends: dict[int, int] = {}
        self._done: set[int] = set()

    @property
    def held(self) -> str:
        """What waits."""
        return self._held

    def feed(self, text: str) -> str:
        """What may go on, with what policies put in the place of matches. Raises what the judge raises, and
        HeldTooLongError."""
        watch, held = self._watch, self._held
        edge = self._before[-_EDGE:]
        probe = scan.readable(encode(edge + held + text))
        first = watch.live(probe)
        found = watch.find(probe)
        if found:
            return self._settle(text, found, None if first < 0 else first - len(encode(edge)))
        if first < 0:
            self._held = ""
            return self._let_go(held + text if held else text)
        return self._hold(held + text, first - len(encode(edge)))

    def close(self) -> str:
        """The text is over: what waited, judged as it stands."""
        if not self._held:
            return ""
        found = self._watch.find(scan.readable(encode(self._before[-_EDGE:] + self._held)))
        if found:
            return self._settle("", found, None, end=True)
        held, self._held = self._held, ""
        return self._let_go(held)

    def release(self) -> str:
        """What waits, unjudged: for a fail mode that lets texts pass."""
        held, self._held = self._held, ""
        return self._let_go(held)

    def _let_go(self, text: str) -> str:
        self._before = (self._before + text)[-BEFORE:]
        self._gone += len(text) if text.isascii() else len(encode(text))
        return text

    def _hold(self, text: str, place: int) -> str:
        """Let go what stands before a place, in bytes of `text`."""
        # Counted in characters: a lone surrogate has no UTF-8 form, and must not change for having waited.
        cut = max(place, 0) if text.isascii() else len(encode(text)[: max(place, 0)].decode())
        self._held = text[cut:]
        if len(self._held) > MAX_HELD:
            raise HeldTooLongError(f"more than {MAX_HELD} characters could be the beginning of a match")
        return self._let_go(text[:cut])

    def _settle(self, text: str, found: Collection[int], live: int | None, *, end: bool = False) -> str:
        """Something occurs: judge what is complete, hold what is not."""
        window = self._before + self._held + text
        data = encode(window)
        base = len(encode(self._before))
        seen = self._seen(scan.readable(data), base, found)
        hold = self._bound(seen, len(data), len(data) if live is None else base + max(live, 0), end)
        complete = self._conclude([one for one in seen if one.start < hold], self._gone - base)
        gone = self._hold(self._held + text, hold - base)
        if not complete:
            return gone
        shown = TextPart(window, self._part.role, self._part.kind, self._part.path)
        return _rewritten(data, base, hold, self._judge(shown, complete))

    def _conclude(self, seen: Sequence[_Seen], origin: int) -> list[Match]:
        """Remember where the complete matches end, and give those that are confirmed."""
        for one in seen:
            self._ends[one.pattern] = max(self._ends.get(one.pattern, 0), origin + one.end)
        matches = [Match(0, one.start, one.end, one.pattern) for one in seen if one.confirmed]
        self._done.update(match.pattern for match in matches)
        return matches

    def _seen(self, data: bytes, base: int, found: Collection[int]) -> list[_Seen]:
        """The matches in what has not gone yet, in order of place."""
        watch, origin = self._watch, self._gone - base
        last = len(encode(self._before[-1:]))
        seen: list[_Seen] = []
        for number in found:
            place, ended = watch.places[number], self._ends.get(number, 0)
            if place.once and number in self._done:
                continue
            looks_back = watch.looks_back[number]
            start = max(base - last if looks_back else base, ended - origin)
            seen += [
                _Seen(one.start, one.end, number, one.start if looks_back else one.whole, one.confirmed)
                for one in place.candidates(data, start)
                if one.start >= base
            ]
        return sorted(seen)

    def _bound(self, seen: Sequence[_Seen], size: int, live: int, end: bool) -> int:
        """Up to where all is decided: no match reaches beyond it, waits for what follows it, or begins with what stands
        before it."""
        bound, after = live, self._watch.after
        while True:
            open_ = [
                one.whole
                for one in seen
                if one.whole < bound
                and (bound <= one.start or bound < one.end or (not end and one.end + after[one.pattern] > size))
            ]
            if not open_:
                return bound
            bound = min(open_)


def _rewritten(data: bytes, base: int, hold: int, redactions: Sequence[Redaction]) -> str:
    pieces, kept = [], base
    for one in merged(redactions):
        if one.start < base or one.end > hold:
            raise IndexError("a redaction reaches beyond the matches that it was asked about")
        pieces += [data[kept : one.start], encode(one.replacement)]
        kept = one.end
    return b"".join([*pieces, data[kept:hold]]).decode("utf-8", "replace")
