"""Keys made with the command line: good at once, gone within a second, limited across workers."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway_process import KT, GatewayProcess, configuration, running_gateway
from tests.process.support import MOCK, Wire, chat, target
from tests.provider import Gate, ScriptedProvider, chunk, head

SSE = head(200, ("content-type", "text/event-stream"), chunked=True)
FIRST = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"first"}}]}\n\n'


@pytest.fixture(scope="module")
def provider() -> Iterator[ScriptedProvider]:
    """Its streams begin and never end."""
    endless = (SSE, chunk(FIRST), Gate())
    with ScriptedProvider(*[endless] * 4).in_thread() as scripted:
        yield scripted


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, provider: ScriptedProvider) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("keys")
    text = configuration(MOCK, target(provider.url))
    with running_gateway(folder, text, configuration(MOCK, name="second"), arguments=["--workers", "2"]) as running:
        yield running


def ask(gateway: GatewayProcess, key: str, model: str = "mock-gpt") -> tuple[int, dict[str, str], bytes]:
    """One request on a connection of its own, so that either worker may get it."""
    with Wire(gateway.port) as wire:
        wire.send(chat(model, key=key))
        return wire.answer()


def test_a_key_is_good_at_once_in_every_worker(gateway: GatewayProcess) -> None:
    for number in range(5):
        key = gateway.create_key(f"key-{number}")
        assert [ask(gateway, key)[0] for _ in range(6)] == [200] * 6


def test_a_key_made_before_the_gateway_ran_is_good(tmp_path: Path) -> None:
    environment = {**os.environ, "KT_STATE_DIR": str(tmp_path / "state")}
    made = subprocess.run(
        [KT, "gateway-key", "create", "--name", "early", "--json"], env=environment, capture_output=True, check=True
    )
    with running_gateway(tmp_path, configuration(MOCK)) as gateway:
        assert ask(gateway, json.loads(made.stdout)["key"])[0] == 200


def test_a_key_selects_its_configuration(gateway: GatewayProcess) -> None:
    assert ask(gateway, gateway.create_key("first"), "gpt-4o-none")[0] == 404
    bound = gateway.create_key("bound", configuration_id="second")
    status, _, body = ask(gateway, bound, "gpt-4o")
    assert (status, json.loads(body)["error"]["code"]) == (404, "model_not_found")
    assert b"configuration second" in body


def test_revoking_ends_streams_and_refuses_the_next_call(gateway: GatewayProcess) -> None:
    key = gateway.create_key("to-revoke")
    with Wire(gateway.port) as wire:
        wire.send(chat(stream=True, key=key))
        wire.read_until(b"first")
        gateway.kt("gateway-key", "revoke", "to-revoke")
        revoked = time.monotonic()
        rest = wire.read_to_end()
        taken = time.monotonic() - revoked
    assert b'"code":"invalid_api_key"' in rest
    assert b"[DONE]" not in rest
    assert taken < 1.0, "the bar: within one second"
    status, _, body = ask(gateway, key)
    assert status == 401
    assert b"was revoked" in body


def test_expiry_ends_streams_too(gateway: GatewayProcess) -> None:
    key = gateway.create_key("short", expires_in="2s")
    with Wire(gateway.port) as wire:
        wire.send(chat(stream=True, key=key))
        wire.read_until(b"first")
        assert b'"code":"invalid_api_key"' in wire.read_to_end()
    assert ask(gateway, key)[0] == 401


def test_rotation_keeps_the_old_key_for_the_overlap(gateway: GatewayProcess) -> None:
    old = gateway.create_key("to-rotate")
    done = gateway.kt("gateway-key", "rotate", "to-rotate", "--overlap", "1h", "--json")
    new = json.loads(done.stdout)["key"]
    assert new != old
    assert ask(gateway, old)[0] == ask(gateway, new)[0] == 200


def test_an_unknown_key_is_refused_without_a_hint(gateway: GatewayProcess) -> None:
    status, _, body = ask(gateway, "kt_gk_" + "0" * 38)
    assert status == 401
    assert b"revoked" not in body
    assert b"expired" not in body


def test_a_limit_holds_over_both_workers(gateway: GatewayProcess) -> None:
    key = gateway.create_key("limited", rpm=10)
    answers = [ask(gateway, key) for _ in range(30)]
    admitted = sum(status == 200 for status, _, _ in answers)
    assert 10 <= admitted <= 12, "at most one request per worker beyond the limit"
    status, fields, body = answers[-1]
    assert (status, json.loads(body)["error"]["code"]) == (429, "rate_limit_exceeded")
    assert int(fields["retry-after"]) > 0
    assert fields["x-ratelimit-limit-requests"] == "10"
