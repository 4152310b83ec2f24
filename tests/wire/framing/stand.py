"""A whole gateway without sockets: the real server, application, exchange and connection to the provider.

What a client sends goes in as reads; what the provider was given and what the client was answered come out as bytes.
One worker serves all cases of a run, as it would, and each case gets connections of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from gateway.downstream.http import DownstreamConnection, DownstreamLimits, Server
from tests.playbook import KEY, Play, Pool, Provider, Transport, configuration

SECRET = b"sk-provider"
LIMITS = DownstreamLimits(body_bytes=100_000)
_ASK = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer %b\r\nContent-Length: %d\r\n\r\n%b"
)
_BODY = b'{"model":"gpt-test","messages":[]%b}'
_WISH = b',"stream":true,"stream_options":{"include_usage":true}'
CHAT = _ASK % (KEY, len(_BODY % b""), _BODY % b"")
STREAM = _ASK % (KEY, len(_BODY % _WISH), _BODY % _WISH)
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


class Heard(NamedTuple):
    """What came of a case."""

    answers: bytes
    """All that the client was sent."""
    asked: list[bytes]
    """All that the provider was sent, one item for each write of a request, in order."""
    closed: bool
    """The gateway takes no further request on the client's connection."""


class Relayed(NamedTuple):
    """What came of a provider's answer."""

    written: bytes
    """All that the client was sent."""
    broken: bool
    """The client's connection was closed, so that it sees that an answer is not whole."""
    taken: bytes
    """What of the provider's bytes the gateway has read."""
    reusable: bool
    """The provider's connection may serve another request."""


class Stand:
    """One worker. `answer` is what the provider says to every request."""

    def __init__(self, folder: Path, text: str = "") -> None:
        self.play = Play(folder, text or configuration())
        self.server = Server(self.play.application, LIMITS, self.play.clock, self.play.wall)
        self.answer = ANSWER
        self._answered: dict[Provider, int] = {}

    def close(self) -> None:
        """Nobody may have gone unrecorded, and nothing may have gone wrong."""
        for fault in self.play.faults:
            raise fault
        assert not self.play.services.active
        assert self.server.buffered == 0
        assert not self.server.connections
        self.play.close()

    def connect(self) -> tuple[DownstreamConnection, Transport]:
        """A client's connection."""
        connection, transport = self.server(), Transport()
        connection.connection_made(transport)
        return connection, transport

    def hears(self, reads: list[bytes]) -> Heard:
        """A client sends these and waits for what it is told; the provider answers whatever it is asked."""
        pool = self.play.pool
        pool.providers.clear()
        pool.free.clear()
        self._answered.clear()
        asked: list[bytes] = []
        connection, transport = self.connect()
        for read in reads:
            if transport.is_closing() or "eof" in transport.events:
                break
            connection.data_received(read)
            self._answer_all(pool, asked)
        closed = transport.is_closing() or "eof" in transport.events
        connection.connection_lost(None)
        self._forget()
        return Heard(transport.written, asked, closed)

    def is_answered(self, reads: list[bytes], end: str, *, streams: bool) -> Relayed:
        """A client asks, and the provider says these; then its connection stays open for longer than anybody waits, is
        closed or is reset."""
        play = self.play
        play.pool.providers.clear()
        play.pool.free.clear()
        connection, transport = self.connect()
        connection.data_received(STREAM if streams else CHAT)
        provider = play.provider()
        taken = b""
        for read in reads:
            if provider.connection.closed or provider.connection in [one.connection for one in play.pool.free]:
                break
            provider.says(read)
            taken += read
        reusable = provider in play.pool.free
        if not provider.connection.closed:
            if end == "closed":
                provider.closes()
            elif end == "reset":
                provider.resets()
        for _ in range(3):
            play.advance(400.0)  # first byte, then silence: whoever waits has been given up
        over = transport.is_closing()
        connection.connection_lost(None)
        for lingering in play.pool.lingering:
            lingering.abort()
        play.pool.lingering.clear()
        self._forget()
        return Relayed(transport.written, over, taken, reusable)

    def _answer_all(self, pool: Pool, asked: list[bytes]) -> None:
        """Each request that has come is answered; what the client had piled up behind it is served then."""
        while True:
            while self.play.threads:
                self.play.work()
            waiting = [one for one in set(pool.providers) if len(one.transport.writes) > self._answered.get(one, 0)]
            if not waiting:
                return
            for provider in waiting:
                new = provider.transport.writes[self._answered.get(provider, 0) :]
                assert len(new) == 1, "one request is one write, and no other goes out before its answer"
                asked += new
                self._answered[provider] = len(provider.transport.writes)
                provider.says(self.answer)

    def _forget(self) -> None:
        """What the playbook keeps for its own checks would grow with every case."""
        play = self.play
        for fault in play.faults:
            raise fault
        for kept in (play.audit, play.counted, play.opened):
            kept.clear()
