"""A conversation: a client's WebSocket, a provider's, and the policies between them.

    open       the model of the path is admitted, a target opens a socket, the client's is accepted    401 … 503
    take       a client's message: read, screened, its models checked; then forwarded, redacted, or answered in-band
    hear       a provider's message: which response it belongs to, what its policies make of it
    end        a response with its verdict; the conversation with a close code

It is the counterpart of `exchange.py` for the Realtime API and for Responses in WebSocket mode. What is refused is
answered by an `error` event of the protocol's own shape, and the connection stays. A message that nobody has to read is
forwarded as it was read. Each response is a `Turn`, with limits and records of its own.

It is driven by calls from its two sides (`socket_ports`) and knows nothing of frames.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from gateway.audit.record import Outcome, finish_record, start_record
from gateway.chat_socket import ChatSocket
from gateway.errors import (
    GatewayError,
    InternalError,
    InvalidAPIKey,
    InvalidRequest,
    ModelNotAllowed,
    ModelNotFound,
    Source,
    UpstreamAuthFailed,
    UpstreamStatus,
)
from gateway.examination import Examination
from gateway.exchange_queue import ExchangeQueue
from gateway.socket_ports import GOING_AWAY, INTERNAL_ERROR, NORMAL, VANISHED, Message, Socket, SocketKind, close_code
from gateway.strays import Strays
from gateway.turn import Asked, Turn
from gateway.types import Decision, Operation
from gateway.uplink import Uplink
from policy.restore import Memory
from policy.steps import STRICTNESS
from translators.realtime import as_request, in_lane, is_audio, transcribes, wished_model
from translators.realtime_answers import (
    ServerEvent,
    cancel_event,
    error_event,
    event_of,
    failed_response,
    is_audio_delta,
    usage_in,
)

if TYPE_CHECKING:
    from gateway.routes import Route, Target
    from gateway.services import Services
    from gateway.socket_ports import Conversation, Upgrade
    from gateway.types import TextPart
    from translators.realtime import ClientEvent
    from translators.tools import Declared

_NEVER: Final = float("inf")
MAX_REMEMBERED: Final = 1024 * 1024
"""Bytes said since the last response that are kept for policies which compare an answer with its request."""
_TELLING: Final = re.compile(
    rb'"type"[ \t\r\n]*:[ \t\r\n]*"(?:response\.(?:created|done|completed|incomplete|failed)|error)"'
)
"""Stands in events that begin or end a response. Within a string its quotes would be escaped."""
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
        self.id = services.next_id()
        self.deadline = self.total_deadline = _NEVER
        self._upgrade = upgrade
        self._realtime = upgrade.kind is SocketKind.REALTIME
        self._operation = Operation.REALTIME if self._realtime else Operation.RESPONSES
        self._meters = services.socket_metrics[upgrade.kind.value]
        self._client: Socket | None = None
        self._uplinks: dict[str, Uplink] = {}
        self._model = upgrade.model or ""
        self._over = False
        self._answered = False
        self._started_at = services.clock()
        self._audited = False
        self._bytes_sent = 0
        self._examination: tuple[Examination, Message, float] | None = None
        self._requests: ExchangeQueue | None = None
        self._held_back: tuple[Examination, Message, float] | None = None
        self._asked: list[tuple[Uplink, Turn]] = []
        self._turns: dict[str, Turn] = {}
        self._lanes: dict[tuple[str, str | None], Turn] = {}
        self._items: dict[str, Turn] = {}
        self._dropping: set[Turn] = set()
        self._dialling: Uplink | None = None
        self._paused = False
        self._memory = Memory()
        self._strays = Strays(services, self.id, self._operation.value, self._model, self._memory)
        self._tools: Sequence[Declared] = ()
        self._texts: list[TextPart] = []
        self._size = 0
        self._decisions: dict[str, Decision] = {}

    def __repr__(self) -> str:
        state = "over" if self._over else "open" if self._client is not None else "opening"
        turns = len(self._asked) + len(self._turns)
        return f"<Session {self.id} {self._operation.value} {state}, {turns} responses under way>"

    # Open

    def begin(self) -> None:
        """Open what can be opened before the client has said anything. Raises GatewayError."""
        if not self._realtime:
            self._accept(None)
        elif not self._model:
            raise InvalidRequest("Name the model in the URL, as in /v1/realtime?model=gpt-realtime.", param="model")
        else:
            route = self._route(self._model)
            self._audit_start()
            try:
                self._dial(route)
            except GatewayError as error:
                self._end(error.code, error.status, Outcome.FAILED)
                raise
        self.services.active.add(self)

    def _dial(self, route: Route) -> Uplink:
        uplink = Uplink(
            self.services, self, self._upgrade, self.binding, self._operation, route.candidates(), route.fallback
        )
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

    def _route(self, model: str) -> Route:
        """The targets of a model that the key may use. Raises ModelNotFound and ModelNotAllowed."""
        binding = self.binding
        route = binding.configuration.routes.get(model)
        if route is None:
            raise ModelNotFound(
                f"No target of configuration {binding.configuration.id} offers the model {model[:200]!r}; "
                "GET /v1/models lists what it offers.",
                param="model",
            )
        allowed = None if binding.key is None else binding.key.models
        if not (allowed is None or model in allowed or all(one.model in allowed for one in route.targets)):
            raise ModelNotAllowed(
                f"This key does not allow the model {model[:200]!r}; ask its owner to add it.", param="model"
            )
        return route

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
        binding = self.services.snapshot.renewed(self.binding)
        if binding is None:
            raise InvalidAPIKey("This gateway key was revoked or has expired.")
        if binding is not self.binding:
            self.binding = binding
            if self._realtime:
                self._route(self._model)

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
            self.deadline = examination.deadline
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
            self._tell(error, self.services.next_id())
            return
        self._requests.ask(self.binding, body, partial(self._send_in, lane))

    def _send_in(self, lane: str | None, message: bytes) -> None:
        if message != b"[DONE]":
            self._send(message if lane is None else in_lane(message, lane))

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
        self.deadline = _NEVER
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
        values = {**self._model_names(event, uplink.target), **self._texts_of(examination)}
        data = event.with_strings(values)
        self._note(examination, event)
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
            turn = self._turns.get(event.response_id or "")
            for uplink in self._uplinks.values():
                if turn is None or uplink.target is turn.target:
                    return uplink
            raise InvalidRequest("There is no response on this connection yet; send response.create first.")
        route = self._route(model)
        for target in route.targets:
            if target.id in self._uplinks:
                return self._uplinks[target.id]
        return self._dial(route)

    def _model_names(self, event: ClientEvent, target: Target) -> dict[str, str]:
        """What stands in the places of models' names for the provider. Raises GatewayError for a model that may not be
        used here."""
        names = {}
        for path, model in event.models.items():
            if transcribes(path):
                self._check_transcriber(path, model)
                continue
            route = self._route(model)
            if all(one.id != target.id for one in route.targets):
                raise InvalidRequest(
                    f"The model of this connection is {self._model or target.model!r}; open another one for {model!r}.",
                    param=path,
                )
            if target.upstream_model != model:
                names[path] = target.upstream_model
        return names

    def _check_transcriber(self, path: str, model: str) -> None:
        """What writes down a user's speech comes with the session: it need not be a target, but a key that has a list
        must have it there."""
        key = self.binding.key
        if key is not None and key.models is not None and model not in key.models:
            raise ModelNotAllowed(
                f"This key does not allow the model {model[:200]!r}; ask its owner to add it.", param=path
            )

    def _texts_of(self, examination: Examination) -> Mapping[str, str]:
        """The texts that policies put in the place of others; a value has one placeholder throughout."""
        if not examination.originals:
            return examination.values
        return self._memory.adopt(examination.values, examination.originals)

    def _note(self, examination: Examination, event: ClientEvent) -> None:
        """Remember what the next response replies to."""
        for decision in examination.decisions:
            known = self._decisions.get(decision.policy)
            if known is None or STRICTNESS[decision.verdict] > STRICTNESS[known.verdict]:
                self._decisions[decision.policy] = decision
        self._size += len(event.message)
        if self.binding.configuration.pipeline.asks_context:
            if (tools := event.tools) is not None:
                self._tools = tools
            if self._size < MAX_REMEMBERED:
                self._texts += event.texts()

    def _ask(self, examination: Examination, event: ClientEvent, uplink: Uplink) -> bool:
        """A response is wanted. False: the key's limits or the audit log do not allow it, and the client was told."""
        turn = self._new_turn(examination.model or self._model)
        turn.id = examination.id
        turn.event_id, turn.stream_id = event.event_id, event.stream_id
        try:
            turn.admit(event.max_output_tokens, (uplink.target,))
            turn.audit_start(self._upgrade.peer, self._client_id)
        except GatewayError as error:
            self._finish(turn, _outcome(error), error.status, error.code)
            self._tell(error, turn.id, event.event_id, event.stream_id)
            return False
        turn.target = uplink.target
        self._asked.append((uplink, turn))
        return True

    def _new_turn(self, model: str) -> Turn:
        """A turn that replies to what has been said since the one before."""
        turn = Turn(self.services, self.binding, self._operation.value, model, socket_id=self.id)
        turn.input_decisions = tuple(self._decisions.values())
        turn.asked = Asked(tuple(self._texts), self._tools, self._size)
        turn.originals = self._memory.originals
        self._decisions = {}
        self._texts = []
        self._size = 0
        return turn

    def _refuse(self, examination: Examination, error: GatewayError) -> None:
        """A client's message goes nowhere: it is told so in-band, and that is recorded like any refusal."""
        event = examination.event
        turn = Turn(self.services, self.binding, self._operation.value, examination.model, socket_id=self.id)
        turn.id = examination.id
        turn.input_decisions = examination.decisions
        self._finish(turn, _outcome(error), error.status, error.code)
        self._tell(error, turn.id, event.event_id if event else None, event.stream_id if event else None)

    def _tell(self, error: GatewayError, id: str, event_id: str | None = None, stream_id: str | None = None) -> None:
        told = error_event(error, id, realtime=self._realtime, event_id=event_id, stream_id=stream_id)
        self._send(told)

    # Hear: what the provider says

    def on_uplink_message(self, uplink: Uplink, message: Message) -> None:
        """The provider says something."""
        if self._over or self._client is None:
            return
        began = self.services.clock()
        try:
            self._hear(uplink, message)
        except Exception as bug:
            self._fault(bug)
        self._meters.took_out(self.services.clock() - began)

    def _hear(self, uplink: Uplink, message: Message) -> None:
        data = message.data
        attentive = self._is_attentive
        if not self._dropping:
            if not attentive and _TELLING.search(data) is None:
                self._forward(message)
                return
            if is_audio_delta(data) and not self._buffers:
                self._forward(message)
                return
        event = event_of(data)
        turn = self._turn_of(uplink, event)
        if turn is None:
            if event.type == "error":
                self._failed(uplink, event)
            pieces = self._strays.feed(self.binding, event, data) if attentive and self._realtime else [data]
            for piece in pieces:
                self._send_or_forward(piece, message)
        elif turn.refusal is not None:
            if event.ends:
                self._end_refused(turn, data)
        else:
            self._flow(uplink, turn, event, message)

    @property
    def _is_attentive(self) -> bool:
        """Whether what the provider says must be read message by message."""
        pipeline = self.binding.configuration.pipeline
        return pipeline.reads_output or bool(self._memory.originals) or any(one.reads for one in self._turns.values())

    @property
    def _buffers(self) -> bool:
        return any(one.reads and one.buffers for one in self._turns.values())

    def _flow(self, uplink: Uplink, turn: Turn, event: ServerEvent, message: Message) -> None:
        """One message of a response that is under way."""
        data = message.data
        try:
            out = turn.feed(data, last=event.ends) if turn.reads else [] if event.ends else [data]
        except GatewayError as error:
            self._break(uplink, turn, error, ended=data if event.ends else None)
            return
        for piece in out:
            turn.bytes_sent += len(piece)
            self._send_or_forward(piece, message)
        if event.ends:
            turn.usage = usage_in(data)
            done: list[bool] = []
            turn.review(partial(self._verdict, uplink, turn, event, message, done))
            if not done:
                uplink.pause_reading("review")
                done.append(False)

    def _verdict(
        self,
        uplink: Uplink,
        turn: Turn,
        event: ServerEvent,
        message: Message,
        done: list[bool],
        error: GatewayError | None,
    ) -> None:
        """The policies have seen the whole response; `done` tells the caller, or us, who of both was first."""
        if done:
            uplink.resume_reading("review")
        done.append(True)
        if self._over:
            return
        try:
            if error is not None:
                raise error
            out = turn.release(realtime=self._realtime) if turn.reads else [message.data]
        except GatewayError as refusal:
            self._break(uplink, turn, refusal, ended=message.data)
            return
        turn.bytes_sent += sum(map(len, out))
        status = event.response.status if event.response is not None else None
        outcome, code, error_code = _ENDS.get(status or "", (Outcome.COMPLETED, 200, None))
        # Recorded first, so that no answer is delivered whole and not in the log.
        self._finish(turn, outcome, code, error_code)
        for piece in out:
            self._send_or_forward(piece, message)

    def _break(self, uplink: Uplink, turn: Turn, error: GatewayError, *, ended: bytes | None) -> None:
        """No more of a response may reach the client; `ended` is its last message, if that has come."""
        turn.refuse(error)
        self._tell(error, turn.id, None, turn.stream_id)
        if ended is not None:
            self._end_refused(turn, ended)
            return
        self._dropping.add(turn)
        if self._realtime:
            uplink.send(cancel_event(turn.response_id))

    def _end_refused(self, turn: Turn, last: bytes) -> None:
        """The end of a response that the client was not given. A client of the Realtime API waits for it."""
        error = turn.refusal
        assert error is not None
        turn.usage = usage_in(last)
        refused_first = not turn.begun
        self._finish(turn, _outcome(error) if refused_first else Outcome.TRUNCATED, error.status, error.code)
        if self._realtime:
            self._send(failed_response(last, error))

    # Which response a message belongs to

    def _turn_of(self, uplink: Uplink, event: ServerEvent) -> Turn | None:
        if event.begins:
            return self._begun(uplink, event)
        if event.type == "error":
            return None
        named = event.of_response
        if named is not None:
            turn = self._turns.get(named)
            if turn is not None and event.of_item is not None:
                self._items[event.of_item] = turn
            return turn
        if self._realtime:
            return self._items.get(event.of_item or "")
        return self._lanes.get((uplink.target.id, event.stream_id))

    def _begun(self, uplink: Uplink, event: ServerEvent) -> Turn:
        """A response has begun: one that was asked for, or one that the provider makes by itself, as when it hears that
        the user has stopped to speak."""
        turn = self._asked_by(uplink, event.stream_id)
        named = event.of_response or ""
        if turn is None:
            turn = self._unasked(uplink, named)
        turn.response_id = named
        self._turns[named] = turn
        self._lanes[uplink.target.id, event.stream_id] = turn
        turn.stream_id = event.stream_id
        if turn.refusal is None:
            turn.listen(realtime=self._realtime)
        return turn

    def _asked_by(self, uplink: Uplink, stream_id: str | None) -> Turn | None:
        for place, (where, turn) in enumerate(self._asked):
            if where is uplink and (self._realtime or turn.stream_id == stream_id):
                del self._asked[place]
                return turn
        return None

    def _unasked(self, uplink: Uplink, named: str) -> Turn:
        turn = self._new_turn(self._model or uplink.target.model)
        turn.target = uplink.target
        try:
            turn.admit(0, (uplink.target,))
            turn.audit_start(self._upgrade.peer, self._client_id)
        except GatewayError as error:
            turn.response_id = named
            self._break(uplink, turn, error, ended=None)
        return turn

    def _failed(self, uplink: Uplink, event: ServerEvent) -> None:
        """The provider says that something failed: a response that was asked for and has not begun or, in Responses,
        the one that its lane is in. There an error within a response has its place in the response's sequence."""
        about = event.error.event_id if event.error is not None else None
        failed = None if self._realtime else self._lanes.get((uplink.target.id, event.stream_id))
        if failed is None or event.sequence_number is None:
            for place, (where, turn) in enumerate(self._asked):
                same = turn.event_id == about if self._realtime else turn.stream_id == event.stream_id
                if where is uplink and same:
                    del self._asked[place]
                    failed = turn
                    break
        if failed is not None:
            self._finish(failed, Outcome.FAILED, 502, "provider_error")

    def _finish(self, turn: Turn, outcome: Outcome, status: int, code: str | None) -> None:
        turn.finish(outcome, status, code, peer=self._upgrade.peer)
        self._dropping.discard(turn)
        named = turn.response_id
        if named is not None and self._turns.get(named) is turn:
            del self._turns[named]
        self._items = {item: one for item, one in self._items.items() if one is not turn}
        self._lanes = {lane: one for lane, one in self._lanes.items() if one is not turn}

    # To the client

    def _send_or_forward(self, data: bytes, message: Message) -> None:
        if data is message.data:
            self._forward(message)
        else:
            self._send(data)

    def _forward(self, message: Message) -> None:
        assert self._client is not None
        self._meters.went(message.size)
        self._bytes_sent += message.size
        self._client.forward(message)

    def _send(self, data: bytes) -> None:
        if self._client is None or self._over:
            return
        self._meters.went(len(data))
        self._bytes_sent += len(data)
        self._client.send_text(data)

    # Back-pressure

    def on_paused(self) -> None:
        """The client reads slowly: so do we."""
        if self._requests is not None:
            self._requests.on_paused()
        for uplink in self._uplinks.values():
            uplink.pause_reading("client")

    def on_resumed(self) -> None:
        """The client has caught up."""
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
        if not self._uplinks and self._requests is None:
            self._end("upstream_reset", 502, Outcome.FAILED)
            self._client.close(INTERNAL_ERROR if code == VANISHED else code, reason or "the provider has closed")

    def end_early(self, error: GatewayError) -> None:
        """The key was revoked, or the worker must go."""
        if self._over:
            return
        self._end(error.code, error.status, Outcome.TRUNCATED, error)
        if self._client is not None:
            self._client.close(close_code(error), error.message)
        elif not self._answered:
            self._upgrade.refuse(error)
        self._hang_up(GOING_AWAY, "")

    def on_deadline(self, now: float) -> None:
        """A thread takes too long with a message."""
        self.deadline = _NEVER
        if self._examination is not None:
            self._examination[0].overdue()

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
        self.deadline = _NEVER
        self.services.active.discard(self)
        if self._client is not None:
            self._meters.open.dec()
        if self._examination is not None:
            self._examination[0].cancel()
        for turn in [*(turn for _, turn in self._asked), *self._turns.values()]:
            self._finish(turn, outcome, status, code or None)
        self._asked.clear()
        if self._audited:
            self._audit_finish(code, status, outcome)

    # The conversation's own records

    @property
    def _client_id(self) -> str | None:
        """The client's own id for the request, where it sent one."""
        own = self._upgrade.head.own.get(b"x-request-id")
        return None if own is None else own.decode("latin-1")

    def _audit_start(self) -> None:
        """In the Realtime API text leaves before a response is asked for, so a record is written before that. Raises
        AuditUnavailable."""
        configuration, key = self.binding.configuration, self.binding.key
        if not configuration.pipeline.audits:
            return
        client_id = self._client_id
        self.services.audit(
            start_record(
                self.id,
                int(self.services.wall() * 1_000_000),
                key.id if key else None,
                key.team if key else None,
                configuration.id,
                configuration.pipeline.version,
                f"{self._operation.value}.connection",
                self._model[:256],
                self._upgrade.peer,
                attributes={"client_request_id": client_id} if client_id else {},
            )
        )
        self._audited = True

    def _audit_finish(self, code: str, status: int, outcome: Outcome) -> None:
        opened = self._client is not None
        now = self.services.clock()
        self.services.conclude(
            finish_record(
                self.id,
                int(self.services.wall() * 1_000_000),
                Outcome.COMPLETED if opened and outcome is Outcome.CANCELLED else outcome,
                status=101 if opened else status,
                code=code or None,
                target=next((uplink.target.id for uplink in self._uplinks.values()), None),
                attempts=len(self._uplinks),
                bytes_sent=self._bytes_sent,
                duration_us=int((now - self._started_at) * 1_000_000),
                decisions=[*self._decisions.values(), *self._strays.decisions],
            )
        )


_ENDS: Final = {
    "failed": (Outcome.FAILED, 502, "provider_error"),
    "cancelled": (Outcome.CANCELLED, _CLIENT_GONE, None),
}
"""What a response's status comes to in the records; every other is a good end."""


def _knows_no_sockets(error: GatewayError) -> bool:
    """Whether a provider's refusal of a handshake may be that of a server which serves the path over HTTP only. Some
    say 403, which could also be about the key: then the request over HTTP will meet the same."""
    return isinstance(error, UpstreamAuthFailed) or (
        isinstance(error, UpstreamStatus) and error.status in _NO_SOCKETS_HERE
    )


_NO_SOCKETS_HERE: Final = (400, 404, 405, 426, 501)


def _outcome(error: GatewayError) -> Outcome:
    return Outcome.REFUSED if error.source is Source.DOWNSTREAM else Outcome.FAILED
