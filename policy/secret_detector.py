"""`secret-detector`: find keys, tokens and passwords, and keep them from leaving.

It sees candidates through the chain's one scan. A token of a known format is judged by its randomness, anything else by
its place and by what it looks like. What it says of a finding is the name of the format, never a piece of the value.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from typing import Annotated, Final, Literal, NamedTuple

import msgspec
from msgspec import Meta

from gateway.types import Phase, Subject
from policy.base import INLINE_BYTES, Match, Pattern, Policy, Problem, Redaction, Ruling, View
from policy.dlp_filter import NamedPattern
from policy.names import NamePattern, matches_any
from policy.outcome import Decode, Message, Mode, Roles, Streaming, listed, outcome, places
from policy.scan import literals, refusal
from policy.secret_rules import (
    CONTEXTS,
    SPLIT,
    STOP_WORDS,
    TOKENS,
    Token,
    entropy,
    is_code,
    is_fingerprint,
    is_jwt,
    is_placeholder,
    looks_random,
    name_before,
    names_no_secret,
)
from policy.splits import joined
from policy.text import apart, encode

Pack = Literal["tokens", "contexts"]


class SecretDetectorSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to look for, and what to do."""

    packs: Annotated[
        tuple[Pack, ...],
        Meta(
            description="`tokens`: the formats in which providers issue keys. `contexts`: private keys, passwords in "
            "URLs and commands, and what is assigned to a name that says secret."
        ),
    ] = ("tokens", "contexts")
    patterns: Annotated[
        tuple[NamedPattern, ...],
        Meta(description="Formats of your own, each with a name; every match counts, whatever it looks like."),
    ] = ()
    action: Annotated[
        Literal["redact", "block", "escalate", "warn"],
        Meta(
            description="`redact` puts a placeholder in the place of each value; `block` refuses; `escalate` refuses "
            "and asks a person, if `human-oversight` is in the chain; `warn` lets everything pass and records it."
        ),
    ] = "redact"
    allow: Annotated[
        tuple[NamePattern, ...],
        Meta(description="Values to leave alone; `*` stands for any run of characters."),
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
    value: str


class SecretDetector(Policy[SecretDetectorSettings]):
    """Judges by the candidates of its formats and contexts."""

    kind = "secret-detector"
    inline_bytes = INLINE_BYTES
    Settings = SecretDetectorSettings
    reasons = ("secret-detector.token", "secret-detector.context", "secret-detector.pattern")
    guards = True

    def __init__(self, settings: SecretDetectorSettings) -> None:
        super().__init__(settings)
        self.phases = settings.phase
        self._tokens = TOKENS if "tokens" in settings.packs else ()
        self._contexts = CONTEXTS if "contexts" in settings.packs else ()
        self._roles = frozenset(settings.roles)
        self.patterns = (
            *(token.pattern for token in self._tokens),
            *(context.pattern for context in self._contexts),
            *(Pattern(pattern.regex) for pattern in settings.patterns),
            *((SPLIT,) if self._tokens else ()),
        )
        self._split = len(self.patterns) - 1 if self._tokens else -1

    @classmethod
    def check(cls, settings: SecretDetectorSettings) -> list[Problem]:
        """Something to look for, and expressions that run in linear time."""
        problems = [
            Problem(f"patterns[{number}].regex", reason)
            for number, pattern in enumerate(settings.patterns)
            if (reason := refusal(pattern.regex))
        ]
        if not settings.packs and not settings.patterns:
            problems.append(Problem("packs", "has nothing to look for: give `packs`, `patterns` or both"))
        return problems

    def on_request(self, subject: Subject, view: View) -> Ruling:
        """Judge what goes to the model."""
        sentence = "The request was refused by policy secret-detector: {found} in {places}."
        return self._judge(view, sentence, everywhere=True)

    def on_completion(self, subject: Subject, view: View) -> Ruling:
        """Judge what came back."""
        return self._judge(view, "The answer was refused by policy secret-detector: {found} in {places}.")

    def _judge(self, view: View, sentence: str, *, everywhere: bool = False) -> Ruling:
        found = apart(self._found(view), _rank)
        if not found:
            return Ruling()
        if everywhere:
            found = apart([*found, *self._repeated(view, found)], _rank)
        settings = self.settings
        detail = listed(one.name for one in found)
        return outcome(
            settings.action,
            self._reason(found[0].match.pattern),
            detail,
            settings.message
            or sentence.format(found=detail, places=places(view.texts, (one.match.part for one in found))),
            [Redaction(one.match.part, one.match.start, one.match.end, f"[SECRET:{one.name}]") for one in found],
            mode=settings.mode,
        )

    def _reason(self, pattern: int) -> str:
        if pattern < len(self._tokens) or pattern == self._split:
            return self.reasons[0]
        return self.reasons[1 if pattern < len(self._tokens) + len(self._contexts) else 2]

    def _found(self, view: View) -> Iterator[_Found]:
        part, data = -1, b""
        for match in view.matches:
            if match.part != part:
                part, data = match.part, encode(view.texts[match.part].text)
            if self._roles and view.texts[part].role not in self._roles:
                continue
            one = self._judged(match, data)
            if one.name and not (self.settings.allow and matches_any(one.value, self.settings.allow)):
                yield one

    def _judged(self, match: Match, data: bytes) -> _Found:
        """A candidate with its name and the end that it really has; without a name it is no secret."""
        if match.pattern == self._split:
            name, size = split_token(data[match.start : match.end])
            match = Match(match.part, match.start, match.start + size, match.pattern)
            return _Found(match, name, data[match.start : match.end].decode("utf-8", "replace"))
        value = data[match.start : match.end].decode("utf-8", "replace")
        return _Found(match, self._name(match.pattern, value, data[max(0, match.start - 64) : match.start]), value)

    def _repeated(self, view: View, found: Iterable[_Found]) -> Iterator[_Found]:
        """The same values wherever else they stand: who has given a password away once often writes it again."""
        values = {encode(one.value.rpartition(":")[2]): one for one in found}
        longest = sorted((value for value in values if _repeats(value)), key=len, reverse=True)[:_MOST_REPEATED]
        if not longest:
            return
        search = literals(longest)
        for part, text in enumerate(view.texts):
            if self._roles and text.role not in self._roles:
                continue
            for start, end, value in search(encode(text.text)):
                one = values[value]
                yield _Found(Match(part, start, end, one.match.pattern), one.name, one.value)

    def _name(self, pattern: int, value: str, before: bytes) -> str:
        """What a candidate is called; empty for one that is no secret."""
        if pattern < len(self._tokens):
            token = self._tokens[pattern]
            known = is_token(value, token.entropy) and (token.name != "jwt" or is_jwt(value))
            return token.name if known else ""
        pattern -= len(self._tokens)
        if pattern < len(self._contexts):
            context = self._contexts[pattern]
            return context.name if is_secret(context.name, value, before) else ""
        return self.settings.patterns[pattern - len(self._contexts)].name


_MOST_REPEATED: Final = 64
"""So many values are looked for elsewhere, which bounds the time."""


def _repeats(value: bytes) -> bool:
    """Whether a value is enough to be looked for elsewhere: a short one, or a word, may be part of anything."""
    return len(value) >= 8 and not value.isalpha()


def _rank(one: _Found) -> tuple[int, Match]:
    """Where values overlap, the one whose pattern comes first: a format says more than a place."""
    return one.match.pattern, one.match


@functools.cache
def _formats() -> tuple[tuple[Token, re.Pattern[bytes]], ...]:
    return tuple((one, re.compile(rf"{one.head}{one.tail}(?![0-9A-Za-z])".encode())) for one in TOKENS)


def split_token(value: bytes) -> tuple[str, int]:
    """The name of the token that a value is when what was put into it is taken out, and where it ends; or "", 0."""
    whole, ends = joined(value)
    if len(whole) == len(value):
        return "", 0
    for token, format_ in _formats():
        found = format_.match(whole)
        if found and is_token(found[0].decode("utf-8", "replace"), token.entropy):
            return token.name, ends[found.end() - 1]
    return "", 0


def is_token(value: str, least: float) -> bool:
    """Whether a text in a token's format is a token: not a manual's `xxxx` or `EXAMPLE`."""
    lowered = value.lower()
    lowered = lowered.removeprefix("example.")  # a host, before the path that is secret
    return entropy(value) >= least and not ("xxxxx" in lowered or "example" in lowered or "....." in lowered)


def is_secret(context: str, value: str, before: bytes) -> bool:
    """Whether what stands in a secret's place is one; `before` is what stands before it."""
    if context == "private-key":
        return "ENCRYPTED" not in value[:200]  # which opens nothing without its passphrase
    if context in ("url-password", "bundler", "command-line"):
        value = value.partition(":")[2] or value  # after the user's name
    if is_placeholder(value):
        return False
    if context in ("url-password", "bundler", "connection-string"):
        return len(value) >= 3 and "(" not in value and not value.startswith(_CALLS)
    if context in ("command-line", "sql-password", "connection-string", "authorization", "password"):
        return len(value.strip()) >= 4 and value.lower() not in STOP_WORDS and not is_call(value)
    name = name_before(before)
    if names_no_secret(name):
        return False
    if context == "line":
        digits = sum(map(str.isdigit, value))
        listed_hash = before.rstrip()[-1:] == b":" and is_fingerprint(value)  # as lock files have them
        return 3 <= digits <= len(value) - 3 and looks_random(value) and not listed_hash
    if context == "named":
        digits = sum(map(str.isdigit, value))
        return digits > 2 and not is_fingerprint(value) and looks_random(value) and entropy(value) >= 3.5
    if context == "said":
        return looks_random(value)
    quoted = before[-1:] in (b"'", b'"', b"`")
    if _SAYS_PASSWORD.search(name) and len(value) >= 5 and not (is_call(value) if quoted else is_code(value)):
        return True
    return looks_random(value) or is_short_secret(value) or (quoted and is_odd(value))


_CALLS: Final = ("os.", "process.", "env.", "self.", "this.", "/", ".", "#", "http:", "https:")
_SAYS_PASSWORD: Final = re.compile(
    rb"(?i:passw|passphrase|passcode|pwd)|(?:^|[^A-Za-z])[Pp]ass(?:$|[^a-z])|[a-z]Pass(?:$|[^a-z])|PASS(?:$|[^A-Z])"
)


def is_call(value: str) -> bool:
    """Code that fetches a secret instead of being one."""
    return "(" in value or value.lower() in STOP_WORDS or value.startswith(_CALLS)


def is_odd(value: str) -> bool:
    """A value with signs that no name and no path has."""
    return len(value) >= 8 and any(char in "!#$%^&*?~" for char in value) and not is_call(value) and not is_code(value)


def is_short_secret(value: str) -> bool:
    """A value of eight characters or more in which letters and digits are mixed, as no word is."""
    kinds = sum((any(map(str.isdigit, value)), any(map(str.islower, value)), any(map(str.isupper, value))))
    return (
        len(value) >= 8 and kinds >= 2 and any(map(str.isdigit, value)) and entropy(value) >= 2.9 and not is_code(value)
    )
