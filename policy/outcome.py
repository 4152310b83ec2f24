"""What a policy does when it has found something: the settings that most kinds share, and the ruling they lead to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

from msgspec import Meta

from gateway.types import TextPart, Verdict
from policy.base import Candidate, Choice, Redaction, Ruling

MAX_LISTED = 8

Action = Annotated[
    Literal["block", "escalate", "warn"],
    Meta(
        description="`block` refuses; `escalate` refuses and asks a person, if `human-oversight` is in the chain; "
        "`warn` lets everything pass and records the reason."
    ),
]
Mode = Annotated[
    Literal["enforce", "monitor"],
    Meta(description="`monitor` records what would have happened and lets everything pass unchanged."),
]
Streaming = Annotated[
    Literal["hold_done", "guard", "buffer"],
    Meta(
        description="For answers in a stream. `hold_done`: everything flows, and the end waits for the verdict. "
        "`guard`: the text is checked as it flows, and what could be the beginning of a match is held back. `buffer`: "
        "nothing leaves before the whole has been judged."
    ),
]
Decode = Annotated[
    bool,
    Meta(
        description="Look also at what each text says when it is read in other ways: base64, hex and percent decoded, "
        "invisible characters gone, look-alike letters and broken lines mended. Takes 20 to 300 µs for each KB. "
        "Streams under `guard` are looked at as they stand while they flow; what only another reading shows is refused "
        "at their end."
    ),
]
Message = Annotated[
    str, Meta(max_length=1024, description="What a refused client is told, in place of the standard sentence.")
]
Role = Literal["system", "developer", "user", "assistant", "tool"]
Roles = Annotated[tuple[Role, ...], Meta(description="Look only at texts of these speakers. Empty means all of them.")]

_VERDICTS = {"block": Verdict.BLOCK, "escalate": Verdict.ESCALATE, "redact": Verdict.REDACT, "warn": Verdict.ALLOW}


def outcome(
    action: str, reason: str, detail: str, message: str, redactions: Sequence[Redaction] = (), *, mode: str = "enforce"
) -> Ruling:
    """The ruling for something found. Under `monitor`, and for `warn`, only reason and detail are left of it."""
    verdict = Verdict.ALLOW if mode == "monitor" else _VERDICTS[action]
    if verdict is Verdict.ALLOW:
        return Ruling(verdict, reason, detail)
    return Ruling(verdict, reason, detail, message, tuple(redactions) if verdict is Verdict.REDACT else ())


def choice(action: str, reason: str, kept: Sequence[int], targets: Sequence[Candidate], message: str) -> Choice:
    """The choice for targets of which only some may be used. `warn` leaves all; a person is not asked about targets."""
    gone = [one.id for number, one in enumerate(targets) if number not in kept]
    if action == "warn":
        kept = range(len(targets))
    return Choice(tuple(kept), reason if gone else "", listed(gone), message)


def listed(names: Iterable[str]) -> str:
    """The first few names, each once: a record or an error message must not grow with a text."""
    distinct = list(dict.fromkeys(names))
    return ", ".join(distinct[:MAX_LISTED]) + (" and more" if len(distinct) > MAX_LISTED else "")


def places(texts: Sequence[TextPart], parts: Iterable[int]) -> str:
    """Where in the body some text parts stand."""
    return listed(texts[part].path or f"text {part}" for part in sorted(set(parts)))
