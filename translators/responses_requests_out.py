"""The canonical form to requests of OpenAI's Responses API: how clients of any kind reach models that speak only that.

Nothing is stored at the provider unless the client asked for it, so the whole conversation goes with every request, and
the reasoning of a model that thinks comes back encrypted (`reasoning.encrypted_content`), to be sent again unread with
the next one. Items are sent without their ids: what is not stored cannot be referred to.

Reference: https://platform.openai.com/docs/api-reference/responses/create,
.../docs/guides/migrate-to-responses, .../docs/guides/reasoning#encrypted-reasoning-items.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from typing import Any, Final

import orjson

from gateway.errors import InvalidRequest
from translators.canonical import (
    RESPONSES_FORMAT,
    ChatRequest,
    Choosing,
    Media,
    Message,
    OutputFormat,
    Part,
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
from translators.openai_requests_out import NOT_WHEN_REASONING, REASONING_MODEL, effort_of, limited, user_id
from translators.providers import Asked
from translators.tool_names import ToolNames

NAMES: Final = ToolNames(64, longest_id=64)
"""https://platform.openai.com/docs/api-reference/responses/create; a longer `call_id` gives 400."""

LEAST_TOKENS: Final = 16
"""The API refuses a smaller `max_output_tokens`; see the reference of that field."""

_SETTINGS: Final = frozenset(
    {"temperature", "top_p", "top_logprobs", "service_tier", "store", "metadata", "prompt_cache_key"}
    | {"prompt_cache_retention", "truncation", "max_tool_calls"}
)

Entry = dict[str, Any]


def encode(request: ChatRequest, asked: Asked, notes: Notes) -> bytes:
    """The body for `POST /v1/responses`. Raises InvalidRequest for what must not be left out."""
    if request.settings.get("n", 1) != 1:
        raise InvalidRequest("The Responses API gives one answer for a request; `n` must be 1.", param="n")
    reasons = REASONING_MODEL.search(asked.model) is not None
    items = [item for message in request.messages for item in _items(message, asked, notes)]
    if not items:
        raise InvalidRequest("No message has any content for the model.", param="messages")
    body: Entry = {"model": asked.model, "input": items, "store": False}
    if request.tools:
        body["tools"] = [_tool(tool, notes) for tool in request.tools]
        _tool_choice(body, request)
    if request.output is not None:
        body["text"] = {"format": _output(request.output)}
    if request.max_tokens is not None:
        body["max_output_tokens"] = _limit(request.max_tokens, asked, notes)
    _reasoning(body, request, reasons, asked, notes)
    _settings(body, request, reasons, notes)
    if request.user:
        body["user"] = user_id(request.user)
    if request.stream:
        body["stream"] = True
    return orjson.dumps(body)


# --- input -----------------------------------------------------------------------------------------------------------


def _items(message: Message, asked: Asked, notes: Notes) -> Iterator[Entry]:
    """One message may be several items: thoughts, calls and results stand by themselves, in their order."""
    if message.name is not None:
        notes.add(f"{message.path}.name", "not supported by the Responses API")
    role, content = message.role, list[Entry]()
    for part in message.parts:
        if getattr(part, "cache", None) is not None:
            notes.add("cache_control", "this provider decides by itself what to cache")
        if not isinstance(part, ToolCall | ToolResult | Thinking | RedactedThinking):
            content.append(_content(part, role))
            continue
        if content and not isinstance(part, ToolResult):
            yield _message(role, content)
            content = []
        item = _item(part, asked, notes)
        if item is not None:
            yield item
    if content:
        yield _message(role, content)


def _message(role: Role, content: Sequence[Entry]) -> Entry:
    return {"type": "message", "role": role.value, "content": list(content)}


def _content(part: Part, role: Role) -> Entry:
    spoken = role is Role.ASSISTANT
    match part:
        case Text(text):
            return {"type": "output_text" if spoken else "input_text", "text": text}
        case Refusal(text):
            return {"type": "refusal", "refusal": text}
        case Media(kind="image") if not spoken:
            return _image(part)
        case Media(kind="document") if not spoken:
            return _file(part)
    raise InvalidRequest("The Responses API cannot be sent this part of a message.", param=getattr(part, "path", None))


def _image(media: Media) -> Entry:
    _refuse_id(media)
    url = media.url or f"data:{media.media_type};base64,{media.data}"
    return {"type": "input_image", "image_url": url, "detail": media.detail or "auto"}


def _file(media: Media) -> Entry:
    """Plain text as text, anything else as a file, by its address or its data."""
    _refuse_id(media)
    if media.url is not None:
        return {"type": "input_file", "file_url": media.url}
    if media.media_type is not None and media.media_type.startswith("text/"):
        text = base64.b64decode(media.data or "").decode("utf-8", "replace")
        return {"type": "input_text", "text": f"{media.name}:\n\n{text}" if media.name else text}
    data = f"data:{media.media_type};base64,{media.data}"
    return {"type": "input_file", "filename": media.name or "document.pdf", "file_data": data}


def _refuse_id(media: Media) -> None:
    if media.data is None and media.url is None:
        raise InvalidRequest(
            "A file is known only to the provider that stores it; send its data.", param=media.path or None
        )


def _item(part: ToolCall | ToolResult | Thinking | RedactedThinking, asked: Asked, notes: Notes) -> Entry | None:
    match part:
        case ToolCall():
            call_id = NAMES.short_id(part.id)
            return {"type": "function_call", "call_id": call_id, "name": part.name, "arguments": part.arguments or "{}"}
        case ToolResult():
            return {"type": "function_call_output", "call_id": NAMES.short_id(part.call_id), "output": _output_of(part)}
        case _ if part.format != RESPONSES_FORMAT:
            notes.add(part.path, f"reasoning of another format is not sent to {asked.provider.name}")
            return None
        case RedactedThinking(data):
            return {"type": "reasoning", "summary": [], "encrypted_content": data}
        case Thinking(text, signature):
            return {"type": "reasoning", "summary": [_summary(text)] if text else [], "encrypted_content": signature}


def _summary(text: str) -> Entry:
    return {"type": "summary_text", "text": text}


def _output_of(result: ToolResult) -> str | list[Entry]:
    """A text where it is nothing else, so that servers which know only that can read it."""
    content = [_content(part, Role.USER) for part in result.content]
    if all(isinstance(part, Text) for part in result.content):
        text = "\n\n".join(part["text"] for part in content)
        return (f"Error: {text}" if text else "Error") if result.is_error else text
    return [{"type": "input_text", "text": "Error:"}, *content] if result.is_error else content


# --- tools and the rest ----------------------------------------------------------------------------------------------


def _tool(tool: Tool, notes: Notes) -> Entry:
    """`strict` is always said: the Responses API takes true where it is not, chat takes false."""
    if tool.cache is not None:
        notes.add("cache_control", "this provider decides by itself what to cache")
    entry: Entry = {"type": "function", "name": tool.name}
    if tool.description:
        entry["description"] = tool.description
    entry["parameters"] = orjson.Fragment(tool.parameters or b'{"type":"object","properties":{}}')
    entry["strict"] = bool(tool.strict)
    return entry


def _tool_choice(body: Entry, request: ChatRequest) -> None:
    choice = request.tool_choice
    if choice is not None:
        named = choice.mode is Choosing.NAMED
        body["tool_choice"] = {"type": "function", "name": choice.name} if named else choice.mode.value
    if request.parallel_tool_calls is not None:
        body["parallel_tool_calls"] = request.parallel_tool_calls


def _output(output: OutputFormat) -> Entry:
    if output.schema is None:
        return {"type": "json_object"}
    shape: Entry = {"type": "json_schema", "name": output.name or "answer", "schema": orjson.Fragment(output.schema)}
    if output.description is not None:
        shape["description"] = output.description
    shape["strict"] = bool(output.strict)
    return shape


def _limit(wanted: int, asked: Asked, notes: Notes) -> int:
    limit = limited(wanted, asked, notes)
    if limit < LEAST_TOKENS:
        notes.add("max_tokens", f"the Responses API takes no less than {LEAST_TOKENS}; sent as that")
    return max(limit, LEAST_TOKENS)


def _reasoning(body: Entry, request: ChatRequest, reasons: bool, asked: Asked, notes: Notes) -> None:
    """A model that thinks gives its thoughts encrypted. Summaries are not asked for: OpenAI gives them only to verified
    organisations, and answers 400 to all others."""
    wanted = request.reasoning
    if wanted is not None and not reasons and "reasoning_effort" not in asked.provider.takes:
        if not wanted.off:
            notes.add("thinking", "this model is not known to think")
        return
    effort = effort_of(wanted, asked.model, notes) if wanted is not None else None
    if effort is not None:
        body["reasoning"] = {"effort": effort}
    if reasons or wanted is not None:
        body["include"] = ["reasoning.encrypted_content"]


def _settings(body: Entry, request: ChatRequest, reasons: bool, notes: Notes) -> None:
    for key, value in request.settings.items():
        if reasons and key in NOT_WHEN_REASONING:
            if value != 1:
                notes.add(key, "not supported by models that think")
        elif key == "logprobs":
            body["include"] = [*body.get("include", ()), "message.output_text.logprobs"]
        elif key == "verbosity":
            body["text"] = {**body.get("text", {}), "verbosity": value}
        elif key in _SETTINGS:
            body[key] = value
        else:
            notes.add("stop_sequences" if key == "stop" else key, "not supported by the Responses API")
