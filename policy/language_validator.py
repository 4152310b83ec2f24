"""`language-validator`: let through only texts in some languages.

Every text is judged by itself (`languages.py`). A text that is too short, a list of names or code has no language that
could be told; `unknown` says what becomes of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from gateway.types import Phase, Subject, TextPart
from policy.base import INLINE_BYTES, Policy, Problem, Ruling, View
from policy.languages import CODES, identify
from policy.outcome import Action, Message, Mode, Role, listed, outcome, places

MAX_TEXTS = 50
"""The last texts that are looked at: a conversation of thousands must not hold up others."""

Code = Annotated[str, Meta(pattern="^[a-z]{2}$")]


class LanguageValidatorSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which languages may be used, and where."""

    allow: Annotated[
        tuple[Code, ...], Meta(description="Languages that may be used, as ISO 639-1 codes. Empty means all of them.")
    ] = ()
    deny: Annotated[tuple[Code, ...], Meta(description="Languages that may not be used, whatever `allow` says.")] = ()
    min_confidence: Annotated[
        float,
        Meta(
            ge=0.5,
            le=1,
            description="How clearly a language must lead before the second to count; below, it is unknown.",
        ),
    ] = 0.55
    unknown: Annotated[
        Literal["allow", "refuse"],
        Meta(description="What becomes of a text whose language cannot be told: short ones, names, numbers, code."),
    ] = "allow"
    action: Action = "block"
    phase: Annotated[
        tuple[Phase, ...],
        Meta(
            min_length=1,
            description="Look at what goes to the model (`input`), at what comes back (`output`), or both.",
        ),
    ] = (Phase.INPUT,)
    roles: Annotated[
        tuple[Role, ...], Meta(description="Whose texts to look at in a request. Empty means all of them.")
    ] = ("user",)
    mode: Mode = "enforce"
    message: Message = ""


class LanguageValidator(Policy[LanguageValidatorSettings]):
    """Judges each text by the language that most of it is in."""

    kind = "language-validator"
    inline_bytes = INLINE_BYTES
    Settings = LanguageValidatorSettings
    reasons = ("language-validator.denied", "language-validator.not-allowed", "language-validator.unknown")

    def __init__(self, settings: LanguageValidatorSettings) -> None:
        super().__init__(settings)
        self.phases = settings.phase

    @classmethod
    def check(cls, settings: LanguageValidatorSettings) -> list[Problem]:
        """Languages that can be told, and something to judge by."""
        problems = [
            Problem(f"{name}[{number}]", f"`{code}` cannot be told; known: {', '.join(CODES)}")
            for name, codes in (("allow", settings.allow), ("deny", settings.deny))
            for number, code in enumerate(codes)
            if code not in CODES
        ]
        if not settings.allow and not settings.deny:
            problems.append(Problem("", "has nothing to judge by: give `allow` or `deny`"))
        return problems

    def on_request(self, subject: Subject, view: View) -> Ruling:
        """Judge what goes to the model."""
        roles = self.settings.roles
        parts = [number for number, text in enumerate(view.texts) if not roles or text.role in roles]
        return self._judge(
            view.texts, parts, "The request was refused by policy language-validator: {found} in {places}."
        )

    def on_completion(self, subject: Subject, view: View) -> Ruling:
        """Judge what came back."""
        parts = [number for number, text in enumerate(view.texts) if text.kind in ("message", "refusal")]
        return self._judge(
            view.texts, parts, "The answer was withheld by policy language-validator: {found} in {places}."
        )

    def _judge(self, texts: Sequence[TextPart], parts: Sequence[int], sentence: str) -> Ruling:
        settings = self.settings
        faults = [(part, *fault) for part in parts[-MAX_TEXTS:] if (fault := self._fault(texts[part].text))]
        if not faults:
            return Ruling()
        found = listed(language for _, _, language in faults)
        message = settings.message or sentence.format(
            found=found, places=places(texts, (part for part, _, _ in faults))
        )
        return outcome(settings.action, faults[0][1], found, message, mode=settings.mode)

    def _fault(self, text: str) -> tuple[str, str] | None:
        """The reason why a text may not pass, and its language."""
        settings = self.settings
        language, confidence = identify(text)
        if language is None or confidence < settings.min_confidence:
            refuses = settings.unknown == "refuse" and bool(text.strip())
            return ("language-validator.unknown", "unknown") if refuses else None
        if language in settings.deny:
            return "language-validator.denied", language
        if settings.allow and language not in settings.allow:
            return "language-validator.not-allowed", language
        return None
