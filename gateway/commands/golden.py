"""Golden cases: texts with what a chain must say of them; and whole files of texts to compare two chains by.

A file of cases is YAML, the same form in which the policies' own pages and tests write theirs
(docs/adding-a-policy.md). A corpus is one text a line, or JSON Lines of `{"text": …}`, `{"texts": […]}` or
`{"messages": […]}`. Nothing here asks a provider, or a service that a policy would ask.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import orjson
import yaml

from gateway.config.load import LoadedConfiguration
from gateway.types import Decision, FailMode, Phase, Screening, Subject, TextPart, Verdict
from policy.base import Call, Context, Pipeline, Tool
from policy.compile import compile_chain

_ROUNDS = 5
"""Each text is timed so often, and the fastest counts: the others measure the machine's other work."""


class CasesInvalid(Exception):
    """A file of cases or a corpus cannot be read."""


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who asks for what, as far as it matters to a case."""

    model: str = ""
    operation: str = "chat"
    team: str | None = None
    key_name: str | None = None
    key_id: str | None = None


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One text with its place."""

    text: str
    role: str = "user"
    kind: str = "message"
    path: str = ""


class Declared(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tool that the request declares."""

    name: str
    parameters: dict[str, Any] | None = None


class Expected(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What must come out; what is left out may be anything. `policy` is the one whose decision it is."""

    verdict: Verdict
    policy: str | None = None
    reason: str | None = None
    detail: str | None = None
    message: str | None = None
    texts: tuple[str, ...] | None = None


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One case of a file."""

    name: str
    texts: tuple[str | Part, ...]
    expect: Verdict | Expected
    phase: Phase = Phase.INPUT
    delivered: bool = False
    subject: Asked = Asked()
    request: tuple[str | Part, ...] = ()
    tools: tuple[Declared, ...] = ()
    calls: tuple[Call, ...] = ()
    finish_reason: str = ""


class Outcome(NamedTuple):
    """How one case went: what differs, by field, as (expected, actual)."""

    case: str
    differences: Mapping[str, tuple[object, object]]

    @property
    def passed(self) -> bool:
        return not self.differences


def pipeline_of(loaded: LoadedConfiguration) -> Pipeline:
    """The compiled chain of a configuration."""
    configuration = loaded.configuration
    return compile_chain(
        configuration.policies.chain,
        configuration.policy,
        fail_mode=FailMode(configuration.gateway.fail_mode),
        configuration_id=configuration.pack.name,
    )


def read_cases(file: Path) -> list[Case]:
    """The cases of a YAML file. Raises CasesInvalid."""
    try:
        return msgspec.convert(yaml.safe_load(file.read_bytes()), list[Case])
    except OSError as error:
        raise CasesInvalid(f"{file}: cannot be read: {error.strerror or error}") from error
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise CasesInvalid(f"{file}: {error}") from error


def play(pipeline: Pipeline, case: Case) -> Outcome:
    """Run one case."""
    texts = [_part(text) for text in case.texts]
    asked = case.subject
    subject = Subject("golden", asked.key_id, asked.key_name, asked.team, model=asked.model, operation=asked.operation)
    if case.phase is Phase.INPUT:
        screening = pipeline.screen(subject, texts)
    else:
        screening = pipeline.review(subject, texts, delivered=case.delivered, context=_context(case))
    expected = Expected(case.expect) if isinstance(case.expect, Verdict) else case.expect
    actual = _actual(screening, texts)
    wanted = {name: value for name, value in msgspec.structs.asdict(expected).items() if value is not None}
    return Outcome(case.name, {name: (value, actual[name]) for name, value in wanted.items() if actual[name] != value})


def _context(case: Case) -> Context:
    return Context(
        [_part(text) for text in case.request],
        [Tool(one.name, None if one.parameters is None else orjson.dumps(one.parameters)) for one in case.tools],
        case.calls,
        finish_reason=case.finish_reason,
    )


def _actual(screening: Screening, texts: Sequence[TextPart]) -> dict[str, object]:
    decision = _deciding(screening)
    return {
        "verdict": screening.verdict,
        "policy": decision.policy if decision else "",
        "reason": decision.reason if decision else "",
        "detail": decision.detail if decision else "",
        "message": screening.message,
        "texts": tuple(screening.replacements.get(number, part.text) for number, part in enumerate(texts)),
    }


def _deciding(screening: Screening) -> Decision | None:
    """The decision that made the verdict; where all allow, the first that has a reason all the same."""
    return next(
        (one for one in screening.decisions if one.verdict is screening.verdict and one.reason),
        screening.decisions[-1] if screening.decisions else None,
    )


def _part(text: str | Part) -> TextPart:
    return TextPart(text) if isinstance(text, str) else TextPart(text.text, text.role, text.kind, text.path)


class Changed(NamedTuple):
    """One text of which two chains say different things. `line` counts from 1."""

    line: int
    before: str
    after: str


class Comparison(NamedTuple):
    """Two chains on one corpus. Microseconds are medians over its texts."""

    texts: int
    changed: list[Changed]
    before_us: float
    after_us: float


def compare(before: Pipeline, after: Pipeline, file: Path) -> Comparison:
    """What two chains say of each text of a corpus as a request, and what it takes them. Raises CasesInvalid."""
    changed: list[Changed] = []
    times: tuple[list[float], list[float]] = ([], [])
    lines = 0
    for line, texts in read_corpus(file):
        lines += 1
        said = []
        for pipeline, taken in zip((before, after), times, strict=True):
            microseconds, screening = _timed(pipeline, texts)
            taken.append(microseconds)
            said.append(_said(screening))
        if said[0] != said[1]:
            changed.append(Changed(line, *said))
    if not lines:
        raise CasesInvalid(f"{file}: has no texts")
    return Comparison(lines, changed, statistics.median(times[0]), statistics.median(times[1]))


def _timed(pipeline: Pipeline, texts: Sequence[TextPart]) -> tuple[float, Screening]:
    subject = Subject("golden", operation="chat")
    best = float("inf")
    for _ in range(_ROUNDS):
        began = time.perf_counter_ns()
        screening = pipeline.screen(subject, texts)
        best = min(best, (time.perf_counter_ns() - began) / 1000)
    return best, screening


def _said(screening: Screening) -> str:
    decision = _deciding(screening)
    reason = decision.reason if decision else ""
    return f"{screening.verdict} ({reason})" if reason else str(screening.verdict)


def read_corpus(file: Path) -> Iterator[tuple[int, list[TextPart]]]:
    """The texts of each line that is not empty, with its number. Raises CasesInvalid."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CasesInvalid(f"{file}: cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield number, _texts(line, f"{file}:{number}")


def _texts(line: str, place: str) -> list[TextPart]:
    if not line.lstrip().startswith("{"):
        return [TextPart(line)]
    try:
        entry = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise CasesInvalid(f"{place}: is not JSON: {error}") from error
    if isinstance(entry.get("text"), str):
        return [TextPart(entry["text"])]
    try:
        if "texts" in entry:
            return [_part(text) for text in msgspec.convert(entry["texts"], list[str | Part])]
        return [
            TextPart(message["content"], str(message.get("role", "user")), path=f"messages[{index}].content")
            for index, message in enumerate(entry["messages"])
            if isinstance(message.get("content"), str)
        ]
    except (KeyError, TypeError, AttributeError, msgspec.ValidationError):
        raise CasesInvalid(f"{place}: has neither `text` nor `texts` nor `messages`") from None
