"""`POST /api/v1/explain` on the control process's own HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.control.api import plane_of, serving
from gateway.control.api_token import api_token
from gateway.run_file import ConfigurationText, RunFile, write_run_file
from tests.playbook import configuration, target

CHAT: dict[str, Any] = {"model": "gpt-test", "messages": [{"role": "user", "content": "Hello"}], "seed": 7}
CLAUDE = configuration(target("claude", provider="anthropic", upstream_model="claude-sonnet-4-5"))


class Source:
    """A control process without a store."""

    def __init__(self, run_folder: Path) -> None:
        self.run_folder = run_folder

    def status(self, now: float) -> dict[str, Any]:
        return {}

    def store(self) -> None:
        return None


def put_in_force(folder: Path, text: str, generation: int) -> None:
    write_run_file(folder, RunFile(str(generation), (ConfigurationText("play.yaml", text),), generation))


@pytest.fixture
async def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Source]:
    monkeypatch.setenv("PROVIDER_KEY", "sk-provider")
    folder = tmp_path / "state" / "run-1"
    folder.mkdir(parents=True)
    one = Source(folder)
    async with serving(plane_of(one)):
        yield one


@pytest.fixture
async def http(source: Source) -> AsyncIterator[aiohttp.ClientSession]:
    token = api_token(source.run_folder.parent)
    connector = aiohttp.UnixConnector(str(source.run_folder / "control.sock"))
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession("http://control", connector=connector, headers=headers) as session:
        yield session


async def ask(http: aiohttp.ClientSession, **question: Any) -> tuple[int, Any]:
    async with http.post("/api/v1/explain", json=question) as answer:
        return answer.status, await answer.json()


async def test_it_explains_under_what_is_in_force(source: Source, http: aiohttp.ClientSession) -> None:
    put_in_force(source.run_folder, CLAUDE, 1)
    status, told = await ask(http, request=CHAT)
    assert (status, told["outcome"]["target"]) == (200, "claude")
    assert told["targets"][0]["notes"][0].startswith("seed: ")
    assert "sk-provider" not in str(told)
    put_in_force(source.run_folder, configuration(target("gpt")), 2)
    assert (await ask(http, request=CHAT))[1]["outcome"]["target"] == "gpt"


async def test_before_there_is_a_configuration(http: aiohttp.ClientSession) -> None:
    status, told = await ask(http, request=CHAT)
    assert (status, told["error"]["code"]) == (503, "overloaded")


async def test_it_wants_the_token(source: Source, http: aiohttp.ClientSession) -> None:
    put_in_force(source.run_folder, CLAUDE, 1)
    for credential in ("", "Bearer wrong", "Basic x"):
        async with http.post(
            "/api/v1/explain", json={"request": CHAT}, headers={"Authorization": credential}
        ) as answer:
            assert answer.status == 401


async def test_what_is_no_question(source: Source, http: aiohttp.ClientSession) -> None:
    put_in_force(source.run_folder, CLAUDE, 1)
    assert (await ask(http))[0] == 400
    assert (await ask(http, request=CHAT, unknown=1))[0] == 400
    assert (await ask(http, request=CHAT, path="/nowhere"))[0] == 404
    status, told = await ask(http, request={**CHAT, "user": "x" * (1 << 20)})
    assert (status, told["error"]["code"]) == (413, "request_too_large")
