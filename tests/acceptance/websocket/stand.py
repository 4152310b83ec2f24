"""A real gateway between clients' WebSockets and a provider that converses, for the tests with official SDKs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conversing_provider import ConversingProvider
from tests.gateway_process import GatewayProcess, configuration, running_gateway

BANNED = "banned phrase"
REDACTED = "[REDACTED]"
BLOCKED = "blocked words"
SECRET = "sk-of-the-provider"


@dataclass
class Stand:
    """`key` has no limits, `narrow` may use the model `spoken` only."""

    gateway: GatewayProcess
    provider: ConversingProvider
    key: str
    narrow: str


@contextlib.contextmanager
def standing(folder: Path, *, gateway: dict[str, Any] | None = None, ready: bool = True) -> Iterator[Stand]:
    """The models `spoken` and `other` at the provider that converses, `mock-gpt` at the mock provider. A banned phrase
    is redacted in answers; a prompt with `blocked words` is refused."""
    with ConversingProvider() as provider:
        at = {"provider": "openai-compatible", "base_url": provider.url, "secret_key_ref": {"env": "PROVIDER_SECRET"}}
        targets = (
            {"id": "spoken", "model": "spoken", "upstream_model": "gpt-realtime", **at},
            {"id": "other", "model": "other", **at},
            {"id": "mock", "provider": "mock", "model": "mock-gpt"},
        )
        text = configuration(
            *targets,
            chain=("audit-logger", "dlp-filter", "response-rewriter"),
            policy={
                "dlp-filter": {"terms": [BLOCKED], "action": "block", "phase": ["input"]},
                "response-rewriter": {"rules": [{"name": "banned", "term": BANNED, "replacement": REDACTED}]},
            },
            gateway=gateway,
        )
        with running_gateway(folder, text, environment={"PROVIDER_SECRET": SECRET}, ready=ready) as process:
            yield Stand(process, provider, process.create_key("all"), process.create_key("narrow", models="spoken"))
