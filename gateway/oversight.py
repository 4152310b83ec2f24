"""Requests that wait for a person: how a worker brings one to the queue, and lets an approved one through, once.

The queue is in the control process's store (`control/escalations.py`), which all workers and nodes share. A worker that
has escalated a request asks it by one call on the control socket: is there an approval for exactly this request? Then
the approval is used up, and the request goes on. If not, it is in the queue now, and the client is told its id. If the
control process is away, nobody can approve anything: the request is refused.

What "exactly this request" means is a hash over the key, the configuration and its policies, the operation, the model
and the body's bytes.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import msgspec
import orjson

from gateway.errors import GatewayError
from gateway.ports import Pool
from gateway.types import Destination, Screening, Subject, TextPart
from gateway.upcall import Upcall

if TYPE_CHECKING:
    from policy.human_oversight import HumanOversightSettings

log = logging.getLogger(__name__)

PATH: Final = "/internal/escalations"
"""Where the control process takes referrals; not relayed from the public port."""

DEADLINE_SECONDS: Final = 5.0
MAX_TEXT_CHARACTERS: Final = 20_000
"""So much of a request's texts is kept for its reviewer, where that is asked for."""


class Referral(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker tells of an escalated request."""

    fingerprint: str
    valid_seconds: float
    request_id: str
    key_id: str | None = None
    key_name: str | None = None
    team: str | None = None
    configuration_id: str = ""
    model: str = ""
    operation: str = ""
    policy: str = ""
    reason: str = ""
    detail: str = ""
    text: str | None = None


class Answer(msgspec.Struct, frozen=True):
    """What the queue says: `approved` (and used up by this answer), `pending` or `refused`."""

    state: str
    id: str


Then = Callable[[Answer | None], None]
"""Told the queue's answer; None: it cannot be asked."""


def fingerprint(subject: Subject, pipeline_version: str, body: bytes) -> str:
    """The same for two requests exactly if an approval of one is an approval of the other."""
    parts = (subject.key_id or "", subject.configuration_id, pipeline_version, subject.operation, subject.model)
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode("utf-8", "replace") + b"\0")
    digest.update(body)
    return digest.hexdigest()


def referral(
    subject: Subject,
    settings: HumanOversightSettings,
    screening: Screening,
    texts: Sequence[TextPart],
    mark: str,
) -> Referral:
    """What to tell the queue of a request whose fingerprint is `mark`."""
    decision = screening.refusing
    shown = None
    if settings.show_text:
        pieces = (f"[{part.role}] {screening.replacements.get(number, part.text)}" for number, part in enumerate(texts))
        shown = "\n\n".join(pieces)[:MAX_TEXT_CHARACTERS].encode("utf-8", "replace").decode()
    return Referral(
        fingerprint=mark,
        valid_seconds=settings.valid_hours * 3600,
        request_id=subject.request_id,
        key_id=subject.key_id,
        key_name=subject.key_name,
        team=subject.team,
        configuration_id=subject.configuration_id,
        model=subject.model,
        operation=subject.operation,
        policy=decision.policy if decision else "",
        reason=decision.reason if decision else "",
        detail=decision.detail if decision else "",
        text=shown,
    )


class Oversight:
    """A worker's way to the queue."""

    def __init__(self, loop: asyncio.AbstractEventLoop, pool: Pool, control: Destination) -> None:
        self._loop = loop
        self._pool = pool
        self._control = control

    def refer(self, told: Referral, then: Then) -> Upcall:
        """Ask for an approval, or queue the request."""

        def answered(status: int, body: bytes) -> None:
            try:
                answer = msgspec.json.decode(body, type=Answer) if status == 200 else None
            except msgspec.DecodeError:
                answer = None
            if answer is None:
                log.warning("an escalated request could not be queued", extra={"status": status})
            then(answer)

        def failed(error: GatewayError) -> None:
            log.warning("an escalated request could not be queued", extra={"reason": error.code})
            then(None)

        head = f"POST {PATH} HTTP/1.1\r\nhost: control\r\ncontent-type: application/json\r\n".encode()
        body = orjson.dumps(msgspec.to_builtins(told))
        return Upcall(
            self._loop,
            self._pool,
            self._control,
            head,
            body,
            seconds=DEADLINE_SECONDS,
            then=answered,
            failed=failed,
        )


def told_client(screening: Screening, answer: Answer | None) -> str:
    """The sentence for the client of a request that may not go on."""
    why = screening.message or "This request needs the approval of a person."
    if answer is None:
        return f"{why} It could not be brought before one; try again in a moment."
    if answer.state == "refused":
        return f"{why} A person has refused it (escalation {answer.id})."
    return f"{why} It waits for one as escalation {answer.id}; once approved, send the same request again."
