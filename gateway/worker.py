"""One worker process: wires the data plane together and serves until it is told to stop.

It opens no store and no database. What it serves it reads from the run folder: the configuration, as the supervisor
checked it, and the feed of keys. It answers to signals: SIGHUP looks at the run folder's configuration, SIGTERM drains,
a second one ends what is left, SIGUSR1 drains gently. A few timers do what must happen now and then: deadlines, keys,
metrics.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import logging
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import uvloop

from gateway import metrics
from gateway.application import GatewayApplication
from gateway.audit.commitments import Commitments
from gateway.audit.writer import DEFAULT_CHECKPOINTS, AuditLog, Checkpoints
from gateway.config.load import load_text
from gateway.config.schema import AuthMode, Gateway
from gateway.conversation import converse
from gateway.cors import origins
from gateway.downstream.access import access
from gateway.downstream.certificate import HANDSHAKE_SECONDS, SHUTDOWN_SECONDS, Certificate, CertificateInvalid
from gateway.downstream.head import HeadLimits
from gateway.downstream.http import DownstreamLimits, Server
from gateway.errors import Draining, InvalidAPIKey
from gateway.folders import audit_key, audit_salts
from gateway.json_depth import views
from gateway.key_log import log_path
from gateway.key_usage import KeyUsage
from gateway.keyring import Keyring, WorkerSlots, WorkerState
from gateway.limits import Limits
from gateway.logs import configure
from gateway.oversight import Oversight
from gateway.places import ConfigurationPlaces
from gateway.reload import Compiled, Reloader
from gateway.run_file import RunFile, WorkerOptions, read_run_file
from gateway.services import Services
from gateway.snapshot import Compiler, Snapshot
from gateway.types import Destination, Origin, Timeouts
from gateway.upgrades import Upgrades
from gateway.upstream.credentials.keeper import Keepers
from gateway.upstream.credentials.source import Machine
from gateway.upstream.egress import Egress
from gateway.upstream.pool import Pools
from gateway.upstream.websocket import UpstreamSockets
from gateway.vitals import Vitals
from gateway.websocket import SocketLimits, Sockets

SWEEP_SECONDS: Final = 0.1
"""How often deadlines are looked at and the feed of keys is read."""
BACKLOG: Final = 4096
KEYS_WAIT_SECONDS: Final = 3.0
"""How long a worker waits for its first keys before it listens without: then it only says that it is not ready."""
CREDENTIALS_WAIT_SECONDS: Final = 3.0
"""How long a worker waits for its first cloud credentials; then it serves, and what lacks one is unavailable."""
CERTIFICATE_SECONDS: Final = 5.0
"""How often the files of the certificate are looked at."""
LOOK_SECONDS: Final = 0.02
GENTLE_SECONDS: Final = 5.0
"""How long, when another gateway has taken over, an idle connection may stay for a request that is on its way."""
FLUSH_SECONDS: Final = 1.0
"""How long, at the very end, clients have to take the last bytes that were written to them."""
AUDIT_SECONDS: Final = 3.0
"""How long the audit log has to write what is left; what it cannot write is recovered from the journal."""

log = logging.getLogger("gateway.worker")


class Worker:
    """One worker, from its start to its end."""

    def __init__(self, options: WorkerOptions, counters: metrics.Metrics) -> None:
        self._options = options
        self._run_folder = Path(options.run_folder)
        self._metrics = counters
        self._slots = WorkerSlots(self._run_folder, options.worker)
        self._keyring = Keyring(log_path(self._run_folder))
        self._usage = KeyUsage(self._run_folder, options.worker)
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="compile")
        self._compiler = Compiler(
            counters,
            fail_mode=options.fail_mode,
            clock=time.perf_counter_ns,
            on_policy_error=_report_policy_error,
            place_of=ConfigurationPlaces(self._run_folder),
        )
        self._reloader = Reloader(self._run_folder, options.worker, self._compile)
        self._current: Compiled
        self._stopping: asyncio.Event
        self._hurried = False
        self._gentle = False
        self._servers: list[asyncio.Server] = []
        self._certificate = Certificate(options.tls) if options.tls is not None else None

    async def run(self) -> None:
        """Serve until SIGTERM, then drain. Raises whatever hinders the compilation of the configuration."""
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGUSR1, self._leave)
        loop.add_signal_handler(signal.SIGHUP, self._look)
        self._current = self._reloader.begin()
        self._wire(self._current)
        await self._wait_for_keys()
        await self._keepers.first(CREDENTIALS_WAIT_SECONDS)
        await self._listen()
        gc.collect()
        gc.freeze()
        self._publish_ready()
        self._look()  # what came before this worker could be told
        await self._stopping.wait()
        await self._drain()

    def _stop(self) -> None:
        self._hurried = self._stopping.is_set()
        self._stopping.set()

    def _leave(self) -> None:
        """SIGUSR1: another gateway has the port; what comes on connections that are open is still served."""
        self._gentle = True
        self._stop()

    def _compile(self, run_file: RunFile) -> Compiled:
        loaded = [load_text(one.text, one.file) for one in run_file.configurations]
        views(loaded[0].configuration.gateway.limits.json_depth)  # made in this thread rather than on the loop
        return Compiled(run_file, self._compiler.compile(loaded, self._keyring.get), loaded[0].configuration)

    def _wire(self, compiled: Compiled) -> None:
        options, snapshot, gateway = self._options, compiled.snapshot, compiled.settings.gateway
        loop = self._loop
        self._pools = Pools(loop, clock=loop.time, egress=Egress.from_environment(os.environ))
        self._keepers = Keepers(Machine(loop, self._pools, time.time), self._metrics)
        self._audit = AuditLog(
            Path(options.audit_folder),
            self._run_folder,
            options.worker,
            fail_mode=options.fail_mode or gateway.fail_mode,
            retention_days=_retention_days(snapshot),
            key=audit_key(Path(options.audit_folder).parent),
            checkpoints=_checkpoints(snapshot),
            commitments=Commitments(audit_salts(Path(options.audit_folder)), _committing(snapshot)),
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
            # Not the loop's own time: uvloop's is cached and counts milliseconds.
            clock=time.monotonic,
            count_use=self._usage.count,
        )
        self.services.keys_known = False
        self._control = Destination(
            "control",
            Origin("control", 0, tls=False, unix_path=str(self._run_folder / "control.sock")),
            timeouts=Timeouts(connect_seconds=2.0, first_byte_seconds=30.0),
        )
        self.services.oversight = Oversight(loop, self._pools, self._control)
        self._application = GatewayApplication(
            self.services, self._metrics, mode=compiled.run_file.auth, control=self._control, status=self._status
        )
        self._application.serves_operators = gateway.admin_listen is None
        self._wire_sockets(gateway)
        self._downstream = Server(self._application, limits_of(gateway), time.monotonic, time.time)
        self._configure_downstream(gateway)
        self._vitals = Vitals(
            self._metrics, self._downstream, self._pools, self._audit, loop.time, unseen=(self._control,)
        )
        self._watch_credentials(compiled)
        self._announce(compiled)
        self._next_sweep = loop.time()
        self._sweep()

    def _configure_downstream(self, gateway: Gateway) -> None:
        """What may change while connections are open."""
        self._downstream.configure(limits_of(gateway), access(gateway.ip_allowlist, gateway.trusted_proxies))
        self.services.views = views(gateway.limits.json_depth)
        self.services.server_timing = gateway.server_timing
        self.services.traces = gateway.telemetry.otlp is not None
        self._application.origins = origins(gateway.cors.allowed_origins, gateway.cors.max_age_seconds)

    def _wire_sockets(self, gateway: Gateway) -> None:
        self._sockets = Sockets(_socket_limits(gateway), time.monotonic, self.services.report_bug)
        self._upstream_sockets = UpstreamSockets(self._loop, self._sockets, self._pools.dialler, self._loop.time)
        self.services.sockets = self._upstream_sockets
        self._upgrades = Upgrades(self.services, self._sockets, converse, enabled=gateway.websocket.enabled)
        self._application.upgrades = self._upgrades

    def _watch_credentials(self, compiled: Compiled) -> None:
        """Fetch what the targets need, before a request does. With `passthrough` clients bring their own."""
        passes = compiled.run_file.auth is AuthMode.PASSTHROUGH
        self._keepers.watch([] if passes else compiled.snapshot.targets)

    def _announce(self, compiled: Compiled) -> None:
        """Say what is in force, and keep connections for it."""
        snapshot = compiled.snapshot
        self._metrics.clear(metrics.CONFIGURATION_INFO)
        for configuration in snapshot.configurations.values():
            labels = {"configuration": configuration.id, "version": configuration.version[:12]}
            self._metrics.gauge(metrics.CONFIGURATION_INFO, **labels).set(1)
        self._slots.publish(configuration=snapshot.version)
        self._pools.keep({target.destination for target in snapshot.targets} | {self._control})

    async def _wait_for_keys(self) -> None:
        loop, keyring = self._loop, self._keyring
        deadline = loop.time() + KEYS_WAIT_SECONDS
        while not keyring.load(time.time()) and loop.time() < deadline and not self._stopping.is_set():  # noqa: ASYNC110
            await asyncio.sleep(LOOK_SECONDS)
        self._read_keys()

    async def _listen(self) -> None:
        """On the sockets that the supervisor has bound: a gateway that takes over is given the very same."""
        certificate = self._certificate
        tls: dict[str, Any] = {}
        if certificate is not None:
            tls = {
                "ssl": certificate.context,
                "ssl_handshake_timeout": HANDSHAKE_SECONDS,
                "ssl_shutdown_timeout": SHUTDOWN_SECONDS,
            }
        for descriptor in self._options.listeners:
            sock = socket.socket(fileno=descriptor)
            sock.setblocking(False)
            self._servers.append(await self._loop.create_server(self._downstream, sock=sock, backlog=BACKLOG, **tls))
        if certificate is not None:
            self._watch_certificate(certificate)

    def _watch_certificate(self, certificate: Certificate) -> None:
        """Look at its files every few seconds, in a thread."""
        self._look_at(certificate)
        self._loop.call_later(CERTIFICATE_SECONDS, self._watch_certificate, certificate)

    def _look_at(self, certificate: Certificate) -> None:
        if not self._stopping.is_set():
            looked = self._loop.run_in_executor(self._threads, certificate.renewed)
            looked.add_done_callback(partial(self._adopt_certificate, certificate))

    def _adopt_certificate(self, certificate: Certificate, looked: asyncio.Future[bool]) -> None:
        try:
            if looked.result():
                certificate.adopt()
                log.info("certificate renewed", extra={"worker": self._options.worker})
        except CertificateInvalid as error:
            log.error("a changed certificate cannot be used; the old one stays", extra={"reason": str(error)})

    def _publish_ready(self) -> None:
        """Told once the worker both listens and knows its keys, whichever comes last."""
        if not self._servers or not self._keyring.ready or self._stopping.is_set():
            return
        self._slots.publish(state=WorkerState.READY)
        log.info("worker ready", extra={"worker": self._options.worker, "port": self._options.port})

    # Timers

    def _sweep(self) -> None:
        """Deadlines, keys and gauges; every 100 ms. What it finds late is what every stream of this worker waited."""
        if os.getppid() != self._options.supervisor:
            self._stopping.set()  # the supervisor is gone, and with it whoever would restart or stop this worker
        now = self._loop.time()
        late = max(now - self._next_sweep, 0.0)
        self._next_sweep = now + SWEEP_SECONDS
        self._loop.call_at(self._next_sweep, self._sweep)
        self.services.sweep()
        self._downstream.sweep()
        self._application.sweep()
        self._pools.sweep(now)
        self._upstream_sockets.sweep(now)
        self._sockets.sweep()
        self._read_keys()
        self._slots.publish(heartbeat=time.time())
        self._vitals.observe(now, late)

    def _read_keys(self) -> None:
        """Take in what has changed about keys, and end the streams of those that are gone."""
        now = time.time()
        changed = [*self._keyring.poll(now), *self._keyring.expired(now)]
        if changed:
            self.services.snapshot.forget(changed)
            self._end_streams({key.id for key in changed if self._is_gone(key.hash, now)})
        self._slots.publish(keys_revision=self._keyring.revision)
        if not self.services.keys_known and self._keyring.ready:
            self.services.keys_known = True
            self._publish_ready()
        if self._keyring.behind:
            self._loop.call_soon(self._read_keys)

    def _end_streams(self, keys: set[str]) -> None:
        if not keys:
            return
        error = InvalidAPIKey("This gateway key was revoked or has expired.")
        for exchange in [one for one in self.services.active if one.binding.key and one.binding.key.id in keys]:
            exchange.end_early(error)

    def _is_gone(self, digest: bytes, now: float) -> bool:
        key = self._keyring.get(digest)
        if key is None or (key.revoked_at is not None and key.revoked_at <= now):
            return True
        return key.expires_at is not None and key.expires_at <= now

    # Reload

    def _look(self) -> None:
        """SIGHUP: compile what the run folder proposes, in a thread; put into use what has come into force."""
        self._loop.run_in_executor(self._threads, self._reloader.look).add_done_callback(self._adopt)
        if self._certificate is not None:
            self._look_at(self._certificate)

    def _adopt(self, looked: asyncio.Future[Compiled]) -> None:
        error = looked.exception()
        if error is not None:
            log.error("the configuration in the run folder cannot be used; the old one stays", exc_info=error)
            return
        previous, self._current = self._current, looked.result()
        compiled = self._current
        if compiled.snapshot is previous.snapshot:
            return
        self._watch_credentials(compiled)
        self.services.snapshot = compiled.snapshot
        self._application.mode = compiled.run_file.auth
        self._configure_downstream(compiled.settings.gateway)
        self._sockets.limits = _socket_limits(compiled.settings.gateway)
        self._upgrades.enabled = compiled.settings.gateway.websocket.enabled
        self._audit.retention_days = _retention_days(compiled.snapshot)
        self._audit.checkpoints = _checkpoints(compiled.snapshot)
        if self._audit.commitments is not None:
            self._audit.commitments.configurations = _committing(compiled.snapshot)
        logging.getLogger().setLevel(compiled.run_file.log_level.upper())
        self._announce(compiled)
        log.info("configuration in force", extra={"version": compiled.snapshot.version[:12]})

    def _status(self) -> dict[str, Any]:
        """What `/readyz` shows."""
        snapshot = self.services.snapshot
        return {
            "ready": self._keyring.ready and not self.services.draining,
            "draining": self.services.draining,
            "configurations": {one.id: one.version[:12] for one in snapshot.configurations.values()},
            "configuration_error": self._current.run_file.error,
            "keys_revision": self._keyring.revision,
            "unavailable_targets": {target.id: target.fault for target in snapshot.targets if target.fault},
        }

    # End

    async def _drain(self) -> None:
        """Stop accepting, let what is under way finish in time, then end the rest with an error."""
        seconds = self._current.settings.gateway.drain_seconds
        log.info("draining", extra={"worker": self._options.worker, "open_exchanges": len(self.services.active)})
        self._slots.publish(state=WorkerState.DRAINING)
        for server in self._servers:
            server.close()
        if self._gentle:
            self._downstream.draining = True  # the next answer on each connection is its last
            began = self._loop.time()
            await self._until(lambda: not self._downstream.connections or self._hurried, min(GENTLE_SECONDS, seconds))
            seconds = max(seconds - (self._loop.time() - began), 0.0)
        self.services.draining = True
        self._downstream.drain()
        await self._until(lambda: not self._busy or self._hurried, seconds)
        for exchange in list(self.services.active):
            exchange.end_early(Draining("The gateway is shutting down; try again."))
        self._sockets.drain()
        await self._until(lambda: not (self._downstream.unfinished or self._sockets.clients), FLUSH_SECONDS)
        self._upstream_sockets.close()
        self._sockets.abort()
        await self._keepers.close()
        self._pools.close()
        for connection in list(self._downstream.connections):
            connection.close()
        await self._until(lambda: not self._downstream.connections, FLUSH_SECONDS)
        self.services.close()
        if not await self._loop.run_in_executor(None, self._audit.close, AUDIT_SECONDS):
            log.error("the audit log could not be finished; its journal stays and is recovered at the next start")
        self._usage.close()
        self._slots.publish(state=WorkerState.STOPPED)

    @property
    def _busy(self) -> bool:
        """Something is under way: a request, an answer that has not gone out, a conversation."""
        return bool(self.services.active or self._downstream.unfinished or self._sockets.clients)

    async def _until(self, done: Callable[[], bool], seconds: float) -> None:
        """Look again and again; polled, since it happens once in a worker's life and the ends have many causes."""
        deadline = self._loop.time() + seconds
        while not done() and self._loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_SECONDS)


def _socket_limits(gateway: Gateway) -> SocketLimits:
    return SocketLimits(
        message_bytes=gateway.websocket.max_message_size_bytes,
        idle_seconds=gateway.websocket.idle_timeout_seconds,
        buffered_bytes=gateway.limits.buffered_bytes,
        write_idle_seconds=gateway.limits.write_idle_seconds,
    )


def limits_of(gateway: Gateway) -> DownstreamLimits:
    """The bounds on clients, as the configuration says."""
    limits = gateway.limits
    return DownstreamLimits(
        HeadLimits(limits.request_head_bytes, limits.request_headers, limits.request_target_bytes),
        body_bytes=gateway.max_body_bytes,
        chunk_overhead_bytes=limits.chunk_overhead_bytes,
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


def _checkpoints(snapshot: Snapshot) -> Checkpoints:
    """All configurations share one log, so it is signed as often as the most anxious of them asks."""
    audits = [one.pipeline.audit for one in snapshot.configurations.values() if one.pipeline.audit]
    if not audits:
        return DEFAULT_CHECKPOINTS
    return Checkpoints(min(one.checkpoint_seconds for one in audits), min(one.checkpoint_records for one in audits))


def _committing(snapshot: Snapshot) -> frozenset[str]:
    """The configurations whose records have commitments in the place of addresses."""
    audits = {id: one.pipeline.audit for id, one in snapshot.configurations.items()}
    return frozenset(id for id, audit in audits.items() if audit is not None and audit.addresses == "committed")


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


def take_all_descriptors() -> None:
    """As many sockets as this process may have at all: the usual soft limit of 1,024 is there for select(2)."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(ValueError, OSError):  # no more than the kernel gives
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> None:
    """Entry point of the process: `python -m gateway.worker OPTIONS`."""
    options = msgspec.json.decode(sys.argv[1].encode(), type=WorkerOptions)
    tune_malloc()
    take_all_descriptors()
    # Threads (scans, audit, compilation) share the interpreter lock with the loop: they hand it over every 0.5 ms.
    sys.setswitchinterval(0.0005)
    run_folder = Path(options.run_folder)
    run_file = read_run_file(run_folder)
    counters = metrics.Metrics(run_folder, options.worker)
    dropped = counters.counter(metrics.LOG_LINES_DROPPED)
    logs = configure(run_file.log_level, run_file.log_format, sys.stderr, on_drop=dropped.inc)
    try:
        uvloop.run(Worker(options, counters).run())
    except Exception:
        log.exception("the worker cannot go on")
        sys.exit(1)
    finally:
        logs.close()
        counters.close()


if __name__ == "__main__":
    main()
