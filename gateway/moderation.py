"""Asking a moderation service, on behalf of `external-moderation`.

The policy writes the question and reads the answer (`policy/external_moderation.py`); here it is sent. Everything that
can be known beforehand (address, head, key) is made when a configuration is compiled. The call runs beside the event
loop's other work, through the providers' pools, within the policy's deadline; whatever goes wrong becomes what its fail
mode says. The service's key is a `Secret` until it goes onto the wire, and neither texts nor answers are ever logged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from gateway.errors import GatewayError, UpstreamTimeout
from gateway.secrets import Secret, read_secret
from gateway.types import (
    Decision,
    Destination,
    Origin,
    Phase,
    PoolSettings,
    Screening,
    Subject,
    TextPart,
    Timeouts,
    Verdict,
)
from gateway.upcall import Upcall
from policy.base import Ruling
from policy.external_moderation import ExternalModeration, ExternalModerationSettings

if TYPE_CHECKING:
    from gateway.services import Services

log = logging.getLogger(__name__)

_STRICTNESS: Final = {Verdict.ALLOW: 0, Verdict.REDACT: 1, Verdict.ESCALATE: 2, Verdict.BLOCK: 3}
_POOL: Final = PoolSettings(max_connections=64, max_queue=256)

Then = Callable[[Screening], None]


class Moderator:
    """One moderation service, as one configuration uses it."""

    def __init__(self, policy: ExternalModeration, configuration_id: str, environment: Mapping[str, str]) -> None:
        """Reads the service's key; without it, the service counts as unavailable."""
        settings = policy.settings
        self.policy = policy
        self.fault = ""
        secret = Secret("")
        if settings.secret_key_ref is not None:
            secret, self.fault = read_secret(settings.secret_key_ref, environment)
        origin, host, path = _parts(settings.url)
        self.head = (
            f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
            "accept: application/json\r\naccept-encoding: identity\r\nuser-agent: keeptrusts-gateway\r\n"
        ).encode()
        self._credential = secret
        self.seconds = settings.deadline_ms / 1000
        self.destination = Destination(
            f"{configuration_id} external-moderation",
            origin,
            _POOL,
            Timeouts(connect_seconds=self.seconds, first_byte_seconds=self.seconds),
        )

    def request_head(self, request_id: str) -> bytes:
        """The request's head for the wire, with the key in it."""
        fields = f"x-request-id: {request_id}\r\n"
        if self._credential:
            fields += f"authorization: Bearer {self._credential.reveal()}\r\n"
        return self.head + fields.encode()


def _parts(url: str) -> tuple[Origin, str, str]:
    parsed = urlsplit(url)
    tls = parsed.scheme == "https"
    usual = 443 if tls else 80
    name = parsed.hostname or ""
    port = parsed.port or usual
    shown = f"[{name}]" if ":" in name else name
    path = (parsed.path or "/") + (f"?{parsed.query}" if parsed.query else "")
    return Origin(name, port, tls=tls), shown if port == usual else f"{shown}:{port}", path


class Moderation:
    """One question to one service; `then` is told what the whole phase says with its answer in it."""

    def __init__(
        self,
        services: Services,
        moderator: Moderator,
        phase: Phase,
        subject: Subject,
        texts: Sequence[TextPart],
        screening: Screening,
        then: Then,
        *,
        delivered: bool = False,
    ) -> None:
        """`screening` is what the other policies of the phase say; `delivered`: it is too late to redact."""
        self._moderator = moderator
        self._phase = phase
        self._screening = screening
        self._then = then
        self._delivered = delivered
        self._clock = services.clock
        self._began = services.clock()
        self._texts = [
            TextPart(screening.replacements[number], part.role, part.kind, part.path)
            if number in screening.replacements
            else part
            for number, part in enumerate(texts)
        ]
        policy = moderator.policy
        self._chosen = policy.chosen(phase, self._texts)
        self._call: Upcall | None = None
        if not self._chosen:
            self._conclude(Ruling(), {})
        elif moderator.fault:
            self._give_up("no-key")
        else:
            self._call = Upcall(
                services.loop,
                services.pool,
                moderator.destination,
                moderator.request_head(subject.request_id),
                policy.question(subject, phase, self._texts, self._chosen),
                seconds=moderator.seconds,
                then=self._answered,
                failed=self._failed,
            )

    def cancel(self) -> None:
        """The client has left."""
        if self._call is not None:
            self._call.cancel()

    def _answered(self, status: int, body: bytes) -> None:
        if status // 100 != 2:
            self._give_up(f"status-{status}")
            return
        try:
            ruling, replacements = self._moderator.policy.read(body, self._texts, self._chosen)
        except ValueError:
            self._give_up("unreadable")
        else:
            self._conclude(ruling, replacements)

    def _failed(self, error: GatewayError) -> None:
        self._give_up("timeout" if isinstance(error, UpstreamTimeout) else "unreachable")

    def _give_up(self, why: str) -> None:
        destination = self._moderator.destination
        log.warning("moderation service not available", extra={"service": str(destination.origin), "reason": why})
        self._conclude(self._moderator.policy.unavailable(why), {})

    def _conclude(self, ruling: Ruling, replacements: Mapping[int, str]) -> None:
        said = Verdict.BLOCK if self._delivered and ruling.verdict is Verdict.REDACT else ruling.verdict
        microseconds = int((self._clock() - self._began) * 1_000_000)
        decision = Decision(self._moderator.policy.kind, self._phase, said, ruling.reason, ruling.detail, microseconds)
        before = self._screening
        decisions = (*before.decisions, decision)
        merged = {**before.replacements, **replacements}
        if _STRICTNESS[said] > _STRICTNESS[before.verdict]:
            kept = {} if said is Verdict.BLOCK else merged
            message = "" if said is Verdict.REDACT else ruling.message
            self._then(Screening(said, decisions, kept, message, before.originals))
        else:
            self._then(Screening(before.verdict, decisions, merged, before.message, before.originals))


def moderator_of(
    policy_settings: ExternalModerationSettings | None, configuration_id: str, environment: Mapping[str, str]
) -> Moderator | None:
    """The moderator of a configuration whose chain has `external-moderation`."""
    if policy_settings is None:
        return None
    return Moderator(ExternalModeration(policy_settings), configuration_id, environment)
