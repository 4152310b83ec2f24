"""`audit-logger`: the promise that every exchange under this configuration is recorded.

It judges nothing and reads no text. Its presence makes the pipeline say `audits`, and its settings travel with the
pipeline to the audit writer, which keeps the promise. It knows nothing of files, segments or signatures.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from policy.base import Policy, Problem


class AuditLoggerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the exchanges of this configuration are recorded."""

    immutable: Annotated[
        bool,
        Meta(description="Records are append-only and hash-chained. There is no other kind of log here: only `true`."),
    ] = True
    retention_days: Annotated[
        int,
        Meta(ge=1, description="How long a record is kept, in days. Only whole sealed segments are ever removed."),
    ] = 365
    log_all_access: Annotated[
        bool,
        Meta(
            description="Record also what never reached a provider: refused keys, unknown models, blocked requests. "
            "`false` records only exchanges that were sent."
        ),
    ] = True
    checkpoint_seconds: Annotated[
        int,
        Meta(
            ge=1,
            description="While there are new records, a signed checkpoint of each writer's chain is made at least this "
            "often, in seconds.",
        ),
    ] = 60
    checkpoint_records: Annotated[
        int,
        Meta(ge=1, description="A signed checkpoint is made after so many records of a writer at the latest."),
    ] = 50_000
    addresses: Annotated[
        Literal["plain", "committed"],
        Meta(
            description="How the client's address stands in a record: as it is (`plain`), or as a salted commitment "
            "(`committed`), so that `kt audit erase` can make the log forget whose it was."
        ),
    ] = "plain"
    content: Annotated[
        Literal["none", "hash"],
        Meta(
            description="What a record says of the texts: nothing (`none`), or a hash that lets a text be "
            "recognised by whoever has it (`hash`). Never the text."
        ),
    ] = "none"


class AuditLogger(Policy[AuditLoggerSettings]):
    """A policy without hooks: the pipeline carries its settings."""

    kind = "audit-logger"
    Settings = AuditLoggerSettings

    @classmethod
    def check(cls, settings: AuditLoggerSettings) -> list[Problem]:
        """`immutable: false` would be a promise to break the promise."""
        if settings.immutable:
            return []
        return [
            Problem("immutable", "must be true: records cannot be altered; to have none, take the kind off the chain")
        ]
