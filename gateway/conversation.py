"""A conversation: a client's WebSocket, a provider's, and the policies between them.

    open       the model of the path is admitted, a target opens a socket, the client's is accepted    401 … 503
    take       a client's message: read, screened, its models checked; then forwarded, redacted, or answered in-band
    hear       a provider's message: which response it belongs to, what its policies make of it
    end        a response with its verdict; the conversation with a close code

It is the counterpart of `exchange.py` for the Realtime API and for Responses in WebSocket mode. This is the client's
half of it; the provider's is `provider_side`. What is refused is answered by an `error` event of the protocol's own
shape, and the connection stays. A message that nobody has to read is forwarded as it was read. Each response is a
`Turn`, with limits and records of its own.

It is driven by calls from its two sides (`socket_ports`) and knows nothing of frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Final

from gateway.audit.record import Outcome
from gateway.chat_socket import ChatSocket
from gateway.conversation_models import names_for, refusal_of, route_of, subject_of
from gateway.conversation_records import ConnectionRecord
from gateway.errors import (
    GatewayError,
    InternalError,
    InvalidAPIKey,
    InvalidRequest,
    UpstreamAuthFailed,
    UpstreamReset,
    UpstreamStatus,
    UpstreamTimeout,
)
from gateway.examination import Examination
from gateway.exchange_queue import ExchangeQueue
from gateway.narrow import narrowed
from gateway.provider_side import ProviderSide, outcome_of
from gateway.said import Said
from gateway.socket_ports import GOING_AWAY, INTERNAL_ERROR, NORMAL, VANISHED, Message, Socket, SocketKind, close_code
from gateway.strays import Strays
from gateway.turn import Turn
from gateway.turns import Turns
from gateway.types import Operation, TextPart, Verdict
from gateway.uplink import Uplink
from policy.restore import Memory
from translators.realtime import as_request, in_lane, is_audio, wished_model
from translators.realtime_answers import error_event

if TYPE_CHECKING:
    from gateway.routes import Route
    from gateway.services import Services
    from gateway.socket_ports import Conversation, Upgrade
    from translators.realtime import ClientEvent

_NEVER: Final = float("inf")
_NAMING: Final = (b"model", b"response.", b"tools", b"\\u")
"""What a client's message has in it if somebody has to read it, whatever the policies."""
_CLIENT_GONE: Final = 499


def converse(services: Services, upgrade: Upgrade) -> Conversation:
    """The conversation of an upgrade. Raises GatewayError, which refuses it."""
    if upgrade.kind is SocketKind.CHAT:
        return ChatSocket(services, upgrade)
    session = Session(services, upgrade)
    session.begin()
    return session


class Session:
    """One client's socket of the Realtime API or of Responses."""

    def __init__(self, services: Services, upgrade: Upgrade) -> None:
        self.services = services
        self.binding = upgrade.binding
        # What the client reads as `x-request-id` finds the records, also where it has brought an id of its own.
        self.id = services.next_id() if b"x-request-id" in upgrade.head.own else upgrade.request_id
        self.deadline = self.total_deadline = _NEVER
        self._examined_until = _NEVER
        self._heard_at = 0.0
        self._client_is_slow = False
        self._upgrade = upgrade
        self._realtime = upgrade.kind is SocketKind.REALTIME
        self._operation = Operation.REALTIME if self._realtime else Operation.RESPONSES
        self._meters = services.socket_metrics[upgrade.kind.value]
        self._client: Socket | None = None
        self._uplinks: dict[str, Uplink] = {}
        self._model = upgrade.model or ""
        self._over = False
        self._answered = False
        self._record: ConnectionRecord | None = None
        self._bytes_sent = 0
        self._examination: tuple[Examination, Message, float] | None = None
        self._requests: ExchangeQueue | None = None
        self._held_back: tuple[Examination, Message, float] | None = None
        self._dialling: Uplink | None = None
        self._paused = False
        self._memory = Memory()
        self._turns = Turns(upgrade.peer, realtime=self._realtime)
        self._strays = Strays(services, self.id, self._operation.value, self._model, self._memory)
        self._provider = ProviderSide(self, self._turns, self._strays, self._memory, realtime=self._realtime)
        self._said = Said()

    def __repr__(self) -> str:
        state = "over" if self._over else "open" if self._client is not None else "opening"
        return f"<Session {self.id} {self._operation.value} {state}, {self._turns!r}>"

    @property
    def is_over(self) -> bool:
        return self._over

    # Open

    def begin(self) -> None:
        """Open what can be opened before the client has said anything. Raises GatewayError."""
        if not self._realtime:
            self._accept(None)
        elif not self._model:
            raise InvalidRequest("Name the model in the URL, as in /v1/realtime?model=gpt-realtime.", param="model")
        else:
            route = self._admit_connection()
            self._record = ConnectionRecord(
                self.services, self.binding, self.id, self._operation.value, self._model, self._upgrade.peer
            )
            self._record.start(self._client_id)
            try:
                self._dial(route)
            except GatewayError as error:
                self._end(error.code, error.status, Outcome.FAILED)
                raise
        self.services.active.add(self)

    def _admit_connection(self) -> Route:
        """The targets of the connection's model. Policies that judge by key and model speak before anything is said:
        audio, which they do not read, could be all that ever comes. What needs a person's approval are messages, not
        the connection. Raises GatewayError."""
        route, pipeline = route_of(self.binding, self._model), self.binding.configuration.pipeline
        if pipeline.reads_input:
            screening = pipeline.screen(subject_of(self.binding, self.id, self._model, self._operation.value), ())
            if screening.verdict is Verdict.BLOCK:
                raise refusal_of(screening)
        return route

    def _dial(self, route: Route) -> Uplink:
        candidates, pipeline = route.candidates(), self.binding.configuration.pipeline
        if pipeline.narrows:
            subject = subject_of(self.binding, self.id, self._model, self._operation.value)
            candidates, _, refusal = narrowed(pipeline, subject, candidates)
            if refusal is not None:
                raise refusal
        uplink = Uplink(self.services, self, self._upgrade, self.binding, self._operation, candidates, route.fallback)
        self._dialling = uplink
        uplink.dial()
        return uplink

    def _accept(self, uplink: Uplink | None) -> None:
        provider = None if uplink is None else uplink.socket
        fields = b"x-request-id: %b\r\n" % self._upgrade.request_id.encode("latin-1")
        self._answered = True
        self._client = self._upgrade.accept(
            self,
            subprotocol=None if provider is None else provider.subprotocol,
            fields=fields,
            # Each message would have to be inflated and deflated again where the other side does without.
            compress=provider is not None and provider.compressed,
        )
        self._meters.open.inc()

    def on_uplink_open(self, uplink: Uplink) -> None:
        """A target has opened a socket: the client's, too, or what waited for it."""
        self._dialling = None
        self._uplinks[uplink.target.id] = uplink
        if self._client is None:
            self._accept(uplink)
            return
        waiting, self._held_back = self._held_back, None
        if waiting is not None:
            examination, message, began = waiting
            self._client.resume_reading("connecting")
            self._go_on(examination, message, began)

    def on_uplink_failed(self, uplink: Uplink, error: GatewayError) -> None:
        """No target opens one."""
        self._dialling = None
        if self._client is None:
            self._end(error.code, error.status, Outcome.FAILED)
            self._upgrade.refuse(error)
            return
        waiting, self._held_back = self._held_back, None
        if waiting is not None:
            examination, _, began = waiting
            self._client.resume_reading("connecting")
            if _knows_no_sockets(error) and self._operation in uplink.target.lanes:
                uplink.target.takes_no_socket(self._operation)
                self._ask_over_http(examination.message)
            else:
                self._refuse(examination, error)
            self._meters.took_in(self.services.clock() - began)

    # Take: what the client says

    def on_message(self, message: Message) -> None:
        """The client says something."""
        began = self.services.clock()
        self._meters.came(message.size)
        if self._over:
            return
        try:
            self._bind()
            self._take(message, began)
        except GatewayError as error:
            self.end_early(error)
        except Exception as bug:
            self._fault(bug)

    def _bind(self) -> None:
        """Each message is judged by the configuration that is in force when it comes, and by the key as it is then.

        Raises GatewayError where the key may not go on."""
        binding = self.services.snapshot.renewed(self.binding, self.services.wall())
        if binding is None:
            raise InvalidAPIKey("This gateway key was revoked or has expired.")
        if binding is not self.binding:
            self.binding = binding
            if self._realtime:
                self._admit_connection()

    def _take(self, message: Message, began: float) -> None:
        data = message.data
        if self._realtime and (is_audio(data) or not self._must_read(data)):
            for uplink in self._uplinks.values():
                uplink.forward(message)
            self._meters.took_in(self.services.clock() - began)
            return
        if not self._realtime and self._wants_http(data):
            self._ask_over_http(data)
            return
        examination = Examination(self.services, self.binding, self._operation.value, self._model, data, self._examined)
        self._examination = examination, message, began
        examination.begin()
        if self._examination is not None and self._client is not None:
            # What comes after it waits, so that the order stays.
            self._examined_until = examination.deadline
            self._plan()
            self._paused = True
            self._client.pause_reading("examination")

    def _wants_http(self, data: bytes) -> bool:
        """Whether a message wishes for a model that no target offers over a WebSocket."""
        model = wished_model(data)
        route = None if model is None else self.binding.configuration.routes.get(model)
        return route is not None and not any(self._operation in target.sockets for target in route.targets)

    def _ask_over_http(self, data: bytes) -> None:
        """The response comes by an exchange, whose events are the same."""
        assert self._client is not None
        if self._requests is None:
            self._requests = ExchangeQueue(self.services, self._upgrade, b"/v1/responses")
            self._requests.socket = self._client
        try:
            body, lane = as_request(data)
        except GatewayError as error:
            self.tell(error, self.services.next_id())
            return
        self._requests.ask(self.binding, body, partial(self._send_in, lane))

    def _send_in(self, lane: str | None, message: bytes) -> None:
        if message != b"[DONE]":
            self.send(message if lane is None else in_lane(message, lane))

    def _must_read(self, data: bytes) -> bool:
        pipeline = self.binding.configuration.pipeline
        return pipeline.reads_input or pipeline.asks_context or any(data.find(word) >= 0 for word in _NAMING)

    def _examined(self, examination: Examination, error: GatewayError | None) -> None:
        """The policies have spoken."""
        assert self._examination is not None
        _, message, began = self._examination
        self._examination = None
        if self._over or self._client is None:
            return
        self._examined_until = _NEVER
        if self._paused:
            self._paused = False
            self._client.resume_reading("examination")
        if error is None:
            self._go_on(examination, message, began)
        else:
            self._refuse(examination, error)
            self._meters.took_in(self.services.clock() - began)

    def _go_on(self, examination: Examination, message: Message, began: float) -> None:
        """Send a message that policies let through to its provider."""
        if self._over:
            return
        try:
            self._pass_on(examination, message)
        except GatewayError as error:
            self._refuse(examination, error)
        except Exception as bug:
            self._fault(bug)
            return
        if self._held_back is None:
            self._meters.took_in(self.services.clock() - began)
        else:
            self._held_back = examination, message, began

    def _pass_on(self, examination: Examination, message: Message) -> None:
        event = examination.event
        assert event is not None
        uplink = self._uplink_for(event, examination.model)
        if uplink.socket is None:
            assert self._client is not None
            self._client.pause_reading("connecting")
            self._held_back = examination, message, 0.0
            return
        values = {**names_for(self.binding, event, uplink.target), **self._texts_of(examination)}
        data = event.with_strings(values)
        self._said.note_decisions(examination.decisions)
        self._said.note(event, texts=self.binding.configuration.pipeline.asks_context)
        if event.creates and not self._ask(examination, event, uplink):
            return
        if data is event.message:
            uplink.forward(message)
        else:
            uplink.send(data, is_text=message.is_text)

    def _uplink_for(self, event: ClientEvent, model: str) -> Uplink:
        """The provider's socket that a message belongs on. Raises GatewayError."""
        if self._realtime:
            return next(iter(self._uplinks.values()))
        if not event.creates:
            turn = self._turns.of_response(event.response_id)
            for uplink in self._uplinks.values():
                if turn is None or uplink.target is turn.target:
                    return uplink
            raise InvalidRequest("There is no response on this connection yet; send response.create first.")
        route = route_of(self.binding, model)
        for target in route.targets:
            if target.id in self._uplinks:
                return self._uplinks[target.id]
        return self._dial(route)

    def _texts_of(self, examination: Examination) -> Mapping[str, str]:
        """The texts that policies put in the place of others; a value has one placeholder throughout."""
        if not examination.originals:
            return examination.values
        return self._memory.adopt(examination.values, examination.originals)

    def _ask(self, examination: Examination, event: ClientEvent, uplink: Uplink) -> bool:
        """A response is wanted. False: the key's limits or the audit log do not allow it, and the client was told."""
        turn = self._new_turn(examination.model or self._model)
        turn.id = examination.id
        turn.event_id, turn.stream_id = event.event_id, event.stream_id
        try:
            self.admit(turn, uplink, event.max_output_tokens)
        except GatewayError as error:
            self._turns.finish(turn, outcome_of(error), error.status, error.code)
            self.tell(error, turn.id, event.event_id, event.stream_id)
            return False
        self._turns.ask(uplink, turn)
        self._heard_at = self.services.clock()
        self._plan()
        return True

    def admit(self, turn: Turn, uplink: Uplink, max_output_tokens: int) -> None:
        """Charge a turn and write its first record. Raises RateLimited and AuditUnavailable."""
        turn.admit(max_output_tokens, (uplink.target,))
        turn.audit_start(self._upgrade.peer, self._client_id)
        turn.target = uplink.target

    def unasked(self, uplink: Uplink) -> Turn:
        """A turn for a response that the provider makes by itself."""
        self.deadline = 0.0  # planned by the next sweep, when the response has begun
        return self._new_turn(self._model or uplink.target.model)

    def _new_turn(self, model: str) -> Turn:
        """A turn that replies to what has been said since the one before."""
        turn = Turn(self.services, self.binding, self._operation.value, model, socket_id=self.id)
        turn.originals = self._memory.originals
        self._said.give(turn)
        return turn

    def _refuse(self, examination: Examination, error: GatewayError) -> None:
        """A client's message goes nowhere: it is told so in-band, and that is recorded like any refusal."""
        event = examination.event
        turn = Turn(self.services, self.binding, self._operation.value, examination.model, socket_id=self.id)
        turn.id = examination.id
        turn.input_decisions = examination.decisions
        self._turns.finish(turn, outcome_of(error), error.status, error.code)
        self.tell(error, turn.id, event.event_id if event else None, event.stream_id if event else None)

    def tell(self, error: GatewayError, id: str, event_id: str | None = None, stream_id: str | None = None) -> None:
        told = error_event(error, id, realtime=self._realtime, event_id=event_id, stream_id=stream_id)
        self.send(told)

    # Hear: what the provider says

    def on_uplink_message(self, uplink: Uplink, message: Message) -> None:
        """The provider says something."""
        if self._over or self._client is None:
            return
        began = self._heard_at = self.services.clock()
        try:
            self._provider.hear(uplink, message)
        except Exception as bug:
            self._fault(bug)
        self._meters.took_out(self.services.clock() - began)

    def hear_user(self, text: str) -> GatewayError | None:
        """What a user has said, in writing: why the model may not have it, or None. What is refused is recorded, and
        told to the client."""
        pipeline = self.binding.configuration.pipeline
        if not pipeline.reads_input:
            return None
        turn = Turn(self.services, self.binding, self._operation.value, self._model, socket_id=self.id)
        screening = pipeline.screen(turn.subject, (TextPart(text, path="transcript"),))
        if screening.verdict in (Verdict.ALLOW, Verdict.REDACT):
            self._said.note_decisions(screening.decisions)
            return None
        error = refusal_of(screening)
        turn.input_decisions = screening.decisions
        self._turns.finish(turn, outcome_of(error), error.status, error.code)
        self.tell(error, turn.id)
        return error

    # To the client

    def forward(self, message: Message) -> None:
        assert self._client is not None
        self._meters.went(message.size)
        self._bytes_sent += message.size
        self._client.forward(message)

    def send(self, data: bytes) -> None:
        if self._client is None or self._over:
            return
        self._meters.went(len(data))
        self._bytes_sent += len(data)
        self._client.send_text(data)

    # Back-pressure

    def on_paused(self) -> None:
        """The client reads slowly: so do we."""
        self._client_is_slow = True
        if self._requests is not None:
            self._requests.on_paused()
        for uplink in self._uplinks.values():
            uplink.pause_reading("client")

    def on_resumed(self) -> None:
        """The client has caught up."""
        self._client_is_slow = False
        self._heard_at = self.services.clock()
        self._plan()
        if self._requests is not None:
            self._requests.on_resumed()
        for uplink in self._uplinks.values():
            uplink.resume_reading("client")

    def on_uplink_paused(self, uplink: Uplink) -> None:
        """A provider reads slowly: so do we."""
        if self._client is not None:
            self._client.pause_reading(uplink.target.id)

    def on_uplink_resumed(self, uplink: Uplink) -> None:
        """The provider has caught up."""
        if self._client is not None:
            self._client.resume_reading(uplink.target.id)

    # End

    def on_client_gone(self) -> None:
        """The client has left before it was accepted."""
        self._end("", _CLIENT_GONE, Outcome.CANCELLED)
        self._hang_up(NORMAL, "")

    def on_closed(self, code: int, reason: str) -> None:
        """The client's socket is gone; its code goes on to the provider."""
        self._end("", _CLIENT_GONE, Outcome.CANCELLED)
        self._hang_up(NORMAL if code == VANISHED else code, reason)

    def on_uplink_closed(self, uplink: Uplink, code: int, reason: str) -> None:
        """The provider's socket is gone; with the last one goes the client's."""
        self._uplinks.pop(uplink.target.id, None)
        if self._over or self._client is None:
            return
        self._client.resume_reading(uplink.target.id)
        error = UpstreamReset("The provider has closed its connection.")
        for turn in self._turns.finish_all(Outcome.FAILED, error.status, error.code, uplink=uplink):
            self.tell(error, turn.id, turn.event_id, turn.stream_id)
        if not self._uplinks and self._requests is None:
            self._end(error.code, error.status, Outcome.FAILED)
            self._client.close(INTERNAL_ERROR if code == VANISHED else code, reason or "the provider has closed")

    def end_early(self, error: GatewayError) -> None:
        """The key was revoked, or the worker must go."""
        if self._over:
            return
        self._end(error.code, error.status, Outcome.TRUNCATED, error)
        self._hang_up(GOING_AWAY, "")  # first: why it ends is the client's to know
        if self._client is not None:
            self._client.close(close_code(error), error.message)
        elif not self._answered:
            self._upgrade.refuse(error)

    def on_deadline(self, now: float) -> None:
        """A thread takes too long with a message, or a provider with its responses."""
        if self._examined_until < now:
            self._examined_until = _NEVER
            if self._examination is not None:
                self._examination[0].overdue()
        if self._answered_until < now:
            error = UpstreamTimeout("The provider has not answered in time.")
            for turn in self._turns.finish_all(Outcome.FAILED, error.status, error.code):
                self.tell(error, turn.id, turn.event_id, turn.stream_id)
        self._plan()

    def _plan(self) -> None:
        """When the sweep must look at it next. What is heard meanwhile moves the moment on, which is seen then: to plan
        anew for each message would cost more than the message."""
        self.deadline = min(self._examined_until, self._answered_until)

    @property
    def _answered_until(self) -> float:
        """How long its providers may be silent: for ever while none is asked, or while a slow client holds them up."""
        if not len(self._turns) or self._client_is_slow:
            return _NEVER
        timeouts = [uplink.target.destination.timeouts for uplink in self._uplinks.values()]
        waits = [one.idle_seconds if self._turns.under_way else one.first_byte_seconds for one in timeouts]
        return self._heard_at + max(waits, default=0.0)

    def _fault(self, bug: Exception) -> None:
        """A bug of ours is not the client's business, but it is logged whole, and the conversation ends."""
        self.services.report_bug(repr(self), bug)
        self.end_early(InternalError("The gateway failed; see its log."))

    def _hang_up(self, code: int, reason: str) -> None:
        dialling, self._dialling = self._dialling, None
        for uplink in [*self._uplinks.values(), *([dialling] if dialling is not None else [])]:
            uplink.close(code, reason)

    def _end(self, code: str, status: int, outcome: Outcome, error: GatewayError | None = None) -> None:
        """Once: everything that is under way ends with the conversation, and is recorded."""
        if self._over:
            return
        if self._requests is not None:
            self._requests.end(error)
        self._over = True
        self.deadline = self._examined_until = _NEVER
        self.services.active.discard(self)
        if self._client is not None:
            self._meters.open.dec()
        if self._examination is not None:
            self._examination[0].cancel()
        self._turns.finish_all(outcome, status, code or None)
        if self._record is not None:
            opened = self._client is not None
            decisions = (*self._said.decisions, *self._strays.decisions)
            self._record.finish(
                outcome, 101 if opened else status, code or None, self._uplinks.values(), self._bytes_sent, decisions
            )

    @property
    def _client_id(self) -> str | None:
        """The client's own id for the request, where it sent one."""
        own = self._upgrade.head.own.get(b"x-request-id")
        return None if own is None else own.decode("latin-1")


def _knows_no_sockets(error: GatewayError) -> bool:
    """Whether a provider's refusal of a handshake may be that of a server which serves the path over HTTP only. Some
    say 403, which could also be about the key: then the request over HTTP will meet the same."""
    return isinstance(error, UpstreamAuthFailed) or (
        isinstance(error, UpstreamStatus) and error.status in _NO_SOCKETS_HERE
    )


_NO_SOCKETS_HERE: Final = (400, 404, 405, 426, 501)
