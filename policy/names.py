"""Names with wildcards, as operators write them: `gpt-4o*`, `*`, `team-?`."""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Iterable
from typing import Annotated

from msgspec import Meta

from policy.base import Candidate

NamePattern = Annotated[str, Meta(min_length=1, max_length=256)]


def matches_any(name: str, patterns: Iterable[str]) -> bool:
    """Whether a name is one of these. `*` stands for any run of characters, `?` for one; upper and lower case "
    "differ."""
    return any(pattern in ("*", name) or _compiled(pattern).fullmatch(name) is not None for pattern in patterns)


def is_one_of(target: Candidate, patterns: Iterable[str]) -> bool:
    """Whether a target's id or its provider is one of these."""
    names = tuple(patterns)
    return matches_any(target.id, names) or matches_any(target.provider, names)


@functools.lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    # `[` has no meaning in a name. Runs of `*` are one: the expression that fnmatch makes of it takes linear time then.
    return re.compile(fnmatch.translate(re.sub(r"\*+", "*", pattern).replace("[", "[[]")))
