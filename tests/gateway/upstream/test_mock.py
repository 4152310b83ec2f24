"""The mock provider's connection: the same surface and the same ends as a real one."""

from __future__ import annotations

import asyncio

import orjson

from gateway.types import Destination, Origin
from gateway.upstream.mock import MockConnection
from tests.gateway.upstream.support import Recorder, ask, exchange, pools_of

MOCK = Destination("mock", Origin("mock", 0, tls=False))
CHAT = b"POST /v1/chat/completions HTTP/1.1\r\nhost: mock\r\n\r\n"


def request(**fields: object) -> bytes:
    return orjson.dumps({"model": "mock", "messages": [{"role": "user", "content": "one two three"}], **fields})


async def test_a_json_answer_comes_whole() -> None:
    async with pools_of() as pools:
        pools.keep([MOCK])
        recorder = await exchange(pools, MOCK, CHAT, request())
        ((what, status, data, end),) = recorder.events
        assert (what, status, end) == ("head", 200, True)
        assert orjson.loads(data)["object"] == "chat.completion"
        assert recorder.head is not None
        assert (recorder.head.content_length, recorder.head.chunked) == (len(data), False)
        assert recorder.head.get(b"content-type") == b"application/json"
        assert repr(pools) == "<Pools []>"


async def test_a_stream_comes_one_frame_a_turn() -> None:
    async with pools_of() as pools:
        recorder = Recorder(CHAT, request(stream=True))
        ask(pools, MOCK, recorder)
        assert recorder.events == [], "never from within send"
        turns = 0
        while not recorder.over.is_open:
            await asyncio.sleep(0)
            turns += 1
            assert len(recorder.events) == turns
        assert recorder.events[-1] == ("data", b"data: [DONE]\n\n", True)
        assert turns > 3
        assert recorder.connection is not None
        assert recorder.connection.walker is None


async def test_pause_and_resume() -> None:
    async with pools_of() as pools:
        recorder = Recorder(CHAT, request(stream=True))
        ask(pools, MOCK, recorder)
        await recorder.begun
        connection = recorder.connection
        assert isinstance(connection, MockConnection)
        connection.pause_reading()
        before = len(recorder.events)
        for _ in range(5):
            await asyncio.sleep(0)
        assert len(recorder.events) == before
        assert repr(connection).endswith("frames left, reading paused>")
        connection.resume_reading()
        connection.resume_reading()
        await recorder.over
        assert recorder.body.endswith(b"data: [DONE]\n\n")


async def test_abort() -> None:
    async with pools_of() as pools:
        for begun in (False, True):
            recorder = Recorder(CHAT, request(stream=True))
            ask(pools, MOCK, recorder)
            if begun:
                await recorder.begun
            assert recorder.connection is not None
            recorder.connection.abort()
            before = list(recorder.events)
            for _ in range(5):
                await asyncio.sleep(0)
            recorder.connection.resume_reading()
            assert recorder.events == before
            assert repr(recorder.connection) == "<MockConnection 0 frames left>"


async def test_what_it_cannot_answer_is_an_error_in_openais_shape() -> None:
    async with pools_of() as pools:
        for head, body, status in [
            (CHAT, b"no json", 400),
            (b"POST /v1/images/generations HTTP/1.1\r\n\r\n", b"{}", 400),
            (b"POST /nowhere HTTP/1.1\r\n\r\n", b"{}", 404),
        ]:
            recorder = await exchange(pools, MOCK, head, body)
            assert recorder.events[0][1] == status
            assert orjson.loads(recorder.body)["error"]["message"]


async def test_a_paced_stream_has_a_timer_between_two_frames_and_comes_whole() -> None:
    async with pools_of() as pools:
        recorder = Recorder(CHAT, request(stream=True, metadata={"mock_gap_ms": "1"}))
        ask(pools, MOCK, recorder)
        await recorder.over
        assert recorder.events[-1] == ("data", b"data: [DONE]\n\n", True)


async def test_a_paced_stream_waits_between_frames_and_can_be_left() -> None:
    async with pools_of() as pools:
        recorder = Recorder(CHAT, request(stream=True, metadata={"mock_gap_ms": "1000"}))
        ask(pools, MOCK, recorder)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(recorder.events) == 1, "the second is due in a second, whatever the number of turns"
        assert isinstance(recorder.connection, MockConnection)
        recorder.connection.abort()
        assert repr(recorder.connection) == "<MockConnection 0 frames left>"
