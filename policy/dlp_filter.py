"""`dlp-filter`: refuse or redact texts that contain an operator's own terms and patterns.

It sees texts only through the chain's one scan and judges by what matched there. What it says of a match is the
operator's own name for the pattern, or the number of the term: never a piece of the text.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from gateway.types import Phase, Subject, TextPart, Verdict
from policy.base import INLINE_BYTES, Match, Pattern, Policy, Problem, Redaction, Ruling, View
from policy.outcome import Decode, Streaming
from policy.scan import refusal
from policy.terms import term_patterns
from policy.text import is_encodable

MAX_LISTED = 8

Role = Literal["system", "developer", "user", "assistant", "tool"]


class NamedPattern(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A regular expression with the name by which decisions and replacements call it."""

    name: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$",
            description="What decisions, audit records and replacements call the pattern. Letters, digits, `_.-`.",
        ),
    ]
    regex: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=4096,
            description="The expression, in RE2 syntax: linear time, so no look-around and no back-references. "
            "`^` and `$` match at every line; `(?i)` ignores case.",
        ),
    ]


class DlpFilterSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to look for, where, and what to do when it is there."""

    terms: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=1024)], ...],
        Meta(description="Words or phrases to find, in upper or lower case. Not regular expressions."),
    ] = ()
    match: Annotated[
        Literal["word", "substring"],
        Meta(description="Whether a term must stand as whole words (`word`) or may be part of one (`substring`)."),
    ] = "word"
    patterns: Annotated[
        tuple[NamedPattern, ...], Meta(description="Regular expressions to find, each with a name.")
    ] = ()
    action: Annotated[
        Literal["block", "redact"],
        Meta(
            description="Refuse the exchange, or replace what was found and let it go on. In a "
            "stream under `hold_done` it is too late to redact, so that `redact` acts as `block`."
        ),
    ] = "block"
    replacement: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=256,
            description="What takes the place of a redacted match. `<name>` becomes the pattern's name, or `term`.",
        ),
    ] = "[REDACTED:<name>]"
    phase: Annotated[
        tuple[Phase, ...],
        Meta(
            min_length=1,
            description="Where to look: in what goes to the model (`input`), in what comes back (`output`), or both. "
            "`streaming` says what `output` means for streams.",
        ),
    ] = (Phase.INPUT,)
    roles: Annotated[
        tuple[Role, ...],
        Meta(description="Look only at texts of these speakers. Empty means all of them."),
    ] = ()
    decode: Decode = False
    streaming: Streaming = "hold_done"
    mode: Annotated[
        Literal["enforce", "monitor"],
        Meta(description="`monitor` records what would have happened and lets everything pass unchanged."),
    ] = "enforce"
    message: Annotated[
        str,
        Meta(max_length=1024, description="What a blocked client is told, in place of the standard sentence."),
    ] = ""


class DlpFilter(Policy[DlpFilterSettings]):
    """Judges by the matches of its terms and patterns."""

    kind = "dlp-filter"
    inline_bytes = INLINE_BYTES
    Settings = DlpFilterSettings
    reasons = ("dlp-filter.term", "dlp-filter.pattern")
    guards = True

    def __init__(self, settings: DlpFilterSettings) -> None:
        super().__init__(settings)
        self.phases = settings.phase
        self._redacts = settings.action == "redact" and settings.mode == "enforce"
        self._roles = frozenset(settings.roles)
        self._labels = (
            *(f"terms[{number}]" for number in range(len(settings.terms))),
            *(pattern.name for pattern in settings.patterns),
        )
        self._replacements = tuple(
            settings.replacement.replace("<name>", name)
            for name in (*("term" for _ in settings.terms), *(pattern.name for pattern in settings.patterns))
        )
        once = not self._redacts
        self.patterns = (
            *term_patterns(settings.terms, whole_word=settings.match == "word", once=once),
            *(Pattern(pattern.regex, once=once) for pattern in settings.patterns),
        )

    @classmethod
    def check(cls, settings: DlpFilterSettings) -> list[Problem]:
        """Something to look for, names that tell patterns apart, and expressions that run in linear time."""
        problems = [
            Problem(f"terms[{number}]", "holds nothing but white space, or half a character")
            for number, term in enumerate(settings.terms)
            if not term.strip() or not is_encodable(term)
        ]
        names: set[str] = set()
        for number, pattern in enumerate(settings.patterns):
            if pattern.name in names:
                problems.append(Problem(f"patterns[{number}].name", f"`{pattern.name}` is taken by another pattern"))
            names.add(pattern.name)
            if reason := refusal(pattern.regex):
                problems.append(Problem(f"patterns[{number}].regex", reason))
        if not settings.terms and not settings.patterns:
            problems.append(Problem("", "has nothing to look for: give `terms`, `patterns` or both"))
        return problems

    def on_request(self, subject: Subject, view: View) -> Ruling:
        """Judge what goes to the model."""
        return self._judge(view, "The request was blocked by policy dlp-filter: {found} in {places}.")

    def on_completion(self, subject: Subject, view: View) -> Ruling:
        """Judge what came back."""
        return self._judge(view, "The answer was blocked by policy dlp-filter: {found} in {places}.")

    def _judge(self, view: View, sentence: str) -> Ruling:
        matches = [match for match in view.matches if self._concerns(view.texts[match.part])]
        if not matches:
            return Ruling()
        reason = self.reasons[0] if matches[0].pattern < len(self.settings.terms) else self.reasons[1]
        detail = _listed(self._labels[number] for number in sorted({match.pattern for match in matches}))
        if self.settings.mode == "monitor":
            return Ruling(Verdict.ALLOW, reason, detail)
        places = _listed(view.texts[part].path or f"text {part}" for part in sorted({match.part for match in matches}))
        return Ruling(
            Verdict.REDACT if self._redacts else Verdict.BLOCK,
            reason,
            detail,
            self.settings.message or sentence.format(found=detail, places=places),
            tuple(map(self._redaction, matches)) if self._redacts else (),
        )

    def _concerns(self, text: TextPart) -> bool:
        return not self._roles or text.role in self._roles

    def _redaction(self, match: Match) -> Redaction:
        return Redaction(match.part, match.start, match.end, self._replacements[match.pattern])


def _listed(names: Iterable[str]) -> str:
    """The first few names: a list of 1,000 terms must not fill a record or an error message."""
    distinct = list(dict.fromkeys(names))
    return ", ".join(distinct[:MAX_LISTED]) + (" and more" if len(distinct) > MAX_LISTED else "")
