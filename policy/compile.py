"""A chain and its settings, compiled into the pipeline that requests walk.

`KINDS` is the one list of policy kinds. `compile_chain` checks the settings, makes each policy once, puts the patterns
of all policies of a phase into one scanner and binds the hooks into tuples. The pipeline never raises and holds
nothing that a request changes. Who is asked how, with which key and over which wire, it does not know.

Measured on one core with 40 patterns on a clean text of 1 KB: `screen` takes 1.8 µs in all, of which joining and
encoding 0.4; 256 KB take 80 to 250 µs, 5,000 terms at 1 KB 2.6. A chain that reads nothing takes 0.05. The time in a
decision is the policy's own; the shared scan is in none of them.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from gateway.types import ALLOWED, Decision, Delivery, FailMode, Phase, Screening, Subject, TextPart, Verdict
from policy import scan
from policy.audit_logger import AuditLogger, AuditLoggerSettings
from policy.base import Hook, Match, Pattern, Pipeline, Policy, PolicyConfigError, Problem, Redaction, Ruling, View
from policy.dlp_filter import DlpFilter
from policy.external_moderation import ExternalModeration, ExternalModerationSettings
from policy.human_oversight import HumanOversight, HumanOversightSettings
from policy.language_validator import LanguageValidator
from policy.model_access import ModelAccess
from policy.pii_detector import PiiDetector
from policy.rbac import Rbac
from policy.safety_filter import SafetyFilter
from policy.text import redact

KINDS: dict[str, type[Policy[Any]]] = {
    AuditLogger.kind: AuditLogger,
    DlpFilter.kind: DlpFilter,
    ExternalModeration.kind: ExternalModeration,
    HumanOversight.kind: HumanOversight,
    LanguageValidator.kind: LanguageValidator,
    ModelAccess.kind: ModelAccess,
    PiiDetector.kind: PiiDetector,
    Rbac.kind: Rbac,
    SafetyFilter.kind: SafetyFilter,
}
"""Every policy kind that a chain may name, with its class; `KINDS[kind].Settings` is the schema of its settings."""

_STRICTNESS = {Verdict.ALLOW: 0, Verdict.REDACT: 1, Verdict.ESCALATE: 2, Verdict.BLOCK: 3}

Clock = Callable[[], int]
"""Nanoseconds since any moment, as `time.perf_counter_ns`."""

OnError = Callable[[str, Exception], None]
"""Told of an error inside a policy: its kind, and the exception."""


def compile_chain(
    chain: Sequence[str],
    settings: Mapping[str, msgspec.Struct],
    *,
    fail_mode: FailMode,
    configuration_id: str,
    clock: Clock = lambda: 0,
    on_error: OnError = lambda kind, error: None,
    engine: scan.Engine = scan.DEFAULT_ENGINE,
) -> Pipeline:
    """The pipeline of a chain. `settings` maps kinds to their settings; a kind without any gets its defaults.

    Raises `PolicyConfigError`, which names every fault. Takes milliseconds for each pattern, so call it off the event
    loop. Without a clock, decisions say 0 microseconds.
    """
    chosen = {kind: settings.get(kind, _defaults(kind)) for kind in chain}
    if problems := list(_faults(chain, chosen)):
        raise PolicyConfigError(problems)
    policies = [KINDS[kind](chosen[kind]) for kind in chain]
    failure = _Failure(fail_mode, on_error)
    try:
        incoming, outgoing = (_Stage(phase, policies, failure, clock, engine) for phase in Phase)
    except scan.PatternError as error:
        raise PolicyConfigError([Problem("policies.chain", str(error))]) from error
    audit = chosen.get(AuditLogger.kind)
    moderation, oversight = chosen.get(ExternalModeration.kind), chosen.get(HumanOversight.kind)
    asked = moderation.phase if isinstance(moderation, ExternalModerationSettings) else ()
    reviews = bool(outgoing.steps) or Phase.OUTPUT in asked
    return ChainPipeline(
        configuration_id=configuration_id,
        version=_version(chain, chosen, fail_mode),
        delivery=Delivery.HOLD_DONE if reviews else Delivery.PASS,
        reads_input=bool(incoming.steps) or Phase.INPUT in asked,
        reads_output=reviews,
        audits=audit is not None,
        audit=audit if isinstance(audit, AuditLoggerSettings) else None,
        moderation=moderation if isinstance(moderation, ExternalModerationSettings) else None,
        oversight=oversight if isinstance(oversight, HumanOversightSettings) else None,
        incoming=incoming,
        outgoing=outgoing,
    )


def _defaults(kind: str) -> msgspec.Struct | None:
    return KINDS[kind].Settings() if kind in KINDS else None


def _faults(chain: Sequence[str], settings: Mapping[str, msgspec.Struct | None]) -> Iterable[Problem]:
    for place, kind in enumerate(chain):
        if kind not in KINDS:
            yield Problem(
                f"policies.chain[{place}]", f"unknown policy kind `{kind}`; known: {', '.join(sorted(KINDS))}"
            )
        elif kind in chain[:place]:
            yield Problem(f"policies.chain[{place}]", f"`{kind}` is in the chain already")
        else:
            yield from check_settings(kind, settings[kind])


def check_settings(kind: str, settings: Any) -> Iterable[Problem]:
    """Faults in the settings of one kind that their types do not exclude; paths count from the file's root."""
    policy = KINDS[kind]
    if not isinstance(settings, policy.Settings):
        return [Problem(f"policy.{kind}", f"expects {policy.Settings.__qualname__}, not {type(settings).__qualname__}")]
    return [Problem(f"policy.{kind}.{problem.path}".rstrip("."), problem.message) for problem in policy.check(settings)]


def _version(chain: Sequence[str], settings: Mapping[str, Any], fail_mode: FailMode) -> str:
    described = msgspec.json.encode([fail_mode, [(kind, settings[kind]) for kind in chain]], order="deterministic")
    return hashlib.sha256(described).hexdigest()[:16]


class ChainPipeline(msgspec.Struct, frozen=True, kw_only=True):
    """A compiled chain; `policy.base.Pipeline` says what its members promise."""

    configuration_id: str
    version: str
    delivery: Delivery
    reads_input: bool
    reads_output: bool
    audits: bool
    audit: AuditLoggerSettings | None
    moderation: ExternalModerationSettings | None
    oversight: HumanOversightSettings | None
    incoming: _Stage
    outgoing: _Stage

    def __repr__(self) -> str:
        steps = [f"{stage.phase} {step.kind}" for stage in (self.incoming, self.outgoing) for step in stage.steps]
        audits = ["audits"] if self.audits else []
        return f"<pipeline {self.configuration_id} {self.version}: {', '.join([*steps, *audits, self.delivery])}>"

    def screen(self, subject: Subject, texts: Sequence[TextPart]) -> Screening:
        return self.incoming.judge(subject, texts) if self.reads_input else ALLOWED

    def review(self, subject: Subject, texts: Sequence[TextPart], *, delivered: bool = False) -> Screening:
        return self.outgoing.judge(subject, texts, delivered) if self.reads_output else ALLOWED

    def scan_cost_bytes(self, texts: Sequence[TextPart]) -> int:
        # A character beyond ASCII takes at most four bytes (RFC 3629, section 3); isascii() is a flag, not a search.
        return sum([len(part.text) if part.text.isascii() else 4 * len(part.text) for part in texts])


class _Failure:
    """What an error inside a policy means: reported, and then a ruling by the fail mode."""

    def __init__(self, mode: FailMode, on_error: OnError) -> None:
        self._verdict = Verdict.BLOCK if mode is FailMode.BLOCK else Verdict.ALLOW
        self._on_error = on_error

    def ruling(self, kind: str, error: Exception) -> Ruling:
        with contextlib.suppress(Exception):  # a reporter that fails must not undo the fail mode
            self._on_error(kind, error)
        return Ruling(self._verdict, f"{kind}.error", message=f"The policy {kind} could not be evaluated.")


class _Step(msgspec.Struct, frozen=True):
    """One policy in one phase. Its patterns are those from `first` to before `last` in the scanner."""

    kind: str
    hook: Hook
    allowed: Decision
    first: int
    last: int

    @property
    def scans(self) -> bool:
        return self.first < self.last

    def own(self, matches: Sequence[Match]) -> list[Match]:
        """The matches of its patterns, numbered as the policy numbers them."""
        return [
            Match(match.part, match.start, match.end, match.pattern - self.first)
            for match in matches
            if self.first <= match.pattern < self.last
        ]


class _Stage:
    """All policies of one phase: one scan, then each policy that has something to say."""

    def __init__(
        self, phase: Phase, policies: Sequence[Policy[Any]], failure: _Failure, clock: Clock, engine: scan.Engine
    ) -> None:
        self.phase = phase
        self._failure = failure
        self._clock = clock
        patterns: list[Pattern] = []
        steps: list[_Step] = []
        for policy in policies:
            if (hook := policy.hook(phase)) is not None:
                first = len(patterns)
                patterns += policy.patterns
                allowed = Decision(policy.kind, phase, Verdict.ALLOW)
                steps.append(_Step(policy.kind, hook, allowed, first, len(patterns)))
        self.steps = tuple(steps)
        self._scanner = scan.scanner(tuple(patterns), engine) if patterns else None
        self._clean = Screening(Verdict.ALLOW, tuple(step.allowed for step in steps))
        self._only_scans = all(step.scans for step in steps)

    def judge(self, subject: Subject, texts: Sequence[TextPart], delivered: bool = False) -> Screening:
        """What the chain says of some texts. Never raises."""
        if self._scanner is None:
            return self._walk(subject, texts, (), None, delivered)
        try:
            matches = self._scanner.find(texts)
        except Exception as error:
            return self._walk(subject, texts, (), error, delivered)
        if not matches and self._only_scans:
            return self._clean  # built once: on most texts a chain of patterns costs its scan and nothing else
        return self._walk(subject, texts, matches, None, delivered)

    def _walk(
        self,
        subject: Subject,
        texts: Sequence[TextPart],
        matches: Sequence[Match],
        broken: Exception | None,
        delivered: bool,
    ) -> Screening:
        """Ask each policy in turn. `broken` is the error that the scan met."""
        decisions: list[Decision] = []
        redactions: list[Redaction] = []
        message = ""
        verdict = Verdict.ALLOW
        for step in self.steps:
            own = step.own(matches)
            if step.scans and not own and broken is None:
                decisions.append(step.allowed)
                continue
            began = self._clock()
            ruling = self._ask(step, subject, View(texts, own), broken if step.scans else None)
            said = Verdict.BLOCK if delivered and ruling.verdict is Verdict.REDACT else ruling.verdict
            spent = (self._clock() - began) // 1000
            decisions.append(Decision(step.kind, self.phase, said, ruling.reason, ruling.detail, spent))
            if _STRICTNESS[said] > _STRICTNESS[verdict]:
                verdict = said
                message = ruling.message or f"Refused by policy {step.kind} ({ruling.reason})."
            if said is Verdict.BLOCK:
                break
            if said is Verdict.REDACT:
                redactions += ruling.redactions
        if verdict is Verdict.REDACT:
            return Screening(verdict, tuple(decisions), redact(texts, redactions))
        # What a person approves goes on redacted all the same.
        kept = redact(texts, redactions) if verdict is Verdict.ESCALATE else {}
        return Screening(verdict, tuple(decisions), kept, message)

    def _ask(self, step: _Step, subject: Subject, view: View, broken: Exception | None) -> Ruling:
        if broken is not None:
            return self._failure.ruling(step.kind, broken)
        try:
            ruling = step.hook(subject, view)
            if not all(0 <= redaction.part < len(view.texts) for redaction in ruling.redactions):
                raise IndexError("a redaction names a text part that does not exist")
        except Exception as error:
            return self._failure.ruling(step.kind, error)
        return ruling
