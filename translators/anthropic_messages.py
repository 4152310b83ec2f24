"""Anthropic Messages: the dialect of `/v1/messages`, read where it passes as it is.

Texts are found as in `openai_chat`: a typed decode that knows the fields that Claude Code and the SDKs send, and for a
body with any other field a walk that takes every string, so that no text hides in an extension.

Reference: https://platform.claude.com/docs/en/api/messages.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

import msgspec
import orjson

from gateway.errors import Wire
from gateway.sse import data_of
from gateway.types import TextPart, Usage
from translators import paths, strict
from translators.anthropic_answers_in import usage_of
from translators.collected import Collected
from translators.dialect import AnswerView, Called
from translators.identity import Format

_ABSENT: Final = msgspec.Raw(b"null")


class Head(msgspec.Struct, gc=False):
    model: str = ""
    stream: bool | None = None
    max_tokens: int | None = None
    messages: msgspec.Raw = _ABSENT


class _Block(msgspec.Struct, forbid_unknown_fields=True):
    """The blocks of a conversation with tools; what is not text is only skipped."""

    type: str = ""
    text: str | None = None
    thinking: str | None = None
    content: str | list[_Block] | None = None
    input: msgspec.Raw = _ABSENT
    title: str | None = None
    context: str | None = None
    id: str | None = None
    name: str | None = None
    tool_use_id: str | None = None
    is_error: bool | None = None
    signature: str | None = None
    data: str | None = None
    source: msgspec.Raw = _ABSENT
    citations: msgspec.Raw = _ABSENT
    cache_control: msgspec.Raw = _ABSENT


class _Message(msgspec.Struct, forbid_unknown_fields=True):
    role: str = ""
    content: str | list[_Block] | None = None


class _Prompt(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Every field of the reference: those with text for the model are looked into, the others only skipped."""

    messages: list[_Message] = []
    system: str | list[_Block] | None = None
    tools: msgspec.Raw = _ABSENT
    output_config: msgspec.Raw = _ABSENT
    output_format: msgspec.Raw = _ABSENT
    # Settings, not text:
    model: msgspec.Raw = _ABSENT
    max_tokens: msgspec.Raw = _ABSENT
    cache_control: msgspec.Raw = _ABSENT
    container: msgspec.Raw = _ABSENT
    diagnostics: msgspec.Raw = _ABSENT
    inference_geo: msgspec.Raw = _ABSENT
    metadata: msgspec.Raw = _ABSENT
    service_tier: msgspec.Raw = _ABSENT
    speed: msgspec.Raw = _ABSENT
    stop_sequences: msgspec.Raw = _ABSENT
    stream: msgspec.Raw = _ABSENT
    temperature: msgspec.Raw = _ABSENT
    thinking: msgspec.Raw = _ABSENT
    tool_choice: msgspec.Raw = _ABSENT
    top_k: msgspec.Raw = _ABSENT
    top_p: msgspec.Raw = _ABSENT


_SETTINGS: Final = frozenset(_Prompt.__struct_fields__[5:])
_PLAIN_BLOCKS: Final = frozenset(
    {"text", "image", "tool_use", "tool_result", "thinking", "redacted_thinking", "document"}
)
_KINDS: Final = {
    "tool_use": "tool_arguments",
    "server_tool_use": "tool_arguments",
    "tool_result": "tool_result",
    "thinking": "reasoning",
}
_NOT_TEXT: Final = paths.NOT_TEXT | {"tool_use_id", "name"}
_OPAQUE: Final = frozenset({"signature", "data", "encrypted_content", "encrypted_index", "file_id", "url"})

_HEAD: Final = msgspec.json.Decoder(Head)
_PROMPT: Final = msgspec.json.Decoder(_Prompt)


class MessagesView:
    """A request, read once. Usage comes with every stream of this format, so it counts as asked for."""

    __slots__ = ("_body", "_texts", "max_output_tokens", "model", "stream")

    include_usage = True

    def __init__(self, body: bytes, head: Head) -> None:
        self.model = head.model
        self.stream = head.stream is True
        self.max_output_tokens = head.max_tokens
        self._body = body
        self._texts: list[TextPart] | None = None

    def texts(self) -> list[TextPart]:
        """Every text that reaches the model: tools, system prompt, messages, schemas."""
        if self._texts is None:
            self._texts = _request_texts(self._body)
        return self._texts


def head(body: bytes) -> Head:
    """What must be known of a request body. Raises InvalidJSON or InvalidRequest."""
    found = strict.decode(_HEAD, body)
    strict.check_unique(body, b'"messages"', bytes(found.messages))
    return found


def view(body: bytes) -> MessagesView:
    """Read a request body. Raises InvalidJSON or InvalidRequest."""
    return MessagesView(body, head(body))


class _Unknown(Exception):
    """A block of a kind that the typed decode does not know."""


def _request_texts(body: bytes) -> list[TextPart]:
    try:
        prompt = _PROMPT.decode(body)
        found = list(_definitions(bytes(prompt.tools)))
        _content_texts(prompt.system, "system", "system", "message", found)
        for index, message in enumerate(prompt.messages):
            _content_texts(message.content, f"messages[{index}].content", message.role, "message", found)
    except (msgspec.ValidationError, _Unknown):
        return list(_walk(orjson.loads(body)))
    for key in ("output_config", "output_format"):
        raw = bytes(getattr(prompt, key))
        if raw != b"null":
            found += paths.texts(orjson.loads(raw), key, "system", "instructions")
    return found


def _definitions(raw: bytes) -> tuple[TextPart, ...]:
    if raw == b"null":
        return ()
    return _definition_texts(raw) if len(raw) <= _CACHED_BYTES else _definition_texts.__wrapped__(raw)


_CACHED_BYTES: Final = 128 * 1024


@lru_cache(maxsize=64)
def _definition_texts(raw: bytes) -> tuple[TextPart, ...]:
    """An agent sends the same tools with every request."""
    return tuple(paths.texts(orjson.loads(raw), "tools", "system", "tool_definition"))


def _content_texts(content: str | list[_Block] | None, path: str, role: str, kind: str, found: list[TextPart]) -> None:
    if isinstance(content, str):
        if content:
            found.append(TextPart(content, role, kind, path))
        return
    for index, block in enumerate(content or ()):
        place = f"{path}[{index}]"
        if block.type not in _PLAIN_BLOCKS:
            raise _Unknown
        if block.text:
            found.append(TextPart(block.text, role, kind, f"{place}.text"))
        elif block.type != "text":
            _seldom_texts(block, place, role, found)


def _seldom_texts(block: _Block, path: str, role: str, found: list[TextPart]) -> None:
    if block.thinking:
        found.append(TextPart(block.thinking, role, "reasoning", f"{path}.thinking"))
    if block.input is not _ABSENT:
        found += paths.texts(orjson.loads(bytes(block.input)), f"{path}.input", role, "tool_arguments", ())
    if block.content is not None:
        _content_texts(block.content, f"{path}.content", "tool", "tool_result", found)
    for key in ("title", "context"):
        if text := getattr(block, key):
            found.append(TextPart(text, role, "message", f"{path}.{key}"))
    if block.type == "document":
        found += _document_texts(orjson.loads(bytes(block.source)), f"{path}.source", role)


def _document_texts(source: Any, path: str, role: str) -> Iterator[TextPart]:
    """A document may be plain text, or made of blocks."""
    if isinstance(source, dict) and source.get("type") == "text":
        yield from paths.texts(source.get("data"), f"{path}.data", role, "message")
    elif isinstance(source, dict) and source.get("type") == "content":
        yield from paths.texts(source.get("content"), f"{path}.content", role, "message")


def _walk(body: dict[str, Any]) -> Iterator[TextPart]:
    """The texts of a body with fields that the reference does not have: every string that is not a known setting."""
    yield from paths.texts(body.get("tools"), "tools", "system", "tool_definition")
    yield from _walk_content(body.get("system"), "system", "system")
    messages = body.get("messages")
    for index, message in enumerate(messages if isinstance(messages, list) else ()):
        path = f"messages[{index}]"
        role = message.get("role") if isinstance(message, dict) else None
        role = role if isinstance(role, str) else "user"
        for key, value in message.items() if isinstance(message, dict) else (("", message),):
            if key == "content":
                yield from _walk_content(value, f"{path}.content", role)
            elif key != "role":
                yield from paths.texts(value, paths.join(path, key) if key else path, role, "message", _NOT_TEXT)
    if not isinstance(messages, list):
        yield from paths.texts(messages, "messages", "user", "message")
    for key, value in body.items():
        if key not in _SETTINGS and key not in ("tools", "system", "messages"):
            yield from paths.texts(value, paths.join("", key), "system", "instructions")


def _walk_content(content: Any, path: str, role: str) -> Iterator[TextPart]:
    if not isinstance(content, list):
        yield from paths.texts(content, path, role, "message")
        return
    for index, block in enumerate(content):
        kind = _KINDS.get(str(block.get("type")), "message") if isinstance(block, dict) else "message"
        yield from paths.texts(_readable(block), f"{path}[{index}]", role, kind, _NOT_TEXT)


def _readable(value: Any) -> Any:
    """Without signatures, base64 and addresses; the text of a plain document is no base64."""
    if isinstance(value, dict):
        plain = value.get("type") == "text"
        return {
            key: None if key in _OPAQUE and isinstance(item, str) and not plain else _readable(item)
            for key, item in value.items()
        }
    return [_readable(item) for item in value] if isinstance(value, list) else value


# --- answers ---------------------------------------------------------------------------------------------------------


def read(body: bytes) -> AnswerView:
    """Usage and texts of a complete answer; an odd one gives as much as can be read."""
    try:
        tree = orjson.loads(body)
    except orjson.JSONDecodeError:
        return AnswerView(None)
    if not isinstance(tree, dict):
        return AnswerView(None)
    usage = tree.get("usage")
    reason = tree.get("stop_reason")
    return AnswerView(
        usage_of(usage) if isinstance(usage, dict) else None,
        list(_walk_content(tree.get("content"), "content", "assistant")),
        reason if isinstance(reason, str) else None,
        calls=list(_calls(tree.get("content"))),
    )


def _calls(content: Any) -> Iterator[Called]:
    for index, block in enumerate(content if isinstance(content, list) else ()):
        if isinstance(block, dict) and block.get("type") == "tool_use" and isinstance(block.get("name"), str):
            yield Called(block["name"], orjson.dumps(block.get("input", {})).decode(), f"content[{index}].input")


class _Usage(msgspec.Struct, gc=False):
    usage: dict[str, Any] | None = None


_USAGE: Final = msgspec.json.Decoder(_Usage)


def usage(body: bytes) -> Usage | None:
    """Usage alone."""
    try:
        found = _USAGE.decode(body).usage
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return None if found is None else usage_of(found)


class _Delta(msgspec.Struct, gc=False):
    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None


class _Start(msgspec.Struct, gc=False):
    type: str = ""
    text: str | None = None
    name: str | None = None


class _Begun(msgspec.Struct, gc=False):
    usage: dict[str, Any] | None = None


class _Event(msgspec.Struct, gc=False):
    index: int = 0
    delta: _Delta | None = None
    content_block: _Start | None = None
    message: _Begun | None = None
    usage: dict[str, Any] | None = None


_EVENT: Final = msgspec.json.Decoder(_Event)


class MessagesTap:
    """Follows a stream of events: usage, stop reason, and the texts as the complete answer would have them."""

    __slots__ = ("_counts", "_reason", "_texts", "usage")

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self._counts: dict[str, Any] = {}
        self._texts = Collected()
        self._reason: str | None = None

    def feed(self, frame: bytes) -> None:
        """Take in one complete SSE frame. An odd one is passed over; never raises."""
        data = data_of(frame)
        if data is None:
            return
        try:
            event = _EVENT.decode(data)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return
        if event.delta is not None:
            self._delta(event.index, event.delta)
        if event.content_block is not None:
            self._begin(event.index, event.content_block)
        counts = event.usage if event.message is None else event.message.usage
        if counts:
            self._counts |= {key: value for key, value in counts.items() if value or key not in self._counts}
            self.usage = usage_of(self._counts)

    def _begin(self, index: int, block: _Start) -> None:
        if block.text:
            self._texts.add(index, "message", "text", block.text)
        if block.type == "tool_use" and block.name:
            self._texts.call(index, "input", block.name)

    def _delta(self, index: int, delta: _Delta) -> None:
        if delta.text:
            self._texts.add(index, "message", "text", delta.text)
        if delta.thinking:
            self._texts.add(index, "reasoning", "thinking", delta.thinking)
        if delta.partial_json:
            self._texts.add(index, "tool_arguments", "input", delta.partial_json)
        self._reason = delta.stop_reason or self._reason

    def answer(self) -> AnswerView:
        """The answer as far as it has come."""
        texts, place = self._texts, "content[{}]"
        return AnswerView(self.usage, texts.parts(place), self._reason, texts.truncated, texts.calls(place))


FORMAT = Format(view, read, MessagesTap, wire=Wire.ANTHROPIC, usage=usage)
