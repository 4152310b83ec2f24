"""What a worker tells of itself at each sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gateway import metrics
from gateway.audit.writer import AuditLog
from gateway.types import FailMode
from gateway.vitals import Vitals


class Server:
    connections: frozenset[object] = frozenset()
    accepted = 0


class Pools:
    def counts(self) -> list[Any]:
        return []


def test_every_audit_record_that_was_let_go_is_counted(tmp_path: Path) -> None:
    """One gap in the log may stand for many records; the metric is of records."""
    counters = metrics.Metrics(tmp_path, 0)
    log = AuditLog(tmp_path / "audit", tmp_path, 0, fail_mode=FailMode.ALLOW, journal_bytes=4096)
    vitals = Vitals(counters, Server(), Pools(), log, lambda: 0.0)  # type: ignore[arg-type]
    for _ in range(20):
        log.append(b'{"kind":"start"}' * 30)
    dropped = log.stats.dropped
    assert dropped > 1
    for _ in range(2):  # the second time nothing is new
        vitals.observe(0.0, 0.0)
    assert counters.counter(metrics.AUDIT_GAPS).value == dropped
    log.close()
    vitals.observe(0.0, 0.0)
    assert log.stats.gaps == 1
    assert counters.counter(metrics.AUDIT_GAPS).value == dropped
    counters.close()
