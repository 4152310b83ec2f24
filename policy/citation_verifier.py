"""`citation-verifier`: do an answer's citations exist, are its quotations true, and do its sources say what it says?

The sources are the request's own texts: tool results, documents and numbered passages. Nothing is fetched. References
that point at nothing and quotations that stand in no source are found exactly; whether a source supports a statement is
judged by words (`grounding.py`) and is a hint. What it says are counts and places, never a piece of the answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from gateway.types import Phase, Subject, TextPart
from policy import citations as cited
from policy.base import Policy, Problem, Ruling, View
from policy.grounding import join, read_passage, support
from policy.outcome import Action, Message, Mode, outcome

MAX_STATEMENTS = 64
"""So many cited statements of one answer are compared with their sources: a bound on the time, not on the answer."""

_DOCUMENTS = frozenset({"tool_result", "document", "search_result", "file"})
_ORDER = ("fabricated-reference", "fabricated-quote", "unsupported", "missing-citation", "unsure")


class CitationVerifierSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What counts as a source, what is asked of an answer, and what to do."""

    action: Annotated[Action, Meta(description="What to do about references and quotations that do not exist.")] = (
        "block"
    )
    support_action: Annotated[
        Action, Meta(description="What to do about statements that their sources do not seem to support.")
    ] = "warn"
    min_support: Annotated[
        float,
        Meta(ge=0, le=1, description="A cited statement of lower support is `unsupported`. 0 does not compare at all."),
    ] = 0.2
    sure_support: Annotated[
        float,
        Meta(ge=0, le=1, description="Between `min_support` and this, a statement is `unsure`, which only warns."),
    ] = 0.3
    quote_min_words: Annotated[
        int, Meta(ge=2, le=100, description="Shorter passages in quotation marks are not taken for quotations.")
    ] = 5
    min_quote_match: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="How much of a quotation must stand in a source: 1 is all, word for word; less is a "
            "share of its runs of five words. 0 does not look at quotations.",
        ),
    ] = 1.0
    min_coverage: Annotated[
        float, Meta(ge=0, le=1, description="The share of statements that must have a citation. 0 asks for none.")
    ] = 0.0
    allow_hosts: Annotated[
        tuple[Annotated[str, Meta(pattern=r"^[a-z0-9.-]+$")], ...],
        Meta(description="Links to these hosts and their subdomains may be given though the request has none."),
    ] = ()
    mode: Mode = "enforce"
    message: Message = ""


class Finding(NamedTuple):
    """One fault of an answer; offsets count its characters."""

    what: str
    start: int
    end: int


class CitationVerifier(Policy[CitationVerifierSettings]):
    """Judges the complete answer by its citations."""

    kind = "citation-verifier"
    inline_bytes = 0  # one citation may take 0.2 ms
    Settings = CitationVerifierSettings
    reasons = tuple(f"citation-verifier.{what}" for what in _ORDER)
    phases = (Phase.OUTPUT,)

    @classmethod
    def check(cls, settings: CitationVerifierSettings) -> list[Problem]:
        """The band of doubt lies above the threshold."""
        if settings.min_support and settings.sure_support < settings.min_support:
            return [Problem("sure_support", "is less than `min_support`")]
        return []

    def on_completion(self, subject: Subject, view: View) -> Ruling:
        """Name what is wrong with the citations of the answer."""
        answer = "\n".join(text.text for text in view.texts if text.kind == "message")
        question = next((text.text for text in reversed(view.request) if text.role == "user"), "")
        found = list(self.findings(answer, view.request, question))
        if not found:
            return Ruling()
        counts = Counter(finding.what for finding in found)
        detail = "; ".join(f"{what} {counts[what]}" for what in _ORDER if what in counts)
        first = next(finding for what in _ORDER for finding in found if finding.what == what)
        settings = self.settings
        actions = {"unsure": "warn", "unsupported": settings.support_action}
        action = actions.get(first.what, settings.action)
        spans = ", ".join(f"{finding.start}-{finding.end}" for finding in found if finding.what == first.what)
        message = settings.message or f"The answer was withheld by policy citation-verifier: {detail}."
        return outcome(
            action,
            f"citation-verifier.{first.what}",
            f"{detail}; at {spans[:200]}",
            message,
            mode=settings.mode,
        )

    def findings(self, answer: str, request: Sequence[TextPart], question: str = "") -> Iterator[Finding]:
        """Everything that is wrong with the citations of an answer, given the texts of its request."""
        settings = self.settings
        texts = [cited.Source(part.text, document=part.kind in _DOCUMENTS or part.role == "tool") for part in request]
        sources = cited.Sources(texts, answer, settings.allow_hosts)
        citations = cited.parse(answer)
        for citation in citations:
            if any(sources.passages(key) is None for key in citation.keys):
                yield Finding("fabricated-reference", citation.start, citation.end)
        statements = list(cited.statements(answer, citations))
        if settings.min_quote_match:
            yield from self._quotes(answer, statements, sources)
        if settings.min_support:
            yield from self._unsupported(answer, statements, sources, question)
        yield from self._uncovered(answer, statements)

    def _quotes(self, answer: str, statements: Sequence[cited.Statement], sources: cited.Sources) -> Iterator[Finding]:
        """Quotations must stand in what they cite; those that cite nothing, in any text of the request."""
        finders: dict[tuple[str, ...], Callable[[str], bool]] = {}
        for quote in cited.quotes(answer, self.settings.quote_min_words):
            own = next((each for each in statements if each.start <= quote.start < each.end), None)
            passages = _passages(own, sources) if own is not None and own.citations else None
            if passages is None:
                passages = sources.texts if sources.given else []
            if not passages:
                continue
            if (key := tuple(passages)) not in finders:
                finders[key] = cited.finder(passages)
            if cited.quote_share(quote.text, finders[key]) < self.settings.min_quote_match:
                yield Finding("fabricated-quote", quote.start, quote.end)

    def _unsupported(
        self, answer: str, statements: Sequence[cited.Statement], sources: cited.Sources, question: str
    ) -> Iterator[Finding]:
        read = {}
        for statement in [each for each in statements if each.citations][:MAX_STATEMENTS]:
            passages = _passages(statement, sources)
            if not passages:
                continue
            for text in passages:
                if text not in read:
                    read[text] = read_passage(text)
            score = support(cited.wording(answer, statement), join([read[text] for text in passages]), question)
            if score < self.settings.min_support:
                yield Finding("unsupported", statement.start, statement.end)
            elif score < self.settings.sure_support:
                yield Finding("unsure", statement.start, statement.end)

    def _uncovered(self, answer: str, statements: Sequence[cited.Statement]) -> Iterator[Finding]:
        bare = [each for each in statements if not each.citations]
        if statements and 1 - len(bare) / len(statements) < self.settings.min_coverage:
            yield from (Finding("missing-citation", each.start, each.end) for each in bare)


def _passages(statement: cited.Statement, sources: cited.Sources) -> list[str] | None:
    """The texts that a statement cites; empty if they are not at hand, None if a citation points at nothing."""
    found: list[str] = []
    for citation in statement.citations:
        for key in citation.keys:
            passages = sources.passages(key)
            if passages is None:
                return None
            found += passages
    return list(dict.fromkeys(found))
