"""Ten thousand random requests on all surfaces: with aborts, errors, retries, fallbacks, timeouts and parallel keys.

Whatever happens: nothing stays held or running, what was spent is what the audit log says, to the nano-dollar, and no
budget is overdrawn by more than one request. Exchanges, limits, prices, translations, retries and records are the real
ones; only the sockets, the clock and the provider's moods are played (`tests/playbook.py`).
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.errors import Draining, UpstreamUnreachable
from gateway.exchange import Exchange, State
from gateway.limits import scopes_of
from gateway.prices import NANO
from gateway.purse import month_of
from gateway.types import GatewayKey, Scope
from tests.playbook import Client, Play, Provider, configuration, target

REQUESTS = 10_000
AT_ONCE = 24
MONTHS = 5
MOST_TOKENS = 2_000

PRICE = "{input: 1, output: 4, cached_input: 0.5}"
CONFIGURATION = configuration(
    target("alone", "model-one", price=PRICE),
    target("first", "model-two", price=PRICE),
    target("second", "model-two", price="{input: 2, output: 8}"),
    target("free", "model-free"),
    target("claude", "model-claude", provider="anthropic", price=PRICE),
    providers="  fallback: {triggers: [rate_limit, server_error, timeout, connection], max_attempts: 4,"
    " circuit_breaker: {enabled: false}}\n",
    gateway="limits: {budget_usd_per_month: 1.5, max_concurrency: 20}",
)
TEAM = Scope("team", "team_1", "red", (1 << 20) + 1, tokens_per_minute=400_000, budget=NANO // 2)


def key(number: int, **limits: Any) -> tuple[bytes, GatewayKey]:
    token = b"kt_gk_%038d" % number
    digest = hashlib.sha256(token).digest()
    return token, GatewayKey(f"gk_{number}", digest, "kt_gk_000000", f"key-{number}", number, **limits)


KEYS = dict(
    [
        key(1, requests_per_minute=600, max_concurrency=6, budget_usd_per_month=0.25),
        key(2, team_scope=TEAM, budget_usd_per_month=0.4),
        key(3, team_scope=TEAM, tokens_per_minute=100_000),
        key(4),
    ]
)

Answer = Callable[[int, int], dict[str, Any]]


def _chat(prompt: int, completion: int) -> dict[str, Any]:
    message = {"role": "assistant", "content": "words"}
    usage = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": prompt // 3},
    }
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    return {"id": "c", "object": "chat.completion", "model": "m", "choices": choices, "usage": usage}


def _completion(prompt: int, completion: int) -> dict[str, Any]:
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    choices = [{"index": 0, "text": "words", "finish_reason": "stop"}]
    return {"id": "c", "object": "text_completion", "choices": choices, "usage": usage}


def _embedding(prompt: int, completion: int) -> dict[str, Any]:
    usage = {"prompt_tokens": prompt, "total_tokens": prompt}
    return {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}], "usage": usage}


def _response(prompt: int, completion: int) -> dict[str, Any]:
    usage = {"input_tokens": prompt, "output_tokens": completion, "total_tokens": prompt + completion}
    content = [{"type": "output_text", "text": "words", "annotations": []}]
    output = [{"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": content}]
    return {"id": "r", "object": "response", "status": "completed", "model": "m", "output": output, "usage": usage}


def _message(prompt: int, completion: int) -> dict[str, Any]:
    usage = {"input_tokens": prompt, "output_tokens": completion, "cache_read_input_tokens": 0}
    content = [{"type": "text", "text": "words"}]
    return {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": content,
            "stop_reason": "end_turn", "stop_sequence": None, "usage": usage}  # fmt: skip


ANSWERS: dict[bytes, Answer] = {
    b"/v1/chat/completions": _chat,
    b"/v1/completions": _completion,
    b"/v1/embeddings": _embedding,
    b"/v1/responses": _response,
    b"/v1/messages": _message,
}


def framed(status: int, media: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {status} X\r\ncontent-type: {media}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
WORDS = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"words "}}]}\n\n'
STOP = b'data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'


class Storm:
    """The requests under way, and what is to befall them."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.play = Play(folder, CONFIGURATION)
        self.play.services.snapshot.find_key = {one.hash: one for one in KEYS.values()}.get
        self.clients: list[Client] = []
        self.open: list[Exchange] = []
        self.befell: Counter[str] = Counter()
        self.refused = 0
        self.dearest = 0

    def ask(self) -> None:
        """One more request."""
        chance = self.chance
        path = chance.choice(["chat/completions"] * 2 + ["completions", "embeddings", "responses", "messages"])
        model = chance.choice(["model-one", "model-two", "model-two", "model-free", "model-claude"])
        if path in ("completions", "embeddings") and model == "model-claude":
            model = "model-one"
        body: dict[str, Any] = {"model": model}
        text = "word " * chance.randrange(1, 200)
        if path in ("chat/completions", "messages"):
            body["messages"] = [{"role": "user", "content": text}]
        else:
            body["prompt" if path == "completions" else "input"] = text
        if path == "messages" or chance.random() < 0.7:
            name = {"responses": "max_output_tokens", "embeddings": "dimensions"}.get(path, "max_tokens")
            body[name] = chance.randrange(1, MOST_TOKENS)
        if path == "chat/completions" and chance.random() < 0.5:
            body["stream"] = True
        client = Client()
        self.clients.append(client)
        self.befell[path] += 1
        exchange = self.play.ask(body, f"/v1/{path}", key=chance.choice(list(KEYS)), client=client)
        self.refused += client.status in (429, 403)
        if exchange.state is not State.ENDED:
            self.open.append(exchange)

    def happen(self) -> None:
        """Something befalls one of those under way."""
        exchange = self.chance.choice(self.open)
        if exchange.state is State.BACKING_OFF:
            what = self.chance.choice([self.leave, self.wait, self.wait, self.end])
        elif exchange.ticket is not None:
            what = self.chance.choice([self.connect, self.connect, self.refuse_connection, self.leave])
        else:
            trouble = [self.fail, self.limit, self.reset, self.leave, self.end, self.wait]
            good = [self.stream] * 12 if exchange.view.stream else [self.answer] * 3
            what = self.chance.choice(good + trouble)
        what(exchange)
        self.befell[what.__name__] += 1
        self.open = [one for one in self.open if one.state is not State.ENDED]

    # What may befall it

    def provider(self, exchange: Exchange) -> Provider:
        return next(one for one in reversed(self.play.pool.providers) if one.connection is exchange.connection)

    def usage(self, exchange: Exchange) -> tuple[int, int]:
        """What it uses at most what was reserved for it."""
        most = exchange.view.max_output_tokens or MOST_TOKENS
        return self.chance.randrange(1, len(exchange.body)), self.chance.randrange(0, most + 1)

    def answer(self, exchange: Exchange) -> None:
        provider = self.provider(exchange)
        path = provider.asked.split(b" ", 2)[1]
        provider.says(framed(200, "application/json", orjson.dumps(ANSWERS[path](*self.usage(exchange)))))

    def stream(self, exchange: Exchange) -> None:
        provider = self.provider(exchange)
        if exchange.target is not None and exchange.target.id == "claude":
            self.fail(exchange)
        elif exchange.state is State.WAITING:
            provider.says(STREAM + chunk(WORDS))
        elif self.chance.random() < 0.6:
            provider.says(chunk(WORDS * self.chance.randrange(1, 5)))
        else:
            prompt, completion = self.usage(exchange)
            told = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
            usage = b"data: %b\n\n" % orjson.dumps({"id": "c", "choices": [], "usage": told})
            known = usage if self.chance.random() < 0.8 else b""
            provider.says(chunk(STOP + known + b"data: [DONE]\n\n") + b"0\r\n\r\n")

    def fail(self, exchange: Exchange) -> None:
        if exchange.state is State.WAITING:
            body = b'{"error":{"message":"no","type":"server_error"}}'
            self.provider(exchange).says(framed(self.chance.choice([500, 503, 400]), "application/json", body))

    def limit(self, exchange: Exchange) -> None:
        if exchange.state is State.WAITING:
            body = b'{"error":{"message":"slow down","type":"rate_limit"}}'
            self.provider(exchange).says(framed(429, "application/json", body))

    def reset(self, exchange: Exchange) -> None:
        self.provider(exchange).resets()

    def leave(self, exchange: Exchange) -> None:
        exchange.on_client_gone()

    def end(self, exchange: Exchange) -> None:
        exchange.end_early(Draining("The gateway is shutting down; try again."))

    def wait(self, exchange: Exchange) -> None:
        self.play.advance(self.chance.choice([0.5, 2.0, 5.0, 130.0]))

    def connect(self, exchange: Exchange) -> None:
        self.play.pool.connect()

    def refuse_connection(self, exchange: Exchange) -> None:
        self.play.pool.fail(UpstreamUnreachable("nobody there"))

    # What must hold

    def scopes(self) -> list[Scope]:
        configuration = self.play.services.snapshot.default.scope
        assert configuration is not None
        return list({scope.id: scope for one in KEYS.values() for scope in scopes_of(one, configuration)}.values())

    def check_budgets(self) -> None:
        """None is overdrawn by more than the dearest request so far."""
        rows, now = self.play.services.limits._rows, self.play.wall.now
        for record in map(orjson.loads, self.play.audit[self._seen :]):
            self.dearest = max(self.dearest, record.get("cost_nanousd") or 0)
        self._seen = len(self.play.audit)
        for scope in self.scopes():
            row = rows.get(scope.place)
            if row is not None and row.purse is not None and scope.budget is not None:
                spent, _ = row.purse.used(now)
                assert spent <= scope.budget + self.dearest, f"{scope} has spent {spent}"

    _seen = 0


def costs(play: Play, keys: dict[str, GatewayKey]) -> Counter[tuple[str, int]]:
    """What the audit log says that each scope has spent in each month."""
    spent: Counter[tuple[str, int]] = Counter()
    started: dict[str, dict[str, Any]] = {}
    for record in play.records:
        if record["kind"] == "start":
            started[record["id"]] = record
        elif record["cost_nanousd"]:
            key, month = keys[started[record["id"]]["key"]], month_of(record["at"] / 1e6).number
            for name in (key.id, "play", *([TEAM.id] if key.team_scope else [])):
                spent[name, month] += record["cost_nanousd"]
    return spent


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [1])
def test_ten_thousand_requests(seed: int, tmp_path: Path) -> None:
    storm = Storm(tmp_path, seed)
    play = storm.play
    rows = play.services.limits._rows
    for number in range(REQUESTS):
        play.pool.idle = storm.chance.random() < 0.8
        storm.ask()
        while len(storm.open) >= AT_ONCE or (storm.open and storm.chance.random() < 0.55):
            storm.happen()
        play.advance(0.05)
        storm.open = [one for one in storm.open if one.state is not State.ENDED]
        if number % 10 == 0:
            storm.check_budgets()
        if number % (REQUESTS // MONTHS) == REQUESTS // MONTHS - 1 and number < REQUESTS - 1:
            play.wall.now += 31 * 86_400
    while storm.open:
        storm.happen()
    storm.check_budgets()

    assert [fault for client in storm.clients for fault in client.faults] == []
    play.check()
    for scope in storm.scopes():
        row = rows[scope.place]
        assert row.running == 0, scope
        if row.purse is not None:
            assert row.purse.held == 0, scope
    by_id = {one.id: one for one in KEYS.values()}
    spent, month = costs(play, by_id), month_of(play.wall.now).number
    for scope in storm.scopes():
        row = rows[scope.place]
        if row.purse is not None:
            assert row.purse.spent == spent[scope.id, month], scope
    total = sum(amount for (name, _), amount in spent.items() if name == "play")
    assert abs(play.metric("keeptrusts_llm_cost_total") - total / NANO) < 1e-6

    # The storm was one.
    statuses = Counter(client.status for client in storm.clients)
    assert statuses[200] > REQUESTS // 10
    assert statuses[429] > REQUESTS // 100
    for what in ("answer", "stream", "fail", "limit", "reset", "leave", "end", "wait", "connect", "refuse_connection"):
        assert storm.befell[what] > REQUESTS // 200, what
    exhausted = [scope for scope in storm.scopes() if scope.budget and spent[scope.id, month] >= scope.budget]
    assert exhausted, "a budget was used up"
