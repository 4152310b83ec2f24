"""The official Node SDK as a judge: runs `node/gateway.test.js` against the gateway.

Where Node.js or the packages are missing the test is skipped, with the next step; in CI (`CI=true`) it fails instead.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

from tests.sdk.conftest import BLOCKED_TERM, Stand

FOLDER = Path(__file__).parent / "node"


def missing(what: str, step: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what}. Next step: {step}")
    pytest.skip(f"{what}. Next step: {step}")


def test_node_sdk(stand: Stand) -> None:
    node = shutil.which("node")
    if node is None:
        missing("Node.js is not installed", "make setup-system")
    if not (FOLDER / "node_modules" / "openai").exists():
        missing("the openai package for Node.js is not installed", f"npm ci --prefix {FOLDER.relative_to(Path.cwd())}")
    environment = {
        "PATH": os.environ["PATH"],
        "GATEWAY_URL": stand.gateway.url,
        "GATEWAY_KEY": stand.key,
        "GUARDED_KEY": stand.guarded_key,
        "LIMITED_KEY": stand.gateway.create_key("node-limited", configuration_id="default", rpm=1),
        "BLOCKED_TERM": BLOCKED_TERM,
    }
    done = subprocess.run(
        [node, "--test", "gateway.test.js"],
        cwd=FOLDER,
        env=environment,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\bpass [1-9]", done.stdout), done.stdout
    assert "skipped 0" in done.stdout, done.stdout
