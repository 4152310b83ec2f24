"""The audit log of one worker: a journal in front, a writer thread behind.

The event loop appends to the journal, which is a copy into memory. The thread wakes every 50 ms by itself (nobody
signals it: a wake-up costs the loop more than the record does), takes what is there, and writes it as lines of a hash
chain, one `write` per batch. Once a second it waits for the disk. While the disk refuses, records stay in the journal
and the thread tries again; when the journal is full the fail mode decides. This module knows nothing of what is in a
record.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, final

from gateway.audit.checkpoint import Notary
from gateway.audit.commitments import Commitments, retire_salts
from gateway.audit.journal import DEFAULT_CAPACITY, Journal, Mark
from gateway.audit.layout import date_of, microseconds
from gateway.audit.record import GapReason, gap_record
from gateway.audit.recovery import BATCH, conclude, new_writer_id, recover
from gateway.audit.retention import retire
from gateway.audit.segments import SEGMENT_BYTES, SegmentedChain
from gateway.errors import AuditUnavailable
from gateway.types import FailMode

logger = logging.getLogger("gateway.audit")

INTERVAL_SECONDS = 0.05
"""Between two looks at the journal: at 5,000 exchanges a second 500 records, a thirtieth of a journal's room."""

RETRY_SECONDS = 0.25
"""After the disk has refused."""

SYNC_SECONDS = 1.0
"""What the machine's own end may cost at most; the end of the process costs nothing."""

RECOVERY_RETRY_SECONDS = 10.0


class Checkpoints(NamedTuple):
    """How often a checkpoint is signed while there are new records: whatever comes first. Every seal is signed too."""

    seconds: float = 60.0
    records: int = 50_000


DEFAULT_CHECKPOINTS = Checkpoints()


class AuditStats(NamedTuple):
    """Counters since the start of this writer, and two gauges."""

    written: int
    """Records in the chain."""
    gaps: int
    """Gap records written."""
    dropped: int
    """Records that found no room."""
    errors: int
    """Times that the disk refused."""
    backlog_bytes: int
    """What waits in the journal."""
    failing: bool
    """The last attempt to write failed."""


@final
class AuditLog:
    """One worker's audit log. `append` and `conclude` belong to the event loop, everything else may block.

    `append(payload)` takes a record that begins something. When there is no room it raises AuditUnavailable under
    FailMode.BLOCK, and counts the record as dropped under FailMode.ALLOW. `conclude(payload)` takes a record of what
    has happened already and cannot be refused any more: it has an eighth of the journal for itself and never raises;
    should that be used up too, the record is counted as dropped. Dropped records appear in the chain as a gap.
    """

    __slots__ = (
        "_clock",
        "_errors",
        "_failing",
        "_gaps",
        "_journal",
        "_next_checkpoint",
        "_next_recovery",
        "_next_sync",
        "_notary",
        "_retired_on",
        "_run_folder",
        "_series",
        "_signed",
        "_stop",
        "_thread",
        "_unsynced",
        "_written",
        "append",
        "checkpoints",
        "commitments",
        "folder",
        "retention_days",
    )

    def __init__(
        self,
        folder: Path,
        run_folder: Path,
        worker: int | str,
        *,
        fail_mode: FailMode = FailMode.BLOCK,
        retention_days: int | None = None,
        key: Path | None = None,
        checkpoints: Checkpoints = DEFAULT_CHECKPOINTS,
        commitments: Commitments | None = None,
        clock: Callable[[], float] = time.time,
        journal_bytes: int = DEFAULT_CAPACITY,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        """Make the journal, `<run_folder>/audit-<worker>-<writer>.journal`, ready to append; `start` starts the writer.

        `retention_days` None keeps everything. `key` is the private key that signs checkpoints, made where there is
        none; without a path nothing is signed. `commitments` take the place of addresses. `clock` gives Unix seconds.
        Raises OSError where the run folder has no room for the journal.
        """
        writer = new_writer_id()
        run_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = run_folder.absolute() / f"audit-{worker}-{writer}.journal"
        self.folder = folder
        self.retention_days = retention_days
        self._run_folder = run_folder
        self._clock = clock
        self._journal = Journal.create(path, writer, journal_bytes)
        self._notary = Notary(folder, key) if key is not None else None
        self.commitments = commitments
        self._series = SegmentedChain(
            folder,
            writer,
            journal=str(path),
            segment_bytes=segment_bytes,
            notary=self._notary,
            commitments=commitments,
        )
        self.checkpoints = checkpoints
        self._signed = 0
        self._next_checkpoint = time.monotonic() + checkpoints.seconds
        # Under `block` there is nothing between the exchange and the journal.
        self.append: Callable[[bytes], None] = (
            self._journal.append if fail_mode is FailMode.BLOCK else self._append_or_drop
        )
        self._written = self._gaps = self._errors = 0
        self._failing = self._unsynced = False
        self._next_recovery: float | None = 0.0
        self._next_sync = 0.0
        self._retired_on = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="audit-writer", daemon=True)

    @property
    def writer(self) -> str:
        """The id of this writer, as it stands in the names of its segments."""
        return self._series.writer

    @property
    def stats(self) -> AuditStats:
        """How the log is doing. From any thread."""
        journal = self._journal
        return AuditStats(self._written, self._gaps, journal.dropped, self._errors, journal.backlog, self._failing)

    def _append_or_drop(self, payload: bytes) -> None:
        try:
            self._journal.append(payload)
        except AuditUnavailable:
            self._journal.drop()

    def conclude(self, payload: bytes) -> None:
        """Take a record of what has happened; never raises."""
        try:
            self._journal.append(payload, True)
        except AuditUnavailable:
            self._journal.drop()

    def start(self) -> None:
        """Start the writer thread. After a first look at the journal it recovers what dead workers have left."""
        self._thread.start()

    def close(self, timeout: float = 10.0) -> bool:
        """Write what is left, mark unfinished exchanges as interrupted, seal the segment and delete the journal.

        Nothing may be appended any more. Returns False when the disk did not let it be done in `timeout` seconds: then
        the journal stays, and the next recovery finishes the work.
        """
        if self._journal.closed:
            return not self._failing
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(timeout)
            if self._thread.is_alive():
                return False
        done = self._try(self._end)
        self._series.close()
        self._journal.close(remove=done)
        return done

    def _run(self) -> None:
        pause = 0.0
        if self._notary is not None:
            # The library is loaded and the key made before there is traffic.
            self._notary.prepare()
        while not self._stop.wait(pause):
            pause = INTERVAL_SECONDS if self._try(self._turn) else RETRY_SECONDS

    def _try(self, step: Callable[[], None]) -> bool:
        """Run a step; whatever goes wrong, the thread lives and the records are still in the journal."""
        try:
            step()
        except OSError as error:
            if not self._failing:
                logger.error("the audit log cannot be written, records wait in the journal: %s", error)
            self._failing = True
            self._errors += 1
        except Exception:
            self._failing = True
            self._errors += 1
            logger.exception("fault in the audit writer; records wait in the journal")
        else:
            if self._failing:
                logger.warning("the audit log can be written again")
            self._failing = False
        return not self._failing

    def _turn(self) -> None:
        self._journal.make_ready()
        self._drain()
        now, moment = self._clock(), time.monotonic()
        self._series.tick(now)
        if self._unsynced and moment >= self._next_sync:
            self._series.sync()
            self._unsynced = False
            self._next_sync = moment + SYNC_SECONDS
        if self._notary is not None and self._signed != self._written and not self._unsynced:
            self._checkpoint(now, moment)
        if self._next_recovery is not None and moment >= self._next_recovery:
            self._next_recovery = moment + RECOVERY_RETRY_SECONDS
            recover(self._run_folder, self.folder, clock=self._clock, notary=self._notary, commitments=self.commitments)
            self._next_recovery = None
        if self.retention_days is not None and self._retired_on != date_of(now):
            retire(self.folder, self.retention_days, now, self._notary)
            if self.commitments is not None:
                retire_salts(self.commitments.folder, self.retention_days, now)
            self._retired_on = date_of(now)

    def _checkpoint(self, now: float, moment: float) -> None:
        """Sign where the chain stands, if it is time; after a sync, so that no statement outlives what it is about."""
        due = moment >= self._next_checkpoint or self._written - self._signed >= self.checkpoints.records
        if due and self._series.checkpoint(now):
            self._signed = self._written
            self._next_checkpoint = moment + self.checkpoints.seconds

    def _drain(self) -> None:
        """Move everything from the journal into the chain, a batch at a time."""
        journal, series = self._journal, self._series
        while True:
            dropped = journal.dropped
            batch = journal.take(BATCH)
            now = self._clock()
            records = batch.records
            missing = dropped - journal.mark.reported
            if missing:
                records = [*records, gap_record(microseconds(now), GapReason.JOURNAL_FULL, missing)]
            if not records:
                return
            series.write(records, now)
            journal.advance(Mark(batch.position, series.chain.sequence, dropped))
            self._written += len(batch.records)
            self._gaps += missing > 0
            self._unsynced = True

    def _end(self) -> None:
        self._drain()
        conclude(self._series, self._clock())
