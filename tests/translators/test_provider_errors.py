"""Each provider's way to say no, as the gateway says it."""

from __future__ import annotations

import pytest

from gateway.errors import UpstreamAuthFailed, UpstreamStatus
from gateway.http1 import header_lines
from gateway.types import ResponseHead
from tests.recordings import Recording, load, providers
from translators import provider_errors


def read(status: int, body: bytes, headers: list[tuple[bytes, bytes]] | None = None, passthrough: bool = False):
    return provider_errors.read(
        ResponseHead(status, b"", header_lines(headers or [])), body, "acme", passthrough=passthrough
    )


@pytest.mark.parametrize(
    ("body", "message", "type_", "code", "param"),
    [
        (
            b'{"error":{"message":"m","type":"t","code":"c","param":"messages[0]"}}',
            "m",
            "t",
            "c",
            "messages[0]",
        ),
        (b'{"type":"error","error":{"type":"not_found_error","message":"m"}}', "m", "not_found_error", None, None),
        (
            b'{"error":{"code":400,"message":"m","status":"INVALID_ARGUMENT"}}',
            "m",
            "invalid_request_error",
            "INVALID_ARGUMENT",
            None,
        ),
        (
            b'[{"error":{"code":400,"message":"m","status":"FAILED"}}]',
            "m",
            "invalid_request_error",
            "FAILED",
            None,
        ),
        (b'{"message":"m","request_id":"r"}', "m", "invalid_request_error", None, None),
        (b'{"detail":"m"}', "m", "invalid_request_error", None, None),
        (b'{"error":"m"}', "m", "invalid_request_error", None, None),
        (
            b'{"object":"error","message":{"detail":[{"loc":["body"]}]},"type":"t"}',
            '{"detail":[{"loc":["body"]}]}',
            "t",
            None,
            None,
        ),
        (b"<html><body> <h1>Bad\n gateway</h1></body></html>", "Bad gateway", "invalid_request_error", None, None),
        (b"", "acme answered 400 without a message.", "invalid_request_error", None, None),
        (b"\xff\xfe", "\ufffd\ufffd", "invalid_request_error", None, None),
        (b"{}", "{}", "invalid_request_error", None, None),
        (b"[1]", "[1]", "invalid_request_error", None, None),
    ],
)
def test_B25_every_shape_is_read_or_quoted(body: bytes, message: str, type_: str, code: str, param: str) -> None:
    error = read(400, body)
    assert isinstance(error, UpstreamStatus)
    assert (error.status, error.message, error.type, error.code, error.param) == (400, message, type_, code, param)
    assert not error.retryable


def test_B23_retry_after_and_rate_limits_are_kept() -> None:
    kept = [
        (b"retry-after", b"7"),
        (b"x-ratelimit-remaining-tokens", b"0"),
        (b"anthropic-ratelimit-requests-limit", b"5"),
    ]
    error = read(429, b'{"error":{"message":"slow","code":"c","param":"p"}}', [*kept, (b"set-cookie", b"x")])
    assert (error.status, error.type, error.code, error.param) == (429, "rate_limit_error", "c", "p")
    assert error.retryable
    assert error.headers == tuple(kept)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_credential_of_the_gateway_is_not_the_clients_fault(status: int) -> None:
    error = read(status, b'{"error":{"message":"Incorrect API key provided: sk-abc***"}}')
    assert isinstance(error, UpstreamAuthFailed)
    assert error.status == 502
    assert "sk-" not in error.message
    assert (b"x-should-retry", b"false") in error.headers


def test_a_refused_credential_of_the_client_is_told() -> None:
    error = read(401, b'{"error":{"message":"wrong","code":"invalid_api_key"}}', passthrough=True)
    assert (error.status, error.code, error.type) == (401, "invalid_api_key", "authentication_error")


def test_529_is_503() -> None:
    error = read(529, b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}')
    assert (error.status, error.type, error.retryable) == (503, "overloaded_error", True)


def test_B24_an_empty_account_is_no_bad_request() -> None:
    error = read(400, b'{"error":{"type":"invalid_request_error","message":"Your credit balance is too low to"}}')
    assert error.status == 402


def test_D5_a_mention_of_content_is_no_policy_error() -> None:
    error = read(400, b'{"error":{"type":"invalid_request_error","code":null,"message":"content_filter is odd"}}')
    assert (error.status, error.code) == (400, None)


def test_a_redirect_is_a_bad_gateway() -> None:
    assert read(302, b"").status == 502


def test_a_long_message_is_cut() -> None:
    assert len(read(400, b'{"message":"%b"}' % (b"x" * 100_000)).message) == provider_errors.MAX_MESSAGE_CHARS


@pytest.mark.parametrize(
    "recording", [item for name in providers() for item in load(name) if item.status >= 400], ids=str
)
def test_recorded_errors(recording: Recording) -> None:
    error = read(recording.status, recording.response, passthrough=True)
    assert error.status == recording.status
    assert error.message
    assert not error.message.startswith(("{", "["))


def test_googles_refusal_of_a_key_comes_as_a_400() -> None:
    body = b'{"error":{"code":400,"message":"API key not valid.","details":[{"reason": "API_KEY_INVALID"}]}}'
    assert isinstance(read(400, body), UpstreamAuthFailed)
    assert read(400, body, passthrough=True).status == 400


def test_google_tells_in_the_body_when_to_come_back() -> None:
    body = b'{"error":{"code":429,"message":"m","status":"RESOURCE_EXHAUSTED","details":[{"retryDelay": "34.07s"}]}}'
    assert read(429, body).headers == ((b"retry-after", b"34"),)
    assert read(429, body, [(b"retry-after", b"5")]).headers == ((b"retry-after", b"5"),)
