"""Names of tools, and ids of their calls, that the target's format does not allow.

MCP servers make names of 90 characters and with dots; OpenAI and Claude refuse them. They are sent under another name,
made from the name alone, so it is the same in every request of a conversation and in its history; the answer gets the
client's own names back. Ids of calls that another provider made long are shortened likewise; only history has them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import TypeVar

import msgspec

from translators.canonical import ChatAnswer, ChatRequest, Message, Part, Tool, ToolCall, ToolChoice

_DIGEST_CHARS = 8


class ToolNames(msgspec.Struct, frozen=True):
    """What a format allows: names of at most `longest` characters of `[A-Za-z0-9_-]` and those of `more`, ids of calls
    of at most `longest_id`."""

    longest: int
    more: str = ""
    longest_id: int = 64

    def allows(self, name: str) -> bool:
        """Whether a name can be sent as it is."""
        return len(name) <= self.longest and not _forbidden(self.more).search(name)

    def short_id(self, call_id: str) -> str:
        """The id of a call as it can be sent."""
        if len(call_id) <= self.longest_id and not _forbidden("").search(call_id):
            return call_id
        return "call_" + hashlib.sha256(call_id.encode()).hexdigest()[:32]

    def shorten(self, request: ChatRequest) -> tuple[ChatRequest, Mapping[str, str]]:
        """The request with allowed names only, and what they were before, by the name that is sent."""
        names = {name: self._other(name) for name in _names(request) if not self.allows(name)}
        if not names:
            return request, {}
        renamed = msgspec.structs.replace(
            request,
            messages=[_renamed_message(message, names) for message in request.messages],
            tools=[_renamed(tool, names) for tool in request.tools],
            tool_choice=None if request.tool_choice is None else _renamed(request.tool_choice, names),
        )
        return renamed, {sent: name for name, sent in names.items()}

    def _other(self, name: str) -> str:
        digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGEST_CHARS]
        readable = _forbidden(self.more).sub("_", name)
        return f"{readable[: self.longest - _DIGEST_CHARS - 1]}_{digest}"


@cache
def _forbidden(more: str) -> re.Pattern[str]:
    return re.compile(f"[^A-Za-z0-9_{re.escape(more)}-]")


def restore(answer: ChatAnswer, names: Mapping[str, str]) -> ChatAnswer:
    """The answer with the client's own names."""
    if not names:
        return answer
    choices = [msgspec.structs.replace(choice, parts=_renamed_parts(choice.parts, names)) for choice in answer.choices]
    return msgspec.structs.replace(answer, choices=choices)


def _names(request: ChatRequest) -> Iterable[str]:
    yield from (tool.name for tool in request.tools)
    yield from (part.name for message in request.messages for part in message.parts if isinstance(part, ToolCall))


def _renamed_message(message: Message, names: Mapping[str, str]) -> Message:
    return msgspec.structs.replace(message, parts=tuple(_renamed_parts(message.parts, names)))


def _renamed_parts(parts: Sequence[Part], names: Mapping[str, str]) -> list[Part]:
    return [_renamed(part, names) if isinstance(part, ToolCall) else part for part in parts]


Named = TypeVar("Named", Tool, ToolCall, ToolChoice)


def _renamed(named: Named, names: Mapping[str, str]) -> Named:
    other = names.get(named.name or "")
    return named if other is None else msgspec.structs.replace(named, name=other)
