"""What a provider says in a conversation, on its way to the client.

Each message belongs to a response, whose policies see it, change it or keep it back (`turn`), or to none (`strays`). A
message that nobody has to read is forwarded as it was read: without policies on answers that is every one but those
which begin and end a response.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from gateway.audit.record import Outcome
from gateway.errors import GatewayError, Source
from gateway.socket_ports import Message
from translators.realtime_answers import (
    ServerEvent,
    cancel_event,
    delete_event,
    event_of,
    failed_response,
    is_audio_delta,
    usage_in,
)

if TYPE_CHECKING:
    from gateway.snapshot import Binding
    from gateway.strays import Strays
    from gateway.turn import Turn
    from gateway.turns import Turns
    from gateway.uplink import Uplink
    from policy.restore import Memory

_TELLING: Final = re.compile(
    rb'"type"[ \t\r\n]*:[ \t\r\n]*"(?:response\.(?:created|done|completed|incomplete|failed)|error)"'
)
"""Stands in events that begin or end a response. Within a string its quotes would be escaped."""
_HEARD: Final = b"input_audio_transcription.completed"
_CLIENT_GONE: Final = 499
_ENDS: Final = {
    "failed": (Outcome.FAILED, 502, "provider_error"),
    "cancelled": (Outcome.CANCELLED, _CLIENT_GONE, None),
}
"""What a response's status comes to in the records; every other is a good end."""


class Speaker(Protocol):
    """The conversation, as far as a provider's messages concern it."""

    binding: Binding

    @property
    def is_over(self) -> bool: ...

    def send(self, data: bytes) -> None:
        """A message of this content to the client."""

    def forward(self, message: Message) -> None:
        """A message to the client as it was read."""

    def tell(self, error: GatewayError, id: str, event_id: str | None = None, stream_id: str | None = None) -> None:
        """An error event to the client."""

    def hear_user(self, text: str) -> GatewayError | None:
        """What a user has said, in writing: why the model may not have it, or None."""
        ...

    def unasked(self, uplink: Uplink) -> Turn:
        """A turn for a response that the provider makes by itself, not yet admitted."""
        ...

    def admit(self, turn: Turn, uplink: Uplink, max_output_tokens: int) -> None:
        """Charge a turn and write its first record. Raises RateLimited and AuditUnavailable."""


class ProviderSide:
    """The provider's half of one conversation."""

    def __init__(self, speaker: Speaker, turns: Turns, strays: Strays, memory: Memory, *, realtime: bool) -> None:
        self._speaker = speaker
        self._turns = turns
        self._strays = strays
        self._memory = memory
        self._realtime = realtime

    def hear(self, uplink: Uplink, message: Message) -> None:
        """One message."""
        data = message.data
        if self._realtime and data.find(_HEARD) >= 0:
            self._judge_speech(uplink, event_of(data))
        attentive = self._is_attentive
        if not self._turns.dropping and self._goes_unread(data, attentive=attentive):
            latest = self._turns.latest
            if latest is not None:
                latest.bytes_sent += message.size
            self._speaker.forward(message)
            return
        event = event_of(data)
        turn = self._turn_of(uplink, event)
        if turn is None:
            self._pass_stray(event, message, attentive=attentive)
        elif turn.refusal is not None:
            if event.ends:
                self._end_refused(turn, data)
        else:
            self._flow(uplink, turn, event, message)

    def _goes_unread(self, data: bytes, *, attentive: bool) -> bool:
        if is_audio_delta(data):
            return not self._turns.buffers
        return not attentive and _TELLING.search(data) is None

    def _judge_speech(self, uplink: Uplink, event: ServerEvent) -> None:
        """Policies of input read what a user has said as soon as it is written down. By then the model has heard it: so
        what is refused is taken out of the conversation, and the answers to it are stopped."""
        if not event.transcript or event.item_id is None:
            return
        error = self._speaker.hear_user(event.transcript)
        if error is None:
            return
        uplink.send(delete_event(event.item_id))
        for turn in self._turns.under_way:
            if turn.refusal is None:
                self._break(uplink, turn, error, ended=None)

    @property
    def _is_attentive(self) -> bool:
        """Whether what the provider says must be read message by message."""
        reads = self._speaker.binding.configuration.pipeline.reads_output
        return reads or bool(self._memory.originals) or self._turns.reads

    def _pass_stray(self, event: ServerEvent, message: Message, *, attentive: bool) -> None:
        if not (attentive and self._realtime):
            self._speaker.forward(message)
            return
        for piece in self._strays.feed(self._speaker.binding, event, message.data):
            self._send(piece, message)

    def _send(self, data: bytes, message: Message) -> None:
        if data is message.data:
            self._speaker.forward(message)
        else:
            self._speaker.send(data)

    # Which response

    def _turn_of(self, uplink: Uplink, event: ServerEvent) -> Turn | None:
        if event.begins:
            return self._begun(uplink, event)
        if event.type != "error":
            turn = self._turns.of(uplink, event)
            if turn is None and event.answers and (event.of_response is not None or not self._realtime):
                # Its beginning was not seen, or it was given up: what comes of it is judged all the same.
                turn = self._begin_unasked(uplink, event)
            return turn
        failed = self._turns.failed(uplink, event)
        if failed is not None:
            self._turns.finish(failed, Outcome.FAILED, 502, "provider_error")
        return None

    def _begun(self, uplink: Uplink, event: ServerEvent) -> Turn:
        """A response has begun: one that was asked for, or one that the provider makes by itself, as when it hears that
        the user has stopped to speak."""
        turn = self._turns.asked(uplink, event)
        if turn is not None:
            self._turns.begin(uplink, turn, event)
            turn.listen(realtime=self._realtime)
            return turn
        return self._begin_unasked(uplink, event)

    def _begin_unasked(self, uplink: Uplink, event: ServerEvent) -> Turn:
        turn = self._speaker.unasked(uplink)
        self._turns.begin(uplink, turn, event)
        try:
            self._speaker.admit(turn, uplink, 0)
        except GatewayError as error:
            self._break(uplink, turn, error, ended=None)
        else:
            turn.listen(realtime=self._realtime)
        return turn

    # How it flows

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
            self._send(piece, message)
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
        if self._speaker.is_over:
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
        self._turns.finish(turn, outcome, code, error_code)
        for piece in out:
            self._send(piece, message)

    def _break(self, uplink: Uplink, turn: Turn, error: GatewayError, *, ended: bytes | None) -> None:
        """No more of a response may reach the client; `ended` is its last message, if that has come."""
        turn.refuse(error)
        self._speaker.tell(error, turn.id, None, turn.stream_id)
        if ended is not None:
            self._end_refused(turn, ended)
            return
        self._turns.dropping.add(turn)
        if self._realtime:
            uplink.send(cancel_event(turn.response_id))

    def _end_refused(self, turn: Turn, last: bytes) -> None:
        """The end of a response that the client was not given. A client of the Realtime API waits for it."""
        error = turn.refusal
        assert error is not None
        turn.usage = usage_in(last)
        refused_first = not turn.begun
        self._turns.finish(turn, outcome_of(error) if refused_first else Outcome.TRUNCATED, error.status, error.code)
        if self._realtime:
            self._speaker.send(failed_response(last, error))


def outcome_of(error: GatewayError) -> Outcome:
    """How what an error refuses is recorded."""
    return Outcome.REFUSED if error.source is Source.DOWNSTREAM else Outcome.FAILED
