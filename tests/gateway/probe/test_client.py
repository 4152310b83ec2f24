"""The measuring client, against a provider that follows a script."""

from __future__ import annotations

import zlib

import pytest

from gateway.probe.client import Client, Place, ProbeError, chat, get, percentile, place_of
from tests.provider import CLOSE, LAST_CHUNK, Gate, ScriptedProvider, chunk, head, respond

STREAM = head(200, ("content-type", "text/event-stream"), chunked=True)
REQUEST = {"model": "m", "stream": True, "messages": []}


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("http://127.0.0.1:41002", Place("127.0.0.1", 41002, False, "")),
        ("https://gateway.example.com/v1/", Place("gateway.example.com", 443, True, "")),
        ("https://example.com:8443/ai/v1", Place("example.com", 8443, True, "/ai")),
    ],
)
def test_a_base_url_is_taken_apart(url: str, place: Place) -> None:
    assert place_of(url) == place


@pytest.mark.parametrize("url", ["example.com", "ftp://example.com", "http://", "http://h:x"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ProbeError, match="is not a URL"):
        place_of(url)


def test_the_host_field_leaves_out_the_schemes_own_port() -> None:
    request = chat(Place("example.com", 443, True, "/ai"), REQUEST, "kt_gk_x")
    assert request.startswith(b"POST /ai/v1/chat/completions HTTP/1.1\r\nHost: example.com\r\n")
    assert b"\r\nAuthorization: Bearer kt_gk_x\r\n" in request
    assert str(Place("::1", 80, False, "")) == "http://[::1]"


async def test_each_event_has_the_time_at_which_it_came() -> None:
    go = Gate()
    script = [STREAM, chunk(b"data: 1\n\nda"), go, chunk(b"ta: 2\n\ndata: 3\n\n"), LAST_CHUNK]
    async with ScriptedProvider(script) as provider:
        client = await Client.open(place_of(provider.url))
        whole = client.begin(chat(client.place, REQUEST))
        await client.first_event()
        go.open()
        reply = await whole
        client.close()
    assert reply.status == 200
    assert len(reply.arrivals) == 3
    assert reply.sent < reply.arrivals[0] < reply.arrivals[1] == reply.arrivals[2] <= reply.ended
    assert reply.gaps_us[1] == 0
    assert reply.transits == []


async def test_a_connection_serves_again() -> None:
    async with ScriptedProvider(respond(b"{}")) as provider:
        client = await Client.open(place_of(provider.url))
        for _ in range(3):
            assert (await client.ask(get(client.place, "/readyz"))).body == b"{}"
        assert client.usable
        client.close()
        assert len(provider.connections) == 1


async def test_a_refusal_is_told_in_one_line() -> None:
    async with ScriptedProvider(respond(b'{"error":{"message":"No such key."}}', status=401)) as provider:
        client = await Client.open(place_of(provider.url))
        assert (await client.ask(get(client.place, "/v1/models"))).refusal() == "401: No such key."
        client.close()


async def test_an_answer_that_breaks_off_is_an_error() -> None:
    async with ScriptedProvider([STREAM, chunk(b"data: 1\n\n"), CLOSE]) as provider:
        client = await Client.open(place_of(provider.url))
        with pytest.raises(ProbeError, match="closed the connection before its answer was complete"):
            await client.ask(chat(client.place, REQUEST))
        assert not client.usable


async def test_what_is_no_http_is_an_error() -> None:
    async with ScriptedProvider([b"SSH-2.0-OpenSSH\r\n\r\n", CLOSE]) as provider:
        client = await Client.open(place_of(provider.url))
        with pytest.raises(ProbeError, match=r"does not answer with HTTP/1\.1"):
            await client.ask(chat(client.place, REQUEST))
        client.close()


async def test_nobody_there() -> None:
    async with ScriptedProvider(b"") as provider:
        place = place_of(provider.url)
    with pytest.raises(ProbeError, match="cannot be reached"):
        await Client.open(place)


@pytest.mark.parametrize(("share", "value"), [(0.5, 2.0), (0.51, 3.0), (0.99, 4.0), (1.0, 4.0), (0.0, 1.0)])
def test_percentiles_are_samples(share: float, value: float) -> None:
    assert percentile([3.0, 1.0, 4.0, 2.0], share) == value
    assert percentile([], share) == 0


async def test_a_compressed_stream_is_read_as_it_comes() -> None:
    packer = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    first = packer.compress(b"data: 1\n\n") + packer.flush(zlib.Z_SYNC_FLUSH)
    rest = packer.compress(b"data: 2\n\n") + packer.flush()
    go = Gate()
    answer = head(200, ("content-type", "text/event-stream"), ("content-encoding", "gzip"), chunked=True)
    async with ScriptedProvider([answer, chunk(first), go, chunk(rest), LAST_CHUNK]) as provider:
        client = await Client.open(place_of(provider.url))
        whole = client.begin(chat(client.place, REQUEST))
        await client.first_event()
        go.open()
        reply = await whole
        client.close()
    assert len(reply.arrivals) == 2
    assert reply.arrivals[0] < reply.arrivals[1]
