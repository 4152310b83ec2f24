"""`kt gateway-key` on a gateway elsewhere (`--api`): the same commands, by the API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from gateway.commands.calls import chosen
from gateway.commands.output import fail, show, show_json, warn
from gateway.commands.user import all_pages


def create(api: str, body: Mapping[str, Any], *, as_json: bool) -> None:
    """Make a key and print it."""
    given = {name: value for name, value in body.items() if value is not None}
    _print_new(chosen(api, None)("create_gateway_key", body=given), as_json=as_json)


def list_keys(api: str, query: Mapping[str, Any], columns: tuple[str, ...], *, as_json: bool) -> None:
    """List keys."""
    show(all_pages(chosen(api, None), "gateway_keys", dict(query)), columns, as_json=as_json)


def show_key(api: str, key: str, *, as_json: bool) -> None:
    """Show one key."""
    _print(chosen(api, None)("gateway_key", {"gateway_key": key}), as_json=as_json)


def rotate(api: str, key: str, overlap: float, expires_in: float | None, *, as_json: bool) -> None:
    """Make a key in place of another."""
    body: dict[str, Any] = {"overlap_seconds": int(overlap)}
    if expires_in is not None:
        body["expires_in_seconds"] = int(expires_in)
    made = chosen(api, None)("rotate_gateway_key", {"gateway_key": key}, body)
    if made["old"]["expires_at"] is not None and overlap:
        click.echo(f"The old key ({made['old']['prefix']}…) stays good until {made['old']['expires_at']}.", err=True)
    _print_new(made, as_json=as_json)


def end(api: str, key: str, *, forget: bool, as_json: bool) -> None:
    """Revoke or delete a key."""
    name = "delete_gateway_key" if forget else "revoke_gateway_key"
    told = chosen(api, None)(name, {"gateway_key": key})
    _warn_of(told["rollout"])
    if as_json:
        show_json(told["gateway_key"])
    else:
        shown = told["gateway_key"]
        click.echo(f"Gateway key {shown['name']!r} ({shown['id']}) is {'deleted' if forget else 'revoked'}.")


def identify(api: str, text: str, *, as_json: bool) -> None:
    """Say whose keys stand in a text."""
    found = chosen(api, None)("identify_keys", body={"text": text})["data"]
    if not found:
        fail("no whole key stands in this text: none has a checksum that fits")
    known = [one for one in found if one["known"]]
    if not known:
        fail("this has the form of a key, but the gateway has no such key (it may have been deleted)")
    if as_json:
        show_json(known)
        return
    for one in known:
        _print(one["gateway_key"] or {"prefix": one["prefix"], "kind": one["kind"]}, as_json=False)
        if one["gateway_key"] and one["gateway_key"]["state"] == "active":
            warn(f"it is active; end it with `kt gateway-key revoke {one['gateway_key']['id']}`")


def _print(row: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        show_json(row)
        return
    shown = [{"field": name, "value": value} for name, value in row.items() if value is not None]
    show(shown, ("field", "value"), as_json=False)


def _print_new(made: Mapping[str, Any], *, as_json: bool) -> None:
    key = made["gateway_key"]
    _warn_of(made["rollout"])
    if as_json:
        show_json({"key": made["key"], **key})
        return
    expiry = "never expires" if key["expires_at"] is None else f"expires {key['expires_at']}"
    click.echo(f"Gateway key {key['name']!r} ({key['id']}), {expiry}. Keep it now: it is not shown again.\n", err=True)
    click.echo(made["key"])


def _warn_of(rollout: Mapping[str, Any]) -> None:
    for port in rollout["lagging"]:
        warn(f"the gateway on port {port} has not applied the change yet; look at its log")
