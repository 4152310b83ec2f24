"""The measuring itself, with the provider on both ways: the figures are right when nothing is between."""

from __future__ import annotations

import pytest

from gateway.probe import load, overhead, provider
from gateway.probe.client import Place, ProbeError, place_of
from tests.provider import ScriptedProvider, respond


async def test_both_ways_are_measured_with_the_same_number_of_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overhead, "ROUNDS", 3)
    monkeypatch.setattr(overhead, "CANCELS", 2)
    monkeypatch.setattr(overhead, "PACE", provider.Pace(gap_ms=0.1, events=5))
    steps = []
    async with provider.serving() as upstream:
        measured = await overhead.measure(upstream, place_of(upstream.url), "m", lambda: steps.append(1))
    assert (measured.streams, measured.events) == (3, 3 * (5 + 1))
    assert measured.first_event.direct_p50 > 0
    assert measured.event.via_p99 >= measured.event.via_p50 > 0
    assert 0 < measured.cancel_p50 <= measured.cancel_p99
    assert len(steps) == overhead.steps() == 3 + 2 + 2


async def test_an_answer_that_is_no_stream_cannot_be_measured() -> None:
    async with provider.serving() as upstream, ScriptedProvider(respond(b"{}")) as other:
        with pytest.raises(ProbeError, match="not answered with a stream"):
            await overhead.measure(upstream, place_of(other.url), "m")


async def test_a_load_stops_after_so_many_requests_and_counts_what_was_refused() -> None:
    refusal = respond(b'{"error":{"message":"Not now."}}', status=429)
    async with ScriptedProvider(refusal, refusal, respond(b"{}")) as other:
        tally = await load.run(place_of(other.url), overhead.body("m"), connections=2, seconds=60, requests=5)
    assert tally.answers == 3
    assert tally.refused == {"429: Not now.": 2}
    figures = tally.figures()
    assert (figures["answers"], figures["refused"]) == (3, 2)
    assert figures["latency_p99_ms"] >= figures["latency_p50_ms"] > 0
    assert "ttft_p50_ms" not in figures


async def test_a_load_of_streams_tells_first_event_and_gap() -> None:
    async with provider.serving() as upstream:
        upstream.pace = provider.Pace(gap_ms=0.1, events=4)
        place = Place("127.0.0.1", upstream.port, tls=False, prefix="")
        tally = await load.run(place, overhead.body("m"), connections=2, seconds=60, requests=6)
        assert upstream.requests == 6
    assert tally.events == 6 * (4 + 2)
    assert len(tally.first_event) == 6
    assert len(tally.gap) == 6 * 5


async def test_a_load_on_nobody_says_so() -> None:
    async with ScriptedProvider(b"") as gone:
        place = place_of(gone.url)
    with pytest.raises(ProbeError, match="cannot be reached"):
        await load.run(place, overhead.body("m"), connections=2, seconds=1)
