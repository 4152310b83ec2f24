"""Where an exchange's time goes: each stage gets what passed in it, and together they are the whole."""

from __future__ import annotations

from collections.abc import Callable

from gateway.stages import NAMES, NONE, microseconds, server_timing
from tests.gateway.test_exchange import CHAT, DONE, SSE_HEAD, STREAM, answer, delta
from tests.playbook import Play, configuration, target
from tests.provider import chunk, respond


def test_a_plain_answer(play: Play) -> None:
    play.ask(CHAT)
    play.clock.now += 0.25
    play.provider().says(respond(answer()))
    assert play.finish()["stages_us"] == {"upstream": 250_000}
    assert play.client.headers["server-timing"] == "gateway;dur=0.000, policies;dur=0.000, upstream;dur=250.000"
    assert play.metric("keeptrusts_gateway_stage_seconds_count") == 1


def test_a_body_that_is_late(play: Play) -> None:
    exchange = play.open("/v1/chat/completions")
    play.clock.now += 0.5
    exchange.on_body(b"{")
    assert play.finish()["stages_us"] == {"request": 500_000}


def test_waiting_for_a_connection(play: Play) -> None:
    play.pool.idle = False
    for stage in ("connect", "queue"):  # the second request waits for the connection that the first one has used
        play.ask(CHAT)
        play.clock.now += 0.1
        play.pool.connect()
        play.clock.now += 0.2
        play.provider().says(respond(answer()))
        assert play.finish()["stages_us"] == {stage: 100_000, "upstream": 200_000}


def test_a_stream(play: Play) -> None:
    play.ask(STREAM)
    play.clock.now += 0.1
    play.provider().says(SSE_HEAD)
    for seconds in (0.2, 0.3):
        play.clock.now += seconds
        play.provider().says(chunk(delta("word")))
    play.provider().says(chunk(DONE))
    assert play.finish()["stages_us"] == {"upstream": 100_000, "stream": 500_000}


def test_attempts_and_pauses(playbook: Callable[..., Play]) -> None:
    play = playbook(configuration(target("one"), target("two")))
    play.ask(CHAT)
    play.clock.now += 0.1
    play.provider().resets()
    play.clock.now += 0.3
    play.provider().says(respond(answer()))
    assert play.finish()["stages_us"] == {"upstream": 400_000}


def test_a_client_that_leaves(play: Play) -> None:
    exchange = play.ask(CHAT)
    play.clock.now += 0.4
    exchange.on_client_gone()
    assert play.finish()["stages_us"] == {"upstream": 400_000}


def test_nobody_is_told_where_the_operator_does_not_want_it(play: Play) -> None:
    play.services.server_timing = False
    play.ask(CHAT)
    play.clock.now += 0.1
    play.provider().says(respond(answer()))
    assert "server-timing" not in play.client.headers


def test_rendering() -> None:
    seconds = [number / 1000 for number in range(len(NAMES))]
    assert server_timing(seconds) == (
        b"server-timing: gateway;dur=20.000, policies;dur=12.000, connection;dur=9.000, upstream;dur=6.000\r\n"
    )
    seconds = [*NONE]
    seconds[1], seconds[6] = 0.0000214, 1.5
    assert server_timing(seconds) == b"server-timing: gateway;dur=0.021, policies;dur=0.000, upstream;dur=1500.000\r\n"
    assert microseconds(seconds) == {"admission": 21, "upstream": 1_500_000}
    assert len(NAMES) == len(set(NAMES)) == len(NONE)
