"""Judging an answer while it flows: the policies of a chain with `streaming: guard`.

A `Guard` belongs to one exchange. Each text of the answer (a choice's content, a call's arguments) is a `Flow` of its
own. A policy is asked about a match as soon as it is complete and before its text has gone; what it says is recorded
once, by its strictest ruling. A refusal ends the answer: `RefusedError`.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import msgspec

from gateway.types import Decision, Subject, TextPart, Verdict
from policy.base import Context, Match, Redaction, View
from policy.restore import Placeholders
from policy.steps import STRICTNESS, Clock, Step, told
from policy.stream import Flow, HeldTooLongError, Watch
from policy.text import in_json


class RefusedError(Exception):
    """A policy refuses what comes next. `policy` is its kind, the message is for the client."""

    def __init__(self, message: str, policy: str) -> None:
        super().__init__(message)
        self.policy = policy


class Guard:
    """One answer on its way. `decisions` has one for each policy that guards, by its kind."""

    __slots__ = ("_clock", "_context", "_flows", "_placeholders", "_steps", "_subject", "_watch", "decisions")

    def __init__(self, watch: Watch, steps: Sequence[Step], subject: Subject, context: Context, clock: Clock) -> None:
        """The patterns of `steps` are numbered as in `watch`."""
        self._watch = watch
        self._steps = steps
        self._subject = subject
        self._context = context
        self._clock = clock
        self._flows: dict[Hashable, Flow] = {}
        self._placeholders = Placeholders()
        self.decisions: dict[str, Decision] = {step.kind: step.allowed for step in steps}

    def __repr__(self) -> str:
        held = sum(len(flow.held) for flow in self._flows.values())
        return f"<Guard of {', '.join(self.decisions)}: {len(self._flows)} texts, {held} characters held>"

    def feed(self, key: Hashable, kind: str, path: str, text: str) -> str:
        """More of one text; what of it may go on. Raises RefusedError."""
        flow = self._flows.get(key)
        if flow is None:
            flow = self._flows[key] = Flow(self._watch, TextPart("", "assistant", kind, path), self._judge)
        try:
            return flow.feed(text)
        except HeldTooLongError as error:
            return self._give_up(flow, error)

    def close(self, key: Hashable) -> str:
        """One text is over: what of it waited. Raises RefusedError."""
        flow = self._flows.pop(key, None)
        return "" if flow is None else flow.close()

    def held(self, key: Hashable) -> str:
        """What waits of one text."""
        flow = self._flows.get(key)
        return "" if flow is None else flow.held

    def _judge(self, part: TextPart, matches: Sequence[Match]) -> list[Redaction]:
        redactions: list[Redaction] = []
        for step in self._steps:
            if own := step.own(matches):
                redactions += self._ask(step, part, own)
        placed = self._placeholders.place((part,), redactions)
        return [_fitting(one, part.kind) for one in placed]

    def _ask(self, step: Step, part: TextPart, own: Sequence[Match]) -> Sequence[Redaction]:
        began = self._clock()
        ruling = step.ask(self._subject, View((part,), own, self._context))
        self._record(step, ruling.verdict, step.decided(ruling.verdict, ruling, (self._clock() - began) // 1000))
        if STRICTNESS[ruling.verdict] > STRICTNESS[Verdict.REDACT]:
            raise RefusedError(told(step, ruling), step.kind)
        return ruling.redactions if ruling.verdict is Verdict.REDACT else ()

    def _record(self, step: Step, verdict: Verdict, decision: Decision) -> None:
        earlier = self.decisions[step.kind]
        if STRICTNESS[verdict] > STRICTNESS[earlier.verdict] or not earlier.reason:
            self.decisions[step.kind] = decision

    def _give_up(self, flow: Flow, error: HeldTooLongError) -> str:
        """No policy can wait for so much: what that means, each one's fail mode says."""
        for step in self._steps:
            ruling = step.failed(error)
            self._record(step, ruling.verdict, step.decided(ruling.verdict, ruling, 0))
            if ruling.verdict is Verdict.BLOCK:
                raise RefusedError(told(step, ruling), step.kind)
        return flow.release()


def _fitting(redaction: Redaction, kind: str) -> Redaction:
    """Arguments of tools are JSON: what is put into them must not end the string it stands in."""
    if kind != "tool_arguments":
        return redaction
    return msgspec.structs.replace(redaction, replacement=in_json(redaction.replacement))
