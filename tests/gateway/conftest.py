"""Fixtures of the tests that play whole exchanges."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.playbook import Play


@pytest.fixture
def playbook(tmp_path: Path) -> Iterator[Callable[..., Play]]:
    """Makes plays (settings as of `Play`); each is checked and closed when the test is over."""
    plays: list[Play] = []

    def make(text: str = "", **settings: Any) -> Play:
        folder = tmp_path / f"run-{len(plays)}"
        folder.mkdir()
        plays.append(Play(folder, text, **settings))
        return plays[-1]

    yield make
    for play in plays:
        play.check()
        play.close()


@pytest.fixture
def play(playbook: Callable[..., Play]) -> Play:
    """One configuration, one target (`one`, model `gpt-test`), `audit-logger`, a key without limits."""
    return playbook()
