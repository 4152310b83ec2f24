"""Client and provider speak the same format: the body passes as it is.

Three edits are known: another model name, usage asked for in a stream, and texts that a policy replaced. The first two
are spliced into the bytes, so that everything the client wrote, spacing and order of keys included, reaches the
provider; only where that is not possible without doubt is the body parsed and written anew.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NoReturn

import msgspec
import orjson

from gateway.errors import UpstreamError, Wire
from gateway.types import ResponseHead, Usage
from translators import paths, provider_errors
from translators.dialect import (
    EVENT_STREAM,
    NOTHING_CARRIED,
    AnswerView,
    Carried,
    RequestView,
    StreamTranslator,
    Tap,
    Translated,
)

_MODEL_KEY = b'"model"'
_MODEL_VALUE = re.compile(rb'"model"[ \t\r\n]*:[ \t\r\n]*("(?:[^"\\]|\\.)*")')
_STREAM_OPTIONS = b',"stream_options":{"include_usage":true}'


class Format(msgspec.Struct, frozen=True):
    """How one operation of a dialect is read where nothing is translated.

    `meters`: a stream of this operation has usage only when `stream_options.include_usage` asks for it. `usage` reads
    nothing but usage of a complete answer, where that is cheaper than `read`. `plain` recognises an ordinary request
    for a model, no stream, at less cost than `view`, and says how many tokens it wants at most (0: it does not say);
    None: only `view` can tell.
    """

    view: Callable[[bytes], RequestView]
    read: Callable[[bytes], AnswerView]
    tap: Callable[[], Tap]
    wire: Wire = Wire.OPENAI
    meters: bool = False
    usage: Callable[[bytes], Usage | None] | None = None
    plain: Callable[[bytes, str], int | None] | None = None

    def usage_of(self, body: bytes) -> Usage | None:
        """Usage of a complete answer."""
        return self.read(body).usage if self.usage is None else self.usage(body)


class Identity:
    """The Translation of one format to itself."""

    identity = True
    stream_media = EVENT_STREAM

    def __init__(self, format: Format, provider: str, refuses: frozenset[str] = frozenset()) -> None:
        self._format = format
        self._provider = provider
        self._meters = format.meters and "stream_options" not in refuses
        self._drops_options = "stream_options" in refuses
        self.wire = format.wire
        self.view = format.view
        self.read = format.read
        self.usage = format.usage or format.usage_of
        self.plain = format.plain
        self.tap: Callable[[], Tap] = format.tap

    def request(
        self, body: bytes, view: RequestView, *, model: str, replacements: Mapping[int, str], meter: bool
    ) -> Translated:
        """The provider's request: the same bytes object, unless one of the three edits is due."""
        adds_usage = meter and self._meters and view.stream and not view.include_usage
        renames = model != view.model
        drops = self._drops_options and getattr(view, "has_stream_options", False)
        if not (adds_usage or renames or replacements or drops):
            return Translated(body)
        edited = None if replacements or drops else body
        if renames and edited is not None:
            edited = with_model(edited, view.model, model)
        if adds_usage and edited is not None:
            edited = with_usage(edited, getattr(view, "has_stream_options", False))
        if edited is None:
            edited = _rewrite(body, view, model, replacements, adds_usage, drops)
        return Translated(edited, (f"stream_options: refused by {self._provider}",) if drops else (), adds_usage)

    def answer(self, body: bytes, model: str, carried: Carried = NOTHING_CARRIED) -> bytes:
        """The answer as it is."""
        return body

    def error(self, head: ResponseHead, body: bytes, *, passthrough: bool = False) -> UpstreamError:
        """The provider's error answer as the gateway's error."""
        return provider_errors.read(head, body, self._provider, passthrough=passthrough)

    def stream(self, model: str, *, include_usage: bool, carried: Carried = NOTHING_CARRIED) -> StreamTranslator:
        """Never called: an identity has a tap."""
        return self._no_stream()

    def _no_stream(self) -> NoReturn:
        raise TypeError("an identity translation passes its stream on; use tap()")


def with_model(body: bytes, old: str, new: str) -> bytes | None:
    """The body with another model, spliced in where the key stands; None where its place is in doubt."""
    value = orjson.dumps(new)
    at = body.find(_MODEL_KEY)
    if at < 0:
        if old:
            return None
        start = body.index(b"{") + 1
        comma = b"" if body[start:].lstrip(b" \t\r\n").startswith(b"}") else b","
        return b'%b"model":%b%b%b' % (body[:start], value, comma, body[start:])
    found = _MODEL_VALUE.match(body, at)
    unique = body.find(_MODEL_KEY, at + len(_MODEL_KEY)) < 0
    # An escaped key (`mod\u0065l`) could be the real one, and this one belong to an inner object.
    if not unique or found is None or b"\\u00" in body or orjson.loads(found.group(1)) != old:
        return None
    return body[: found.start(1)] + value + body[found.end(1) :]


def with_usage(body: bytes, has_stream_options: bool) -> bytes | None:
    """The body with usage asked for; None where there are stream options to merge with."""
    if has_stream_options:
        return None
    end = body.rindex(b"}")
    return b"%b%b%b" % (body[:end], _STREAM_OPTIONS, body[end:])


def _rewrite(
    body: bytes, view: RequestView, model: str, replacements: Mapping[int, str], adds_usage: bool, drops_options: bool
) -> bytes:
    tree = orjson.loads(body)
    if model != view.model:
        tree["model"] = model
    if drops_options:
        del tree["stream_options"]
    if adds_usage:
        tree["stream_options"] = {**(tree.get("stream_options") or {}), "include_usage": True}
    if replacements:
        texts = view.texts()
        for index, text in replacements.items():
            paths.put(tree, texts[index].path, text)
    return orjson.dumps(tree)
