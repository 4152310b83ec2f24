"""What a policy is: the seam between the gateway and a check.

A policy is one file, named as in the configuration (`dlp-filter` is `dlp_filter.py`). It is an ordinary class that *is*
the hooks it defines: `on_request` sees all texts that go to the model, `on_completion` all texts that came back. A
chain is compiled once into a `Pipeline`; a request only walks its tuples. Policies are pure: no socket, no clock, no
environment, and of the gateway they know only its nouns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, Generic, Protocol, TypeVar

import msgspec

from gateway.types import Decision, Delivery, Phase, Screening, Subject, TextPart, Verdict

if TYPE_CHECKING:
    from policy.audit_logger import AuditLoggerSettings
    from policy.external_moderation import ExternalModerationSettings
    from policy.guard import Guard
    from policy.human_oversight import HumanOversightSettings

BEFORE = 128
"""Bytes of text before a match that a policy may look at while a stream flows."""

INLINE_BYTES = 16 * 1024
"""Up to so many bytes of text may be judged on the event loop by policies that are asked of matches only: each pattern
that occurs costs a search of its own, 16 µs for 16 KB."""
MAX_INLINE_MATCHES = 32
"""So many matches may be judged there: a telephone number, the slowest of them, takes 50 µs."""


class CrowdedError(Exception):
    """There is more to judge in these texts than the event loop has time for: ask again, in a thread."""


class Tool(msgspec.Struct, frozen=True, gc=False):
    """A function that the request declares. `parameters` is its JSON Schema as bytes, or None."""

    name: str
    parameters: bytes | None = None


class Call(msgspec.Struct, frozen=True, gc=False):
    """The answer calls a tool. `arguments` is JSON text as the model wrote it, `path` its place in the answer."""

    name: str
    arguments: str
    path: str = ""


class Candidate(msgspec.Struct, frozen=True, gc=False):
    """A target that could serve a request."""

    id: str
    provider: str
    model: str


class Choice(msgspec.Struct, frozen=True):
    """Which targets may serve a request: their numbers, in the order in which they are to be tried. Without any the
    request is refused. `reason`, `detail` and `message` are as in `Ruling`; a choice that keeps all has no reason."""

    kept: tuple[int, ...]
    reason: str = ""
    detail: str = ""
    message: str = ""


class Narrowing(msgspec.Struct, frozen=True):
    """What a chain makes of the targets. `decisions` are those of policies that had something to say; where nothing is
    kept the last of them refuses, and `message` is for the client."""

    kept: tuple[int, ...]
    decisions: tuple[Decision, ...] = ()
    message: str = ""


class Context(msgspec.Struct, frozen=True):
    """What an answer is judged by, besides its own texts.

    `request` holds the request's texts; `tools` what it declares; `calls` what the answer calls; `response_format` is
    the JSON of the format asked for, or empty; `finish_reason` is the provider's word, or empty.
    """

    request: Sequence[TextPart] = ()
    tools: Sequence[Tool] = ()
    calls: Sequence[Call] = ()
    response_format: bytes = b""
    finish_reason: str = ""


NO_CONTEXT = Context()


class Pipeline(Protocol):
    """A chain, compiled: immutable, shared by all keys that are bound to the configuration, safe in any thread."""

    @property
    def version(self) -> str:
        """A hash of the chain and its settings: equal versions judge alike."""
        ...

    @property
    def delivery(self) -> Delivery: ...

    @property
    def reads_input(self) -> bool:
        """Some policy reads what goes to the model. If not, `screen` need not be called, nor texts be extracted."""
        ...

    @property
    def reads_output(self) -> bool:
        """Some policy reads what came back. If not, `review` need not be called."""
        ...

    @property
    def clean(self) -> tuple[Decision, ...]:
        """The decisions of the input phase on texts of which no policy has anything to say; that very object is in
        the screening of most texts. Empty where no policy reads them."""
        ...

    @property
    def asks_context(self) -> bool:
        """Some policy of answers may look at what they reply to."""
        ...

    @property
    def audits(self) -> bool:
        """`audit-logger` is in the chain."""
        ...

    @property
    def moderation(self) -> ExternalModerationSettings | None:
        """Whom to ask when all others have spoken, if `external-moderation` is in the chain."""
        ...

    @property
    def oversight(self) -> HumanOversightSettings | None:
        """How escalated requests wait for a person, if `human-oversight` is in the chain."""
        ...

    @property
    def audit(self) -> AuditLoggerSettings | None:
        """How exchanges are to be recorded, if `audit-logger` is in the chain."""
        ...

    @property
    def glances(self) -> bool:
        """Whether a glance can ever tell."""
        ...

    def glance(self, body: bytes) -> Screening | None:
        """The input phase on a valid JSON body of which no policy has anything to say; None: `screen` must tell."""
        ...

    @property
    def narrows(self) -> bool:
        """Some policy chooses among targets."""
        ...

    def narrow(self, subject: Subject, targets: Sequence[Candidate]) -> Narrowing:
        """Which targets may serve a request, and in which order they are tried. Never raises."""
        ...

    def overdue(self, phase: Phase) -> Screening:
        """A phase that did not come to an end in time: what the fail mode says. It is reported, too."""
        ...

    @property
    def screens_inline(self) -> int:
        """Bytes of texts for which `screen` may be called on the event loop, and then with `inline`."""
        ...

    @property
    def reviews_inline(self) -> int:
        """The same for `review`; what its context has of the request counts too."""
        ...

    def screen(self, subject: Subject, texts: Sequence[TextPart], *, inline: bool = False) -> Screening:
        """The input phase. An error inside a policy becomes what the fail mode says. Raises nothing but, if `inline`,
        CrowdedError."""
        ...

    def review(
        self,
        subject: Subject,
        texts: Sequence[TextPart],
        *,
        delivered: bool = False,
        context: Context = NO_CONTEXT,
        guard: Guard | None = None,
        inline: bool = False,
    ) -> Screening:
        """The output phase, on the complete answer. Raises nothing but, if `inline`, CrowdedError.

        `delivered` says that the client has the texts already (a stream under `hold_done`): then it is too late to
        redact, and a redaction becomes a block. What judged the answer as it flowed is `guard`.
        """
        ...

    def guard(self, subject: Subject, context: Context = NO_CONTEXT) -> Guard | None:
        """What judges one stream as it flows, if policies of the chain do (`streaming: guard`)."""
        ...


class Pattern(msgspec.Struct, frozen=True):
    """Something that a policy wants found; syntax and limits are described in `scan.py`."""

    regex: str
    placed: str = ""
    """The same expression with its surroundings, the match being group 1, where surroundings matter. It may match
    less often than `regex`, never more often. Empty: `regex` itself is the match."""
    once: bool = False
    """One match in each text part is enough: whoever blocks need not know the others."""
    check: Callable[[bytes], bool] | None = None
    """Asked of each match, as bytes; what it does not confirm (a check digit that is wrong) is no match."""


class Match(msgspec.Struct, frozen=True, gc=False, order=True):
    """The policy's own pattern number `pattern` matches at bytes `start` to `end` of text part `part` (UTF-8)."""

    part: int
    start: int
    end: int
    pattern: int


class Redaction(msgspec.Struct, frozen=True, gc=False, order=True):
    """Put `replacement` in the place of bytes `start` to `end` of text part `part` (UTF-8).

    With a `label` it is `<LABEL_1>` instead, numbered by the chain, the same for the same value throughout the phase.
    If it `comes_back`, the client's answer has the value again in its place; then it is never a placeholder that the
    texts contain already.
    """

    part: int
    start: int
    end: int
    replacement: str
    label: str = ""
    comes_back: bool = False


class View(msgspec.Struct, frozen=True):
    """What a hook sees: the texts of one phase, and the matches of its own patterns in order of place.

    In the output phase `context` has what the answer replies to. `request` and `finish_reason` are short for it.
    """

    texts: Sequence[TextPart]
    matches: Sequence[Match] = ()
    context: Context = NO_CONTEXT

    @property
    def request(self) -> Sequence[TextPart]:
        """The texts of the request that an answer replies to."""
        return self.context.request

    @property
    def finish_reason(self) -> str:
        """Why the answer ended, in the provider's word; empty where that is not known."""
        return self.context.finish_reason


class Ruling(msgspec.Struct, frozen=True):
    """What a hook says. `reason`, `detail` and `message` are as in `Decision` and `Screening`.

    All policies see the texts as they came; redactions are merged and made when the whole chain has spoken.
    """

    verdict: Verdict = Verdict.ALLOW
    reason: str = ""
    detail: str = ""
    message: str = ""
    redactions: tuple[Redaction, ...] = ()


class Problem(msgspec.Struct, frozen=True):
    """One fault in the settings. `path` counts from the policy's own settings, as `patterns[0].regex`."""

    path: str
    message: str


class PolicyConfigError(ValueError):
    """A chain cannot be compiled. The paths of `problems` count from the root of the configuration file."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(f"{problem.path}: {problem.message}" for problem in problems))
        self.problems = tuple(problems)


Hook = Callable[[Subject, View], Ruling]
Chooser = Callable[[Subject, Sequence[Candidate]], Choice]
S = TypeVar("S", bound=msgspec.Struct)

_HOOKS = {Phase.INPUT: "on_request", Phase.OUTPUT: "on_completion"}


class Policy(Generic[S]):
    """One policy of a chain, made once from its settings.

    A policy that has `patterns` is asked only where one of them matched; a policy that has none is asked every time.
    It has no state by which one request could change what is said of another: the same object serves all requests, in
    any thread.

    Settings of these names are obeyed for every policy that has them, without a word of its own: `mode` (`monitor`:
    what it says is recorded and nothing comes of it), `decode` (its patterns are looked for in other readings of each
    text as well, and it is asked about each of them as about a text), `streaming` (`hold_done`, `guard` or `buffer`),
    and `on_error` (`block` or `allow`, in place of the gateway's fail mode).
    """

    kind: ClassVar[str]
    Settings: ClassVar[type[msgspec.Struct]]
    reasons: ClassVar[tuple[str, ...]] = ()
    """The codes that its rulings may carry, besides `<kind>.error` for an error inside it."""

    patterns: tuple[Pattern, ...] = ()
    phases: tuple[Phase, ...] = (Phase.INPUT, Phase.OUTPUT)
    """Narrowed by a policy whose settings choose the phase."""
    guards: ClassVar[bool] = False
    """It can judge an answer while it flows (`streaming: guard`): by its matches, `BEFORE` bytes before and `after`
    bytes after each of them, and nothing else."""
    inline_bytes: ClassVar[int] = 0
    """Up to so many bytes of text it may be asked about on the event loop; the worst of them may take it 3 ms. By
    default it is asked in a thread only, and if it hangs there, the fail mode speaks for it and the loop lives on."""
    after: int = 0
    """For `guards`: so many bytes after a match are needed to judge it, so that they are waited for."""

    def __init__(self, settings: S) -> None:
        self.settings = settings

    @classmethod
    def check(cls, settings: S) -> list[Problem]:
        """Faults in `settings` that their types do not exclude; called before the policy is made."""
        return []

    def chooser(self) -> Chooser | None:
        """`on_targets`, where the policy defines it. It is asked after the input phase, with the targets that offer the
        model, and must say the same for the same key, team, model and operation. Narrowed by settings."""
        return getattr(self, "on_targets", None)

    def hook(self, phase: Phase) -> Hook | None:
        """What to call in this phase: `on_request` or `on_completion`, where the policy defines it."""
        return getattr(self, _HOOKS[phase], None) if phase in self.phases else None
