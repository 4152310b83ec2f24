"""`human-oversight`: some requests wait for a person's yes.

It escalates what its own rules name, and with it in the chain every other policy's `escalate` goes into the queue: the
client is refused at once with the escalation's id, a person approves or refuses by `kt escalation` or the API, and an
approved request may be sent again, once. The queue is the gateway's (`gateway/oversight.py`); this file only says when.
It judges requests; an answer that some policy escalates is withheld, since nobody can wait in the middle of one.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from gateway.types import Operation, Phase, Subject
from policy.base import INLINE_BYTES, Policy, Problem, Ruling, View
from policy.names import NamePattern, matches_any
from policy.outcome import Message, Mode, listed, outcome


class OversightRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Requests that wait. All that is given must fit."""

    name: Annotated[
        str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$", description="What decisions call the rule.")
    ]
    models: Annotated[tuple[NamePattern, ...], Meta(description="Models; `*` stands for any run of characters.")] = ()
    operations: Annotated[tuple[Operation, ...], Meta(description="Operations.")] = ()
    teams: Annotated[tuple[NamePattern, ...], Meta(description="Teams; `*` as for models.")] = ()
    keys: Annotated[tuple[NamePattern, ...], Meta(description="Names or ids of keys; `*` as for models.")] = ()


class HumanOversightSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which requests wait, for how long, and what reviewers see."""

    rules: Annotated[
        tuple[OversightRule, ...],
        Meta(description="Requests that always wait. None: only what other policies of the chain escalate."),
    ] = ()
    valid_hours: Annotated[
        float,
        Meta(gt=0, le=8760, description="How long an escalation waits for a person, and an approval for its use."),
    ] = 24.0
    show_text: Annotated[
        bool,
        Meta(
            description="Keep the texts of an escalated request in the store, for its reviewer to read. Without, "
            "reviewers see who asked for which model, and which policy escalated it and why."
        ),
    ] = False
    mode: Mode = "enforce"
    message: Message = ""


class HumanOversight(Policy[HumanOversightSettings]):
    """Judges by its own rules; for the escalations of others it only has to be in the chain."""

    kind = "human-oversight"
    inline_bytes = INLINE_BYTES
    Settings = HumanOversightSettings
    reasons = ("human-oversight.rule",)

    def __init__(self, settings: HumanOversightSettings) -> None:
        super().__init__(settings)
        self.phases = (Phase.INPUT,) if settings.rules else ()

    @classmethod
    def check(cls, settings: HumanOversightSettings) -> list[Problem]:
        """Rules that say something."""
        return [
            Problem(f"rules[{number}]", "fits every request: give `models`, `operations`, `teams` or `keys`")
            for number, rule in enumerate(settings.rules)
            if not (rule.models or rule.operations or rule.teams or rule.keys)
        ]

    def on_request(self, subject: Subject, view: View) -> Ruling:
        """Escalate what a rule names."""
        settings = self.settings
        names = [rule.name for rule in settings.rules if _fits(subject, rule)]
        if not names:
            return Ruling()
        message = settings.message or "This request needs the approval of a person."
        return outcome("escalate", "human-oversight.rule", listed(names), message, mode=settings.mode)


def _fits(subject: Subject, rule: OversightRule) -> bool:
    known = [name for name in (subject.key_name, subject.key_id) if name is not None]
    return (
        (not rule.models or matches_any(subject.model, rule.models))
        and (not rule.operations or subject.operation in rule.operations)
        and (not rule.teams or (subject.team is not None and matches_any(subject.team, rule.teams)))
        and (not rule.keys or any(matches_any(name, rule.keys) for name in known))
    )
