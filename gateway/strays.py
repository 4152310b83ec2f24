"""Texts of a provider that belong to no response: what a user was heard to say, items that are shown again.

They pass the same policies as answers do. A transcript in pieces is guarded as it flows; whole texts are judged whole.
With `streaming: buffer` in the chain the pieces are left out, and the whole transcript comes when it has been judged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.conversation_models import subject_of
from gateway.errors import GatewayError, OutputBlocked
from gateway.guard import PolicyChange, Replacing
from gateway.types import Decision, Delivery, Subject, TextPart, Verdict
from policy.restore import Memory, Restorer
from translators.realtime_answers import MessageEditor, RealtimeEditor, ServerEvent, error_event

if TYPE_CHECKING:
    from gateway.services import Services
    from gateway.snapshot import Binding
    from policy.guard import Guard
    from translators.editing import Change

MAX_OPEN: Final = 64
"""Transcripts that may be under way at the same time; a user says one thing after the other."""


class Strays:
    """The stray texts of one conversation of the Realtime API. `decisions` are those that had something to say."""

    def __init__(self, services: Services, socket_id: str, operation: str, model: str, memory: Memory) -> None:
        self._services = services
        self._socket_id = socket_id
        self._operation = operation
        self._model = model
        self._memory = memory
        self._open: dict[str, tuple[MessageEditor, Guard | None]] = {}
        self._decisions: dict[str, Decision] = {}

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """What policies said of these texts, one for each policy."""
        return tuple(self._decisions.values())

    def feed(self, binding: Binding, event: ServerEvent, message: bytes) -> list[bytes]:
        """What goes to the client for one event: the very object where nothing changes, an error where a policy
        refuses it."""
        if not (event.transcribes or event.answers or event.item is not None):
            return [message]
        own = event.repeats_client and message.find(b'"input_audio"') < 0
        try:
            if own:
                return self._restored(message)
            if binding.configuration.pipeline.delivery is Delivery.BUFFER:
                return self._judged_whole(binding, event, message)
            return self._guarded(binding, event, message)
        except GatewayError as error:
            return [error_event(error, self._socket_id, realtime=True)]

    def _restored(self, message: bytes) -> list[bytes]:
        """The client's own words, which were screened when they came, with the values that left as placeholders."""
        if not self._memory.originals:
            return [message]
        editor = self._editor(PolicyChange(None, Restorer(self._memory.originals)))
        return editor.feed(message) + editor.finish()

    def _guarded(self, binding: Binding, event: ServerEvent, message: bytes) -> list[bytes]:
        item = event.of_item or ""
        known = self._open.pop(item, None)
        if known is None:
            guard = binding.configuration.pipeline.guard(self._subject(binding))
            restorer = Restorer(self._memory.originals) if self._memory.originals else None
            if guard is None and restorer is None:
                return [message]
            known = self._editor(PolicyChange(guard, restorer)), guard
        editor, guard = known
        try:
            out = editor.feed(message)
            if event.type.endswith(".delta") and len(self._open) < MAX_OPEN:
                self._open[item] = known
                return out
            return out + editor.finish()
        finally:
            if guard is not None:
                self._note(tuple(guard.decisions.values()))

    def _judged_whole(self, binding: Binding, event: ServerEvent, message: bytes) -> list[bytes]:
        if event.type.endswith(".delta"):
            return []
        found = _Collecting()
        self._editor(found).feed(message)
        screening = binding.configuration.pipeline.review(self._subject(binding), found.parts)
        self._note(screening.decisions)
        if screening.verdict not in (Verdict.ALLOW, Verdict.REDACT):
            refusing = screening.refusing or screening.decisions[-1]
            raise OutputBlocked(screening.message or "A policy refused a text.", policy=refusing.policy)
        texts = {found.parts[number].path: text for number, text in screening.replacements.items()}
        if self._memory.originals:
            restorer = Restorer(self._memory.originals)
            texts = {part.path: restorer.whole(texts.get(part.path, part.text)) for part in found.parts}
        return self._editor(Replacing(texts)).feed(message)

    def _editor(self, change: Change) -> MessageEditor:
        return MessageEditor(RealtimeEditor(change))

    def _note(self, decisions: tuple[Decision, ...]) -> None:
        self._decisions.update({one.policy: one for one in decisions if one.reason})

    def _subject(self, binding: Binding) -> Subject:
        return subject_of(binding, self._socket_id, self._model, self._operation)


class _Collecting:
    """Changes nothing, and remembers every text."""

    def __init__(self) -> None:
        self.parts: list[TextPart] = []

    def text(self, path: str, kind: str, text: str) -> str:
        self.parts.append(TextPart(text, "user", kind, path))
        return text

    def end(self, path: str) -> str:
        return ""
