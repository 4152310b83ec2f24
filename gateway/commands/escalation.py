"""`kt escalation`: decide about requests that wait for a person, in the store, with or without a running gateway.

A decision is good at once: gateways ask the store whenever an escalated request comes.
"""

from __future__ import annotations

import asyncio
import getpass
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import click

from gateway.commands.output import fail, show, show_json
from gateway.control.escalations import Escalation, Escalations, State
from gateway.control.store.errors import StoreError
from gateway.control.store.store import Store
from gateway.folders import state_folder, store_url

COLUMNS: Final = ("id", "state", "created_at", "key_name", "team", "model", "policy", "reason", "detail")
TIMES: Final = ("created_at", "expires_at", "decided_at", "used_at")
Result = TypeVar("Result")
Command = TypeVar("Command", bound=Callable[..., Any])


def _common(command: Command) -> Command:
    """What every command of the group takes."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
        click.option("--store", metavar="URL", help="Where they are kept.  [default: $KT_STORE_URL, else a file]"),
    ):
        command = option(command)
    return command


@click.group("escalation")
def group() -> None:
    """Approve or refuse requests that wait for a person.

    Policies escalate requests (docs/policies/human-oversight.md). The client is told the id; after an approval it may
    send the same request again, once.

    \b
    Examples:
      kt escalation list
      kt escalation show esc_0123456789abcdef
      kt escalation approve esc_0123456789abcdef --note "for the audit of May"
    """


@group.command("list")
@click.option(
    "--state",
    type=click.Choice([*(state.value for state in State), "all"]),
    default=State.PENDING.value,
    show_default=True,
    help="Only those in this state.",
)
@_common
def list_escalations(state: str, store: str | None, as_json: bool) -> None:
    """List escalations, newest first.

    \b
    Examples:
      kt escalation list
      kt escalation list --state all --json | jq -r '.[].id'
    """
    wanted = None if state == "all" else State(state)
    found = _in_queue(store, lambda queue: queue.search(wanted))
    show([_row(escalation) for escalation in found], COLUMNS, as_json=as_json)


@group.command("show")
@click.argument("id")
@_common
def show_escalation(id: str, store: str | None, as_json: bool) -> None:
    """Show all there is to know of an escalation.

    \b
    Examples:
      kt escalation show esc_0123456789abcdef
    """
    _print(_in_queue(store, lambda queue: queue.get(id)), as_json=as_json)


@group.command("approve")
@click.argument("id")
@click.option("--note", help="Why; kept with the escalation.")
@_common
def approve(id: str, note: str | None, store: str | None, as_json: bool) -> None:
    """Let the request through when it is sent again, once.

    \b
    Examples:
      kt escalation approve esc_0123456789abcdef
    """
    _decide(store, id, approve=True, note=note, as_json=as_json)


@group.command("refuse")
@click.argument("id")
@click.option("--note", help="Why; kept with the escalation.")
@_common
def refuse(id: str, note: str | None, store: str | None, as_json: bool) -> None:
    """Refuse the request, also when it is sent again.

    \b
    Examples:
      kt escalation refuse esc_0123456789abcdef --note "ask legal first"
    """
    _decide(store, id, approve=False, note=note, as_json=as_json)


def _decide(store: str | None, id: str, *, approve: bool, note: str | None, as_json: bool) -> None:
    decided = _in_queue(store, lambda queue: queue.decide(id, approve=approve, by=_user(), note=note))
    if as_json:
        show_json(_row(decided))
    else:
        click.echo(f"Escalation {decided.id} is {decided.state}.")


def _print(escalation: Escalation, *, as_json: bool) -> None:
    row = _row(escalation)
    if as_json:
        show_json(row)
    else:
        shown = [{"field": name, "value": value} for name, value in row.items() if value is not None]
        show(shown, ("field", "value"), as_json=False)


def _row(escalation: Escalation) -> dict[str, object]:
    """An escalation as people and programs see it. Times are RFC 3339, UTC."""
    row: dict[str, object] = {name: getattr(escalation, name) for name in escalation.__struct_fields__}
    row["state"] = escalation.state.value
    for name in TIMES:
        seconds = getattr(escalation, name)
        row[name] = None if seconds is None else datetime.fromtimestamp(int(seconds), UTC)
    return row


def _in_queue(url: str | None, work: Callable[[Escalations], Awaitable[Result]]) -> Result:
    """What `work` makes of the queue; leaves the process when the store refuses."""

    async def run() -> Result:
        store = await Store.open(url or store_url(state_folder()), create=False)
        try:
            return await work(store.escalations)
        finally:
            await store.close()

    try:
        return asyncio.run(run())
    except StoreError as error:
        fail(str(error))


def _user() -> str | None:
    """Who runs this, as far as the system knows."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # KeyError: a user without an entry, before Python 3.13
        return None
