"""Is it steady? Samples and counts of a soak to verdicts, as plain functions.

The first quarter of the time is warm-up. Of what follows, the first and the last third are compared by their medians,
so that a single peak does not decide. Small numbers may move by a little that is no trend: `SLACK_*`.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

GROWTH: Final = 0.05
SLACK_BYTES: Final = 2 << 20
"""What an allocator may take for itself, however small the process."""
SLACK_DESCRIPTORS: Final = 8
LAG_SECONDS: Final = 0.005
WARM_UP: Final = 0.25
_LAG: Final = re.compile(r'^keeptrusts_gateway_loop_lag_seconds_bucket\{le="([^"]+)"\} (\S+)$', re.MULTILINE)
_MUST_STAY_ZERO: Final = {
    "internal errors": "keeptrusts_gateway_internal_errors_total",
    "audit records lost": "keeptrusts_gateway_audit_gaps_total",
    "worker restarts": "keeptrusts_gateway_worker_restarts_total",
}


@dataclass
class Counts:
    """What users saw."""

    sent: int = 0
    answered: int = 0
    streams: int = 0
    events: int = 0
    """Of complete streams."""
    left: int = 0
    lost: int = 0
    """Streams whose events were not those that the provider sent."""
    wrong: int = 0
    """Answers that were not the expected ones."""
    unanswered: int = 0


@dataclass(frozen=True)
class ProcessSample:
    """One process at one moment."""

    pid: int
    role: str
    rss: int
    descriptors: int


@dataclass(frozen=True)
class Sample:
    """The gateway at one moment; `at` in seconds."""

    at: float
    processes: Sequence[ProcessSample]
    lag: dict[str, float] = field(default_factory=dict)
    counters: dict[str, float] = field(default_factory=dict)


class Verdict(NamedTuple):
    """One thing that must hold."""

    what: str
    held: bool
    measured: str
    bound: str


def sample_of(at: float, processes: Sequence[ProcessSample], page: bytes) -> Sample:
    """A sample, with what a page of `/metrics` says of loop lag and of what must stay zero."""
    text = page.decode(errors="replace").replace("\r", "")
    counters = {}
    for what, name in _MUST_STAY_ZERO.items():
        values = re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", text, re.MULTILINE)
        counters[what] = sum(map(float, values))
    return Sample(at, tuple(processes), {le: float(count) for le, count in _LAG.findall(text)}, counters)


def judge(samples: Sequence[Sample], counts: Counts, *, recorded: int, whole: bool) -> list[Verdict]:
    """What held. The last sample is taken when all load has gone."""
    loaded, last = samples[:-1], samples[-1]
    steady = [one for one in loaded if one.at - loaded[0].at >= WARM_UP * (loaded[-1].at - loaded[0].at)] or list(
        loaded
    )
    verdicts = [
        Verdict("events lost", counts.lost == 0, str(counts.lost), "0"),
        Verdict("wrong answers", counts.wrong == 0, str(counts.wrong), "0"),
        Verdict("no answer", counts.unanswered == 0, str(counts.unanswered), "0"),
        Verdict("something was measured", counts.events > 0, f"{counts.events} events", "more than 0"),
        Verdict("requests in the audit log", recorded == counts.sent, str(recorded), str(counts.sent)),
        Verdict("kt audit verify", whole, "whole" if whole else "not whole", "whole"),
    ]
    for what in _MUST_STAY_ZERO:
        value = last.counters.get(what, 0.0)
        verdicts.append(Verdict(what, value == 0, f"{value:g}", "0"))
    verdicts += _growth(steady, "memory", lambda process: process.rss, SLACK_BYTES, 1 / 2**20, "MB")
    verdicts += _growth(steady, "descriptors", lambda process: process.descriptors, SLACK_DESCRIPTORS, 1, "")
    lag = quantile(_between(steady[0], last), 0.99)
    verdicts.append(Verdict("loop lag, p99", lag < LAG_SECONDS, f"{1000 * lag:.2f} ms", f"{1000 * LAG_SECONDS:g} ms"))
    return verdicts


def _growth(
    samples: Sequence[Sample], what: str, value: Callable[[ProcessSample], int], slack: int, scale: float, unit: str
) -> list[Verdict]:
    """For each process that lived through all samples: the last third's median against the first's."""
    third = max(1, len(samples) // 3)
    everywhere = set.intersection(*({process.pid for process in one.processes} for one in samples))
    verdicts = []
    for process in samples[0].processes:
        if process.pid not in everywhere:
            continue
        series = [value(one) for sample in samples for one in sample.processes if one.pid == process.pid]
        before, after = statistics.median(series[:third]), statistics.median(series[-third:])
        held = after <= before + max(before * GROWTH, slack)
        measured = f"{before * scale:.0f} to {after * scale:.0f} {unit}".rstrip()
        verdicts.append(Verdict(f"{what} of {process.role} {process.pid}", held, measured, f"{GROWTH:.0%} more"))
    return verdicts


def lag_buckets(samples: Sequence[Sample]) -> dict[str, float]:
    """The loop lag of the whole time, by upper bound, as Prometheus counts it."""
    return _between(samples[0], samples[-1])


def _between(first: Sample, last: Sample) -> dict[str, float]:
    return {le: count - first.lag.get(le, 0.0) for le, count in last.lag.items()}


def quantile(buckets: dict[str, float], share: float) -> float:
    """As Prometheus' histogram_quantile: linear within a bucket. Infinite above all bounds, and for none."""
    ordered = sorted((float(le), count) for le, count in buckets.items())
    if not ordered or not ordered[-1][1]:
        return math.inf
    wanted = share * ordered[-1][1]
    low = below = 0.0
    for bound, count in ordered:
        if count >= wanted:
            if math.isinf(bound):
                return math.inf
            return low + (bound - low) * (wanted - below) / (count - below)
        low, below = bound, count
    return math.inf
