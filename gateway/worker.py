"""One worker process: wires the data plane together and serves until it is told to stop.

It opens no store and no database. What it serves it reads from the run folder: the configuration, as the supervisor
checked it, and the feed of keys. It answers to signals: SIGHUP reads the configuration anew, SIGTERM drains. A few
timers do what must happen now and then: deadlines, keys, metrics.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import msgspec
import uvloop

from gateway import metrics
from gateway.application import GatewayApplication
from gateway.audit.writer import AuditLog
from gateway.config.load import load_text
from gateway.config.schema import AuthMode, Configuration
from gateway.downstream.head import HeadLimits
from gateway.downstream.http import DownstreamLimits, Server
from gateway.errors import Draining, InvalidAPIKey
from gateway.keyring import Keyring, WorkerSlots, WorkerState
from gateway.limits import Limits
from gateway.logs import configure
from gateway.run_file import RunFile, read_run_file
from gateway.services import Services
from gateway.snapshot import Compiler, Snapshot
from gateway.types import Destination, FailMode, Origin, Timeouts
from gateway.upstream.egress import Egress
from gateway.upstream.pool import Pools

SWEEP_SECONDS: Final = 0.1
"""How often deadlines are looked at and the feed of keys is read."""
BACKLOG: Final = 4096
KEYS_WAIT_SECONDS: Final = 30.0
"""How long a worker waits for the first feed of keys before it serves without one."""

log = logging.getLogger("gateway.worker")


class WorkerOptions(msgspec.Struct, frozen=True):
    """What the supervisor tells a worker, as JSON in its only argument."""

    worker: int
    workers: int
    host: str
    port: int
    run_folder: str
    audit_folder: str
    auth: AuthMode
    fail_mode: FailMode | None = None


class Worker:
    """One worker, from its start to its end."""

    def __init__(self, options: WorkerOptions) -> None:
        self._options = options
        self._parent = os.getppid()
        self._run_folder = Path(options.run_folder)
        self._metrics = metrics.Metrics(self._run_folder, options.worker)
        self._slots = WorkerSlots(self._run_folder, options.worker)
        self._keyring = Keyring(self._run_folder / "keys.log")
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="compile")
        self._compiler = Compiler(
            self._metrics,
            fail_mode=options.fail_mode,
            clock=time.perf_counter_ns,
            on_policy_error=_report_policy_error,
        )
        self._run_file = read_run_file(self._run_folder)
        self._stopping: asyncio.Event
        self._server: asyncio.Server | None = None

    async def run(self) -> None:
        """Serve until SIGTERM, then drain."""
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._stopping = asyncio.Event()
        for number, act in ((signal.SIGTERM, self._stopping.set), (signal.SIGINT, self._stopping.set)):
            loop.add_signal_handler(number, act)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        snapshot, gateway = self._compile(self._run_file)
        self._wire(snapshot, gateway)
        await self._wait_for_keys()
        await self._listen()
        gc.collect()
        gc.freeze()
        self._slots.publish(state=WorkerState.READY)
        log.info("worker ready", extra={"worker": self._options.worker, "port": self._options.port})
        await self._stopping.wait()
        await self._drain(gateway.gateway.drain_seconds)

    def _compile(self, run_file: RunFile) -> tuple[Snapshot, Configuration]:
        loaded = [load_text(one.text, one.file) for one in run_file.configurations]
        return self._compiler.compile(loaded, self._keyring.get), loaded[0].configuration

    def _wire(self, snapshot: Snapshot, configuration: Configuration) -> None:
        options, gateway = self._options, configuration.gateway
        loop = self._loop
        self._pools = Pools(loop, clock=loop.time, egress=Egress.from_environment(os.environ))
        self._audit = AuditLog(
            Path(options.audit_folder),
            self._run_folder,
            options.worker,
            fail_mode=options.fail_mode or gateway.fail_mode,
            retention_days=_retention_days(snapshot),
        )
        self._audit.start()
        self.services = Services(
            loop,
            pool=self._pools,
            limits=Limits(self._run_folder, options.worker, options.workers),
            counters=self._metrics,
            snapshot=snapshot,
            audit=self._audit.append,
            conclude=self._audit.conclude,
            clock=loop.time,
        )
        self._control = Destination(
            "control",
            Origin("control", 0, tls=False, unix_path=str(self._run_folder / "control.sock")),
            timeouts=Timeouts(connect_seconds=2.0, first_byte_seconds=30.0),
        )
        application = GatewayApplication(
            self.services, self._metrics, mode=options.auth, control=self._control, status=self._status
        )
        self._downstream = Server(application, _limits(configuration), loop.time, time.time)
        self._announce(snapshot)
        self._next_sweep = loop.time()
        self._lag = self._metrics.histogram(metrics.LOOP_LAG)
        self._open_connections = self._metrics.gauge(metrics.OPEN_CONNECTIONS)
        self._audit_records = self._metrics.counter(metrics.AUDIT_RECORDS)
        self._audit_gaps = self._metrics.counter(metrics.AUDIT_GAPS)
        self._audit_backlog = self._metrics.gauge(metrics.AUDIT_BACKLOG)
        self._seen = self._audit.stats
        self._sweep()

    def _announce(self, snapshot: Snapshot) -> None:
        self._metrics.clear(metrics.CONFIGURATION_INFO)
        for configuration in snapshot.configurations.values():
            labels = {"configuration": configuration.id, "version": configuration.version[:12]}
            self._metrics.gauge(metrics.CONFIGURATION_INFO, **labels).set(1)
        self._slots.publish(configuration=snapshot.version)
        self._pools.keep({target.destination for target in snapshot.targets} | {self._control})

    async def _wait_for_keys(self) -> None:
        """Fail closed: no request is served before the keys are known."""
        deadline = self._loop.time() + KEYS_WAIT_SECONDS
        while not self._keyring.ready and self._loop.time() < deadline and not self._stopping.is_set():
            await asyncio.sleep(0.01)
            self._read_keys()

    async def _listen(self) -> None:
        options = self._options
        family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((options.host, options.port))
        sock.setblocking(False)
        self._server = await self._loop.create_server(self._downstream, sock=sock, backlog=BACKLOG)

    # Timers

    def _sweep(self) -> None:
        """Deadlines, keys and gauges; every 100 ms. What it finds late is what every stream of this worker waited."""
        if os.getppid() != self._parent:
            self._stopping.set()  # the supervisor is gone, and with it whoever would restart or stop this worker
        now = self._loop.time()
        self._lag.observe(max(now - self._next_sweep, 0.0))
        self._next_sweep = now + SWEEP_SECONDS
        self._loop.call_at(self._next_sweep, self._sweep)
        self.services.sweep()
        self._downstream.sweep()
        self._pools.sweep(now)
        self._read_keys()
        self._slots.publish(heartbeat=time.time())
        self._open_connections.set(len(self._downstream.connections))
        seen, self._seen = self._seen, self._audit.stats
        self._audit_records.inc(self._seen.written - seen.written)
        self._audit_gaps.inc(self._seen.gaps - seen.gaps)
        self._audit_backlog.set(self._seen.backlog_bytes)

    def _read_keys(self) -> None:
        """Take in what has changed about keys, and end the streams of those that are gone."""
        now = time.time()
        changed = [*self._keyring.poll(now), *self._keyring.expired(now)]
        if changed:
            self.services.snapshot.forget(changed)
            gone = {key.id for key in changed if self._is_gone(key.hash, now)}
            error = InvalidAPIKey("This gateway key was revoked or has expired.")
            for exchange in [one for one in self.services.active if one.binding.key and one.binding.key.id in gone]:
                exchange.end_early(error)
        self._slots.publish(keys_revision=self._keyring.revision)

    def _is_gone(self, digest: bytes, now: float) -> bool:
        key = self._keyring.get(digest)
        if key is None or (key.revoked_at is not None and key.revoked_at <= now):
            return True
        return key.expires_at is not None and key.expires_at <= now

    # Reload

    def _reload(self) -> None:
        """SIGHUP: compile the run folder's configuration in a thread, then swap it in."""
        future = self._loop.run_in_executor(self._threads, self._read_and_compile)
        future.add_done_callback(self._swap)

    def _read_and_compile(self) -> tuple[RunFile, Snapshot, Configuration] | RunFile:
        run_file = read_run_file(self._run_folder)
        if run_file.version == self._run_file.version:
            return run_file
        return (run_file, *self._compile(run_file))

    def _swap(self, future: asyncio.Future[Any]) -> None:
        error = future.exception()
        if error is not None:
            log.error("the configuration could not be compiled; the old one stays in force", exc_info=error)
            return
        result = future.result()
        if isinstance(result, RunFile):
            self._run_file = result
            return
        self._run_file, snapshot, configuration = result
        self.services.snapshot = snapshot
        self._downstream.limits = _limits(configuration)
        self._audit.retention_days = _retention_days(snapshot)
        self._announce(snapshot)
        log.info("configuration in force", extra={"version": snapshot.version[:12]})

    def _status(self) -> dict[str, Any]:
        """What `/readyz` shows."""
        snapshot = self.services.snapshot
        return {
            "ready": self._keyring.ready and not self.services.draining,
            "draining": self.services.draining,
            "configurations": {one.id: one.version[:12] for one in snapshot.configurations.values()},
            "configuration_error": self._run_file.error,
            "keys_revision": self._keyring.revision,
            "unavailable_targets": {target.id: target.fault for target in snapshot.targets if target.fault},
        }

    # End

    async def _drain(self, seconds: float) -> None:
        """Stop accepting, let what is under way finish within `seconds`, then end the rest with an error."""
        self._slots.publish(state=WorkerState.DRAINING)
        self.services.draining = True
        if self._server is not None:
            self._server.close()
        self._downstream.drain()
        deadline = self._loop.time() + seconds
        while self.services.active and self._loop.time() < deadline:  # noqa: ASYNC110 (once in a worker's life)
            await asyncio.sleep(0.02)
        for exchange in list(self.services.active):
            exchange.end_early(Draining("The gateway is shutting down; try again."))
        await asyncio.sleep(0)
        self._pools.close()
        for connection in list(self._downstream.connections):
            connection.close()
        await asyncio.sleep(0.05 if self._downstream.connections else 0)
        self.services.close()
        await self._loop.run_in_executor(None, self._audit.close)
        self._slots.publish(state=WorkerState.STOPPED)
        self._metrics.close()


def _limits(configuration: Configuration) -> DownstreamLimits:
    gateway = configuration.gateway
    limits = gateway.limits
    return DownstreamLimits(
        HeadLimits(limits.request_head_bytes, limits.request_headers, limits.request_target_bytes),
        body_bytes=gateway.max_body_bytes,
        buffered_bytes=limits.buffered_bytes,
        head_seconds=limits.head_seconds,
        body_idle_seconds=limits.body_idle_seconds,
        keepalive_seconds=limits.keepalive_seconds,
        write_idle_seconds=limits.write_idle_seconds,
    )


def _retention_days(snapshot: Snapshot) -> int | None:
    """All configurations share one log, so the longest retention of any of them counts."""
    days = [one.pipeline.audit.retention_days for one in snapshot.configurations.values() if one.pipeline.audit]
    return max(days, default=None)


def _report_policy_error(kind: str, error: Exception) -> None:
    log.error("policy failed", extra={"policy": kind, "error": repr(error)}, exc_info=error)


def tune_malloc() -> None:
    """Keep freed memory: with glibc's own thresholds a 256 KB body costs 260 to 500 µs instead of 75 (mallopt(3))."""
    try:
        mallopt: Callable[[int, int], int] = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return  # not glibc
    m_trim_threshold, m_mmap_threshold = -1, -3
    mallopt(m_mmap_threshold, 64 * 1024 * 1024)
    mallopt(m_trim_threshold, 256 * 1024 * 1024)


def main() -> None:
    """Entry point of the process: `python -m gateway.worker OPTIONS`."""
    options = msgspec.json.decode(sys.argv[1].encode(), type=WorkerOptions)
    tune_malloc()
    # Threads (scans, audit, compilation) share the interpreter lock with the loop: they hand it over every 0.5 ms.
    sys.setswitchinterval(0.0005)
    run_file = read_run_file(Path(options.run_folder))
    logs = configure(run_file.log_level, run_file.log_format, sys.stderr)
    try:
        uvloop.run(Worker(options).run())
    finally:
        logs.close()


if __name__ == "__main__":
    main()
