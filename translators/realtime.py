"""What a client says over a WebSocket: the events of OpenAI's Realtime API and of the Responses API in WebSocket mode.

Of a message are read its type, the models that it names and every text that reaches a model: all strings but known
settings, so that an extension cannot carry text past a policy. An event of an unknown type is read in the same way. The
rest is left to the provider. Changes are spliced in, every other byte stays as it came (`splice`).

A message that is nothing but audio is recognised by its bytes (`is_audio`): the value of `audio` cannot contain a quote
or a backslash, so it ends where it seems to end, and what stands around it is one of a few known forms.

Reference: https://platform.openai.com/docs/api-reference/realtime-client-events, with the names of the beta, and
https://developers.openai.com/api/docs/guides/websocket-mode.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import permutations
from typing import Any, Final

import msgspec
import orjson

from gateway.errors import InvalidJSON, InvalidRequest
from gateway.types import TextPart
from translators import paths, strict
from translators.openai_passthrough import NOT_REQUEST_TEXT, item_kind, readable, request_texts
from translators.splice import spliced
from translators.tools import Declared, declared_in

_ABSENT: Final = msgspec.Raw(b"null")

# fmt: off
_SESSION_SETTINGS: Final = frozenset({
    "type", "model", "voice", "modalities", "output_modalities", "input_audio_format", "output_audio_format",
    "input_audio_noise_reduction", "turn_detection", "temperature", "max_response_output_tokens", "max_output_tokens",
    "tool_choice", "parallel_tool_calls", "speed", "tracing", "truncation", "include", "reasoning", "metadata",
    "conversation", "expires_at", "id", "object",
})
_EVENT_SETTINGS: Final = frozenset({
    "type", "event_id", "stream_id", "item_id", "previous_item_id", "content_index", "audio_end_ms", "response_id",
    "session", "response", "item", "input", "generate", "max_tool_calls", "prompt_cache_options", "service_tier",
    "prompt_cache_retention", "context_management", "parallel_tool_calls", "top_logprobs", "access_programs",
})
# fmt: on
_MODELS: Final = (
    "model",
    "session.model",
    "session.audio.input.transcription.model",
    "session.input_audio_transcription.model",
    "response.model",
)
"""Where a client's event may name a model: the first that the documentation knows for each API, and its neighbours."""
_MODEL_STEPS: Final = [(path, path.split(".")) for path in _MODELS]
_TRANSCRIBERS: Final = frozenset(_MODELS[2:4])
_AUDIO: Final = frozenset({"audio"})

_AUDIO_KEY: Final = re.compile(rb'"audio"[ \t\r\n]*:[ \t\r\n]*"')


def _around_audio() -> re.Pattern[bytes]:
    """`input_audio_buffer.append` without its audio: two or three members in any order, each of them once. A tilde
    stands where white space may."""
    members = (rb'"type"~:~"input_audio_buffer\.append"', rb'"audio"~:~""', rb'"event_id"~:~"[A-Za-z0-9_.:-]{1,128}"')
    orders = [*permutations(members), *permutations(members[:2])]
    forms = b"|".join([rb"~,~".join(order) for order in orders])
    return re.compile((rb"~\{~(?:%b)~\}~" % forms).replace(b"~", rb"[ \t\r\n]*"))


_AROUND_AUDIO: Final = _around_audio()
MAX_AROUND_AUDIO: Final = 1024


def is_audio(message: bytes) -> bool:
    """Whether a message is `input_audio_buffer.append` and nothing else. 1.5 µs, and 0.1 for each 4 KB of audio."""
    key = _AUDIO_KEY.search(message, 0, MAX_AROUND_AUDIO)
    if key is None:
        return False
    start = key.end()
    end = message.find(b'"', start)
    if end < 0 or len(message) - (end - start) > MAX_AROUND_AUDIO or message.find(b"\\", start, end) >= 0:
        return False
    return _AROUND_AUDIO.fullmatch(message[:start] + message[end:]) is not None


class _Event(msgspec.Struct, gc=False):
    type: str
    model: msgspec.Raw = _ABSENT
    event_id: str | None = None
    stream_id: str | None = None
    previous_response_id: str | None = None
    response_id: str | None = None
    max_output_tokens: int | None = None


_EVENT: Final = msgspec.json.Decoder(_Event)


class ClientEvent:
    """One message of a client that was read. `message` is the message as it came."""

    __slots__ = ("_head", "_texts", "_tree", "message")

    def __init__(self, message: bytes, head: _Event, tree: dict[str, Any]) -> None:
        self.message = message
        self._head = head
        self._tree = tree
        self._texts: list[TextPart] | None = None

    def __repr__(self) -> str:
        return f"<ClientEvent {self.type}, {len(self.message)} bytes>"

    @property
    def type(self) -> str:
        return self._head.type

    @property
    def event_id(self) -> str | None:
        """The client's own name for the event, which an error about it repeats."""
        return self._head.event_id

    @property
    def stream_id(self) -> str | None:
        """The lane of a response, in WebSocket mode of the Responses API."""
        return self._head.stream_id

    @property
    def response_id(self) -> str | None:
        """The response that the event is about: it is cancelled, steered or continued."""
        return self._head.response_id or self._head.previous_response_id

    @property
    def creates(self) -> bool:
        """It asks for a response."""
        return self._head.type == "response.create"

    @property
    def max_output_tokens(self) -> int:
        """The bound on the answer, 0 where there is none."""
        response = self._tree.get("response")
        of_response = response.get("max_output_tokens") if isinstance(response, dict) else None
        asked = self._head.max_output_tokens or of_response
        return asked if isinstance(asked, int) and asked > 0 else 0

    @property
    def models(self) -> dict[str, str]:
        """The models that it names, by their places. Raises InvalidRequest where a name is no string."""
        found: dict[str, str] = {}
        if self.message.find(b'"model"') < 0 and self.message.find(b"\\u00") < 0:
            return found  # 0.2 µs for most messages, where looking takes 4
        for path, steps in _MODEL_STEPS:
            value: Any = self._tree
            for step in steps:
                value = value.get(step) if isinstance(value, dict) else None
            if value is not None:
                if not isinstance(value, str):
                    raise InvalidRequest(f"`{path}` is the name of a model, a string.", param=path)
                found[path] = value
        return found

    @property
    def tools(self) -> list[Declared] | None:
        """The tools that it declares, for the session or for one response; None: it says nothing of tools."""
        for holder in (self._tree, self._tree.get("session"), self._tree.get("response")):
            if isinstance(holder, dict) and isinstance(holder.get("tools"), list):
                return declared_in(holder)
        return None

    def texts(self) -> list[TextPart]:
        """Every text that reaches a model, in the order in which it reads them."""
        if self._texts is None:
            self._texts = list(_texts(self._tree))
        return self._texts

    def with_strings(self, values: Mapping[str, str]) -> bytes:
        """The message with other strings at some paths; the very object that came where there are none."""
        return spliced(self.message, values) if values else self.message


def wished_model(message: bytes) -> str | None:
    """The model that `response.create` names at its top; None for other messages, and for what cannot be read."""
    try:
        head = _EVENT.decode(message)
        return msgspec.json.decode(head.model, type=str) if head.type == "response.create" else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def as_request(message: bytes) -> tuple[bytes, str | None]:
    """`response.create` of the Responses API as the body of a request over HTTP that is streamed, and its lane.

    Written anew, so that no parser can read it in two ways. Raises InvalidJSON, and InvalidRequest for what has no
    counterpart over HTTP."""
    try:
        tree = orjson.loads(message)
    except orjson.JSONDecodeError as error:
        raise InvalidJSON(f"The message is not valid JSON: {error}.") from None
    lane = tree.pop("stream_id", None)
    if tree.pop("generate", True) is False:
        raise InvalidRequest("This model's provider cannot prepare a response without generating it.", param="generate")
    for key in ("type", "event_id", "background"):
        tree.pop(key, None)
    return orjson.dumps({**tree, "stream": True}), lane if isinstance(lane, str) else None


def in_lane(message: bytes, lane: str) -> bytes:
    """An event of a response as one of a lane."""
    return orjson.dumps({**orjson.loads(message), "stream_id": lane})


def transcribes(path: str) -> bool:
    """Whether the model at a path writes down what a user says, beside the model of the session."""
    return path in _TRANSCRIBERS


def read(message: bytes) -> ClientEvent:
    """Read a client's message. What policies see must be what the provider reads: raises InvalidJSON or InvalidRequest
    where a parser could take it differently."""
    head = strict.decode(_EVENT, message)
    strict.refuse_duplicate_keys(message)
    try:
        tree = orjson.loads(message)
    except orjson.JSONDecodeError as error:  # lone surrogates
        raise InvalidJSON(f"The message is not valid JSON: {error}.") from None
    return ClientEvent(message, head, tree)


def _texts(tree: dict[str, Any]) -> Iterator[TextPart]:
    session, response = tree.get("session"), tree.get("response")
    if session is not None:
        yield from _session_texts(session, "session")
    if response is not None:
        yield from _session_texts(response, "response")
    if "item" in tree:
        yield from _item_texts(tree["item"], "item")
    rest = {key: value for key, value in tree.items() if key not in _EVENT_SETTINGS or key == "input"}
    if tree.get("type") == "input_audio_buffer.append":
        rest.pop("audio", None)
    yield from request_texts(rest)


_ROLES: Final = {"instructions": ("system", "instructions"), "tools": ("system", "tool_definition")}


def _session_texts(value: Any, path: str) -> Iterator[TextPart]:
    """A session, or what a response has of its own. Its `audio` holds settings, and how to transcribe."""
    if not isinstance(value, dict):
        yield from paths.texts(value, path, "user", "input")
        return
    for key in sorted(value, key=_LATE.__contains__):
        if key in _SESSION_SETTINGS:
            continue
        place = paths.join(path, key)
        if key == "input" and isinstance(value[key], list):
            for index, item in enumerate(value[key]):
                yield from _item_texts(item, f"{place}[{index}]")
        elif key == "audio" or key.startswith("input_audio_"):
            yield from (one for one in paths.texts(value[key], place, "system", "instructions") if _is_prompt(one))
        else:
            yield from paths.texts(readable(value[key]), place, *_ROLES.get(key, ("user", "input")), NOT_REQUEST_TEXT)


_LATE: Final = frozenset({"input"})
_AUDIO_SETTING: Final = re.compile(r"[\w./:+-]{0,64}\Z")


def _is_prompt(part: TextPart) -> bool:
    """Formats, voices and languages are single words; what tells a transcriber of names and terms is not."""
    return part.path.endswith(".prompt") or _AUDIO_SETTING.match(part.text) is None


def _item_texts(item: Any, path: str) -> Iterator[TextPart]:
    role, kind = item_kind(item)
    yield from paths.texts(readable(item, _AUDIO), path, role, kind, NOT_REQUEST_TEXT)
