"""What a worker tells Prometheus of itself: not counted at the event, but looked at by the sweep.

Counters of other parts are read and their growth is passed on, so that those parts need not know of metrics and pay
nothing for them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Final

from gateway import metrics
from gateway.types import Destination

if TYPE_CHECKING:
    from gateway.audit.writer import AuditLog
    from gateway.downstream.http import Server
    from gateway.upstream.pool import Pools

POOLS_SECONDS: Final = 1.0
"""Pools are counted less often than the rest: 100 targets cost 0.1 ms."""
STATES: Final = ("idle", "active", "connecting")


class Vitals:
    """The sweep's metrics of one worker."""

    def __init__(
        self,
        counters: metrics.Metrics,
        server: Server,
        pools: Pools,
        audit: AuditLog,
        clock: Callable[[], float],
        *,
        unseen: Collection[Destination] = (),
    ) -> None:
        """`unseen` destinations are no providers."""
        self._server = server
        self._pools = pools
        self._audit = audit
        self._unseen = unseen
        self._lag = counters.histogram(metrics.LOOP_LAG)
        self._open = counters.gauge(metrics.OPEN_CONNECTIONS)
        self._accepted = counters.counter(metrics.CONNECTIONS)
        self._upstream = counters.gauges(metrics.UPSTREAM_CONNECTIONS)
        self._records = counters.counter(metrics.AUDIT_RECORDS)
        self._gaps = counters.counter(metrics.AUDIT_GAPS)
        self._backlog = counters.gauge(metrics.AUDIT_BACKLOG)
        self._told_accepted = 0
        self._told_audit = audit.stats
        self._next_pools = clock()

    def observe(self, now: float, late: float) -> None:
        """Called by every sweep; `late` is by how many seconds it came too late."""
        self._lag.observe(late)
        server = self._server
        self._open.set(len(server.connections))
        accepted = server.accepted
        self._accepted.inc(accepted - self._told_accepted)
        self._told_accepted = accepted
        seen, self._told_audit = self._told_audit, self._audit.stats
        self._records.inc(self._told_audit.written - seen.written)
        self._gaps.inc(self._told_audit.dropped - seen.dropped)
        self._backlog.set(self._told_audit.backlog_bytes)
        if now >= self._next_pools:
            self._next_pools = now + POOLS_SECONDS
            self._count_pools()

    def _count_pools(self) -> None:
        """Several configurations may have a target of the same name; those are added up."""
        counts: dict[tuple[str, str], int] = dict.fromkeys(self._upstream.keys(), 0)  # type: ignore[arg-type]
        for destination, numbers in self._pools.counts():
            if destination not in self._unseen:
                for state, number in zip(STATES, numbers, strict=True):
                    row = destination.name, state
                    counts[row] = counts.get(row, 0) + number
        for row, number in counts.items():
            self._upstream[row].set(number)
