"""The price table, how a model is found in it, and what an exchange costs."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.prices import MAX_OUTPUT_TOKENS, NANO, Price, Rates, Row, price_of, tables
from gateway.types import Usage
from translators.providers import PROVIDERS

NOW = datetime(2026, 11, 24, tzinfo=UTC).timestamp()


def usd(provider: str, model: str, usage: Usage, now: float = NOW) -> float:
    price = price_of(provider, model, now)
    assert price is not None, f"{provider} {model}"
    return price.cost(usage, now) / NANO


def test_the_table_is_sound() -> None:
    for table in tables():
        assert set(table.providers) <= PROVIDERS.keys()
        assert table.source.startswith("https://")
        names = [(row.model, row.since) for row in table.models]
        assert len(set(names)) == len(names), table.source
        for row in table.models:
            assert row.model == row.model.lower()
            assert 0 <= (row.cached or 0) <= row.input <= 1000
            assert 0 <= row.output <= 1000
            assert (row.then is None) == (row.over_prompt_tokens is None)


def test_what_an_exchange_costs() -> None:
    million = 1_000_000
    assert usd("openai", "gpt-4o", Usage(million, million)) == 12.5
    assert usd("openai", "gpt-4o", Usage(million, 0, cached=million)) == 1.25
    assert usd("openai", "gpt-4o", Usage(1, 0)) == 0.0000025
    assert usd("anthropic", "claude-sonnet-4-20250514", Usage(million, 0, cached=500_000, written=500_000)) == 2.025
    assert usd("openai", "text-embedding-3-small", Usage(million, 0)) == 0.02


def test_reasoning_may_have_a_price_of_its_own() -> None:
    price = Price(Rates(1.0, 2.0, reasoning=4.0))
    assert price.cost(Usage(0, 1000, reasoning=400), NOW) == 1000 * (600 * 2 + 400 * 4)
    assert price.ceiling(0, 1000, NOW) == 1000 * 1000 * 4


@pytest.mark.parametrize(
    ("provider", "model", "like"),
    [
        ("openai", "gpt-4o-2024-08-06", "gpt-4o"),
        ("openai", "gpt-4o-mini-2024-07-18", "gpt-4o-mini"),
        ("openai", "GPT-4o", "gpt-4o"),
        ("azure-openai", "gpt-4o", "gpt-4o"),
        ("anthropic", "claude-3-5-sonnet-latest", "claude-3-5-sonnet"),
        ("anthropic", "claude-opus-4-0", "claude-opus-4"),
        ("bedrock", "us.anthropic.claude-sonnet-4-20250514-v1:0", "claude-sonnet-4"),
        ("bedrock", "anthropic.claude-3-haiku-20240307-v1:0", "claude-3-haiku"),
        ("vertex", "claude-opus-4-1@20250805", "claude-opus-4-1"),
        ("gemini", "models/gemini-2.0-flash-001", "gemini-2.0-flash"),
        ("cohere", "command-r-08-2024", "command-r"),
    ],
)
def test_a_model_is_found_by_any_of_its_names(provider: str, model: str, like: str) -> None:
    used = Usage(12_345, 678, cached=90)
    assert usd(provider, model, used) == usd(provider, like, used)


def test_a_version_with_a_price_of_its_own_has_that() -> None:
    assert usd("openai", "gpt-4o-2024-05-13", Usage(1_000_000)) == 5.0


@pytest.mark.parametrize(
    ("provider", "model"),
    [("openai", "gpt-99"), ("ollama", "gpt-4o"), ("openai", "ft:gpt-4o-2024-08-06:me::id"), ("openai", "gpt-4o-audio")],
)
def test_what_is_not_known_has_no_price(provider: str, model: str) -> None:
    assert price_of(provider, model, NOW) is None


def test_a_price_holds_from_its_date_on() -> None:
    before, after = datetime(2025, 6, 9, 23, tzinfo=UTC).timestamp(), datetime(2025, 6, 10, tzinfo=UTC).timestamp()
    price = price_of("openai", "o3", before)
    assert price is not None
    assert price.cost(Usage(1000), before) == 10 * 1_000_000
    assert price.cost(Usage(1000), after) == 2 * 1_000_000, "without being looked up anew"
    assert price.ceiling(1000, 0, after) == 2 * 1_000_000
    long_before = datetime(2020, 1, 1, tzinfo=UTC).timestamp()
    assert usd("openai", "o3", Usage(1_000_000), long_before) == 10.0, (
        "what is older than the first date has that price"
    )


def test_a_long_prompt_may_cost_more() -> None:
    short, long = Usage(200_000, 1000), Usage(200_001, 1000)
    assert usd("gemini", "gemini-2.5-pro", short) == 0.26
    assert usd("gemini", "gemini-2.5-pro", long) == round(200_001 * 2.5e-6 + 1000 * 15e-6, 9)


def test_an_answer_is_bounded_by_what_the_model_can() -> None:
    known = price_of("openai", "gpt-4.1", NOW)
    assert known is not None
    assert known.ceiling(0, None, NOW) == 32_768 * 8000
    assert Price(Rates(0, 1)).ceiling(0, None, NOW) == MAX_OUTPUT_TOKENS * 1000


tokens = st.integers(0, 400_000)


@given(prompt=tokens, output=tokens, parts=st.tuples(*[st.floats(0, 1)] * 3), row=st.sampled_from(tables()))
def test_the_ceiling_is_never_below_the_cost(
    prompt: int, output: int, parts: tuple[float, float, float], row: object
) -> None:
    cached, written = int(prompt * parts[0] / 2), int(prompt * parts[1] / 2)
    usage = Usage(prompt, output, cached=cached, written=written, reasoning=int(output * parts[2]))
    for one in row.models:  # type: ignore[attr-defined]
        assert isinstance(one, Row)
        price = Price(one)
        assert 0 <= price.cost(usage, NOW) <= price.ceiling(prompt, output, NOW)
