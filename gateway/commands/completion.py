"""`kt completion`: the script that teaches a shell to complete `kt`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    \b
    Examples:
      kt completion bash > ~/.local/share/bash-completion/completions/kt
      kt completion zsh > "${fpath[1]}/_kt"
      kt completion fish > ~/.config/fish/completions/kt.fish
    """
    completion = get_completion_class(shell)
    assert completion is not None
    click.echo(completion(ctx.find_root().command, {}, "kt", "_KT_COMPLETE").source())
