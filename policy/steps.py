"""One policy's place in a chain: how it is asked, and what an error inside it means."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import msgspec

from gateway.types import Decision, FailMode, Subject, Verdict
from policy.base import INLINE_BYTES, Hook, Match, Ruling, View

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
