"""OpenAI's legacy completions in front of models that only chat.

The prompt is asked as a user's message, which is noted: a chat model answers a text, it does not go on with it. What
only a completion can do (a suffix, several prompts at once, token ids, the best of many) is refused. The answer is
text; `echo` puts the prompt in front of it, as OpenAI does.

Reference: https://platform.openai.com/docs/api-reference/completions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from gateway.errors import InvalidRequest
from gateway.types import Usage
from translators.canonical import (
    ChatAnswer,
    ChatRequest,
    Choice,
    Event,
    Finish,
    Logprobs,
    Message,
    Ping,
    Refusal,
    RefusalDelta,
    Role,
    Start,
    Stop,
    Text,
    TextDelta,
)
from translators.dialect import Carried
from translators.notes import Notes
from translators.openai_answers_out import usage_of

DEFAULT_TOKENS: Final = 16
"""What `max_tokens` is where it is not said, as the reference has it."""

_STRUCTURAL: Final = frozenset(
    {"model", "prompt", "suffix", "best_of", "echo", "logprobs", "max_tokens", "stream", "stream_options", "user"}
)
_NEUTRAL: Final[dict[str, tuple[Any, ...]]] = {
    "n": (1,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "stop": ([],),
}


def decode(body: bytes, notes: Notes) -> ChatRequest:
    """Read a request that `openai_passthrough.view` has accepted. Raises InvalidRequest with the field as `param`."""
    tree = orjson.loads(body)
    prompt = _prompt(tree)
    _refuse(tree)
    notes.add("prompt", "asked as a user's message; this model only chats")
    settings = {
        key: value
        for key, value in tree.items()
        if key not in _STRUCTURAL and value is not None and value not in _NEUTRAL.get(key, ())
    }
    if (logprobs := tree.get("logprobs")) is not None:
        settings["logprobs"] = True
        if logprobs:
            settings["top_logprobs"] = logprobs
    limit = tree.get("max_tokens")
    return ChatRequest(
        messages=[Message(Role.USER, (Text(prompt, "prompt"),), "prompt")],
        max_tokens=DEFAULT_TOKENS if limit is None else limit,
        user=tree.get("user"),
        stream=tree.get("stream") is True,
        settings=settings,
    )


def _prompt(tree: Mapping[str, Any]) -> str:
    prompt = tree.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str) or not prompt:
        raise InvalidRequest("`prompt` must be one text; this model takes no token ids.", param="prompt")
    return prompt


def _refuse(tree: Mapping[str, Any]) -> None:
    if tree.get("suffix"):
        raise InvalidRequest("This model only chats: it cannot write what stands before a suffix.", param="suffix")
    if tree.get("best_of") not in (None, tree.get("n") or 1):
        raise InvalidRequest(
            "This model gives as many answers as `n` says; `best_of` must be the same.", param="best_of"
        )
    if tree.get("echo") and tree.get("logprobs") is not None:
        raise InvalidRequest("This model tells no log probabilities of a prompt.", param="echo")


def echo(body: bytes) -> Mapping[str, Any]:
    """The prompt, where answers shall begin with it."""
    tree = orjson.loads(body)
    return {"prompt": _prompt(tree)} if tree.get("echo") else {}


# --- answers ---------------------------------------------------------------------------------------------------------


def encode(answer: ChatAnswer, model: str, created: int, carried: Carried) -> bytes:
    """A complete answer as OpenAI writes it. `created` is in Unix seconds."""
    prefix = carried.echo.get("prompt", "")
    body = _base(answer.id, model or answer.model, created)
    body["choices"] = [_choice(choice, prefix) for choice in answer.choices]
    if answer.usage is not None:
        body["usage"] = usage_of(answer.usage)
    return orjson.dumps(body)


def _base(answer_id: str, model: str, created: int) -> dict[str, Any]:
    return {"id": f"cmpl-{answer_id}", "object": "text_completion", "created": created, "model": model}


def _choice(choice: Choice, prefix: str) -> dict[str, Any]:
    text = "".join(part.text for part in choice.parts if isinstance(part, Text | Refusal))
    logprobs = None if choice.logprobs is None else _logprobs(choice.logprobs, 0)
    return _entry(prefix + text, choice.index, logprobs, _reason(choice.finish))


def _entry(text: str, index: int, logprobs: Any, reason: str | None) -> dict[str, Any]:
    return {"text": text, "index": index, "logprobs": logprobs, "finish_reason": reason}


def _reason(finish: Finish) -> str:
    """A completion calls no tools."""
    return Finish.STOP.value if finish is Finish.TOOL_CALLS else finish.value


def _logprobs(chances: Logprobs, offset: int) -> dict[str, Any]:
    """The older shape: a list for each thing that is told of a token."""
    offsets = []
    for chance in chances:
        offsets.append(offset)
        offset += len(chance["token"])
    return {
        "tokens": [chance["token"] for chance in chances],
        "token_logprobs": [chance["logprob"] for chance in chances],
        "top_logprobs": [_top(chance.get("top_logprobs") or ()) for chance in chances],
        "text_offset": offsets,
    }


def _top(likely: Sequence[Mapping[str, Any]]) -> dict[str, float] | None:
    return {one["token"]: one["logprob"] for one in likely} or None


class Writer:
    """Writes the chunks of one answer. An echoed prompt goes with its first text."""

    __slots__ = ("_created", "_head", "_include_usage", "_model", "_offset", "_prefix", "_tail")

    def __init__(self, model: str, created: int, include_usage: bool, carried: Carried) -> None:
        self._model = model
        self._created = created
        self._include_usage = include_usage
        self._prefix = carried.echo.get("prompt", "")
        self._offset = 0
        self._head = b""
        self._tail = b',"usage":null}\n\n' if include_usage else b"}\n\n"

    def write(self, event: Event) -> bytes:
        """The chunks for one event; what is no text is passed over."""
        match event:
            case Start():
                base = _base(event.id, self._model or event.model, self._created)
                self._head = b"data: " + orjson.dumps(base)[:-1] + b',"choices":['
            case TextDelta(text, logprobs):
                return self._text(text, logprobs)
            case RefusalDelta(text):
                return self._text(text, None)
            case Ping():
                return b": ping\n\n"
            case Stop():
                return self._stop(event)
        return b""

    def end(self) -> bytes:
        """The end mark."""
        return b"data: [DONE]\n\n"

    def _text(self, text: str, chances: Logprobs | None, reason: str | None = None) -> bytes:
        prefix, self._prefix = self._prefix, ""
        logprobs = None if chances is None else _logprobs(chances, self._offset)
        self._offset += len(text)
        return b"%b%b]%b" % (self._head, orjson.dumps(_entry(prefix + text, 0, logprobs, reason)), self._tail)

    def _stop(self, event: Stop) -> bytes:
        last = self._text("", None, _reason(event.finish))
        if not self._include_usage:
            return last
        return b'%b%b],"usage":%b}\n\n' % (last, self._head, orjson.dumps(usage_of(event.usage or Usage())))
