"""`kt policy`: look over configuration files before they are used."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from msgspec import structs

from gateway.commands.output import EXIT_OK, EXIT_USAGE, show_json
from gateway.config.jsonschema import render
from gateway.config.lint import lint
from gateway.config.load import check
from gateway.config.problems import Problem, Severity, in_order


@click.group("policy")
def group() -> None:
    """Check configurations.

    \b
    Examples:
      kt policy lint policy-config.yaml
      kt policy schema --output policy-config.schema.json
    """


@group.command("lint")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the problems as a JSON array.")
def lint_files(files: Sequence[Path], as_json: bool) -> None:
    """Check configuration files (or all in a folder) and report every problem, each at its line.

    Exit code 0: usable, perhaps with warnings. 2: invalid.

    \b
    Examples:
      kt policy lint policy-config.yaml
      kt policy lint configurations/ --json | jq '.[].message'
    """
    loaded, problems = check(files)
    problems = in_order([*problems, *lint(loaded, os.environ)])
    errors = sum(problem.severity is Severity.ERROR for problem in problems)
    if as_json:
        show_json([structs.asdict(problem) for problem in problems])
    else:
        _print(problems, errors, len(loaded))
    sys.exit(EXIT_USAGE if errors else EXIT_OK)


@group.command("schema")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write to this file.")
def schema(output: Path | None) -> None:
    """Print the JSON Schema of policy-config.yaml, for editors.

    \b
    Examples:
      kt policy schema --output policy-config.schema.json
    Then, as the first line of policy-config.yaml, for editors with a YAML language server:
      # yaml-language-server: $schema=policy-config.schema.json
    """
    text = render()
    if output is None:
        click.echo(text, nl=False)
    else:
        output.write_text(text, encoding="utf-8")


def _print(problems: Sequence[Problem], errors: int, usable: int) -> None:
    """One problem a line, as compilers do: editors and terminals make links of it."""
    colours = {Severity.ERROR: "red", Severity.WARNING: "yellow"}
    for problem in problems:
        path = f"{click.style(problem.path, bold=True)}: " if problem.path else ""
        hint = click.style(f" ({problem.hint})", dim=True) if problem.hint else ""
        severity = click.style(problem.severity, fg=colours[problem.severity])
        click.echo(f"{problem.place}: {severity}: {path}{problem.message}{hint}")
    warnings = len(problems) - errors
    counts = (_count(errors, "error"), _count(warnings, "warning"), _count(usable, "usable configuration"))
    click.echo(", ".join(counts))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
