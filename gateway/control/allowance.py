"""What a member of a team may make by themselves: a wish for a key, held against the team's rules.

Where a wish leaves a figure open and the team has a rule for it, the rule's figure is taken, so that a key never has
more than its team allows. A wish beyond a rule is refused, not cut: whoever asks for 1,000 requests a minute should
hear that 60 are allowed. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from gateway.control.store.records import KeyRules, KeyScope
from gateway.errors import PermissionDenied

FIGURES = ("requests_per_minute", "tokens_per_minute", "max_concurrency", "budget_usd_per_month")


def within(scope: KeyScope, rules: KeyRules) -> KeyScope:
    """The scope that a key gets. Raises PermissionDenied, whose `param` is the field that goes too far."""
    values: dict[str, Any] = {name: _figure(name, getattr(scope, name), getattr(rules, name)) for name in FIGURES}
    if rules.models is not None:
        _require_known("models", scope.models or (), rules.models)
        values["models"] = frozenset(scope.models or rules.models)
    if rules.configurations is not None:
        if scope.configuration_id is None and len(rules.configurations) > 1:
            known = ", ".join(rules.configurations)
            raise PermissionDenied(f"Name one of the team's configurations: {known}.", param="configuration_id")
        wanted = scope.configuration_id or rules.configurations[0]
        _require_known("configuration_id", (wanted,), rules.configurations)
        values["configuration_id"] = wanted
    return msgspec.structs.replace(scope, **values)


def lifetime(wanted: float | None, rules: KeyRules) -> float | None:
    """For how many seconds a key is made. Raises PermissionDenied."""
    return _figure("expires_in_seconds", wanted, rules.expires_in_seconds)


def _figure(name: str, wanted: float | None, allowed: float | None) -> float | None:
    if allowed is None or wanted is None:
        return allowed if wanted is None else wanted
    if wanted > allowed:
        raise PermissionDenied(f"The team allows `{name}` up to {allowed:g}.", param=name)
    return wanted


def _require_known(name: str, wanted: Iterable[str], allowed: Iterable[str]) -> None:
    unknown = sorted(set(wanted) - set(allowed))
    if unknown:
        raise PermissionDenied(
            f"The team does not allow {', '.join(unknown)}; it allows {', '.join(sorted(allowed))}.", param=name
        )
