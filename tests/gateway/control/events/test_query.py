"""Pages, filters, sums and latencies."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.audit.record import Outcome
from gateway.control.events import detail
from gateway.control.events.query import EVERYTHING, EventFilter, level_for
from gateway.control.events.schema import Level
from gateway.control.events.sums import bin_of, middle_of, quantile
from gateway.types import Usage
from tests.gateway.control.events.conftest import Index
from tests.gateway.control.events.log import BLOCKED, MASKED, NOON, REFUSED, Log

FAILED: dict[str, Any] = {
    "outcome": Outcome.FAILED, "status": 502, "code": "upstream_reset", "target": "two", "usage": None,
}  # fmt: skip


@pytest.fixture
def filled(index: Index, log: Log) -> Index:
    """Twelve events, a minute apart: two keys, an answer that failed, one that was refused, one redacted."""
    for number in range(12):
        fields: dict[str, Any] = {"key": f"gk_{number % 2}", "team": "sales" if number % 2 else "research"}
        fields |= {3: FAILED, 5: BLOCKED, 6: {"decisions": (MASKED,)}}.get(number, {})
        log.exchange(f"req_{number}", 60 * number, client_id="own" if number > 9 else None, **fields)
    index.now += 720
    return index


def numbers(index: Index, **wanted: Any) -> list[int]:
    with index.asked() as query:
        return [int(event["request_id"].removeprefix("req_")) for event in query.page(EventFilter(**wanted), 100)[0]]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, [11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]),
        ({"key": "gk_1"}, [11, 9, 7, 5, 3, 1]),
        ({"key": "nobody"}, []),
        ({"team": "sales", "outcome": "completed"}, [11, 9, 7, 1]),
        ({"status": "502"}, [3]),
        ({"status": "5xx"}, [3]),
        ({"status": "4xx", "key": "gk_0"}, []),
        ({"code": "input_blocked"}, [5]),
        ({"verdict": "block"}, [5]),
        ({"verdict": "redact", "key": "gk_0"}, [6]),
        ({"verdict": "allow", "provider": "anthropic"}, [3]),
        ({"policy": "prompt-injection"}, [5]),
        ({"outcome": "failed", "model": "gpt-test"}, [3]),
        ({"since": NOON + 500.0}, [11, 10, 9]),
        ({"until": NOON + 61.0}, [0]),
        ({"since": NOON + 61.0, "until": NOON + 62.0}, [1]),
        ({"request": "req_4"}, [4]),
        ({"request": "own"}, [11, 10]),
        ({"request": "own", "keys": frozenset({"gk_1"})}, [11]),
        ({"keys": frozenset({"gk_1"})}, [11, 9, 7, 5, 3, 1]),
        ({"keys": frozenset({"gk_1"}), "key": "gk_0"}, []),
        ({"keys": frozenset()}, []),
        ({"configuration": "test", "operation": "chat", "target": "two"}, [3]),
    ],
)
def test_filters(filled: Index, wanted: dict[str, Any], found: list[int]) -> None:
    assert numbers(filled, **wanted) == found


def test_pages_follow_each_other(filled: Index) -> None:
    seen, before = [], None
    with filled.asked() as query:
        while True:
            events, before = query.page(EventFilter(team="research"), 4, before)
            seen.append([event["request_id"] for event in events])
            if before is None:
                break
    assert seen == [["req_10", "req_8", "req_6", "req_4"], ["req_2", "req_0"]]


def test_sums_by_name(filled: Index) -> None:
    with filled.asked() as query:
        rows = query.totals(NOON, NOON + 3600, Level.HOUR, by="provider")
    told = [(row["name"], row["requests"], row["failed"], row["refused"], row["prompt_tokens"]) for row in rows]
    assert told == [("openai", 10, 0, 0, 100), ("", 1, 0, 1, 0), ("anthropic", 1, 1, 0, 0)]


def test_sums_over_time_add_up_to_the_sum(filled: Index) -> None:
    with filled.asked() as query:
        for by in (None, "key", "team", "model", "status"):
            for step in Level:
                rows = query.usage(NOON, NOON + 3600, step, by=by)
                assert sum(row["requests"] for row in rows) == 12
                assert sum(row["blocked"] for row in rows) == 1
                assert all(row["at"] % step == 0 for row in rows)


def test_sums_of_what_one_may_see(filled: Index) -> None:
    with filled.asked() as query:
        one = query.totals(NOON, NOON + 3600, Level.HOUR, wanted=EventFilter(keys=frozenset({"gk_1"})))
        both = query.totals(NOON, NOON + 3600, Level.HOUR, wanted=EventFilter(key="gk_1", provider="anthropic"))
        none = query.totals(NOON, NOON + 3600, Level.HOUR, wanted=EventFilter(keys=frozenset()))
    assert [row["requests"] for row in (*one, *both)] == [6, 1]
    assert none == []


def test_verdicts_by_policy(filled: Index) -> None:
    with filled.asked() as query:
        assert query.verdicts(NOON, NOON + 3600, Level.HOUR) == [
            {"policy": "pii-detector", "allow": 11, "redact": 1, "escalate": 0, "block": 0},
            {"policy": "prompt-injection", "allow": 0, "redact": 0, "escalate": 0, "block": 1},
        ]


def test_latencies(filled: Index) -> None:
    with filled.asked() as query:
        added = query.latencies(NOON, NOON + 3600, Level.HOUR)["added"]
        nothing = query.latencies(NOON - 7200, NOON - 3600, Level.HOUR)["added"]
    assert added["p50_ms"] == pytest.approx(0.4, rel=0.05)
    assert nothing == {"p50_ms": None, "p95_ms": None, "p99_ms": None}


@pytest.mark.parametrize("microseconds", [1, 7, 400, 12_345, 9_000_000])
def test_a_bin_is_near_what_it_stands_for(microseconds: int) -> None:
    assert middle_of(bin_of(microseconds)) == pytest.approx(microseconds, rel=0.05)


def test_quantiles_count_from_below() -> None:
    counts = [(8, 98), (80, 1), (40, 1)]
    assert [quantile(counts, share) for share in (0.5, 0.98, 0.99, 1.0)] == [2.0, 2.0, 32.0, 1024.0]
    assert quantile([], 0.5) is None


def test_names_to_filter_by(filled: Index) -> None:
    with filled.asked() as query:
        names = query.names()
    assert names["team"] == [
        {"name": "research", "events": 6, "last_at": NOON + 601.0},
        {"name": "sales", "events": 6, "last_at": NOON + 661.0},
    ]
    assert [row["name"] for row in names["target"]] == ["one", "two"]


def test_an_event_in_full_comes_from_the_log(index: Index, log: Log) -> None:
    log.exchange("req_1", client_id="own", decisions=(MASKED,), answers=(REFUSED,), notes=("dropped `seed`",))
    with index.asked() as query:
        for id in ("req_1", "own", query.page(EVERYTHING, 1)[0][0]["id"]):
            event = detail.show(query, log.folder, id)
            assert event is not None
            assert [one["policy"] for one in event["decisions"]] == ["pii-detector", "prompt-injection"]
            assert event["notes"] == ["dropped `seed`"]
            assert event["attributes"] == {"client_request_id": "own"}
            assert [(line["sequence"], line["record"]["kind"]) for line in event["records"]] == [
                (1, "start"),
                (2, "finish"),
            ]
        assert detail.show(query, log.folder, "nobody") is None


def test_what_retention_took_from_the_log_is_left_out(index: Index, log: Log) -> None:
    log.exchange("req_1", usage=Usage(prompt=3))
    with index.asked() as query:
        next(log.folder.glob("*-000001.jsonl")).unlink()
        event = detail.show(query, log.folder, "req_1")
    assert event is not None
    assert (event["records"], event["decisions"], event["prompt_tokens"]) == ([], [], 3)


@pytest.mark.parametrize(
    ("hours", "age_hours", "level"),
    [(1, 1, Level.MINUTE), (6, 6, Level.MINUTE), (24, 24, Level.HOUR), (1, 100, Level.HOUR), (24 * 30, 720, Level.DAY)],
)
def test_the_finest_sums_that_are_kept(hours: float, age_hours: float, level: Level) -> None:
    since = NOON - age_hours * 3600
    assert level_for(since, since + hours * 3600, NOON) is level
