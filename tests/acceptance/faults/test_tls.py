"""TLS towards clients on a running gateway: served, renewed, refused where it cannot be, and never by halves."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.gateway_process import HOST, GatewayProcess, configuration, running_gateway
from tests.process.support import MOCK, chat, children, kill, until


class Issuer:
    """Two files, and whom to trust for them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.settings = {"cert_file": str(folder / "cert.pem"), "key_file": str(folder / "key.pem")}
        self.issue()

    def issue(self, *, key: bool = True) -> None:
        """Another certificate of another authority, each file replaced whole; without `key` the old one stays."""
        authority = trustme.CA()
        leaf = authority.issue_cert("localhost")
        self._write("cert.pem", b"".join(one.bytes() for one in leaf.cert_chain_pems))
        if key:
            self._write("key.pem", leaf.private_key_pem.bytes())
        self.trusting = ssl.create_default_context()
        self.trusting.set_alpn_protocols(["h2", "http/1.1"])
        authority.configure_trust(self.trusting)

    def _write(self, name: str, content: bytes) -> None:
        (self.folder / "new").write_bytes(content)
        os.replace(self.folder / "new", self.folder / name)


def answer(gateway: GatewayProcess, trusting: ssl.SSLContext) -> bytes:
    """The status line of a chat completion, over a connection that trusts only these."""
    with (
        socket.create_connection((HOST, gateway.port), timeout=20) as plain,
        trusting.wrap_socket(plain, server_hostname="localhost") as client,
    ):
        assert client.selected_alpn_protocol() == "http/1.1"
        client.sendall(chat("mock-gpt"))
        return client.recv(65536).partition(b"\r\n")[0]


def serves(gateway: GatewayProcess, trusting: ssl.SSLContext) -> bool:
    assert gateway.process.poll() is None, gateway.log
    try:
        return answer(gateway, trusting) == b"HTTP/1.1 200 OK"
    except (OSError, ssl.SSLError):
        return False


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Issuer:
    return Issuer(tmp_path_factory.mktemp("tls") / "files")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, issuer: Issuer) -> Iterator[GatewayProcess]:
    text = configuration(MOCK, gateway={"tls": issuer.settings, "cors": {"allowed_origins": ["https://app.example"]}})
    folder = tmp_path_factory.mktemp("gateway")
    with running_gateway(folder, text, arguments=["--workers", "2"], ready=False) as gateway:
        until(lambda: serves(gateway, issuer.trusting), "it serves over TLS")
        yield gateway


def test_it_says_where_it_is(gateway: GatewayProcess) -> None:
    until(lambda: f"is ready at https://localhost:{gateway.port}" in gateway.log, "the banner")


def test_clear_text_is_not_answered(gateway: GatewayProcess) -> None:
    with socket.create_connection((HOST, gateway.port), timeout=20) as plain:
        plain.sendall(chat("mock-gpt"))
        try:
            assert b"HTTP/" not in plain.recv(1000)
        except ConnectionResetError:
            pass


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_older_versions_are_refused(gateway: GatewayProcess, issuer: Issuer) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    with socket.create_connection((HOST, gateway.port), timeout=20) as plain, pytest.raises((ssl.SSLError, OSError)):
        old.wrap_socket(plain, server_hostname="localhost")


def test_half_a_renewal_and_then_the_whole(gateway: GatewayProcess, issuer: Issuer) -> None:
    before = issuer.trusting
    issuer.issue(key=False)
    until(lambda: gateway.log.count("a changed certificate cannot be used") == 2, "both workers say so")
    assert "the key does not belong to the certificate" in gateway.log
    assert all(serves(gateway, before) for _ in range(8))
    issuer.issue()
    gateway.process.send_signal(signal.SIGHUP)
    began = time.monotonic()
    until(lambda: gateway.log.count("certificate renewed") == 2, "both workers have it")
    assert time.monotonic() - began < 30
    assert all(serves(gateway, issuer.trusting) for _ in range(8))
    assert not serves(gateway, before)


def test_a_killed_worker_comes_back_with_tls(gateway: GatewayProcess, issuer: Issuer) -> None:
    victim = children(gateway)["worker-0"]
    kill(victim)
    until(lambda: children(gateway).get("worker-0", victim) != victim, "it is started again")
    until(lambda: gateway.log.count('"event":"worker ready"') >= 3, "it serves")
    assert all(serves(gateway, issuer.trusting) for _ in range(8))


def test_a_changed_setting_needs_a_restart(gateway: GatewayProcess, issuer: Issuer) -> None:
    gateway.configuration_file().write_text(configuration(MOCK))
    gateway.process.send_signal(signal.SIGHUP)
    until(lambda: '"setting":"gateway.tls"' in gateway.log, "it says so")
    assert all(serves(gateway, issuer.trusting) for _ in range(4))


@pytest.mark.parametrize("fault", ["missing", "mismatch"])
def test_a_gateway_without_a_good_certificate_does_not_start(tmp_path: Path, fault: str) -> None:
    issuer = Issuer(tmp_path / "files")
    if fault == "missing":
        Path(issuer.settings["key_file"]).unlink()
    else:
        issuer.issue(key=False)
    text = configuration(MOCK, gateway={"tls": issuer.settings})
    with running_gateway(tmp_path / "gateway", text, ready=False) as gateway:
        assert gateway.process.wait(30) == 1
        assert "gateway.tls: " in gateway.log
