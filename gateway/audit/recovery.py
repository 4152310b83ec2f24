"""Recovery: what a worker could not finish, finished for it.

A worker that was killed leaves its journal and an unsealed segment. Recovery carries the writer's chain on: records
that the writer had not taken are appended, exchanges without an end get the finish record `interrupted`, the segment is
sealed, and only then the journal goes. Killed halfway itself, it goes on from where it was the next time, and no record
is written twice. Locks tell the living from the dead, so it may run at any time and from several processes.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gateway.audit.chain import Malformed, parse
from gateway.audit.checkpoint import Notary
from gateway.audit.commitments import Commitments
from gateway.audit.journal import Journal, JournalBusy, JournalInvalid, Mark
from gateway.audit.layout import MANIFEST, SegmentName, SegmentState, decode_header, microseconds, segments_of
from gateway.audit.manifest import shared
from gateway.audit.record import GapReason, gap_record
from gateway.audit.scan import SegmentDamaged, Standing
from gateway.audit.segments import SegmentBusy, SegmentedChain

logger = logging.getLogger("gateway.audit")

BATCH = 200
"""Records in one write: the writer holds the interpreter's lock for 0.4 ms at the most before it lets the loop on."""


@dataclass(slots=True)
class Recovered:
    """What a recovery has done: writers finished, records brought over, exchanges marked interrupted, gaps written."""

    writers: int = 0
    records: int = 0
    interrupted: int = 0
    gaps: int = 0


def new_writer_id() -> str:
    """16 hexadecimal digits, different for every writer that ever was."""
    return secrets.token_hex(8)


def recover(
    run_folder: Path,
    folder: Path,
    *,
    clock: Callable[[], float] = time.time,
    notary: Notary | None = None,
    commitments: Commitments | None = None,
) -> Recovered:
    """Finish what workers that are gone have left in the run folder's journals and in the audit folder.

    `clock` gives Unix seconds; `notary` signs what is sealed, `commitments` take the place of addresses. Blocks on the
    disk: not for an event loop. Raises OSError when the disk refuses; what is not yet recovered is then still in the
    journals.
    """
    done = Recovered()
    for path in sorted(run_folder.glob("audit-*.journal")):
        try:
            journal = Journal.open(path)
        except (JournalBusy, FileNotFoundError):
            continue
        except JournalInvalid as error:
            logger.error("%s; it is left as it is", error)
            continue
        _finish_journal(journal, folder, clock, done, notary, commitments)
    for name, lost in _abandoned(folder):
        _finish_without_journal(name, lost, folder, clock, done, notary)
    return done


def _finish_journal(
    journal: Journal,
    folder: Path,
    clock: Callable[[], float],
    done: Recovered,
    notary: Notary | None,
    commitments: Commitments | None,
) -> None:
    finished = False
    waiting = str(journal.path.absolute())
    try:
        try:
            series, standing = SegmentedChain.resume(
                folder,
                journal.writer,
                journal.mark.sequence,
                clock(),
                journal=waiting,
                notary=notary,
                commitments=commitments,
            )
        except SegmentDamaged as error:
            # Nothing is added to evidence. The records go into a chain of their own.
            logger.error("cannot carry on the audit log of writer %s: %s", journal.writer, error)
            own = new_writer_id()
            series = SegmentedChain(folder, own, journal=waiting, notary=notary, commitments=commitments)
            standing = Standing()
        except SegmentBusy:
            return
        try:
            _skip_standing(journal, series, standing)
            _bring_over(journal, series, clock, done, standing.missing)
            _conclude(series, clock, done)
        finally:
            series.close()
        finished = True
    finally:
        journal.close(remove=finished)


def _skip_standing(journal: Journal, series: SegmentedChain, standing: Standing) -> None:
    """Free what the writer had put into the segment before it could say so in the journal."""
    batch = journal.take(standing.records, checked=True)
    reported = journal.mark.reported + standing.reported
    journal.advance(Mark(batch.position, series.chain.sequence, reported))


def _bring_over(
    journal: Journal, series: SegmentedChain, clock: Callable[[], float], done: Recovered, missing: int
) -> None:
    if missing:
        _write_gap(journal, series, clock(), GapReason.NOT_SYNCED, missing, done)
    while (batch := journal.take(BATCH, checked=True)).records:
        series.write(batch.records, clock())
        journal.advance(Mark(batch.position, series.chain.sequence, journal.mark.reported))
        done.records += len(batch.records)
    if batch.damaged:
        logger.error("%r is damaged: records behind that place are lost", journal)
        _write_gap(journal, series, clock(), GapReason.JOURNAL_DAMAGED, None, done)
    if dropped := journal.dropped - journal.mark.reported:
        _write_gap(journal, series, clock(), GapReason.JOURNAL_FULL, dropped, done)


def _write_gap(
    journal: Journal, series: SegmentedChain, now: float, reason: GapReason, records: int | None, done: Recovered
) -> None:
    series.write([gap_record(microseconds(now), reason, records)], now)
    tail = journal.head if reason is GapReason.JOURNAL_DAMAGED else journal.mark.tail
    reported = journal.dropped if reason is GapReason.JOURNAL_FULL else journal.mark.reported
    journal.advance(Mark(tail, series.chain.sequence, reported))
    done.gaps += 1


def _conclude(series: SegmentedChain, clock: Callable[[], float], done: Recovered) -> None:
    now = clock()
    done.interrupted += conclude(series, now)
    done.writers += 1
    logger.info("finished the audit log of writer %s, which had ended: %s", series.writer, done)


def conclude(series: SegmentedChain, now: float) -> int:
    """End a chain: every exchange without an end is marked interrupted, the segment is sealed. Returns how many."""
    owed = series.in_flight.interrupted(microseconds(now))
    for start in range(0, len(owed), BATCH):
        series.write(owed[start : start + BATCH], now)
    series.seal(now)
    return len(owed)


def _abandoned(folder: Path) -> Iterator[tuple[SegmentName, Path]]:
    """Each writer's last segment, where it is unsealed and its journal, which is named too, is not there any more."""
    for name, state in _last_segments(folder).items():
        if state.sealed is None:
            journal = _journal_of(folder / str(name))
            if journal is not None and not journal.exists():
                yield name, journal


def _last_segments(folder: Path) -> dict[SegmentName, SegmentState]:
    if not (folder / MANIFEST).exists():
        return {}
    with shared(folder) as manifest:
        states = segments_of(manifest.entries())
    last: dict[str, tuple[SegmentName, SegmentState]] = {}
    for text, state in states.items():
        name = SegmentName.parse(text)
        if name is not None and (folder / text).exists():
            last[name.writer] = (name, state)
    return dict(last.values())


def _journal_of(path: Path) -> Path | None:
    """Where the records of a segment's writer were waiting; None where its header cannot be read."""
    with path.open("rb") as file:
        try:
            return Path(decode_header(parse(file.readline().rstrip(b"\n")).record).journal)
        except Malformed:
            return None


def _finish_without_journal(
    name: SegmentName,
    lost: Path,
    folder: Path,
    clock: Callable[[], float],
    done: Recovered,
    notary: Notary | None,
) -> None:
    try:
        series, _ = SegmentedChain.resume(folder, name.writer, None, clock(), journal=str(lost), notary=notary)
    except SegmentBusy:
        return
    except SegmentDamaged as error:
        logger.error("cannot carry on the audit log of writer %s: %s", name.writer, error)
        return
    try:
        now = clock()
        series.write([gap_record(microseconds(now), GapReason.JOURNAL_LOST, None)], now)
        done.gaps += 1
        _conclude(series, clock, done)
    finally:
        series.close()
