"""A Portkey gateway's config (JSON) as a policy-config.yaml.

What it is read for: `strategy` (single, fallback, loadbalance, conditional), `targets` with their provider, key, weight
and `override_params`, `retry`, `request_timeout`, and word guardrails (portkey.ai/docs, "Configs"; both spellings of
keys, snake_case and camelCase). All targets serve one public model, the first one's, since such a config routes
requests and not models. Virtual keys become environment variables. What has no counterpart is noted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from gateway.migrate.result import (
    DEFAULT_KEYS,
    PLACEHOLDER,
    Builder,
    Migration,
    MigrationError,
    variable_name,
    weights,
)

_PROVIDERS: Final[Mapping[str, str]] = {
    "openai": "openai",
    "azure-openai": "azure-openai",
    "anthropic": "anthropic",
    "bedrock": "bedrock",
    "vertex-ai": "vertex",
    "google": "gemini",
    "cohere": "cohere",
    "mistral-ai": "mistral",
    "groq": "groq",
    "deepseek": "deepseek",
    "fireworks-ai": "fireworks",
    "together-ai": "together",
    "perplexity-ai": "perplexity",
    "x-ai": "xai",
    "ollama": "ollama",
    "openrouter": "openrouter",
    "huggingface": "huggingface",
    "nvidia-nim": "nvidia",
    "cerebras": "cerebras",
    "databricks": "databricks",
    "moonshot": "moonshot",
}
_CARRIED: Final = frozenset(
    (
        "provider",
        "api_key",
        "virtual_key",
        "weight",
        "override_params",
        "custom_host",
        "name",
        "retry",
        "strategy",
        "targets",
        "request_timeout",
        "resource_name",
        "deployment_id",
        "api_version",
        "aws_region",
        "cache",
        "headers",
        "vertex_project_id",
        "vertex_region",
        "input_guardrails",
        "output_guardrails",
        "before_request_hooks",
        "after_request_hooks",
    )
)
_NOTES: Final[Mapping[str, str]] = {
    "cache": "answers are never taken from a cache; every request reaches a provider",
    "before_request_hooks": "no counterpart; docs/policies lists what there is",
    "after_request_hooks": "no counterpart; docs/policies lists what there is",
    "headers": "name the fields in `headers` of the target",
}


def convert(text: str, *, name: str = "portkey", models: Sequence[str] = ()) -> Migration:
    """Convert a file. `models`: the public names; the first target's own model where none is given.

    Raises MigrationError, also where neither names a model.
    """
    try:
        document = json.loads(text)
    except ValueError as error:
        raise MigrationError(f"The file is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise MigrationError("The file is not a JSON object; is it a Portkey config?")
    return _Conversion(_snake(document), Builder(name), models).run()


class _Conversion:
    def __init__(self, document: dict[str, Any], builder: Builder, models: Sequence[str]) -> None:
        self._document = document
        self._builder = builder
        self._models = list(models)

    def run(self) -> Migration:
        builder = self._builder
        entries = list(self._flat(self._document, ""))
        named = [str(one["override_params"]["model"]) for _, one in entries if _has_model(one)]
        public = self._models or named[:1]
        if not public:
            raise MigrationError("The config names no model (`override_params.model`); name those of clients: --model")
        shares = weights(float(one.get("weight", 1)) for _, one in entries)
        for model in public:
            for (path, one), weight in zip(entries, shares, strict=True):
                self._target(one, path, model, weight)
        self._strategy()
        for path, one in [("", self._document), *entries]:
            self._guardrails(one, path)
            self._note_rest(one, path)
        return builder.finish()

    def _flat(self, node: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """The targets, those of nested strategies in their order; what stands above one holds for it too."""
        targets = node.get("targets")
        if not targets:
            yield path, node
            return
        shared = ("request_timeout", "retry", "override_params")
        inherited: dict[str, Any] = {name: node[name] for name in shared if name in node}
        for number, target in enumerate(targets):
            place = f"{path}.targets[{number}]".lstrip(".")
            if target.get("targets"):
                self._builder.note(
                    f"{place}.strategy", "nested strategies are not carried over: its targets follow in order"
                )
            yield from self._flat({**inherited, **target}, place)

    def _target(self, one: dict[str, Any], path: str, public: str, weight: int) -> None:
        note = self._builder.note
        provider, key = self._provider(one, path)
        if provider is None:
            return
        model = str(one["override_params"]["model"]) if _has_model(one) else public
        fields: dict[str, Any] = {
            "upstream_model": model if model != public else None,
            "base_url": self._address(provider, one, path),
            "secret_key_ref": key,
            "weight": weight if weight != 1 else None,
            "timeouts": _timeouts(one.get("request_timeout")),
        }
        if provider == "azure-openai":
            fields["azure_deployment"] = one.get("deployment_id")
            fields["azure_api_version"] = one.get("api_version")
        elif provider == "bedrock":
            fields["aws_region"] = one.get("aws_region")
        elif provider == "vertex":
            fields["vertex_project"] = one.get("vertex_project_id")
            fields["vertex_location"] = one.get("vertex_region")
        others = [name for name in one.get("override_params") or {} if name != "model"]
        if others:
            note(f"{path}.override_params".lstrip("."), f"{', '.join(others)}: clients send it themselves")
        id = str(one.get("name") or f"{provider}-{model}")
        self._builder.add_target(id, provider=provider, model=public, **fields)

    def _provider(self, one: dict[str, Any], path: str) -> tuple[str | None, dict[str, str] | None]:
        """Our name of the provider, and where its key is to be found."""
        asked = str(one.get("provider") or "")
        slug = asked.removeprefix("@").partition("/")[0] if asked.startswith("@") else str(one.get("virtual_key") or "")
        provider = _PROVIDERS.get(asked) or next(
            (ours for theirs, ours in _PROVIDERS.items() if slug.startswith(theirs)), None
        )
        if one.get("custom_host") and provider in (None, "openai"):
            provider = "openai-compatible"
        if provider is None:
            self._builder.note(
                path or "provider", f"not carried over: the provider of `{asked or slug}` is not known here"
            )
            return None, None
        if slug:
            behind = variable_name(slug, "API_KEY")
            self._builder.note(path or "virtual_key", f"put the key behind `{slug}` into the variable {behind}")
            return provider, {"env": behind}
        variable = DEFAULT_KEYS.get(provider)
        if one.get("api_key"):
            variable = variable or variable_name(provider, "API_KEY")
            place = f"{path}.api_key".lstrip(".")
            self._builder.note(place, f"a key stood in the file: keep it in the variable {variable} instead")
        return provider, {"env": variable} if variable else None

    def _address(self, provider: str, one: dict[str, Any], path: str) -> str | None:
        if host := one.get("custom_host"):
            return str(host).rstrip("/")
        if provider == "azure-openai" and one.get("resource_name"):
            return f"https://{one['resource_name']}.openai.azure.com"
        if provider in ("azure-openai", "openai-compatible", "databricks"):
            self._builder.note(path or "provider", f"put the provider's URL for {PLACEHOLDER}")
            return PLACEHOLDER
        return None

    def _strategy(self) -> None:
        builder, strategy = self._builder, self._document.get("strategy") or {}
        mode = strategy.get("mode", "single")
        builder.routing["strategy"] = "weighted" if mode == "loadbalance" else "ordered"
        if mode == "conditional":
            builder.note("strategy", "conditions are not carried over: the targets are tried in their order")
        codes = [int(code) for code in strategy.get("on_status_codes") or ()]
        if mode == "fallback" and codes:
            builder.fallback["triggers"] = _triggers(codes)
        elif mode in ("single", "loadbalance"):
            builder.fallback["triggers"] = []
        retry = self._document.get("retry") or {}
        if isinstance(attempts := retry.get("attempts"), int):
            builder.fallback["max_attempts"] = max(1, min(attempts + 1, 20))
            builder.fallback["triggers"] = _triggers([int(code) for code in retry.get("on_status_codes") or ()])
            builder.note("retry", "another target is tried next; the same one again only where there is no other")

    def _guardrails(self, one: dict[str, Any], path: str) -> None:
        for side in ("input_guardrails", "output_guardrails"):
            for number, guardrail in enumerate(one.get(side) or ()):
                place = f"{path}.{side}[{number}]".lstrip(".")
                check = guardrail.get("default.contains") if isinstance(guardrail, dict) else None
                if isinstance(check, dict) and check.get("operator") == "none" and check.get("words"):
                    self._builder.add_policy(
                        "dlp-filter", {"action": "block", "terms": [str(word) for word in check["words"]]}
                    )
                else:
                    self._builder.note(place, "no counterpart; docs/policies lists what there is")

    def _note_rest(self, one: dict[str, Any], path: str) -> None:
        for name in one:
            place = f"{path}.{name}".lstrip(".")
            if name in _NOTES:
                self._builder.note(place, _NOTES[name])
            elif name not in _CARRIED:
                self._builder.note(place, "no counterpart")


def _has_model(one: dict[str, Any]) -> bool:
    return bool((one.get("override_params") or {}).get("model"))


def _triggers(codes: Sequence[int]) -> list[str]:
    """Which of our triggers these status codes mean; all where none are named."""
    meant = {
        "rate_limit": {429},
        "server_error": set(range(500, 600)) - {504},
        "timeout": {408, 504},
    }
    found = [trigger for trigger, own in meant.items() if not codes or own & set(codes)]
    return [*found, "connection"]


def _timeouts(milliseconds: Any) -> dict[str, float]:
    if not isinstance(milliseconds, int | float) or milliseconds <= 0:
        return {}
    seconds = min(milliseconds / 1000, 86_400)
    return {"first_byte_seconds": seconds}


def _snake(value: Any) -> Any:
    """Keys in snake_case, but for the names of checks, which have a dot."""
    if isinstance(value, dict):
        return {
            name if "." in name else re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower(): _snake(inner)
            for name, inner in value.items()
        }
    return [_snake(one) for one in value] if isinstance(value, list) else value
