"""An audit log that a test writes as it likes, through the very code that writes real ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gateway.audit.record import Outcome, finish_record, start_record
from gateway.audit.segments import SegmentedChain
from gateway.types import Decision, Phase, Usage, Verdict

WRITER = "9f3a1c2b4d5e6f70"
NOON = 1_750_075_200  # 2025-06-16 12:00 UTC
SECOND = 1_000_000

CLEAN = Decision("pii-detector", Phase.INPUT, Verdict.ALLOW, microseconds=40)
MASKED = Decision("pii-detector", Phase.INPUT, Verdict.REDACT, "pii-detector.email", "email", 60)
REFUSED = Decision("prompt-injection", Phase.INPUT, Verdict.BLOCK, "prompt-injection.rule", "ignore", 30)


class Log:
    """One writer's chain in an audit folder. `at` is in seconds after noon."""

    def __init__(self, folder: Path, writer: str = WRITER) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.chain = SegmentedChain(folder, writer, journal="")

    def write(self, *records: bytes, at: float = 0.0) -> None:
        self.chain.write(records, NOON + at)

    def exchange(self, id: str, at: float = 0.0, **fields: Any) -> None:
        """A start and its finish, a second later."""
        self.write(begun(id, at, **_some(fields, _OF_START)), ended(id, at + 1, **_some(fields, _OF_END)), at=at)


def begun(
    id: str,
    at: float = 0.0,
    *,
    key: str | None = "gk_1",
    team: str | None = "research",
    model: str = "gpt-test",
    decisions: Sequence[Decision] = (CLEAN,),
    client_id: str | None = None,
) -> bytes:
    attributes = {"attributes": {"client_request_id": client_id}} if client_id else {}
    moment = round((NOON + at) * SECOND)
    return start_record(id, moment, key, team, "test", "v1", "chat", model, "127.0.0.1", decisions, **attributes)  # type: ignore[arg-type]


def ended(
    id: str,
    at: float = 1.0,
    *,
    outcome: Outcome = Outcome.COMPLETED,
    status: int = 200,
    code: str | None = None,
    target: str | None = "one",
    usage: Usage | None = Usage(prompt=10, completion=5),  # noqa: B008 (immutable)
    sent_us: int | None = 400,
    answers: Sequence[Decision] = (),
    notes: Sequence[str] = (),
) -> bytes:
    moment = round((NOON + at) * SECOND)
    return finish_record(
        id,
        moment,
        outcome,
        status=status,
        code=code,
        target=target,
        attempts=1,
        usage=usage,
        bytes_sent=700,
        duration_us=900_000,
        first_byte_us=300_000,
        sent_us=sent_us,
        decisions=answers,
        notes=notes,
    )


BLOCKED: dict[str, Any] = {
    "decisions": (CLEAN, REFUSED),
    "outcome": Outcome.REFUSED,
    "status": 409,
    "code": "input_blocked",
    "target": None,
    "usage": None,
    "sent_us": None,
}

_OF_START = ("key", "team", "model", "decisions", "client_id")
_OF_END = ("outcome", "status", "code", "target", "usage", "sent_us", "answers", "notes")


def _some(fields: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name in names}
