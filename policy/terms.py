"""Words and phrases as patterns: in either case, over any white space, as whole words of any script if asked.

In the chain's scan one word stands for each term: the one that fewest terms share, of those the longest. Only where it
occurs is the place searched for the whole. Hyperscan compiles 1,000 such words in 0.13 s and 1,000 terms of two words
with `\\b` in 1.9 s, and scans both at the same speed.

What may stand beside a word is a choice of ranges: the exact complement of letters, marks and digits makes an RE2
program of 300 KB and 3 ms for each term, these ranges one of 25 KB and 0.2 ms.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence

import re2

from policy.base import Pattern

SHORT = 4

MAX_PHRASES = 100
"""So many terms of several words are looked for whole by the scan, for 3 ms each when a chain is compiled. Of more, one
word stands for each, and where it occurs in a text of 32 KB the search for the others takes 60 to 160 µs."""

# ASCII and Latin-1 but letters and digits; Hebrew, Arabic and Devanagari punctuation; Thai and Lao, Myanmar, Khmer, Han
# and kana with all around them, which are written without spaces, so that every place is the end of a word; general
# punctuation without U+203F and U+2040, which join words; symbols; private use; compatibility and full-width forms;
# emoji.
_BESIDE_WORD = (
    r"[\x00-/:-@\[-^`{-\x{a9}\x{ab}-\x{b4}\x{b6}-\x{b9}\x{bb}-\x{bf}\x{d7}\x{f7}"
    r"\x{5be}\x{5c0}\x{5c3}\x{5f3}\x{5f4}\x{60c}\x{61b}\x{61f}\x{6d4}\x{964}\x{965}"
    r"\x{e00}-\x{eff}\x{1000}-\x{109f}\x{1680}\x{1780}-\x{17ff}\x{2000}-\x{203e}\x{2041}-\x{206f}\x{207a}-\x{207e}"
    r"\x{208a}-\x{208e}\x{20a0}-\x{20cf}\x{2190}-\x{2bff}\x{2e00}-\x{9fff}\x{e000}-\x{faff}\x{fe10}-\x{fe1f}"
    r"\x{fe30}-\x{fe6f}\x{ff00}-\x{ff0f}\x{ff1a}-\x{ff20}\x{fff0}-\x{ffff}\x{1f000}-\x{1faff}\x{20000}-\x{3ffff}]"
)
_SPACE = r"[\s\p{Z}]+"


def term_patterns(terms: Sequence[str], *, whole_word: bool, once: bool) -> tuple[Pattern, ...]:
    """One pattern for each term. White space in a term stands for any white space; there must be more than that."""
    split = [term.split() for term in terms]
    whole = sum([len(words) > 1 for words in split]) <= MAX_PHRASES
    common = collections.Counter(word.casefold() for words in split for word in set(words))
    return tuple(
        Pattern(
            _phrase(words)
            if whole and len(words) > 1
            else _announcement(min(words, key=lambda word: (common[word.casefold()], -len(word))), whole_word),
            placed=_place(words, whole_word),
            once=once,
        )
        for words in split
    )


def _phrase(words: Sequence[str]) -> str:
    return f"(?i){_SPACE.join(map(_letters, words))}"


def _announcement(word: str, whole_word: bool) -> str:
    """The word that stands for the term in the scan. A short one is likely to be inside others, so ask for its ends."""
    edge = r"\b" if whole_word and len(word) <= SHORT and word.isascii() and word.isalnum() else ""
    return f"(?i){edge}{_letters(word)}{edge}"


def _place(words: Sequence[str], whole_word: bool) -> str:
    before = rf"(?:^|{_BESIDE_WORD})" if whole_word and _is_word(words[0][0]) else ""
    after = rf"(?:$|{_BESIDE_WORD})" if whole_word and _is_word(words[-1][-1]) else ""
    return f"(?i){before}({_SPACE.join(map(_letters, words))}){after}"


def _is_word(char: str) -> bool:
    """The character goes on a word, so that a whole word must end beside it."""
    return re2.fullmatch(_BESIDE_WORD, char) is None


def _letters(word: str) -> str:
    return "".join(map(_letter, word))


def _letter(char: str) -> str:
    """One character as an expression. `(?i)` knows most pairs of letters; Hyperscan's table lacks recent ones."""
    if char.isascii():
        return char if char.isalnum() else rf"\x{{{ord(char):x}}}"
    cases = {char, *(case for case in (char.lower(), char.upper()) if len(case) == 1)}
    return char if len(cases) == 1 else f"[{''.join(sorted(cases))}]"
