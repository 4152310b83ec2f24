"""Bodies with odd parts, for every operation, to providers of every format, with policies and without: no fault."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.playbook import Play, configuration, dlp, target
from tests.provider import respond
from tests.wire.framing.bodies import BODIES, make

CASES = 5_000
PROVIDERS = (
    *("openai-compatible", "openai", "azure-openai", "anthropic", "gemini"),
    *("cohere", "ollama", "mistral", "bedrock", "groq", "deepseek"),
)
CHAINS = {
    "audit-logger": "",
    "audit-logger, dlp-filter, pii-detector, secret-detector, prompt-injection": (
        dlp("redact", phase="[input, output]") + "  pii-detector: {action: redact, restore: true}\n"
    ),
}


@pytest.fixture(scope="module")
def plays(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Play]]:
    """One worker for each provider and chain."""
    made = []
    for provider in PROVIDERS:
        region = {"aws_region": "eu-central-1"} if provider == "bedrock" else {}
        for chain, policies in CHAINS.items():
            text = configuration(target(provider=provider, **region), chain=chain, policies=policies)
            made.append(Play(tmp_path_factory.mktemp("play"), text))
    yield made
    for play in made:
        play.close()


@pytest.mark.timeout(300)
def test_no_body_is_a_fault(plays: list[Play]) -> None:
    tally: Counter[tuple[str, int]] = Counter()
    for number in range(CASES):
        chance = random.Random(number)
        path, body = make(chance)
        play = chance.choice(plays)
        play.pool.providers.clear()
        play.pool.free.clear()
        play.ask(body, path)
        while play.threads:
            play.work()
        if play.pool.providers:
            play.provider().says(respond(b"{}"))
        for fault in play.faults:
            raise AssertionError(f"case {number}: {path} {body!r}") from fault
        status = play.client.error.status if play.client.error else 0
        assert status in (0, 400, 404, 409, 502), f"case {number}: {play.client} {body!r}"
        tally[path, status] += 1
        for kept in (play.audit, play.counted, play.opened):
            kept.clear()
    assert {path for path, status in tally if status in (0, 502)} == set(BODIES)
