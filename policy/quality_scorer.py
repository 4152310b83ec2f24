"""`quality-scorer`: named, measured defects of an answer, and a score made of them.

Each defect is a rule that can be explained (`defects.py`, `refusal.py`, `languages.py`) and has a weight; the score is
one less their sum. A high score says that none of these defects was seen, never that the answer is useful or right: no
rule can tell that. It reads the complete answer, and of the request what was asked.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from gateway.types import Phase, Subject
from policy import defects
from policy.base import Policy, Problem, Ruling, View
from policy.languages import CODES, identify
from policy.outcome import Action, Message, Mode, listed, outcome
from policy.refusal import refusal_score

Check = Literal[
    "too-short",
    "refusal",
    "cut-off",
    "repetition",
    "template-marks",
    "echo",
    "wrong-language",
    "broken-format",
    "wrong-count",
    "placeholder",
    "off-topic",
]
CHECKS: tuple[Check, ...] = Check.__args__  # type: ignore[attr-defined]

WEIGHTS: dict[Check, float] = {
    "too-short": 1.0,
    "refusal": 0.6,
    "cut-off": 0.4,
    "repetition": 0.8,
    "template-marks": 0.5,
    "echo": 0.6,
    "wrong-language": 0.5,
    "broken-format": 0.8,
    "wrong-count": 0.2,
    "placeholder": 0.3,
    "off-topic": 0.3,
}
"""What a defect takes off the score, where the settings do not say otherwise."""


class QualityScorerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which defects to look for, what they weigh, and when to act."""

    checks: Annotated[
        tuple[Check, ...], Meta(min_length=1, description="The defects to look for. Default: all of them.")
    ] = CHECKS
    weights: Annotated[
        dict[Check, Annotated[float, Meta(ge=0, le=1)]],
        Meta(description="What single defects take off the score of 1, in place of their own weights."),
    ] = {}
    min_score: Annotated[
        float, Meta(ge=0, le=1, description="Act on answers whose score is lower. 0 only records the defects.")
    ] = 0.5
    min_characters: Annotated[
        int,
        Meta(ge=1, le=1_000_000, description="Shorter answers are `too-short`, unless they call a tool."),
    ] = 1
    format: Annotated[
        Literal["any", "json"], Meta(description="`json`: an answer that is not JSON is `broken-format`.")
    ] = "any"
    language: Annotated[
        str,
        Meta(
            description="The language that answers should have: an ISO 639-1 code; `request`, that of the user's last "
            "message; or nothing, which is any."
        ),
    ] = "request"
    action: Action = "warn"
    mode: Mode = "enforce"
    message: Message = ""


class QualityScorer(Policy[QualityScorerSettings]):
    """Judges the complete answer by its defects."""

    kind = "quality-scorer"
    inline_bytes = 4 * 1024
    Settings = QualityScorerSettings
    reasons = tuple(f"quality-scorer.{check}" for check in CHECKS)
    phases = (Phase.OUTPUT,)

    def __init__(self, settings: QualityScorerSettings) -> None:
        super().__init__(settings)
        self._weights = {check: settings.weights.get(check, WEIGHTS[check]) for check in settings.checks}

    @classmethod
    def check(cls, settings: QualityScorerSettings) -> list[Problem]:
        """Weights of defects that are looked for, and a language that can be told."""
        problems = [
            Problem(f"weights.{check}", "is not among `checks`")
            for check in settings.weights
            if check not in settings.checks
        ]
        if settings.language not in ("", "request", *CODES):
            problems.append(Problem("language", f"is neither `request` nor one of {', '.join(CODES)}"))
        return problems

    def on_completion(self, subject: Subject, view: View) -> Ruling:
        """Name the defects, and act if they weigh too much."""
        answer = "\n".join(text.text for text in view.texts if text.kind in ("message", "refusal"))
        question = next((text.text for text in reversed(view.request) if text.role == "user"), "")
        calls = any(text.kind == "tool_arguments" for text in view.texts)
        found = self.defects(answer, question, finish_reason=view.finish_reason, calls=calls)
        if not found:
            return Ruling()
        score = round(max(0.0, 1 - sum(self._weights[check] for check in found)), 2)
        heaviest = max(found, key=lambda check: self._weights[check])
        detail = f"score {score}: " + listed(f"{check} ({saw})" for check, saw in found.items())
        settings = self.settings
        message = settings.message or f"The answer was withheld by policy quality-scorer: {listed(found)}."
        action = settings.action if score < settings.min_score else "warn"
        return outcome(action, f"quality-scorer.{heaviest}", detail, message, mode=settings.mode)

    def defects(
        self, answer: str, question: str = "", *, finish_reason: str = "", calls: bool = False
    ) -> dict[Check, str]:
        """The defects of an answer to a question, with a few words about each. `calls`: it also calls a tool."""
        found = {check: self._saw(check, answer, question, finish_reason) for check in self._weights}
        if calls or not answer.strip():
            found = {check: saw for check, saw in found.items() if check in ("too-short", "cut-off")}
        if calls:
            found.pop("too-short", None)
        return {check: saw for check, saw in found.items() if saw}

    def _saw(self, check: Check, answer: str, question: str, finish_reason: str) -> str:
        match check:
            case "too-short":
                return defects.too_short(answer, self.settings.min_characters)
            case "refusal":
                return "by its wording" if refusal_score(answer) > 0 else ""
            case "cut-off":
                return defects.cut_off(answer, finish_reason)
            case "repetition":
                return defects.repetition(answer)
            case "template-marks":
                return defects.markers(answer)
            case "echo":
                return defects.echo(answer, question)
            case "wrong-language":
                return self._wrong_language(answer, question)
            case "broken-format":
                return defects.broken_json(answer) if self.settings.format == "json" else ""
            case "wrong-count":
                return defects.wrong_count(answer, question)
            case "placeholder":
                return defects.placeholder(answer)
            case "off-topic":
                return defects.off_topic(answer, [question])

    def _wrong_language(self, answer: str, question: str) -> str:
        wanted = self.settings.language
        if wanted == "request":
            wanted = identify(question).language or ""
        if not wanted:
            return ""
        language, confidence = identify(answer)
        return language if language and language != wanted and confidence > _SURE else ""


_SURE = 0.65
"""A request for a translation has an answer in another language: name it, but only where it is certain which."""
