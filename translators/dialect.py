"""The seam between the gateway and a wire format.

A *dialect* is one wire format in one file. It can do two things: tell the gateway the little it needs to know of a body
without rebuilding it (the `view`), and turn a body into the canonical form and back. Dialects never meet each other:
what goes from one to another goes through `canonical`. Where client and provider speak the same dialect nothing of that
happens, the bytes pass as they are.

Everything here is pure: bytes in, bytes out. No socket, no clock, no environment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec
import re2

from gateway.errors import UpstreamError, Wire
from gateway.types import ResponseHead, TextPart, Usage


class RequestView(Protocol):
    """What routing, limits and policies need to know of a request body."""

    model: str
    stream: bool
    include_usage: bool
    """The client itself asked for the usage chunk of a stream."""
    max_output_tokens: int | None

    def texts(self) -> list[TextPart]:
        """Every text that reaches the model, in the order in which the model reads it."""
        ...


class Called(NamedTuple):
    """A tool that an answer calls: its name, the arguments as JSON text, and the place of these in the answer."""

    name: str
    arguments: str
    path: str


class AnswerView(msgspec.Struct, frozen=True):
    """What metering and output policies need to know of a complete answer.

    `truncated`: there was more text than is kept, so a policy has not seen all of it.
    """

    usage: Usage | None
    texts: Sequence[TextPart] = ()
    finish_reason: str | None = None
    truncated: bool = False
    calls: Sequence[Called] = ()


EVENT_STREAM = b"text/event-stream"


class Carried(msgspec.Struct, frozen=True):
    """What the answer's translation must know of the request.

    `names` maps tools' names as the provider got them to the client's own, where they differ; `prompt_tokens` is an
    estimate of the prompt, for formats that tell it before the provider does; `echo` holds fields of the request that
    the client's format repeats in the answer.
    """

    names: Mapping[str, str] = {}
    prompt_tokens: int = 0
    echo: Mapping[str, Any] = {}


NOTHING_CARRIED = Carried()


class Translated(msgspec.Struct, frozen=True):
    """A request as the provider gets it.

    `strip_usage`: a stream's usage was asked for on the gateway's behalf; a chunk of its own must not reach the client.
    `notes`: what the provider's format could not express, one JSON path with a reason each (`seed: not supported`).
    `local`: the answer itself, in the client's format, where no provider needs to be asked.
    """

    body: bytes
    notes: tuple[str, ...] = ()
    strip_usage: bool = False
    carried: Carried = NOTHING_CARRIED
    local: bytes | None = None


def estimated_tokens(body: bytes) -> int:
    """Roughly how many tokens a JSON request has: four bytes each, and pictures and documents in base64 by the piece.

    What stands before `"base64"` and `;base64,` is text; what follows is skipped to its end. 0.05 ms for 1 MB of text.
    """
    size, pieces, at = len(body), 0, 0
    for _ in range(_MAX_LOOKED_AT):
        found = _BASE64.search(body, at)
        if found is None:
            break
        at = found.end()
        start = at + 1 if body[at : at + 1] == b"," else body.find(b'"', body.find(b'"data"', at, at + 256) + 6) + 1
        end = body.find(b'"', start)
        if end - start > _SMALL_DATA and start > at:
            size -= end - start
            pieces += 1
            at = end
    return size // _BYTES_PER_TOKEN + pieces * _TOKENS_PER_PIECE + 1


_BASE64 = re2.compile(b"base64")
"""In a large body RE2 finds it fourteen times as fast as `bytes.find`, and other threads run meanwhile."""
_MAX_LOOKED_AT = 1000
"""So many places are looked at, at 1 to 3 µs each; nobody sends more pictures."""
_BYTES_PER_TOKEN = 4
_SMALL_DATA = 1024
_TOKENS_PER_PIECE = 1600
"""The most that Claude takes for an image: https://platform.claude.com/docs/en/build-with-claude/vision"""


class Tap(Protocol):
    """Follows a stream that is passed on as it is: it reads frames and never changes one."""

    usage: Usage | None

    def feed(self, frame: bytes) -> None:
        """Take in one complete SSE frame, its blank line included."""
        ...

    def answer(self) -> AnswerView:
        """The answer as far as it has come."""
        ...


class StreamTranslator(Protocol):
    """Turns the provider's stream into the client's, event by event, in the same call."""

    usage: Usage | None

    def feed(self, payload: bytes) -> bytes:
        """Take payload bytes as they came (cut anywhere) and return the client's frames, possibly none."""
        ...

    def finish(self) -> bytes:
        """The provider's stream ended cleanly: return the client's last frames, its end mark included.

        Raises UpstreamInvalid where the provider's stream was not complete.
        """
        ...

    def answer(self) -> AnswerView:
        """The answer as far as it has come, for the output policies."""
        ...


class Translation(Protocol):
    """One inbound dialect bound to one provider's dialect for one operation; made when a configuration is compiled."""

    identity: bool
    wire: Wire
    stream_media: bytes
    """The content type of the provider's streams, lower case, without parameters."""

    def view(self, body: bytes) -> RequestView:
        """Read a request body in the client's dialect. Raises InvalidJSON or InvalidRequest."""
        ...

    @property
    def plain(self) -> Callable[[bytes, str], int | None] | None:
        """Recognises an ordinary request for a model at little cost (`identity.Format`); None: there is no such way."""
        ...

    def request(
        self, body: bytes, view: RequestView, *, model: str, replacements: Mapping[int, str], meter: bool
    ) -> Translated:
        """The provider's request. `model` is what the provider is asked for; `replacements` maps indices of
        `view.texts()` to redacted text; `meter` asks for usage in streams. With nothing to change, `body` itself."""
        ...

    def answer(self, body: bytes, model: str, carried: Carried = NOTHING_CARRIED) -> bytes:
        """A complete 2xx answer in the client's dialect; for identity `body` itself. Raises UpstreamInvalid."""
        ...

    def read(self, body: bytes) -> AnswerView:
        """Usage and texts of a complete answer in the client's dialect. Never raises on odd provider JSON."""
        ...

    def usage(self, body: bytes) -> Usage | None:
        """Usage of a complete answer in the client's dialect, where nobody reads its texts. Never raises."""
        ...

    def error(self, head: ResponseHead, body: bytes, *, passthrough: bool = False) -> UpstreamError:
        """The provider's error answer as the gateway's error (status, code, message, Retry-After kept).

        `passthrough`: the credential that the provider saw is the client's own, so a refusal of it is the client's."""
        ...

    def stream(self, model: str, *, include_usage: bool, carried: Carried = NOTHING_CARRIED) -> StreamTranslator:
        """A translator for one stream; only for `identity` False."""
        ...

    def tap(self) -> Tap:
        """A tap for one stream; only for `identity` True."""
        ...
