"""How connections come about, with real sockets: TLS, proxies, several addresses."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import socket
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import UpstreamUnreachable
from gateway.upstream.dial import Dialler
from gateway.upstream.dns import Resolver
from gateway.upstream.egress import DIRECT, Egress
from gateway.upstream.tls import Contexts
from tests.gateway.upstream.support import GET, Clock, Recorder, ask, exchange, pools_of, to
from tests.provider import (
    CLOSE,
    DROP,
    Authority,
    Gate,
    ScriptedProvider,
    Step,
    deaf_port,
    refusing_port,
    respond,
    stream,
)

OK = respond(b"ok")
NAME = "provider.test"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def names(*addresses: str) -> Resolver:
    """A resolver for which every name has these addresses."""

    async def look_up(host: str) -> Sequence[str]:
        return addresses

    return Resolver(Clock(), look_up)


async def failure(destination: Any, **options: Any) -> str:
    """The message with which a connect fails."""
    async with pools_of(**options) as pools:
        recorder = await exchange(pools, destination)
        assert isinstance(recorder.error, UpstreamUnreachable), recorder.events
        return recorder.error.message


# TLS


async def test_tls_with_certificate_check_server_name_and_alpn(authority: Authority) -> None:
    context = authority.server_context(NAME)
    seen: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: seen.append(name)
    async with ScriptedProvider(OK, tls=context) as provider, pools_of(resolver=names("127.0.0.1")) as pools:
        destination = to(provider, host=NAME, tls=True, ca_file=authority.ca_file)
        for _ in range(2):
            recorder = await exchange(pools, destination)
            assert recorder.body == b"ok"
        secured = recorder.connection._transport.get_extra_info("ssl_object")  # type: ignore[union-attr]
        assert secured.selected_alpn_protocol() == "http/1.1"
        assert secured.version() in ("TLSv1.2", "TLSv1.3")
        assert (seen, len(provider.connections)) == ([NAME], 1)


async def test_a_stream_over_tls_and_an_end_by_closing_alert(authority: Authority) -> None:
    answers: list[list[Step]] = [
        stream(b"data: 1\n\n", b"data: [DONE]\n\n"),
        [b"HTTP/1.1 200 OK\r\n\r\n", b"until", b"close", CLOSE],
    ]
    async with ScriptedProvider(*answers, tls=authority.server_context("127.0.0.1")) as provider, pools_of() as pools:
        destination = to(provider, tls=True, ca_file=authority.ca_file)
        streamed = await exchange(pools, destination)
        assert b"[DONE]" in streamed.body
        assert "1 idle" in repr(pools)
        closed = await exchange(pools, destination)
        assert (closed.body, closed.error) == (b"untilclose", None)
        assert len(provider.connections) == 1


async def test_an_end_without_closing_alert_is_not_a_complete_body(authority: Authority) -> None:
    """RFC 9112, section 9.8: anyone on the way could have cut it."""
    go = Gate()
    answer: list[Step] = [b"HTTP/1.1 200 OK\r\n\r\n", b"until", go, DROP]
    async with ScriptedProvider(answer, tls=authority.server_context("127.0.0.1")) as provider, pools_of() as pools:
        recorder = Recorder()
        ask(pools, to(provider, tls=True, ca_file=authority.ca_file), recorder)
        await recorder.read(5)
        go.open()
        await recorder.over
        assert recorder.events[-1] == ("failed", "UpstreamReset")


async def test_large_bodies_over_tls(authority: Authority) -> None:
    body = bytes(range(256)) * 4096
    post = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % len(body)
    echo = ScriptedProvider(lambda request: respond(request.body), tls=authority.server_context("127.0.0.1"))
    async with echo as provider, pools_of() as pools:
        recorder = await exchange(pools, to(provider, tls=True, ca_file=authority.ca_file), post, body)
        assert recorder.body == body
        assert "1 idle" in repr(pools)


async def test_leaving_a_stream_over_tls_closes_the_socket(authority: Authority) -> None:
    answer = [*stream(b"data: 1\n\n")[:-1], Gate()]
    async with ScriptedProvider(answer, tls=authority.server_context("127.0.0.1")) as provider, pools_of() as pools:
        recorder = Recorder()
        ask(pools, to(provider, tls=True, ca_file=authority.ca_file), recorder)
        await recorder.begun
        assert recorder.connection is not None
        recorder.connection.abort()
        await provider.connections[0].closed


PAST = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
FUTURE = datetime.datetime(2100, 1, 1, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("certificate", "host", "words"),
    [
        ({"hosts": ["other.test"]}, NAME, "the certificate is not for provider.test. Check the host"),
        ({"hosts": ["other.test"]}, "127.0.0.1", "the certificate is not for 127.0.0.1"),
        ({"hosts": [NAME], "not_after": PAST}, NAME, "has expired. Check this machine's clock"),
        ({"hosts": [NAME], "not_before": FUTURE}, NAME, "is not valid yet. Check this machine's clock"),
    ],
    ids=["wrong name", "wrong address", "expired", "not yet valid"],
)
async def test_a_certificate_that_is_refused_says_why(
    authority: Authority, certificate: dict[str, Any], host: str, words: str
) -> None:
    context = authority.server_context(*certificate.pop("hosts"), **certificate)
    async with ScriptedProvider(OK, tls=context) as provider:
        destination = to(provider, host=host, tls=True, ca_file=authority.ca_file)
        assert words in await failure(destination, resolver=names("127.0.0.1"))
        assert len(provider.requests) == 0


async def test_an_unknown_authority_is_refused(authority: Authority) -> None:
    async with ScriptedProvider(OK, tls=authority.server_context("127.0.0.1")) as provider:
        message = await failure(to(provider, tls=True))
        assert message.startswith(f"TLS to https://127.0.0.1:{provider.port} failed: ")
        assert "Name the authority's certificate in the target's ca_file" in message


async def test_old_tls_is_refused(authority: Authority) -> None:
    import ssl
    import warnings

    context = authority.server_context("127.0.0.1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    async with ScriptedProvider(OK, tls=context) as provider:
        assert "TLS" in await failure(to(provider, tls=True, ca_file=authority.ca_file))
        assert len(provider.requests) == 0


async def test_a_provider_without_tls_says_so(authority: Authority) -> None:
    spoken = Gate()
    async with (
        ScriptedProvider(greeting=[spoken, b"HTTP/1.1 400 Bad Request\r\n\r\n"]) as provider,
        pools_of() as pools,
    ):
        recorder = Recorder()
        ask(pools, to(provider, tls=True, ca_file=authority.ca_file), recorder)
        await (await provider.connections.at(0)).spoke
        spoken.open()
        await recorder.over
        assert recorder.error is not None
        assert "does not speak TLS on this port" in recorder.error.message


async def test_a_server_that_speaks_first_is_no_provider() -> None:
    """Whether its words are seen before or after the connection is ready, it is not used."""
    async with ScriptedProvider(greeting=[b"220 mail.test ESMTP\r\n"]) as provider, pools_of() as pools:
        recorder = await exchange(pools, to(provider))
        assert recorder.error is not None
        assert "HTTP" in recorder.error.message
        await provider.connections[0].closed


async def test_a_provider_that_closes_during_the_handshake() -> None:
    async with ScriptedProvider(greeting=[CLOSE]) as provider:
        assert "closed the connection" in await failure(to(provider, tls=True))


async def test_a_ca_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    missing, broken = str(tmp_path / "missing.pem"), tmp_path / "broken.pem"
    broken.write_text("no certificate")
    async with ScriptedProvider(OK) as provider:
        for ca_file in (missing, str(broken)):
            assert "ca_file cannot be read" in await failure(to(provider, tls=True, ca_file=ca_file))


def test_a_context_is_made_once_and_checks_names() -> None:
    contexts = Contexts()
    context = contexts.get(None)
    assert contexts.get(None) is context
    assert context.check_hostname
    assert context.cert_store_stats()["x509_ca"] > 100


async def test_certificates_are_read_when_a_configuration_comes_into_force(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    contexts = Contexts()
    async with pools_of(contexts=contexts) as pools:
        pools.keep([to(443, tls=True, ca_file=authority.ca_file), to(443, tls=True, ca_file="missing.pem"), to(80)])
        assert list(contexts._contexts) == [authority.ca_file]
    assert "target test: The target's ca_file cannot be read" in caplog.text


# Several addresses


async def test_an_address_that_refuses_gives_way_at_once() -> None:
    async with ScriptedProvider(OK) as provider, pools_of(resolver=names("127.0.0.9", "127.0.0.1")) as pools:
        assert (await exchange(pools, to(provider, host=NAME))).body == b"ok"


async def test_an_address_that_is_silent_is_overtaken_and_given_up() -> None:
    """One address does not answer; the next is tried beside it after a head start, and wins."""
    with deaf_port() as port:
        async with ScriptedProvider(OK, host="127.0.0.2", port=port):
            dialler = Dialler(names("127.0.0.1", "127.0.0.2"), DIRECT, Contexts(), stagger_seconds=0.01)
            async with pools_of() as pools:
                pools._dialler = dialler
                recorder = await exchange(pools, to(port, host=NAME))
                assert recorder.body == b"ok"
                assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("connect")]


async def test_when_every_address_fails_each_reason_is_told_once() -> None:
    message = await failure(to(refusing_port(), host=NAME), resolver=names("127.0.0.1", "127.0.0.2"))
    assert message.lower().count("refused") == 1


async def test_a_name_that_does_not_resolve() -> None:
    async def look_up(host: str) -> Sequence[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    message = await failure(to(80, host="nowhere.test"), resolver=Resolver(Clock(), look_up))
    assert message == (
        "http://nowhere.test:80 cannot be reached: Name or service not known. Check the host in the target's base_url."
    )


async def test_after_a_move_new_connections_go_to_the_new_address() -> None:
    clock = Clock()
    addresses = ["127.0.0.1"]

    async def look_up(host: str) -> Sequence[str]:
        return list(addresses)

    async with contextlib.AsyncExitStack() as stack:
        old = await stack.enter_async_context(ScriptedProvider(OK))
        new = await stack.enter_async_context(ScriptedProvider(OK, host="127.0.0.2", port=old.port))
        pools = await stack.enter_async_context(pools_of(clock, resolver=Resolver(clock, look_up)))
        destination = to(old, host=NAME)
        await exchange(pools, destination)
        addresses[:] = ["127.0.0.2"]
        pools.expire()
        clock.now += 31
        await exchange(pools, destination)  # still the old address: nobody waits for a look-up
        pools.expire()
        await exchange(pools, destination)
        assert (len(old.requests), len(new.requests)) == (2, 1)


def _has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as sock:
        sock.bind(("::1", 0))
        return True
    return False


@pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6 loopback")
async def test_ipv6() -> None:
    async with ScriptedProvider(OK, host="::1") as provider, pools_of() as pools:
        recorder = await exchange(pools, to(provider, host="::1"))
        assert recorder.body == b"ok"
        assert repr(recorder.connection) == f"<UpstreamConnection http://[::1]:{provider.port} idle, 1 served>"


# Proxies


class TunnelProxy:
    """A forward proxy as small as it can be: it answers CONNECT and then copies bytes both ways."""

    def __init__(self, reply: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n") -> None:
        self.reply = reply
        self.heads: list[bytes] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            writer.write(self.reply)
            if self.reply.startswith(b"HTTP/1.1 200"):
                port = int(head.split(b" ")[1].rpartition(b":")[2])
                there, back = await asyncio.open_connection("127.0.0.1", port)
                await asyncio.gather(self.copy(reader, back), self.copy(there, writer))
            writer.close()

    @staticmethod
    async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            sink.write(data)
        sink.close()


@contextlib.asynccontextmanager
async def running(proxy: TunnelProxy) -> AsyncIterator[Egress]:
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    address = f"http://user:secret@127.0.0.1:{proxy.port}"
    yield Egress.from_environment({"HTTPS_PROXY": address, "HTTP_PROXY": address})
    server.close()


async def test_an_https_provider_through_a_tunnel(authority: Authority) -> None:
    """The proxy resolves the name, TLS is end to end, and the tunnel is reused like any connection."""
    proxy = TunnelProxy()
    async with ScriptedProvider(OK, tls=authority.server_context(NAME)) as provider, running(proxy) as egress:
        async with pools_of(egress=egress, resolver=names()) as pools:
            for _ in range(2):
                recorder = await exchange(pools, to(provider, host=NAME, tls=True, ca_file=authority.ca_file))
                assert recorder.body == b"ok"
            assert [request.raw for request in provider.requests] == [GET, GET]
        (head,) = proxy.heads
        assert head.startswith(b"CONNECT provider.test:%d HTTP/1.1\r\n" % provider.port)
        assert b"proxy-authorization: Basic dXNlcjpzZWNyZXQ=\r\n" in head
        await provider.connections[0].closed


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n", "Put user:password@ into"),
        (
            b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n",
            "refused a tunnel to https://provider.test:443 with status 403",
        ),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "does not answer as an HTTP proxy"),
        (b"", "closed the connection instead of making a tunnel"),
    ],
)
async def test_a_proxy_that_makes_no_tunnel_says_why(reply: bytes, words: str) -> None:
    proxy = TunnelProxy(reply)
    async with running(proxy) as egress:
        message = await failure(to(443, host=NAME, tls=True), egress=egress)
        assert words in message
        assert "secret" not in message


async def test_leaving_while_the_proxy_is_silent_closes_its_socket() -> None:
    async with ScriptedProvider([Gate()]) as proxy:
        egress = Egress.from_environment({"HTTPS_PROXY": proxy.url})
        async with pools_of(egress=egress) as pools:
            ticket = ask(pools, to(443, host=NAME, tls=True), Recorder())
            assert (await proxy.requests.at(0)).method == "CONNECT"
            assert ticket is not None
            ticket.cancel()
            await proxy.connections[0].closed


async def test_an_http_provider_through_a_proxy_is_asked_in_absolute_form() -> None:
    async with ScriptedProvider(OK) as proxy:
        egress = Egress.from_environment({"HTTP_PROXY": f"http://u:p@127.0.0.1:{proxy.port}"})
        async with pools_of(egress=egress) as pools:
            for _ in range(2):
                await exchange(pools, to(8000, host=NAME))
        assert [request.target for request in proxy.requests] == ["http://provider.test:8000/v1/models"] * 2
        assert proxy.requests[0].headers["proxy-authorization"] == "Basic dTpw"
        assert len(proxy.connections) == 1
