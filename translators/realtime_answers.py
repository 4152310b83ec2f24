"""What a provider says over a WebSocket: server events of the Realtime API and of Responses, read and changed.

A response's texts come in deltas, and again whole when a part, an item and the response are done. `Heard` collects them
for the policies that judge the whole; the editors change them on their way. In the Realtime API an item also comes as
`conversation.item.*`, without the number that it has in its response, so the editor remembers which is which.

Audio in base64 is neither read nor changed. An event is given and taken as the JSON text of one message.

Reference: https://platform.openai.com/docs/api-reference/realtime-server-events, with the names of the beta, and
https://platform.openai.com/docs/api-reference/responses-streaming.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Final

import msgspec
import orjson

from gateway.errors import GatewayError, PolicyRefusal
from gateway.sse import FrameSplitter, data_of
from gateway.types import Usage
from translators.collected import Collected
from translators.dialect import AnswerView
from translators.editing import Change, Place, tree_of
from translators.openai_passthrough import read, usage_of
from translators.responses_edits import ResponsesEditor

_ABSENT: Final = msgspec.Raw(b"null")
_AUDIO_DELTA: Final = re.compile(rb'\{[ \t\r\n]*"type"[ \t\r\n]*:[ \t\r\n]*"response\.(?:output_)?audio\.delta"')
_TRANSCRIPTION: Final = "conversation.item.input_audio_transcription"
_ENDS: Final = frozenset({"response.done", "response.completed", "response.incomplete", "response.failed"})


def is_audio_delta(message: bytes) -> bool:
    """Whether a message is a piece of an answer's audio; told by its beginning. 0.3 µs."""
    return _AUDIO_DELTA.match(message) is not None


class _Item(msgspec.Struct, gc=False):
    id: str | None = None
    type: str | None = None
    role: str | None = None


class _Response(msgspec.Struct, gc=False):
    id: str | None = None
    status: str | None = None


class _Fault(msgspec.Struct, gc=False):
    event_id: str | None = None


class ServerEvent(msgspec.Struct, gc=False, rename={"spoken": "transcript"}):
    """What is read of every event: whose it is. `response` is only there where the event has it whole, `error` where it
    is an error; that names the client's event that it is about, if it knows."""

    type: str = ""
    response_id: str | None = None
    item_id: str | None = None
    stream_id: str | None = None
    sequence_number: int | None = None
    item: _Item | None = None
    response: _Response | None = None
    error: _Fault | None = None
    spoken: str | None = None

    @property
    def of_response(self) -> str | None:
        """The response that it belongs to, if it says so."""
        return self.response_id or (self.response.id if self.response is not None else None)

    @property
    def of_item(self) -> str | None:
        return self.item_id or (self.item.id if self.item is not None else None)

    @property
    def repeats_client(self) -> bool:
        """It shows an item that a client has written; what a user was heard to say is none."""
        item = self.item
        return item is not None and (item.role in ("user", "system") or item.type == "function_call_output")

    @property
    def begins(self) -> bool:
        """A response has begun."""
        return self.type == "response.created"

    @property
    def answers(self) -> bool:
        """It is part of a response."""
        return self.type.startswith("response.") and not self.type.startswith("response.steer.")

    @property
    def ends(self) -> bool:
        """A response is over, well or not."""
        return self.type in _ENDS

    @property
    def transcript(self) -> str | None:
        """All that a user has said in one go."""
        return self.spoken if self.type == f"{_TRANSCRIPTION}.completed" else None

    @property
    def transcribes(self) -> bool:
        """It tells what a user has said."""
        return self.type.startswith(_TRANSCRIPTION)


_EVENT: Final = msgspec.json.Decoder(ServerEvent)
_NOTHING: Final = ServerEvent()


def event_of(message: bytes) -> ServerEvent:
    """Read the little that is needed; of a message of another shape, nothing. 1 µs for an ordinary delta."""
    try:
        return _EVENT.decode(message)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _NOTHING


# --- what policies see of a whole response ---------------------------------------------------------------------------


class _Delta(msgspec.Struct, gc=False):
    type: str = ""
    output_index: int = 0
    content_index: int = 0
    summary_index: int = 0
    delta: str = ""
    response: msgspec.Raw = _ABSENT


_DELTA: Final = msgspec.json.Decoder(_Delta)


class Heard:
    """The texts and the usage of one response, as they come."""

    __slots__ = ("_known", "_texts", "_whole")

    def __init__(self, editor: type[ResponsesEditor]) -> None:
        self._known = editor.known
        self._texts = Collected()
        self._whole: AnswerView | None = None

    def feed(self, message: bytes) -> None:
        """Take in one event of the response; never raises."""
        try:
            event = _DELTA.decode(message)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return
        if event.type in _ENDS:
            self._whole = read(bytes(event.response))
        elif event.delta and event.type.endswith(".delta"):
            kind, field = self._known.get(event.type[9:-6], ("", ""))
            if field:
                place = field.format(content=event.content_index, summary=event.summary_index)
                self._texts.add(event.output_index, kind, place, event.delta)

    def answer(self) -> AnswerView:
        """The whole that the last event repeats; where that is bare or there is none, what has come in pieces."""
        whole = self._whole or AnswerView(None)
        if whole.texts:
            return whole
        return AnswerView(whole.usage, self._texts.parts("output[{}]"), whole.finish_reason, self._texts.truncated)


def usage_in(message: bytes) -> Usage | None:
    """The usage that the last event of a response tells. Its texts are not read."""
    try:
        return usage_of(_LAST.decode(message).response.usage)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


class _Ended(msgspec.Struct, gc=False):
    usage: dict[str, Any] | None = None


class _Last(msgspec.Struct, gc=False):
    response: _Ended


_LAST: Final = msgspec.json.Decoder(_Last)


# --- changing them on their way --------------------------------------------------------------------------------------

_TRANSCRIPT: Final = ("message", "content[{content}].transcript")
_TEXT: Final = ("message", "content[{content}].text")
_ITEM_EVENTS: Final = ("conversation.item.created", "conversation.item.retrieved")
_DONE: Final = "done"


class RealtimeEditor(ResponsesEditor):
    """The events of one response of the Realtime API, or of one item that belongs to none."""

    __slots__ = ("_numbers",)
    known: ClassVar[Mapping[str, tuple[str, str]]] = {
        **ResponsesEditor.known,
        "text": _TEXT,
        "audio_transcript": _TRANSCRIPT,
        "output_audio_transcript": _TRANSCRIPT,
        _TRANSCRIPTION: _TRANSCRIPT,
    }
    whole = (*ResponsesEditor.whole, "transcript")

    def __init__(self, change: Change) -> None:
        super().__init__(change)
        self._numbers: dict[str, int] = {}

    def _repeats(self, name: str) -> bool:
        return name == _DONE or name in _ITEM_EVENTS or name.startswith(_TRANSCRIPTION) or super()._repeats(name)

    def _places(self, tree: dict[str, Any], number: int) -> list[tuple[Place, str, str]]:
        item, index = tree.get("item"), tree.get("output_index")
        name = item.get("id") if isinstance(item, dict) else None
        if isinstance(name, str):
            if isinstance(index, int):
                self._numbers[name] = index
            number = self._numbers.get(name, number)
        if str(tree.get("type")).startswith(_TRANSCRIPTION):
            path = f"output[{number}].content[{tree.get('content_index', 0)}].transcript"
            return [
                (Place(tree, key, path), path, "message")
                for key in ("transcript", "text")
                if isinstance(tree.get(key), str) and tree[key]
            ]
        return [one for one in super()._places(tree, number) if one[0].key != "audio"]


class MessageEditor:
    """An editor of messages, made of one of frames: the same events, in the two ways in which they travel."""

    __slots__ = ("_editor", "_numbered")

    def __init__(self, editor: ResponsesEditor) -> None:
        self._editor = editor
        self._numbered = 0

    def feed(self, message: bytes) -> list[bytes]:
        """One event, and the messages that go on: that very object where nothing changes."""
        flat = message if message.find(b"\n") < 0 and message.find(b"\r") < 0 else orjson.dumps(tree_of(message))
        frame = b"data: %b\n\n" % flat
        out = self._editor.feed(frame)
        return [message] if out is frame else self._taken_apart(out)

    def finish(self) -> list[bytes]:
        """What was still held back."""
        return self._taken_apart(self._editor.finish())

    def _taken_apart(self, frames: bytes) -> list[bytes]:
        found = [data_of(frame) for frame in FrameSplitter().feed(frames)] if frames else []
        return [data for data in found if data is not None]


# --- errors ----------------------------------------------------------------------------------------------------------


def error_event(
    error: GatewayError, request_id: str, *, realtime: bool, event_id: str | None = None, stream_id: str | None = None
) -> bytes:
    """An error in the protocol's own shape. `event_id` names the client's event that it is about (Realtime API),
    `stream_id` its lane (Responses API)."""
    fault: dict[str, Any] = {
        "type": error.type, "code": error.code, "message": error.message, "param": error.param, "request_id": request_id
    }  # fmt: skip
    if isinstance(error, PolicyRefusal):
        fault["policy"] = error.policy
    if realtime:
        return orjson.dumps(
            {"type": "error", "event_id": f"event_{request_id}", "error": {**fault, "event_id": event_id}}
        )
    lane = {} if stream_id is None else {"stream_id": stream_id}
    return orjson.dumps({"type": "error", "status": error.status, "error": fault, **lane})


def failed_response(message: bytes, error: GatewayError) -> bytes:
    """The last event of a response of the Realtime API as one that failed, without anything that was said."""
    tree = tree_of(message)
    response = tree.get("response")
    if isinstance(response, dict):
        fault = {"type": error.type, "code": error.code}
        response.update(status="failed", output=[], status_details={"type": "failed", "error": fault})
    return orjson.dumps(tree)


def delete_event(item_id: str) -> bytes:
    """The client event that takes an item out of a conversation."""
    return orjson.dumps({"type": "conversation.item.delete", "item_id": item_id})


def cancel_event(response_id: str | None) -> bytes:
    """The client event that ends a response of the Realtime API."""
    named = {} if response_id is None else {"response_id": response_id}
    return orjson.dumps({"type": "response.cancel", **named})
