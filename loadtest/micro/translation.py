"""What translating costs: a chat request of 1 KB into another dialect, its answer back, and one event of a stream.

The bars are 60 µs for a request and 15 µs for an event, Anthropic to OpenAI; the other direction is shown beside it.
The translations are those that a configuration's lanes have; nothing of the gateway around them is timed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from gateway.types import Operation
from translators.dialect import Translation
from translators.plan import bind
from translators.providers import row_of

TURNS: Final = 200
"""Requests in one round."""
EVENTS: Final = 500


class TranslationCase(NamedTuple):
    """One row: `run` gives the microseconds of one piece in one round; `gate` is in units, `budget` in µs."""

    name: str
    run: Callable[[], float]
    gate: float
    budget: float


_CHAT: Final = bind(Operation.CHAT, row_of("anthropic"), now=time.time)
_MESSAGES: Final = bind(Operation.MESSAGES, row_of("perplexity"), now=time.time)
_WORDS: Final = [{"role": "user" if turn % 2 == 0 else "assistant", "content": "word " * 60} for turn in range(3)]
_CHAT_BODY: Final = json.dumps(
    {"model": "m", "max_tokens": 500, "messages": [{"role": "system", "content": "You are helpful."}, *_WORDS]}
).encode()
_MESSAGES_BODY: Final = json.dumps(
    {"model": "m", "max_tokens": 500, "system": "You are helpful.", "messages": _WORDS}
).encode()
_CLAUDES_ANSWER: Final = json.dumps(
    {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5",
        "content": [{"type": "text", "text": "Hello " * 40}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 10, "output_tokens": 5},
    }
).encode()
_CLAUDES_START: Final = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_1","model":"claude-sonnet-4-5",'
    b'"usage":{"input_tokens":10,"output_tokens":1}}}\n\n'
    b"event: content_block_start\n"
    b'data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}\n\n'
)
_CLAUDES_EVENT: Final = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
    b'"delta":{"type":"text_delta","text":" word"}}\n\n'
)
_CHUNK: Final = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-4o",'
    b'"choices":[{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":null}],"usage":null}\n\n'
)


def _requests(translation: Translation, body: bytes) -> Callable[[], float]:
    def run() -> float:
        request, view = translation.request, translation.view
        began = time.thread_time()
        for _ in range(TURNS):
            request(body, view(body), model="claude-sonnet-4-5", replacements={}, meter=True)
        return (time.thread_time() - began) / TURNS * 1e6

    return run


def _answers(translation: Translation, body: bytes) -> Callable[[], float]:
    def run() -> float:
        began = time.thread_time()
        for _ in range(TURNS):
            translation.answer(body, "m")
        return (time.thread_time() - began) / TURNS * 1e6

    return run


def _events(translation: Translation, start: bytes, event: bytes) -> Callable[[], float]:
    def run() -> float:
        translator = translation.stream("m", include_usage=False)
        translator.feed(start)
        # Each read is an object of its own, as from a socket.
        reads = [bytes(bytearray(event)) for _ in range(EVENTS)]
        feed = translator.feed
        began = time.thread_time()
        for read in reads:
            feed(read)
        return (time.thread_time() - began) / EVENTS * 1e6

    return run


CASES: Final = (
    TranslationCase("1 KB chat request to Anthropic", _requests(_CHAT, _CHAT_BODY), 285, 60.0),
    TranslationCase("its answer to chat", _answers(_CHAT, _CLAUDES_ANSWER), 60, 60.0),
    TranslationCase("1 KB messages request to chat", _requests(_MESSAGES, _MESSAGES_BODY), 255, 60.0),
    TranslationCase("event, Anthropic to chat", _events(_CHAT, _CLAUDES_START, _CLAUDES_EVENT), 52, 15.0),
    TranslationCase("event, chat to Anthropic", _events(_MESSAGES, _CHUNK, _CHUNK), 75, 15.0),
)
