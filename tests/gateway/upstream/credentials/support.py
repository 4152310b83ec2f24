"""A machine with real connections and a clock of its own, and servers that answer as the clouds' documentation says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

import orjson

from gateway.ports import Pool
from gateway.upstream.credentials.source import Machine
from gateway.upstream.pool import Pools
from tests.provider import Request, respond

NOW = 1_700_000_000.0


class Wall:
    """The time of day, moved by hand."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@contextlib.asynccontextmanager
async def machine(wall: Callable[[], float] | None = None) -> AsyncIterator[Machine]:
    """Real pools without a proxy."""
    loop = asyncio.get_running_loop()
    pools = Pools(loop, clock=loop.time)
    pool: Pool = pools  # type: ignore[assignment]
    yield Machine(loop, pool, wall or Wall())
    pools.close()
    await asyncio.sleep(0)


def form(request: Request) -> dict[str, str]:
    """The fields of a form, each once."""
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    fields = parse_qs(request.body.decode(), strict_parsing=True)
    assert all(len(values) == 1 for values in fields.values())
    return {name: values[0] for name, values in fields.items()}


def says(answer: Mapping[str, Any], status: int = 200) -> bytes:
    """A JSON answer."""
    return respond(orjson.dumps(answer), status)
