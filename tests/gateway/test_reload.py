"""A worker's half of a reload, by the files alone: any order of looks leads to what the supervisor has decided."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.reload import Compiled, Reloader
from gateway.run_file import (
    ConfigurationText,
    Preparation,
    RunFile,
    read_candidate,
    read_preparation,
    withdraw_candidate,
    write_candidate,
    write_run_file,
)

WORKER = 3


class Compiler:
    """Compiles everything but what says `broken`, and notes what it was given. A snapshot is an object of its own."""

    def __init__(self) -> None:
        self.given: list[int] = []

    def __call__(self, run_file: RunFile) -> Compiled:
        self.given.append(run_file.generation)
        if "broken" in run_file.configurations[0].text:
            raise ValueError("it is broken")
        snapshot: Any = object()
        settings: Any = None
        return Compiled(run_file, snapshot, settings)


def run_file(generation: int, text: str = "good", error: str | None = None) -> RunFile:
    return RunFile("version", (ConfigurationText("one.yaml", text),), generation, error=error)


@pytest.fixture
def compiler() -> Compiler:
    return Compiler()


@pytest.fixture
def reloader(tmp_path: Path, compiler: Compiler) -> Reloader:
    write_run_file(tmp_path, run_file(0))
    reloader = Reloader(tmp_path, WORKER, compiler)
    reloader.begin()
    return reloader


def test_nothing_new_changes_nothing(tmp_path: Path, reloader: Reloader, compiler: Compiler) -> None:
    first = reloader.look()
    assert reloader.look().snapshot is first.snapshot
    assert compiler.given == [0]
    assert read_preparation(tmp_path, WORKER) is None


def test_a_candidate_is_compiled_once_and_told_but_not_used(
    tmp_path: Path, reloader: Reloader, compiler: Compiler
) -> None:
    before = reloader.look()
    write_candidate(tmp_path, run_file(1))
    for _ in range(3):
        assert reloader.look().snapshot is before.snapshot
    assert compiler.given == [0, 1]
    assert read_preparation(tmp_path, WORKER) == Preparation(1)


def test_what_was_prepared_is_what_comes_into_force(tmp_path: Path, reloader: Reloader, compiler: Compiler) -> None:
    before = reloader.look()
    write_candidate(tmp_path, run_file(1))
    reloader.look()
    withdraw_candidate(tmp_path)
    write_run_file(tmp_path, run_file(1))
    after = reloader.look()
    assert after.snapshot is not before.snapshot
    assert after.run_file.generation == 1
    assert compiler.given == [0, 1]


def test_one_that_missed_the_candidate_compiles_what_is_in_force(
    tmp_path: Path, reloader: Reloader, compiler: Compiler
) -> None:
    write_run_file(tmp_path, run_file(2))
    assert reloader.look().run_file.generation == 2
    assert compiler.given == [0, 2]


def test_a_candidate_that_cannot_be_compiled_is_told_and_forgotten(tmp_path: Path, reloader: Reloader) -> None:
    before = reloader.look()
    write_candidate(tmp_path, run_file(1, "broken"))
    assert reloader.look().snapshot is before.snapshot
    assert read_preparation(tmp_path, WORKER) == Preparation(1, "ValueError: it is broken")
    withdraw_candidate(tmp_path)
    write_run_file(tmp_path, run_file(0, error="worker 3: it is broken"))
    after = reloader.look()
    assert after.snapshot is before.snapshot
    assert after.run_file.error == "worker 3: it is broken"


def test_a_candidate_that_was_replaced_is_not_what_comes_into_force(
    tmp_path: Path, reloader: Reloader, compiler: Compiler
) -> None:
    write_candidate(tmp_path, run_file(1))
    reloader.look()
    write_candidate(tmp_path, run_file(2))
    reloader.look()
    write_run_file(tmp_path, run_file(2))
    assert reloader.look().run_file.generation == 2
    assert compiler.given == [0, 1, 2]


def test_a_first_configuration_that_cannot_be_compiled_is_told_and_raised(tmp_path: Path, compiler: Compiler) -> None:
    write_run_file(tmp_path, run_file(0, "broken"))
    with pytest.raises(ValueError, match="it is broken"):
        Reloader(tmp_path, WORKER, compiler).begin()
    assert read_preparation(tmp_path, WORKER) == Preparation(0, "ValueError: it is broken")


def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    write_run_file(tmp_path, run_file(0))
    write_candidate(tmp_path, run_file(1))
    assert read_candidate(tmp_path) == run_file(1)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
