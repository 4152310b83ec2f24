"""Fixtures of the tests that play whole exchanges."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.playbook import Play
from tests.talk import Talk


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


@pytest.fixture
def talks(tmp_path: Path) -> Iterator[Callable[..., Talk]]:
    """Makes conversations (settings as of `Play`); each is checked and closed when the test is over."""
    made: list[Talk] = []

    def make(text: str = "", **settings: Any) -> Talk:
        folder = tmp_path / f"talk-{len(made)}"
        folder.mkdir()
        made.append(Talk(folder, text, **settings))
        return made[-1]

    yield make
    for talk in made:
        talk.leave()
        talk.check()
        assert not talk.services.active
        talk.close()
