"""An error within a stream of the client's own format: what the provider would have answered, had it failed sooner.

For streams that pass as they are and are still held back. Translated streams need none of it: their readers raise.
Shapes: OpenAI `{"error": {…}}`, Anthropic `{"type": "error", "error": {…}}`, OpenAI Responses `{"type": "error", …}`
and `{"type": "response.failed", "response": {"error": {…}}}`.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from gateway.errors import UpstreamStatus

_STATUSES: Final = {
    "invalid_request_error": 400,
    "authentication_error": 502,  # the gateway's own credentials: nothing that the client could mend
    "permission_error": 502,
    "billing_error": 402,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "tokens": 429,
    "requests": 429,
    "api_error": 500,
    "server_error": 500,
    "overloaded_error": 503,
    "timeout_error": 504,
}


def error_of(data: bytes) -> UpstreamStatus | None:
    """The error that an event's data tells of, or None for every other event."""
    # Events with neither word, nearly all, are not parsed.
    if b'"error"' not in data and b'"response.failed"' not in data:
        return None
    try:
        event = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    error = _told(event) if isinstance(event, dict) else None
    if not error:
        return None
    if isinstance(error, str):
        return UpstreamStatus(502, error, code=None)
    code, kind = error.get("code"), error.get("type")
    return UpstreamStatus(
        _status(code, kind),
        str(error.get("message") or kind or "The provider's stream ended with an error."),
        code=code if isinstance(code, str) else None,
        type=kind if isinstance(kind, str) and kind != "error" else "api_error",
    )


def _status(code: Any, kind: Any) -> int:
    """The code may be a status itself; 401 and 403 are about the gateway's credentials, not the client's."""
    if isinstance(code, int) and 400 <= code < 600:
        return 502 if code in (401, 403) else code
    return next((_STATUSES[word] for word in (kind, code) if isinstance(word, str) and word in _STATUSES), 502)


def _told(event: dict[str, Any]) -> dict[str, Any] | str | None:
    """The error object of an event, by whichever shape it has."""
    if event.get("type") == "response.failed":
        response = event.get("response")
        event = response if isinstance(response, dict) else {}
    error = event.get("error")
    if isinstance(error, dict | str) and error:
        return error
    return event if event.get("type") == "error" else None
