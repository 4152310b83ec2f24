"""OpenAI chat requests to the canonical form.

Everything that a client may write is either understood, kept as a setting for the target's dialect to judge, noted, or
refused: nothing is dropped in silence. Schemas stay raw bytes.

Reference: https://platform.openai.com/docs/api-reference/chat/create. Besides it are understood the fields in which
other gateways and our own answers carry reasoning (`reasoning_content`, `reasoning_details`, `thinking_blocks`),
Anthropic's `cache_control` on messages, parts and tools, and `thinking` as Anthropic writes it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec
import orjson

from gateway.errors import InvalidRequest
from translators.canonical import (
    CLAUDE_FORMAT,
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
    ToolChoice,
    ToolResult,
)
from translators.notes import Notes

Raws = dict[str, msgspec.Raw]

_RAWS: Final = msgspec.json.Decoder(Raws)
_RAW_LIST: Final = msgspec.json.Decoder(list[Raws])
_ANY_SCHEMA: Final = b"{}"

# Values that ask for nothing that a model would not do anyway.
_NEUTRAL: Final[dict[str, tuple[Any, ...]]] = {
    "n": (1,),
    "logprobs": (False,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "metadata": ({},),
    "modalities": (["text"],),
    "service_tier": ("auto",),
    "store": (False,),
    "stop": ([],),
    "top_logprobs": (0,),
}
_STRUCTURAL: Final = frozenset(
    {
        "model",
        "messages",
        "tools",
        "functions",
        "tool_choice",
        "function_call",
        "parallel_tool_calls",
        "response_format",
        "max_tokens",
        "max_completion_tokens",
        "reasoning",
        "reasoning_effort",
        "thinking",
        "stream",
        "stream_options",
        "user",
        "safety_identifier",
    }
)


def decode(body: bytes, notes: Notes) -> ChatRequest:
    """Read a request that `openai_chat.view` has accepted. Raises InvalidRequest with the field as `param`."""
    fields = _RAWS.decode(body)
    tree = {key: orjson.loads(bytes(raw)) for key, raw in fields.items() if key not in ("tools", "functions")}
    tools = [*_tools(fields.get("tools"), "tools"), *_functions(fields.get("functions"), notes)]
    choice, tools = _tool_choice(tree, tools)
    limit = tree.get("max_completion_tokens")
    return ChatRequest(
        messages=list(_messages(tree.get("messages"), notes)),
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=tree.get("parallel_tool_calls"),
        output=_output(fields.get("response_format")),
        max_tokens=tree.get("max_tokens") if limit is None else limit,
        reasoning=_reasoning(tree),
        user=tree.get("safety_identifier") or tree.get("user"),
        stream=tree.get("stream") is True,
        settings={
            key: value
            for key, value in tree.items()
            if key not in _STRUCTURAL and value is not None and not _is_neutral(key, value)
        },
    )


def _is_neutral(key: str, value: Any) -> bool:
    return value in _NEUTRAL.get(key, ())


# --- messages --------------------------------------------------------------------------------------------------------


def _messages(messages: Any, notes: Notes) -> Iterator[Message]:
    if not isinstance(messages, list) or not messages:
        raise InvalidRequest("`messages` must be a list with at least one message.", param="messages")
    for index, message in enumerate(messages):
        path = f"messages[{index}]"
        role = message.get("role") if isinstance(message, dict) else None
        read = _ROLES.get(role) if isinstance(role, str) else None
        if read is None:
            raise InvalidRequest(f"`{path}` must be an object with a known role.", param=path)
        yield read(message, path, notes)


_MESSAGE_FIELDS: Final = frozenset(
    {
        "role",
        "content",
        "name",
        "cache_control",
        "tool_calls",
        "function_call",
        "tool_call_id",
        "refusal",
        "annotations",
        "audio",
        "reasoning_content",
        "reasoning",
        "reasoning_details",
        "thinking_blocks",
    }
)


def _note_unknown(message: dict[str, Any], known: frozenset[str], path: str, notes: Notes) -> None:
    if not known.issuperset(message):
        for key in message:
            if key not in known and message[key] is not None:
                notes.add(f"{path}.{key}", "not understood")


def _system(message: dict[str, Any], path: str, notes: Notes) -> Message:
    _note_unknown(message, _MESSAGE_FIELDS, path, notes)
    return Message(Role.SYSTEM, _content(message, path, notes), path)


def _user(message: dict[str, Any], path: str, notes: Notes) -> Message:
    _note_unknown(message, _MESSAGE_FIELDS, path, notes)
    return Message(Role.USER, _content(message, path, notes), path, message.get("name"))


def _assistant(message: dict[str, Any], path: str, notes: Notes) -> Message:
    """Reasoning first, then text, then calls: the order in which a model makes them."""
    _note_unknown(message, _MESSAGE_FIELDS, path, notes)
    parts: list[Part] = list(_thinking(message, path, notes))
    parts += _content(message, path, notes)
    if refusal := message.get("refusal"):
        parts.append(Refusal(refusal, f"{path}.refusal"))
    if message.get("audio"):
        raise InvalidRequest(f"`{path}.audio` cannot be sent to this model.", param=f"{path}.audio")
    for index, call in enumerate(message.get("tool_calls") or ()):
        parts.append(_call(call, f"{path}.tool_calls[{index}]"))
    if function := message.get("function_call"):
        name = function.get("name", "")
        parts.append(ToolCall(f"call_{name}", name, function.get("arguments") or "", f"{path}.function_call"))
    return Message(Role.ASSISTANT, tuple(parts), path, message.get("name"))


def _tool(message: dict[str, Any], path: str, notes: Notes) -> Message:
    _note_unknown(message, _MESSAGE_FIELDS, path, notes)
    call_id = message.get("tool_call_id")
    if message["role"] == "function":
        call_id = f"call_{message.get('name', '')}"
    if not isinstance(call_id, str):
        raise InvalidRequest(f"`{path}.tool_call_id` is missing.", param=f"{path}.tool_call_id")
    content = tuple(part for part in _content(message, path, notes) if isinstance(part, Text | Media))
    cache = message.get("cache_control")
    if cache is None:
        cache = next((part.cache for part in reversed(content) if part.cache is not None), None)
    bare = tuple(msgspec.structs.replace(part, cache=None) for part in content)
    result = ToolResult(call_id, bare, path, name=message.get("name"), cache=cache)
    return Message(Role.USER, (result,), path)


_ROLES: Final[dict[str, Callable[[dict[str, Any], str, Notes], Message]]] = {
    "system": _system,
    "developer": _system,
    "user": _user,
    "assistant": _assistant,
    "tool": _tool,
    "function": _tool,
}


def _content(message: dict[str, Any], path: str, notes: Notes) -> tuple[Part, ...]:
    content = message.get("content")
    path = f"{path}.content"
    if isinstance(content, str):
        return (Text(content, path, message.get("cache_control")),) if content else ()
    if content is None:
        return ()
    if not isinstance(content, list):
        raise InvalidRequest(f"`{path}` must be a text or a list of parts.", param=path)
    parts = [_part(part, f"{path}[{index}]", notes) for index, part in enumerate(content)]
    marker = message.get("cache_control")
    if marker and parts and isinstance(parts[-1], Text | Media) and parts[-1].cache is None:
        parts[-1] = msgspec.structs.replace(parts[-1], cache=marker)
    return tuple(parts)


def _part(part: Any, path: str, notes: Notes) -> Part:
    if isinstance(part, str):
        return Text(part, path)
    kind = part.get("type") if isinstance(part, dict) else None
    read = _PARTS.get(kind) if isinstance(kind, str) else None
    if read is None:
        raise InvalidRequest(f"`{path}` is of a kind that cannot be sent to this model: {kind!r}.", param=path)
    _note_unknown(part, _PART_FIELDS, path, notes)
    return read(part, path)


_PART_FIELDS: Final = frozenset(
    {"type", "text", "refusal", "image_url", "input_audio", "file", "cache_control", "prompt_cache_breakpoint"}
)


def cache_of(part: dict[str, Any]) -> Cache | None:
    """A part's cache marker: Anthropic's, which many clients send as it is, or OpenAI's."""
    marker: Cache | None = part.get("cache_control")
    return {"type": "ephemeral"} if marker is None and part.get("prompt_cache_breakpoint") else marker


def _text(part: dict[str, Any], path: str) -> Text:
    text = part.get("text")
    if not isinstance(text, str):
        raise InvalidRequest(f"`{path}.text` must be a text.", param=f"{path}.text")
    return Text(text, path, cache_of(part))


def _refusal(part: dict[str, Any], path: str) -> Refusal:
    return Refusal(str(part.get("refusal") or ""), path)


def _image(part: dict[str, Any], path: str) -> Media:
    given = part.get("image_url")
    image: dict[str, Any] = given if isinstance(given, dict) else {"url": given}
    url = image.get("url")
    if not isinstance(url, str) or not url:
        raise InvalidRequest(f"`{path}.image_url.url` must be an address.", param=f"{path}.image_url.url")
    detail, cache = image.get("detail"), cache_of(part)
    data = data_url(url)
    if data is not None:
        return Media("image", path, data=data[1], media_type=data[0], detail=detail, cache=cache)
    return Media("image", path, url=url, detail=detail, cache=cache)


def _file(part: dict[str, Any], path: str) -> Media:
    file = part.get("file")
    if not isinstance(file, dict):
        raise InvalidRequest(f"`{path}.file` must be an object.", param=f"{path}.file")
    name, cache = file.get("filename"), cache_of(part)
    content = file.get("file_data")
    if isinstance(content, str):
        media_type, data = data_url(content) or ("application/pdf", content)
        return Media("document", path, data=data, media_type=media_type, name=name, cache=cache)
    return Media("document", path, file_id=file.get("file_id"), name=name, cache=cache)


def _audio(part: dict[str, Any], path: str) -> Media:
    audio = part.get("input_audio")
    if not isinstance(audio, dict) or not isinstance(audio.get("data"), str):
        raise InvalidRequest(f"`{path}.input_audio` must be an object with data.", param=f"{path}.input_audio")
    return Media("audio", path, data=audio["data"], media_type=f"audio/{audio.get('format', 'wav')}")


_PARTS: Final[dict[str, Callable[[dict[str, Any], str], Part]]] = {
    "text": _text,
    "input_text": _text,
    "output_text": _text,
    "refusal": _refusal,
    "image_url": _image,
    "file": _file,
    "input_audio": _audio,
}

_DATA_URL: Final = re.compile(r"data:([\w.+-]+/[\w.+-]+)?(?:;[\w-]+=[^;,]*)*;base64,", re.ASCII | re.IGNORECASE)


def data_url(url: str) -> tuple[str, str] | None:
    """Media type and base64 of a `data:` address (RFC 2397), or None where it is another address."""
    found = _DATA_URL.match(url)
    return ((found[1] or "text/plain").lower(), url[found.end() :]) if found else None


def _call(call: Any, path: str) -> ToolCall:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise InvalidRequest(f"`{path}` is not the call of a function.", param=path)
    google = (call.get("extra_content") or {}).get("google") or {}
    return ToolCall(
        call.get("id") or "",
        function["name"],
        function.get("arguments") or "",
        path,
        google.get("thought_signature"),
        call.get("cache_control"),
    )


def _thinking(message: dict[str, Any], path: str, notes: Notes) -> Iterator[Thinking | RedactedThinking]:
    """Reasoning in whichever field the client kept it; the ones with signatures win over the plain text."""
    found = False
    for index, block in enumerate(message.get("thinking_blocks") or ()):
        place = f"{path}.thinking_blocks[{index}]"
        found = True
        if block.get("type") == "redacted_thinking":
            yield RedactedThinking(block.get("data") or "", place, CLAUDE_FORMAT)
        else:
            yield Thinking(block.get("thinking") or "", block.get("signature"), place, CLAUDE_FORMAT)
    if not found:
        for detail in _details(message.get("reasoning_details") or ()):
            found = True
            yield detail_part(detail, f"{path}.reasoning_details")
    plain = message.get("reasoning_content") or message.get("reasoning")
    if not found and isinstance(plain, str):
        yield Thinking(plain, None, f"{path}.reasoning_content")


def _details(details: Any) -> list[dict[str, Any]]:
    """One entry for each block: clients that kept a stream's pieces give several with one index."""
    merged: dict[Any, dict[str, Any]] = {}
    for position, detail in enumerate(details):
        if not isinstance(detail, dict):
            continue
        entry = merged.setdefault(detail.get("index", position), {"type": detail.get("type")})
        for key in ("text", "data", "signature", "format"):
            if isinstance(detail.get(key), str):
                entry[key] = entry.get(key, "") + detail[key]
    return list(merged.values())


def detail_part(detail: dict[str, Any], path: str) -> Thinking | RedactedThinking:
    """One entry of `reasoning_details` as a canonical part."""
    if detail.get("type") == "reasoning.encrypted":
        return RedactedThinking(detail.get("data") or "", path, detail.get("format"))
    return Thinking(detail.get("text") or "", detail.get("signature"), path, detail.get("format"))


# --- tools -----------------------------------------------------------------------------------------------------------


def _tools(raw: msgspec.Raw | None, path: str) -> Iterator[Tool]:
    for index, fields in enumerate(_raw_list(raw, path)):
        place = f"{path}[{index}]"
        kind = _value(fields, "type")
        function = fields.get("function")
        if kind not in (None, "function") or function is None:
            raise InvalidRequest(f"`{place}` is a tool that this model does not have: {kind!r}.", param=place)
        yield _function(_raw_object(function, f"{place}.function"), place, _value(fields, "cache_control"))


def _functions(raw: msgspec.Raw | None, notes: Notes) -> Iterator[Tool]:
    """The form before tools; its calls are answered as `tool_calls`."""
    for index, fields in enumerate(_raw_list(raw, "functions")):
        notes.add(f"functions[{index}]", "answered as tool_calls")
        yield _function(fields, f"functions[{index}]", None)


def _function(fields: Raws, path: str, cache: Cache | None) -> Tool:
    name = _value(fields, "name")
    if not isinstance(name, str) or not name:
        raise InvalidRequest(f"`{path}` has no name.", param=path)
    parameters = bytes(fields["parameters"]) if "parameters" in fields else b"null"
    return Tool(
        name,
        _value(fields, "description"),
        None if parameters == b"null" else parameters,
        _value(fields, "strict"),
        path,
        cache or _value(fields, "cache_control"),
    )


_CHOICES: Final = {
    "auto": Choosing.AUTO,
    "required": Choosing.REQUIRED,
    "any": Choosing.REQUIRED,  # Mistral's word
    "none": Choosing.NONE,
}


def _tool_choice(tree: dict[str, Any], tools: list[Tool]) -> tuple[ToolChoice | None, list[Tool]]:
    """The choice, and the tools that it leaves (`allowed_tools` names some of them)."""
    choice = tree.get("tool_choice", tree.get("function_call"))
    if choice is None:
        return None, tools
    if isinstance(choice, str) and choice in _CHOICES:
        return ToolChoice(_CHOICES[choice]), tools
    if isinstance(choice, dict):
        if choice.get("type") == "allowed_tools":
            return _allowed(choice.get("allowed_tools") or {}, tools)
        name = (choice.get("function") or choice).get("name")
        if isinstance(name, str):
            return ToolChoice(Choosing.NAMED, name), tools
    raise InvalidRequest("`tool_choice` is of a kind that is not known.", param="tool_choice")


def _allowed(allowed: dict[str, Any], tools: list[Tool]) -> tuple[ToolChoice, list[Tool]]:
    names = {
        (tool.get("function") or tool).get("name") for tool in allowed.get("tools") or () if isinstance(tool, dict)
    }
    mode = Choosing.REQUIRED if allowed.get("mode") == "required" else Choosing.AUTO
    return ToolChoice(mode), [tool for tool in tools if tool.name in names]


# --- the rest --------------------------------------------------------------------------------------------------------


def _output(raw: msgspec.Raw | None) -> OutputFormat | None:
    fields = _raw_object(raw, "response_format") if raw is not None and bytes(raw) != b"null" else {}
    kind = _value(fields, "type")
    if kind in (None, "text"):
        return None
    if kind == "json_object":
        return OutputFormat()
    if kind != "json_schema" or "json_schema" not in fields:
        raise InvalidRequest("`response_format` is of a kind that is not known.", param="response_format")
    inner = _raw_object(fields["json_schema"], "response_format.json_schema")
    schema = bytes(inner["schema"]) if "schema" in inner else _ANY_SCHEMA
    return OutputFormat(schema, _value(inner, "name"), _value(inner, "description"), _value(inner, "strict"))


def _reasoning(tree: dict[str, Any]) -> Reasoning | None:
    thinking = tree.get("thinking")
    if isinstance(thinking, dict):
        kind = thinking.get("type")
        return Reasoning(
            effort=tree.get("reasoning_effort"),
            budget=thinking.get("budget_tokens") if kind == "enabled" else None,
            adaptive=kind == "adaptive",
            off=kind == "disabled",
        )
    effort, budget = tree.get("reasoning_effort"), None
    reasoning = tree.get("reasoning")
    if isinstance(reasoning, dict):  # OpenRouter's way
        effort, budget = effort or reasoning.get("effort"), reasoning.get("max_tokens")
        if reasoning.get("enabled") is False:
            effort = "none"
        elif effort is None and budget is None:
            return Reasoning(adaptive=True) if reasoning.get("enabled") else None
    if effort is None and budget is None:
        return None
    return Reasoning(off=True) if effort == "none" else Reasoning(effort=effort, budget=budget)


def _raw_list(raw: msgspec.Raw | None, path: str) -> list[Raws]:
    if raw is None or bytes(raw) == b"null":
        return []
    try:
        return _RAW_LIST.decode(raw)
    except msgspec.ValidationError:
        raise InvalidRequest(f"`{path}` must be a list of objects.", param=path) from None


def _raw_object(raw: msgspec.Raw, path: str) -> Raws:
    try:
        return _RAWS.decode(raw)
    except msgspec.ValidationError:
        raise InvalidRequest(f"`{path}` must be an object.", param=path) from None


def _value(fields: Raws, key: str) -> Any:
    return orjson.loads(bytes(fields[key])) if key in fields else None
