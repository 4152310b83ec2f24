"""Whose signature a thought carries, where a client's format has no place to say it.

Anthropic's clients send `signature` and `data` back as they came, and say nothing of who made them. What OpenAI's
models encrypt is therefore marked with its format's name in front, and comes back to them byte for byte; what bears no
mark is Claude's own. A marked one means nothing to Claude, as an unmarked one means nothing to OpenAI.
"""

from __future__ import annotations

from typing import Final

from translators.canonical import CLAUDE_FORMAT, RESPONSES_FORMAT

_MARK: Final = f"{RESPONSES_FORMAT}:"


def sealed(value: str, format: str | None) -> str:
    """A signature, or opaque data, as an Anthropic client shall keep it."""
    return _MARK + value if format == RESPONSES_FORMAT else value


def opened(value: str) -> tuple[str, str]:
    """The same value as its provider made it, and its format."""
    return (value[len(_MARK) :], RESPONSES_FORMAT) if value.startswith(_MARK) else (value, CLAUDE_FORMAT)
