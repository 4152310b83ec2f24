"""The parent process: checks the configuration, starts control process and workers, restarts what dies, stops in order.

It serves no request. It is the only reader of the operator's files: what it finds good it hands to the workers through
the run folder (run_file.py), and what it finds broken leaves the old configuration in force. Signals: SIGTERM and
SIGINT drain and stop, SIGHUP reloads; a changed file reloads by itself.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from gateway import metrics
from gateway.config.load import LoadedConfiguration, load, source_files
from gateway.config.problems import ConfigurationInvalid
from gateway.config.schema import AuthMode
from gateway.run_file import ConfigurationText, RunFile, write_run_file
from gateway.types import FailMode
from gateway.worker import WorkerOptions

WATCH_SECONDS: Final = 1.0
FIRST_RESTART_SECONDS: Final = 0.05
MAX_RESTART_SECONDS: Final = 5.0
STEADY_SECONDS: Final = 10.0
"""A child that lived this long is restarted at once when it dies; one that keeps dying, ever more slowly."""
STOP_GRACE_SECONDS: Final = 5.0

log = logging.getLogger("gateway.supervisor")


class CannotStart(Exception):
    """The gateway cannot start; the message says why and what to do."""


class Options(msgspec.Struct, frozen=True):
    """How one gateway runs."""

    configurations: tuple[str, ...]
    host: str
    port: int
    workers: int
    state_folder: Path
    run_folder: Path
    audit_folder: Path
    store_url: str
    auth: AuthMode
    fail_mode: FailMode | None = None


def effective_auth(mode: AuthMode, host: str) -> AuthMode:
    """`auto` means `required` on any address but loopback."""
    if mode is AuthMode.AUTO and not is_loopback(host):
        return AuthMode.REQUIRED
    return mode


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    return host in ("localhost", "::1") or host.startswith("127.")


def lock_run_folder(folder: Path) -> int:
    """Take the run folder for this process; the lock ends with it. Raises CannotStart when another gateway has it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(descriptor, 32).decode().strip()
        os.close(descriptor)
        raise CannotStart(
            f"Another gateway (process {owner}) runs on this port with this state folder; stop it or take another port."
        ) from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


def reserve_port(host: str, port: int) -> socket.socket:
    """Bind the port without listening, so that it stays this gateway's while workers come and go.

    The first bind is without SO_REUSEPORT, because with it two gateways of one user would share the port unnoticed.
    Raises CannotStart.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for reuse in (False, True):
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            sock.bind((host, port))
        except OSError as error:
            sock.close()
            hint = "choose another with --port" if error.errno == errno.EADDRINUSE else "check --listen"
            raise CannotStart(f"Cannot listen on {host}:{port}: {error.strerror}; {hint}.") from None
        if not reuse:
            sock.close()
    return sock


class Supervisor:
    """One gateway, from its start to its end."""

    def __init__(self, options: Options, loaded: Sequence[LoadedConfiguration]) -> None:
        self._options = options
        self._drain_seconds = loaded[0].configuration.gateway.drain_seconds
        self._metrics = metrics.Metrics(options.run_folder, "supervisor")
        self._restarts = self._metrics.counter(metrics.WORKER_RESTARTS)
        self._alive = self._metrics.gauge(metrics.WORKERS)
        self._reloads = self._metrics.counter(metrics.RELOADS)
        self._reload_failures = self._metrics.counter(metrics.RELOAD_FAILURES)
        self._reload_success = self._metrics.gauge(metrics.LAST_RELOAD_SUCCESS)
        self._reload_success.set(1)
        self._run_file = run_file_of(loaded)
        self._stamp = _stamp(options.configurations)
        self._children: dict[str, asyncio.subprocess.Process] = {}
        self._stopping: asyncio.Event
        write_run_file(options.run_folder, self._run_file)

    async def run(self, on_ready: Callable[[], None]) -> None:
        """Run until told to stop. `on_ready` is called once every worker accepts connections."""
        loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._reload(forced=True))
        names = ["control", *[f"worker-{index}" for index in range(self._options.workers)]]
        keepers = [asyncio.create_task(self._keep(name)) for name in names]
        watcher = asyncio.create_task(self._watch())
        announcer = asyncio.create_task(self._announce(on_ready))
        await self._stopping.wait()
        for task in (watcher, announcer):
            task.cancel()
        await self._stop(keepers)
        self._metrics.close()

    # Children

    async def _keep(self, name: str) -> None:
        """Start a child, and start it again whenever it dies."""
        pause = FIRST_RESTART_SECONDS
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            started = loop.time()
            child = await asyncio.create_subprocess_exec(*self._command(name), start_new_session=True)
            self._children[name] = child
            self._count_workers()
            code = await child.wait()
            del self._children[name]
            self._count_workers()
            if self._stopping.is_set():
                return
            log.error("process died and is started again", extra={"process": name, "exit_code": code})
            if name != "control":
                self._restarts.inc()
            pause = FIRST_RESTART_SECONDS if loop.time() - started > STEADY_SECONDS else min(pause * 2, 5.0)
            await asyncio.sleep(pause)

    def _command(self, name: str) -> list[str]:
        options = self._options
        if name == "control":
            return [sys.executable, "-m", "gateway.control.app", str(options.run_folder), options.store_url]
        worker = WorkerOptions(
            int(name.removeprefix("worker-")),
            options.workers,
            options.host,
            options.port,
            str(options.run_folder),
            str(options.audit_folder),
            options.auth,
            options.fail_mode,
        )
        # -O: a request checks some thirty invariants of states and types, which cost it 2 µs.
        return [sys.executable, "-O", "-m", "gateway.worker", msgspec.json.encode(worker).decode()]

    def _count_workers(self) -> None:
        self._alive.set(sum(name != "control" for name in self._children))

    async def _announce(self, on_ready: Callable[[], None]) -> None:
        from gateway.keyring import WorkerSlots, WorkerState

        while True:
            states = [slot.state for slot in WorkerSlots.read(self._options.run_folder)]
            if states.count(WorkerState.READY) >= self._options.workers:
                on_ready()
                return
            await asyncio.sleep(0.02)

    async def _stop(self, keepers: Sequence[asyncio.Task[None]]) -> None:
        """Workers first, so that their last requests still find the control process; then the rest."""
        workers = [child for name, child in self._children.items() if name != "control"]
        await _terminate(workers, self._drain_seconds + STOP_GRACE_SECONDS)
        await _terminate(list(self._children.values()), STOP_GRACE_SECONDS)
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)

    # Configuration

    async def _watch(self) -> None:
        """Reload when a file has changed and kept still for one look, so that half-written files are left alone."""
        pending = None
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            stamp = _stamp(self._options.configurations)
            if stamp != self._stamp and stamp == pending:
                self._reload()
            pending = stamp

    def _reload(self, *, forced: bool = False) -> None:
        """Read the files; good ones come into force in every worker, broken ones are told and change nothing."""
        self._stamp = _stamp(self._options.configurations)
        try:
            run_file = run_file_of(load(self._options.configurations))
        except (ConfigurationInvalid, OSError) as error:
            self._reload_failures.inc()
            self._reload_success.set(0)
            log.error("the configuration is broken; the old one stays in force", extra={"error": str(error)})
            run_file = msgspec.structs.replace(self._run_file, error=str(error))
        else:
            if run_file.version == self._run_file.version and not self._run_file.error and not forced:
                return
            self._reloads.inc()
            self._reload_success.set(1)
        self._run_file = run_file
        write_run_file(self._options.run_folder, run_file)
        for name, child in self._children.items():
            if name != "control":
                child.send_signal(signal.SIGHUP)


def run_file_of(loaded: Iterable[LoadedConfiguration]) -> RunFile:
    """What workers are given."""
    loaded = list(loaded)
    logging_settings = loaded[0].configuration.gateway.logging
    texts = tuple(ConfigurationText(one.file, one.text) for one in loaded)
    version = hashlib.sha256("\0".join(one.text for one in texts).encode()).hexdigest()
    return RunFile(version, texts, logging_settings.level.value, logging_settings.format.value)


def _stamp(paths: Sequence[str]) -> tuple[tuple[str, int, int, int], ...]:
    """What tells that a file has changed: inode, size and time of change."""
    stamps = []
    for file in source_files(paths):
        try:
            status = os.stat(file)
        except OSError:
            continue
        stamps.append((str(file), status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(stamps)


async def _terminate(children: Sequence[asyncio.subprocess.Process], seconds: float) -> None:
    """Ask, wait, then insist."""
    for child in children:
        if child.returncode is None:
            child.terminate()
    waits = [asyncio.create_task(child.wait()) for child in children]
    if waits:
        await asyncio.wait(waits, timeout=seconds)
    for child in children:
        if child.returncode is None:
            log.error("a process did not stop in time and is killed", extra={"pid": child.pid})
            child.kill()
            await child.wait()
