"""The life of one request, phase by phase. Start reading here.

    authenticate   which key, which configuration (authenticate.py)  401
    decode         the little that must be known of the body         400
    admit          the key's models, rates and budget                403, 404, 429
    screen         input policies                                    409
    route          which targets, in which order                     503
    send           one attempt: translate, connect, write            502, 504, or the next target
    relay          the provider's bytes to the client, as they come
    review         output policies, on the complete answer           409, or a last error event
    record         once, whatever happened: limits, metrics, audit

An exchange is driven by calls: from the client's connection (`on_body`, `on_client_*`), from the pool (`on_connection`,
`on_connect_failed`) and from the provider's connection (`on_response_*`). On the warm path there is no task, no future
and no waiting; the two that may take long, a scan of a large text and the pause before another attempt, come back as
a call as well. It is given its pool, its clock and its log, and knows nothing of sockets, so a test can play it.
"""

from __future__ import annotations

import enum
import random
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from msgspec import UNSET
from msgspec.structs import replace

from gateway.audit.record import Outcome, completed_record, fill_start, finish_record, start_form, start_record
from gateway.coded_answers import CodedFraming, without_coding
from gateway.commit_window import CommitWindow
from gateway.content_coding import Unfolding, decoded, undo, unfolding
from gateway.errors import (
    EscalationRequired,
    GatewayError,
    InputBlocked,
    InternalError,
    InvalidJSON,
    InvalidRequest,
    ModelNotAllowed,
    ModelNotFound,
    OutputBlocked,
    Overloaded,
    PolicyRefusal,
    Source,
    UpstreamInvalid,
    UpstreamStatus,
    UpstreamTimeout,
    UpstreamUnavailable,
    event,
)
from gateway.guard import EDITORS, Buffered, Guarded, PolicyChange, restored
from gateway.moderation import Moderation
from gateway.narrow import narrowed
from gateway.oversight import Answer, fingerprint, referral, told_client
from gateway.relay import MAX_COLLECTED, Collection, Frames, Framing, Passage, Relay, Translation
from gateway.response_fields import passed_on
from gateway.routes import CLOSED, Lane, Target, asked_pause, trigger_of
from gateway.stages import (
    ADMISSION,
    CONNECT,
    FIRST_BYTE,
    INPUT_POLICIES,
    NONE,
    OUTPUT_POLICIES,
    PAUSE,
    QUEUE,
    RELAY,
    REQUEST,
    STREAM,
    TRANSLATION,
    UPSTREAM,
    microseconds,
    server_timing,
)
from gateway.types import (
    ALLOWED,
    Decision,
    Delivery,
    Phase,
    ResponseHead,
    Screening,
    Subject,
    TextPart,
    Usage,
    Verdict,
)
from policy.base import NO_CONTEXT, Call, Context, CrowdedError, Tool
from policy.restore import Restorer
from translators.dialect import AnswerView, Translated
from translators.openai_media import form
from translators.paths import replace_texts
from translators.strict import refuse_duplicate_keys
from translators.tools import declared

if TYPE_CHECKING:
    from gateway.config.schema import Fallback
    from gateway.downstream.head import RequestHead
    from gateway.limits import Hold
    from gateway.ports import Client, Connection, Ticket
    from gateway.services import Services
    from gateway.snapshot import Binding
    from gateway.surface import Endpoint
    from gateway.upcall import Upcall
    from gateway.warm_path import WarmPath
    from policy.base import Pipeline
    from policy.guard import Guard
    from translators.dialect import RequestView

INLINE_BYTES: Final = 256 * 1024
"""Up to this size the event loop itself reads an answer's usage (0.5 ms)."""
READ_INLINE_BYTES: Final = 512 * 1024
"""Up to this size the event loop itself reads a request (1.3 ms for an agent's history); larger ones a thread."""
SCREEN_SECONDS: Final = 30.0
"""A thread that reads, screens or reviews for longer hangs, or waits behind others that do: what that means for a
policy, the fail mode says."""
GLANCE_INLINE_BYTES: Final = 48 * 1024
"""Up to this size the event loop itself looks for all patterns at once: 250 of them take 0.35 ms, on the worst of texts
(nothing but `@`) 4 ms."""
INLINE_COMMAS: Final = 1024
"""A body with more of them is screened in a thread, whatever its size: it may have as many texts and objects, and each
takes some µs."""
MAX_ERROR_BODY: Final = 1024 * 1024
FIRST_BACKOFF_SECONDS: Final = 0.25
MAX_BACKOFF_SECONDS: Final = 4.0
UNMETERED: Final = "stream_options: refused by the provider, so usage is estimated"
"""Noted of streams whose provider will not be asked to count them."""
MAX_RESENDS: Final = 3
"""How often a request goes out again because its connection turned out dead before a byte was written."""
CLIENT_GONE: Final = 499
"""The status recorded for a client that left; nginx's number, which dashboards know."""

_STREAM_OWN: Final = re.compile(rb"\n(?:cache-control|x-accel-buffering)[ \t]*:[^\n]*(?=\n)", re.IGNORECASE)
_STREAM_FIELDS: Final = b"cache-control: no-cache\r\nx-accel-buffering: no\r\n"


class State(enum.Enum):
    """Where an exchange is. `steps` are the states that may follow."""

    READING = "reading the request"
    DECODING = "decompressing the request in a thread"
    SCREENING = "screening in a thread"
    CONNECTING = "waiting for a connection"
    WAITING = "waiting for the provider"
    BACKING_OFF = "pausing before another attempt"
    RELAYING = "relaying"
    REVIEWING = "reviewing in a thread"
    METERING = "delivered, reading its usage in a thread"
    ENDED = "ended"

    steps: tuple[State, ...]


STEPS: Final[dict[State, tuple[State, ...]]] = {
    State.READING: (State.DECODING, State.SCREENING, State.CONNECTING, State.ENDED),
    State.DECODING: (State.SCREENING, State.CONNECTING, State.ENDED),
    State.SCREENING: (State.CONNECTING, State.ENDED),
    State.CONNECTING: (State.CONNECTING, State.WAITING, State.BACKING_OFF, State.ENDED),
    State.WAITING: (State.RELAYING, State.CONNECTING, State.BACKING_OFF, State.ENDED),
    State.BACKING_OFF: (State.CONNECTING, State.ENDED),
    State.RELAYING: (State.REVIEWING, State.METERING, State.CONNECTING, State.BACKING_OFF, State.ENDED),
    State.REVIEWING: (State.RELAYING, State.ENDED),
    State.METERING: (State.ENDED,),
    State.ENDED: (),
}
# Kept on the members: a look-up by an enum member costs 0.2 µs, as enum hashes in Python; this way a step costs 0.05.
for _state, _steps in STEPS.items():
    _state.steps = _steps


_OVER: Final = (State.ENDED, State.METERING)
"""The client has all that it will get; its connection may serve another request by now."""


_LAST_STAGE: Final = {
    State.READING: ADMISSION,
    State.DECODING: REQUEST,
    State.SCREENING: INPUT_POLICIES,
    State.CONNECTING: QUEUE,
    State.WAITING: UPSTREAM,
    State.BACKING_OFF: PAUSE,
    State.RELAYING: STREAM,
    State.REVIEWING: OUTPUT_POLICIES,
    State.METERING: RELAY,
}
"""Whose the time is that has passed when an exchange ends in a state."""

# Bound once, for what every request runs: a look-up on an enum's class costs 0.15 µs, a module's name 0.01.
_READING: Final = State.READING
_CONNECTING: Final = State.CONNECTING
_WAITING: Final = State.WAITING
_RELAYING: Final = State.RELAYING
_ENDED: Final = State.ENDED
_COMPLETED: Final = Outcome.COMPLETED

_NEVER: Final = float("inf")
_NONE: Final[Mapping[int, str]] = {}
_NO_ORIGINALS: Final[Mapping[str, str]] = {}
_UNTRANSLATED: Final = Translated(b"")
_NO_RELAY: Final = Collection(Framing(None, False), 0)


_STREAMING: Final = (Frames, Translation, Guarded, Buffered)
_CHANGING: Final = (Delivery.GUARD, Delivery.BUFFER)


class Course:
    """What all requests of one head, one key and one model have in common, noted on the head by the first of them.

    A client keeps its connection and sends the same head again (`downstream.head.Template`), so from the second request
    on only the body and the moment are new: route, candidates, the provider's head and the audit record are as before.
    Keys and configurations are never changed but replaced, with their `Binding`, which makes the course void.
    It saves 6 µs of 39.
    """

    __slots__ = (
        "binding", "candidates", "decisions", "destination", "fallback", "first_byte_seconds", "heads", "lane", "model",
        "screens", "shown", "start", "target", "total_seconds", "tried", "upstream_model", "view",
    )  # fmt: skip

    def __init__(self, exchange: Exchange, target: Target, lane: Lane) -> None:
        self.tried = False  # whether it has been seen if a `WarmPath` can follow it
        self.binding = exchange.binding
        self.model = exchange.model
        self.view = exchange.services.viewer(exchange.endpoint.operation)
        self.candidates = exchange.candidates
        self.fallback = exchange.fallback
        pipeline = exchange.binding.configuration.pipeline
        self.screens = pipeline.reads_input
        # What the input phase says of most texts; other decisions make a record of their own.
        self.decisions = pipeline.clean
        self.start = start_form(exchange.start_record(self.decisions)) if pipeline.audits else None
        self.target = target
        self.lane = lane
        self.destination = target.destination
        self.upstream_model = target.upstream_model
        self.first_byte_seconds = target.destination.timeouts.first_byte_seconds
        self.total_seconds = target.destination.timeouts.total_seconds
        self.heads = exchange.request_head(target, lane, stream=False), exchange.request_head(target, lane, stream=True)
        self.shown = exchange.request.own.get(b"x-request-id")


class Exchange:
    """One request and its answer."""

    # Slots: a request reads its attributes some three hundred times, and a slot is read at a third of the cost of a
    # class attribute that serves as a default.
    __slots__ = (
        "_seen",
        "answer",
        "asking",
        "attempts",
        "audited",
        "begun",
        "binding",
        "body",
        "bytes_sent",
        "candidates",
        "client",
        "client_paused",
        "connection",
        "cost",
        "deadline",
        "endpoint",
        "fallback",
        "first_byte_at",
        "guard",
        "head",
        "hold",
        "id",
        "idle_seconds",
        "input_decisions",
        "lane",
        "marked",
        "model",
        "occupied",
        "originals",
        "output_decisions",
        "passes_whole",
        "pause",
        "reads",
        "recorded",
        "redactions",
        "relay",
        "replacements",
        "request",
        "resends",
        "reviewed",
        "rounds",
        "sent_at",
        "services",
        "stages",
        "started_at",
        "state",
        "subject",
        "target",
        "texts",
        "ticket",
        "total_deadline",
        "translated",
        "turn",
        "unfit",
        "usage",
        "view",
        "window",
    )

    view: RequestView
    texts: list[TextPart]
    lane: Lane
    head: ResponseHead
    fallback: Fallback

    def __init__(
        self, services: Services, endpoint: Endpoint, binding: Binding, request: RequestHead, client: Client
    ) -> None:
        self.services = services
        self.endpoint = endpoint
        self.binding = binding
        self.request = request
        self.client = client
        self.started_at = self.marked = services.clock()
        self.stages = [*NONE]
        self.id = services.next_id()
        self.state = _READING
        self.deadline = _NEVER
        self.body = b""
        self.model = ""
        self.subject: Subject | None = None
        self.replacements: Mapping[int, str] = _NONE
        self.input_decisions: tuple[Decision, ...] = ()
        self.output_decisions: tuple[Decision, ...] = ()
        self.redactions: Mapping[int, str] = _NONE
        self.originals: Mapping[str, str] = _NO_ORIGINALS
        self.guard: Guard | None = None
        self.candidates: tuple[Target, ...] = ()
        self.turn = 0
        self.unfit: InvalidRequest | None = None
        self.rounds = 1
        self.resends = 0
        self.attempts = 0
        self.target: Target | None = None
        self.translated = _UNTRANSLATED
        self.ticket: Ticket | None = None
        self.occupied = False
        self.connection: Connection | None = None
        self.pause: Any = None
        self.window: CommitWindow | None = None
        self.asking: Moderation | Upcall | None = None
        self.answer: AnswerView | None = None
        self.reviewed: Callable[[Screening | BaseException], None] | None = None
        self.relay: Relay = _NO_RELAY
        self.passes_whole = False
        self.begun = False
        self.recorded = False
        self.hold: Hold | None = None
        self.usage: Usage | None = None
        self.cost: int | None = None
        self.bytes_sent = 0
        self.total_deadline = _NEVER
        self.sent_at = 0.0
        self.first_byte_at = 0.0
        self.audited = False
        self.client_paused = False
        self.reads = 0
        self.idle_seconds = 0.0
        self._seen = 0
        services.active.add(self)

    @classmethod
    def resumed(cls, warm: WarmPath) -> Exchange:
        """A request of which `WarmPath` has done phases one to six: it waits for its answer, and is the client's
        handler and the connection's listener from now on."""
        services, course = warm.services, warm.course
        self = cls(services, warm.endpoint, warm.binding, warm.request, warm.client)
        services.active.discard(warm)
        self.id = warm.id.decode()
        self.started_at, self.sent_at = warm.started_at, warm.sent_at
        self.stages, self.marked = warm.stages, warm.sent_at
        self.deadline, self.total_deadline = warm.deadline, warm.total_deadline
        self.state = State.WAITING
        self.body = warm.body
        self.view = course.view(warm.body)
        self.model = course.model
        self.candidates, self.fallback = course.candidates, course.fallback
        self.hold = warm.hold
        self.input_decisions = course.decisions
        self.audited = course.start is not None
        self.target, self.lane = course.target, course.lane
        self.translated = Translated(warm.body)
        self.passes_whole = self.occupied = True
        self.turn = self.attempts = 1
        self.connection = warm.connection
        warm.client.hand_over(warm, self)
        if self.connection is not None:
            self.connection.hand_over(warm, self)
        return self

    def __repr__(self) -> str:
        target = f" to {self.target.id}" if self.target else ""
        return f"<Exchange {self.id} {self.endpoint.operation}{target} {self.state.value}, {self.progress} bytes sent>"

    def _step(self, state: State) -> None:
        assert state in self.state.steps, f"{self!r} cannot become {state}"
        self.state = state

    def _clocked(self, stage: int) -> float:
        """What has passed since the last step was this stage. The time."""
        now = self.services.clock()
        self.stages[stage] += now - self.marked
        self.marked = now
        return now

    # Phases 2 to 5: decode, admit, screen, route

    def on_body(self, body: bytes) -> None:
        """The request is whole."""
        self._clocked(REQUEST)
        try:
            large = len(body) > READ_INLINE_BYTES
            course = self.request.course
            if course is not None and course.binding is self.binding and not large and self._follow(course, body):
                return
            coding = unfolding(self.request.own.get(b"content-encoding"))
            if large or coding is not None:
                self._step(State.DECODING)
                self.deadline = self.services.clock() + SCREEN_SECONDS
                self.services.run_in_thread(partial(self._unfold, body, coding), self._decoded)
                return
            self._decode(body)
            self._begin()
        except GatewayError as error:
            self._fail(error)
        except Exception as error:
            self.on_fault(error)

    def _unfold(self, body: bytes, coding: Unfolding | None) -> None:
        """Decompress and read a request, in a thread: nothing else touches these attributes meanwhile."""
        if coding is not None:
            body = decoded(body, coding, self.binding.configuration.max_body_bytes)
        self._decode(body)

    def _decoded(self, failure: BaseException | None) -> None:
        """A thread has read the request."""
        if self.state is not State.DECODING:
            return
        self.deadline = _NEVER
        try:
            if failure is not None:
                raise failure
            self._begin()
        except GatewayError as error:
            self._fail(error)
        except Exception as error:
            self.on_fault(error)

    def _begin(self) -> None:
        self._admit()
        self._clocked(ADMISSION)
        if self._screen():
            self._route()

    def on_body_failed(self, error: GatewayError) -> None:
        """The rest of the request did not come, or was malformed or too large."""
        self._fail(error)

    def _follow(self, course: Course, body: bytes) -> bool:
        """Phases 2 to 6 of a request like the one before it on its connection. False: it asks for another model."""
        view = course.view(body)
        model = self.endpoint.model or view.model
        if model != course.model:
            return False
        binding, services = self.binding, self.services
        self.view = view
        self.body = body
        self.model = model
        self.candidates = course.candidates
        self.fallback = course.fallback
        if binding.limited:
            output_tokens = max(view.max_output_tokens or 0, 0)
            self.hold = services.limits.admit(
                binding.scopes, len(body), output_tokens, services.wall(), course.candidates
            )
        self._clocked(ADMISSION)
        if course.screens:
            if not self._screen():
                return True
            self._clocked(INPUT_POLICIES)
        target = course.target
        if target.breaker.state is not CLOSED:
            self._route()
            return True
        # From here it is `_route`, `_attempt`, `_send_to` and `on_connection`.
        shown = own_id = self.id.encode()
        if course.shown is not None:
            shown = course.shown
        if self.input_decisions is not course.decisions:
            self._audit_start()
        elif course.start is not None:
            services.audit(fill_start(course.start, own_id, int(services.wall() * 1_000_000)))
            self.audited = True
        self._choose(target, course.lane)
        self.turn = self.attempts = 1
        connection = services.pool.take(course.destination)
        if connection is None:
            self._queue(target)
            return True
        self.connection = connection
        self.state = _WAITING
        self.sent_at = self._clocked(TRANSLATION)
        self.deadline = self.sent_at + course.first_byte_seconds
        body = self.translated.body
        head = b"%bx-request-id: %b\r\ncontent-length: %d\r\n\r\n" % (course.heads[view.stream], shown, len(body))
        connection.send(head, body, self)
        return True

    def _decode(self, body: bytes) -> None:
        self.body = body
        assert self.endpoint.operation is not None
        if self.endpoint.takes_form:
            self.view = form(body, self.request.all_forwarded(b"content-type"))
        else:
            self.view = self.services.view(self.endpoint.operation, body)
        self.model = self.endpoint.model or self.view.model

    def _admit(self) -> None:
        binding = self.binding
        configuration = binding.configuration
        route = configuration.routes.get(self.model)
        if route is None:
            raise ModelNotFound(
                f"No target of configuration {configuration.id} offers the model {self.model[:200]!r}; "
                "GET /v1/models lists what it offers.",
                param="model",
            )
        self.candidates = route.candidates()
        self.fallback = route.fallback
        key = binding.key
        if key is not None and key.models is not None and not self._model_allowed(key.models):
            raise ModelNotAllowed(
                f"This key does not allow the model {self.model[:200]!r}; ask its owner to add it.", param="model"
            )
        if binding.limited:
            # Of a form only what is no file: 25 MB of sound are not six million tokens.
            size, output_tokens = getattr(self.view, "prompt_bytes", len(self.body)), self.view.max_output_tokens or 0
            self.hold = self.services.limits.admit(
                binding.scopes, size, max(output_tokens, 0), self.services.wall(), self.candidates
            )

    def _model_allowed(self, models: frozenset[str]) -> bool:
        """A key's list names models or target ids; every target that the name stands for must be covered."""
        return self.model in models or all(target.model in models for target in self.candidates)

    def _screen(self) -> bool:
        """Input policies. False: a thread is at work and `_screened` will be called."""
        pipeline = self.binding.configuration.pipeline
        if not pipeline.reads_input:
            return True
        body = self.body
        if body.startswith(b"{") and len(body) <= GLANCE_INLINE_BYTES and (clean := pipeline.glance(body)) is not None:
            self.input_decisions = clean.decisions
            return True
        self.subject = self.describe()
        if len(body) <= pipeline.screens_inline and body.count(b",") <= INLINE_COMMAS:
            self.texts = self._texts_of(body)
            try:
                screening = pipeline.screen(self.subject, self.texts, inline=True)
            except CrowdedError:
                pass  # more is in it than its size says
            else:
                return self._judge(screening)
        self._step(State.SCREENING)
        self.deadline = self.services.clock() + SCREEN_SECONDS
        self.services.run_in_thread(self._look_closely, self._screened)
        return False

    def _texts_of(self, body: bytes) -> list[TextPart]:
        """What policies see must be what the provider reads: a key that stands twice in one object could be read in two
        ways. A glance has no such doubt, as it sees every byte. 4 µs for 1 KB. Raises InvalidRequest."""
        if not self.endpoint.takes_form:
            refuse_duplicate_keys(body)
        return self.view.texts()

    def _look_closely(self) -> Screening:
        """The screening of a large body, in a thread: nothing else touches these attributes meanwhile."""
        pipeline, body = self.binding.configuration.pipeline, self.body
        if len(body) > GLANCE_INLINE_BYTES and body.startswith(b"{") and (clean := pipeline.glance(body)) is not None:
            return clean
        assert self.subject is not None
        self.texts = self._texts_of(body)
        return pipeline.screen(self.subject, self.texts)

    def _screened(self, screening: Screening | BaseException) -> None:
        if self.state is not State.SCREENING or self.deadline == _NEVER:
            return
        self.deadline = _NEVER
        try:
            if isinstance(screening, BaseException):
                raise screening
            if self._judge(screening):
                self._route()
        except GatewayError as error:
            self._fail(error)
        except Exception as error:
            self.on_fault(error)

    def describe(self) -> Subject:
        """Who asks for what, as policies see it."""
        key = self.binding.key
        return Subject(
            self.id,
            key.id if key else None,
            key.name if key else None,
            key.team if key else None,
            self.binding.configuration.id,
            self.model,
            self.endpoint.operation or "",
        )

    def _judge(self, screening: Screening) -> bool:
        """What the chain says of the request. False: somebody else is asked first, who calls `_go_on`."""
        if self.binding.configuration.moderator is not None and screening.verdict is not Verdict.BLOCK:
            return self._moderate(screening)
        return self._act_on(screening)

    def _act_on(self, screening: Screening) -> bool:
        """Go on with the request, refuse it, or bring it before a person (False)."""
        if screening is ALLOWED:
            return True
        self.input_decisions = screening.decisions
        if screening.verdict is Verdict.ALLOW:
            return True
        if screening.verdict is Verdict.REDACT:
            self.replacements = dict(screening.replacements)
            self.originals = screening.originals
            return True
        if screening.verdict is Verdict.ESCALATE and self._refer(screening):
            return False
        refusing = screening.refusing
        kind = EscalationRequired if screening.verdict is Verdict.ESCALATE else InputBlocked
        raise kind(screening.message, policy=refusing.policy if refusing else "unknown")

    def _moderate(self, screening: Screening) -> bool:
        """Ask the configuration's moderation service, if it is to be asked about requests."""
        moderator = self.binding.configuration.moderator
        assert moderator is not None
        assert self.subject is not None
        if Phase.INPUT not in moderator.policy.phases:
            return self._act_on(screening)
        self._await_others()
        self.asking = Moderation(
            self.services, moderator, Phase.INPUT, self.subject, self.texts, screening, self._moderated
        )
        return False

    def _await_others(self) -> None:
        if self.state is not State.SCREENING:
            self._step(State.SCREENING)

    def _moderated(self, screening: Screening) -> None:
        """The moderation service has answered, or will not."""
        self._go_on(lambda: self._act_on(screening))

    def _refer(self, screening: Screening) -> bool:
        """Bring an escalated request before a person. False: nobody is there."""
        settings, oversight = self.binding.configuration.pipeline.oversight, self.services.oversight
        if settings is None or oversight is None:
            return False
        assert self.subject is not None
        mark = fingerprint(self.subject, self.binding.configuration.pipeline.version, self.body)
        told = referral(self.subject, settings, screening, self.texts, mark)
        self._await_others()
        self.asking = oversight.refer(told, partial(self._referred, screening))
        return True

    def _referred(self, screening: Screening, answer: Answer | None) -> None:
        """The queue has answered: an approval lets the request through, once."""
        self._go_on(lambda: self._act_on_answer(screening, answer))

    def _act_on_answer(self, screening: Screening, answer: Answer | None) -> bool:
        refusing = screening.refusing
        policy = refusing.policy if refusing else "human-oversight"
        if answer is None or answer.state != "approved":
            raise EscalationRequired(
                told_client(screening, answer), policy=policy, escalation=answer.id if answer else None
            )
        self.input_decisions = (
            *screening.decisions,
            Decision("human-oversight", Phase.INPUT, Verdict.ALLOW, "human-oversight.approved", answer.id),
        )
        self.replacements = dict(screening.replacements)
        self.originals = screening.originals
        return True

    def _go_on(self, decide: Callable[[], bool]) -> None:
        """Go on with a request that waited for somebody's answer, if its client is still there."""
        self.asking = None
        if self.state is not State.SCREENING:
            return
        try:
            if decide():
                self._route()
        except GatewayError as error:
            self._fail(error)
        except Exception as error:
            self.on_fault(error)

    def _route(self) -> None:
        pipeline = self.binding.configuration.pipeline
        if pipeline.narrows:
            self._narrow(pipeline)
        if pipeline.reads_input:
            self._clocked(INPUT_POLICIES)
        self._audit_start()
        if not self._attempt():
            raise self._unusable()
        lasting = self.lane.lasting and self.translated.local is None and not self.endpoint.takes_form
        lasting = lasting and b"content-encoding" not in self.request.own
        if len(self.candidates) == 1 and lasting and not pipeline.narrows:
            assert self.target is not None
            self.request.course = Course(self, self.target, self.lane)

    def _narrow(self, pipeline: Pipeline) -> None:
        """Policies choose among the targets. Raises InputBlocked where they leave none."""
        kept, decisions, refusal = narrowed(pipeline, self.subject or self.describe(), self.candidates)
        self.candidates = kept
        self.input_decisions = (*self.input_decisions, *decisions)
        if refusal is not None:
            raise refusal

    # Phase 6: send

    def _attempt(self) -> bool:
        """Send to the next candidate of this round that can be used. False: none is left."""
        operation = self.endpoint.operation
        assert operation is not None
        now = self.services.clock()
        while self.turn < len(self.candidates):
            target = self.candidates[self.turn]
            self.turn += 1
            lane = target.lanes.get(operation)
            if lane is not None and target.usable(now):
                self.attempts += 1
                try:
                    self._send_to(target, lane)
                except InvalidRequest as error:
                    # This provider cannot be asked it; another may.
                    self.attempts -= 1
                    self.unfit = self.unfit or error
                else:
                    return True
        return False

    def _unusable(self) -> GatewayError:
        """Why no candidate could be tried."""
        if self.unfit is not None:
            return self.unfit
        operation, name = self.endpoint.operation, f"the model {self.model[:200]!r}"
        able = [target for target in self.candidates if operation in target.lanes]
        if not able:
            providers = " or ".join(sorted({target.provider for target in self.candidates}))
            return ModelNotFound(f"The provider {providers} of {name} does not offer {operation}.", param="model")
        faults = sorted({target.fault for target in able if target.fault})
        why = f": {'; '.join(faults)}." if faults else "; try again in a moment."
        return UpstreamUnavailable(f"No target of {name} can be used right now{why}")

    def _send_to(self, target: Target, lane: Lane) -> None:
        self._choose(target, lane)
        self._clocked(TRANSLATION)
        if self.translated.local is not None:
            self._answer_here(self.translated.local)
            return
        connection = self.services.pool.take(target.destination)
        if connection is None:
            self._queue(target)
        else:
            self._step(_CONNECTING)
            self.on_connection(connection)

    def _choose(self, target: Target, lane: Lane) -> None:
        """Occupy the target, and make its request of the client's. Raises InvalidRequest where that cannot be done."""
        view, translation = self.view, lane.translation
        self.translated = translation.request(
            self.body, view, model=target.upstream_model, replacements=self.replacements, meter=lane.meters
        )
        if not lane.meters and view.stream:
            self.translated = replace(self.translated, notes=(*self.translated.notes, UNMETERED))
        self.target = target
        self.lane = lane
        # The ordinary JSON answer goes on as it is: in the client's own format, read by no policy.
        self.passes_whole = (
            translation.identity
            and not view.stream
            and not self.binding.configuration.pipeline.reads_output
            and not self.originals
            and self.binding.configuration.shadow is None
        )
        total_seconds = target.destination.timeouts.total_seconds
        if total_seconds is not None:
            self.total_deadline = self.started_at + total_seconds
        target.in_flight += 1
        self.occupied = True

    def _answer_here(self, body: bytes) -> None:
        """The translation could answer by itself, and no provider is asked."""
        self._vacate()
        self.head = ResponseHead(200, b"OK", b"")
        self._record(Outcome.COMPLETED, 200, more_bytes=len(body))
        self._write(body, True)

    def _queue(self, target: Target) -> None:
        self._step(_CONNECTING)
        self.ticket = self.services.pool.wait(target.destination, self)

    def on_connection(self, connection: Connection) -> None:
        """The pool has a connection."""
        target = self.target
        assert target is not None
        self.ticket = None
        self.connection = connection
        self._step(State.WAITING)
        self.sent_at = self._clocked(QUEUE if connection.served else CONNECT)
        self.deadline = self.sent_at + target.destination.timeouts.first_byte_seconds
        body = self.translated.body
        head = self.request_head(target, self.lane, stream=self.view.stream)
        if self.lane.sign is not None and not self.binding.credential:
            head += self.lane.signature(body, stream=self.view.stream, now=self.services.wall())
        tail = b"x-request-id: %b\r\ncontent-length: %d\r\n\r\n" % (self._shown_id(), len(body))
        connection.send(head + tail, body, self)

    def request_head(self, target: Target, lane: Lane, *, stream: bool) -> bytes:
        """The provider's request head, up to the fields that differ with every request."""
        credential = self.binding.credential or lane.credential
        return lane.head(self.request.query, self.request.lines, target.own_fields, credential, stream=stream)

    def on_connect_failed(self, error: GatewayError) -> None:
        """The pool could not get a connection."""
        self.ticket = None
        self._clocked(CONNECT)
        self._attempt_failed(error)

    def _attempt_failed(self, error: GatewayError) -> None:
        """One attempt is over and nothing has gone to the client: another target, another time, or the error."""
        self._clocked(UPSTREAM)
        self._vacate()
        if self.window is not None:
            self._leave_window()
        self._blame(error)
        try:
            if not self._may_retry(error):
                raise error
            assert self.target is not None
            self.target.retries.inc()
            if not self._attempt():
                self._back_off(error)
        except GatewayError as final:
            self._fail(final)
        except Exception as bug:
            self.on_fault(bug)

    def _may_retry(self, error: GatewayError) -> bool:
        """Only where there is another target, and only for what the operator named."""
        if len(self.candidates) < 2 or self.attempts >= self.fallback.max_attempts:
            return False
        return trigger_of(error) in self.fallback.triggers

    def _back_off(self, error: GatewayError) -> None:
        """Every candidate has been tried: pause, with jitter, before the next round; at least as long as the provider
        asks for. Raises the error where that is too long: the client is told, and knows better what to do."""
        asked = asked_pause(error)
        if asked > MAX_BACKOFF_SECONDS:
            raise error
        self._step(State.BACKING_OFF)
        longest = min(FIRST_BACKOFF_SECONDS * 2 ** (self.rounds - 1), MAX_BACKOFF_SECONDS)
        self.rounds += 1
        self.turn = 0
        self.deadline = _NEVER
        seconds = asked + longest * random.uniform(0.5, 1.0)  # noqa: S311 (spreads load, keeps no secret)
        self.pause = self.services.call_later(seconds, self._resume, error)

    def _resume(self, error: GatewayError) -> None:
        self.pause = None
        self._clocked(PAUSE)
        try:
            if not self._attempt():
                raise error
        except GatewayError as final:
            self._fail(final)
        except Exception as bug:
            self.on_fault(bug)

    def _vacate(self) -> None:
        """The attempt is over: the target is less busy by one."""
        if self.occupied:
            assert self.target is not None
            self.occupied = False
            self.target.in_flight -= 1

    def _blame(self, error: GatewayError) -> None:
        """The target's health learns of a failure that was its own, or that it is well and the request is not."""
        if self.target is None:
            return
        if trigger_of(error) is not None:
            self.target.breaker.failed(self.services.clock())
        elif isinstance(error, UpstreamStatus):
            self.target.breaker.succeeded()

    # Phase 7: relay

    def on_response_head(self, head: ResponseHead, data: bytes, end: bool) -> None:
        """The provider answers."""
        try:
            target = self.target
            assert target is not None
            assert _RELAYING in self.state.steps, f"{self!r} cannot become {_RELAYING}"
            self.state = _RELAYING
            now = self._clocked(UPSTREAM)
            self.head = head
            good = 200 <= head.status < 300
            if good:
                target.answered(now - self.sent_at)
                if end and self.passes_whole and not head.coding and len(data) <= INLINE_BYTES:
                    self._pass_whole(target, head, data, now)
                    return
            self.relay = self._choose_relay(head, good)
            self.idle_seconds = target.destination.timeouts.idle_seconds
            self.deadline = now + self.idle_seconds
            if self.client_paused and self.connection is not None:
                self.connection.pause_reading()
            self._flow(data, end)
        except GatewayError as error:
            self._break(error)
        except Exception as error:
            self.on_fault(error)

    def _pass_whole(self, target: Target, head: ResponseHead, data: bytes, now: float) -> None:
        """What relay, record and delivery come to for an answer that is complete in one read, at half their cost."""
        connection, self.connection = self.connection, None
        self.occupied = False
        target.in_flight -= 1
        if head.chunked and connection is not None and connection.walker is not None:
            data = connection.walker.payload(data)
        usage = self.usage = self.lane.translation.usage(data)
        self.begun = True
        self.first_byte_at = now
        self.bytes_sent = size = len(data)
        status, hold = head.status, self.hold
        now = self._clocked(FIRST_BYTE)
        # `_record`, which no one can have called before, and `_audit_finish`
        self.recorded = True
        self.state = _ENDED
        services = self.services
        services.active.discard(self)
        wall = services.wall()
        price = target.price
        cost = None
        if price is not None:
            cost = self.cost = price.cost(self._guess(size) if usage is None else usage, wall)
        if hold is not None:
            if usage is not None:
                hold.settle(usage.prompt + usage.completion, wall, cost)
            else:
                hold.spend(cost, wall)
            hold.release()
        services.count(self, status, None, now)
        if self.audited or self.binding.configuration.audits_everything:
            if not self.audited:
                services.conclude(self.start_record(self.input_decisions))
            begun = self.started_at
            taken, sent = int((now - begun) * 1_000_000), int((self.sent_at - begun) * 1_000_000)
            at, notes = int(wall * 1_000_000), self.translated.notes
            services.conclude(
                completed_record(
                    self.id,
                    at,
                    status,
                    target.id,
                    self.attempts,
                    usage,
                    size,
                    taken,
                    taken,
                    notes,
                    sent,
                    microseconds(self.stages),
                    cost,
                )
            )
        shown = self.request.own.get(b"x-request-id") or self.id.encode()
        if hold is None:
            passed = head.passed
            if passed is None:
                passed = passed_on(head.raw, limited=False)
            fields = b"%bx-request-id: %b\r\n" % (passed, shown)
        else:
            passed = head.passed_limited
            if passed is None:
                passed = passed_on(head.raw, limited=True)
            fields = b"%bx-request-id: %b\r\n%b" % (passed, shown, hold.lines)
        if services.server_timing:
            fields += server_timing(self.stages)
        self.client.begin(status, fields, length=size, data=data, end=True, raw=False, reason=head.reason)

    def on_response_data(self, data: bytes, end: bool) -> None:
        """More of the provider's answer."""
        try:
            self._flow(data, end)
        except GatewayError as error:
            self._break(error)
        except Exception as error:
            self.on_fault(error)

    def on_response_failed(self, error: GatewayError) -> None:
        """The provider's connection ended before its answer, or the answer is not HTTP."""
        connection, self.connection = self.connection, None
        if connection is not None and not connection.request_sent and self.resends < MAX_RESENDS:
            # The connection died while it was idle. No byte of the request was written, so it may go out once more.
            self._resend()
        else:
            self._break(error)

    def _resend(self) -> None:
        self.resends += 1
        self._vacate()
        assert self.target is not None
        try:
            self._send_to(self.target, self.lane)
        except GatewayError as error:
            self._fail(error)
        except Exception as bug:
            self.on_fault(bug)

    def _choose_relay(self, head: ResponseHead, good: bool) -> Relay:
        """How this answer flows; see relay.py for the four ways."""
        translation = self.lane.translation
        framing = Framing(
            self.connection.walker if head.chunked and self.connection else None, self.client.takes_chunks
        )
        pipeline = self.binding.configuration.pipeline
        reads = pipeline.reads_output
        reviewed = reads or bool(self.originals)
        if head.coding not in (b"", b"identity"):
            if good and translation.identity and not reviewed:
                return Passage(framing, None)
            coding = undo(head.coding)
            if coding is not None:
                framing = CodedFraming(framing, coding)
                self.head = head = without_coding(head)
            elif good:
                raise UpstreamInvalid("The provider coded its answer in a way that nobody asked for and few can read.")
        if not good:
            return Collection(framing, MAX_ERROR_BODY)
        # Some servers name no media type; then it is what the client asked for.
        if not (self.view.stream and (head.media.startswith(translation.stream_media) or not head.media)):
            if reviewed or not translation.identity:
                return Collection(framing, MAX_COLLECTED)
            return Passage(framing, translation.read)
        changes = bool(self.originals) or pipeline.delivery in _CHANGING
        held = self.fallback.commit_window
        if held is not None and len(self.candidates) > 1 and pipeline.delivery is not Delivery.BUFFER:
            self.window = CommitWindow(held)
        if translation.identity:
            framing.passable = framing.passable and not changes and self.window is None
            frames = Frames(framing, translation.tap(), strip=self.translated.strip_usage, hold=reads)
            if changes:
                return self._changing(frames)
            if self.connection is not None and framing.passable:
                frames.write = self.client.write
                self.connection.lane = frames.pass_on
            return frames
        translator = translation.stream(
            self.model, include_usage=self.view.include_usage, carried=self.translated.carried
        )
        translated = Translation(framing, translator, hold=reads)
        return self._changing(translated) if changes else translated

    def _changing(self, relay: Frames | Translation) -> Relay:
        """Policies may change the stream on its way, or see it whole before the client does."""
        pipeline = self.binding.configuration.pipeline
        if pipeline.delivery is Delivery.BUFFER:
            return Buffered(relay, MAX_COLLECTED)
        editor = EDITORS.get(self.endpoint.operation or "")
        if editor is None:
            return relay
        self.guard = pipeline.guard(self.subject or self.describe())
        return Guarded(relay, editor(PolicyChange(self.guard, Restorer(self.originals) if self.originals else None)))

    def _flow(self, data: bytes, end: bool) -> None:
        """One read, and what it means for the client in this same turn."""
        relay = self.relay
        self.reads += 1
        self._clocked(STREAM)
        out = relay.feed(data, end)
        if end:
            self.connection = None
            self._vacate()
        if self.state is State.REVIEWING:
            return
        if self.window is not None:
            if not self._hold_back(self.window, out, ends=end or relay.awaits_verdict or relay.over):
                return
            out = self._leave_window()
        if relay.awaits_verdict:
            if out:
                self._write(out, False)
            self._conclude()
        elif end or relay.over:
            self._complete(out)
        elif out or not (self.begun or type(relay) in (Translation, Collection, Buffered)):
            # Where nothing is translated the head goes on at once, as the provider sent it.
            self._write(out, False)

    def _hold_back(self, window: CommitWindow, out: bytes, *, ends: bool) -> bool:
        """Whether the beginning of a stream may go on; until then another target may still give the answer."""
        if window.take(out) or ends:
            return True
        if window.begun and self.pause is None:
            self.pause = self.services.call_later(window.seconds, self._window_over, window)
        return False

    def _window_over(self, window: CommitWindow) -> None:
        if self.window is not window or self.state is not State.RELAYING:
            return
        try:
            self._write(self._leave_window(), False)
        except Exception as error:
            self.on_fault(error)

    def _leave_window(self) -> bytes:
        """Hold nothing back any more. What was held."""
        window, self.window = self.window, None
        pause, self.pause = self.pause, None
        if pause is not None:
            pause.cancel()
        return b"" if window is None else window.release()

    def _conclude(self) -> None:
        """All that policies will ever see is here; what was held back waits for them."""
        relay = self.relay
        if type(relay) is Buffered:
            whole = relay.answer()
            self._review(whole, partial(self._release_buffered, relay, whole.texts))
            return
        if type(relay) is not Collection:
            self._review(relay.answer(), self._after_stream_review)
            return
        body = relay.finish()
        if not 200 <= self.head.status < 300:
            self._provider_error(body)
            return
        answer = self.lane.translation.answer(body, self.model, self.translated.carried)
        view = self.lane.translation.read(answer)
        self._review(view, partial(self._deliver, answer, view.texts))

    def _provider_error(self, body: bytes) -> None:
        """The provider refused: its own words for a client of the same format, else their meaning."""
        translation, head = self.lane.translation, self.head
        if self.translated.strip_usage and head.status in (400, 422) and b"stream_options" in body:
            # Asked on the gateway's behalf only: once more without it, and so from now on.
            self.lane.meters = False
            self._resend()
            return
        error = translation.error(head, body, passthrough=bool(self.binding.credential))
        same_words = translation.identity and type(error) is UpstreamStatus and error.status == head.status
        if not same_words or self._may_retry(error):
            raise error
        self._blame(error)
        self._record(Outcome.FAILED, error.status, code="provider_error", more_bytes=len(body))
        self._write(body, True)

    # Phase 8: review

    def _review(self, answer: AnswerView, then: Callable[[], None]) -> None:
        """The output phase, on the complete answer; `then` delivers what was held back."""
        self.usage = answer.usage
        pipeline = self.binding.configuration.pipeline
        if not pipeline.reads_output:
            then()
            return
        if answer.truncated:
            raise UpstreamInvalid("The answer has more text than policies can read.")
        self.answer = answer
        delivered = type(self.relay) not in (Collection, Buffered)
        work = partial(self._look_at_answer, answer, delivered)
        size = sum([len(part.text) for part in answer.texts]) + (len(self.body) if pipeline.asks_context else 0)
        self._clocked(RELAY)
        try:
            if size > pipeline.reviews_inline:
                raise CrowdedError
            screening = work(inline=True)
        except CrowdedError:
            self._step(State.REVIEWING)
            self.deadline = self.services.clock() + SCREEN_SECONDS
            self.reviewed = partial(self._scanned, answer, delivered, then)
            self.services.run_in_thread(work, self._review_done)
            return
        self._clocked(OUTPUT_POLICIES)
        if not self._moderates_output(screening):
            self._judge_output(screening)
            then()
        else:
            self._step(State.REVIEWING)
            self._moderate_output(answer, delivered, then, screening)

    def _look_at_answer(self, answer: AnswerView, delivered: bool, *, inline: bool = False) -> Screening:
        """The output phase; raises CrowdedError if `inline`. It may run in a thread: it changes nothing."""
        pipeline = self.binding.configuration.pipeline
        return pipeline.review(
            self.subject or self.describe(),
            answer.texts,
            delivered=delivered,
            context=self._context(answer) if pipeline.asks_context else NO_CONTEXT,
            guard=self.guard,
            inline=inline,
        )

    def _context(self, answer: AnswerView) -> Context:
        """What policies of answers may know of the request."""
        return Context(
            request=self.view.texts(),
            tools=[Tool(*tool) for tool in declared(self.body)] if answer.calls else (),
            calls=[Call(*call) for call in answer.calls],
            finish_reason=answer.finish_reason or "",
        )

    def _moderates_output(self, screening: Screening) -> bool:
        moderator = self.binding.configuration.moderator
        return (
            moderator is not None
            and Phase.OUTPUT in moderator.policy.phases
            and screening.verdict in (Verdict.ALLOW, Verdict.REDACT)
        )

    def _moderate_output(
        self, answer: AnswerView, delivered: bool, then: Callable[[], None], screening: Screening
    ) -> None:
        moderator = self.binding.configuration.moderator
        assert moderator is not None
        self.deadline = self.services.clock() + self.idle_seconds + moderator.seconds
        self.asking = Moderation(
            self.services,
            moderator,
            Phase.OUTPUT,
            self.subject or self.describe(),
            answer.texts,
            screening,
            partial(self._reviewed, then),
            delivered=delivered,
        )

    def _review_done(self, screening: Screening | BaseException) -> None:
        """A thread has reviewed a long answer, or will not in time; whichever comes first."""
        reviewed, self.reviewed = self.reviewed, None
        if reviewed is not None:
            reviewed(screening)

    def _scanned(
        self, answer: AnswerView, delivered: bool, then: Callable[[], None], screening: Screening | BaseException
    ) -> None:
        """A long answer has been reviewed."""
        if (
            self.state is State.REVIEWING
            and not isinstance(screening, BaseException)
            and self._moderates_output(screening)
        ):
            self._moderate_output(answer, delivered, then, screening)
        else:
            self._reviewed(then, screening)

    def _reviewed(self, then: Callable[[], None], screening: Screening | BaseException) -> None:
        if self.state is not State.REVIEWING:
            return
        try:
            if isinstance(screening, BaseException):
                raise screening
            self._step(State.RELAYING)
            self.deadline = self._clocked(OUTPUT_POLICIES) + self.idle_seconds
            self._judge_output(screening)
            then()
        except GatewayError as error:
            self._break(error)
        except Exception as error:
            self.on_fault(error)

    def _judge_output(self, screening: Screening) -> None:
        """Only what has not been delivered yet can be redacted; the pipeline knows, and blocks otherwise."""
        self.output_decisions = screening.decisions
        if screening.verdict is Verdict.REDACT:
            self.redactions = screening.replacements
        elif screening.verdict is not Verdict.ALLOW:
            refusing = screening.refusing or screening.decisions[-1]
            raise OutputBlocked(screening.message or "A policy refused the answer.", policy=refusing.policy)

    def _after_stream_review(self) -> None:
        self._complete(self.relay.finish())

    # Delivery

    def _deliver(self, body: bytes, texts: Sequence[TextPart]) -> None:
        """A collected answer that policies let through, with what they redacted."""
        changed = restored(texts, self.redactions, self.originals) if self.originals else self.redactions
        self._complete(replace_texts(body, texts, changed) if changed else body)

    def _release_buffered(self, relay: Buffered, texts: Sequence[TextPart]) -> None:
        """A stream that was kept until policies had seen it whole."""
        changed = restored(texts, self.redactions, self.originals) if self.originals else self.redactions
        self._complete(relay.release(self.endpoint.operation or "", texts, changed))

    def _complete(self, out: bytes) -> None:
        """The end of a good answer: recorded first, so that no answer is delivered whole and not in the log."""
        relay = self.relay
        if type(relay) is Passage and relay.metered_bytes > INLINE_BYTES:
            self._write(out, True)
            self._step(State.METERING)
            self.services.run_in_thread(relay.answer, self._metered)
            return
        if self.usage is None:
            self.usage = relay.answer().usage
        self._record(Outcome.COMPLETED, self.head.status, more_bytes=len(out))
        if self.connection is not None:
            self._part()
        self._write(out, True)

    def _part(self) -> None:
        """The stream's end mark has come before the end of its message, which concerns only the connection."""
        connection, self.connection = self.connection, None
        self._vacate()
        if connection is not None:
            connection.linger()

    def _metered(self, answer: AnswerView | BaseException) -> None:
        """Usage of a large body, read in a thread after the client had it all."""
        if isinstance(answer, AnswerView):
            self.usage = answer.usage
        elif isinstance(answer, Exception):
            self.services.report(self, answer)
        self._record(Outcome.COMPLETED, self.head.status)

    def _write(self, data: bytes, end: bool) -> None:
        """To the client, head first."""
        self.bytes_sent += len(data)
        if self.begun:
            self.client.send(data, end=end, raw=self.relay.raw)
            self._clocked(RELAY)
            return
        self.first_byte_at = self._clocked(FIRST_BYTE)
        self.begun = True
        head, relay = self.head, self.relay
        length = head.content_length if type(relay) is Passage else len(data) if type(relay) is Collection else None
        fields = self._response_fields(head, streams=type(relay) in _STREAMING)
        self.client.begin(head.status, fields, length=length, data=data, end=end, raw=relay.raw, reason=head.reason)

    def _response_fields(self, head: ResponseHead, *, streams: bool) -> bytes:
        fields = self._own_fields()
        if self.lane.translation.identity:
            passed = _passed_on(head, limited=self.hold is not None)
            fields = (_STREAM_OWN.sub(b"", b"\n" + passed)[1:] if streams else passed) + fields
        else:
            kind = b"text/event-stream; charset=utf-8" if streams else b"application/json"
            fields += b"content-type: %b\r\n" % kind
            if (provider_id := head.get(b"x-request-id")) is not None:
                fields += b"x-provider-request-id: %b\r\n" % provider_id
        if self.translated.notes:
            fields += b"x-kt-translation-notes: %b\r\n" % _note_field(self.translated.notes)
        return fields + _STREAM_FIELDS if streams else fields

    def _own_fields(self) -> bytes:
        fields = b"x-request-id: %b\r\n" % self._shown_id()
        if self.services.server_timing:
            fields += server_timing(self.stages)
        return fields if self.hold is None else fields + self.hold.lines

    def _shown_id(self) -> bytes:
        """The request id that client and provider read: the client's own, where it sent one."""
        return self.request.own.get(b"x-request-id") or self.id.encode()

    # Ends

    def on_client_gone(self) -> None:
        """The client has left: the provider is told by closing, and nothing more is spent."""
        if self.state in _OVER:
            return
        self._release()
        self._record(Outcome.CANCELLED, CLIENT_GONE)

    def on_client_paused(self) -> None:
        """The client reads slower than the provider sends: the provider is slowed."""
        self.client_paused = True
        if self.connection is not None:
            self.connection.pause_reading()

    def on_client_resumed(self) -> None:
        """The client has caught up."""
        self.client_paused = False
        if self.connection is not None:
            self.connection.resume_reading()
        if self.state is State.RELAYING:
            self.deadline = self.services.clock() + self.idle_seconds

    @property
    def progress(self) -> int:
        """Bytes that have gone to the client so far, by whichever way."""
        relay = self.relay
        return self.bytes_sent + (relay.passed if type(relay) is Frames else 0)

    def on_deadline(self, now: float) -> None:
        """The provider took too long. Waiting for a slow client is not its fault."""
        seen, self._seen = self._seen, self.reads + self.progress
        if now >= self.total_deadline:
            self._out_of_time()
        elif self.state is State.RELAYING and (self.client_paused or self._seen != seen):
            # Looked at by the sweep instead of renewed by every chunk: that would cost 0.1 µs each.
            self.deadline = now + self.idle_seconds
        elif self.state is State.SCREENING:
            self._screened(self.binding.configuration.pipeline.overdue(Phase.INPUT))
        elif self.state is State.REVIEWING:
            self._review_done(self.binding.configuration.pipeline.overdue(Phase.OUTPUT))
        elif self.state is State.DECODING:
            self._fail(Overloaded("The request could not be read in time; try again in a moment."))
        elif self.state is State.WAITING:
            self._break(UpstreamTimeout("The provider did not begin to answer in time."))
        elif self.state is State.RELAYING:
            self._break(UpstreamTimeout("The provider stopped in the middle of its answer."))

    def _out_of_time(self) -> None:
        """The operator's bound on the whole exchange, whatever it is doing: there is no time for another attempt."""
        error = UpstreamTimeout("The exchange took longer than the target's total_seconds.")
        if self.state is State.WAITING:
            self._blame(error)
        self.end_early(error)

    def end_early(self, error: GatewayError) -> None:
        """The key was revoked, or the worker must go: end now, with the wire's own error."""
        if self.state in _OVER:
            return
        self._release()
        if self.begun:
            self._end_broken(error)
        else:
            self._fail(error)

    def _break(self, error: GatewayError) -> None:
        """The answer cannot be completed: another target if nothing has gone out, else a last error event."""
        if self.state is State.ENDED:
            return
        if self.guard is not None and not self.output_decisions:
            self.output_decisions = tuple(self.guard.decisions.values())
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.abort()
        if self.begun:
            self._vacate()
            self._blame(error)
            self._end_broken(error)
        else:
            self._attempt_failed(error)

    def _end_broken(self, error: GatewayError) -> None:
        """The client has part of an answer. It gets the error as its wire's last event, and never an end mark."""
        streams = type(self.relay) in _STREAMING
        self._record(Outcome.TRUNCATED, self.head.status, code=error.code)
        if not streams:
            self.client.abort()
            return
        refused = isinstance(error, PolicyRefusal)
        self.client.send(event(error, self._shown_id().decode("latin-1"), self.endpoint.wire), end=refused, raw=False)
        if not refused:
            self.client.abort()

    def _fail(self, error: GatewayError) -> None:
        """Nothing has gone out: the whole answer is the error."""
        if self.state is State.ENDED:
            return
        self._release()
        if self.hold is not None and error.source is Source.UPSTREAM:
            error.headers = tuple(field for field in error.headers if not field[0].startswith(b"x-ratelimit-"))
        outcome = Outcome.REFUSED if error.source is Source.DOWNSTREAM else Outcome.FAILED
        self._record(outcome, error.status, code=error.code)
        self.client.refuse(error, self._shown_id().decode("latin-1"), self.endpoint.wire, self._own_fields())

    def on_fault(self, bug: Exception) -> None:
        """A bug of ours is not the client's business, but it is logged whole and answered."""
        if _is_depth(bug) and self.state not in _OVER:
            self._too_deep()
            return
        self.services.report(self, bug)
        if self.state is State.ENDED:
            self.client.abort()
            return
        self._release()
        error = InternalError("The gateway failed; the request id finds the fault in its log.")
        if self.begun:
            self._end_broken(error)
        else:
            self._fail(error)

    def _too_deep(self) -> None:
        """JSON that is nested within the bounds, and deeper than it can be written anew (254 levels, with orjson)."""
        if self.state in (State.RELAYING, State.REVIEWING):
            self._break(UpstreamInvalid("The provider's answer is nested too deeply to be changed."))
        else:
            self._fail(InvalidJSON("The request body is nested too deeply to be changed or translated."))

    def _release(self) -> None:
        """Give back whatever is held on the provider's side."""
        ticket, self.ticket = self.ticket, None
        connection, self.connection = self.connection, None
        pause, self.pause = self.pause, None
        if ticket is not None:
            ticket.cancel()
        if connection is not None:
            connection.abort()
        if pause is not None:
            pause.cancel()
        if self.asking is not None:
            self.asking.cancel()
        self._vacate()

    # Phase 9: record

    def _audit_start(self) -> None:
        """The first record: before anything leaves for a provider. Raises AuditUnavailable."""
        if self.binding.configuration.pipeline.audits:
            self.services.audit(self.start_record(self.input_decisions))
            self.audited = True

    def start_record(self, decisions: Sequence[Decision]) -> bytes:
        """The audit record that the exchange begins, after these decisions of the input phase."""
        configuration, key = self.binding.configuration, self.binding.key
        request_id = self.request.own.get(b"x-request-id")
        return start_record(
            self.id,
            int(self.services.wall() * 1_000_000),
            key.id if key else None,
            key.team if key else None,
            configuration.id,
            configuration.pipeline.version,
            self.endpoint.operation or "",
            self.model[:256],
            self.client.peer,
            decisions,
            self._attributes(request_id) or UNSET,
        )

    def _attributes(self, request_id: bytes | None) -> dict[str, str]:
        """What the client calls the request, and the trace that it belongs to, where somebody collects traces."""
        attributes = {"client_request_id": request_id.decode("latin-1")[:128]} if request_id else {}
        if self.services.traces and (parent := self.request.forwarded(b"traceparent")) is not None:
            attributes["traceparent"] = parent.decode("latin-1")[:64]
        return attributes

    def _record(self, outcome: Outcome, status: int, *, code: str | None = None, more_bytes: int = 0) -> None:
        """Once for every exchange, however it ended."""
        if self.recorded:
            return
        self.recorded = True
        assert _ENDED in self.state.steps, f"{self!r} cannot become {_ENDED}"
        stage = _LAST_STAGE[self.state]
        if stage == STREAM and outcome is _COMPLETED:
            stage = RELAY if self.begun else FIRST_BYTE
        self.state = _ENDED
        services = self.services
        services.active.discard(self)
        now = self._clocked(stage)
        if self.sent_at and outcome is not Outcome.FAILED:
            self._find_cost(more_bytes)
        if self.hold is not None:
            self._settle(outcome)
        services.count(self, status, code, now)
        if self.audited or self.binding.configuration.audits_everything:
            self._audit_finish(outcome, status, code, more_bytes, now)
        shadow = self.binding.configuration.shadow
        if shadow is not None and self.model:
            services.shadows.offer(self, shadow)

    def _settle(self, outcome: Outcome) -> None:
        """Give the limits what was really used (docs/limits.md); where nobody can know, the estimate stands."""
        assert self.hold is not None
        if self.usage is not None:
            self.hold.settle(self.usage.total, self.services.wall(), self.cost)
        elif not self.sent_at:
            self.hold.refund()
        elif outcome is Outcome.FAILED:
            self.hold.settle(0, self.services.wall())
        else:
            self.hold.spend(self.cost, self.services.wall())
        self.hold.release()

    def _find_cost(self, more_bytes: int) -> None:
        """What it cost, where the target has a price; if the provider has not said what was used, by the sizes."""
        price = None if self.target is None else self.target.price
        if price is not None:
            usage = self.usage or self._guess(self.progress + more_bytes)
            self.cost = price.cost(usage, self.services.wall())

    def _guess(self, answer_bytes: int) -> Usage:
        """What was used, by the sizes: a token has some four bytes, and as an event of a stream some 128."""
        size = getattr(self.view, "prompt_bytes", len(self.body))
        return Usage(size // 4, answer_bytes // (128 if self.view.stream else 4))

    def _audit_finish(self, outcome: Outcome, status: int, code: str | None, more_bytes: int, now: float) -> None:
        services = self.services
        if not self.audited:
            services.conclude(self.start_record(self.input_decisions))
        services.conclude(
            finish_record(
                self.id,
                int(services.wall() * 1_000_000),
                outcome,
                status=status,
                code=code,
                target=self.target.id if self.target else None,
                attempts=self.attempts,
                usage=self.usage,
                bytes_sent=self.progress + more_bytes,
                duration_us=int((now - self.started_at) * 1_000_000),
                first_byte_us=int((self.first_byte_at - self.started_at) * 1_000_000) if self.begun else None,
                decisions=self.output_decisions,
                notes=self.translated.notes,
                sent_us=int((self.sent_at - self.started_at) * 1_000_000) if self.sent_at else None,
                stages_us=microseconds(self.stages),
                cost_nanousd=self.cost,
            )
        )


def _is_depth(bug: Exception) -> bool:
    """Whether a JSON library gave up at some depth. orjson says so in words only: its error is a plain TypeError."""
    return isinstance(bug, RecursionError) or (type(bug) is TypeError and bug.args == ("Recursion limit reached",))


def _passed_on(head: ResponseHead, *, limited: bool) -> bytes:
    passed = head.passed_limited if limited else head.passed
    return passed_on(head.raw, limited=limited) if passed is None else passed


def _note_field(notes: tuple[str, ...]) -> bytes:
    """Translation notes as one header value: visible ASCII, at most 1 KB; the audit record has them whole."""
    return "; ".join(notes).encode("ascii", "replace").translate(_VISIBLE)[:1024]


_VISIBLE: Final = bytes(code if 0x20 <= code < 0x7F else 0x3F for code in range(256))
