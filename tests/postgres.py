"""A real PostgreSQL server for a test, from Debian's package, on a free port of loopback.

    with postgres_server() as server:
        url = server.database()      # a new, empty database
        server.freeze()              # it answers nobody, as behind a dead network
        server.thaw()
        server.stop(); server.start()

Its data lie in a folder of their own and are gone at the end. PostgreSQL refuses to run as root, so root starts it as
`postgres`. Where it is not installed, tests are skipped with that reason; where `CI` is set, they fail.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway_process import HOST, PATIENCE, free_port

SUPERUSER = "postgres"
_SETTINGS = {
    # Nobody pulls this machine's plug in a test, and a test's database need not survive it.
    "fsync": "off",
    "synchronous_commit": "off",
    "listen_addresses": HOST,
    "unix_socket_directories": "''",
    "max_connections": "60",
    "log_min_messages": "warning",
}


def _programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    if found:
        return found[-1]
    if initdb := shutil.which("initdb"):
        return Path(initdb).resolve().parent
    reason = "PostgreSQL is not installed (Debian's package postgresql; .ci/setup-system installs it)"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


class PostgresServer:
    """One server; see the top of this file."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs = programs
        self._folder = folder
        self._user = SUPERUSER if os.getuid() == 0 else None
        self._count = itertools.count(1)
        self.port = free_port()

    def initialise(self) -> None:
        """Make the data folder. One second."""
        if self._user is not None:
            shutil.chown(self._folder, self._user)
        self._run("initdb", "--no-sync", "--auth=trust", f"--username={SUPERUSER}", "--encoding=UTF8", "--locale=C")

    def start(self) -> None:
        """Start, and return once it accepts connections."""
        settings = " ".join(f"-c {name}={value}" for name, value in {**_SETTINGS, "port": str(self.port)}.items())
        self._run("pg_ctl", "start", "--wait", f"--log={self._folder}/log", f"--options={settings}")

    def stop(self, mode: str = "fast") -> None:
        """Stop: `fast` ends all sessions, `immediate` is as good as a crash."""
        self._run("pg_ctl", "stop", "--wait", f"--mode={mode}")

    def freeze(self) -> None:
        """The server keeps its connections and answers none of them."""
        for pid in self._processes():
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """The server goes on. Its first process last: it would see the others as they were."""
        for pid in reversed(self._processes()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def database(self, template: str = "template1") -> str:
        """The URL of a new database, a copy of `template`."""
        name = f"test_{next(self._count)}"
        self.query(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def url(self, database: str) -> str:
        """A database's URL."""
        return f"postgresql://{SUPERUSER}@{HOST}:{self.port}/{database}"

    def query(self, statement: str, database: str = "postgres") -> str:
        """Run one statement; what psql prints of its rows, unaligned."""
        command = [self._programs / "psql", self.url(database), "-XAtqc", statement]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextlib.contextmanager
    def session(self, statement: str, database: str) -> Iterator[None]:
        """Inside, a session has run `statement` in a transaction and keeps it open: it may hold a lock."""
        command = [self._programs / "psql", self.url(database), "-XAtq"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as psql:
            assert psql.stdin is not None
            assert psql.stdout is not None
            psql.stdin.write(f"BEGIN; {statement};\n\\echo done\n")
            psql.stdin.flush()
            assert psql.stdout.readline() == "done\n"
            try:
                yield
            finally:
                psql.stdin.close()
                psql.wait(PATIENCE)

    def _processes(self) -> list[int]:
        postmaster = int((self._folder / "data" / "postmaster.pid").read_text().split("\n")[0])
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        return [postmaster, *map(int, children)]

    def _run(self, program: str, *arguments: str) -> None:
        # Only to files: a server that outlives pg_ctl would keep a pipe open, and whoever reads it waiting.
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(
                [self._programs / program, *arguments],
                env={**os.environ, "PGDATA": f"{self._folder}/data", "LC_ALL": "C"},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                user=self._user,
                group=self._user,
                extra_groups=None if self._user is None else [],
                timeout=PATIENCE,
                check=False,
            )
            output.seek(0)
            assert done.returncode == 0, f"{program}: {output.read().decode(errors='replace')}"


def _roomy() -> str:
    """Memory where there is enough: a database for each test is some 300 files, and to delete those of a hundred tests
    takes a busy disk a minute."""
    memory = "/dev/shm"
    enough = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 4 << 30
    return memory if enough else "/tmp"


@contextlib.contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """A server that runs."""
    programs = _programs()
    folder = Path(tempfile.mkdtemp(prefix="kt-postgres-", dir=_roomy()))
    server = PostgresServer(programs, folder)
    try:
        server.initialise()
        server.start()
        yield server
    finally:
        if (folder / "data" / "postmaster.pid").exists():
            server.thaw()
            server.stop("immediate")
        shutil.rmtree(folder, ignore_errors=True)
