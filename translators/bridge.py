"""The Translation between two dialects, through the canonical form.

It does nothing itself but put the two halves together: the client's dialect reads the request and writes the answer,
the provider's writes the request and reads the answer. The dialects come as functions, so none knows the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import msgspec

from gateway.errors import GatewayError, InvalidRequest, UpstreamError, UpstreamInvalid
from gateway.sse import FrameSplitter
from gateway.types import ResponseHead, Usage
from translators import paths, provider_errors, tool_names
from translators.canonical import CallStart, ChatAnswer, ChatRequest, Event, Start, Stop
from translators.dialect import (
    EVENT_STREAM,
    NOTHING_CARRIED,
    AnswerView,
    Carried,
    RequestView,
    StreamTranslator,
    Tap,
    Translated,
    estimated_tokens,
)
from translators.identity import Format
from translators.notes import Notes
from translators.providers import Asked, Provider
from translators.tool_names import ToolNames


class StreamReader(Protocol):
    """Reads a provider's stream, one event at a time."""

    def read(self, payload: bytes) -> Iterator[Event]:
        """Take payload bytes, cut anywhere, and tell what happened.

        Raises UpstreamStatus for an error that the provider reports within the stream, UpstreamInvalid for garbage.
        """
        ...

    def end(self) -> Iterator[Event]:
        """The provider's stream ended. Raises UpstreamInvalid where it was not complete."""
        ...


class StreamWriter(Protocol):
    """Writes a client's stream."""

    def write(self, event: Event) -> bytes:
        """The frames for one event, possibly none."""
        ...

    def end(self) -> bytes:
        """The end mark and what stands before it."""
        ...


class Inbound(msgspec.Struct, frozen=True):
    """A dialect in which clients speak.

    `encode` gets model, `created` and what is carried; `writer` besides, whether usage is wanted in the stream. `echo`
    picks the fields of a request that answers repeat.
    """

    format: Format
    decode: Callable[[bytes, Notes], ChatRequest]
    encode: Callable[[ChatAnswer, str, int, Carried], bytes]
    writer: Callable[[str, int, bool, Carried], StreamWriter]
    echo: Callable[[bytes], Mapping[str, Any]] | None = None


class Outbound(msgspec.Struct, frozen=True):
    """A dialect in which a provider is spoken to.

    `names` are the names of tools that the dialect allows; `stream_media` is the content type of its streams.
    `asks_usage`: its streams have usage only when they are asked for it, which some servers refuse.
    """

    encode: Callable[[ChatRequest, Asked, Notes], bytes]
    decode: Callable[[bytes], ChatAnswer]
    reader: Callable[[], StreamReader]
    names: ToolNames
    stream_media: bytes = EVENT_STREAM
    asks_usage: bool = False


class Bridge:
    """A chat, asked for in one dialect and answered in another. `now` gives Unix seconds, for `created`."""

    identity = False

    def __init__(self, inbound: Inbound, outbound: Outbound, provider: Provider, now: Callable[[], float]) -> None:
        self._inbound = inbound
        self._outbound = outbound
        self._provider = provider
        self._asks_usage = outbound.asks_usage and "stream_options" not in provider.refuses
        self._unmetered = msgspec.structs.replace(provider, refuses=provider.refuses | {"stream_options"})
        self._now = now
        self.wire = inbound.format.wire
        self.stream_media = outbound.stream_media
        self.view = inbound.format.view
        self.read = inbound.format.read
        self.usage = inbound.format.usage_of
        self.plain = None
        self.plain = None

    def request(
        self, body: bytes, view: RequestView, *, model: str, replacements: Mapping[int, str], meter: bool
    ) -> Translated:
        """The provider's request. Raises InvalidRequest for what the provider cannot be asked."""
        if replacements:
            body = paths.replace_texts(body, view.texts(), replacements)
        notes = Notes()
        try:
            decoded = self._inbound.decode(body, notes)
            if decoded.stream and decoded.settings.get("n", 1) != 1:
                raise InvalidRequest("A translated stream has one answer; `n` must be 1, or `stream` false.", param="n")
            request, names = self._outbound.names.shorten(decoded)
            encoded = self._outbound.encode(request, Asked(model, self._provider if meter else self._unmetered), notes)
        except ODD as error:
            raise InvalidRequest(f"The request has a field of the wrong type: {error}") from error
        echo = self._inbound.echo(body) if self._inbound.echo is not None else {}
        carried = Carried(names, estimated_tokens(body), echo)
        asks = meter and request.stream and self._asks_usage
        return Translated(encoded, notes.all(), strip_usage=asks, carried=carried)

    def answer(self, body: bytes, model: str, carried: Carried = NOTHING_CARRIED) -> bytes:
        """A complete answer in the client's dialect. Raises UpstreamInvalid."""
        try:
            answer = tool_names.restore(self._outbound.decode(body), carried.names)
            return self._inbound.encode(answer, model, int(self._now()), carried)
        except ODD as error:
            raise UpstreamInvalid(f"The provider's answer has a field of the wrong type: {error}") from error

    def error(self, head: ResponseHead, body: bytes, *, passthrough: bool = False) -> UpstreamError:
        """The provider's error answer as the gateway's error."""
        return provider_errors.read(head, body, self._provider.name, passthrough=passthrough)

    def stream(self, model: str, *, include_usage: bool, carried: Carried = NOTHING_CARRIED) -> StreamTranslator:
        """A translator for one stream."""
        writer = self._inbound.writer(model, int(self._now()), include_usage, carried)
        return BridgedStream(self._outbound.reader(), writer, self._inbound.format.tap(), carried.names)

    def tap(self) -> Tap:
        """Never called: a bridge translates its streams."""
        raise TypeError("a bridge translates its streams; use stream()")


ODD = (AttributeError, IndexError, KeyError, TypeError, ValueError)
"""What a field of a type that nobody would send comes to, deep inside; dialects look where it is worth a word."""


class BridgedStream:
    """One stream on its way from the provider's dialect to the client's.

    An error that follows events in the same bytes is raised by the next call, so that those events still get through.
    """

    __slots__ = ("_failure", "_names", "_reader", "_splitter", "_tap", "_writer", "usage")

    def __init__(self, reader: StreamReader, writer: StreamWriter, tap: Tap, names: Mapping[str, str]) -> None:
        self.usage: Usage | None = None
        self._reader = reader
        self._writer = writer
        self._splitter = FrameSplitter()
        self._tap = tap
        self._names = names
        self._failure: GatewayError | None = None

    def feed(self, payload: bytes) -> bytes:
        """Take payload bytes, cut anywhere, and return the client's frames."""
        return self._pass(self._reader.read(payload))

    def finish(self) -> bytes:
        """The client's last frames. Raises UpstreamInvalid where the provider's stream was not complete."""
        if self._failure is not None:
            raise self._failure
        last = self._pass(self._reader.end())
        if self._failure is not None:
            raise self._failure
        return last + self._writer.end()

    def _pass(self, events: Iterator[Event]) -> bytes:
        if self._failure is not None:
            raise self._failure
        frames = []
        try:
            for event in events:
                if isinstance(event, Start | Stop) and event.usage is not None:
                    self.usage = event.usage
                if isinstance(event, CallStart) and event.name in self._names:
                    event = msgspec.structs.replace(event, name=self._names[event.name])
                frames.append(self._writer.write(event))
        except GatewayError as failure:
            self._fail(failure, frames)
        except ODD as error:
            self._fail(UpstreamInvalid(f"The provider's stream has a field of the wrong type: {error}"), frames)
        out = b"".join(frames)
        if out:
            for frame in self._splitter.feed(out):
                self._tap.feed(frame)
        return out

    def _fail(self, failure: GatewayError, frames: list[bytes]) -> None:
        if not any(frames):
            raise failure
        self._failure = failure

    def answer(self) -> AnswerView:
        """The answer as far as it has come."""
        seen = self._tap.answer()
        return AnswerView(self.usage or seen.usage, seen.texts, seen.finish_reason, seen.truncated, seen.calls)
