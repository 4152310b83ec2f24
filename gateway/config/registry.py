"""The names that a configuration may use and that other packages define: providers and policy kinds.

The schema leaves them open; everything that reads or describes a configuration takes a `Registry`, so that a test can
bring its own. `installed` is the real one.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from typing import NamedTuple

from gateway.config.schema import KINDS, PROVIDERS
from policy.base import Policy


class Registry(NamedTuple):
    """`policies` has each kind that a chain may name; `providers` the names that a target may use."""

    policies: Mapping[str, type[Policy]]
    providers: Collection[str]

    def names(self, choice: str) -> Collection[str]:
        """The names that the schema keyword `x-choices` calls `choice`."""
        return {KINDS: self.policies, PROVIDERS: self.providers}[choice]


@functools.cache
def installed() -> Registry:
    """What this installation offers."""
    # Imported when asked for: commands that read no configuration do without dialects and scanners.
    from translators.providers import PROVIDERS

    from policy.compile import KINDS

    return Registry(KINDS, tuple(PROVIDERS))
