"""Who may call a running gateway, from where and by way of whom; and that a reload changes it for who is connected."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import pytest

from tests.gateway_process import GatewayProcess, configuration, running_gateway
from tests.process.support import MOCK, Wire, chat, readiness, until

PAGE = "https://app.example"


def text(*allowed: str) -> str:
    settings = {
        "ip_allowlist": list(allowed),
        "trusted_proxies": ["127.0.0.1"],
        "cors": {"allowed_origins": [PAGE], "max_age_seconds": 60},
        "limits": {"json_depth": 8, "chunk_overhead_bytes": 256},
    }
    return configuration(MOCK, gateway=settings)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with running_gateway(tmp_path_factory.mktemp("edge"), text("127.0.0.1", "10.0.0.0/8", "192.0.2.0/24")) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def key(gateway: GatewayProcess) -> str:
    return gateway.create_key()


def asked_by(wire: Wire, address: str, key: str) -> tuple[int, str]:
    wire.send(chat("mock-gpt", key=key, x_forwarded_for=address))
    status, _, body = wire.answer()
    return status, json.loads(body).get("error", {}).get("code", "")


def test_the_log_has_the_client_and_not_its_proxy(gateway: GatewayProcess, key: str) -> None:
    with Wire(gateway.port) as wire:
        for address in ("10.1.1.1", "10.1.1.2", "6.6.6.6, 10.1.1.3"):
            assert asked_by(wire, address, key) == (200, "")

    def recorded() -> bool:
        return {"10.1.1.1", "10.1.1.2", "10.1.1.3"} <= {row["client"] for row in gateway.audit_records()}

    until(recorded, "all three are recorded")


def test_who_is_not_on_the_list(gateway: GatewayProcess, key: str) -> None:
    with Wire(gateway.port) as wire:
        assert asked_by(wire, "203.0.113.1", key) == (403, "address_not_allowed")
        assert wire.read_to_end() == b""


def test_limits_that_were_lowered(gateway: GatewayProcess, key: str) -> None:
    for body in (b'{"model":"mock-gpt","messages":[],"metadata":' + b"[" * 8 + b"]" * 8 + b"}",):
        with Wire(gateway.port) as wire:
            head = chat("mock-gpt", key=key).partition(b"content-length")[0]
            wire.send(head + b"content-length: %d\r\n\r\n" % len(body) + body)
            status, _, said = wire.answer()
            assert (status, json.loads(said)["error"]["code"]) == (400, "invalid_json")
    with Wire(gateway.port) as wire:
        head = chat("mock-gpt", key=key).partition(b"content-length")[0]
        wire.send(head + b"transfer-encoding: chunked\r\n\r\n1;" + b"x" * 300 + b"\r\n{\r\n0\r\n\r\n")
        status, _, said = wire.answer()
        assert (status, json.loads(said)["error"]["code"]) == (400, "malformed_http")


def test_a_page_that_may_call(gateway: GatewayProcess, key: str) -> None:
    with Wire(gateway.port) as wire:
        wire.send(
            b"OPTIONS /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\norigin: %b\r\n"
            b"access-control-request-method: POST\r\naccess-control-request-headers: authorization\r\n\r\n"
            % PAGE.encode()
        )
        assert wire.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 204 ")
        for _ in range(4):
            wire.send(chat("mock-gpt", key=key, origin=PAGE))
            status, fields, _ = wire.answer()
            assert (status, fields["access-control-allow-origin"]) == (200, PAGE)


def test_a_list_that_becomes_shorter_counts_for_who_is_connected(gateway: GatewayProcess, key: str) -> None:
    with Wire(gateway.port) as wire:
        for _ in range(3):
            assert asked_by(wire, "192.0.2.1", key) == (200, "")
        before = readiness(gateway)["configurations"]
        gateway.configuration_file().write_text(text("127.0.0.1", "10.0.0.0/8"))
        gateway.process.send_signal(signal.SIGHUP)
        until(lambda: readiness(gateway)["configurations"] != before, "the shorter list is in force")
        assert asked_by(wire, "192.0.2.1", key) == (403, "address_not_allowed")
