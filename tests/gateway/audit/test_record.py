from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.audit.record import (
    Change,
    Finish,
    Gap,
    GapReason,
    InFlight,
    Outcome,
    Start,
    finish_record,
    gap_record,
    start_record,
)
from gateway.types import Decision, Phase, Usage, Verdict

DOCS = Path(__file__).parents[3] / "docs" / "audit-log.md"
BLOCK = Decision("dlp-filter", Phase.INPUT, Verdict.BLOCK, "dlp-filter.term", "project names", 12)


def test_a_start_says_who_asked_for_what_and_what_policies_said() -> None:
    record = start_record(
        "req_1", 5, "key_1", "core", "my-config", "v1", "chat", "gpt-4o", "203.0.113.7", (BLOCK,), {"client": "x"}
    )
    assert json.loads(record) == {
        "kind": "start",
        "id": "req_1",
        "at": 5,
        "key": "key_1",
        "team": "core",
        "configuration": "my-config",
        "policy_version": "v1",
        "operation": "chat",
        "model": "gpt-4o",
        "client": "203.0.113.7",
        "decisions": [
            {
                "policy": "dlp-filter",
                "phase": "input",
                "verdict": "block",
                "reason": "dlp-filter.term",
                "detail": "project names",
                "microseconds": 12,
            }
        ],
        "attributes": {"client": "x"},
    }


def test_a_start_without_attributes_does_not_mention_them() -> None:
    record = json.loads(start_record("r", 5, None, None, "c", "v", "chat", "m", "::1"))
    assert record["key"] is None
    assert "attributes" not in record


def test_a_finish_says_how_it_ended() -> None:
    record = finish_record(
        "req_1",
        9,
        Outcome.TRUNCATED,
        status=200,
        code="upstream_reset",
        target="openai-gpt4o",
        attempts=2,
        usage=Usage(prompt=10, completion=20, cached=3, reasoning=4),
        bytes_sent=1234,
        duration_us=4,
        first_byte_us=2,
        notes=("dropped `logit_bias`",),
        sent_us=1,
        cost_nanousd=123_456_789,
    )
    assert json.loads(record) == {
        "kind": "finish",
        "id": "req_1",
        "at": 9,
        "outcome": "truncated",
        "status": 200,
        "code": "upstream_reset",
        "target": "openai-gpt4o",
        "attempts": 2,
        "prompt_tokens": 10,
        "completion_tokens": 20,
        "cached_tokens": 3,
        "reasoning_tokens": 4,
        "bytes_sent": 1234,
        "duration_us": 4,
        "first_byte_us": 2,
        "decisions": [],
        "notes": ["dropped `logit_bias`"],
        "sent_us": 1,
        "cost_nanousd": 123_456_789,
    }


def test_a_gap_may_not_know_its_size() -> None:
    assert json.loads(gap_record(3, GapReason.JOURNAL_DAMAGED, None)) == {
        "kind": "gap",
        "at": 3,
        "reason": "journal_damaged",
        "records": None,
    }


@pytest.mark.parametrize("struct", [Start, Finish, Gap, Change])
def test_every_field_is_documented(struct: type[msgspec.Struct]) -> None:
    text = DOCS.read_text(encoding="utf-8")
    assert [field for field in struct.__struct_fields__ if f"| `{field}` |" not in text] == []


@pytest.mark.parametrize("value", [*Outcome, *GapReason])
def test_every_outcome_and_reason_is_documented(value: str) -> None:
    assert f"`{value}`" in DOCS.read_text(encoding="utf-8")


# Surrogates cannot occur: ids are made here or decoded from bytes.
texts = st.text(st.characters(exclude_categories=["Cs"]))


@given(texts, texts)
def test_a_record_is_one_line(id: str, model: str) -> None:
    assert b"\n" not in start_record(id, 1, None, None, "c", "v", "chat", model, "::1")


@given(st.lists(st.tuples(texts | st.sampled_from(["a", 'b","at":1', '"', "\\"]), st.booleans())))
def test_in_flight_keeps_count_whatever_the_ids_are(steps: list[tuple[str, bool]]) -> None:
    in_flight, expected = InFlight(), list[str]()
    for id, begins in steps:
        if begins:
            in_flight.note(start_record(id, 1, None, None, "c", "v", "chat", "m", "::1"))
            expected.append(id)
        else:
            in_flight.note(finish_record(id, 2, Outcome.COMPLETED))
            if id in expected:
                expected.remove(id)
    assert sorted(in_flight.ids()) == sorted(expected)
    assert len(in_flight) == len(expected)
    assert InFlight(in_flight.ids()).ids() == in_flight.ids()


def test_exchanges_in_flight_are_owed_a_finish() -> None:
    in_flight = InFlight(["a", "b"])
    in_flight.note(finish_record("a", 1, Outcome.COMPLETED))
    in_flight.note(gap_record(3, GapReason.JOURNAL_FULL, 2))
    (record,) = in_flight.interrupted(7)
    decoded = msgspec.json.decode(record, type=Finish)
    assert (decoded.id, decoded.at, decoded.outcome, decoded.status) == ("b", 7, Outcome.INTERRUPTED, None)
