"""A shadow configuration: another chain that judges a share of the requests beside the live one, and decides nothing.

Of the exchanges that have ended, a sample is judged once more, by the chain of the shadow configuration, in a thread
of its own. What it says is counted beside what the live chain said and written into the audit log; the client never
notices. Nothing waits for it, and it is the first to go: an exchange that comes while others wait, or while the worker
is pressed, is not judged, and counted as dropped. It asks no moderation service and no person.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from random import random
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway import metrics
from gateway.audit.record import shadow_record
from gateway.threads import Threads
from gateway.types import Decision, Phase, Subject, Verdict
from policy.base import NO_CONTEXT, Context

if TYPE_CHECKING:
    from gateway.exchange import Exchange
    from gateway.threads import HandOver
    from policy.base import Pipeline
    from translators.dialect import AnswerView, RequestView

MAX_WAITING: Final = 16
"""Exchanges that wait to be judged; each keeps its request in memory."""
MAX_BYTES: Final = 1024 * 1024
"""A larger request is not judged: a second look at it would cost others their time."""
LATE_SECONDS: Final = 0.15
"""Sweeps come every 100 ms. Where one is so long after the other, the worker is pressed."""
_STRICTNESS: Final = {Verdict.ALLOW: 0, Verdict.REDACT: 1, Verdict.ESCALATE: 2, Verdict.BLOCK: 3}
_ASKED_LATER: Final = ("external-moderation", "human-oversight")


class Shadow(NamedTuple):
    """Which chain judges what share of a configuration's exchanges besides its own."""

    configuration: str
    pipeline: Pipeline
    sample: float


class _Ended(NamedTuple):
    """What is left of an exchange that has ended."""

    id: str
    shadow: Shadow
    subject: Subject
    view: RequestView
    answer: AnswerView | None
    live: tuple[Sequence[Decision], Sequence[Decision]]
    audits: bool

    def judge(self) -> dict[Phase, Sequence[Decision]]:
        """What the shadow says; in a thread."""
        pipeline = self.shadow.pipeline
        texts = self.view.texts()
        found: dict[Phase, Sequence[Decision]] = {Phase.INPUT: pipeline.screen(self.subject, texts).decisions}
        if self.answer is not None and pipeline.reads_output:
            context = NO_CONTEXT
            if pipeline.asks_context:
                context = Context(request=texts, finish_reason=self.answer.finish_reason or "")
            found[Phase.OUTPUT] = pipeline.review(self.subject, self.answer.texts, context=context).decisions
        return found


class Shadows:
    """A worker's judge of shadows. It belongs to the loop; only the judging itself is done in its thread."""

    def __init__(
        self,
        hand_over: HandOver,
        counters: metrics.Metrics,
        conclude: Callable[[bytes], None],
        clock: Callable[[], float],
        wall: Callable[[], float],
        report: Callable[[str, Exception], None],
    ) -> None:
        """`conclude` takes an audit record, `report` a fault and where it was."""
        self._threads = Threads(hand_over, clock, 1)
        self._evaluations = counters.counters(metrics.SHADOW_EVALUATIONS)
        self._dropped = counters.counter(metrics.SHADOW_DROPPED)
        self._conclude = conclude
        self._clock = clock
        self._wall = wall
        self._report = report
        self._waiting = 0
        self._looked = clock()
        self._pressed = False

    def offer(self, exchange: Exchange, shadow: Shadow) -> None:
        """An exchange has ended. Judge it, if it is in the sample and there is time."""
        if shadow.sample < 1.0 and random() >= shadow.sample:  # noqa: S311 (a sample, no secret)
            return
        if self._pressed or self._waiting >= MAX_WAITING or len(exchange.body) > MAX_BYTES:
            self._dropped.inc()
            return
        ended = _Ended(
            exchange.id,
            shadow,
            exchange.describe(),
            exchange.view,
            exchange.answer,
            (exchange.input_decisions, exchange.output_decisions),
            exchange.binding.configuration.pipeline.audits,
        )
        self._waiting += 1
        self._threads.run(ended.judge, partial(self._judged, ended))

    def look(self) -> None:
        """Called by every sweep."""
        now = self._clock()
        self._pressed = now - self._looked > LATE_SECONDS
        self._looked = now
        self._threads.look()

    def close(self) -> None:
        """No more work."""
        self._threads.close()

    def _judged(self, ended: _Ended, found: dict[Phase, Sequence[Decision]] | BaseException) -> None:
        self._waiting -= 1
        if isinstance(found, BaseException):
            if isinstance(found, Exception):
                self._report(f"shadow of {ended.id}", found)
            return
        said: dict[str, Verdict] = {}
        lived: dict[str, Verdict] = {}
        for phase, live in zip(Phase, ended.live, strict=True):
            if phase in found:
                said[phase], lived[phase] = _strictest(found[phase]), _strictest(live)
                self._evaluations[phase.value, lived[phase].value, said[phase].value].inc()
        if ended.audits:
            decisions = [decision for some in found.values() for decision in some]
            shadow = ended.shadow
            at = int(self._wall() * 1_000_000)
            self._conclude(
                shadow_record(ended.id, at, shadow.configuration, shadow.pipeline.version, lived, said, decisions)
            )


def _strictest(decisions: Sequence[Decision]) -> Verdict:
    """What the policies themselves said: services and people that the live chain asks are left out."""
    verdicts = [one.verdict for one in decisions if one.policy not in _ASKED_LATER]
    return max(verdicts, key=_STRICTNESS.__getitem__, default=Verdict.ALLOW)
