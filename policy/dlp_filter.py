"""`dlp-filter`: refuse or redact texts that contain an operator's own terms and patterns."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from gateway.types import Phase

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


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
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
            description="Refuse the exchange, or replace what was found and let it go on. An answer that has "
            "been streamed already cannot be redacted any more: there `redact` acts as `block`."
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
            "With `output`, the end of a stream waits for the verdict (delivery `hold_done`).",
        ),
    ] = (Phase.INPUT,)
    roles: Annotated[
        tuple[Role, ...],
        Meta(description="Look only at texts of these speakers. Empty means all of them."),
    ] = ()
    mode: Annotated[
        Literal["enforce", "monitor"],
        Meta(description="`monitor` records what would have happened and lets everything pass unchanged."),
    ] = "enforce"
    message: Annotated[
        str,
        Meta(max_length=1024, description="What a blocked client is told, in place of the standard sentence."),
    ] = ""


class DlpFilter:
    """Judges by the matches of its terms and patterns."""

    kind = "dlp-filter"
    Settings = Settings
