"""The command line `kt`: its root, and the one table of its commands.

A command's module is imported when the command runs, so that `kt --help` and completion answer at once. Exit codes: 0
success, 1 failure, 2 wrong usage or an invalid configuration.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Mapping
from typing import Final, NamedTuple

import click
from click.shell_completion import CompletionItem

from gateway.commands.output import EXIT_USAGE, fail
from gateway.config.problems import ConfigurationInvalid


class Entry(NamedTuple):
    """Where a command is defined, as `module:attribute`, and the line that `kt --help` shows for it."""

    place: str
    summary: str


COMMANDS: Final[Mapping[str, Entry]] = {
    "init": Entry("gateway.commands.init:command", "Write a first policy-config.yaml."),
    "policy": Entry("gateway.commands.policy:group", "Check configurations."),
    "gateway": Entry("gateway.commands.gateway:group", "Run the gateway."),
    "explain": Entry("gateway.commands.explain:command", "Show what would become of a request, without sending it."),
    "gateway-key": Entry("gateway.commands.gateway_key:group", "Create and manage gateway keys."),
    "team": Entry("gateway.commands.team:group", "Create and manage teams, and what their members may make."),
    "user": Entry("gateway.commands.user:group", "Create and manage the people who sign in."),
    "escalation": Entry("gateway.commands.escalation:group", "Approve or refuse requests that wait for a person."),
    "audit": Entry("gateway.commands.audit:group", "Verify, follow and export the audit log."),
    "bench": Entry("gateway.commands.bench:command", "Measure how much a gateway does, and how fast it answers."),
    "doctor": Entry("gateway.commands.doctor:command", "Check set-up and surroundings, and measure what is added."),
    "migrate": Entry("gateway.commands.migrate:group", "Turn another gateway's configuration into ours."),
    "completion": Entry("gateway.commands.completion:command", "Print the completion script of a shell."),
}


class LazyGroup(click.Group):
    """A group that knows its commands' names and summaries without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].place.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        commands = [
            CompletionItem(name, help=entry.summary) for name, entry in COMMANDS.items() if name.startswith(incomplete)
        ]
        return commands + click.Command.shell_complete(self, ctx, incomplete)


def version() -> str:
    """The installed version; in a checkout that is not installed, a word that says so."""
    try:
        return importlib.metadata.version("keeptrusts-gateway")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


@click.group(
    cls=LazyGroup,
    name="kt",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(version(), "-V", "--version", prog_name="kt")
def kt() -> None:
    """An AI gateway: one OpenAI-compatible endpoint, any provider, every request under policy.

    \b
    Examples:
      kt init
      kt policy lint policy-config.yaml
      kt gateway run --policy-config policy-config.yaml --port 41002
      kt gateway-key create --name dev-team-key --expires-in 90d
      kt audit verify

    `kt COMMAND --help` has examples for each command.
    """


def main() -> None:
    """Run `kt` and leave the process with its exit code."""
    try:
        kt(prog_name="kt")
    except ConfigurationInvalid as error:
        click.echo(str(error), err=True)
        fail("the configuration is invalid", code=EXIT_USAGE)
    except OSError as error:
        fail(f"{error.strerror or error}: {error.filename}" if error.filename else str(error))
