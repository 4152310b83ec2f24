"""`rbac`: who may use which models for what, by roles.

A role names its members (teams and keys) and what they may do (models and operations). Whoever has several roles may do
what any of them allows. It reads no text: it judges who asks, as the gateway key says, never what a client writes about
itself. A request without a key, as on a loopback address, has the roles that are for `everyone`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from gateway.types import Operation, Phase, Subject
from policy.base import INLINE_BYTES, Candidate, Choice, Chooser, Policy, Problem, Ruling, View
from policy.names import NamePattern, is_one_of, matches_any
from policy.outcome import Action, Message, Mode, choice, outcome


class RbacRole(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Some people and what they may do."""

    name: Annotated[
        str,
        Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$", description="What decisions call the role."),
    ]
    everyone: Annotated[bool, Meta(description="Every request has this role.")] = False
    teams: Annotated[
        tuple[NamePattern, ...],
        Meta(description="Keys of these teams have the role; `*` stands for any run of characters."),
    ] = ()
    keys: Annotated[
        tuple[NamePattern, ...], Meta(description="Keys of these names or ids have the role; `*` as for teams.")
    ] = ()
    models: Annotated[
        tuple[NamePattern, ...],
        Meta(min_length=1, description="Models, as clients name them, that the role may use; `*` as for teams."),
    ] = ("*",)
    operations: Annotated[
        tuple[Operation, ...], Meta(description="Operations that the role may use. Empty means all of them.")
    ] = ()
    targets: Annotated[
        tuple[NamePattern, ...],
        Meta(min_length=1, description="Targets (ids or providers) that the role may use; `*` as for teams."),
    ] = ("*",)


class RbacSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The roles, and what becomes of others."""

    roles: Annotated[tuple[RbacRole, ...], Meta(description="The roles. Several may apply to one request.")] = ()
    default: Annotated[
        Literal["deny", "allow"], Meta(description="What holds for a request that has no role at all.")
    ] = "deny"
    action: Action = "block"
    mode: Mode = "enforce"
    message: Message = ""


class Rbac(Policy[RbacSettings]):
    """Judges by key, team, model and operation."""

    kind = "rbac"
    inline_bytes = INLINE_BYTES
    Settings = RbacSettings
    reasons = ("rbac.no-role", "rbac.model", "rbac.operation", "rbac.target")
    phases = (Phase.INPUT,)

    @classmethod
    def check(cls, settings: RbacSettings) -> list[Problem]:
        """Roles that somebody has, each with a name of its own."""
        problems: list[Problem] = []
        names: set[str] = set()
        for number, role in enumerate(settings.roles):
            if role.name in names:
                problems.append(Problem(f"roles[{number}].name", f"`{role.name}` is taken by another role"))
            names.add(role.name)
            if not (role.everyone or role.teams or role.keys):
                problems.append(Problem(f"roles[{number}]", "nobody has it: give `teams`, `keys` or `everyone: true`"))
        if not settings.roles and settings.default == "deny":
            problems.append(Problem("roles", "is empty, so that every request would be refused; give a role"))
        return problems

    def chooser(self) -> Chooser | None:
        """Asked only where a role has some targets only."""
        return self.on_targets if any(role.targets != ("*",) for role in self.settings.roles) else None

    def on_targets(self, subject: Subject, targets: Sequence[Candidate]) -> Choice:
        """Those that a role may use which may also use the model and the operation."""
        able = [role for role in self.settings.roles if _has(subject, role) and _may(subject, role)]
        if not able:
            return Choice(tuple(range(len(targets))))  # `on_request` has judged that
        kept = [number for number, one in enumerate(targets) if any(is_one_of(one, role.targets) for role in able)]
        sentence = self.settings.message or "No role of this key may use any target of this model."
        return choice(self.settings.action, "rbac.target", kept, targets, sentence)

    def on_request(self, subject: Subject, view: View) -> Ruling:
        """Allow what any role of the subject allows."""
        roles = [role for role in self.settings.roles if _has(subject, role)]
        if not roles:
            if self.settings.default == "allow":
                return Ruling()
            return self._refuse("rbac.no-role", "", "This key has no role that may use this configuration.")
        named = ", ".join(role.name for role in roles[:8])
        able = [role for role in roles if matches_any(subject.model, role.models)]
        if not able:
            return self._refuse("rbac.model", named, "No role of this key may use this model.")
        if not any(not role.operations or subject.operation in role.operations for role in able):
            return self._refuse("rbac.operation", named, f"No role of this key may use {subject.operation}.")
        return Ruling()

    def _refuse(self, reason: str, detail: str, sentence: str) -> Ruling:
        settings = self.settings
        return outcome(settings.action, reason, detail, settings.message or sentence, mode=settings.mode)


def _may(subject: Subject, role: RbacRole) -> bool:
    return matches_any(subject.model, role.models) and (not role.operations or subject.operation in role.operations)


def _has(subject: Subject, role: RbacRole) -> bool:
    return (
        role.everyone
        or (subject.team is not None and matches_any(subject.team, role.teams))
        or (subject.key_name is not None and matches_any(subject.key_name, role.keys))
        or (subject.key_id is not None and matches_any(subject.key_id, role.keys))
    )
