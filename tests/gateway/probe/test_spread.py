"""Arrival times to a judgement; no clock is asked."""

from __future__ import annotations

import pytest

from gateway.probe.client import ProbeError
from gateway.probe.spread import judge

GAP = 60.0


def test_events_that_keep_their_gap_came_through() -> None:
    seen = judge([200 + GAP * number for number in range(20)], GAP)
    assert (seen.bunched, seen.heap, seen.median_gap_ms, seen.first_ms) == (False, 1, GAP, 200)


def test_jitter_is_not_buffering() -> None:
    jitter = (0, 25, -20, 30, 5, -25, 10, 0)
    assert not judge([GAP * number + jitter[number % 8] for number in range(24)], GAP).bunched


def test_an_answer_that_was_held_to_its_end_is_one_heap() -> None:
    seen = judge([1400.0] * 20, GAP)
    assert (seen.bunched, seen.heap) == (True, 20)


def test_a_buffer_that_is_emptied_when_full_shows_by_its_heaps() -> None:
    arrivals = [300.0] * 5 + [600.0] * 5 + [900.0] * 5
    seen = judge(arrivals, GAP)
    assert (seen.bunched, seen.heap) == (True, 5)


def test_two_or_three_events_together_are_chance() -> None:
    arrivals = [GAP * number for number in range(20)]
    arrivals[7] = arrivals[8] = arrivals[9]
    assert not judge(arrivals, GAP).bunched


def test_too_few_events_say_nothing() -> None:
    with pytest.raises(ProbeError, match="3 events"):
        judge([1.0, 2.0, 3.0], GAP)
