"""The provider's handshake, over real sockets: what it is asked, what it may answer, and what becomes of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from wsproto.utilities import generate_accept_token

from gateway.errors import (
    GatewayError,
    UpstreamAuthFailed,
    UpstreamInvalid,
    UpstreamReset,
    UpstreamStatus,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from gateway.frames import CLOSE, TEXT, Reader, close_payload, frame
from gateway.socket_ports import Message, Socket, SocketRequest
from gateway.types import Destination
from gateway.upstream.egress import Egress
from gateway.upstream.websocket import MAX_REFUSAL, UpstreamSockets
from gateway.websocket import SocketLimits, Sockets
from tests.gateway.upstream.support import Clock, pools_of, to
from tests.provider import (
    CLOSE as HANG_UP,
)
from tests.provider import (
    EOF,
    RESET,
    STALL,
    Answer,
    Authority,
    Gate,
    Request,
    ScriptedProvider,
    Step,
    deaf_port,
    head,
    refusing_port,
    respond,
    trickle,
)

FIELDS = b"host: provider.test\r\nauthorization: Bearer sk-provider\r\nopenai-beta: realtime=v1\r\n"


class Opener:
    """Waits for a socket, listens to it, writes down what it hears."""

    def __init__(self) -> None:
        self.socket: Socket | None = None
        self.error: GatewayError | None = None
        self.messages: list[str] = []
        self.done = Gate()
        self.heard = Gate()
        self.closed: tuple[int, str] | None = None
        self.over = Gate()

    def on_socket_open(self, socket: Socket) -> Opener:
        self.socket = socket
        self.done.open()
        return self

    def on_socket_failed(self, error: GatewayError) -> None:
        assert self.socket is None
        self.error = error
        self.done.open()

    def on_message(self, message: Message) -> None:
        self.messages.append(message.text)
        self.heard.open()

    def on_closed(self, code: int, reason: str) -> None:
        self.closed = code, reason
        self.over.open()

    def on_paused(self) -> None: ...

    def on_resumed(self) -> None: ...


def switch(request: Request, *more: str) -> bytes:
    """The answer that opens the socket."""
    token = generate_accept_token(request.headers["sec-websocket-key"].encode()).decode()
    lines = ["upgrade: websocket", "connection: Upgrade", f"sec-websocket-accept: {token}", *more]
    return "\r\n".join(["HTTP/1.1 101 Switching Protocols", *lines, "", ""]).encode()


def asking(destination: Destination, **more: object) -> SocketRequest:
    return SocketRequest(destination, b"/v1/realtime?model=gpt", FIELDS, **more)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def opening(
    destination: Destination, *, clock: Clock | None = None, egress: Egress | None = None, **more: object
) -> AsyncIterator[tuple[Opener, UpstreamSockets]]:
    """A socket to the destination is being opened."""
    clock = clock or Clock()
    async with pools_of(clock, **({} if egress is None else {"egress": egress})) as pools:
        sockets = Sockets(SocketLimits(), clock, lambda where, fault: None)
        upstream = UpstreamSockets(asyncio.get_running_loop(), sockets, pools.dialler, clock)
        opener = Opener()
        upstream.open(asking(destination, **more), opener)
        yield opener, upstream
        upstream.close()
        sockets.abort()
        await asyncio.sleep(0)


async def failure(*answers: Answer, **more: object) -> GatewayError:
    """The error that comes of such an answer."""
    async with ScriptedProvider(*answers) as provider, opening(to(provider), **more) as (opener, upstream):  # type: ignore[arg-type]
        await opener.done
        assert opener.error is not None
        assert not upstream.openings
        await provider.connections[0].closed
        return opener.error


async def test_opens_a_socket() -> None:
    """Whole and byte by byte; what came behind the answer is heard; both ends close with a code."""

    def answer(request: Request) -> list[Step]:
        return trickle(switch(request, "sec-websocket-protocol: realtime") + frame(TEXT, b"early", masked=False))

    async with ScriptedProvider(answer) as provider, opening(to(provider), subprotocols=("realtime",)) as (opener, _):
        await opener.done
        socket = opener.socket
        assert socket is not None
        assert socket.subprotocol == "realtime"
        assert not socket.compressed
        await opener.heard
        assert opener.messages == ["early"]
        request = provider.requests[0]
        assert (request.method, request.target) == ("GET", "/v1/realtime?model=gpt")
        assert request.headers["host"] == "provider.test"
        assert request.headers["authorization"] == "Bearer sk-provider"
        assert request.headers["openai-beta"] == "realtime=v1"
        assert request.headers["sec-websocket-protocol"] == "realtime"
        assert "sec-websocket-extensions" not in request.headers
        assert [name.lower() for name, _ in request.fields].count("host") == 1
        socket.close(4001, "done")
        await opener.over
        assert opener.closed == (4001, "done")


async def test_what_came_in_the_same_read_as_the_answer_is_heard() -> None:
    def answer(request: Request) -> list[Step]:
        close = frame(CLOSE, close_payload(1000, "bye"), masked=False)
        return [switch(request) + frame(TEXT, b"early", masked=False) + close]

    async with ScriptedProvider(answer) as provider, opening(to(provider)) as (opener, _):
        await opener.over
        assert opener.messages == ["early"]
        assert opener.closed == (1000, "bye")


async def test_frames_to_a_provider_are_masked() -> None:
    sent_all = Gate()

    def answer(request: Request) -> list[Step]:
        return [switch(request), sent_all, EOF]

    async with ScriptedProvider(answer) as provider, opening(to(provider)) as (opener, _):
        await opener.done
        assert opener.socket is not None
        opener.socket.send_text("hello")
        opener.socket.close()
        sent_all.open()
        await provider.connections[0].closed
        sent = provider.connections[0].received.partition(b"\r\n\r\n")[2]
        reader = Reader(masked=True, max_size=100)
        reader.feed(sent)
        assert reader.next().data == b"hello"  # type: ignore[union-attr]


async def test_compression_is_offered_where_it_is_wanted() -> None:
    extension = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"

    def answer(request: Request) -> list[Step]:
        assert request.headers["sec-websocket-extensions"] == extension
        return [switch(request, f"sec-websocket-extensions: {extension}")]

    async with ScriptedProvider(answer) as provider, opening(to(provider), compress=True) as (opener, _):
        await opener.done
        assert opener.socket is not None
        assert opener.socket.compressed


async def test_interim_answers_are_skipped() -> None:
    def answer(request: Request) -> list[Step]:
        return [b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + switch(request)]

    async with ScriptedProvider(answer) as provider, opening(to(provider)) as (opener, _):
        await opener.done
        assert opener.error is None


@pytest.mark.parametrize("piecemeal", [False, True])
async def test_a_refusal_is_the_providers_error(piecemeal: bool) -> None:
    body = b'{"error": {"message": "No such model.", "type": "invalid_request_error", "code": "model_not_found"}}'
    data = respond(body, 404, ("x-request-id", "1"))
    error = await failure(trickle(data) if piecemeal else data)
    assert isinstance(error, UpstreamStatus)
    assert (error.status, error.code, error.message) == (404, "model_not_found", "No such model.")


async def test_when_to_come_back_is_kept() -> None:
    error = await failure(respond(b"{}", 429, ("retry-after", "7")))
    assert isinstance(error, UpstreamStatus)
    assert (b"retry-after", b"7") in error.headers
    assert error.retryable


@pytest.mark.parametrize("passthrough", [False, True])
async def test_a_refused_credential(passthrough: bool) -> None:
    """The gateway's own is the operator's to mend; the client's own is the client's."""
    error = await failure(respond(b'{"error": {"message": "bad key"}}', 401), passthrough=passthrough)
    assert isinstance(error, UpstreamStatus if passthrough else UpstreamAuthFailed)
    assert error.status == (401 if passthrough else 502)


@pytest.mark.parametrize(
    "steps",
    [
        [head(500), b"out of order", HANG_UP],
        [head(500, length=100), b"out of order", HANG_UP],
        [head(500, chunked=True), b"c\r\nout of order\r\n", HANG_UP],
        [head(500) + b"out of order" + bytes(MAX_REFUSAL), STALL],
    ],
)
async def test_a_refusal_ends_somehow(steps: list[Step]) -> None:
    error = await failure(steps)
    assert isinstance(error, UpstreamStatus)
    assert error.status == 500
    assert error.message.startswith("out of order")


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
        b"sec-websocket-accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n",
        lambda request: switch(request).replace(b"upgrade: websocket\r\n", b""),
        lambda request: switch(request).replace(b"connection: Upgrade\r\n", b""),
        lambda request: switch(request, "sec-websocket-protocol: unasked"),
        lambda request: switch(request, "sec-websocket-extensions: permessage-deflate"),
        lambda request: switch(request, "sec-websocket-extensions: x-unknown"),
        b"HTTP/1.1 101 " + b"x" * 70_000,
        9 * b"HTTP/1.1 103 Early Hints\r\n\r\n",
    ],
)
async def test_what_is_no_answer(answer: Answer) -> None:
    error = await failure(answer)
    assert isinstance(error, UpstreamInvalid), error
    assert error.message.startswith("The provider's WebSocket handshake is wrong")


@pytest.mark.parametrize("step", [HANG_UP, RESET])
async def test_a_provider_that_goes_away(step: Step) -> None:
    assert isinstance(await failure([step]), UpstreamReset)
    assert isinstance(await failure([b"HTTP/1.1 101 Switch", step]), UpstreamReset)


async def test_a_provider_that_cannot_be_reached() -> None:
    async with opening(to(refusing_port())) as (opener, _):
        await opener.done
        assert isinstance(opener.error, UpstreamUnreachable)


async def test_deadlines() -> None:
    clock = Clock()
    with deaf_port() as port:
        async with opening(to(port), clock=clock) as (opener, upstream):
            upstream.sweep(clock.now + 4.9)
            assert not opener.done.is_open
            upstream.sweep(clock.now + 5.1)
            assert isinstance(opener.error, UpstreamTimeout)
            assert "to connect" in opener.error.message
    async with ScriptedProvider([STALL]) as provider, opening(to(provider), clock=clock) as (opener, upstream):
        await provider.requests.at(0)
        upstream.sweep(clock.now + 119)
        assert not opener.done.is_open
        upstream.sweep(clock.now + 121)
        assert isinstance(opener.error, UpstreamTimeout)
        assert "handshake" in opener.error.message
        await provider.connections[0].closed


async def test_a_fault_of_whoever_waits_drops_the_socket() -> None:
    faults: list[Exception] = []

    def answer(request: Request) -> list[Step]:
        return [switch(request)]

    class Failing(Opener):
        def on_socket_open(self, socket: Socket) -> Opener:
            raise RuntimeError("a bug")

    async with ScriptedProvider(answer) as provider, opening(to(provider)) as (_, upstream):
        upstream.sockets.report = lambda where, fault: faults.append(fault)
        upstream.open(asking(to(provider)), Failing())
        await (await provider.connections.at(1)).closed
        assert [str(fault) for fault in faults] == ["a bug"]


async def test_nobody_wants_it_any_more() -> None:
    async with ScriptedProvider([STALL]) as provider, opening(to(provider)) as (opener, upstream):
        await provider.requests.at(0)
        (waiting,) = upstream.openings
        assert repr(waiting) == "<SocketOpening test waiting for the answer>"
        waiting.cancel()
        waiting.cancel()
        await provider.connections[0].closed
        assert not opener.done.is_open
        assert repr(upstream) == "<UpstreamSockets 0 opening>"
    with deaf_port() as port:
        async with opening(to(port)) as (opener, upstream):
            upstream.close()
            await asyncio.sleep(0)
            assert not opener.done.is_open


async def test_over_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)

    def answer(request: Request) -> list[Step]:
        return [switch(request), frame(TEXT, b"hello", masked=False)]

    async with ScriptedProvider(answer, tls=authority.server_context("localhost")) as provider:
        destination = to(provider, host="localhost", tls=True, ca_file=authority.ca_file)
        async with opening(destination) as (opener, _):
            await opener.heard
            assert opener.messages == ["hello"]
        async with opening(to(provider, host="localhost", tls=True)) as (opener, _):
            await opener.done
            assert isinstance(opener.error, UpstreamUnreachable)
            assert "ca_file" in opener.error.message


async def test_through_a_proxy_it_is_a_tunnel_tls_or_not() -> None:
    def tunnel(request: Request) -> list[Step]:
        return [b"HTTP/1.1 200 Connection established\r\n\r\n"] if request.method == "CONNECT" else [switch(request)]

    async with ScriptedProvider(tunnel) as proxy:
        egress = Egress.from_environment({"HTTP_PROXY": proxy.url})
        async with opening(to(80, host="192.0.2.1"), egress=egress) as (opener, _):
            await opener.done
            assert opener.error is None
            assert [(one.method, one.target) for one in proxy.requests] == [
                ("CONNECT", "192.0.2.1:80"),
                ("GET", "/v1/realtime?model=gpt"),
            ]
