"""SIGTERM: what is under way finishes within the drain time, nothing new begins, and nobody is left without a word."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway_process import HOST, PATIENCE, GatewayProcess, configuration, running_gateway
from tests.process.support import Wire, chat, target, until
from tests.provider import LAST_CHUNK, Gate, Request, ScriptedProvider, Step, chunk, head, respond

EVENT_STREAM = head(200, ("content-type", "text/event-stream"), chunked=True)
BIG = json.dumps({"object": "chat.completion", "choices": [], "padding": "x" * 8_000_000}).encode()


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def provider(gate: Gate) -> Iterator[ScriptedProvider]:
    """Streams begin at once and end when the gate opens; other answers come then as a whole; `big` comes at once."""

    def answer(request: Request) -> list[Step]:
        body = json.loads(request.body)
        if body["model"] == "big":
            return [respond(BIG)]
        if body.get("stream"):
            return [EVENT_STREAM, chunk(b"data: begun\n\n"), gate, chunk(b"data: [DONE]\n\n"), LAST_CHUNK]
        return [gate, respond(b'{"object":"chat.completion","choices":[]}')]

    with ScriptedProvider(answer).in_thread() as provider:
        yield provider


def text(provider: ScriptedProvider, drain_seconds: float) -> str:
    targets = [target(provider.url), target(provider.url, id="big", model="big")]
    return configuration(*targets, gateway={"drain_seconds": drain_seconds})


def refused(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=PATIENCE).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:  # it was in the queue of those not yet accepted
        return False
    return False


def begin_stream(gateway: GatewayProcess) -> Wire:
    client = Wire(gateway.port)
    client.send(chat(stream=True))
    client.read_until(b"data: begun\n\n\r\n")
    return client


def records(gateway: GatewayProcess) -> list[tuple[object, object, object]]:
    return sorted((row["outcome"], row["status"], row.get("code") or "") for row in gateway.audit_records())


def test_what_is_under_way_finishes_and_nothing_new_begins(
    tmp_path: Path, provider: ScriptedProvider, gate: Gate
) -> None:
    with running_gateway(tmp_path, text(provider, PATIENCE), arguments=["--workers", "2"]) as gateway:
        streams = [begin_stream(gateway) for _ in range(4)]
        idle, waiting = Wire(gateway.port), Wire(gateway.port)
        idle.send(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        _, fields, _ = idle.answer()
        assert "connection" not in fields
        slow = Wire(gateway.port, receive_buffer=4096)
        slow.send(chat("big"))
        waiting.send(chat())
        provider.requests.wait_for(5)

        gateway.process.send_signal(signal.SIGTERM)
        until(lambda: refused(gateway.port), "new connections are refused")
        assert idle.read_to_end() == b""
        assert gateway.process.poll() is None
        gate.open()

        status, fields, _ = waiting.answer()
        assert (status, fields["connection"]) == (200, "close")
        for stream in streams:
            assert stream.read_to_end().endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        status, fields, body = slow.answer()
        assert (status, body == BIG) == (200, True)
        for client in (idle, waiting, slow, *streams):
            client.sock.close()
        assert gateway.process.wait(PATIENCE) == 0
        assert records(gateway) == [("completed", 200, "")] * 6
        assert gateway.kt("audit", "verify").returncode == 0


def test_what_takes_longer_than_the_drain_time_is_told_so(tmp_path: Path, provider: ScriptedProvider) -> None:
    with running_gateway(tmp_path, text(provider, 0.2)) as gateway:
        with begin_stream(gateway) as stream, Wire(gateway.port) as waiting:
            waiting.send(chat())
            provider.requests.wait_for(1)
            gateway.process.send_signal(signal.SIGTERM)
            rest = stream.read_to_end()
            assert rest.count(b"data: ") == 1
            event = json.loads(rest.partition(b"data: ")[2].partition(b"\n\n")[0])
            assert event["error"]["code"] == "draining"
            assert b"[DONE]" not in rest
            assert not rest.endswith(LAST_CHUNK)
            status, fields, body = waiting.answer()
            assert (status, fields["connection"], json.loads(body)["error"]["code"]) == (503, "close", "draining")
            assert gateway.process.wait(PATIENCE) == 0
        for connection in provider.connections:
            connection.closed.wait_for()
        assert records(gateway) == [("failed", 503, "draining"), ("truncated", 200, "draining")]


def test_a_second_signal_does_not_wait_any_longer(tmp_path: Path, provider: ScriptedProvider) -> None:
    with running_gateway(tmp_path, text(provider, PATIENCE * 10)) as gateway, begin_stream(gateway) as stream:
        gateway.process.send_signal(signal.SIGINT)
        until(lambda: refused(gateway.port), "it drains")
        gateway.process.send_signal(signal.SIGINT)
        assert b'"code":"draining"' in stream.read_to_end()
        assert gateway.process.wait(PATIENCE) == 0
        assert records(gateway) == [("truncated", 200, "draining")]
