"""The canonical form to requests of Ollama's own chat API, which knows more of a local model than its `/v1`: thinking,
schemas as `format`, every sampler in `options`.

Reference: https://github.com/ollama/ollama/blob/main/docs/api.md#generate-a-chat-completion.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import orjson

from gateway.errors import InvalidRequest
from translators.canonical import (
    ChatRequest,
    Choosing,
    Media,
    Message,
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

NAMES: Final = ToolNames(256, ".:/ ")

_OPTIONS: Final = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "seed": "seed",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
}
_PASSED: Final = frozenset({"keep_alive", "logprobs", "top_logprobs"})

Entry = dict[str, Any]


def encode(request: ChatRequest, asked: Asked, notes: Notes) -> bytes:
    """The body for `POST /api/chat`. Raises InvalidRequest for what must not be sent otherwise than asked."""
    if request.settings.get("n", 1) != 1:
        raise InvalidRequest("Ollama gives one answer for a request; `n` must be 1.", param="n")
    names = {part.id: part.name for message in request.messages for part in message.parts if isinstance(part, ToolCall)}
    messages = [entry for message in request.messages for entry in _messages(message, names, notes)]
    if not messages:
        raise InvalidRequest("No message has any content for the model.", param="messages")
    body: Entry = {"model": asked.model, "messages": messages, "stream": request.stream}
    tools = _tools(request, notes)
    if tools:
        body["tools"] = tools
    if request.output is not None:
        schema = request.output.schema
        body["format"] = "json" if schema is None else orjson.Fragment(schema)
    if request.reasoning is not None:
        body["think"] = _think(request.reasoning, asked.model)
    options = _options(body, request, notes)
    if options:
        body["options"] = options
    if request.user:
        notes.add("user", "not supported by Ollama")
    return orjson.dumps(body)


def _messages(message: Message, names: dict[str, str], notes: Notes) -> Iterator[Entry]:
    """Results of tools are messages of their own, in front of what else the user said."""
    if message.name is not None:
        notes.add(f"{message.path}.name", "not supported by Ollama")
    for part in message.parts:
        if getattr(part, "cache", None) is not None:
            notes.add("cache_control", "Ollama decides by itself what to cache")
        if isinstance(part, ToolResult):
            yield _result(part, names)
    entry: Entry = {"role": message.role.value, "content": ""}
    entry["content"] = "".join(part.text for part in message.parts if isinstance(part, Text | Refusal))
    images = [_image(part) for part in _media(message)]
    if images:
        entry["images"] = images
    if message.role is Role.ASSISTANT:
        _spoken(entry, message, notes)
    if len(entry) > 2 or entry["content"]:
        yield entry


def _media(message: Message) -> Iterator[Media]:
    for part in message.parts:
        if isinstance(part, Media):
            yield part
        elif isinstance(part, ToolResult):
            yield from (item for item in part.content if isinstance(item, Media))


def _image(media: Media) -> str:
    if media.kind != "image" or media.data is None:
        raise InvalidRequest("Ollama takes images as data only.", param=media.path)
    return media.data


def _result(result: ToolResult, names: dict[str, str]) -> Entry:
    text = "\n\n".join(part.text for part in result.content if isinstance(part, Text))
    entry: Entry = {"role": "tool", "content": f"Error: {text}" if result.is_error else text}
    if (name := names.get(result.call_id) or result.name) is not None:
        entry["tool_name"] = name
    return entry


def _spoken(entry: Entry, message: Message, notes: Notes) -> None:
    calls = [_call(part, notes) for part in message.parts if isinstance(part, ToolCall)]
    if calls:
        entry["tool_calls"] = calls
    thoughts = [part for part in message.parts if isinstance(part, Thinking) and part.format is None]
    if thoughts:
        entry["thinking"] = "".join(part.text for part in thoughts)
    if any(isinstance(part, Thinking | RedactedThinking) and part.format is not None for part in message.parts):
        notes.add(message.path, "reasoning of another format was left out")


def _call(call: ToolCall, notes: Notes) -> Entry:
    try:
        value = orjson.loads(call.arguments or "{}")
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        notes.add(call.path, "arguments that are no JSON object were sent as {}")
        value = {}
    return {"function": {"name": call.name, "arguments": orjson.Fragment(call.arguments) if value else {}}}


def _tools(request: ChatRequest, notes: Notes) -> list[Entry]:
    """Ollama has no tool choice: without tools for `none`, and with nothing but the hope for the rest."""
    choice = request.tool_choice
    if choice is not None and choice.mode is Choosing.NONE:
        return []
    tools: Sequence[Tool] = request.tools
    if choice is not None and choice.mode is not Choosing.AUTO and tools:
        notes.add("tool_choice", "Ollama cannot be made to call a tool; sent as auto")
        if choice.mode is Choosing.NAMED:
            tools = [tool for tool in tools if tool.name == choice.name]
    if request.parallel_tool_calls is False:
        notes.add("parallel_tool_calls", "not supported by Ollama")
    return [_tool(tool) for tool in tools]


def _tool(tool: Tool) -> Entry:
    parameters = orjson.Fragment(tool.parameters or b'{"type":"object","properties":{}}')
    function: Entry = {"name": tool.name, "parameters": parameters}
    if tool.description:
        function["description"] = tool.description
    return {"type": "function", "function": function}


def _think(reasoning: Reasoning, model: str) -> bool | str:
    """gpt-oss takes a level, the others yes or no."""
    if "gpt-oss" in model and not reasoning.off:
        return {"minimal": "low", "xhigh": "high", "max": "high"}.get(
            reasoning.effort or "", reasoning.effort or "medium"
        )
    return not reasoning.off


def _options(body: Entry, request: ChatRequest, notes: Notes) -> Entry:
    options: Entry = {}
    if request.max_tokens is not None:
        options["num_predict"] = request.max_tokens
    for key, value in request.settings.items():
        if key in _OPTIONS:
            options[_OPTIONS[key]] = value
        elif key == "stop":
            options["stop"] = [value] if isinstance(value, str) else value
        elif key == "options" and isinstance(value, dict):
            options.update(value)
        elif key in _PASSED:
            body[key] = value
        else:
            notes.add(key, "not supported by Ollama")
    return options
