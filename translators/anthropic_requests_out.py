"""The canonical form to requests of Anthropic's Messages API.

What Claude's API is strict about is settled here: turns that alternate, results of tools before anything else in a
turn, no blank text, thinking before tool calls, a limit on tokens, sampling and thinking as the model at hand accepts
them (`claude_models`). What it cannot express is noted, or refused where it would change what was asked.

Reference: https://platform.claude.com/docs/en/api/messages.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Final

import orjson

from gateway.errors import InvalidRequest
from translators import claude_models, claude_settings
from translators.canonical import (
    ANSWER_TOOL,
    CLAUDE_FORMAT,
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
from translators.claude_models import Claude
from translators.claude_settings import closed_schema, is_native
from translators.notes import Notes
from translators.providers import Asked
from translators.tool_names import ToolNames

MAX_CACHE_MARKERS: Final = 4

NAMES: Final = ToolNames(128)
"""https://platform.claude.com/docs/en/agents-and-tools/tool-use/define-tools"""

Block = dict[str, Any]


def encode(request: ChatRequest, asked: Asked, notes: Notes) -> bytes:
    """The body for `POST /v1/messages`. Raises InvalidRequest for what must not be sent otherwise than asked."""
    traits = claude_models.traits(asked.model)
    settings = dict(request.settings)
    if settings.pop("n", 1) != 1:
        raise InvalidRequest("Claude gives one answer for a request; `n` must be 1.", param="n")
    body: dict[str, Any] = {"model": asked.model, "max_tokens": _max_tokens(request, traits)}
    _messages(body, request.messages, notes)
    tools = [_tool(tool, traits, notes) for tool in request.tools]
    if tools:
        body["tools"] = tools
    _thinking(body, request, traits, notes)
    _tool_choice(body, request, traits, notes)
    if request.output is not None:
        _output(body, request.output, traits, notes)
    budgeted = body.get("thinking", {}).get("type") == "enabled"
    body |= claude_settings.sampling(settings, traits, budgeted, notes)
    _others(body, request, settings, notes)
    if request.stream:
        body["stream"] = True
    _limit_cache_markers(body, notes)
    return orjson.dumps(body)


def _max_tokens(request: ChatRequest, traits: Claude) -> int:
    if request.max_tokens is not None:
        return request.max_tokens
    return min(claude_settings.DEFAULT_MAX_TOKENS, traits.max_output)


# --- messages --------------------------------------------------------------------------------------------------------


def _messages(body: dict[str, Any], messages: Sequence[Message], notes: Notes) -> None:
    """System texts to `system`, all others to turns that alternate."""
    system: list[Block] = []
    turns: list[tuple[str, list[Block]]] = []
    for message in messages:
        if message.name is not None:
            notes.add(f"{message.path}.name", "not supported by Claude")
        if message.role is Role.SYSTEM:
            system += _blocks(message.parts, message.role, notes)
            continue
        blocks = _blocks(message.parts, message.role, notes)
        if turns and turns[-1][0] == message.role.value:
            turns[-1][1].extend(blocks)
        elif blocks:
            turns.append((message.role.value, blocks))
    if not turns and system:
        # OpenAI takes a lone system prompt; Claude wants somebody to speak.
        notes.add("messages", "Claude needs a user message; the last system text was sent as one")
        turns.append(("user", [system.pop()]))
    if not turns:
        raise InvalidRequest("No message has any content for the model.", param="messages")
    if turns[-1][0] == "assistant":
        _trim_prefill(turns[-1][1])
    if system:
        body["system"] = system
    body["messages"] = [{"role": role, "content": _in_order(role, blocks)} for role, blocks in turns]


_ORDER: Final = {
    "user": {"tool_result": 0},
    "assistant": {"thinking": 0, "redacted_thinking": 0, "tool_use": 2},
}


def _in_order(role: str, blocks: list[Block]) -> list[Block]:
    """Results of tools come first in a user's turn; thinking first and calls last in an assistant's."""
    return sorted(blocks, key=lambda block: _ORDER[role].get(block["type"], 1))


def _trim_prefill(blocks: list[Block]) -> None:
    """A last turn of the assistant is continued; it must not end in white space."""
    if blocks[-1]["type"] == "text":
        blocks[-1]["text"] = blocks[-1]["text"].rstrip()


def _blocks(parts: Sequence[Part], role: Role, notes: Notes) -> list[Block]:
    return [block for part in parts if (block := _block(part, role, notes)) is not None]


def _block(part: Part, role: Role, notes: Notes) -> Block | None:
    match part:
        case Text(text, _, cache):
            return _with_cache({"type": "text", "text": text}, cache) if text.strip() else None
        case Media():
            if role is not Role.USER:
                raise InvalidRequest(f"Claude takes no {part.kind} in a {role.value} message.", param=part.path)
            return _media(part, notes)
        case ToolResult():
            return _tool_result(part, notes)
        case ToolCall(call_id, name, arguments, path, _, cache):
            used = NAMES.short_id(call_id)
            call = {"type": "tool_use", "id": used, "name": name, "input": _input(arguments, path, notes)}
            return _with_cache(call, cache)
        case Thinking() | RedactedThinking():
            return _thought(part, notes)
        case Refusal(text):
            return {"type": "text", "text": text} if text.strip() else None


def _thought(part: Thinking | RedactedThinking, notes: Notes) -> Block | None:
    """Claude takes back only what it signed itself."""
    if part.format in (None, CLAUDE_FORMAT):
        if isinstance(part, RedactedThinking):
            return {"type": "redacted_thinking", "data": part.data}
        if part.signature is not None:
            return {"type": "thinking", "thinking": part.text, "signature": part.signature}
    notes.add(part.path, "reasoning without Claude's signature was left out")
    return None


def _with_cache(block: Block, cache: Any) -> Block:
    if cache is not None:
        block["cache_control"] = cache
    return block


def _input(arguments: str, path: str, notes: Notes) -> Any:
    """A call's arguments as the object that `input` must be, digit for digit as they were written."""
    try:
        value = orjson.loads(arguments) if arguments.strip() else {}
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        notes.add(path, "arguments that are no JSON object were sent as {}")
        return {}
    return orjson.Fragment(arguments) if value else {}


def _tool_result(result: ToolResult, notes: Notes) -> Block:
    content = _blocks(result.content, Role.USER, notes)
    block: Block = {"type": "tool_result", "tool_use_id": NAMES.short_id(result.call_id)}
    if len(content) == 1 and content[0].keys() == {"type", "text"}:
        block["content"] = content[0]["text"]
    elif content:
        block["content"] = content
    if result.is_error:
        block["is_error"] = True
    if result.name is not None:
        notes.add(f"{result.path}.name", "not supported by Claude")
    return _with_cache(block, result.cache)


_MAGIC: Final = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)
_IMAGES: Final = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})


def _media(media: Media, notes: Notes) -> Block:
    if media.kind == "image":
        block: Block = {"type": "image", "source": _image_source(media, notes)}
        if media.detail not in (None, "auto"):
            notes.add(f"{media.path}.image_url.detail", "not supported by Claude")
    elif media.kind == "document":
        block = {"type": "document", "source": _document_source(media)}
        if media.name:
            block["title"] = media.name
    else:
        raise InvalidRequest(f"Claude takes no {media.kind}.", param=media.path)
    return _with_cache(block, media.cache)


def _image_source(media: Media, notes: Notes) -> Block:
    if media.url is not None:
        return {"type": "url", "url": media.url}
    if media.data is None:
        return {"type": "file", "file_id": media.file_id}
    kind = _magic(media.data)
    if kind is None:
        kind = {"image/jpg": "image/jpeg"}.get(media.media_type or "", media.media_type)
    elif kind != media.media_type:
        notes.add(media.path, f"the image is {kind}, not {media.media_type}")
    if kind not in _IMAGES:
        raise InvalidRequest(f"Claude takes PNG, JPEG, GIF and WebP images, not {kind}.", param=media.path)
    return {"type": "base64", "media_type": kind, "data": media.data}


def _magic(data: str) -> str | None:
    """What an image really is, by its first bytes: Claude refuses one whose media type is wrong."""
    try:
        head = base64.b64decode(data[:24], validate=True)
    except binascii.Error:
        return None
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for magic, kind in _MAGIC if head.startswith(magic)), None)


def _document_source(media: Media) -> Block:
    if media.url is not None:
        return {"type": "url", "url": media.url}
    if media.data is None:
        raise InvalidRequest("A file is known only to the provider that stores it; send its data.", param=media.path)
    if media.media_type == "application/pdf":
        return {"type": "base64", "media_type": "application/pdf", "data": media.data}
    if media.media_type is not None and media.media_type.startswith("text/"):
        return {"type": "text", "media_type": "text/plain", "data": _decoded(media)}
    raise InvalidRequest(f"Claude takes PDF and plain text files, not {media.media_type}.", param=media.path)


def _decoded(media: Media) -> str:
    try:
        return base64.b64decode(media.data or "", validate=True).decode()
    except ValueError:
        raise InvalidRequest("The file is not base64 of UTF-8 text.", param=media.path) from None


# --- tools and output ------------------------------------------------------------------------------------------------


def _tool(tool: Tool, traits: Claude, notes: Notes) -> Block:
    block: Block = {"name": tool.name, "input_schema": _input_schema(tool)}
    if tool.description:
        block["description"] = tool.description
    if tool.strict:
        if traits.structured and is_native(orjson.loads(tool.parameters or b"{}")):
            block["strict"] = True
        else:
            notes.add(f"{tool.path}.function.strict", "not supported by this model for this schema")
    return _with_cache(block, tool.cache)


def _input_schema(tool: Tool) -> Any:
    schema = orjson.loads(tool.parameters) if tool.parameters else {}
    if not isinstance(schema, dict):
        raise InvalidRequest(f"`{tool.path}.function.parameters` must be an object.", param=tool.path)
    if "type" in schema and tool.parameters:
        return orjson.Fragment(tool.parameters)
    return {"type": "object", "properties": {}, **schema}


_CHOICES: Final = {Choosing.AUTO: "auto", Choosing.REQUIRED: "any", Choosing.NONE: "none", Choosing.NAMED: "tool"}


def _tool_choice(body: dict[str, Any], request: ChatRequest, traits: Claude, notes: Notes) -> None:
    """Only with tools; a forced one only where the model lets itself be forced."""
    if not request.tools:
        return
    choice = request.tool_choice
    mode = choice.mode if choice is not None else Choosing.AUTO
    if mode in (Choosing.REQUIRED, Choosing.NAMED) and not _may_force(body, traits):
        why = "thinking" if traits.forced_tools else "this model"
        notes.add("tool_choice", f"a tool cannot be forced with {why}; sent as auto")
        mode = Choosing.AUTO
    wanted: dict[str, Any] = {"type": _CHOICES[mode]}
    if mode is Choosing.NAMED and choice is not None:
        wanted["name"] = choice.name
    if request.parallel_tool_calls is False and mode is not Choosing.NONE:
        wanted["disable_parallel_tool_use"] = True
    if choice is not None or len(wanted) > 1:
        body["tool_choice"] = wanted


def _may_force(body: dict[str, Any], traits: Claude) -> bool:
    return traits.forced_tools and body.get("thinking", {}).get("type") != "enabled"


def _output(body: dict[str, Any], output: OutputFormat, traits: Claude, notes: Notes) -> None:
    """Structured output where model and schema allow it; else a hidden tool whose input is the answer."""
    schema = orjson.loads(output.schema) if output.schema is not None else None
    native = schema is not None and traits.structured and is_native(schema)
    if native or (schema is not None and traits.structured and not _may_force(body, traits)):
        if not native:
            notes.add("response_format", "bounds that this model cannot be held to were left out of the schema")
        shape = orjson.Fragment(output.schema or b"{}") if native else closed_schema(schema)
        body.setdefault("output_config", {})["format"] = {"type": "json_schema", "schema": shape}
        return
    what = output.description or output.name or "a JSON object"
    tool = {
        "name": ANSWER_TOOL,
        "description": f"Give the answer: {what}.",
        "input_schema": schema or {"type": "object"},
    }
    body.setdefault("tools", []).append(tool)
    _force_answer(body, traits, notes)


def _force_answer(body: dict[str, Any], traits: Claude, notes: Notes) -> None:
    """Have the hidden tool called; where the client has tools too, one of them or the hidden one."""
    choice = body.get("tool_choice", {})
    if not _may_force(body, traits):
        body.setdefault("system", []).append({"type": "text", "text": f"Answer by calling the tool {ANSWER_TOOL}."})
        notes.add("response_format", "asked for in words; this model cannot be held to it")
    elif len(body["tools"]) == 1 or choice.get("type") == "none":
        body["tool_choice"] = {"type": "tool", "name": ANSWER_TOOL}
    elif choice.get("type", "auto") == "auto":
        body["tool_choice"] = {**choice, "type": "any"}


# --- thinking --------------------------------------------------------------------------------------------------------


def _thinking(body: dict[str, Any], request: ChatRequest, traits: Claude, notes: Notes) -> None:
    if request.reasoning is None:
        return
    lost = _lost_its_thinking(body["messages"])
    found = claude_settings.thinking(request.reasoning, traits, body["max_tokens"], request.max_tokens, lost, notes)
    body["max_tokens"] = found.max_tokens
    if found.config is not None:
        body["thinking"] = found.config
    if found.effort is not None:
        body["output_config"] = {"effort": found.effort}


def _lost_its_thinking(messages: list[Block]) -> bool:
    """The conversation goes on after a tool call, whose turn would have to begin with thinking but does not."""
    turn = next((message for message in reversed(messages) if message["role"] == "assistant"), None)
    if turn is None or not any(block["type"] == "tool_use" for block in turn["content"]):
        return False
    return turn["content"][0]["type"] not in ("thinking", "redacted_thinking")


# --- the rest --------------------------------------------------------------------------------------------------------


def _others(body: dict[str, Any], request: ChatRequest, settings: dict[str, Any], notes: Notes) -> None:
    for key, value in settings.items():
        take = _SETTINGS.get(key)
        if take is None or not take(body, value):
            notes.add(key, "not supported by Claude")
    if request.user:
        # Anthropic asks for an opaque id: no name, no address. The same user gets the same id.
        body["metadata"] = {"user_id": hashlib.sha256(request.user.encode()).hexdigest()}


def _stop(body: dict[str, Any], value: Any) -> bool:
    """Blank sequences are refused by Claude; they would stop at every word."""
    words = [value] if isinstance(value, str) else value
    kept = [word for word in words if isinstance(word, str) and word.strip()]
    if kept:
        body["stop_sequences"] = kept
    return len(kept) == len(words)


def _service_tier(body: dict[str, Any], value: Any) -> bool:
    tier = {"default": "standard_only", "standard_only": "standard_only", "priority": "auto"}.get(value)
    if tier is not None:
        body["service_tier"] = tier
    return tier is not None


def _cache_control(body: dict[str, Any], value: Any) -> bool:
    body["cache_control"] = value
    return True


_SETTINGS: Final[dict[str, Callable[[dict[str, Any], Any], bool]]] = {
    "stop": _stop,
    "service_tier": _service_tier,
    "cache_control": _cache_control,
}


def _limit_cache_markers(body: dict[str, Any], notes: Notes) -> None:
    """Claude takes four markers; the last ones cover the most."""
    marked = [block for block in _all_blocks(body) if "cache_control" in block]
    surplus = len(marked) - MAX_CACHE_MARKERS + ("cache_control" in body)
    for block in marked[: max(surplus, 0)]:
        del block["cache_control"]
        notes.add("cache_control", f"only the last {MAX_CACHE_MARKERS} markers were kept")


def _all_blocks(body: dict[str, Any]) -> list[Block]:
    """Everything that can carry a marker, in the order in which the prompt is cached."""
    turns = [block for message in body["messages"] for block in message["content"]]
    return [*body.get("tools", ()), *body.get("system", ()), *turns]
