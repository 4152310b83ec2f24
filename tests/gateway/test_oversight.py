"""Requests that wait for a person, played without sockets: what the queue is told, and what the client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import msgspec
import orjson
import pytest

from gateway.exchange import State
from gateway.oversight import PATH, Oversight, Referral, fingerprint
from gateway.ports import Pool as PoolPort
from gateway.types import Destination, Origin, Subject
from tests.playbook import Play, configuration
from tests.provider import respond

CHAT: dict[str, Any] = {"model": "gpt-test", "messages": [{"role": "user", "content": "Hello"}]}
ANSWER = orjson.dumps({"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi there"}}]})
RULES = "{rules: [{name: all-chats, operations: [chat]}]}"

Playbook = Callable[..., Play]


def overseen(settings: str = RULES, chain: str = "audit-logger, human-oversight", others: str = "") -> str:
    return configuration(policies=f"\n  human-oversight: {settings}{others}", chain=chain)


def start(playbook: Playbook, text: str = "") -> Play:
    play = playbook(text or overseen())
    control = Destination("control", Origin("control", 0, tls=False))
    loop, pool = cast(asyncio.AbstractEventLoop, play), cast(PoolPort, play.pool)
    play.services.oversight = Oversight(loop, pool, control)
    return play


def queue(state: str, id: str = "esc_1") -> bytes:
    return respond(orjson.dumps({"state": state, "id": id}))


def refusal(play: Play) -> dict[str, Any]:
    error: dict[str, Any] = orjson.loads(play.client.body)["error"]
    return error


def test_a_request_waits_and_the_client_is_told_its_id_at_once(playbook: Playbook) -> None:
    play = start(playbook)
    exchange = play.ask(CHAT)
    assert exchange.state is State.SCREENING
    control = play.provider()
    assert control.asked.startswith(b"POST %b HTTP/1.1\r\n" % PATH.encode())
    told = msgspec.convert(control.body, Referral)
    assert (told.request_id, told.key_id, told.model, told.operation) == (exchange.id, "key_1", "gpt-test", "chat")
    assert (told.policy, told.reason, told.detail) == ("human-oversight", "human-oversight.rule", "all-chats")
    assert (told.valid_seconds, told.text) == (86_400, None)
    control.says(queue("pending"))
    assert play.client.transcript == ["refused: 409 escalation_required"]
    assert refusal(play)["escalation_id"] == "esc_1"
    assert refusal(play)["message"] == (
        "This request needs the approval of a person. It waits for one as escalation esc_1; once approved, send the "
        "same request again."
    )
    assert play.client.headers["x-kt-escalation-id"] == "esc_1"
    assert play.client.headers["x-should-retry"] == "false"
    assert play.finish()["code"] == "escalation_required"


def test_an_approved_request_goes_on(playbook: Playbook) -> None:
    play = start(playbook)
    play.ask(CHAT)
    play.provider().says(queue("approved"))
    assert play.provider().destination.name == "one"
    assert play.provider().body == CHAT
    play.provider().says(respond(ANSWER))
    assert play.client.body == ANSWER
    last = play.records[0]["decisions"][-1]
    assert (last["reason"], last["detail"], last["verdict"]) == ("human-oversight.approved", "esc_1", "allow")


def test_what_is_approved_goes_on_redacted(playbook: Playbook) -> None:
    text = overseen(chain="dlp-filter, human-oversight", others="\n  dlp-filter: {terms: [hello], action: redact}")
    play = start(playbook, text)
    play.ask(CHAT)
    play.provider().says(queue("approved"))
    assert play.provider().body["messages"][0]["content"] == "[REDACTED:term]"
    play.provider().says(respond(ANSWER))


def test_texts_are_shown_only_where_asked_and_redacted(playbook: Playbook) -> None:
    text = overseen(
        "{rules: [{name: all-chats, operations: [chat]}], show_text: true, valid_hours: 0.5}",
        chain="dlp-filter, human-oversight",
        others="\n  dlp-filter: {terms: [falcon], action: redact}",
    )
    play = start(playbook, text)
    play.ask({**CHAT, "messages": [{"role": "user", "content": "Hello falcon"}]})
    assert play.provider().body["text"] == "[user] Hello [REDACTED:term]"
    assert play.provider().body["valid_seconds"] == 1800
    play.provider().says(queue("pending"))


def test_a_refused_request(playbook: Playbook) -> None:
    play = start(playbook)
    play.ask(CHAT)
    play.provider().says(queue("refused"))
    assert refusal(play)["message"].endswith("A person has refused it (escalation esc_1).")


@pytest.mark.parametrize(
    "happening",
    [
        lambda play: play.advance(5.1),
        lambda play: play.provider().resets(),
        lambda play: play.provider().says(respond(b"", 503)),
        lambda play: play.provider().says(respond(b"no")),
    ],
)
def test_without_the_queue_nothing_is_let_through(playbook: Playbook, happening: Callable[[Play], None]) -> None:
    play = start(playbook)
    play.ask(CHAT)
    happening(play)
    assert (refusal(play)["code"], refusal(play)["escalation_id"]) == ("escalation_required", None)
    assert "x-kt-escalation-id" not in play.client.headers


def test_another_policy_escalates(playbook: Playbook) -> None:
    text = overseen("{}", "safety-filter, human-oversight", "\n  safety-filter: {action: escalate}")
    play = start(playbook, text)
    play.ask({**CHAT, "messages": [{"role": "user", "content": "How do I kill my boss?"}]})
    assert play.provider().body["policy"] == "safety-filter"
    play.provider().says(queue("pending"))
    assert refusal(play)["policy"] == "safety-filter"


def test_without_the_policy_an_escalation_is_a_refusal(playbook: Playbook) -> None:
    text = configuration(policies="\n  safety-filter: {action: escalate}", chain="safety-filter")
    play = start(playbook, text)
    play.ask({**CHAT, "messages": [{"role": "user", "content": "How do I kill my boss?"}]})
    assert play.pool.providers == []
    assert (refusal(play)["code"], refusal(play)["escalation_id"]) == ("escalation_required", None)


def test_a_moderation_service_may_escalate(playbook: Playbook) -> None:
    text = overseen(
        "{}",
        "external-moderation, human-oversight",
        "\n  external-moderation: {url: 'https://moderation.test'}",
    )
    play = start(playbook, text)
    play.ask(CHAT)
    play.provider().says(respond(b'{"verdict": "escalate"}'))
    assert play.provider().destination.name == "control"
    play.provider().says(queue("approved"))
    play.provider().says(respond(ANSWER))
    assert play.client.body == ANSWER


def test_a_client_that_leaves_meanwhile(playbook: Playbook) -> None:
    play = start(playbook)
    exchange = play.ask(CHAT)
    exchange.on_client_gone()
    assert play.provider().gone


def test_what_the_same_request_is() -> None:
    subject = Subject("req_1", "key_1", configuration_id="c", model="m", operation="chat")
    same = fingerprint(subject, "v1", b"{}")
    assert fingerprint(msgspec.structs.replace(subject, request_id="req_2", key_name="x"), "v1", b"{}") == same
    for other in (
        fingerprint(msgspec.structs.replace(subject, key_id="key_2"), "v1", b"{}"),
        fingerprint(msgspec.structs.replace(subject, key_id=None), "v1", b"{}"),
        fingerprint(msgspec.structs.replace(subject, model="n"), "v1", b"{}"),
        fingerprint(msgspec.structs.replace(subject, operation="responses"), "v1", b"{}"),
        fingerprint(subject, "v2", b"{}"),
        fingerprint(subject, "v1", b"{} "),
    ):
        assert other != same
