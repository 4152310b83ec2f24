"""Every bound on a request: its default as documented, its setting in force, exact to the byte."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from typing import Any

import pytest

from gateway.config.load import load_text
from gateway.config.schema import Gateway
from gateway.downstream.http import Server
from gateway.json_depth import views
from gateway.worker import limits_of
from tests.playbook import KEY, Play, Transport, configuration
from tests.wire.framing.stand import ANSWER

Playbook = Callable[..., Play]
KB = 1024


def test_the_defaults() -> None:
    """The numbers that the documentation promises."""
    settings = Gateway()
    limits, timeouts = settings.limits, settings.timeouts
    assert (limits.request_head_bytes, limits.request_headers, limits.request_target_bytes) == (32 * KB, 100, 8 * KB)
    assert (settings.max_body_bytes, limits.chunk_overhead_bytes, limits.json_depth) == (32 * KB * KB, 8 * KB, 256)
    assert (limits.head_seconds, limits.body_idle_seconds, limits.keepalive_seconds) == (10.0, 30.0, 75.0)
    assert (timeouts.connect_seconds, timeouts.first_byte_seconds, timeouts.idle_seconds) == (5.0, 120.0, 300.0)
    assert (settings.drain_seconds, settings.websocket.max_message_size_bytes) == (30.0, 1_048_576)


def test_every_limit_reaches_the_server() -> None:
    odd: dict[str, Any] = {
        name: 1.25 if isinstance(default, float) else default - 1
        for name, default in ((one, getattr(Gateway().limits, one)) for one in Gateway().limits.__struct_fields__)
    }
    text = configuration(gateway=f"gateway: {{max_body_bytes: 2048, limits: {odd}}}")
    told = limits_of(load_text(text, "f").configuration.gateway)
    seen = {
        "request_head_bytes": told.head.head_bytes,
        "request_headers": told.head.fields,
        "request_target_bytes": told.head.target_bytes,
        "chunk_overhead_bytes": told.chunk_overhead_bytes,
        "head_seconds": told.head_seconds,
        "body_idle_seconds": told.body_idle_seconds,
        "keepalive_seconds": told.keepalive_seconds,
        "write_idle_seconds": told.write_idle_seconds,
        "buffered_bytes": told.buffered_bytes,
        "json_depth": odd["json_depth"],  # of the exchange, below
    }
    assert seen == odd
    assert told.body_bytes == 2048


class Wire:
    """A client of a worker with these settings."""

    def __init__(self, playbook: Playbook, settings: str) -> None:
        text = configuration(gateway=f"gateway: {{{settings}}}")
        self.play = playbook(text)
        gateway = load_text(text, "f").configuration.gateway
        self.play.services.views = views(gateway.limits.json_depth)
        self.server = Server(self.play.application, limits_of(gateway), self.play.clock, self.play.wall)
        self.connect()

    def connect(self) -> None:
        self.transport = Transport()
        self.connection = self.server()
        self.connection.connection_made(self.transport)

    def says(self, *reads: bytes) -> str:
        """What a new client that says these is told: a status and a code, or nothing yet."""
        self.connect()
        for read in reads:
            if not self.transport.is_closing() and "eof" not in self.transport.events:
                self.connection.data_received(read)
        while self.play.threads:
            self.play.work()
        for provider in set(self.play.pool.providers):
            if "waiting" in repr(provider.connection):
                provider.says(ANSWER)
        return self.told

    @property
    def told(self) -> str:
        status = self.transport.written[9:12].decode()
        code = self.transport.written.partition(b'"code":"')[2].partition(b'"')[0].decode()
        return f"{status} {code}".strip()

    def passes(self, seconds: float) -> str:
        self.play.clock.now += seconds
        self.server.sweep()
        return self.told


def post(body: bytes, *lines: bytes, target: bytes = b"/v1/chat/completions", framing: bytes | None = None) -> bytes:
    framing = b"Content-Length: %d" % len(body) if framing is None else framing
    given = [b"POST %b HTTP/1.1" % target, b"Host: x", b"Authorization: Bearer " + KEY, framing, *lines, b"", b""]
    return b"\r\n".join(given) + body


CHAT = b'{"model":"gpt-test","messages":[]}'


@pytest.mark.parametrize(("settings", "size"), [("", 32 * KB), ("limits: {request_head_bytes: 2048}", 2048)])
def test_the_head(settings: str, size: int, playbook: Playbook) -> None:
    wire = Wire(playbook, settings)
    room = size - len(post(CHAT, b"X: ")) + len(CHAT)
    assert wire.says(post(CHAT, b"X: " + b"y" * room)) == "200"
    assert wire.says(post(CHAT, b"X: " + b"y" * (room + 1))) == "431 request_head_too_large"


@pytest.mark.parametrize(("settings", "count"), [("", 100), ("limits: {request_headers: 10}", 10)])
def test_the_number_of_fields(settings: str, count: int, playbook: Playbook) -> None:
    wire = Wire(playbook, settings)
    assert wire.says(post(CHAT, *[b"X-%d: y" % number for number in range(count - 3)])) == "200"
    told = wire.says(post(CHAT, *[b"X-%d: y" % number for number in range(count - 2)]))
    assert told == "431 request_head_too_large"


@pytest.mark.parametrize(("settings", "size"), [("", 8 * KB), ("limits: {request_target_bytes: 256}", 256)])
def test_the_target(settings: str, size: int, playbook: Playbook) -> None:
    wire = Wire(playbook, settings)
    target = b"/v1/chat/completions?".ljust(size, b"x")
    assert wire.says(post(CHAT, target=target)) == "200"
    assert wire.says(post(CHAT, target=target + b"x")) == "414 request_target_too_long"


@pytest.mark.parametrize(("settings", "size"), [("", 32 * KB * KB), ("max_body_bytes: 1024", 1024)])
def test_the_body(settings: str, size: int, playbook: Playbook) -> None:
    wire = Wire(playbook, settings)
    assert wire.says(post(b"", framing=b"Content-Length: %d" % size)) == ""
    assert wire.says(post(b"", framing=b"Content-Length: %d" % (size + 1))) == "413 request_too_large"
    chunked = post(b"", framing=b"Transfer-Encoding: chunked")
    assert wire.says(chunked, b"%x\r\n" % size + b" " * size) == ""
    assert wire.says(chunked, b"%x\r\n" % (size + 1) + b" " * (size + 1)) == "413 request_too_large"


def test_the_body_when_decompressed(playbook: Playbook) -> None:
    wire = Wire(playbook, "max_body_bytes: 1024")
    for size, told in ((1024, "200"), (1025, "413 request_too_large")):
        body = gzip.compress(CHAT.ljust(size))
        assert wire.says(post(body, b"Content-Encoding: gzip")) == told


@pytest.mark.parametrize(("settings", "size"), [("", 8 * KB), ("limits: {chunk_overhead_bytes: 256}", 256)])
def test_extensions_and_trailers_together(settings: str, size: int, playbook: Playbook) -> None:
    wire = Wire(playbook, settings)
    chunked = post(b"", framing=b"Transfer-Encoding: chunked")
    extension, trailer = b";" + b"x" * (size // 2 - 1), b"X: " + b"y" * (size // 2 - 5) + b"\r\n"
    for more, told in ((b"", "200"), (b"z", "400 malformed_http")):
        body = b"%x%b%b\r\n%b\r\n0\r\n%b\r\n" % (len(CHAT), extension, more, CHAT, trailer)
        assert wire.says(chunked + body) == told


@pytest.mark.parametrize(("settings", "levels"), [("", 256), ("limits: {json_depth: 8}", 8)])
def test_the_depth_of_json(settings: str, levels: int, playbook: Playbook) -> None:
    wire = Wire(playbook, settings)
    for more, told in ((0, "200"), (1, "400 invalid_json")):
        inner = levels - 1 + more
        body = b'{"model":"gpt-test","messages":[],"metadata":%b%b}' % (b"[" * inner, b"]" * inner)
        assert wire.says(post(body)) == told


@pytest.mark.parametrize(("settings", "seconds"), [("", 10.0), ("limits: {head_seconds: 2}", 2.0)])
def test_how_long_a_head_may_take(settings: str, seconds: float, playbook: Playbook) -> None:
    wire = Wire(playbook, settings)
    whole = post(CHAT)
    wire.says(whole[:20])
    for at in range(9):  # a byte now and then does not help
        assert wire.passes(seconds / 10) == ""
        wire.connection.data_received(whole[20 + at : 21 + at])
    assert wire.passes(seconds / 10 + 0.1) == "408 request_timeout"


@pytest.mark.parametrize(("settings", "seconds"), [("", 30.0), ("limits: {body_idle_seconds: 2}", 2.0)])
def test_how_long_a_body_may_stand_still(settings: str, seconds: float, playbook: Playbook) -> None:
    wire = Wire(playbook, settings)
    wire.says(post(CHAT)[:-5])
    assert wire.passes(seconds - 0.1) == ""
    wire.connection.data_received(CHAT[-5:-4])
    assert wire.passes(seconds - 0.1) == ""
    assert wire.passes(0.2) == "408 request_timeout"


@pytest.mark.parametrize(("settings", "seconds"), [("", 75.0), ("limits: {keepalive_seconds: 2}", 2.0)])
def test_how_long_an_idle_connection_is_kept(settings: str, seconds: float, playbook: Playbook) -> None:
    wire = Wire(playbook, settings)
    assert wire.says(post(CHAT)) == "200"
    wire.passes(seconds - 0.1)
    assert wire.transport.events == []
    wire.passes(0.2)
    assert wire.transport.events == ["eof"]


def test_how_much_all_clients_may_hold(playbook: Playbook) -> None:
    wire = Wire(playbook, "limits: {buffered_bytes: 1048576}")
    unfinished = post(b"", framing=b"Content-Length: 3000000")
    wire.says(unfinished, b"x" * 1_048_577)
    assert wire.says(unfinished) == "503 overloaded"
