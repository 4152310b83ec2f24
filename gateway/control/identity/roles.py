"""Roles and what each may do: the one table of it.

A permission is a fact about what one may do anywhere; which of several objects are one's own is decided where the
objects are known. This module knows neither requests nor the store.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

from gateway.config.schema import UserRole as Role

__all__ = ["GRANTS", "Permission", "Role"]


class Permission(enum.StrEnum):
    """One thing that one may do."""

    OWN_ACCOUNT = "own_account"
    """One's own name, password, sessions and access keys; everybody who has signed in."""
    OWN_GATEWAY_KEYS = "own_gateway_keys"
    """Make, see, rotate, revoke one's own gateway keys, within what the team allows."""
    READ_GATEWAY_KEYS = "read_gateway_keys"
    MANAGE_GATEWAY_KEYS = "manage_gateway_keys"
    OWN_TEAMS = "own_teams"
    """See the teams one is in."""
    READ_TEAMS = "read_teams"
    MANAGE_TEAMS = "manage_teams"
    READ_USERS = "read_users"
    MANAGE_USERS = "manage_users"
    MANAGE_OWNERS = "manage_owners"
    LIST_CONFIGURATIONS = "list_configurations"
    """Names and models of the configurations, as one needs them to make a key."""
    READ_CONFIGURATIONS = "read_configurations"
    MANAGE_CONFIGURATIONS = "manage_configurations"
    READ_ESCALATIONS = "read_escalations"
    DECIDE_ESCALATIONS = "decide_escalations"
    OWN_EVENTS = "own_events"
    """Events and usage of one's own keys."""
    READ_EVENTS = "read_events"
    READ_CHANGES = "read_changes"
    READ_STATUS = "read_status"
    EXPLAIN = "explain"


_P = Permission
_EVERYBODY: Final = frozenset((_P.OWN_ACCOUNT, _P.LIST_CONFIGURATIONS, _P.OWN_TEAMS))
_READING: Final = _EVERYBODY | {
    _P.READ_GATEWAY_KEYS,
    _P.READ_TEAMS,
    _P.READ_USERS,
    _P.READ_CONFIGURATIONS,
    _P.READ_ESCALATIONS,
    _P.READ_EVENTS,
    _P.READ_CHANGES,
    _P.READ_STATUS,
    _P.EXPLAIN,
}

GRANTS: Final[Mapping[Role, frozenset[Permission]]] = {
    Role.OWNER: frozenset(Permission),
    Role.ADMIN: frozenset(Permission) - {_P.MANAGE_OWNERS},
    Role.DEVELOPER: _EVERYBODY | {_P.OWN_GATEWAY_KEYS, _P.OWN_EVENTS},
    Role.AUDITOR: frozenset(_READING),
}
