"""The canonical chat: what dialects translate to and from, so that they never need to know each other.

It is not a format of anybody's. It keeps what any of them can say in the plainest form: messages made of typed parts,
settings by OpenAI's names, JSON that nobody has to understand (schemas, arguments) as raw bytes, so that numbers and
order of keys survive. A part knows the path at which it stood in the client's request, for the notes.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from gateway.types import Usage

ANSWER_TOOL = "kt_json_answer"
"""The hidden tool through which a model without structured outputs gives its JSON; clients never see it."""

Cache = Mapping[str, Any]
"""A prompt-cache marker as Anthropic writes it (`{"type": "ephemeral"}`); other dialects map or note it."""


class Role(enum.StrEnum):
    """Who speaks. `developer` and `system` are one; the result of a tool is a part of a user's message."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


class Text(msgspec.Struct, frozen=True):
    """Plain text."""

    text: str
    path: str = ""
    cache: Cache | None = None


class Media(msgspec.Struct, frozen=True):
    """An image, a document or a sound: either `data` (base64) with its `media_type`, or a `url`, or a provider's
    `file_id`. `kind` is `image`, `document` or `audio`."""

    kind: str
    path: str = ""
    data: str | None = None
    media_type: str | None = None
    url: str | None = None
    file_id: str | None = None
    name: str | None = None
    detail: str | None = None
    cache: Cache | None = None


class ToolCall(msgspec.Struct, frozen=True):
    """The model wants a tool called. `arguments` is JSON text, as the model wrote it (perhaps empty or broken)."""

    id: str
    name: str
    arguments: str
    path: str = ""
    signature: str | None = None
    cache: Cache | None = None


class ToolResult(msgspec.Struct, frozen=True):
    """What a tool gave back; only in a user's message."""

    call_id: str
    content: tuple[Text | Media, ...]
    path: str = ""
    is_error: bool = False
    name: str | None = None
    cache: Cache | None = None


CLAUDE_FORMAT = "anthropic-claude-v1"
RESPONSES_FORMAT = "openai-responses-v1"
"""Whose signature or opaque data a piece of reasoning carries, by OpenRouter's names: nobody else accepts it."""


class Thinking(msgspec.Struct, frozen=True):
    """Reasoning of the model. `signature` proves it to the provider that signed it (`format`, None where unknown) and
    is carried byte for byte."""

    text: str
    signature: str | None = None
    path: str = ""
    format: str | None = None


class RedactedThinking(msgspec.Struct, frozen=True):
    """Reasoning that only its provider can read."""

    data: str
    path: str = ""
    format: str | None = None


class Refusal(msgspec.Struct, frozen=True):
    """The model's words of refusal, where a format keeps them apart from content."""

    text: str
    path: str = ""


Part = Text | Media | ToolCall | ToolResult | Thinking | RedactedThinking | Refusal


class Message(msgspec.Struct, frozen=True):
    """One turn, or a piece of one: neighbours of the same role may be merged by a dialect that needs it."""

    role: Role
    parts: tuple[Part, ...]
    path: str = ""
    name: str | None = None


class Tool(msgspec.Struct, frozen=True):
    """A function that the model may call. `parameters` is its JSON Schema as raw bytes; None: takes nothing."""

    name: str
    description: str | None = None
    parameters: bytes | None = None
    strict: bool | None = None
    path: str = ""
    cache: Cache | None = None


class Choosing(enum.StrEnum):
    """Whether the model must, may or must not call a tool."""

    AUTO = "auto"
    REQUIRED = "required"
    NONE = "none"
    NAMED = "named"


class ToolChoice(msgspec.Struct, frozen=True):
    """`name` is set for NAMED only."""

    mode: Choosing
    name: str | None = None


class OutputFormat(msgspec.Struct, frozen=True):
    """JSON is asked for: of the given schema, or (None) any object."""

    schema: bytes | None = None
    name: str | None = None
    description: str | None = None
    strict: bool | None = None


class Reasoning(msgspec.Struct, frozen=True):
    """How much the model shall think: by effort (OpenAI), by budget in tokens (Anthropic, Gemini), or not at all."""

    effort: str | None = None
    budget: int | None = None
    adaptive: bool = False
    off: bool = False


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request. `settings` holds everything else by OpenAI's name (`temperature`, `stop`, `seed`, …), with neutral
    values (`n: 1`, `logprobs: false`) left out; a dialect takes what it can express and notes the rest."""

    messages: Sequence[Message]
    tools: Sequence[Tool] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    output: OutputFormat | None = None
    max_tokens: int | None = None
    reasoning: Reasoning | None = None
    user: str | None = None
    stream: bool = False
    settings: Mapping[str, Any] = {}


class Finish(enum.StrEnum):
    """Why the model stopped, by OpenAI's words."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"


Logprobs = Sequence[Mapping[str, Any]]
"""How likely each token of a text was, as OpenAI writes it: `token`, `logprob`, `bytes` and, of the most likely in its
place, `top_logprobs`: https://platform.openai.com/docs/api-reference/chat/object#chat-object-choices-logprobs."""


class Choice(msgspec.Struct, frozen=True):
    """One answer. `native_reason` is the provider's own word for why it stopped; `logprobs` are those of its text."""

    parts: Sequence[Part]
    finish: Finish
    native_reason: str | None = None
    index: int = 0
    logprobs: Logprobs | None = None


class ChatAnswer(msgspec.Struct, frozen=True):
    """A complete answer."""

    id: str
    model: str
    choices: Sequence[Choice]
    usage: Usage | None = None
    service_tier: str | None = None


# --- streams: what happens, in the order in which it happens ---------------------------------------------------------


class Start(msgspec.Struct, frozen=True, gc=False):
    """The answer begins. `usage` is what is known of the prompt already."""

    id: str
    model: str
    usage: Usage | None = None


class TextDelta(msgspec.Struct, frozen=True):
    """More text. `logprobs` are those of its tokens, where they were asked for."""

    text: str
    logprobs: Logprobs | None = None


class ThinkingDelta(msgspec.Struct, frozen=True, gc=False):
    """More reasoning, or (with empty text) its signature. `block` counts the blocks of reasoning from 0."""

    block: int
    text: str = ""
    signature: str | None = None
    format: str | None = None


class RedactedBlock(msgspec.Struct, frozen=True, gc=False):
    """A whole block of opaque reasoning."""

    block: int
    data: str
    format: str | None = None


class CallStart(msgspec.Struct, frozen=True, gc=False):
    """A tool call begins. `call` counts the calls of the answer from 0, whatever else it contains."""

    call: int
    id: str
    name: str
    signature: str | None = None


class CallDelta(msgspec.Struct, frozen=True, gc=False):
    """More of a call's arguments."""

    call: int
    arguments: str


class RefusalDelta(msgspec.Struct, frozen=True, gc=False):
    text: str


class Ping(msgspec.Struct, frozen=True, gc=False):
    """The provider is alive and has nothing to say."""


class Stop(msgspec.Struct, frozen=True, gc=False):
    """The answer is complete."""

    finish: Finish
    native_reason: str | None = None
    usage: Usage | None = None


Event = Start | TextDelta | ThinkingDelta | RedactedBlock | CallStart | CallDelta | RefusalDelta | Ping | Stop
