"""Requests of OpenAI's Responses API to the canonical form: how its clients reach models that only chat.

What needs a memory on the provider's side (`previous_response_id`, `conversation`, stored prompts, background runs) is
refused: there is none. Tools that only OpenAI's servers run are refused by name.

Reference: https://platform.openai.com/docs/api-reference/responses/create.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec
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
from translators.openai_requests_in import cache_of, data_url

Raws = dict[str, msgspec.Raw]

_RAWS: Final = msgspec.json.Decoder(Raws)
_RAW_LIST: Final = msgspec.json.Decoder(list[Raws])

_NEEDS_MEMORY: Final = ("previous_response_id", "conversation", "prompt", "background")
_STRUCTURAL: Final = frozenset(
    {"model", "input", "instructions", "tools", "tool_choice", "parallel_tool_calls", "text", "reasoning", "include"}
    | {"max_output_tokens", "stream", "stream_options", "user", "safety_identifier", *_NEEDS_MEMORY}
)
_NEUTRAL: Final[dict[str, tuple[Any, ...]]] = {
    "metadata": ({},),
    "service_tier": ("auto",),
    "store": (False, True),  # nothing is stored either way, and true is the default
    "top_logprobs": (0,),
    "truncation": ("disabled",),
}
_LOGPROBS: Final = "message.output_text.logprobs"
_ECHOED: Final = (
    "instructions",
    "max_output_tokens",
    "metadata",
    "parallel_tool_calls",
    "reasoning",
    "store",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_p",
    "truncation",
    "user",
)


def echo(body: bytes) -> Mapping[str, Any]:
    """The fields of a request that a response repeats."""
    fields = _RAWS.decode(body)
    return {key: orjson.loads(bytes(fields[key])) for key in _ECHOED if key in fields}


def decode(body: bytes, notes: Notes) -> ChatRequest:
    """Read a request that `openai_responses.view` has accepted. Raises InvalidRequest with the field as `param`."""
    fields = _RAWS.decode(body)
    tree = {key: orjson.loads(bytes(raw)) for key, raw in fields.items() if key != "tools"}
    for key in _NEEDS_MEMORY:
        if tree.get(key):
            raise InvalidRequest(f"`{key}` needs a provider that keeps responses; this model has none.", param=key)
    included = tree.get("include") or ()
    for name in included:
        if name not in ("reasoning.encrypted_content", _LOGPROBS):
            notes.add("include", f"{name} is not there")
    messages = list(_merged(_items(tree.get("input"), notes)))
    if tree.get("instructions"):
        messages.insert(0, Message(Role.SYSTEM, (Text(tree["instructions"], "instructions"),), "instructions"))
    choice, tools = _tool_choice(tree.get("tool_choice"), list(_tools(fields.get("tools"))))
    settings = {
        key: value
        for key, value in tree.items()
        if key not in _STRUCTURAL and value is not None and value not in _NEUTRAL.get(key, ())
    }
    if _LOGPROBS in included:
        settings["logprobs"] = True
    elif settings.pop("top_logprobs", None) is not None:
        notes.add("top_logprobs", f"means nothing without {_LOGPROBS} in `include`")
    verbosity = (tree.get("text") or {}).get("verbosity")
    if verbosity not in (None, "medium"):
        settings["verbosity"] = verbosity
    return ChatRequest(
        messages=messages,
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=tree.get("parallel_tool_calls"),
        output=_output(fields.get("text")),
        max_tokens=tree.get("max_output_tokens"),
        reasoning=_reasoning(tree.get("reasoning") or {}),
        user=tree.get("safety_identifier") or tree.get("user"),
        stream=tree.get("stream") is True,
        settings=settings,
    )


# --- input -----------------------------------------------------------------------------------------------------------


def _items(value: Any, notes: Notes) -> Iterator[Message]:
    if isinstance(value, str) and value:
        yield Message(Role.USER, (Text(value, "input"),), "input")
        return
    if not isinstance(value, list) or not value:
        raise InvalidRequest("`input` must be a text or a list of items.", param="input")
    for index, item in enumerate(value):
        path = f"input[{index}]"
        if not isinstance(item, dict):
            raise InvalidRequest(f"`{path}` must be an object.", param=path)
        kind = item.get("type", "message")
        read = _ITEMS.get(kind) if isinstance(kind, str) else None
        if read is not None:
            yield read(item, path, notes)
        elif isinstance(kind, str) and kind.endswith("_call") and kind.startswith(_HOSTED):
            notes.add(path, f"a {kind} item was left out")
        else:
            raise InvalidRequest(f"`{path}` is of a kind that cannot be sent to this model: {kind!r}.", param=path)


_HOSTED: Final = ("web_search", "file_search", "code_interpreter", "image_generation", "mcp", "computer")


def _merged(messages: Iterator[Message]) -> Iterator[Message]:
    """One turn of the assistant is several items here: reasoning, text, calls."""
    held: Message | None = None
    for message in messages:
        if held is not None and held.role is message.role is Role.ASSISTANT:
            held = msgspec.structs.replace(held, parts=(*held.parts, *message.parts))
            continue
        if held is not None:
            yield held
        held = message
    if held is not None:
        yield held


_ROLES: Final = {
    "system": Role.SYSTEM,
    "developer": Role.SYSTEM,
    "user": Role.USER,
    "assistant": Role.ASSISTANT,
}


def _message(item: dict[str, Any], path: str, notes: Notes) -> Message:
    role = _ROLES.get(str(item.get("role")))
    if role is None:
        raise InvalidRequest(f"`{path}` must have a known role.", param=path)
    return Message(role, tuple(_parts(item.get("content"), f"{path}.content")), path)


def _function_call(item: dict[str, Any], path: str, notes: Notes) -> Message:
    call = ToolCall(item["call_id"], item["name"], item.get("arguments") or "", path)
    return Message(Role.ASSISTANT, (call,), path)


def _function_output(item: dict[str, Any], path: str, notes: Notes) -> Message:
    found = _parts(item.get("output"), f"{path}.output")
    content = tuple(part for part in found if isinstance(part, Text | Media))
    return Message(Role.USER, (ToolResult(item["call_id"], content, path),), path)


def _reasoning_item(item: dict[str, Any], path: str, notes: Notes) -> Message:
    pieces = [*(item.get("summary") or ()), *(item.get("content") or ())]
    text = "".join(piece.get("text") or "" for piece in pieces)
    return Message(Role.ASSISTANT, (unpack(text, item.get("encrypted_content"), path),), path)


_ITEMS: Final[dict[str, Callable[[dict[str, Any], str, Notes], Message]]] = {
    "message": _message,
    "function_call": _function_call,
    "function_call_output": _function_output,
    "reasoning": _reasoning_item,
}


def pack(thought: Thinking | RedactedThinking) -> str | None:
    """What a provider needs back, as `encrypted_content`: whose it is, which kind, and the value."""
    if isinstance(thought, RedactedThinking):
        return thought.data if thought.format == RESPONSES_FORMAT else f"{thought.format}:data:{thought.data}"
    return None if thought.signature is None else f"{thought.format}:signature:{thought.signature}"


def unpack(text: str, packed: str | None, path: str) -> Thinking | RedactedThinking:
    """The thought of a reasoning item. `encrypted_content` that we did not pack is OpenAI's own."""
    format, _, rest = (packed or "").partition(":")
    kind, _, value = rest.partition(":")
    if kind == "data":
        return RedactedThinking(value, path, format)
    if kind == "signature":
        return Thinking(text, value, path, format)
    if packed and not text:
        return RedactedThinking(packed, path, RESPONSES_FORMAT)
    return Thinking(text, packed, path, RESPONSES_FORMAT if packed else None)


def _parts(content: Any, path: str) -> Iterator[Part]:
    if isinstance(content, str):
        if content:
            yield Text(content, path)
        return
    if not isinstance(content, list):
        raise InvalidRequest(f"`{path}` must be a text or a list of parts.", param=path)
    for index, part in enumerate(content):
        place = f"{path}[{index}]"
        if not isinstance(part, dict):
            raise InvalidRequest(f"`{place}` must be an object.", param=place)
        yield _part(part, place)


def _part(part: dict[str, Any], path: str) -> Part:
    match part.get("type"):
        case "input_text" | "output_text" | "text":
            return Text(part["text"], path, cache_of(part))
        case "refusal":
            return Refusal(part["refusal"], path)
        case "input_image":
            detail = part.get("detail")
            return _media("image", part.get("image_url"), part.get("file_id"), path, detail=detail)
        case "input_file":
            name, data = part.get("filename"), part.get("file_data")
            if data is not None and not data.startswith("data:"):
                data = f"data:application/pdf;base64,{data}"
            return _media("document", data or part.get("file_url"), part.get("file_id"), path, name=name)
        case "input_audio":
            audio = part["input_audio"]
            return Media("audio", path, data=audio["data"], media_type=f"audio/{audio.get('format', 'wav')}")
        case kind:
            raise InvalidRequest(f"`{path}` is of a kind that cannot be sent to this model: {kind!r}.", param=path)


def _media(
    kind: str, url: str | None, file_id: str | None, path: str, name: str | None = None, detail: str | None = None
) -> Media:
    data = data_url(url) if url is not None else None
    if data is not None:
        return Media(kind, path, data=data[1], media_type=data[0], name=name, detail=detail)
    return Media(kind, path, url=url, file_id=file_id, name=name, detail=detail)


# --- tools and the rest ----------------------------------------------------------------------------------------------


def _tools(raw: msgspec.Raw | None) -> Iterator[Tool]:
    if raw is None or bytes(raw) == b"null":
        return
    for index, fields in enumerate(_RAW_LIST.decode(raw)):
        path = f"tools[{index}]"
        kind, name = _value(fields, "type"), _value(fields, "name")
        if kind != "function" or not isinstance(name, str):
            raise InvalidRequest(f"`{path}` is a tool that this model does not have: {kind!r}.", param=path)
        parameters = bytes(fields["parameters"]) if "parameters" in fields else b"null"
        schema = None if parameters == b"null" else parameters
        yield Tool(name, _value(fields, "description"), schema, _value(fields, "strict"), path)


_CHOICES: Final = {"auto": Choosing.AUTO, "required": Choosing.REQUIRED, "none": Choosing.NONE}


def _tool_choice(choice: Any, tools: list[Tool]) -> tuple[ToolChoice | None, list[Tool]]:
    """The choice, and the tools that it leaves (`allowed_tools` names some of them)."""
    if choice is None:
        return None, tools
    if isinstance(choice, str) and choice in _CHOICES:
        return ToolChoice(_CHOICES[choice]), tools
    if isinstance(choice, dict) and choice.get("type") == "function":
        return ToolChoice(Choosing.NAMED, choice["name"]), tools
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        names = {tool.get("name") for tool in choice.get("tools") or ()}
        mode = Choosing.REQUIRED if choice.get("mode") == "required" else Choosing.AUTO
        return ToolChoice(mode), [tool for tool in tools if tool.name in names]
    raise InvalidRequest("`tool_choice` is of a kind that is not known.", param="tool_choice")


def _output(raw: msgspec.Raw | None) -> OutputFormat | None:
    text = _RAWS.decode(raw) if raw is not None and bytes(raw) != b"null" else {}
    if "format" not in text:
        return None
    fields = _RAWS.decode(text["format"])
    kind = _value(fields, "type")
    if kind == "text":
        return None
    if kind == "json_object":
        return OutputFormat()
    if kind != "json_schema":
        raise InvalidRequest("`text.format` is of a kind that is not known.", param="text.format")
    return OutputFormat(
        bytes(fields["schema"]), _value(fields, "name"), _value(fields, "description"), _value(fields, "strict")
    )


def _reasoning(reasoning: dict[str, Any]) -> Reasoning | None:
    effort = reasoning.get("effort")
    if effort is None:
        return None
    return Reasoning(off=True) if effort == "none" else Reasoning(effort=effort)


def _value(fields: Raws, key: str) -> Any:
    return orjson.loads(bytes(fields[key])) if key in fields else None
