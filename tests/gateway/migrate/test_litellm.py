"""LiteLLM's files become configurations that load, mean the same as far as they can, and hide nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.load import load_text
from gateway.config.schema import Configuration, RoutingStrategy, Target
from gateway.migrate.litellm import convert
from gateway.migrate.result import Migration, MigrationError

CONFIGS = Path(__file__).parent / "configs"
TEAM = (CONFIGS / "litellm-team.yaml").read_text()


@pytest.fixture(scope="module")
def team() -> Migration:
    return convert(TEAM)


def configuration(migration: Migration) -> Configuration:
    return load_text(migration.text, "policy-config.yaml").configuration


def target(migration: Migration, id: str) -> Target:
    return next(one for one in configuration(migration).providers.targets if one.id == id)


def offered(migration: Migration, model: str) -> list[str]:
    return [one.id for one in configuration(migration).providers.targets if one.model == model]


def notes(migration: Migration) -> dict[str, str]:
    return dict(migration.notes)


def small(**sections: str) -> str:
    return "model_list: [{model_name: m, litellm_params: {model: openai/gpt-4o}}]\n" + "\n".join(
        f"{name}: {value}" for name, value in sections.items()
    )


def test_a_model_group_is_a_model_that_several_targets_offer(team: Migration) -> None:
    assert offered(team, "gpt-4o")[:3] == ["azure-openai-gpt-4o-eu", "azure-openai-gpt-4o-us", "openai-gpt-4o"]
    assert [target(team, id).weight for id in offered(team, "gpt-4o")[:3]] == [2, 4, 1]


def test_azure_keeps_deployment_version_and_place(team: Migration) -> None:
    one = target(team, "azure-openai-gpt-4o-eu")
    assert (one.azure_deployment, one.azure_api_version) == ("gpt-4o-eu", "2024-10-21")
    assert one.base_url == "https://contoso-eu.openai.azure.com"
    assert str(one.secret_key_ref) == "env: AZURE_EU_KEY"
    assert (one.timeouts.first_byte_seconds, one.timeouts.total_seconds) == (120, None)


def test_clouds_keep_their_places_and_credentials(team: Migration) -> None:
    bedrock = target(team, "bedrock-eu.anthropic.claude-sonnet-4-20250514-v1-0")
    assert bedrock.upstream_model == "eu.anthropic.claude-sonnet-4-20250514-v1:0"
    assert (bedrock.aws_region, bedrock.secret_key_ref) == ("eu-central-1", None)
    vertex = target(team, "vertex-gemini-2.5-pro")
    assert (vertex.vertex_project, vertex.vertex_location) == ("contoso-ai", "europe-west4")
    assert str(vertex.secret_key_ref) == "file: /secrets/vertex.json"


def test_other_servers_and_headers(team: Migration) -> None:
    local = target(team, "vllm-meta-llama-Llama-3.1-8B-Instruct")
    assert (local.model, local.upstream_model) == ("local-llama", "meta-llama/Llama-3.1-8B-Instruct")
    assert local.base_url == "http://vllm.internal:8000/v1"
    assert target(team, "openai-gpt-4o").headers == {"openai-organization": "org-contoso"}
    assert target(team, "anthropic-claude-sonnet-4-20250514").max_concurrency == 40


def test_fallbacks_become_further_targets_that_are_tried_later(team: Migration) -> None:
    assert offered(team, "gpt-4o")[3:] == ["anthropic-claude-sonnet-4-20250514-for-gpt-4o"]
    assert offered(team, "claude-sonnet")[1:] == [
        "bedrock-eu.anthropic.claude-sonnet-4-20250514-v1-0-for-claude-sonnet",
        "azure-openai-gpt-4o-eu-for-claude-sonnet",
        "azure-openai-gpt-4o-us-for-claude-sonnet",
        "openai-gpt-4o-for-claude-sonnet",
    ]
    assert configuration(team).providers.routing.strategy is RoutingStrategy.ORDERED
    assert "gpt-4o" in notes(team)["router_settings.routing_strategy"]
    assert target(team, "anthropic-claude-sonnet-4-20250514-for-gpt-4o").upstream_model == "claude-sonnet-4-20250514"


def test_an_alias_is_a_model_with_the_same_targets(team: Migration) -> None:
    assert len(offered(team, "gpt-4")) == len(offered(team, "gpt-4o")) == 4


def test_router_and_server_settings(team: Migration) -> None:
    one = configuration(team)
    assert one.providers.fallback.max_attempts == 3
    breaker = one.providers.fallback.circuit_breaker
    assert (breaker.failure_threshold, breaker.open_seconds) == (3, 45)
    assert one.gateway.timeouts.idle_seconds == 300
    assert one.gateway.ip_allowlist == ("10.0.0.0/8", "192.0.2.7")
    assert one.gateway.max_body_bytes == 16 << 20
    assert one.policies.chain == ("pii-detector", "audit-logger")


def test_no_secret_is_copied(team: Migration) -> None:
    assert "sk-ant-this-should-not-be-here" not in team.text + "".join(map(str, team.notes))
    assert str(target(team, "anthropic-claude-sonnet-4-20250514").secret_key_ref) == "env: ANTHROPIC_API_KEY"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("model_list[3].litellm_params.api_key", "keep it in the variable ANTHROPIC_API_KEY"),
        ("model_list[3].litellm_params.temperature", "clients send it themselves"),
        ("model_list[4].litellm_params.aws_secret_access_key", "AWS_SECRET_ACCESS_KEY"),
        ("model_list[6].litellm_params.input_cost_per_token", "prices"),
        ("model_list[0].litellm_params.rpm", "a limit belongs to a key"),
        ("model_list[8].model_name", "give the names with --model"),
        ("model_list[9].litellm_params.model", "of no provider known here"),
        ("router_settings.redis_host", "Redis"),
        ("litellm_settings.context_window_fallbacks", "too long"),
        ("litellm_settings.cache", "every request reaches a provider"),
        ("litellm_settings.max_budget", "a budget belongs to a key"),
        ("litellm_settings.success_callback", "audit log"),
        ("general_settings.master_key", "kt gateway-key create"),
        ("general_settings.database_url", "KT_STORE_URL"),
        ("guardrails[0]", "`pii-detector` with its defaults"),
        ("guardrails[1]", "no counterpart"),
        ("environment_variables", "where the gateway is started"),
    ],
)
def test_what_could_not_come_along_is_told_with_its_place(team: Migration, path: str, words: str) -> None:
    assert words in notes(team)[path]


def test_what_did_come_along_is_not_told(team: Migration) -> None:
    told = notes(team)
    for path in ("router_settings.num_retries", "litellm_settings.fallbacks", "general_settings.allowed_ips"):
        assert path not in told


def test_wildcards_stand_for_the_models_that_are_named() -> None:
    migration = convert(TEAM, models=["gpt-4o-mini", "o3"])
    assert offered(migration, "gpt-4o-mini") == ["openai-gpt-4o-mini"]
    assert offered(migration, "o3") == ["openai-o3"]
    assert "model_list[8].model_name" not in notes(migration)


def test_models_without_a_prefix_and_keys_that_are_not_named() -> None:
    migration = convert((CONFIGS / "litellm-small.yaml").read_text())
    mini, sonnet = configuration(migration).providers.targets
    assert (mini.provider, mini.upstream_model, str(mini.secret_key_ref)) == ("openai", None, "env: OPENAI_API_KEY")
    assert (sonnet.provider, sonnet.model) == ("anthropic", "sonnet")
    assert [note.path for note in migration.notes] == ["general_settings.master_key"]


@pytest.mark.parametrize(
    ("strategy", "ours"),
    [("least-busy", "least_busy"), ("latency-based-routing", "lowest_latency"), ("simple-shuffle", "weighted")],
)
def test_strategies_without_fallbacks_keep_their_meaning(strategy: str, ours: str) -> None:
    text = (
        "model_list:\n"
        "  - {model_name: m, litellm_params: {model: openai/a}}\n"
        "  - {model_name: m, litellm_params: {model: openai/b}}\n"
        f"router_settings: {{routing_strategy: {strategy}}}\n"
    )
    migration = convert(text)
    assert configuration(migration).providers.routing.strategy == ours
    assert migration.notes == ()


def test_addresses_from_the_environment_must_be_written_down() -> None:
    text = small().replace("model: openai/gpt-4o", "model: azure/d, api_base: os.environ/AZURE_BASE")
    migration = convert(text)
    assert target(migration, "azure-openai-d").base_url == "https://replace-me.invalid"
    assert "AZURE_BASE" in notes(migration)["model_list[0].litellm_params.api_base"]


def test_a_fallback_to_nowhere_is_told() -> None:
    migration = convert(small(litellm_settings="{fallbacks: [{m: [gone]}]}"))
    assert notes(migration)["litellm_settings.fallbacks[0]"] == "there is no model `gone`"
    assert len(offered(migration, "m")) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model_list: [", "not YAML"),
        ("models: []", "no `model_list`"),
        ("model_list: []", "No target could be carried over"),
        ("model_list: [{model_name: '*', litellm_params: {model: '*'}}]", "give the names with --model"),
        ("model_list: [{model_name: m, litellm_params: {model: x, api_base: 'ftp://x'}}]", "does not load"),
    ],
)
def test_what_nothing_comes_of(text: str, words: str) -> None:
    with pytest.raises(MigrationError, match=words.replace("(", r"\(")):
        convert(text)
