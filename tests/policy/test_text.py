"""Redactions: on bytes, merged where they overlap, and never in the middle of a character."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.types import TextPart
from policy.base import Match, Redaction
from policy.text import apart, encode, redact


def test_redactions_of_several_parts() -> None:
    texts = [TextPart("abc"), TextPart("abc"), TextPart("abc")]
    assert redact(texts, [Redaction(2, 0, 1, "X"), Redaction(0, 2, 3, "Y")]) == {0: "abY", 2: "Xbc"}


def test_neighbours_stay_apart_and_overlaps_become_one() -> None:
    texts = [TextPart("abcdef")]
    assert redact(texts, [Redaction(0, 0, 2, "X"), Redaction(0, 2, 4, "Y")]) == {0: "XYef"}
    assert redact(texts, [Redaction(0, 1, 4, "Y"), Redaction(0, 0, 2, "X")]) == {0: "Xef"}


def test_a_replacement_that_is_no_shorter_than_the_match() -> None:
    assert redact([TextPart("é")], [Redaction(0, 0, 2, "[…]")]) == {0: "[…]"}


def test_a_lone_surrogate_becomes_a_question_mark() -> None:
    assert encode("a\ud800b") == b"a?b"
    assert redact([TextPart("a\ud800b")], [Redaction(0, 2, 3, "X")]) == {0: "a?X"}


@settings(deadline=None)
@given(st.text(alphabet="aé🦅я", max_size=20), st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=6))
def test_what_no_redaction_covers_stays_in_order(text: str, spans: list[tuple[int, int]]) -> None:
    spans = [(min(span), max(span)) for span in spans if min(span) < max(span) <= len(text)]
    at = [len(encode(text[:offset])) for offset in range(len(text) + 1)]
    changed = redact([TextPart(text)], [Redaction(0, at[start], at[end], "#") for start, end in spans]).get(0, text)
    covered = {offset for start, end in spans for offset in range(start, end)}
    assert changed.replace("#", "") == "".join(char for offset, char in enumerate(text) if offset not in covered)
    assert changed.count("#") <= len(spans)


class At(NamedTuple):
    match: Match


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 30), st.integers(1, 9), st.integers(0, 3)), max_size=40))
def test_of_findings_that_overlap_the_first_in_rank_remains(places: list[tuple[int, int, int, int]]) -> None:
    found = [At(Match(part, start, start + length, pattern)) for part, start, length, pattern in places]
    kept: list[Match] = []
    for one in sorted(found, key=lambda one: one.match.pattern):
        if all(one.match.part != o.part or one.match.end <= o.start or o.end <= one.match.start for o in kept):
            kept.append(one.match)
    assert [one.match for one in apart(found, lambda one: one.match.pattern)] == sorted(kept)
