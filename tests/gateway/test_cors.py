"""Calls from web pages: what a browser is told, and what it is never told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gateway.cors import CrossOriginClient, origins
from gateway.downstream.http import DownstreamConnection
from tests.playbook import KEY, Client, Play

Playbook = Callable[..., Play]
PAGE = "https://app.example.com"
CHAT: dict[str, Any] = {"model": "gpt-test", "messages": [{"role": "user", "content": "Hello"}]}
JSON_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n"


def allowing(playbook: Playbook, *allowed: str) -> Play:
    play = playbook()
    play.application.origins = origins(allowed, 600)
    return play


def preflight(play: Play, path: str, *, method: str = "POST", origin: str = PAGE, more: tuple[str, ...] = ()) -> Client:
    headers = [f"Origin: {origin}", f"Access-Control-Request-Method: {method}", *more]
    assert play.open(path, method="OPTIONS", headers=headers, key=None) is None
    return play.client


def test_no_page_may_call_unless_the_operator_says_so(playbook: Playbook) -> None:
    assert origins([], 600) is None
    play = playbook()
    assert preflight(play, "/v1/chat/completions").status == 405
    play.ask(CHAT, headers=[f"Origin: {PAGE}"])
    play.provider().says(JSON_HEAD + b"\r\n{}")
    assert not [name for name in play.client.headers if name.startswith("access-control")]


def test_a_preflight(playbook: Playbook) -> None:
    play = allowing(playbook, PAGE)
    wishes = ("Access-Control-Request-Headers: authorization,content-type,x-stainless-os",)
    client = preflight(play, "/v1/chat/completions", more=wishes)
    assert client.status == 204
    assert client.headers["access-control-allow-origin"] == PAGE
    assert client.headers["access-control-allow-headers"] == "authorization,content-type,x-stainless-os"
    assert client.headers["access-control-allow-methods"] == "GET, HEAD, POST"
    assert client.headers["access-control-max-age"] == "600"
    assert client.headers["vary"] == "origin"
    assert "access-control-allow-credentials" not in client.headers


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/x"])
def test_a_preflight_for_the_models(playbook: Playbook, path: str) -> None:
    assert preflight(allowing(playbook, PAGE), path, method="GET").status == 204


@pytest.mark.parametrize("path", ["/api/v1/keys", "/console/", "/metrics", "/healthz", "/readyz"])
def test_operator_paths_cannot_be_called_by_other_pages(playbook: Playbook, path: str) -> None:
    client = preflight(allowing(playbook, "*"), path, method="GET")
    assert client.status == 405
    assert not [name for name in client.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", f"{PAGE}.evil.example", f"{PAGE}:8443", "http" + PAGE[5:]]
)
def test_a_page_of_another_origin(playbook: Playbook, origin: str) -> None:
    play = allowing(playbook, PAGE)
    assert preflight(play, "/v1/chat/completions", origin=origin).status == 405
    play.ask(CHAT, headers=[f"Origin: {origin}"])
    play.provider().says(JSON_HEAD + b"\r\n{}")
    assert "access-control-allow-origin" not in play.client.headers
    assert play.client.headers["vary"] == "origin"


def test_every_page(playbook: Playbook) -> None:
    play = allowing(playbook, "*")
    client = preflight(play, "/v1/chat/completions", origin="https://anywhere.example")
    assert client.headers["access-control-allow-origin"] == "*"


def test_origins_are_compared_as_browsers_write_them(playbook: Playbook) -> None:
    client = preflight(allowing(playbook, "HTTPS://App.Example.COM"), "/v1/chat/completions")
    assert client.headers["access-control-allow-origin"] == PAGE


def test_wishes_that_are_no_names_are_not_granted(playbook: Playbook) -> None:
    client = preflight(allowing(playbook, PAGE), "/v1/embeddings", more=("Access-Control-Request-Headers: a: b;c",))
    assert client.status == 204
    assert "access-control-allow-headers" not in client.headers


def test_other_options_are_no_preflights(playbook: Playbook) -> None:
    play = allowing(playbook, PAGE)
    play.open("/v1/chat/completions", method="OPTIONS", headers=[f"Origin: {PAGE}"])
    assert play.client.status == 405
    play.open("/v1/chat/completions", method="OPTIONS", headers=["Access-Control-Request-Method: POST"])
    assert play.client.status == 405


def test_an_answer_that_a_page_may_read(playbook: Playbook) -> None:
    play = allowing(playbook, PAGE)
    play.ask(CHAT, headers=[f"Origin: {PAGE}"])
    play.provider().says(JSON_HEAD + b"\r\n{}")
    assert (play.client.status, play.client.body) == (200, b"{}")
    assert play.client.headers["access-control-allow-origin"] == PAGE
    assert "x-request-id" in play.client.headers["access-control-expose-headers"]


def test_the_second_request_of_a_connection_is_as_readable_as_the_first(playbook: Playbook) -> None:
    play = allowing(playbook, PAGE)
    connection, transport = play.connect()
    body = b'{"model":"gpt-test","messages":[]}'
    request = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nOrigin: %b\r\nAuthorization: Bearer %b\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (PAGE.encode(), KEY, len(body), body)
    )
    for _ in range(4):
        connection.data_received(request)
        play.provider().says(JSON_HEAD + b"\r\n{}")
    assert transport.written.count(b"HTTP/1.1 200 OK\r\n") == 4
    assert transport.written.count(b"access-control-allow-origin: https://app.example.com\r\n") == 4


def test_a_stream_that_a_page_may_read(playbook: Playbook) -> None:
    play = allowing(playbook, PAGE)
    play.ask({**CHAT, "stream": True}, headers=[f"Origin: {PAGE}"])
    play.provider().says(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
        b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n",
    )
    assert play.client.body == b"data: [DONE]\n\n"
    assert play.client.headers["access-control-allow-origin"] == PAGE


def test_refusals_that_a_page_may_read(playbook: Playbook) -> None:
    play = allowing(playbook, PAGE)
    assert play.open(headers=[f"Origin: {PAGE}"], key=b"kt_gk_wrong") is None
    assert play.client.status == 401
    assert play.client.headers["access-control-allow-origin"] == PAGE
    connection, transport = play.connect()
    assert isinstance(connection, DownstreamConnection)
    connection.data_received(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nOrigin: %b\r\nContent-Length: 99999999\r\n\r\n"
        % PAGE.encode()
    )
    assert transport.written.startswith(b"HTTP/1.1 413 ")
    assert b"access-control-allow-origin: https://app.example.com\r\n" in transport.written


def test_a_provider_has_no_say_in_it(playbook: Playbook) -> None:
    play = allowing(playbook, PAGE)
    for headers in ([], [f"Origin: {PAGE}"]):
        play.ask(CHAT, headers=headers)
        provided = b"Access-Control-Allow-Origin: *\r\naccess-control-allow-credentials : true\r\n"
        provided = provided.replace(b" :", b":")
        play.provider().says(JSON_HEAD + provided + b"\r\n{}")
        allowed = play.client.headers.get("access-control-allow-origin")
        assert allowed == (PAGE if headers else None)
        assert "Access-Control-Allow-Origin" not in play.client.headers
        assert "access-control-allow-credentials" not in play.client.headers


def test_what_stands_around_a_connection_is_transparent() -> None:
    client = Client()
    across = CrossOriginClient(client, b"x-a: b\r\n")
    assert (across.peer, across.takes_chunks) == (client.peer, True)
    across.begin(200, b"", length=None, data=b"", end=False, raw=False)
    across.write(b"1\r\na\r\n")
    across.send(b"b", end=True, raw=False)
    across.abort()
    assert client.fields == b"x-a: b\r\n"
    assert client.body == b"ab"
    assert client.transcript[-1] == "aborted"
