"""Configurations over the API: versions, `If-Match`, roll back, what the workers refuse, other nodes that follow."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway.config.load import kept_folder, load
from gateway.config.problems import ConfigurationInvalid
from gateway.control.configuration_keeper import ConfigurationKeeper
from gateway.control.identity.roles import Role
from gateway.control.settings import InForce
from gateway.control.store.store import Store
from gateway.run_file import ConfigurationText, RunFile, read_run_file, write_run_file
from tests.gateway.control.rest.conftest import Answer, Caller, House
from tests.playbook import configuration, target

FILE = configuration(target("gpt"))
OTHER = configuration(target("gpt", model="other-model"))
THIRD = configuration(target("gpt", model="third-model"))


class Supervisor:
    """What the supervisor does of a reload: reads the files, and puts in force what is right. `refuses` is a model that
    the workers cannot compile."""

    def __init__(self, run_folder: Path) -> None:
        self.run_folder = run_folder
        self.file = run_folder.parent / "policy-config.yaml"
        self.file.write_text(FILE)
        self.refuses = ""
        self.generation = 1
        self.reload()

    def reload(self) -> None:
        try:
            loaded = load([self.file], kept=kept_folder(self.run_folder))
        except ConfigurationInvalid as error:
            self._say(str(error))
            return
        if self.refuses and any(self.refuses in one.text for one in loaded):
            self._say("worker 0: cannot compile")
            return
        self.generation += 1
        texts = tuple(ConfigurationText(one.file, one.text) for one in loaded)
        write_run_file(self.run_folder, RunFile(str(self.generation), texts, self.generation))

    def _say(self, error: str) -> None:
        before = read_run_file(self.run_folder)
        write_run_file(self.run_folder, RunFile(before.version, before.configurations, before.generation, error=error))


@pytest.fixture
def supervisor(house: House, run_folder: Path) -> Supervisor:
    one = Supervisor(run_folder)
    plane = house.plane
    plane.keeper = ConfigurationKeeper(run_folder, plane.source.store, plane.in_force, one.reload)
    return one


@pytest.fixture
async def owner(house: House, supervisor: Supervisor) -> Caller:
    return await house.by_key(await house.user(Role.OWNER))


async def put(caller: Caller, text: str, version: str | None, note: str = "") -> Answer:
    given = {} if version is None else {"If_Match": version}
    return await caller("PUT", "/configurations/play", {"text": text, "note": note}, **given)


def in_force(run_folder: Path) -> list[str]:
    return [one.text for one in read_run_file(run_folder).configurations]


async def test_a_life_of_a_configuration(owner: Caller, run_folder: Path) -> None:
    first = await owner("GET", "/configurations/play")
    assert (first.headers["ETag"], first.body["configuration"]["source"], first.body["text"]) == ('"0"', "file", FILE)
    changed = await put(owner, OTHER, first.headers["ETag"], "try another")
    assert (changed.status, changed.headers["ETag"]) == (200, '"1"')
    assert changed.body["models"] == ["other-model"]
    assert (changed.body["source"], changed.body["in_force"], changed.body["default"]) == ("store", True, True)
    assert in_force(run_folder) == [OTHER]
    assert (await put(owner, THIRD, '"1"')).headers["ETag"] == '"2"'
    rolled = await owner("POST", "/configurations/play/roll-back", {"number": 1}, If_Match='"2"')
    assert (rolled.status, rolled.headers["ETag"]) == (200, '"1"')
    assert in_force(run_folder) == [OTHER]
    versions = (await owner("GET", "/configurations/play/versions")).body["data"]
    assert [(one["number"], one["in_force"], one["note"]) for one in versions] == [
        (2, False, ""),
        (1, True, "try another"),
    ]
    assert (await owner("GET", "/configurations/play/versions/2")).body["text"] == THIRD
    released = await owner("DELETE", "/configurations/play", If_Match='"1"')
    assert (released.status, in_force(run_folder)) == (204, [FILE])
    listed = (await owner("GET", "/configurations")).body["data"]
    assert [(one["id"], one["source"], one["number"]) for one in listed] == [("play", "file", 0)]
    # The numbers go on: what was version 1 is version 1 for ever.
    assert (await put(owner, THIRD, '"0"')).headers["ETag"] == '"3"'


async def test_whoever_was_slower_hears_of_it(owner: Caller, run_folder: Path) -> None:
    assert (await put(owner, OTHER, '"0"')).status == 200
    slower = await put(owner, THIRD, '"0"')
    assert (slower.status, slower.code) == (412, "version_mismatch")
    assert (await put(owner, THIRD, None)).code == "version_required"
    assert (await put(owner, THIRD, "W/odd")).code == "version_required"
    assert in_force(run_folder) == [OTHER]


@pytest.mark.parametrize(
    ("text", "line", "path"),
    [
        (FILE.replace("providers:", "provders:"), 2, "provders"),
        (FILE.replace("name: play", "name: other"), 1, "pack.name"),
        ("", 0, ""),
        ("a: [", 2, ""),
    ],
)
async def test_a_text_that_is_wrong_is_not_stored(owner: Caller, store: Store, text: str, line: int, path: str) -> None:
    refused = await put(owner, text, '"0"')
    assert (refused.status, refused.code) == (422, "configuration_invalid")
    problems = [(one["line"], one["path"], one["severity"]) for one in refused.body["problems"]]
    assert (line, path, "error") in problems
    checked = (await owner("POST", "/check-configuration", {"text": text})).body
    assert checked["valid"] == (path == "pack.name")
    assert await store.configurations.versions("play") == []


async def test_what_the_workers_refuse_is_put_back(owner: Caller, supervisor: Supervisor, store: Store) -> None:
    assert (await put(owner, OTHER, '"0"')).status == 200
    supervisor.refuses = "third-model"
    refused = await put(owner, THIRD, '"1"')
    assert (refused.status, "cannot compile" in refused.body["error"]["message"]) == (422, True)
    assert await store.configurations.numbers() == {"play": 1}
    assert in_force(supervisor.run_folder) == [OTHER]
    assert read_run_file(supervisor.run_folder).error is None


async def test_the_first_one_that_the_workers_refuse_goes_back_to_the_file(
    owner: Caller, supervisor: Supervisor, store: Store
) -> None:
    supervisor.refuses = "other-model"
    assert (await put(owner, OTHER, '"0"')).status == 422
    assert await store.configurations.numbers() == {}
    assert list(kept_folder(supervisor.run_folder).glob("*.yaml")) == []


async def test_a_configuration_that_has_no_file(owner: Caller, run_folder: Path) -> None:
    text = configuration(target("gpt")).replace("name: play", "name: added")
    body = {"text": text, "note": ""}
    assert (await owner("PUT", "/configurations/added", body, If_Match='"0"')).status == 200
    assert [one["id"] for one in (await owner("GET", "/configurations")).body["data"]] == ["play", "added"]
    assert (await owner("GET", "/configurations/none")).status == 404
    assert (await owner("DELETE", "/configurations/added", If_Match='"1"')).status == 204
    assert in_force(run_folder) == [FILE]


async def test_another_node_follows(owner: Caller, store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "second" / "run-41002"
    folder.mkdir(parents=True)
    second = Supervisor(folder)
    keeper = ConfigurationKeeper(folder, lambda: store, InForce(folder), second.reload)
    await keeper.step()
    assert in_force(folder) == [FILE]
    await put(owner, OTHER, '"0"')
    await keeper.step()
    assert in_force(folder) == [OTHER]
    await owner("DELETE", "/configurations/play", If_Match='"1"')
    await keeper.step()
    assert in_force(folder) == [FILE]


async def test_a_keeper_that_runs(owner: Caller, store: Store, supervisor: Supervisor) -> None:
    """It goes on when the store cannot be used for a while."""
    opened: list[Store | None] = [None]
    keeper = ConfigurationKeeper(
        supervisor.run_folder, lambda: opened[0], InForce(supervisor.run_folder), supervisor.reload
    )
    await keeper.step()
    task: asyncio.Task[Any] = asyncio.create_task(keeper.run())
    opened[0] = store
    assert (await put(owner, OTHER, '"0"')).status == 200
    task.cancel()
    assert in_force(supervisor.run_folder) == [OTHER]


async def test_a_text_may_be_large_and_no_larger(owner: Caller) -> None:
    filler = "# " + "x" * 200_000 + "\n"
    assert (await put(owner, filler + OTHER, '"0"')).status == 200
    assert (await put(owner, "# " + "x" * (1 << 20), '"1"')).code == "request_too_large"
    assert (await owner("POST", "/teams", {"name": "x", "description": "y" * 70_000})).code == "request_too_large"


async def test_the_schema_is_there_for_editors(owner: Caller) -> None:
    assert (await owner("GET", "/configuration-schema")).body["title"] == "policy-config.yaml"
