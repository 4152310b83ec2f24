"""The API of a gateway as it really runs: through a worker's relay, and on an address of its own."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.gateway_process import HOST, PATIENCE, GatewayProcess, configuration, free_port, running_gateway

PASSWORD = "correct horse battery"
TARGET = {"id": "one", "provider": "mock", "model": "mock-gpt"}
TEXT = configuration(TARGET)
OTHER = configuration({**TARGET, "model": "other-gpt"})


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with running_gateway(tmp_path_factory.mktemp("relayed"), TEXT) as running:
        yield running


def until(found: Any) -> Any:
    """What a function gives once it gives something."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if result := found():
            return result
        time.sleep(0.02)
    raise AssertionError("it did not come")


def set_up(gateway: GatewayProcess, url: str) -> httpx.Client:
    """The first user, by the link that the gateway prints, and an access key of theirs."""
    link = until(lambda: re.search(r"(http://\S+)/console/setup\?token=(\S+)", gateway.log))
    assert link[1].replace("localhost", HOST) == url
    owner = httpx.Client(base_url=f"{url}/api/v1", timeout=PATIENCE, trust_env=False)
    body = {"token": link[2], "email": "ada@example.com", "name": "Ada", "password": PASSWORD}
    me = owner.post("/auth/setup", json=body)
    assert (me.status_code, me.json()["role"]) == (200, "owner")
    owner.headers["x-csrf-token"] = me.json()["csrf_token"]
    return owner


def models(gateway: GatewayProcess, key: str) -> list[str]:
    answer = httpx.get(f"{gateway.api}/models", headers={"authorization": f"Bearer {key}"}, trust_env=False)
    return [one["id"] for one in answer.json().get("data", [])]


def test_from_the_set_up_link_to_the_audit_log(gateway: GatewayProcess) -> None:
    owner = set_up(gateway, gateway.url)
    made = owner.post("/gateway-keys", json={"name": "laptop"})
    assert (made.status_code, made.json()["rollout"]) == (201, {"in_force": True, "gateways": 1, "lagging": []})
    key = made.json()["key"]
    assert models(gateway, key) == ["mock-gpt"]

    before = owner.get("/configurations/test")
    changed = owner.put(
        "/configurations/test", json={"text": OTHER, "note": "try"}, headers={"if-match": before.headers["etag"]}
    )
    assert (changed.status_code, changed.json()["in_force"]) == (200, True), changed.text
    assert models(gateway, key) == ["other-gpt"]
    broken = yaml.safe_dump({**yaml.safe_load(OTHER), "policies": {"chain": ["no-such-policy"]}})
    refused = owner.put("/configurations/test", json={"text": broken}, headers={"if-match": changed.headers["etag"]})
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "configuration_invalid")
    assert owner.delete("/configurations/test", headers={"if-match": '"1"'}).status_code == 204
    assert models(gateway, key) == ["mock-gpt"]

    assert owner.post(f"/gateway-keys/{made.json()['gateway_key']['id']}/revoke").json()["rollout"]["in_force"]
    assert models(gateway, key) == []

    def recorded() -> list[str]:
        actions = [one["action"] for one in gateway.audit_records("change")]
        return actions if "gateway_key.revoke" in actions else []

    assert until(recorded) == [
        "user.create",
        "session.begin",
        "gateway_key.create",
        "configuration.update",
        "configuration.release",
        "gateway_key.revoke",
    ]
    assert gateway.kt("audit", "verify").returncode == 0
    assert PASSWORD not in gateway.log
    assert key not in gateway.log


def test_a_client_cannot_say_that_it_is_this_machine(gateway: GatewayProcess) -> None:
    def status(**headers: str) -> int:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.get(f"{gateway.url}/api/v1/status", headers=given, trust_env=False).status_code

    token = (gateway.state / "api-token").read_text().strip()
    assert status() == 200
    assert status(host="rebound.example", x_kt_local="1") == 401
    assert status(x_forwarded_for="192.0.2.1", x_kt_local="1", authorization=f"Bearer {token}") == 401
    assert status(origin="https://evil.example", authorization=f"Bearer {token}") == 401
    assert status(authorization=f"Bearer {token}") == 200
    assert httpx.get(f"{gateway.url}/internal/escalations", trust_env=False).status_code == 404


def test_operator_paths_on_an_address_of_their_own(tmp_path: Path) -> None:
    admin = f"{HOST}:{free_port()}"
    with running_gateway(tmp_path, configuration(TARGET, gateway={"admin_listen": admin})) as gateway:
        for path in ("/metrics", "/api/v1/status", "/console/"):
            assert gateway.get(path)[0] == 404, path
        owner = set_up(gateway, f"http://{admin}")
        assert owner.get("/users").status_code == 200
        page = httpx.get(f"http://{admin}/metrics", trust_env=False)
        assert "keeptrusts_gateway_build_info" in page.text
        assert "server" not in page.headers
        assert httpx.post(f"http://{admin}/internal/escalations", content=b"{}", trust_env=False).status_code == 404
        key = owner.post("/gateway-keys", json={"name": "laptop"}).json()["key"]
        assert models(gateway, key) == ["mock-gpt"]
