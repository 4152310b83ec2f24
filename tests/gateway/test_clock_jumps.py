"""The clock of the wall may jump, by a day and either way: nothing that waits depends on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.playbook import Play, gateway_key
from tests.provider import LAST_CHUNK, chunk, head, respond

CHAT: dict[str, Any] = {"model": "gpt-test", "messages": [{"role": "user", "content": "Hello"}]}
DAY = 86_400.0
JUMPS = pytest.mark.parametrize(
    "jump", [DAY, -DAY, 3600.0, -3600.0], ids=["day on", "day back", "hour on", "hour back"]
)


@JUMPS
def test_an_exchange_under_way_goes_on(jump: float, play: Play) -> None:
    play.ask({**CHAT, "stream": True})
    play.wall.now += jump
    play.advance(0.1)
    play.provider().says(head(200, ("content-type", "text/event-stream"), chunked=True), chunk(b"data: 1\n\n"))
    play.wall.now -= 2 * jump
    play.advance(0.1)
    play.provider().says(chunk(b"data: [DONE]\n\n"), LAST_CHUNK)
    finish = play.finish()
    assert finish["outcome"] == "completed"
    assert finish["duration_us"] == pytest.approx(200_000)


@JUMPS
def test_a_provider_has_as_long_as_ever(jump: float, play: Play) -> None:
    play.ask(CHAT)
    play.wall.now += jump
    play.advance(119.0)
    assert play.client.transcript == []
    play.advance(2.0)
    assert play.client.transcript == ["refused: 504 upstream_timeout"]


@JUMPS
def test_a_rate_is_kept_on_both_sides_of_the_jump(jump: float, playbook: Callable[..., Play]) -> None:
    """A jump may give a client one fresh minute; it never shuts one out for good."""
    play = playbook(key=gateway_key(requests_per_minute=2))

    def served() -> int:
        count = 0
        for _ in range(4):
            play.ask(CHAT)
            if play.client.status == 0:
                play.provider().says(respond(b"{}"))
                count += 1
            else:
                assert play.client.status == 429
        return count

    assert served() == 2
    play.wall.now += jump
    assert served() <= 2
    play.advance(61.0)
    assert served() == 2


def test_a_key_that_expires_does_so_by_the_wall(playbook: Callable[..., Play]) -> None:
    play = playbook(key=gateway_key(expires_at=1_700_000_000.0 + DAY))
    play.ask(CHAT)
    play.provider().says(respond(b"{}"))
    play.wall.now += 2 * DAY
    play.open()
    assert play.client.transcript == ["refused: 401 invalid_api_key"]
