"""Every metric, declared once, and counted in shared memory by each process; exposition.py adds the counts up.

Each process that counts has its own file `metrics-<name>.slots` in the run folder and is its only writer, so counting
takes no lock: 0.09 µs for a counter and 0.25 µs for a histogram, where prometheus_client in multiprocess mode takes
2.7 µs for the pair. A worker that dies and comes back goes on where the file stands, so counters never go backwards;
its gauges begin at zero.

Label values are the caller's duty: only names from the configuration, never a client's words. As a last defence a
process may hold at most `MAX_SERIES` series; what comes later is counted under the label value `_overflow`.

The table is documented in docs/metrics.md; a test compares the two.
"""

from __future__ import annotations

import enum
import threading
import zlib
from bisect import bisect_left
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from gateway.slots import Series, SeriesFile, read_series

MAX_SERIES = 4096
"""Series of one process; what comes later shares one overflow series per metric."""

OVERFLOW = "_overflow"
_MAX_NAMESAKES = 16
_CELLS = 1 << 17  # 1 MiB a process: 4,096 series of 18 cells (the widest histogram) and the overflow series
_TEXT_BYTES = 1 << 20  # 256 bytes of name and label values for each of 4,096 series
_SPARE_TEXT = 1 << 13  # kept free for the metrics without labels, so that they always find room


class Kind(enum.StrEnum):
    """Prometheus' own words."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Merge(enum.StrEnum):
    """What the values of several processes make together. Counters and histograms are always summed."""

    SUM = "sum"
    MAX = "max"
    MIN = "min"
    WORKER = "worker"
    """Nothing: each stands by itself, under a label `worker`."""


class Metric(msgspec.Struct, frozen=True):
    """One row of the table. `buckets` are upper bounds in seconds, `+Inf` not among them.

    `hide_zero` leaves a series out while it is zero: for metrics that carry their message in a label.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    merge: Merge = Merge.SUM
    hide_zero: bool = False

    @property
    def width(self) -> int:
        """Cells of one series: a histogram has one per bucket, one for `+Inf`, and its sum."""
        return len(self.buckets) + 2 if self.kind is Kind.HISTOGRAM else 1


# From a mock or cached answer to a long reasoning run.
_EXCHANGE_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
# From a policy that has little to say to an answer that takes its time.
_STAGE_BUCKETS = (
    *(0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0, 30.0),
    120.0,
)
# A loop that is late by more than a few milliseconds is late for every stream of the worker.
_LAG_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)

REQUESTS = Metric(
    "keeptrusts_gateway_requests_total",
    Kind.COUNTER,
    "Exchanges that ended, by the provider and model that answered and the status the client received "
    "(499: the client left). Both are empty where no target was chosen.",
    ("provider", "model", "status"),
)
REQUEST_DURATION = Metric(
    "keeptrusts_gateway_request_duration_seconds",
    Kind.HISTOGRAM,
    "From the request's first byte to the answer's last.",
    ("provider",),
    _EXCHANGE_BUCKETS,
)
FIRST_BYTE = Metric(
    "keeptrusts_gateway_time_to_first_byte_seconds",
    Kind.HISTOGRAM,
    "From the request's first byte to the answer's first byte of body.",
    ("provider",),
    _EXCHANGE_BUCKETS,
)
STAGE = Metric(
    "keeptrusts_gateway_stage_seconds",
    Kind.HISTOGRAM,
    "What each stage of an exchange took; the stages of one exchange sum to its duration. `upstream`, `stream` and "
    "`request` are waits for the provider and the client, all others are what the gateway adds.",
    ("stage",),
    _STAGE_BUCKETS,
)
POLICY_EVALUATIONS = Metric(
    "keeptrusts_gateway_policy_evaluations_total",
    Kind.COUNTER,
    "Verdicts of single policies, by phase (input, output) and verdict (allow, redact, block, escalate).",
    ("policy", "phase", "verdict"),
)
SHADOW_EVALUATIONS = Metric(
    "keeptrusts_gateway_shadow_evaluations_total",
    Kind.COUNTER,
    "Exchanges that a shadow configuration judged: what the live chain had said, and what the shadow said.",
    ("phase", "live", "shadow"),
)
SHADOW_DROPPED = Metric(
    "keeptrusts_gateway_shadow_dropped_total",
    Kind.COUNTER,
    "Exchanges of the sample that a shadow configuration did not judge, since there was no time.",
)
LLM_TOKENS = Metric(
    "keeptrusts_llm_tokens_total",
    Kind.COUNTER,
    "Tokens as the provider counted them, by direction (input, output).",
    ("model", "provider", "direction"),
)
LLM_COST = Metric(
    "keeptrusts_llm_cost_total",
    Kind.COUNTER,
    "What exchanges cost, in USD; those of models without a price are not in it.",
    ("model", "provider"),
)
ERRORS = Metric(
    "keeptrusts_gateway_errors_total",
    Kind.COUNTER,
    "Error answers by their stable code; a provider's own errors are counted under provider_error.",
    ("code",),
)
INTERNAL_ERRORS = Metric(
    "keeptrusts_gateway_internal_errors_total",
    Kind.COUNTER,
    "Bugs: exceptions that are not an error of the tree. Each is in the log with its request id.",
)
KEY_REJECTIONS = Metric(
    "keeptrusts_gateway_key_rejections_total",
    Kind.COUNTER,
    "Requests refused for their gateway key, by reason (missing, unknown, expired, revoked).",
    ("reason",),
)
REFUSALS_UNRECORDED = Metric(
    "keeptrusts_gateway_refusals_unrecorded_total",
    Kind.COUNTER,
    "Requests refused for their gateway key that came too fast to be written to the audit log one by one; it has their "
    "number.",
)
CREDENTIAL_FETCHES = Metric(
    "keeptrusts_gateway_credential_fetches_total",
    Kind.COUNTER,
    "Fetches of the gateway's own cloud credentials, by kind of source and outcome (ok, failed).",
    ("source", "outcome"),
)
OPEN_CONNECTIONS = Metric(
    "keeptrusts_gateway_open_connections",
    Kind.GAUGE,
    "Client connections that are open. By worker, since the kernel spreads connections, not requests.",
    merge=Merge.WORKER,
)
CONNECTIONS = Metric(
    "keeptrusts_gateway_connections_total",
    Kind.COUNTER,
    "Client connections accepted.",
)
OPEN_EXCHANGES = Metric(
    "keeptrusts_gateway_open_exchanges",
    Kind.GAUGE,
    "Exchanges between the request's first byte and the answer's last.",
    merge=Merge.WORKER,
)
UPSTREAM_CONNECTIONS = Metric(
    "keeptrusts_gateway_upstream_connections",
    Kind.GAUGE,
    "Connections to providers, by target and state (idle, active, connecting).",
    ("target", "state"),
)
UPSTREAM_RETRIES = Metric(
    "keeptrusts_gateway_upstream_retries_total",
    Kind.COUNTER,
    "Attempts that were given up before a byte had gone to the client, and tried again.",
    ("target",),
)
OPEN_WEBSOCKETS = Metric(
    "keeptrusts_gateway_open_websockets",
    Kind.GAUGE,
    "Clients' WebSockets that are open, by what is spoken on them (realtime, responses, chat).",
    ("kind",),
)
WEBSOCKET_MESSAGES = Metric(
    "keeptrusts_gateway_websocket_messages_total",
    Kind.COUNTER,
    "Messages over clients' WebSockets, by direction (in: from the client, out: to it).",
    ("kind", "direction"),
)
WEBSOCKET_BYTES = Metric(
    "keeptrusts_gateway_websocket_bytes_total",
    Kind.COUNTER,
    "Bytes of these messages, as the client has them: inflated, without frames.",
    ("kind", "direction"),
)
WEBSOCKET_DELAY = Metric(
    "keeptrusts_gateway_websocket_message_delay_seconds",
    Kind.HISTOGRAM,
    "What the gateway adds to a message: from its arrival until it is handed on, changed or refused.",
    ("kind", "direction"),
    _LAG_BUCKETS,
)
CONFIGURATION_INFO = Metric(
    "keeptrusts_gateway_configuration_info",
    Kind.GAUGE,
    "1 for each configuration in force.",
    ("configuration", "version"),
    merge=Merge.MAX,
    hide_zero=True,
)
RELOADS = Metric(
    "keeptrusts_gateway_configuration_reloads_total",
    Kind.COUNTER,
    "Reloads that took effect.",
)
RELOAD_FAILURES = Metric(
    "keeptrusts_gateway_configuration_reload_failures_total",
    Kind.COUNTER,
    "Reloads refused because a file was broken; the old configuration stayed in force.",
)
LAST_RELOAD_SUCCESS = Metric(
    "keeptrusts_gateway_configuration_last_reload_success",
    Kind.GAUGE,
    "1 when the last load or reload took effect everywhere, 0 when it was refused.",
    merge=Merge.MIN,
)
AUDIT_RECORDS = Metric(
    "keeptrusts_gateway_audit_records_total",
    Kind.COUNTER,
    "Audit records written.",
)
AUDIT_GAPS = Metric(
    "keeptrusts_gateway_audit_gaps_total",
    Kind.COUNTER,
    "Audit records known to be lost; the log says where. Anything but zero needs a person.",
)
AUDIT_BACKLOG = Metric(
    "keeptrusts_gateway_audit_backlog_bytes",
    Kind.GAUGE,
    "Audit records made and not yet written to the log; they wait in the journal.",
)
LOOP_LAG = Metric(
    "keeptrusts_gateway_loop_lag_seconds",
    Kind.HISTOGRAM,
    "How late the event loop ran its timer: what every stream of that worker waited.",
    buckets=_LAG_BUCKETS,
)
WORKERS = Metric("keeptrusts_gateway_workers", Kind.GAUGE, "Worker processes that are alive.")
WORKER_RESTARTS = Metric(
    "keeptrusts_gateway_worker_restarts_total",
    Kind.COUNTER,
    "Workers that died and were started again.",
)
LOG_LINES_DROPPED = Metric(
    "keeptrusts_gateway_log_lines_dropped_total",
    Kind.COUNTER,
    "Log lines thrown away because the log's reader was too slow.",
)
SERIES_OVERFLOW = Metric(
    "keeptrusts_gateway_metric_series_overflow_total",
    Kind.COUNTER,
    f"Label sets that got no series of their own because a process had {MAX_SERIES} already.",
)
BUILD_INFO = Metric(
    "keeptrusts_gateway_build_info",
    Kind.GAUGE,
    "1, with the version that runs.",
    ("version",),
    merge=Merge.MAX,
    hide_zero=True,
)

METRICS: tuple[Metric, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
"""The whole table, in the order of declaration."""

_LABELLED = tuple(metric for metric in METRICS if metric.labels)
_FINGERPRINT = zlib.crc32(repr((_CELLS, [(m.name, m.kind, m.labels, m.buckets) for m in METRICS])).encode()) or 1


class Counter:
    """A number that only grows. On the hottest path a caller may write `cells[index] += n` itself (0.05 µs)."""

    __slots__ = ("cells", "index")

    def __init__(self, cells: memoryview[float], index: int) -> None:
        self.cells = cells
        self.index = index

    def inc(self, amount: float = 1.0) -> None:
        """Add `amount`, not negative. 0.09 µs."""
        self.cells[self.index] += amount

    @property
    def value(self) -> float:
        """What this process has counted."""
        return self.cells[self.index]


class Gauge(Counter):
    """A number that goes both ways."""

    __slots__ = ()

    def dec(self, amount: float = 1.0) -> None:
        """Take `amount` away."""
        self.cells[self.index] -= amount

    def set(self, value: float) -> None:
        """Make it `value`."""
        self.cells[self.index] = value


class Histogram:
    """How often a value fell below each bound."""

    __slots__ = ("_sum", "bounds", "cells", "index")

    def __init__(self, cells: memoryview[float], index: int, bounds: tuple[float, ...]) -> None:
        self.cells = cells
        self.index = index
        self.bounds = bounds
        self._sum = index + len(bounds) + 1

    def observe(self, value: float) -> None:
        """Count one value, finite and not negative. 0.25 µs."""
        cells = self.cells
        # bisect_left: a value equal to a bound belongs below it (`le` is "less or equal").
        cells[self.index + bisect_left(self.bounds, value)] += 1.0
        cells[self._sum] += value


Handle = TypeVar("Handle", bound=Counter | Histogram)


class Handles(dict[object, Handle], Generic[Handle]):
    """The series of one metric by the labels left open; looked up once, then a dict access (0.03 µs).

    The key is the label's value, or a tuple of values when several labels are open, in the order of declaration.
    """

    def __init__(self, resolve: Callable[[object], Handle]) -> None:
        super().__init__()
        self._resolve = resolve

    def __missing__(self, key: object) -> Handle:
        handle = self[key] = self._resolve(key)
        return handle


class Metrics:
    """The series of this process. One per process; `worker` is its name: a worker's number, `supervisor`, `control`.

    Two processes may have one name for a while, as when an old worker still drains: each counts in a file of its own.
    Handles stay good until `close`. Asking twice for the same labels gives the same series.
    """

    def __init__(self, run_folder: Path, worker: int | str) -> None:
        """Raises OSError when no file can be made."""
        self._file = _open(run_folder, str(worker))
        self._adding = threading.Lock()
        for metric in _LABELLED:
            if _overflow_row(metric) not in self._file.rows:
                self._file.add(*_overflow_row(metric), metric.width)
        self._overflowed = self.counter(SERIES_OVERFLOW)
        self._zero_gauges()

    def counter(self, metric: Metric, **labels: object) -> Counter:
        """The counter with these labels, made on first use. Raises ValueError for labels the metric does not have."""
        return Counter(self._file.cells, self._index(metric, Kind.COUNTER, labels))

    def gauge(self, metric: Metric, **labels: object) -> Gauge:
        """The gauge with these labels, made on first use."""
        return Gauge(self._file.cells, self._index(metric, Kind.GAUGE, labels))

    def histogram(self, metric: Metric, **labels: object) -> Histogram:
        """The histogram with these labels, made on first use."""
        return Histogram(self._file.cells, self._index(metric, Kind.HISTOGRAM, labels), metric.buckets)

    def counters(self, metric: Metric, **fixed: object) -> Handles[Counter]:
        """The counters by the labels that `fixed` leaves open: `counters(REQUESTS, provider=…, model=…)[200]`."""
        open_labels = _open_labels(metric, fixed)
        return Handles(lambda key: self.counter(metric, **fixed, **_values(open_labels, key)))

    def gauges(self, metric: Metric, **fixed: object) -> Handles[Gauge]:
        """The gauges by the labels that `fixed` leaves open."""
        open_labels = _open_labels(metric, fixed)
        return Handles(lambda key: self.gauge(metric, **fixed, **_values(open_labels, key)))

    def histograms(self, metric: Metric, **fixed: object) -> Handles[Histogram]:
        """The histograms by the labels that `fixed` leaves open."""
        open_labels = _open_labels(metric, fixed)
        return Handles(lambda key: self.histogram(metric, **fixed, **_values(open_labels, key)))

    def clear(self, metric: Metric) -> None:
        """Set every series of a gauge to zero: before the current configurations are told anew, for instance."""
        for (name, _), first in list(self._file.rows.items()):
            if name == metric.name:
                self._file.cells[first] = 0.0

    def close(self) -> None:
        """End of the process: gauges go to zero, counters stay in the file. No handle may be used afterwards."""
        self._zero_gauges()
        self._file.close()

    def _index(self, metric: Metric, kind: Kind, labels: dict[str, object]) -> int:
        if metric.kind is not kind:
            raise ValueError(f"{metric.name} is a {metric.kind}, not a {kind}")
        if labels.keys() != set(metric.labels):
            raise ValueError(f"{metric.name} has the labels {metric.labels}, not {tuple(labels)}")
        return self._row(metric, tuple(str(labels[name]) for name in metric.labels))

    def _row(self, metric: Metric, values: tuple[str, ...]) -> int:
        index = self._file.rows.get((metric.name, values))
        return self._add(metric, values) if index is None else index

    def _add(self, metric: Metric, values: tuple[str, ...]) -> int:
        rows = self._file.rows
        # A worker compiles a new configuration in a thread, which makes that configuration's series.
        with self._adding:
            index = rows.get((metric.name, values))
            if index is None and not metric.labels:
                index = self._file.add(metric.name, values, metric.width)
            elif index is None and len(rows) < MAX_SERIES:
                index = self._file.add(metric.name, values, metric.width, spare=_SPARE_TEXT)
        if index is None:
            self._overflowed.inc()
            return rows[_overflow_row(metric)]
        return index

    def _zero_gauges(self) -> None:
        for metric in METRICS:
            if metric.kind is Kind.GAUGE:
                self.clear(metric)


def _overflow_row(metric: Metric) -> tuple[str, tuple[str, ...]]:
    return metric.name, (OVERFLOW,) * len(metric.labels)


def _open_labels(metric: Metric, fixed: dict[str, object]) -> tuple[str, ...]:
    return tuple(name for name in metric.labels if name not in fixed)


def _values(names: tuple[str, ...], key: object) -> dict[str, object]:
    values = key if isinstance(key, tuple) else (key,)
    return dict(zip(names, values, strict=True))


def _open(run_folder: Path, worker: str) -> SeriesFile:
    """The first file of this name that no live process writes."""
    for again in range(_MAX_NAMESAKES):
        path = run_folder / f"metrics-{worker}{f'~{again}' if again else ''}.slots"
        try:
            return SeriesFile(path, _FINGERPRINT, cells=_CELLS, text_bytes=_TEXT_BYTES)
        except BlockingIOError:
            continue
    raise BlockingIOError(f"{_MAX_NAMESAKES} processes count as {worker!r} in {run_folder}")


def discard(run_folder: Path) -> None:
    """Remove what an earlier run counted. For the supervisor, before it starts anybody."""
    for path in run_folder.glob("metrics-*.slots"):
        path.unlink(missing_ok=True)


def read(path: Path) -> list[Series]:
    """Every series of one process' file, while that process goes on. Raises FileNotFoundError."""
    return read_series(path, _FINGERPRINT, cells=_CELLS)
