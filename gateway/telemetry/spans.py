"""What an exchange's audit record says in OpenTelemetry's words: a server span, a client span under it, measurements.

Attributes are those of the semantic conventions for HTTP and for generative AI (opentelemetry.io/docs/specs/semconv,
`http.*` and `gen_ai.*`), and `keeptrusts.*` for what only a gateway knows. There is no text of a prompt or an answer in
them, since there is none in the record. Rows go in, plain values come out: no SDK, no clock, no socket.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

Row = Mapping[str, Any]
Value = str | int | float | bool | Sequence[str]

TRACEPARENT: Final = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
"""W3C Trace Context, section 3.2: version 00; an id of zeros is none."""
_PATHS: Final = {
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
    "completions": "/v1/completions",
    "embeddings": "/v1/embeddings",
    "moderations": "/v1/moderations",
    "speech": "/v1/audio/speech",
    "transcriptions": "/v1/audio/transcriptions",
    "translations": "/v1/audio/translations",
    "images": "/v1/images/generations",
    "image_edits": "/v1/images/edits",
    "image_variations": "/v1/images/variations",
    "count_tokens": "/v1/messages/count_tokens",
}
_OPERATIONS: Final = {"completions": "text_completion", "embeddings": "embeddings"}
"""`gen_ai.operation.name`; whatever else there is counts as `chat`, or as its own name where it makes no text."""
_CHATS: Final = ("chat", "responses", "messages")
_PROVIDERS: Final = {
    "azure-openai": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "vertex": "gcp.vertex_ai",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "xai": "x_ai",
}
"""`gen_ai.provider.name` where it is not ours."""


class Parent(NamedTuple):
    """The client's own span, by its `traceparent`."""

    trace_id: int
    span_id: int
    sampled: bool


class Span(NamedTuple):
    """One span. Times are Unix nanoseconds; `error` is the stable code of what went wrong, empty where nothing did."""

    name: str
    kind: str
    start: int
    end: int
    attributes: Mapping[str, Value]
    events: Sequence[tuple[str, int, Mapping[str, Value]]] = ()
    error: str = ""


class Measured(NamedTuple):
    """What the metrics of the conventions are fed with. Seconds; None where it was not measured."""

    attributes: Mapping[str, Value]
    duration: float
    first_byte: float | None
    input_tokens: int
    output_tokens: int


class Exchange(NamedTuple):
    """One exchange as telemetry. `client` None: no provider was asked."""

    parent: Parent | None
    server: Span
    client: Span | None
    measured: Measured | None


def parent_of(traceparent: str | None) -> Parent | None:
    """The span that a field's value names; None for what names none."""
    match = TRACEPARENT.fullmatch(traceparent or "")
    return Parent(int(match[1], 16), int(match[2], 16), bool(int(match[3], 16) & 1)) if match else None


def exchange_of(row: Row, providers: Mapping[tuple[str, str], str]) -> Exchange | None:
    """A row of the audit log as telemetry; None for what is no exchange, or has no beginning or no measured end.

    `providers` has the provider of each (configuration, target).
    """
    duration = row.get("duration_us")
    if row.get("kind") != "exchange" or row.get("started_at") is None or duration is None:
        return None
    # The finish record is the later of two looks at the clock; what came before is measured from it, monotonically.
    end = _nanoseconds(row["finished_at"])
    start = end - int(duration) * 1000
    provider = providers.get((str(row.get("configuration")), str(row.get("target"))), "")
    client = _client(row, provider, start, end) if row.get("target") else None
    measured = _measured(row, client) if client is not None else None
    attributes = row.get("attributes") or {}
    return Exchange(parent_of(attributes.get("traceparent")), _server(row, start, end), client, measured)


def _server(row: Row, start: int, end: int) -> Span:
    operation = str(row.get("operation") or "")
    path = _PATHS.get(operation, "")
    attributes: dict[str, Value] = {
        "http.request.method": "POST",
        "keeptrusts.request_id": row["id"],
        "keeptrusts.configuration": row.get("configuration") or "",
        "keeptrusts.outcome": row["outcome"],
        "keeptrusts.attempts": row.get("attempts") or 0,
    }
    optional = {
        "http.route": path,
        "http.response.status_code": row.get("status"),
        "client.address": row.get("client"),
        "keeptrusts.key_id": row.get("key"),
        "keeptrusts.team": row.get("team"),
        "error.type": row.get("code"),
    }
    attributes |= {name: value for name, value in optional.items() if value not in (None, "")}
    for stage, microseconds in (row.get("stages_us") or {}).items():
        attributes[f"keeptrusts.stage.{stage}"] = microseconds / 1_000_000
    if notes := row.get("notes"):
        attributes["keeptrusts.translation_notes"] = [str(note) for note in notes]
    status = row.get("status") or 0
    # HTTP conventions: of a server's span only 5xx is an error; that a client asked for the wrong thing is none.
    error = str(row.get("code") or row["outcome"]) if status >= 500 or row["outcome"] == "truncated" else ""
    return Span(f"POST {path}" if path else operation, "server", start, end, attributes, _decisions(row, start), error)


def _decisions(row: Row, start: int) -> list[tuple[str, int, Mapping[str, Value]]]:
    """Each policy's verdict as an event. When it fell is not recorded: input's begins, output's ends it."""
    events: list[tuple[str, int, Mapping[str, Value]]] = []
    for decision in row.get("decisions") or ():
        at = start if decision.get("phase") == "input" else _nanoseconds(row["finished_at"])
        fields = ("policy", "phase", "verdict", "reason", "microseconds")
        events.append(
            (
                "keeptrusts.policy",
                at,
                {f"keeptrusts.policy.{name}": decision[name] for name in fields if decision.get(name)},
            )
        )
    return events


def _client(row: Row, provider: str, start: int, end: int) -> Span:
    operation = _operation(row)
    model = str(row.get("model") or "")
    attributes: dict[str, Value] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": _PROVIDERS.get(provider, provider or "_OTHER"),
        "gen_ai.request.model": model,
        "keeptrusts.target": str(row["target"]),
    }
    usage = {
        "gen_ai.usage.input_tokens": row.get("prompt_tokens"),
        "gen_ai.usage.output_tokens": row.get("completion_tokens"),
        "gen_ai.usage.cache_read.input_tokens": row.get("cached_tokens"),
    }
    attributes |= {name: count for name, count in usage.items() if count}
    if (cost := row.get("cost_nanousd")) is not None:
        attributes["keeptrusts.cost_usd"] = cost / 1e9
    error = ""
    if row["outcome"] in ("failed", "truncated", "cancelled"):
        error = attributes["error.type"] = str(row.get("code") or row["outcome"])
    sent = row.get("sent_us")
    return Span(f"{operation} {model}", "client", start + int(sent or 0) * 1000, end, attributes, (), error)


def _operation(row: Row) -> str:
    operation = str(row.get("operation") or "").partition(".")[0]
    return "chat" if operation in _CHATS else _OPERATIONS.get(operation, operation or "chat")


def _measured(row: Row, client: Span) -> Measured:
    names = ("gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model", "error.type")
    attributes = {name: client.attributes[name] for name in names if name in client.attributes}
    sent = int(row.get("sent_us") or 0)
    first = row.get("first_byte_us")
    return Measured(
        attributes,
        (client.end - client.start) / 1e9,
        None if first is None else max(int(first) - sent, 0) / 1e6,
        int(row.get("prompt_tokens") or 0),
        int(row.get("completion_tokens") or 0),
    )


def _nanoseconds(iso: str) -> int:
    """A time of the log (ISO 8601, UTC, milliseconds) as Unix nanoseconds."""
    return round(datetime.fromisoformat(iso).timestamp() * 1000) * 1_000_000
