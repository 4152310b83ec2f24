"""Which of a client's header lines mean something to a provider.

Where client and provider speak the same format, all do. To a provider of another format the fields of the client's own
(`anthropic-version`, `anthropic-beta`, `openai-beta`) mean nothing, and some answer 400 to them. Claude on Vertex AI
takes `anthropic-beta`, but of its flags only those below; one it does not know is a 400 as well, and Claude Code sends
new ones with every version.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from gateway.types import Operation
from translators.providers import VERTEX_CLAUDE, Provider

Keep = Callable[[Sequence[bytes]], list[bytes]]
"""Of header lines (`name: value`, the name in lower case, with their line ends) those that go on."""

VERTEX_BETAS: Final = frozenset(
    {
        b"computer-use-2025-01-24",
        b"context-1m-2025-08-07",
        b"context-management-2025-06-27",
        b"interleaved-thinking-2025-05-14",
        b"token-efficient-tools-2025-02-19",
        b"tool-search-tool-2025-10-19",
        b"web-search-2025-03-05",
    }
)
"""https://platform.claude.com/docs/en/build-with-claude/claude-on-vertex-ai, and what its users found to be refused:
https://github.com/BerriAI/litellm/issues/19984."""

_OF_FORMATS: Final = (b"anthropic-", b"openai-")
_BETA: Final = b"anthropic-beta: "


def keep_for(operation: Operation, provider: Provider, *, identity: bool) -> Keep | None:
    """What keeps a client's lines for one operation of a provider; None where all of them go on."""
    if provider is VERTEX_CLAUDE and operation in (Operation.MESSAGES, Operation.COUNT_TOKENS):
        return _for_vertex
    return None if identity else _foreign


def _foreign(lines: Sequence[bytes]) -> list[bytes]:
    return [line for line in lines if not line.startswith(_OF_FORMATS)]


def _for_vertex(lines: Sequence[bytes]) -> list[bytes]:
    kept = _foreign(lines)
    given = [flag.strip() for line in lines if line.startswith(_BETA) for flag in line[len(_BETA) : -2].split(b",")]
    known = [flag for flag in dict.fromkeys(given) if flag in VERTEX_BETAS]
    return [*kept, b"%b%b\r\n" % (_BETA, b",".join(known))] if known else kept
