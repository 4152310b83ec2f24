"""A provider's error answer as the gateway's error.

Providers write errors in a few shapes, all of them read here: OpenAI's and Azure's `{"error": {message, type, code,
param}}`, Anthropic's `{"type": "error", "error": {type, message}}`, Google's `{"error": {code, message, status}}`
(also in a list), Mistral's and Cohere's `{"message": …}`, FastAPI's `{"detail": …}`, Ollama's `{"error": "…"}`. What
cannot be read is quoted, shortened. The provider's status stays, with two exceptions: a refused credential of the
gateway is not the client's fault (502), and Anthropic's 529 is what everybody else calls 503.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from gateway.errors import UpstreamAuthFailed, UpstreamError, UpstreamStatus
from gateway.types import ResponseHead

MAX_MESSAGE_CHARS = 4000
_QUOTED_CHARS = 300

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "invalid_request_error",
    409: "invalid_request_error",
    413: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
}
_KEPT_HEADERS = (b"retry-after", b"retry-after-ms", b"x-should-retry")
_KEPT_PREFIXES = (b"x-ratelimit-", b"anthropic-ratelimit-")
_BAD_KEY = re.compile(rb'"reason":\s*"API_KEY_INVALID"')
"""Google answers 400 where others answer 401."""
_RETRY_DELAY = re.compile(rb'"retryDelay":\s*"(\d+)(?:\.\d+)?s"')
_CREDIT = re.compile(r"credit balance is too low", re.IGNORECASE)
_TAG = re.compile(r"<[^>]*>|\s+")


def read(head: ResponseHead, body: bytes, provider: str, *, passthrough: bool = False) -> UpstreamError:
    """The error to raise for a non-2xx answer.

    `passthrough`: the credential was the client's own, so its being refused is the client's to know.
    """
    if (head.status in (401, 403) or _BAD_KEY.search(body)) and not passthrough:
        return UpstreamAuthFailed(
            f"{provider} refused the gateway's credentials ({head.status}); the operator must mend them."
        )
    fields = _fields(body)
    if "code" not in fields and (kind := head.get(b"x-amzn-errortype")) is not None:
        fields["code"] = kind.partition(b":")[0].decode("latin-1")
    message = fields.get("message") or _quote(body) or f"{provider} answered {head.status} without a message."
    status = _status(head.status, message)
    return UpstreamStatus(
        status,
        message[:MAX_MESSAGE_CHARS],
        code=fields.get("code"),
        type=fields.get("type") or _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error"),
        param=fields.get("param"),
        headers=_kept(head, body),
    )


def _status(status: int, message: str) -> int:
    if status == 529:
        return 503
    if status == 400 and _CREDIT.search(message):
        return 402  # Anthropic's way to say that the account is empty
    if status < 400:
        return 502  # a redirect or an informational answer is no error of the client's
    return status


def _kept(head: ResponseHead, body: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """When to come back, and what is left. Google says it in the body."""
    kept = [(name, value) for name, value in head.headers if name in _KEPT_HEADERS or name.startswith(_KEPT_PREFIXES)]
    if head.status == 429 and (delay := _RETRY_DELAY.search(body)) and not head.get(b"retry-after"):
        kept.append((b"retry-after", delay[1]))
    return tuple(kept)


_MESSAGES = ("message", "Message", "detail")


def _fields(body: bytes) -> dict[str, str]:
    try:
        tree = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    if isinstance(tree, list) and tree:
        tree = tree[0]
    if not isinstance(tree, dict):
        return {}
    error = tree.get("error")
    fields = error if isinstance(error, dict) else {**tree, "message": error or tree.get("message")}
    found = {
        "message": next((text for key in _MESSAGES if (text := _text(fields.get(key)) or _text(tree.get(key)))), None),
        "type": _text(fields.get("type")),
        "code": _code(fields),
        "param": _text(fields.get("param")),
    }
    return {key: value for key, value in found.items() if value}


def _code(fields: dict[str, Any]) -> str | None:
    """OpenAI's `code` is a word; Google's is the status number, and the word is in `status`."""
    code = fields.get("code")
    if isinstance(code, str) and code:
        return code
    status = fields.get("status")
    return status if isinstance(status, str) and status else None


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    return orjson.dumps(value).decode() if isinstance(value, list | dict) and value else None


def _quote(body: bytes) -> str:
    """The beginning of an answer that is not JSON, without tags and line ends."""
    return _TAG.sub(" ", body[: 4 * _QUOTED_CHARS].decode("utf-8", "replace")).strip()[:_QUOTED_CHARS]
