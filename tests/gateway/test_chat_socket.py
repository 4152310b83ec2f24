"""Chat over a WebSocket: each message is a request of its own, with the very pipeline of requests over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from gateway.errors import InvalidAPIKey
from gateway.exchange import Exchange
from tests.playbook import configuration, dlp, gateway_key, target
from tests.provider import respond
from tests.talk import Talk

PATH = "/v1/chat/completions"
SSE_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def ask(text: str = "hello", **more: Any) -> dict[str, Any]:
    return {"model": "gpt-test", "messages": [{"role": "user", "content": text}], **more}


def event(tree: Any) -> bytes:
    data = b"data: %b\n\n" % (tree if isinstance(tree, bytes) else orjson.dumps(tree))
    return b"%x\r\n%b\r\n" % (len(data), data)


def piece(text: str) -> dict[str, Any]:
    return {"id": "c", "choices": [{"index": 0, "delta": {"content": text}}]}


def whole(talk: Talk, text: str) -> dict[str, Any]:
    """The provider gives a whole answer."""
    answer = {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]}
    talk.provider().says(respond(orjson.dumps(answer)))
    return answer


def test_chunks_come_back_as_messages(talks: Callable[..., Talk]) -> None:
    talk = talks(configuration(target(upstream_model="gpt-5")))
    talk.join(PATH)
    talk.says(ask(stream=True))
    sent = talk.provider().body
    assert (sent["model"], sent["stream"]) == ("gpt-5", True)
    assert b"POST /v1/chat/completions HTTP/1.1\r\n" in talk.provider().asked
    assert b"kt_gk" not in talk.provider().asked
    talk.provider().says(SSE_HEAD, event(piece("Hel")), event(piece("lo")))
    assert talk.hears() == [piece("Hel"), piece("lo")]
    usage = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
    talk.provider().says(event(usage), event(b"[DONE]"), b"0\r\n\r\n")
    assert talk.hears() == [b"[DONE]"]
    finish = talk.finish()
    assert (finish["outcome"], finish["prompt_tokens"]) == ("completed", 3)
    assert talk.records[0]["operation"] == "chat"


def test_a_provider_may_write_its_fields_as_it_likes(talks: Callable[..., Talk]) -> None:
    talk = talks()
    talk.join(PATH)
    talk.says(ask(stream=True))
    head = b"HTTP/1.1 200 OK\r\nContent-Type: Text/Event-Stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
    talk.provider().says(head, event(piece("Hel")), event(b"[DONE]"), b"0\r\n\r\n")
    assert talk.hears() == [piece("Hel"), b"[DONE]"]


def test_requests_are_answered_in_their_order(talks: Callable[..., Talk]) -> None:
    talk = talks()
    talk.join(PATH)
    talk.says(ask("one"), ask("two"), ask("three"))
    assert len(talk.pool.providers) == 1
    first = whole(talk, "1")
    second = whole(talk, "2")
    assert talk.hears() == [first, second]
    assert talk.provider().body["messages"][0]["content"] == "three"
    whole(talk, "3")
    assert [one["outcome"] for one in talk.records if one["kind"] == "finish"] == ["completed"] * 3


def test_too_many_that_wait_are_not_read(talks: Callable[..., Talk]) -> None:
    talk = talks()
    client = talk.join(PATH)
    talk.says(*[ask(str(number)) for number in range(17)])
    assert client.pauses == {"requests"}
    whole(talk, "1")
    assert client.pauses == set()


def test_policies_are_those_of_http(talks: Callable[..., Talk]) -> None:
    policies = dlp("redact", "[input, output]", "[falcon]", ", streaming: guard")
    talk = talks(configuration(policies=policies, chain="audit-logger, dlp-filter"))
    talk.join(PATH)
    talk.says(ask("a falcon", stream=True))
    assert talk.provider().body["messages"][0]["content"] == "a [REDACTED:term]"
    talk.provider().says(SSE_HEAD, event(piece("A fal")), event(piece("con")), event(b"[DONE]"), b"0\r\n\r\n")
    heard = talk.hears()
    said = "".join(one["choices"][0]["delta"]["content"] for one in heard[:-1])
    assert said == "A [REDACTED:term]"


@pytest.mark.parametrize(
    ("message", "status", "code"),
    [
        (b"{", 400, "invalid_json"),
        (ask("the secret"), 409, "input_blocked"),
        ({**ask(), "model": "unknown"}, 404, "model_not_found"),
        ({**ask(), "model": "other"}, 403, "model_not_allowed"),
    ],
)
def test_what_is_refused_is_an_error_and_the_socket_stays(
    talks: Callable[..., Talk], message: Any, status: int, code: str
) -> None:
    text = configuration(target(), target("two", "other"), policies=dlp(), chain="audit-logger, dlp-filter")
    talk = talks(text, key=gateway_key(models=frozenset({"gpt-test"})))
    talk.join(PATH)
    talk.says(message)
    (error,) = talk.hears()
    assert (error["type"], error["status"], error["error"]["code"]) == ("error", status, code)
    assert talk.client_socket.is_open
    talk.says(ask())
    assert [whole(talk, "fine")] == talk.hears()


def test_a_providers_error_is_told_with_its_status(talks: Callable[..., Talk]) -> None:
    talk = talks()
    talk.join(PATH)
    talk.says(ask())
    body = b'{"error":{"message":"slow down","code":"x"}}'
    talk.provider().says(respond(body, 400))
    assert talk.hears() == [{"type": "error", "status": 400, "error": {"message": "slow down", "code": "x"}}]


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_that_breaks_off(talks: Callable[..., Talk], stream: bool) -> None:
    talk = talks()
    talk.join(PATH)
    talk.says(ask(stream=stream))
    if stream:
        talk.provider().says(SSE_HEAD, event(piece("Hel")))
    else:
        talk.provider().says(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{")
    talk.provider().resets()
    assert talk.hears()[-1]["error"]["code"] == "upstream_reset"
    talk.says(ask())
    whole(talk, "fine")


def test_a_client_that_leaves_cancels_its_request(talks: Callable[..., Talk]) -> None:
    talk = talks()
    talk.join(PATH)
    talk.says(ask(stream=True), ask())
    talk.provider().says(SSE_HEAD, event(piece("Hel")))
    talk.client_socket.leaves()
    assert talk.provider().gone
    assert [one["status"] for one in talk.records if one["kind"] == "finish"] == [499]


def test_a_revoked_key_closes_with_1008(talks: Callable[..., Talk]) -> None:
    talk = talks()
    talk.join(PATH)
    talk.says(ask(stream=True))
    for one in sorted(talk.services.active, key=lambda one: isinstance(one, Exchange)):
        one.end_early(InvalidAPIKey("revoked"))
    assert talk.hears()[-1]["error"]["code"] == "invalid_api_key"
    assert talk.client_socket.closed == (1008, "revoked")


def test_azures_deployment_names_the_model(talks: Callable[..., Talk]) -> None:
    talk = talks()
    talk.join("/openai/deployments/gpt-test/chat/completions?api-version=2024-10-21")
    talk.says({"messages": [{"role": "user", "content": "x"}]})
    assert talk.provider().body["model"] == "gpt-test"
    whole(talk, "fine")


def test_another_format_of_providers(talks: Callable[..., Talk]) -> None:
    talk = talks(configuration(target(provider="anthropic")))
    talk.join(PATH)
    talk.says(ask(max_tokens=10))
    assert talk.provider().asked.startswith(b"POST /v1/messages ")
    part = {"type": "text", "text": "Hi"}
    usage = {"input_tokens": 1, "output_tokens": 2}
    answer = {"id": "m", "type": "message", "role": "assistant", "content": [part], "usage": usage}
    talk.provider().says(respond(orjson.dumps(answer)))
    assert talk.hears()[0]["choices"][0]["message"]["content"] == "Hi"


def test_a_request_that_waited_is_asked_for_a_key_that_still_holds(talks: Callable[..., Talk]) -> None:
    talk = talks(key=gateway_key(expires_at=1_700_000_010.0))
    talk.join(PATH)
    talk.says(ask("one"), ask("two"))
    talk.wall.now += 20
    whole(talk, "1")
    assert talk.hears()[-1]["error"]["code"] == "invalid_api_key"
    assert len(talk.pool.providers) == 1
    talk.says(ask("three"))
    assert talk.client_socket.closed == (1008, "This gateway key was revoked or has expired.")


def test_a_slow_client_slows_the_provider(talks: Callable[..., Talk]) -> None:
    talk = talks()
    client = talk.join(PATH)
    talk.says(ask(stream=True))
    talk.provider().says(SSE_HEAD, event(piece("Hel")))
    client.listener.on_paused()
    assert talk.provider().transport.events == ["paused"]
    client.listener.on_resumed()
    assert talk.provider().transport.events == ["paused", "resumed"]
