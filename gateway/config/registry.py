"""The names that a configuration may use and that other packages define: providers and policy kinds.

The schema leaves them open; everything that reads or describes a configuration takes a `Registry`, so that a test can
bring its own. `installed` is the real one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from gateway.config.schema import KINDS, PROVIDERS, Target

if TYPE_CHECKING:
    from policy.base import Policy


class Registry(NamedTuple):
    """`policies` has each kind that a chain may name; `providers` the names that a target may use.

    `check_target` is the providers' own look at a target whose settings are each right; it raises ValueError in words
    for the operator.
    """

    policies: Mapping[str, type[Policy[Any]]]
    providers: Collection[str]
    check_target: Callable[[Target], object]

    def names(self, choice: str) -> Collection[str]:
        """The names that the schema keyword `x-choices` calls `choice`."""
        return {KINDS: self.policies, PROVIDERS: self.providers}[choice]


@functools.cache
def installed() -> Registry:
    """What this installation offers."""
    # Imported when asked for: commands that read no configuration do without dialects and scanners.
    from policy.compile import KINDS as POLICIES
    from translators.providers import PROVIDERS, Where, row_of, upstream_of

    def check_target(target: Target) -> object:
        model = target.upstream_model or target.model
        return upstream_of(
            row_of(target.provider, target.api, model),
            base_url=target.base_url,
            azure_deployment=target.azure_deployment,
            azure_api_version=target.azure_api_version,
            model=model,
            extra_headers=target.headers,
            where=Where(target.aws_region, target.vertex_project, target.vertex_location),
        )

    return Registry(POLICIES, tuple(PROVIDERS), check_target)
