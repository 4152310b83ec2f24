"""openai-python's WebSocket clients through the gateway, unchanged but for `base_url` and `api_key`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types.realtime import RealtimeServerEvent
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.acceptance.websocket.stand import BANNED, BLOCKED, REDACTED, SECRET, Stand, standing
from tests.gateway.audit.support import eventually


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with standing(tmp_path_factory.mktemp("gateway")) as one:
        yield one


def client(stand: Stand, key: str | None = None) -> openai.OpenAI:
    return openai.OpenAI(base_url=stand.gateway.api, api_key=key or stand.key, max_retries=0)


def user(text: str) -> Any:
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


def until(connection: Any, *kinds: str) -> list[RealtimeServerEvent]:
    """Events up to the first of some kinds."""
    found = []
    for event in connection:
        found.append(event)
        if event.type in kinds:
            break
    return found


def test_a_conversation_in_text(stand: Stand) -> None:
    with client(stand).realtime.connect(model="spoken") as connection:
        assert connection.recv().type == "session.created"
        connection.session.update(session={"type": "realtime", "output_modalities": ["text"], "model": "spoken"})
        updated = connection.recv()
        assert updated.type == "session.updated"
        connection.conversation.item.create(item=user("Hello"))
        connection.response.create()
        events = until(connection, "response.done")
    said = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert said == "You said: Hello"
    last = events[-1]
    assert last.type == "response.done"
    assert last.response.usage is not None
    assert last.response.usage.input_tokens == 7
    handshake = stand.provider.handshakes[-1]
    assert handshake.query == {"model": ["gpt-realtime"]}
    assert handshake.headers["authorization"] == f"Bearer {SECRET}"
    assert stand.key not in str(handshake)
    assert [one["session"]["model"] for one in stand.provider.heard if one["type"] == "session.update"] == [
        "gpt-realtime"
    ]


def test_a_banned_phrase_over_many_deltas_is_redacted(stand: Stand) -> None:
    with client(stand).realtime.connect(model="spoken") as connection:
        connection.conversation.item.create(item=user(f"say: It is a {BANNED} and more, and a bann."))
        connection.response.create()
        events = until(connection, "response.done")
    expected = f"It is a {REDACTED} and more, and a bann."
    said = "".join(event.delta for event in events if event.type == "response.output_audio_transcript.delta")
    assert said == expected
    by_type: dict[str, Any] = {event.type: event for event in events}
    assert by_type["response.output_audio_transcript.done"].transcript == expected
    assert by_type["response.output_audio.done"]
    assert by_type["response.done"].response.output[0].content[0].transcript == expected


def test_refusals_are_events_and_the_connection_stays(stand: Stand) -> None:
    with client(stand, stand.narrow).realtime.connect(model="spoken") as connection:
        before = len(stand.provider.heard)
        connection.send(
            {"type": "session.update", "event_id": "mine", "session": {"type": "realtime", "model": "other"}}
        )
        refused = until(connection, "error")[-1]
        assert refused.type == "error"
        assert (refused.error.code, refused.error.event_id) == ("model_not_allowed", "mine")
        connection.conversation.item.create(item=user(f"Some {BLOCKED} here"))
        blocked = until(connection, "error")[-1]
        assert blocked.type == "error"
        assert (blocked.error.code, blocked.error.type) == ("input_blocked", "policy_violation")
        assert len(stand.provider.heard) == before
        connection.conversation.item.create(item=user("Hi"))
        assert until(connection, "conversation.item.done")


@pytest.mark.parametrize(("model", "status"), [("other", 403), ("unknown", 404)])
def test_a_model_that_may_not_be_used_is_refused_at_once(stand: Stand, model: str, status: int) -> None:
    with (
        pytest.raises(InvalidStatus) as refused,
        client(stand, stand.narrow).realtime.connect(model=model),
    ):
        pass
    assert refused.value.response.status_code == status


def test_azures_client(stand: Stand) -> None:
    azure = openai.AzureOpenAI(
        azure_endpoint=stand.gateway.url,
        api_key=stand.key,
        api_version="2024-10-01-preview",
        websocket_base_url=f"{stand.gateway.url.replace('http', 'ws')}/openai",
    )
    with azure.realtime.connect(model="spoken") as connection:
        assert connection.recv().type == "session.created"


def test_responses_over_a_websocket(stand: Stand) -> None:
    with client(stand).responses.connect() as connection:
        connection.response.create(model="spoken", input=f"say: one {BANNED} two")
        events = until(connection, "response.completed")
        assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == (
            f"one {REDACTED} two"
        )
        last: Any = events[-1]
        assert last.response.output_text == f"one {REDACTED} two"
        connection.response.create(model="unknown", input="x")
        error: Any = until(connection, "error")[-1]
        assert (error.status, error.error.code) == (404, "model_not_found")
        connection.response.create(model="other", input="Hi", previous_response_id=last.response.id)
        assert until(connection, "response.completed")


async def test_the_asynchronous_clients(stand: Stand) -> None:
    one = openai.AsyncOpenAI(base_url=stand.gateway.api, api_key=stand.key)
    async with one.realtime.connect(model="spoken") as connection:
        await connection.conversation.item.create(item=user("Hello"))
        await connection.response.create()
        async for event in connection:
            if event.type == "response.done":
                break
    async with one.responses.connect() as responses:
        await responses.response.create(model="spoken", input="Hello")
        async for told in responses:
            if told.type == "response.completed":
                break


def test_each_response_has_its_records(stand: Stand) -> None:
    with client(stand).realtime.connect(model="spoken") as connection:
        connection.conversation.item.create(item=user("Hello"))
        connection.response.create()
        until(connection, "response.done")
        connection.close()
        with pytest.raises(ConnectionClosed):
            connection.recv()
    eventually(lambda: _ended(stand, "realtime.connection"))
    response = _ended(stand, "realtime")[0]
    assert (response["outcome"], response["prompt_tokens"], response["completion_tokens"]) == ("completed", 7, 5)
    assert response["attributes"]["socket"] in {one["id"] for one in _ended(stand, "realtime.connection")}


def _ended(stand: Stand, operation: str) -> list[dict[str, Any]]:
    """The exchanges of an operation that the log has whole, while none is under way."""
    records = stand.gateway.audit_records()
    return [one for one in records if one.get("operation") == operation and one.get("outcome")]
