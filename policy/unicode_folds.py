"""Characters that look like others, or like nothing: what a fold may put in their place.

Only what a reader or a model takes for a Latin letter is listed; Unicode's full table of confusables is twenty times as
long and would fold letters of living scripts into each other. Compatibility forms (full-width, mathematical) are not
listed, since NFKC (Unicode Annex 15) has them.
"""

from __future__ import annotations

import functools
import unicodedata
from typing import Final

_PAIRS: Final = (
    # Cyrillic
    "аa бb вb гr дd еe зз иu кk мm нh оo пn рp сc тt уy хx ьb ѕs іi їi јj ԁd ԛq ԝw һh ӏl ԍg ґr "
    "АA ВB ЕE ЗЗ ІI ЈJ КK МM НH ОO РP СC ТT УY ХX ЅS ԌG ԚQ ԜW ӀI ҮY "
    # Greek
    "αa βb γy εe ηn ιi κk νv οo ρp σo τt υu χx ωw ϲc ϳj "
    "ΑA ΒB ΕE ΖZ ΗH ΙI ΚK ΜM ΝN ΟO ΡP ΤT ΥY ΧX "
    # Armenian and Cherokee
    "օo սu ոn հh ցg ԱU ՏS ᎪA ᏴB ᏟC ᎬE ᏀG ᎻH ᎫJ ᏦK ᏞL ᎷM ᏢP ᎡR ᏚS ᎢT ᏙV ᎳW ᏃZ"
)
_SINGLES: Final = (
    # small capitals, letters of phonetic alphabets, and letters with a stroke or turned
    "ᴀa ʙb ᴄc ᴅd ᴇe ꜰf ɢg ʜh ɪi ᴊj ᴋk ʟl ᴍm ɴn ᴏo ᴘp ǫq ʀr ꜱs ᴛt ᴜu ᴠv ᴡw ʏy ᴢz "
    "ɑa ɡg ıi ɩi łl øo đd ħh ŧt ƒf ɓb ɗd ɛe ɜe ɨi ɫl ɱm ɳn ɔo ɹr ʇt ʌv ʍw ʎy ǝe ƃg ɥh ɾj ʞk ɐa ɟf ŀl"
)


def _table(pairs: str) -> dict[str, str]:
    return {pair[0]: pair[1:] for pair in pairs.split() if pair[0] != pair[1:]}


def _enclosed() -> dict[str, str]:
    """Letters in black circles and squares, and regional indicators, which NFKC leaves alone."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return {chr(first + n): letter for first in (0x1F150, 0x1F170, 0x1F1E6) for n, letter in enumerate(letters)}


LOOKALIKES: Final = _table(_PAIRS)
"""Letters of other scripts; they are folded only where words mix scripts."""

STYLED: Final = _table(_SINGLES) | _enclosed()
"""Characters that are a Latin letter in another dress."""

INVISIBLE: Final = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff9-\ufffb\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
"""A character class, without its brackets: what shows nothing of its own."""

MARKS: Final = "\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20f0\ufe20-\ufe2f"
"""A character class, without its brackets: marks that combine with Latin letters."""


@functools.lru_cache(maxsize=8192)
def folded(char: str, *, lookalikes: bool) -> str:
    """What one character beyond ASCII becomes: itself, a Latin letter, its compatibility form, or nothing."""
    if char in STYLED:
        return STYLED[char]
    if lookalikes and char in LOOKALIKES:
        return LOOKALIKES[char]
    if unicodedata.category(char) == "Cf" or "\ufe00" <= char <= "\ufe0f" or "\U000e0100" <= char <= "\U000e01ef":
        return ""
    if char in "\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0":
        return ""
    plain = unicodedata.normalize("NFKD" if _is_latin(char) else "NFKC", char)
    return "".join(one for one in plain if not _is_mark(one))


def _is_latin(char: str) -> bool:
    return "\u00c0" <= char <= "\u024f" or "\u1e00" <= char <= "\u1eff"


def _is_mark(char: str) -> bool:
    return (
        "\u0300" <= char <= "\u036f"
        or "\u0483" <= char <= "\u0489"
        or "\u1ab0" <= char <= "\u1aff"
        or "\u1dc0" <= char <= "\u1dff"
        or "\u20d0" <= char <= "\u20f0"
        or "\ufe20" <= char <= "\ufe2f"
    )
