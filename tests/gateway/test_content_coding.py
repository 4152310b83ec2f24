"""Compressed request bodies: undone before anything reads them, bounded, and sent on as they were meant."""

from __future__ import annotations

import contextlib
import gzip
import random
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import brotli
import orjson
import pytest
import zstandard

from gateway.content_coding import SUPPORTED, decoded, unfolding
from gateway.errors import InvalidRequest, RequestTooLarge, UnsupportedEncoding
from tests.playbook import Client, Play, configuration, dlp, target

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}
ASKED = {"model": "gpt-test", "messages": [{"role": "user", "content": "Grüße"}]}


def undo(body: bytes, coding: str, limit: int = 1 << 20) -> bytes:
    found = unfolding(coding.encode())
    assert found is not None
    return decoded(body, found, limit)


@pytest.mark.parametrize("coding", COMPRESS)
@pytest.mark.parametrize("size", [0, 1, 1000, 300_000])
def test_what_was_compressed_comes_out_as_it_was(coding: str, size: int) -> None:
    text = random.Random(size).randbytes(size // 2) + b"a" * (size - size // 2)
    assert undo(COMPRESS[coding](text), coding, limit=size) == text


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_several_members_are_one_body(coding: str) -> None:
    assert undo(COMPRESS[coding](b'{"a":') + COMPRESS[coding](b"1}"), coding) == b'{"a":1}'


@pytest.mark.parametrize("coding", COMPRESS)
def test_one_byte_over_the_bound_is_too_much(coding: str) -> None:
    body = COMPRESS[coding](b"x" * 5000)
    assert len(undo(body, coding, limit=5000)) == 5000
    with pytest.raises(RequestTooLarge):
        undo(body, coding, limit=4999)


@pytest.mark.parametrize("coding", SUPPORTED)
def test_a_bomb_costs_no_more_than_the_bound(coding: str) -> None:
    bomb = COMPRESS[coding](bytes(64 << 20))
    tracemalloc.start()
    with pytest.raises(RequestTooLarge):
        undo(bomb, coding)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 24 << 20


@pytest.mark.parametrize("coding", COMPRESS)
def test_every_cut_and_whatever_follows_is_refused(coding: str) -> None:
    body = COMPRESS[coding](orjson.dumps(ASKED))
    for end in range(len(body)):
        with pytest.raises(InvalidRequest):
            undo(body[:end], coding)
    with pytest.raises(InvalidRequest):
        undo(body + b"more", coding)


@pytest.mark.parametrize("coding", COMPRESS)
def test_noise_is_refused_and_never_a_fault(coding: str) -> None:
    noise = random.Random(7)
    sound = bytearray(COMPRESS[coding](orjson.dumps(ASKED)))
    for _ in range(300):
        damaged = sound.copy()
        damaged[noise.randrange(len(damaged))] ^= 1 << noise.randrange(8)
        with contextlib.suppress(InvalidRequest, RequestTooLarge):
            undo(bytes(damaged), coding)


@pytest.mark.parametrize("field", [None, b"", b"identity", b"Identity"])
def test_a_body_as_it_is_needs_nothing(field: bytes | None) -> None:
    assert unfolding(field) is None


@pytest.mark.parametrize("field", [b"gzip, gzip", b"gzip, br", b"compress", b"brotli", b"\xff"])
def test_another_coding_is_refused_with_those_that_are_taken(field: bytes) -> None:
    with pytest.raises(UnsupportedEncoding) as refused:
        unfolding(field)
    assert refused.value.headers == ((b"accept-encoding", b"gzip, deflate, br, zstd"),)


@pytest.mark.parametrize("coding", SUPPORTED)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_A30_a_compressed_request_reaches_the_provider_decoded(
    coding: str, path: str, playbook: Callable[..., Play]
) -> None:
    play = playbook()
    body = COMPRESS[coding](orjson.dumps({**ASKED, "max_tokens": 5}))
    play.ask(body, path, headers=[f"Content-Encoding: {coding.upper()}"])
    assert play.client.transcript == []
    assert not play.pool.providers, "nothing is decompressed on the event loop"
    play.work()
    assert play.provider().body["messages"] == ASKED["messages"]
    assert "content-encoding" not in play.provider().headers
    assert int(play.provider().headers["content-length"]) == len(play.provider().asked.partition(b"\r\n\r\n")[2])


def test_A30_the_next_request_of_the_connection_is_decoded_too(playbook: Callable[..., Play]) -> None:
    play = playbook()
    first = play.open(headers=["Content-Encoding: gzip"])
    assert first is not None
    first.on_body(gzip.compress(orjson.dumps(ASKED)))
    play.work()
    assert first.request.course is None  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("body", "coding", "status", "code"),
    [
        (b"{}", "compress", 415, "unsupported_encoding"),
        (b"{}", "br", 400, "invalid_request"),
        (brotli.compress(bytes(5000)), "br", 413, "request_too_large"),
        (b"{}", "gzip", 400, "invalid_request"),
        (b"\x28\xb5\x2f\xfd", "zstd", 400, "invalid_request"),
        (gzip.compress(bytes(5000), mtime=0), "gzip", 413, "request_too_large"),
        (gzip.compress(b"{", mtime=0), "gzip", 400, "invalid_json"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_A30_what_cannot_be_decoded_is_refused(
    body: bytes, coding: str, status: int, code: str, path: str, playbook: Callable[..., Play]
) -> None:
    play = playbook(configuration(gateway="gateway: {max_body_bytes: 4096}"))
    play.ask(body, path, headers=[f"Content-Encoding: {coding}"])
    if play.threads:
        play.work()
    assert play.client.transcript == [f"refused: {status} {code}"]
    answer: dict[str, Any] = orjson.loads(play.client.body)
    assert ("type" in answer) == (path == "/v1/messages")
    assert not play.pool.providers


def test_A30_policies_read_what_was_compressed(playbook: Callable[..., Play]) -> None:
    play = playbook(configuration(target(), policies=dlp(), chain="audit-logger, dlp-filter"))
    secret = {"model": "gpt-test", "messages": [{"role": "user", "content": "a secret"}]}
    play.ask(gzip.compress(orjson.dumps(secret)), headers=["Content-Encoding: gzip"])
    play.work()
    assert play.client.transcript == ["refused: 409 input_blocked"]


def test_a_client_that_leaves_while_its_body_is_decompressed_is_forgotten(playbook: Callable[..., Play]) -> None:
    play = playbook()
    exchange = play.ask(gzip.compress(orjson.dumps(ASKED)), headers=["Content-Encoding: gzip"], client=Client())
    exchange.on_client_gone()
    play.work()
    assert not play.pool.providers
    assert play.counted == [(499, None)]
