from __future__ import annotations

import pytest

from translators.claude_models import Sampling, traits


@pytest.mark.parametrize(
    ("model", "max_output", "sampling", "budget", "adaptive", "forced", "structured"),
    [
        ("claude-2.1", 4096, Sampling.BOTH, False, False, True, False),
        ("claude-3-opus-20240229", 4096, Sampling.BOTH, False, False, True, False),
        ("claude-3-5-haiku-latest", 8192, Sampling.BOTH, False, False, True, False),
        ("claude-3-7-sonnet@20250219", 64_000, Sampling.BOTH, True, False, True, False),
        ("claude-sonnet-4-20250514", 64_000, Sampling.BOTH, True, False, True, False),
        ("claude-opus-4-1-20250805", 32_000, Sampling.ONE, True, False, True, True),
        ("anthropic.claude-sonnet-4-5-20250929-v1:0", 64_000, Sampling.ONE, True, False, True, True),
        ("claude-haiku-4-5", 64_000, Sampling.ONE, True, False, True, True),
        ("us.anthropic.claude-opus-4-6-v1", 128_000, Sampling.ONE, True, True, True, True),
        ("claude-opus-4-7", 128_000, Sampling.NEITHER, False, True, True, True),
        ("claude-sonnet-5", 128_000, Sampling.NEITHER, False, True, True, True),
        ("anthropic/claude-sonnet-5.5", 128_000, Sampling.NEITHER, False, True, False, True),
        ("claude-haiku-5-5", 128_000, Sampling.NEITHER, False, True, True, True),
        ("claude-fable-5", 128_000, Sampling.NEITHER, False, True, True, True),
        ("claude-fable-5-1", 128_000, Sampling.NEITHER, False, True, False, True),
        ("our-own-name-for-it", 128_000, Sampling.NEITHER, False, True, True, True),
    ],
)
def test_traits(
    model: str,
    max_output: int,
    sampling: Sampling,
    budget: bool,
    adaptive: bool,
    forced: bool,
    structured: bool,
) -> None:
    found = traits(model)
    assert (found.max_output, found.sampling) == (max_output, sampling)
    assert (found.budget, found.adaptive) == (budget, adaptive)
    assert (found.forced_tools, found.structured) == (forced, structured)


@pytest.mark.parametrize(
    ("model", "efforts", "off"),
    [
        ("claude-sonnet-4-5", (), "disabled"),
        ("claude-opus-4-5", ("low", "medium", "high"), "disabled"),
        ("claude-sonnet-4-6", ("low", "medium", "high", "max"), "disabled"),
        ("claude-opus-4-8", ("low", "medium", "high", "xhigh", "max"), "disabled"),
        ("claude-sonnet-5-5", ("low", "medium", "high", "xhigh", "max"), "between_tools"),
        ("claude-opus-5-5", ("low", "medium", "high", "xhigh", "max"), None),
        ("claude-fable-5", ("low", "medium", "high", "xhigh", "max"), None),
    ],
)
def test_efforts(model: str, efforts: tuple[str, ...], off: str | None) -> None:
    assert (traits(model).efforts, traits(model).off) == (efforts, off)
