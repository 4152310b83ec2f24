"""Asking a moderation service in the middle of an exchange, played without sockets."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from gateway.errors import UpstreamUnreachable
from gateway.exchange import State
from tests.playbook import Play, configuration
from tests.provider import LAST_CHUNK, chunk, head, respond

CHAT: dict[str, Any] = {"model": "gpt-test", "messages": [{"role": "user", "content": "Hello"}]}
SSE_HEAD = head(200, ("content-type", "text/event-stream"), chunked=True)
DONE = b"data: [DONE]\n\n"
ANSWER = orjson.dumps({"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi there"}}]})
KEY = {"PROVIDER_KEY": "sk-provider", "MODERATION_KEY": "mod-secret-1"}

Playbook = Callable[..., Play]


def moderated(more: str = "", chain: str = "audit-logger, external-moderation", others: str = "") -> str:
    settings = (
        "\n  external-moderation: {url: 'https://moderation.test:8443/check?v=1', deadline_ms: 1500, "
        f"secret_key_ref: {{env: MODERATION_KEY}}{more}}}{others}"
    )
    return configuration(policies=settings, chain=chain)


@pytest.fixture
def play(playbook: Playbook) -> Play:
    return playbook(moderated(), environment=KEY)


def verdict(**answer: Any) -> bytes:
    return respond(orjson.dumps(answer))


def delta(text: str) -> bytes:
    return b'data: {"id":"c","choices":[{"index":0,"delta":{"content":%b}}]}\n\n' % orjson.dumps(text)


def refusal(play: Play) -> dict[str, Any]:
    error: dict[str, Any] = orjson.loads(play.client.body)["error"]
    return error


def test_an_allowed_request_goes_on(play: Play) -> None:
    exchange = play.ask(CHAT)
    assert exchange.state is State.SCREENING
    service = play.provider()
    assert service.asked.startswith(b"POST /check?v=1 HTTP/1.1\r\nhost: moderation.test:8443\r\n")
    assert service.headers["authorization"] == "Bearer mod-secret-1"
    assert service.body["texts"][0]["text"] == "Hello"
    assert service.body["request_id"] == exchange.id == service.headers["x-request-id"]
    play.clock.now += 0.25
    service.says(verdict(verdict="allow"))
    assert play.provider().destination.name == "one"
    play.provider().says(respond(ANSWER))
    assert play.client.body == ANSWER
    (decision,) = play.records[0]["decisions"]
    assert decision["policy"] == "external-moderation"
    assert decision["microseconds"] == 250_000


def test_a_refused_request_never_leaves(play: Play) -> None:
    play.ask(CHAT)
    play.provider().says(verdict(verdict="block", reason="house-rules", message="Not here."))
    assert [one.destination.name for one in play.pool.providers] == ["play external-moderation"]
    assert play.client.transcript == ["refused: 409 input_blocked"]
    assert (refusal(play)["code"], refusal(play)["message"]) == ("input_blocked", "Not here.")
    assert refusal(play)["policy"] == "external-moderation"
    assert play.finish()["code"] == "input_blocked"


def test_a_service_may_redact(play: Play) -> None:
    play.ask(CHAT)
    play.provider().says(verdict(verdict="redact", replacements=[{"index": 0, "text": "[gone]"}]))
    assert play.provider().body["messages"][0]["content"] == "[gone]"
    play.provider().says(respond(ANSWER))


def test_it_sees_what_others_redacted_and_their_work_is_kept(playbook: Playbook) -> None:
    text = moderated(
        chain="dlp-filter, external-moderation",
        others="\n  dlp-filter: {terms: [hello], action: redact}",
    )
    play = playbook(text, environment=KEY)
    play.ask(CHAT)
    assert play.provider().body["texts"][0]["text"] == "[REDACTED:term]"
    play.provider().says(verdict(verdict="allow"))
    assert play.provider().body["messages"][0]["content"] == "[REDACTED:term]"
    play.provider().says(respond(ANSWER))


def test_it_is_not_asked_about_what_others_refuse(playbook: Playbook) -> None:
    text = moderated(chain="dlp-filter, external-moderation", others="\n  dlp-filter: {terms: [hello]}")
    play = playbook(text, environment=KEY)
    play.ask(CHAT)
    assert play.pool.providers == []
    assert refusal(play)["policy"] == "dlp-filter"


def test_it_is_not_asked_about_nothing(playbook: Playbook) -> None:
    play = playbook(moderated(", roles: [tool]"), environment=KEY)
    play.ask(CHAT)
    assert play.provider().destination.name == "one"
    play.provider().says(respond(ANSWER))


@pytest.mark.parametrize(
    ("happening", "why"),
    [
        (lambda play: play.advance(1.6), "timeout"),
        (lambda play: play.provider().resets(), "unreachable"),
        (lambda play: play.provider().says(respond(b"{}", 500)), "status-500"),
        (lambda play: play.provider().says(respond(b"no")), "unreadable"),
        (lambda play: play.provider().says(b"garbage\r\n\r\n"), "unreachable"),
        (lambda play: play.provider().says(respond(b"x" * (1 << 20) + b"xx")), "unreachable"),
        (lambda play: play.provider().says(respond(b"x", 200, ("content-encoding", "gzip"))), "unreachable"),
    ],
)
@pytest.mark.parametrize("fail_mode", ["block", "allow"])
def test_without_an_answer_the_fail_mode_holds(
    playbook: Playbook, fail_mode: str, happening: Callable[[Play], None], why: str
) -> None:
    play = playbook(moderated(f", fail_mode: {fail_mode}"), environment=KEY)
    play.ask(CHAT)
    happening(play)
    if fail_mode == "block":
        assert refusal(play)["policy"] == "external-moderation"
    else:
        play.provider().says(respond(ANSWER))
        assert play.client.body == ANSWER
    decision = play.records[0]["decisions"][-1]
    assert (decision["reason"], decision["detail"]) == ("external-moderation.unavailable", why)


def test_no_connection(play: Play) -> None:
    play.pool.idle = False
    play.ask(CHAT)
    play.pool.fail(UpstreamUnreachable("no"))
    assert refusal(play)["policy"] == "external-moderation"


def test_no_connection_in_time(play: Play) -> None:
    play.pool.idle = False
    play.ask(CHAT)
    play.advance(1.6)
    assert play.pool.tickets[0].state == "cancelled"
    assert refusal(play)["policy"] == "external-moderation"


def test_without_its_key_nobody_is_asked(playbook: Playbook) -> None:
    play = playbook(moderated())
    play.ask(CHAT)
    assert play.pool.providers == []
    assert play.records[0]["decisions"][-1]["detail"] == "no-key"
    assert refusal(play)["policy"] == "external-moderation"


def test_a_client_that_leaves_meanwhile(play: Play) -> None:
    exchange = play.ask(CHAT)
    exchange.on_client_gone()
    assert play.provider().gone
    assert play.finish()["outcome"] == "cancelled"


def test_a_chunked_answer_in_pieces(play: Play) -> None:
    play.ask(CHAT)
    service = play.provider()
    answer = b'{"verdict": "allow"}'
    service.says(head(200, chunked=True), chunk(answer[:7]), chunk(answer[7:]), LAST_CHUNK)
    assert play.provider().destination.name == "one"
    play.provider().says(respond(ANSWER))


def test_the_next_request_of_the_same_client(play: Play) -> None:
    """A course is followed (`exchange.Course`): the service is asked all the same."""
    connection, transport = play.connect()
    body = orjson.dumps(CHAT)
    request = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost:41002\r\nauthorization: Bearer %b\r\n"
        b"content-length: %d\r\n\r\n" % (b"kt_gk_00000000000000000000000000000000000000", len(body))
    )
    for _ in range(3):
        connection.data_received(request + body)
        assert play.provider().destination.name == "play external-moderation"
        play.provider().says(verdict(verdict="allow"))
        assert play.provider().destination.name == "one"
        play.provider().says(respond(ANSWER))
    assert b"".join(transport.writes).count(ANSWER) == 3


def test_an_answer_waits_for_its_verdict(playbook: Playbook) -> None:
    play = playbook(moderated(", phase: [output]"), environment=KEY)
    play.ask(CHAT)
    play.provider().says(respond(ANSWER))
    assert play.client.body == b""
    assert play.provider().body["texts"][0]["text"] == "Hi there"
    assert play.provider().body["phase"] == "output"
    play.provider().says(verdict(verdict="redact", replacements=[{"index": 0, "text": "[gone]"}]))
    assert orjson.loads(play.client.body)["choices"][0]["message"]["content"] == "[gone]"


def test_a_withheld_answer(playbook: Playbook) -> None:
    play = playbook(moderated(", phase: [output]"), environment=KEY)
    play.ask(CHAT)
    play.provider().says(respond(ANSWER))
    play.provider().says(verdict(verdict="block"))
    assert refusal(play)["code"] == "output_blocked"


@pytest.mark.parametrize(("said", "good"), [("allow", True), ("block", False), ("redact", False)])
def test_the_end_of_a_stream_waits_for_the_verdict(playbook: Playbook, said: str, good: bool) -> None:
    play = playbook(moderated(", phase: [output]"), environment=KEY)
    play.ask({**CHAT, "stream": True})
    play.provider().says(SSE_HEAD, chunk(delta("Hi")), chunk(DONE) + LAST_CHUNK)
    assert play.client.body == delta("Hi")
    play.provider().says(verdict(verdict=said, replacements=[{"index": 0, "text": "x"}]))
    if good:
        assert play.client.body == delta("Hi") + DONE
    else:
        last = play.client.body.removeprefix(delta("Hi"))
        assert orjson.loads(last.removeprefix(b"data: "))["error"]["code"] == "output_blocked"


def test_neither_key_nor_texts_are_logged(play: Play, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    play.ask(CHAT)
    play.provider().says(respond(b"no"))
    logged = "\n".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)
    assert "moderation service not available" in logged
    assert "mod-secret-1" not in logged
    assert "Hello" not in logged
    moderator = play.services.snapshot.default.moderator
    assert "mod-secret-1" not in repr(vars(moderator))
