"""What each Claude model accepts; the Messages API is one, its models differ.

The family and version are read from the model's name, wherever it is served (`claude-sonnet-4-5-20250929`,
`us.anthropic.claude-opus-4-6-v1`, `claude-3-7-sonnet@20250219`). A name that tells no version is taken for a model of
the newest kind.

Sources: https://platform.claude.com/docs/en/about-claude/models/overview and each model's migration guide and "What's
new" page: sampling parameters give 400 from Opus 4.7 on and `temperature` excludes `top_p` from Opus 4.1 on; budgets
for thinking give 400 from Opus 4.7 on, adaptive thinking exists from 4.6 on; structured outputs from Opus 4.1 on;
Opus 5.5, Sonnet 5.5 and Fable 5.1 neither let a tool be forced nor thinking be switched off.
"""

from __future__ import annotations

import enum
import re
from functools import lru_cache

import msgspec


class Sampling(enum.Enum):
    """Which of `temperature` and `top_p` may be sent."""

    BOTH = "both"
    ONE = "one"
    NEITHER = "neither"


class Claude(msgspec.Struct, frozen=True):
    """One model's traits.

    `budget` and `adaptive` are the ways to have it think; `off` is the `thinking.type` for the least of it, None where
    it cannot be had less. `efforts` are the values of `output_config.effort`, from least to most.
    """

    max_output: int
    sampling: Sampling
    budget: bool
    adaptive: bool
    off: str | None
    forced_tools: bool
    structured: bool
    efforts: tuple[str, ...]

    @property
    def thinks(self) -> bool:
        return self.budget or self.adaptive


_NEW = re.compile(r"(opus|sonnet|haiku|fable|mythos)-(\d)(?:[-.](\d)(?!\d))?")
_OLD = re.compile(r"claude-(\d)(?:[-.](\d)(?!\d))?-(opus|sonnet|haiku)")
_ANCIENT = re.compile(r"claude-(?:instant|v?2)")


@lru_cache(maxsize=256)
def traits(model: str) -> Claude:
    """The traits of a model by its name."""
    family, version = _version(model)
    unforced = (version >= (5, 5) and family in ("opus", "sonnet")) or (
        version >= (5, 1) and family in ("fable", "mythos")
    )
    newest = version >= (4, 7)
    return Claude(
        max_output=_max_output(family, version),
        sampling=Sampling.NEITHER if newest else Sampling.ONE if version >= (4, 1) else Sampling.BOTH,
        budget=(3, 7) <= version < (4, 7),
        adaptive=version >= (4, 6),
        off=_off(family, version),
        forced_tools=not unforced,
        structured=version >= (4, 1),
        efforts=_efforts(family, version),
    )


def _off(family: str, version: tuple[int, int]) -> str | None:
    if family == "sonnet" and version >= (5, 5):
        return "between_tools"
    always = family in ("fable", "mythos") or (family == "opus" and version >= (5, 5))
    return None if always else "disabled"


def _efforts(family: str, version: tuple[int, int]) -> tuple[str, ...]:
    if version >= (4, 7):
        return ("low", "medium", "high", "xhigh", "max")
    if version >= (4, 6):
        return ("low", "medium", "high", "max")
    return ("low", "medium", "high") if version >= (4, 5) and family == "opus" else ()


def _version(model: str) -> tuple[str, tuple[int, int]]:
    if found := _OLD.search(model):
        return found[3], (int(found[1]), int(found[2] or 0))
    if found := _NEW.search(model):
        return found[1], (int(found[2]), int(found[3] or 0))
    if _ANCIENT.search(model):
        return "", (2, 0)
    return "", (5, 0)


def _max_output(family: str, version: tuple[int, int]) -> int:
    """Output limits of the models overview."""
    if version >= (4, 6):
        return 128_000
    if version >= (4, 0):
        return 32_000 if family == "opus" and version < (4, 5) else 64_000
    if version >= (3, 7):
        return 64_000
    return 8192 if version >= (3, 5) else 4096
