"""The fixture itself: a gateway that a test starts answers, makes keys and ends."""

from __future__ import annotations

import signal
from pathlib import Path

import orjson
import pytest

from tests.gateway_process import configuration, running_gateway

MOCK = {"id": "one", "provider": "mock", "model": "mock-gpt"}


def test_runs_and_leaves_by_itself(tmp_path: Path) -> None:
    with running_gateway(tmp_path, configuration(MOCK)) as gateway:
        key = gateway.create_key()
        assert gateway.get("/v1/models", {"authorization": f"Bearer {key}"})[0] == 200
        assert gateway.get("/v1/models", {"authorization": "Bearer kt_gk_wrong"})[0] == 401
    assert gateway.process.returncode == 0


def test_may_be_killed(tmp_path: Path) -> None:
    with running_gateway(tmp_path, configuration(MOCK)) as gateway:
        assert gateway.stop(signal.SIGKILL) == -signal.SIGKILL


def test_shows_the_log_of_one_that_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="`pack` is missing"), running_gateway(tmp_path, orjson.dumps({}).decode()):
        pass
