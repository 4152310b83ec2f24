"""One response within a conversation over a WebSocket: its limits, its policies and its records.

What an exchange is for a request over HTTP, a turn is for a response over a WebSocket: it is admitted, recorded before
anything leaves, judged while it flows and when it is whole, settled by the usage that the provider tells, and recorded
once more, once, however it ends. It takes in the provider's messages and gives those that go on; it knows no socket.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from msgspec import UNSET

from gateway.audit.record import Outcome, finish_record, start_record
from gateway.conversation_models import subject_of
from gateway.errors import GatewayError, InternalError, OutputBlocked, UpstreamInvalid
from gateway.exchange import SCREEN_SECONDS
from gateway.guard import PolicyChange, Replacing, restored
from gateway.moderation import Moderation
from gateway.relay import MAX_COLLECTED
from gateway.stages import NONE
from gateway.types import Decision, Delivery, Phase, Screening, Subject, TextPart, Usage, Verdict
from policy.base import NO_CONTEXT, Call, Context, CrowdedError, Tool
from policy.restore import Restorer
from translators.realtime_answers import Heard, MessageEditor, RealtimeEditor
from translators.responses_edits import ResponsesEditor

if TYPE_CHECKING:
    import asyncio

    from gateway.limits import Hold
    from gateway.routes import Target
    from gateway.services import Services
    from gateway.snapshot import Binding
    from policy.guard import Guard
    from translators.dialect import AnswerView
    from translators.tools import Declared

CHANGING: Final = (Delivery.GUARD, Delivery.BUFFER)
EDITORS: Final[Mapping[bool, type[ResponsesEditor]]] = {True: RealtimeEditor, False: ResponsesEditor}
"""What changes the events of a response, by whether it is the Realtime API."""
_EVENT_BYTES: Final = 256
"""Bytes of an event that carries one token, roughly."""
_NO_ORIGINALS: Final[Mapping[str, str]] = {}

Then = Callable[["GatewayError | None"], None]


class Asked:
    """What a response replies to, as far as policies of answers may know it: texts, tools, and their size in bytes."""

    __slots__ = ("size", "texts", "tools")

    def __init__(self, texts: Sequence[TextPart] = (), tools: Sequence[Declared] = (), size: int = 0) -> None:
        self.texts = texts
        self.tools = tools
        self.size = size


_NOTHING_ASKED: Final = Asked()


class Turn:
    """One response, from the wish for it to its end."""

    __slots__ = (
        "_change", "_guard", "_held", "_read_whole", "_size", "_timer", "asked", "audited", "begun", "binding",
        "bytes_sent", "cost", "event_id", "first_byte_at", "heard", "hold", "id", "input_decisions", "model",
        "operation",
        "originals", "output_decisions", "recorded", "redactions", "refusal", "response_id", "reviewing", "services",
        "socket_id", "started_at", "stream_id", "target", "usage",
    )  # fmt: skip

    stages = NONE
    """Not measured: a response's time is the provider's."""

    def __init__(self, services: Services, binding: Binding, operation: str, model: str, *, socket_id: str) -> None:
        """`socket_id` is the id of the conversation, which all its records name."""
        self.services = services
        self.binding = binding
        self.operation = operation
        self.model = model
        self.socket_id = socket_id
        self.id = services.next_id()
        self.started_at = services.clock()
        self.target: Target | None = None
        self.hold: Hold | None = None
        self.cost: int | None = None
        self.usage: Usage | None = None
        self.event_id: str | None = None
        self.stream_id: str | None = None
        self.response_id: str | None = None
        self.asked = _NOTHING_ASKED
        self.originals: Mapping[str, str] = _NO_ORIGINALS
        self.input_decisions: tuple[Decision, ...] = ()
        self.output_decisions: tuple[Decision, ...] = ()
        self.redactions: Mapping[int, str] = {}
        self.refusal: GatewayError | None = None
        self.reviewing: Moderation | None = None
        self.heard: Heard | None = None
        self.begun = self.audited = self.recorded = False
        self.first_byte_at = 0.0
        self.bytes_sent = 0
        self._guard: Guard | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._change: MessageEditor | None = None
        self._held: list[bytes] = []
        self._size = 0
        self._read_whole: AnswerView | None = None

    def __repr__(self) -> str:
        state = "over" if self.recorded else "refused" if self.refusal else "under way" if self.begun else "asked for"
        return f"<Turn {self.id} {self.operation} {self.response_id or '(no response yet)'} {state}>"

    # Before

    def admit(self, max_output_tokens: int, targets: Sequence[Target]) -> None:
        """Charge it to whom it belongs to. `targets` are those that it may go to. Raises RateLimited."""
        binding = self.binding
        if binding.limited:
            now = self.services.wall()
            self.hold = self.services.limits.admit(binding.scopes, self.asked.size, max_output_tokens, now, targets)

    def audit_start(self, peer: str, client_id: str | None) -> None:
        """The first record: before anything leaves for a provider. Raises AuditUnavailable."""
        if self.binding.configuration.pipeline.audits:
            self.services.audit(self._start_record(peer, client_id))
            self.audited = True

    def _start_record(self, peer: str, client_id: str | None) -> bytes:
        key, configuration = self.binding.key, self.binding.configuration
        attributes = {"socket": self.socket_id, **({"client_request_id": client_id} if client_id else {})}
        return start_record(
            self.id,
            int(self.services.wall() * 1_000_000),
            key.id if key else None,
            key.team if key else None,
            configuration.id,
            configuration.pipeline.version,
            self.operation,
            self.model[:256],
            peer,
            self.input_decisions,
            attributes or UNSET,
        )

    # While it flows

    def listen(self, *, realtime: bool) -> None:
        """The response has begun; decide how its texts are delivered."""
        self.begun = True
        self.first_byte_at = self.services.clock()
        pipeline = self.binding.configuration.pipeline
        if pipeline.reads_output:
            self.heard = Heard(EDITORS[realtime])
        if self.originals or pipeline.delivery is Delivery.GUARD:
            self._guard = pipeline.guard(self.subject)
        if pipeline.delivery is not Delivery.BUFFER and (self.originals or self._guard is not None):
            restorer = Restorer(self.originals) if self.originals else None
            self._change = MessageEditor(EDITORS[realtime](PolicyChange(self._guard, restorer)))

    @property
    def reads(self) -> bool:
        """Its messages must be read one by one: policies see them, or change them."""
        return self.heard is not None or self._change is not None

    @property
    def buffers(self) -> bool:
        """Nothing of it goes on before its verdict."""
        return self.binding.configuration.pipeline.delivery is Delivery.BUFFER

    def feed(self, message: bytes, *, last: bool) -> list[bytes]:
        """What of the response goes to the client now: the very object where it stays as it is. The last message waits
        for the verdict. Raises OutputBlocked and UpstreamInvalid."""
        if self.heard is not None:
            self.heard.feed(message)
        out = [message] if self._change is None else self._change.feed(message)
        if self.buffers:
            self._size += len(message)
            if self._size > MAX_COLLECTED:
                raise UpstreamInvalid(f"The response is larger than {MAX_COLLECTED} bytes and must be read whole.")
        elif not last:
            return out
        elif self._change is not None:
            out += self._change.finish()
        self._held += out
        return []

    # When it is whole

    def review(self, then: Then) -> None:
        """The output phase, on the whole response; `then` is called once, perhaps within this call."""
        pipeline = self.binding.configuration.pipeline
        answer = None if self.heard is None else self.heard.answer()
        self._read_whole = answer
        if answer is None or not pipeline.reads_output:
            then(None)
            return
        if answer.truncated:
            then(UpstreamInvalid("The response has more text than policies can read."))
            return
        work = partial(
            pipeline.review,
            self.subject,
            answer.texts,
            delivered=not self.buffers,
            context=self._context(answer) if pipeline.asks_context else NO_CONTEXT,
            guard=self._guard,
        )
        size = sum([len(part.text) for part in answer.texts]) + (self.asked.size if pipeline.asks_context else 0)
        try:
            if size > pipeline.reviews_inline:
                raise CrowdedError
            screening = work(inline=True)
        except CrowdedError:
            done = partial(self._review_done, answer, then)
            self._timer = self.services.call_later(SCREEN_SECONDS, lambda: done(pipeline.overdue(Phase.OUTPUT)))
            self.services.run_in_thread(work, done)
        else:
            self._scanned(answer, then, screening)

    def _context(self, answer: AnswerView) -> Context:
        return Context(
            request=self.asked.texts,
            tools=[Tool(*tool) for tool in self.asked.tools] if answer.calls else (),
            calls=[Call(*call) for call in answer.calls],
            finish_reason=answer.finish_reason or "",
        )

    def _review_done(self, answer: AnswerView, then: Then, screening: Screening | BaseException) -> None:
        """A thread has reviewed it, or will not in time; whichever comes first."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
            self._scanned(answer, then, screening)

    def _scanned(self, answer: AnswerView, then: Then, screening: Screening | BaseException) -> None:
        if self.recorded:
            return
        if isinstance(screening, BaseException):
            self.services.report_bug(repr(self), RuntimeError(repr(screening)))
            then(InternalError())
            return
        moderator = self.binding.configuration.moderator
        good = screening.verdict in (Verdict.ALLOW, Verdict.REDACT)
        if moderator is None or Phase.OUTPUT not in moderator.policy.phases or not good:
            self._judged(then, screening)
            return
        self.reviewing = Moderation(
            self.services,
            moderator,
            Phase.OUTPUT,
            self.subject,
            answer.texts,
            screening,
            partial(self._judged, then),
            delivered=not self.buffers,
        )

    def _judged(self, then: Then, screening: Screening) -> None:
        self.reviewing = None
        if self.recorded:
            return
        self.output_decisions = screening.decisions
        if screening.verdict is Verdict.REDACT:
            self.redactions = screening.replacements
        elif screening.verdict is not Verdict.ALLOW:
            refusing = screening.refusing or screening.decisions[-1]
            then(OutputBlocked(screening.message or "A policy refused the answer.", policy=refusing.policy))
            return
        then(None)

    def release(self, *, realtime: bool) -> list[bytes]:
        """What waited for the verdict, with what policies redacted. Raises UpstreamInvalid."""
        held, self._held = self._held, []
        whole = self._read_whole
        if not self.buffers or whole is None or not (self.redactions or self.originals):
            return held
        changed = restored(whole.texts, self.redactions, self.originals) if self.originals else self.redactions
        change = Replacing({whole.texts[number].path: text for number, text in changed.items()})
        editor = MessageEditor(EDITORS[realtime](change))
        out = [piece for message in held for piece in editor.feed(message)] + editor.finish()
        if change.left:
            raise UpstreamInvalid("A text that a policy redacts does not stand where it should in the response.")
        return out

    def refuse(self, error: GatewayError) -> None:
        """Nothing more of it may reach the client."""
        self.refusal = error
        self._held.clear()
        if self._guard is not None and not self.output_decisions:
            self.output_decisions = tuple(self._guard.decisions.values())

    # After

    def finish(self, outcome: Outcome, status: int, code: str | None = None, *, peer: str = "") -> None:
        """Once for every turn, however it ended: limits, metrics, the second record."""
        if self.recorded:
            return
        self.recorded = True
        if self.reviewing is not None:
            self.reviewing.cancel()
        if self._timer is not None:
            self._timer.cancel()
        services = self.services
        now = services.clock()
        if outcome is not Outcome.FAILED:
            self._find_cost()
        if self.hold is not None:
            self._settle(self.hold, outcome)
        services.count(self, status, code, now)
        if not (self.audited or self.binding.configuration.audits_everything):
            return
        if not self.audited:
            services.conclude(self._start_record(peer, None))
        services.conclude(
            finish_record(
                self.id,
                int(services.wall() * 1_000_000),
                outcome,
                status=status,
                code=code,
                target=self.target.id if self.target else None,
                attempts=1 if self.target else 0,
                usage=self.usage,
                bytes_sent=self.bytes_sent,
                duration_us=int((now - self.started_at) * 1_000_000),
                first_byte_us=int((self.first_byte_at - self.started_at) * 1_000_000) if self.begun else None,
                decisions=self.output_decisions,
                cost_nanousd=self.cost,
            )
        )

    def _settle(self, hold: Hold, outcome: Outcome) -> None:
        """What was really used; where nobody can know, the estimate stands."""
        if self.usage is not None:
            hold.settle(self.usage.total, self.services.wall(), self.cost)
        elif self.target is None:
            hold.refund()
        elif outcome is Outcome.FAILED:
            hold.settle(0, self.services.wall())
        else:
            hold.spend(self.cost, self.services.wall())
        hold.release()

    def _find_cost(self) -> None:
        """What it cost, where the target has a price; if the provider has not said what was used, by the sizes."""
        price = None if self.target is None else self.target.price
        if price is not None:
            usage = self.usage or Usage(self.asked.size // 4, self.bytes_sent // _EVENT_BYTES)
            self.cost = price.cost(usage, self.services.wall())

    @property
    def subject(self) -> Subject:
        """Who asks for what, as policies see it."""
        return subject_of(self.binding, self.id, self.model, self.operation)
