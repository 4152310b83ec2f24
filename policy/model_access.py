"""`model-access`: which models may be asked for, and with what settings.

For everybody under a configuration; what one key may use is its own setting, and what one team may use is `rbac`'s. It
reads no text. The name judged is the one that the client asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from gateway.types import Operation, Phase, Subject
from policy.base import INLINE_BYTES, Candidate, Choice, Chooser, Policy, Problem, Ruling, View
from policy.names import NamePattern, is_one_of, matches_any
from policy.outcome import Action, Message, Mode, choice, outcome


class ModelRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Other lists for some teams."""

    teams: Annotated[
        tuple[NamePattern, ...], Meta(min_length=1, description="The teams; `*` stands for any run of characters.")
    ]
    allow: Annotated[
        tuple[NamePattern, ...], Meta(description="Models that they may use, besides `allow` of all.")
    ] = ()
    deny: Annotated[
        tuple[NamePattern, ...], Meta(description="Models that they may not use, whatever is allowed.")
    ] = ()


class ModelAccessSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Lists of models and operations."""

    allow: Annotated[
        tuple[NamePattern, ...],
        Meta(description="Models that may be used; `*` stands for any run of characters. Empty means all of them."),
    ] = ()
    deny: Annotated[
        tuple[NamePattern, ...], Meta(description="Models that may not be used, whatever `allow` says; `*` as there.")
    ] = ()
    operations: Annotated[
        tuple[Operation, ...], Meta(description="Operations that may be used. Empty means all of them.")
    ] = ()
    teams: Annotated[tuple[ModelRule, ...], Meta(description="What differs for some teams.")] = ()
    targets: Annotated[
        tuple[NamePattern, ...],
        Meta(description="Targets (ids or providers) that requests may go to; `*` as there. Empty means all of them."),
    ] = ()
    deny_targets: Annotated[
        tuple[NamePattern, ...], Meta(description="Targets that requests may not go to, whatever `targets` says.")
    ] = ()
    prefer_targets: Annotated[
        tuple[NamePattern, ...],
        Meta(description="Targets that are tried before others, the first of these first, whatever the strategy."),
    ] = ()
    action: Action = "block"
    mode: Mode = "enforce"
    message: Message = ""


class ModelAccess(Policy[ModelAccessSettings]):
    """Judges by the model and the operation that are asked for."""

    kind = "model-access"
    inline_bytes = INLINE_BYTES
    Settings = ModelAccessSettings
    reasons = ("model-access.denied", "model-access.not-allowed", "model-access.operation", "model-access.target")
    phases = (Phase.INPUT,)

    @classmethod
    def check(cls, settings: ModelAccessSettings) -> list[Problem]:
        """Something to judge by."""
        lists = (settings.allow, settings.deny, settings.operations, settings.teams)
        if any((*lists, settings.targets, settings.deny_targets, settings.prefer_targets)):
            return []
        return [Problem("", "has nothing to judge by: give `allow`, `deny`, `operations`, `teams` or `targets`")]

    def chooser(self) -> Chooser | None:
        """Asked only where the settings name targets."""
        settings = self.settings
        return self.on_targets if settings.targets or settings.deny_targets or settings.prefer_targets else None

    def on_targets(self, subject: Subject, targets: Sequence[Candidate]) -> Choice:
        """Those that are allowed and not denied, the preferred ones first."""
        settings = self.settings
        allowed = settings.targets or ("*",)
        kept = [
            number
            for number, one in enumerate(targets)
            if is_one_of(one, allowed) and not is_one_of(one, settings.deny_targets)
        ]
        chosen = choice(
            settings.action,
            "model-access.target",
            kept,
            targets,
            settings.message or "No target of this model may be used.",
        )
        return msgspec.structs.replace(chosen, kept=tuple(sorted(chosen.kept, key=lambda at: self._rank(targets[at]))))

    def _rank(self, target: Candidate) -> int:
        order = self.settings.prefer_targets
        return next((place for place, name in enumerate(order) if is_one_of(target, (name,))), len(order))

    def on_request(self, subject: Subject, view: View) -> Ruling:
        """Refuse what is denied, and what is not allowed where there is a list of what is."""
        settings = self.settings
        rules = [rule for rule in settings.teams if subject.team is not None and matches_any(subject.team, rule.teams)]
        if matches_any(subject.model, settings.deny) or any(matches_any(subject.model, rule.deny) for rule in rules):
            return self._refuse("model-access.denied", "This model may not be used.")
        allowed = [*settings.allow, *(pattern for rule in rules for pattern in rule.allow)]
        if allowed and not matches_any(subject.model, allowed):
            return self._refuse("model-access.not-allowed", "This model is not among those that may be used.")
        if settings.operations and subject.operation not in settings.operations:
            return self._refuse("model-access.operation", f"{subject.operation} may not be used here.")
        return Ruling()

    def _refuse(self, reason: str, sentence: str) -> Ruling:
        settings = self.settings
        return outcome(settings.action, reason, "", settings.message or sentence, mode=settings.mode)
