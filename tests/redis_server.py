"""A real Redis (or Valkey) server for a test, from Debian's package, on a free port of loopback.

    with redis_server() as server:
        server.url                   # redis://…
        server.freeze(); server.thaw()
        server.stop(); server.start()

It keeps nothing on disk: a server that comes back has forgotten everything. Where none is installed, tests are skipped
with that reason; where `CI` is set, they fail.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.gateway_process import HOST, PATIENCE, free_port


class RedisServer:
    """One server; see the top of this file."""

    def __init__(self, program: str) -> None:
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    def start(self) -> None:
        """Start, and return once it answers."""
        settings = {"port": self.port, "bind": HOST, "save": "", "appendonly": "no", "dir": "/tmp"}
        arguments = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
        self._process = subprocess.Popen(
            [self._program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + PATIENCE
        while self.ask("PING") != "+PONG":
            assert self._process.poll() is None, "the server has ended"
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.01)

    def stop(self) -> None:
        """End it, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE)
            self._process = None

    def freeze(self) -> None:
        """It keeps its connections and answers none of them."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def ask(self, *words: str) -> str:
        """The first line of the answer to one command; empty when there is none."""
        try:
            with socket.create_connection((HOST, self.port), timeout=1.0) as connection:
                connection.sendall((" ".join(words) + "\r\n").encode())
                return connection.recv(65536).decode().partition("\r\n")[0]
        except OSError:
            return ""


@contextlib.contextmanager
def redis_server() -> Iterator[RedisServer]:
    """A server that runs."""
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        reason = "Redis is not installed (Debian's package redis-server; .ci/setup-system installs it)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    server = RedisServer(program)
    try:
        server.start()
        yield server
    finally:
        server.stop()
