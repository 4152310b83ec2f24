"""Words of attacks with their inner letters shuffled ("prevoius instrcutions"), which people and models still read.

`TYPO` finds such words and never one that is spelled right; `mended` gives the word that was meant.
"""

from __future__ import annotations

import functools
from importlib import resources
from typing import Final

# ruff: noqa: SIM905

TELLING: Final = """
    ignore disregard forget previous previously prior above instruction instructions prompt system password secret
    reveal override bypass pretend unrestricted restrictions guidelines developer everything
    rules hidden initial message output respond
    your what that this with tell have will when them they please write answer
    """.split()
"""Any of these, shuffled, shows that shuffled words are to be read."""


@functools.cache
def words() -> tuple[str, ...]:
    """What is mended then: also the commonest words of four letters and more in the texts that the model was trained
    on. Read for the first chain that wants them."""
    return (*TELLING, *resources.files("policy").joinpath("data/words.txt").read_text().split())


def _key(word: str) -> tuple[str, str, str]:
    return word[0], "".join(sorted(word[1:-1])), word[-1]


@functools.cache
def _known() -> frozenset[str]:
    return frozenset(words())


@functools.cache
def _meant() -> dict[tuple[str, str, str], str]:
    return {_key(word): word for word in reversed(words()) if len(word) > 3}


@functools.cache
def _ends() -> frozenset[tuple[str, str, int]]:
    return frozenset((word[0], word[-1], len(word)) for word in _meant().values())


def load() -> None:
    """Make what `mended` needs, off the path of any request: 10 ms."""
    _known()
    _ends()


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


TYPO: Final = f"[^a-z](?:{'|'.join(map(_shuffled, TELLING))})[^a-z]"
"""Finds such a word between other words. The words are few, since each costs half a microsecond for 4 KB."""


def mended(word: str) -> str | None:
    """The word that was meant, in lower case; None for a word that is none of these, or is spelled right."""
    lower = word.lower()
    if lower in _known() or (lower[0], lower[-1], len(lower)) not in _ends():
        return None
    return _meant().get(_key(lower))
