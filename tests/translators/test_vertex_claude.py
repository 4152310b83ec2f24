"""Claude on Vertex AI: Anthropic's requests with two fields moved, and nothing else changed."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.errors import Wire
from gateway.types import Operation
from tests.recordings import Recording, select
from translators.plan import bind
from translators.providers import PROVIDERS, VERTEX_CLAUDE

MESSAGES = bind(Operation.MESSAGES, VERTEX_CLAUDE)
RECORDED = select("anthropic", suffix="/messages")


def sent(body: bytes, replacements: dict[int, str] | None = None) -> bytes:
    view = MESSAGES.view(body)
    return MESSAGES.request(body, view, model="up", replacements=replacements or {}, meter=True).body


@pytest.mark.parametrize("recording", RECORDED, ids=str)
def test_every_recorded_request(recording: Recording) -> None:
    expected = {key: value for key, value in recording.request_body.items() if key != "model"}
    assert orjson.loads(sent(recording.request)) == {"anthropic_version": "vertex-2023-10-16", **expected}
    answer = recording.response
    assert MESSAGES.answer(answer, "m") is answer


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"model":"m"}', b'{"anthropic_version":"vertex-2023-10-16"}'),
        # What the client says is kept, and so is every digit and space within a value.
        (b'{"anthropic_version":"v2","model":"m"}', b'{"anthropic_version":"v2"}'),
        (
            b'{"temperature":1.0,"model":"m","messages":[ 1e3, {"model" : "inner"} ]}',
            b'{"anthropic_version":"vertex-2023-10-16","temperature":1.0,"messages":[ 1e3, {"model" : "inner"} ]}',
        ),
        (b'{"mod\\u0065l":"m","x":1}', b'{"anthropic_version":"vertex-2023-10-16","x":1}'),
    ],
)
def test_two_fields_move(body: bytes, expected: bytes) -> None:
    assert sent(body) == expected


def test_what_a_policy_replaced() -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"secret"}]}'
    assert b'"content":"gone"' in sent(body, {0: "gone"})


@pytest.mark.parametrize("operation", [Operation.CHAT, Operation.RESPONSES])
def test_other_clients_get_what_anthropic_would_have_got(operation: Operation) -> None:
    body = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}], "input": "Hi"})
    bodies: list[dict[str, Any]] = []
    for row in (PROVIDERS["anthropic"], VERTEX_CLAUDE):
        translation = bind(operation, row)
        made = translation.request(body, translation.view(body), model="claude-x", replacements={}, meter=True)
        bodies.append(orjson.loads(made.body))
    direct, vertex = bodies
    assert direct.pop("model") == "claude-x"
    assert vertex.pop("anthropic_version") == "vertex-2023-10-16"
    assert vertex == direct


def test_errors_are_anthropics() -> None:
    assert MESSAGES.wire is Wire.ANTHROPIC
