"""One server that answers in the own format of every chat provider: what the other end of each translation is.

A request that declares tools and brings no tool's result is answered with a call of `get_weather`; any other with the
text `text_of(provider)`. Shapes are those of the providers' references, as in `tests/fixtures/recordings`. What a
client asked is kept, so that a test can see that nothing but a translation was made.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from zlib import crc32

from aiohttp import web

CITY = {"city": "Paris"}
Body = dict[str, Any]


def text_of(provider: str) -> str:
    """What a provider says; with letters of two to four bytes, so that a cut or a wrong length would show."""
    return f"Grüße, 世界 🦜 from {provider}"


def words(provider: str) -> list[str]:
    """The same in the pieces of a stream."""
    return [f"{word} " for word in text_of(provider).split(" ")[:-1]] + [provider]


def _sse(*events: Body, named: bool = False, end: str = "") -> list[bytes]:
    lines = [f"event: {one['type']}\n" if named else "" for one in events]
    return [f"{name}data: {json.dumps(one)}\n\n".encode() for name, one in zip(lines, events, strict=True)] + (
        [end.encode()] if end else []
    )


def _wants_tool(asked: Body, results: str) -> bool:
    return bool(asked.get("tools") or asked.get("toolConfig")) and results not in json.dumps(asked)


# One function for each format: from the request to the whole answer, or to the pieces of a stream.


def openai(asked: Body, stream: bool) -> Body | list[bytes]:
    """https://platform.openai.com/docs/api-reference/chat"""
    frame = {"id": "chatcmpl-1", "created": 1, "model": "m"}
    usage = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
    calls = _wants_tool(asked, '"tool_call_id"')
    function = {"name": "get_weather", "arguments": json.dumps(CITY)}
    call = {"id": "call_1", "type": "function", "function": function}
    reason = "tool_calls" if calls else "stop"
    if not stream:
        message = {"role": "assistant", "content": None if calls else text_of("openai")}
        choice = {
            "index": 0,
            "finish_reason": reason,
            "message": {**message, **({"tool_calls": [call]} if calls else {})},
        }
        return {**frame, "object": "chat.completion", "choices": [choice], "usage": usage}
    deltas: list[Body] = [{"role": "assistant", "content": ""}]
    if calls:
        deltas += [{"tool_calls": [{"index": 0, **call, "function": {**function, "arguments": ""}}]}]
        deltas += [
            {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} for piece in ('{"city"', ': "Paris"}')
        ]
    else:
        deltas += [{"content": word} for word in words("openai")]
    chunk = {**frame, "object": "chat.completion.chunk"}
    events = [{**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    events.append({**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
    if (asked.get("stream_options") or {}).get("include_usage"):
        events.append({**chunk, "choices": [], "usage": usage})
    return _sse(*events, end="data: [DONE]\n\n")


def openai_responses(asked: Body, stream: bool) -> Body | list[bytes]:
    """https://platform.openai.com/docs/api-reference/responses"""
    usage = {"input_tokens": 7, "output_tokens": 5, "total_tokens": 12}
    usage |= {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
    content = {"type": "output_text", "text": text_of("openai"), "annotations": []}
    item = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [content]}
    frame = {"id": "resp_1", "object": "response", "created_at": 1, "model": "m", "parallel_tool_calls": True}
    frame |= {"tools": [], "tool_choice": "auto", "status": "completed", "output": [item], "usage": usage}
    if not stream:
        return frame
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    deltas = [{"type": "response.output_text.delta", **place, "delta": word} for word in words("openai")]
    begun = {"type": "response.created", "response": {**frame, "status": "in_progress", "output": []}}
    events = [begun, *deltas, {"type": "response.completed", "response": frame}]
    return _sse(*({**one, "sequence_number": number} for number, one in enumerate(events)), named=True)


def anthropic(asked: Body, stream: bool) -> Body | list[bytes]:
    """https://docs.anthropic.com/en/api/messages"""
    calls = _wants_tool(asked, '"tool_result"')
    reason = "tool_use" if calls else "end_turn"
    frame = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m"}
    if not stream:
        tool = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": CITY}
        content = [tool if calls else {"type": "text", "text": text_of("anthropic")}]
        usage = {"input_tokens": 7, "output_tokens": 5}
        return {**frame, "content": content, "stop_reason": reason, "stop_sequence": None, "usage": usage}
    block: Body = {"type": "text", "text": ""}
    deltas: list[Body] = [{"type": "text_delta", "text": word} for word in words("anthropic")]
    if calls:
        block = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {}}
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ("", '{"city"', ': "Paris"}')]
    start = {**frame, "content": [], "stop_reason": None, "stop_sequence": None}
    return _sse(
        {"type": "message_start", "message": {**start, "usage": {"input_tokens": 7, "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "ping"},
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": reason, "stop_sequence": None},
            "usage": {"output_tokens": 5},
        },
        {"type": "message_stop"},
        named=True,
    )


def gemini(asked: Body, stream: bool) -> Body | list[bytes]:
    """https://ai.google.dev/api/generate-content"""
    usage = {"promptTokenCount": 7, "candidatesTokenCount": 5, "totalTokenCount": 12}
    call = {"functionCall": {"name": "get_weather", "args": CITY}}

    def answer(part: Body, reason: str | None = "STOP") -> Body:
        candidate = {"content": {"role": "model", "parts": [part]}, "index": 0}
        return {
            "candidates": [{**candidate, **({"finishReason": reason} if reason else {})}],
            "usageMetadata": usage,
            "modelVersion": "m",
            "responseId": "r",
        }

    calls = _wants_tool(asked, '"functionResponse"')
    if not stream:
        return answer(call if calls else {"text": text_of("gemini")})
    if calls:
        return _sse(answer(call))
    *most, last = words("gemini")
    return _sse(*(answer({"text": word}, None) for word in most), answer({"text": last}))


def bedrock(asked: Body, stream: bool) -> Body | list[bytes]:
    """https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html"""
    calls = _wants_tool(asked, '"toolResult"')
    reason = "tool_use" if calls else "end_turn"
    usage = {"inputTokens": 7, "outputTokens": 5, "totalTokens": 12}
    if not stream:
        tool = {"toolUse": {"toolUseId": "tooluse_1", "name": "get_weather", "input": CITY}}
        content = [tool if calls else {"text": text_of("bedrock")}]
        message = {"message": {"role": "assistant", "content": content}}
        return {"output": message, "stopReason": reason, "usage": usage, "metrics": {"latencyMs": 1}}
    pieces = [_event("messageStart", {"role": "assistant"})]
    deltas: list[Body] = [{"text": word} for word in words("bedrock")]
    if calls:
        start = {"toolUse": {"toolUseId": "tooluse_1", "name": "get_weather"}}
        pieces.append(_event("contentBlockStart", {"contentBlockIndex": 0, "start": start}))
        deltas = [{"toolUse": {"input": piece}} for piece in ('{"city"', ': "Paris"}')]
    pieces += [_event("contentBlockDelta", {"contentBlockIndex": 0, "delta": delta}) for delta in deltas]
    pieces.append(_event("contentBlockStop", {"contentBlockIndex": 0}))
    pieces.append(_event("messageStop", {"stopReason": reason}))
    pieces.append(_event("metadata", {"usage": usage, "metrics": {"latencyMs": 1}}))
    return pieces


def _event(kind: str, payload: Body) -> bytes:
    """https://docs.aws.amazon.com/transcribe/latest/dg/streaming-setting-up.html#streaming-event-stream"""
    body = json.dumps(payload).encode()
    headers = b"".join(
        struct.pack("!B", len(name)) + name.encode() + struct.pack("!BH", 7, len(value)) + value.encode()
        for name, value in {
            ":event-type": kind,
            ":content-type": "application/json",
            ":message-type": "event",
        }.items()
    )
    prelude = struct.pack("!II", 16 + len(headers) + len(body), len(headers))
    message = prelude + struct.pack("!I", crc32(prelude)) + headers + body
    return message + struct.pack("!I", crc32(message))


def cohere(asked: Body, stream: bool) -> Body | list[bytes]:
    """https://docs.cohere.com/reference/chat"""
    calls = _wants_tool(asked, '"role": "tool"')
    reason = "TOOL_CALL" if calls else "COMPLETE"
    usage = {"billed_units": {"input_tokens": 7, "output_tokens": 5}, "tokens": {"input_tokens": 7, "output_tokens": 5}}
    function = {"name": "get_weather", "arguments": json.dumps(CITY)}
    call = {"id": "call_1", "type": "function", "function": function}
    if not stream:
        message: Body = {"role": "assistant"}
        message |= {"tool_calls": [call]} if calls else {"content": [{"type": "text", "text": text_of("cohere")}]}
        return {"id": "c", "finish_reason": reason, "message": message, "usage": usage}
    if calls:
        parts: list[Body] = [
            {
                "type": "tool-call-start",
                "index": 0,
                "delta": {"message": {"tool_calls": {**call, "function": {"name": "get_weather", "arguments": ""}}}},
            },
            *(
                {
                    "type": "tool-call-delta",
                    "index": 0,
                    "delta": {"message": {"tool_calls": {"function": {"arguments": piece}}}},
                }
                for piece in ('{"city"', ': "Paris"}')
            ),
            {"type": "tool-call-end", "index": 0},
        ]
    else:
        begin = {"message": {"content": {"type": "text", "text": ""}}}
        parts = [
            {"type": "content-start", "index": 0, "delta": begin},
            *(
                {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": word}}}}
                for word in words("cohere")
            ),
            {"type": "content-end", "index": 0},
        ]
    return _sse(
        {"type": "message-start", "id": "c", "delta": {"message": {"role": "assistant"}}},
        *parts,
        {"type": "message-end", "delta": {"finish_reason": reason, "usage": usage}},
        named=True,
    )


def ollama(asked: Body, stream: bool) -> Body | list[bytes]:
    """https://github.com/ollama/ollama/blob/main/docs/api.md#generate-a-chat-completion"""
    frame = {"model": "m", "created_at": "2026-01-01T00:00:00Z"}
    end = {"done": True, "done_reason": "stop", "prompt_eval_count": 7, "eval_count": 5, "total_duration": 1}
    call = {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"function": {"name": "get_weather", "arguments": CITY}}],
    }
    calls = _wants_tool(asked, '"role": "tool"')
    if not stream:
        return {**frame, "message": call if calls else {"role": "assistant", "content": text_of("ollama")}, **end}
    messages = [call] if calls else [{"role": "assistant", "content": word} for word in words("ollama")]
    lines = [{**frame, "message": message, "done": False} for message in messages]
    lines.append({**frame, "message": {"role": "assistant", "content": ""}, **end})
    return [json.dumps(line).encode() + b"\n" for line in lines]


Format = Callable[[Body, bool], "Body | list[bytes]"]
FORMATS: dict[str, Format] = {
    "openai": openai,
    "anthropic": anthropic,
    "gemini": gemini,
    "bedrock": bedrock,
    "cohere": cohere,
    "ollama": ollama,
}
_MEDIA = {"bedrock": "application/vnd.amazon.eventstream", "ollama": "application/x-ndjson"}


async def _serve(request: web.Request) -> web.StreamResponse:
    provider = request.match_info["provider"]
    asked = await request.json()
    path = request.path
    stream = bool(asked.get("stream")) or "stream" in path.rpartition("/")[2].lower()
    if "provider-error" in json.dumps(asked):
        return web.json_response(_ERRORS[provider], status=429, headers={"retry-after": "7"})
    answer = (openai_responses if path.endswith("/responses") else FORMATS[provider])(asked, stream)
    if not isinstance(answer, list):
        return web.json_response(answer)
    response = web.StreamResponse(headers={"content-type": _MEDIA.get(provider, "text/event-stream")})
    await response.prepare(request)
    for piece in answer:
        await response.write(piece)
    await response.write_eof()
    return response


_ERRORS: dict[str, Body] = {
    "openai": {"error": {"message": "slow down", "type": "requests", "param": None, "code": "rate_limit_exceeded"}},
    "anthropic": {"type": "error", "error": {"type": "rate_limit_error", "message": "slow down"}},
    "gemini": {"error": {"code": 429, "message": "slow down", "status": "RESOURCE_EXHAUSTED"}},
    "bedrock": {"message": "slow down"},
    "cohere": {"message": "slow down"},
    "ollama": {"error": "slow down"},
}


@contextlib.contextmanager
def running() -> Iterator[str]:
    """The server in a thread of its own, until the block ends; gives its URL, to which `/<provider>` is added."""
    started = threading.Event()
    stop: list[Callable[[], object]] = []
    urls: list[str] = []

    async def serve() -> None:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        stop.append(lambda: loop.call_soon_threadsafe(ended.set))
        async with _site() as url:
            urls.append(url)
            started.set()
            await ended.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    assert started.wait(20), "the provider did not start"
    try:
        yield urls[0]
    finally:
        stop[0]()
        thread.join(20)


@contextlib.asynccontextmanager
async def _site() -> AsyncIterator[str]:
    application = web.Application()
    application.router.add_post("/{provider}/{path:.*}", _serve)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
