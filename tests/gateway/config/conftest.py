"""A small registry, so that these tests say what the configuration does whatever policies and providers there are."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
import pytest
from msgspec import Meta

from gateway.config.registry import Registry
from gateway.config.schema import Target
from policy.base import Policy, Problem


class WordListSettings(msgspec.Struct, frozen=True):
    """Words to count."""

    words: Annotated[tuple[Annotated[str, Meta(min_length=1)], ...], Meta(max_length=3, description="The words.")] = ()
    action: Annotated[Literal["block", "redact"], Meta(description="What to do.")] = "block"
    share: Annotated[float, Meta(ge=0, lt=1, description="How many are too many.")] = 0.5


class WordList(Policy[WordListSettings]):
    kind = "word-list"
    Settings = WordListSettings

    @classmethod
    def check(cls, settings: WordListSettings) -> list[Problem]:
        return [
            Problem(f"words[{index}]", "must be one word") for index, word in enumerate(settings.words) if " " in word
        ]


class RegionSettings(msgspec.Struct, frozen=True):
    """Where it may run."""

    region: Annotated[str, Meta(description="No default.")]


class Region(Policy[RegionSettings]):
    kind = "region"
    Settings = RegionSettings


def check_target(target: Target) -> None:
    if target.provider == "hosted" and target.base_url is None:
        raise ValueError("provider hosted needs a base_url")


@pytest.fixture(scope="session")
def registry() -> Registry:
    return Registry({"word-list": WordList, "region": Region}, ("openai", "hosted", "mock"), check_target)
