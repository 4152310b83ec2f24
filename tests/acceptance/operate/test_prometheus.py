"""A real Prometheus scrapes a running gateway with two workers, and evaluates everything that `deploy/` asks it.

What it is asked must name only metrics that exist, evaluate without an error, and, but for what this gateway has had no
cause to count, find something.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.metrics import METRICS, Kind
from tests.acceptance.operate.tools import DEPLOY, ROOT, output, program
from tests.gateway_process import HOST, GatewayProcess, configuration, free_port, running_gateway
from tests.process.support import MOCK, Wire, chat, samples, until

RULES = DEPLOY / "prometheus"
DASHBOARD = json.loads((DEPLOY / "grafana" / "keeptrusts-gateway.json").read_text())
DOCS = (ROOT / "docs" / "metrics.md").read_text()
NO_CAUSE = {
    "keeptrusts_llm_cost_total",
    "keeptrusts_gateway_open_websockets",
    "keeptrusts_gateway_websocket_messages_total",
    "keeptrusts_gateway_websocket_message_delay_seconds_bucket",
}
"""What the gateway below has nothing to count of: its model has no price, and nobody opens a WebSocket."""

NAMES = {metric.name for metric in METRICS}
NAMES |= {
    f"{metric.name}_{part}"
    for metric in METRICS
    if metric.kind is Kind.HISTOGRAM
    for part in ("bucket", "sum", "count")
}


def groups(name: str) -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load((RULES / name).read_text())["groups"] for rule in group["rules"]]


RECORDED = {rule["record"] for rule in groups("rules.yaml")}


def dashboard_expressions() -> Iterator[tuple[str, str]]:
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for annotation in DASHBOARD["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]


def expressions() -> list[tuple[str, str]]:
    """Every expression of dashboard, rules, alerts and of docs/metrics.md, as Prometheus would be asked."""
    asked = [*dashboard_expressions()]
    asked += [(rule["record"], rule["expr"]) for rule in groups("rules.yaml")]
    asked += [(rule["alert"], rule["expr"]) for rule in groups("alerts.yaml")]
    for block in re.findall(r"^```promql\n(.*?)^```", DOCS, re.MULTILINE | re.DOTALL):
        asked += [
            ("docs/metrics.md", query) for query in re.split(r"^#.*\n", block, flags=re.MULTILINE) if query.strip()
        ]
    return [(where, text.replace("$__rate_interval", "1m").replace("$instance", ".*")) for where, text in asked]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """Two workers that have answered, streamed, refused, blocked, failed and fallen back."""
    dead = {"provider": "openai-compatible", "base_url": f"http://{HOST}:{free_port()}"}
    text = configuration(
        MOCK,
        {"id": "dead", "model": "dead", **dead},
        {"id": "first", "model": "two", **dead},
        {"id": "second", "model": "two", "provider": "mock"},
        chain=("dlp-filter", "audit-logger"),
        policy={"dlp-filter": {"terms": ["nightingale"], "action": "block"}},
    )
    with running_gateway(tmp_path_factory.mktemp("gateway"), text, arguments=["--workers", "2"]) as running:
        yield running


def traffic(gateway: GatewayProcess) -> None:
    answers = {
        chat("mock-gpt"): 200,
        chat("mock-gpt", text="Project nightingale"): 409,
        chat("mock-gpt", key="kt_gk_wrong"): 401,
        chat("dead"): 502,
        chat("two"): 200,
    }
    for request, status in answers.items():
        with Wire(gateway.port) as client:
            client.send(request)
            assert client.answer()[0] == status
    with Wire(gateway.port) as client:
        client.send(chat("mock-gpt", stream=True))
        client.read_until(b"[DONE]")


class Prometheus:
    """A running server of Debian's package."""

    def __init__(self, port: int) -> None:
        self._url = f"http://{HOST}:{port}"

    def get(self, path: str, **query: str) -> Any:
        with urllib.request.urlopen(f"{self._url}{path}?{urllib.parse.urlencode(query)}", timeout=10) as response:
            told = json.load(response)
        assert told["status"] == "success", told
        return told["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        return self.get("/api/v1/query", query=expression)["result"]  # type: ignore[no-any-return]

    def ready(self) -> bool:
        try:
            return bool(self.query("vector(1)"))
        except OSError:
            return False


@pytest.fixture(scope="module")
def prometheus(gateway: GatewayProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """It has scraped before and after the traffic, so that rates have something to rise."""
    command, folder, port = (
        program("prometheus", "make setup-system"),
        tmp_path_factory.mktemp("prometheus"),
        free_port(),
    )
    shutil.copytree(RULES, folder, dirs_exist_ok=True)
    config = yaml.safe_load((folder / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [f"{HOST}:{gateway.port}"]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    options = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([command, *options, f"--web.listen-address={HOST}:{port}"], stdout=log, stderr=log)
    try:
        server = Prometheus(port)
        until(server.ready, "Prometheus answers")
        traffic(gateway)
        total = 'sum(keeptrusts_gateway_requests_total{status="409"})'
        until(lambda: server.query(total), "the first traffic is scraped")
        traffic(gateway)
        until(lambda: server.query(f"{total} >= 2"), "the second traffic is scraped")
        until(lambda: server.query("sum(rate(keeptrusts_gateway_requests_total[1m])) > 0"), "rates rise")
        until(lambda: all(server.query(name) for name in RECORDED), "rules have been recorded")
        yield server
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.parametrize(("where", "expression"), expressions())
def test_it_names_only_metrics_that_exist(where: str, expression: str) -> None:
    named = set(re.findall(r"\bkeeptrusts[\w:]+", expression))
    assert named <= NAMES | RECORDED, where
    assert named or "up{" in expression, where


@pytest.mark.parametrize(("where", "expression"), [*dashboard_expressions()])
def test_every_panel_can_be_narrowed_to_one_gateway(where: str, expression: str) -> None:
    assert expression.count('instance=~"$instance"') == len(re.findall(r"\bkeeptrusts\w+", expression)), where


def test_every_expression_evaluates_and_finds_what_there_is(prometheus: Prometheus) -> None:
    empty = []
    for where, expression in expressions():
        if not (
            prometheus.query(expression) or _compares(expression) or set(re.findall(r"\w+", expression)) & NO_CAUSE
        ):
            empty.append(f"{where}: {expression}")
    assert empty == []


def test_what_alerts_compare_is_there_to_be_compared(prometheus: Prometheus) -> None:
    """An alert is empty as long as all is well; the left side of its comparison must not be, where there is cause."""
    rare = {"KeeptrustsCredentialsNotFetched"}
    for rule in groups("alerts.yaml"):
        left = re.split(r" (?:==|<|>) ", rule["expr"])[0]
        assert prometheus.query(left) or rule["alert"] in rare, rule["alert"]


def test_no_alert_is_broken(prometheus: Prometheus) -> None:
    told = [rule for group in prometheus.get("/api/v1/rules")["groups"] for rule in group["rules"]]
    assert {rule["name"] for rule in told} == RECORDED | {rule["alert"] for rule in groups("alerts.yaml")}
    assert [rule["name"] for rule in told if rule["health"] != "ok"] == []


def test_two_workers_are_one_gateway(prometheus: Prometheus) -> None:
    assert prometheus.query("keeptrusts_gateway_workers")[0]["value"][1] == "2"
    (blocked,) = prometheus.query('sum(keeptrusts_gateway_policy_evaluations_total{verdict="block"})')
    assert blocked["value"][1] == "2"
    workers = {row["metric"]["worker"] for row in prometheus.query("keeptrusts_gateway_open_connections")}
    assert workers == {"0", "1"}


def test_the_page_is_what_promtool_takes(gateway: GatewayProcess) -> None:
    page = gateway.get("/metrics")[1]
    promtool = program("promtool", "make setup-system")
    done = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")
    assert samples(page)


def test_rules_and_configuration_are_what_promtool_takes() -> None:
    promtool = program("promtool", "make setup-system")
    output(promtool, "check", "config", RULES / "prometheus.yml")
    said = output(promtool, "check", "rules", RULES / "rules.yaml", RULES / "alerts.yaml")
    assert f"{len(RECORDED)} rules found" in said


def test_alerts_call_when_they_should(tmp_path: Path) -> None:
    promtool = program("promtool", "make setup-system")
    shutil.copytree(RULES, tmp_path, dirs_exist_ok=True)
    shutil.copy(Path(__file__).with_name("alerts.test.yaml"), tmp_path)
    output(promtool, "test", "rules", tmp_path / "alerts.test.yaml")


def test_every_alert_says_what_to_do() -> None:
    for rule in groups("alerts.yaml"):
        assert rule["labels"]["severity"] in ("page", "ticket"), rule["alert"]
        assert {"summary", "action"} == set(rule["annotations"]), rule["alert"]


def test_panels_do_not_lie_over_each_other() -> None:
    places: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & places, panel["title"]
        assert at["x"] + at["w"] <= 24
        places |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def _compares(expression: str) -> bool:
    return re.search(r" (==|<|>) ", expression) is not None
