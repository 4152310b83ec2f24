"""`response-rewriter`: changes to what the model says before the client reads it.

Terms and patterns are replaced, and a notice may be put before or after an answer. It reads answers only, and of these
the messages, not calls of tools. In a stream replacements are made as the text flows; a notice needs the whole answer.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from gateway.types import Phase, Subject, Verdict
from policy.base import INLINE_BYTES, Pattern, Policy, Problem, Redaction, Ruling, View
from policy.outcome import Mode, Streaming, listed
from policy.scan import refusal
from policy.terms import term_patterns
from policy.text import encode, is_encodable

_KINDS = frozenset({"message", "refusal"})


class RewriteRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Something to find, and what to put in its place. Exactly one of `term` and `regex` is given."""

    name: Annotated[
        str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$", description="What decisions call the rule.")
    ]
    replacement: Annotated[str, Meta(max_length=4096, description="What takes the place of what was found.")]
    term: Annotated[str, Meta(max_length=1024, description="Words to find as whole words, in upper or lower case.")] = (
        ""
    )
    regex: Annotated[str, Meta(max_length=4096, description="An expression in RE2's syntax, as in `dlp-filter`.")] = ""


class ResponseRewriterSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to change in answers."""

    rules: Annotated[tuple[RewriteRule, ...], Meta(description="What to replace.")] = ()
    prepend: Annotated[str, Meta(max_length=4096, description="Put before each message of an answer.")] = ""
    append: Annotated[str, Meta(max_length=4096, description="Put after each message of an answer.")] = ""
    streaming: Streaming = "guard"
    mode: Mode = "enforce"


class ResponseRewriter(Policy[ResponseRewriterSettings]):
    """Redacts answers; it never refuses one."""

    kind = "response-rewriter"
    inline_bytes = INLINE_BYTES
    Settings = ResponseRewriterSettings
    reasons = ("response-rewriter.replaced", "response-rewriter.notice")
    phases = (Phase.OUTPUT,)
    guards = True

    def __init__(self, settings: ResponseRewriterSettings) -> None:
        super().__init__(settings)
        found = [
            term_patterns((rule.term,), whole_word=True, once=False)[0] if rule.term else Pattern(rule.regex)
            for rule in settings.rules
        ]
        # It is asked only where a pattern matched, and a notice goes on every answer that says something.
        self.patterns = (*found, Pattern(r"\S", once=True)) if settings.prepend or settings.append else tuple(found)

    @classmethod
    def check(cls, settings: ResponseRewriterSettings) -> list[Problem]:
        """Something to do, rules that say what to find, and a delivery in which it can be done."""
        problems: list[Problem] = []
        for number, rule in enumerate(settings.rules):
            path = f"rules[{number}]"
            if bool(rule.term.strip()) == bool(rule.regex):
                problems.append(Problem(path, "give exactly one of `term` and `regex`"))
            elif not is_encodable(rule.term):
                problems.append(Problem(f"{path}.term", "holds half a character"))
            elif rule.regex and (reason := refusal(rule.regex)):
                problems.append(Problem(f"{path}.regex", reason))
        notices = bool(settings.prepend or settings.append)
        if not settings.rules and not notices:
            problems.append(Problem("", "has nothing to do: give `rules`, `prepend` or `append`"))
        if settings.streaming == "hold_done":
            problems.append(Problem("streaming", "`hold_done` is too late to change anything: use `guard` or `buffer`"))
        elif notices and settings.streaming != "buffer":
            problems.append(Problem("streaming", "`prepend` and `append` need the whole answer: set `buffer`"))
        return problems

    def on_completion(self, subject: Subject, view: View) -> Ruling:
        """Replace what was found, and put the notices."""
        rules = self.settings.rules
        matches = [match for match in view.matches if view.texts[match.part].kind in _KINDS]
        found = [match for match in matches if match.pattern < len(rules)]
        made = [Redaction(match.part, match.start, match.end, rules[match.pattern].replacement) for match in found]
        for part in sorted({match.part for match in matches if match.pattern == len(rules)}):
            made += self._notices(part, view.texts[part].text)
        if not made:
            return Ruling()
        reason = self.reasons[0] if found else self.reasons[1]
        detail = listed(rules[number].name for number in sorted({match.pattern for match in found}))
        return Ruling(Verdict.REDACT, reason, detail, redactions=tuple(made))

    def _notices(self, part: int, text: str) -> list[Redaction]:
        end = len(encode(text))
        settings = self.settings
        before = [Redaction(part, 0, 0, settings.prepend)] if settings.prepend else []
        after = [Redaction(part, end, end, settings.append)] if settings.append else []
        return before + after
