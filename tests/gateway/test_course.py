"""A client's second request with the same head takes a short way; it must come to the same as the first."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from gateway.audit.record import fill_start, start_form, start_record
from gateway.snapshot import Binding
from loadtest.micro.driver import KEY, Driver

CONFIGURATION = """
pack: {name: course}
providers:
  targets:
    - {id: target, provider: openai-compatible, model: gpt-4o, base_url: "http://127.0.0.1:1"}
policies: {chain: [dlp-filter, audit-logger]}
policy:
  dlp-filter: {terms: [forbidden], action: redact}
  audit-logger: {log_all_access: true}
"""
ANSWER_BODY = b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}'
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nx-request-id: theirs\r\n\r\n%b" % (len(ANSWER_BODY), ANSWER_BODY)


def request(
    text: str = "hello", model: str = "gpt-4o", *, path: bytes = b"/v1/chat/completions", **more: object
) -> bytes:
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": text}], **more}).encode()
    head = b"POST %b HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\nX-Mine: yes\r\nContent-Length: %d\r\n\r\n"
    return head % (path, KEY, len(body)) + body


def without_ids(sent: bytes) -> bytes:
    return re.sub(rb"req_[0-9a-f]+", b"ID", sent)


@pytest.fixture
async def driver(tmp_path: Path) -> AsyncIterator[Driver]:
    driver = Driver(asyncio.get_running_loop(), tmp_path, CONFIGURATION, limited=True)
    yield driver
    driver.close()


class Seen(msgspec.Struct):
    """What the provider got and the client got, without request ids and times."""

    sent: bytes
    answer: bytes


def play(driver: Driver, sent: bytes, *answers: bytes) -> Seen:
    driver.exchange(sent, *answers or (ANSWER,))
    shown = re.sub(rb"(remaining-\w+|reset-\w+|server-timing): [^\r]+", rb"\1", driver.client_transport.last)
    return Seen(without_ids(driver.provider_transport.last), without_ids(shown))


def refused(driver: Driver, sent: bytes) -> bytes:
    """The answer to a request that goes to no provider."""
    driver.exchange(sent)
    return driver.client_transport.last


async def test_the_second_request_comes_to_the_same_as_the_first(driver: Driver) -> None:
    first = play(driver, request())
    head = driver.client.head
    assert first.sent.startswith(b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:1\r\n")
    assert b"x-mine: yes\r\n" in first.sent
    assert b"x-provider-request-id: theirs\r\n" in first.answer
    for _ in range(3):
        assert play(driver, request()) == first
    assert driver.client.head is head
    assert head is not None
    assert head.course is not None
    assert not driver.services.active


async def test_what_differs_in_the_body_is_seen(driver: Driver) -> None:
    play(driver, request())
    assert b"another text" in play(driver, request("another text")).sent
    assert b"stream_options" in play(driver, request(stream=True)).sent
    assert b"hello" in play(driver, request(model="target")).sent
    assert b" 404 " in refused(driver, request(model="other"))
    assert b" 400 " in refused(driver, request()[:-1] + b"]")
    assert b"again" in play(driver, request("again")).sent


async def test_policies_see_every_request(driver: Driver) -> None:
    play(driver, request())
    for _ in range(2):
        seen = play(driver, request("a forbidden thing"))
        assert b"forbidden" not in seen.sent
    assert b"hello" in play(driver, request()).sent


async def test_another_binding_of_the_key_voids_it(driver: Driver) -> None:
    play(driver, request())
    snapshot = driver.services.snapshot
    ((digest, binding),) = snapshot.bindings.items()
    assert binding.key is not None
    barred = msgspec.structs.replace(binding.key, models=frozenset({"other"}))
    snapshot.bindings[digest] = Binding(barred, binding.configuration)
    assert b" 403 " in refused(driver, request())
    revoked = msgspec.structs.replace(binding.key, revoked_at=1.0)
    snapshot.bindings[digest] = Binding(revoked, binding.configuration)
    assert b" 401 " in refused(driver, request())


async def test_limits_and_metrics_count_every_request(driver: Driver) -> None:
    for _ in range(4):
        play(driver, request())
    target = driver.services.snapshot.targets[0]
    assert (target.requests[200].value, target.tokens_in.value, target.tokens_out.value) == (4, 12, 16)
    assert target.in_flight == 0
    remaining = re.findall(rb"remaining-(?:requests|tokens): (\d+)", driver.client_transport.last)
    assert remaining[0] == b"%d" % (10**9 - 4)


def test_a_form_gives_the_record_that_was_its_model() -> None:
    rest = ("key", None, 'a "configuration"', "1", "chat", "m,o\\d", "::1", (), {"client_request_id": 'x","at":1,'})
    form = start_form(start_record("id_1", 1, *rest))
    assert fill_start(form, b"id_2", 1234567) == start_record("id_2", 1234567, *rest)
