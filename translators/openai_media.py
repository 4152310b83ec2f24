"""OpenAI's audio and images: speech, transcriptions, translations, and images made, edited and varied.

Forms and sounds pass as they are. Of a form are read `model`, `stream` and the texts; of an answer usage and texts, and
of base64 nothing. A form is changed in three cases only: another model name, a model that its path names and the
provider wants in the form, and texts that a policy replaced.

Reference: https://platform.openai.com/docs/api-reference/audio and .../images, with .../images-streaming.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import orjson

from gateway.errors import InvalidRequest
from gateway.sse import data_of
from gateway.types import TextPart, Usage
from translators import multipart, openai_passthrough, paths, strict
from translators.collected import Collected
from translators.dialect import AnswerView, RequestView, Translated
from translators.identity import Format, Identity
from translators.openai_passthrough import usage_of

# --- requests --------------------------------------------------------------------------------------------------------

# fmt: off
_SETTINGS: Final = frozenset({
    "background", "chunking_strategy", "include[]", "input_fidelity", "language", "model", "moderation", "n",
    "output_compression", "output_format", "partial_images", "quality", "response_format", "size", "stream", "style",
    "temperature", "timestamp_granularities[]", "user",
})
# fmt: on
_SOUNDS: Final = frozenset({"known_speaker_references[]"})
"""Data addresses: base64, not text."""


class FormView:
    """A form, read once. `prompt_bytes` is what there is besides files."""

    __slots__ = ("_texts", "body", "boundary", "fields", "model", "prompt_bytes", "stream")
    include_usage = True
    max_output_tokens: int | None = None

    def __init__(self, body: bytes, boundary: bytes) -> None:
        self.body = body
        self.boundary = boundary
        self.fields = multipart.parse(body, boundary)
        self.model = self._value("model")
        self.stream = self._value("stream").lower() in ("true", "1")
        self.prompt_bytes = sum([field.end - field.start for field in self.fields if not field.is_file])
        self._texts: list[tuple[TextPart, multipart.Field]] | None = None

    def _value(self, name: str) -> str:
        field = multipart.once(self.fields, name)
        return multipart.text_of(self.body, field) if field is not None else ""

    def texts(self) -> list[TextPart]:
        """The fields that are neither settings nor files: prompts and whatever else is text."""
        return [part for part, _ in self.placed()]

    def placed(self) -> list[tuple[TextPart, multipart.Field]]:
        """The same with their places."""
        if self._texts is None:
            found = []
            for field in self.fields:
                if not field.is_file and field.name not in _SETTINGS and field.name not in _SOUNDS:
                    text = multipart.text_of(self.body, field)
                    found.append((TextPart(text, "user", "input", paths.join("", field.name)), field))
            self._texts = found
        return self._texts


def view(body: bytes) -> RequestView:
    """Never called: a form cannot be read without its content type; see `form`."""
    raise InvalidRequest("This endpoint takes `multipart/form-data` with a boundary.")


def form(body: bytes, content_types: Sequence[bytes]) -> RequestView:
    """Read a request by its content type, of which there must be one: a form, or (images) JSON.

    Raises InvalidRequest or InvalidJSON.
    """
    if len(content_types) != 1:
        raise InvalidRequest("The request must have one content type: `multipart/form-data` with a boundary.")
    kind = content_types[0]
    if kind.partition(b";")[0].strip().lower() == b"application/json":
        return openai_passthrough.view(body)
    return FormView(body, multipart.boundary_of(kind))


class FormIdentity(Identity):
    """The Translation of a form to itself."""

    def request(
        self, body: bytes, view: RequestView, *, model: str, replacements: Mapping[int, str], meter: bool
    ) -> Translated:
        """The provider's request: the same bytes object, unless the model or a text is another."""
        if not isinstance(view, FormView):
            return super().request(body, view, model=model, replacements=replacements, meter=meter)
        contents: dict[multipart.Field, bytes] = {}
        new: dict[str, bytes] = {}
        if model != view.model:
            named = multipart.once(view.fields, "model")
            if named is None:
                new["model"] = model.encode()
            else:
                contents[named] = model.encode()
        for index, text in replacements.items():
            contents[view.placed()[index][1]] = text.encode()
        if not contents and not new:
            return Translated(body)
        return Translated(multipart.spliced(body, view.boundary, contents, new))


class _SpeechHead(msgspec.Struct, gc=False):
    model: str = ""
    stream_format: str | None = None


_SPEECH_HEAD: Final = msgspec.json.Decoder(_SpeechHead)
_SPEECH_SETTINGS: Final = frozenset({"model", "response_format", "speed", "stream_format", "voice"})


class SpeechView:
    """A text to be spoken. A stream is asked for by its format, and comes as events only for `sse`."""

    __slots__ = ("_body", "model", "stream")
    include_usage = True
    max_output_tokens: int | None = None

    def __init__(self, body: bytes, head: _SpeechHead) -> None:
        self._body = body
        self.model = head.model
        self.stream = head.stream_format == "sse"

    def texts(self) -> list[TextPart]:
        """What is to be spoken, how, and whatever else is text."""
        tree = orjson.loads(self._body)
        voice = tree.get("voice")
        skipped = (
            _SPEECH_SETTINGS
            if isinstance(voice, str) and len(voice) <= _LONGEST_VOICE
            else _SPEECH_SETTINGS - {"voice"}
        )
        return [
            part
            for key, value in tree.items()
            if key not in skipped
            for part in paths.texts(value, paths.join("", key), "user", "input")
        ]


_LONGEST_VOICE: Final = 64


def speech_view(body: bytes) -> SpeechView:
    """Read a request body. Raises InvalidJSON or InvalidRequest."""
    head = strict.decode(_SPEECH_HEAD, body)
    strict.refuse_duplicate_keys(body)
    return SpeechView(body, head)


# --- answers ---------------------------------------------------------------------------------------------------------


class _Image(msgspec.Struct, gc=False):
    revised_prompt: str | None = None


class _Answer(msgspec.Struct, gc=False):
    usage: dict[str, Any] | None = None
    text: str | None = None
    data: list[_Image] | None = None
    segments: msgspec.Raw = msgspec.Raw(b"null")
    words: msgspec.Raw = msgspec.Raw(b"null")


_ANSWER: Final = msgspec.json.Decoder(_Answer)


def read(body: bytes) -> AnswerView:
    """Usage and texts of a complete answer; what is no JSON is a transcript in plain text (or its subtitles)."""
    try:
        answer = _ANSWER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return AnswerView(None, [TextPart(body.decode("utf-8", "replace"), "assistant", "message")] if body else ())
    texts = list(paths.texts(answer.text, "text", "assistant", "message"))
    for index, image in enumerate(answer.data or ()):
        texts += paths.texts(image.revised_prompt, f"data[{index}].revised_prompt", "assistant", "message")
    for key in ("segments", "words"):
        texts += paths.texts(orjson.loads(bytes(getattr(answer, key))), key, "assistant", "message", _NOT_SPOKEN)
    return AnswerView(_tokens(answer.usage), texts)


_NOT_SPOKEN: Final = paths.NOT_TEXT | {"speaker"}


def _tokens(usage: dict[str, Any] | None) -> Usage | None:
    """Tokens; some transcripts are counted by seconds, which are none."""
    return usage_of(usage) if usage is not None and "input_tokens" in usage else None


def read_sound(body: bytes) -> AnswerView:
    """Nothing can be read of a sound."""
    return AnswerView(None)


class _Event(msgspec.Struct, gc=False):
    type: str = ""
    delta: str | None = None
    text: str | None = None
    usage: dict[str, Any] | None = None


_EVENT: Final = msgspec.json.Decoder(_Event)


class EventsTap:
    """Follows the events of a transcript, a sound or an image: usage, and what is text."""

    __slots__ = ("_texts", "_whole", "usage")

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self._texts = Collected()
        self._whole: str | None = None

    def feed(self, frame: bytes) -> None:
        """Take in one complete SSE frame; never raises."""
        try:
            event = _EVENT.decode(data_of(frame) or b"")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return
        self.usage = _tokens(event.usage) or self.usage
        if event.type == "transcript.text.delta" and event.delta is not None:
            self._texts.add(0, "message", "text", event.delta)
        elif event.type == "transcript.text.done" and event.text is not None:
            self._whole = event.text

    def answer(self) -> AnswerView:
        """The answer as far as it has come."""
        if self._whole is not None:
            return AnswerView(self.usage, list(paths.texts(self._whole, "text", "assistant", "message")))
        parts = [msgspec.structs.replace(part, path="text") for part in self._texts.parts("{}")]
        return AnswerView(self.usage, parts, None, self._texts.truncated)


SPEECH: Final = Format(speech_view, read_sound, EventsTap)
IMAGES: Final = Format(openai_passthrough.view, read, EventsTap)
FORMS: Final = Format(view, read, EventsTap)
"""Transcriptions, translations, and images that are edited or varied."""
