"""Starts what a load test needs, each as a user would: the paced provider, nginx as a plain proxy, the gateway.

Everything listens on loopback, keeps its files in one folder that the caller owns, logs there, and is stopped when
its `with` block ends. Nothing of the gateway is imported: it is started by its command and given a configuration file.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

HOST = "127.0.0.1"
MODEL = "gpt-4o"
BLOCKED_TERM = "Project Nightingale"
"""What the configuration `refusing` refuses."""

_PATTERNS = {
    "iban": r"\b[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){3,7}\b",
    "card-visa": r"\b4[0-9]{3}[ -]?[0-9]{4}[ -]?[0-9]{4}[ -]?[0-9]{4}\b",
    "card-mastercard": r"\b5[1-5][0-9]{2}[ -]?[0-9]{4}[ -]?[0-9]{4}[ -]?[0-9]{4}\b",
    "card-amex": r"\b3[47][0-9]{2}[ -]?[0-9]{6}[ -]?[0-9]{5}\b",
    "us-ssn": r"\b[0-9]{3}-[0-9]{2}-[0-9]{4}\b",
    "uk-nino": r"\b[A-CEGHJ-PR-TW-Z]{2} ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[A-D]\b",
    "email": r"\b[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,24}\b",
    "phone": r"\+[0-9]{1,3}[ -]?[0-9]{2,4}[ -]?[0-9]{3,4}[ -]?[0-9]{3,4}\b",
    "ipv4": r"\b(?:[0-9]{1,3}\.){3}[0-9]{1,3}\b",
    "mac": r"\b(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}\b",
    "aws-access-key": r"\bAKIA[0-9A-Z]{16}\b",
    "github-token": r"\bgh[pousr]_[A-Za-z0-9]{36}\b",
    "slack-token": r"\bxox[abprs]-[A-Za-z0-9-]{10,72}\b",
    "google-key": r"\bAIza[0-9A-Za-z_-]{35}\b",
    "private-key": r"-----BEGIN (?:RSA |EC |OPENSSH )?PRIVATE KEY-----",
    "jwt": r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\b",
    "stripe-key": r"\bsk_live_[0-9a-zA-Z]{24,99}\b",
    "employee-number": r"\bEMP-[0-9]{6}\b",
    "case-number": r"\bCASE-[0-9]{4}-[0-9]{5}\b",
    "swift": r"\b[A-Z]{6}[A-Z0-9]{2}(?:[A-Z0-9]{3})?\b",
}
_TERMS = [
    *("Project Nightingale", "Operation Bluebird", "Falcon launch plan", "board minutes", "unreleased results"),
    *("merger agreement", "salary band", "strictly confidential", "internal use only", "trade secret"),
    *("customer master list", "source code escrow", "root password", "litigation hold", "term sheet"),
    *("acquisition target", "whistleblower report", "medical record", "security incident 7", "price floor"),
]
_WORDS = """
the a of and to in is it for with as on that by this from are be or an at not have was which please summarise following
document explain difference between several approaches write function returns customer order system response market
season river engine garden letter number water light paper window first second quickly often together rather possible
recent general small large open clear simple early
"""


class StartError(Exception):
    """A server that did not come up; the message ends with the last lines of its log."""


@dataclass(frozen=True)
class Server:
    """A running server: its port, and the process to measure and to stop."""

    name: str
    port: int
    pid: int
    started_in: float
    """Seconds from the start of the process to the first accepted connection."""


def free_port() -> int:
    """A port on loopback that nothing uses, from below the range that the kernel gives to outgoing connections."""
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            return port
    raise StartError("no free port between 20000 and 32000")


def prompt(size: int, *, stream: bool = False, text: str = "", model: str = MODEL) -> bytes:
    """A chat completion request of about `size` bytes of JSON; ordinary words, always the same."""
    words = random.Random(size)
    lead = f"{text} " if text else ""
    content = lead + " ".join(words.choices(_WORDS.split(), k=size // 5))
    system = {"role": "system", "content": "You are a helpful assistant. Answer briefly."}
    document: dict[str, Any] = {
        "messages": [system, {"role": "user", "content": ""}],
        "model": model,
        "temperature": 0.2,
    }
    if stream:
        document["stream"] = True
    room = max(size - len(json.dumps(document, separators=(",", ":"))), len(lead))
    document["messages"][1]["content"] = content[:room]
    return json.dumps(document, separators=(",", ":")).encode()


@contextlib.contextmanager
def running(
    name: str,
    command: list[str],
    port: int,
    folder: Path,
    *,
    cores: set[int] | None = None,
    environ: Mapping[str, str] | None = None,
    patience: float = 20.0,
) -> Iterator[Server]:
    """Run a server until the block ends; entered once its port accepts connections, in `patience` seconds."""
    log = folder / f"{name}.log"
    begin = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environ or {})},
            start_new_session=True,
        )
    try:
        if cores:
            os.sched_setaffinity(process.pid, cores)
        _await_port(process, port, log, patience)
        yield Server(name, port, process.pid, time.monotonic() - begin)
    finally:
        _stop(process)


def _await_port(process: subprocess.Popen[bytes], port: int, log: Path, patience: float) -> None:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            socket.create_connection((HOST, port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise StartError(f"{log.stem} did not come up on port {port}\n{log_tail(log, lines=15)}")


def log_tail(log: Path, *, lines: int) -> str:
    """The end of a server's log under its name; empty if it said nothing."""
    said = log.read_text(errors="replace").splitlines()[-lines:]
    return "\n".join([f"-- the end of {log.name}:", *said]) if said else ""


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask to stop; after ten seconds end the whole session that it leads."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def provider(folder: Path, *, cores: set[int] | None = None, name: str = "provider", **pace: float) -> Iterator[Server]:
    """The paced provider; `pace` as on its command line (`ttft_ms`, `gap_ms`, `chunks`, …)."""
    port = free_port()
    options = [f"--{key.replace('_', '-')}={value}" for key, value in pace.items()]
    command = [sys.executable, "-m", "loadtest.provider", f"--port={port}", *options]
    path = os.pathsep.join(filter(None, (str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH"))))
    with running(name, command, port, folder, cores=cores, environ={"PYTHONPATH": path}) as server:
        yield server


def nginx_command() -> str | None:
    """Where nginx is; Debian keeps it out of a user's PATH."""
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def nginx_configuration(folder: Path, port: int, upstream: int, *, upgrades: bool = False) -> str:
    """nginx as one would set it before a model provider: one worker, nothing buffered, connections kept.

    `upgrades`: for WebSockets, which need their own header fields (nginx.org/en/docs/http/websocket.html).
    """
    connection = (
        'Upgrade $http_upgrade;\n            proxy_set_header Connection "upgrade"' if upgrades else 'Connection ""'
    )
    user = "user root;" if os.geteuid() == 0 else ""
    paths = "\n".join(
        f"    {kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""
{user}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 8192; }}
http {{
{paths}
    access_log off;
    keepalive_requests 1000000000;
    client_max_body_size 32m;
    client_body_buffer_size 1m;
    upstream provider {{
        server {HOST}:{upstream};
        keepalive 1024;
        keepalive_requests 1000000000;
    }}
    server {{
        listen {HOST}:{port} backlog=4096;
        location / {{
            proxy_pass http://provider;
            proxy_http_version 1.1;
            proxy_set_header {connection};
            proxy_buffering off;
        }}
    }}
}}
"""


@contextlib.contextmanager
def nginx(
    folder: Path, upstream: int, *, cores: set[int] | None = None, name: str = "nginx", upgrades: bool = False
) -> Iterator[Server]:
    """nginx's `proxy_pass` to a port on loopback."""
    command = nginx_command()
    if command is None:
        raise StartError("nginx is not installed. Next step: make setup-system")
    port = free_port()
    home = folder / name
    home.mkdir()
    (home / "nginx.conf").write_text(nginx_configuration(home, port, upstream, upgrades=upgrades))
    arguments = [command, "-p", str(home), "-e", "stderr", "-c", str(home / "nginx.conf")]
    with running(name, arguments, port, folder, cores=cores) as server:
        yield server


def kt_command() -> str | None:
    """The `kt` of this environment, or else the one on PATH."""
    beside = Path(sys.executable).with_name("kt")
    return str(beside) if beside.exists() else shutil.which("kt")


def _configuration(
    name: str, targets: list[dict[str, Any]], chain: list[str], policy: dict[str, Any]
) -> dict[str, Any]:
    return {
        "pack": {"name": name},
        "providers": {"targets": targets},
        "policies": {"chain": chain},
        "policy": policy,
        "gateway": {"connection_pool": {"max_connections": 4096}},
    }


def _target(model: str, port: int) -> dict[str, Any]:
    return {
        "id": f"{model}-at-{port}",
        "provider": "openai-compatible",
        "model": model,
        "base_url": f"http://{HOST}:{port}",
        "secret_key_ref": {"env": "LOADTEST_PROVIDER_KEY"},
    }


def configurations(upstreams: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    """One configuration for every way the gateway is measured; the first serves requests that carry no key.

    Each offers the same models: `upstreams` says at which port each is found.
    """
    targets = [_target(model, port) for model, port in upstreams.items()]
    audit = {"audit-logger": {"immutable": True, "retention_days": 365, "log_all_access": True}}
    patterns = [{"name": name, "regex": regex} for name, regex in _PATTERNS.items()]
    scan = {"terms": _TERMS, "patterns": patterns, "action": "block"}
    refuse = {"terms": [BLOCKED_TERM], "action": "block"}
    both = ["dlp-filter", "audit-logger"]
    six = {
        **audit,
        "dlp-filter": {**scan, "phase": ["input", "output"], "action": "redact", "streaming": "guard"},
        "pii-detector": {"phase": ["input", "output"], "action": "redact", "streaming": "guard"},
        "secret-detector": {"phase": ["input", "output"], "action": "redact", "streaming": "guard"},
        "safety-filter": {"phase": ["input", "output"], "action": "warn", "streaming": "guard"},
        "model-access": {"allow": ["gpt-4o*"]},
    }
    return {
        "bare": _configuration("bare", targets, [], {}),
        "default": _configuration("default", targets, ["audit-logger"], audit),
        "scan": _configuration("scan", targets, both, {**audit, "dlp-filter": scan}),
        "decode": _configuration("decode", targets, both, {**audit, "dlp-filter": {**scan, "phase": ["output"]}}),
        "six": _configuration("six", targets, list(six), six),
        "refusing": _configuration("refusing", targets, both, {**audit, "dlp-filter": refuse}),
    }


@dataclass(frozen=True)
class Gateway:
    """A running gateway, and a key for each configuration but the first."""

    server: Server
    keys: Mapping[str, str]


@contextlib.contextmanager
def gateway(
    folder: Path,
    upstreams: Mapping[str, int],
    *,
    cores: set[int] | None = None,
    name: str = "gateway",
    workers: int = 1,
    documents: Mapping[str, dict[str, Any]] | None = None,
    rpm: Mapping[str, int] | None = None,
) -> Iterator[Gateway]:
    """`kt gateway run` with all `configurations`, and keys made by `kt gateway-key create`, with limits set.

    `documents` are configurations to take instead of these. `rpm` has the limit of a configuration's key, where it is
    to be reached.
    """
    command = kt_command()
    if command is None:
        raise StartError("`kt` is not installed. Next step: make setup")
    port = free_port()
    environ = {"KT_STATE_DIR": str(folder / f"{name}-state"), "LOADTEST_PROVIDER_KEY": "sk-loadtest"}
    options: list[str] = []
    all_configurations = configurations(upstreams) if documents is None else documents
    for configuration, document in all_configurations.items():
        path = folder / f"{name}-{configuration}.yaml"
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        options += ["--policy-config", str(path)]
    arguments = [command, "gateway", "run", *options, "--listen", f"{HOST}:{port}", "--workers", str(workers)]
    with running(name, arguments, port, folder, cores=cores, environ=environ, patience=60) as server:
        keyed = list(all_configurations)[1:]
        with ThreadPoolExecutor(len(keyed)) as together:
            made = together.map(lambda name: _create_key(command, name, environ, (rpm or {}).get(name)), keyed)
            keys = dict(zip(keyed, made, strict=True))
        for key in keys.values():
            _await_key(port, key, folder / f"{name}.log")
        yield Gateway(server, keys)


def _create_key(command: str, configuration: str, environ: Mapping[str, str], rpm: int | None = None) -> str:
    limits = ["--rpm", str(rpm or 10_000_000), "--tpm", "1000000000"]
    arguments = ["gateway-key", "create", "--name", f"loadtest-{configuration}", "--configuration-id", configuration]
    done = subprocess.run(
        [command, *arguments, *limits, "--json"],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=120,
    )
    if done.returncode:
        raise StartError(f"kt gateway-key create failed:\n{done.stderr}")
    return str(json.loads(done.stdout)["key"])


def _await_key(port: int, key: str, log: Path) -> None:
    """Workers hear of a new key within a second; wait until this one is good."""
    deadline = time.monotonic() + 10
    status = 0
    while time.monotonic() < deadline:
        connection = http.client.HTTPConnection(HOST, port, timeout=5)
        try:
            connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {key}"})
            status = connection.getresponse().status
        finally:
            connection.close()
        if status == 200:
            return
        time.sleep(0.02)
    problem = f"a new key was not in force after ten seconds: GET /v1/models answered {status}"
    raise StartError(f"{problem}\n{log_tail(log, lines=3)}")
