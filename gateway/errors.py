"""The one error tree, and the one place where an error becomes an answer.

Each class says its HTTP status, its stable `code`, its `type`, where the fault lies (`source`) and whether the gateway
may try another target (`retryable`). Errors are raised where the fact is known; `envelope` turns one into the body that
the client's own SDK understands. Nobody parses a message. `docs/errors.md` has a heading for every code; a test
compares the two.
"""

from __future__ import annotations

import enum
from typing import ClassVar

import orjson


class Source(enum.StrEnum):
    """Where the fault lies."""

    DOWNSTREAM = "downstream"
    GATEWAY = "gateway"
    UPSTREAM = "upstream"


class Wire(enum.StrEnum):
    """Whose error shape the client reads."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"


class GatewayError(Exception):
    """An answer that the gateway makes itself. `message` is for the developer and says the next step."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    type: ClassVar[str] = "server_error"
    source: ClassVar[Source] = Source.GATEWAY
    retryable: ClassVar[bool] = False
    closes: ClassVar[bool] = False
    """The downstream connection cannot be trusted any more and is closed after the answer."""

    def __init__(
        self, message: str = "", *, param: str | None = None, headers: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        super().__init__(message)
        self.message = message or (type(self).__doc__ or "").strip()
        self.param = param
        self.headers = headers

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.status} {self.code}: {self.message})"


class DownstreamError(GatewayError):
    """The request cannot be served as it came."""

    status = 400
    code = "invalid_request"
    type = "invalid_request_error"
    source = Source.DOWNSTREAM


class MalformedHTTP(DownstreamError):
    """The request is not well-formed HTTP/1.1 (RFC 9112); anything ambiguous is refused."""

    code = "malformed_http"
    closes = True


class HeadTooLarge(MalformedHTTP):
    """The request head exceeds a limit of the gateway."""

    status = 431
    code = "request_head_too_large"


class TargetTooLong(MalformedHTTP):
    """The request target exceeds the gateway's limit."""

    status = 414
    code = "request_target_too_long"


class RequestTimeout(DownstreamError):
    """The request did not arrive in time."""

    status = 408
    code = "request_timeout"
    closes = True


class RequestTooLarge(DownstreamError):
    """The request body exceeds the gateway's limit."""

    status = 413
    code = "request_too_large"
    closes = True


class InvalidJSON(DownstreamError):
    """The request body is not valid JSON."""

    code = "invalid_json"


class InvalidRequest(DownstreamError):
    """The request body does not have the shape that this endpoint takes."""


class UnsupportedEncoding(DownstreamError):
    """The request's Content-Encoding is not supported; send the body as it is."""

    status = 415
    code = "unsupported_encoding"


class ExpectationFailed(DownstreamError):
    """Only `Expect: 100-continue` is understood (RFC 9110, section 10.1.1)."""

    status = 417
    code = "expectation_failed"


class InvalidAPIKey(DownstreamError):
    """The gateway key is missing, unknown, expired or revoked."""

    status = 401
    code = "invalid_api_key"
    type = "authentication_error"
    reason = "unknown"
    """For the metric only: which of the four it was."""


class AddressNotAllowed(DownstreamError):
    """The client's address is not among those that may use the gateway."""

    status = 403
    code = "address_not_allowed"
    type = "permission_error"
    closes = True


class NotSignedIn(DownstreamError):
    """This path wants a session or an access key."""

    status = 401
    code = "not_signed_in"
    type = "authentication_error"


class SignInFailed(NotSignedIn):
    """The e-mail address and the password, or the link, or the provider's answer, are not right."""

    code = "sign_in_failed"


class TooManyAttempts(DownstreamError):
    """Too many failed attempts to sign in."""

    status = 429
    code = "too_many_attempts"
    type = "rate_limit_error"


class PermissionDenied(DownstreamError):
    """The role of who asks does not allow it."""

    status = 403
    code = "permission_denied"
    type = "permission_error"


class CSRFRefused(DownstreamError):
    """A request that a session's cookie came with lacks its CSRF token, or comes from a page of another origin."""

    status = 403
    code = "csrf_refused"
    type = "permission_error"


class Conflict(DownstreamError):
    """It contradicts what there is: a name is taken, or something else needs it."""

    status = 409
    code = "conflict"


class VersionMismatch(DownstreamError):
    """Somebody else has changed it in the meantime: get it again, and change that."""

    status = 412
    code = "version_mismatch"


class VersionRequired(DownstreamError):
    """Say with `If-Match` which version you have changed."""

    status = 428
    code = "version_required"


class ConfigurationRefused(DownstreamError):
    """The text is no configuration that could come into force."""

    status = 422
    code = "configuration_invalid"


class ForbiddenOrigin(DownstreamError):
    """A request without a key is served only for a loopback Host, without a foreign Origin, and not through a proxy."""

    status = 403
    code = "forbidden_origin"
    type = "permission_error"


class ModelNotAllowed(DownstreamError):
    """The gateway key does not allow this model."""

    status = 403
    code = "model_not_allowed"
    type = "permission_error"


class ModelNotFound(DownstreamError):
    """No target of this configuration offers the model."""

    status = 404
    code = "model_not_found"


class NotFound(DownstreamError):
    """No such path."""

    status = 404
    code = "not_found"


class MethodNotAllowed(DownstreamError):
    """The path exists, but not for this method."""

    status = 405
    code = "method_not_allowed"


class RateLimited(DownstreamError):
    """The key's rate limit is used up."""

    status = 429
    code = "rate_limit_exceeded"
    type = "rate_limit_error"


class BudgetExceeded(RateLimited):
    """The key's budget is used up."""

    code = "budget_exceeded"
    type = "insufficient_quota"


class UpgradeRequired(DownstreamError):
    """This path is served over a WebSocket, of version 13."""

    status = 426
    code = "upgrade_required"


class PolicyRefusal(DownstreamError):
    """A policy refused. Always with `x-should-retry: false`: official SDKs retry 409 otherwise."""

    status = 409
    code = "input_blocked"
    type = "policy_violation"

    def __init__(self, message: str, *, policy: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        super().__init__(message, headers=(*headers, (b"x-should-retry", b"false")))
        self.policy = policy


class InputBlocked(PolicyRefusal):
    """An input policy refused the request."""


class OutputBlocked(PolicyRefusal):
    """An output policy refused the answer."""

    code = "output_blocked"


class EscalationRequired(PolicyRefusal):
    """A person must approve the request first."""

    code = "escalation_required"

    def __init__(self, message: str, *, policy: str, escalation: str | None = None) -> None:
        """`escalation` is the id by which the request waits, where it does."""
        fields = () if escalation is None else ((b"x-kt-escalation-id", escalation.encode()),)
        super().__init__(message, policy=policy, headers=fields)
        self.escalation = escalation


class InternalError(GatewayError):
    """A fault of the gateway itself; the request id finds it in the log."""


class Overloaded(GatewayError):
    """The gateway has no room for the request right now."""

    status = 503
    code = "overloaded"


class Draining(GatewayError):
    """The gateway is shutting down; another instance will answer."""

    status = 503
    code = "draining"
    closes = True


class AuditUnavailable(GatewayError):
    """The audit log cannot take a record, and the configuration says that nothing happens unrecorded."""

    status = 503
    code = "audit_unavailable"


class UpstreamError(GatewayError):
    """The provider could not be used."""

    status = 502
    code = "upstream_unreachable"
    source = Source.UPSTREAM
    retryable = True


class UpstreamUnreachable(UpstreamError):
    """No connection to the provider could be made."""


class UpstreamReset(UpstreamError):
    """The provider closed the connection before the answer was complete."""

    code = "upstream_reset"
    reused: bool = False
    """The connection had served other requests and closed before any byte of this answer: it was probably stale."""


class UpstreamInvalid(UpstreamError):
    """The provider's answer is not what its protocol says."""

    code = "upstream_invalid"


class UpstreamTimeout(UpstreamError):
    """The provider did not answer in time."""

    status = 504
    code = "upstream_timeout"


class UpstreamUnavailable(UpstreamError):
    """No target of this model can be used right now."""

    status = 503
    code = "upstream_unavailable"


class UpstreamAuthFailed(UpstreamError):
    """The provider refused the gateway's own credentials; the operator must mend them, the developer cannot."""

    code = "upstream_auth_failed"

    def __init__(self, message: str = "") -> None:
        super().__init__(message, headers=((b"x-should-retry", b"false"),))


class UpstreamStatus(UpstreamError):
    """The provider's own error, mapped into the client's format. `status` and `code` are the provider's."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None,
        type: str = "api_error",
        param: str | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(message, param=param, headers=headers)
        self.status = status  # type: ignore[misc]
        self.code = code  # type: ignore[misc,assignment]
        self.type = type  # type: ignore[misc]
        self.retryable = status == 429 or status >= 500  # type: ignore[misc]


# Anthropic's own names for error types: https://docs.claude.com/en/api/errors
_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "invalid_request_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def envelope(error: GatewayError, request_id: str, wire: Wire = Wire.OPENAI) -> bytes:
    """The JSON body of an error answer, in the shape that the client's SDK turns into its own exception."""
    extras: dict[str, str | None] = {"policy": error.policy} if isinstance(error, PolicyRefusal) else {}
    if isinstance(error, EscalationRequired):
        extras["escalation_id"] = error.escalation
    if wire is Wire.ANTHROPIC:
        kind = _ANTHROPIC_TYPES.get(error.status, "overloaded_error" if error.status == 503 else "api_error")
        return orjson.dumps(
            {
                "type": "error",
                "error": {"type": kind, "message": error.message, "code": error.code, **extras},
                "request_id": request_id,
            }
        )
    return orjson.dumps(
        {
            "error": {
                "message": error.message,
                "type": error.type,
                "param": error.param,
                "code": error.code,
                **extras,
                "request_id": request_id,
            }
        }
    )


def event(error: GatewayError, request_id: str, wire: Wire = Wire.OPENAI) -> bytes:
    """The error as the last SSE event of a stream that has already begun. No `[DONE]` or `message_stop` follows it."""
    body = envelope(error, request_id, wire)
    return b"event: error\ndata: %b\n\n" % body if wire is Wire.ANTHROPIC else b"data: %b\n\n" % body
