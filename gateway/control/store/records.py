"""Rows of the store as values: what a key is asked to be, and what is kept of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.allowances import FIRST_TEAM
from gateway.prices import NANO
from gateway.types import GatewayKey, Scope

NO_SLOT = -1
"""The slot of a key that is no longer good."""


class KeyScope(msgspec.Struct, frozen=True, kw_only=True):
    """What a new key is for and what it may do; field by field as in GatewayKey. `None`: no such limit."""

    name: str
    configuration_id: str | None = None
    team: str | None = None
    owner: str | None = None
    models: frozenset[str] | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_concurrency: int | None = None
    budget_usd_per_month: float | None = None


class KeyRules(msgspec.Struct, frozen=True, kw_only=True):
    """What a key that a member of a team makes may have at most. `None`: no such rule.

    `models` and `configurations` are those it may name; the others are the highest figures it may ask for.
    """

    models: tuple[str, ...] | None = None
    configurations: tuple[str, ...] | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_concurrency: int | None = None
    budget_usd_per_month: float | None = None
    expires_in_seconds: int | None = None


class TeamUse(msgspec.Struct, frozen=True, kw_only=True):
    """What all keys of a team together may use. `None`: no such limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_concurrency: int | None = None
    budget_usd_per_month: float | None = None


class KeyRecord(msgspec.Struct, frozen=True):
    """A key with what only the control plane knows of it.

    `rotated_to` is the id of the key that takes its place, `owner_id` that of the user who made it for themselves.
    `last_used_at` and `request_count` are a few seconds old.
    """

    key: GatewayKey
    revision: int
    created_by: str | None = None
    rotated_to: str | None = None
    last_used_at: float | None = None
    request_count: int = 0
    owner_id: str | None = None


class Changes(msgspec.Struct, frozen=True):
    """What has changed since some revision: the keys as they are now, and the ids of those that are gone.

    `store_id` tells whether it is still the same store.
    """

    store_id: str
    revision: int
    keys: list[GatewayKey]
    deleted: list[str]


def record_of(row: Mapping[str, Any]) -> KeyRecord:
    """A row as a record."""
    return KeyRecord(
        key_of(row),
        row["revision"],
        row["created_by"],
        row["rotated_to"],
        row["last_used_at"],
        row["request_count"],
        row["owner_id"],
    )


def key_of(row: Mapping[str, Any]) -> GatewayKey:
    """A row as the workers know it."""
    slot, models = row["slot"], row["models"]
    return GatewayKey(
        id=row["id"],
        hash=bytes(row["hash"]),
        prefix=row["prefix"],
        name=row["name"],
        slot=NO_SLOT if slot is None else slot,
        configuration_id=row["configuration_id"],
        team=row["team"],
        owner=row["owner"],
        models=None if models is None else frozenset(models),
        requests_per_minute=row["requests_per_minute"],
        tokens_per_minute=row["tokens_per_minute"],
        max_concurrency=row["max_concurrency"],
        budget_usd_per_month=row["budget_usd_per_month"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        team_scope=_team_scope(row),
    )


def _team_scope(row: Mapping[str, Any]) -> Scope | None:
    """What the key's team may use, where that is limited."""
    budget = row["team_budget_usd_per_month"]
    scope = Scope(
        "team",
        row["team_id"] or "",
        row["team"] or "",
        FIRST_TEAM + (row["team_slot"] or 0),
        row["team_requests_per_minute"],
        row["team_tokens_per_minute"],
        row["team_max_concurrency"],
        None if budget is None else round(budget * NANO),
    )
    return scope if scope.limits_anything else None


def scope_of(key: GatewayKey) -> KeyScope:
    """What a key is for, to make another one like it."""
    return KeyScope(**{name: getattr(key, name) for name in KeyScope.__struct_fields__})


_NOT_NOTED = frozenset(("id", "hash", "slot", "created_at", "team_scope"))


def noted(record: KeyRecord) -> dict[str, Any]:
    """A key as the trail of changes has it: what people decide about it, without its hash."""
    fields = {name: value for name, value in msgspec.structs.asdict(record.key).items() if name not in _NOT_NOTED}
    if record.key.models is not None:
        fields["models"] = sorted(record.key.models)
    return {**fields, "rotated_to": record.rotated_to}
