"""`tool-validation`: which tools may be offered and called, and whether calls fit what was declared.

Of a request it reads the names of the tools that are declared; of an answer the calls. A model may invent a tool, or
arguments that no schema allows; whoever executes them blindly does not want to see them. What it says of a call is the
tool's name and the place in the schema, never an argument.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from gateway.types import Phase, Subject
from policy.base import Call, Policy, Problem, Ruling, Tool, View
from policy.names import NamePattern, matches_any
from policy.outcome import Action, Message, Mode, listed, outcome
from policy.schemas import BadJSON, BadSchema, check_schema, fault, parse
from policy.text import encode

_NAME_PLACE = re.compile(r"(?:tools\[\d+\](?:\.function|\.custom)?|functions\[\d+\])\.name")
_PLAIN = re.compile(r"[A-Za-z0-9_.:/-]{1,64}")
_ORDER = ("not-allowed", "undeclared", "too-many-calls", "not-json", "invalid-arguments", "bad-schema")


class ToolValidationSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked of tools and of calls."""

    allow: Annotated[
        tuple[NamePattern, ...],
        Meta(description="Tools that may be declared and called; `*` stands for any run of characters. Empty: all."),
    ] = ()
    deny: Annotated[
        tuple[NamePattern, ...], Meta(description="Tools that may not, whatever `allow` says; `*` as there.")
    ] = ()
    require_declared: Annotated[
        bool, Meta(description="An answer may call only tools that its request declares, or that `schemas` names.")
    ] = True
    validate_arguments: Annotated[
        bool, Meta(description="Arguments must be JSON and meet the schema that the request declares for the tool.")
    ] = True
    schemas: Annotated[
        dict[str, Annotated[str, Meta(min_length=1)]],
        Meta(description="JSON Schemas by tool, each as JSON text, in place of what requests declare for these tools."),
    ] = {}
    max_calls: Annotated[int, Meta(ge=0, le=1000, description="So many calls one answer may make. 0: any number.")] = 0
    action: Action = "block"
    phase: Annotated[
        tuple[Phase, ...],
        Meta(min_length=1, description="Judge what requests declare (`input`), what answers call (`output`), or both."),
    ] = (Phase.INPUT, Phase.OUTPUT)
    mode: Mode = "enforce"
    message: Message = ""


class ToolValidation(Policy[ToolValidationSettings]):
    """Judges names of tools, and calls."""

    kind = "tool-validation"
    inline_bytes = 4 * 1024
    Settings = ToolValidationSettings
    reasons = tuple(f"tool-validation.{what}" for what in _ORDER)

    def __init__(self, settings: ToolValidationSettings) -> None:
        super().__init__(settings)
        self._schemas = {name: encode(schema) for name, schema in settings.schemas.items()}
        lists = bool(settings.allow or settings.deny)
        self.phases = tuple(phase for phase in settings.phase if phase is Phase.OUTPUT or lists)

    @classmethod
    def check(cls, settings: ToolValidationSettings) -> list[Problem]:
        """Schemas that can be used."""
        problems = []
        for name, schema in settings.schemas.items():
            try:
                check_schema(encode(schema))
            except BadSchema as error:
                problems.append(Problem(f"schemas.{name}", f"is {error}"))
        return problems

    def on_request(self, subject: Subject, view: View) -> Ruling:
        """Judge what the request declares."""
        declared = [
            part.text for part in view.texts if part.kind == "tool_definition" and _NAME_PLACE.fullmatch(part.path)
        ]
        refused = [name for name in declared if not self._is_allowed(name)]
        if not refused:
            return Ruling()
        return self._refuse("not-allowed", listed(map(_shown, refused)), "The request declares tools that it may not")

    def on_completion(self, subject: Subject, view: View) -> Ruling:
        """Judge what the answer calls."""
        found = dict(self._faults(view.context.calls, view.context.tools))
        if not found:
            return Ruling()
        what = next(what for what in _ORDER if what in found)
        return self._refuse(what, found[what], "The answer was withheld for a call that it may not make")

    def _refuse(self, what: str, detail: str, sentence: str) -> Ruling:
        settings = self.settings
        message = settings.message or f"{sentence}: {detail} (policy tool-validation)."
        return outcome(settings.action, f"tool-validation.{what}", detail, message, mode=settings.mode)

    def _faults(self, calls: Sequence[Call], tools: Sequence[Tool]) -> Iterator[tuple[str, str]]:
        """What is wrong with the calls of an answer: a reason, and the tool with the place in its schema."""
        settings = self.settings
        declared = {tool.name: tool.parameters for tool in tools}
        known = {**declared, **self._schemas}
        if settings.max_calls and len(calls) > settings.max_calls:
            yield "too-many-calls", f"{len(calls)} of {settings.max_calls}"
        for call in calls:
            if not self._is_allowed(call.name):
                yield "not-allowed", _shown(call.name)
            elif settings.require_declared and call.name not in known:
                yield "undeclared", _shown(call.name)
            elif settings.validate_arguments and (what := _wrong(call, known)):
                yield what

    def _is_allowed(self, name: str) -> bool:
        settings = self.settings
        if matches_any(name, settings.deny):
            return False
        return not settings.allow or matches_any(name, settings.allow)


def _wrong(call: Call, schemas: Mapping[str, bytes | None]) -> tuple[str, str] | None:
    """What is wrong with the arguments of a call. A tool without a schema takes any text."""
    schema = schemas.get(call.name)
    if schema is None:
        return None
    name = _shown(call.name)
    try:
        place = fault(schema, parse(call.arguments))
    except BadJSON as error:
        return "not-json", f"{name} ({error})"
    except BadSchema:
        return "bad-schema", name
    return ("invalid-arguments", f"{name} ({place[:200]})") if place else None


def _shown(name: str) -> str:
    """A tool's name is a client's or a model's own text; only what looks like a name is repeated."""
    return name if _PLAIN.fullmatch(name) else "a tool of another name"
