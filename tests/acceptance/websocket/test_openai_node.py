"""The WebSocket clients of the official Node SDK as a judge: runs `tests/sdk/node/websocket.test.js`.

These clients turn every address into `wss://`, so the gateway speaks TLS here, with a certificate that Node.js is told
to trust. Where Node.js or the packages are missing the test is skipped, with the next step; in CI it fails instead.
"""

from __future__ import annotations

import http.client
import os
import re
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.acceptance.websocket.stand import BANNED, BLOCKED, REDACTED, Stand, standing
from tests.gateway.audit.support import eventually
from tests.sdk.test_openai_node import FOLDER, missing


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    leaf = authority.issue_cert("localhost", "127.0.0.1")
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    leaf.private_key_pem.write_to_path(str(folder / "key.pem"))
    (folder / "cert.pem").write_bytes(b"".join(one.bytes() for one in leaf.cert_chain_pems))
    return folder


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory, certificates: Path) -> Iterator[Stand]:
    tls = {"cert_file": str(certificates / "cert.pem"), "key_file": str(certificates / "key.pem")}
    with standing(tmp_path_factory.mktemp("gateway"), gateway={"tls": tls}, ready=False) as one:
        trusting = ssl.create_default_context(cafile=str(certificates / "authority.pem"))
        eventually(lambda: _is_ready(one.gateway.port, trusting), seconds=30.0)
        yield one


def _is_ready(port: int, trusting: ssl.SSLContext) -> bool:
    connection = http.client.HTTPSConnection("localhost", port, context=trusting, timeout=5.0)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def test_node_sdk(stand: Stand, certificates: Path) -> None:
    node = shutil.which("node")
    if node is None:
        missing("Node.js is not installed", "make setup-system")
    if not (FOLDER / "node_modules" / "ws").exists():
        missing("the packages for Node.js are not installed", f"npm ci --prefix {FOLDER.relative_to(Path.cwd())}")
    environment = {
        "PATH": os.environ["PATH"],
        "NODE_EXTRA_CA_CERTS": str(certificates / "authority.pem"),
        "GATEWAY_URL": f"https://localhost:{stand.gateway.port}",
        "GATEWAY_KEY": stand.key,
        "NARROW_KEY": stand.narrow,
        "BANNED": BANNED,
        "REDACTED": REDACTED,
        "BLOCKED": BLOCKED,
    }
    done = subprocess.run(
        [node, "--test", "websocket.test.js"],
        cwd=FOLDER,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\bpass 5", done.stdout), done.stdout
    assert "skipped 0" in done.stdout, done.stdout
    keys = [one.headers.get("sec-websocket-protocol", "") for one in stand.provider.handshakes]
    assert "realtime" in keys
    assert not any("insecure" in one for one in keys)
