"""`kt team`: teams, who is in them, and what a key of theirs may have at most."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from gateway.commands.calls import chosen, options
from gateway.commands.output import EXIT_USAGE, fail, show, show_json
from gateway.commands.parameters import Duration, Label
from gateway.commands.user import COLUMNS as USER_COLUMNS
from gateway.commands.user import all_pages

COLUMNS: Final = ("id", "name", "members", "keys", "rules", "description")
Command = TypeVar("Command", bound=Callable[..., Any])


def _rules(command: Command) -> Command:
    """What a key that a member makes may have at most."""
    for option in (
        click.option("--max-expires-in", type=Duration(), help="The longest that a member's key may be good."),
        click.option("--max-budget", type=click.FloatRange(min=0.01), help="The most USD a month of a member's key."),
        click.option("--max-concurrency", type=click.IntRange(min=1), help="The most open requests of a member's key."),
        click.option("--max-tpm", type=click.IntRange(min=1), help="The most tokens a minute of a member's key."),
        click.option("--max-rpm", type=click.IntRange(min=1), help="The most requests a minute of a member's key."),
        click.option("--configurations", metavar="A,B", help="The configurations that a member's key may be for."),
        click.option("--models", metavar="A,B", help="The models that a member's key may name."),
    ):
        command = option(command)
    return command


def _limits(command: Command) -> Command:
    """What all keys of a team together may use."""
    for option in (
        click.option("--budget-usd", type=click.FloatRange(min=0), help="What all its keys may cost a month, in USD."),
        click.option("--concurrency", type=click.IntRange(min=1), help="Requests all its keys may have open."),
        click.option("--tpm", type=click.IntRange(min=1), help="Tokens a minute of all its keys."),
        click.option("--rpm", type=click.IntRange(min=1), help="Requests a minute of all its keys."),
    ):
        command = option(command)
    return command


@click.group("team")
def group() -> None:
    """Create and manage teams, who is in them, and what their members may make by themselves.

    A TEAM is named by id (team_…) or name, a USER by id or e-mail address.

    \b
    Examples:
      kt team create research --models gpt-4o,gpt-4o-mini --max-rpm 60 --max-expires-in 90d
      kt team add research ada@example.com
      kt team list
    """


@group.command("create")
@click.argument("name", type=Label())
@click.option("--description", default="", help="What it is for.")
@_rules
@_limits
@options
def create(name: str, description: str, store: str | None, api: str | None, as_json: bool, **given: Any) -> None:
    """Create a team.

    \b
    Examples:
      kt team create research --models gpt-4o,gpt-4o-mini --max-rpm 60 --max-expires-in 90d
      kt team create interns --budget-usd 100 --concurrency 20
    """
    body = {"name": name, "description": description, "key_rules": _given(given), "limits": _use(given)}
    _print_team(chosen(api, store)("create_team", body=body), as_json=as_json)


@group.command("list")
@click.option("--search", help="Only teams with this in their name.")
@options
def list_teams(search: str | None, store: str | None, api: str | None, as_json: bool) -> None:
    """List teams by name.

    \b
    Examples:
      kt team list
    """
    found = all_pages(chosen(api, store), "teams", {"search": search})
    rows = found if as_json else [{**one, "rules": _words(one["key_rules"])} for one in found]
    show(rows, COLUMNS, as_json=as_json)


@group.command("show")
@click.argument("team")
@options
def show_team(team: str, store: str | None, api: str | None, as_json: bool) -> None:
    """Show a team and what it allows.

    \b
    Examples:
      kt team show research
    """
    _print_team(chosen(api, store)("team", {"team": team}), as_json=as_json)


@group.command("edit")
@click.argument("team")
@click.option("--name", type=Label(), help="A new name.")
@click.option("--description", help="What it is for.")
@click.option("--no-rules", is_flag=True, help="Take all rules away first.")
@click.option("--no-limits", is_flag=True, help="Take all limits away first.")
@_rules
@_limits
@options
def edit(
    team: str,
    name: str | None,
    description: str | None,
    no_rules: bool,
    no_limits: bool,
    store: str | None,
    api: str | None,
    as_json: bool,
    **options_given: Any,
) -> None:
    """Change a team. A rule or limit that is not named stays; keys that there are stay as they are.

    \b
    Examples:
      kt team edit research --max-rpm 120
      kt team edit research --no-rules --models gpt-4o
      kt team edit research --budget-usd 250
    """
    call, given, use = chosen(api, store), _given(options_given), _use(options_given)
    body: dict[str, Any] = {}
    if name is not None:
        body["name"] = name
    if description is not None:
        body["description"] = description
    if given or no_rules:
        before = {} if no_rules else call("team", {"team": team})["key_rules"]
        body["key_rules"] = {**before, **given}
    if use or no_limits:
        before = {} if no_limits else call("team", {"team": team})["limits"]
        body["limits"] = {**before, **use}
    if not body:
        fail("say what to change: --name, --description, a rule or a limit, or what to take away", code=EXIT_USAGE)
    _print_team(call("edit_team", {"team": team}, body), as_json=as_json)


@group.command("delete")
@click.argument("team")
@options
def delete(team: str, store: str | None, api: str | None, as_json: bool) -> None:
    """Forget a team that has no gateway keys.

    \b
    Examples:
      kt team delete research
    """
    chosen(api, store)("delete_team", {"team": team})
    if not as_json:
        click.echo(f"Team {team!r} is deleted.")


@group.command("members")
@click.argument("team")
@options
def members(team: str, store: str | None, api: str | None, as_json: bool) -> None:
    """List who is in a team.

    \b
    Examples:
      kt team members research
    """
    found = all_pages(chosen(api, store), "team_members", {}, {"team": team})
    rows = [{**one, "teams": [own["name"] for own in one["teams"]]} for one in found]
    show(rows, USER_COLUMNS, as_json=as_json)


@group.command("add")
@click.argument("team")
@click.argument("user")
@options
def add(team: str, user: str, store: str | None, api: str | None, as_json: bool) -> None:
    """Put a user into a team.

    \b
    Examples:
      kt team add research ada@example.com
    """
    told = chosen(api, store)("join_team", {"team": team, "user": user})
    _print_move(told, f"is in {team!r}", as_json=as_json)


@group.command("remove")
@click.argument("team")
@click.argument("user")
@options
def remove(team: str, user: str, store: str | None, api: str | None, as_json: bool) -> None:
    """Take a user out of a team. Their keys stay.

    \b
    Examples:
      kt team remove research ada@example.com
    """
    told = chosen(api, store)("leave_team", {"team": team, "user": user})
    _print_move(told, f"is not in {team!r} any more", as_json=as_json)


def _print_move(user: dict[str, Any], what: str, *, as_json: bool) -> None:
    if as_json:
        show_json(user)
    else:
        click.echo(f"{user['email']} {what}.")


def _given(rules: dict[str, Any]) -> dict[str, Any]:
    """The rules that were named, as the API takes them."""
    ends = rules["max_expires_in"]
    named = {
        "models": _names(rules["models"]),
        "configurations": _names(rules["configurations"]),
        "requests_per_minute": rules["max_rpm"],
        "tokens_per_minute": rules["max_tpm"],
        "max_concurrency": rules["max_concurrency"],
        "budget_usd_per_month": rules["max_budget"],
        "expires_in_seconds": None if ends is None else int(ends),
    }
    return {name: value for name, value in named.items() if value is not None}


def _use(given: dict[str, Any]) -> dict[str, Any]:
    """The limits that were named, as the API takes them."""
    named = {
        "requests_per_minute": given["rpm"],
        "tokens_per_minute": given["tpm"],
        "max_concurrency": given["concurrency"],
        "budget_usd_per_month": given["budget_usd"],
    }
    return {name: value for name, value in named.items() if value is not None}


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def _words(rules: dict[str, Any]) -> str:
    named = {name: value for name, value in rules.items() if value is not None}
    return "; ".join(
        f"{name} {', '.join(value) if isinstance(value, list | tuple) else value}" for name, value in named.items()
    )


def _print_team(team: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        show_json(team)
        return
    row = {name: value for name, value in team.items() if name not in ("key_rules", "limits")}
    row |= {f"limit: {name}": value for name, value in team["limits"].items()}
    row |= {f"keys at most: {name}": value for name, value in team["key_rules"].items()}
    shown = [{"field": name, "value": value} for name, value in row.items() if value not in (None, "")]
    show(shown, ("field", "value"), as_json=False)
