"""Header fields of a client's own format in front of providers of another."""

from __future__ import annotations

import pytest

from gateway.types import Operation
from translators.client_headers import keep_for
from translators.plan import bind
from translators.providers import VERTEX_CLAUDE, Provider, row_of

LINES = [
    b"user-agent: claude-cli\r\n",
    b"anthropic-version: 2023-06-01\r\n",
    b"anthropic-beta: claude-code-20250219, interleaved-thinking-2025-05-14,context-1m-2025-08-07\r\n",
    b"anthropic-beta: prompt-caching-scope-2026-01-05\r\n",
    b"openai-beta: x\r\n",
]


def kept(operation: Operation, row: Provider) -> list[bytes]:
    keep = keep_for(operation, row, identity=bind(operation, row).identity)
    return LINES if keep is None else keep(LINES)


def test_C18_anthropic_gets_them_all() -> None:
    assert kept(Operation.MESSAGES, row_of("anthropic")) == LINES


@pytest.mark.parametrize("name", ["openai", "bedrock", "gemini", "vertex", "groq"])
def test_C18_others_get_none(name: str) -> None:
    assert kept(Operation.MESSAGES, row_of(name)) == LINES[:1]


@pytest.mark.parametrize("operation", [Operation.MESSAGES, Operation.COUNT_TOKENS])
def test_C18_claude_on_vertex_gets_what_it_knows(operation: Operation) -> None:
    flags = b"interleaved-thinking-2025-05-14,context-1m-2025-08-07"
    assert kept(operation, VERTEX_CLAUDE) == [LINES[0], b"anthropic-beta: %b\r\n" % flags]


def test_C18_without_a_known_flag_there_is_no_field() -> None:
    keep = keep_for(Operation.MESSAGES, VERTEX_CLAUDE, identity=True)
    assert keep is not None
    assert keep(LINES[3:4]) == []


def test_openais_own_go_to_openai() -> None:
    assert kept(Operation.CHAT, row_of("openai")) == LINES
    assert kept(Operation.CHAT, row_of("anthropic")) == LINES[:1]
