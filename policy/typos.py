"""Words of attacks with their inner letters shuffled ("prevoius instrcutions"), which people and models still read.

`TYPO` finds such words and never one that is spelled right; `mended` gives the word that was meant.
"""

from __future__ import annotations

from typing import Final

# ruff: noqa: SIM905

TELLING: Final = frozenset(
    """
    ignore disregard forget previous previously prior above instruction instructions prompt system password secret
    reveal override bypass pretend unrestricted restrictions guidelines developer everything
    rules hidden initial message output respond
    """.split()
)
"""Any of these, shuffled, shows that shuffled words are to be read."""

WORDS: Final = TELLING | frozenset(
    """
    your yours with without from this that these those have what when which where will would should must never always
    them they their into only also been before after about answer answers anything admin administrator assistant
    character commands command confidential content contents directives directive display earlier email ethical exactly
    filter filters following given guideline ignoring information jailbreak limitations limits messages mode model
    moral more next original output password passwords please policies policy print prompts query question questions
    repeat reply response restriction roleplay safety secrets send show start systems tell text told unfiltered
    uncensored user want word words write account address data delete file files forward internal
    possible provide tool tools
    """.split()
)
"""What is mended then."""


def _key(word: str) -> tuple[str, str, str]:
    return word[0], "".join(sorted(word[1:-1])), word[-1]


_MEANT: Final = {_key(word): word for word in sorted(WORDS) if len(word) > 3}

_ENDS: Final = frozenset((word[0], word[-1], len(word)) for word in _MEANT.values())


def _shuffled(word: str) -> str:
    """An expression for the word's inner letters in any order but its own: at some place the first wrong letter."""
    inner = word[1:-1]
    letters = "".join(sorted(set(inner)))
    ways = [
        f"{inner[:at]}[{others}][{letters}]{{{len(inner) - at - 1}}}"
        for at in range(len(inner) - 1)
        if (others := letters.replace(inner[at], ""))
    ]
    return f"[{word[0]}{word[0].upper()}](?:{'|'.join(ways)}){word[-1]}"


TYPO: Final = f"[^a-z](?:{'|'.join(map(_shuffled, sorted(TELLING)))})[^a-z]"
"""Finds such a word between other words. The words are few, since each costs half a microsecond for 4 KB."""


def mended(word: str) -> str | None:
    """The word that was meant, in lower case; None for a word that is none of these, or is spelled right."""
    lower = word.lower()
    if (lower[0], lower[-1], len(lower)) not in _ENDS:
        return None
    meant = _MEANT.get(_key(lower))
    return None if meant == lower else meant
