"""The API does what its OpenAPI description says: schemathesis makes requests up from it, right and wrong ones.

Every operation, called as an owner on a real server: no answer is a fault of the server, every status and shape is one
that the description names, what it allows is taken and what it forbids is refused.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
from aiohttp import web
from argon2 import PasswordHasher
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from gateway.control.api import application, plane_of
from gateway.control.identity.passwords import Passwords
from gateway.control.rest.openapi import describe
from gateway.control.rest.table import ROUTES
from gateway.control.store.store import Store
from gateway.run_file import ConfigurationText, RunFile, write_run_file
from tests.gateway.control.rest.conftest import Source
from tests.playbook import configuration, target

CALLED = [route for route in ROUTES if not route.endless]
DEEPER = ("explain", "usage", "events", "change_configuration", "release_configuration", "roll_back_configuration")
"""What these take depends on more than a schema can say: what there is, which version is in force, one time before
another. A cursor, too, is only good where a list has given it."""

NUMBERS_AS_TIMES = ("usage", "events")
"""These take Unix seconds for a time as well."""

schema = schemathesis.openapi.from_dict(describe(CALLED))
# One wrong method for each path is enough: which methods there are is one table, as is what answers others.
schema.config.phases.coverage.unexpected_methods = {"OPTIONS"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """The API in a thread of its own: its URL, and the credential of an owner."""
    run_folder: Path = tmp_path_factory.mktemp("api") / "state" / "run-41002"
    run_folder.mkdir(parents=True)
    write_run_file(run_folder, RunFile("1", (ConfigurationText("play.yaml", configuration(target("gpt"))),), 1))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> tuple[web.AppRunner, Store, Passwords, int]:
        store = await Store.open(f"sqlite:///{run_folder.parent}/gateway.db")
        passwords = Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
        runner = web.AppRunner(application(plane_of(Source(run_folder, store), passwords=passwords)), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner, store, passwords, runner.addresses[0][1]

    runner, store, passwords, port = asyncio.run_coroutine_threadsafe(start(), loop).result(20)
    token = (run_folder.parent / "api-token").read_text().strip()
    yield f"http://127.0.0.1:{port}", {"Authorization": f"Bearer {token}"}

    async def stop() -> None:
        await runner.cleanup()
        await store.close()
        passwords.close()

    asyncio.run_coroutine_threadsafe(stop(), loop).result(20)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@schemathesis.hook
def map_body(context: schemathesis.HookContext, body: Any) -> Any:
    """Whole numbers as integers: to JSON Schema 60.0 is one, to the API it is not."""
    return _integral(body)


def _integral(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: _integral(one) for name, one in value.items()}
    return [_integral(one) for one in value] if isinstance(value, list) else value


@schema.parametrize()
@hypothesis.settings(
    max_examples=2,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
)
def test_every_operation_keeps_its_word(case: schemathesis.Case, server: tuple[str, dict[str, str]]) -> None:
    url, headers = server
    name = case.operation.definition.raw["operationId"]
    excluded = [positive_data_acceptance] if name in DEEPER or "cursor" in (case.query or {}) else []
    if name in NUMBERS_AS_TIMES:
        excluded.append(negative_data_rejection)
    case.call_and_validate(base_url=url, headers=headers, excluded_checks=excluded)
