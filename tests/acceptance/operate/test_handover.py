"""SIGUSR2 under load: another gateway takes over the port, and no client notices."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway_process import HOST, PATIENCE, GatewayProcess, configuration, running_gateway
from tests.process.support import MOCK, Wire, alive, chat, children, target, until
from tests.provider import LAST_CHUNK, Gate, ScriptedProvider, chunk, head

BODY = json.dumps({"model": "mock-gpt", "messages": [{"role": "user", "content": "Hello"}]})
STREAM = head(200, ("content-type", "text/event-stream"), chunked=True)


class Load:
    """Clients that ask without a pause: some on one connection for as long as the server keeps it, some on new ones."""

    def __init__(self, port: int, clients: int) -> None:
        self._port = port
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number % 2 == 0,)) for number in range(clients)]
        self.answered = 0
        self.failures: list[str] = []

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def _run(self, keep: bool) -> None:
        connection = http.client.HTTPConnection(HOST, self._port, timeout=PATIENCE)
        while not self._stop.is_set():
            try:
                connection.request("POST", "/v1/chat/completions", BODY, {"content-type": "application/json"})
                response = connection.getresponse()
                body = response.read()
                if response.status != 200:
                    self.failures.append(f"{response.status} {body!r}")
                self.answered += 1
                if not keep:
                    connection.close()
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection.close()
        connection.close()


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def provider(gate: Gate) -> Iterator[ScriptedProvider]:
    script = [STREAM, chunk(b"data: begun\n\n"), gate, chunk(b"data: [DONE]\n\n"), LAST_CHUNK]
    with ScriptedProvider(script).in_thread() as scripted:
        yield scripted


def successor(gateway: GatewayProcess) -> int:
    """The process that has the other run folder."""
    lock = gateway.state / f"run-{gateway.port}-b" / "lock"
    text = until(lambda: lock.read_text().strip() if lock.exists() else "", "another gateway has its run folder")
    return int(text)


def end(pid: int) -> None:
    os.kill(pid, signal.SIGTERM)
    until(lambda: not alive(pid), f"{pid} has ended")


def test_no_request_fails_and_no_stream_breaks(tmp_path: Path, provider: ScriptedProvider, gate: Gate) -> None:
    text = configuration(MOCK, target(provider.url), gateway={"drain_seconds": PATIENCE})
    with running_gateway(tmp_path, text, arguments=["--workers", "2"]) as gateway:
        limited = gateway.create_key(rpm=3)
        with Wire(gateway.port) as stream, Load(gateway.port, 6) as load:
            stream.send(chat(stream=True))
            stream.read_until(b"data: begun\n\n\r\n")
            until(lambda: load.answered > 100, "the load runs")
            for _ in range(2):
                with Wire(gateway.port) as client:
                    client.send(chat("mock-gpt", key=limited))
                    assert client.answer()[0] == 200
            gateway.process.send_signal(signal.SIGUSR2)
            pid = successor(gateway)
            until(lambda: "taken over" in gateway.log, "the new one is ready")
            before = load.answered
            until(lambda: load.answered > before + 200, "the new one answers")
            assert gateway.process.poll() is None, "the old one still has a stream"
            gate.open()
            assert stream.read_to_end().endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
            assert gateway.process.wait(PATIENCE) == 0
            before = load.answered
            until(lambda: load.answered > before + 100, "the old one is not missed")
        assert load.failures == []
        statuses = []
        for _ in range(2):
            with Wire(gateway.port) as client:
                client.send(chat("mock-gpt", key=limited))
                statuses.append(client.answer()[0])
        assert statuses == [200, 429], "the key's minute goes on where it was"
        assert gateway.create_key("made-afterwards").startswith("kt_gk_")
        end(pid)
        assert gateway.kt("audit", "verify").returncode == 0


def test_one_that_cannot_start_leaves_the_old_one_in_place(tmp_path: Path) -> None:
    with running_gateway(tmp_path, configuration(MOCK)) as gateway:
        good = gateway.configuration_file().read_text()
        before = children(gateway)
        gateway.configuration_file().write_text(good.replace("provider: mock", "provider: mok"))
        gateway.process.send_signal(signal.SIGUSR2)
        until(lambda: "could not take over" in gateway.log, "it is told")
        assert gateway.get("/readyz")[0] == 200
        assert children(gateway) == before
        gateway.configuration_file().write_text(good)
        gateway.process.send_signal(signal.SIGUSR2)
        pid = successor(gateway)
        assert gateway.process.wait(PATIENCE) == 0, "asked again, it hands over"
        assert gateway.get("/readyz")[0] == 200
        end(pid)


def test_the_port_is_handed_on_and_on(tmp_path: Path) -> None:
    with running_gateway(tmp_path, configuration(MOCK)) as gateway:
        gateway.process.send_signal(signal.SIGUSR2)
        second = successor(gateway)
        assert gateway.process.wait(PATIENCE) == 0
        os.kill(second, signal.SIGUSR2)
        lock = gateway.state / f"run-{gateway.port}" / "lock"
        third = until(
            lambda: pid if (pid := int(lock.read_text())) != gateway.process.pid else 0, "a third has the first folder"
        )
        until(lambda: not alive(second), "the second has left")
        assert gateway.get("/readyz")[0] == 200
        end(third)
