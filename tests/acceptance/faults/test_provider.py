"""Providers that fail in every way, and what clients of a running gateway are told: never nothing or a wrong end."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.gateway_process import GatewayProcess, configuration, running_gateway
from tests.process.support import Wire, chat, metrics, target, until
from tests.provider import (
    CLOSE,
    LAST_CHUNK,
    RESET,
    STALL,
    Request,
    ScriptedProvider,
    Step,
    chunk,
    deaf_port,
    head,
    refusing_port,
    respond,
    trickle,
)

ANSWER = respond(b'{"id":"c","object":"chat.completion","choices":[]}')
EVENTS = (b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n', b"data: [DONE]\n\n")
STREAM = head(200, ("content-type", "text/event-stream"), chunked=True) + b"".join(map(chunk, EVENTS)) + LAST_CHUNK
HEAD_BYTES = STREAM.index(b"\r\n\r\n") + 4
GARBAGE = {
    "noise": bytes(range(256)) * 8,
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "tls": b"\x15\x03\x01\x00\x02\x02\x46",
    "html": b"<html><body>Bad gateway</body></html>",
    "a head without an end": b"HTTP/1.1 200 OK\r\n" + b"x-a: b\r\n" * 20_000,
    "a status of two digits": b"HTTP/1.1 20 OK\r\ncontent-length: 0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}",
    "length and coding": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "a switch of protocols": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\n\r\n",
    "interim answers without an end": b"HTTP/1.1 100 Continue\r\n\r\n" * 100,
}


def behave(request: Request) -> list[Step]:
    """As the client's own header `x-fault` says; the gateway passes it on."""
    kind, _, detail = request.headers["x-fault"].partition(" ")
    whole = STREAM if json.loads(request.body).get("stream") else ANSWER
    if kind == "reset":
        return [*([whole[: int(detail)]] if detail != "0" else []), RESET]
    if kind == "close":
        return [*([whole[: int(detail)]] if detail != "0" else []), CLOSE]
    if kind == "stall":
        return [*([whole[: int(detail)]] if detail != "0" else []), STALL]
    if kind == "trickle":
        return trickle(whole)
    if kind == "garbage":
        return [GARBAGE[detail], CLOSE]
    if kind == "redirect":
        return [respond(b"{}", int(detail), ("location", "http://169.254.169.254/latest/meta-data/"))]
    return [whole]


@pytest.fixture(scope="module")
def provider() -> Iterator[ScriptedProvider]:
    with ScriptedProvider(behave).in_thread() as provider:
        yield provider


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, provider: ScriptedProvider) -> Iterator[GatewayProcess]:
    """One target that behaves as asked, one where nobody listens, one that never accepts; no patience with either."""
    with deaf_port() as deaf:
        text = configuration(
            target(provider.url),
            target(f"http://127.0.0.1:{refusing_port()}", "refusing", "refusing"),
            target(f"http://127.0.0.1:{deaf}", "deaf", "deaf"),
            gateway={"timeouts": {"connect_seconds": 0.5, "first_byte_seconds": 0.5, "idle_seconds": 0.5}},
            fallback={"circuit_breaker": {"enabled": False}},
        )
        with running_gateway(tmp_path_factory.mktemp("faults"), text) as gateway:
            yield gateway
            assert metrics(gateway).get("keeptrusts_gateway_internal_errors_total", 0) == 0
            assert "Traceback" not in gateway.log


def refusal(gateway: GatewayProcess, fault: str, model: str = "gpt-4o", **options: bool) -> tuple[int, str]:
    """Status and code of a whole answer."""
    with Wire(gateway.port) as wire:
        wire.send(chat(model, x_fault=fault, **options))
        status, _, body = wire.answer()
        return status, json.loads(body)["error"]["code"]


def test_a_provider_that_refuses_connections(gateway: GatewayProcess) -> None:
    assert refusal(gateway, "", "refusing") == (502, "upstream_unreachable")


def test_a_provider_that_does_not_answer_the_connection(gateway: GatewayProcess) -> None:
    assert refusal(gateway, "", "deaf") == (504, "upstream_timeout")


@pytest.mark.parametrize("end", ["reset", "close"])
@pytest.mark.parametrize("stream", [False, True], ids=["sized", "stream"])
def test_the_connection_ends_at_every_byte(gateway: GatewayProcess, end: str, stream: bool) -> None:
    """Before the head is whole there is a proper error; after it the client sees that the answer is not whole."""
    whole = STREAM if stream else ANSWER
    head_bytes = whole.index(b"\r\n\r\n") + 4
    for cut in range(len(whole)):
        with Wire(gateway.port) as wire:
            wire.send(chat(stream=stream, x_fault=f"{end} {cut}"))
            if cut < head_bytes:
                status, _, body = wire.answer()
                assert (status, json.loads(body)["error"]["code"]) == (502, "upstream_reset"), cut
                continue
            heard = wire.read_to_end() if not (stream and EVENTS[1] in whole[:cut]) else wire.read_until(LAST_CHUNK)
        if stream and EVENTS[1] in whole[:cut]:
            assert heard.endswith(EVENTS[1] + b"\r\n" + LAST_CHUNK), cut  # over with its end mark
        elif stream:
            assert b'"code":"upstream_reset"' in heard, cut
            assert b"[DONE]" not in heard, cut
            assert not heard.endswith(LAST_CHUNK), cut
        elif heard:  # a reset may have overtaken the head
            start, _, body = heard.partition(b"\r\n\r\n")
            assert b"content-length: %d" % (len(whole) - head_bytes) in start, cut
            assert len(body) < len(whole) - head_bytes, cut


@pytest.mark.parametrize("cut", [0, 5, HEAD_BYTES - 1])
def test_a_provider_that_stalls_before_its_answer(gateway: GatewayProcess, cut: int) -> None:
    assert refusal(gateway, f"stall {cut}", stream=True) == (504, "upstream_timeout")


def test_a_provider_that_stalls_in_its_answer(gateway: GatewayProcess) -> None:
    with Wire(gateway.port) as wire:
        wire.send(chat(stream=True, x_fault=f"stall {HEAD_BYTES + 80}"))
        heard = wire.read_to_end()
    assert b'"code":"upstream_timeout"' in heard
    assert b"[DONE]" not in heard


def test_a_provider_that_trickles(gateway: GatewayProcess) -> None:
    with Wire(gateway.port) as wire:
        wire.send(chat(x_fault="trickle"))
        assert wire.answer()[2] == ANSWER.partition(b"\r\n\r\n")[2]
        wire.send(chat(stream=True, x_fault="trickle"))
        assert b"[DONE]" in wire.read_until(LAST_CHUNK)


@pytest.mark.parametrize("name", GARBAGE)
def test_a_provider_that_sends_garbage(gateway: GatewayProcess, name: str) -> None:
    for stream in (False, True):
        status, code = refusal(gateway, f"garbage {name}", stream=stream)
        assert (status, code) in ((502, "upstream_invalid"), (502, "upstream_reset")), name


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(gateway: GatewayProcess, provider: ScriptedProvider, status: int) -> None:
    """Neither by the gateway nor, with its key, by the client."""
    before = len(provider.requests)
    with Wire(gateway.port) as wire:
        wire.send(chat(x_fault=f"redirect {status}"))
        answered, fields, body = wire.answer()
    assert answered == 502
    assert "location" not in fields
    assert b"169.254" not in body
    assert len(provider.requests) == before + 1


def test_a_kept_connection_that_the_provider_closes_as_a_request_is_sent(
    gateway: GatewayProcess, provider: ScriptedProvider
) -> None:
    """Whether the provider has begun to serve it nobody can know: it is told, and not sent again."""
    with Wire(gateway.port) as wire:
        wire.send(chat(x_fault="none"))
        assert wire.answer()[0] == 200
        before = len(provider.requests)
        wire.send(chat(x_fault="reset 0"))
        status, _, body = wire.answer()
        assert (status, json.loads(body)["error"]["code"]) == (502, "upstream_reset")
        assert len(provider.requests) == before + 1
        wire.send(chat(x_fault="none"))
        assert wire.answer()[0] == 200


def test_nothing_is_left_behind(gateway: GatewayProcess) -> None:
    """After all that: no exchange, no busy connection, and every exchange ended in the log."""
    until(lambda: metrics(gateway)['keeptrusts_gateway_open_exchanges{worker="0"}'] == 0, "no exchange is open")
    rows = gateway.audit_records()
    assert rows
    assert all(row["outcome"] for row in rows)
    assert gateway.kt("audit", "verify").returncode == 0
