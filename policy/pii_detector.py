"""`pii-detector`: find personal data that has a form of its own, and redact, refuse or report it.

It sees candidates through the chain's one scan and judges each by its checksum, its shape and the words around it. In
the place of a value goes a placeholder that tells the model what stood there (`<EMAIL_1>`), the same for the same value
throughout the request, so that a model can still tell two persons apart.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from typing import Annotated, Final, Literal, NamedTuple

import msgspec
from msgspec import Meta

from gateway.types import Phase, Subject
from policy import check_digits
from policy.base import INLINE_BYTES, Match, Policy, Problem, Redaction, Ruling, View
from policy.names import NamePattern, matches_any
from policy.outcome import Decode, Message, Mode, Roles, Streaming, listed, outcome, places
from policy.pii_rules import AFTER, BEFORE, DEFAULT, ENTITIES, SPLIT, Candidate, Entity
from policy.text import apart, encode

EntityName = Literal[
    "email",
    "phone",
    "credit-card",
    "us-ssn",
    "iban",
    "ip-address",
    "ipv6-address",
    "uk-nino",
    "fr-nir",
    "es-dni",
    "es-nie",
    "it-codice-fiscale",
    "br-cpf",
    "in-aadhaar",
    "us-npi",
]


class PiiDetectorSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to look for, how sure to be, and what to do."""

    entities: Annotated[
        tuple[EntityName, ...], Meta(min_length=1, description="Kinds of personal data to look for.")
    ] = DEFAULT
    action: Annotated[
        Literal["redact", "block", "escalate", "warn"],
        Meta(
            description="`redact` puts something else in the place of each value; `block` refuses; `escalate` refuses "
            "and asks a person, if `human-oversight` is in the chain; `warn` lets everything pass and records it."
        ),
    ] = "redact"
    style: Annotated[
        Literal["placeholder", "mask", "hash", "drop"],
        Meta(
            description="What takes the place of a value: `<EMAIL_1>`, numbered by value; asterisks, which leave the "
            "last four digits of numbers; `<EMAIL:…>` with a keyed hash, equal in all requests; or nothing."
        ),
    ] = "placeholder"
    hash_key: Annotated[
        str,
        Meta(
            max_length=256,
            description="For `style: hash`: any 16 characters or more that are your own. Without it the hash of a "
            "short number could be guessed.",
        ),
    ] = ""
    restore: Annotated[
        bool,
        Meta(
            description="Put the values back in the place of their placeholders when the answer has them, in streams "
            "too. For `action: redact` with `style: placeholder`, in requests."
        ),
    ] = False
    min_confidence: Annotated[
        float,
        Meta(
            ge=0.0,
            le=1.0,
            description="How sure to be: a checksum or an unmistakable shape is 0.85 or more, a shape alone less.",
        ),
    ] = 0.5
    allow: Annotated[
        tuple[NamePattern, ...],
        Meta(description="Values to leave alone, as `*@example.com` or `10.*`; `*` stands for any run of characters."),
    ] = ()
    phase: Annotated[
        tuple[Phase, ...],
        Meta(min_length=1, description="Where to look: in what goes to the model, in what comes back, or both."),
    ] = (Phase.INPUT,)
    roles: Roles = ()
    decode: Decode = False
    streaming: Streaming = "hold_done"
    mode: Mode = "enforce"
    message: Message = ""


class _Found(NamedTuple):
    match: Match
    name: str
    entity: Entity
    value: bytes


class PiiDetector(Policy[PiiDetectorSettings]):
    """Judges by the candidates of its entities."""

    kind = "pii-detector"
    inline_bytes = INLINE_BYTES
    Settings = PiiDetectorSettings
    reasons = tuple(f"pii-detector.{name}" for name in ENTITIES)
    guards = True
    after = AFTER

    def __init__(self, settings: PiiDetectorSettings) -> None:
        super().__init__(settings)
        check_digits.load()
        self.phases = settings.phase
        chosen = dict.fromkeys(settings.entities)
        rules = [(name, table[name]) for table in (ENTITIES, SPLIT) for name in chosen if name in table]
        self._names = tuple(name for name, _ in rules)
        self._entities = tuple(entity for _, entity in rules)
        self._roles = frozenset(settings.roles)
        self.patterns = tuple(entity.pattern for entity in self._entities)

    @classmethod
    def check(cls, settings: PiiDetectorSettings) -> list[Problem]:
        """A key for hashes, and no value but the settings' own kinds."""
        if settings.style == "hash" and len(settings.hash_key) < 16:
            return [Problem("hash_key", "`style: hash` needs a key of at least 16 characters")]
        if settings.restore and (settings.action, settings.style) != ("redact", "placeholder"):
            return [Problem("restore", "goes with `action: redact` and `style: placeholder` only")]
        return []

    def on_request(self, subject: Subject, view: View) -> Ruling:
        """Judge what goes to the model."""
        return self._judge(view, "The request was refused by policy pii-detector: {found} in {places}.")

    def on_completion(self, subject: Subject, view: View) -> Ruling:
        """Judge what came back."""
        return self._judge(view, "The answer was refused by policy pii-detector: {found} in {places}.")

    def _judge(self, view: View, sentence: str) -> Ruling:
        found = apart(self._found(view), _rank)
        if not found:
            return Ruling()
        settings = self.settings
        detail = listed(one.name for one in found)
        return outcome(
            settings.action,
            f"{self.kind}.{found[0].name}",
            detail,
            settings.message
            or sentence.format(found=detail, places=places(view.texts, (one.match.part for one in found))),
            self._redactions(found),
            mode=settings.mode,
        )

    def _found(self, view: View) -> Iterator[_Found]:
        part, data = -1, b""
        for match in view.matches:
            if match.part != part:
                part, data = match.part, encode(view.texts[match.part].text)
            if self._roles and view.texts[part].role not in self._roles:
                continue
            entity = self._entities[match.pattern]
            finding = entity.check(_candidate(data, match))
            if finding is None or finding.confidence < self.settings.min_confidence:
                continue
            start, end = match.start + finding.start, match.start + finding.end
            value = data[start:end]
            if not self.settings.allow or not matches_any(value.decode("utf-8", "replace"), self.settings.allow):
                yield _Found(Match(part, start, end, match.pattern), self._names[match.pattern], entity, value)

    def _redactions(self, found: list[_Found]) -> list[Redaction]:
        label = self.settings.style == "placeholder"
        return [
            Redaction(
                one.match.part,
                one.match.start,
                one.match.end,
                "" if label else self._replacement(one),
                one.entity.label if label else "",
                self.settings.restore,
            )
            for one in found
        ]

    def _replacement(self, one: _Found) -> str:
        style = self.settings.style
        if style == "hash":
            digest = hmac.digest(self.settings.hash_key.encode(), one.value, "sha256").hex()[:16]
            return f"<{one.entity.label}:{digest}>"
        return "" if style == "drop" else _masked(one.value, one.entity.keeps)


def _candidate(data: bytes, match: Match) -> Candidate:
    before, after = max(0, match.start - BEFORE), match.end + AFTER
    return Candidate(data[match.start : match.end], data[before : match.start], data[match.end : after])


_UNCERTAIN: Final = ("phone",)
"""What gives way where two entities claim the same characters: a card is a card, whatever else it looks like."""


def _rank(one: _Found) -> tuple[bool, int]:
    """Where values overlap, the more certain kind, and of equals the longer one."""
    return one.name in _UNCERTAIN, one.match.start - one.match.end


def _masked(value: bytes, keeps: int) -> str:
    """Asterisks for letters and digits, but for the last `keeps` of them; what separates them stays."""
    text = value.decode("utf-8", "replace")
    marks = [index for index, char in enumerate(text) if char.isalnum()]
    hidden = set(marks[: len(marks) - keeps])
    return "".join("*" if index in hidden else char for index, char in enumerate(text))
