"""The soak's judgement: what it must find, and what it must let pass. No clock, no process."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from loadtest.soak import Lost, check_stream
from loadtest.steady import Counts, ProcessSample, Sample, judge, quantile, sample_of

MB = 1 << 20
GOOD = Counts(sent=100, answered=100, streams=40, events=1600, left=10)
LAG = {"0.001": 900.0, "0.005": 995.0, "0.01": 1000.0, "+Inf": 1000.0}


def samples(
    rss: Callable[[int], float] = lambda at: 60 * MB,
    descriptors: Callable[[int], float] = lambda at: 40,
    lag: dict[str, float] = LAG,
    counters: dict[str, float] | None = None,
) -> list[Sample]:
    """A hundred samples of one worker, and a last one."""
    empty = dict.fromkeys(lag, 0.0)
    return [
        Sample(
            at,
            [ProcessSample(7, "worker", int(rss(at)), int(descriptors(at)))],
            lag if at == 100 else empty,
            counters or {},
        )
        for at in range(101)
    ]


def broken(found: list[Sample], counts: Counts = GOOD, *, recorded: int = 100, whole: bool = True) -> list[str]:
    return [verdict.what for verdict in judge(found, counts, recorded=recorded, whole=whole) if not verdict.held]


def test_what_is_steady_passes() -> None:
    assert broken(samples()) == []


def test_warm_up_is_no_growth() -> None:
    assert broken(samples(rss=lambda at: (30 if at < 20 else 60) * MB)) == []


def test_memory_that_grows_is_found() -> None:
    assert broken(samples(rss=lambda at: (60 + at / 10) * MB)) == ["memory of worker 7"]


def test_a_single_peak_is_no_growth() -> None:
    assert broken(samples(rss=lambda at: (500 if at == 95 else 60) * MB)) == []


def test_descriptors_that_leak_are_found() -> None:
    assert broken(samples(descriptors=lambda at: 40 + at / 4)) == ["descriptors of worker 7"]
    assert broken(samples(descriptors=lambda at: 40 + at % 5)) == []


def test_a_late_loop_is_found() -> None:
    late = {"0.001": 900.0, "0.005": 980.0, "0.01": 1000.0, "+Inf": 1000.0}
    assert broken(samples(lag=late)) == ["loop lag, p99"]


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"lost": 1}, "events lost"),
        ({"wrong": 1}, "wrong answers"),
        ({"unanswered": 1}, "no answer"),
        ({"events": 0}, "something was measured"),
    ],
)
def test_what_users_saw_counts(changed: dict[str, int], what: str) -> None:
    assert broken(samples(), Counts(**{**vars(GOOD), **changed})) == [what]


def test_the_audit_log_must_have_every_request_and_be_whole() -> None:
    assert broken(samples(), recorded=99, whole=False) == ["requests in the audit log", "kt audit verify"]


@pytest.mark.parametrize("what", ["internal errors", "audit records lost", "worker restarts"])
def test_what_must_stay_zero(what: str) -> None:
    assert broken(samples(counters={what: 1.0})) == [what]


def test_a_page_of_metrics_is_read() -> None:
    page = (
        b"HTTP/1.1 200 OK\r\n\r\n# HELP x\n"
        b'keeptrusts_gateway_loop_lag_seconds_bucket{le="0.001"} 5.0\n'
        b'keeptrusts_gateway_loop_lag_seconds_bucket{le="+Inf"} 6.0\n'
        b"keeptrusts_gateway_internal_errors_total 2.0\n"
        b"keeptrusts_gateway_worker_restarts_total 1.0\n"
    )
    found = sample_of(1.0, [], page)
    assert found.lag == {"0.001": 5.0, "+Inf": 6.0}
    assert found.counters == {"internal errors": 2.0, "audit records lost": 0.0, "worker restarts": 1.0}


@pytest.mark.parametrize(
    ("buckets", "value"),
    [
        ({"0.001": 50.0, "0.002": 100.0, "+Inf": 100.0}, 0.00198),
        ({"0.001": 100.0, "+Inf": 100.0}, 0.00099),
        ({"0.001": 10.0, "+Inf": 100.0}, math.inf),
        ({}, math.inf),
        ({"0.001": 0.0, "+Inf": 0.0}, math.inf),
    ],
)
def test_a_quantile_is_prometheus_own(buckets: dict[str, float], value: float) -> None:
    assert quantile(buckets, 0.99) == pytest.approx(value)


EVENT = b'data: {"choices":[{"delta":{"content":" 123"}}]}\n\n'
DONE = b"data: [DONE]\n\n"


def test_streams_are_counted() -> None:
    assert check_stream(200, EVENT * 3 + DONE, 3) == "complete"
    assert check_stream(503, b"", 3) == "failed"
    assert check_stream(200, EVENT + b'data: {"error":{"code":"upstream_reset"}}\n\n', 3) == "failed"


@pytest.mark.parametrize("text", [EVENT * 2 + DONE, EVENT * 4 + DONE, EVENT * 2, b""])
def test_an_event_too_few_or_too_many_or_no_word_at_the_end_is_a_loss(text: bytes) -> None:
    with pytest.raises(Lost):
        check_stream(200, text, 3)
