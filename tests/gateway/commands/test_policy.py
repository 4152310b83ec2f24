"""`kt policy`: problems for people and for programs, and the JSON Schema."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.config.jsonschema import render
from tests.gateway.commands.conftest import Run

GOOD = """\
pack: {name: %s}
providers:
  targets:
    - {id: a, provider: mock, model: m}
"""


@pytest.fixture
def good(tmp_path: Path) -> Path:
    file = tmp_path / "good.yaml"
    file.write_text(GOOD % "good")
    return file


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    file = tmp_path / "bad.yaml"
    file.write_text(GOOD % "bad" + "policies: {chain: [dlp-fliter]}\npolicy: {audit-logger: {}}\n")
    return file


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    file = tmp_path / "odd.yaml"
    file.write_text(GOOD % "odd" + "policy: {audit-logger: {}}\n")
    return file


def test_a_good_file(run: Run, good: Path) -> None:
    result = run("policy", "lint", good)
    assert (result.exit_code, result.output) == (0, "0 errors, 0 warnings, 1 usable configuration\n")


def test_a_warning_is_no_failure(run: Run, odd: Path) -> None:
    result = run("policy", "lint", odd)
    assert result.exit_code == 0
    assert result.output == (
        f"{odd}:5:24: warning: policy.audit-logger: not in `policies.chain`, so it never runs (add it to the chain)\n"
        "0 errors, 1 warning, 1 usable configuration\n"
    )


def test_an_error_ends_with_2(run: Run, good: Path, bad: Path) -> None:
    result = run("policy", "lint", good, bad)
    assert result.exit_code == 2
    assert result.output == (
        f"{bad}:5:20: error: policies.chain[0]: unknown policy kind `dlp-fliter` (did you mean `dlp-filter`?)\n"
        "1 error, 0 warnings, 1 usable configuration\n"
    )


def test_json(run: Run, bad: Path, odd: Path) -> None:
    result = run("policy", "lint", bad, odd, "--json")
    assert result.exit_code == 2
    error, warning = json.loads(result.output)
    assert error == {
        "file": str(bad),
        "line": 5,
        "column": 20,
        "path": "policies.chain[0]",
        "message": "unknown policy kind `dlp-fliter`",
        "hint": "did you mean `dlp-filter`?",
        "severity": "error",
    }
    assert (warning["severity"], warning["path"]) == ("warning", "policy.audit-logger")
    assert json.loads(run("policy", "lint", odd, "--json").output)[0]["severity"] == "warning"


def test_a_folder(run: Run, good: Path, odd: Path) -> None:
    result = run("policy", "lint", good.parent)
    assert result.exit_code == 0
    assert result.output.endswith("0 errors, 1 warning, 2 usable configurations\n")


def test_a_file_that_is_not_there(run: Run, tmp_path: Path) -> None:
    result = run("policy", "lint", tmp_path / "none.yaml")
    assert result.exit_code == 2
    assert f"{tmp_path}/none.yaml: error: cannot be read: No such file or directory\n" in result.output


def test_no_file_is_wrong_usage(run: Run) -> None:
    assert run("policy", "lint").exit_code == 2


def test_the_schema_goes_to_standard_output_or_a_file(run: Run, tmp_path: Path) -> None:
    result = run("policy", "schema")
    assert (result.exit_code, result.output) == (0, render())
    file = tmp_path / "schema.json"
    result = run("policy", "schema", "--output", file)
    assert (result.exit_code, result.output, file.read_text(encoding="utf-8")) == (0, "", render())
