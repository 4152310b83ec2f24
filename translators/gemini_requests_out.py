"""The canonical form to requests of Gemini's `generateContent`.

Gemini knows calls by name and not by id, so results look their name up in the history. What Gemini 3 demands, the
signature of the thought behind a call, comes back from the client with the call, or within the call's id (see
`gemini_answers_in`); for a call that another model made there is Google's own placeholder.

Reference: https://ai.google.dev/api/generate-content, .../gemini-api/docs/thought-signatures.
"""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

import orjson

from gateway.errors import InvalidRequest
from translators import gemini_ids
from translators.canonical import (
    ANSWER_TOOL,
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

NAMES: Final = ToolNames(64, ".:")
"""https://ai.google.dev/api/caching#FunctionDeclaration"""

NO_SIGNATURE: Final = "skip_thought_signature_validator"
"""Google's word for a call whose thought is not known: .../docs/thought-signatures#faqs"""

_VERSION: Final = re.compile(r"gemini-(\d+)(?:\.(\d+))?")
_NEWEST: Final = (9, 0)
_BUDGETS: Final = {"minimal": 512, "low": 1024, "medium": 8192, "high": 24_576, "xhigh": 24_576, "max": 24_576}

Entry = dict[str, Any]


def encode(request: ChatRequest, asked: Asked, notes: Notes) -> bytes:
    """The body for `generateContent`. Raises InvalidRequest for what must not be sent otherwise than asked."""
    version = _version(asked.model)
    names = _names_of_calls(request.messages)
    body: Entry = {}
    contents = list(_contents(request.messages, names, version >= (3, 0), notes))
    system = [part for message in request.messages for part in _system(message)]
    if not contents and system:
        notes.add("messages", "Gemini needs a user message; the last system text was sent as one")
        contents.append({"role": "user", "parts": [system.pop()]})
    if not contents:
        raise InvalidRequest("No message has any content for the model.", param="messages")
    if system:
        body["systemInstruction"] = {"parts": system}
    body["contents"] = contents
    config: Entry = {}
    _tools(body, request, notes)
    if request.output is not None:
        _output(body, config, request.output, version)
    if request.max_tokens is not None:
        config["maxOutputTokens"] = request.max_tokens
    if request.reasoning is not None:
        _thinking(config, request.reasoning, asked.model, version, notes)
    _settings(config, request, notes)
    if config:
        body["generationConfig"] = config
    return orjson.dumps(body)


def _version(model: str) -> tuple[int, int]:
    found = _VERSION.search(model)
    return (int(found[1]), int(found[2] or 0)) if found else _NEWEST


# --- messages --------------------------------------------------------------------------------------------------------


def _names_of_calls(messages: Sequence[Message]) -> dict[str, str]:
    return {part.id: part.name for message in messages for part in message.parts if isinstance(part, ToolCall)}


def _system(message: Message) -> Iterator[Entry]:
    if message.role is Role.SYSTEM:
        yield from ({"text": part.text} for part in message.parts if isinstance(part, Text) and part.text)


def _contents(messages: Sequence[Message], names: dict[str, str], signed: bool, notes: Notes) -> Iterator[Entry]:
    """Turns with neighbours of one role merged; results of tools come first in theirs."""
    role, parts = "", list[Entry]()
    for message in messages:
        if message.role is Role.SYSTEM:
            continue
        if message.name is not None:
            notes.add(f"{message.path}.name", "not supported by Gemini")
        speaker = "model" if message.role is Role.ASSISTANT else "user"
        if speaker != role:
            yield from _turn(role, parts, signed)
            role, parts = speaker, []
        for part in message.parts:
            parts += _parts(part, names, notes)
    yield from _turn(role, parts, signed)


def _turn(role: str, parts: list[Entry], signed: bool) -> Iterator[Entry]:
    if not parts:
        return
    if role == "user":
        parts = sorted(parts, key=lambda part: "functionResponse" not in part)
    calls = [part for part in parts if "functionCall" in part]
    if signed and calls and not any("thoughtSignature" in part for part in calls):
        calls[0]["thoughtSignature"] = NO_SIGNATURE  # of parallel calls only the first has one
    yield {"role": role, "parts": parts}


def _parts(part: Part, names: dict[str, str], notes: Notes) -> Iterator[Entry]:
    match part:
        case Text(text) | Refusal(text):
            if text:
                yield {"text": text}
            if isinstance(part, Text) and part.cache is not None:
                notes.add("cache_control", "Gemini decides by itself what to cache")
        case Media():
            yield _media(part, notes)
        case ToolCall():
            yield _call(part, notes)
        case ToolResult():
            yield from _result(part, names, notes)
        case Thinking() | RedactedThinking():
            notes.add(part.path, "reasoning of another format was left out")


def _media(media: Media, notes: Notes) -> Entry:
    if media.detail not in (None, "auto"):
        notes.add(f"{media.path}.image_url.detail", "not supported by Gemini")
    if media.data is not None:
        return {"inlineData": {"mimeType": media.media_type, "data": media.data}}
    if media.url is None:
        raise InvalidRequest("A file is known only to the provider that stores it; send its data.", param=media.path)
    file: Entry = {"fileUri": media.url}
    guess, _ = mimetypes.guess_type(media.url.partition("?")[0])
    if guess is not None or media.kind == "image":
        file["mimeType"] = guess or "image/jpeg"
    return {"fileData": file}


def _call(call: ToolCall, notes: Notes) -> Entry:
    arguments = _object(call.arguments or "{}")
    if arguments is None:
        notes.add(call.path, "arguments that are no JSON object were sent as {}")
    function: Entry = {"name": call.name, "args": orjson.Fragment(call.arguments) if arguments else {}}
    entry: Entry = {"functionCall": function}
    signature = call.signature or gemini_ids.signature_of(call.id)
    if signature is not None:
        entry["thoughtSignature"] = signature
    return entry


def _result(result: ToolResult, names: dict[str, str], notes: Notes) -> Iterator[Entry]:
    name = names.get(result.call_id) or result.name
    if name is None:
        raise InvalidRequest(f"No call has the id {result.call_id!r}.", param=result.path)
    text = "\n".join(part.text for part in result.content if isinstance(part, Text))
    yield {"functionResponse": {"name": name, "response": _response(text, result.is_error)}}
    yield from (_media(part, notes) for part in result.content if isinstance(part, Media))


def _response(text: str, is_error: bool) -> Any:
    """An object: the tool's own, or one made around what it said. `$ref` in it would be taken for a reference."""
    value = _object(text)
    if value is None or '"$ref"' in text or '"$defs"' in text:
        return {"error" if is_error else "result": text}
    return {"error": value} if is_error else orjson.Fragment(text)


def _object(text: str) -> dict[str, Any] | None:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


# --- tools and output ------------------------------------------------------------------------------------------------


_MODES: Final = {Choosing.AUTO: "AUTO", Choosing.REQUIRED: "ANY", Choosing.NONE: "NONE", Choosing.NAMED: "ANY"}


def _tools(body: Entry, request: ChatRequest, notes: Notes) -> None:
    if not request.tools:
        return
    body["tools"] = [{"functionDeclarations": [_tool(tool, notes) for tool in request.tools]}]
    choice = request.tool_choice
    if choice is not None:
        config: Entry = {"mode": _MODES[choice.mode]}
        if choice.mode is Choosing.NAMED:
            config["allowedFunctionNames"] = [choice.name]
        body["toolConfig"] = {"functionCallingConfig": config}
    if request.parallel_tool_calls is False:
        notes.add("parallel_tool_calls", "not supported by Gemini")


def _tool(tool: Tool, notes: Notes) -> Entry:
    declaration: Entry = {"name": tool.name}
    if tool.description:
        declaration["description"] = tool.description
    if tool.parameters is not None:
        declaration["parametersJsonSchema"] = _schema(tool.parameters)
    if tool.strict:
        notes.add(f"{tool.path}.function.strict", "not supported by Gemini")
    if tool.cache is not None:
        notes.add("cache_control", "Gemini decides by itself what to cache")
    return declaration


def _schema(raw: bytes) -> Any:
    """A JSON Schema as it is, except that `$ref` must stand alone: its siblings are merged with what it names."""
    if b'"$ref"' not in raw:
        return orjson.Fragment(raw)
    root = orjson.loads(raw)
    return _inlined(root, root, ())


def _inlined(schema: Any, root: Any, within: tuple[str, ...]) -> Any:
    if isinstance(schema, list):
        return [_inlined(item, root, within) for item in schema]
    if not isinstance(schema, dict):
        return schema
    ref = schema.get("$ref")
    if isinstance(ref, str) and len(schema) > 1 and ref not in within:
        target = _target(ref, root)
        if isinstance(target, dict):
            siblings = {key: value for key, value in schema.items() if key != "$ref"}
            return _inlined({**target, **siblings}, root, (*within, ref))
    return {key: _inlined(value, root, within) for key, value in schema.items()}


def _target(ref: str, root: Any) -> Any:
    """What a JSON pointer within the schema names (RFC 6901)."""
    node = root
    for step in ref.removeprefix("#").split("/")[1:]:
        node = node.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(node, dict) else None
    return node


def _output(body: Entry, config: Entry, output: OutputFormat, version: tuple[int, int]) -> None:
    """JSON output, which before Gemini 3 excludes tools: there a hidden tool's arguments are the answer."""
    if "tools" not in body or version >= (3, 0):
        config["responseMimeType"] = "application/json"
        if output.schema is not None:
            config["responseJsonSchema"] = _schema(output.schema)
        return
    what = output.description or output.name or "a JSON object"
    tool: Entry = {"name": ANSWER_TOOL, "description": f"Give the answer: {what}."}
    tool["parametersJsonSchema"] = _schema(output.schema or b'{"type":"object"}')
    body["tools"][0]["functionDeclarations"].append(tool)
    calling = body.setdefault("toolConfig", {}).setdefault("functionCallingConfig", {})
    if calling.get("mode") == "NONE":
        calling["allowedFunctionNames"] = [ANSWER_TOOL]
    calling["mode"] = "ANY"


# --- settings --------------------------------------------------------------------------------------------------------


def _thinking(config: Entry, reasoning: Reasoning, model: str, version: tuple[int, int], notes: Notes) -> None:
    """A level for Gemini 3, a budget for 2.5, nothing for what came before."""
    if version < (2, 5):
        if not reasoning.off:
            notes.add("reasoning_effort", "this model does not think")
        return
    thinking = _level(reasoning, model, notes) if version >= (3, 0) else _budget(reasoning, model, notes)
    if not reasoning.off:
        thinking["includeThoughts"] = True
    config["thinkingConfig"] = thinking


def _level(reasoning: Reasoning, model: str, notes: Notes) -> Entry:
    if reasoning.budget is not None:
        return {"thinkingBudget": reasoning.budget}
    effort = "minimal" if reasoning.off else reasoning.effort
    if effort is None:
        return {}
    known = {"minimal": "minimal", "low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}
    level = known.get(effort)
    if "pro" in model:
        level = {"minimal": "low", "medium": "high" if "gemini-3-pro" in model else "medium"}.get(level or "", level)
    if level is None or reasoning.off or level != effort:
        notes.add("reasoning_effort", f"sent as {level or 'the default'}")
    return {} if level is None else {"thinkingLevel": level}


def _budget(reasoning: Reasoning, model: str, notes: Notes) -> Entry:
    if reasoning.off:
        if "pro" not in model:
            return {"thinkingBudget": 0}
        notes.add("reasoning_effort", "thinking cannot be switched off for this model")
        return {"thinkingBudget": 128}
    if reasoning.budget is not None:
        return {"thinkingBudget": reasoning.budget}
    return {"thinkingBudget": _BUDGETS[reasoning.effort]} if reasoning.effort in _BUDGETS else {}


_SETTINGS: Final = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "n": "candidateCount",
    "seed": "seed",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
}
MAX_STOPS: Final = 5


def _settings(config: Entry, request: ChatRequest, notes: Notes) -> None:
    for key, value in request.settings.items():
        if key in _SETTINGS:
            config[_SETTINGS[key]] = value
        elif key == "stop":
            words = [value] if isinstance(value, str) else value
            config["stopSequences"] = words[:MAX_STOPS]
            if len(words) > MAX_STOPS:
                notes.add("stop", f"only the first {MAX_STOPS} were kept")
        elif key == "logprobs":
            config["responseLogprobs"] = True
        elif key == "top_logprobs":
            config["logprobs"] = value
        else:
            notes.add(key, "not supported by Gemini")
    if request.user:
        notes.add("user", "not supported by Gemini")
