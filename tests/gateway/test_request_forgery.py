"""No part of a request chooses where it goes, and no answer does: hosts come from the configuration alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gateway.types import KEY_PREFIX
from tests.playbook import KEY, Play, configuration, target
from tests.provider import head, respond

PROVIDERS = ("openai-compatible", "openai", "anthropic", "gemini", "azure-openai", "mistral", "ollama", "cohere")
EVIL = (
    "http://evil.example/v1",
    "//evil.example/v1",
    "evil.example:80",
    "@evil.example",
    "gpt-test@evil.example",
    "gpt-test#@evil.example",
    "gpt-test/../../..",
    "..%2f..%2f",
    "gpt-test?x=http://evil.example",
    "gpt-test\r\nHost: evil.example",
    "169.254.169.254",
    "[::1]:6379",
    "file:///etc/passwd",
    "one/gpt-test",
)
CHAT: dict[str, Any] = {"model": "gpt-test", "messages": [{"role": "user", "content": "Hello"}]}
Playbook = Callable[..., Play]


def went_to(play: Play) -> set[tuple[str, str]]:
    """The hosts that were connected to, and the `Host` fields that were sent there."""
    return {(one.destination.origin.host, one.headers["host"]) for one in play.pool.providers}


def answered(play: Play) -> None:
    """Whatever is asked gets an answer, so that every exchange ends."""
    while play.threads:
        play.work()
    for provider in set(play.pool.providers):
        if "waiting" in repr(provider.connection):
            provider.says(respond(b"{}"))


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_model_is_a_name_and_nothing_else(provider: str, playbook: Playbook) -> None:
    play = playbook(configuration(target(provider=provider)))
    for evil in EVIL:
        for body in ({**CHAT, "model": evil}, {**CHAT, "base_url": evil, "api_base": evil, "user": evil}):
            play.ask(body)
            answered(play)
    assert went_to(play) == {("one.test", "one.test")}
    paths = {one.asked.split(b" ", 2)[1] for one in play.pool.providers}
    assert not [path for path in paths if b"evil" in path or b".." in path]


@pytest.mark.parametrize(
    "field",
    [
        "Host: evil.example",
        "X-Forwarded-Host: evil.example",
        "X-Forwarded-Server: evil.example",
        "Forwarded: host=evil.example",
        "X-Original-URL: http://evil.example/",
        "X-Rewrite-URL: /admin",
        "X-HTTP-Method-Override: GET",
        "OpenAI-Organization: evil",
        "X-Base-URL: http://evil.example",
        "Destination: http://evil.example",
        "Proxy: http://evil.example",
    ],
)
def test_no_field_says_where_to(field: str, play: Play) -> None:
    headers = [field] if not field.startswith("Host") else []
    play.ask(CHAT, headers=headers)
    answered(play)
    assert went_to(play) == {("one.test", "one.test")}
    assert play.provider().asked.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")


@pytest.mark.parametrize(
    "line",
    [
        b"POST http://evil.example/v1/chat/completions HTTP/1.1\r\nHost: localhost",
        b"POST http://169.254.169.254/v1/chat/completions HTTP/1.1\r\nHost: localhost",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: evil.example",
        b"POST /openai/deployments/gpt-test/chat/completions?api-version=http://evil.example HTTP/1.1\r\nHost: x",
    ],
)
def test_neither_the_target_nor_the_host_field_says_where_to(line: bytes, play: Play) -> None:
    body = b'{"model":"gpt-test","messages":[]}'
    connection, _ = play.connect()
    connection.data_received(
        line + b"\r\nAuthorization: Bearer %b\r\nContent-Length: %d\r\n\r\n%b" % (KEY, len(body), body)
    )
    answered(play)
    assert went_to(play) == {("one.test", "one.test")}


@pytest.mark.parametrize("path", ["//evil.example/v1/chat/completions", "/v1/../chat/completions", "/%2e%2e/v1/models"])
def test_a_path_has_one_spelling(path: str, play: Play) -> None:
    play.open(path)
    assert play.client.transcript == ["refused: 404 not_found"]


@pytest.mark.parametrize("status", [300, 301, 302, 303, 305, 307, 308])
def test_a_redirect_of_a_provider_leads_nowhere(status: int, play: Play) -> None:
    play.ask(CHAT)
    play.provider().says(head(status, ("location", "http://169.254.169.254/latest/meta-data/"), length=0))
    assert play.client.status == 502
    assert "location" not in play.client.headers
    assert went_to(play) == {("one.test", "one.test")}
    assert len(play.pool.providers) == 1


# A gateway key where none belongs


@pytest.mark.parametrize(
    "field", ["X-Goog-Api-Key: {}", "X-My-Key: Bearer {}", "OpenAI-Beta: {}", "X-Note: see {} for more"]
)
def test_a_gateway_key_in_any_field_stays_here(field: str, play: Play) -> None:
    play.ask(CHAT, headers=[field.format(KEY.decode()), "X-Kept: yes"])
    answered(play)
    assert KEY_PREFIX not in play.provider().asked
    assert play.provider().headers["x-kept"] == "yes"


@pytest.mark.parametrize("query", ["key={}", "a=b&api_key={}&c=d", "x=kt%5Fgk%5F{}", "%6bt_gk_{}"])
def test_a_gateway_key_in_a_query_stays_here(query: str, play: Play) -> None:
    play.ask(CHAT, "/v1/chat/completions?" + query.format(KEY.decode()))
    answered(play)
    target = play.provider().asked.split(b" ", 2)[1]
    assert b"gk" not in target
    assert (b"a=b" in target) == ("a=b" in query)
