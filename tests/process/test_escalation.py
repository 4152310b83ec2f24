"""A request that waits for a person, through real processes: worker, control process, store, CLI and API."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.gateway_process import PATIENCE, GatewayProcess, configuration, running_gateway
from tests.provider import ScriptedProvider, respond

BODY: dict[str, Any] = {"model": "mock-gpt", "messages": [{"role": "user", "content": "Hello"}]}
ESCALATE = (respond(b'{"verdict": "escalate", "reason": "odd"}'),)


@pytest.fixture(scope="module")
def service() -> Iterator[ScriptedProvider]:
    """A moderation service that is never sure."""
    with ScriptedProvider(*[ESCALATE] * 8).in_thread() as scripted:
        yield scripted


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, service: ScriptedProvider) -> Iterator[GatewayProcess]:
    text = configuration(
        {"id": "mock", "provider": "mock", "model": "mock-gpt"},
        chain=["audit-logger", "external-moderation", "human-oversight"],
        policy={"external-moderation": {"url": f"{service.url}/check", "deadline_ms": 10_000}},
    )
    with running_gateway(tmp_path_factory.mktemp("escalation"), text, arguments=["--workers", "2"]) as running:
        deadline = time.monotonic() + PATIENCE
        while running.get("/api/v1/status")[0] != 200 and time.monotonic() < deadline:
            time.sleep(0.05)  # the control process answers a moment after the workers do
        yield running


def ask(gateway: GatewayProcess) -> httpx.Response:
    """On a connection of its own, so that either worker may get it."""
    return httpx.post(f"{gateway.url}/v1/chat/completions", json=BODY)


def test_approved_by_the_command_line_and_used_once(gateway: GatewayProcess) -> None:
    refused = ask(gateway)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["policy"]) == (409, "escalation_required", "external-moderation")
    id = error["escalation_id"]
    assert ask(gateway).json()["error"]["escalation_id"] == id
    (row,) = json.loads(gateway.kt("escalation", "list", "--json").stdout)
    assert (row["id"], row["detail"]) == (id, "odd")
    gateway.kt("escalation", "approve", id)
    assert ask(gateway).status_code == 200
    again = ask(gateway).json()["error"]["escalation_id"]
    assert again not in (None, id)
    gateway.kt("escalation", "refuse", again)
    assert "refused" in ask(gateway).json()["error"]["message"]


def test_the_api_wants_its_token(gateway: GatewayProcess) -> None:
    url = f"{gateway.url}/api/v1/escalations"
    assert httpx.get(url).status_code == 401
    (token,) = [path.read_text().strip() for path in gateway.folder.rglob("api-token")]
    found = httpx.get(url, headers={"authorization": f"Bearer {token}"}).json()["data"]
    assert {row["state"] for row in found} <= {"used", "refused"}


def test_the_workers_own_path_is_not_public(gateway: GatewayProcess) -> None:
    assert httpx.post(f"{gateway.url}/internal/escalations", json={}).status_code == 404
