"""What the worker answers by itself, who may ask, and what goes to the control process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from gateway.config.schema import AuthMode
from gateway.control_relay import ControlRelay
from gateway.downstream.access import access
from gateway.downstream.http import Handler
from gateway.errors import RequestTooLarge, UpstreamUnreachable
from gateway.exchange import Exchange
from gateway.refusals import BURST, PER_SECOND
from gateway.surface import find
from tests.playbook import Play, configuration, gateway_key, target
from tests.provider import LAST_CHUNK, chunk, head, respond

MANY = configuration(
    target("one", "gpt-a"),
    target("two", "gpt-b", "deepseek"),
    target("three", "gpt-a", "mistral"),
    target("four", "org/x"),
)


def body(play: Play) -> Any:
    """The JSON that the client got."""
    return orjson.loads(b"".join(play.client.writes))


# By itself


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_health(play: Play, method: str) -> None:
    play.open("/healthz", method=method, key=None)
    assert play.client.status == 200
    assert body(play) == {"status": "ok"}


def test_readiness(play: Play) -> None:
    play.open("/readyz", method="GET", key=None)
    assert (play.client.status, body(play)) == (200, {"ready": True})
    play.application._status = lambda: {"ready": False, "configuration_error": "line 3"}
    play.open("/readyz", method="GET", key=None)
    assert (play.client.status, body(play)["configuration_error"]) == (503, "line 3")


def test_the_list_of_models(playbook: Callable[..., Play]) -> None:
    play = playbook(MANY)
    play.open("/v1/models", method="GET")
    shown = body(play)
    assert shown["object"] == "list"
    assert [(model["id"], model["owned_by"]) for model in shown["data"]] == [
        ("gpt-a", "openai-compatible"),
        ("gpt-b", "deepseek"),
        ("org/x", "openai-compatible"),
    ]
    assert shown["data"][0] == {"id": "gpt-a", "object": "model", "created": 0, "owned_by": "openai-compatible"}


@pytest.mark.parametrize("path", ["/v1/models", "/openai/v1/models", "/openai/models"])
def test_a_key_sees_its_own_models(playbook: Callable[..., Play], path: str) -> None:
    play = playbook(MANY, key=gateway_key(models=frozenset({"gpt-b"})))
    play.open(path, method="GET")
    assert [model["id"] for model in body(play)["data"]] == ["gpt-b"]


@pytest.mark.parametrize("name", ["gpt-a", "org/x", "org%2Fx", "gpt%2Da"])
def test_one_model(playbook: Callable[..., Play], name: str) -> None:
    play = playbook(MANY)
    play.open(f"/v1/models/{name}", method="GET")
    assert body(play)["id"] in ("gpt-a", "org/x")


def test_a_model_that_is_not_there_or_not_allowed(playbook: Callable[..., Play]) -> None:
    play = playbook(MANY, key=gateway_key(models=frozenset({"gpt-b"})))
    for name in ("gpt-a", "gpt-9", "%ff"):
        play.open(f"/v1/models/{name}", method="GET")
        assert play.client.transcript == ["refused: 404 model_not_found"]


def test_models_want_a_key(play: Play) -> None:
    play.open("/v1/models", method="GET", key=None)
    assert play.client.transcript == ["refused: 401 invalid_api_key"]


def test_every_answer_has_a_request_id(play: Play) -> None:
    for path in ("/healthz", "/readyz", "/v1/models", "/nowhere"):
        play.open(path, method="GET")
        assert play.client.headers["x-request-id"].startswith("req_")
        play.open(path, method="GET", headers=["X-Request-Id: mine"])
        assert play.client.headers["x-request-id"] == "mine"


def test_an_error_names_the_request(play: Play) -> None:
    play.open("/nowhere", method="GET", headers=["X-Request-Id: mine"])
    assert body(play)["error"]["request_id"] == "mine"


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/", "/v1/chat", "/V1/models", "/v1/models/", "//v1/models", "/apI/v1/x", "*"]
)
def test_nothing_there(play: Play, path: str) -> None:
    play.open(path, method="OPTIONS" if path == "*" else "GET")
    assert play.client.transcript == ["refused: 404 not_found"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/chat/completions", "POST"),
        ("DELETE", "/v1/embeddings", "POST"),
        ("PUT", "/openai/deployments/gpt-test/chat/completions", "POST"),
        ("POST", "/v1/models", "GET, HEAD"),
        ("POST", "/healthz", "GET, HEAD"),
        ("OPTIONS", "/api/v1/keys", "GET, HEAD, POST, PUT, PATCH, DELETE"),
    ],
)
def test_another_method(play: Play, method: str, path: str, allowed: str) -> None:
    play.open(path, method=method)
    assert play.client.transcript == ["refused: 405 method_not_allowed"]
    assert play.client.headers["allow"] == allowed


def test_what_is_refused_before_it_is_an_exchange_is_counted(play: Play) -> None:
    play.open("/nowhere", method="GET")
    play.open(key=b"kt_gk_wrong")
    play.open(key=None)
    assert play.metric("keeptrusts_gateway_requests_total") == 3
    assert play.metric("keeptrusts_gateway_key_rejections_total") == 2


def test_draining(play: Play) -> None:
    play.services.draining = True
    play.open()
    assert play.client.transcript == ["refused: 503 draining"]
    assert play.client.headers["retry-after"] == "1"
    play.open("/healthz", method="GET")
    assert play.client.status == 200


def test_a_fault_is_answered_and_reported(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(play.services, "snapshot", None)
    play.open()
    assert play.client.transcript == ["refused: 500 internal_error"]
    assert len(play.faults) == 1
    play.faults.clear()
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("path", "shape"),
    [("/v1/messages", {"type", "error", "request_id"}), ("/v1/chat/completions", {"error"}), ("/nowhere", {"error"})],
)
def test_what_a_connection_cannot_take_is_refused_in_its_wires_shape(play: Play, path: str, shape: set[str]) -> None:
    client, transport = play.connect()
    client.data_received(
        b"POST %b HTTP/1.1\r\nHost: x\r\nX-Request-Id: mine\r\nContent-Length: 99999999\r\n\r\n" % path.encode()
    )
    start, _, sent = transport.written.partition(b"\r\n\r\n")
    assert start.startswith(b"HTTP/1.1 413 ")
    assert b"\r\nx-request-id: mine\r\n" in start
    assert set(orjson.loads(sent)) == shape
    assert play.metric("keeptrusts_gateway_requests_total") == 1


def test_what_cannot_be_read_at_all_is_refused_with_an_id(play: Play) -> None:
    client, transport = play.connect()
    client.data_received(b"nonsense\r\n\r\n")
    assert b"\r\nx-request-id: req_" in transport.written
    assert b"connection: close\r\n" in transport.written


def test_who_was_not_let_in_is_recorded(playbook: Callable[..., Play]) -> None:
    play = playbook(mode=AuthMode.AUTO)
    play.open(key=b"kt_gk_wrong", headers=["X-Request-Id: mine"])
    play.open(key=None, headers=["Origin: https://evil.example"])
    starts, finishes = play.records[::2], play.records[1::2]
    assert [(record["kind"], record["key"], record["operation"]) for record in starts] == [("start", None, "chat")] * 2
    assert starts[0]["attributes"] == {"client_request_id": "mine"}
    assert [record["id"] for record in starts] == [record["id"] for record in finishes]
    assert [(record["outcome"], record["status"], record["code"]) for record in finishes] == [
        ("refused", 401, "invalid_api_key"),
        ("refused", 403, "forbidden_origin"),
    ]
    assert b"kt_gk_" not in b"".join(play.audit)


@pytest.mark.parametrize(
    "text", [configuration(chain=""), configuration(policies="\n  audit-logger: {log_all_access: false}\n")]
)
def test_who_was_not_let_in_is_recorded_only_where_it_is_wanted(playbook: Callable[..., Play], text: str) -> None:
    play = playbook(text)
    play.open(key=b"kt_gk_wrong")
    assert play.records == []


def test_who_is_barred_is_recorded_with_the_address_that_is(playbook: Callable[..., Play]) -> None:
    play = playbook()
    connection, transport = play.connect()
    server = connection._server
    server.configure(server.limits, access(["198.51.100.0/24"], ["192.0.2.7"]))
    for address in (b"198.51.100.1", b"203.0.113.9"):
        connection.data_received(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: %b\r\n\r\n" % address)
    assert b"address_not_allowed" in transport.written
    start, finish = play.records
    assert (start["client"], start["operation"]) == ("203.0.113.9", "")
    assert (finish["outcome"], finish["status"], finish["code"]) == ("refused", 403, "address_not_allowed")


def test_a_flood_of_refused_keys_fills_no_disk(playbook: Callable[..., Play]) -> None:
    """The log has the first ones, then a few a second, and the number of all others."""
    play = playbook()
    for _ in range(BURST + 1000):
        play.open(key=b"kt_gk_wrong")
    assert len(play.records) == 2 * BURST
    assert play.metric("keeptrusts_gateway_refusals_unrecorded_total") == 1000
    assert play.metric("keeptrusts_gateway_key_rejections_total") == BURST + 1000
    play.clock.now += 1.5 / PER_SECOND
    play.open(key=b"kt_gk_wrong", headers=["X-Request-Id: mine"])
    assert play.records[-2]["attributes"] == {"client_request_id": "mine", "refusals_left_out": "1000"}
    play.open(key=b"kt_gk_wrong")
    assert len(play.records) == 2 * BURST + 2


def test_the_end_of_a_flood_is_told_although_nobody_knocks(playbook: Callable[..., Play]) -> None:
    play = playbook()
    for _ in range(BURST + 5):
        play.open(key=b"kt_gk_wrong")
    for _ in range(10):
        play.application.sweep()
    assert len(play.records) == 2 * BURST
    play.clock.now += 1.5 / PER_SECOND
    for _ in range(10):
        play.application.sweep()
    start, finish = play.records[2 * BURST :]
    assert start["attributes"] == {"refusals_left_out": "5"}
    assert (finish["outcome"], finish["code"]) == ("refused", "invalid_api_key")


def test_a_flood_does_not_stop_the_refusals_of_later_days(playbook: Callable[..., Play]) -> None:
    play = playbook()
    for _ in range(3):
        for _ in range(BURST):
            play.open(key=b"kt_gk_wrong")
        play.clock.now += BURST / PER_SECOND
    assert len(play.records) == 2 * 3 * BURST


@pytest.mark.parametrize("field", ["X-Forwarded-For: 127.0.0.1", "Forwarded: for=127.0.0.1"])
def test_whom_a_proxy_speaks_for_is_not_this_machines_user(playbook: Callable[..., Play], field: str) -> None:
    """A reverse proxy on the same machine must not open the gateway to everybody."""
    play = playbook(mode=AuthMode.AUTO)
    play.open(key=None, headers=[field])
    assert play.client.transcript == ["refused: 403 forbidden_origin"]
    play.ask({"model": "gpt-test", "messages": []}, headers=[field])  # with a key
    assert play.client.transcript == []
    play.provider().says(respond(b"{}"))


# Azure's paths


@pytest.mark.parametrize(
    "path",
    [
        "/openai/deployments/gpt-test/chat/completions?api-version=2024-10-21",
        "/openai/deployments/gpt%2Dtest/chat/completions",
        "/openai/deployments/one/chat/completions",
        "/openai/v1/chat/completions",
    ],
)
def test_azures_paths(play: Play, path: str) -> None:
    exchange = play.ask(
        {"model": "gpt-test" if "/v1/" in path else "ignored", "messages": []},
        path=path,
        key=None,
        headers=["api-key: kt_gk_00000000000000000000000000000000000000"],
    )
    assert play.provider().body["model"] == "gpt-test"
    assert b"api-version" not in play.provider().asked
    exchange.on_client_gone()


# Who may ask: the ways to carry a key are those of each SDK


LOCAL: dict[str, tuple[AuthMode, list[str], str | None]] = {
    # name: mode, header lines, the refusal's code
    "no key, required": (AuthMode.REQUIRED, [], "invalid_api_key"),
    "no key, auto": (AuthMode.AUTO, [], None),
    "no key, auto, own page": (AuthMode.AUTO, ["Origin: http://localhost:3000"], None),
    "no key, auto, own page by address": (AuthMode.AUTO, ["Origin: https://[::1]:8443"], None),
    "no key, auto, foreign page": (AuthMode.AUTO, ["Origin: https://evil.example"], "forbidden_origin"),
    "no key, auto, sandboxed page": (AuthMode.AUTO, ["Origin: null"], "forbidden_origin"),
    "no key, auto, lookalike": (AuthMode.AUTO, ["Origin: http://localhost.evil.example"], "forbidden_origin"),
    "a wrong key, auto": (AuthMode.AUTO, ["Authorization: Bearer sk-other"], "invalid_api_key"),
    "an empty key, auto": (AuthMode.AUTO, ["Authorization: Bearer "], "invalid_api_key"),
    "basic, auto": (AuthMode.AUTO, ["Authorization: Basic eDp5"], None),
    "unknown key": (AuthMode.REQUIRED, ["Authorization: Bearer kt_gk_1111"], "invalid_api_key"),
    "another scheme": (AuthMode.REQUIRED, ["Authorization: Basic kt_gk_{key}"], "invalid_api_key"),
    "no scheme": (AuthMode.REQUIRED, ["Authorization: kt_gk_{key}"], "invalid_api_key"),
    "bearer": (AuthMode.REQUIRED, ["Authorization: Bearer kt_gk_{key}"], None),
    "bearer in lower case": (AuthMode.REQUIRED, ["Authorization: bearer kt_gk_{key}"], None),
    "bearer with spaces": (AuthMode.REQUIRED, ["Authorization: Bearer   kt_gk_{key}  "], None),
    "azure": (AuthMode.REQUIRED, ["api-key: kt_gk_{key}"], None),
    "anthropic": (AuthMode.REQUIRED, ["X-API-Key: kt_gk_{key}"], None),
    "a key beside another credential": (
        AuthMode.REQUIRED,
        ["Authorization: Bearer sk-other", "x-api-key: kt_gk_{key}"],
        None,
    ),
    "no key, passthrough": (AuthMode.PASSTHROUGH, [], "invalid_api_key"),
    "a key, passthrough": (AuthMode.PASSTHROUGH, ["Authorization: Bearer kt_gk_{key}"], None),
    "a wrong key, passthrough": (AuthMode.PASSTHROUGH, ["Authorization: Bearer kt_gk_1"], "invalid_api_key"),
}


@pytest.mark.parametrize("name", LOCAL)
def test_who_may_ask(playbook: Callable[..., Play], name: str) -> None:
    mode, lines, code = LOCAL[name]
    play = playbook(mode=mode)
    play.open(key=None, headers=[line.replace("{key}", "0" * 38) for line in lines])
    assert [line.rpartition(" ")[2] for line in play.client.transcript] == ([code] if code else [])
    if code is None:
        handler = play.opened[-1]
        assert isinstance(handler, Exchange)
        handler.on_client_gone()


def test_the_hosts_of_this_machine(playbook: Callable[..., Play]) -> None:
    """A web page that makes its own name point here (DNS rebinding) still sends that name."""
    for host, served in (
        ("localhost", True),
        ("LOCALHOST:1", True),
        ("127.0.0.1:1", True),
        ("[::1]", True),
        ("a.b", False),
    ):
        play = playbook(mode=AuthMode.AUTO)
        client, transport = play.connect()
        client.data_received(b"GET /v1/models HTTP/1.1\r\nHost: %b\r\n\r\n" % host.encode())
        assert transport.written.startswith(b"HTTP/1.1 200" if served else b"HTTP/1.1 403"), host


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"expires_at": 1_699_999_999.0}, "has expired"), ({"revoked_at": 1_699_999_999.0}, "was revoked")],
)
def test_only_a_genuine_key_hears_what_became_of_it(playbook: Callable[..., Play], settings: Any, words: str) -> None:
    play = playbook(key=gateway_key(**settings))
    play.open()
    assert words in body(play)["error"]["message"]
    play.open(key=b"kt_gk_another")
    assert "Invalid gateway key" in body(play)["error"]["message"]


def test_a_key_expires_while_it_is_used(playbook: Callable[..., Play]) -> None:
    play = playbook(key=gateway_key(expires_at=1_700_000_010.0))
    play.open("/v1/models", method="GET")
    assert play.client.status == 200
    play.advance(10)
    play.open("/v1/models", method="GET")
    assert play.client.status == 401


def test_a_key_of_a_configuration_that_is_not_served(playbook: Callable[..., Play]) -> None:
    play = playbook(key=gateway_key(configuration_id="another"))
    play.open()
    assert play.client.transcript == ["refused: 401 invalid_api_key"]


def test_keys_that_change_are_looked_up_anew(play: Play) -> None:
    keys = {gateway_key().hash: gateway_key()}
    snapshot = play.services.snapshot
    snapshot.find_key = keys.get
    play.open("/v1/models", method="GET")
    assert play.client.status == 200
    gone = keys.pop(gateway_key().hash)
    snapshot.forget([gone])
    play.open("/v1/models", method="GET")
    assert play.client.status == 401


# The control process


def relayed(play: Play, path: str = "/api/v1/keys?x=y", method: str = "POST", **options: Any) -> Handler:
    play.client.peer = "127.0.0.1"
    handler = play.open(path, method=method, key=None, **options)
    assert isinstance(handler, ControlRelay), play.client.transcript
    return handler


@pytest.fixture
def local(play: Play, monkeypatch: pytest.MonkeyPatch) -> Play:
    """The client is on this machine."""
    monkeypatch.setattr("tests.playbook.Client.peer", "127.0.0.1")
    return play


def test_what_the_control_process_is_asked(local: Play) -> None:
    lines = [
        "Authorization: Bearer admin",
        "Cookie: session=1",
        "X-Real-IP: 10.0.0.1",
        "Connection: x-hop",
        "X-Hop: 1",
    ]
    relayed(local, headers=[*lines, "X-Request-Id: mine", "Content-Type: application/json"]).on_body(b"{}")
    asked = local.provider().asked
    assert asked.startswith(b"POST /api/v1/keys?x=y HTTP/1.1\r\n")
    assert local.provider().headers == {
        "host": "localhost:41002",
        "authorization": "Bearer admin",
        "cookie": "session=1",
        "content-type": "application/json",
        "x-request-id": "mine",
        "x-kt-local": "1",
        "x-forwarded-for": "127.0.0.1",
        "content-length": "2",
    }
    local.provider().says(respond(b"{}"))


@pytest.mark.parametrize(
    ("reads", "transcript"),
    [
        ([respond(b"{}")], ["200 sized 2: 2 bytes, end"]),
        ([head(200, length=4), b"ab", b"cd"], ["200 sized 4: 0 bytes", "2 bytes", "2 bytes, end"]),
        ([head(200, chunked=True) + chunk(b"abc") + LAST_CHUNK], ["200 sized 3: 3 bytes, end"]),
        ([head(200, chunked=True), chunk(b"abc"), LAST_CHUNK], ["200 chunked: 0 bytes", "3 bytes", "0 bytes, end"]),
        ([head(204)], ["204 sized 0: 0 bytes, end"]),
    ],
)
def test_what_the_control_process_answers(local: Play, reads: list[bytes], transcript: list[str]) -> None:
    relayed(local).on_body(b"")
    local.provider().says(*reads)
    assert local.client.transcript == transcript
    assert local.client.headers["x-request-id"].startswith("req_")


def test_its_cookies_come_through_and_its_framing_does_not(local: Play) -> None:
    relayed(local).on_body(b"")
    local.provider().says(respond(b"{}", 201, ("set-cookie", "a=b"), ("connection", "keep-alive"), ("location", "/x")))
    assert {name: local.client.headers[name] for name in ("set-cookie", "location")} == {
        "set-cookie": "a=b",
        "location": "/x",
    }
    assert "connection" not in local.client.headers
    assert "content-length" not in local.client.headers


def test_the_control_process_is_away(local: Play) -> None:
    local.pool.idle = False
    relayed(local).on_body(b"")
    local.pool.fail(UpstreamUnreachable())
    assert local.client.transcript == ["refused: 503 overloaded"]
    assert "x-request-id" in local.client.headers


def test_the_control_process_dies(local: Play) -> None:
    relayed(local).on_body(b"")
    local.provider().resets()
    assert local.client.transcript == ["refused: 503 overloaded"]
    relayed(local).on_body(b"")
    local.provider().says(head(200, length=4), b"ab")
    local.provider().resets()
    assert local.client.transcript[-1] == "aborted"


def test_a_body_that_did_not_come(local: Play) -> None:
    relayed(local).on_body_failed(RequestTooLarge())
    assert local.client.transcript == ["refused: 413 request_too_large"]
    assert local.pool.providers == []


def test_a_client_leaves_the_control_process(local: Play) -> None:
    handler = relayed(local)
    handler.on_body(b"")
    handler.on_client_gone()
    assert local.provider().gone
    local.pool.idle = False
    handler = relayed(local)
    handler.on_body(b"")
    handler.on_client_gone()
    assert local.pool.tickets[-1].state == "cancelled"


def test_a_slow_client_slows_the_control_process(local: Play) -> None:
    handler = relayed(local)
    handler.on_body(b"")
    local.provider().says(head(200, length=4))
    handler.on_client_paused()
    handler.on_client_resumed()
    assert local.provider().transport.events == ["paused", "resumed"]
    handler.on_client_gone()


def test_a_control_process_that_hangs_is_given_up(local: Play) -> None:
    relayed(local).on_body(b"")
    local.advance(119)
    assert local.client.transcript == []
    local.advance(2)
    assert local.client.transcript == ["refused: 503 overloaded"]
    assert local.provider().gone


def test_one_that_hangs_in_the_middle_of_an_answer(local: Play) -> None:
    relayed(local).on_body(b"")
    local.advance(100)
    local.provider().says(head(200, chunked=True), chunk(b"one"))
    for _ in range(3):
        local.advance(299)
        local.provider().says(chunk(b"more"))
    local.advance(301)
    assert local.client.transcript[-1] == "aborted"
    assert local.provider().gone


def test_a_slow_client_is_not_the_control_processs_fault(local: Play) -> None:
    handler = relayed(local)
    handler.on_body(b"")
    local.provider().says(head(200, length=4), b"ab")
    handler.on_client_paused()
    local.advance(1000)
    handler.on_client_resumed()
    local.advance(299)
    local.provider().says(b"cd")
    assert local.client.transcript[-1] == "2 bytes, end"


@pytest.mark.parametrize("lines", [[], ["X-Kt-Local: 1"], ["X-KT-LOCAL:1", "x-kt-local: 1"]])
def test_others_cannot_say_that_they_are_of_this_machine(play: Play, lines: list[str]) -> None:
    """Who may see what the control process decides, and it is told who is local by the worker alone."""
    for path in ("/api/v1/keys", "/console", "/console/"):
        handler = play.open(path, method="GET", headers=lines)
        assert isinstance(handler, ControlRelay)
        handler.on_body(b"")
        assert "x-kt-local" not in {name.lower() for name in play.provider().headers}
        play.provider().says(respond(b"{}"))


def test_operator_paths_are_nowhere_else_where_they_have_an_address_of_their_own(local: Play) -> None:
    local.application.serves_operators = False
    for path in ("/api/v1/keys", "/console/", "/metrics"):
        local.open(path, method="GET")
        assert local.client.transcript == ["refused: 404 not_found"]


# The table of paths


@pytest.mark.parametrize(
    ("path", "operation", "model"),
    [
        (b"/v1/responses", "responses", None),
        (b"/openai/responses", "responses", None),
        (b"/v1/messages", "messages", None),
        (b"/v1/messages/count_tokens", "count_tokens", None),
        (b"/v1/audio/speech", "speech", None),
        (b"/openai/v1/audio/translations", "translations", None),
        (b"/openai/deployments/whisper/audio/transcriptions", "transcriptions", "whisper"),
        (b"/openai/deployments/d/images/edits", "image_edits", "d"),
        (b"/v1/images/variations", "image_variations", None),
        (b"/openai/deployments/d/embeddings", "embeddings", "d"),
        (b"/openai/deployments/a%20b/images/generations", "images", "a b"),
        (b"/openai/deployments/%C3%A9/completions", "completions", "é"),
    ],
)
def test_paths(path: bytes, operation: str, model: str | None) -> None:
    endpoint = find(b"POST", path)
    assert (endpoint.operation, endpoint.model) == (operation, model)
