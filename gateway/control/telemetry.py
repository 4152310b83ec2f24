"""Telemetry in a running control process: follows the audit log and hands finished exchanges to an OTLP exporter.

Off unless `gateway.telemetry.otlp` is set; then the SDK is loaded, in a thread, and everything else happens there too.
Of several gateways with one state folder one exports, since they share one audit log. What ends while nobody looks, as
in the moment of a restart, is in the log and not exported: telemetry is no record.
"""

from __future__ import annotations

import asyncio
import fcntl
import importlib
import logging
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gateway.audit.reader import Follower, time_of
from gateway.config.schema import OTLP
from gateway.control.settings import InForce
from gateway.folders import audit_folder
from gateway.secrets import read_secret
from gateway.telemetry.spans import exchange_of

if TYPE_CHECKING:
    from gateway.telemetry.otlp import Exporter

LOOK_SECONDS: Final = 1.0
LOCK: Final = "telemetry.lock"

log = logging.getLogger("gateway.telemetry")


async def keep(run_folder: Path) -> None:
    """Export as the configuration in force says; until cancelled. Raises nothing: keys and limits matter more."""
    keeper = _Keeper(run_folder, os.environ)
    failing = False
    try:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await asyncio.to_thread(keeper.step)
                failing = False
            except Exception:
                if not failing:
                    log.exception("telemetry fails; it is tried again")
                failing = True
    finally:
        await asyncio.to_thread(keeper.close)


class _Keeper:
    """Owns the exporter, if there is one. Its methods run in threads, one at a time."""

    def __init__(self, run_folder: Path, environ: Mapping[str, str]) -> None:
        self._in_force = InForce(run_folder)
        self._audit = audit_folder(run_folder.parent)
        self._lock_file = run_folder.parent / LOCK
        self._environ = environ
        self._lock = -1
        self._settings: OTLP | None = None
        self._exporter: Exporter | None = None
        self._follower: Follower | None = None
        self._since = ""
        self._broken = False

    def step(self) -> None:
        """Look at the settings, and export what has ended since the last time."""
        configurations = self._in_force.configurations
        wanted = configurations[0].configuration.gateway.telemetry.otlp if configurations else None
        if wanted != self._settings:
            self.close()
            self._settings, self._broken = wanted, False
        if wanted is None or self._broken or not self._take_lock():
            return
        if self._exporter is None:
            self._since = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            self._follower = Follower(self._audit)
            self._exporter = self._make(wanted)
        if self._exporter is not None and self._follower is not None:
            self._export(self._exporter, self._follower)

    def close(self) -> None:
        """Send what is left; idempotent."""
        exporter, self._exporter = self._exporter, None
        if exporter is not None:
            if self._follower is not None:
                self._export(exporter, self._follower)
            exporter.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _export(self, exporter: Exporter, follower: Follower) -> None:
        providers = {
            (one.id, target.id): target.provider
            for one in self._in_force.configurations
            for target in one.configuration.providers.targets
        }
        # The first look reads on from the beginning of the newest segments: what had ended before is not ours.
        rows = [row for row in follower.poll() if time_of(row) >= self._since]
        exporter.export(found for row in rows if (found := exchange_of(row, providers)) is not None)

    def _make(self, settings: OTLP) -> Exporter | None:
        try:
            module = importlib.import_module("gateway.telemetry.otlp")
        except ImportError as error:
            log.error("telemetry is set and the extra `otel` is not installed", extra={"missing": error.name})
            self._broken = True
            return None
        headers = {}
        for name, reference in settings.headers.items():
            secret, problem = read_secret(reference, self._environ)
            if problem:
                log.error("a header of telemetry is left out", extra={"header": name, "reason": problem})
            else:
                headers[name.lower()] = secret.reveal()
        resource = {
            "service.name": settings.service_name,
            "service.version": metadata.version("keeptrusts-gateway"),
            "service.instance.id": f"{os.uname().nodename}:{self._in_force.port}",
        }
        exporter: Exporter = module.Exporter(settings.endpoint, headers, settings.interval_seconds, resource)
        log.info("telemetry is exported", extra={"endpoint": settings.endpoint})
        return exporter

    def _take_lock(self) -> bool:
        if self._lock >= 0:
            return True
        descriptor = os.open(self._lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._lock = descriptor
        return True
