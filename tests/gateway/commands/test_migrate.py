"""`kt migrate`: what it writes passes `kt policy lint`; what it could not carry is on standard error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.gateway.commands.conftest import Run

CONFIGS = Path(__file__).parents[1] / "migrate" / "configs"


@pytest.mark.parametrize("file", sorted(CONFIGS.iterdir()), ids=lambda file: file.stem)
def test_the_result_passes_lint(run: Run, tmp_path: Path, file: Path) -> None:
    output = tmp_path / "policy-config.yaml"
    done = run("migrate", file.stem.partition("-")[0], file, "--output", output)
    assert done.exit_code == 0, done.output
    assert f"kt policy lint {output}" in done.stderr
    linted = run("policy", "lint", output, "--json")
    assert linted.exit_code == 0, linted.output
    told = json.loads(linted.stdout)
    assert {row["severity"] for row in told} <= {"warning"}
    assert all(
        "is not set" in row["message"] or "clear text" in row["message"] or "cannot be read" in row["message"]
        for row in told
    )


def test_standard_output_is_the_configuration_alone(run: Run) -> None:
    done = run("migrate", "litellm", CONFIGS / "litellm-small.yaml", "--name", "mine")
    assert done.stdout.startswith("pack:\n  name: mine\n")
    assert "warning: general_settings.master_key:" in done.stderr


def test_strict_fails_where_something_was_left(run: Run) -> None:
    assert run("migrate", "litellm", CONFIGS / "litellm-small.yaml", "--strict").exit_code == 1


def test_as_json(run: Run) -> None:
    done = run("migrate", "portkey", CONFIGS / "portkey-fallback.json", "--json")
    told = json.loads(done.stdout)
    assert told["configuration"].startswith("pack:")
    assert {"path", "message"} == set(told["notes"][0])


def test_a_file_that_is_there_is_not_overwritten(run: Run, tmp_path: Path) -> None:
    output = tmp_path / "policy-config.yaml"
    output.write_text("mine")
    done = run("migrate", "litellm", CONFIGS / "litellm-small.yaml", "--output", output)
    assert (done.exit_code, output.read_text()) == (1, "mine")


def test_what_is_no_such_file(run: Run) -> None:
    done = run("migrate", "portkey", CONFIGS / "litellm-small.yaml")
    assert (done.exit_code, "not JSON" in done.stderr) == (2, True)
