"""Answers that a provider compressed all the same: read where they must be, one decoder for each."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from typing import Any

import brotli
import orjson
import pytest
import zstandard

from gateway.exchange import Exchange
from tests.playbook import Play, configuration, dlp, target
from tests.provider import LAST_CHUNK, chunk, head, respond

CHAT: dict[str, Any] = {"model": "gpt-test", "messages": [{"role": "user", "content": "Hello"}]}
STREAM = {**CHAT, "stream": True}
CLAUDE = configuration(target("claude", provider="anthropic", upstream_model="claude-sonnet-4-5"))
GUARDED = configuration(chain="audit-logger, dlp-filter", policies=dlp(phase="[output]"))
DONE = b"data: [DONE]\n\n"


def flushing(coding: str) -> Callable[[bytes], bytes]:
    """A compressor that gives each event whole, as servers of streams do; b"" ends it."""
    if coding == "zstd":
        zstd = zstandard.ZstdCompressor().compressobj()
        return lambda data: (
            zstd.compress(data) + zstd.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK) if data else zstd.flush()
        )
    if coding == "br":
        brotli_ = brotli.Compressor()
        return lambda data: brotli_.process(data) + brotli_.flush() if data else brotli_.finish()
    wide = zlib.compressobj(wbits=31 if coding == "gzip" else 15)
    return lambda data: wide.compress(data) + wide.flush(zlib.Z_SYNC_FLUSH) if data else wide.flush()


def claude(kind: str, **fields: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps({"type": kind, **fields}))


BEGIN = claude(
    "message_start", message={"id": "m", "type": "message", "role": "assistant", "content": [], "usage": {}}
) + claude("content_block_start", index=0, content_block={"type": "text", "text": ""})
END = claude("content_block_stop", index=0) + claude("message_delta", delta={"stop_reason": "end_turn"}, usage={})
END += claude("message_stop")


def says(text: str) -> bytes:
    return claude("content_block_delta", index=0, delta={"type": "text_delta", "text": text})


def delta(text: str) -> bytes:
    return b'data: {"id":"c","choices":[{"index":0,"delta":{"content":%b}}]}\n\n' % orjson.dumps(text)


def sse(coding: str) -> bytes:
    return head(200, ("content-type", "text/event-stream"), ("content-encoding", coding), chunked=True)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_B26_a_compressed_stream_is_translated_event_by_event(coding: str, playbook: Callable[..., Play]) -> None:
    play = playbook(CLAUDE)
    play.ask(STREAM)
    compress = flushing(coding)
    play.provider().says(sse(coding), chunk(compress(BEGIN)), chunk(compress(says("Grüße, "))))
    assert orjson.dumps("Grüße, ") in play.client.body
    play.provider().says(chunk(compress(says("Welt"))))
    assert b"Welt" in play.client.body
    play.provider().says(chunk(compress(END)), chunk(compress(b"")), LAST_CHUNK)
    assert play.client.body.endswith(DONE)
    assert "content-encoding" not in play.client.headers
    assert play.finish()["outcome"] == "completed"


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_B26_one_decoder_serves_it_however_it_is_cut(coding: str, playbook: Callable[..., Play]) -> None:
    compress = flushing(coding)
    stream = b"".join(map(compress, (BEGIN, says("One "), says("moment"), END, b"")))
    play = playbook(CLAUDE)
    play.ask(STREAM)
    play.provider().says(sse(coding), *[chunk(stream[at : at + 1]) for at in range(len(stream))], LAST_CHUNK)
    assert b'"One "' in play.client.body
    assert play.client.body.endswith(DONE)


def test_B26_a_compressed_stream_is_read_by_policies(playbook: Callable[..., Play]) -> None:
    play = playbook(GUARDED)
    play.ask(STREAM)
    compress = flushing("gzip")
    play.provider().says(sse("gzip"), chunk(compress(delta("fine"))))
    assert play.client.body == delta("fine")
    assert "content-encoding" not in play.client.headers
    play.provider().says(chunk(compress(delta(" secret") + DONE)), LAST_CHUNK)
    assert b"output_blocked" in play.client.body
    assert DONE not in play.client.body


def test_a_compressed_json_answer_is_translated(playbook: Callable[..., Play]) -> None:
    message = {"id": "m", "type": "message", "role": "assistant", "content": [{"type": "text", "text": "Hi"}]}
    body = gzip.compress(orjson.dumps({**message, "stop_reason": "end_turn", "usage": {"input_tokens": 1}}))
    play = playbook(CLAUDE)
    play.ask(CHAT)
    play.provider().says(respond(body, 200, ("content-type", "application/json"), ("content-encoding", "gzip")))
    assert orjson.loads(play.client.body)["choices"][0]["message"]["content"] == "Hi"


@pytest.mark.parametrize("text", [configuration(), CLAUDE])
def test_B25_a_compressed_error_is_read(text: str, playbook: Callable[..., Play]) -> None:
    body = orjson.dumps({"error": {"message": "too long", "type": "invalid_request_error"}})
    play = playbook(text)
    play.ask(CHAT)
    zipped = gzip.compress(body)
    play.provider().says(respond(zipped, 400, ("content-type", "application/json"), ("content-encoding", "gzip")))
    assert play.client.status == 400
    assert orjson.loads(play.client.body)["error"]["message"] == "too long"
    assert "content-encoding" not in play.client.headers


@pytest.mark.parametrize(
    "body",
    [
        b"\x1f\x8b-zipped",
        gzip.compress(b"{}", mtime=0) + b"more",
        gzip.compress(bytes(5 << 20), mtime=0),
        gzip.compress(b"{}", mtime=0)[:-9],
    ],
)
def test_what_is_damaged_or_without_measure_is_the_providers_fault(body: bytes, playbook: Callable[..., Play]) -> None:
    play = playbook(CLAUDE)
    play.ask(CHAT)
    play.provider().says(respond(body, 200, ("content-type", "application/json"), ("content-encoding", "gzip")))
    assert play.client.transcript == ["refused: 502 upstream_invalid"]


def test_where_nobody_reads_it_it_passes_as_it_is(play: Play) -> None:
    exchange = play.ask(STREAM)
    assert isinstance(exchange, Exchange)
    zipped = flushing("gzip")(delta("Hi"))
    play.provider().says(sse("gzip"), chunk(zipped))
    assert play.client.body == zipped
    assert play.client.headers["content-encoding"] == "gzip"
    exchange.on_client_gone()
