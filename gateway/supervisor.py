"""The parent process: checks the configuration, starts control process and workers, restarts what dies, stops in order.

It serves no request. It is the only reader of the operator's files: what it finds good it hands to the workers through
the run folder (run_file.py), and what it finds broken leaves the old configuration in force. Signals: SIGTERM and
SIGINT drain and stop, SIGHUP reloads; a changed file reloads by itself. SIGUSR2 starts another gateway, as it is
installed now, hands it the listening sockets (handover.py), and leaves once that one is ready.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import logging
import operator
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from gateway import metrics
from gateway.config.load import LoadedConfiguration, kept_files, kept_folder, load, source_files
from gateway.config.problems import ConfigurationInvalid
from gateway.config.schema import AuthMode, Gateway
from gateway.handover import Listeners, bequest, notify_manager, said_ready
from gateway.keyring import WorkerSlots, WorkerState
from gateway.run_file import (
    ConfigurationText,
    RunFile,
    WorkerOptions,
    discard,
    read_preparation,
    withdraw_candidate,
    write_candidate,
    write_run_file,
)
from gateway.types import FailMode

WATCH_SECONDS: Final = 1.0
FIRST_RESTART_SECONDS: Final = 0.05
MAX_RESTART_SECONDS: Final = 5.0
STEADY_SECONDS: Final = 10.0
"""A child that lived this long is restarted at once when it dies; one that keeps dying, ever more slowly."""
STOP_GRACE_SECONDS: Final = 8.0
"""For a worker's last steps, beyond the drain time: flushing, then the audit log."""
PREPARE_SECONDS: Final = 30.0
"""How long a worker may take to compile a new configuration."""
SUCCESSOR_SECONDS: Final = 60.0
"""How long another gateway may take to be ready before it is given up and this one stays."""
LOOK_SECONDS: Final = 0.02
NEEDS_RESTART: Final = ("listen", "admin_listen", "workers", "fail_mode", "logging.format", "tls")
"""Settings of `gateway` that a running gateway cannot change, or not whole."""

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
    fail_mode: FailMode | None = None
    version: str = ""


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


def reserve_port(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """Bind the port without listening, so that it stays this gateway's while workers come and go.

    The first bind is without SO_REUSEPORT, because with it two gateways of one user would share the port unnoticed;
    `shared` says that they are meant to. Raises CannotStart.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for reuse in (True,) if shared else (False, True):
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

    def __init__(
        self,
        options: Options,
        loaded: Sequence[LoadedConfiguration],
        counters: metrics.Metrics,
        listeners: Listeners,
    ) -> None:
        self._options = options
        self._listeners = listeners
        self._handed_over = False
        self._first_settings = self._settings = loaded[0].configuration.gateway
        self._restarts = counters.counter(metrics.WORKER_RESTARTS)
        self._alive = counters.gauge(metrics.WORKERS)
        self._reloads = counters.counter(metrics.RELOADS)
        self._reload_failures = counters.counter(metrics.RELOAD_FAILURES)
        self._reload_success = counters.gauge(metrics.LAST_RELOAD_SUCCESS)
        self._reload_success.set(1)
        counters.gauge(metrics.BUILD_INFO, version=options.version).set(1)
        self._stamp = self._look()
        self._generation = 0
        self._run_file = self._describe(loaded)
        # Not an argument: it may hold a password, and everybody can see those.
        self._environment = {**os.environ, "KT_STORE_URL": options.store_url}
        self._children: dict[str, asyncio.subprocess.Process] = {}
        self._fault = ""
        self._stopping: asyncio.Event
        discard(options.run_folder)
        write_run_file(options.run_folder, self._run_file)

    async def run(self, on_ready: Callable[[], None]) -> None:
        """Run until told to stop. `on_ready` is called once every worker accepts connections.

        Raises CannotStart when the configuration turns out to be of no use to the workers.
        """
        loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        asked = asyncio.Event()
        loop.add_signal_handler(signal.SIGHUP, asked.set)
        succession = asyncio.Event()
        loop.add_signal_handler(signal.SIGUSR2, succession.set)
        tasks = [
            asyncio.create_task(self._watch(asked)),
            asyncio.create_task(self._announce(on_ready)),
            asyncio.create_task(self._await_succession(succession)),
        ]
        names = ["control", *[f"worker-{index}" for index in range(self._options.workers)]]
        keepers = [asyncio.create_task(self._keep(name)) for name in names]
        for task in (*tasks, *keepers):
            task.add_done_callback(self._note_fault)
        await self._stopping.wait()
        if not self._handed_over:
            notify_manager("STOPPING=1")
        for task in tasks:
            task.cancel()
        await self._end(keepers)
        if self._fault:
            raise CannotStart(self._fault)

    def _note_fault(self, task: asyncio.Task[None]) -> None:
        """A supervisor of which a part has failed must not seem to work: it ends, and is started again from outside."""
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("fault in the supervisor", exc_info=error)
            self._fault = f"Fault in the supervisor: {error!r}"
            self._stopping.set()

    # Children

    async def _keep(self, name: str) -> None:
        """Start a child, and start it again whenever it dies."""
        pause = FIRST_RESTART_SECONDS
        clock = asyncio.get_running_loop().time
        while not self._stopping.is_set():
            started = clock()
            code = await self._run_child(name)
            if self._stopping.is_set():
                return
            if clock() - started > STEADY_SECONDS:
                pause = FIRST_RESTART_SECONDS
            log.error("a process has ended", extra={"child": name, "exit_code": code, "again_in_seconds": pause})
            if name != "control":
                self._restarts.inc()
            await asyncio.sleep(pause)
            pause = min(pause * 2, MAX_RESTART_SECONDS)

    async def _run_child(self, name: str) -> int | None:
        """One life of a child; its exit code, or None where it could not even be started."""
        try:
            child = await asyncio.create_subprocess_exec(
                *self._command(name), env=self._environment, process_group=0, pass_fds=self._listeners_of(name)
            )
        except OSError as error:
            log.error("a process cannot be started", extra={"child": name, "reason": str(error)})
            return None
        self._children[name] = child
        self._count_workers()
        if self._stopping.is_set():
            _send(child, signal.SIGTERM)
        code = await child.wait()
        del self._children[name]
        self._count_workers()
        if name != "control" and not self._stopping.is_set():
            with contextlib.suppress(OSError):
                self._listeners.renew(_number(name))
        return code

    def _listeners_of(self, name: str) -> tuple[int, ...]:
        return () if name == "control" else self._listeners.of(_number(name))

    def _command(self, name: str) -> list[str]:
        options = self._options
        if name == "control":
            return [sys.executable, "-m", "gateway.control.app", str(options.run_folder), str(options.workers)]
        worker = WorkerOptions(
            _number(name),
            options.workers,
            os.getpid(),
            options.host,
            options.port,
            str(options.run_folder),
            str(options.audit_folder),
            options.fail_mode,
            self._first_settings.tls,
            self._listeners.of(_number(name)),
        )
        # -O: a request checks some thirty invariants of states and types, which cost it 2 µs.
        return [sys.executable, "-O", "-m", "gateway.worker", msgspec.json.encode(worker).decode()]

    def _workers(self) -> dict[str, asyncio.subprocess.Process]:
        return {name: child for name, child in self._children.items() if name != "control"}

    def _count_workers(self) -> None:
        self._alive.set(len(self._workers()))

    def _ready_workers(self) -> dict[int, asyncio.subprocess.Process]:
        """Those that serve, by number; only they can take a signal."""
        children = {child.pid: child for child in self._workers().values()}
        slots = WorkerSlots.read(self._options.run_folder)
        return {
            slot.worker: children[slot.pid]
            for slot in slots
            if slot.state is WorkerState.READY and slot.pid in children
        }

    async def _announce(self, on_ready: Callable[[], None]) -> None:
        """Wait for the workers' first word."""
        while len(self._ready_workers()) < self._options.workers:
            fault = self._fault_of(range(self._options.workers))
            if fault:
                self._fault = fault
                self._stopping.set()
                return
            await asyncio.sleep(LOOK_SECONDS)
        on_ready()

    # End

    def _stop(self) -> None:
        """SIGTERM and SIGINT: drain; the second time, do not wait for what is under way."""
        if self._stopping.is_set():
            for child in self._children.values():
                _send(child, signal.SIGTERM)
        self._stopping.set()

    async def _end(self, keepers: Sequence[asyncio.Task[None]]) -> None:
        """Workers first, so that their last requests still find the control process; then the rest."""
        self._listeners.close()
        asked = signal.SIGUSR1 if self._handed_over else signal.SIGTERM
        await _terminate(list(self._workers().values()), self._settings.drain_seconds + STOP_GRACE_SECONDS, asked)
        await _terminate(list(self._children.values()), STOP_GRACE_SECONDS)
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)

    # Succession

    async def _await_succession(self, asked: asyncio.Event) -> None:
        """Hand over each time that it is asked for, until one time it succeeds."""
        while not self._handed_over:
            await asked.wait()
            asked.clear()
            self._handed_over = await self._hand_over()
        log.info("another gateway has taken over; draining")
        self._stopping.set()

    async def _hand_over(self) -> bool:
        """Start a gateway with the same command line, and wait for its word that it is ready."""
        reading, writing = os.pipe()
        command = (sys.executable, "-c", "from gateway.commands.main import main; main()", *sys.argv[1:])
        try:
            successor = await asyncio.create_subprocess_exec(
                *command,
                env={**os.environ, **bequest(writing, self._listeners.all())},
                pass_fds=(writing, *self._listeners.all()),
                start_new_session=True,
            )
        except OSError as error:
            log.error("another gateway cannot be started; this one stays", extra={"reason": str(error)})
            os.close(reading)
            return False
        finally:
            os.close(writing)
        log.info("another gateway is starting to take over", extra={"pid": successor.pid})
        try:
            async with asyncio.timeout(SUCCESSOR_SECONDS):
                ready = await asyncio.to_thread(said_ready, reading)
        except TimeoutError:
            ready = False
            _send(successor, signal.SIGKILL)
        finally:
            os.close(reading)
        if not ready:
            code = await successor.wait()
            log.error("another gateway could not take over; this one stays", extra={"exit_code": code})
        return ready

    # Configuration

    async def _watch(self, asked: asyncio.Event) -> None:
        """Reload when asked, and when a file has changed and kept still for one look, lest it is half-written."""
        pending = self._stamp
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asked.wait(), WATCH_SECONDS)
            forced = asked.is_set()
            asked.clear()
            stamp = self._look()
            if forced or stamp == pending != self._stamp:
                await self._reload(forced=forced)
            pending = stamp

    async def _reload(self, *, forced: bool) -> None:
        """Read the files; good ones come into force in every worker, broken ones are told and change nothing.

        `forced`: also when no text has changed, since secrets and certificates may have.
        """
        self._stamp = self._look()
        try:
            loaded = load(self._options.configurations, kept=kept_folder(self._options.run_folder))
        except (ConfigurationInvalid, OSError) as error:
            self._refuse(str(error))
            return
        proposed = self._describe(loaded)
        if proposed.version == self._run_file.version and not self._run_file.error and not forced:
            return
        self._generation += 1
        fault = await self._propose(msgspec.structs.replace(proposed, generation=self._generation))
        if fault:
            self._refuse(fault)
        else:
            self._take_over(loaded[0].configuration.gateway)

    def _look(self) -> tuple[tuple[str, int, int, int], ...]:
        return _stamp([*self._options.configurations, *map(str, kept_files(kept_folder(self._options.run_folder)))])

    def _describe(self, loaded: Sequence[LoadedConfiguration]) -> RunFile:
        """What workers are given."""
        settings = loaded[0].configuration.gateway
        texts = tuple(ConfigurationText(one.file, one.text) for one in loaded)
        return RunFile(
            hashlib.sha256("\0".join(one.text for one in texts).encode()).hexdigest(),
            texts,
            self._generation,
            effective_auth(settings.auth, self._options.host),
            settings.logging.level.value,
            settings.logging.format.value,
        )

    async def _propose(self, candidate: RunFile) -> str:
        """Have it compiled by every worker, then put it in force. Returns why not, or nothing."""
        folder = self._options.run_folder
        write_candidate(folder, candidate)
        self._notify()
        try:
            fault = await self._preparation(candidate.generation)
        finally:
            withdraw_candidate(folder)
        if not fault:
            self._put_in_force(candidate)
        return fault

    async def _preparation(self, generation: int) -> str:
        """Wait until all workers have compiled the candidate; the first complaint, if there is one.

        Workers that are being started are not waited for: they look at what is in force once they are ready.
        """
        deadline = asyncio.get_running_loop().time() + PREPARE_SECONDS
        while True:
            waiting = {}
            for worker in self._ready_workers():
                said = read_preparation(self._options.run_folder, worker)
                if said is None or said.generation != generation:
                    waiting[worker] = said
                elif said.error:
                    return said.error
            if not waiting:
                return ""
            if asyncio.get_running_loop().time() > deadline:
                return f"worker {min(waiting)} did not compile the configuration within {PREPARE_SECONDS:g} s"
            await asyncio.sleep(LOOK_SECONDS)

    def _fault_of(self, workers: Iterable[int]) -> str:
        """Why a worker cannot compile what it was started with."""
        for worker in workers:
            said = read_preparation(self._options.run_folder, worker)
            if said is not None and said.error:
                return f"The configuration cannot be compiled: {said.error}"
        return ""

    def _put_in_force(self, run_file: RunFile) -> None:
        self._run_file = run_file
        write_run_file(self._options.run_folder, run_file)
        self._notify()

    def _notify(self) -> None:
        for child in self._ready_workers().values():
            _send(child, signal.SIGHUP)

    def _refuse(self, error: str) -> None:
        """The old configuration stays in force, and everybody can see why."""
        self._reload_failures.inc()
        self._reload_success.set(0)
        log.error("the configuration is broken; the old one stays in force", extra={"error": error})
        self._put_in_force(msgspec.structs.replace(self._run_file, error=error))

    def _take_over(self, settings: Gateway) -> None:
        self._reloads.inc()
        self._reload_success.set(1)
        log.info("configuration reloaded", extra={"version": self._run_file.version[:12]})
        for name in NEEDS_RESTART:
            setting = operator.attrgetter(name)
            if setting(settings) != setting(self._first_settings):
                log.warning("a changed setting needs a restart", extra={"setting": f"gateway.{name}"})
        self._settings = settings


def _stamp(paths: Sequence[str]) -> tuple[tuple[str, int, int, int], ...]:
    """What tells that a file has changed: inode, size and time of change."""
    stamps = []
    for file in source_files(paths):
        try:
            status = os.stat(file)
        except OSError:
            continue  # that it is gone shows, too
        stamps.append((str(file), status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(stamps)


def _number(name: str) -> int:
    return int(name.removeprefix("worker-"))


async def _terminate(
    children: Sequence[asyncio.subprocess.Process], seconds: float, asked: signal.Signals = signal.SIGTERM
) -> None:
    """Ask, wait, then insist."""
    for child in children:
        _send(child, asked)
    waits = [asyncio.create_task(child.wait()) for child in children]
    if waits:
        await asyncio.wait(waits, timeout=seconds)
    for child in children:
        if child.returncode is None:
            log.error("a process did not stop in time and is killed", extra={"pid": child.pid})
            _send(child, signal.SIGKILL)
            await child.wait()


def _send(child: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has just ended
        child.send_signal(number)
