"""The client's side of a connection, without sockets: requests in any pieces, answers, pauses, deadlines, ends."""

from __future__ import annotations

import h11
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.downstream.head import HeadLimits
from gateway.downstream.http import MAX_PIPELINED, DownstreamLimits
from gateway.errors import Draining, RequestTimeout
from tests.gateway.downstream.support import JSON, Wire
from tests.wire.requests import get


def post(body: bytes = b"abc", *lines: bytes, target: bytes = b"/echo", version: bytes = b"HTTP/1.1") -> bytes:
    return get(b"Content-Length: %d" % len(body), *lines, target=target, method=b"POST", version=version) + body


def chunked(*chunks: bytes, target: bytes = b"/echo", trailers: bytes = b"") -> bytes:
    head = get(b"Transfer-Encoding: chunked", target=target, method=b"POST")
    return head + b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in chunks) + b"0\r\n" + trailers + b"\r\n"


def bodies(wire: Wire) -> list[str]:
    """The body that each answered request had."""
    return [orjson.loads(body)["body"] for _, body in wire.answers]


# Requests


@pytest.mark.parametrize("request_", [get(), post(), post(b""), chunked(b"ab", b"c"), chunked()])
def test_a_request_in_any_two_pieces(request_: bytes) -> None:
    for cut in range(len(request_) + 1):
        wire = Wire()
        wire.sends(*[part for part in (request_[:cut], request_[cut:]) if part])
        assert [status for status, _ in wire.answers] == [200]
        assert repr(wire.connection) == "<DownstreamConnection 192.0.2.7 waiting for a head>"
        assert not wire.closed


REQUESTS = [
    get(),
    post(b"one"),
    chunked(b"t", b"wo"),
    post(b"x" * 3000),
    chunked(b"y" * 300, trailers=b"X-A: b\r\n"),
    post(b""),
]


@given(st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=6), st.data())
def test_pipelined_requests_in_any_pieces(requests: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(requests)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    wire = Wire()
    wire.sends(*[stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True) if a < b])
    assert len(wire.answers) == len(requests)
    assert [handler.body for handler in wire.application.handlers] == [
        {REQUESTS[0]: b"", REQUESTS[1]: b"one", REQUESTS[2]: b"two", REQUESTS[3]: b"x" * 3000}.get(
            one, b"y" * 300 if one is REQUESTS[4] else b""
        )
        for one in requests
    ]


def test_one_empty_line_before_a_request_is_ignored() -> None:
    wire = Wire()
    wire.sends(b"\r\n" + get() + b"\r\n" + get(), b"\r", b"\n", get())
    assert len(wire.answers) == 3


@pytest.mark.parametrize("apart", [False, True])
def test_a_client_that_ends_each_body_with_an_empty_line(apart: bool) -> None:
    """RFC 9112, section 2.2, knows such clients."""
    wire = Wire()
    for _ in range(5):
        wire.sends(*((post(b"abc"), b"\r\n") if apart else (post(b"abc") + b"\r\n",)))
    assert len(wire.answers) == 5


def test_pipelined_requests_are_answered_in_order() -> None:
    wire = Wire()
    wire.sends(get(target=b"/hold/1") + post(b"2", target=b"/echo") + get(target=b"/hold/3"))
    assert len(wire.application.handlers) == 1
    wire.handler.client.reply(200, JSON, b'{"body":"1"}')
    assert bodies(wire) == ["1", "2"]
    assert wire.handler.head.path == b"/hold/3"


def test_an_answer_while_the_next_request_arrives_in_parts() -> None:
    wire = Wire()
    first, second = get(target=b"/hold"), post(b"second")
    wire.sends(first + second[:10])
    held = wire.handler
    wire.sends(second[10:40])
    held.client.reply(200, JSON, b'{"body":"1"}')
    wire.sends(second[40:])
    assert bodies(wire) == ["1", "second"]


def test_what_is_pipelined_is_bounded() -> None:
    wire = Wire()
    wire.sends(get(target=b"/hold"))
    wire.sends(post(b"x" * 40_000), post(b"y" * 40_000))
    assert wire.transport.events == ["paused"]
    assert len(wire.application.handlers) == 1
    wire.handler.client.reply(200, JSON, b'{"body":"1"}')
    assert [len(body) for body in bodies(wire)] == [1, 40_000, 40_000]
    assert wire.transport.events == ["paused", "resumed"]


def test_many_small_requests_in_one_read() -> None:
    wire = Wire()
    wire.sends(get() * 500)
    assert len(wire.answers) == 500


def test_a_client_that_reads_nothing_is_not_answered_without_end() -> None:
    """Answers may be longer than requests: whoever sends many and reads none must not fill the memory."""
    wire = Wire()
    wire.sends(get())
    wire.connection.pause_writing()
    wire.transport.unsent = 70_000
    wire.sends(get() * 100, get() * 5000)
    assert len(wire.answers) == 1
    assert "paused" in wire.transport.events
    wire.transport.unsent = 0
    wire.connection.resume_writing()
    assert wire.transport.written.count(b"HTTP/1.1 200 OK\r\n") == 5101
    assert wire.transport.events[-1] == "resumed"


def test_a_client_that_stops_reading_in_the_middle_of_its_requests() -> None:
    wire = Wire()
    write = wire.transport.write

    def full(data: bytes) -> None:
        write(data)
        if len(wire.transport.writes) == 3:
            wire.connection.pause_writing()

    wire.transport.write = full  # type: ignore[method-assign]
    wire.sends(get() * 10)
    assert len(wire.answers) == 3
    wire.connection.resume_writing()
    assert len(wire.answers) == 10


def test_the_largest_body() -> None:
    wire = Wire()
    wire.sends(post(b"x" * 1_000_000))
    wire.sends(*[post(b"y" * 1_000_000)[start : start + 100_000] for start in range(0, 1_000_200, 100_000)])
    wire.sends(chunked(b"z" * 1_000_000))
    assert [len(handler.body or b"") for handler in wire.application.handlers] == [1_000_000] * 3
    assert wire.server.buffered == 0


@pytest.mark.parametrize(
    "request_",
    [
        post(b"x" * 1_000_001),
        post(b"x" * 1_000_001)[:200],
        chunked(b"x" * 1_000_001),
        chunked(b"x" * 600_000, b"y" * 600_000),
    ],
)
def test_T7_a_larger_body_is_refused_readably(request_: bytes) -> None:
    """The answer waits while the client goes on sending: a reset would destroy it (RFC 9112, section 9.6)."""
    wire = Wire()
    wire.sends(request_)
    assert [status for status, _ in wire.answers] == [413]
    assert orjson.loads(wire.answers[0][1])["error"]["code"] == "request_too_large"
    assert wire.transport.events == ["eof"]
    wire.sends(*[b"x" * 65_536] * 100)
    assert not wire.transport.is_closing()
    wire.sends(*[b"x" * 65_536] * 1000)
    assert wire.transport.events == ["eof", "aborted"]


def test_all_bodies_together_are_bounded() -> None:
    wire = Wire(DownstreamLimits(buffered_bytes=1000))
    other = wire.server()
    other.connection_made(wire.transport)
    other.data_received(post(b"x" * 5000)[:2000])
    assert wire.server.buffered > 1000
    wire.sends(post(b"x" * 5000)[:2000])
    assert [status for status, _ in wire.answers] == [503]
    other.connection_lost(None)
    assert wire.server.buffered == 0


def test_memory_of_a_body_is_given_back_whatever_happens() -> None:
    for end in ("gone", "failed", "answered", "aborted", "late"):
        wire = Wire()
        wire.sends(post(b"x" * 5000, target=b"/hold")[:2000])
        assert wire.server.buffered > 1000
        if end == "gone":
            wire.connection.eof_received()
        elif end == "failed":
            wire.handler.on_body_failed(Draining())
        elif end == "answered":
            wire.handler.client.reply(200, b"", b"early")
        elif end == "aborted":
            wire.connection.abort()
        else:
            wire.advance(31)
        wire.connection.connection_lost(None)
        assert wire.server.buffered == 0, end
        assert not wire.server.connections


# Expect: 100-continue (RFC 9110, section 10.1.1)


def test_a_client_that_waits_is_told_to_go_on() -> None:
    wire = Wire()
    request = post(b"abc", b"Expect: 100-continue")
    wire.sends(request[:-3])
    assert wire.transport.writes == [b"HTTP/1.1 100 Continue\r\n\r\n"]
    wire.sends(b"abc")
    assert bodies(wire) == ["abc"]


@pytest.mark.parametrize("request_", [post(b"abc", b"Expect: 100-continue"), post(b"", b"Expect: 100-continue")])
def test_a_client_that_did_not_wait_is_not(request_: bytes) -> None:
    wire = Wire()
    wire.sends(request_)
    assert b"100 Continue" not in wire.transport.written
    assert len(wire.answers) == 1


def test_a_part_of_the_body_is_there_already() -> None:
    wire = Wire()
    request = post(b"abc", b"Expect: 100-continue")
    wire.sends(request[:-1], request[-1:])
    assert b"100 Continue" not in wire.transport.written
    assert bodies(wire) == ["abc"]


def test_a_client_that_waits_may_be_refused() -> None:
    wire = Wire()
    wire.sends(post(b"abc", b"Expect: 100-continue", target=b"/none")[:-3])
    assert [status for status, _ in wire.answers] == [404]
    assert b"connection: close\r\n" in wire.transport.written  # its body may come or not: nobody can know
    wire.sends(b"abc", get())
    assert len(wire.answers) == 1


def test_a_chunked_client_that_waits() -> None:
    wire = Wire()
    wire.sends(get(b"Transfer-Encoding: chunked", b"Expect: 100-continue", method=b"POST"))
    assert wire.transport.writes == [b"HTTP/1.1 100 Continue\r\n\r\n"]
    wire.sends(b"3\r\nabc\r\n0\r\n\r\n")
    assert bodies(wire) == ["abc"]


# Answers


def written_by(wire: Wire) -> bytes:
    return wire.transport.written.partition(b"\r\n\r\n")[2]


def test_a_chunked_answer() -> None:
    wire = Wire()
    wire.sends(get(target=b"/hold"))
    client = wire.handler.client
    client.begin(200, b"x-a: b\r\n", length=None, data=b"one", end=False, raw=False)
    client.send(b"two", end=False, raw=False)
    whole = b"5\r\nthree\r\n"
    client.send(whole, end=False, raw=True)
    assert wire.transport.writes[-1] is whole
    client.write(whole)
    assert wire.transport.writes[-1] is whole
    client.send(b"four", end=True, raw=False)
    assert wire.answers == [(200, b"onetwothreethreefour")]
    wire.sends(get())
    assert len(wire.answers) == 2


@pytest.mark.parametrize("raw", [False, True])
def test_nothing_to_send_is_not_an_empty_chunk(raw: bool) -> None:
    wire = Wire()
    wire.sends(get(target=b"/hold"))
    client = wire.handler.client
    client.begin(200, b"", length=None, data=b"", end=False, raw=raw)
    assert wire.transport.written.endswith(b"\r\n\r\n")
    client.send(b"", end=False, raw=False)
    client.send(b"" if not raw else b"0\r\n\r\n", end=True, raw=raw)
    assert wire.answers == [(200, b"")]


def test_a_sized_answer_in_parts() -> None:
    wire = Wire()
    wire.sends(get(target=b"/hold"))
    client = wire.handler.client
    client.begin(200, b"", length=6, data=b"", end=False, raw=False)
    part = b"abc"
    client.send(part, end=False, raw=False)
    assert wire.transport.writes[-1] is part
    client.send(b"def", end=True, raw=False)
    assert wire.answers == [(200, b"abcdef")]


def test_a_large_answer_is_not_copied() -> None:
    wire = Wire()
    wire.sends(get(target=b"/hold"))
    body = b"x" * 100_000
    wire.handler.client.reply(200, b"", body)
    assert wire.transport.writes[-1] is body


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("length", [0, 5, None])
def test_a_status_without_a_body(status: int, length: int | None) -> None:
    wire = Wire()
    wire.sends(get(target=b"/hold") + get())
    wire.handler.client.begin(status, b"x-a: b\r\n", length=length, data=b"", end=True, raw=False)
    assert [code for code, _ in wire.answers] == [status, 200]
    assert b"\r\nx-a: b\r\n" in wire.transport.writes[0]
    assert b"content-length" not in wire.transport.writes[0]
    assert b"transfer-encoding" not in wire.transport.writes[0]


def test_head_gets_the_head_alone() -> None:
    wire = Wire()
    wire.sends(get(method=b"HEAD") + get(method=b"HEAD", target=b"/hold") + get())
    client = wire.application.handlers[1].client
    client.begin(200, b"", length=None, data=b"abc", end=False, raw=False)
    client.send(b"def", end=False, raw=False)
    client.send(b"", end=True, raw=False)
    assert [status for status, _ in wire.answers] == [200, 200, 200]
    assert [bool(body) for _, body in wire.answers] == [False, False, True]
    assert b"content-length: " in wire.transport.writes[0]


def test_head_of_a_refusal() -> None:
    wire = Wire()
    wire.sends(get(method=b"HEAD", target=b"/none"))
    assert wire.transport.written.startswith(b"HTTP/1.1 404 ")
    assert wire.transport.written.endswith(b"\r\n\r\n")


def test_http_1_0_is_closed_after_its_answer() -> None:
    wire = Wire()
    wire.sends(get(version=b"HTTP/1.0"))
    assert len(wire.answers) == 1
    assert b"connection: close\r\n" in wire.transport.written
    assert wire.transport.events == ["eof"]


def test_http_1_0_is_kept_where_it_asks() -> None:
    wire = Wire()
    for _ in range(3):
        wire.sends(get(b"Connection: keep-alive", version=b"HTTP/1.0"))
    assert len(wire.answers) == 3
    assert wire.transport.written.count(b"connection: keep-alive\r\n") == 3
    assert not wire.closed


@pytest.mark.parametrize("lines", [(), (b"Connection: keep-alive",)])
def test_an_answer_of_unknown_length_to_http_1_0_ends_with_the_connection(lines: tuple[bytes, ...]) -> None:
    wire = Wire()
    wire.sends(get(*lines, target=b"/hold", version=b"HTTP/1.0"))
    client = wire.handler.client
    assert not client.takes_chunks
    client.begin(200, b"", length=None, data=b"one", end=False, raw=False)
    client.send(b"two", end=False, raw=False)
    client.send(b"", end=True, raw=False)
    head, _, body = wire.transport.written.partition(b"\r\n\r\n")
    assert body == b"onetwo"
    assert b"transfer-encoding" not in head
    assert b"connection: close" in head
    assert wire.transport.events == ["eof"]


def test_connection_close_is_heeded() -> None:
    wire = Wire()
    wire.sends(get(b"Connection: close") + get())
    assert len(wire.answers) == 1
    assert wire.transport.events == ["eof"]


def test_an_early_answer_closes() -> None:
    """The rest of the body is still to come, and cannot be told from a request."""
    wire = Wire()
    wire.sends(post(b"abcdef", target=b"/hold")[:-3])
    wire.handler.client.reply(200, b"", b"early")
    assert wire.answers == [(200, b"early")]
    assert b"connection: close\r\n" in wire.transport.written
    wire.sends(b"def", get())
    assert len(wire.answers) == 1


# Clients that are slow, or leave


@pytest.mark.parametrize(
    "held",
    [get(target=b"/hold"), post(target=b"/hold"), post(target=b"/hold")[:-1], chunked(b"a", target=b"/hold")[:-5]],
)
def test_a_fin_is_a_cancel(held: bytes) -> None:
    wire = Wire()
    wire.sends(held)
    assert wire.connection.eof_received() is False  # the transport closes
    assert wire.handler.events[-1] == "gone"
    wire.connection.connection_lost(None)
    assert wire.handler.events.count("gone") == 1


def test_a_reset_is_a_cancel() -> None:
    wire = Wire()
    wire.sends(get(target=b"/hold"))
    wire.connection.connection_lost(ConnectionResetError())
    assert wire.handler.events == ["body", "gone"]
    assert repr(wire.connection) == "<DownstreamConnection 192.0.2.7 closed>"


def test_nobody_is_told_of_a_client_that_leaves_after_its_answer() -> None:
    wire = Wire()
    wire.sends(get())
    wire.connection.eof_received()
    wire.connection.connection_lost(None)
    assert "gone" not in wire.handler.events


def test_the_handler_hears_of_a_slow_client() -> None:
    wire = Wire()
    wire.sends(get(target=b"/hold"))
    wire.handler.client.begin(200, b"", length=None, data=b"x", end=False, raw=False)
    wire.connection.pause_writing()
    assert repr(wire.connection) == "<DownstreamConnection 192.0.2.7 answering, client paused>"
    wire.connection.resume_writing()
    assert wire.handler.events == ["body", "paused", "resumed"]


# Deadlines


def test_a_head_that_does_not_come() -> None:
    wire = Wire()
    wire.advance(9.9)
    assert not wire.closed
    wire.advance(0.2)
    assert wire.transport.events == ["eof"]
    assert wire.transport.writes == []


def test_a_head_that_comes_too_slowly() -> None:
    wire = Wire()
    wire.advance(5)
    wire.sends(get()[:5])
    for _ in range(9):
        wire.advance(1)
        wire.sends(b"x")
    wire.advance(1.1)
    assert [status for status, _ in wire.answers] == [408]
    assert [type(error) for error in wire.application.refused] == [RequestTimeout]
    assert wire.closed


def test_a_second_head_that_comes_too_slowly() -> None:
    """An idle connection is kept for long; one on which a head has begun is not."""
    wire = Wire()
    wire.sends(get())
    wire.advance(60)
    wire.sends(get()[:5])
    wire.advance(10.1)
    assert [status for status, _ in wire.answers] == [200, 408]


def test_a_second_head_of_which_a_part_came_with_the_first() -> None:
    wire = Wire()
    wire.sends(get() + get()[:5])
    wire.advance(10.1)
    assert [status for status, _ in wire.answers] == [200, 408]


def test_an_idle_connection() -> None:
    wire = Wire()
    wire.sends(get())
    wire.advance(74.9)
    assert not wire.closed
    wire.sends(get())
    wire.advance(75.1)
    assert wire.transport.events == ["eof"]
    wire.advance(2.1)
    assert wire.transport.events == ["eof", "aborted"]


def test_a_body_that_stops() -> None:
    wire = Wire()
    request = post(b"x" * 300)
    wire.sends(request[:-300])
    for _ in range(5):
        wire.advance(29)
        wire.sends(b"x")
    wire.advance(30.1)
    assert wire.handler.events == ["body failed: request_timeout"]
    assert [status for status, _ in wire.answers] == [408]
    assert wire.closed


def test_a_request_in_work_has_no_deadline_here() -> None:
    wire = Wire()
    wire.sends(get(target=b"/hold"))
    wire.advance(100_000)
    assert wire.handler.events == ["body"]
    assert not wire.closed


def test_a_client_that_takes_nothing_for_long() -> None:
    wire = Wire()
    wire.sends(get(target=b"/hold"))
    wire.handler.client.begin(200, b"", length=None, data=b"x", end=False, raw=False)
    wire.transport.unsent = 100_000
    wire.connection.pause_writing()
    wire.advance(299)
    assert wire.handler.events == ["body", "paused"]
    wire.advance(2)
    assert wire.handler.events == ["body", "paused", "gone"]
    assert wire.transport.events == ["aborted"]


def test_a_client_that_takes_little_but_goes_on() -> None:
    wire = Wire()
    wire.sends(get(target=b"/hold"))
    wire.handler.client.begin(200, b"", length=None, data=b"x", end=False, raw=False)
    wire.transport.unsent = 100_000
    wire.connection.pause_writing()
    for _ in range(3):
        wire.transport.unsent -= 1
        wire.advance(301)
    assert wire.handler.events == ["body", "paused"]
    wire.advance(301)
    assert wire.handler.events == ["body", "paused", "gone"]


def test_a_last_answer_waits_for_a_slow_client() -> None:
    """Two seconds to close are for a client that has everything."""
    wire = Wire()
    wire.transport.unsent = 50_000
    wire.sends(get(b"Connection: close"))
    assert wire.transport.events == ["eof"]
    wire.advance(290)
    assert wire.transport.events == ["eof"]
    wire.transport.unsent = 0
    wire.advance(11)
    assert wire.transport.events == ["eof"]
    wire.advance(2.1)
    assert wire.transport.events == ["eof", "aborted"]


def test_a_last_answer_does_not_wait_for_ever() -> None:
    wire = Wire()
    wire.transport.unsent = 50_000
    wire.sends(get(b"Connection: close"))
    wire.advance(301)
    assert wire.transport.events == ["eof", "aborted"]


def test_an_aborted_answer_does_not_wait_for_ever() -> None:
    wire = Wire()
    wire.sends(get(target=b"/hold"))
    wire.transport.unsent = 50_000
    wire.handler.client.abort()
    assert wire.transport.events == ["closed"]
    wire.advance(301)
    assert wire.transport.events == ["closed", "aborted"]


def test_a_kept_connection_whose_client_takes_nothing() -> None:
    wire = Wire()
    wire.sends(get())
    wire.transport.unsent = 100_000
    wire.connection.pause_writing()
    wire.advance(299)
    assert not wire.closed
    wire.advance(2)
    assert wire.transport.events == ["aborted"]


def test_the_sweep_looks_at_all_in_turn() -> None:
    wire = Wire()
    for _ in range(2500):
        wire.server().connection_made(wire.transport)
    wire.clock.now += 11
    for _ in range(3):
        wire.server.sweep()
    assert wire.transport.events == ["eof"] * 2501


# Draining


def test_draining_closes_what_is_idle() -> None:
    wire = Wire()
    wire.sends(get())
    wire.server.drain()
    assert wire.transport.events == ["eof"]


def test_draining_lets_an_answer_finish() -> None:
    wire = Wire()
    wire.sends(get(target=b"/hold") + get())
    wire.server.drain()
    assert wire.transport.events == []
    wire.handler.client.reply(200, b"", b"last")
    assert wire.answers == [(200, b"last")]
    assert b"connection: close\r\n" in wire.transport.written
    assert wire.transport.events == ["eof"]


def test_draining_serves_the_request_that_is_arriving() -> None:
    wire = Wire()
    wire.sends(get()[:10])
    wire.server.drain()
    wire.sends(get()[10:])
    assert len(wire.answers) == 1
    assert wire.closed


def test_new_limits_hold_from_the_next_request_on() -> None:
    wire = Wire()
    wire.server.limits = DownstreamLimits(HeadLimits(fields=2), body_bytes=10)
    wire.sends(get(b"X-A: 1", b"X-B: 2"))
    assert [status for status, _ in wire.answers] == [431]


def test_the_server_says_what_it_holds() -> None:
    wire = Wire()
    wire.sends(post(b"x" * 100)[:-50])
    assert repr(wire.server) == "<Server 1 connections, 50 bytes of bodies held>"


def test_the_bound_is_what_it_says() -> None:
    wire = Wire()
    wire.sends(get(target=b"/hold"))
    wire.sends(b"x" * MAX_PIPELINED)
    assert wire.transport.events == []
    wire.sends(b"x")
    assert wire.transport.events == ["paused"]


def test_what_a_client_reads_of_a_broken_answer() -> None:
    wire = Wire()
    wire.sends(get(target=b"/hold"))
    wire.handler.client.begin(200, b"", length=None, data=b"one", end=False, raw=False)
    wire.handler.client.abort()
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(wire.transport.written)
    client.receive_data(b"")
    client.next_event()
    client.next_event()
    with pytest.raises(h11.RemoteProtocolError):
        client.next_event()
