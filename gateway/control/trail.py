"""Changes on their way into the audit log: what people have changed, as records in the same hash-chained log.

The store has each change from the transaction that made it (`store/trail.py`). Here they are taken to the log in
batches, by a writer of this process's own, and marked. Nothing is lost when this process is killed in between, and at
worst a change stands in the log twice, with the same id.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gateway.audit.commitments import Commitments
from gateway.audit.record import change_record
from gateway.audit.writer import AuditLog
from gateway.control.store.errors import StoreError
from gateway.errors import AuditUnavailable
from gateway.folders import audit_folder, audit_key, audit_salts

if TYPE_CHECKING:
    from gateway.control.store.store import Store
    from gateway.control.store.trail import Change

LOOK_SECONDS: Final = 0.5
JOURNAL_BYTES: Final = 1 << 20
"""Some thousand changes, should the disk refuse; further ones wait in the store."""

log = logging.getLogger(__name__)


class TrailRecorder:
    """Takes the changes of one store to the audit log of one state folder."""

    def __init__(self, run_folder: Path, store: Callable[[], Store | None]) -> None:
        self._run_folder = run_folder
        self._store = store
        self._log: AuditLog | None = None

    async def run(self) -> None:
        """Record until cancelled."""
        while True:
            try:
                await self.step()
            except (StoreError, OSError, AuditUnavailable) as error:
                log.warning("changes cannot be recorded; they wait in the store", extra={"reason": str(error)})
            await asyncio.sleep(LOOK_SECONDS)

    async def step(self) -> int:
        """Record what waits; how many changes that were. Raises StoreError, OSError or AuditUnavailable."""
        store = self._store()
        if store is None or not await store.trail.waiting():
            return 0
        if self._log is None:
            self._log = await asyncio.to_thread(self._open)
        return await store.trail.hand_over(self._append)

    async def close(self) -> None:
        """Write what is left and seal the segment; idempotent."""
        opened, self._log = self._log, None
        if opened is not None:
            await asyncio.to_thread(opened.close)

    def _open(self) -> AuditLog:
        state_folder = self._run_folder.parent
        opened = AuditLog(
            audit_folder(state_folder),
            self._run_folder,
            "control",
            key=audit_key(state_folder),
            commitments=Commitments(audit_salts(audit_folder(state_folder))),
            journal_bytes=JOURNAL_BYTES,
        )
        opened.start()
        return opened

    def _append(self, changes: Sequence[Change]) -> None:
        assert self._log is not None
        for change in changes:
            self._log.append(
                change_record(
                    change.id,
                    round(change.at * 1_000_000),
                    change.actor,
                    change.via,
                    change.action,
                    change.object_id,
                    change.object_name,
                    actor_id=change.actor_id,
                    client=change.client,
                    request_id=change.request_id,
                    before=change.before,
                    after=change.after,
                )
            )
