"""`kt gateway-key`: make and manage gateway keys, straight in the store, with or without a running gateway.

After a change the command waits until every running gateway that uses this store has it in force, so that the key it
prints is good at once and the one it revoked is refused. The key itself goes to standard output and nowhere else; a
call to try it is shown only to a person, since what a script says on standard error lands in logs.
"""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, TypeVar

import click
import msgspec

from gateway.commands import remote_key
from gateway.commands.actor import actor
from gateway.commands.output import EXIT_USAGE, fail, show, show_json, warn
from gateway.commands.parameters import Duration, Label
from gateway.control import keys
from gateway.control.keys import KeyState
from gateway.control.rollout import WAIT_SECONDS, RunningGateway, wait_until_applied
from gateway.control.store.errors import KeyNotFound, StoreError
from gateway.control.store.records import KeyRecord, KeyScope
from gateway.control.store.store import KeyFilter, NewKey, Rotation, Store
from gateway.folders import state_folder, store_url
from gateway.prices import NANO
from gateway.purse import month_of
from gateway.secrets import Secret

COLUMNS: Final = (
    "id",
    "name",
    "prefix",
    "state",
    "configuration_id",
    "team",
    "expires_at",
    "last_used_at",
    "request_count",
    "spent_usd_this_month",
)
Result = TypeVar("Result")
Command = TypeVar("Command", bound=Callable[..., Any])


def _common(command: Command) -> Command:
    """What every command of the group takes."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
        click.option(
            "--api",
            metavar="URL",
            envvar="KT_API_URL",
            help="A gateway elsewhere; its access key is in $KT_ACCESS_KEY.  [default: $KT_API_URL, else this machine]",
        ),
        click.option("--store", metavar="URL", help="Where keys are kept.  [default: $KT_STORE_URL, else a file]"),
    ):
        command = option(command)
    return command


@click.group("gateway-key")
def group() -> None:
    """Create and manage gateway keys.

    A KEY is named by its id (gk_…), its name, or its prefix (kt_gk_ and six characters).

    \b
    Examples:
      kt gateway-key create --name dev-team-key --configuration-id my-config --expires-in 90d
      kt gateway-key list
      kt gateway-key rotate dev-team-key --overlap 24h
      kt gateway-key revoke dev-team-key
    """


@group.command("create")
@click.option("--name", required=True, type=Label(), help="By which people know the key.")
@click.option("--configuration-id", type=Label(), help="The configuration it is for.  [default: the gateway's first]")
@click.option("--expires-in", type=Duration(), help="How long it is good, as in 90d or 12h.  [default: for ever]")
@click.option("--team", type=Label(), help="The team it belongs to; made if there is none of this name.")
@click.option("--owner", type=Label(), help="Who answers for it.")
@click.option("--rpm", type=click.IntRange(min=1), help="Requests per minute it may make.")
@click.option("--tpm", type=click.IntRange(min=1), help="Tokens per minute it may use.")
@click.option(
    "--concurrency",
    "--max-concurrency",
    "max_concurrency",
    type=click.IntRange(min=1),
    help="Requests it may have open at the same time.",
)
@click.option(
    "--budget-usd", type=click.FloatRange(min=0, max=9_000_000), help="What they may cost in a calendar month (UTC)."
)
@click.option("--models", metavar="A,B", help="Models it may use.  [default: all of its configuration]")
@_common
def create(
    name: str,
    configuration_id: str | None,
    expires_in: float | None,
    team: str | None,
    owner: str | None,
    rpm: int | None,
    tpm: int | None,
    max_concurrency: int | None,
    budget_usd: float | None,
    models: str | None,
    store: str | None,
    api: str | None,
    as_json: bool,
) -> None:
    """Create a key and print it. It is shown this once: only its hash is kept.

    The key alone goes to standard output, so that a script can take it from there.

    \b
    Examples:
      kt gateway-key create --name dev-team-key --configuration-id my-config --expires-in 90d
      kt gateway-key create --name ci --team platform --rpm 60 --tpm 100000 --models gpt-4o,gpt-4o-mini
      kt gateway-key create --name intern --budget-usd 20 --concurrency 4
      KEY=$(kt gateway-key create --name me)
    """
    if api is not None:
        body = {
            "name": name,
            "configuration_id": configuration_id,
            "team": team,
            "owner": owner,
            "models": None if models is None else sorted(_models(models) or ()),
            "requests_per_minute": rpm,
            "tokens_per_minute": tpm,
            "max_concurrency": max_concurrency,
            "budget_usd_per_month": budget_usd,
            "expires_in_seconds": None if expires_in is None else int(expires_in),
        }
        remote_key.create(api, body, as_json=as_json)
        return
    scope = KeyScope(
        name=name,
        configuration_id=configuration_id,
        team=team,
        owner=owner,
        models=_models(models),
        requests_per_minute=rpm,
        tokens_per_minute=tpm,
        max_concurrency=max_concurrency,
        budget_usd_per_month=budget_usd,
    )

    async def work(opened: Store) -> NewKey:
        return await opened.create_key(scope, expires_at=_from_now(expires_in), actor=actor())

    new, store_id = _in_store(store, work, make=True)
    gateways = _await_rollout(store_id, new.record.revision)
    _warn_of_unknown_configuration(configuration_id, gateways)
    _print_new(new, gateways, as_json=as_json)


@group.command("list")
@click.option("--state", type=click.Choice([state.value for state in KeyState]), help="Only keys in this state.")
@click.option("--team", help="Only keys of this team.")
@click.option("--owner", help="Only keys of this owner.")
@click.option("--configuration-id", help="Only keys of this configuration.")
@click.option("--search", help="Only keys with this in their name, prefix, owner or id.")
@_common
def list_keys(
    state: str | None,
    team: str | None,
    owner: str | None,
    configuration_id: str | None,
    search: str | None,
    store: str | None,
    api: str | None,
    as_json: bool,
) -> None:
    """List keys, newest first.

    \b
    Examples:
      kt gateway-key list --state active
      kt gateway-key list --team platform --json | jq -r '.[].id'
    """
    if api is not None:
        query = {
            "state": state,
            "team": team,
            "owner": owner,
            "configuration_id": configuration_id,
            "search": search,
        }
        remote_key.list_keys(api, query, COLUMNS, as_json=as_json)
        return
    wanted = KeyFilter(None if state is None else KeyState(state), team, owner, configuration_id, search)

    async def work(opened: Store) -> list[dict[str, object]]:
        records = await opened.list_keys(wanted)
        spent = await _spent(opened, records)
        return [_row(record, spent.get(record.key.id)) for record in records]

    rows, _ = _in_store(store, work)
    show(rows, COLUMNS, as_json=as_json)


@group.command("show")
@click.argument("key")
@_common
def show_key(key: str, store: str | None, api: str | None, as_json: bool) -> None:
    """Show all there is to know of a key.

    \b
    Examples:
      kt gateway-key show dev-team-key
    """
    if api is not None:
        remote_key.show_key(api, key, as_json=as_json)
        return

    async def work(opened: Store) -> dict[str, object]:
        record = await opened.get_key(key)
        return _row(record, (await _spent(opened, [record])).get(record.key.id))

    row, _ = _in_store(store, work)
    _print_row(row, as_json=as_json)


@group.command("rotate")
@click.argument("key")
@click.option(
    "--overlap", type=Duration(zero=True), default="24h", show_default=True, help="How long the old key stays good."
)
@click.option("--expires-in", type=Duration(), help="How long the new key is good.  [default: as long as the old one]")
@_common
def rotate(
    key: str, overlap: float, expires_in: float | None, store: str | None, api: str | None, as_json: bool
) -> None:
    """Create a key with the same scope in place of another, which ends after an overlap. Prints the new key.

    \b
    Examples:
      kt gateway-key rotate dev-team-key
      kt gateway-key rotate gk_0123456789abcdef --overlap 0
    """
    if api is not None:
        remote_key.rotate(api, key, overlap, expires_in, as_json=as_json)
        return

    async def work(opened: Store) -> Rotation:
        return await opened.rotate_key(key, overlap, expires_at=_from_now(expires_in), actor=actor())

    rotation, store_id = _in_store(store, work)
    gateways = _await_rollout(store_id, rotation.new.record.revision)
    end = rotation.old.key.expires_at
    if end is not None and end > time.time():
        click.echo(f"The old key ({rotation.old.key.prefix}…) stays good until {_minute(end)}.", err=True)
    _print_new(rotation.new, gateways, as_json=as_json)


@group.command("revoke")
@click.argument("key")
@_common
def revoke(key: str, store: str | None, api: str | None, as_json: bool) -> None:
    """End a key now, and its open streams with it. It stays in the list.

    \b
    Examples:
      kt gateway-key revoke dev-team-key
    """
    if api is not None:
        remote_key.end(api, key, forget=False, as_json=as_json)
        return
    record, store_id = _in_store(store, lambda opened: opened.revoke_key(key, actor()))
    _await_rollout(store_id, record.revision)
    _print_change("revoked", record, as_json=as_json)


@group.command("delete")
@click.argument("key")
@_common
def delete(key: str, store: str | None, api: str | None, as_json: bool) -> None:
    """Forget a key, and end it if it is still good.

    \b
    Examples:
      kt gateway-key delete gk_0123456789abcdef
    """
    if api is not None:
        remote_key.end(api, key, forget=True, as_json=as_json)
        return
    record, store_id = _in_store(store, lambda opened: opened.delete_key(key, actor()))
    _await_rollout(store_id, record.revision)
    _print_change("deleted", record, as_json=as_json)


@group.command("identify")
@click.argument("leaked", metavar="TEXT|-")
@_common
def identify(leaked: str, store: str | None, api: str | None, as_json: bool) -> None:
    """Say whose key this is, when one was found where it should not be; or whose keys stand in a text. `-` reads it
    from standard input, which keeps it out of the shell's history.

    Exit code 1: there is no gateway key, or none of this store. JSON is an object for a key, an array for a text.

    \b
    Examples:
      kt gateway-key identify - < found.txt
    """
    text = (sys.stdin.read() if leaked == "-" else leaked).strip()
    if api is not None:
        remote_key.identify(api, text, as_json=as_json)
        return
    found = keys.found_in(text)
    if not found:
        fail("this is no gateway key, or not a whole one: its checksum does not fit")

    async def work(opened: Store) -> list[KeyRecord]:
        return [record for key in found if (record := await _known(opened, key)) is not None]

    records, _ = _in_store(store, work)
    if not records:
        fail("this has the form of a gateway key, but this store has no such key (it may have been deleted)")
    if as_json:
        rows = [_row(record) for record in records]
        show_json(rows[0] if found == [text] else rows)
    for record in records:
        if not as_json:
            _print_record(record, as_json=False)
        if keys.state_of(record.key, time.time()) is KeyState.ACTIVE:
            warn(f"it is active; end it with `kt gateway-key revoke {record.key.id}`")


async def _known(store: Store, key: str) -> KeyRecord | None:
    try:
        return await store.get_key(key)
    except KeyNotFound:
        return None


def _in_store(url: str | None, work: Callable[[Store], Awaitable[Result]], *, make: bool = False) -> tuple[Result, str]:
    """What `work` makes of the store, and the store's id; leaves the process when the store refuses."""

    async def run() -> tuple[Result, str]:
        store = await Store.open(url or store_url(state_folder()), create=make)
        try:
            return await work(store), store.id
        finally:
            await store.close()

    try:
        return asyncio.run(run())
    except StoreError as error:
        fail(str(error))


def _await_rollout(store_id: str, revision: int) -> list[RunningGateway]:
    """Wait until a change is in force; say so when it is not, or when nobody is there to put it in force."""
    rollout = wait_until_applied(state_folder(), store_id, revision, seconds=WAIT_SECONDS)
    for gateway in rollout.lagging:
        warn(f"the gateway on port {gateway.port} has not applied the change yet; look at its log")
    if not rollout.gateways:
        click.echo("No running gateway uses this store; the change is in force once one does.", err=True)
    return rollout.gateways


class _Offer(NamedTuple):
    """A configuration that a running gateway has, with a model to try."""

    id: str
    model: str


def _offers(gateway: RunningGateway) -> list[_Offer]:
    # Here, since only two commands need them and they take 60 ms.
    from gateway.config.load import load_text
    from gateway.config.problems import ConfigurationInvalid
    from gateway.run_file import read_run_file

    try:
        loaded = [load_text(one.text, one.file) for one in read_run_file(gateway.run_folder).configurations]
    except (OSError, msgspec.DecodeError, ConfigurationInvalid):
        return []
    return [_Offer(one.id, one.configuration.providers.targets[0].model) for one in loaded]


def _warn_of_unknown_configuration(configuration_id: str | None, gateways: list[RunningGateway]) -> None:
    if configuration_id is None:
        return
    for gateway in gateways:
        known = [offer.id for offer in _offers(gateway)]
        if known and configuration_id not in known:
            names = ", ".join(known)
            warn(f"the gateway on port {gateway.port} has no configuration {configuration_id!r}; it has {names}")


def _print_new(new: NewKey, gateways: list[RunningGateway], *, as_json: bool) -> None:
    if as_json:
        show_json({"key": new.secret.reveal(), **_row(new.record)})
        return
    key = new.record.key
    expiry = "never expires" if key.expires_at is None else f"expires {_minute(key.expires_at)}"
    click.echo(f"Gateway key {key.name!r} ({key.id}), {expiry}. Keep it now: it is not shown again.\n", err=True)
    click.echo(new.secret.reveal())
    if _is_person():
        click.echo(f"\nTry it:\n  {_curl(new.secret, new.record, gateways)}")


def _is_person() -> bool:
    return sys.stdout.isatty()


def _curl(secret: Secret, record: KeyRecord, gateways: list[RunningGateway]) -> str:
    """A call that works when pasted, if a gateway runs; else one to fill in."""
    port = gateways[0].port if gateways else 41002
    offers = _offers(gateways[0]) if gateways else []
    wanted = [offer.model for offer in offers if record.key.configuration_id in (None, offer.id)]
    model = min(record.key.models) if record.key.models else next(iter(wanted), "MODEL")
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello"}]})
    return (
        f"curl http://localhost:{port}/v1/chat/completions -H 'authorization: Bearer {secret.reveal()}'"
        f" -H 'content-type: application/json' -d {shlex.quote(body)}"
    )


async def _spent(store: Store, records: Sequence[KeyRecord]) -> Mapping[str, int]:
    """What these keys have spent this month, in nano-USD, as far as it is counted."""
    ids = [record.key.id for record in records]
    return await store.spending.total("key", month_of(time.time()).number, ids if len(ids) < 100 else None)


def _print_record(record: KeyRecord, *, as_json: bool) -> None:
    _print_row(_row(record), as_json=as_json)


def _print_row(row: Mapping[str, object], *, as_json: bool) -> None:
    if as_json:
        show_json(row)
    else:
        shown = [{"field": name, "value": value} for name, value in row.items() if value is not None]
        show(shown, ("field", "value"), as_json=False)


def _print_change(done: str, record: KeyRecord, *, as_json: bool) -> None:
    if as_json:
        show_json(_row(record))
    else:
        click.echo(f"Gateway key {record.key.name!r} ({record.key.id}) is {done}.")


def _row(record: KeyRecord, spent: int | None = None) -> dict[str, object]:
    """A key as people and programs see it. Times are RFC 3339, UTC; the hash stays in the store."""
    key = record.key
    return {
        "id": key.id,
        "name": key.name,
        "prefix": key.prefix,
        "state": keys.state_of(key, time.time()).value,
        "configuration_id": key.configuration_id,
        "team": key.team,
        "owner": key.owner,
        "models": None if key.models is None else sorted(key.models),
        "requests_per_minute": key.requests_per_minute,
        "tokens_per_minute": key.tokens_per_minute,
        "max_concurrency": key.max_concurrency,
        "budget_usd_per_month": key.budget_usd_per_month,
        # Counted only where there is a budget to compare it with.
        "spent_usd_this_month": None if key.budget_usd_per_month is None else round((spent or 0) / NANO, 9),
        "created_at": _time(key.created_at),
        "created_by": record.created_by,
        "expires_at": None if key.expires_at is None else _time(key.expires_at),
        "revoked_at": None if key.revoked_at is None else _time(key.revoked_at),
        "rotated_to": record.rotated_to,
        "last_used_at": None if record.last_used_at is None else _time(record.last_used_at),
        "request_count": record.request_count,
    }


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(int(seconds), UTC)


def _minute(seconds: float) -> str:
    return f"{_time(seconds):%Y-%m-%d %H:%M} UTC"


def _models(text: str | None) -> frozenset[str] | None:
    if text is None:
        return None
    models = frozenset(name.strip() for name in text.split(",") if name.strip())
    if not models:
        fail("--models names no model; leave it out to allow all", code=EXIT_USAGE)
    return models


def _from_now(seconds: float | None) -> float | None:
    return None if seconds is None else time.time() + seconds
