"""The client's handshake, said in bytes: a head in, an answer out; and where a key in it goes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.authenticate import authenticate
from gateway.config.schema import AuthMode
from gateway.deflate import Deflate
from gateway.downstream.head import HeadLimits, RequestHead, parse_head
from gateway.downstream.websocket import Handshake, wants_websocket
from gateway.errors import ForbiddenOrigin, GatewayError, InvalidAPIKey, InvalidRequest, UpgradeRequired
from gateway.socket_ports import SocketKind
from gateway.surface import find_socket
from tests.playbook import KEY, Play

NONCE = "dGhlIHNhbXBsZSBub25jZQ=="
"""The RFC's own (section 1.3); its answer is s3pPLMBiTxaQ9kYGzzhZRbK+xOo=."""
FIELDS = {
    "host": "localhost:41002",
    "connection": "Upgrade",
    "upgrade": "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": NONCE,
}


def head(*lines: str, request: str = "GET /v1/realtime?model=m HTTP/1.1", **changed: str | None) -> RequestHead:
    """A handshake's head; `changed` fields replace the usual ones (None: without), `lines` are added."""
    fields = {**FIELDS, **{name.replace("_", "-"): value for name, value in changed.items()}}
    text = [request, *(f"{name}: {value}" for name, value in fields.items() if value is not None), *lines]
    return parse_head("\r\n".join([*text, "", ""]).encode("latin-1"), HeadLimits())


def refusal(found: RequestHead) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        Handshake(found)
    return caught.value


def test_the_example_of_the_rfc() -> None:
    found = head("sec-websocket-protocol: chat, superchat", "x-trace: 7")
    handshake = Handshake(found)
    assert handshake.subprotocols == ("chat", "superchat")
    assert handshake.default is None
    assert found.lines == [b"x-trace: 7\r\n"]
    assert found.block == b"x-trace: 7\r\n"
    assert handshake.answer("chat", b"x-request-id: 1\r\n", None) == (
        b"HTTP/1.1 101 Switching Protocols\r\n"
        b"upgrade: websocket\r\n"
        b"connection: upgrade\r\n"
        b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
        b"sec-websocket-protocol: chat\r\n"
        b"x-request-id: 1\r\n"
        b"\r\n"
    )


def test_browsers_write_it_in_their_own_way() -> None:
    found = head(connection="keep-alive, Upgrade", upgrade="WebSocket")
    assert wants_websocket(found)
    Handshake(found)


def test_other_upgrades_are_none() -> None:
    assert not wants_websocket(head(upgrade="h2c"))
    assert not wants_websocket(head(upgrade=None))


@pytest.mark.parametrize(
    ("found", "status"),
    [
        (head(connection="keep-alive"), 400),
        (head(request="GET /v1/realtime HTTP/1.0"), 400),
        (head("content-length: 1"), 400),
        (head("transfer-encoding: chunked"), 400),
        (head(sec_websocket_version=None), 426),
        (head(sec_websocket_version="8"), 426),
        (head("sec-websocket-version: 13"), 426),
        (head(sec_websocket_key=None), 400),
        (head(f"sec-websocket-key: {NONCE}"), 400),
        (head(sec_websocket_key="dGhlIHNhbXBsZSBub25jZQ"), 400),
        (head(sec_websocket_key="dGhlIHNhbXBsZSBub25jZTEyMw=="), 400),
        (head(sec_websocket_key="dGhlIHNhbXBsZSBub25jZ?=="), 400),
        (head("sec-websocket-protocol: a, a"), 400),
        (head("sec-websocket-protocol: a b"), 400),
        (head("sec-websocket-protocol: openai-insecure-api-key.a, openai-insecure-api-key.b"), 400),
    ],
)
def test_what_is_no_handshake(found: RequestHead, status: int) -> None:
    error = refusal(found)
    assert error.status == status
    assert isinstance(error, UpgradeRequired if status == 426 else InvalidRequest)
    if status == 426:
        assert (b"sec-websocket-version", b"13") in error.headers


# The key


Bind = Callable[..., str | None]


@pytest.fixture
def bound(tmp_path: Path) -> Bind:
    """Gives the id of the key under which a handshake is let in."""
    snapshot = Play(tmp_path).services.snapshot

    def bind(found: RequestHead, mode: AuthMode = AuthMode.REQUIRED) -> str | None:
        Handshake(found)
        binding = authenticate(found, snapshot, mode, now=0.0)
        return None if binding.key is None else binding.key.id

    return bind


@pytest.mark.parametrize(
    "line",
    [
        f"authorization: Bearer {KEY.decode()}",
        f"api-key: {KEY.decode()}",
        f"sec-websocket-protocol: realtime, openai-insecure-api-key.{KEY.decode()}",
        f"sec-websocket-protocol: openai-insecure-api-key.{KEY.decode()}",
    ],
)
def test_a_key_is_taken_from_where_it_can_stand(line: str, bound: Bind) -> None:
    found = head(line, "origin: https://app.example")
    assert bound(found) == "key_1"
    assert KEY not in found.block


def test_a_key_among_the_subprotocols_goes_no_further() -> None:
    found = head(
        f"sec-websocket-protocol: realtime, openai-insecure-api-key.{KEY.decode()}, openai-project.proj_1",
        "sec-websocket-protocol: openai-organization.org_1, openai-beta.realtime-v1",
    )
    handshake = Handshake(found)
    assert handshake.subprotocols == ("realtime", "openai-beta.realtime-v1")
    assert handshake.default == "realtime"  # a browser closes a socket for which none was chosen
    assert KEY not in handshake.answer("realtime", b"", None)
    assert KEY.decode() not in repr(handshake)
    assert found.block == b""


def test_a_key_in_the_wrong_place_goes_no_further_either() -> None:
    found = head(f"x-my-key: {KEY.decode()}", f"sec-websocket-protocol: realtime, {KEY.decode()}", "x-other: 1")
    assert Handshake(found).subprotocols == ("realtime",)
    assert found.lines == [b"x-other: 1\r\n"]


def test_a_gateway_key_among_the_subprotocols_counts_beside_another_credential(bound: Bind) -> None:
    found = head("authorization: Bearer sk-other", f"sec-websocket-protocol: openai-insecure-api-key.{KEY.decode()}")
    assert bound(found) == "key_1"


def test_a_wrong_key_is_refused(bound: Bind) -> None:
    with pytest.raises(InvalidAPIKey):
        bound(head("sec-websocket-protocol: openai-insecure-api-key.kt_gk_wrong"), AuthMode.AUTO)


@pytest.mark.parametrize(
    ("changed", "allowed"),
    [
        ({}, True),
        ({"origin": "http://localhost:3000"}, True),
        ({"origin": "https://evil.example"}, False),
        ({"origin": "null"}, False),
        ({"host": "evil.example"}, False),  # a name that was rebound to this machine
        ({"host": "127.0.0.1"}, True),
    ],
)
def test_a_page_of_another_site_cannot_use_that_it_is_on_this_machine(
    changed: dict[str, str], allowed: bool, bound: Bind
) -> None:
    """Without a key, on a loopback address: what a browser brings along by itself must not be enough."""
    found = head(**changed)
    if allowed:
        assert bound(found, AuthMode.AUTO) is None
    else:
        with pytest.raises(ForbiddenOrigin):
            bound(found, AuthMode.AUTO)


# permessage-deflate


@pytest.mark.parametrize(
    ("offer", "answer"),
    [
        ("permessage-deflate", ""),
        ("permessage-deflate; client_max_window_bits", ""),
        ("permessage-deflate; client_max_window_bits=8", ""),
        ("permessage-deflate; server_max_window_bits=10", "; server_max_window_bits=10"),
        ('permessage-deflate; server_max_window_bits="12"', "; server_max_window_bits=12"),
        ("permessage-deflate; server_no_context_takeover; client_no_context_takeover", ""),
        ("x-webkit-deflate-frame, permessage-deflate", ""),
        ("permessage-deflate; server_max_window_bits=8, permessage-deflate", ""),  # the first one cannot be met
        ("permessage-deflate, permessage-deflate; server_max_window_bits=9", ""),  # the first one is
        ("permessage-deflate; server_max_window_bits=8", None),
        ("permessage-deflate; server_max_window_bits", None),
        ("permessage-deflate; server_max_window_bits=16", None),
        ("permessage-deflate; server_max_window_bits=010", None),
        ("permessage-deflate; client_max_window_bits=7", None),
        ("permessage-deflate; server_no_context_takeover=1", None),
        ("permessage-deflate; server_no_context_takeover; server_no_context_takeover", None),
        ("permessage-deflate; mystery", None),
        ("permessage-deflate; ", None),
        ("x-other", None),
        ("", None),
    ],
)
def test_compression_is_agreed_on(offer: str, answer: str | None) -> None:
    handshake = Handshake(head(f"sec-websocket-extensions: {offer}"))
    deflate, extensions = handshake.deflate()
    if answer is None:
        assert extensions is None
        assert not deflate.agreed
    else:
        always = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
        assert extensions == f"{always}{answer}".encode()
        assert deflate.window_bits == int(answer.partition("=")[2] or 15)


@pytest.mark.parametrize(
    ("answer", "sound"),
    [
        ("permessage-deflate; server_no_context_takeover; client_no_context_takeover", True),
        ("permessage-deflate; server_no_context_takeover", True),
        ("permessage-deflate; server_no_context_takeover; server_max_window_bits=10", True),
        ("permessage-deflate", False),
        ("permessage-deflate; server_no_context_takeover; client_max_window_bits=10", False),
        ("permessage-deflate; server_no_context_takeover; server_max_window_bits", False),
        ("permessage-deflate; server_no_context_takeover; mystery", False),
    ],
)
def test_a_providers_answer_to_our_offer(answer: str, sound: bool) -> None:
    deflate = Deflate()
    assert deflate.offer() == "server_no_context_takeover; client_no_context_takeover"
    if sound:
        deflate.finalize(answer)
    else:
        with pytest.raises(ValueError, match="the server"):
            deflate.finalize(answer)
    assert deflate.enabled() is sound


# Paths


@pytest.mark.parametrize(
    ("path", "kind", "model"),
    [
        (b"/v1/realtime", SocketKind.REALTIME, None),
        (b"/openai/v1/realtime", SocketKind.REALTIME, None),
        (b"/openai/realtime", SocketKind.REALTIME, None),
        (b"/openai/deployments/gpt%204o/realtime", SocketKind.REALTIME, "gpt 4o"),
        (b"/v1/responses", SocketKind.RESPONSES, None),
        (b"/openai/responses", SocketKind.RESPONSES, None),
        (b"/v1/chat/completions", SocketKind.CHAT, None),
        (b"/openai/deployments/d/chat/completions", SocketKind.CHAT, "d"),
    ],
)
def test_which_paths_have_a_socket(path: bytes, kind: SocketKind, model: str | None) -> None:
    assert find_socket(path) == (kind, model)


@pytest.mark.parametrize(
    "path", [b"/v1/embeddings", b"/realtime", b"/v1/realtime/", b"/openai/deployments//realtime", b"/v1/v1/realtime"]
)
def test_which_paths_have_none(path: bytes) -> None:
    assert find_socket(path) is None
