"""Policies that judge an answer by what it replies to: its request, the tools declared there, and the calls it "
"makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from tests.playbook import Play, configuration, target
from tests.provider import LAST_CHUNK, chunk, head, respond

Playbook = Callable[..., Play]

SSE_HEAD = head(200, ("content-type", "text/event-stream"), chunked=True)
DONE = b"data: [DONE]\n\n"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CHAT: dict[str, Any] = {
    "model": "gpt-test",
    "messages": [{"role": "user", "content": "[1] The bridge was opened in 1932.\n\nWhen was it opened?"}],
    "tools": [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}],
}


def error(body: bytes) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(body)["error"]
    return found


def answer(text: str | None = None, calls: list[tuple[str, str]] | None = None, reason: str = "stop") -> bytes:
    made = [
        {"id": name, "type": "function", "function": {"name": name, "arguments": said}} for name, said in calls or ()
    ]
    message = {"role": "assistant", "content": text, **({"tool_calls": made} if made else {})}
    return respond(orjson.dumps({"choices": [{"index": 0, "message": message, "finish_reason": reason}]}))


@pytest.fixture
def tools(playbook: Playbook) -> Play:
    return playbook(configuration(chain="audit-logger, tool-validation"))


def test_a_good_call_passes(tools: Play) -> None:
    tools.ask(CHAT)
    tools.provider().says(answer(calls=[("weather", '{"city": "Oslo"}')]))
    assert orjson.loads(tools.client.body)["choices"][0]["message"]["tool_calls"][0]["id"] == "weather"


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (("weather", '{"city": 1}'), "tool-validation.invalid-arguments"),
        (("weather", "{"), "tool-validation.not-json"),
        (("format_disk", "{}"), "tool-validation.undeclared"),
    ],
)
def test_a_bad_call_is_withheld(tools: Play, call: tuple[str, str], reason: str) -> None:
    tools.ask(CHAT)
    tools.provider().says(answer(calls=[call]))
    assert (error(tools.client.body)["code"], error(tools.client.body)["policy"]) == (
        "output_blocked",
        "tool-validation",
    )
    assert tools.finish()["decisions"][-1]["reason"] == reason


def test_a_bad_call_in_a_stream_ends_it_with_an_error(tools: Play) -> None:
    tools.ask({**CHAT, "stream": True})
    deltas = [
        {"index": 0, "function": {"name": "weather", "arguments": '{"city"'}},
        {"index": 0, "function": {"arguments": ": 7}"}},
    ]
    frames = [
        b"data: %b\n\n" % orjson.dumps({"choices": [{"index": 0, "delta": {"tool_calls": [delta]}}]})
        for delta in deltas
    ]
    tools.provider().says(SSE_HEAD, *map(chunk, frames), chunk(DONE) + LAST_CHUNK)
    last = tools.client.body.removeprefix(b"".join(frames))
    assert error(last.removeprefix(b"data: "))["policy"] == "tool-validation"
    assert DONE not in tools.client.body


def test_a_translated_answer(playbook: Playbook) -> None:
    text = configuration(target(provider="anthropic", model="gpt-test"), chain="tool-validation")
    play = playbook(text)
    play.ask(CHAT)
    block = {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": 7}}
    body = {
        "id": "m", "type": "message", "role": "assistant", "model": "c", "content": [block], "stop_reason": "tool_use",
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }  # fmt: skip
    play.provider().says(respond(orjson.dumps(body)))
    assert error(play.client.body)["policy"] == "tool-validation"


def test_citations_are_held_against_the_request(playbook: Playbook) -> None:
    play = playbook(configuration(chain="audit-logger, citation-verifier"))
    play.ask(CHAT)
    play.provider().says(answer("The bridge was opened in 1932 [1]."))
    play.work()
    assert "1932" in orjson.loads(play.client.body)["choices"][0]["message"]["content"]
    play.ask(CHAT)
    play.provider().says(answer("The bridge was opened in 1932 [2]."))
    play.work()
    assert error(play.client.body)["policy"] == "citation-verifier"


def test_the_end_of_an_answer_is_known(playbook: Playbook) -> None:
    play = playbook(configuration(policies="\n  quality-scorer: {}", chain="audit-logger, quality-scorer"))
    play.ask(CHAT)
    play.provider().says(answer("The bridge was", reason="length"))
    (decision,) = play.finish()["decisions"]
    assert decision["reason"] == "quality-scorer.cut-off"
    assert decision["verdict"] == "allow"


def test_a_long_request_is_compared_in_a_thread(playbook: Playbook) -> None:
    play = playbook(configuration(chain="audit-logger, citation-verifier"))
    sources = "[1] The bridge was opened in 1932. " + "And so on. " * 2000
    play.ask({**CHAT, "messages": [{"role": "user", "content": sources}]})
    play.provider().says(answer("The bridge was opened in 1932 [2]."))
    assert play.client.body == b""
    play.work()
    assert error(play.client.body)["policy"] == "citation-verifier"


REWRITES = "\n  response-rewriter: {rules: [{name: a, term: acme cloud, replacement: another}]}"


def contents(body: bytes) -> str:
    events = [frame.removeprefix(b"data: ") for frame in body.split(b"\n\n") if frame.startswith(b"data: {")]
    return "".join(orjson.loads(event)["choices"][0]["delta"].get("content", "") for event in events)


def test_a_stream_is_rewritten_as_it_flows(playbook: Playbook) -> None:
    play = playbook(configuration(policies=REWRITES, chain="response-rewriter"))
    play.ask({**CHAT, "stream": True})
    pieces = ["Use Ac", "me ", "Clo", "ud now", " or later."]
    frames = [
        b'data: {"id":"c","choices":[{"index":0,"delta":{"content":%b}}]}\n\n' % orjson.dumps(piece) for piece in pieces
    ]
    play.provider().says(SSE_HEAD, *map(chunk, frames[:4]))
    assert contents(play.client.body).startswith("Use another")
    play.provider().says(chunk(frames[4]), chunk(DONE) + LAST_CHUNK)
    assert contents(play.client.body) == "Use another now or later."
    assert play.client.body.endswith(DONE)


def test_a_notice_is_put_after_a_buffered_stream(playbook: Playbook) -> None:
    text = "\n  response-rewriter: {append: ' (by a machine)', streaming: buffer}"
    play = playbook(configuration(policies=text, chain="response-rewriter"))
    play.ask({**CHAT, "stream": True})
    frame = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"Hello"}}]}\n\n'
    play.provider().says(SSE_HEAD, chunk(frame), chunk(DONE) + LAST_CHUNK)
    assert contents(play.client.body) == "Hello (by a machine)"
    assert play.client.body.endswith(DONE)


def test_harm_is_refused_as_it_flows(playbook: Playbook) -> None:
    text = "\n  safety-filter: {phase: [output], streaming: guard}"
    play = playbook(configuration(policies=text, chain="safety-filter"))
    play.ask({**CHAT, "stream": True})
    pieces = ["Here is how to ki", "ll a person", ". First, " + "take a boat and row it. " * 10]
    frames = [
        b'data: {"id":"c","choices":[{"index":0,"delta":{"content":%b}}]}\n\n' % orjson.dumps(piece) for piece in pieces
    ]
    play.provider().says(SSE_HEAD, *map(chunk, frames))
    last = play.client.body.rpartition(b"data: ")[2]
    assert error(last)["policy"] == "safety-filter"
    assert "person" not in contents(play.client.body.rpartition(b"data: ")[0])
