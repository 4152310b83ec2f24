"""A worker to be killed: `python -m tests.gateway.audit.child MODE FOLDER RUN_FOLDER`.

It appends exchanges as fast as it can and says on standard output, eight bytes at a time, how many appends have
returned. Modes: `write` runs the writer thread; `hoard` does not, so that all stays in the journal, and stops when it
is full; `recover` recovers and says nothing; `limited` writes with a file size limit that is lifted at the end.
"""

from __future__ import annotations

import itertools
import resource
import struct
import sys
import time
from pathlib import Path

from gateway.audit.recovery import recover
from gateway.audit.writer import AuditLog
from gateway.errors import AuditUnavailable
from gateway.types import FailMode
from tests.gateway.audit.support import finish, start


def tell(count: int) -> None:
    sys.stdout.buffer.write(struct.pack("<Q", count))
    sys.stdout.buffer.flush()


def write(log: AuditLog) -> None:
    """Exchange n gets its end when exchange n + 3 has begun, so that some are always open."""
    for number in itertools.count():
        try:
            log.append(start(str(number)))
        except AuditUnavailable:
            return
        if number >= 3:
            log.conclude(finish(str(number - 3)))
        tell(number + 1)


def limited(log: AuditLog) -> None:
    """Until the journal is full behind a disk that takes no more; then the disk takes again."""
    log.start()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    count = 0
    while True:
        try:
            log.append(start(str(count)))
            count += 1
        except AuditUnavailable:
            if log.stats.failing:
                break
            time.sleep(0.001)
    tell(count)
    assert log.stats.errors
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert log.close()
    tell(log.stats.written)


def main(mode: str, folder: Path, run_folder: Path) -> None:
    if mode == "recover":
        recover(run_folder, folder)
        return
    size = 1 << 16 if mode == "limited" else 1 << 22
    log = AuditLog(folder, run_folder, 0, fail_mode=FailMode.BLOCK, journal_bytes=size, segment_bytes=1 << 20)
    if mode == "limited":
        limited(log)
        return
    if mode == "write":
        log.start()
    write(log)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
