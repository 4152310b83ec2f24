"""`external-moderation`: ask a service of the operator's choice.

Two shapes are spoken: OpenAI's moderation endpoint (https://platform.openai.com/docs/api-reference/moderations), and a
webhook that is sent the texts and answers with a verdict. This file writes the question and reads the answer; it never
calls anybody. The call is the gateway's (`gateway/moderation.py`), off the fast path, with a deadline, after all other
policies of the phase have spoken and none has refused; what these redacted, the service does not see.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
import orjson
from msgspec import Meta

from gateway.types import Phase, Subject, TextPart, Verdict
from policy.base import Policy, Problem, Ruling
from policy.outcome import Action, Message, Mode, Role, listed, outcome

MAX_ANSWER_BYTES = 1024 * 1024
"""A longer answer of the service is taken for a failure."""

_REASON = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class SecretSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the service's key is found; exactly one of the two."""

    env: Annotated[str | None, Meta(description="Name of an environment variable.")] = None
    file: Annotated[str | None, Meta(description="Path of a file that holds nothing but the secret.")] = None

    @property
    def store(self) -> None:
        """No moderation service's key is in the gateway's own store."""
        return None


class ExternalModerationSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whom to ask, how, and what an answer means."""

    url: Annotated[
        str,
        Meta(
            pattern=r"^(https?://[^\s/?#@]+(/[^\s#]*)?)?$",
            description="The service; must be given. With `http` texts travel in clear: for the same machine only.",
        ),
    ] = ""
    shape: Annotated[
        Literal["webhook", "openai"],
        Meta(description="`openai`: OpenAI's moderation endpoint. `webhook`: texts in, a verdict out; see below."),
    ] = "webhook"
    model: Annotated[str, Meta(min_length=1, description="For `openai`: the moderation model.")] = (
        "omni-moderation-latest"
    )
    secret_key_ref: Annotated[
        SecretSource | None, Meta(description="The service's key (`env` or `file`), sent as `Authorization: Bearer`.")
    ] = None
    deadline_ms: Annotated[
        int, Meta(ge=10, le=30_000, description="How long the service may take in all, connecting included.")
    ] = 2000
    fail_mode: Annotated[
        Literal["block", "allow"],
        Meta(description="What it means that the service is away, late, or answers what cannot be read."),
    ] = "block"
    thresholds: Annotated[
        dict[str, Annotated[float, Meta(ge=0, le=1)]],
        Meta(
            description="For `openai`: act on these categories from these scores on, and on no others. Empty: on "
            "whatever the service flags."
        ),
    ] = {}
    action: Annotated[Action, Meta(description="For `openai`: what to do about flagged texts.")] = "block"
    phase: Annotated[
        tuple[Phase, ...],
        Meta(
            min_length=1, description="Ask about what goes to the model (`input`), what comes back (`output`), or both."
        ),
    ] = (Phase.INPUT,)
    roles: Annotated[
        tuple[Role, ...], Meta(description="Of a request, send only texts of these speakers. Empty means all of them.")
    ] = ()
    mode: Mode = "enforce"
    message: Message = ""


class ExternalModeration(Policy[ExternalModerationSettings]):
    """Writes questions and reads answers; the gateway asks."""

    kind = "external-moderation"
    Settings = ExternalModerationSettings
    reasons = ("external-moderation.flagged", "external-moderation.verdict", "external-moderation.unavailable")

    def __init__(self, settings: ExternalModerationSettings) -> None:
        super().__init__(settings)
        self.phases = settings.phase

    @classmethod
    def check(cls, settings: ExternalModerationSettings) -> list[Problem]:
        """One place for the key, and settings that the shape knows."""
        problems = [] if settings.url else [Problem("url", "must be given: whom to ask")]
        secret = settings.secret_key_ref
        if secret is not None and (secret.env is None) == (secret.file is None):
            problems.append(Problem("secret_key_ref", "set exactly one of `env` and `file`"))
        if settings.thresholds and settings.shape != "openai":
            problems.append(Problem("thresholds", "has a meaning only for `shape: openai`"))
        return problems

    def chosen(self, phase: Phase, texts: Sequence[TextPart]) -> list[int]:
        """The numbers of the texts that the service is asked about; none: it need not be asked."""
        roles = self.settings.roles if phase is Phase.INPUT else ()
        return [number for number, text in enumerate(texts) if text.text.strip() and (not roles or text.role in roles)]

    def question(self, subject: Subject, phase: Phase, texts: Sequence[TextPart], chosen: Sequence[int]) -> bytes:
        """The body to send, as JSON."""
        if self.settings.shape == "openai":
            return orjson.dumps({"model": self.settings.model, "input": [_clean(texts[n].text) for n in chosen]})
        asked = [
            {"index": number, "role": part.role, "kind": part.kind, "path": part.path, "text": _clean(part.text)}
            for number in chosen
            for part in (texts[number],)
        ]
        return orjson.dumps({"phase": phase, **msgspec.to_builtins(subject), "texts": asked})

    def read(self, body: bytes, texts: Sequence[TextPart], chosen: Sequence[int]) -> tuple[Ruling, dict[int, str]]:
        """What the service's answer means, and the texts that it puts in the place of others.

        Raises ValueError for an answer that cannot be read.
        """
        try:
            answer = orjson.loads(body)
            if self.settings.shape == "openai":
                return self._flagged(answer, len(chosen)), {}
            return self._verdict(answer, frozenset(chosen))
        except (TypeError, KeyError, AttributeError, LookupError) as error:
            raise ValueError(f"the answer has not the shape of `{self.settings.shape}`") from error

    def unavailable(self, why: str) -> Ruling:
        """What it means that there is no answer. `why` is one of our own words, never the service's."""
        settings = self.settings
        if settings.fail_mode == "allow":
            return Ruling(Verdict.ALLOW, "external-moderation.unavailable", why)
        message = "The moderation service could not be asked, so nothing was let through; try again in a moment."
        return outcome("block", "external-moderation.unavailable", why, message, mode=settings.mode)

    def _flagged(self, answer: Any, asked: int) -> Ruling:
        results = answer["results"]
        if len(results) < (1 if asked else 0):
            raise ValueError("the answer has no result")
        settings = self.settings
        found: list[str] = []
        for result in results:
            if settings.thresholds:
                scores: Mapping[str, float] = result["category_scores"]
                found += [name for name, least in settings.thresholds.items() if float(scores.get(name, 0.0)) >= least]
            elif result["flagged"]:
                found += [name for name, flagged in result["categories"].items() if flagged] or ["flagged"]
        if not found:
            return Ruling()
        names = listed(name for name in found if _REASON.fullmatch(name.replace("/", "."))) or "flagged"
        message = settings.message or f"Refused by policy external-moderation: {names}."
        return outcome(settings.action, "external-moderation.flagged", names, message, mode=settings.mode)

    def _verdict(self, answer: Any, chosen: frozenset[int]) -> tuple[Ruling, dict[int, str]]:
        settings = self.settings
        verdict = Verdict(answer["verdict"])
        reason = answer.get("reason", "")
        detail = reason if isinstance(reason, str) and _REASON.fullmatch(reason) else ""
        replacements: dict[int, str] = {}
        if verdict is Verdict.REDACT:
            replacements = {int(each["index"]): str(each["text"]) for each in answer["replacements"]}
            if not set(replacements) <= chosen:
                raise ValueError("the answer replaces a text that it was not asked about")
        if verdict is Verdict.ALLOW and not detail:
            return Ruling(), {}
        told = answer.get("message", "")
        message = (
            settings.message
            or (told if isinstance(told, str) else "")[:1024]
            or "Refused by policy external-moderation."
        )
        action = "warn" if verdict is Verdict.ALLOW else verdict.value
        ruling = outcome(action, "external-moderation.verdict", detail, message, mode=settings.mode)
        return ruling, replacements if ruling.verdict is Verdict.REDACT else {}


def _clean(text: str) -> str:
    """JSON text cannot carry half a character."""
    return text.encode("utf-8", "replace").decode()
