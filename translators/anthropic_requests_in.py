"""Requests of Anthropic's Messages API to the canonical form: how Claude Code reaches other models.

Reference: https://platform.claude.com/docs/en/api/messages. Tools that only Anthropic's servers run have no schema and
cannot be given to another model: they are left out and noted, since Claude Code sends them with every request and works
without them.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any, Final

import msgspec
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
    RedactedThinking,
    Role,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from translators.notes import Notes
from translators.sealed_thoughts import opened

Raws = dict[str, msgspec.Raw]

_RAWS: Final = msgspec.json.Decoder(Raws)
_RAW_LIST: Final = msgspec.json.Decoder(list[Raws])

_STRUCTURAL: Final = frozenset(
    {"model", "messages", "system", "tools", "tool_choice", "max_tokens", "thinking", "output_config"}
    | {"output_format", "stream", "metadata", "stop_sequences", "service_tier"}
)
_BLOCK_FIELDS: Final = frozenset(
    {"type", "text", "source", "title", "id", "name", "input", "tool_use_id", "content", "is_error", "thinking"}
    | {"signature", "data", "cache_control", "citations", "tool_name", "caller"}
)
_TOOL_FIELDS: Final = frozenset({"type", "name", "description", "input_schema", "strict", "cache_control"})
_TIERS: Final = {"standard_only": "default"}


def decode(body: bytes, notes: Notes) -> ChatRequest:
    """Read a request that `anthropic_messages.view` has accepted. Raises InvalidRequest with the field as `param`."""
    fields = _RAWS.decode(body)
    tree = {key: orjson.loads(bytes(raw)) for key, raw in fields.items() if key != "tools"}
    choice = tree.get("tool_choice") or {}
    settings = {key: value for key, value in tree.items() if key not in _STRUCTURAL and value is not None}
    if stop := tree.get("stop_sequences"):
        settings["stop"] = stop
    if (tier := _TIERS.get(tree.get("service_tier") or "")) is not None:
        settings["service_tier"] = tier
    return ChatRequest(
        messages=[*_system(tree.get("system"), notes), *_messages(tree.get("messages"), notes)],
        tools=list(_tools(fields.get("tools"), notes)),
        tool_choice=_tool_choice(choice),
        parallel_tool_calls=False if choice.get("disable_parallel_tool_use") else None,
        output=_output(fields),
        max_tokens=tree.get("max_tokens"),
        reasoning=_reasoning(tree.get("thinking") or {}, tree.get("output_config") or {}),
        user=(tree.get("metadata") or {}).get("user_id"),
        stream=tree.get("stream") is True,
        settings=settings,
    )


# --- messages --------------------------------------------------------------------------------------------------------


def _system(system: Any, notes: Notes) -> Iterator[Message]:
    if system:
        yield Message(Role.SYSTEM, tuple(_parts(system, "system", notes)), "system")


def _messages(messages: Any, notes: Notes) -> Iterator[Message]:
    if not isinstance(messages, list) or not messages:
        raise InvalidRequest("`messages` must be a list with at least one message.", param="messages")
    for index, message in enumerate(messages):
        path = f"messages[{index}]"
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ("user", "assistant", "system"):
            raise InvalidRequest(f"`{path}` must be an object with a known role.", param=path)
        yield Message(Role(role), tuple(_parts(message.get("content"), f"{path}.content", notes)), path)


def _parts(content: Any, path: str, notes: Notes) -> Iterator[Part]:
    if isinstance(content, str):
        if content:
            yield Text(content, path)
        return
    if not isinstance(content, list):
        raise InvalidRequest(f"`{path}` must be a text or a list of blocks.", param=path)
    for index, block in enumerate(content):
        place = f"{path}[{index}]"
        if not isinstance(block, dict):
            raise InvalidRequest(f"`{place}` must be an object.", param=place)
        part = _part(block, place, notes)
        if part is not None:
            yield part


def _part(block: dict[str, Any], path: str, notes: Notes) -> Part | None:
    """One block; what Anthropic's own servers made in an earlier turn means nothing to another model."""
    cache = block.get("cache_control")
    if not _BLOCK_FIELDS.issuperset(block):
        for key in block.keys() - _BLOCK_FIELDS:
            if block[key] is not None:
                notes.add(f"{path}.{key}", "not understood")
    match block.get("type"):
        case "text":
            return Text(block["text"], path, cache)
        case "image" | "document" as kind:
            return _media(kind, block, path)
        case "tool_use":
            arguments = orjson.dumps(block.get("input") or {}).decode()
            return ToolCall(block["id"], block["name"], arguments, path, cache=cache)
        case "tool_result":
            return _tool_result(block, path, notes)
        case "thinking":
            signature, format = opened(block.get("signature") or "")
            return Thinking(block.get("thinking") or "", signature or None, path, format)
        case "redacted_thinking":
            data, format = opened(block.get("data") or "")
            return RedactedThinking(data, path, format)
        case "search_result":
            found = _parts(block.get("content") or [], f"{path}.content", notes)
            texts = [part.text for part in found if isinstance(part, Text)]
            return Text("\n".join([block.get("title") or "", block.get("source") or "", *texts]), path, cache)
        case str(kind) if _is_of_a_server(kind):
            notes.add(path, f"a {kind} block was left out")
            return None
        case kind:
            raise InvalidRequest(f"`{path}` is of a kind that cannot be sent to this model: {kind!r}.", param=path)


def _is_of_a_server(kind: str) -> bool:
    """Calls that Anthropic's servers made, their results, and pointers to tools, which another model has all anyway."""
    return kind.startswith(("server_tool", "mcp_tool")) or kind.endswith("_tool_result") or kind == "tool_reference"


def _tool_result(block: dict[str, Any], path: str, notes: Notes) -> ToolResult:
    content = tuple(_parts(block.get("content") or [], f"{path}.content", notes))
    kept = tuple(part for part in content if isinstance(part, Text | Media))
    return ToolResult(
        block["tool_use_id"], kept, path, is_error=block.get("is_error") is True, cache=block.get("cache_control")
    )


def _media(kind: str, block: dict[str, Any], path: str) -> Media:
    source = block.get("source") or {}
    name, cache = block.get("title"), block.get("cache_control")
    match source.get("type"):
        case "base64":
            return Media(kind, path, data=source["data"], media_type=source["media_type"], name=name, cache=cache)
        case "url":
            return Media(kind, path, url=source["url"], name=name, cache=cache)
        case "text":
            data = base64.b64encode(source["data"].encode()).decode()
            return Media(kind, path, data=data, media_type="text/plain", name=name, cache=cache)
        case "file":
            return Media(kind, path, file_id=source["file_id"], name=name, cache=cache)
    raise InvalidRequest(f"`{path}.source` is of a kind that cannot be sent to this model.", param=path)


# --- tools -----------------------------------------------------------------------------------------------------------


def _tools(raw: msgspec.Raw | None, notes: Notes) -> Iterator[Tool]:
    if raw is None or bytes(raw) == b"null":
        return
    for index, fields in enumerate(_RAW_LIST.decode(raw)):
        path = f"tools[{index}]"
        kind = _value(fields, "type")
        if kind not in (None, "custom") or "input_schema" not in fields:
            notes.add(path, f"the tool {kind or _value(fields, 'name')} was left out; only Anthropic has it")
            continue
        for key in fields.keys() - _TOOL_FIELDS:
            notes.add(f"{path}.{key}", "only Anthropic has it")
        yield Tool(
            _value(fields, "name"),
            _value(fields, "description"),
            bytes(fields["input_schema"]),
            _value(fields, "strict"),
            path,
            _value(fields, "cache_control"),
        )


_CHOICES: Final = {
    "auto": Choosing.AUTO,
    "any": Choosing.REQUIRED,
    "none": Choosing.NONE,
    "tool": Choosing.NAMED,
}


def _tool_choice(choice: dict[str, Any]) -> ToolChoice | None:
    kind = choice.get("type")
    if kind is None:
        return None
    if kind not in _CHOICES:
        raise InvalidRequest("`tool_choice` is of a kind that is not known.", param="tool_choice")
    return ToolChoice(_CHOICES[kind], choice.get("name"))


# --- the rest --------------------------------------------------------------------------------------------------------


def _output(fields: Raws) -> OutputFormat | None:
    """`output_config.format`, or `output_format` as it was called in its beta."""
    inner = fields.get("output_format")
    if "output_config" in fields and bytes(fields["output_config"]) != b"null":
        inner = _RAWS.decode(fields["output_config"]).get("format", inner)
    if inner is None or bytes(inner) == b"null":
        return None
    shape = _RAWS.decode(inner)
    return OutputFormat(bytes(shape["schema"]), strict=True)


def _reasoning(thinking: dict[str, Any], output: dict[str, Any]) -> Reasoning | None:
    kind, effort = thinking.get("type"), output.get("effort")
    if kind is None and effort is None:
        return None
    return Reasoning(
        effort=effort,
        budget=thinking.get("budget_tokens") if kind == "enabled" else None,
        adaptive=kind == "adaptive",
        off=kind in ("disabled", "between_tools"),
    )


def _value(fields: Raws, key: str) -> Any:
    return orjson.loads(bytes(fields[key])) if key in fields else None
