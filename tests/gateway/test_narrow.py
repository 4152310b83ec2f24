"""A policy chooses among targets, and the request goes to no other."""

from __future__ import annotations

from collections.abc import Callable

from tests.playbook import KEY, Play, configuration, target

CHAT = {"model": "gpt-test", "messages": [{"role": "user", "content": "hello"}]}
JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
BUSY = b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n"


def chain(settings: str) -> str:
    return configuration(
        target("one"),
        target("two"),
        target("three"),
        chain="audit-logger, model-access",
        policies=f"\n  model-access: {settings}\n",
        providers="  fallback: {max_attempts: 3, triggers: [server_error]}",
    )


def test_it_goes_to_what_is_left_and_falls_back_to_nothing_else(playbook: Callable[..., Play]) -> None:
    play = playbook(chain("{deny_targets: [one]}"))
    for _ in range(2):
        play.pool.providers.clear()
        play.ask(CHAT)
        assert play.provider().destination.name == "two"
        play.provider().says(BUSY)
        assert play.provider().destination.name == "three"
        play.provider().says(JSON)
        assert (play.client.status, len(play.pool.providers)) == (200, 2)
    start = next(one for one in play.records if one["kind"] == "start")
    assert start["decisions"][-1]["reason"] == "model-access.target"
    assert start["decisions"][-1]["detail"] == "one"


def test_the_preferred_one_is_tried_first(playbook: Callable[..., Play]) -> None:
    play = playbook(chain("{prefer_targets: [three]}"))
    play.ask(CHAT)
    assert play.provider().destination.name == "three"


def test_where_none_is_left_it_is_refused(playbook: Callable[..., Play]) -> None:
    play = playbook(chain("{targets: [anthropic]}"))
    play.ask(CHAT)
    assert play.client.transcript == ["refused: 409 input_blocked"]
    assert play.pool.providers == []
    assert play.finish()["outcome"] == "refused"


def test_a_single_target_is_asked_about_with_every_request(playbook: Callable[..., Play]) -> None:
    """No later request of a connection takes the course of the first one."""
    text = configuration(chain="model-access", policies="\n  model-access: {targets: [one]}\n")
    play = playbook(text)
    connection, _ = play.connect()
    body = b'{"model":"gpt-test","messages":[{"role":"user","content":"hi"}]}'
    for count in (1, 2):
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost:41002\r\nauthorization: Bearer %b\r\n" % KEY
        connection.data_received(head + b"content-length: %d\r\n\r\n%b" % (len(body), body))
        play.provider().says(JSON)
        assert play.metric("keeptrusts_gateway_policy_evaluations_total") == count
