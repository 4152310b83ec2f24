"""Portkey's configs become configurations that load."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.load import load_text
from gateway.config.schema import Configuration
from gateway.migrate.portkey import convert
from gateway.migrate.result import Migration, MigrationError, variable_name, weights

CONFIGS = Path(__file__).parent / "configs"


def configuration(migration: Migration) -> Configuration:
    return load_text(migration.text, "policy-config.yaml").configuration


def test_a_fallback_keeps_order_models_and_triggers() -> None:
    migration = convert((CONFIGS / "portkey-fallback.json").read_text())
    one = configuration(migration)
    first, azure, claude = one.providers.targets
    assert [target.model for target in one.providers.targets] == ["gpt-4o"] * 3
    assert (first.id, first.provider, str(first.secret_key_ref)) == (
        "primary",
        "openai",
        "env: OPENAI_PROD_4F1C_API_KEY",
    )
    assert first.timeouts.first_byte_seconds == 20
    assert (azure.base_url, azure.azure_deployment) == ("https://contoso.openai.azure.com", "gpt-4o-eu")
    assert (claude.provider, claude.upstream_model) == ("anthropic", "claude-sonnet-4-20250514")
    assert one.providers.routing.strategy == "ordered"
    assert one.providers.fallback.triggers == ("rate_limit", "server_error", "connection")
    assert list(one.policy["dlp-filter"].terms) == ["Project Nightingale"]
    assert one.policies.chain == ("dlp-filter", "audit-logger")


def test_its_notes_name_keys_caches_and_guardrails_and_no_secret() -> None:
    migration = convert((CONFIGS / "portkey-fallback.json").read_text())
    told = dict(migration.notes)
    assert "OPENAI_PROD_4F1C_API_KEY" in told["targets[0]"]
    assert "AZURE_API_KEY" in told["targets[1].api_key"]
    assert "max_tokens" in told["targets[0].override_params"]
    assert "every request reaches a provider" in told["cache"]
    assert "input_guardrails[1]" in told
    assert "input_guardrails[0]" not in told
    assert "sk-ant-secret" not in migration.text + str(told)
    assert "0123456789abcdef" not in migration.text + str(told)


def test_a_balanced_config_keeps_its_weights_and_both_spellings() -> None:
    migration = convert((CONFIGS / "portkey-balanced.json").read_text())
    one = configuration(migration)
    assert [target.weight for target in one.providers.targets] == [100, 29, 14]
    assert [target.provider for target in one.providers.targets] == ["openai", "openai-compatible", "vertex"]
    assert {target.model for target in one.providers.targets} == {"gpt-4o-mini"}
    assert all(target.timeouts.first_byte_seconds == 60 for target in one.providers.targets)
    assert one.providers.routing.strategy == "weighted"
    assert one.providers.fallback.max_attempts == 3
    assert one.providers.fallback.triggers == ("server_error", "timeout", "connection")


def test_the_public_models_may_be_named() -> None:
    migration = convert('{"provider": "openai", "api_key": "sk-x"}', models=["gpt-4o", "o3"])
    assert [target.model for target in configuration(migration).providers.targets] == ["gpt-4o", "o3"]


def test_nested_strategies_are_told_and_flattened() -> None:
    text = """{"strategy": {"mode": "fallback"}, "targets": [
        {"strategy": {"mode": "loadbalance"}, "override_params": {"model": "gpt-4o"},
         "targets": [{"provider": "openai"}, {"provider": "groq"}]},
        {"provider": "anthropic", "override_params": {"model": "claude"}}]}"""
    migration = convert(text)
    assert [target.provider for target in configuration(migration).providers.targets] == ["openai", "groq", "anthropic"]
    assert "nested strategies" in dict(migration.notes)["targets[0].strategy"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ('{"provider": "openai"}', "names no model"),
        ('{"provider": "stability-ai", "override_params": {"model": "x"}}', "is not known here"),
    ],
)
def test_what_nothing_comes_of(text: str, words: str) -> None:
    with pytest.raises(MigrationError, match=words):
        convert(text)


@pytest.mark.parametrize(
    ("shares", "whole"),
    [
        ([600, 1200, 300], [2, 4, 1]),
        ([1, 1], [1, 1]),
        ([0.7, 0.3], [100, 43]),
        ([0, 0], [1, 1]),
        ([100_000, 1], [100, 1]),
    ],
)
def test_weights_are_whole_numbers(shares: list[float], whole: list[int]) -> None:
    assert weights(shares) == whole


def test_names_of_variables() -> None:
    assert variable_name("openai-prod", "API_KEY") == "OPENAI_PROD_API_KEY"
    assert variable_name("4u", "API_KEY") == "KEY_4U_API_KEY"
