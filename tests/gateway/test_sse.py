"""Frames: whole, cut at every byte, with every line end that the format allows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import UpstreamInvalid
from gateway.sse import FrameSplitter, data_of, event_of, frame_of
from tests.recordings import select

STREAMS = {
    "lf": b'data: {"a":1}\n\ndata: {"b":2}\n\ndata: [DONE]\n\n',
    "crlf": b'data: {"a":1}\r\n\r\ndata: {"b":2}\r\n\r\ndata: [DONE]\r\n\r\n',
    "cr": b'data: {"a":1}\r\rdata: {"b":2}\r\rdata: [DONE]\r\r',
    "mixed": b'data: {"a":1}\n\r\ndata: {"b":2}\r\n\ndata: [DONE]\n\n',
    "no space": b'data:{"a":1}\n\ndata:{"b":2}\n\ndata:[DONE]\n\n',
    "bom": b'\xef\xbb\xbfdata: {"a":1}\n\ndata: {"b":2}\n\ndata: [DONE]\n\n',
    "comments and ids": b': hello\n\nid: 1\ndata: {"a":1}\n\nretry: 3\ndata: {"b":2}\n\n: bye\n\ndata: [DONE]\n\n',
    "extra blank lines": b'\n\ndata: {"a":1}\n\n\n\ndata: {"b":2}\n\n\ndata: [DONE]\n\n',
    "events": b'event: x\ndata: {"a":1}\n\nevent: y\r\ndata: {"b":2}\r\n\r\ndata: [DONE]\n\n',
    "lf then cr": b'data: {"a":1}\n\rdata: {"b":2}\n\rdata: [DONE]\n\n',
}
DATA = [b'{"a":1}', b'{"b":2}', b"[DONE]"]


def frames_of(stream: bytes, *cuts: int) -> tuple[list[bytes], bytes]:
    splitter = FrameSplitter()
    frames: list[bytes] = []
    for start, end in zip((0, *cuts), (*cuts, len(stream)), strict=True):
        frames += splitter.feed(stream[start:end])
    return frames, splitter.rest()


@pytest.mark.parametrize("name", STREAMS)
def test_T2_T3_every_line_end_gives_the_same_data(name: str) -> None:
    frames, rest = frames_of(STREAMS[name])
    assert [data for frame in frames if (data := data_of(frame)) is not None] == DATA
    assert rest == b""


@pytest.mark.parametrize("name", STREAMS)
def test_T1_same_frames_cut_at_every_byte(name: str) -> None:
    stream = STREAMS[name]
    whole = frames_of(stream)
    assert b"".join(whole[0]) + whole[1] == stream
    for at in range(1, len(stream)):
        assert frames_of(stream, at) == whole
    assert frames_of(stream, *range(1, len(stream))) == whole


@given(st.lists(st.sampled_from([b"\n", b"\r", b"\r\n", b"data: x", b"data:y", b"", b":c"])), st.data())
def test_T1_any_bytes_cut_anywhere(pieces: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(pieces)
    whole = frames_of(stream)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=6).map(sorted))
    assert frames_of(stream, *cuts) == whole
    assert b"".join(whole[0]) + whole[1] == stream


@pytest.mark.parametrize("recording", select("openai", "azure-openai", suffix="chat/completions")[::10], ids=str)
def test_T1_recorded_streams_cut_by_sevens(recording) -> None:
    stream = recording.response
    assert frames_of(stream, *range(7, len(stream), 7)) == frames_of(stream)


def test_a_lone_frame_is_the_object_that_was_fed() -> None:
    frame = b'data: {"a":1}\n\n'
    assert FrameSplitter().feed(frame)[0] is frame


def test_a_cr_stream_does_not_wait_for_the_next_event() -> None:
    assert FrameSplitter().feed(b"data: x\r\r") == [b"data: x\r\r"]


def test_a_crlf_blank_line_is_never_cut_in_two() -> None:
    splitter = FrameSplitter()
    assert splitter.feed(b"data: x\r\n\r") == []
    assert splitter.feed(b"\n") == [b"data: x\r\n\r\n"]


def test_an_endless_frame_is_refused() -> None:
    splitter = FrameSplitter(max_frame_bytes=100)
    assert splitter.feed(b"data: " + b"x" * 94) == []
    with pytest.raises(UpstreamInvalid):
        splitter.feed(b"x")


@pytest.mark.parametrize(
    ("frame", "data", "event"),
    [
        (b"data: x\n\n", b"x", None),
        (b"data:x\n\n", b"x", None),
        (b"data:  x\n\n", b" x", None),
        (b"data: a\ndata: b\n\n", b"a\nb", None),
        (b"data\n\n", b"", None),
        (b"data: a\ndata\n\n", b"a\n", None),
        (b": ping\n\n", None, None),
        (b"event: ping\n\n", None, b"ping"),
        (b"event: a\ndata: x\n\n", b"x", b"a"),
        (b"data: x\nevent: a\n\n", b"x", b"a"),
        (b"data: x\revent: a\r\r", b"x", b"a"),
        (b"\xef\xbb\xbfdata: x\n\n", b"x", None),
        (b"\ndata: x\n\n", b"x", None),
        (b"Data: x\n\n", None, None),
        (b"data: x\rdata: y\n\n", b"x\ny", None),
        (b'data: {"event":1}\n\n', b'{"event":1}', None),
    ],
)
def test_T3_reading_one_frame(frame: bytes, data: bytes | None, event: bytes | None) -> None:
    assert data_of(frame) == data
    assert event_of(frame) == event


def test_frame_of_is_read_back() -> None:
    assert data_of(frame_of(b"x")) == b"x"
    frame = frame_of(b"x", b"ping")
    assert (data_of(frame), event_of(frame)) == (b"x", b"ping")
