"""What a gateway tells of itself: health, metrics of all workers as one, logs; and what it never tells."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.metrics import METRICS
from tests.gateway_process import GatewayProcess, configuration, running_gateway
from tests.process.support import MOCK, Wire, chat, children, control, kill, metrics, readiness, target, until
from tests.provider import RESET, ScriptedProvider, chunk, head, respond

REQUESTS = "keeptrusts_gateway_requests_total"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("observability")
    with ScriptedProvider(respond(b'{"object":"chat.completion","choices":[]}')).in_thread() as provider:
        text = configuration(MOCK, target(provider.url))
        with running_gateway(folder, text, arguments=["--workers", "2"]) as gateway:
            control(gateway, "/metrics")
            yield gateway


def ask(gateway: GatewayProcess, request: bytes) -> int:
    """The status of a request on a connection of its own, which either worker may get."""
    with Wire(gateway.port) as wire:
        wire.send(request)
        return wire.answer()[0]


def test_health_and_readiness_need_no_key(gateway: GatewayProcess) -> None:
    assert json.loads(gateway.get("/healthz")[1]) == {"status": "ok"}
    said = readiness(gateway)
    assert said["ready"] is True
    assert said["draining"] is False
    assert said["configurations"].keys() == {"test"}
    assert said["configuration_error"] is None


def test_counts_are_those_of_all_workers_together(gateway: GatewayProcess) -> None:
    series = f'{REQUESTS}{{model="mock-gpt",provider="mock",status="200"}}'
    before = metrics(gateway)
    for _ in range(40):
        assert ask(gateway, chat("mock-gpt")) == 200
    after = metrics(gateway)
    assert after[series] - before.get(series, 0) == 40
    duration = 'keeptrusts_gateway_request_duration_seconds_count{provider="mock"}'
    assert after[duration] - before.get(duration, 0) == 40


def test_every_metric_of_the_table_is_fed(gateway: GatewayProcess) -> None:
    """One that nobody counts would be a lie in a dashboard."""
    gateway_key = gateway.create_key("fed")
    assert ask(gateway, chat("gpt-4o", key=gateway_key)) == 200
    assert ask(gateway, chat("mock-gpt", key="kt_gk_wrong")) == 401
    wanted = {metric.name for metric in METRICS}
    # The policies of this chain decide nothing, and no target fetches its credential (that one: test_credentials.py).
    wanted -= {"keeptrusts_gateway_policy_evaluations_total", "keeptrusts_gateway_credential_fetches_total"}
    # Nor has it WebSockets, a shadow or prices: tests/gateway/test_conversation.py, test_shadow.py, test_budgets.py.
    wanted = {name for name in wanted if "websocket" not in name and "_shadow_" not in name}
    wanted -= {"keeptrusts_llm_cost_total"}

    def missing() -> set[str]:
        names = {name.partition("{")[0] for name in metrics(gateway)}
        return {name for name in wanted if not names & {name, f"{name}_count"}}

    until(lambda: not missing(), f"all are there but {missing()}")
    seen = metrics(gateway)
    assert [name for name in seen if name.startswith("keeptrusts_gateway_build_info{version=")]
    assert seen["keeptrusts_gateway_workers"] == 2
    assert seen["keeptrusts_gateway_log_lines_dropped_total"] == 0


def test_connections_of_both_sides_are_told(gateway: GatewayProcess) -> None:
    accepted = metrics(gateway)["keeptrusts_gateway_connections_total"]
    assert ask(gateway, chat("gpt-4o")) == 200
    until(lambda: metrics(gateway)["keeptrusts_gateway_connections_total"] > accepted, "accepted ones are counted")
    idle = 'keeptrusts_gateway_upstream_connections{state="idle",target="scripted"}'
    until(lambda: metrics(gateway).get(idle, 0) >= 1, "the provider's connection is kept")
    assert not [name for name in metrics(gateway) if 'target="control"' in name]
    with Wire(gateway.port):
        open_ones = [f'keeptrusts_gateway_open_connections{{worker="{worker}"}}' for worker in (0, 1)]
        until(lambda: sum(metrics(gateway)[name] for name in open_ones) >= 1, "open ones are told by worker")


def test_a_client_cannot_make_series(gateway: GatewayProcess) -> None:
    ask(gateway, chat("invented", key="kt_gk_wrong"))
    ask(gateway, chat("invented"))
    gateway.get("/v1/invented")
    before = set(metrics(gateway))
    for number in range(25):
        name = f"invented-{number}"
        ask(gateway, chat(name))
        ask(gateway, chat(name, key=f"kt_gk_{name}", x_request_id=name, user_agent=name))
        gateway.get(f"/v1/{name}")
    page = control(gateway, "/metrics")
    assert b"invented" not in page
    assert set(metrics(gateway)) == before


def test_a_killed_worker_leaves_no_gauge_behind(gateway: GatewayProcess) -> None:
    with Wire(gateway.port) as held:
        held.send(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        held.answer()
        pids = children(gateway)
        for name in ("worker-0", "worker-1"):
            kill(pids[name])
    until(lambda: len(children(gateway)) == 3, "both are started again")
    until(lambda: readiness_or_none(gateway), "they serve")
    gauges = [f'keeptrusts_gateway_open_exchanges{{worker="{worker}"}}' for worker in (0, 1)]
    until(lambda: all(metrics(gateway).get(name) == 0 for name in gauges), "nothing is under way")


def readiness_or_none(gateway: GatewayProcess) -> bool:
    try:
        return bool(readiness(gateway)["ready"])
    except OSError:
        return False


def test_log_lines_are_json_objects(gateway: GatewayProcess) -> None:
    lines = [json.loads(line) for line in gateway.log.splitlines() if line.startswith("{")]
    ready = [line for line in lines if line["event"] == "worker ready"]
    assert {line["worker"] for line in ready} == {0, 1}
    assert all({"ts", "level", "logger", "event"} <= line.keys() for line in lines)


CANARY = "canary-4b1d7c"
PROVIDER_SECRET = f"sk-{CANARY}-provider-0123456789abcdef"
PROMPT = f"{CANARY}-prompt"
ANSWER = f"{CANARY}-answer"


def test_no_key_no_prompt_and_no_secret_is_written_anywhere(tmp_path: Path) -> None:
    """Sent wherever a client, a provider or an operator can put them; then every file and page is searched."""
    answer = json.dumps({"object": "chat.completion", "choices": [{"message": {"content": ANSWER}}]}).encode()
    script = (
        respond(answer),
        respond(json.dumps({"error": {"message": f"bad prompt {ANSWER}"}}).encode(), 400),
        respond(ANSWER.encode(), 500),
        [head(200, ("content-type", "text/event-stream"), chunked=True), chunk(f"data: {ANSWER}\n\n".encode()), RESET],
        ANSWER.encode() + b"\r\n\r\n",
    )
    with ScriptedProvider(*script).in_thread() as provider:
        targets = MOCK, target(provider.url, secret_key_ref={"env": "CANARY_SECRET"})
        text = configuration(
            *targets,
            chain=["dlp-filter", "audit-logger"],
            policy={"dlp-filter": {"action": "block", "terms": ["refuse this"]}},
            gateway={"logging": {"level": "debug"}},
        )
        with running_gateway(tmp_path, text, environment={"CANARY_SECRET": PROVIDER_SECRET}) as gateway:
            key = gateway.create_key("canary")
            for _ in range(len(script)):
                with Wire(gateway.port) as wire:
                    wire.send(chat(stream=True, text=PROMPT, key=key, x_note=PROMPT, connection="close"))
                    wire.read_to_end()
            assert provider.requests[0].headers["authorization"] == f"Bearer {PROVIDER_SECRET}"
            assert ask(gateway, chat("mock-gpt", text=f"{PROMPT} refuse this", key=key)) == 409
            assert ask(gateway, chat("mock-gpt", text=PROMPT, key=f"kt_gk_{CANARY}0123456789")) == 401
            assert ask(gateway, chat("mock-gpt", text=PROMPT, key=PROVIDER_SECRET)) == 401
            assert ask(gateway, chat("mock-gpt", text=PROMPT, api_key=PROVIDER_SECRET)) == 401
            body = f'{{"model": "mock-gpt", "messages": [{PROMPT}'.encode()
            malformed = b"POST /v1/chat/completions?k=%b HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n%b"
            assert ask(gateway, malformed % (PROMPT.encode(), len(body), body)) == 400
            assert ask(gateway, f"GET /v1/{PROMPT} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode()) == 404
            with Wire(gateway.port) as wire:
                wire.send(f"GET /healthz HTTP/1.1\r\nhost: localhost\r\nauthorization {PROMPT}\r\n\r\n".encode())
                assert wire.answer()[0] == 400
            pages = control(gateway, "/metrics") + control(gateway, "/api/v1/status") + gateway.get("/readyz")[1]
            assert len([row for row in gateway.audit_records() if row["key"]]) == len(script) + 1
            files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
            said = gateway.kt("gateway-key", "show", "canary", "--json").stdout.encode()
        files.update({path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()})
    assert [path.name for path in files if path.suffix in (".journal", ".jsonl", ".db", ".log")]
    for name, content in {**files, "pages": pages, "kt": said}.items():
        for needle in (CANARY.encode(), key.encode(), key.removeprefix("kt_gk_")[6:].encode()):
            assert needle not in content, f"{needle!r} in {name}"
