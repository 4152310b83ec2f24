"""Provider bytes to client bytes: how an answer flows once its head is known.

Each relay takes one read (`feed`) and says what goes to the client in the same turn: the very object that was read
wherever nothing has to change (`raw`: its chunk framing included), else payload bytes. Relays know frames and dialect
taps, not sockets, and never wait: what is held back is held for a reason that the class names.

- `Passage`: bytes flow as they are, whatever they are. For everything that is not a stream of events.
- `Frames`: whole SSE events flow; the gateway's own usage chunk is taken out, `[DONE]` waits for the verdict.
- `Translation`: the provider's events become the client's.
- `Collection`: the whole body is kept until its end: errors, JSON to be translated or reviewed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from gateway.errors import UpstreamInvalid
from gateway.http1 import KNOWN_SIZES, ChunkWalker
from gateway.sse import FrameSplitter, data_of
from translators.dialect import AnswerView, StreamTranslator, Tap

DONE: Final = b"[DONE]"
MAX_COLLECTED: Final = 32 * 1024 * 1024
"""Bytes of an answer that must be whole before it can go on (JSON to be translated or reviewed)."""
MAX_METERED: Final = 4 * 1024 * 1024
"""Bytes of an answer that are kept, while it flows, to read its usage at the end; larger ones go unread."""

EMPTY: Final = AnswerView(None)


class Framing:
    """How the provider frames this body, and whether the client can read the same framing.

    `walker` is None for a body that is sized or ends with the connection.
    """

    __slots__ = ("passable", "walker")

    def __init__(self, walker: ChunkWalker | None, client_takes_chunks: bool) -> None:
        self.walker = walker
        self.passable = walker is not None and client_takes_chunks

    def payload(self, data: bytes) -> bytes:
        """The payload that one read carries."""
        return data if self.walker is None else self.walker.payload(data)


class Relay(Protocol):
    """One answer on its way.

    `raw` says of the last result that it carries the provider's chunk framing. `awaits_verdict`: all that policies will
    see has come, and what is left is held back for them. `over`: the last result ends the answer, although the
    provider's message goes on; clients close their connection on `[DONE]` and would seem to have left.
    """

    raw: bool
    awaits_verdict: bool
    over: bool

    def feed(self, data: bytes, end: bool) -> bytes:
        """What goes to the client now, possibly nothing. Raises UpstreamInvalid."""
        ...

    def finish(self) -> bytes:
        """What was held back for the verdict, once it is good, as payload; the client's end mark with it."""
        ...

    def answer(self) -> AnswerView:
        """Usage and texts as far as the answer has come."""
        ...


class Passage:
    """Bytes flow untouched; a copy of a body of ordinary size is kept aside until its usage has been read."""

    __slots__ = ("_framing", "_kept", "_read", "_size", "raw")
    awaits_verdict = False
    over = False

    def __init__(self, framing: Framing, read: Callable[[bytes], AnswerView] | None) -> None:
        self.raw = framing.passable
        self._framing = framing
        self._read = read
        self._kept: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes, end: bool) -> bytes:
        payload = None
        if self._read is not None:
            self._size += len(data)
            if self._size > MAX_METERED:
                self._read = None
                self._kept.clear()
            else:
                payload = self._framing.payload(data)
                self._kept.append(payload)
        if self.raw:
            return data
        return self._framing.payload(data) if payload is None else payload

    def finish(self) -> bytes:
        return b""

    @property
    def metered_bytes(self) -> int:
        """How much there is to be read for usage; above some size that is not done on the event loop."""
        return self._size if self._read is not None else 0

    def answer(self) -> AnswerView:
        if self._read is None:
            return EMPTY
        return self._read(self._kept[0] if len(self._kept) == 1 else b"".join(self._kept))


class Frames:
    """Whole SSE events flow as they are. A part of an event waits for its rest, which no client could use sooner."""

    __slots__ = (
        "_aligned",
        "_framing",
        "_held",
        "_hold",
        "_latest",
        "_open",
        "_reviewed",
        "_splitter",
        "_strip",
        "_tap",
        "awaits_verdict",
        "over",
        "passed",
        "raw",
        "write",
    )

    def __init__(self, framing: Framing, tap: Tap, *, strip: bool, hold: bool) -> None:
        """`strip`: the usage chunk is the gateway's own. `hold`: policies read the text; `[DONE]` waits for them."""
        self.raw = False
        self.awaits_verdict = False
        self.over = False
        self.passed = 0
        """Bytes that went through the fast lane."""
        self.write: Callable[[bytes], None]
        """Where the fast lane leads; set together with it."""
        self._open = False
        self._framing = framing
        self._tap = tap
        self._strip = strip
        self._hold = hold
        self._reviewed = False
        self._splitter: FrameSplitter | None = None
        self._aligned = True
        self._held = b""
        self._latest = b""

    def pass_on(self, data: bytes) -> bool:
        """The fast lane, asked by the connection itself: the ordinary read is one chunk, which holds whole events,
        neither usage nor the end. It is written as it is, without another call. 0.5 µs, of which the write is half.
        """
        end = data.find(b"\r\n", 0, 8)
        size = KNOWN_SIZES.get(data[:end])
        if (
            not size
            or not self._open
            or end + size + 4 != len(data)
            or not data.endswith(b"\n\n\r\n")
            # `find`, not `in`, which takes a bytes operand for a number first and swallows the exception (0.4 µs).
            or data.find(b"[]") >= 0
            or data.find(b"[DONE]") >= 0
        ):
            return False
        if self._hold:
            self._read(data[end + 2 : -2])
        self._latest = data
        self.passed += len(data)
        self.write(data)
        return True

    def _read(self, payload: bytes) -> None:
        """Show whole events to the tap, on behalf of the policies."""
        for frame in (payload,) if payload.find(b"\n\n") == len(payload) - 2 else FrameSplitter().feed(payload):
            self._tap.feed(frame)

    def feed(self, data: bytes, end: bool) -> bytes:
        carried = self._splitter is not None or not self._aligned
        walker = self._framing.walker
        self._aligned = walker is None or walker.aligned
        splitter = self._splitter or FrameSplitter()
        frames = splitter.feed(self._framing.payload(data))
        rest = splitter.rest()
        kept = [frame for frame in frames if self._keeps(frame)]
        if end and rest:
            kept.append(rest)
        self._splitter = splitter if rest and not end else None
        if end and self._hold and not self._reviewed:
            self.awaits_verdict = True
        self._open = self._aligned and not (rest or end or self.awaits_verdict or self.over)
        whole = len(kept) == len(frames) and not rest and not self._held and not self.awaits_verdict
        self.raw = self._framing.passable and whole and not carried and self._aligned and (end or not self.over)
        return data if self.raw else b"".join(kept)

    def _keeps(self, frame: bytes) -> bool:
        """Whether an event goes to the client now."""
        if DONE in frame and data_of(frame) == DONE:
            if self._hold and not self._reviewed:
                self._held += frame
                self.awaits_verdict = True
                return False
            self.over = True
            return True
        if self._hold or b'"usage"' in frame:
            self._tap.feed(frame)
        return not (self._strip and b"[]" in frame and is_usage_chunk(frame))

    def finish(self) -> bytes:
        held, self._held = self._held, b""
        self.awaits_verdict = False
        self._reviewed = True
        self.raw = False
        return held

    def answer(self) -> AnswerView:
        if self._hold:
            return self._tap.answer()
        if self._tap.usage is None and b'"usage"' in self._latest:
            # Some providers put usage into the last ordinary event, and spaces into their JSON.
            self._read(self._latest.partition(b"\r\n")[2].removesuffix(b"\r\n"))
        return AnswerView(self._tap.usage)


class _UsageChunk(msgspec.Struct):
    choices: list[msgspec.Raw] | None = None
    usage: dict[str, msgspec.Raw] | None = None


_USAGE_CHUNK = msgspec.json.Decoder(_UsageChunk)


def is_usage_chunk(frame: bytes) -> bool:
    """Whether an event is the chunk that `stream_options.include_usage` adds: no choices, but usage.

    https://platform.openai.com/docs/api-reference/chat-streaming
    """
    try:
        chunk = _USAGE_CHUNK.decode(data_of(frame) or b"")
    except (ValueError, UnicodeDecodeError):
        return False
    return chunk.choices == [] and chunk.usage is not None


class Translation:
    """The provider's events become the client's, in the same turn."""

    __slots__ = ("_framing", "_hold", "_last", "_translator", "awaits_verdict", "raw")
    over = False

    def __init__(self, framing: Framing, translator: StreamTranslator, *, hold: bool) -> None:
        self.raw = False
        self.awaits_verdict = False
        self._framing = framing
        self._translator = translator
        self._hold = hold
        self._last = b""

    def feed(self, data: bytes, end: bool) -> bytes:
        out = self._translator.feed(self._framing.payload(data))
        if not end:
            return out
        last = self._translator.finish()
        if self._hold:
            self._last = last
            self.awaits_verdict = True
            return out
        return out + last

    def finish(self) -> bytes:
        last, self._last = self._last, b""
        self.awaits_verdict = False
        return last

    def answer(self) -> AnswerView:
        return self._translator.answer()


class Collection:
    """The whole body is kept until its end; `finish` gives it."""

    __slots__ = ("_framing", "_limit", "_pieces", "_size", "awaits_verdict", "raw")
    over = False

    def __init__(self, framing: Framing, limit: int) -> None:
        self.raw = False
        self.awaits_verdict = False
        self._framing = framing
        self._pieces: list[bytes] = []
        self._size = 0
        self._limit = limit

    def feed(self, data: bytes, end: bool) -> bytes:
        piece = self._framing.payload(data)
        self._size += len(piece)
        if self._size > self._limit:
            raise UpstreamInvalid(f"The provider's answer is larger than {self._limit} bytes and must be read whole.")
        self._pieces.append(piece)
        self.awaits_verdict = end
        return b""

    def finish(self) -> bytes:
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)

    def answer(self) -> AnswerView:
        return EMPTY
