"""Bodies with something odd somewhere: every translation answers with an error of the gateway's, never with a fault."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from gateway.errors import DownstreamError, GatewayError, UpstreamError
from gateway.sse import FrameSplitter
from gateway.types import Operation, ResponseHead
from tests.recordings import select
from translators import mock
from translators.plan import FORMATS, SPOKEN, bind
from translators.providers import PROVIDERS

ODD: tuple[Any, ...] = (
    *(None, True, 0, -1, 1.5, 10**20),
    *("", "x", [], [None], ["x"], [[]]),
    *({}, {"x": None}, {"type": "x"}),
)
SUFFIXES = {
    Operation.CHAT: "chat/completions",
    Operation.MESSAGES: "/messages",
    Operation.RESPONSES: "/responses",
    Operation.EMBEDDINGS: "/embeddings",
}
BINDINGS = [
    (operation, name)
    for operation in SUFFIXES
    for name in ("openai", "anthropic", "gemini", "bedrock", "cohere", "ollama-native", "deepseek")
    if PROVIDERS[name].endpoint(operation) is not None
]


def dumps(tree: Any) -> bytes:
    """As JSON; orjson has no numbers beyond 64 bits."""
    return json.dumps(tree, ensure_ascii=False).encode()


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


def mutated(tree: Any, dice: random.Random) -> Any:
    """The tree with one or two of its values replaced or taken out."""
    tree = copy.deepcopy(tree)
    for _ in range(dice.randint(1, 2)):
        found = list(places(tree))
        if not found:
            break
        *way, last = dice.choice(found)
        node = tree
        for step in way:
            node = node[step]
        if dice.random() < 0.2:
            del node[last]
        else:
            node[last] = copy.deepcopy(dice.choice(ODD))
    return tree


def bodies(suffix: str, attribute: str, dice: random.Random, count: int) -> Iterator[Any]:
    recordings = [item for item in select(suffix=suffix) if item.status == 200 and item.request_body]
    for recording in dice.sample(recordings, count):
        source = recording.request_body if attribute == "request" else recording.response
        yield source


@pytest.mark.parametrize(("operation", "name"), BINDINGS, ids=[f"{operation}-{name}" for operation, name in BINDINGS])
def test_requests(operation: Operation, name: str) -> None:
    dice = random.Random(f"{operation}{name}")
    bridge = bind(operation, PROVIDERS[name])
    for source in bodies(SUFFIXES[operation], "request", dice, 10):
        for _ in range(6):
            body = dumps(mutated(source, dice))
            try:
                view = bridge.view(body)
                view.texts()
                bridge.request(body, view, model="claude-sonnet-4-5", replacements={0: "x"}, meter=True)
            except DownstreamError:
                pass
            except IndexError:
                assert not view.texts()  # there was nothing to replace


@pytest.mark.parametrize("name", ["openai", "anthropic", "gemini", "bedrock", "cohere", "ollama-native"])
def test_answers(name: str) -> None:
    """The provider answers with something odd: to any client that is a bad gateway, or an answer all the same."""
    dice = random.Random(name)
    suffixes = {
        "openai": "chat/completions",
        "anthropic": "/messages",
        "gemini": ":generateContent",
        "bedrock": "/converse",
        "cohere": "/v2/chat",
        "ollama-native": "/api/chat",
    }
    operation = Operation.MESSAGES if name == "openai" else Operation.CHAT
    for source in bodies(suffixes[name], "response", dice, 5):
        try:
            tree = orjson.loads(source)
        except orjson.JSONDecodeError:
            continue
        for _ in range(10):
            body = dumps(mutated(tree, dice))
            for asked in (operation, Operation.RESPONSES):
                if name == "openai" and asked is Operation.RESPONSES:
                    continue
                bridge = bind(asked, PROVIDERS[name])
                try:
                    answer = bridge.answer(body, "m")
                    assert bridge.read(answer) is not None
                    bridge.usage(answer)
                except UpstreamError:
                    pass
            bind(operation, PROVIDERS[name]).error(ResponseHead(400, b"", b""), body)


@pytest.mark.parametrize("name", ["openai", "anthropic", "gemini", "cohere"])
def test_streams(name: str) -> None:
    dice = random.Random(name)
    operation = Operation.MESSAGES if name == "openai" else Operation.CHAT
    suffixes = {"openai": "chat/completions", "anthropic": "/messages", "gemini": "Content", "cohere": "/v2/chat"}
    recordings = [item for item in select(suffix=suffixes[name]) if item.status == 200 and item.streams]
    for recording in dice.sample(recordings, 5):
        frames = FrameSplitter().feed(recording.response)
        for _ in range(6):
            at = dice.randrange(len(frames))
            head, _, data = frames[at].partition(b"{")
            try:
                odd = head + dumps(mutated(orjson.loads(b"{" + data), dice)) + b"\n\n"
            except orjson.JSONDecodeError:
                continue
            source = b"".join([*frames[:at], odd, *frames[at + 1 :]])
            translator = bind(operation, PROVIDERS[name]).stream("m", include_usage=True)
            try:
                translator.feed(source)
                translator.finish()
            except GatewayError:
                pass
            translator.answer()


@pytest.mark.parametrize("operation", SPOKEN)
def test_what_passes_is_read_however_odd(operation: Operation) -> None:
    """Taps and readers follow answers that are passed on as they are; they must never raise."""
    dice = random.Random(operation.value)
    format = FORMATS[SPOKEN[operation]]
    for source in bodies(SUFFIXES.get(operation, "completions"), "response", dice, 10):
        for frame in FrameSplitter().feed(source)[:20] or [b"data: %b\n\n" % source.replace(b"\n", b"")]:
            data = frame.partition(b"{")[2]
            try:
                tree = orjson.loads(b"{" + data)
            except orjson.JSONDecodeError:
                continue
            for _ in range(3):
                body = dumps(mutated(tree, dice))
                tap = format.tap()
                tap.feed(b"data: %b\n\n" % body)
                tap.answer()
                format.read(body)
                format.usage_of(body)


@pytest.mark.parametrize("operation", SUFFIXES)
def test_the_mock(operation: Operation) -> None:
    dice = random.Random(operation.value)
    for source in bodies(SUFFIXES[operation], "request", dice, 10):
        for _ in range(10):
            try:
                mock.respond(operation, dumps(mutated(source, dice)))
            except DownstreamError:
                pass
