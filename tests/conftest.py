"""For all tests: a failed test shows the logs of the gateways that ran beside it."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from tests.gateway_process import GatewayProcess

SHOWN_LINES = 60


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Generator[None, Any, Any]:
    report = yield
    if report.failed:
        for gateway in GatewayProcess.running:
            last = "\n".join(gateway.log.splitlines()[-SHOWN_LINES:])
            report.sections.append((f"log of {gateway!r}", last))
    return report
