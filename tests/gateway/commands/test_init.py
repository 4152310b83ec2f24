"""`kt init`: what it writes loads as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.commands.init import TEMPLATES, template_text
from gateway.config.lint import lint
from gateway.config.load import load_file, load_text
from tests.gateway.commands.conftest import Run

SECRETS = {"OPENAI_API_KEY": "k", "AZURE_OPENAI_KEY": "k", "ANTHROPIC_API_KEY": "k"}


def test_it_writes_a_configuration_that_answers_by_itself(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "policy-config.yaml"
    result = run("init", file)
    assert result.exit_code == 0
    assert f"kt gateway run --policy-config {file} --port 41002" in result.output
    (target,) = load_file(file).configuration.providers.targets
    assert target.provider == "mock"


def test_the_file_is_called_policy_config(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("init").exit_code == 0
    assert [file.name for file in tmp_path.iterdir()] == ["policy-config.yaml"]


def test_it_does_not_overwrite_unless_told_to(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "policy-config.yaml"
    file.write_text("mine")
    result = run("init", file)
    assert result.exit_code == 1
    assert result.output == f"error: {file} is there already; --force overwrites it\n"
    assert file.read_text() == "mine"
    assert run("init", file, "--force", "--template", "openai").exit_code == 0
    assert file.read_text() == template_text("openai")


def test_an_unknown_template_is_wrong_usage(run: Run, tmp_path: Path) -> None:
    result = run("init", tmp_path / "f", "--template", "mok")
    assert result.exit_code == 2
    assert "multi-provider" in result.output


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_template_loads_without_a_warning(template: str) -> None:
    loaded = load_text(template_text(template), template)
    assert loaded.id == "my-config"
    assert lint([loaded], SECRETS) == []


def test_the_example_runs_with_nothing_set_up() -> None:
    loaded = load_file(Path(__file__).parents[3] / "examples" / "policy-config.yaml")
    assert loaded.id == "my-config"
    assert loaded.configuration.providers.targets[0].provider == "mock"
    assert loaded.configuration.policies.chain == ("dlp-filter", "audit-logger")
    assert {problem.path.rpartition(".")[2] for problem in lint([loaded], {})} == {"secret_key_ref"}
    assert lint([loaded], SECRETS) == []
