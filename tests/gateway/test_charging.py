"""What an exchange costs and whom it is charged to: played whole, and read from the records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.types import Scope
from tests.playbook import Play, configuration, gateway_key, target

ASK = {"model": "gpt-test", "max_tokens": 100, "messages": [{"role": "user", "content": "hello"}]}
PRICED = target(price="{input: 1, output: 2, cached_input: 0.5}")
USAGE = {"prompt_tokens": 10, "completion_tokens": 20, "prompt_tokens_details": {"cached_tokens": 4}}
COST = 6 * 1000 + 4 * 500 + 20 * 2000
ANSWER = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}}], "usage": USAGE}
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'


def framed(body: Any, status: int = 200) -> bytes:
    data = orjson.dumps(body)
    return b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
        status,
        len(data),
        data,
    )


STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def spent(play: Play, kind: str) -> tuple[int, int]:
    """Spent and held by a scope."""
    (row,) = [row for row in play.services.limits._rows.values() if row.scope.kind == kind]
    assert row.purse is not None
    return int(row.purse.spent), int(row.purse.held)


def test_a_cost_is_in_record_and_metric(folder: Path) -> None:
    play = Play(folder, configuration(PRICED))
    play.ask(ASK)
    play.provider().says(framed(ANSWER))
    assert play.finish()["cost_nanousd"] == COST
    assert play.metric("keeptrusts_llm_cost_total") == pytest.approx(COST / 1e9)


def test_without_a_price_nobody_knows(folder: Path) -> None:
    play = Play(folder, configuration(target()), key=gateway_key(budget_usd_per_month=1.0))
    play.ask(ASK)
    play.provider().says(framed(ANSWER))
    assert play.finish()["cost_nanousd"] is None
    assert spent(play, "key") == (0, 0)


def test_published_prices_are_known(folder: Path) -> None:
    play = Play(folder, configuration(target(model="gpt-4o", provider="openai")))
    play.ask({**ASK, "model": "gpt-4o"})
    play.provider().says(framed(ANSWER))
    assert play.finish()["cost_nanousd"] == 6 * 2500 + 4 * 1250 + 20 * 10_000


def test_who_leaves_a_stream_pays_for_what_was_sent(folder: Path) -> None:
    play = Play(folder, configuration(PRICED), key=gateway_key(budget_usd_per_month=1.0))
    exchange = play.ask({**ASK, "stream": True})
    assert spent(play, "key")[1] > 100 * 2000
    play.provider().says(STREAM + chunk(EVENT * 32))
    exchange.on_client_gone()
    asked, sent = len(exchange.body) // 4, exchange.progress // 128
    assert sent > 10
    assert play.finish()["cost_nanousd"] == asked * 1000 + sent * 2000
    assert spent(play, "key") == (asked * 1000 + sent * 2000, 0)


def test_a_failure_costs_nothing(folder: Path) -> None:
    play = Play(folder, configuration(PRICED), key=gateway_key(budget_usd_per_month=1.0))
    play.ask(ASK)
    play.provider().says(framed({"error": {"message": "no"}}, 500))
    assert play.finish()["cost_nanousd"] is None
    assert spent(play, "key") == (0, 0)


def test_an_answer_that_a_policy_refuses_was_paid_for(folder: Path) -> None:
    policies = "\n  dlp-filter: {terms: [secret], action: block, phase: [output]}\n"
    play = Play(folder, configuration(PRICED, policies=policies, chain="audit-logger, dlp-filter"))
    play.ask(ASK)
    answer = {**ANSWER, "choices": [{"index": 0, "message": {"role": "assistant", "content": "a secret"}}]}
    play.provider().says(framed(answer))
    assert play.client.status == 409
    assert play.finish()["cost_nanousd"] == COST


def test_key_team_and_configuration_are_charged(folder: Path) -> None:
    team = Scope("team", "team_1", "red", (1 << 20) + 1, budget=10**9)
    key = gateway_key(budget_usd_per_month=1.0, team_scope=team)
    play = Play(folder, configuration(PRICED, gateway="limits: {budget_usd_per_month: 1}"), key=key)
    for _ in range(3):
        play.ask(ASK)
        play.provider().says(framed(ANSWER))
    assert [spent(play, kind) for kind in ("key", "team", "configuration")] == [(3 * COST, 0)] * 3


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", ASK),
        ("/v1/messages", ASK),
        ("/v1/responses", {"model": "gpt-test", "input": "hello"}),
        ("/v1/completions", {"model": "gpt-test", "prompt": "hello"}),
        ("/v1/embeddings", {"model": "gpt-test", "input": "hello"}),
    ],
)
def test_a_spent_budget_is_refused_in_the_clients_own_words(path: str, body: dict[str, Any], folder: Path) -> None:
    play = Play(folder, configuration(PRICED), key=gateway_key(budget_usd_per_month=0.0))
    play.ask(body, path)
    assert play.client.status == 429
    assert play.client.headers["x-should-retry"] == "false"
    assert int(play.client.headers["retry-after"]) > 86_400
    answer = orjson.loads(play.client.body)
    assert answer["error"]["message"].startswith("Monthly budget of gateway key 'play' reached")
    if path == "/v1/messages":
        assert (answer["type"], answer["error"]["type"]) == ("error", "rate_limit_error")
    else:
        assert answer["error"]["code"] == "budget_exceeded"


def test_a_configurations_limits_hold_without_a_key(folder: Path) -> None:
    from gateway.config.schema import AuthMode

    play = Play(folder, configuration(gateway="limits: {requests_per_minute: 1}"), mode=AuthMode.AUTO)
    for status in (200, 429):
        play.ask(ASK, key=None)
        if status == 200:
            play.provider().says(framed(ANSWER))
        assert play.client.status == status
    assert "Rate limit of configuration 'play' reached" in play.client.body.decode()
