"""A translated stream on its way through an exchange: framing, pings, clocks, and a client that leaves."""

from __future__ import annotations

from collections.abc import Callable

import orjson
import pytest

from gateway.sse import FrameSplitter
from tests.playbook import Play, configuration, target

CHAT = {"model": "gpt-test", "messages": [{"role": "user", "content": "hi"}], "stream": True}
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def event(kind: str, **fields: object) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps({"type": kind, **fields}))


def chunk(payload: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(payload), payload)


USAGE = {"input_tokens": 7, "output_tokens": 1}
START = event("message_start", message={"id": "msg_1", "model": "claude", "usage": USAGE}) + event(
    "content_block_start", index=0, content_block={"type": "text", "text": ""}
)
PING = event("ping")
TEXT = event("content_block_delta", index=0, delta={"type": "text_delta", "text": "Hello"})
THOUGHT = event("content_block_start", index=1, content_block={"type": "thinking", "thinking": ""}) + event(
    "content_block_delta", index=1, delta={"type": "thinking_delta", "thinking": "Hm"}
)
STOP = event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 5}) + event("message_stop")


@pytest.fixture
def claude(playbook: Callable[..., Play]) -> Play:
    """A client of chat in front of Claude, which has 10 seconds between two reads."""
    return playbook(configuration(target(provider="anthropic", timeouts="{idle_seconds: 10}")))


def test_T4_a_ping_comes_between_events_and_never_within_one(claude: Play) -> None:
    claude.ask(CHAT)
    claude.provider().says(HEAD, chunk(START + TEXT[:30]))
    claude.provider().says(chunk(TEXT[30:] + PING + TEXT[:50]), chunk(TEXT[50:]))
    frames = FrameSplitter().feed(claude.client.body)
    assert [frame.partition(b":")[0] for frame in frames] == [b"data", b"data", b"", b"data"]
    assert all(orjson.loads(frame[6:-2]) for frame in frames if frame.startswith(b"data"))


def test_T5_a_stream_has_no_length_whatever_the_providers_answer_had(claude: Play) -> None:
    stream = START + TEXT + STOP
    claude.ask(CHAT)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n" % len(stream)
    claude.provider().says(head + stream)
    assert claude.client.transcript[0].startswith("200 chunked")
    assert "content-length" not in claude.client.headers
    assert claude.client.body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("said", [(), (HEAD,), (HEAD, chunk(START)), (HEAD, chunk(START + TEXT))])
def test_T6_a_client_that_leaves_ends_the_providers_work(claude: Play, said: tuple[bytes, ...]) -> None:
    exchange = claude.ask(CHAT)
    claude.provider().says(*said)
    exchange.on_client_gone()
    assert claude.provider().gone
    assert claude.targets["one"].in_flight == 0
    assert (claude.finish()["outcome"], claude.finish()["status"]) == ("cancelled", 499)


def test_D7_a_stream_that_lasts_long_and_never_idles_is_not_cut(claude: Play) -> None:
    claude.ask(CHAT)
    claude.provider().says(HEAD, chunk(START))
    for _ in range(30):
        claude.advance(6)
        claude.provider().says(chunk(TEXT))
    claude.provider().says(chunk(STOP), b"0\r\n\r\n")
    assert claude.client.body.endswith(b"data: [DONE]\n\n")
    assert claude.finish()["outcome"] == "completed"


@pytest.mark.parametrize("first", [THOUGHT, TEXT, PING])
def test_T8_the_first_frame_of_any_kind_is_the_first_byte(claude: Play, first: bytes) -> None:
    claude.ask(CHAT)
    claude.advance(2)
    claude.provider().says(HEAD, chunk(START))
    claude.advance(1)
    claude.provider().says(chunk(first))
    claude.advance(4)
    claude.provider().says(chunk(TEXT + STOP), b"0\r\n\r\n")
    assert claude.finish()["first_byte_us"] == 3_000_000
