"""`kt doctor` without what takes seconds; what it measures is tested in tests/acceptance/operate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.probe.checks import Finding, Status
from tests.gateway.commands.conftest import Run
from tests.gateway_process import configuration, free_port

QUICK = ("--no-measure", "--offline")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KT_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("KT_STORE_URL", raising=False)
    path = tmp_path / "policy-config.yaml"
    mock = {"id": "mock", "provider": "mock", "model": "mock-gpt"}
    path.write_text(configuration(mock, gateway={"listen": f"127.0.0.1:{free_port()}"}))
    return path


def test_all_in_place(run: Run, file: Path) -> None:
    result = run("doctor", "--policy-config", file, *QUICK)
    assert result.exit_code == 0, result.output
    assert "ok       configuration  1 read: test" in result.output
    assert "gateway.db is not there yet" in result.output


def test_as_json(run: Run, file: Path) -> None:
    told = json.loads(run("doctor", "--policy-config", file, *QUICK, "--json").stdout)
    areas = {finding["area"] for finding in told["findings"]}
    assert areas == {"configuration", "state files", "store", "port", "descriptors", "clock"}
    assert told["measured"] is None


def test_an_invalid_configuration_is_usage(run: Run, file: Path) -> None:
    file.write_text(file.read_text().replace("provider: mock", "provider: mok"))
    result = run("doctor", "--policy-config", file, *QUICK)
    assert result.exit_code == 2
    assert f"{file}:" in result.output


def test_what_has_failed_makes_the_exit_code(
    run: Run, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.probe.checks.descriptors", lambda: Finding("descriptors", Status.FAILED, "none left"))
    result = run("doctor", "--policy-config", file, *QUICK)
    assert result.exit_code == 1
    assert "failed   descriptors" in result.output


def test_a_gateway_that_is_not_there(run: Run) -> None:
    result = run("doctor", "--url", f"http://127.0.0.1:{free_port()}")
    assert result.exit_code == 1
    assert "cannot be reached" in result.output


def test_bench_of_nobody(run: Run) -> None:
    result = run("bench", "--url", f"http://127.0.0.1:{free_port()}", "--json")
    assert result.exit_code == 1
    assert "cannot be reached" in result.output


def test_bench_measures_one_gateway_or_the_other(run: Run, file: Path) -> None:
    result = run("bench", "--url", "http://127.0.0.1:1", "--policy-config", file)
    assert result.exit_code == 2
