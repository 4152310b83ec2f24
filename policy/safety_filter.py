"""`safety-filter`: refuse requests for harm, by named categories.

It finds turns of phrase (`safety_patterns.py`) through the chain's one scan and knows no context: it is made not to
fire on harmless talk of harmful things, and misses most that is not said plainly or not in English. What it says of a
match is the category, never a piece of the text. For judgement of meaning, use `external-moderation`.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import re2
from msgspec import Meta

from gateway.types import Phase, Subject
from policy.base import BEFORE, INLINE_BYTES, Match, Pattern, Policy, Problem, Ruling, View
from policy.outcome import Action, Message, Mode, Role, Streaming, listed, outcome, places
from policy.safety_patterns import PATTERNS
from policy.text import encode

Category = Literal[
    "violence",
    "self-harm",
    "hate",
    "harassment",
    "sexual",
    "sexual-minors",
    "weapons",
    "drugs",
    "illicit",
]
CATEGORIES: tuple[Category, ...] = Category.__args__  # type: ignore[attr-defined]


class SafetyFilterSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which categories to look for, where, and what to do."""

    categories: Annotated[
        tuple[Category, ...], Meta(min_length=1, description="What to look for. Default: all categories.")
    ] = CATEGORIES
    action: Action = "block"
    actions: Annotated[
        dict[Category, Action], Meta(description="What to do for single categories, in place of `action`.")
    ] = {}
    phase: Annotated[
        tuple[Phase, ...],
        Meta(
            min_length=1,
            description="Look in what goes to the model (`input`), in what comes back (`output`), or both.",
        ),
    ] = (Phase.INPUT,)
    roles: Annotated[
        tuple[Role, ...],
        Meta(
            description="Whose texts to look at in a request. Empty means all of them: then also instructions that "
            "name what must not be done."
        ),
    ] = ("user", "tool")
    streaming: Streaming = "hold_done"
    mode: Mode = "enforce"
    message: Message = ""


_STRICTEST = ("block", "escalate", "warn")

MAX_PLACES = 100
"""So many places of one text are looked at: a text of nothing else must not take long."""


class SafetyFilter(Policy[SafetyFilterSettings]):
    """Judges by the matches of its categories' expressions."""

    kind = "safety-filter"
    inline_bytes = INLINE_BYTES
    Settings = SafetyFilterSettings
    guards = True
    after = 160
    reasons = tuple(f"safety-filter.{category}" for category in CATEGORIES)

    def __init__(self, settings: SafetyFilterSettings) -> None:
        super().__init__(settings)
        self.phases = settings.phase
        self._roles = frozenset(settings.roles)
        wanted = [category for category in CATEGORIES if category in settings.categories]
        self._phrases = tuple(
            _Phrase(category, _compiled(words or expression), _compiled(expression) if words else None)
            for category in wanted
            for words, expression in PATTERNS[category]
        )
        # One pattern for the words of all: where it matches, `_announced` tells whose words they are.
        # Each once: a list of groups of people announces five phrases, and cost Hyperscan half a second.
        words = dict.fromkeys(words or expression for category in wanted for words, expression in PATTERNS[category])
        self.patterns = (Pattern(rf"(?i)\b(?:{'|'.join(words)})"),)
        self._announced = functools.lru_cache(maxsize=4096)(self._phrases_of)

    @classmethod
    def check(cls, settings: SafetyFilterSettings) -> list[Problem]:
        """An action for a category that is not looked for is a slip."""
        return [
            Problem(f"actions.{category}", "is not among `categories`")
            for category in settings.actions
            if category not in settings.categories
        ]

    def on_request(self, subject: Subject, view: View) -> Ruling:
        """Judge what goes to the model."""
        texts = view.texts
        matches = [match for match in view.matches if not self._roles or texts[match.part].role in self._roles]
        return self._judge(view, matches, "The request was refused by policy safety-filter: {found} in {places}.")

    def on_completion(self, subject: Subject, view: View) -> Ruling:
        """Judge what came back."""
        return self._judge(view, view.matches, "The answer was withheld by policy safety-filter: {found} in {places}.")

    def _judge(self, view: View, matches: Sequence[Match], sentence: str) -> Ruling:
        parts = list(self._parts(view, matches))
        if not parts:
            return Ruling()
        settings = self.settings
        found = sorted({category for category, _ in parts}, key=CATEGORIES.index)
        action, category = min(
            ((settings.actions.get(name, settings.action), name) for name in found),
            key=lambda pair: _STRICTEST.index(pair[0]),
        )
        where = places(view.texts, (part for _, part in parts))
        message = settings.message or sentence.format(found=listed(found), places=where)
        return outcome(action, f"safety-filter.{category}", listed(found), message, mode=settings.mode)

    def _parts(self, view: View, matches: Sequence[Match]) -> Iterator[tuple[Category, int]]:
        """Each category with a text part in which it was found."""
        found: set[tuple[Category, int]] = set()
        for part, own in itertools.groupby(matches, key=lambda match: match.part):
            data = encode(view.texts[part].text)
            for match in itertools.islice(own, MAX_PLACES):
                for phrase in self._announced(data[match.start : match.end].lower()):
                    place = (phrase.category, part)
                    if place not in found and self._is_meant(phrase, match, data):
                        found.add(place)
                        yield place

    def _phrases_of(self, words: bytes) -> tuple[_Phrase, ...]:
        return tuple(phrase for phrase in self._phrases if phrase.words.match(words))

    def _is_meant(self, phrase: _Phrase, match: Match, data: bytes) -> bool:
        """The words that announce a phrase stand in the whole of it."""
        if phrase.whole is None:
            return True
        end = match.end + self.after
        window = data[max(0, match.start - BEFORE) : end]
        hit = phrase.whole.search(window)
        # What ends with the window may end only because it was cut there.
        return hit is not None and (end >= len(data) or hit.end() < len(window))


class _Phrase(NamedTuple):
    """One turn of phrase: the words that announce it, and the whole; None where the words are the whole."""

    category: Category
    words: Any
    whole: Any


def _compiled(expression: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    return re2.compile(f"(?mi){expression}", options)
