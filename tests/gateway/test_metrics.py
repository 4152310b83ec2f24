"""Metrics: counted by several processes, read as one, through prometheus_client's own parser."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from gateway import exposition
from gateway import metrics as m

ROOT = Path(m.__file__).parents[1]


def samples(folder: Path) -> dict[tuple[str, ...], float]:
    """Every sample of the exposition: name and label values in the order of label names, to value."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in parse_text(exposition.render(folder).decode())
        for sample in family.samples
    }


@pytest.fixture
def counting(tmp_path: Path) -> Iterator[m.Metrics]:
    metrics = m.Metrics(tmp_path, 0)
    yield metrics
    metrics.close()


# The table


def test_the_table_follows_prometheus_naming() -> None:
    names = [metric.name for metric in m.METRICS]
    assert len(set(names)) == len(names)
    for metric in m.METRICS:
        assert re.fullmatch(r"keeptrusts_(gateway|llm)_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind is m.Kind.COUNTER)
        assert metric.name.endswith("_seconds") == (metric.kind is m.Kind.HISTOGRAM)
        assert list(metric.buckets) == sorted(set(metric.buckets))
        assert bool(metric.buckets) == (metric.kind is m.Kind.HISTOGRAM)
        assert metric.merge is m.Merge.SUM or metric.kind is m.Kind.GAUGE
        assert metric.help.endswith(".")
        assert "le" not in metric.labels
        assert "worker" not in metric.labels


def test_a_full_process_fits_into_its_file() -> None:
    widest = max(metric.width for metric in m.METRICS)
    assert m.MAX_SERIES * widest + 8 <= m._CELLS


def test_the_documentation_lists_every_metric_and_no_other() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    rows = dict(re.findall(r"^\| `(keeptrusts_\w+)(?:\{([\w,]+)\})?` \|", page, re.MULTILINE))
    expected = {
        metric.name: ",".join((*metric.labels, "worker") if metric.merge is m.Merge.WORKER else metric.labels)
        for metric in m.METRICS
    }
    assert rows == expected


# One process


def test_counters_gauges_and_histograms_are_rendered(tmp_path: Path, counting: m.Metrics) -> None:
    counting.counter(m.REQUESTS, provider="openai", model="gpt-4o", status=200).inc()
    counting.counter(m.REQUESTS, provider="openai", model="gpt-4o", status=200).inc(2)
    gauge = counting.gauge(m.AUDIT_BACKLOG)
    gauge.set(7)
    gauge.inc()
    gauge.dec(3)
    duration = counting.histogram(m.REQUEST_DURATION, provider="openai")
    for value in (0.005, 0.0051, 299.0, 301.0):
        duration.observe(value)
    found = samples(tmp_path)
    assert found["keeptrusts_gateway_requests_total", "gpt-4o", "openai", "200"] == 3
    assert found["keeptrusts_gateway_audit_backlog_bytes",] == 5
    name = "keeptrusts_gateway_request_duration_seconds"
    assert found[f"{name}_bucket", "0.005", "openai"] == 1, "a bound belongs to its bucket"
    assert found[f"{name}_bucket", "0.01", "openai"] == 2
    assert found[f"{name}_bucket", "300.0", "openai"] == 3
    assert found[f"{name}_bucket", "+Inf", "openai"] == 4
    assert found[f"{name}_count", "openai"] == 4
    assert found[f"{name}_sum", "openai"] == pytest.approx(600.0101)


@given(values=st.lists(st.floats(0, 1000), max_size=50))
def test_a_histogram_counts_like_a_naive_one(tmp_path_factory: pytest.TempPathFactory, values: list[float]) -> None:
    folder = tmp_path_factory.mktemp("run")
    counting = m.Metrics(folder, 0)
    histogram = counting.histogram(m.LOOP_LAG)
    for value in values:
        histogram.observe(value)
    found = samples(folder)
    counting.close()
    for bound in m.LOOP_LAG.buckets:
        below = sum(value <= bound for value in values)
        assert found["keeptrusts_gateway_loop_lag_seconds_bucket", str(bound)] == below
    assert found["keeptrusts_gateway_loop_lag_seconds_count",] == len(values)


def test_handles_are_looked_up_by_the_labels_left_open(tmp_path: Path, counting: m.Metrics) -> None:
    by_status = counting.counters(m.REQUESTS, provider="openai", model="gpt-4o")
    by_status[200].inc()
    by_status[499].inc(2)
    assert by_status[200] is by_status[200]
    verdicts = counting.counters(m.POLICY_EVALUATIONS)
    verdicts["dlp-filter", "input", "block"].inc()
    counting.histograms(m.FIRST_BYTE)["openai"].observe(0.2)
    found = samples(tmp_path)
    assert found["keeptrusts_gateway_requests_total", "gpt-4o", "openai", "200"] == 1
    assert found["keeptrusts_gateway_requests_total", "gpt-4o", "openai", "499"] == 2
    assert found["keeptrusts_gateway_policy_evaluations_total", "input", "dlp-filter", "block"] == 1
    assert found["keeptrusts_gateway_time_to_first_byte_seconds_count", "openai"] == 1


def test_the_hot_path_may_write_cells_itself(counting: m.Metrics) -> None:
    counter = counting.counter(m.INTERNAL_ERRORS)
    counter.cells[counter.index] += 4
    assert counter.value == 4


def test_labels_may_hold_anything_a_configuration_may(tmp_path: Path, counting: m.Metrics) -> None:
    model = 'a "model"\\with\nall é'
    counting.counter(m.REQUESTS, provider="", model=model, status=200).inc()
    assert samples(tmp_path)["keeptrusts_gateway_requests_total", model, "", "200"] == 1


@pytest.mark.parametrize(
    "labels", [{}, {"provider": "p", "model": "m"}, {"provider": "p", "model": "m", "status": 1, "key": "k"}]
)
def test_labels_other_than_declared_are_a_mistake(counting: m.Metrics, labels: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="has the labels"):
        counting.counter(m.REQUESTS, **labels)


def test_a_kind_other_than_declared_is_a_mistake(counting: m.Metrics) -> None:
    with pytest.raises(ValueError, match="is a counter, not a gauge"):
        counting.gauge(m.INTERNAL_ERRORS)
    with pytest.raises(ValueError):
        counting.counters(m.POLICY_EVALUATIONS)["one", "too few"]


def test_what_says_its_message_in_a_label_vanishes_at_zero(tmp_path: Path, counting: m.Metrics) -> None:
    counting.gauge(m.CONFIGURATION_INFO, configuration="main", version="1.0.0").set(1)
    counting.clear(m.CONFIGURATION_INFO)
    counting.gauge(m.CONFIGURATION_INFO, configuration="main", version="1.0.1").set(1)
    found = [key for key in samples(tmp_path) if key[0] == m.CONFIGURATION_INFO.name]
    assert found == [(m.CONFIGURATION_INFO.name, "main", "1.0.1")]


# Bounds


def test_series_beyond_the_cap_share_one(tmp_path: Path, counting: m.Metrics) -> None:
    by_status = counting.counters(m.REQUESTS, provider="openai", model="gpt-4o")
    for number in range(m.MAX_SERIES + 50):
        by_status[number].inc()
    found = samples(tmp_path)
    requests = {key: value for key, value in found.items() if key[0] == m.REQUESTS.name}
    assert len(found) <= m.MAX_SERIES + 2
    assert sum(requests.values()) == m.MAX_SERIES + 50, "nothing goes uncounted"
    lost = requests[m.REQUESTS.name, m.OVERFLOW, m.OVERFLOW, m.OVERFLOW]
    assert lost == found[m.SERIES_OVERFLOW.name,] > 50
    counting.counter(m.INTERNAL_ERRORS).inc()
    assert samples(tmp_path)[m.INTERNAL_ERRORS.name,] == 1, "a metric without labels always has room"


def test_the_cap_holds_over_restarts(tmp_path: Path) -> None:
    for generation in range(3):
        counting = m.Metrics(tmp_path, 0)
        codes = counting.counters(m.ERRORS)
        for number in range(m.MAX_SERIES // 2):
            codes[f"{generation}-{number}"].inc()
        counting.close()
    assert sum(key[0] == m.ERRORS.name for key in samples(tmp_path)) < m.MAX_SERIES


def test_label_values_too_long_for_the_file_overflow(tmp_path: Path, counting: m.Metrics) -> None:
    codes = counting.counters(m.ERRORS)
    for number in range(20):
        codes[f"{number}" + "x" * 100_000].inc()
    counting.counter(m.INTERNAL_ERRORS).inc()
    found = samples(tmp_path)
    assert found[m.ERRORS.name, m.OVERFLOW] >= 9
    assert found[m.INTERNAL_ERRORS.name,] == 1


# Several processes


def test_files_are_merged_as_declared(tmp_path: Path) -> None:
    workers = [m.Metrics(tmp_path, number) for number in range(3)]
    control = m.Metrics(tmp_path, "control")
    for number, worker in enumerate(workers):
        worker.counter(m.ERRORS, code="overloaded").inc(number + 1)
        worker.histogram(m.LOOP_LAG).observe(0.002)
        worker.gauge(m.AUDIT_BACKLOG).set(10)
        worker.gauge(m.OPEN_CONNECTIONS).set(number)
        worker.gauge(m.LAST_RELOAD_SUCCESS).set(number != 1)
        worker.gauge(m.CONFIGURATION_INFO, configuration="main", version="1").set(1)
    control.counter(m.ERRORS, code="overloaded").inc(100)
    found = samples(tmp_path)
    assert found[m.ERRORS.name, "overloaded"] == 106
    assert found[f"{m.LOOP_LAG.name}_bucket", "0.0025"] == 3
    assert found[f"{m.LOOP_LAG.name}_sum",] == pytest.approx(0.006)
    assert found[m.AUDIT_BACKLOG.name,] == 30
    assert [found[m.OPEN_CONNECTIONS.name, str(number)] for number in range(3)] == [0, 1, 2]
    assert found[m.LAST_RELOAD_SUCCESS.name,] == 0
    assert found[m.CONFIGURATION_INFO.name, "main", "1"] == 1
    workers[1].gauge(m.LAST_RELOAD_SUCCESS).set(1)
    assert samples(tmp_path)[m.LAST_RELOAD_SUCCESS.name,] == 1, "a process that has no say has no vote"


def test_a_restart_goes_on_with_counters_and_forgets_gauges(tmp_path: Path) -> None:
    before = m.Metrics(tmp_path, 0)
    before.counter(m.REQUESTS, provider="p", model="m", status=200).inc(5)
    before.gauge(m.OPEN_CONNECTIONS).set(3)
    before.close()
    assert samples(tmp_path)[m.OPEN_CONNECTIONS.name, "0"] == 0
    after = m.Metrics(tmp_path, 0)
    after.counter(m.REQUESTS, provider="p", model="m", status=200).inc()
    assert samples(tmp_path)[m.REQUESTS.name, "m", "p", "200"] == 6


def test_a_new_version_of_the_table_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = m.Metrics(tmp_path, 0)
    old.counter(m.INTERNAL_ERRORS).inc()
    old.close()
    monkeypatch.setattr(m, "_FINGERPRINT", m._FINGERPRINT + 1)
    assert m.INTERNAL_ERRORS.name not in exposition.render(tmp_path).decode()
    new = m.Metrics(tmp_path, 0)
    assert new.counter(m.INTERNAL_ERRORS).value == 0


def test_discard_begins_a_new_run(tmp_path: Path, counting: m.Metrics) -> None:
    counting.counter(m.INTERNAL_ERRORS).inc()
    m.discard(tmp_path)
    assert samples(tmp_path) == {}


def test_openmetrics_is_negotiated(tmp_path: Path, counting: m.Metrics) -> None:
    counting.counter(m.ERRORS, code="overloaded").inc()
    counting.histogram(m.LOOP_LAG).observe(0.002)
    body, content_type = exposition.negotiate(tmp_path, "application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    families = {family.name: family for family in parse_openmetrics(body.decode())}
    assert families["keeptrusts_gateway_errors"].samples[0].value == 1
    body, content_type = exposition.negotiate(tmp_path, "")
    assert content_type.startswith("text/plain")
    assert body == exposition.render(tmp_path)


WORKER = """
import sys
from pathlib import Path
from gateway import metrics as m
folder, worker, rounds = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
metrics = m.Metrics(folder, worker)
counter = metrics.counter(m.REQUESTS, provider="p", model="m", status=200)
lag = metrics.histogram(m.LOOP_LAG)
metrics.gauge(m.OPEN_CONNECTIONS).set(9)
print("ready", flush=True)
sys.stdin.readline()
for number in range(rounds):
    counter.inc()
    lag.observe(0.002)
    if number % 100 == 0:
        metrics.counter(m.ERRORS, code=f"code-{number}").inc()
print("done", flush=True)
sys.stdin.readline()
"""


def spawn(folder: Path, worker: int, rounds: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(folder), str(worker), str(rounds)],
        cwd=ROOT,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_a_reader_beside_writers_sees_whole_numbers_that_only_grow(tmp_path: Path) -> None:
    processes = [spawn(tmp_path, number, 20_000) for number in range(2)]
    for process in processes:
        go_on(process)
    seen = [0.0]
    while seen[-1] < 40_000:
        seen.append(samples(tmp_path)[m.REQUESTS.name, "m", "p", "200"])
        assert seen[-1] >= seen[-2]
        assert seen[-1] == int(seen[-1])
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "done\n"
    found = samples(tmp_path)
    assert found[m.REQUESTS.name, "m", "p", "200"] == found[f"{m.LOOP_LAG.name}_count",] == 40_000
    assert sum(value for key, value in found.items() if key[0] == m.ERRORS.name) == 400
    for process in processes:
        go_on(process)
        assert process.wait() == 0
        process.communicate()


def test_namesakes_count_apart_and_are_told_together(tmp_path: Path) -> None:
    draining, new = m.Metrics(tmp_path, 0), m.Metrics(tmp_path, 0)
    for number, counting in enumerate((draining, new), 1):
        counting.counter(m.INTERNAL_ERRORS).inc(number)
        counting.gauge(m.OPEN_CONNECTIONS).set(number)
    found = samples(tmp_path)
    assert found[m.INTERNAL_ERRORS.name,] == 3
    assert found[m.OPEN_CONNECTIONS.name, "0"] == 3
    draining.close()
    assert samples(tmp_path)[m.OPEN_CONNECTIONS.name, "0"] == 2


def test_namesakes_have_an_end(tmp_path: Path) -> None:
    living = [m.Metrics(tmp_path, 0) for _ in range(m._MAX_NAMESAKES)]
    with pytest.raises(BlockingIOError):
        m.Metrics(tmp_path, 0)
    for metrics in living:
        metrics.close()


def test_what_a_killed_worker_counted_stays_and_its_place_is_free(tmp_path: Path) -> None:
    process = spawn(tmp_path, 0, 1000)
    go_on(process)
    assert process.stdout is not None
    assert process.stdout.readline() == "done\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.communicate()
    again = m.Metrics(tmp_path, 0)
    assert len(list(tmp_path.iterdir())) == 1
    found = samples(tmp_path)
    assert found[m.REQUESTS.name, "m", "p", "200"] == 1000
    assert found[m.OPEN_CONNECTIONS.name, "0"] == 0
    again.counter(m.REQUESTS, provider="p", model="m", status=200).inc()
    assert samples(tmp_path)[m.REQUESTS.name, "m", "p", "200"] == 1001
