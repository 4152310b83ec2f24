"""Answers of Gemini's `generateContent` to the canonical form, whole and streamed.

Reference: https://ai.google.dev/api/generate-content#generatecontentresponse.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import orjson

from gateway.errors import UpstreamError, UpstreamInvalid, UpstreamStatus
from gateway.sse import FrameSplitter, data_of
from gateway.types import ResponseHead, Usage
from translators import gemini_ids, provider_errors
from translators.canonical import (
    ANSWER_TOOL,
    CallDelta,
    CallStart,
    ChatAnswer,
    Choice,
    Event,
    Finish,
    Logprobs,
    Part,
    Start,
    Stop,
    Text,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ToolCall,
)

_FILTERED: Final = frozenset(
    {"SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "LANGUAGE", "MODEL_ARMOR", "NO_IMAGE"}
    | {"IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION", "IMAGE_OTHER"}
)
_FAILED: Final = frozenset(
    {"MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "MISSING_THOUGHT_SIGNATURE"}
    | {"MALFORMED_RESPONSE"}
)
"""The model tried and failed: no answer, and asking again may help."""


def decode(body: bytes) -> ChatAnswer:
    """Read a complete answer. Raises UpstreamInvalid where it is not one, UpstreamStatus where the model failed."""
    try:
        tree = orjson.loads(body)
        answer_id = str(tree.get("responseId") or "")
        candidates = tree.get("candidates") or [_blocked(tree)]
        return ChatAnswer(
            id=answer_id,
            model=str(tree.get("modelVersion") or ""),
            choices=[_choice(candidate, answer_id, index) for index, candidate in enumerate(candidates)],
            usage=usage_of(tree.get("usageMetadata") or {}),
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        raise UpstreamInvalid("The provider's answer is not one of generateContent.") from None


def _blocked(tree: dict[str, Any]) -> dict[str, Any]:
    """A candidate in place of none: the prompt was blocked."""
    reason = (tree.get("promptFeedback") or {}).get("blockReason")
    if not reason:
        raise KeyError("candidates")
    return {"finishReason": reason, "blocked": True}


def _choice(candidate: dict[str, Any], answer_id: str, position: int) -> Choice:
    index = candidate.get("index", position)
    parts = list(_parts(candidate, answer_id if index == 0 else f"{answer_id}_{index}"))
    reason = candidate.get("finishReason")
    calls = any(isinstance(part, ToolCall) for part in parts)
    finish = Finish.CONTENT_FILTER if candidate.get("blocked") else finish_of(reason, calls, candidate)
    return Choice(parts, finish, _native(reason), index, logprobs_of(candidate))


def logprobs_of(candidate: dict[str, Any]) -> Logprobs | None:
    """https://ai.google.dev/api/generate-content#LogprobsResult: for each step the token that was chosen, and the most
    likely ones."""
    result = candidate.get("logprobsResult")
    if not isinstance(result, dict):
        return None
    likely = result.get("topCandidates") or ()
    return [
        {**_chance(chosen), "top_logprobs": [_chance(one) for one in _candidates(likely, step)]}
        for step, chosen in enumerate(result.get("chosenCandidates") or ())
    ]


def _candidates(steps: Sequence[Any], step: int) -> Sequence[Any]:
    return steps[step].get("candidates") or () if step < len(steps) else ()


def _chance(candidate: dict[str, Any]) -> dict[str, Any]:
    token = candidate.get("token") or ""
    return {"token": token, "logprob": candidate.get("logProbability") or 0.0, "bytes": list(token.encode())}


def _parts(candidate: dict[str, Any], answer_id: str) -> Iterator[Part]:
    """Texts, thoughts and calls; parts of Google's own tools are passed over.

    The signature of a text is not kept: Google recommends it for quality and demands only that of a call.
    """
    calls = 0
    for part in (candidate.get("content") or {}).get("parts") or ():
        if isinstance(part.get("text"), str):
            if part.get("thought"):
                yield Thinking(part["text"])
            elif part["text"]:
                yield Text(part["text"])
        elif isinstance(part.get("functionCall"), dict):
            call = _call(part, f"call_{answer_id}_{calls}")
            calls += 1
            yield Text(call.arguments) if call.name == ANSWER_TOOL else call


def _call(part: dict[str, Any], call_id: str) -> ToolCall:
    function = part["functionCall"]
    signature = part.get("thoughtSignature")
    arguments = orjson.dumps(function.get("args") or {}).decode()
    return ToolCall(
        gemini_ids.make(function.get("id") or call_id, signature), function["name"], arguments, "", signature
    )


def finish_of(reason: Any, calls: bool, candidate: dict[str, Any]) -> Finish:
    """Why the model stopped. Raises UpstreamStatus where it failed to make a call."""
    if reason in _FAILED and not calls:
        message = candidate.get("finishMessage") or f"The model failed to answer: {reason}."
        raise UpstreamStatus(502, message, code=str(reason).lower(), type="server_error")
    if reason in _FILTERED:
        return Finish.CONTENT_FILTER
    if reason == "MAX_TOKENS":
        return Finish.LENGTH
    return Finish.TOOL_CALLS if calls else Finish.STOP


def _native(reason: Any) -> str | None:
    return reason if isinstance(reason, str) and reason not in ("STOP", "MAX_TOKENS") else None


def usage_of(usage: dict[str, Any]) -> Usage:
    """Gemini counts thoughts apart from the answer, and the use of its own tools apart from the prompt."""
    thoughts = _count(usage, "thoughtsTokenCount")
    return Usage(
        prompt=_count(usage, "promptTokenCount") + _count(usage, "toolUsePromptTokenCount"),
        completion=_count(usage, "candidatesTokenCount") + thoughts,
        cached=_count(usage, "cachedContentTokenCount"),
        reasoning=thoughts,
    )


def _count(usage: dict[str, Any], key: str) -> int:
    value = usage.get(key)
    return value if isinstance(value, int) else 0


# --- streams ---------------------------------------------------------------------------------------------------------


class Reader:
    """Reads the pieces of one streamed answer; of several candidates only the first, which is all others can say."""

    __slots__ = ("_calls", "_id", "_reason", "_shown", "_splitter", "_started", "_usage")

    def __init__(self) -> None:
        self._splitter = FrameSplitter()
        self._started = False
        self._id = ""
        self._calls = 0
        self._shown = 0
        self._usage: dict[str, Any] = {}
        self._reason: dict[str, Any] | None = None

    def read(self, payload: bytes) -> Iterator[Event]:
        """What happened, event by event. Raises UpstreamStatus for an error, UpstreamInvalid for garbage."""
        for frame in self._splitter.feed(payload):
            data = data_of(frame)
            if data is None:
                continue
            try:
                piece = orjson.loads(data)
                events = list(self._take(piece, data))
            except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
                raise UpstreamInvalid("The provider's stream is not one of generateContent.") from None
            yield from events

    def end(self) -> Iterator[Event]:
        """The stream ended: complete if there was a reason for it."""
        if self._reason is None:
            raise UpstreamInvalid("The provider's stream ended before its answer did.")
        reason = self._reason.get("finishReason")
        filtered = self._reason.get("blocked")
        finish = Finish.CONTENT_FILTER if filtered else finish_of(reason, self._shown > 0, self._reason)
        yield Stop(finish, _native(reason), usage_of(self._usage))

    def _take(self, piece: dict[str, Any], data: bytes) -> Iterator[Event]:
        if "error" in piece:
            raise _stream_error(piece["error"], data)
        self._usage |= piece.get("usageMetadata") or {}
        if not self._started:
            self._started = True
            self._id = str(piece.get("responseId") or "")
            yield Start(self._id, str(piece.get("modelVersion") or ""), usage_of(self._usage))
        if (piece.get("promptFeedback") or {}).get("blockReason"):
            self._reason = _blocked(piece)
        for candidate in piece.get("candidates") or ():
            if candidate.get("index", 0) == 0:
                yield from self._candidate(candidate)

    def _candidate(self, candidate: dict[str, Any]) -> Iterator[Event]:
        chances = logprobs_of(candidate)
        for part in (candidate.get("content") or {}).get("parts") or ():
            if isinstance(part.get("text"), str) and part["text"]:
                if part.get("thought"):
                    yield ThinkingDelta(0, part["text"])
                    continue
                yield TextDelta(part["text"], chances)
                chances = None  # they are the whole piece's: told once
            elif isinstance(part.get("functionCall"), dict):
                yield from self._call(part)
        if candidate.get("finishReason"):
            self._reason = candidate

    def _call(self, part: dict[str, Any]) -> Iterator[Event]:
        """Calls come whole."""
        call = _call(part, f"call_{self._id}_{self._calls}")
        self._calls += 1
        if call.name == ANSWER_TOOL:
            yield TextDelta(call.arguments)
            return
        yield CallStart(self._shown, call.id, call.name, call.signature)
        yield CallDelta(self._shown, call.arguments)
        self._shown += 1


def _stream_error(error: Any, data: bytes) -> UpstreamError:
    """An error within a stream, as the error that the same answer's status would have been."""
    code = error.get("code") if isinstance(error, dict) else None
    status = code if isinstance(code, int) and 400 <= code < 600 else 502
    return provider_errors.read(ResponseHead(status, b"", b""), data, "Gemini")
