"""What is allowed in a configuration and likely not meant: warnings, each at its place.

An error is what makes a file unusable and belongs to the loader. Here the file is right, and the environment or the
author's intention may not be. The environment is handed in; a secret is only looked for, never kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

from gateway.config.load import LoadedConfiguration
from gateway.config.problems import Problem, in_order
from gateway.config.schema import SecretRef
from gateway.downstream.certificate import CertificateInvalid
from gateway.downstream.certificate import check as check_certificate
from gateway.prices import price_of
from gateway.secrets import read_secret
from policy.external_moderation import ExternalModerationSettings

NOT_IN_FORCE: Final[Mapping[str, str]] = {
    "providers.targets[].secret_key_ref.store": "the target stays unavailable",
}
"""Settings that are accepted and that this version does not act on, each with what holds instead."""

_INDEX: Final = re.compile(r"\[\d+\]")
_FETCHED: Final = ("azure-openai", "bedrock", "vertex")
"""Providers whose credentials are fetched where the target names none."""
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")


def lint(loaded: Sequence[LoadedConfiguration], environ: Mapping[str, str]) -> list[Problem]:
    """Warnings about configurations that are used together, the default one first."""
    found: list[Problem] = []
    for one in loaded:
        found += [
            *_not_in_force(one),
            *_missing_secrets(one, environ),
            *_clear_text(one),
            *_moderation(one, environ),
            *_certificate(one),
            *_unpriced(one),
            *_redis(one, environ),
            *_unused(one),
        ]
    found += _server_settings_ignored(loaded)
    found += _shadows(loaded)
    return in_order(found)


def missing_secret(reference: SecretRef, environ: Mapping[str, str]) -> str:
    """Why a secret cannot be had or used, in words, or an empty string. What is in the store is not known here."""
    return "" if reference.store is not None else read_secret(reference, environ)[1]


def _not_in_force(one: LoadedConfiguration) -> Iterator[Problem]:
    for path in one.places:
        if instead := NOT_IN_FORCE.get(_INDEX.sub("[]", path)):
            yield one.problem(path, "not in force yet", instead)


def _missing_secrets(one: LoadedConfiguration, environ: Mapping[str, str]) -> Iterator[Problem]:
    for index, target in enumerate(one.configuration.providers.targets):
        if target.secret_key_ref and (reason := missing_secret(target.secret_key_ref, environ)):
            path = f"providers.targets[{index}].secret_key_ref"
            yield one.problem(path, reason, f"the target `{target.id}` is unavailable until it is there")


def _clear_text(one: LoadedConfiguration) -> Iterator[Problem]:
    for index, target in enumerate(one.configuration.providers.targets):
        url = urlsplit(target.base_url or "")
        has_secret = target.secret_key_ref or target.provider in _FETCHED
        if url.scheme == "http" and has_secret and url.hostname not in _LOOPBACK:
            yield one.problem(
                f"providers.targets[{index}].base_url", "the secret and all prompts travel in clear text", "use https"
            )


def _moderation(one: LoadedConfiguration, environ: Mapping[str, str]) -> Iterator[Problem]:
    """What keeps `external-moderation` from asking, or lets others read along."""
    settings = one.configuration.policy.get("external-moderation")
    if not isinstance(settings, ExternalModerationSettings):
        return
    reference, url = settings.secret_key_ref, urlsplit(settings.url)
    if reference is not None and (reason := read_secret(reference, environ)[1]):
        path = "policy.external-moderation.secret_key_ref"
        yield one.problem(path, reason, f"without it nobody is asked, and `fail_mode: {settings.fail_mode}` holds")
    if url.scheme == "http" and url.hostname not in _LOOPBACK:
        yield one.problem("policy.external-moderation.url", "all texts travel in clear", "use https")


def _unpriced(one: LoadedConfiguration) -> Iterator[Problem]:
    """Targets whose cost a budget of the configuration does not see."""
    if one.configuration.limits.budget_usd_per_month is None:
        return
    for index, target in enumerate(one.configuration.providers.targets):
        model = target.upstream_model or target.model
        if target.price is None and price_of(target.provider, model, 0.0) is None:
            path = f"providers.targets[{index}]"
            yield one.problem(path, f"no price is known for `{model}`: no budget sees its cost", "give it a `price`")


def _redis(one: LoadedConfiguration, environ: Mapping[str, str]) -> Iterator[Problem]:
    settings = one.configuration.gateway.redis
    if settings is not None and (reason := missing_secret(settings.url_ref, environ)):
        yield one.problem("gateway.redis.url_ref", reason, "without it each machine's limits are its own")


def _certificate(one: LoadedConfiguration) -> Iterator[Problem]:
    try:
        check_certificate(one.configuration.gateway.tls)
    except CertificateInvalid as error:
        yield one.problem("gateway.tls", str(error).removeprefix("gateway.tls: "), "the gateway would not start")


def _unused(one: LoadedConfiguration) -> Iterator[Problem]:
    configuration = one.configuration
    for kind in configuration.policy:
        if kind not in configuration.policies.chain:
            yield one.problem(f"policy.{kind}", "not in `policies.chain`, so it never runs", "add it to the chain")
    if not configuration.pack.enabled:
        yield one.problem("pack.enabled", "this configuration is not served")


def _shadows(loaded: Sequence[LoadedConfiguration]) -> Iterator[Problem]:
    names = {one.configuration.pack.name for one in loaded}
    for one in loaded:
        shadow = one.configuration.policies.shadow
        if shadow is not None and shadow.configuration not in names:
            text = f"no configuration `{shadow.configuration}` is loaded with this one"
            yield one.problem("policies.shadow.configuration", text, "name its file in another --policy-config")


def _server_settings_ignored(loaded: Sequence[LoadedConfiguration]) -> Iterator[Problem]:
    for other in loaded[1:]:
        if other.configuration.gateway != loaded[0].configuration.gateway:
            yield other.problem(
                "gateway", f"ignored: the server's settings are those of the default configuration `{loaded[0].id}`"
            )
