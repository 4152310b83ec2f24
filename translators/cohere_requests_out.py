"""The canonical form to requests of Cohere's Chat API, version 2.

It is close to OpenAI's of the days before; its own are the plan that a model makes before it calls a tool, tool choice
in capitals and without names, and `p` and `k` for sampling.

Reference: https://docs.cohere.com/reference/chat.
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
    OutputFormat,
    Part,
    Reasoning,
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

NAMES: Final = ToolNames(64)

_BUDGETS: Final = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 24_576, "xhigh": 31_000, "max": 31_000}
_SETTINGS: Final = {
    "temperature": "temperature",
    "top_p": "p",
    "top_k": "k",
    "seed": "seed",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
}

Entry = dict[str, Any]


def encode(request: ChatRequest, asked: Asked, notes: Notes) -> bytes:
    """The body for `POST /v2/chat`. Raises InvalidRequest for what must not be sent otherwise than asked."""
    if request.settings.get("n", 1) != 1:
        raise InvalidRequest("Cohere gives one answer for a request; `n` must be 1.", param="n")
    body: Entry = {"model": asked.model, "messages": list(_messages(request.messages, notes))}
    if not body["messages"]:
        raise InvalidRequest("No message has any content for the model.", param="messages")
    if request.tools:
        _tools(body, request, notes)
    if request.output is not None:
        body["response_format"] = _output(request.output)
    if request.max_tokens is not None:
        body["max_tokens"] = request.max_tokens
    if request.reasoning is not None:
        body["thinking"] = _thinking(request.reasoning)
    _settings(body, request, notes)
    body["stream"] = request.stream
    return orjson.dumps(body)


# --- messages --------------------------------------------------------------------------------------------------------


def _messages(messages: Sequence[Message], notes: Notes) -> Iterator[Entry]:
    for message in messages:
        if message.name is not None:
            notes.add(f"{message.path}.name", "not supported by Cohere")
        for part in message.parts:
            if getattr(part, "cache", None) is not None:
                notes.add("cache_control", "Cohere decides by itself what to cache")
        if message.role is Role.ASSISTANT:
            yield from _assistant(message, notes)
        else:
            yield from _turn(message, notes)


def _turn(message: Message, notes: Notes) -> Iterator[Entry]:
    """What the system or the user said, behind the results of tools, which are messages of their own."""
    said: list[Entry] = []
    for part in message.parts:
        if isinstance(part, ToolResult):
            yield _result(part, said, notes)
        else:
            said.append(_content(part, notes))
    if said:
        plain = said[0]["text"] if len(said) == 1 and said[0]["type"] == "text" else said
        yield {"role": message.role.value, "content": plain}


def _result(result: ToolResult, said: list[Entry], notes: Notes) -> Entry:
    text = "\n\n".join(part.text for part in result.content if isinstance(part, Text))
    said += [_content(part, notes) for part in result.content if isinstance(part, Media)]
    content = f"Error: {text}" if result.is_error else text
    return {"role": "tool", "tool_call_id": result.call_id, "content": content or "(empty)"}


def _assistant(message: Message, notes: Notes) -> Iterator[Entry]:
    """Text beside calls is the plan that led to them."""
    text = "".join(part.text for part in message.parts if isinstance(part, Text | Refusal))
    calls = [_call(part) for part in message.parts if isinstance(part, ToolCall)]
    thoughts = [part for part in message.parts if isinstance(part, Thinking) and part.format is None]
    plan = "".join(part.text for part in thoughts)
    if any(isinstance(part, Thinking) and part.format is not None for part in message.parts):
        notes.add(message.path, "reasoning of another format was left out")
    entry: Entry = {"role": "assistant"}
    if calls:
        entry["tool_calls"] = calls
        entry["tool_plan"] = text or plan
    elif text:
        entry["content"] = text
    if len(entry) > 1:
        yield entry


def _call(call: ToolCall) -> Entry:
    function = {"name": call.name, "arguments": call.arguments or "{}"}
    return {"id": call.id, "type": "function", "function": function}


def _content(part: Part, notes: Notes) -> Entry:
    match part:
        case Text(text) | Refusal(text):
            return {"type": "text", "text": text}
        case Media(kind="image") if part.url is not None or part.data is not None:
            image: Entry = {"url": part.url or f"data:{part.media_type};base64,{part.data}"}
            if part.detail is not None:
                image["detail"] = part.detail
            return {"type": "image_url", "image_url": image}
    raise InvalidRequest("Cohere takes text and images only.", param=part.path)


# --- tools and the rest ----------------------------------------------------------------------------------------------


def _tools(body: Entry, request: ChatRequest, notes: Notes) -> None:
    choice = request.tool_choice
    tools = request.tools
    if choice is not None and choice.mode is Choosing.NAMED:
        tools = [tool for tool in tools if tool.name == choice.name]
        notes.add("tool_choice", "Cohere cannot be told which tool to call; the others were left out")
    body["tools"] = [_tool(tool) for tool in tools]
    if any(tool.strict for tool in tools):
        body["strict_tools"] = True
    if choice is not None and choice.mode is not Choosing.AUTO:
        body["tool_choice"] = "NONE" if choice.mode is Choosing.NONE else "REQUIRED"
    if request.parallel_tool_calls is False:
        notes.add("parallel_tool_calls", "not supported by Cohere")


def _tool(tool: Tool) -> Entry:
    parameters = tool.parameters or b'{"type":"object","properties":{}}'
    function: Entry = {"name": tool.name, "parameters": orjson.Fragment(parameters)}
    if tool.description:
        function["description"] = tool.description
    return {"type": "function", "function": function}


def _output(output: OutputFormat) -> Entry:
    form: Entry = {"type": "json_object"}
    if output.schema is not None:
        form["json_schema"] = orjson.Fragment(output.schema)
    return form


def _thinking(reasoning: Reasoning) -> Entry:
    if reasoning.off:
        return {"type": "disabled"}
    budget = reasoning.budget if reasoning.budget is not None else _BUDGETS.get(reasoning.effort or "")
    return {"type": "enabled"} | ({"token_budget": budget} if budget is not None else {})


def _settings(body: Entry, request: ChatRequest, notes: Notes) -> None:
    for key, value in request.settings.items():
        if key in _SETTINGS:
            body[_SETTINGS[key]] = value
        elif key == "stop":
            body["stop_sequences"] = [value] if isinstance(value, str) else value
        else:
            notes.add(key, "not supported by Cohere")
    if request.user:
        notes.add("user", "not supported by Cohere")
