"""The canonical form to requests of Amazon Bedrock's Converse API.

One API for many families of models: what is common has a field, what is a family's own goes to
`additionalModelRequestFields` (thinking, `top_k`). Turns must alternate, text must not be blank, and a history with
tools needs tools: where the client sends none any more, it is told in words.

Reference: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from typing import Any, Final

import orjson

from gateway.errors import InvalidRequest
from translators import claude_models, claude_settings
from translators.canonical import (
    ANSWER_TOOL,
    CLAUDE_FORMAT,
    Cache,
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
from translators.providers import Asked
from translators.tool_names import ToolNames

NAMES: Final = ToolNames(64)
"""https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ToolSpecification.html"""

EMPTY: Final = "(empty)"
"""In place of text that would be blank, which Bedrock refuses."""

_CACHE_POINT: Final = {"cachePoint": {"type": "default"}}
_IMAGES: Final = {
    "image/png": "png",
    "image/jpeg": "jpeg",
    "image/jpg": "jpeg",
    "image/gif": "gif",
    "image/webp": "webp",
}
_DOCUMENTS: Final = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "text/html": "html",
    "text/markdown": "md",
    "text/plain": "txt",
}
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9 ()\[\]-]+")

Entry = dict[str, Any]


def encode(request: ChatRequest, asked: Asked, notes: Notes) -> bytes:
    """The body for `POST /model/{model}/converse`. Raises InvalidRequest for what must not be sent otherwise."""
    settings = dict(request.settings)
    if settings.pop("n", 1) != 1:
        raise InvalidRequest("Bedrock gives one answer for a request; `n` must be 1.", param="n")
    choice = request.tool_choice
    tools = list(request.tools)
    if choice is not None and choice.mode is Choosing.NONE and tools:
        notes.add("tool_choice", "Bedrock has no `none`; the tools were left out")
        tools = []
    body: Entry = {}
    _messages(body, request.messages, bool(tools), notes)
    if tools:
        body["toolConfig"] = {"tools": [entry for tool in tools for entry in _tool(tool, notes)]}
    own: Entry = {}
    config = _config(request, settings, own, body, asked, notes)
    if tools:
        _tool_choice(body, request, own.get("thinking", {}).get("type") == "enabled", notes)
    if request.output is not None:
        _output(body, request.output, asked, own, notes)
    if config:
        body["inferenceConfig"] = config
    if own:
        body["additionalModelRequestFields"] = own
    for key in settings:
        notes.add(key, "not supported by Bedrock")
    if request.user:
        notes.add("user", "not supported by Bedrock")
    return orjson.dumps(body)


# --- messages --------------------------------------------------------------------------------------------------------


def _messages(body: Entry, messages: Sequence[Message], tools: bool, notes: Notes) -> None:
    """System texts to `system`, all others to turns that alternate and begin with the user."""
    calls = {part.id: part for message in messages for part in message.parts if isinstance(part, ToolCall)}
    if calls and not tools:
        notes.add("messages", "calls of tools that are not offered any more were told in words")
    system: list[Entry] = []
    turns: list[Entry] = []
    for message in messages:
        if message.name is not None:
            notes.add(f"{message.path}.name", "not supported by Bedrock")
        if message.role is Role.SYSTEM:
            system += [block for part in message.parts for block in _blocks(part, notes)]
            continue
        parts = message.parts if tools else [_in_words(part, calls) for part in message.parts]
        blocks = [block for part in parts for block in _blocks(part, notes)]
        if turns and turns[-1]["role"] == message.role.value:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": message.role.value, "content": blocks})
    if not turns and system:
        notes.add("messages", "Bedrock needs a user message; the last system text was sent as one")
        turns.append({"role": "user", "content": [system.pop()]})
    if not turns:
        raise InvalidRequest("No message has any content for the model.", param="messages")
    for turn in turns:
        turn["content"] = _in_order(turn["content"])
    if turns[0]["role"] != "user":
        turns.insert(0, {"role": "user", "content": [{"text": EMPTY}]})
    if system:
        body["system"] = system
    body["messages"] = turns


_ORDER: Final = {"reasoningContent": 0, "toolResult": 0, "toolUse": 2}


def _in_order(blocks: list[Entry]) -> list[Entry]:
    """Reasoning first and calls last; results before what else the user said. A cache point stays behind its block."""
    groups: list[list[Entry]] = []
    for block in blocks:
        if "cachePoint" in block and groups:
            groups[-1].append(block)
        else:
            groups.append([block])
    groups.sort(key=lambda group: _ORDER.get(next(iter(group[0])), 1))
    return [block for group in groups for block in group]


def _in_words(part: Part, calls: dict[str, ToolCall]) -> Part:
    if isinstance(part, ToolCall):
        return Text(f"[I called the tool {part.name} with {part.arguments or '{}'}]", part.path)
    if isinstance(part, ToolResult):
        name = calls[part.call_id].name if part.call_id in calls else "unknown"
        text = " ".join(item.text for item in part.content if isinstance(item, Text))
        return Text(f"[The tool {name} answered: {text or EMPTY}]", part.path)
    return part


def _blocks(part: Part, notes: Notes) -> list[Entry]:
    """A part, and behind it its cache point."""
    block = _block(part, notes)
    if block is None:
        return []
    cache: Cache | None = getattr(part, "cache", None)
    return [block] if cache is None else [block, _CACHE_POINT]


def _block(part: Part, notes: Notes) -> Entry | None:
    match part:
        case Text(text) | Refusal(text):
            return {"text": text} if text.strip() else None
        case Media():
            return _media(part, notes)
        case ToolCall():
            return {"toolUse": {"toolUseId": NAMES.short_id(part.id), "name": part.name, "input": _input(part, notes)}}
        case ToolResult():
            return _result(part, notes)
        case Thinking() | RedactedThinking():
            return _thought(part, notes)


def _input(call: ToolCall, notes: Notes) -> Any:
    try:
        value = orjson.loads(call.arguments) if call.arguments.strip() else {}
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        notes.add(call.path, "arguments that are no JSON object were sent as {}")
        return {}
    return orjson.Fragment(call.arguments) if value else {}


def _result(result: ToolResult, notes: Notes) -> Entry:
    content = [found for part in result.content if (found := _block(part, notes)) is not None]
    block: Entry = {"toolUseId": NAMES.short_id(result.call_id), "content": content or [{"text": EMPTY}]}
    if result.is_error:
        block["status"] = "error"
    return {"toolResult": block}


def _thought(part: Thinking | RedactedThinking, notes: Notes) -> Entry | None:
    """Claude takes back only what it signed itself; the others sign nothing."""
    if part.format in (None, CLAUDE_FORMAT):
        if isinstance(part, RedactedThinking):
            return {"reasoningContent": {"redactedContent": part.data}}
        if part.signature is not None:
            return {"reasoningContent": {"reasoningText": {"text": part.text, "signature": part.signature}}}
    notes.add(part.path, "reasoning without its provider's signature was left out")
    return None


def _media(media: Media, notes: Notes) -> Entry:
    if media.data is None:
        raise InvalidRequest(f"Bedrock takes no {media.kind} by its address; send its data.", param=media.path)
    if media.detail not in (None, "auto"):
        notes.add(f"{media.path}.image_url.detail", "not supported by Bedrock")
    formats = {"image": _IMAGES, "document": _DOCUMENTS}.get(media.kind, {})
    format = formats.get(media.media_type or "")
    if format is None:
        raise InvalidRequest(f"Bedrock takes no {media.kind} of type {media.media_type}.", param=media.path)
    block: Entry = {"format": format, "source": {"bytes": media.data}}
    if media.kind == "document":
        block["name"] = _document_name(media)
    return {media.kind: block}


def _document_name(media: Media) -> str:
    """Only letters, digits, single spaces, hyphens and brackets; the same name for the same file."""
    stem = (media.name or "document").rpartition(".")[0] or media.name or "document"
    name = " ".join(_NOT_IN_NAMES.sub("-", stem).split())[:100]
    return name or "document-" + base64.b32encode(stem.encode()).decode()[:12]


# --- tools and output ------------------------------------------------------------------------------------------------


def _tool(tool: Tool, notes: Notes) -> list[Entry]:
    if tool.strict:
        notes.add(f"{tool.path}.function.strict", "not supported by Bedrock")
    schema = orjson.Fragment(tool.parameters or b'{"type":"object","properties":{}}')
    spec: Entry = {"name": tool.name, "inputSchema": {"json": schema}}
    if tool.description:
        spec["description"] = tool.description
    return [{"toolSpec": spec}] if tool.cache is None else [{"toolSpec": spec}, _CACHE_POINT]


def _tool_choice(body: Entry, request: ChatRequest, budgeted: bool, notes: Notes) -> None:
    choice = request.tool_choice
    if request.parallel_tool_calls is False:
        notes.add("parallel_tool_calls", "not supported by Bedrock")
    if choice is None:
        return
    if choice.mode is Choosing.AUTO or budgeted:
        if choice.mode is not Choosing.AUTO:
            notes.add("tool_choice", "a tool cannot be forced with thinking; sent as auto")
        body["toolConfig"]["toolChoice"] = {"auto": {}}
    elif choice.mode is Choosing.REQUIRED:
        body["toolConfig"]["toolChoice"] = {"any": {}}
    else:
        body["toolConfig"]["toolChoice"] = {"tool": {"name": choice.name}}


def _output(body: Entry, output: OutputFormat, asked: Asked, own: Entry, notes: Notes) -> None:
    """Structured output for the models that have it; else a hidden tool whose input is the answer."""
    schema = orjson.loads(output.schema) if output.schema is not None else None
    claude = claude_models.traits(asked.model) if "claude" in asked.model else None
    if schema is not None and claude is not None and claude.structured and claude_settings.is_native(schema):
        shape: Entry = {"name": output.name or "answer", "schema": (output.schema or b"{}").decode()}
        if output.description:
            shape["description"] = output.description
        body["outputConfig"] = {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": shape}}}
        return
    what = output.description or output.name or "a JSON object"
    spec = {
        "name": ANSWER_TOOL,
        "description": f"Give the answer: {what}.",
        "inputSchema": {"json": schema or {"type": "object"}},
    }
    tools = body.setdefault("toolConfig", {"tools": []})
    tools["tools"].append({"toolSpec": spec})
    forced = claude is None or (claude.forced_tools and own.get("thinking", {}).get("type") != "enabled")
    if not forced:
        body.setdefault("system", []).append({"text": f"Answer by calling the tool {ANSWER_TOOL}."})
        notes.add("response_format", "asked for in words; this model cannot be held to it")
    elif len(tools["tools"]) == 1:
        tools["toolChoice"] = {"tool": {"name": ANSWER_TOOL}}
    elif "tool" not in tools.get("toolChoice", {}):
        tools["toolChoice"] = {"any": {}}


# --- settings --------------------------------------------------------------------------------------------------------


def _config(request: ChatRequest, settings: Entry, own: Entry, body: Entry, asked: Asked, notes: Notes) -> Entry:
    """`inferenceConfig`; what is the model's own goes to `own`."""
    config: Entry = {}
    if request.max_tokens is not None:
        config["maxTokens"] = request.max_tokens
    if "claude" in asked.model:
        _claude(config, request, settings, own, body, asked, notes)
    else:
        _others(request, settings, own, asked, notes)
    for key, name in (("temperature", "temperature"), ("top_p", "topP")):
        if key in settings:
            config[name] = settings.pop(key)
    if "stop" in settings:
        stop = settings.pop("stop")
        words = [word for word in ([stop] if isinstance(stop, str) else stop) if word.strip()]
        if words:
            config["stopSequences"] = words
    return config


def _claude(
    config: Entry, request: ChatRequest, settings: Entry, own: Entry, body: Entry, asked: Asked, notes: Notes
) -> None:
    traits = claude_models.traits(asked.model)
    if request.reasoning is not None:
        limit = request.max_tokens or min(claude_settings.DEFAULT_MAX_TOKENS, traits.max_output)
        lost = _lost_its_thinking(body["messages"])
        found = claude_settings.thinking(request.reasoning, traits, limit, request.max_tokens, lost, notes)
        if found.config is not None:
            own["thinking"] = found.config
            config["maxTokens"] = found.max_tokens
        if found.effort is not None:
            own["output_config"] = {"effort": found.effort}
    kept = claude_settings.sampling(settings, traits, own.get("thinking", {}).get("type") == "enabled", notes)
    if "top_k" in kept:
        own["top_k"] = kept.pop("top_k")
    settings |= kept


def _lost_its_thinking(turns: list[Entry]) -> bool:
    """The conversation goes on after a call, whose turn would have to begin with reasoning but does not."""
    turn = next((turn for turn in reversed(turns) if turn["role"] == "assistant"), None)
    if turn is None or not any("toolUse" in block for block in turn["content"]):
        return False
    return "reasoningContent" not in turn["content"][0]


def _others(request: ChatRequest, settings: Entry, own: Entry, asked: Asked, notes: Notes) -> None:
    """Nova and gpt-oss think, each in its own words; the others are not asked to."""
    reasoning = request.reasoning
    if reasoning is not None:
        effort = reasoning.effort or "medium"
        if "nova-2" in asked.model:
            effort = {"minimal": "low", "xhigh": "high", "max": "high"}.get(effort, effort)
            on = {"type": "enabled", "maxReasoningEffort": effort}
            own["reasoningConfig"] = {"type": "disabled"} if reasoning.off else on
        elif "gpt-oss" in asked.model and not reasoning.off:
            own["reasoning_effort"] = effort
        elif not reasoning.off:
            notes.add("reasoning_effort", "this model is not known to think")
    if "top_k" in settings:
        top_k = settings.pop("top_k")
        own.update({"inferenceConfig": {"topK": top_k}} if "nova" in asked.model else {"top_k": top_k})
