"""A text as somebody may mean it to be read: what hides words from a filter, undone.

`readings` gives the other ways to read a text: with invisible characters gone, look-alike letters folded, encodings
decoded, letters that stand apart joined. Each keeps a map back to the bytes of the original. Of most texts there is no
other reading, and one pass of a filter says so. What a reading means, and whether it is bad, is for policies to say.

The work is bounded: a few readings, `DECODED_BYTES` of decoded text, and expressions whose time grows with the text
alone. On 4 KB of clean ASCII it takes about 17 µs with Hyperscan.
"""

from __future__ import annotations

import base64
import bisect
import codecs
import functools
import html
import itertools
import re
import unicodedata
import urllib.parse
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final, NamedTuple

from policy import scan
from policy.text import encode
from policy.typos import TYPO, mended
from policy.unicode_folds import INVISIBLE, LOOKALIKES, MARKS, STYLED, folded

MAX_READINGS: Final = 12
"""Of one block."""
BLOCK: Final = 4096
"""A long text is read in blocks of so many characters, and of a block without a sign there is no other reading."""
OVERLAP: Final = 512
"""Blocks overlap by so much, so that no phrase is cut in all of them."""
DECODED_BYTES: Final = 16_384
"""So much decoded text one reading may hold; what is encoded beyond that stays as it is."""
MARGIN: Final = 256
MIN_DECODED: Final = 16
"""Fewer decoded bytes hide nothing, and would find meaning in any long word."""
MAX_CHARACTERS: Final = 1 << 18
"""Of a longer text only so much, from its beginning, is read in other ways."""


class Edit(NamedTuple):
    """Characters `start` to `end` become `text`."""

    start: int
    end: int
    text: str


class Reading:
    """One way to read a text. Immutable.

    `kind` names what was undone, in order, joined by `+` (`invisible+base64`).
    """

    def __init__(
        self, text: str, kind: str, source: str, edits: tuple[Edit, ...], before: Reading | None, offset: int
    ) -> None:
        self.text = text
        self.kind = kind
        self._source = source
        self._edits = edits
        self._before = before
        self._offset = offset

    def __repr__(self) -> str:
        return f"<reading {self.kind}, {len(self.text)} characters>"

    @property
    def hidden(self) -> bool:
        """The original shows none of these words to a reader: they were encoded or invisible."""
        return any(kind in _HIDING for kind in self.kind.split("+"))

    @property
    def smuggled(self) -> int:
        """How many characters stood in tags or variation selectors, which no honest text holds."""
        own = sum(len(edit.text) for edit in self._edits) if self.kind.rpartition("+")[2] in _CHANNELS else 0
        return own + (self._before.smuggled if self._before is not None else 0)

    @property
    def excerpt(self) -> str:
        """What is new in this reading, with `MARGIN` characters on either side: all that a reader of the text as it
        stands has not seen. The whole where several steps led to it."""
        if self._before is not None:
            return self.text
        pieces: list[tuple[int, int]] = []
        shift = 0
        for start, end, text in self._edits:
            first, last = max(0, start + shift - MARGIN), start + shift + len(text) + MARGIN
            shift += len(text) - (end - start)
            if pieces and first <= pieces[-1][1]:
                pieces[-1] = (pieces[-1][0], last)
            else:
                pieces.append((first, last))
        return "\n".join(self.text[first:last] for first, last in pieces)

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Where bytes `start` to `end` of this reading (UTF-8) come from in the original. What an edit made comes from
        all that it replaced."""
        ours, theirs = self._places
        first = max(0, bisect.bisect_right(ours, start) - 1)
        last = max(first, bisect.bisect_left(ours, end) - 1)
        began = theirs[first] + (start - ours[first] if first % 2 == 0 else 0)
        ended = theirs[last] + (end - ours[last]) if last % 2 == 0 else theirs[last + 1]
        if self._before is not None:
            return self._before.span(began, ended)
        return self._offset + began, self._offset + ended

    @functools.cached_property
    def _places(self) -> tuple[list[int], list[int]]:
        """Where stretches begin, here and in the source: copied ones at even places, replaced ones at odd."""
        ours, theirs, at = [0], [0], 0
        for start, end, text in self._edits:
            kept = len(encode(self._source[at:start]))
            ours += (ours[-1] + kept, ours[-1] + kept + len(encode(text)))
            theirs += (theirs[-1] + kept, theirs[-1] + kept + len(encode(self._source[start:end])))
            at = end
        theirs.append(len(encode(self._source)))
        return ours, theirs


Undo = Callable[[str], Iterable[Edit]]

_CHANNELS: Final = frozenset(("tags", "selectors"))
_HIDING: Final = _CHANNELS | {"base64", "hex"}


def readings(text: str, depth: int = 2) -> tuple[Reading, ...]:
    """The other ways to read a text, most likely first; none for plain text.

    `depth` says how many layers of encoding are taken off; 0 leaves encodings alone.
    """
    found: list[Reading] = []
    for start in range(0, min(max(len(text) - OVERLAP, 1), MAX_CHARACTERS), BLOCK):
        block = text[start : start + BLOCK + OVERLAP]
        if signs := _signs(block):
            _read(block, None, signs, depth, found, _Place(len(encode(text[:start])), len(found) + MAX_READINGS))
    return tuple(found)


class _Place(NamedTuple):
    """Where a block begins, in bytes, and how many readings there may be after it."""

    offset: int
    most: int


def _read(
    text: str, before: Reading | None, signs: Collection[str], depth: int, found: list[Reading], place: _Place
) -> None:
    """Add the readings of one text: first what stands in one line, each step on the last, then each alternative."""
    reading = before
    for kind in _IN_LINE:
        if kind in signs and (depth > 0 or kind not in _ENCODINGS):
            after = _undone(kind, text, reading, place.offset)
            if after is not None:
                reading, text = after, after.text
                if kind in _REVEALING:
                    signs = {*signs, *_signs(text)}
    if reading is not before and reading is not None:
        found.append(reading)
    for kind in _ALTERNATIVES:
        sign = "reversed" if kind == "words reversed" else kind
        if sign in signs and len(found) < place.most and (depth > 0 or kind not in _ENCODINGS):
            other = _undone(kind, text, reading, place.offset)
            if other is not None:
                found.append(other)
                if kind in _ENCODINGS and depth > 1 and (inner := _signs(other.text) - _LOOSE):
                    _read(other.text, other, inner, depth - 1, found, place)


def _undone(kind: str, text: str, before: Reading | None, offset: int) -> Reading | None:
    edits = tuple(edit for edit in _UNDO[kind](text) if text[edit.start : edit.end] != edit.text)
    if not edits:
        return None
    name = kind if before is None else f"{before.kind}+{kind}"
    return Reading(_edited(text, edits), name, text, edits, before, offset)


def _edited(text: str, edits: Iterable[Edit]) -> str:
    pieces: list[str] = []
    at = 0
    for start, end, replacement in edits:
        pieces += (text[at:start], replacement)
        at = end
    return "".join([*pieces, text[at:]])


# What shows that there is something to undo. The names are those of the undoings.

_LETTER = "[A-Za-z]"
_LEET_WORD = r"(?:[A-Za-z][013457@$!][A-Za-z0-9@$!]|\b[134057@$!][A-Za-z]{2})"
_GAPS = (" ", r"\.", "-", "_", r"\*", r"\|", "/", ",", "~", r"\+", ":", "·", "•")
_SIGNS: Final[dict[str, str]] = {
    "escapes": r"\\(?:u[0-9A-Fa-f]{4}|x[0-9A-Fa-f]{2}|u\{[0-9A-Fa-f]{1,6}\})",
    "percent": r"%[0-9A-Fa-f]{2}[^%\n]{0,24}%[0-9A-Fa-f]{2}",
    "entities": r"&(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z]{2,12});",
    "markup": r"[A-Za-z]</?[A-Za-z]|<!--|-->",
    "emphasis": r"[A-Za-z](?:\*{1,3}|~~|`|_{2})[A-Za-z]|[A-Za-z]_[A-Za-z]{1,9}_[A-Za-z]|[a-z]_[a-z]{1,3}\b",
    "lines": r"\n[ \t]*[^\s]{1,24}\r?\n[ \t]*[^\s]{1,24}\r?\n[ \t]*[^\s]{1,24}\r?\n",
    "joined": "|".join(f"{gap}[A-Za-z]{gap}[A-Za-z]{gap}[A-Za-z]{gap}" for gap in _GAPS),
    "leet": rf"{_LEET_WORD}[^\n]{{0,40}}{_LEET_WORD}",
    "typos": TYPO,
    "rot13": "(?i)vtaber|cerivbhf|vafgehpgvba|flfgrz|cebzcg|sbetrg|qvfertneq|cnffjbeq|frperg|erirny|cergraq"
    "| gur | naq | lbhe? ",
    "reversed": "(?i)erongi|suoiverp|noitcurtsni|metsys|tpmorp|tegrof|drageersid|drowssap|terces|laever|dneterp"
    "| eht | ruoy | uoy ",
    "base64": r"[A-Za-z0-9+/_-]{22}",
    "hex": r"[0-9A-Fa-f]{24}|(?:[0-9A-Fa-f]{2}[ :]){8}|\\x[0-9A-Fa-f]{2}|0x[0-9A-Fa-f]{2}[ ,]",
}
"""Literals and short runs, so that one automaton of a few kilobytes has them all (17 µs for 4 KB without a sign)."""
_DRESSED = "".join(char for char in STYLED if not "\U0001f1e6" <= char <= "\U0001f1ff")  # two of those are a flag
_BEYOND_ASCII: Final[dict[str, str]] = {
    "bidi": "\u202e",
    "tags": "[\U000e0020-\U000e007e]{4}",
    "selectors": "[\ufe00-\ufe0f\U000e0100-\U000e01ef]{4}",
    "letters": "|".join(
        (
            rf"[0-9A-Za-z][{INVISIBLE}]+[0-9A-Za-z ]",
            f"[{INVISIBLE}]{{3}}",
            "\u00ad|\u200b|\u2060|\ufeff",
            f"[A-Za-z][{MARKS}]",
            f"[{_DRESSED}]{{2}}|[{_DRESSED}][A-Za-z]{{2}}|[A-Za-z][{_DRESSED}][A-Za-z]",
            "(?:[\U0001f1e6-\U0001f1ff]\\s){2}",
            f"[A-Za-z][{''.join(LOOKALIKES)}]|[{''.join(LOOKALIKES)}][A-Za-z]",
            "(?:[\u00c0-\u024f][A-Za-z]?){3}",
        )
    ),
}


@functools.cache
def _filter(beyond_ascii: bool) -> tuple[scan.Filter, tuple[str, ...]]:
    signs = _SIGNS | _BEYOND_ASCII if beyond_ascii else _SIGNS
    return scan.DEFAULT_ENGINE(tuple(signs.values())), tuple(signs)


def _signs(text: str) -> set[str]:
    """What may have to be undone. It errs towards too much: the undoing itself looks again."""
    ascii = text.isascii()
    occurring, names = _filter(not ascii)
    found = {names[number] for number in occurring(scan.readable(encode(text)))}
    if not ascii and not unicodedata.is_normalized("NFKC", text):
        found.add("letters")
    return found


# The undoings. Each expression is linear: what repeats is bounded, or cannot match what follows it.

_MIXED = re.compile(rf"{_LETTER}[{''.join(LOOKALIKES)}]|[{''.join(LOOKALIKES)}]{_LETTER}")
_OVERRIDE = re.compile("\u202e([^\u202c\u2029\n]{0,4096})\u202c?")
_TAGS = re.compile("[\U000e0000-\U000e007f]{4,}")
_SELECTORS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]{4,}")
_ESCAPE = re.compile(r"\\{1,8}(?:u([0-9A-Fa-f]{4})|x([0-9A-Fa-f]{2})|u\{([0-9A-Fa-f]{1,6})\}|[nrt\"/])")
_PERCENT = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z]{2,12});?")
_TAG = re.compile(
    r"<!--|-->|</?(b|i|u|s|em|strong|span|wbr|mark|sub|sup|small|big|font|a)\b[^<>]{0,200}>|</?[A-Za-z][A-Za-z0-9]{0,15}[^<>]{0,400}>"
)
_EMPHASIS = re.compile(r"(?<=[A-Za-z])(?:\*{1,3}|~{2}|`{1,3}|_{1,3})(?=[A-Za-z])")
_LINES = re.compile(r"[ \t]*\r?\n[ \t\r\n]*")
_APART = re.compile(r"(?<![A-Za-z])[A-Za-z](?:[^A-Za-z0-9\n]{1,5}[A-Za-z](?![A-Za-z])){1,}")
_GAP = re.compile(r"[^A-Za-z]+")
_LETTERS = re.compile(r"[A-Za-z]{2,}")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{20,}(?:[ \t]?\r?\n[A-Za-z0-9+/_-]{20,})*={0,2}")
_HEX = re.compile(r"(?:0x)?[0-9A-Fa-f]{2}(?:[\s:,]{0,2}(?:0x|\\x)?[0-9A-Fa-f]{2}){15,}")
_LEET = re.compile(r"(?<=[A-Za-z])[013457@$]+|[013457@$!]+(?=[A-Za-z])")
_LEET_FOLD = str.maketrans("013457@$!", "oieastasi")


def _fold_letters(text: str) -> Iterator[Edit]:
    mixed = _MIXED.search(text) is not None
    changes = {ord(far): new for far in set(text) if far > "\x7f" and (new := folded(far, lookalikes=mixed)) != far}
    if changes:
        for run in re.finditer(f"[{re.escape(''.join(sorted(map(chr, changes))))}]+", text):
            yield Edit(run.start(), run.end(), run[0].translate(changes))


def _turn_overrides(text: str) -> Iterator[Edit]:
    for match in _OVERRIDE.finditer(text):
        yield Edit(match.start(), match.end(), match[1][::-1])


def _read_tags(text: str) -> Iterator[Edit]:
    """Tag characters are ASCII plus U+E0000; only a flag may carry some (Unicode Technical Standard 51, annex C)."""
    for match in _TAGS.finditer(text):
        shown = "".join(chr(ord(char) - 0xE0000) for char in match[0] if "\U000e0020" <= char <= "\U000e007e")
        flag = match.start() > 0 and text[match.start() - 1] == "\U0001f3f4"
        yield Edit(match.start(), match.end(), "" if flag and len(shown) < 8 else f" {shown} ")


def _read_selectors(text: str) -> Iterator[Edit]:
    """256 variation selectors can stand for the bytes of a text."""
    for match in _SELECTORS.finditer(text):
        data = bytes(ord(c) - 0xFE00 if c <= "\ufe0f" else ord(c) - 0xE0100 + 16 for c in match[0])
        shown = _as_text(data, 4)
        if shown is not None:
            yield Edit(match.start(), match.end(), f" {shown} ")


_SHORT_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "/": "/"}


def _read_escapes(text: str) -> Iterator[Edit]:
    for match in _ESCAPE.finditer(text):
        digits = match[1] or match[2] or match[3]
        code = int(digits, 16) if digits else -1
        if code < 0:
            yield Edit(match.start(), match.end(), _SHORT_ESCAPES[match[0][-1]])
        elif code < 0x110000 and not 0xD800 <= code < 0xE000:
            yield Edit(match.start(), match.end(), chr(code))


def _read_percent(text: str) -> Iterator[Edit]:
    for match in _PERCENT.finditer(text):
        yield Edit(match.start(), match.end(), urllib.parse.unquote(match[0], errors="replace"))


def _read_entities(text: str) -> Iterator[Edit]:
    for match in _ENTITY.finditer(text):
        yield Edit(match.start(), match.end(), html.unescape(match[0]))


def _drop_markup(text: str) -> Iterator[Edit]:
    """Tags inside words go; others leave a space. What attributes and comments say stays in the text as it came."""
    for match in _TAG.finditer(text):
        if match[1]:
            yield Edit(match.start(), match.end(), "")
        elif match[0] in ("<!--", "-->"):
            yield Edit(match.start(), match.end(), "" if _inside_word(text, match) else " ")


def _inside_word(text: str, match: re.Match[str]) -> bool:
    return text[match.start() - 1 : match.start()].isalpha() and text[match.end() : match.end() + 1].isalpha()


def _drop_emphasis(text: str) -> Iterator[Edit]:
    for match in _EMPHASIS.finditer(text):
        yield Edit(match.start(), match.end(), "")


def _join_lines(text: str) -> Iterator[Edit]:
    for match in _LINES.finditer(text):
        yield Edit(match.start(), match.end(), " ")


def _join_letters(text: str) -> Iterator[Edit]:
    """Letters that stand apart: the gap that is usual inside words goes, a longer or another one becomes a space."""
    for match in _APART.finditer(text):
        gaps = _GAP.findall(match[0])
        usual = min(set(gaps), key=lambda gap: (len(gap), -gaps.count(gap)))
        yield Edit(match.start(), match.end(), _GAP.sub(lambda gap, u=usual: "" if gap[0] == u else " ", match[0]))  # type: ignore[misc]


def _read_leet(text: str) -> Iterator[Edit]:
    """Digits and signs beside letters as letters, but for the number that a name ends with (`base64`)."""
    for match in _LEET.finditer(text):
        if len(match[0]) == 1 or not match[0].isdigit() or text[match.end() : match.end() + 1].isalpha():
            yield Edit(match.start(), match.end(), match[0].translate(_LEET_FOLD))


def _mend_typos(text: str) -> Iterator[Edit]:
    for match in _LETTERS.finditer(text):
        if (word := mended(match[0])) is not None:
            yield Edit(match.start(), match.end(), word)


def _turn_alphabet(text: str) -> Iterator[Edit]:
    yield Edit(0, len(text), codecs.encode(text, "rot13"))


def _turn_words(text: str) -> Iterator[Edit]:
    """Written backwards as a whole; each word alone is tried when that is what it looks like."""
    yield Edit(0, len(text), text[::-1])


def _turn_each_word(text: str) -> Iterator[Edit]:
    for match in _LETTERS.finditer(text):
        yield Edit(match.start(), match.end(), match[0][::-1])


def _read_base64(text: str) -> Iterator[Edit]:
    yield from _decoded(text, _BASE64, _from_base64)


def _read_hex(text: str) -> Iterator[Edit]:
    yield from _decoded(text, _HEX, lambda found: bytes.fromhex(re.sub(r"0x|\\x|[\s:,]", "", found)))


def _decoded(text: str, candidates: re.Pattern[str], decode: Callable[[str], bytes]) -> Iterator[Edit]:
    left = DECODED_BYTES
    for match in itertools.islice(candidates.finditer(text), 256):
        if left <= 0:
            return
        try:
            shown = _as_text(decode(match[0][: 2 * left]), MIN_DECODED)
        except ValueError:
            continue
        if shown is not None:
            left -= len(shown)
            yield Edit(match.start(), match.end(), f" {shown} ")


def _from_base64(found: str) -> bytes:
    """Standard and URL alphabets, with or without padding, broken over lines (RFC 4648, sections 4 and 5)."""
    plain = re.sub(r"[\s=]", "", found).translate(str.maketrans("-_", "+/"))
    whole = plain[: len(plain) - 1] if len(plain) % 4 == 1 else plain
    return base64.b64decode(whole + "=" * (-len(whole) % 4))


def _as_text(data: bytes, least: int) -> str | None:
    """The bytes as text, if they are one: UTF-8 that is nearly all letters, spaces and common signs."""
    if len(data) < least:
        return None
    text = data.decode("utf-8", "ignore")
    letters = sum(char.isalnum() or char.isspace() for char in text)
    strange = len(data) - len(text.encode()) + sum(not (char.isprintable() or char.isspace()) for char in text)
    return text if letters >= 0.6 * len(text) and strange <= 0.02 * len(data) else None


_UNDO: Final[dict[str, Undo]] = {
    "bidi": _turn_overrides,
    "tags": _read_tags,
    "selectors": _read_selectors,
    "letters": _fold_letters,
    "escapes": _read_escapes,
    "percent": _read_percent,
    "entities": _read_entities,
    "markup": _drop_markup,
    "emphasis": _drop_emphasis,
    "lines": _join_lines,
    "joined": _join_letters,
    "leet": _read_leet,
    "typos": _mend_typos,
    "rot13": _turn_alphabet,
    "reversed": _turn_words,
    "words reversed": _turn_each_word,
    "base64": _read_base64,
    "hex": _read_hex,
}
_IN_LINE: Final = (
    "tags",
    "selectors",
    "bidi",
    "letters",
    "escapes",
    "percent",
    "entities",
    "letters",
    "markup",
    "emphasis",
    "lines",
    "typos",
    "joined",
)
_ALTERNATIVES: Final = ("base64", "hex", "leet", "rot13", "reversed", "words reversed")
_ENCODINGS: Final = frozenset(
    ("escapes", "percent", "entities", "base64", "hex", "rot13", "reversed", "words reversed")
)
_REVEALING: Final = frozenset(("tags", "selectors", "bidi", "letters", "escapes", "percent", "entities", "joined"))
_LOOSE: Final = frozenset(("rot13", "reversed", "lines"))
"""Inside what was decoded these would only undo the decoding, or find nothing that was hidden."""
