"""The counts of all processes as one page for Prometheus.

It reads the files that `gateway.metrics` describes, anew for each scrape, and writes nothing. It is a module
apart, since those who count need not load prometheus_client (50 ms).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from gateway.metrics import METRICS, OVERFLOW, Kind, Merge, Metric, read

_BY_NAME = {metric.name: metric for metric in METRICS}


class SlotCollector(Collector):
    """prometheus_client's view of a run folder. Reads the files anew for each scrape; writes nothing."""

    def __init__(self, run_folder: Path) -> None:
        self._run_folder = run_folder

    def collect(self) -> Iterator[Family]:
        """One family for each metric that any process has touched, in the order of the table."""
        merged = _merge(self._run_folder)
        for metric in METRICS:
            series = merged.get(metric.name)
            if series:
                yield _family(metric, series)


def render(run_folder: Path) -> bytes:
    """The exposition of all processes in Prometheus' text format 0.0.4 (`text/plain; version=0.0.4`)."""
    return generate_latest(_registry(run_folder))


def negotiate(run_folder: Path, accept: str) -> tuple[bytes, str]:
    """The exposition in the format that a request's Accept header asks for, and its content type."""
    encoder, content_type = choose_encoder(accept)
    return encoder(_registry(run_folder)), content_type


def _registry(run_folder: Path) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(SlotCollector(run_folder))
    return registry


_Merged = dict[str, dict[tuple[str, ...], list[float]]]


def _merge(run_folder: Path) -> _Merged:
    merged: _Merged = {}
    for path in sorted(run_folder.glob("metrics-*.slots")):
        worker = path.stem.removeprefix("metrics-").partition("~")[0]
        try:
            rows = read(path)
        except FileNotFoundError:  # begun anew between the listing and here
            continue
        for name, labels, values in rows:
            metric = _BY_NAME[name]
            if not any(values) and (metric.hide_zero or OVERFLOW in labels):
                continue
            if metric.merge is Merge.WORKER:
                labels = (*labels, worker)
            series = merged.setdefault(name, {})
            found = series.get(labels)
            series[labels] = values if found is None else _combine(metric.merge, found, values)
    return merged


def _combine(merge: Merge, left: list[float], right: list[float]) -> list[float]:
    if merge is Merge.MAX:
        return [max(pair) for pair in zip(left, right, strict=True)]
    if merge is Merge.MIN:
        return [min(pair) for pair in zip(left, right, strict=True)]
    return [sum(pair) for pair in zip(left, right, strict=True)]


def _family(metric: Metric, series: dict[tuple[str, ...], list[float]]) -> Family:
    labels = (*metric.labels, "worker") if metric.merge is Merge.WORKER else metric.labels
    if metric.kind is Kind.HISTOGRAM:
        histogram = HistogramMetricFamily(metric.name, metric.help, labels=labels)
        for values, cells in sorted(series.items()):
            histogram.add_metric(values, list(_cumulative(metric.buckets, cells)), cells[-1])
        return histogram
    kind = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
    family = kind(metric.name, metric.help, labels=labels)
    for values, cells in sorted(series.items()):
        family.add_metric(values, cells[0])
    return family


def _cumulative(bounds: Iterable[float], cells: list[float]) -> Iterator[tuple[str, float]]:
    total = 0.0
    for bound, count in zip((*bounds, float("inf")), cells[:-1], strict=True):
        total += count
        yield floatToGoString(bound), total  # type: ignore[no-untyped-call]
