"""`kt doctor` and `kt bench` on real gateways: what they measure, and a proxy that buffers, found between the two."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.gateway_process import HOST, KT, GatewayProcess, configuration, free_port, running_gateway
from tests.process.support import until

MOCK = {"id": "mock", "provider": "mock", "model": "mock-gpt"}
COMPRESSING = (
    "proxy_http_version 1.1; proxy_ignore_headers X-Accel-Buffering;"
    " gzip on; gzip_proxied any; gzip_types text/event-stream; gzip_min_length 0;"
)
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with running_gateway(tmp_path_factory.mktemp("gateway"), configuration(MOCK)) as running:
        yield running


@contextmanager
def proxy(folder: Path, upstream: int, settings: str) -> Iterator[str]:
    """nginx before the gateway, with these settings of its location."""
    port = free_port()
    paths = " ".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if os.geteuid() == 0 else ""
    file = folder / "nginx.conf"
    file.write_text(
        f"{user} daemon off; master_process off; pid {folder}/pid; error_log stderr error; events {{}}"
        f" http {{ access_log off; {paths} server {{ listen {HOST}:{port};"
        f" location / {{ proxy_pass http://{HOST}:{upstream}; {settings} }} }} }}"
    )
    assert NGINX is not None, "nginx is missing: make setup-system"
    process = subprocess.Popen([NGINX, "-c", str(file), "-p", str(folder)])
    try:
        until(lambda: _accepts(port), "nginx accepts")
        yield f"http://localhost:{port}"
    finally:
        process.terminate()
        process.wait(10)


def _accepts(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


def doctor(*arguments: str) -> tuple[int, dict[str, str]]:
    done = subprocess.run([KT, "doctor", *arguments, "--json"], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout, done.stderr
    return done.returncode, {row["area"]: row["status"] for row in json.loads(done.stdout)["findings"]}


def test_a_stream_that_nothing_holds_back(gateway: GatewayProcess) -> None:
    assert doctor("--url", gateway.url) == (0, {"gateway": "ok", "buffering": "ok"})


def test_a_proxy_that_buffers_is_found(gateway: GatewayProcess, tmp_path: Path) -> None:
    with proxy(tmp_path, gateway.port, COMPRESSING) as url:
        assert doctor("--url", url) == (1, {"gateway": "ok", "buffering": "failed"})


def test_the_same_proxy_as_the_doctor_says_to_set_it(gateway: GatewayProcess, tmp_path: Path) -> None:
    with proxy(tmp_path, gateway.port, "proxy_buffering off; proxy_http_version 1.1; gzip off;") as url:
        assert doctor("--url", url) == (0, {"gateway": "ok", "buffering": "ok"})


def test_a_model_that_is_not_there_is_no_verdict_about_buffering(gateway: GatewayProcess) -> None:
    code, status = doctor("--url", gateway.url, "--model", "gpt-9")
    assert (code, status["buffering"]) == (1, "failed")


def test_what_the_gateway_adds_is_measured_with_the_users_chain(tmp_path: Path) -> None:
    file = tmp_path / "policy-config.yaml"
    file.write_text(
        configuration(MOCK, chain=["dlp-filter", "audit-logger"], policy={"dlp-filter": {"terms": ["x y"]}})
    )
    done = subprocess.run(
        [KT, "doctor", "--policy-config", str(file), "--listen", f"{HOST}:{free_port()}", "--offline", "--json"],
        env={**os.environ, "KT_STATE_DIR": str(tmp_path / "state")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    measured = json.loads(done.stdout)["measured"]
    assert done.returncode == 0, done.stdout
    assert (measured["streams"], measured["events"]) == (40, 840)
    assert measured["added_ttft_us"]["p50"] > 0
    assert measured["cancel_us"]["p99"] >= measured["cancel_us"]["p50"] > 0


def test_a_chain_that_refuses_the_test_request_is_told_and_left_out(tmp_path: Path) -> None:
    file = tmp_path / "policy-config.yaml"
    terms = {"dlp-filter": {"terms": ["harbours"], "action": "block"}}
    file.write_text(configuration(MOCK, chain=["dlp-filter", "audit-logger"], policy=terms))
    code, status = doctor("--policy-config", str(file), "--listen", f"{HOST}:{free_port()}", "--offline")
    assert (code, status["measurement"]) == (0, "note")


def test_bench_of_a_gateway_that_it_starts() -> None:
    done = subprocess.run([KT, "bench", "--seconds", "1", "--json"], capture_output=True, text=True, check=True)
    figures = json.loads(done.stdout)
    assert figures["answers"]["answers"] > 0
    assert figures["answers"]["refused"] == figures["streams"]["refused"] == 0
    assert figures["streams"]["events_per_second"] > figures["streams"]["answers_per_second"]


def test_bench_of_a_running_gateway_is_bounded_and_shows_progress(gateway: GatewayProcess) -> None:
    command = [KT, "bench", "--url", gateway.api, "--requests", "20", "--connections", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "answers a second" in done.stdout
    answered = next(line for line in done.stdout.splitlines() if line.startswith("answered"))
    assert answered.split() == ["answered", "10", "10"]
    assert f"answers from {gateway.url}" in done.stderr
