"""The texts that are trained with besides the open data: made by rule from sentences of our own, the same for a seed."""

from __future__ import annotations

import base64
import random
import re
from collections.abc import Sequence

from tests.policy.evasions import EVASIONS
from tests.policy.training.english import ATTACKS, BENIGN, SLOTS
from tests.policy.training.languages import LANGUAGES

_SLOT = re.compile(r"\{(\w+)\}")


def attacks(count: int, seed: int) -> list[str]:
    """So many attacks in English, and those in other languages, alone and after a harmless sentence."""
    rng = random.Random(seed)
    made = [_styled(_filled(rng.choice(ATTACKS), rng), rng) for _ in range(count)]
    for hostile, harmless in LANGUAGES.values():
        made += hostile
        made += [f"{rng.choice(harmless)} {text}" for text in hostile]
        made += [" ".join(rng.sample(hostile, 2)) for _ in range(len(hostile) // 2)]
    return made


def benign(count: int, seed: int) -> list[str]:
    """So many harmless texts in English, alone and together, and some of them encoded."""
    rng = random.Random(seed + 1)
    made = [_styled(_filled(rng.choice(BENIGN), rng), rng) for _ in range(count)]
    made += [" ".join(_filled(rng.choice(BENIGN), rng) for _ in range(rng.randint(3, 9))) for _ in range(count // 6)]
    return made + _encoded(rng.sample(made, count // 3), rng)


def foreign(seed: int) -> list[str]:
    """Harmless texts in other languages: alone, and two and four together."""
    rng = random.Random(seed + 2)
    made: list[str] = []
    for _, harmless in LANGUAGES.values():
        made += harmless
        for size in (2, 2, 4):
            made += [" ".join(rng.sample(harmless, size)) for _ in range(len(harmless))]
    return made


def _encoded(harmless: Sequence[str], rng: random.Random) -> list[str]:
    """Encodings alone are no attack: harmless texts in each of them, lists of hashes, identifiers and numbers."""
    ways = list(EVASIONS.values())
    made = [rng.choice(ways)(text) for text in harmless]
    for _ in range(len(harmless) // 5):
        size = rng.choice((16, 20, 32))
        made.append(
            "\n".join(
                f"{rng.randbytes(size).hex()}  {rng.choice(('file', 'image', 'data'))}{n}"
                for n in range(rng.randint(1, 20))
            )
        )
        made.append(" ".join(str(rng.randrange(10**9)) for _ in range(rng.randint(3, 40))))
        made.append(f"data:image/png;base64,{base64.b64encode(rng.randbytes(rng.randint(60, 600))).decode()}")
    return made


def hidden(attack: str, carriers: Sequence[str], size: int, rng: random.Random) -> str:
    """The attack somewhere in ordinary text of about `size` characters."""
    text = carriers[rng.randrange(len(carriers))]
    while len(text) < size:
        text += "\n\n" + carriers[rng.randrange(len(carriers))]
    at = rng.randrange(len(text[:size]) + 1)
    return f"{text[:at]}\n{attack}\n{text[at:size]}"


def _filled(template: str, rng: random.Random) -> str:
    while "{" in template:
        filled = _SLOT.sub(lambda slot: rng.choice(SLOTS[slot[1]]) if slot[1] in SLOTS else slot[1], template)
        if filled == template:
            break
        template = filled
    return " ".join(template.split(" "))


def _styled(text: str, rng: random.Random) -> str:
    """As people type: sometimes all in one case, without the last mark, with another one, with a slip."""
    text = re.sub(r" +", " ", text).strip()
    style = rng.random()
    if style < 0.5:
        text = text[:1].upper() + text[1:]
    elif style < 0.58:
        text = text.upper()
    elif style < 0.7:
        text = text.lower()
    if rng.random() < 0.08 and len(text) > 20:
        at = rng.randrange(len(text))
        text = text[:at] + text[at + 1 :]
    return text.rstrip(".") + rng.choice(("", ".", "!", "", "?", "...")) if rng.random() < 0.3 else text
