"""Workers on one port: a killed one costs only its own requests, and no delivered answer is missing from the log."""

from __future__ import annotations

import json
import subprocess
import threading
from collections import Counter
from pathlib import Path

from tests.gateway_process import KT, GatewayProcess, configuration, running_gateway
from tests.process.support import MOCK, Wire, chat, children, kill, metrics, status_of, target, until
from tests.provider import Gate, ScriptedProvider, chunk, head

CLIENTS = 8
REQUESTS = 60


class Client(threading.Thread):
    """One kept connection after the other, as a client that retries; it notes every answer it was given."""

    def __init__(self, port: int, halfway: threading.Barrier) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._halfway = halfway
        self.answered: list[str] = []
        self.lost = 0

    def run(self) -> None:
        wire = Wire(self._port)
        for number in range(REQUESTS):
            if number == REQUESTS // 2:
                self._halfway.wait(30)
            try:
                wire.send(chat("mock-gpt", text=f"request {number}"))
                status, fields, _ = wire.answer()
                assert status == 200
                self.answered.append(fields["x-request-id"])
            except (AssertionError, OSError):
                self.lost += 1
                wire.sock.close()
                wire = Wire(self._port)
        wire.sock.close()


def in_log(gateway: GatewayProcess) -> dict[str, Counter[str]]:
    """How often each exchange stands in the log, by the kind of record."""
    kinds: dict[str, Counter[str]] = {}
    for segment in (gateway.state / "audit").glob("*.jsonl"):
        for line in segment.read_bytes().splitlines():
            record = json.loads(line).get("record", {})
            if "id" in record:
                kinds.setdefault(record["id"], Counter())[record["kind"]] += 1
    return kinds


def test_a_killed_worker_costs_only_its_own_requests(tmp_path: Path) -> None:
    with running_gateway(tmp_path, configuration(MOCK), arguments=["--workers", "2"]) as gateway:
        before = children(gateway)
        halfway = threading.Barrier(CLIENTS + 1)
        clients = [Client(gateway.port, halfway) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        halfway.wait(30)
        counted = metrics(gateway)
        kill(before["worker-0"])
        for client in clients:
            client.join(60)
        again = until(
            lambda: (
                found
                if (found := children(gateway)).get("worker-0", before["worker-0"]) != before["worker-0"]
                else None
            ),
            "the worker is started again",
        )
        assert again["worker-1"] == before["worker-1"]
        until(lambda: len(status_of(gateway)["workers"]) == 2, "both workers are told")
        with Wire(gateway.port) as wire:
            wire.send(chat("mock-gpt"))
            assert wire.answer()[0] == 200
        recounted = until(
            lambda: found if (found := metrics(gateway)).get("keeptrusts_gateway_worker_restarts_total") == 1 else None,
            "the restart is counted",
        )
        requests = 'keeptrusts_gateway_requests_total{model="mock-gpt",provider="mock",status="200"}'
        assert recounted[requests] >= counted[requests], "a counter went backwards"

    # A connection serves one request at a time, so each client can lose one, and only those of the killed worker do.
    assert all(client.lost <= 1 for client in clients)
    assert sum(client.lost for client in clients) < CLIENTS
    log = in_log(gateway)
    answered = [request for client in clients for request in client.answered]
    assert len(answered) >= CLIENTS * (REQUESTS - 1)
    for request in answered:
        assert log[request] == {"start": 1, "finish": 1}, request
    assert all(kinds == {"start": 1, "finish": 1} for kinds in log.values()), "an exchange was left open"
    # The killed worker's segment was sealed by another process, and its root and the manifest were signed.
    key = gateway.state / "audit-key.pub"
    verify = [KT, "audit", "verify", "--public-key", str(key), "--json"]
    done = subprocess.run(verify, env=gateway.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["checkpoints"] >= 2


def test_streams_of_a_killed_worker_are_recorded_as_interrupted(tmp_path: Path) -> None:
    gate = Gate()
    stream = (head(200, ("content-type", "text/event-stream"), chunked=True), chunk(b'data: {"choices":[]}\n\n'), gate)
    with (
        ScriptedProvider(stream).in_thread() as provider,
        running_gateway(tmp_path, configuration(target(provider.url))) as gateway,
        Wire(gateway.port) as wire,
    ):
        wire.send(chat(stream=True))
        begun = wire.read_until(b'data: {"choices":[]}').decode()
        request = begun.partition("x-request-id: ")[2].partition("\r\n")[0]
        kill(children(gateway)["worker-0"])
        assert b"[DONE]" not in wire.read_to_end()
        until(lambda: in_log(gateway).get(request) == {"start": 1, "finish": 1}, "recovery ends what was open")
        rows = [row for row in gateway.audit_records() if row["id"] == request]
    assert [row["outcome"] for row in rows if row.get("outcome")] == ["interrupted"]


def test_a_dead_control_process_stops_no_traffic(tmp_path: Path) -> None:
    with running_gateway(tmp_path, configuration(MOCK)) as gateway:
        key = gateway.create_key()
        control = children(gateway)["control"]
        kill(control)
        with Wire(gateway.port) as wire:
            for _ in range(20):
                wire.send(chat("mock-gpt", key=key))
                assert wire.answer()[0] == 200
        until(lambda: children(gateway).get("control", control) != control, "it is started again")
        assert metrics(gateway)["keeptrusts_gateway_workers"] == 1
        later = gateway.create_key("later")
        with Wire(gateway.port) as wire:
            wire.send(chat("mock-gpt", key=later))
            assert wire.answer()[0] == 200
