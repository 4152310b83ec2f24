"""A real gateway for a test: the `kt gateway run` that a user would start, in processes of its own.

    text = configuration({"id": "one", "provider": "mock", "model": "mock-gpt"})
    with running_gateway(tmp_path, text) as gateway:
        key = gateway.create_key(rpm=60)
        httpx.post(f"{gateway.api}/chat/completions", headers={"authorization": f"Bearer {key}"}, json=...)

It listens on a free port of loopback and keeps its state, configuration files and log in the folder given. The block is
entered once `/readyz` answers 200. At its end the gateway gets SIGTERM and must leave by itself with status 0, unless
the test has ended or killed it before. When a test fails, the log of every gateway that runs is part of the report.

A start costs about a second of one core, so tests that need no configuration of their own share one of these through a
fixture of module or session scope. The supervisor leads a session: nothing of a gateway outlives its block.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import yaml

HOST = "127.0.0.1"
PATIENCE = 30.0
"""Seconds after which a wait gives up: a deadline against hanging, nothing that a test relies on."""
KT = str(Path(sys.executable).with_name("kt"))


def configuration(
    *targets: Mapping[str, Any],
    name: str = "test",
    chain: Sequence[str] = ("audit-logger",),
    policy: Mapping[str, Any] | None = None,
    gateway: Mapping[str, Any] | None = None,
    **providers: Any,
) -> str:
    """A `policy-config.yaml`; `providers` are `routing` and `fallback`. All exchanges are audited by default."""
    document = {
        "pack": {"name": name},
        "providers": {"targets": [dict(target) for target in targets], **providers},
        "policies": {"chain": list(chain)},
        "policy": {"audit-logger": {"log_all_access": True}, **(policy or {})},
        "gateway": dict(gateway or {}),
    }
    return yaml.safe_dump(document, sort_keys=False)


class GatewayProcess:
    """A running gateway; see the top of this file."""

    running: set[GatewayProcess] = set()  # noqa: RUF012 (of the class, on purpose)
    """All that run now, for the report of a failed test."""

    def __init__(
        self, folder: Path, port: int, process: subprocess.Popen[bytes], environment: Mapping[str, str]
    ) -> None:
        self.folder = folder
        self.port = port
        self.process = process
        self.environment = dict(environment)

    def __repr__(self) -> str:
        code = self.process.poll()
        return f"<GatewayProcess {self.url}, {'running' if code is None else f'ended with {code}'}>"

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def api(self) -> str:
        """The `base_url` of an OpenAI SDK."""
        return f"{self.url}/v1"

    @property
    def state(self) -> Path:
        """The state folder; the run folder is `state / f"run-{port}"`, the audit log `state / "audit"`."""
        return Path(self.environment["KT_STATE_DIR"])

    @property
    def log(self) -> str:
        """What all its processes have said so far."""
        return (self.folder / "gateway.log").read_text(errors="replace")

    def configuration_file(self, index: int = 0) -> Path:
        """The file of the configuration given in that place; writing to it makes the gateway reload."""
        return self.folder / f"configuration-{index}.yaml"

    def kt(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a `kt` command on this gateway's state folder."""
        done = subprocess.run(
            [KT, *arguments], env=self.environment, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        if check and done.returncode:
            raise AssertionError(f"kt {' '.join(arguments)}: status {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def create_key(self, name: str = "test-key", **options: Any) -> str:
        """A gateway key, in force at once. `options` as on the command line: `rpm=60`, `expires_in="90d"`, …"""
        given = [f"--{option.replace('_', '-')}={value}" for option, value in options.items()]
        done = self.kt("gateway-key", "create", "--name", name, "--json", *given)
        return str(json.loads(done.stdout)["key"])

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
        """Status and body of a GET, on a connection of its own."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=PATIENCE)
        try:
            connection.request("GET", path, headers=dict(headers or {}))
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def audit_records(self, kind: str = "exchange") -> list[dict[str, Any]]:
        """What has reached the audit log of one kind, in order. Beside exchanges there are changes: of a key made by a
        test, for one, whenever the control process comes to it."""
        lines = self.kt("audit", "export").stdout.splitlines()
        return [row for row in map(orjson.loads, lines) if row["kind"] == kind]

    def wait_until_ready(self) -> None:
        """Return once `/readyz` answers 200; raise when the gateway ends before, or after `PATIENCE` seconds."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"{self!r} before it was ready\n{self.log}")
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.get("/readyz")[0] == 200:
                    return
            time.sleep(0.02)  # as often as one asks; nothing is assumed of how long it takes
        raise AssertionError(f"{self!r} is not ready\n{self.log}")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal, wait for the end and return its status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self!r} {PATIENCE} s after {number.name}\n{self.log}") from None

    def _destroy(self) -> None:
        """Whatever is left of its session ends."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextlib.contextmanager
def running_gateway(
    folder: Path,
    *texts: str,
    arguments: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    ready: bool = True,
) -> Iterator[GatewayProcess]:
    """Run a gateway with these configurations (YAML), the first being the default one.

    `arguments` are further ones of `kt gateway run` (`["--workers", "2"]`). `environment` is added to that of the
    tests, from which the variables of gateways, of SDKs and of proxies are taken away, and the one that keeps Python
    from writing bytecode (compiling anew at each start costs a second of CPU). `ready` False: the block
    is entered at once.
    """
    folder.mkdir(parents=True, exist_ok=True)
    gateway = _start(folder, texts, arguments, _environment(folder, environment or {}))
    GatewayProcess.running.add(gateway)
    try:
        if ready:
            gateway.wait_until_ready()
        yield gateway
        if gateway.process.poll() is None:
            status = gateway.stop()
            assert status == 0, f"{gateway!r} after SIGTERM\n{gateway.log}"
    finally:
        GatewayProcess.running.discard(gateway)
        gateway._destroy()


def _environment(folder: Path, added: Mapping[str, str]) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("KT_", "OPENAI_", "AZURE_", "PYTHONDONTWRITE")) and not name.lower().endswith("_proxy")
    }
    return {**kept, "KT_STATE_DIR": str(folder / "state"), **added}


def _start(
    folder: Path, texts: Sequence[str], arguments: Sequence[str], environment: Mapping[str, str]
) -> GatewayProcess:
    files: list[str] = []
    for index, text in enumerate(texts):
        path = folder / f"configuration-{index}.yaml"
        path.write_text(text)
        files += ["--policy-config", str(path)]
    port = free_port()
    with (folder / "gateway.log").open("ab") as output:
        process = subprocess.Popen(
            [KT, "gateway", "run", *files, "--listen", f"{HOST}:{port}", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    return GatewayProcess(folder, port, process, environment)


def free_port() -> int:
    """A port on loopback that nothing uses.

    From below the range out of which the kernel serves outgoing connections and `bind` to port 0, so that no other test
    takes it before the gateway does.
    """
    for port in random.sample(range(10_000, 32_000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            return port
    raise AssertionError("no free port between 10000 and 32000")
