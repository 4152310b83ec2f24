"""What several tests of the audit log need: records to write, logs to write them into, and a look at what is there."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gateway.audit.checkpoint import CHECKPOINTS, Notary
from gateway.audit.layout import MANIFEST
from gateway.audit.record import Outcome, finish_record, start_record
from gateway.audit.segments import SegmentedChain

NOON = 1_780_315_200.0
"""2026-06-01T12:00:00Z."""
DAY = 86_400.0
WRITER = "0123456789abcdef"
JOURNAL = "/nowhere/audit-0.journal"
"""Where nobody's records wait."""


def start(id: str, at: int = 1_780_315_200_000_000) -> bytes:
    return start_record(id, at, "key_1", "core", "my-config", "v1", "chat", "gpt-4o", "203.0.113.7")


def finish(id: str, at: int = 1_780_315_201_000_000) -> bytes:
    return finish_record(id, at, Outcome.COMPLETED, status=200, target="openai-gpt4o", attempts=1)


def exchanges(ids: Iterable[object]) -> list[bytes]:
    return [record for id in ids for record in (start(str(id)), finish(str(id)))]


def segments(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.jsonl") if path.name not in (MANIFEST, CHECKPOINTS))


def records(folder: Path) -> list[dict[str, Any]]:
    """All records of all segments, segment by segment."""
    return [json.loads(line)["record"] for path in segments(folder) for line in path.read_bytes().splitlines()]


def manifest(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line)["record"] for line in (folder / MANIFEST).read_bytes().splitlines()]


def ids(folder: Path, kind: str) -> list[str]:
    return [record["id"] for record in records(folder) if record["kind"] == kind]


def sealed_log(
    folder: Path,
    writer: str,
    count: int,
    segment_bytes: int = 4096,
    now: float = NOON,
    notary: Notary | None = None,
) -> None:
    """A finished log of so many exchanges by one writer, in as many segments as that takes."""
    series = SegmentedChain(folder, writer, journal=JOURNAL, segment_bytes=segment_bytes, notary=notary)
    todo = exchanges(f"{writer[:4]}-{number}" for number in range(count))
    for at in range(0, len(todo), 5):
        series.write(todo[at : at + 5], now)
    series.seal(now)


def eventually(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until a condition holds; the deadline is for a failing test only."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.005)


@contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """The kernel refuses to let any file of this process grow further: a full disk for large files only."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
