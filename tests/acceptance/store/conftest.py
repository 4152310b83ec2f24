"""The fixtures of the store's own tests, on PostgreSQL: each test has a new database of one server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.control.store.store import Store
from tests.gateway.control.conftest import Clock
from tests.postgres import PostgresServer, postgres_server


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as started:
        yield started


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def url(server: PostgresServer, tmp_path: Path) -> str:
    (tmp_path / "state").mkdir(exist_ok=True)  # which a SQLite store makes for its file
    return server.database()


@pytest.fixture
async def store(url: str, clock: Clock) -> AsyncIterator[Store]:
    opened = await Store.open(url, clock=clock, busy_seconds=0.2)
    yield opened
    await opened.close()
