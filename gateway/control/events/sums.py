"""What one batch of events adds to the index's sums: by series, by policy and verdict, and latencies by bins.

Sums of a batch are made in memory first, so that a thousand events cost a few dozen rows. It writes inside the
transaction that it is given and knows nothing of the log.
"""

from __future__ import annotations

import math
import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from gateway.control.events.schema import ALTOGETHER, DIMENSIONS, KEPT_SECONDS, MEASURES, Level

BINS_PER_DOUBLING: Final = 8
"""Latencies are counted in bins whose bounds are a factor of 1.09 apart."""
ADDED, FIRST_BYTE, DURATION = range(3)
"""Kinds of latencies: what the gateway added, to the first byte of the answer, to its end."""

_USAGE: Final = (
    f"INSERT INTO usage VALUES (?, ?, ?{', ?' * len(MEASURES)}) ON CONFLICT DO UPDATE SET "  # noqa: S608
    + ", ".join(f"{measure} = {measure} + excluded.{measure}" for measure in MEASURES)
)
_TOTALS: Final = _USAGE.replace("INTO usage VALUES (?, ?, ?", "INTO totals VALUES (?, ?, ?, ?")
_VERDICTS: Final = (
    "INSERT INTO verdicts VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET count = count + excluded.count"
)
_LATENCIES: Final = _VERDICTS.replace("verdicts", "latencies")
_SERIES: Final = f"INSERT INTO series ({', '.join(DIMENSIONS)}) VALUES (?{', ?' * (len(DIMENSIONS) - 1)})"  # noqa: S608


def bin_of(microseconds: int) -> int:
    """The bin of a latency."""
    return round(math.log2(max(microseconds, 1)) * BINS_PER_DOUBLING)


def middle_of(bin: int) -> float:
    """A latency of this bin, in microseconds."""
    return float(2 ** (bin / BINS_PER_DOUBLING))


def quantile(counts: Iterable[tuple[int, int]], share: float) -> float | None:
    """The latency, in microseconds, that this share of events do not exceed. `counts`: bin and number of events."""
    ordered = sorted(counts)
    rank = share * sum(count for _, count in ordered)
    for bin, count in ordered:
        rank -= count
        if rank <= 0:
            return middle_of(bin)
    return None


class Sums:
    """The sums of one batch. `series` remembers, beyond the batch, which combination of names has which number."""

    def __init__(self, series: dict[tuple[int, ...], int]) -> None:
        self._series = series
        self._usage: dict[tuple[int, tuple[int, ...]], list[float]] = {}
        self._verdicts: Counter[tuple[int, int, int]] = Counter()
        self._latencies: Counter[tuple[int, int, int]] = Counter()

    def add(
        self,
        minute: int,
        names: tuple[int, ...],
        measures: Sequence[float],
        latencies: Iterable[tuple[int, int | None]],
        verdicts: Iterable[tuple[int, int]],
    ) -> None:
        """One event: `minute` is the beginning of its minute in Unix seconds, `names` are in the order of `DIMENSIONS`,
        `measures` in that of `MEASURES`, `latencies` by kind, `verdicts` by policy."""
        found = self._usage.get((minute, names))
        if found is None:
            self._usage[minute, names] = list(measures)
        else:
            _sum_up(found, measures)
        for kind, microseconds in latencies:
            if microseconds is not None:
                self._latencies[minute, kind, bin_of(microseconds)] += 1
        for policy, verdict in verdicts:
            self._verdicts[minute, policy, verdict] += 1

    def write(self, connection: sqlite3.Connection, now: float) -> None:
        """Add them to the index; those that would be deleted at once (`KEPT_SECONDS`) are left out."""
        usage: dict[tuple[int, ...], list[float]] = {}
        totals: dict[tuple[int, ...], list[float]] = {}
        for (minute, names), measures in self._usage.items():
            series = self._number(connection, names)
            for level in _levels(minute, now):
                bucket = minute - minute % level
                _add(usage, (level, series, bucket), measures)
                _add(totals, (level, ALTOGETHER, bucket, 0), measures)
                for dimension, name in enumerate(names):
                    _add(totals, (level, dimension, bucket, name), measures)
        connection.executemany(_USAGE, [(*key, *measures) for key, measures in usage.items()])
        connection.executemany(_TOTALS, [(*key, *measures) for key, measures in totals.items()])
        connection.executemany(_VERDICTS, _at_all_levels(self._verdicts, now))
        connection.executemany(_LATENCIES, _at_all_levels(self._latencies, now))

    def _number(self, connection: sqlite3.Connection, names: tuple[int, ...]) -> int:
        number = self._series.get(names)
        if number is None:
            number = connection.execute(_SERIES, names).lastrowid
            assert number is not None
            self._series[names] = number
        return number


def _add(sums: dict[tuple[int, ...], list[float]], key: tuple[int, ...], measures: Sequence[float]) -> None:
    found = sums.get(key)
    if found is None:
        sums[key] = list(measures)
    else:
        _sum_up(found, measures)


def _sum_up(sums: list[float], measures: Sequence[float]) -> None:
    for place, measure in enumerate(measures):
        if measure:  # most are 0: half the time
            sums[place] += measure


def _levels(minute: int, now: float) -> list[Level]:
    return [level for level, seconds in KEPT_SECONDS.items() if minute >= now - seconds]


def _at_all_levels(counts: Counter[tuple[int, int, int]], now: float) -> list[tuple[int, int, int, int, int]]:
    summed: Counter[tuple[int, int, int, int]] = Counter()
    for (minute, one, other), count in counts.items():
        for level in _levels(minute, now):
            summed[int(level), minute - minute % level, one, other] += count
    return [(*key, count) for key, count in summed.items()]
