"""The records of a connection of the Realtime API, besides those of its responses.

There text leaves for a provider before a response is asked for, so that something must be in the log before that.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from gateway.audit.record import Outcome, finish_record, start_record

if TYPE_CHECKING:
    from gateway.services import Services
    from gateway.snapshot import Binding
    from gateway.types import Decision
    from gateway.uplink import Uplink


class ConnectionRecord:
    """Start and finish of one connection, where the chain has `audit-logger`."""

    def __init__(self, services: Services, binding: Binding, id: str, operation: str, model: str, peer: str) -> None:
        self._services = services
        self._binding = binding
        self._id = id
        self._operation = f"{operation}.connection"
        self._model = model
        self._peer = peer
        self._began = services.clock()
        self._audited = False

    def start(self, client_id: str | None) -> None:
        """Before the provider is asked for a socket. Raises AuditUnavailable."""
        configuration, key = self._binding.configuration, self._binding.key
        if not configuration.pipeline.audits:
            return
        self._services.audit(
            start_record(
                self._id,
                int(self._services.wall() * 1_000_000),
                key.id if key else None,
                key.team if key else None,
                configuration.id,
                configuration.pipeline.version,
                self._operation,
                self._model[:256],
                self._peer,
                attributes={"client_request_id": client_id[:128]} if client_id else {},
            )
        )
        self._audited = True

    def finish(
        self,
        outcome: Outcome,
        status: int,
        code: str | None,
        uplinks: Collection[Uplink],
        bytes_sent: int,
        decisions: Sequence[Decision],
    ) -> None:
        """It is closed. That an open one is closed by its client is its good end."""
        if not self._audited:
            return
        opened = status == 101
        self._services.conclude(
            finish_record(
                self._id,
                int(self._services.wall() * 1_000_000),
                Outcome.COMPLETED if opened and outcome is Outcome.CANCELLED else outcome,
                status=status,
                code=code,
                target=next((uplink.target.id for uplink in uplinks), None),
                attempts=len(uplinks),
                bytes_sent=bytes_sent,
                duration_us=int((self._services.clock() - self._began) * 1_000_000),
                decisions=decisions,
            )
        )
