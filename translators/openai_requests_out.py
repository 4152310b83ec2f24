"""The canonical form to requests of OpenAI's Chat Completions, for OpenAI itself and for everything compatible.

Results of tools become messages of their own, in front of what else the user said; pictures among them follow in a
message of the user, since a tool's message takes only text. Which settings a target takes depends on the model
(reasoning models refuse sampling) and on the provider (`Provider.takes`); the rest is noted.

Reference: https://platform.openai.com/docs/api-reference/chat/create.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

import orjson

from gateway.errors import InvalidRequest
from translators.canonical import (
    Cache,
    ChatRequest,
    Choosing,
    Media,
    Message,
    OutputFormat,
    Part,
    Reasoning,
    RedactedThinking,
    Refusal,
    Role,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
)
from translators.notes import Notes
from translators.providers import Asked
from translators.tool_names import ToolNames

NAMES: Final = ToolNames(64, longest_id=40)
"""https://platform.openai.com/docs/api-reference/chat/create#chat-create-tools; a longer id of a call gives 400."""

MAX_USER_CHARS: Final = 64
MAX_STOPS: Final = 4

REASONING_MODEL: Final = re.compile(r"(?:^|/)(?:o\d|gpt-5(?!.*chat)|gpt-oss)")
"""OpenAI's models that think: they take `reasoning_effort`, and no sampling."""

_TAKES_BREAKPOINTS: Final = re.compile(r"^gpt-(?:5\.[6-9]|[6-9])")
"""OpenAI's models that take `prompt_cache_breakpoint`: https://developers.openai.com/api/docs/guides/prompt-caching"""

_SETTINGS: Final = frozenset(
    {"temperature", "top_p", "frequency_penalty", "presence_penalty", "seed", "n", "logprobs", "top_logprobs"}
    | {"logit_bias", "service_tier", "store", "metadata", "verbosity", "prompt_cache_key", "prediction", "stop"}
    | {"modalities", "audio", "web_search_options", "prompt_cache_retention", "prompt_cache_options", "moderation"}
)
NOT_WHEN_REASONING: Final = frozenset(
    {"temperature", "top_p", "frequency_penalty", "presence_penalty", "logprobs", "top_logprobs", "logit_bias"}
)

Entry = dict[str, Any]


def encode(request: ChatRequest, asked: Asked, notes: Notes) -> bytes:
    """The body for `POST /v1/chat/completions`. Raises InvalidRequest for what must not be left out."""
    reasons = REASONING_MODEL.search(asked.model) is not None
    body: Entry = {"model": asked.model, "messages": _messages(request.messages, asked, notes)}
    if request.tools:
        body["tools"] = [_tool(tool, notes) for tool in request.tools]
        _tool_choice(body, request)
    if request.output is not None:
        body["response_format"] = _output(request.output)
    if request.max_tokens is not None:
        limit = "max_completion_tokens" if "max_completion_tokens" in asked.provider.takes else "max_tokens"
        body[limit] = limited(request.max_tokens, asked, notes)
    if request.reasoning is not None:
        _reasoning(body, request.reasoning, reasons, asked, notes)
    _settings(body, request, reasons, asked, notes)
    if request.user:
        body["user"] = user_id(request.user)
    if request.stream:
        body["stream"] = True
        if "stream_options" not in asked.provider.refuses:
            body["stream_options"] = {"include_usage": True}
    return orjson.dumps(body)


# Agents ask for 32,000 tokens and more; these models answer 400 above their limit.
# https://platform.openai.com/docs/models
_LIMITS: Final = (
    (re.compile(r"^gpt-4o|^chatgpt-4o"), 16_384),
    (re.compile(r"^gpt-4\.1"), 32_768),
    (re.compile(r"^gpt-4-turbo|^gpt-4-\d|^gpt-3\.5"), 4096),
    (re.compile(r"^gpt-4$"), 8192),
)


def limited(wanted: int, asked: Asked, notes: Notes) -> int:
    """The bound on an answer that the model takes, in tokens."""
    limit = next((limit for name, limit in _LIMITS if name.search(asked.model)), wanted)
    if wanted > limit:
        notes.add("max_tokens", f"{wanted} is above this model's limit; sent as {limit}")
    return min(wanted, limit)


# --- messages --------------------------------------------------------------------------------------------------------


def _messages(messages: Sequence[Message], asked: Asked, notes: Notes) -> list[Entry]:
    marks = _Marks(_TAKES_BREAKPOINTS.search(asked.model) is not None, notes)
    encoded: list[Entry] = []
    for message in messages:
        if message.role is Role.SYSTEM:
            encoded += _system(message, marks)
        elif message.role is Role.ASSISTANT:
            encoded += _assistant(message, asked, marks, notes)
        else:
            encoded += _user(message, marks)
    if not encoded:
        raise InvalidRequest("No message has any content for the model.", param="messages")
    return encoded


class _Marks:
    """Cache markers: kept as OpenAI's breakpoints by the models that take them, noted otherwise."""

    def __init__(self, taken: bool, notes: Notes) -> None:
        self._taken = taken
        self._notes = notes

    def on(self, entry: Entry, cache: Cache | None) -> Entry:
        """A content part with its marker."""
        if cache is None:
            return entry
        if not self._taken:
            self.lost(cache)
            return entry
        return {**entry, "prompt_cache_breakpoint": {"mode": "explicit"}}

    def lost(self, cache: Cache | None) -> None:
        """A marker where none can stand."""
        if cache is not None:
            self._notes.add("cache_control", "this provider decides by itself what to cache")


def _system(message: Message, marks: _Marks) -> Iterator[Entry]:
    """One message of one text, since not every compatible server takes a list; unless a marker needs it."""
    parts = []
    for part in message.parts:
        if not isinstance(part, Text):
            raise InvalidRequest("A system message has only text.", param=message.path)
        parts.append(_content(part, marks))
    if any("prompt_cache_breakpoint" in part for part in parts):
        yield {"role": "system", "content": parts}
    elif parts:
        yield {"role": "system", "content": "\n\n".join(part["text"] for part in parts)}


def _user(message: Message, marks: _Marks) -> Iterator[Entry]:
    """Results of tools first, each a message; then what they showed and what the user said."""
    shown: list[Entry] = []
    said: list[Part] = []
    for part in message.parts:
        if isinstance(part, ToolResult):
            yield _tool_result(part, shown, marks)
        else:
            said.append(part)
    content = shown + [_content(part, marks) for part in said]
    if content:
        plain = content[0]["text"] if len(content) == 1 and content[0].keys() == {"type", "text"} else content
        yield {"role": "user", "content": plain} | ({"name": message.name} if message.name else {})


def _tool_result(result: ToolResult, shown: list[Entry], marks: _Marks) -> Entry:
    marks.lost(result.cache)
    texts = [part.text for part in result.content if isinstance(part, Text)]
    media = [part for part in result.content if isinstance(part, Media)]
    if media:
        texts.append("(see the next message)")
        shown.append({"type": "text", "text": f"Result of the tool call {result.call_id}:"})
        shown += [_content(part, marks) for part in media]
    content = "\n\n".join(texts)
    if result.is_error:
        content = f"Error: {content}" if content else "Error"
    return {"role": "tool", "tool_call_id": NAMES.short_id(result.call_id), "content": content}


def _assistant(message: Message, asked: Asked, marks: _Marks, notes: Notes) -> Iterator[Entry]:
    texts = [part.text for part in message.parts if isinstance(part, Text)]
    refusals = [part.text for part in message.parts if isinstance(part, Refusal)]
    calls = [_call(part) for part in message.parts if isinstance(part, ToolCall)]
    for part in message.parts:
        if isinstance(part, Text | ToolCall):
            marks.lost(part.cache)
    entry: Entry = {"role": "assistant", "content": "".join(texts) if texts else None}
    if refusals:
        entry["refusal"] = "".join(refusals)
    if calls:
        entry["tool_calls"] = calls
    _thinking(entry, message, asked, notes)
    if len(entry) > 2 or texts:
        yield entry


def _thinking(entry: Entry, message: Message, asked: Asked, notes: Notes) -> None:
    """Reasoning of earlier turns: some providers want it back where a tool was called, and nowhere else.

    https://api-docs.deepseek.com/guides/thinking_mode, https://platform.moonshot.ai/docs/guide/use-kimi-k2-thinking-model
    """
    thoughts = [part for part in message.parts if isinstance(part, Thinking | RedactedThinking)]
    readable = "".join(part.text for part in thoughts if isinstance(part, Thinking))
    if "reasoning_content" in asked.provider.takes:
        if readable and "tool_calls" in entry:
            entry["reasoning_content"] = readable
    elif thoughts:
        notes.add(message.path, f"its reasoning is not sent to {asked.provider.name}")


def _call(call: ToolCall) -> Entry:
    entry: Entry = {
        "id": NAMES.short_id(call.id),
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments or "{}"},
    }
    if call.signature is not None:
        entry["extra_content"] = {"google": {"thought_signature": call.signature}}
    return entry


def _content(part: Part, marks: _Marks) -> Entry:
    match part:
        case Text():
            return marks.on({"type": "text", "text": part.text}, part.cache)
        case Refusal(text):
            return {"type": "text", "text": text}
        case Media(kind="image"):
            return marks.on({"type": "image_url", "image_url": _image(part)}, part.cache)
        case Media(kind="audio"):
            sort = (part.media_type or "audio/wav").removeprefix("audio/")
            return {"type": "input_audio", "input_audio": {"data": part.data, "format": sort}}
        case Media():
            return marks.on(_document(part), part.cache)
    raise InvalidRequest("A message has a part that cannot be sent to this model.", param=part.path)


def _image(media: Media) -> Entry:
    if media.data is None and media.url is None:
        raise InvalidRequest("A file is known only to the provider that stores it; send its data.", param=media.path)
    image: Entry = {"url": media.url or f"data:{media.media_type};base64,{media.data}"}
    if media.detail is not None:
        image["detail"] = media.detail
    return image


def _document(media: Media) -> Entry:
    """Plain text as text, a PDF as a file."""
    if media.data is None:
        raise InvalidRequest("This model takes no file by its address; send its data.", param=media.path)
    if media.media_type is not None and media.media_type.startswith("text/"):
        text = base64.b64decode(media.data).decode("utf-8", "replace")
        return {"type": "text", "text": f"{media.name}:\n\n{text}" if media.name else text}
    name = media.name or "document.pdf"
    return {"type": "file", "file": {"filename": name, "file_data": f"data:{media.media_type};base64,{media.data}"}}


# --- tools and output ------------------------------------------------------------------------------------------------


def _tool(tool: Tool, notes: Notes) -> Entry:
    function: Entry = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    function["parameters"] = orjson.Fragment(tool.parameters or b'{"type":"object","properties":{}}')
    if tool.strict is not None:
        function["strict"] = tool.strict
    if tool.cache is not None:
        notes.add("cache_control", "this provider decides by itself what to cache")
    return {"type": "function", "function": function}


def _tool_choice(body: Entry, request: ChatRequest) -> None:
    choice = request.tool_choice
    if choice is not None:
        named = {"type": "function", "function": {"name": choice.name}}
        body["tool_choice"] = named if choice.mode is Choosing.NAMED else choice.mode.value
    if request.parallel_tool_calls is not None:
        body["parallel_tool_calls"] = request.parallel_tool_calls


def _output(output: OutputFormat) -> Entry:
    if output.schema is None:
        return {"type": "json_object"}
    schema: Entry = {"name": output.name or "answer", "schema": orjson.Fragment(output.schema)}
    if output.description is not None:
        schema["description"] = output.description
    if output.strict is not None:
        schema["strict"] = output.strict
    return {"type": "json_schema", "json_schema": schema}


# --- settings --------------------------------------------------------------------------------------------------------


_LOW_BUDGET: Final = 4096
_MEDIUM_BUDGET: Final = 16_384


def _reasoning(body: Entry, reasoning: Reasoning, reasons: bool, asked: Asked, notes: Notes) -> None:
    """A model that does not think is not asked to."""
    if not reasons and "reasoning_effort" not in asked.provider.takes:
        if not reasoning.off:
            notes.add("thinking", "this model is not known to think")
        return
    effort = effort_of(reasoning, asked.model, notes)
    if effort is not None:
        body["reasoning_effort"] = effort


def effort_of(reasoning: Reasoning, model: str, notes: Notes) -> str | None:
    """How hard the model shall think; a budget in tokens becomes an effort. None: as hard as it likes."""
    effort = reasoning.effort
    if effort is None and reasoning.budget is not None:
        few, some = reasoning.budget <= _LOW_BUDGET, reasoning.budget <= _MEDIUM_BUDGET
        effort = "low" if few else "medium" if some else "high"
        notes.add("thinking.budget_tokens", f"sent as reasoning_effort {effort}")
    if reasoning.off:
        effort = _least_effort(model)
        if effort != "none":
            notes.add("thinking", f"cannot be switched off for this model; sent as reasoning_effort {effort}")
    return effort


def _least_effort(model: str) -> str:
    """https://developers.openai.com/api/docs/guides/reasoning: `none` from GPT-5.1 on, `minimal` for GPT-5."""
    if re.search(r"gpt-5\.\d|gpt-[6-9]", model):
        return "none"
    return "minimal" if "gpt-5" in model else "low"


def _settings(body: Entry, request: ChatRequest, reasons: bool, asked: Asked, notes: Notes) -> None:
    for key, value in request.settings.items():
        if reasons and key in NOT_WHEN_REASONING:
            if value != 1:
                notes.add(key, "not supported by models that think")
        elif key == "stop":
            body["stop"] = value[:MAX_STOPS] if isinstance(value, list) else value
            if len(body["stop"]) != len(value):
                notes.add("stop_sequences", f"only the first {MAX_STOPS} were kept")
        elif key in _SETTINGS or key in asked.provider.takes:
            body[key] = value
        else:
            notes.add(key, f"not supported by {asked.provider.name}")


def user_id(user: str) -> str:
    """OpenAI takes 64 characters; a longer id is hashed, so that the same user stays the same."""
    return user if len(user) <= MAX_USER_CHARS else hashlib.sha256(user.encode()).hexdigest()
