"""One message of a client before the policies of its key: read, screened, and what becomes of it.

It is the input phase of an exchange for a text that comes as a message (`exchange.py` has it for bodies): a small one
is judged in the same call, a large one in a thread; a moderation service or a person may be asked besides. It decides
nothing that needs to know the conversation, and sends nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from gateway.conversation_models import refusal_of, subject_of
from gateway.errors import EscalationRequired, GatewayError, InternalError
from gateway.exchange import GLANCE_INLINE_BYTES, SCREEN_SECONDS
from gateway.moderation import Moderation
from gateway.oversight import Answer, fingerprint, referral, told_client
from gateway.types import ALLOWED, Decision, Phase, Screening, Subject, TextPart, Verdict
from policy.base import INLINE_BYTES, CrowdedError
from translators import realtime

if TYPE_CHECKING:
    from gateway.services import Services
    from gateway.snapshot import Binding
    from gateway.upcall import Upcall
    from translators.realtime import ClientEvent

_NEVER: Final = float("inf")
_NOTHING: Final[Mapping[str, str]] = {}

Then = Callable[["Examination", GatewayError | None], None]
"""Told once what the policies say: None, the message may go on."""


class Examination:
    """One message. `event` is what it says, None where it cannot be read. When `then` is called without an error,
    `values` are the texts that take the place of others, by their paths, and `originals` what is to come back for the
    placeholders among them."""

    __slots__ = (
        "_asking", "_binding", "_operation", "_over", "_services", "_then", "deadline", "decisions", "event", "id",
        "message", "model", "originals", "texts", "values",
    )  # fmt: skip

    def __init__(
        self, services: Services, binding: Binding, operation: str, model: str, message: bytes, then: Then
    ) -> None:
        """`model` is the one of the conversation, where the message itself names none."""
        self._services = services
        self._binding = binding
        self._operation = operation
        self._then = then
        self._over = False
        self._asking: Moderation | Upcall | None = None
        self.id = services.next_id()
        self.message = message
        self.model = model
        self.event: ClientEvent | None = None
        self.deadline = _NEVER
        self.texts: Sequence[TextPart] = ()
        self.values: Mapping[str, str] = _NOTHING
        self.originals: Mapping[str, str] = _NOTHING
        self.decisions: tuple[Decision, ...] = ()

    def __repr__(self) -> str:
        return f"<Examination {self.id} of {len(self.message)} bytes{', over' if self._over else ''}>"

    def begin(self) -> None:
        """Judge the message; `then` is called within this call where nothing has to be waited for."""
        if len(self.message) <= INLINE_BYTES:
            try:
                screening = self._look(inline=True)
            except CrowdedError:
                pass  # more is in it than its size says
            except Exception as error:
                self._conclude(error)
                return
            else:
                self._go_on(screening)
                return
        self.deadline = self._services.clock() + SCREEN_SECONDS
        self._services.run_in_thread(self._look, self._looked)

    def overdue(self) -> None:
        """The thread takes too long: what that means, the fail mode says."""
        self._looked(self._binding.configuration.pipeline.overdue(Phase.INPUT))

    def cancel(self) -> None:
        """The client has left."""
        self._over = True
        if self._asking is not None:
            self._asking.cancel()

    @property
    def subject(self) -> Subject:
        """Who asks for what, as policies see it."""
        return subject_of(self._binding, self.id, self.model, self._operation)

    def _look(self, *, inline: bool = False) -> Screening:
        """Read the message, and what its own policies say; perhaps in a thread. Raises GatewayError and, if `inline`,
        CrowdedError."""
        event = self.event = realtime.read(self.message)
        self.model = event.models.get("model", self.model)
        pipeline = self._binding.configuration.pipeline
        if not pipeline.reads_input:
            return ALLOWED
        if len(self.message) <= GLANCE_INLINE_BYTES and (clean := pipeline.glance(self.message)) is not None:
            return clean
        self.texts = event.texts()
        if not (self.texts or event.models or event.creates):
            return ALLOWED  # nothing of it reaches a model
        if inline and len(self.message) > pipeline.screens_inline:
            raise CrowdedError
        return pipeline.screen(self.subject, self.texts, inline=inline)

    def _looked(self, screening: Screening | BaseException) -> None:
        """A thread has judged it, or will not in time; whichever comes first."""
        if self._over or self.deadline == _NEVER:
            return
        self.deadline = _NEVER
        if isinstance(screening, BaseException):
            self._conclude(screening)
        else:
            self._go_on(screening)

    def _go_on(self, screening: Screening) -> None:
        moderator = self._binding.configuration.moderator
        asks = moderator is not None and Phase.INPUT in moderator.policy.phases and self.texts
        if moderator is None or not asks or screening.verdict is Verdict.BLOCK:
            self._act_on(screening)
        else:
            self._asking = Moderation(
                self._services, moderator, Phase.INPUT, self.subject, self.texts, screening, self._act_on
            )

    def _act_on(self, screening: Screening) -> None:
        """Let the message go on, refuse it, or bring it before a person."""
        self._asking = None
        if self._over:
            return
        self.decisions = screening.decisions
        if screening.verdict in (Verdict.ALLOW, Verdict.REDACT):
            self._take(screening)
            self._conclude(None)
        elif screening.verdict is Verdict.BLOCK or not self._refer(screening):
            self._conclude(refusal_of(screening))

    def _take(self, screening: Screening) -> None:
        self.values = {self.texts[number].path: text for number, text in screening.replacements.items()}
        self.originals = screening.originals

    def _refer(self, screening: Screening) -> bool:
        """Bring an escalated message before a person. False: nobody is there."""
        pipeline, oversight = self._binding.configuration.pipeline, self._services.oversight
        if pipeline.oversight is None or oversight is None:
            return False
        mark = fingerprint(self.subject, pipeline.version, self.message)
        told = referral(self.subject, pipeline.oversight, screening, self.texts, mark)
        self._asking = oversight.refer(told, partial(self._answered, screening))
        return True

    def _answered(self, screening: Screening, answer: Answer | None) -> None:
        """The queue has answered: an approval lets the message through, once."""
        self._asking = None
        if self._over:
            return
        if answer is None or answer.state != "approved":
            refusing = screening.refusing
            policy = refusing.policy if refusing else "human-oversight"
            told = told_client(screening, answer)
            self._conclude(EscalationRequired(told, policy=policy, escalation=answer.id if answer else None))
            return
        approved = Decision("human-oversight", Phase.INPUT, Verdict.ALLOW, "human-oversight.approved", answer.id)
        self.decisions = (*screening.decisions, approved)
        self._take(screening)
        self._conclude(None)

    def _conclude(self, error: BaseException | None) -> None:
        self._over = True
        if error is not None and not isinstance(error, GatewayError):
            if isinstance(error, Exception):
                self._services.report_bug(repr(self), error)
            error = InternalError("The gateway failed; the request id finds the fault in its log.")
        self._then(self, error)
