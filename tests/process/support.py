"""What the process tests share: waiting for a condition, looking at processes, speaking HTTP byte by byte."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from tests.gateway_process import HOST, PATIENCE, GatewayProcess

Result = TypeVar("Result")
LOOK_SECONDS = 0.005
MOCK = {"id": "mock", "provider": "mock", "model": "mock-gpt"}


def until(look: Callable[[], Result | None], what: str, seconds: float = PATIENCE) -> Result:
    """Ask again and again until the answer is true; it is returned. The deadline is only against hanging."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: still not so after {seconds:g} s (last seen: {found!r})")
        time.sleep(LOOK_SECONDS)


def target(url: str, id: str = "scripted", model: str = "gpt-4o", **more: Any) -> dict[str, Any]:
    """A target of an OpenAI-compatible provider at `url`."""
    return {"id": id, "provider": "openai-compatible", "model": model, "base_url": url, **more}


# Processes


def children(gateway: GatewayProcess) -> dict[str, int]:
    """The live children of a gateway's supervisor: `control`, `worker-0`, … and their process ids."""
    found: dict[str, int] = {}
    for task in Path(f"/proc/{gateway.process.pid}/task").iterdir():
        try:
            pids = (task / "children").read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # a thread that has just ended; its children are another's
        for pid in pids:
            if name := _name(int(pid)):
                found[name] = int(pid)
    return found


def _name(pid: int) -> str:
    """What a child is; empty for one that is just being started or has just ended."""
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    if b"gateway.control.app" in arguments:
        return "control"
    if b"gateway.worker" in arguments:
        return f"worker-{json.loads(arguments[-2])['worker']}"
    return ""


def alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and was not yet waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def kill(pid: int) -> None:
    """End a process as the kernel would when memory runs out."""
    os.kill(pid, signal.SIGKILL)
    until(lambda: not alive(pid), f"process {pid} is dead")


def rss(pid: int) -> int:
    """Resident memory of a process in bytes, shared pages of files left out."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"RssAnon:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]


# What a gateway says


def answers(gateway: GatewayProcess, path: str) -> bool:
    """Whether a GET is answered with 200."""
    try:
        return gateway.get(path)[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def control(gateway: GatewayProcess, path: str) -> bytes:
    """What the control process answers. It may be up later than the workers, and a worker may just be killed."""

    def ask() -> bytes | None:
        try:
            status, body = gateway.get(path)
        except (OSError, http.client.HTTPException):
            return None
        assert status in (200, 503), body
        return body if status == 200 else None

    return until(ask, f"the control process answers {path}")


def metrics(gateway: GatewayProcess) -> dict[str, float]:
    """Every sample of `/metrics`, by its name and labels as they stand there."""
    return samples(control(gateway, "/metrics"))


def samples(page: bytes) -> dict[str, float]:
    """The samples of a page in Prometheus' text format."""
    lines = (line for line in page.decode().splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def readiness(gateway: GatewayProcess) -> dict[str, Any]:
    """What `/readyz` says."""
    return json.loads(gateway.get("/readyz")[1])  # type: ignore[no-any-return]


def status_of(gateway: GatewayProcess) -> dict[str, Any]:
    """What `/api/v1/status` says."""
    return json.loads(control(gateway, "/api/v1/status"))  # type: ignore[no-any-return]


# HTTP, as bytes


def chat(model: str = "gpt-4o", *, stream: bool = False, text: str = "Hello", key: str = "", **fields: str) -> bytes:
    """A chat completion request, whole."""
    body = json.dumps({"model": model, "stream": stream, "messages": [{"role": "user", "content": text}]}).encode()
    lines = ["POST /v1/chat/completions HTTP/1.1", "host: localhost", "content-type: application/json"]
    if key:
        lines.append(f"authorization: Bearer {key}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    return ("\r\n".join([*lines, f"content-length: {len(body)}", "", ""])).encode() + body


class Wire:
    """A client's connection, on which a test sends and reads bytes."""

    def __init__(self, port: int, *, receive_buffer: int = 0) -> None:
        self.sock = socket.socket()
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(PATIENCE)
        self.sock.connect((HOST, port))
        self.received = b""

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        """Write."""
        self.sock.sendall(data)

    def read_until(self, mark: bytes) -> bytes:
        """Read until what was received holds `mark`; everything up to its end is taken and returned."""
        while mark not in self.received:
            data = self.sock.recv(65536)
            if not data:
                raise AssertionError(f"closed before {mark!r} came: {self.received[-2000:]!r}")
            self.received += data
        end = self.received.index(mark) + len(mark)
        taken, self.received = self.received[:end], self.received[end:]
        return taken

    def read_to_end(self) -> bytes:
        """Everything until the other side closes; a reset counts as that."""
        try:
            while data := self.sock.recv(65536):
                self.received += data
        except ConnectionResetError:
            pass
        taken, self.received = self.received, b""
        return taken

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """One whole sized answer: status, fields by lower-case name, body."""
        head = self.read_until(b"\r\n\r\n")
        status, fields = parse_head(head)
        length = int(fields["content-length"])
        while len(self.received) < length:
            data = self.sock.recv(65536)
            if not data:
                raise AssertionError(f"closed in the middle of a body: {self.received!r}")
            self.received += data
        body, self.received = self.received[:length], self.received[length:]
        return status, fields, body


def parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    """Status and fields of a response head."""
    line, *lines = head.decode("latin-1").split("\r\n")
    fields = (one.partition(":") for one in lines if one)
    return int(line.split(" ")[1]), {name.lower(): value.strip() for name, _, value in fields}
