"""`kt policy`: look over configuration files, and try their chains, before they are used."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from msgspec import structs

from gateway.commands import golden
from gateway.commands.output import EXIT_FAILURE, EXIT_OK, EXIT_USAGE, fail, show_json
from gateway.config.jsonschema import render
from gateway.config.lint import lint
from gateway.config.load import check
from gateway.config.problems import Problem, Severity, in_order
from gateway.types import Verdict
from policy.base import Pipeline, PolicyConfigError


@click.group("policy")
def group() -> None:
    """Check configurations.

    \b
    Examples:
      kt policy lint policy-config.yaml
      kt policy test policy-config.yaml --cases golden.yaml
      kt policy diff old.yaml new.yaml --corpus prompts.jsonl
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


@group.command("test")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--cases",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="A YAML file of cases; may be given several times.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the outcome of each case as JSON.")
def test(file: Path, cases: Sequence[Path], as_json: bool) -> None:
    """Try a configuration's chain on golden cases: texts, and what must be said of them.

    Exit code 0: all as expected. 1: some are not. 2: a file is invalid.

    \b
    Examples:
      kt policy test policy-config.yaml --cases golden.yaml
      kt policy test policy-config.yaml --cases golden.yaml --json | jq '.[] | select(.passed | not)'
    A case is:
      - name: a mail address is redacted
        texts: ["Write to jane@example.com"]
        expect: {verdict: redact, texts: ["Write to <EMAIL_1>"]}
    """
    pipeline = _pipeline(file)
    try:
        outcomes = [golden.play(pipeline, case) for one in cases for case in golden.read_cases(one)]
    except golden.CasesInvalid as error:
        fail(str(error), code=EXIT_USAGE)
    failed = sum(not outcome.passed for outcome in outcomes)
    if as_json:
        show_json([_outcome(outcome) for outcome in outcomes])
    else:
        _print_outcomes(outcomes, failed)
    sys.exit(EXIT_FAILURE if failed else EXIT_OK)


@group.command("diff")
@click.argument("before", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("after", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--corpus",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Texts to compare by: one a line, or JSON Lines of `text`, `texts` or `messages`.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON.")
def diff(before: Path, after: Path, corpus: Path, as_json: bool) -> None:
    """Compare what two configurations say of requests, and the time that their chains take.

    Exit code 0: the same on every text. 1: something changes. 2: a file is invalid.

    \b
    Examples:
      kt policy diff old.yaml new.yaml --corpus prompts.txt
      kt policy diff old.yaml new.yaml --corpus prompts.jsonl --json | jq .added_us
    """
    try:
        found = golden.compare(_pipeline(before), _pipeline(after), corpus)
    except golden.CasesInvalid as error:
        fail(str(error), code=EXIT_USAGE)
    added = found.after_us - found.before_us
    if as_json:
        times = {"before_us": found.before_us, "after_us": found.after_us, "added_us": added}
        show_json({"texts": found.texts, "changed": [one._asdict() for one in found.changed], **times})
    else:
        for one in found.changed:
            click.echo(f"{corpus}:{one.line}: {one.before} -> {one.after}")
        changed = f"{len(found.changed)} of {_count(found.texts, 'text')} changed"
        click.echo(f"{changed}; median {found.before_us:.1f} µs -> {found.after_us:.1f} µs ({added:+.1f} µs)")
    sys.exit(EXIT_FAILURE if found.changed else EXIT_OK)


def _pipeline(file: Path) -> Pipeline:
    loaded, problems = check([file])
    if errors := [one for one in problems if one.severity is Severity.ERROR]:
        _print(errors, len(errors), len(loaded))
        sys.exit(EXIT_USAGE)
    try:
        return golden.pipeline_of(loaded[0])
    except PolicyConfigError as error:
        fail(f"{file}: {error}", code=EXIT_USAGE)


def _outcome(outcome: golden.Outcome) -> dict[str, object]:
    differences = {
        name: {"expected": expected, "actual": actual} for name, (expected, actual) in outcome.differences.items()
    }
    return {"case": outcome.case, "passed": outcome.passed, "differences": differences}


def _print_outcomes(outcomes: Sequence[golden.Outcome], failed: int) -> None:
    for outcome in outcomes:
        mark = click.style("passed", fg="green") if outcome.passed else click.style("failed", fg="red")
        click.echo(f"{mark}  {outcome.case}")
        for name, (expected, actual) in outcome.differences.items():
            click.echo(f"        {name}: expected {_plain(expected)}, got {_plain(actual)}")
    click.echo(f"{len(outcomes) - failed} passed, {failed} failed")


def _plain(value: object) -> str:
    return str(value) if isinstance(value, Verdict) else repr(value)


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
