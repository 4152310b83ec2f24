"""The root of the command line: help, version, exit codes, completion; and that it stays light."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from gateway.commands import main
from gateway.commands.main import COMMANDS, kt, version
from tests.gateway.commands.conftest import Run

CALL_MAIN = "from gateway.commands.main import main; main()"


def process(*arguments: str, code: str = CALL_MAIN, **environ: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[3]
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root), **environ},
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_names_every_command_and_has_examples(run: Run) -> None:
    result = run("--help")
    assert result.exit_code == 0
    for name, entry in COMMANDS.items():
        assert f"  {name} " in result.output
        assert entry.summary in result.output
    assert "kt gateway run --policy-config policy-config.yaml --port 41002" in result.output
    assert run("-h").output == result.output


def test_version(run: Run) -> None:
    result = run("--version")
    assert (result.exit_code, result.output) == (0, f"kt, version {version()}\n")


def test_an_unknown_command_is_wrong_usage(run: Run) -> None:
    result = run("gatway")
    assert result.exit_code == 2
    assert "No such command 'gatway'" in result.output


def test_a_wrong_option_is_wrong_usage(run: Run) -> None:
    assert run("init", "--frobnicate").exit_code == 2


@pytest.mark.parametrize("name", ["init", "policy", "completion"])
def test_every_command_is_where_the_table_says_and_has_examples(name: str, run: Run) -> None:
    command = kt.get_command(click.Context(kt), name)
    assert command is not None
    assert command.name == name
    assert command.help
    assert command.help.startswith(COMMANDS[name].summary)
    assert f"Examples:\n    kt {name}" in run(name, "--help").output


def test_help_imports_no_command() -> None:
    code = f"""
import sys
try:
    {CALL_MAIN}
finally:
    heavy = {{"sqlalchemy", "aiohttp", "rich", "hyperscan", "re2", "yaml", "uvloop"}} & set(sys.modules)
    print("heavy:", sorted(heavy))
"""
    result = process("--help", code=code)
    assert result.returncode == 0, result.stderr
    assert "heavy: []" in result.stdout


def test_an_invalid_configuration_ends_with_2(tmp_path: Path) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text("pack: {}\n")
    code = f"""
from gateway.commands import main
from gateway.config.load import load
main.kt = lambda prog_name: load([{str(file)!r}])
main.main()
"""
    result = process(code=code)
    assert result.returncode == 2
    assert f"{file}:1:7: error: pack: the required key `name` is missing" in result.stderr
    assert result.stderr.endswith("error: the configuration is invalid\n")
    assert "Traceback" not in result.stderr


def test_a_file_that_cannot_be_written_ends_with_1(tmp_path: Path) -> None:
    result = process("init", str(tmp_path / "missing" / "policy-config.yaml"))
    assert result.returncode == 1
    assert result.stderr == f"error: No such file or directory: {tmp_path}/missing/policy-config.yaml\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str, run: Run) -> None:
    result = run("completion", shell)
    assert result.exit_code == 0
    assert f"_KT_COMPLETE={shell}_complete" in result.output


def test_completion_of_commands() -> None:
    result = process(_KT_COMPLETE="bash_complete", COMP_WORDS="kt gate", COMP_CWORD="1")
    assert result.stdout.splitlines() == ["plain,gateway", "plain,gateway-key"]


def test_completion_of_options() -> None:
    result = process(_KT_COMPLETE="bash_complete", COMP_WORDS="kt init --te", COMP_CWORD="2")
    assert result.stdout.splitlines() == ["plain,--template"]


def test_an_uninstalled_checkout_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise main.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(main.importlib.metadata, "version", missing)
    assert version() == "not installed"
