"""The example of docs/websocket.md, as it is written, against a real gateway."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.websocket.stand import Stand, standing

PAGE = Path(__file__).parents[3] / "docs/websocket.md"


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with standing(tmp_path_factory.mktemp("gateway")) as one:
        yield one


def test_chat_over_a_websocket(stand: Stand) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    code = code.replace("localhost:41002", f"127.0.0.1:{stand.gateway.port}")
    environment = {**stand.gateway.environment, "GATEWAY_KEY": stand.key}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["Mock answer to: Hello", "Mock answer to: And again"]
