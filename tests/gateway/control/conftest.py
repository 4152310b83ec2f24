"""A store in a file of its own, and a clock that stands still until it is told otherwise."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.control.store.store import Store


class Clock:
    """Unix time, moved by hand."""

    def __init__(self) -> None:
        self.now = 1_750_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/state/gateway.db"


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a store that is up to date and holds nothing: to migrate one takes 0.2 s, to copy it nothing."""
    path = tmp_path_factory.mktemp("store") / "gateway.db"

    async def make() -> None:
        await (await Store.open(f"sqlite:///{path}")).close()

    asyncio.run(make())
    return path


@pytest.fixture
async def store(url: str, clock: Clock, empty_store: Path) -> AsyncIterator[Store]:
    path = Path(url.removeprefix("sqlite:///"))
    path.parent.mkdir(mode=0o700, exist_ok=True)
    shutil.copyfile(empty_store, path)
    opened = await Store.open(url, clock=clock, busy_seconds=0.05)
    yield opened
    await opened.close()
