"""`kt user`, `kt team` and `kt gateway-key`: the same on this machine's store and on a gateway elsewhere."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from gateway.control.api import application, plane_of
from gateway.control.identity.roles import Role
from gateway.control.store.records import KeyRules
from gateway.control.store.store import Store
from gateway.control.store.trail import THE_GATEWAY
from tests.gateway.commands.conftest import Run
from tests.gateway.control.rest.conftest import Source

LINK = re.compile(r"http://localhost:41002/console/invitation\?token=\S{43}\n")


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KT_STATE_DIR", str(tmp_path))
    for name in ("KT_STORE_URL", "KT_API_URL", "KT_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


class There:
    """A gateway elsewhere: its URL, and access keys by role."""

    def __init__(self) -> None:
        self.url = ""
        self.keys: dict[str, str] = {}


@asynccontextmanager
async def elsewhere(folder: Path) -> AsyncIterator[There]:
    run_folder = folder / "run-41002"
    run_folder.mkdir(parents=True)
    store = await Store.open(f"sqlite:///{folder}/gateway.db")
    plane = plane_of(Source(run_folder, store))
    runner = web.AppRunner(application(plane), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    there = There()
    there.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    await store.teams.create("research", "", KeyRules(), THE_GATEWAY)
    team = await store.teams.get("research")
    for role in Role:
        user = await store.users.create(f"{role.value}@example.com", role.value, role, THE_GATEWAY, team_ids=[team.id])
        made = await store.access.create_access_key(user.id, "test", None, THE_GATEWAY)
        there.keys[role.value] = made.secret.reveal()
    yield there
    await runner.cleanup()
    plane.passwords.close()
    await store.close()


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[There]:
    """The gateway elsewhere, in a thread of its own; an owner's access key is in the environment."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    context = elsewhere(tmp_path / "elsewhere")
    found = asyncio.run_coroutine_threadsafe(context.__aenter__(), loop).result(20)
    monkeypatch.setenv("KT_ACCESS_KEY", found.keys["owner"])
    yield found
    asyncio.run_coroutine_threadsafe(context.__aexit__(None, None, None), loop).result(20)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture(params=["here", "elsewhere"])
def place(request: pytest.FixtureRequest) -> list[str]:
    """The options that say where."""
    return [] if request.param == "here" else ["--api", request.getfixturevalue("there").url]


def told(run: Run, *arguments: str) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return orjson.loads(result.stdout)


def test_users(run: Run, place: list[str]) -> None:
    made = run("user", "create", "--email", "Ada@Example.org", "--role", "owner", *place)
    assert made.exit_code == 0, made.output
    assert LINK.fullmatch(made.stdout)
    assert "ada@example.org (user_" in made.stderr
    again = run("user", "create", "--email", "ada@example.org", *place)
    assert (again.exit_code, "there is a user 'ada@example.org' already" in again.stderr) == (1, True)
    told(run, "user", "create", "--email", "bob@example.org", *place)
    edited = told(run, "user", "edit", "bob@example.org", "--role", "auditor", "--disable", *place)
    assert (edited["role"], edited["active"]) == ("auditor", False)
    found = told(run, "user", "list", "--search", "EXAMPLE.ORG", *place)
    assert {one["email"] for one in found} == {"ada@example.org", "bob@example.org"}
    assert LINK.fullmatch(run("user", "invite", "bob@example.org", *place).stdout)
    assert run("user", "sign-out", "bob@example.org", *place).exit_code == 0
    assert "auditor" in run("user", "show", "bob@example.org", *place).stdout
    assert run("user", "delete", "bob@example.org", *place).exit_code == 0
    missing = run("user", "show", "bob@example.org", *place)
    assert (missing.exit_code, "there is no user" in missing.stderr) == (1, True)


def test_a_set_up_link_while_there_is_nobody(run: Run) -> None:
    first, second = run("user", "setup-link"), run("user", "setup-link")
    for made in (first, second):
        assert re.fullmatch(r"http://localhost:41002/console/setup\?token=\S{43}\n", made.stdout), made.output
    assert first.stdout != second.stdout
    told(run, "user", "create", "--email", "ada@example.org", "--role", "owner")
    refused = run("user", "setup-link")
    assert (refused.exit_code, "there are users already" in refused.stderr) == (1, True)


def test_teams(run: Run, place: list[str]) -> None:
    told(run, "user", "create", "--email", "ada@example.org", *place)
    made = told(run, "team", "create", "sales", "--models", "gpt-4o,o3", "--max-rpm", "60", *place)
    assert (made["key_rules"]["models"], made["key_rules"]["requests_per_minute"]) == (["gpt-4o", "o3"], 60)
    edited = told(run, "team", "edit", "sales", "--max-expires-in", "90d", "--name", "selling", *place)
    assert edited["key_rules"]["expires_in_seconds"] == 90 * 86_400
    assert edited["key_rules"]["requests_per_minute"] == 60
    assert "is in 'selling'" in run("team", "add", "selling", "ada@example.org", *place).stdout
    assert [one["email"] for one in told(run, "team", "members", "selling", *place)] == ["ada@example.org"]
    assert "selling" in run("team", "list", *place).stdout
    assert "requests_per_minute" in run("team", "show", "selling", *place).stdout
    told(run, "team", "remove", "selling", "ada@example.org", *place)
    assert told(run, "team", "members", "selling", *place) == []
    bare = told(run, "team", "edit", "selling", "--no-rules", *place)
    assert set(bare["key_rules"].values()) == {None}
    limited = told(run, "team", "edit", "selling", "--rpm", "600", "--budget-usd", "100", *place)
    assert (limited["limits"]["requests_per_minute"], limited["limits"]["budget_usd_per_month"]) == (600, 100)
    limited = told(run, "team", "edit", "selling", "--concurrency", "5", *place)
    assert [value for value in limited["limits"].values() if value] == [600, 5, 100]
    assert set(told(run, "team", "edit", "selling", "--no-limits", *place)["limits"].values()) == {None}
    whole = told(run, "team", "create", "interns", "--tpm", "1000", *place)
    assert whole["limits"]["tokens_per_minute"] == 1000
    assert run("team", "delete", "selling", *place).exit_code == 0
    assert run("team", "edit", "research", *place).exit_code == 2


def test_what_was_done_on_this_machine_is_noted_with_its_user(run: Run, state: Path) -> None:
    run("user", "create", "--email", "ada@example.org", "--role", "owner")
    run("gateway-key", "create", "--name", "k")

    async def changes() -> list[tuple[str, str]]:
        store = await Store.open(f"sqlite:///{state}/gateway.db")
        found = await store.trail.search()
        await store.close()
        return [(one.action, one.via) for one in found]

    assert asyncio.run(changes()) == [("gateway_key.create", "command_line"), ("user.create", "command_line")]


def test_gateway_keys_elsewhere(run: Run, there: There, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KT_API_URL", there.url)
    monkeypatch.setenv("KT_ACCESS_KEY", there.keys["developer"])
    made = run("gateway-key", "create", "--name", "laptop", "--expires-in", "30d", "--models", "gpt-4o")
    assert made.exit_code == 0, made.output
    key = made.stdout.strip()
    (listed,) = told(run, "gateway-key", "list", "--search", "laptop")
    assert (listed["owner"], listed["team"], listed["models"]) == ("developer@example.com", "research", ["gpt-4o"])
    shown = run("gateway-key", "show", "laptop")
    assert key[:12] in shown.stdout
    found = run("gateway-key", "identify", "-", input=f"leaked: {key}")
    assert "it is active" in found.stderr
    rotated = told(run, "gateway-key", "rotate", "laptop", "--overlap", "0")
    assert (rotated["key"] != key, rotated["name"]) == (True, "laptop")
    assert told(run, "gateway-key", "revoke", rotated["id"])["state"] == "revoked"
    assert run("gateway-key", "delete", rotated["id"]).exit_code == 0
    unknown = run("gateway-key", "show", "gk_none")
    assert (unknown.exit_code, "no gateway key has" in unknown.stderr) == (1, True)


def test_an_access_key_more(run: Run, there: There, monkeypatch: pytest.MonkeyPatch) -> None:
    made = run("user", "access-key", "--name", "ci", "--expires-in", "90d", "--api", there.url)
    assert re.fullmatch(r"kt_ak_[0-9A-Za-z]{38}\n", made.stdout)
    monkeypatch.setenv("KT_ACCESS_KEY", made.stdout.strip())
    assert run("user", "list", "--api", there.url).exit_code == 0
    here = run("user", "access-key", "--name", "ci")
    assert (here.exit_code, "belongs to no user" in here.stderr) == (1, True)


@pytest.mark.parametrize(
    ("key", "arguments", "said"),
    [
        ("", ["--api", "https://gateway.example"], "set KT_ACCESS_KEY"),
        ("k", ["--api", "http://gateway.example"], "clear text"),
        ("k", ["--api", "gateway.example"], "no URL"),
        ("k", ["--api", "https://gateway.example", "--store", "x.db"], "two places"),
    ],
)
def test_wrong_usage(run: Run, monkeypatch: pytest.MonkeyPatch, key: str, arguments: list[str], said: str) -> None:
    monkeypatch.setenv("KT_ACCESS_KEY", key)
    result = run("user", "list", *arguments)
    assert (result.exit_code, said in result.stderr) == (2, True), result.output


def test_a_gateway_that_is_not_there_or_refuses(run: Run, there: There, monkeypatch: pytest.MonkeyPatch) -> None:
    away = run("user", "list", "--api", "http://127.0.0.1:9")
    assert (away.exit_code, "cannot be reached" in away.stderr) == (1, True)
    monkeypatch.setenv("KT_ACCESS_KEY", there.keys["developer"])
    refused = run("user", "list", "--api", there.url)
    assert (refused.exit_code, "Your role, developer, does not allow it" in refused.stderr) == (1, True)
