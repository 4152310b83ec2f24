"""`kt init`: a first configuration file, from a template that loads as it is."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Final

import click

from gateway.commands.output import fail

TEMPLATES: Final = ("mock", "openai", "azure-openai", "multi-provider", "openai-compatible")


@click.command("init")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), default="policy-config.yaml")
@click.option("--template", type=click.Choice(TEMPLATES), default="mock", show_default=True, help="What to begin with.")
@click.option("--force", is_flag=True, help="Overwrite a file that is there.")
def command(file: Path, template: str, force: bool) -> None:
    """Write a first policy-config.yaml.

    \b
    Examples:
      kt init
      kt init --template openai
      kt init configurations/research.yaml --template multi-provider
    """
    text = template_text(template)
    try:
        # "x" fails where a file stands, without a moment in between in which another could be made.
        with file.open("w" if force else "x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        fail(f"{file} is there already; --force overwrites it")
    click.echo(f"Wrote {file}. Next:")
    click.echo(f"  kt policy lint {file}")
    click.echo(f"  kt gateway run --policy-config {file} --port 41002")
    click.echo("  kt gateway-key create --name my-first-key")


def template_text(template: str) -> str:
    """The text of a template."""
    return files("gateway.commands.templates").joinpath(f"{template}.yaml").read_text(encoding="utf-8")
