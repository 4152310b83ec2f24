"""A provider that answers by itself, in OpenAI's formats and always the same for the same request.

It lets a chain be tried with no account and no network: what is sent comes back as text, a required tool is called with
arguments of the right shape, a response schema is filled, an embedding is made from a hash. Nothing here is random and
nothing depends on the clock; `created` is fixed and ids come from the request.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
import struct
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec
import orjson

from gateway.errors import InvalidRequest
from gateway.sse import frame_of
from gateway.types import Operation
from translators import schema_sample

CREATED: Final = 1_700_000_000
DEFAULT_DIMENSIONS: Final = 256
MAX_DIMENSIONS: Final = 4096
MAX_CHOICES: Final = 16
PACE: Final = "mock_gap_ms"
"""A request's `metadata` may name under this the milliseconds between two events of its stream."""
MAX_GAP_MS: Final = 1000
_FINGERPRINT: Final = "fp_mock"
_DONE: Final = b"data: [DONE]\n\n"
_JSON: Final = ((b"content-type", b"application/json"),)
_SSE: Final = ((b"content-type", b"text/event-stream; charset=utf-8"),)


class MockAnswer(msgspec.Struct, frozen=True):
    """One answer: a JSON body as the only frame, or a stream with one frame for each SSE event.

    `gap_seconds` is what the client asked to lie between two frames.
    """

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    frames: tuple[bytes, ...]
    gap_seconds: float = 0.0


def respond(operation: Operation, body: bytes) -> MockAnswer:
    """Answer a request. Raises InvalidRequest where a provider would answer 400."""
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise InvalidRequest("The request body is not valid JSON.") from None
    if not isinstance(request, dict):
        raise InvalidRequest("The request body must be a JSON object.")
    answer = _ANSWERS.get(operation)
    if answer is None:
        raise InvalidRequest(f"The mock provider does not offer {operation.value}.")
    try:
        return answer(request)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, struct.error) as error:
        raise InvalidRequest(f"The request has a field of the wrong type: {error}") from error


def _json(value: dict[str, Any]) -> MockAnswer:
    return MockAnswer(200, _JSON, (orjson.dumps(value),))


def _id(prefix: str, request: dict[str, Any]) -> str:
    return prefix + hashlib.sha256(orjson.dumps(request, option=orjson.OPT_SORT_KEYS)).hexdigest()[:24]


def _tokens(text: str) -> int:
    """A count that grows with the text as a tokeniser's would: a token for every four characters begun."""
    return (len(text) + 3) // 4


# --- chat ------------------------------------------------------------------------------------------------------------


class _Reply(msgspec.Struct, frozen=True):
    """What the mock says: text, or calls of tools, and why it stops."""

    text: str | None
    calls: tuple[dict[str, Any], ...] = ()
    finish_reason: str = "stop"


def _chat(request: dict[str, Any]) -> MockAnswer:
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InvalidRequest("`messages` must be a list with at least one message.", param="messages")
    reply = _reply(request, messages)
    usage = _chat_usage(request, reply)
    if request.get("stream") is True:
        return MockAnswer(200, _SSE, tuple(_chat_stream(request, reply, usage)), _gap(request))
    choice = {"message": _message(reply), "logprobs": None, "finish_reason": reply.finish_reason}
    return _json(
        {
            **_envelope(request, "chatcmpl-", "chat.completion"),
            "choices": [{"index": index, **choice} for index in range(_choices(request))],
            "usage": usage,
        }
    )


def _gap(request: dict[str, Any]) -> float:
    """Seconds between two events, where the client asks for a pace; metadata are texts, as OpenAI has them."""
    text = (request.get("metadata") or {}).get(PACE)
    if text is None:
        return 0.0
    if not isinstance(text, str) or not text.isdecimal() or int(text) > MAX_GAP_MS:
        raise InvalidRequest(f"`{PACE}` must be a text of digits, at most {MAX_GAP_MS}.", param=f"metadata.{PACE}")
    return int(text) / 1000


def _envelope(request: dict[str, Any], prefix: str, kind: str) -> dict[str, Any]:
    return {
        "id": _id(prefix, request),
        "object": kind,
        "created": CREATED,
        "model": request.get("model") or "mock",
        "system_fingerprint": _FINGERPRINT,
    }


def _choices(request: dict[str, Any]) -> int:
    n = request.get("n")
    if n is None:
        return 1
    if not isinstance(n, int) or not 1 <= n <= MAX_CHOICES:
        raise InvalidRequest(f"`n` must be a number from 1 to {MAX_CHOICES}.", param="n")
    return n


def _reply(request: dict[str, Any], messages: list[Any]) -> _Reply:
    tool = _tool_to_call(request, messages)
    if tool is not None:
        return _Reply(None, (_call(request, tool),), "tool_calls")
    schema = _response_schema(request)
    text = orjson.dumps(schema_sample.sample(schema)).decode() if schema is not None else _echo(messages)
    return _limited(text, request)


def _limited(text: str, request: dict[str, Any]) -> _Reply:
    """Cut at a stop sequence or at the token limit, as a model would be."""
    stop = request.get("stop")
    for word in [stop] if isinstance(stop, str) else stop or ():
        if isinstance(word, str) and word and word in text:
            text = text[: text.index(word)]
    limit = request.get("max_completion_tokens") or request.get("max_tokens")
    if isinstance(limit, int) and _tokens(text) > limit:
        return _Reply(text[: 4 * limit], finish_reason="length")
    return _Reply(text)


def _echo(messages: list[Any]) -> str:
    last = messages[-1] if isinstance(messages[-1], dict) else {}
    text = _content(last.get("content"))
    if last.get("role") == "tool":
        return f"The tool answered: {text}"
    return f"Mock answer to: {text}" if text else "Mock answer."


def _content(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return " ".join(part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str))


def _tool_to_call(request: dict[str, Any], messages: list[Any]) -> dict[str, Any] | None:
    """The tool that must be called: the one named, the first where one is required; none with `auto`.

    After a tool's result a mere `required` asks for nothing more, so that an agent's loop ends.
    """
    tools = [tool for tool in request.get("tools") or () if isinstance(tool, dict) and tool.get("type") == "function"]
    choice = request.get("tool_choice")
    if isinstance(choice, dict):
        wanted = (choice.get("function") or {}).get("name")
        return next((tool for tool in tools if tool["function"].get("name") == wanted), None)
    answered = isinstance(messages[-1], dict) and messages[-1].get("role") == "tool"
    return tools[0] if choice == "required" and tools and not answered else None


def _call(request: dict[str, Any], tool: dict[str, Any]) -> dict[str, Any]:
    function = tool["function"]
    arguments = schema_sample.sample(function.get("parameters") or {"type": "object"})
    return {
        "id": _id("call_", request),
        "type": "function",
        "function": {"name": function["name"], "arguments": orjson.dumps(arguments).decode()},
    }


def _response_schema(request: dict[str, Any]) -> dict[str, Any] | None:
    wanted = request.get("response_format")
    if not isinstance(wanted, dict):
        return None
    if wanted.get("type") == "json_object":
        return {"type": "object", "properties": {"answer": {"type": "string"}}}
    schema = (wanted.get("json_schema") or {}).get("schema")
    return schema if isinstance(schema, dict) else None


def _message(reply: _Reply) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": reply.text, "refusal": None, "annotations": []}
    if reply.calls:
        message["tool_calls"] = list(reply.calls)
    return message


def _chat_usage(request: dict[str, Any], reply: _Reply) -> dict[str, Any]:
    prompt = _tokens(orjson.dumps([request.get("messages"), request.get("tools")]).decode())
    completion = _tokens(reply.text or orjson.dumps(reply.calls).decode()) * _choices(request)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def _chat_stream(request: dict[str, Any], reply: _Reply, usage: dict[str, Any]) -> Iterator[bytes]:
    options = request.get("stream_options")
    counted = isinstance(options, dict) and options.get("include_usage") is True
    base = _envelope(request, "chatcmpl-", "chat.completion.chunk")

    def chunk(choices: list[dict[str, Any]], **more: Any) -> bytes:
        return frame_of(orjson.dumps({**base, "choices": choices, **({"usage": None} if counted else {}), **more}))

    for delta, reason in _deltas(reply):
        for index in range(_choices(request)):
            yield chunk([{"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}])
    if counted:
        yield chunk([], usage=usage)
    yield _DONE


def _deltas(reply: _Reply) -> Iterator[tuple[dict[str, Any], str | None]]:
    opening = {"role": "assistant", "content": None if reply.calls else "", "refusal": None}
    yield opening, None
    for word in _words(reply.text or ""):
        yield {"content": word}, None
    for index, call in enumerate(reply.calls):
        function = call["function"]
        yield {"tool_calls": [{"index": index, **call, "function": {**function, "arguments": ""}}]}, None
        for piece in _pieces(function["arguments"]):
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}, None
    yield {}, reply.finish_reason


_WORD: Final = re.compile(r"\s*\S+|\s+\Z")


def _words(text: str) -> list[str]:
    return _WORD.findall(text)


def _pieces(text: str) -> list[str]:
    return [text[at : at + 8] for at in range(0, len(text), 8)]


# --- embeddings ------------------------------------------------------------------------------------------------------


def _embeddings(request: dict[str, Any]) -> MockAnswer:
    inputs = _inputs(request.get("input"))
    dimensions = request.get("dimensions", DEFAULT_DIMENSIONS)
    if not isinstance(dimensions, int) or not 1 <= dimensions <= MAX_DIMENSIONS:
        raise InvalidRequest(f"`dimensions` must be a number from 1 to {MAX_DIMENSIONS}.", param="dimensions")
    encode = _base64 if request.get("encoding_format") == "base64" else list
    data = [
        {"object": "embedding", "index": index, "embedding": encode(_vector(item, dimensions))}
        for index, item in enumerate(inputs)
    ]
    tokens = sum(_tokens(item) if isinstance(item, str) else len(item) for item in inputs)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return _json({"object": "list", "data": data, "model": request.get("model") or "mock", "usage": usage})


def _inputs(value: Any) -> list[Any]:
    """The inputs one by one: a text each, or a list of token ids each."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value:
        return [value] if isinstance(value[0], int) else value
    raise InvalidRequest("`input` must be a text, or a list of texts or of token ids.", param="input")


def _vector(item: Any, dimensions: int) -> list[float]:
    """A unit vector from a hash of the input: equal inputs agree, others do not."""
    noise = hashlib.shake_256(orjson.dumps(item)).digest(4 * dimensions)
    values = [number / 2**31 for number in struct.unpack(f"<{dimensions}i", noise)]
    length = math.sqrt(sum(value * value for value in values)) or 1.0
    return [value / length for value in values]


def _base64(vector: list[float]) -> str:
    """Little-endian float32, as OpenAI sends them."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


# --- the others ------------------------------------------------------------------------------------------------------


def _completions(request: dict[str, Any]) -> MockAnswer:
    prompts = _inputs(request.get("prompt", ""))
    replies = [_limited(f"Mock answer to: {prompt}", request) for prompt in prompts for _ in range(_choices(request))]
    prompt = sum(_tokens(str(item)) for item in prompts)
    completion = sum(_tokens(reply.text or "") for reply in replies)
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    base = _envelope(request, "cmpl-", "text_completion")
    if request.get("stream") is True:
        return MockAnswer(200, _SSE, tuple(_completions_stream(request, base, replies, usage)))
    choices = [
        {"index": index, "text": reply.text, "logprobs": None, "finish_reason": reply.finish_reason}
        for index, reply in enumerate(replies)
    ]
    return _json({**base, "choices": choices, "usage": usage})


def _completions_stream(
    request: dict[str, Any], base: dict[str, Any], replies: list[_Reply], usage: dict[str, Any]
) -> Iterator[bytes]:
    for index, reply in enumerate(replies):
        steps: list[tuple[str, str | None]] = [(word, None) for word in _words(reply.text or "")]
        for text, reason in [*steps, ("", reply.finish_reason)]:
            choice = {"index": index, "text": text, "logprobs": None, "finish_reason": reason}
            yield frame_of(orjson.dumps({**base, "choices": [choice]}))
    options = request.get("stream_options")
    if isinstance(options, dict) and options.get("include_usage") is True:
        yield frame_of(orjson.dumps({**base, "choices": [], "usage": usage}))
    yield _DONE


_CATEGORIES: Final = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)


def _moderations(request: dict[str, Any]) -> MockAnswer:
    """Nothing is ever flagged."""
    inputs = _inputs(request.get("input"))
    result = {
        "flagged": False,
        "categories": dict.fromkeys(_CATEGORIES, False),
        "category_scores": dict.fromkeys(_CATEGORIES, 0.0),
        "category_applied_input_types": {category: ["text"] for category in _CATEGORIES},
    }
    model = request.get("model") or "mock"
    return _json({"id": _id("modr-", request), "model": model, "results": [result for _ in inputs]})


def _responses(request: dict[str, Any]) -> MockAnswer:
    response = _response(request)
    if request.get("stream") is not True:
        return _json(response)
    events = _response_events(response)
    frames = [
        frame_of(orjson.dumps({"type": kind, "sequence_number": number, **fields}), kind.encode())
        for number, (kind, fields) in enumerate(events)
    ]
    return MockAnswer(200, _SSE, tuple(frames))


def _response(request: dict[str, Any]) -> dict[str, Any]:
    value = request.get("input")
    messages = [{"role": "user", "content": value}] if isinstance(value, str) else value
    if not isinstance(messages, list) or not messages:
        raise InvalidRequest("`input` must be a text or a list of items.", param="input")
    text = _limited(_echo(messages), {"max_tokens": request.get("max_output_tokens")})
    part: dict[str, Any] = {"type": "output_text", "text": text.text, "annotations": [], "logprobs": []}
    item = {
        "id": _id("msg_", request),
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": [part],
    }
    cut = text.finish_reason == "length"
    prompt, completion = _tokens(orjson.dumps(messages).decode()), _tokens(text.text or "")
    return {
        "id": _id("resp_", request),
        "object": "response",
        "created_at": CREATED,
        "status": "incomplete" if cut else "completed",
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "instructions": request.get("instructions"),
        "max_output_tokens": request.get("max_output_tokens"),
        "metadata": request.get("metadata") or {},
        "model": request.get("model") or "mock",
        "output": [item],
        "parallel_tool_calls": request.get("parallel_tool_calls", True),
        "previous_response_id": request.get("previous_response_id"),
        "reasoning": {"effort": None, "summary": None},
        "store": request.get("store", True),
        "temperature": request.get("temperature", 1.0),
        "text": request.get("text") or {"format": {"type": "text"}},
        "tool_choice": request.get("tool_choice", "auto"),
        "tools": request.get("tools") or [],
        "top_p": request.get("top_p", 1.0),
        "truncation": "disabled",
        "usage": {
            "input_tokens": prompt,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": completion,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": prompt + completion,
        },
    }


def _response_events(response: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    item = response["output"][0]
    part: dict[str, Any] = item["content"][0]
    begun = {**response, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
    place = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    yield "response.created", {"response": begun}
    yield "response.in_progress", {"response": begun}
    opening = {**item, "status": "in_progress", "content": []}
    yield "response.output_item.added", {"output_index": 0, "item": opening}
    yield "response.content_part.added", {**place, "part": {**part, "text": ""}}
    for word in _words(part["text"]):
        yield "response.output_text.delta", {**place, "delta": word, "logprobs": []}
    yield "response.output_text.done", {**place, "text": part["text"], "logprobs": []}
    yield "response.content_part.done", {**place, "part": part}
    yield "response.output_item.done", {"output_index": 0, "item": item}
    yield f"response.{response['status']}", {"response": response}


_ANSWERS: Final[dict[Operation, Callable[[dict[str, Any]], MockAnswer]]] = {
    Operation.CHAT: _chat,
    Operation.COMPLETIONS: _completions,
    Operation.EMBEDDINGS: _embeddings,
    Operation.MODERATIONS: _moderations,
    Operation.RESPONSES: _responses,
}
