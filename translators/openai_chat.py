"""OpenAI Chat Completions: the dialect of `/v1/chat/completions`, of Azure OpenAI and of everything compatible.

It reads the little that routing, limits and policies need, and leaves the rest of the body to the provider, which alone
knows its newest fields. Texts are found in two ways: a typed decode that knows every field of OpenAI's reference, and,
for a body with any field that it does not know, a walk that takes every string. So a text cannot hide in an extension.

Reference: https://platform.openai.com/docs/api-reference/chat. Tolerated besides: Azure's chunks with empty `choices`
and choices without `delta`, Mistral's content parts in answers, DeepSeek's and vLLM's `reasoning_content`, OpenRouter's
and Groq's `reasoning`, Groq's `x_groq.usage`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

import msgspec
import orjson

from gateway.sse import data_of
from gateway.types import TextPart, Usage
from translators import paths, strict
from translators.collected import Collected
from translators.dialect import AnswerView
from translators.identity import Format

_ABSENT: Final = msgspec.Raw(b"null")
_UNSET: Final = msgspec.UNSET


class _StreamOptions(msgspec.Struct, gc=False):
    include_usage: bool | None = None


class _Head(msgspec.Struct, gc=False):
    """What is read of every request; `messages` is only delimited."""

    model: str = ""
    stream: bool | None = None
    stream_options: _StreamOptions | msgspec.UnsetType | None = msgspec.UNSET
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    messages: msgspec.Raw = _ABSENT


class _Part(msgspec.Struct, forbid_unknown_fields=True):
    type: str = ""
    text: str | None = None
    refusal: str | None = None
    image_url: msgspec.Raw = _ABSENT
    input_audio: msgspec.Raw = _ABSENT
    file: msgspec.Raw = _ABSENT
    cache_control: msgspec.Raw = _ABSENT
    prompt_cache_breakpoint: msgspec.Raw = _ABSENT


class _Function(msgspec.Struct, forbid_unknown_fields=True):
    name: str | None = None
    arguments: str | None = None


class _Custom(msgspec.Struct, forbid_unknown_fields=True):
    name: str | None = None
    input: str | None = None


class _Call(msgspec.Struct, forbid_unknown_fields=True):
    id: str | None = None
    type: str | None = None
    index: int | None = None
    function: _Function | None = None
    custom: _Custom | None = None


class _Message(msgspec.Struct, forbid_unknown_fields=True):
    role: str = ""
    content: str | list[_Part] | None = None
    name: str | None = None
    refusal: str | None = None
    tool_call_id: str | None = None
    tool_calls: list[_Call] | None = None
    function_call: _Function | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    audio: msgspec.Raw = _ABSENT
    annotations: msgspec.Raw = _ABSENT


class _Prompt(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Every field of the reference: those with text for the model are typed or looked into, the others only skipped."""

    messages: list[_Message] = []
    tools: msgspec.Raw = _ABSENT
    functions: msgspec.Raw = _ABSENT
    response_format: msgspec.Raw = _ABSENT
    prediction: msgspec.Raw = _ABSENT
    # Settings, not text:
    audio: msgspec.Raw = _ABSENT
    frequency_penalty: msgspec.Raw = _ABSENT
    function_call: msgspec.Raw = _ABSENT
    logit_bias: msgspec.Raw = _ABSENT
    logprobs: msgspec.Raw = _ABSENT
    max_completion_tokens: msgspec.Raw = _ABSENT
    max_tokens: msgspec.Raw = _ABSENT
    metadata: msgspec.Raw = _ABSENT
    modalities: msgspec.Raw = _ABSENT
    model: msgspec.Raw = _ABSENT
    moderation: msgspec.Raw = _ABSENT
    n: msgspec.Raw = _ABSENT
    parallel_tool_calls: msgspec.Raw = _ABSENT
    presence_penalty: msgspec.Raw = _ABSENT
    prompt_cache_key: msgspec.Raw = _ABSENT
    prompt_cache_options: msgspec.Raw = _ABSENT
    prompt_cache_retention: msgspec.Raw = _ABSENT
    reasoning_effort: msgspec.Raw = _ABSENT
    safety_identifier: msgspec.Raw = _ABSENT
    seed: msgspec.Raw = _ABSENT
    service_tier: msgspec.Raw = _ABSENT
    stop: msgspec.Raw = _ABSENT
    store: msgspec.Raw = _ABSENT
    stream: msgspec.Raw = _ABSENT
    stream_options: msgspec.Raw = _ABSENT
    temperature: msgspec.Raw = _ABSENT
    tool_choice: msgspec.Raw = _ABSENT
    top_logprobs: msgspec.Raw = _ABSENT
    top_p: msgspec.Raw = _ABSENT
    user: msgspec.Raw = _ABSENT
    verbosity: msgspec.Raw = _ABSENT
    web_search_options: msgspec.Raw = _ABSENT


_SETTINGS = frozenset(_Prompt.__struct_fields__[5:])
_PLAIN_PARTS = frozenset({"text", "refusal", "image_url", "input_audio", "input_text", "output_text"})
_NOT_TEXT = paths.NOT_TEXT | {"tool_call_id"}
_KINDS = {
    "refusal": "refusal",
    "tool_calls": "tool_arguments",
    "function_call": "tool_arguments",
    "reasoning": "reasoning",
    "reasoning_content": "reasoning",
    "reasoning_details": "reasoning",
}

_head: Final = msgspec.json.Decoder(_Head)
_prompt: Final = msgspec.json.Decoder(_Prompt)


class ChatView:
    """A request, read once: the few fields that every request needs, and its texts when a policy asks for them."""

    __slots__ = ("_body", "_texts", "has_stream_options", "include_usage", "max_output_tokens", "model", "stream")

    def __init__(self, body: bytes, head: _Head) -> None:
        self.model = head.model
        self.stream = head.stream is True
        options = head.stream_options
        if options is _UNSET:
            self.has_stream_options = self.include_usage = False
        else:
            self.has_stream_options = True
            self.include_usage = isinstance(options, _StreamOptions) and options.include_usage is True
        self.max_output_tokens = head.max_tokens if head.max_completion_tokens is None else head.max_completion_tokens
        self._body = body
        self._texts: list[TextPart] | None = None

    def texts(self) -> list[TextPart]:
        """Every text that reaches the model: tool definitions, messages of all roles, schemas, predicted output."""
        if self._texts is None:
            self._texts = _request_texts(self._body)
        return self._texts


def view(body: bytes) -> ChatView:
    """Read a request body. Raises InvalidJSON or InvalidRequest."""
    head = strict.decode(_head, body)
    strict.check_unique(body, b'"messages"', bytes(head.messages))
    return ChatView(body, head)


def plain(body: bytes, model: str) -> int | None:
    """What `view` would say of an ordinary request for `model` that is no stream: how many tokens it wants at most,
    or 0. None: ask `view`, which also knows what is wrong. 2 µs for 1 KB, where `view` takes 3.5."""
    try:
        head = _head.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if (
        head.model != model
        or head.stream
        or head.stream_options is not _UNSET
        or not strict.is_plain(body, b'"messages"', bytes(head.messages))
    ):
        return None
    tokens = head.max_tokens if head.max_completion_tokens is None else head.max_completion_tokens
    return 0 if tokens is None or tokens < 0 else tokens


def _request_texts(body: bytes) -> list[TextPart]:
    try:
        prompt = _prompt.decode(body)
        found = list(_definitions(bytes(prompt.tools), "tools"))
        found += _definitions(bytes(prompt.functions), "functions")
        for index, message in enumerate(prompt.messages):
            _message_texts(message, f"messages[{index}]", found)
    except (msgspec.ValidationError, _Unknown):
        return _walk(orjson.loads(body))
    for key in ("response_format", "prediction"):
        raw = getattr(prompt, key)
        if raw is not _ABSENT:
            found += paths.texts(orjson.loads(bytes(raw)), key, "system", "instructions")
    return found


class _Unknown(Exception):
    """A content part of a type that the typed decode does not know."""


def _definitions(raw: bytes, path: str) -> tuple[TextPart, ...]:
    if raw == b"null":
        return ()
    return _definition_texts(raw, path) if len(raw) <= _CACHED_BYTES else _definition_texts.__wrapped__(raw, path)


_CACHED_BYTES = 128 * 1024


@lru_cache(maxsize=64)
def _definition_texts(raw: bytes, path: str) -> tuple[TextPart, ...]:
    """An agent sends the same tools with every request: 12 µs to look up 20 KB of them, 250 to walk them."""
    return tuple(paths.texts(orjson.loads(raw), path, "system", "tool_definition"))


def _message_texts(message: _Message, path: str, found: list[TextPart]) -> None:
    role = message.role
    kind = "tool_result" if role in ("tool", "function") else "message"
    content = message.content
    if message.name:
        found.append(TextPart(message.name, role, kind, f"{path}.name"))
    if message.reasoning_content:
        found.append(TextPart(message.reasoning_content, role, "reasoning", f"{path}.reasoning_content"))
    if message.reasoning:
        found.append(TextPart(message.reasoning, role, "reasoning", f"{path}.reasoning"))
    if isinstance(content, str):
        if content:
            found.append(TextPart(content, role, kind, f"{path}.content"))
    elif content:
        for index, part in enumerate(content):
            _part_texts(part, role, kind, f"{path}.content[{index}]", found)
    if message.refusal:
        found.append(TextPart(message.refusal, role, "refusal", f"{path}.refusal"))
    if message.tool_calls or message.function_call:
        _call_texts(message, role, path, found)


def _part_texts(part: _Part, role: str, kind: str, path: str, found: list[TextPart]) -> None:
    if part.text:
        found.append(TextPart(part.text, role, kind, f"{path}.text"))
    if part.refusal:
        found.append(TextPart(part.refusal, role, "refusal", f"{path}.refusal"))
    if part.type not in _PLAIN_PARTS:
        raise _Unknown


def _call_texts(message: _Message, role: str, path: str, found: list[TextPart]) -> None:
    for index, call in enumerate(message.tool_calls or ()):
        place = f"{path}.tool_calls[{index}]"
        if call.function and call.function.arguments:
            found.append(TextPart(call.function.arguments, role, "tool_arguments", f"{place}.function.arguments"))
        if call.custom and call.custom.input:
            found.append(TextPart(call.custom.input, role, "tool_arguments", f"{place}.custom.input"))
    if message.function_call and message.function_call.arguments:
        found.append(
            TextPart(message.function_call.arguments, role, "tool_arguments", f"{path}.function_call.arguments")
        )


def _walk(body: dict[str, Any]) -> list[TextPart]:
    """The texts of a body with fields that the reference does not have: every string that is not a known setting."""
    found: list[TextPart] = []
    for key in ("tools", "functions"):
        found += paths.texts(body.get(key), key, "system", "tool_definition")
    messages = body.get("messages")
    for index, message in enumerate(messages if isinstance(messages, list) else ()):
        found += _walk_message(message, f"messages[{index}]")
    for key, value in body.items():
        if key not in _SETTINGS and key not in ("tools", "functions", "messages"):
            found += paths.texts(value, paths.join("", key), "system", "instructions")
    if not isinstance(messages, list):
        found += paths.texts(messages, "messages", "user", "message")
    return found


def _walk_message(message: Any, path: str) -> Iterator[TextPart]:
    if not isinstance(message, dict):
        yield from paths.texts(message, path, "user", "message")
        return
    role = message.get("role")
    role = role if isinstance(role, str) else "user"
    usual = "tool_result" if role in ("tool", "function") else "message"
    for key, value in message.items():
        if key == "content":
            yield from _walk_content(value, f"{path}.content", role, usual)
        elif key not in ("role", "tool_call_id"):
            yield from paths.texts(value, paths.join(path, key), role, _KINDS.get(key, usual), _NOT_TEXT)


def _walk_content(content: Any, path: str, role: str, kind: str) -> Iterator[TextPart]:
    """All strings of all parts, except what carries an image, a sound or a file as base64 or by its address."""
    if not isinstance(content, list):
        yield from paths.texts(content, path, role, kind)
        return
    for index, part in enumerate(content):
        place = f"{path}[{index}]"
        if isinstance(part, dict):
            part = {key: _without_data(value) if key in _MEDIA else value for key, value in part.items()}
        yield from paths.texts(part, place, role, kind)


_MEDIA = frozenset({"image_url", "input_audio", "file", "source", "video_url", "audio_url", "document_url"})
_DATA = frozenset({"url", "data", "file_data", "file_id", "detail"})


def _without_data(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: item for key, item in value.items() if key not in _DATA}
    return None


# --- answers ---------------------------------------------------------------------------------------------------------


class _PromptDetails(msgspec.Struct, gc=False):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class _CompletionDetails(msgspec.Struct, gc=False):
    reasoning_tokens: int | None = None


class ChatUsage(msgspec.Struct, gc=False):
    """Usage as OpenAI and its kin write it; DeepSeek's cache count stands at the top."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None
    prompt_cache_hit_tokens: int | None = None

    def usage(self) -> Usage:
        prompt, completion = self.prompt_tokens_details, self.completion_tokens_details
        return Usage(
            prompt=self.prompt_tokens or 0,
            completion=self.completion_tokens or 0,
            cached=(prompt.cached_tokens if prompt else self.prompt_cache_hit_tokens) or 0,
            reasoning=(completion.reasoning_tokens or 0) if completion else 0,
            written=(prompt.cache_write_tokens or 0) if prompt else 0,
        )


class _GroqUsage(msgspec.Struct, gc=False):
    usage: ChatUsage | None = None


class _AnswerFunction(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _AnswerCustom(msgspec.Struct, gc=False):
    name: str | None = None
    input: str | None = None


class _AnswerCall(msgspec.Struct, gc=False):
    index: int | None = None
    function: _AnswerFunction | None = None
    custom: _AnswerCustom | None = None


class _AnswerMessage(msgspec.Struct, gc=False):
    """A message or a delta."""

    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_AnswerCall] | None = None
    function_call: _AnswerFunction | None = None
    audio: msgspec.Raw = _ABSENT


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    message: _AnswerMessage | None = None
    finish_reason: str | None = None


class _Completion(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    usage: ChatUsage | None = None


class _ChunkChoice(msgspec.Struct, gc=False):
    index: int = 0
    delta: _AnswerMessage | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_ChunkChoice] | None = None
    usage: ChatUsage | None = None
    x_groq: _GroqUsage | None = None


class _Metered(msgspec.Struct, gc=False):
    usage: ChatUsage | None = None


_completion: Final = msgspec.json.Decoder(_Completion)
_metered: Final = msgspec.json.Decoder(_Metered)
_chunk: Final = msgspec.json.Decoder(_Chunk)
_NOTHING: Final = AnswerView(None)


def read(body: bytes) -> AnswerView:
    """Usage and texts of a complete answer; an odd one gives as much as can be read."""
    collector = _Collector()
    try:
        completion = _completion.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return _read_oddly(body)
    for choice in completion.choices or ():
        if choice.message is not None:
            collector.message(choice.index, choice.message)
        collector.finish_reason = choice.finish_reason or collector.finish_reason
    usage = completion.usage.usage() if completion.usage else None
    return collector.view(usage)


def usage(body: bytes) -> Usage | None:
    """Usage alone, for a third of the cost of `read`: most answers are read by no policy."""
    try:
        found = _metered.decode(body).usage
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return _read_oddly(body).usage
    return None if found is None else found.usage()


def _read_oddly(body: bytes) -> AnswerView:
    try:
        tree = orjson.loads(body)
    except orjson.JSONDecodeError:
        return _NOTHING
    collector = _Collector()
    collector.tree(tree, "message")
    return collector.view(_usage_of(tree))


def _usage_of(tree: Any) -> Usage | None:
    try:
        return msgspec.convert(tree["usage"], ChatUsage).usage()
    except (KeyError, TypeError, msgspec.ValidationError):
        return None


class _Collector(Collected):
    """The texts of all choices, and why the last one ended."""

    __slots__ = ("finish_reason",)

    def __init__(self) -> None:
        super().__init__()
        self.finish_reason: str | None = None

    def message(self, choice: int, message: _AnswerMessage) -> None:
        if message.content:
            self.add(choice, "message", "content", message.content)
        if message.reasoning_content:
            self.add(choice, "reasoning", "reasoning_content", message.reasoning_content)
        if message.reasoning:
            self.add(choice, "reasoning", "reasoning", message.reasoning)
        if message.refusal:
            self.add(choice, "refusal", "refusal", message.refusal)
        if message.tool_calls:
            self._calls(choice, message.tool_calls)
        if message.function_call:
            self._called(choice, "function_call.arguments", message.function_call.name, message.function_call.arguments)
        if message.audio is not _ABSENT:
            audio = orjson.loads(bytes(message.audio))
            if isinstance(audio, dict) and isinstance(audio.get("transcript"), str):
                self.add(choice, "message", "audio.transcript", audio["transcript"])

    def _calls(self, choice: int, calls: list[_AnswerCall]) -> None:
        for position, call in enumerate(calls):
            index = position if call.index is None else call.index
            if call.function:
                place = f"tool_calls[{index}].function.arguments"
                self._called(choice, place, call.function.name, call.function.arguments)
            if call.custom:
                self._called(choice, f"tool_calls[{index}].custom.input", call.custom.name, call.custom.input)

    def _called(self, choice: int, field: str, name: str | None, arguments: str | None) -> None:
        if name:
            self.call(choice, field, name)
        if arguments:
            self.add(choice, "tool_arguments", field, arguments)

    def tree(self, tree: Any, field: str) -> None:
        """The same from plain objects, for shapes that the typed decode refuses (content as a list of parts)."""
        choices = tree.get("choices") if isinstance(tree, dict) else None
        for position, choice in enumerate(choices if isinstance(choices, list) else ()):
            if not isinstance(choice, dict):
                continue
            index = choice["index"] if isinstance(choice.get("index"), int) else position
            reason = choice.get("finish_reason")
            if isinstance(reason, str):
                self.finish_reason = reason
            message = choice.get(field)
            for key, value in message.items() if isinstance(message, dict) else ():
                for part in paths.texts(value, paths.join("", key), "assistant", _KINDS.get(key, "message")):
                    self.add(index, part.kind, part.path, part.text)
                    if part.kind == "tool_arguments" and part.path.endswith(".name"):
                        field = "input" if part.path.endswith(".custom.name") else "arguments"
                        self.call(index, part.path.removesuffix("name") + field, part.text)

    def view(self, usage: Usage | None) -> AnswerView:
        place = "choices[{}].message"
        return AnswerView(usage, self.parts(place), self.finish_reason, self.truncated, self.calls(place))


class ChatTap:
    """Follows a stream of chunks: usage, finish reason, and the texts as the complete answer would have them."""

    __slots__ = ("_collector", "usage")

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self._collector = _Collector()

    def feed(self, frame: bytes) -> None:
        """Take in one complete SSE frame. An odd one is read as far as it goes; never raises."""
        data = data_of(frame)
        if data is None or data == b"[DONE]":
            return
        try:
            chunk = _chunk.decode(data)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            self._feed_oddly(data)
            return
        collector = self._collector
        for choice in chunk.choices or ():
            if choice.delta is not None:
                collector.message(choice.index, choice.delta)
            if choice.finish_reason:
                collector.finish_reason = choice.finish_reason
        usage = chunk.usage or (chunk.x_groq and chunk.x_groq.usage)
        if usage:
            self.usage = usage.usage()

    def _feed_oddly(self, data: bytes) -> None:
        try:
            tree = orjson.loads(data)
        except orjson.JSONDecodeError:
            return
        self._collector.tree(tree, "delta")
        self.usage = _usage_of(tree) or self.usage

    def answer(self) -> AnswerView:
        """The answer as far as it has come."""
        return self._collector.view(self.usage)


FORMAT = Format(view, read, ChatTap, meters=True, usage=usage, plain=plain)
