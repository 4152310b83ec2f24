"""One policy's place in a chain: how it is asked, and what an error inside it means."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import msgspec

from gateway.types import Decision, FailMode, Phase, Subject, Verdict
from policy.base import INLINE_BYTES, Candidate, Choice, Chooser, Hook, Match, Narrowing, Ruling, View

STRICTNESS = {Verdict.ALLOW: 0, Verdict.REDACT: 1, Verdict.ESCALATE: 2, Verdict.BLOCK: 3}

Clock = Callable[[], int]
"""Nanoseconds since any moment, as `time.perf_counter_ns`."""

OnError = Callable[[str, Exception], None]
"""Told of an error inside a policy: its kind, and the exception."""


class Step(msgspec.Struct, frozen=True):
    """One policy in one phase. Its patterns are those from `first` to before `last` in the phase's scanner.

    `allowed` is its decision where it has nothing to say; `monitors`: what it says is recorded and nothing comes of it;
    `decodes`: it sees what texts say when they are read in other ways (`normalise.py`); `guards`: it judges streams as
    they flow, and needs `after` bytes after a match for that; `inline_bytes`: see `Policy`.
    """

    kind: str
    hook: Hook
    allowed: Decision
    first: int
    last: int
    fail_mode: FailMode
    on_error: OnError
    monitors: bool = False
    decodes: bool = False
    guards: bool = False
    after: int = 0
    inline_bytes: int = INLINE_BYTES

    @property
    def scans(self) -> bool:
        """It is asked only where one of its patterns matched."""
        return self.first < self.last

    def own(self, matches: Sequence[Match]) -> list[Match]:
        """The matches of its patterns, numbered as the policy numbers them."""
        return [
            Match(match.part, match.start, match.end, match.pattern - self.first)
            for match in matches
            if self.first <= match.pattern < self.last
        ]

    def numbered(self, first: int, last: int) -> Step:
        """The same step where its patterns have other numbers."""
        return msgspec.structs.replace(self, first=first, last=last)

    def ask(self, subject: Subject, view: View) -> Ruling:
        """What the policy says. Never raises."""
        try:
            ruling = self.hook(subject, view)
            if not all(0 <= redaction.part < len(view.texts) for redaction in ruling.redactions):
                raise IndexError("a redaction names a text part that does not exist")
        except Exception as error:
            return self.failed(error)
        return self._recorded(ruling) if self.monitors else ruling

    def failed(self, error: Exception) -> Ruling:
        """What an error means: reported, and then a ruling by the fail mode."""
        with contextlib.suppress(Exception):  # a reporter that fails must not undo the fail mode
            self.on_error(self.kind, error)
        verdict = Verdict.BLOCK if self.fail_mode is FailMode.BLOCK else Verdict.ALLOW
        ruling = Ruling(verdict, f"{self.kind}.error", message=f"The policy {self.kind} could not be evaluated.")
        return self._recorded(ruling) if self.monitors else ruling

    def _recorded(self, ruling: Ruling) -> Ruling:
        return ruling if ruling.verdict is Verdict.ALLOW else Ruling(Verdict.ALLOW, ruling.reason, ruling.detail)

    def decided(self, said: Verdict, ruling: Ruling, microseconds: int) -> Decision:
        """The ruling as a decision; `said` may be stricter than the ruling's own verdict."""
        return Decision(self.kind, self.allowed.phase, said, ruling.reason, ruling.detail, microseconds)


class Narrower(msgspec.Struct, frozen=True):
    """A policy that chooses among targets. An error in it is reported and means what the fail mode says."""

    kind: str
    choose: Chooser
    fail_mode: FailMode
    on_error: OnError
    monitors: bool = False

    def ask(self, subject: Subject, targets: Sequence[Candidate]) -> Choice:
        """Its choice. Never raises."""
        try:
            choice = self.choose(subject, targets)
            if len(set(choice.kept)) < len(choice.kept) or not set(choice.kept) <= set(range(len(targets))):
                raise IndexError("a choice names a target twice, or one that does not exist")
        except Exception as error:
            with contextlib.suppress(Exception):
                self.on_error(self.kind, error)
            kept = () if self.fail_mode is FailMode.BLOCK else tuple(range(len(targets)))
            choice = Choice(kept, f"{self.kind}.error", message=f"The policy {self.kind} could not be evaluated.")
        if self.monitors:
            return msgspec.structs.replace(choice, kept=tuple(range(len(targets))))
        return choice

    def decided(self, choice: Choice) -> Decision:
        """The choice as a decision of the input phase."""
        verdict = Verdict.ALLOW if choice.kept else Verdict.BLOCK
        return Decision(self.kind, Phase.INPUT, verdict, choice.reason, choice.detail)


def narrow(narrowers: Sequence[Narrower], subject: Subject, targets: Sequence[Candidate]) -> Narrowing:
    """What they say of the targets, each of what the one before it has left."""
    left = tuple(range(len(targets)))
    decisions: list[Decision] = []
    for narrower in narrowers:
        choice = narrower.ask(subject, [targets[number] for number in left])
        left = tuple([left[number] for number in choice.kept])
        if choice.reason:
            decisions.append(narrower.decided(choice))
        if not left:
            if not choice.reason:
                decisions.append(narrower.decided(choice))
            message = choice.message or f"Policy {narrower.kind} lets this request go to none of the model's targets."
            return Narrowing((), tuple(decisions), message)
    return Narrowing(left, tuple(decisions))


def both(one: Ruling, other: Ruling) -> Ruling:
    """Two rulings of one policy as one: the stricter, with the redactions of both."""
    weight = STRICTNESS[one.verdict], bool(one.reason)
    stricter = other if (STRICTNESS[other.verdict], bool(other.reason)) > weight else one
    if stricter.verdict is not Verdict.REDACT:
        return stricter
    return msgspec.structs.replace(stricter, redactions=(*one.redactions, *other.redactions))


def told(step: Step, ruling: Ruling) -> str:
    """What the client is told of a refusal."""
    return ruling.message or f"Refused by policy {step.kind} ({ruling.reason})."
