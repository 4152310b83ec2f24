"""A changed configuration comes into force in every worker or in none, and nothing that is under way notices."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway_process import GatewayProcess, configuration, running_gateway
from tests.process.support import MOCK, Wire, chat, children, control, metrics, readiness, status_of, target, until
from tests.provider import LAST_CHUNK, Gate, ScriptedProvider, chunk, head

RELOADS = "keeptrusts_gateway_configuration_reloads_total"
FAILURES = "keeptrusts_gateway_configuration_reload_failures_total"
SUCCESS = "keeptrusts_gateway_configuration_last_reload_success"
EVENT_STREAM = head(200, ("content-type", "text/event-stream"), chunked=True)
TWO = [MOCK, {**MOCK, "id": "second", "model": "mock-2"}]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with running_gateway(
        tmp_path_factory.mktemp("reload"), configuration(MOCK), arguments=["--workers", "2"]
    ) as gateway:
        control(gateway, "/metrics")
        yield gateway


@pytest.fixture
def gateway(shared: GatewayProcess) -> GatewayProcess:
    """A gateway of two workers that has its first configuration again."""
    write(shared, configuration(MOCK))
    done = reloads(shared)
    hang_up(shared)
    until(lambda: reloads(shared) == done + 1, "reloaded")
    until(lambda: len(versions(shared)) == 1, "in both workers")
    return shared


def write(gateway: GatewayProcess, text: str) -> None:
    """As an editor does: a new file takes the old one's name."""
    file = gateway.configuration_file()
    file.with_suffix(".tmp").write_text(text)
    file.with_suffix(".tmp").replace(file)


def hang_up(gateway: GatewayProcess) -> None:
    os.kill(gateway.process.pid, signal.SIGHUP)


def reloads(gateway: GatewayProcess) -> float:
    return metrics(gateway)[RELOADS]


def versions(gateway: GatewayProcess) -> set[str]:
    return {worker["configuration"] for worker in status_of(gateway)["workers"] if worker["live"]}


def test_a_changed_file_is_read_by_itself_and_in_force_in_every_worker(gateway: GatewayProcess) -> None:
    [before], done = versions(gateway), reloads(gateway)
    write(gateway, configuration(*TWO))
    until(lambda: reloads(gateway) == done + 1, "the file is read")
    until(lambda: before not in versions(gateway) and len(versions(gateway)) == 1, "both workers have the same")
    for _ in range(20):  # connections of their own: the kernel spreads them
        assert b'"mock-2"' in gateway.get("/v1/models")[1]


def test_sighup_reads_at_once(gateway: GatewayProcess) -> None:
    write(gateway, configuration(*TWO))
    hang_up(gateway)
    until(lambda: b'"mock-2"' in gateway.get("/v1/models")[1], "the new model")
    assert metrics(gateway)[SUCCESS] == 1


def test_a_broken_file_changes_nothing_and_is_told_everywhere(gateway: GatewayProcess) -> None:
    failed = metrics(gateway)[FAILURES]
    write(gateway, configuration(*TWO).replace("provider: mock", "provider: mok", 1))
    hang_up(gateway)
    until(lambda: metrics(gateway).get(SUCCESS) == 0, "the failure is counted")
    assert metrics(gateway)[FAILURES] == failed + 1
    for _ in range(10):
        assert b'"mock-2"' not in gateway.get("/v1/models")[1]
    error = until(lambda: readiness(gateway)["configuration_error"], "/readyz tells it")
    assert "did you mean `mock`?" in error
    assert readiness(gateway)["ready"]
    [line] = [line for line in gateway.log.splitlines() if "the old one stays in force" in line]
    assert "configuration-0.yaml:" in line

    write(gateway, configuration(*TWO))
    hang_up(gateway)
    until(lambda: metrics(gateway)[SUCCESS] == 1, "mended")
    until(lambda: readiness(gateway)["configuration_error"] is None, "/readyz has forgotten it")


def test_a_file_put_back_as_it_was_clears_the_error(gateway: GatewayProcess) -> None:
    write(gateway, "pack: [")
    hang_up(gateway)
    until(lambda: metrics(gateway)[SUCCESS] == 0, "broken")
    write(gateway, configuration(MOCK))
    hang_up(gateway)
    until(lambda: metrics(gateway)[SUCCESS] == 1, "mended")


def test_a_configuration_that_one_worker_cannot_compile_comes_into_force_in_none(
    gateway: GatewayProcess,
) -> None:
    """A worker that is stopped cannot say that it is able to; the other one, which is, must not go ahead."""
    before = versions(gateway)
    stopped = children(gateway)["worker-1"]
    run_folder = gateway.state / f"run-{gateway.port}"
    prepared = (run_folder / "prepared-0.json").read_bytes()
    os.kill(stopped, signal.SIGSTOP)
    try:
        write(gateway, configuration(*TWO))
        hang_up(gateway)
        until(lambda: (run_folder / "prepared-0.json").read_bytes() != prepared, "one worker is prepared")
        assert (run_folder / "candidate.json").exists()
        assert '"mock-2"' not in (run_folder / "configuration.json").read_text()
    finally:
        os.kill(stopped, signal.SIGCONT)
    until(lambda: versions(gateway) != before and len(versions(gateway)) == 1, "both go ahead")
    assert not (run_folder / "candidate.json").exists()


def test_a_stream_under_way_ends_under_the_configuration_it_began_with(gateway: GatewayProcess) -> None:
    """Its target is gone from the new file, so its pool is retired; the stream has its connection till its end."""
    go = Gate()
    steps = [EVENT_STREAM, chunk(b"data: 1\n\n"), go, chunk(b"data: 2\n\n"), LAST_CHUNK]
    with ScriptedProvider(steps).in_thread() as old, Wire(gateway.port) as client:
        write(gateway, configuration(target(old.url)))
        hang_up(gateway)
        until(lambda: b"gpt-4o" in gateway.get("/v1/models")[1], "the target is there")
        client.send(chat(stream=True))
        client.read_until(b"data: 1\n\n")
        write(gateway, configuration(MOCK))
        hang_up(gateway)
        until(lambda: b"gpt-4o" not in gateway.get("/v1/models")[1], "the target is gone")
        assert len(versions(gateway)) == 1
        go.open()
        assert b"data: 2\n\n" in client.read_until(b"\r\n0\r\n\r\n")
        old.connections[0].closed.wait_for()


def test_sighup_reads_secrets_anew_although_no_text_has_changed(gateway: GatewayProcess, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("sk-first\n")
    with ScriptedProvider().in_thread() as provider:

        def used() -> str:
            with Wire(gateway.port) as client:
                client.send(chat())
                assert client.answer()[0] == 200
            return provider.requests[len(provider.requests) - 1].headers["authorization"]

        write(gateway, configuration(target(provider.url, secret_key_ref={"file": str(secret)})))
        hang_up(gateway)
        until(lambda: all(b"gpt-4o" in gateway.get("/v1/models")[1] for _ in range(8)), "the target is there")
        until(lambda: len(versions(gateway)) == 1, "in both workers")
        assert used() == "Bearer sk-first"
        secret.write_text("sk-second\n")
        hang_up(gateway)
        until(lambda: all(used() == "Bearer sk-second" for _ in range(8)), "the new secret is used")


def test_authentication_changes_with_the_file(gateway: GatewayProcess) -> None:
    assert gateway.get("/v1/models")[0] == 200
    write(gateway, configuration(MOCK, gateway={"auth": "required"}))
    hang_up(gateway)
    until(lambda: gateway.get("/v1/models")[0] == 401, "a key is required")


def test_what_needs_a_restart_is_said(gateway: GatewayProcess) -> None:
    write(gateway, configuration(MOCK, gateway={"workers": 3}))
    hang_up(gateway)
    until(lambda: '"setting":"gateway.workers"' in gateway.log, "a warning")
    assert [name for name in children(gateway) if name != "control"] == ["worker-0", "worker-1"]


def test_a_worker_that_starts_during_a_reload_has_the_new_configuration(gateway: GatewayProcess) -> None:
    """No signal can reach a process that is being started; it looks by itself once it is ready."""
    [before], killed = versions(gateway), children(gateway)["worker-1"]
    write(gateway, configuration(*TWO))
    os.kill(killed, signal.SIGKILL)
    hang_up(gateway)

    def settled() -> bool:
        workers = status_of(gateway)["workers"]
        return all(one["state"] == "ready" and one["live"] and one["configuration"] != before for one in workers)

    until(settled, "both workers are ready with the new configuration")
    assert children(gateway)["worker-1"] != killed
    for _ in range(20):
        assert b'"mock-2"' in gateway.get("/v1/models")[1]
