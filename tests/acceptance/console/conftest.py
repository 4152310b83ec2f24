"""A furnished gateway and a browser, shared by a module.

Where there is no Chromium, or its tests' npm package was not installed, the tests say so; in CI that is a failure.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.acceptance.console.browsing import AXE, browser, chromium
from tests.acceptance.console.stage import Stage, furnish, furnished_gateway
from tests.gateway_process import GatewayProcess


def _need(there: bool, what: str) -> None:
    if not there:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(what)


@pytest.fixture(scope="session")
def opened() -> Iterator[Browser]:
    """The browser; each test has a profile of its own in it."""
    _need(chromium() is not None, "there is no Chromium: make setup-system")
    _need(AXE.exists(), "axe-core is not installed: npm ci --prefix tests/acceptance/console/node")
    with browser() as one:
        yield one


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """What the gateway of this module has been used for."""
    folder = tmp_path_factory.mktemp("furnished")
    return _apart(folder)


def _apart(folder: Path) -> Stage:
    """Playwright's own loop runs in this thread, so the store is filled in another."""
    made: list[Stage] = []
    thread = threading.Thread(
        target=lambda: made.append(asyncio.run(furnish(folder / "state", time.time(), events=1500)))
    )
    thread.start()
    thread.join()
    return made[0]


@pytest.fixture(scope="module")
def gateway(stage: Stage) -> Iterator[GatewayProcess]:
    """The furnished gateway, with two workers."""
    with furnished_gateway(stage.state.parent, "--workers", "2") as running:
        yield running
