"""`kt user`: the people who sign in, on this machine's store or on a gateway elsewhere."""

from __future__ import annotations

from typing import Any, Final

import click

from gateway.commands.calls import chosen, new_setup_link, options
from gateway.commands.output import EXIT_USAGE, fail, show, show_json
from gateway.commands.parameters import Duration, Label

ROLES: Final = ("owner", "admin", "developer", "auditor")
COLUMNS: Final = ("id", "email", "name", "role", "active", "teams", "last_sign_in_at")


@click.group("user")
def group() -> None:
    """Create and manage the people who sign in to the console and the API.

    A USER is named by id (user_…) or e-mail address.

    \b
    Examples:
      kt user create --email ada@example.com --role owner
      kt user list
      kt user edit ada@example.com --role admin
    """


@group.command("create")
@click.option("--email", required=True, help="By which they sign in.")
@click.option("--name", type=Label(), help="How others call them.  [default: the e-mail address]")
@click.option("--role", type=click.Choice(ROLES), default="developer", show_default=True, help="What they may do.")
@click.option("--team", "teams", multiple=True, help="A team that they are in. May be given several times.")
@options
def create(
    email: str, name: str | None, role: str, teams: tuple[str, ...], store: str | None, api: str | None, as_json: bool
) -> None:
    """Create a user and print a link by which they choose a password. It works once, for seven days.

    \b
    Examples:
      kt user create --email ada@example.com --role owner
      kt user create --email bob@example.com --team research
    """
    body = {"email": email, "name": name or email, "role": role, "teams": list(teams)}
    _print_invitation(chosen(api, store)("create_user", body=body), as_json=as_json)


@group.command("setup-link")
@click.option("--store", metavar="URL", help="This machine's store.  [default: $KT_STORE_URL, else a file]")
def setup_link(store: str | None) -> None:
    """Print a new link by which the first user, an owner, is made in the console. It works once, for a day.

    \b
    Examples:
      kt user setup-link
    """
    link = new_setup_link(store)
    if link is None:
        fail("there are users already; sign in, or invite somebody with `kt user create`")
    click.echo(link)


@group.command("list")
@click.option("--search", help="Only users with this in their name or e-mail address.")
@click.option("--role", type=click.Choice(ROLES), help="Only users with this role.")
@click.option("--team", help="Only users of this team.")
@options
def list_users(
    search: str | None, role: str | None, team: str | None, store: str | None, api: str | None, as_json: bool
) -> None:
    """List users, newest first.

    \b
    Examples:
      kt user list --role owner
      kt user list --team research --json | jq -r '.[].email'
    """
    query = {"search": search, "role": role, "team": team}
    show([_row(one) for one in all_pages(chosen(api, store), "users", query)], COLUMNS, as_json=as_json)


@group.command("show")
@click.argument("user")
@options
def show_user(user: str, store: str | None, api: str | None, as_json: bool) -> None:
    """Show all there is to know of a user.

    \b
    Examples:
      kt user show ada@example.com
    """
    _print_user(chosen(api, store)("user", {"user": user}), as_json=as_json)


@group.command("edit")
@click.argument("user")
@click.option("--name", type=Label(), help="How others call them.")
@click.option("--role", type=click.Choice(ROLES), help="What they may do.")
@click.option(
    "--enable/--disable", "active", default=None, help="Whether they may sign in. Who may not loses their keys."
)
@options
def edit(
    user: str,
    name: str | None,
    role: str | None,
    active: bool | None,
    store: str | None,
    api: str | None,
    as_json: bool,
) -> None:
    """Change a user.

    \b
    Examples:
      kt user edit ada@example.com --role admin
      kt user edit bob@example.com --disable
    """
    given = {"name": name, "role": role, "active": active}
    body = {field: value for field, value in given.items() if value is not None}
    if not body:
        fail("say what to change: --name, --role, --enable or --disable", code=EXIT_USAGE)
    _print_user(chosen(api, store)("edit_user", {"user": user}, body), as_json=as_json)


@group.command("invite")
@click.argument("user")
@options
def invite(user: str, store: str | None, api: str | None, as_json: bool) -> None:
    """Print a new link by which a user chooses a password; earlier ones no longer work.

    \b
    Examples:
      kt user invite ada@example.com
    """
    _print_invitation(chosen(api, store)("invite_user", {"user": user}), as_json=as_json)


@group.command("sign-out")
@click.argument("user")
@options
def sign_out(user: str, store: str | None, api: str | None, as_json: bool) -> None:
    """End all sessions of a user.

    \b
    Examples:
      kt user sign-out ada@example.com
    """
    chosen(api, store)("end_sessions_of_user", {"user": user})
    if not as_json:
        click.echo(f"{user} is signed out everywhere.")


@group.command("delete")
@click.argument("user")
@options
def delete(user: str, store: str | None, api: str | None, as_json: bool) -> None:
    """Forget a user. Their gateway keys are revoked.

    \b
    Examples:
      kt user delete bob@example.com
    """
    chosen(api, store)("delete_user", {"user": user})
    if not as_json:
        click.echo(f"{user} is deleted, and their gateway keys are revoked.")


@group.command("access-key")
@click.option("--name", required=True, type=Label(), help="What it is for.")
@click.option("--expires-in", type=Duration(), help="How long it is good, as in 90d.  [default: for ever]")
@options
def access_key(name: str, expires_in: float | None, store: str | None, api: str | None, as_json: bool) -> None:
    """Create another access key of your own, on a gateway elsewhere (--api). Prints the key, this once.

    The first one comes from the console: Your account.

    \b
    Examples:
      kt user access-key --name ci --expires-in 90d --api https://gateway.example.com
    """
    body = {"name": name, "expires_in_seconds": None if expires_in is None else int(expires_in)}
    made = chosen(api, store)("create_access_key", body=body)
    if as_json:
        show_json(made)
        return
    click.echo(f"Access key {name!r} ({made['access_key']['id']}). Keep it now: it is not shown again.\n", err=True)
    click.echo(made["key"])


def all_pages(call: Any, name: str, query: dict[str, Any], parts: dict[str, str] | None = None) -> list[dict[str, Any]]:
    """All rows of a list, page by page."""
    rows: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = call(name, parts, query={**query, "limit": 200, "cursor": cursor})
        rows += page["data"]
        cursor = page["next"]
        if cursor is None:
            return rows


def _row(user: dict[str, Any]) -> dict[str, Any]:
    return {**user, "teams": [team["name"] for team in user["teams"]]}


def _print_user(user: dict[str, Any], *, as_json: bool) -> None:
    row = _row(user)
    if as_json:
        show_json(row)
        return
    shown = [{"field": name, "value": value} for name, value in row.items() if value not in (None, [])]
    show(shown, ("field", "value"), as_json=False)


def _print_invitation(made: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        show_json(made)
        return
    user = made["user"]
    click.echo(
        f"{user['email']} ({user['id']}) is {user['role']}. With this link they choose a password, once,"
        f" until {made['expires_at']}:\n",
        err=True,
    )
    click.echo(made["link"])
