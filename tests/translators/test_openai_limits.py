"""`max_tokens` and `max_completion_tokens` in front of OpenAI and Azure."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from gateway.types import Operation
from translators.plan import bind
from translators.providers import row_of

MESSAGES = [{"role": "user", "content": 'the word "max_tokens"'}]


def sent(body: dict[str, Any], model: str, provider: str = "azure-openai", version: str | None = "2024-10-21") -> Any:
    translation = bind(Operation.CHAT, row_of(provider), api_version=version)
    raw = orjson.dumps({"model": "an-alias", "messages": MESSAGES, **body})
    made = translation.request(raw, translation.view(raw), model=model, replacements={}, meter=True)
    return json.loads(made.body)


@pytest.mark.parametrize("provider", ["openai", "azure-openai"])
@pytest.mark.parametrize("model", ["o3-mini", "gpt-5", "gpt-5.1-2026"])
def test_D3_a_model_that_thinks_wants_the_newer_name(provider: str, model: str) -> None:
    body = sent({"max_tokens": 50, "seed": 1}, model, provider)
    assert body == {"model": model, "messages": MESSAGES, "max_completion_tokens": 50, "seed": 1}


def test_D3_whatever_the_alias_is_called() -> None:
    translation = bind(Operation.CHAT, row_of("azure-openai"))
    raw = orjson.dumps({"model": "gpt-5", "messages": MESSAGES, "max_tokens": 50})
    made = translation.request(raw, translation.view(raw), model="gpt-4o", replacements={}, meter=True)
    assert json.loads(made.body)["max_tokens"] == 50


def test_D3_where_both_are_given_the_right_one_counts() -> None:
    body = sent({"max_tokens": 50, "max_completion_tokens": 60}, "gpt-5")
    assert (body["max_completion_tokens"], "max_tokens" in body) == (60, False)
    assert sent({"max_tokens": 50, "max_completion_tokens": None}, "gpt-5")["max_completion_tokens"] == 50


@pytest.mark.parametrize("version", ["2024-02-01", "2023-12-01-preview"])
def test_D4_an_old_api_version_knows_the_older_name_only(version: str) -> None:
    assert sent({"max_completion_tokens": 50}, "gpt-4o", version=version)["max_tokens"] == 50


@pytest.mark.parametrize("version", ["2024-09-01-preview", "2024-10-21", "2025-04-01-preview", "preview", None])
def test_D4_a_newer_one_knows_both(version: str | None) -> None:
    assert sent({"max_completion_tokens": 50}, "gpt-4o", version=version)["max_completion_tokens"] == 50


def test_D4_for_clients_of_another_format() -> None:
    messages = bind(Operation.MESSAGES, row_of("azure-openai"), api_version="2024-02-01")
    raw = orjson.dumps({"model": "m", "max_tokens": 9, "messages": MESSAGES})
    made = messages.request(raw, messages.view(raw), model="gpt-4o", replacements={}, meter=True)
    assert json.loads(made.body)["max_tokens"] == 9


@pytest.mark.parametrize("limit", [{}, {"max_completion_tokens": 50}])
def test_with_nothing_to_rename_the_same_bytes(limit: dict[str, int]) -> None:
    translation = bind(Operation.CHAT, row_of("openai"))
    raw = orjson.dumps({"model": "gpt-5", "messages": MESSAGES, **limit})
    assert translation.request(raw, translation.view(raw), model="gpt-5", replacements={}, meter=True).body is raw


def test_digits_and_order_are_kept() -> None:
    translation = bind(Operation.CHAT, row_of("openai"))
    raw = b'{"temperature":1.00,"max_tokens":50,"model":"gpt-5","messages":[ {"role":"user","content":"\\u00e9"} ]}'
    made = translation.request(raw, translation.view(raw), model="gpt-5", replacements={}, meter=True)
    assert made.body == raw.replace(b"max_tokens", b"max_completion_tokens")


def test_other_providers_are_left_alone() -> None:
    assert sent({"max_tokens": 50}, "gpt-5", "openai-compatible")["max_tokens"] == 50
