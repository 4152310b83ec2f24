"""`prompt-injection`: refuse texts that try to take the model's instructions away, or to make it tell them.

Each text is judged as it stands and in every other way it can be read (`normalise.py`), by turns of phrase
(`injection_rules.py`) and by a table of weighted n-grams (`injection_model.py`). What comes from outside, such as the
result of a tool, is judged by a threshold of its own. Neighbouring texts are judged together where they meet, so that
a phrase cannot be split over two of them. What it cannot know is whether a plain instruction in a document is welcome.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from gateway.types import Phase, Subject, TextPart
from policy import typos
from policy.base import Policy, Problem, Ruling, View
from policy.injection_rules import Rule, Rules
from policy.normalise import Reading, readings
from policy.outcome import Action, Message, Mode, Role, listed, outcome, places
from policy.text import encode

if TYPE_CHECKING:
    from policy.injection_model import Model

REMEMBERED = 8192
"""Of so many texts it is remembered, by a digest, what was said of them: 2 MB. Each operation on the table is atomic,
so that threads may share it."""

Sensitivity = Literal["low", "medium", "high"]
_LEVELS: tuple[Sensitivity, ...] = ("low", "medium", "high")

SEAM = 160
"""Characters on either side of where two texts meet that are judged together."""
MAX_SEAMS = 64
"""So many of the last places where texts meet are judged."""
DOUBT = 1.0
"""How much higher the score has to be where two texts meet: they are cut where they may mean something else."""
SMUGGLED = 12
"""So many characters in tags or variation selectors are refused, whatever they say."""
_UNTRUSTED_KINDS = frozenset(("tool_result", "document", "file"))
_PLAIN = frozenset(("letters", "escapes", "percent", "entities", "markup", "emphasis", "lines", "bidi"))
"""What honest texts have too. Nobody else spells words with digits, or backwards."""


class PromptInjectionSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How readily to find an attack, by what means, where, and what to do."""

    sensitivity: Annotated[
        Sensitivity,
        Meta(
            description="How little is enough. Of harmless texts, `low` refuses 1 or 2 in 1,000, `medium` 4 or 5, "
            "`high` 10."
        ),
    ] = "medium"
    untrusted_parts: Annotated[
        Sensitivity,
        Meta(
            description="The same for what comes from outside: results of tools, documents, and text that was "
            "hidden or disguised."
        ),
    ] = "high"
    threshold: Annotated[
        float | None,
        Meta(description="The model's score that is enough, in place of what both sensitivities stand for."),
    ] = None
    rules: Annotated[bool, Meta(description="Look for turns of phrase.")] = True
    model: Annotated[bool, Meta(description="Score texts by the table of n-grams.")] = True
    decode_depth: Annotated[
        int, Meta(ge=0, le=3, description="How many layers of encoding (base64, hex, ...) are taken off. 0: none.")
    ] = 2
    action: Action = "block"
    roles: Annotated[
        tuple[Role, ...],
        Meta(
            description="Whose texts to look at. Empty means all of them: then also the operator's own instructions, "
            "which often read like an attack."
        ),
    ] = ("user", "assistant", "tool")
    mode: Mode = "enforce"
    message: Message = ""


class Finding(NamedTuple):
    """What was found in a text: the last word of the reason, and how the text was read (empty: as it stands)."""

    what: str
    reading: str = ""


class PromptInjection(Policy[PromptInjectionSettings]):
    """Judges by rules and by score; the first finding decides."""

    kind = "prompt-injection"
    Settings = PromptInjectionSettings
    reasons = (
        "prompt-injection.override",
        "prompt-injection.leak",
        "prompt-injection.persona",
        "prompt-injection.markup",
        "prompt-injection.hidden-text",
        "prompt-injection.score",
    )
    phases = (Phase.INPUT,)
    inline_bytes = 2 * 1024

    def __init__(self, settings: PromptInjectionSettings, model: Model | None = None) -> None:
        """`model`: another table than the one that ships with the package."""
        super().__init__(settings)
        typos.load()
        self._rules = Rules() if settings.rules else None
        self._model = (model or _model()) if settings.model else None
        self._known: dict[tuple[bytes, float, bool], str | None] = {}

    @classmethod
    def check(cls, settings: PromptInjectionSettings) -> list[Problem]:
        """Something to judge by."""
        if settings.rules or settings.model:
            return []
        return [Problem("", "has nothing to judge by: leave `rules` or `model` on")]

    def on_request(self, subject: Subject, view: View) -> Ruling:
        """Judge each text, then where texts meet."""
        roles = self.settings.roles
        parts = [number for number, text in enumerate(view.texts) if not roles or text.role in roles]
        found = [(part, finding) for part in parts if (finding := self._judge(view.texts[part])) is not None]
        if not found and len(parts) > 1:
            found = list(itertools.islice(self._meeting(view.texts, parts), 1))
        return self._ruling(view.texts, found) if found else Ruling()

    def score(self, text: str) -> float:
        """What the model says of a text as it stands, and what rules add."""
        points = _points(self._rules.matching(text), False) if self._rules is not None else 0.0
        return points + (self._model.score(text) if self._model is not None else 0.0)

    def _ruling(self, texts: Sequence[TextPart], found: Sequence[tuple[int, Finding]]) -> Ruling:
        settings = self.settings
        words = [finding.what if not finding.reading else f"{finding.what} ({finding.reading})" for _, finding in found]
        message = settings.message or (
            f"The request was refused by policy {self.kind}: it looks like an attempt to change the model's "
            f"instructions, in {places(texts, (part for part, _ in found))}."
        )
        return outcome(settings.action, f"{self.kind}.{found[0][1].what}", listed(words), message, mode=settings.mode)

    def _judge(self, text: TextPart) -> Finding | None:
        """What is found in one text, read in any way; a rule says more than a score."""
        untrusted = text.role == "tool" or text.kind in _UNTRUSTED_KINDS
        least = self._least(untrusted and not _other_script(text.text))
        what = self._reason(text.text, least, untrusted)
        finding = None if what is None else Finding(what)
        if what in (None, "score"):
            for reading in readings(text.text, self.settings.decode_depth):
                if (what := self._reason_of(reading, least, untrusted)) is not None:
                    finding = finding or Finding(what, reading.kind)
                    if what != "score":
                        return Finding(what, reading.kind)
        return finding

    def _reason_of(self, reading: Reading, least: float, untrusted: bool) -> str | None:
        if not _PLAIN.issuperset(reading.kind.split("+")):
            least, untrusted = min(least, self._least(True)), True
        what = self._reason(reading.excerpt, least, untrusted)
        return "hidden-text" if what is None and reading.smuggled >= SMUGGLED else what

    def _reason(self, text: str, least: float, untrusted: bool) -> str | None:
        """The last word of the reason why a text, read in one way, is an attack. What was said of a text is remembered:
        an agent sends its whole history with every request, and judging takes fifty times as long as the digest."""
        data = encode(text)
        key = (hashlib.blake2b(data, digest_size=20).digest(), least, untrusted)
        known = self._known
        try:
            return known[key]
        except KeyError:
            pass
        what = self._new_reason(text, least, untrusted)
        if len(known) >= REMEMBERED:
            known.clear()
        known[key] = what
        return what

    def _new_reason(self, text: str, least: float, untrusted: bool) -> str | None:
        rules = list(self._rules.matching(text)) if self._rules is not None else []
        if (strongest := max(rules, key=lambda rule: rule.points, default=None)) and strongest.strong:
            return strongest.reason
        if self._model is None:
            return None
        return "score" if self._model.score(text) + _points(rules, untrusted) >= least else None

    def _least(self, untrusted: bool) -> float:
        """The score that is enough."""
        settings = self.settings
        if self._model is None:
            return 0.0
        if settings.threshold is not None:
            return settings.threshold
        level = settings.untrusted_parts if untrusted else settings.sensitivity
        return self._model.thresholds[_LEVELS.index(level)]

    def _meeting(self, texts: Sequence[TextPart], parts: Sequence[int]) -> Iterator[tuple[int, Finding]]:
        """What is found where two texts meet: neighbours, and what one speaker says next."""
        least = self._least(False) + DOUBT
        for first, second in itertools.islice(_pairs(texts, parts), MAX_SEAMS):
            head, tail = texts[first].text[-SEAM:], texts[second].text[:SEAM]
            for between in (" ", ""):
                if (what := self._reason(f"{head}{between}{tail}", least, False)) is not None:
                    yield first, Finding(what, "joined with the next text")


def _pairs(texts: Sequence[TextPart], parts: Sequence[int]) -> Iterable[tuple[int, int]]:
    """Neighbours, and texts of one role with others between them; the last first."""
    neighbours = list(itertools.pairwise(parts))
    last: dict[str, int] = {}
    for part in parts:
        role = texts[part].role
        if role in last and last[role] + 1 != part:
            neighbours.append((last[role], part))
        last[role] = part
    return sorted(neighbours, key=lambda pair: -pair[1])


def _other_script(text: str) -> bool:
    """Most of it is in a script of which the model knows little, so that it should not be judged by less than usual."""
    return not text.isascii() and len(text.encode("utf-8", "replace")) > 1.5 * len(text)


def _points(rules: Iterable[Rule], untrusted: bool) -> float:
    """What weak rules add; to speak to the model from inside a document is worse."""
    return sum(rule.points for rule in rules) * (2.0 if untrusted else 1.0)


def _model() -> Model:
    from policy.injection_model import load  # a chain without this policy needs no numpy

    return load()
