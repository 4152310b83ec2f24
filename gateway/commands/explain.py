"""`kt explain`: what would become of a request, from the configuration files alone; no gateway needs to run."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, BinaryIO

import click
import msgspec
import orjson

from gateway.commands.output import EXIT_FAILURE, fail, show, show_json
from gateway.config.load import load
from gateway.errors import GatewayError
from gateway.explain import Question, compile_apart, explain


@click.command("explain")
@click.argument("request_file", metavar="REQUEST.json", type=click.File("rb"))
@click.option(
    "--policy-config",
    "configurations",
    multiple=True,
    type=click.Path(exists=True),
    default=("policy-config.yaml",),
    show_default=True,
    help="A configuration file, or a folder of them. May be given several times; the first is the default.",
)
@click.option("--configuration", metavar="ID", help="The configuration to use.  [default: the first]")
@click.option("--path", default="/v1/chat/completions", show_default=True, help="Where the client would send it.")
@click.option("--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="A header field of the client's.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    request_file: BinaryIO,
    configurations: Sequence[str],
    configuration: str | None,
    path: str,
    headers: Sequence[str],
    as_json: bool,
) -> None:
    """Show route, policy verdicts, translated bodies and notes of a request. Nothing is sent.

    REQUEST.json is the body as a client would send it, `-` for standard input. Secrets are masked. Exit code 0: it
    would be sent. 1: it would be refused.

    \b
    Examples:
      kt explain request.json
      kt explain request.json --path /v1/messages --header 'anthropic-beta: context-1m-2025-08-07'
      kt explain - --json < request.json | jq '.targets[0].body'
    """
    loaded = load(configurations)
    question = Question(msgspec.Raw(request_file.read()), path, _fields(headers), configuration)
    try:
        told = explain(compile_apart(loaded, os.environ), question)
    except GatewayError as error:
        fail(f"{error.status} {error.code}: {error.message}")
    if as_json:
        show_json(told)
    else:
        _print(told)
    if told["outcome"]["target"] is None:
        sys.exit(EXIT_FAILURE)


def _fields(headers: Sequence[str]) -> dict[str, str]:
    fields = {}
    for header in headers:
        name, colon, value = header.partition(":")
        if not colon:
            raise click.UsageError(f"--header takes 'NAME: VALUE', not {header!r}.")
        fields[name.strip()] = value.strip()
    return fields


def _print(told: dict[str, Any]) -> None:
    outcome, policies = told["outcome"], told["policies"]
    status = f"{outcome['status']} {outcome['code']}: " if outcome["status"] else ""
    rows = [
        {"field": "outcome", "value": f"{status}{outcome['message']}"},
        {"field": "configuration", "value": told["configuration"]},
        {"field": "operation", "value": told["operation"] + (" (stream)" if told["stream"] else "")},
        {"field": "model", "value": told["model"]},
    ]
    if "strategy" in told:
        rows.append({"field": "routing", "value": f"{told['strategy']['name']}: {told['strategy']['order']}"})
    rows.append({"field": "policies", "value": _verdict(policies)})
    show(rows, ("field", "value"), as_json=False)
    if policies["decisions"]:
        click.echo()
        show(policies["decisions"], ("policy", "verdict", "reason", "detail"), as_json=False)
    for number, target in enumerate(told["targets"], 1):
        click.echo()
        _print_target(number, target)


def _verdict(policies: dict[str, Any]) -> str:
    parts = [policies["verdict"]]
    if policies["redacted_texts"]:
        parts.append(f"{policies['redacted_texts']} texts redacted")
    if policies["not_asked"]:
        parts.append(f"not asked: {', '.join(policies['not_asked'])}")
    return "; ".join(parts)


def _print_target(number: int, target: dict[str, Any]) -> None:
    heading = f"{number}. {target['id']} ({target['provider']}, {target['upstream_model']})"
    click.echo(click.style(heading, bold=True))
    if target["refusal"]:
        click.echo(f"   would not be asked: {target['refusal']}")
    if "url" not in target:
        return
    click.echo(f"   POST {target['url']}")
    for name, value in target["headers"].items():
        click.echo(f"   {name}: {value}")
    for note in target["notes"]:
        click.echo(f"   {click.style('note', fg='yellow')}: {note}")
    body = target.get("answered_here", target["body"])
    shown = orjson.dumps(body, option=orjson.OPT_INDENT_2).decode()
    click.echo("\n".join(f"   {line}" for line in shown.splitlines()))
