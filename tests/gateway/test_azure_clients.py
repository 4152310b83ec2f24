"""What Azure's SDKs send that others do not: their own paths, and an API version in the query."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.surface import find
from gateway.types import Operation
from tests.playbook import Play, configuration

CHAT = {"model": "gpt-test", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.mark.parametrize(
    ("path", "operation", "model"),
    [
        (b"/openai/deployments/gpt%204/chat/completions", Operation.CHAT, "gpt 4"),
        (b"/openai/deployments/gpt/embeddings", Operation.EMBEDDINGS, "gpt"),
        (b"/openai/responses", Operation.RESPONSES, None),
        (b"/openai/v1/chat/completions", Operation.CHAT, None),
        (b"/openai/v1/responses", Operation.RESPONSES, None),
    ],
)
def test_paths(path: bytes, operation: Operation, model: str | None) -> None:
    endpoint = find(b"POST", path)
    assert (endpoint.operation, endpoint.model) == (operation, model)


@pytest.mark.parametrize(
    ("provider", "query", "asked"),
    [
        # Not Azure: its version means nothing there, what else the client says is passed on.
        ("provider: openai", "api-version=2024-10-21", "/v1/chat/completions"),
        ("provider: openai", "a=1&api-version=2024-10-21&b=2", "/v1/chat/completions?a=1&b=2"),
        # Azure with a version of its own: the target's configuration wins.
        (
            "provider: azure-openai, azure_api_version: v9, base_url: 'https://r.openai.azure.com'",
            "api-version=2024-10-21",
            "/openai/deployments/gpt-test/chat/completions?api-version=v9",
        ),
        # Azure's newer surface needs none and takes one.
        (
            "provider: azure-openai, base_url: 'https://r.openai.azure.com/openai/v1'",
            "api-version=preview",
            "/openai/v1/chat/completions?api-version=preview",
        ),
    ],
)
def test_api_version(playbook: Callable[..., Play], provider: str, query: str, asked: str) -> None:
    one = f"\n    - {{id: one, model: gpt-test, secret_key_ref: {{env: PROVIDER_KEY}}, {provider}}}"
    play = playbook(configuration(one))
    play.ask(CHAT, f"/openai/deployments/gpt-test/chat/completions?{query}")
    assert play.provider().asked.split(b" ")[1].decode() == asked
    play.provider().says(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
    assert play.client.status == 200
