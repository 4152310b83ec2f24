"""`safety-filter`: refuse requests for harm, by named categories.

It finds turns of phrase (`safety_patterns.py`) through the chain's one scan and knows no context: it is made not to
fire on harmless talk of harmful things, and misses most that is not said plainly or not in English. What it says of a
match is the category, never a piece of the text. For judgement of meaning, use `external-moderation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from gateway.types import Phase, Subject
from policy.base import Match, Pattern, Policy, Problem, Ruling, View
from policy.outcome import Action, Message, Mode, Role, listed, outcome, places
from policy.safety_patterns import PATTERNS

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
    mode: Mode = "enforce"
    message: Message = ""


_STRICTEST = ("block", "escalate", "warn")


class SafetyFilter(Policy[SafetyFilterSettings]):
    """Judges by the matches of its categories' expressions."""

    kind = "safety-filter"
    Settings = SafetyFilterSettings
    reasons = tuple(f"safety-filter.{category}" for category in CATEGORIES)

    def __init__(self, settings: SafetyFilterSettings) -> None:
        super().__init__(settings)
        self.phases = settings.phase
        self._roles = frozenset(settings.roles)
        wanted = [category for category in CATEGORIES if category in settings.categories]
        chosen = [(category, *pattern) for category in wanted for pattern in PATTERNS[category]]
        self._categories = tuple(category for category, _, _ in chosen)
        self.patterns = tuple(
            Pattern(f"(?i){hint or expression}", placed=f"(?i)({expression})" if hint else "", once=True)
            for _, hint, expression in chosen
        )

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
        if not matches:
            return Ruling()
        settings = self.settings
        found = sorted({self._categories[match.pattern] for match in matches}, key=CATEGORIES.index)
        action, category = min(
            ((settings.actions.get(name, settings.action), name) for name in found),
            key=lambda pair: _STRICTEST.index(pair[0]),
        )
        where = places(view.texts, (match.part for match in matches))
        message = settings.message or sentence.format(found=listed(found), places=where)
        return outcome(action, f"safety-filter.{category}", listed(found), message, mode=settings.mode)
