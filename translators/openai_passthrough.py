"""OpenAI operations that are passed on as they are: completions, responses, moderations.

Of a request are read `model`, `stream` and the texts: all strings that are not a known setting, so that an extension
cannot carry text past a policy. Of an answer: usage, and the texts of completions and responses. Prompts given as lists
of token ids carry no text that could be read. Audio and images are in `openai_media`.

Reference: https://platform.openai.com/docs/api-reference.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, Final

import msgspec
import orjson

from gateway.sse import data_of
from gateway.types import TextPart, Usage
from translators import paths, strict
from translators.collected import Collected
from translators.dialect import AnswerView, Called
from translators.identity import Format


class _Head(msgspec.Struct, gc=False):
    model: str = ""
    stream: bool | None = None
    stream_options: dict[str, Any] | msgspec.UnsetType | None = msgspec.UNSET
    max_tokens: int | None = None
    max_output_tokens: int | None = None


_HEAD: Final = msgspec.json.Decoder(_Head)

# fmt: off
_SETTINGS = frozenset({
    "background", "best_of", "conversation", "dimensions", "echo", "encoding_format", "include", "logprobs",
    "max_output_tokens", "max_tokens", "metadata", "model", "n", "previous_response_id", "prompt_cache_key", "quality",
    "reasoning", "response_format", "safety_identifier", "seed", "service_tier", "size", "store", "stream",
    "stream_options", "style", "temperature", "tool_choice", "top_p", "truncation", "user",
})
# fmt: on
NOT_REQUEST_TEXT = paths.NOT_TEXT | {
    "call_id",
    "encrypted_content",
    "file_data",
    "file_id",
    "image_url",
    "file_url",
    "result",
}  # fmt: skip
_OPAQUE = frozenset({"encrypted_content", "file_data", "image_url", "data", "result", "b64_json"})


class SimpleView:
    """A request whose texts are all strings that are not a known setting."""

    __slots__ = ("_body", "_texts", "has_stream_options", "include_usage", "max_output_tokens", "model", "stream")

    def __init__(self, body: bytes, head: _Head) -> None:
        self.model = head.model
        self.stream = head.stream is True
        options = head.stream_options
        self.has_stream_options = options is not msgspec.UNSET
        self.include_usage = isinstance(options, dict) and options.get("include_usage") is True
        self.max_output_tokens = head.max_tokens if head.max_output_tokens is None else head.max_output_tokens
        self._body = body
        self._texts: list[TextPart] | None = None

    def texts(self) -> list[TextPart]:
        """Every text that reaches the model: instructions and tools first, then prompt and input."""
        if self._texts is None:
            self._texts = request_texts(orjson.loads(self._body))
        return self._texts


def request_texts(tree: dict[str, Any]) -> list[TextPart]:
    """The texts of a request, in the order in which a model reads them."""
    return [part for key in _reading_order(tree) for part in _field_texts(key, tree[key])]


def _reading_order(tree: dict[str, Any]) -> list[str]:
    keys = [key for key in tree if key not in _SETTINGS]
    return sorted(keys, key=lambda key: (key in ("input", "prompt", "suffix"), key in ("input", "suffix")))


_FIELD_KINDS = {
    "tools": ("system", "tool_definition"),
    "instructions": ("system", "instructions"),
    "text": ("system", "instructions"),
}
_ITEM_KINDS = {
    "function_call": ("assistant", "tool_arguments"),
    "custom_tool_call": ("assistant", "tool_arguments"),
    "function_call_output": ("tool", "tool_result"),
    "custom_tool_call_output": ("tool", "tool_result"),
    "reasoning": ("assistant", "reasoning"),
}


def _field_texts(key: str, value: Any) -> list[TextPart]:
    path = paths.join("", key)
    role, kind = _FIELD_KINDS.get(key, ("user", "input"))
    if key != "input" or not isinstance(value, list):
        return list(paths.texts(value, path, role, kind, NOT_REQUEST_TEXT))
    found: list[TextPart] = []
    for index, item in enumerate(value):
        role, kind = item_kind(item)
        found += paths.texts(readable(item), f"{path}[{index}]", role, kind, NOT_REQUEST_TEXT)
    return found


def item_kind(item: Any) -> tuple[str, str]:
    """Who speaks in an item of a Responses input; a plain string is an input (embeddings, moderations)."""
    if not isinstance(item, dict):
        return "user", "input"
    role, kind = _ITEM_KINDS.get(str(item.get("type")), ("user", "message"))
    named = item.get("role")
    return (named if isinstance(named, str) else role), kind


def readable(value: Any, opaque: Collection[str] = ()) -> Any:
    """Without what is bytes in disguise: base64 and encrypted strings. `opaque`: further keys of such."""
    if isinstance(value, dict):
        return {
            key: None if _is_opaque(key, item) or (key in opaque and isinstance(item, str)) else readable(item, opaque)
            for key, item in value.items()
        }
    return [readable(item, opaque) for item in value] if isinstance(value, list) else value


def _is_opaque(key: str, value: Any) -> bool:
    return key in _OPAQUE and isinstance(value, str)


def view(body: bytes) -> SimpleView:
    """Read a request body. Raises InvalidJSON or InvalidRequest."""
    head = strict.decode(_HEAD, body)
    strict.check_model(body)
    return SimpleView(body, head)


# --- answers ---------------------------------------------------------------------------------------------------------


def usage_of(value: Any) -> Usage | None:
    """Usage as OpenAI's operations write it: `prompt_tokens` and `completion_tokens`, in responses `input_tokens` …"""
    if not isinstance(value, dict):
        return None
    prompt = _count(value, "input_tokens") or _count(value, "prompt_tokens")
    completion = _count(value, "output_tokens") or _count(value, "completion_tokens")
    cached = _first(value, "input_tokens_details", "prompt_tokens_details", "input_token_details")
    reasoning = _first(value, "output_tokens_details", "completion_tokens_details", "output_token_details")
    return Usage(prompt, completion, _count(cached, "cached_tokens"), _count(reasoning, "reasoning_tokens"))


def _first(value: dict[str, Any], *keys: str) -> Any:
    """The first that is there; the last of each line is the Realtime API's spelling."""
    return next((value[key] for key in keys if value.get(key)), None)


def _count(value: Any, key: str) -> int:
    count = value.get(key) if isinstance(value, dict) else None
    return count if isinstance(count, int) else 0


def read(body: bytes) -> AnswerView:
    """Usage and texts of a complete answer; an odd one gives as much as can be read."""
    tree = _tree(body)
    if tree is None:
        return AnswerView(None)
    texts = [*_choice_texts(tree.get("choices")), *_output_texts(tree.get("output"))]
    return AnswerView(usage_of(tree.get("usage")), texts, _finish_reason(tree), calls=[*_calls(tree.get("output"))])


def _calls(output: Any) -> Iterator[Called]:
    """The calls of a response, by the fields that hold their arguments."""
    for index, item in enumerate(output if isinstance(output, list) else ()):
        field = _ARGUMENTS.get(str(item.get("type"))) if isinstance(item, dict) else None
        if field is not None and isinstance(item.get("name"), str):
            arguments = item.get(field)
            yield Called(item["name"], arguments if isinstance(arguments, str) else "", f"output[{index}].{field}")


_ARGUMENTS: Final = {"function_call": "arguments", "custom_tool_call": "input"}


def _tree(body: bytes) -> dict[str, Any] | None:
    try:
        tree = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return tree if isinstance(tree, dict) else None


def _finish_reason(tree: dict[str, Any]) -> str | None:
    choices = tree.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else tree
    reason = first.get("finish_reason" if first is not tree else "status") if isinstance(first, dict) else None
    return reason if isinstance(reason, str) else None


def _choice_texts(choices: Any) -> Iterator[TextPart]:
    for index, choice in enumerate(choices if isinstance(choices, list) else ()):
        if isinstance(choice, dict):
            yield from paths.texts(choice.get("text"), f"choices[{index}].text", "assistant", "message")


_ANSWER_KINDS = {"reasoning": "reasoning", "function_call": "tool_arguments", "custom_tool_call": "tool_arguments"}
_ANSWER_SKIP = NOT_REQUEST_TEXT | {"status", "name", "phase"}


def _output_texts(output: Any) -> Iterator[TextPart]:
    for index, item in enumerate(output if isinstance(output, list) else ()):
        kind = _ANSWER_KINDS.get(str(item.get("type")), "message") if isinstance(item, dict) else "message"
        yield from paths.texts(readable(item), f"output[{index}]", "assistant", kind, _ANSWER_SKIP)


class CompletionsTap:
    """Follows a stream of completions chunks."""

    __slots__ = ("_finish_reason", "_texts", "usage")

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self._texts = Collected()
        self._finish_reason: str | None = None

    def feed(self, frame: bytes) -> None:
        """Take in one complete SSE frame; never raises."""
        tree = _tree(data_of(frame) or b"")
        if tree is None:
            return
        self.usage = usage_of(tree.get("usage")) or self.usage
        self._finish_reason = _finish_reason(tree) or self._finish_reason
        choices = tree.get("choices")
        for position, choice in enumerate(choices if isinstance(choices, list) else ()):
            text = choice.get("text") if isinstance(choice, dict) else None
            if isinstance(text, str):
                index = choice.get("index")
                self._texts.add(index if isinstance(index, int) else position, "message", "text", text)

    def answer(self) -> AnswerView:
        """The answer as far as it has come."""
        return AnswerView(self.usage, self._texts.parts("choices[{}]"), self._finish_reason, self._texts.truncated)


_ABSENT: Final = msgspec.Raw(b"null")


class _Event(msgspec.Struct, gc=False):
    type: str = ""
    output_index: int = 0
    content_index: int = 0
    delta: msgspec.Raw = _ABSENT
    response: msgspec.Raw = _ABSENT


_EVENT: Final = msgspec.json.Decoder(_Event)
_DELTAS: Final = {
    "response.output_text.delta": ("message", "content[{}].text"),
    "response.refusal.delta": ("refusal", "content[{}].refusal"),
    "response.reasoning_text.delta": ("reasoning", "content[{}].text"),
    "response.reasoning_summary_text.delta": ("reasoning", "summary[0].text"),
    "response.function_call_arguments.delta": ("tool_arguments", "arguments"),
    "response.custom_tool_call_input.delta": ("tool_arguments", "input"),
    "response.mcp_call_arguments.delta": ("tool_arguments", "arguments"),
}
_ENDS: Final = frozenset({"response.completed", "response.incomplete", "response.failed"})


class ResponsesTap:
    """Follows the events of a response: its texts as they come, at its end the whole that the last event repeats."""

    __slots__ = ("_texts", "_whole", "usage")

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self._texts = Collected()
        self._whole: AnswerView | None = None

    def feed(self, frame: bytes) -> None:
        """Take in one complete SSE frame; never raises."""
        try:
            event = _EVENT.decode(data_of(frame) or b"")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return
        known = _DELTAS.get(event.type)
        if known is not None:
            delta = orjson.loads(bytes(event.delta))
            kind, field = known
            if isinstance(delta, str):
                self._texts.add(event.output_index, kind, field.format(event.content_index), delta)
        elif event.type in _ENDS:
            self._whole = read(bytes(event.response))
            self.usage = self._whole.usage

    def answer(self) -> AnswerView:
        """The answer as far as it has come."""
        if self._whole is not None:
            return self._whole
        return AnswerView(self.usage, self._texts.parts("output[{}]"), None, self._texts.truncated)


COMPLETIONS = Format(view, read, CompletionsTap, meters=True)
RESPONSES = Format(view, read, ResponsesTap)
PASSTHROUGH = Format(view, read, CompletionsTap)
