"""One gateway for all tests with official SDKs: two configurations, a key for each, and a provider under script.

`default` offers `mock-gpt` and `mock-embed`, which the mock provider answers, `scripted`, whose provider says what the
test gives it (`aliased` is the same under another name, `codex` speaks only Responses), and `refused` (the provider
refuses the gateway's secret). `guarded` has a `dlp-filter` in its chain.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.gateway_process import GatewayProcess, configuration, running_gateway
from tests.provider import Answer, Request, ScriptedProvider, Step, respond

BLOCKED_TERM = "Project Nightingale"
PROVIDER_SECRET = "sk-of-the-provider"


class Script:
    """What the provider of `scripted` says in one test; a request without an answer is a fault of the test."""

    def __init__(self, provider: ScriptedProvider) -> None:
        self._provider = provider
        self.reset()

    def reset(self) -> None:
        """Forget answers and requests."""
        self._answers: list[Answer] = []
        self._seen = len(self._provider.requests)

    def answer(self, *answers: Answer) -> None:
        """Give these answers, one for each request."""
        self._answers += answers

    @property
    def requests(self) -> list[Request]:
        """What the provider was asked since the test began."""
        return list(self._provider.requests)[self._seen :]

    def next(self, request: Request) -> bytes | list[Step]:
        """The answer to the next request."""
        if not self._answers:
            return respond(b'{"error": {"message": "the script is over", "code": "script_over"}}', 400)
        answer = self._answers.pop(0)
        answer = answer(request) if callable(answer) else answer
        return answer if isinstance(answer, bytes) else list(answer)


@dataclass
class Stand:
    """The gateway and its keys."""

    gateway: GatewayProcess
    key: str
    guarded_key: str
    script: Script


@pytest.fixture(scope="session")
def shared_stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with ScriptedProvider(lambda request: script.next(request)).in_thread() as provider:
        script = Script(provider)
        targets = (
            {"id": "mock", "provider": "mock", "model": "mock-gpt"},
            {"id": "mock-embed", "provider": "mock", "model": "mock-embed"},
            {
                "id": "scripted",
                "provider": "openai-compatible",
                "model": "scripted",
                "base_url": provider.url,
                "secret_key_ref": {"env": "PROVIDER_SECRET"},
            },
            {
                "id": "aliased",
                "provider": "openai-compatible",
                "model": "aliased",
                "upstream_model": "the-providers-own-name",
                "base_url": provider.url,
            },
            {
                "id": "codex",
                "provider": "openai-compatible",
                "api": "responses",
                "model": "codex",
                "base_url": provider.url,
            },
        )
        texts = (
            configuration(*targets, name="default", fallback={"circuit_breaker": {"enabled": False}}),
            configuration(
                *targets,
                name="guarded",
                chain=("dlp-filter", "audit-logger"),
                policy={"dlp-filter": {"action": "block", "terms": [BLOCKED_TERM]}},
            ),
        )
        folder = tmp_path_factory.mktemp("gateway")
        with running_gateway(folder, *texts, environment={"PROVIDER_SECRET": PROVIDER_SECRET}) as gateway:
            key = gateway.create_key("default", configuration_id="default")
            guarded_key = gateway.create_key("guarded", configuration_id="guarded")
            yield Stand(gateway, key, guarded_key, script)


@pytest.fixture
def stand(shared_stand: Stand) -> Stand:
    shared_stand.script.reset()
    return shared_stand
