"""Error events of streams that are not translated, by the shapes that providers give them."""

from __future__ import annotations

import pytest

from translators.stream_errors import error_of


@pytest.mark.parametrize(
    ("data", "status", "message"),
    [
        (b'{"error":{"message":"busy","type":"server_error","code":null}}', 500, "busy"),
        (b'{"error":{"message":"slow down","code":429}}', 429, "slow down"),
        (b'{"error":{"message":"key","code":401}}', 502, "key"),
        (b'{"error":"it broke"}', 502, "it broke"),
        (b'{"error":{"code":["odd"],"type":{"odd":1}}}', 502, "{'odd': 1}"),
        (b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}', 503, "Overloaded"),
        (b'{"type":"error","code":"rate_limit_exceeded","message":"slow down","param":null}', 429, "slow down"),
        (b'{"type":"response.failed","response":{"error":{"code":"server_error","message":"no"}}}', 500, "no"),
    ],
)
def test_an_error_has_the_status_that_an_answer_would_have_had(data: bytes, status: int, message: str) -> None:
    error = error_of(data)
    assert error is not None
    assert (error.status, error.message) == (status, message)


@pytest.mark.parametrize(
    "data",
    [
        b'{"choices":[{"delta":{"content":"an \\"error\\""}}]}',
        b'{"choices":[],"error":null}',
        b'{"type":"response.completed","response":{"error":null}}',
        b'{"type":"response.failed","response":null}',
        b"[DONE]",
        b'"error"',
        b'{"error":',
        b'["error"]',
    ],
)
def test_everything_else_is_none(data: bytes) -> None:
    assert error_of(data) is None
