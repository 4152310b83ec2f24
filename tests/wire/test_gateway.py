"""From a client's socket to a provider's and back: what travels, what stays behind, and when.

Server, application, exchange, pools and connections are the real ones; the provider is scripted and writes down every
byte it is given.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import h11
import orjson
import pytest

from gateway.downstream.http import DownstreamLimits, Server
from gateway.ports import Pool as PoolPort
from gateway.upstream.pool import Pools
from tests.gateway.downstream.support import answers
from tests.playbook import KEY, Play, configuration, dlp, target
from tests.provider import EOF, LAST_CHUNK, RESET, STALL, Gate, Request, ScriptedProvider, chunk, head, respond, stream
from tests.wire.client import RawClient, connected
from tests.wire.requests import MALFORMED

CHAT: dict[str, Any] = {"model": "gpt-test", "messages": [{"role": "user", "content": "Hello"}]}
STREAM: dict[str, Any] = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
DELTA = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n'
DONE = b"data: [DONE]\n\n"
ANSWER = b'{"id":"c","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3}}'
END = b"0\r\n\r\n"


def post(body: dict[str, Any], *lines: bytes, path: bytes = b"/v1/chat/completions") -> bytes:
    data = orjson.dumps(body)
    return b"POST %b HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %b\r\n%bContent-Length: %d\r\n\r\n%b" % (
        path,
        KEY,
        b"".join(line + b"\r\n" for line in lines),
        len(data),
        data,
    )


class Stand:
    """A worker that listens on a real port; its provider is `provider`."""

    def __init__(self, folder: Path, provider: ScriptedProvider, **settings: Any) -> None:
        loop = asyncio.get_running_loop()
        url = target().replace("http://one.test", provider.url)
        self.play = Play(folder, configuration(url, **settings))
        self.provider = provider
        self.pools = Pools(loop, clock=loop.time)
        self.services = self.play.services
        pool: PoolPort = self.pools
        self.services.pool = pool
        self.services.clock = loop.time
        self.server = Server(self.play.application, DownstreamLimits(body_bytes=1_000_000), loop.time, lambda: 0.0)
        self.port = 0

    async def listen(self) -> None:
        listener = await asyncio.get_running_loop().create_server(self.server, "127.0.0.1", 0)
        self.port = listener.sockets[0].getsockname()[1]

    async def close(self) -> None:
        for connection in list(self.server.connections):
            connection._transport.abort()
        while self.server.connections:  # noqa: ASYNC110 (nobody tells when the last one has gone)
            await asyncio.sleep(0)
        self.pools.close()
        self.play.close()

    @property
    def received(self) -> bytes:
        """Every byte that the provider was given."""
        return b"".join(connection.received for connection in self.provider.connections)


Open = Callable[..., Any]


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Open]:
    """Opens a stand for a provider's script."""
    stands: list[Stand] = []

    async def make(*answers: Any, **settings: Any) -> Stand:
        provider = ScriptedProvider(*answers)
        await provider.start()
        stands.append(Stand(tmp_path, provider, **settings))
        await stands[-1].listen()
        return stands[-1]

    yield make
    for one in stands:
        await one.close()
        await one.provider.stop()


def seen(request: Request) -> None:
    """h11 must find exactly one sound request in what was sent."""
    server = h11.Connection(h11.SERVER)
    server.receive_data(request.raw)
    assert isinstance(server.next_event(), h11.Request)
    body = b""
    while isinstance(event := server.next_event(), h11.Data):
        body += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage)
    assert body == request.body
    assert server.trailing_data[0] == b""


# What travels


async def test_what_the_provider_is_asked(stand: Open) -> None:
    one = await stand(respond(ANSWER))
    async with connected(one.port) as client:
        client.says(
            post(
                CHAT,
                b"Content-Type: application/json",
                b"User-Agent: OpenAI/Python 1.60",
                b"Accept: application/json",
                b"Accept-Encoding: gzip, deflate, br",
                b"X-Stainless-Retry-Count: 0",
                b"X-Request-ID: mine-1",
                b"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                b"Idempotency-Key: stainless-python-retry-1",
                b"Connection: keep-alive, X-Private",
                b"X-Private: 1",
                b"Keep-Alive: timeout=5",
                b"TE: trailers",
                b"Upgrade: h2c",
                b"Proxy-Authorization: Basic eDp5",
                b"Cookie: session=1",
                b"Origin: http://localhost:3000",
                b"Referer: http://localhost:3000/",
                b"X-Forwarded-For: 192.0.2.1",
                b"Forwarded: for=192.0.2.1",
                b"api-key: " + KEY,
                b"x-api-key: " + KEY,
                b"OpenAI-Organization: org-clients",
            )
        )
        await client.answers(1)
    request = await one.provider.requests.at(0)
    seen(request)
    assert (request.method, request.target) == ("POST", "/v1/chat/completions")
    assert request.headers == {
        "host": f"127.0.0.1:{one.provider.port}",
        "accept-encoding": "identity",
        "authorization": "Bearer sk-provider",
        "content-type": "application/json",
        "user-agent": "OpenAI/Python 1.60",
        "accept": "application/json",
        "x-stainless-retry-count": "0",
        "x-request-id": "mine-1",
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "idempotency-key": "stainless-python-retry-1",
        "content-length": str(len(orjson.dumps(CHAT))),
    }
    assert orjson.loads(request.body) == CHAT
    assert KEY not in one.received


async def test_what_the_client_is_answered(stand: Open) -> None:
    sent = [
        ("Connection", "keep-alive, X-Hop"),
        ("X-Hop", "1"),
        ("Keep-Alive", "timeout=5"),
        ("Set-Cookie", "__cf_bm=x"),
        ("Alt-Svc", 'h3=":443"'),
        ("Strict-Transport-Security", "max-age=1"),
        ("X-Request-Id", "req_theirs"),
        ("OpenAI-Processing-Ms", "7"),
        ("X-RateLimit-Remaining-Requests", "99"),
    ]
    one = await stand(respond(ANSWER, 200, *sent))
    async with connected(one.port) as client:
        client.says(post(CHAT, b"X-Request-Id: mine"))
        await client.answers(1)
        start, _, body = client.heard.partition(b"\r\n\r\n")
    lines = start.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 200 OK"
    fields = {line.partition(": ")[0].lower(): line.partition(": ")[2] for line in lines[1:]}
    assert re.fullmatch(r"([a-z_]+;dur=\d+\.\d{3}(, |$))+", fields.pop("server-timing"))
    assert fields == {
        "content-type": "application/json",
        "x-provider-request-id": "req_theirs",
        "openai-processing-ms": "7",
        "x-ratelimit-remaining-requests": "99",
        "x-request-id": "mine",
        "content-length": str(len(ANSWER)),
    }
    assert body == ANSWER


async def test_one_request_in_is_one_request_out(stand: Open) -> None:
    one = await stand(respond(ANSWER))
    async with connected(one.port) as client:
        bodies = [{**CHAT, "user": str(number)} for number in range(50)]
        client.says(b"".join(map(post, bodies)))
        assert len(await client.answers(50)) == 50
    assert [orjson.loads(request.body) for request in one.provider.requests] == bodies
    for request in one.provider.requests:
        seen(request)
    assert len(one.provider.connections) == 1


async def test_a_chunked_request_goes_on_sized(stand: Open) -> None:
    one = await stand(respond(ANSWER))
    data = orjson.dumps(CHAT)
    start = post(CHAT).partition(b"Content-Length")[0]
    async with connected(one.port) as client:
        client.says(start + b"Transfer-Encoding: chunked\r\n\r\n" + chunk(data[:9]) + chunk(data[9:]) + LAST_CHUNK)
        await client.answers(1)
    request = one.provider.requests[0]
    seen(request)
    assert request.body == data
    assert "transfer-encoding" not in request.headers


async def test_nothing_malformed_reaches_a_provider(stand: Open) -> None:
    """The table again, aimed at a real endpoint, with a request hidden behind each."""
    one = await stand(respond(ANSWER))
    for name, (data, status) in MALFORMED.items():
        if name in ("http/2 preface", "tls", "ssh"):
            continue
        data = data.replace(b"/echo", b"/v1/chat/completions").replace(
            b"Host: gateway\r\n", b"Host: gateway\r\napi-key: %b\r\n" % KEY, 1
        )
        async with connected(one.port) as client:
            client.says(data + post(CHAT))
            heard = await client.hears_the_end()
            ((answered, _),) = answers(heard)
            assert answered in (status, 400), name
    assert len(one.provider.connections) == 0


async def test_a_path_cannot_become_another_request(stand: Open) -> None:
    one = await stand(respond(ANSWER))
    for query in (b"?a=b%0d%0aX:y", b"?a=b%20HTTP/1.1", b"?%00", b"?a=/../../admin"):
        async with connected(one.port) as client:
            client.says(post(CHAT, path=b"/v1/chat/completions" + query))
            await client.hears(ANSWER)
    for request in one.provider.requests:
        seen(request)
        assert request.target.startswith("/v1/chat/completions")


async def test_connections_are_used_again(stand: Open) -> None:
    one = await stand(respond(ANSWER))
    for number in range(5):
        async with connected(one.port) as client:
            client.says(post(CHAT))
            await client.answers(1)
            await one.provider.requests.at(number)
    assert len(one.provider.connections) == 1


# When it travels


async def test_the_first_token_is_there_before_the_second_is_sent(stand: Open) -> None:
    go = Gate()
    first, second = chunk(DELTA % b"one"), chunk(DELTA % b"two")
    start = head(200, ("content-type", "text/event-stream"), chunked=True)
    one = await stand([start, first, go, second, chunk(DONE), LAST_CHUNK])
    async with connected(one.port) as client:
        client.says(post(STREAM))
        await client.hears(first)
        go.open()
        await client.hears(END)
        assert (await client.answers(1))[0][1] == DELTA % b"one" + DELTA % b"two" + DONE


async def test_half_an_event_waits_for_the_other_half(stand: Open) -> None:
    go = Gate()
    whole, event = DELTA % b"one", DELTA % b"two"
    start = head(200, ("content-type", "text/event-stream"), chunked=True)
    one = await stand([start, chunk(whole), chunk(event[:20]), go, chunk(event[20:]), chunk(DONE), LAST_CHUNK])
    async with connected(one.port) as client:
        client.says(post(STREAM))
        await client.hears(chunk(whole))
        go.open()
        await client.hears(END)
        ((_, body),) = await client.answers(1)
        assert body == whole + event + DONE


async def test_a_stream_and_then_another_request(stand: Open) -> None:
    one = await stand(stream(DELTA % b"one", DONE), respond(ANSWER))
    async with connected(one.port) as client:
        client.says(post(STREAM))
        await client.hears(END)
        client.says(post(CHAT))
        assert [status for status, _ in await client.answers(2)] == [200, 200]
    assert len(one.provider.connections) == 1


async def test_a_stream_for_a_client_of_http_1_0(stand: Open) -> None:
    one = await stand(stream(DELTA % b"one", DONE))
    async with connected(one.port) as client:
        client.says(post(STREAM).replace(b"HTTP/1.1", b"HTTP/1.0", 1))
        heard = await client.hears_the_end()
        assert heard.endswith(b"\r\n\r\n" + DELTA % b"one" + DONE)
        assert b"transfer-encoding" not in heard


# Clients that leave


async def leaves(client: RawClient, way: str) -> None:
    client.half_closes() if way == "fin" else client.resets()


BOTH = pytest.mark.parametrize("way", ["fin", "rst"])


@BOTH
async def test_leaving_while_the_provider_thinks(stand: Open, way: str) -> None:
    one = await stand([STALL])
    async with connected(one.port) as client:
        client.says(post(STREAM))
        await one.provider.requests.at(0)
        await leaves(client, way)
        await one.provider.connections[0].closed
    assert one.play.finish()["outcome"] == "cancelled"


@BOTH
async def test_leaving_in_the_middle_of_a_stream(stand: Open, way: str) -> None:
    start = head(200, ("content-type", "text/event-stream"), chunked=True)
    one = await stand([start, chunk(DELTA % b"one"), STALL])
    async with connected(one.port) as client:
        client.says(post(STREAM))
        await client.hears(chunk(DELTA % b"one"))
        await leaves(client, way)
        await one.provider.connections[0].closed
    assert one.play.finish()["status"] == 499


async def test_a_client_that_reads_nothing_stops_the_provider(stand: Open) -> None:
    """The provider would send 100 MB; what is on its way is bounded by the sockets and the marks."""
    start = head(200, ("content-type", "text/event-stream"), chunked=True)
    frame = chunk(b"data: %b\n\n" % (b"x" * 16_000))
    one = await stand([start, *[frame] * 6_000, STALL])
    async with connected(one.port, receive_buffer=8192) as client:
        client.stops_reading()
        client.says(post(STREAM))
        await one.provider.requests.at(0)
        (connection,) = one.server.connections
        while not connection._write_paused:  # noqa: ASYNC110 (the transport tells its protocol only)
            await asyncio.sleep(0)
        assert connection._transport.get_write_buffer_size() < 1_000_000
        (exchange,) = one.services.active
        assert "reading paused" in repr(exchange.connection)
        client.reads_on()
        await client.hears_until(_sent(client, 2_000_000))


def _sent(client: RawClient, count: int) -> Gate:
    """Opens once the client has so many bytes."""

    class Enough(Gate):
        @property
        def is_open(self) -> bool:
            return len(client._heard) > count

    return Enough()


# Providers that fail


async def test_a_provider_that_resets_before_it_answers(stand: Open) -> None:
    one = await stand([RESET])
    async with connected(one.port) as client:
        client.says(post(CHAT))
        ((status, body),) = await client.answers(1)
    assert (status, orjson.loads(body)["error"]["code"]) == (502, "upstream_reset")
    assert len(one.provider.requests) == 1  # a POST may have been served: it is not sent twice unasked


async def test_a_provider_that_resets_in_the_middle(stand: Open) -> None:
    start = head(200, ("content-type", "text/event-stream"), chunked=True)
    one = await stand([start, chunk(DELTA % b"one"), RESET])
    async with connected(one.port) as client:
        client.says(post(STREAM))
        heard = await client.hears_the_end()
    assert b'"code":"upstream_reset"' in heard
    assert not heard.endswith(END)
    assert DONE not in heard


async def test_a_provider_that_ends_the_connection_with_its_answer(stand: Open) -> None:
    one = await stand([head(200, ("content-type", "application/json")) + ANSWER, EOF])
    async with connected(one.port) as client:
        client.says(post(CHAT) * 2)
        assert [body for _, body in await client.answers(2)] == [ANSWER, ANSWER]
    assert len(one.provider.connections) == 2


# Policies


async def test_a_redaction_and_a_refusal_on_the_wire(stand: Open) -> None:
    more = ", patterns: [{name: card, regex: '[0-9]{16}'}]"
    one = await stand(respond(ANSWER), chain="audit-logger, dlp-filter", policies=dlp("redact", more=more))
    async with connected(one.port) as client:
        client.says(post({**CHAT, "messages": [{"role": "user", "content": "4111111111111111 is a secret"}]}))
        await client.answers(1)
    assert b"4111111111111111" not in one.received
    content = orjson.loads(one.provider.requests[0].body)["messages"][0]["content"]
    assert content == "[REDACTED:card] is a [REDACTED:term]"
