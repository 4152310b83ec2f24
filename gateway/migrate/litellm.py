"""A LiteLLM proxy's `config.yaml` as a policy-config.yaml.

What it is read for: `model_list` with `litellm_params`, `router_settings`, `litellm_settings`, `general_settings` and
`guardrails` (docs.litellm.ai/docs/proxy/configs and config_settings). A model group is a model that several targets
offer; a fallback from one group to another becomes further targets of the first. What has no counterpart is noted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import yaml

from gateway.migrate.result import (
    DEFAULT_KEYS,
    PLACEHOLDER,
    Builder,
    Migration,
    MigrationError,
    variable_name,
    weights,
)

_ENVIRON: Final = "os.environ/"
_PROVIDERS: Final[Mapping[str, str]] = {
    "openai": "openai",
    "text-completion-openai": "openai",
    "azure": "azure-openai",
    "anthropic": "anthropic",
    "bedrock": "bedrock",
    "vertex_ai": "vertex",
    "gemini": "gemini",
    "cohere": "cohere",
    "cohere_chat": "cohere",
    "mistral": "mistral",
    "groq": "groq",
    "deepseek": "deepseek",
    "fireworks_ai": "fireworks",
    "together_ai": "together",
    "perplexity": "perplexity",
    "xai": "xai",
    "ollama": "ollama",
    "ollama_chat": "ollama",
    "vllm": "vllm",
    "hosted_vllm": "vllm",
    "lm_studio": "lm-studio",
    "openrouter": "openrouter",
    "huggingface": "huggingface",
    "nvidia_nim": "nvidia",
    "cerebras": "cerebras",
    "databricks": "databricks",
    "moonshot": "moonshot",
    "azure_ai": "openai-compatible",
    "openai_like": "openai-compatible",
    "custom_openai": "openai-compatible",
}
_BARE: Final = (("claude", "anthropic"), ("command", "cohere"), ("gemini", "vertex"), ("mistral", "mistral"))
"""What a model without a provider's prefix begins with; anything else is OpenAI's."""
_STRATEGIES: Final[Mapping[str, tuple[str, str]]] = {
    "simple-shuffle": ("weighted", ""),
    "least-busy": ("least_busy", ""),
    "latency-based-routing": ("lowest_latency", ""),
    "usage-based-routing": ("least_busy", "by requests in flight instead of tokens used"),
    "usage-based-routing-v2": ("least_busy", "by requests in flight instead of tokens used"),
    "cost-based-routing": ("ordered", "put the cheapest target of each model first"),
}
_CLIENTS_OWN: Final = frozenset(
    (
        "temperature",
        "top_p",
        "max_tokens",
        "max_completion_tokens",
        "seed",
        "stop",
        "n",
        "presence_penalty",
        "frequency_penalty",
        "response_format",
        "reasoning_effort",
        "thinking",
        "tools",
        "tool_choice",
        "user",
    )
)
_SILENT: Final = frozenset(("model", "api_key", "api_base", "base_url", "rpm", "tpm", "weight", "custom_llm_provider"))
_GUARDRAILS: Final[Mapping[str, str]] = {
    "presidio": "pii-detector",
    "hide-secrets": "secret-detector",
    "hide_secrets": "secret-detector",
    "lakera": "prompt-injection",
    "lakera_v2": "prompt-injection",
    "detect_prompt_injection": "prompt-injection",
}
_HINTS: Final[Mapping[str, str]] = {
    "litellm_settings.cache": "answers are never taken from a cache; every request reaches a provider",
    "litellm_settings.cache_params": "answers are never taken from a cache",
    "litellm_settings.callbacks": "the audit log and /metrics take their place; docs/audit-log.md, docs/metrics.md",
    "litellm_settings.success_callback": "the audit log and /metrics take their place",
    "litellm_settings.failure_callback": "the audit log and /metrics take their place",
    "litellm_settings.drop_params": "what a provider cannot express is left out and told in a header;"
    " gateway.strict_translation refuses instead",
    "litellm_settings.max_budget": "a budget belongs to a key: `kt gateway-key create --help`",
    "litellm_settings.budget_duration": "budgets are for a calendar month",
    "litellm_settings.context_window_fallbacks": "a request that is too long is the client's error and is not moved",
    "litellm_settings.content_policy_fallbacks": "a provider's refusal is passed on and not moved to another",
    "router_settings.provider_budget_config": "a budget belongs to a key, not to a provider",
    "router_settings.redis_host": "gateways share limits through Redis only where they are told to; docs/limits.md",
    "router_settings.redis_port": "see redis_host",
    "router_settings.redis_password": "see redis_host",
    "router_settings.retry_policy": "providers.fallback.triggers says which failures are tried again",
    "router_settings.enable_pre_call_checks": "a request is not measured against a model's context window",
    "general_settings.master_key": "there is none; make a key for each client: `kt gateway-key create`",
    "general_settings.database_url": "keys are in the gateway's own store; for several gateways set KT_STORE_URL",
    "general_settings.store_model_in_db": "models stand in this file alone",
    "general_settings.alerting": "alerts are Prometheus' affair: deploy/prometheus/alerts.yaml",
    "general_settings.allowed_routes": "every path in docs/providers.md is served",
    "general_settings.max_parallel_requests": "concurrency is bounded by key (`--max-concurrency`) and by target",
    "general_settings.global_max_parallel_requests": "concurrency is bounded by key and by target",
    "environment_variables": "set them where the gateway is started",
}


def convert(text: str, *, name: str = "litellm", models: Sequence[str] = ()) -> Migration:
    """Convert a file. `models` take the place of wildcards (`openai/*`). Raises MigrationError."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise MigrationError(f"The file is not YAML: {error}") from None
    if not isinstance(document, dict) or not isinstance(document.get("model_list"), list):
        raise MigrationError("The file has no `model_list`; is it a LiteLLM proxy's config.yaml?")
    return _Conversion(document, Builder(name), models).run()


class _Deployment:
    """One entry of `model_list`, as far as it could be understood."""

    def __init__(self, group: str, id: str, fields: dict[str, Any], share: float) -> None:
        self.group = group
        self.id = id
        self.fields = fields
        self.share = share


class _Conversion:
    def __init__(self, document: dict[str, Any], builder: Builder, models: Sequence[str]) -> None:
        self._document = document
        self._builder = builder
        self._models = models
        self._deployments: list[_Deployment] = []

    def run(self) -> Migration:
        for number, entry in enumerate(self._document["model_list"]):
            self._deployments += self._read(entry, f"model_list[{number}]")
        self._weigh()
        aliases = self._aliases()
        fallbacks = self._fallbacks()
        for group in dict.fromkeys(one.group for one in self._deployments):
            self._offer(group, group, fallbacks)
        for alias, group in aliases.items():
            self._offer(alias, group, fallbacks)
        self._route(fallbacks)
        self._settings()
        self._guardrails()
        return self._builder.finish()

    # model_list

    def _read(self, entry: Any, path: str) -> Iterator[_Deployment]:
        note = self._builder.note
        params = entry.get("litellm_params") if isinstance(entry, dict) else None
        if not isinstance(params, dict) or not isinstance(params.get("model"), str):
            note(path, "not carried over: it has no `litellm_params.model`")
            return
        group = str(entry.get("model_name") or params["model"])
        provider, model = _provider_and_model(params)
        if provider is None:
            note(f"{path}.litellm_params.model", f"not carried over: `{params['model']}` is of no provider known here")
            return
        info = entry.get("model_info") or {}
        for public, upstream in self._expanded(group, model, path):
            fields = self._fields(provider, upstream, params, info, f"{path}.litellm_params")
            share = float(params.get("weight") or params.get("rpm") or params.get("tpm") or 1)
            yield _Deployment(public, str(info.get("id") or f"{provider}-{upstream}"), fields, share)
        self._note_parameters(params, info, path)

    def _expanded(self, group: str, model: str, path: str) -> Iterator[tuple[str, str]]:
        """The names of one entry: itself, or those that a wildcard is to stand for."""
        if "*" not in group and "*" not in model:
            yield group, model
            return
        pattern = re.compile(re.escape(group).replace(r"\*", "(.*)") + r"\Z")
        prefix = group.partition("*")[0]
        found = False
        for name in self._models:
            public = name if pattern.match(name) else f"{prefix}{name}"
            if (match := pattern.match(public)) is not None:
                found = True
                yield name, model.replace("*", match[1]) if "*" in model else model
        if not found:
            self._builder.note(
                f"{path}.model_name",
                f"`{group}` is not carried over: every model is named here; give the names with --model",
            )

    def _fields(
        self, provider: str, model: str, params: dict[str, Any], info: dict[str, Any], path: str
    ) -> dict[str, Any]:
        base = params.get("api_base") or params.get("base_url")
        if provider == "openai" and base and "api.openai.com" not in str(base):
            provider = "openai-compatible"
        fields: dict[str, Any] = {
            "provider": provider,
            "upstream_model": model,
            "base_url": self._address(provider, base, path),
            "secret_key_ref": self._secret(provider, params, path),
            "headers": self._headers(params, path),
            "timeouts": _timeouts(params.get("timeout")),
            "max_concurrency": params.get("max_parallel_requests"),
        }
        if provider == "azure-openai":
            fields["upstream_model"] = str(info.get("base_model") or model).removeprefix("azure/")
            fields["azure_deployment"] = model
            fields["azure_api_version"] = self._text(params.get("api_version"), f"{path}.api_version")
            fields["azure_tenant_id"] = self._text(params.get("tenant_id"), f"{path}.tenant_id")
            fields["azure_client_id"] = self._text(params.get("client_id"), f"{path}.client_id")
        elif provider == "bedrock":
            fields["aws_region"] = self._text(params.get("aws_region_name"), f"{path}.aws_region_name")
            fields["aws_profile"] = self._text(params.get("aws_profile_name"), f"{path}.aws_profile_name")
        elif provider == "vertex":
            fields["vertex_project"] = self._text(params.get("vertex_project"), f"{path}.vertex_project")
            fields["vertex_location"] = self._text(params.get("vertex_location"), f"{path}.vertex_location")
        return fields

    def _text(self, value: Any, path: str) -> str | None:
        """A setting that is no secret: it must stand in our file."""
        if isinstance(value, str) and value.startswith(_ENVIRON):
            self._builder.note(path, f"write the value of {value.removeprefix(_ENVIRON)} here: it is no secret")
            return None
        return str(value) if value else None

    def _address(self, provider: str, base: Any, path: str) -> str | None:
        if isinstance(base, str) and base.startswith(_ENVIRON):
            self._builder.note(f"{path}.api_base", f"put the value of {base.removeprefix(_ENVIRON)} for {PLACEHOLDER}")
            return PLACEHOLDER
        if not base and provider in ("azure-openai", "openai-compatible", "databricks", "cloudflare"):
            self._builder.note(f"{path}.api_base", f"it is missing; put the provider's URL for {PLACEHOLDER}")
            return PLACEHOLDER
        return str(base).partition("?")[0].rstrip("/") if base else None

    def _secret(self, provider: str, params: dict[str, Any], path: str) -> dict[str, str] | None:
        key = params.get("api_key") or params.get("client_secret") or params.get("vertex_credentials")
        if not isinstance(key, str):
            self._note_credentials(params, path)
            return {"env": DEFAULT_KEYS[provider]} if provider in DEFAULT_KEYS else None
        if key.startswith(_ENVIRON):
            return {"env": key.removeprefix(_ENVIRON)}
        if key == params.get("vertex_credentials"):
            return {"file": key}
        variable = DEFAULT_KEYS.get(provider) or variable_name(provider, "API_KEY")
        self._builder.note(f"{path}.api_key", f"a key stood in the file: keep it in the variable {variable} instead")
        return {"env": variable}

    def _note_credentials(self, params: dict[str, Any], path: str) -> None:
        for name in ("aws_access_key_id", "aws_secret_access_key", "aws_session_token"):
            if name in params:
                variable = name.upper()
                self._builder.note(f"{path}.{name}", f"taken from {variable}, or from a profile; docs/providers.md")
        for name in ("aws_role_name", "aws_session_name", "aws_web_identity_token"):
            if name in params:
                self._builder.note(f"{path}.{name}", "put the role into a profile and name it in aws_profile")

    def _headers(self, params: dict[str, Any], path: str) -> dict[str, str]:
        headers = {}
        for name, value in (params.get("extra_headers") or {}).items():
            if str(value).startswith(_ENVIRON):
                self._builder.note(f"{path}.extra_headers.{name}", "a header cannot be taken from the environment")
            else:
                headers[str(name)] = str(value)
        organization = self._text(params.get("organization"), f"{path}.organization")
        return {**headers, **({"openai-organization": organization} if organization else {})}

    def _note_parameters(self, params: dict[str, Any], info: dict[str, Any], path: str) -> None:
        """Say which parameters have no counterpart."""
        known = _SILENT | {"extra_headers", "organization", "timeout", "max_parallel_requests", "api_version"}
        known |= {"tenant_id", "client_id", "client_secret", "vertex_project", "vertex_location", "vertex_credentials"}
        known |= {name for name in params if name.startswith("aws_")}
        for name in params:
            if name in _CLIENTS_OWN:
                message = "a default for requests is not set here; clients send it themselves"
            elif name.endswith(("_cost_per_token", "_cost_per_second")):
                message = "prices are not part of a target"
            elif name not in known:
                message = "no counterpart"
            else:
                continue
            self._builder.note(f"{path}.litellm_params.{name}", message)
        for name in ("rpm", "tpm"):
            if name in params:
                self._builder.note(
                    f"{path}.litellm_params.{name}", "used as weight; a limit belongs to a key: `--rpm`, `--tpm`"
                )

    def _weigh(self) -> None:
        groups: dict[str, list[_Deployment]] = {}
        for one in self._deployments:
            groups.setdefault(one.group, []).append(one)
        for members in groups.values():
            for one, weight in zip(members, weights(member.share for member in members), strict=True):
                if weight != 1:
                    one.fields["weight"] = weight

    # Groups

    def _offer(self, public: str, group: str, fallbacks: Mapping[str, Sequence[str]]) -> None:
        """The targets of one model: those of its group, then those of the groups that it falls back to."""
        for source in (group, *fallbacks.get(group, ())):
            for one in self._deployments:
                if one.group != source:
                    continue
                own = source == group == public
                fields = {**one.fields, "upstream_model": one.fields["upstream_model"]}
                if fields["upstream_model"] == public and "azure_deployment" not in fields:
                    del fields["upstream_model"]
                provider = fields.pop("provider")
                id = one.id if own else f"{one.id}-for-{public}"
                self._builder.add_target(id, provider=provider, model=public, **fields)

    def _aliases(self) -> dict[str, str]:
        aliases = self._section("router_settings").get("model_group_alias") or {}
        found = {}
        for alias, group in aliases.items():
            name = group.get("model") if isinstance(group, dict) else group
            if any(one.group == name for one in self._deployments):
                found[str(alias)] = str(name)
            else:
                self._builder.note(f"router_settings.model_group_alias.{alias}", f"there is no model `{name}`")
        return found

    def _fallbacks(self) -> dict[str, list[str]]:
        known = {one.group for one in self._deployments}
        found: dict[str, list[str]] = {}
        for section in ("litellm_settings", "router_settings"):
            for number, entry in enumerate(self._section(section).get("fallbacks") or ()):
                for group, others in entry.items():
                    found.setdefault(str(group), []).extend(map(str, others))
                    for other in {str(group), *map(str, others)} - known:
                        self._builder.note(f"{section}.fallbacks[{number}]", f"there is no model `{other}`")
            defaults = self._section(section).get("default_fallbacks") or ()
            for group in known:
                found.setdefault(group, []).extend(name for name in map(str, defaults) if name != group)
        return {group: list(dict.fromkeys(others)) for group, others in found.items() if others and group in known}

    # Settings

    def _section(self, name: str) -> dict[str, Any]:
        section = self._document.get(name)
        return section if isinstance(section, dict) else {}

    def _route(self, fallbacks: Mapping[str, Sequence[str]]) -> None:
        router, builder = self._section("router_settings"), self._builder
        asked = str(router.get("routing_strategy") or "simple-shuffle")
        strategy, doubt = _STRATEGIES.get(asked, ("weighted", f"`{asked}` has no counterpart"))
        several = {one.group for one in self._deployments if self._count(one.group) > 1}
        if doubt:
            builder.note("router_settings.routing_strategy", f"{strategy}: {doubt}")
        if fallbacks and strategy != "ordered":
            strategy = "ordered"
            if several:
                builder.note(
                    "router_settings.routing_strategy",
                    "ordered: with any other the targets that are only fallbacks would be chosen as well; the targets"
                    f" of {', '.join(sorted(several))} are tried in their order instead of in turns",
                )
        if several or fallbacks:
            builder.routing["strategy"] = strategy
        retries = router.get("num_retries", self._section("litellm_settings").get("num_retries"))
        if isinstance(retries, int):
            builder.fallback["max_attempts"] = max(1, min(retries + 1, 20))
        breaker = {"failure_threshold": router.get("allowed_fails"), "open_seconds": router.get("cooldown_time")}
        if set_ := {name: value for name, value in breaker.items() if isinstance(value, int | float) and value > 0}:
            builder.fallback["circuit_breaker"] = set_

    def _count(self, group: str) -> int:
        return sum(one.group == group for one in self._deployments)

    def _settings(self) -> None:
        builder = self._builder
        router, library = self._section("router_settings"), self._section("litellm_settings")
        general = self._section("general_settings")
        if timeouts := _timeouts(router.get("timeout") or library.get("request_timeout")):
            builder.gateway["timeouts"] = timeouts
        if library.get("set_verbose"):
            builder.gateway["logging"] = {"level": "debug"}
        if isinstance(general.get("allowed_ips"), list):
            builder.gateway["ip_allowlist"] = [str(address) for address in general["allowed_ips"]]
        if isinstance(size := general.get("max_request_size_mb"), int | float) and size > 0:
            builder.gateway["max_body_bytes"] = int(size * (1 << 20))
        carried = {
            "router_settings": {"routing_strategy", "num_retries", "allowed_fails", "cooldown_time", "timeout"}
            | {"model_group_alias", "fallbacks", "default_fallbacks"},
            "litellm_settings": {"num_retries", "request_timeout", "fallbacks", "default_fallbacks", "set_verbose"}
            | {"json_logs"},
            "general_settings": {"allowed_ips", "max_request_size_mb"},
        }
        for section, names in carried.items():
            for name in self._section(section):
                if name not in names:
                    path = f"{section}.{name}"
                    builder.note(path, _HINTS.get(path, "no counterpart"))
        for name in self._document:
            if name not in (*carried, "model_list", "guardrails"):
                builder.note(str(name), _HINTS.get(str(name), "no counterpart"))

    def _guardrails(self) -> None:
        for number, guardrail in enumerate(self._document.get("guardrails") or ()):
            path = f"guardrails[{number}]"
            params = guardrail.get("litellm_params") or {} if isinstance(guardrail, dict) else {}
            kind = _GUARDRAILS.get(str(params.get("guardrail")))
            if kind is None:
                self._builder.note(path, "no counterpart; docs/policies lists what there is")
            else:
                self._builder.add_policy(kind)
                self._builder.note(path, f"`{kind}` with its defaults takes its place; compare them with what was set")


def _provider_and_model(params: dict[str, Any]) -> tuple[str | None, str]:
    model = str(params["model"])
    prefix, slash, rest = model.partition("/")
    if asked := params.get("custom_llm_provider"):
        return _PROVIDERS.get(str(asked)), rest if slash and prefix == asked else model
    if slash and prefix in _PROVIDERS:
        if prefix == "bedrock":
            rest = re.sub(r"^(converse|invoke|[a-z]{2}-[a-z]+-\d)/", "", rest)
        return _PROVIDERS[prefix], rest
    if slash and not params.get("api_base"):
        return None, model
    if params.get("api_base"):
        return "openai-compatible", model
    return next((provider for start, provider in _BARE if model.startswith(start)), "openai"), model


def _timeouts(seconds: Any) -> dict[str, float]:
    """LiteLLM's timeout is that of its HTTP client: between two reads, so a stream is not cut by it."""
    if not isinstance(seconds, int | float) or not 0 < seconds <= 86_400:
        return {}
    return {"first_byte_seconds": seconds, "idle_seconds": seconds}
