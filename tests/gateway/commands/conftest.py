"""The command line, run in this process as a user would type it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result

from gateway.commands.main import kt

Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "AZURE_OPENAI_KEY"):
        monkeypatch.delenv(name, raising=False)

    def invoke(*arguments: object, input: str | None = None) -> Result:
        return CliRunner().invoke(kt, [str(argument) for argument in arguments], input=input, prog_name="kt")

    return invoke
