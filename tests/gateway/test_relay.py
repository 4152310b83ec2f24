"""The four relays between real connections: whatever a provider's reads look like, the client gets the same answer.

Every answer is cut at every byte and at random places, framed in each way that HTTP/1.1 knows, for clients of HTTP/1.1
and 1.0. h11 reads what the client's transport was given: chunks that were passed on as they came and chunks that the
gateway made must together be sound framing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h11
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.errors import UpstreamInvalid
from gateway.http1 import ChunkWalker
from gateway.relay import MAX_METERED, Collection, Frames, Framing, Passage, is_usage_chunk
from tests.playbook import KEY, Play, configuration, dlp, target
from tests.provider import chunk, head
from translators.dialect import AnswerView
from translators.openai_chat import ChatTap

DONE = b"data: [DONE]\n\n"
USAGE = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3,"total_tokens":12}}\n\n'
DELTAS = [
    b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % text
    for text in (b"Hi", b" th\xc3\xa9re")
]
OPENAI = [*DELTAS, USAGE, DONE]
COMMENTS = [b": keep-alive\n\n", DELTAS[0], b"\n", b"id: 7\n\n", DELTAS[1], USAGE, DONE]
CRLF = [frame.replace(b"\n", b"\r\n") for frame in OPENAI]
LATE_USAGE = [
    DELTAS[0],
    b'data: {"choices":[{"index":0,"delta":{}}],"usage":{"prompt_tokens":9,"completion_tokens":3}}\n\n',
    DONE,
]
NO_DONE = [*DELTAS, USAGE]
UNFINISHED = [*DELTAS, USAGE, b"data: {"]
JSON = orjson.dumps(
    {
        "id": "c",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
    }
)
CLAUDE_EVENTS: tuple[dict[str, Any], ...] = (
    {"type": "message_start", "message": {"id": "m", "model": "c", "role": "assistant", "usage": {"input_tokens": 9}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
    {"type": "ping"},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}},
    {"type": "message_stop"},
)
CLAUDE = [b"event: %b\ndata: %b\n\n" % (event["type"].encode(), orjson.dumps(event)) for event in CLAUDE_EVENTS]


@dataclass(frozen=True)
class Case:
    """One way for an answer to flow. `expected` None: whatever it is when it comes whole."""

    frames: list[bytes]
    stream: bool = True
    usage: bool = False
    reviewed: bool = False
    claude: bool = False
    status: int = 200
    expected: bytes | None = None


CASES = {
    "passage": Case([JSON], stream=False, expected=JSON),
    "frames": Case(OPENAI, usage=True, expected=b"".join(OPENAI)),
    "frames without usage": Case(OPENAI, expected=b"".join([*DELTAS, DONE])),
    "frames with comments": Case(COMMENTS, expected=b"".join(COMMENTS).replace(USAGE, b"")),
    "frames of CRLF": Case(CRLF, expected=b"".join([*CRLF[:2], CRLF[3]])),
    "frames whose usage is no chunk of its own": Case(LATE_USAGE, expected=b"".join(LATE_USAGE)),
    "frames without an end mark": Case(NO_DONE, expected=b"".join(DELTAS)),
    "frames with an unfinished one": Case(UNFINISHED, expected=b"".join(DELTAS) + b"data: {"),
    "reviewed frames": Case(OPENAI, usage=True, reviewed=True, expected=b"".join(OPENAI)),
    "reviewed frames without usage": Case(OPENAI, reviewed=True, expected=b"".join([*DELTAS, DONE])),
    "reviewed frames without an end mark": Case(NO_DONE, reviewed=True, expected=b"".join(DELTAS)),
    "translation": Case(CLAUDE, claude=True),
    "reviewed translation": Case(CLAUDE, claude=True, reviewed=True),
    "collection": Case([JSON], stream=False, reviewed=True, expected=JSON),
    "an error": Case([b'{"error":{"message":"no"}}'], status=400, expected=b'{"error":{"message":"no"}}'),
}
EACH = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
FRAMINGS = ("chunked", "chunked otherwise", "in one chunk", "sized", "until close")


@pytest.fixture(scope="module")
def plays(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Case], Play]]:
    """One worker for each configuration; each answer has a client and a provider of its own."""
    made: dict[tuple[bool, bool], Play] = {}

    def play(case: Case) -> Play:
        kind = (case.reviewed, case.claude)
        if kind not in made:
            provider = "anthropic" if case.claude else "openai-compatible"
            chain, policies = (
                ("audit-logger, dlp-filter", dlp(phase="[output]")) if case.reviewed else ("audit-logger", "")
            )
            folder: Path = tmp_path_factory.mktemp("play")
            made[kind] = Play(folder, configuration(target(provider=provider), chain=chain, policies=policies))
        made[kind].pool.free.clear()
        return made[kind]

    yield play
    for one in made.values():
        one.check()
        one.close()


def reads_of(case: Case, framing: str) -> bytes:
    """The provider's answer as it is framed."""
    kind = "text/event-stream" if case.stream and case.status == 200 else "application/json"
    payload = b"".join(case.frames)
    length = len(payload) if framing == "sized" else None
    start = head(case.status, ("content-type", kind), length=length, chunked="chunk" in framing)
    if framing == "chunked":
        return start + b"".join(map(chunk, case.frames)) + b"0\r\n\r\n"
    if framing == "chunked otherwise":
        pieces = [payload[at : at + 17] for at in range(0, len(payload), 17)]
        extended = b"".join(b"00%x;a=b\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        return start + extended + b"0\r\nX-Trailer: 1\r\n\r\n"
    return start + (chunk(payload) + b"0\r\n\r\n" if framing == "in one chunk" else payload)


def ask(case: Case, *, old: bool) -> bytes:
    body: dict[str, Any] = {"model": "gpt-test", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 9}
    if case.stream:
        body["stream"] = True
    if case.usage:
        body["stream_options"] = {"include_usage": True}
    data = orjson.dumps(body)
    return (
        b"POST /v1/chat/completions HTTP/1.%d\r\nHost: x\r\nAuthorization: Bearer %b\r\nContent-Length: %d\r\n\r\n%b"
        % (
            0 if old else 1,
            KEY,
            len(data),
            data,
        )
    )


def through(play: Play, case: Case, framing: str, cuts: list[int], *, old: bool = False) -> tuple[int, bytes]:
    """What the client gets of an answer that is cut so: status and payload, read by h11 to its end."""
    client, transport = play.connect()
    client.data_received(ask(case, old=old))
    provider = play.provider()
    data = reads_of(case, framing)
    provider.says(*[data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True) if a < b])
    if framing == "until close":
        provider.closes()
    reader = h11.Connection(h11.CLIENT)
    reader.send(h11.Request(method="POST", target="/", headers=[("host", "x"), ("content-length", "0")]))
    reader.send(h11.EndOfMessage())
    reader.receive_data(transport.written)
    if transport.is_closing() or "eof" in transport.events:
        reader.receive_data(b"")
    status, payload = 0, b""
    while not isinstance(event := reader.next_event(), h11.EndOfMessage):
        if isinstance(event, h11.Response):
            status = event.status_code
        else:
            assert isinstance(event, h11.Data), f"{event} after {payload!r}"
            payload += bytes(event.data)
    assert reader.trailing_data[0] == b""
    client.connection_lost(None)
    return status, re.sub(rb'"created":\d+', b'"created":0', payload)


def expected(play: Play, case: Case) -> tuple[int, bytes]:
    return case.status, case.expected if case.expected is not None else through(play, case, "sized", [])[1]


@EACH
@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("old", [False, True], ids=["1.1", "1.0"])
def test_whole(plays: Callable[[Case], Play], case: Case, framing: str, old: bool) -> None:
    play = plays(case)
    wanted = expected(play, case)
    assert through(play, case, framing, [], old=old) == wanted
    last = [record for record in play.records if record["kind"] == "finish"][-1]
    if case.status == 200:
        assert (last["outcome"], last["prompt_tokens"], last["completion_tokens"]) == ("completed", 9, 3)


@EACH
def test_cut_at_every_byte(plays: Callable[[Case], Play], case: Case) -> None:
    play = plays(case)
    wanted = expected(play, case)
    data = reads_of(case, "chunked")
    for cut in range(data.index(b"\r\n\r\n"), len(data)):
        assert through(play, case, "chunked", [cut]) == wanted, cut


@EACH
@pytest.mark.parametrize("framing", FRAMINGS)
def test_byte_by_byte(plays: Callable[[Case], Play], case: Case, framing: str) -> None:
    play = plays(case)
    cuts = list(range(len(reads_of(case, framing))))
    assert through(play, case, framing, cuts) == expected(play, case)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_cut_anywhere(plays: Callable[[Case], Play], data: st.DataObject) -> None:
    case = data.draw(st.sampled_from(list(CASES.values())))
    framing = data.draw(st.sampled_from(FRAMINGS))
    old = data.draw(st.booleans())
    play = plays(case)
    length = len(reads_of(case, framing))
    cuts = sorted(data.draw(st.lists(st.integers(0, length), max_size=8)))
    assert through(play, case, framing, cuts, old=old) == expected(play, case)


# What each relay promises by itself


def test_one_read_of_one_chunk_is_handed_on_as_it_is() -> None:
    walker = ChunkWalker()
    frames = Frames(Framing(walker, True), ChatTap(), strip=True, hold=False)
    written: list[bytes] = []
    frames.write = written.append
    first = chunk(DELTAS[0])
    walker.feed(first)
    assert frames.feed(first, False) is first
    for read in (chunk(DELTAS[0]), chunk(DELTAS[0] * 2)):
        walker.feed(read)  # its size line is known from now on
        frames.feed(read, False)
        again = bytes(bytearray(read))
        assert frames.pass_on(again)
        assert written[-1] is again


@pytest.mark.parametrize(
    "read",
    [
        chunk(DELTAS[0])[:-1],
        chunk(DELTAS[0])[1:],
        chunk(DELTAS[0][:-1]),
        chunk(DELTAS[0]) + chunk(DELTAS[0]),
        chunk(USAGE),
        chunk(DONE),
        chunk(DELTAS[0] + DONE),
        b"0\r\n\r\n",
        b"\r\n",
        b"",
    ],
)
def test_the_fast_lane_leaves_everything_else_alone(read: bytes) -> None:
    walker = ChunkWalker()
    frames = Frames(Framing(walker, True), ChatTap(), strip=True, hold=False)
    frames.write = lambda data: pytest.fail("written")
    for size in {len(DELTAS[0]), len(DELTAS[0]) - 1, len(USAGE), len(DONE), len(DELTAS[0] + DONE)}:
        whole = b"%x\r\n%b\r\n" % (size, b"x" * (size - 2) + b"\n\n")
        walker.feed(whole)
        frames.feed(whole, False)
    assert not frames.pass_on(read)


def test_the_fast_lane_is_closed_in_the_middle_of_an_event() -> None:
    walker = ChunkWalker()
    frames = Frames(Framing(walker, True), ChatTap(), strip=False, hold=False)
    for read in (chunk(DELTAS[0]), chunk(DELTAS[0][:10])):
        walker.feed(read)
        frames.feed(read, False)
    assert not frames.pass_on(chunk(DELTAS[0]))


def test_a_large_answer_is_not_kept_for_its_usage() -> None:
    passage = Passage(Framing(None, True), lambda body: pytest.fail("read"))
    piece = b"x" * (MAX_METERED // 2)
    assert [passage.feed(piece, False) is piece for _ in range(3)] == [True] * 3
    assert passage.metered_bytes == 0
    assert passage.answer() == AnswerView(None)


def test_a_collection_is_bounded() -> None:
    collection = Collection(Framing(None, True), 10)
    assert collection.feed(b"x" * 10, False) == b""
    with pytest.raises(UpstreamInvalid, match="larger than 10 bytes"):
        collection.feed(b"x", True)


@pytest.mark.parametrize(
    ("frame", "is_one"),
    [
        (USAGE, True),
        (USAGE.replace(b"\n", b"\r\n"), True),
        (b'data: {"usage":{"a":1}, "choices":[ ], "x":1}\n\n', True),
        (b'data: {"choices":[],"usage":null}\n\n', False),
        (b'data: {"choices":[]}\n\n', False),
        (b'data: {"choices":[{}],"usage":{}}\n\n', False),
        (b'data: {"usage":{}}\n\n', False),
        (b'data: {"choices":[],"usage":{}\n\n', False),
        (b"data: \xff[]\n\n", False),
        (b": []\n\n", False),
        (DONE, False),
    ],
)
def test_the_usage_chunk(frame: bytes, is_one: bool) -> None:
    assert is_usage_chunk(frame) is is_one
