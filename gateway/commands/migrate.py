"""`kt migrate`: another gateway's configuration as a policy-config.yaml, and a word on what could not come along."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

import click

from gateway.commands.output import EXIT_FAILURE, EXIT_USAGE, fail, show_json, warn
from gateway.migrate import litellm, portkey
from gateway.migrate.result import Migration, MigrationError

Convert = Callable[..., Migration]


@click.group("migrate")
def group() -> None:
    """Turn another gateway's configuration into a policy-config.yaml.

    \b
    Examples:
      kt migrate litellm config.yaml --output policy-config.yaml
      kt migrate portkey config.json --model gpt-4o > policy-config.yaml
    """


def _options(command: Callable[..., None]) -> Callable[..., None]:
    for decorate in (
        click.argument("file", type=click.File("r", encoding="utf-8")),
        click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write to this new file."),
        click.option("--name", help="The configuration's id.  [default: where it comes from]"),
        click.option("--strict", is_flag=True, help="Fail where anything could not be carried over exactly."),
        click.option("--json", "as_json", is_flag=True, help="Print configuration and notes as JSON."),
    ):
        command = decorate(command)
    return command


@group.command("litellm")
@click.option("--model", "models", multiple=True, help="A model that a wildcard (`openai/*`) is to stand for.")
@_options
def from_litellm(
    file: TextIO, output: Path | None, name: str | None, strict: bool, as_json: bool, models: Sequence[str]
) -> None:
    """Convert a LiteLLM proxy's config.yaml.

    What could not be carried over is told on standard error, each with its place and the reason. No secret is copied.

    \b
    Examples:
      kt migrate litellm config.yaml --output policy-config.yaml
      kt migrate litellm config.yaml --model gpt-4o --model gpt-4o-mini | kt policy lint /dev/stdin
    """
    _run(litellm.convert, file, output, name or "litellm", models, strict, as_json)


@group.command("portkey")
@click.option("--model", "models", multiple=True, help="What clients ask for.  [default: the first target's model]")
@_options
def from_portkey(
    file: TextIO, output: Path | None, name: str | None, strict: bool, as_json: bool, models: Sequence[str]
) -> None:
    """Convert a Portkey config (JSON).

    What could not be carried over is told on standard error, each with its place and the reason. No secret is copied.

    \b
    Examples:
      kt migrate portkey config.json --model gpt-4o --output policy-config.yaml
    """
    _run(portkey.convert, file, output, name or "portkey", models, strict, as_json)


def _run(
    convert: Convert,
    file: TextIO,
    output: Path | None,
    name: str,
    models: Sequence[str],
    strict: bool,
    as_json: bool,
) -> None:
    try:
        migration = convert(file.read(), name=name, models=models)
    except MigrationError as error:
        fail(str(error), code=EXIT_USAGE)
    for note in migration.notes:
        warn(str(note))
    if as_json:
        notes = [note._asdict() for note in migration.notes]
        show_json({"configuration": migration.text, "notes": notes})
    elif output is None:
        click.echo(migration.text, nl=False)
    else:
        _write(output, migration.text)
    if strict and migration.notes:
        sys.exit(EXIT_FAILURE)


def _write(output: Path, text: str) -> None:
    try:
        with output.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        fail(f"{output} is there already")
    click.echo(f"Wrote {output}. Next:", err=True)
    click.echo(f"  kt policy lint {output}", err=True)
    click.echo(f"  kt gateway run --policy-config {output} --port 41002", err=True)
