"""A log, an index of it, and somebody who asks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.control.events.ingest import Catalogue, Indexer
from gateway.control.events.query import Query
from gateway.control.events.schema import open_for_reading
from tests.gateway.control.events.log import NOON, Log

CATALOGUE = Catalogue({("test", "one"): "openai", ("test", "two"): "anthropic"}, frozenset({"gpt-test"}))


class Index:
    """An index that is read to its end whenever a test wants to know something."""

    def __init__(self, folder: Path) -> None:
        self.audit = folder / "audit"
        self.path = folder / "events.db"
        self.indexer = Indexer(self.audit, self.path)
        self.now = float(NOON + 60)

    def catch_up(self) -> list[int]:
        found: list[int] = []
        more = True
        while more:
            numbers, more = self.indexer.step(CATALOGUE, self.now)
            found += numbers
        return found

    @contextlib.contextmanager
    def asked(self) -> Iterator[Query]:
        self.catch_up()
        with contextlib.closing(Query(open_for_reading(self.path))) as query:
            yield query

    def reopen(self) -> None:
        self.indexer.close()
        self.indexer = Indexer(self.audit, self.path)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "audit")


@pytest.fixture
def index(tmp_path: Path, log: Log) -> Iterator[Index]:
    one = Index(tmp_path)
    yield one
    one.indexer.close()
