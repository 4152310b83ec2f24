"""`count_tokens` by the official Anthropic SDK."""

from __future__ import annotations

from collections.abc import Iterator

import anthropic
import pytest

from tests.sdk.conftest import Stand


@pytest.fixture
def client(stand: Stand) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(api_key=stand.key, base_url=stand.gateway.url, max_retries=0) as client:
        yield client


@pytest.mark.parametrize("model", ["mock-gpt", "scripted"])
def test_estimated_without_asking_a_provider(client: anthropic.Anthropic, stand: Stand, model: str) -> None:
    for _ in range(2):  # the second request has the head of the first
        answer = client.messages.with_raw_response.count_tokens(
            model=model, system="be kind", messages=[{"role": "user", "content": "word " * 400}]
        )
        assert 500 <= answer.parse().input_tokens <= 600
        assert "estimated" in answer.headers["x-kt-translation-notes"]
    assert stand.script.requests == []


def test_a_model_that_is_not_there(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as caught:
        client.messages.count_tokens(model="nobody", messages=[{"role": "user", "content": "x"}])
    assert caught.value.body["error"]["type"] == "not_found_error"  # type: ignore[index]


def test_C22_a_bad_body(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError):
        client.messages.count_tokens(model="scripted", messages=[], extra_body={"max_tokens": "x"})
