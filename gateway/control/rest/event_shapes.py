"""What goes in and out of the API about events and usage; like `shapes`, which has the rest."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import Meta

from gateway.control.rest.shapes import Cursor, In, Out

Name = Annotated[str, Meta(min_length=1, max_length=300)]
Status = Annotated[str, Meta(pattern="^([1-5]xx|[1-5][0-9]{2})$", description="A number, or a class as in `4xx`.")]
Outcome = Literal["completed", "refused", "failed", "cancelled", "truncated", "interrupted"]
Verdict = Literal["allow", "redact", "escalate", "block"]
Group = Literal["key", "team", "model", "target", "provider", "configuration", "status"]
Moment = Annotated[datetime, Meta(tz=True)]


class EventFilterQuery(In):
    """Which events. Those fields that are not there are open. Events are exchanges that have ended."""

    key: Annotated[str, Meta(min_length=1, max_length=300, description="A gateway key's id.")] | None = None
    team: Name | None = None
    model: Name | None = None
    target: Name | None = None
    provider: Name | None = None
    configuration: Name | None = None
    operation: Name | None = None
    code: Name | None = None
    policy: Annotated[str, Meta(max_length=300, description="The policy of the strictest verdict.")] | None = None
    status: Status | None = None
    outcome: Outcome | None = None
    verdict: Annotated[Verdict, Meta(description="The strictest one of all policies.")] | None = None
    request: (
        Annotated[str, Meta(max_length=300, description="A request's id: the gateway's or the client's own.")] | None
    ) = None
    since: Moment | None = None
    until: Moment | None = None


class EventQuery(EventFilterQuery):
    """Which events, and which page of them."""

    limit: Annotated[int, Meta(ge=1, le=500, description="How many at most.")] = 50
    cursor: Cursor | None = None


class EventOut(Out):
    """One exchange. `key_name` is null where the key is not there any more. Durations are in microseconds since the
    request came in; `added_us` is when it had been sent to the provider, so what the gateway added."""

    id: str
    request_id: str
    at: datetime
    started_at: datetime | None
    key: str | None
    key_name: str | None
    team: str | None
    model: str | None
    target: str | None
    provider: str | None
    configuration: str | None
    operation: str | None
    code: str | None
    policy: str | None
    status: int | None
    outcome: Outcome
    verdict: Verdict
    duration_us: int | None
    first_byte_us: int | None
    added_us: int | None
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    cost_usd: float | None
    attempts: int
    notes: int


class EventPage(Out):
    """Events, newest first; `next` is null on the last page."""

    data: tuple[EventOut, ...]
    next: str | None


class DecisionOut(Out):
    """What one policy said."""

    policy: str
    phase: Literal["input", "output"]
    verdict: Verdict
    reason: str
    detail: str
    microseconds: int


class RecordOut(Out):
    """One line of the audit log. `hash` is what the line says of itself; `GET /api/v1/audit/verify` judges it."""

    segment: str
    sequence: int
    hash: str
    record: dict[str, Any]


class EventDetail(Out):
    """One exchange in full. `decisions` in the order in which they were made; `records` as they stand in the log."""

    event: EventOut
    client: str | None
    policy_version: str | None
    attributes: dict[str, str]
    bytes_sent: int | None
    decisions: tuple[DecisionOut, ...]
    notes: tuple[str, ...]
    records: tuple[RecordOut, ...]


class Named(Out):
    """A name that events have: of a key, its id, and `label`, the name that people gave it."""

    name: str
    label: str
    events: int
    last_at: datetime


class EventNames(Out):
    """What events can be filtered by, most frequent first."""

    key: tuple[Named, ...]
    team: tuple[Named, ...]
    model: tuple[Named, ...]
    target: tuple[Named, ...]
    provider: tuple[Named, ...]
    configuration: tuple[Named, ...]
    operation: tuple[Named, ...]
    code: tuple[Named, ...]
    policy: tuple[Named, ...]


class UsageQuery(In):
    """Which usage: from `since` to `until` (now), told apart by `by`."""

    since: Moment | None = None
    until: Moment | None = None
    by: Group | None = None
    step: (
        Annotated[Literal["minute", "hour", "day"], Meta(description="Not set: the finest that makes sense.")] | None
    ) = None
    top: Annotated[int, Meta(ge=1, le=1000, description="So many groups; the rest is summed up as one.")] = 7
    key: Name | None = None
    team: Name | None = None
    model: Name | None = None
    target: Name | None = None
    provider: Name | None = None
    configuration: Name | None = None
    format: Literal["json", "csv"] = "json"


class Sums(Out):
    """What was used. `failed` counts answers that broke off, too."""

    requests: int
    completed: int
    refused: int
    failed: int
    cancelled: int
    blocked: int
    redacted: int
    escalated: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    cost_usd: float


class GroupSums(Sums):
    """The sums of one group. `name` is empty for what has none, and null for all that are not among the top."""

    name: str | None
    label: str


class Point(Sums):
    """The sums of one group in one step of time."""

    at: datetime
    name: str | None


class Usage(Out):
    """The sums over the whole time, by group, and by step of time. Steps without requests are left out."""

    since: datetime
    until: datetime
    step: Literal["minute", "hour", "day"]
    total: Sums
    groups: tuple[GroupSums, ...]
    points: tuple[Point, ...]


class Quantiles(Out):
    """Milliseconds; null where there was nothing."""

    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


class Latencies(Out):
    """What the gateway added before the provider was asked; to the first byte of the answer; to its end."""

    added: Quantiles
    first_byte: Quantiles
    duration: Quantiles


class PolicyCounts(Out):
    """How often one policy gave each verdict."""

    policy: str
    allow: int
    redact: int
    escalate: int
    block: int


class OverviewQuery(In):
    """The last hour, six hours, day, week or thirty days."""

    range: Literal["1h", "6h", "24h", "7d", "30d"] = "24h"


class IndexState(Out):
    """Whether figures are up to date: `behind` while the log is being read, `fault` when it cannot be."""

    behind: bool
    fault: bool
    records_missing: int
    """Gaps that the audit log has written down."""


class Overview(Out):
    """The gateway at a glance. `before` are the sums of the time of equal length before `since`."""

    since: datetime
    until: datetime
    step: Literal["minute", "hour", "day"]
    total: Sums
    before: Sums
    latency: Latencies
    points: tuple[Point, ...]
    models: tuple[GroupSums, ...]
    keys: tuple[GroupSums, ...]
    policies: tuple[PolicyCounts, ...]
    index: IndexState


class GapOut(Out):
    """A place in the audit log where records are missing; `records` is null where nobody knows how many."""

    at: datetime
    reason: str
    records: int | None


class AuditState(Out):
    """What the audit log consists of. `since` is a date; `key` names the public key of the signed checkpoints."""

    segments: int
    open: int
    writers: int
    bytes: int
    since: str | None
    checkpoints: int
    key: str | None
    gaps: tuple[GapOut, ...]


class AuditFault(Out):
    """One bad place. `line` counts from 1; null where the file as a whole is meant."""

    file: str
    line: int | None
    fault: str
    message: str


class AuditReport(Out):
    """What was read and what was found. `signed` counts records under signed checkpoints; null without a key."""

    whole: bool
    records: int
    segments: int
    writers: int
    bytes: int
    signed: int | None
    faults: tuple[AuditFault, ...]
