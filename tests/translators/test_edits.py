"""Editors on recorded streams: what does not change goes on as the very bytes it was; what is held comes out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from _pytest.mark import ParameterSet

from gateway.sse import FrameSplitter
from gateway.types import TextPart
from tests.recordings import Recording, load, providers
from translators.anthropic_edits import MessagesEditor
from translators.anthropic_messages import MessagesTap
from translators.dialect import Tap
from translators.editing import Change, Editor
from translators.openai_chat import ChatTap
from translators.openai_chat_edits import ChatEditor, CompletionsEditor
from translators.openai_passthrough import CompletionsTap, ResponsesTap
from translators.responses_edits import ResponsesEditor

FORMATS: tuple[tuple[str, Callable[[Change], Editor], Callable[[], Tap]], ...] = (
    ("/chat/completions", ChatEditor, ChatTap),
    ("/completions", CompletionsEditor, CompletionsTap),
    ("/messages", MessagesEditor, MessagesTap),
    ("/responses", ResponsesEditor, ResponsesTap),
)


class Unchanged:
    """Passes everything on at once."""

    def __init__(self) -> None:
        self.seen: dict[str, str] = {}

    def text(self, path: str, kind: str, text: str) -> str:
        self.seen[path] = self.seen.get(path, "") + text
        return text

    def end(self, path: str) -> str:
        return ""


class Shouting(Unchanged):
    """Holds the last two characters of each text until it is over, and writes all of it in capitals."""

    def __init__(self) -> None:
        super().__init__()
        self._held: dict[str, str] = {}

    def text(self, path: str, kind: str, text: str) -> str:
        super().text(path, kind, text)
        text = self._held.pop(path, "") + text
        self._held[path] = text[-2:]
        return text[:-2].swapcase()

    def end(self, path: str) -> str:
        return self._held.pop(path, "").swapcase()


def streams() -> list[ParameterSet]:
    found = []
    for provider in providers():
        for recording in load(provider):
            for suffix, editor, tap in FORMATS:
                path = recording.path.partition("?")[0]
                chats = suffix != "/completions" or not path.endswith("/chat/completions")
                if recording.streams and recording.status == 200 and path.endswith(suffix) and chats:
                    found.append(pytest.param(recording, editor, tap, id=str(recording)))
                    break
    return found


def frames(recording: Recording) -> list[bytes]:
    return FrameSplitter().feed(recording.response)


def texts(tap: Tap, sent: list[bytes]) -> list[TextPart]:
    for frame in sent:
        tap.feed(frame)
    return [part for part in tap.answer().texts if part.text]


@pytest.mark.parametrize(("recording", "editor", "tap"), streams())
def test_recorded_streams(recording: Recording, editor: Callable[[Change], Editor], tap: Callable[[], Tap]) -> None:
    change = Unchanged()
    passing = editor(change)
    came = frames(recording)
    assert all(passing.feed(frame) is frame for frame in came)
    assert passing.finish() == b""
    shouting = Shouting()
    changing = editor(shouting)
    went = [changing.feed(frame) for frame in came] + [changing.finish()]
    expected = {part.path: part.text for part in texts(tap(), came)}
    told = {part.path: part.text for part in texts(tap(), FrameSplitter().feed(b"".join(went)))}
    assert {path: text.swapcase() for path, text in told.items()} == expected
    assert set(expected) <= set(shouting.seen)


def test_there_are_streams_of_every_format() -> None:
    assert {param.values[1] for param in streams()} >= {ChatEditor, MessagesEditor, ResponsesEditor}
