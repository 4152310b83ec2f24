"""Each record counts once, whatever happens between two looks at the log."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from gateway.audit.record import GapReason, Outcome, gap_record
from gateway.control.events import ingest
from gateway.control.events.ingest import Indexer, Locked
from gateway.control.events.query import EVERYTHING, EventFilter
from gateway.control.events.retention import retire
from gateway.control.events.schema import KEPT_SECONDS, Level
from tests.gateway.control.events.conftest import CATALOGUE, Index
from tests.gateway.control.events.log import BLOCKED, MASKED, NOON, SECOND, Log, begun, ended


def ids(index: Index, wanted: EventFilter = EVERYTHING) -> list[str]:
    with index.asked() as query:
        return [event["request_id"] for event in query.page(wanted, 100)[0]]


def requests(index: Index) -> int:
    with index.asked() as query:
        return sum(row["requests"] for row in query.totals(NOON - 86_400, NOON + 86_400, Level.DAY))


def test_an_event_says_what_its_two_records_say(index: Index, log: Log) -> None:
    log.exchange("req_1", client_id="mine", decisions=(MASKED,), notes=("dropped `seed`",))
    with index.asked() as query:
        (event,), more = query.page(EVERYTHING, 10)
    assert more is None
    assert event == {
        "id": str((NOON + 1) * SECOND << 10 | int(event["id"]) & 1023),
        "request_id": "req_1",
        "at": NOON + 1.0,
        "started_at": float(NOON),
        "key": "gk_1",
        "team": "research",
        "model": "gpt-test",
        "target": "one",
        "provider": "openai",
        "configuration": "test",
        "operation": "chat",
        "code": None,
        "policy": "pii-detector",
        "status": 200,
        "outcome": "completed",
        "verdict": "redact",
        "duration_us": 900_000,
        "first_byte_us": 300_000,
        "added_us": 400,
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "cached_tokens": 0,
        "reasoning_tokens": 0,
        "cost_usd": None,
        "attempts": 1,
        "notes": 1,
    }


def test_an_event_is_there_when_its_exchange_has_ended(index: Index, log: Log) -> None:
    log.write(begun("req_1"))
    assert ids(index) == []
    log.write(ended("req_1"))
    assert ids(index) == ["req_1"]


def test_what_has_begun_is_remembered_by_the_next_process(index: Index, log: Log) -> None:
    log.write(begun("req_1", key="gk_7"), begun("req_2"))
    assert index.catch_up() == []
    index.reopen()
    log.write(ended("req_1"), ended("req_2"))
    assert ids(index, EventFilter(key="gk_7")) == ["req_1"]
    index.reopen()
    assert index.indexer.begun == {}
    assert requests(index) == 2


def test_an_exchange_may_end_in_another_segment(index: Index, log: Log) -> None:
    log.write(begun("req_1"))
    log.chain.seal(NOON)
    log.write(ended("req_1"))
    with index.asked() as query:
        (event,), _ = query.page(EVERYTHING, 10)
        start, finish = query.places(int(event["id"]))
    assert start is not None
    assert finish is not None
    assert start[0] != finish[0]


def test_a_finish_without_its_start_is_an_event_too(index: Index, log: Log) -> None:
    log.write(ended("req_1"))
    with index.asked() as query:
        (event,), _ = query.page(EVERYTHING, 10)
    assert (event["key"], event["started_at"], event["outcome"]) == (None, None, "completed")


def test_half_a_line_waits_for_its_other_half(index: Index, log: Log) -> None:
    log.exchange("req_1")
    (path,) = log.folder.glob("*-000001.jsonl")
    whole = path.read_bytes()
    for length in (len(whole) - 1, len(whole) - 200, len(whole) - 700):
        path.write_bytes(whole[:length])
        assert index.catch_up() == []
    path.write_bytes(whole)
    assert ids(index) == ["req_1"]


def test_a_line_that_is_none_is_passed_over(index: Index, log: Log) -> None:
    log.exchange("req_1")
    (path,) = log.folder.glob("*-000001.jsonl")
    path.write_bytes(path.read_bytes() + b"\xff{ruined\n")
    log.exchange("req_2", 5)
    assert ids(index) == ["req_2", "req_1"]


def test_a_batch_may_end_anywhere(index: Index, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "BATCH_BYTES", 700)  # less than the header's line and the first record
    for number in range(20):
        log.exchange(f"req_{number}", number)
    assert sorted(ids(index)) == sorted(f"req_{number}" for number in range(20))
    assert requests(index) == 20


def test_nothing_counts_twice_when_a_step_fails(index: Index, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    log.write(begun("req_1"))
    index.catch_up()
    log.write(ended("req_1"), begun("req_2"), ended("req_2", 2))

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("gateway.control.events.sums.Sums.write", full)
        with pytest.raises(sqlite3.OperationalError):
            index.indexer.step(CATALOGUE, index.now)
    assert requests(index) == 2
    assert ids(index, EventFilter(key="gk_1")) == ["req_2", "req_1"]


def test_events_of_one_microsecond_have_different_numbers(index: Index, log: Log) -> None:
    log.write(*(record for number in range(300) for record in (begun(f"r{number}"), ended(f"r{number}"))))
    assert len(set(index.catch_up())) == 300
    assert requests(index) == 300


def test_the_index_made_anew_says_the_same(index: Index, log: Log) -> None:
    for number in range(30):
        log.exchange(f"req_{number}", number, **(BLOCKED if number % 7 == 0 else {}))
    with index.asked() as query:
        before = query.page(EVERYTHING, 100), query.totals(NOON, NOON + 60, Level.MINUTE, by="status")
    index.indexer.rebuild()
    with index.asked() as query:
        assert (query.page(EVERYTHING, 100), query.totals(NOON, NOON + 60, Level.MINUTE, by="status")) == before


def test_a_file_that_is_no_index_is_made_anew(index: Index, log: Log) -> None:
    log.exchange("req_1")
    index.catch_up()
    index.indexer.close()
    index.path.write_bytes(b"this is no database, nor was it ever one" * 100)
    index.reopen()
    assert ids(index) == ["req_1"]


def test_a_model_that_nobody_configured_is_shown_and_makes_no_name(index: Index, log: Log) -> None:
    log.exchange("req_1", model="no-such-model", **(BLOCKED | {"code": "model_not_found", "status": 404}))
    with index.asked() as query:
        (event,), _ = query.page(EVERYTHING, 10)
        assert event["model"] == "no-such-model"
        assert query.names()["model"] == []


def test_gaps_are_told(index: Index, log: Log) -> None:
    log.write(gap_record(NOON * SECOND, GapReason.JOURNAL_FULL, 7))
    with index.asked() as query:
        assert query.gaps() == [{"at": float(NOON), "reason": "journal_full", "records": 7}]


def test_there_is_one_indexer_at_a_time(index: Index) -> None:
    with pytest.raises(Locked):
        Indexer(index.audit, index.path)


def test_no_log_yet_is_no_error(tmp_path: Path) -> None:
    one = Index(tmp_path / "new")
    assert one.catch_up() == []
    one.indexer.close()


def test_too_many_open_exchanges_lose_their_beginning(index: Index, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "MAX_OPEN", 2)
    log.write(begun("req_1"), begun("req_2"), begun("req_3"))
    index.catch_up()
    index.reopen()
    assert [id for _, id in index.indexer.begun] == ["req_2", "req_3"]


def test_the_oldest_events_go_when_there_are_too_many(index: Index, log: Log) -> None:
    for number in range(10):
        log.exchange(f"req_{number}", number, client_id=f"own_{number}")
    index.catch_up()
    assert not retire(index.indexer.connection, log.folder, index.now, kept=3)
    assert ids(index) == ["req_9", "req_8", "req_7"]
    assert index.indexer.connection.execute("SELECT count(*) FROM client_ids").fetchone() == (3,)


def test_events_go_with_their_segments(index: Index, log: Log) -> None:
    log.exchange("req_1")
    log.write(*(begun("req_2", 86_400), ended("req_2", 86_401)), at=86_400)
    index.catch_up()
    next(log.folder.glob("2025-06-16-*")).unlink()
    retire(index.indexer.connection, log.folder, index.now + 86_400)
    assert ids(index) == ["req_2"]


def test_sums_go_when_they_are_old(index: Index, log: Log) -> None:
    log.exchange("req_1", outcome=Outcome.FAILED, status=502)
    index.catch_up()
    levels = "SELECT DISTINCT level FROM usage ORDER BY level"
    assert index.indexer.connection.execute(levels).fetchall() == [(60,), (3600,), (86_400,)]
    retire(index.indexer.connection, log.folder, NOON + KEPT_SECONDS[Level.MINUTE] + 120)
    assert index.indexer.connection.execute(levels).fetchall() == [(3600,), (86_400,)]
