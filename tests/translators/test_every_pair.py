"""Every dialect and every provider's row, through the same scene.

A client has tools, a conversation with a call behind it, and asks for a stream; the model says "One moment." and calls
a tool. `fixtures/dialects/<dialect>` tells the scene in each format: as a client asks (`client.json`) and is answered
(`client.sse`), as a provider is asked (`upstream.json`) and answers (`upstream.sse`, or its own kind of stream). So
each pair is judged by files that know nothing of it: whoever asks, the provider gets the same request, and whoever
answers, the client has the same in the end, in the same turns.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.errors import UpstreamInvalid
from gateway.sse import FrameSplitter, data_of
from gateway.types import Operation
from translators.bridge import Bridge
from translators.dialect import Translated
from translators.event_stream import MessageSplitter
from translators.plan import FORMATS, INBOUND, OUTBOUND, SPOKEN, bind
from translators.providers import PROVIDERS, Endpoint, Provider, row_of, upstream_of

FOLDER = Path(__file__).parent.parent / "fixtures" / "dialects"
CREATED = 1_700_000_000
CHATS = [name for name in INBOUND if name != "openai_completions"]
PAIRS = [(client, provider) for client in INBOUND for provider in OUTBOUND if client != provider]
REFERENCE = {name: "anthropic_messages" if name != "anthropic_messages" else "openai_chat" for name in INBOUND}
"""Whose stream is behind a `client.sse`."""


@cache
def fixture(dialect: str, name: str) -> bytes:
    """A file of a dialect; a stream may have an ending of its own."""
    (path,) = (FOLDER / dialect).glob(name)
    return path.read_bytes()


def bridge(client: str, provider: str) -> Bridge:
    row = Provider("scene", {Operation.CHAT: Endpoint(provider, "/")})
    return Bridge(INBOUND[client], OUTBOUND[provider], row, lambda: CREATED)


def asked(client: str, provider: str) -> Translated:
    pair, body = bridge(client, provider), fixture(client, "client.json")
    return pair.request(body, pair.view(body), model="model-1", replacements={}, meter=True)


def events(provider: str) -> list[bytes]:
    """A provider's stream, event by event, as it stands on the wire."""
    stream = fixture(provider, "upstream.[!j]*")
    if provider == "ollama_chat":
        return stream.splitlines(keepends=True)
    if provider == "bedrock_converse":
        return list(_messages(stream))
    return FrameSplitter().feed(stream)


def _messages(stream: bytes) -> Iterator[bytes]:
    while stream:
        size = int.from_bytes(stream[:4], "big")
        assert len(list(MessageSplitter().feed(stream[:size]))) == 1
        yield stream[:size]
        stream = stream[size:]


def played(client: str, provider: str, pieces: Iterable[bytes]) -> list[bytes]:
    """What the client gets for each piece, and at the end."""
    pair = bridge(client, provider)
    view = pair.view(fixture(client, "client.json"))
    carried = asked(client, provider).carried
    translator = pair.stream("scene", include_usage=view.include_usage, carried=carried)
    out = [translator.feed(piece) for piece in pieces]
    return [*out, translator.finish()]


class Meaning(msgspec.Struct):
    """What a client has at the end of its stream."""

    text: str = ""
    call: tuple[str, str, str] = ("", "", "")
    """Id, name and arguments."""
    finish: str = ""
    tokens: tuple[int, int] = (0, 0)


def _datas(stream: bytes) -> Iterator[Any]:
    for frame in FrameSplitter().feed(stream):
        data = data_of(frame)
        if data is not None and data != b"[DONE]":
            yield json.loads(data)


def chat_meaning(stream: bytes) -> Meaning:
    found = Meaning()
    for chunk in _datas(stream):
        if chunk.get("usage"):
            found.tokens = chunk["usage"]["prompt_tokens"], chunk["usage"]["completion_tokens"]
        for choice in chunk["choices"]:
            found.finish = choice["finish_reason"] or found.finish
            delta = choice.get("delta", {})
            found.text += delta.get("content") or choice.get("text") or ""
            for call in delta.get("tool_calls", ()):
                call_id, name, arguments = found.call
                function = call["function"]
                found.call = (call.get("id", call_id), function.get("name", name), arguments + function["arguments"])
    return found


def messages_meaning(stream: bytes) -> Meaning:
    found = Meaning()
    for event in _datas(stream):
        block, delta = event.get("content_block", {}), event.get("delta", {})
        if block.get("type") == "tool_use":
            found.call = block["id"], block["name"], ""
        found.text += delta.get("text", "")
        if "partial_json" in delta:
            found.call = (*found.call[:2], found.call[2] + delta["partial_json"])
        if event["type"] == "message_delta":
            usage = event["usage"]
            found.finish = {"tool_use": "tool_calls", "end_turn": "stop"}[delta["stop_reason"]]
            found.tokens = usage["input_tokens"] + usage["cache_read_input_tokens"], usage["output_tokens"]
    return found


def responses_meaning(stream: bytes) -> Meaning:
    found = Meaning()
    for event in _datas(stream):
        if event["type"] == "response.output_text.delta":
            found.text += event["delta"]
        elif event["type"] == "response.completed":
            (call,) = (item for item in event["response"]["output"] if item["type"] == "function_call")
            usage = event["response"]["usage"]
            found.call = call["call_id"], call["name"], call["arguments"]
            found.finish = "tool_calls"
            found.tokens = usage["input_tokens"], usage["output_tokens"]
    return found


MEANINGS = {
    "anthropic_messages": messages_meaning,
    "openai_chat": chat_meaning,
    "openai_completions": chat_meaning,
    "openai_responses": responses_meaning,
}
SCENE = Meaning("One moment.", ("call_1", "get_weather", '{"city":"Zurich"}'), "tool_calls", (100, 20))
WORDS = Meaning("One moment.", finish="stop", tokens=(100, 20))
"""A completion tells of no call."""


def expected(client: str) -> Meaning:
    return WORDS if client == "openai_completions" else SCENE


def test_every_dialect_has_its_fixtures() -> None:
    assert {path.name for path in FOLDER.iterdir()} == INBOUND.keys() | OUTBOUND.keys()


class TestDialects:
    @pytest.mark.parametrize(("client", "provider"), [pair for pair in PAIRS if pair[0] in CHATS])
    def test_whoever_asks_the_provider_gets_the_same(self, client: str, provider: str) -> None:
        assert json.loads(asked(client, provider).body) == json.loads(fixture(provider, "upstream.json"))

    @pytest.mark.parametrize("client", INBOUND)
    def test_a_client_gets_its_stream_to_the_byte(self, client: str) -> None:
        stream = fixture(REFERENCE[client], "upstream.sse")
        assert b"".join(played(client, REFERENCE[client], [stream])) == fixture(client, "client.sse")

    @pytest.mark.parametrize(("client", "provider"), PAIRS)
    def test_whoever_answers_the_client_has_the_same(self, client: str, provider: str) -> None:
        assert MEANINGS[client](b"".join(played(client, provider, events(provider)))) == expected(client)

    @pytest.mark.parametrize(("client", "provider"), PAIRS)
    def test_one_event_in_its_frames_out(self, client: str, provider: str) -> None:
        """Nothing that the provider has said waits for what it says next."""
        given = events(provider)
        out = played(client, provider, given)
        marks = [b"One ", b"moment."] if client == "openai_completions" else [b"One ", b"moment.", b"Zurich"]
        for mark in marks:
            first = next(index for index, event in enumerate(given) if mark in event)
            assert next(index for index, frames in enumerate(out) if mark in frames) == first
        assert all(frames.endswith(b"\n\n") for frames in out if frames)

    @pytest.mark.parametrize(("client", "provider"), PAIRS)
    def test_T1_cut_at_every_byte(self, client: str, provider: str) -> None:
        stream = b"".join(events(provider))
        singly = played(client, provider, [stream[at : at + 1] for at in range(len(stream))])
        assert b"".join(singly) == b"".join(played(client, provider, [stream]))

    @pytest.mark.parametrize(("client", "provider"), PAIRS)
    def test_T1_cut_in_two(self, client: str, provider: str) -> None:
        stream = b"".join(events(provider))
        whole = b"".join(played(client, provider, [stream]))
        edges = [sum(len(event) for event in events(provider)[:count]) for count in range(1, len(events(provider)))]
        for edge in edges:
            for at in (edge - 1, edge, edge + 1, edge + 7):
                assert b"".join(played(client, provider, [stream[:at], stream[at:]])) == whole

    @pytest.mark.parametrize(("client", "provider"), PAIRS)
    def test_B20_a_stream_that_breaks_has_no_end_mark(self, client: str, provider: str) -> None:
        given = events(provider)
        half = next(index for index, event in enumerate(given) if b"moment." in event) + 1
        with pytest.raises(UpstreamInvalid):
            played(client, provider, given[:half])


CLIENTS = {Operation(operation): dialect for operation, dialect in SPOKEN.items() if dialect in INBOUND}
ROWS = [(name, operation, api) for name in PROVIDERS for operation in CLIENTS for api in (None, "chat", "responses")]


def has(name: str, api: str | None) -> bool:
    return api is None or Operation(api) in PROVIDERS[name].endpoints


class TestRows:
    """Whatever a client speaks, every provider is reached and understood."""

    @pytest.mark.parametrize(("name", "operation", "api"), [row for row in ROWS if has(row[0], row[2])])
    def test_the_scene(self, name: str, operation: Operation, api: str | None) -> None:
        row, client = row_of(name, api), CLIENTS[operation]
        endpoint = row.endpoint(operation)
        assert endpoint is not None
        address = row.base_url or "https://host.example"
        assert upstream_of(row, base_url=address, model="model-1").path(operation, stream=True).startswith("/")
        translation = bind(operation, row, now=lambda: CREATED)
        body = fixture(client, "client.json")
        view = translation.view(body)
        made = translation.request(body, view, model="model-1", replacements={}, meter=True)
        if translation.identity:
            assert endpoint.dialect == client
            assert json.loads(made.body)["model"] == "model-1"
            assert tapped(client, FrameSplitter().feed(fixture(client, "client.sse"))) == expected(client).tokens
            return
        sent = json.loads(made.body)
        told = json.loads(fixture(endpoint.dialect, "upstream.json"))
        # What a row refuses or takes is its own; the conversation is the dialect's.
        conversation = {"messages", "contents", "input", "system", "systemInstruction", "tools", "toolConfig"}
        if client in CHATS:
            assert {key: sent.get(key) for key in conversation} == {key: told.get(key) for key in conversation}
        translator = translation.stream("scene", include_usage=view.include_usage, carried=made.carried)
        out = b"".join([translator.feed(event) for event in events(endpoint.dialect)]) + translator.finish()
        assert MEANINGS[client](out) == expected(client)
        assert translator.usage is not None
        assert (translator.usage.prompt, translator.usage.completion) == SCENE.tokens


def tapped(client: str, frames: Sequence[bytes]) -> tuple[int, int]:
    """The usage that is read where a stream only passes."""
    tap = FORMATS[client].tap()
    for frame in frames:
        tap.feed(frame)
    assert tap.usage is not None
    return tap.usage.prompt, tap.usage.completion
