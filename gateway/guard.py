"""Deliveries in which policies change a stream, or see it whole, before the client does.

- `Guarded`: events flow, and each piece of text passes the guard of the chain (`streaming: guard`) and gets back the
  values that went out as placeholders. What is held is what could still become a match or a placeholder.
- `Buffered`: events are kept until the whole has been judged (`streaming: buffer`).

Both stand behind another relay, which knows the provider's side of the answer, and work on the frames that the client
would get; so one editor for each format of clients serves all providers. They never wait.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from gateway.errors import OutputBlocked, UpstreamInvalid
from gateway.sse import FrameSplitter
from gateway.types import Operation, TextPart
from policy.guard import RefusedError
from policy.restore import Restorer
from policy.text import holds_json
from translators.anthropic_edits import MessagesEditor
from translators.openai_chat_edits import ChatEditor, CompletionsEditor
from translators.responses_edits import ResponsesEditor

if TYPE_CHECKING:
    from gateway.relay import Relay
    from policy.guard import Guard
    from translators.dialect import AnswerView
    from translators.editing import Change, Editor

EDITORS: Final[Mapping[str, Callable[[Change], Editor]]] = {
    Operation.CHAT: ChatEditor,
    Operation.COMPLETIONS: CompletionsEditor,
    Operation.MESSAGES: MessagesEditor,
    Operation.RESPONSES: ResponsesEditor,
}
"""How the streams of an operation are changed; other operations have no text in streams."""


class PolicyChange:
    """What a chain makes of a stream's texts: first its guard, then the values that come back."""

    __slots__ = ("_guard", "_kinds", "_restorer")

    def __init__(self, guard: Guard | None, restorer: Restorer | None) -> None:
        self._guard = guard
        self._restorer = restorer
        self._kinds: dict[str, str] = {}

    def text(self, path: str, kind: str, text: str) -> str:
        """More of a text; what of it goes on now. Raises OutputBlocked."""
        if self._guard is not None:
            try:
                text = self._guard.feed(path, kind, path, text)
            except RefusedError as refused:
                raise OutputBlocked(str(refused), policy=refused.policy) from None
        if self._restorer is not None:
            self._kinds[path] = kind
            text = self._restorer.feed(path, text, json=kind == "tool_arguments")
        return text

    def end(self, path: str) -> str:
        """A text is over: what of it was held back. Raises OutputBlocked."""
        rest = ""
        if self._guard is not None:
            try:
                rest = self._guard.close(path)
            except RefusedError as refused:
                raise OutputBlocked(str(refused), policy=refused.policy) from None
        if self._restorer is not None:
            json = self._kinds.pop(path, "") == "tool_arguments"
            rest = (self._restorer.feed(path, rest, json=json) if rest else "") + self._restorer.close(path)
        return rest


class Guarded:
    """A stream of events whose texts a policy may change on their way."""

    __slots__ = ("_concluded", "_editor", "_inner", "_last", "_splitter", "awaits_verdict", "over")
    raw = False

    def __init__(self, inner: Relay, editor: Editor) -> None:
        """`inner` gives payload, never the provider's framing."""
        self._inner = inner
        self._editor = editor
        self._splitter = FrameSplitter()
        self._last = b""
        self._concluded = False
        self.awaits_verdict = False
        self.over = False

    def feed(self, data: bytes, end: bool) -> bytes:
        """What goes to the client now. Raises OutputBlocked, UpstreamInvalid."""
        if self._concluded:
            return b""
        inner = self._inner
        out = self._edited(inner.feed(data, end))
        self.over = inner.over
        if inner.awaits_verdict:
            # What ends the answer is judged and rewritten before it waits for the others' verdict.
            self._last = self._edited(inner.finish()) + self._editor.finish()
            self._concluded = self.awaits_verdict = True
        elif end:
            out += self._editor.finish()
        return out

    def _edited(self, payload: bytes) -> bytes:
        """A frame that is not complete when the stream ends is dropped, as every conforming reader does."""
        if not payload:
            return b""
        frames = self._splitter.feed(payload)
        return self._editor.feed(frames[0]) if len(frames) == 1 else b"".join(map(self._editor.feed, frames))

    def finish(self) -> bytes:
        last, self._last = self._last, b""
        self.awaits_verdict = False
        return last

    def answer(self) -> AnswerView:
        return self._inner.answer()


class Buffered:
    """A stream of events that is kept until it has been judged as a whole; `release` gives it."""

    __slots__ = ("_inner", "_limit", "_pieces", "_size", "awaits_verdict", "over")
    raw = False

    def __init__(self, inner: Relay, limit: int) -> None:
        self._inner = inner
        self._limit = limit
        self._pieces: list[bytes] = []
        self._size = 0
        self.awaits_verdict = False
        self.over = False

    def feed(self, data: bytes, end: bool) -> bytes:
        """Nothing, ever. Raises UpstreamInvalid."""
        if self.awaits_verdict:
            return b""
        self._keep(self._inner.feed(data, end))
        if self._inner.awaits_verdict or end:
            self._keep(self._inner.finish())
            self.awaits_verdict = True
        return b""

    def _keep(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > self._limit:
            raise UpstreamInvalid(f"The provider's answer is larger than {self._limit} bytes and must be read whole.")
        if piece:
            self._pieces.append(piece)

    def finish(self) -> bytes:
        self.awaits_verdict = False
        return b"".join(self._pieces)

    def release(self, operation: str, texts: Sequence[TextPart], replaced: Mapping[int, str]) -> bytes:
        """The whole stream with other texts in the places of some."""
        whole = self.finish()
        if not replaced:
            return whole
        change = Replacing({texts[index].path: text for index, text in replaced.items()})
        editor = EDITORS[operation](change)
        edited = b"".join(map(editor.feed, FrameSplitter().feed(whole))) + editor.finish()
        if change.left:
            raise UpstreamInvalid("A text that a policy redacts does not stand where it should in the stream.")
        return edited

    def answer(self) -> AnswerView:
        return self._inner.answer()


class Replacing:
    """Each text as a whole with its first piece, and nothing for the others."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = texts
        self.left = dict(texts)

    def text(self, path: str, kind: str, text: str) -> str:
        return self.left.pop(path, "") if path in self._texts else text

    def end(self, path: str) -> str:
        return ""


def restored(texts: Sequence[TextPart], redactions: Mapping[int, str], originals: Mapping[str, str]) -> dict[int, str]:
    """The redacted texts of an answer with the values that went out as placeholders; those that change, by number."""
    restorer = Restorer(originals)
    found = dict(redactions)
    for number, part in enumerate(texts):
        shown = redactions.get(number, part.text)
        if (whole := restorer.whole(shown, json=holds_json(part))) != shown:
            found[number] = whole
    return found
