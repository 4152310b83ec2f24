"""`kt gateway-key`, on a real store, with and without workers that follow it."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner

from gateway.commands.main import kt
from gateway.control import keys
from gateway.control.feed import KeyLog
from gateway.control.store.glance import glance
from gateway.control.store.spending import Spent
from gateway.control.store.store import Store
from gateway.key_log import log_path
from gateway.keyring import WorkerSlots, WorkerState
from gateway.purse import month_of
from gateway.run_file import ConfigurationText, RunFile, write_run_file
from tests.gateway.commands.conftest import Run

KEY = re.compile(r"kt_gk_[0-9A-Za-z]{38}")
NO_GATEWAY = "No running gateway uses this store"
CONFIGURATION = """\
pack: {name: my-config, version: 1.0.0, enabled: true}
providers:
  targets:
    - {id: one, provider: mock, model: mock-1}
policies: {chain: [audit-logger]}
"""


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KT_STATE_DIR", str(tmp_path))
    monkeypatch.delenv("KT_STORE_URL", raising=False)
    return tmp_path


@pytest.fixture
def create(run: Run) -> Callable[..., dict[str, Any]]:
    def invoke(*arguments: object) -> dict[str, Any]:
        result = run("gateway-key", "create", "--json", *arguments)
        assert result.exit_code == 0, result.output
        made = orjson.loads(result.stdout)
        assert isinstance(made, dict)
        return made

    return invoke


def test_the_key_alone_is_on_standard_output(run: Run, state: Path) -> None:
    result = run("gateway-key", "create", "--name", "dev-team-key", "--configuration-id", "my-config")
    assert result.exit_code == 0
    secret = result.stdout.strip()
    assert KEY.fullmatch(secret)
    assert keys.checksum_ok(secret)
    assert secret not in result.stderr
    assert "'dev-team-key'" in result.stderr
    assert "never expires" in result.stderr
    assert NO_GATEWAY in result.stderr
    found = glance(str(state / "gateway.db"))
    assert found is not None
    (kept,) = found.keys
    assert (kept.name, kept.configuration_id, kept.hash) == (
        "dev-team-key",
        "my-config",
        keys.hash_key(secret.encode()),
    )


def test_every_option_of_create(create: Callable[..., dict[str, Any]]) -> None:
    made = create(
        *("--name", "ci", "--configuration-id", "c", "--expires-in", "90d", "--team", "platform", "--owner", "ada"),
        *("--rpm", 60, "--tpm", 100_000, "--concurrency", 4, "--budget-usd", 20, "--models", "b, a,"),
    )
    assert KEY.fullmatch(made["key"])
    wanted = {
        "name": "ci",
        "prefix": made["key"][:12],
        "state": "active",
        "configuration_id": "c",
        "team": "platform",
        "owner": "ada",
        "models": ["a", "b"],
        "requests_per_minute": 60,
        "tokens_per_minute": 100_000,
        "max_concurrency": 4,
        "budget_usd_per_month": 20.0,
        "spent_usd_this_month": 0.0,
        "revoked_at": None,
        "rotated_to": None,
        "last_used_at": None,
        "request_count": 0,
    }
    assert {name: made[name] for name in wanted} == wanted
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", made["expires_at"])
    assert "hash" not in made


def test_what_a_key_has_spent_is_listed(run: Run, create: Callable[..., dict[str, Any]], state: Path) -> None:
    frugal = create("--name", "frugal", "--budget-usd", 1)
    create("--name", "free")

    async def spend() -> None:
        store = await Store.open(str(state / "gateway.db"))
        month = month_of(time.time()).number
        await store.spending.write("here", [Spent("key", frugal["id"], month, 250_000_000)])
        await store.spending.write("there", [Spent("key", frugal["id"], month, 1)])
        await store.close()

    asyncio.run(spend())
    listed = orjson.loads(run("gateway-key", "list", "--json").stdout)
    assert {one["name"]: one["spent_usd_this_month"] for one in listed} == {"frugal": 0.250000001, "free": None}
    assert orjson.loads(run("gateway-key", "show", "frugal", "--json").stdout)["spent_usd_this_month"] == 0.250000001


def test_list_is_a_table_for_people_and_json_for_programs(run: Run, create: Callable[..., dict[str, Any]]) -> None:
    first = create("--name", "first", "--team", "red")
    second = create("--name", "second")
    run("gateway-key", "revoke", "first")
    table = run("gateway-key", "list").stdout
    assert table.splitlines()[0].split()[:3] == ["ID", "NAME", "PREFIX"]
    assert [line.split()[:4] for line in table.splitlines()[1:]] == [
        [second["id"], "second", second["prefix"], "active"],
        [first["id"], "first", first["prefix"], "revoked"],
    ]

    def listed(*arguments: str) -> list[str]:
        return [row["name"] for row in orjson.loads(run("gateway-key", "list", "--json", *arguments).stdout)]

    assert listed() == ["second", "first"]
    assert listed("--state", "active") == ["second"]
    assert listed("--team", "red") == ["first"]
    assert listed("--search", "eco") == ["second"]
    assert listed("--owner", "nobody") == []


@pytest.mark.parametrize("by", ["id", "name", "prefix"])
def test_show(by: str, run: Run, create: Callable[..., dict[str, Any]]) -> None:
    made = create("--name", "dev-team-key", "--models", "gpt-4o")
    shown = orjson.loads(run("gateway-key", "show", made[by], "--json").stdout)
    assert shown == {name: value for name, value in made.items() if name != "key"}
    table = run("gateway-key", "show", made[by]).stdout
    assert re.search(r"models +gpt-4o", table)
    assert "owner" not in table, "what is not set is not shown"


def test_rotate_prints_the_new_key_and_sets_the_old_one_an_end(run: Run, create: Callable[..., dict[str, Any]]) -> None:
    old = create("--name", "ci", "--team", "platform", "--rpm", 60)
    result = run("gateway-key", "rotate", "ci", "--overlap", "1h")
    assert result.exit_code == 0
    assert KEY.fullmatch(result.stdout.strip())
    assert f"The old key ({old['prefix']}…) stays good until 20" in result.stderr
    new = orjson.loads(run("gateway-key", "show", "ci", "--json").stdout)
    assert (new["team"], new["requests_per_minute"]) == ("platform", 60)
    ended = orjson.loads(run("gateway-key", "show", old["id"], "--json").stdout)
    assert ended["rotated_to"] == new["id"] != old["id"]
    assert ended["state"] == "active"
    assert "stays good" not in run("gateway-key", "rotate", "ci", "--overlap", "0").stderr
    assert orjson.loads(run("gateway-key", "show", new["id"], "--json").stdout)["state"] == "expired"
    again = run("gateway-key", "rotate", new["id"])
    assert (again.exit_code, again.stdout) == (1, "")
    assert "is expired" in again.stderr


def test_revoke_and_delete(run: Run, create: Callable[..., dict[str, Any]]) -> None:
    made = create("--name", "a")
    assert run("gateway-key", "revoke", "a").stdout == f"Gateway key 'a' ({made['id']}) is revoked.\n"
    assert orjson.loads(run("gateway-key", "revoke", "a", "--json").stdout)["state"] == "revoked"
    assert run("gateway-key", "delete", "a").stdout == f"Gateway key 'a' ({made['id']}) is deleted.\n"
    assert orjson.loads(run("gateway-key", "list", "--json").stdout) == []


def test_identify_a_leaked_key(run: Run, create: Callable[..., dict[str, Any]]) -> None:
    made = create("--name", "leaked", "--owner", "ada")
    given = CliRunner().invoke(kt, ["gateway-key", "identify", "-", "--json"], input=f"  {made['key']}\n")
    assert given.exit_code == 0
    assert orjson.loads(given.stdout)["owner"] == "ada"
    assert f"kt gateway-key revoke {made['id']}" in given.stderr
    run("gateway-key", "revoke", "leaked")
    given = run("gateway-key", "identify", made["key"])
    assert (given.exit_code, given.stderr) == (0, "")
    assert "revoked" in given.stdout


def test_identify_the_keys_in_a_text(run: Run, create: Callable[..., dict[str, Any]]) -> None:
    first, second = create("--name", "first"), create("--name", "second")
    text = f"KEY={first['key']}\nother: '{second['key']}', {first['key']}, {keys.generate().reveal()}, x{first['key']}"
    result = run("gateway-key", "identify", "-", "--json", input=text)
    assert [one["name"] for one in orjson.loads(result.stdout)] == ["first", "second"]
    assert result.stderr.count("it is active") == 2


def test_identify_what_is_no_key_or_not_ours(run: Run, create: Callable[..., dict[str, Any]]) -> None:
    made = create("--name", "a")
    strange = keys.generate().reveal()
    for text, message in ((made["key"][:-1], "checksum"), ("a", "checksum"), (strange, "no such key")):
        result = run("gateway-key", "identify", text)
        assert (result.exit_code, result.stdout) == (1, "")
        assert message in result.stderr
        assert text not in result.stderr or text == "a"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--name"),
        (("--name", " "), "printable"),
        (("--name", "a\nb"), "printable"),
        (("--name", "a", "--expires-in", "soon"), "90d"),
        (("--name", "a", "--expires-in", "0"), "90d"),
        (("--name", "a", "--rpm", "0"), "rpm"),
        (("--name", "a", "--models", ","), "--models"),
        (("--name", "a", "--colour", "red"), "--colour"),
    ],
)
def test_wrong_usage_makes_no_key(arguments: tuple[str, ...], message: str, run: Run, state: Path) -> None:
    result = run("gateway-key", "create", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert not (state / "gateway.db").exists()


@pytest.mark.parametrize("command", ["show", "rotate", "revoke", "delete"])
def test_an_unknown_key_is_a_failure(command: str, run: Run, create: Callable[..., dict[str, Any]]) -> None:
    create("--name", "a")
    result = run("gateway-key", command, "nobody")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no gateway key has the id, name or prefix 'nobody'" in result.stderr


def test_without_a_store_nothing_is_listed_and_none_is_made(run: Run, state: Path) -> None:
    result = run("gateway-key", "list")
    assert result.exit_code == 1
    assert f"there is no store at {state / 'gateway.db'}" in result.stderr
    assert not (state / "gateway.db").exists()


def test_another_store(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("gateway-key", "create", "--name", "a", "--store", tmp_path / "other.db")
    assert "a" in run("gateway-key", "list", "--store", f"sqlite:///{tmp_path}/other.db").stdout
    monkeypatch.setenv("KT_STORE_URL", f"sqlite:///{tmp_path}/other.db")
    assert "a" in run("gateway-key", "list").stdout
    refused = run("gateway-key", "list", "--store", "mysql://user:secret@host/db")
    assert refused.exit_code == 1
    assert "not supported" in refused.stderr
    assert "secret" not in refused.stderr


class Worker:
    """A worker as far as its run folder tells: it applies whatever the store has, or nothing more."""

    def __init__(self, state: Path) -> None:
        self._store = str(state / "gateway.db")
        found = glance(self._store)
        assert found is not None
        self.folder = state / "run-41002"
        self.folder.mkdir()
        KeyLog(log_path(self.folder)).begin(found.store_id, found.revision, found.keys)
        write_run_file(self.folder, RunFile("ab" * 32, (ConfigurationText("policy-config.yaml", CONFIGURATION),)))
        self._slots = WorkerSlots(self.folder, 0)
        self._slots.publish(state=WorkerState.READY, keys_revision=found.revision, heartbeat=time.time())
        self.applies = threading.Event()
        self.applies.set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        while not self._stopping.wait(0.01):
            found = glance(self._store)
            self._slots.publish(heartbeat=time.time())
            if found is not None and self.applies.is_set():
                self._slots.publish(keys_revision=found.revision)

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()


@pytest.fixture
def worker(create: Callable[..., dict[str, Any]], state: Path) -> Iterator[Worker]:
    create("--name", "first")
    made = Worker(state)
    yield made
    made.stop()


def test_a_change_is_in_force_when_the_command_ends(worker: Worker, run: Run) -> None:
    for arguments in (("create", "--name", "a"), ("rotate", "a"), ("revoke", "first"), ("delete", "first")):
        result = run("gateway-key", *arguments)
        assert result.exit_code == 0
        assert NO_GATEWAY not in result.stderr
        assert "warning" not in result.stderr
        (status,) = WorkerSlots.read(worker.folder)
        found = glance(worker._store)
        assert found is not None
        assert status.keys_revision == found.revision


def test_a_gateway_that_does_not_follow_is_warned_of(worker: Worker, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.commands.gateway_key.WAIT_SECONDS", 0.05)
    worker.applies.clear()
    result = run("gateway-key", "create", "--name", "a")
    assert result.exit_code == 0
    assert KEY.fullmatch(result.stdout.strip())
    assert "warning: the gateway on port 41002 has not applied the change yet" in result.stderr


def test_a_configuration_that_no_gateway_has_is_warned_of(worker: Worker, run: Run) -> None:
    result = run("gateway-key", "create", "--name", "a", "--configuration-id", "my-confg")
    assert result.exit_code == 0
    assert "has no configuration 'my-confg'; it has my-config" in result.stderr
    result = run("gateway-key", "create", "--name", "b", "--configuration-id", "my-config")
    assert "warning" not in result.stderr


def test_a_person_gets_a_call_that_works_when_pasted(worker: Worker, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.commands.gateway_key._is_person", lambda: True)
    output = run("gateway-key", "create", "--name", "a").stdout
    secret, *_, call = output.splitlines()
    assert call == (
        f"  curl http://localhost:41002/v1/chat/completions -H 'authorization: Bearer {secret}'"
        " -H 'content-type: application/json'"
        """ -d '{"model": "mock-1", "messages": [{"role": "user", "content": "Hello"}]}'"""
    )


@pytest.mark.parametrize("command", ["create", "list", "show", "rotate", "revoke", "delete", "identify"])
def test_every_command_has_examples(command: str, run: Run) -> None:
    result = run("gateway-key", command, "--help")
    assert result.exit_code == 0
    assert "Examples:" in result.stdout
    assert f"kt gateway-key {command} " in result.stdout
