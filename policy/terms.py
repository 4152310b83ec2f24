"""Words and phrases as patterns: in either case, over any white space, as whole words of any script if asked.

Whole words are found in two steps. The filter is given `\\b` where the term's edge is ASCII; the place is then searched
with what may stand beside a word. That list is a choice of ranges: the exact complement of letters, marks and digits
makes an RE2 program of 300 KB and 3 ms for each term, these ranges one of 25 KB and 0.2 ms.
"""

from __future__ import annotations

import re2

from policy.base import Pattern

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


def term_pattern(term: str, *, whole_word: bool, once: bool) -> Pattern:
    """A term as a pattern. White space in it stands for any white space. `term` must hold more than white space."""
    words = term.split()
    body = "(?i)" + _SPACE.join("".join(map(_letter, word)) for word in words)
    if not whole_word:
        return Pattern(body, once=once)
    first, last = words[0][0], words[-1][-1]
    before = rf"(?:^|{_BESIDE_WORD})" if _is_word(first) else ""
    after = rf"(?:$|{_BESIDE_WORD})" if _is_word(last) else ""
    announced = (r"\b" if before and first.isascii() else "") + body + (r"\b" if after and last.isascii() else "")
    return Pattern(announced, placed=f"{before}({body}){after}" if before or after else "", once=once)


def _is_word(char: str) -> bool:
    """The character goes on a word, so that a whole word must end beside it."""
    return re2.fullmatch(_BESIDE_WORD, char) is None


def _letter(char: str) -> str:
    """One character as an expression. `(?i)` knows most pairs of letters; Hyperscan's table lacks recent ones."""
    if char.isascii():
        return char if char.isalnum() else rf"\x{{{ord(char):x}}}"
    cases = {char, *(case for case in (char.lower(), char.upper()) if len(case) == 1)}
    return char if len(cases) == 1 else f"[{''.join(sorted(cases))}]"
