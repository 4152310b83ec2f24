"""The nouns that pass between packages.

They are immutable and know nothing of sockets, clocks or files, so `translators` and `policy` may use them as well as
`gateway`. msgspec structs rather than dataclasses: building one costs 0.15 µs, a frozen dataclass of eight fields 1.1.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

import msgspec

from gateway.http1 import HOP_BY_HOP

KEY_PREFIX: Final = b"kt_gk_"
"""What every gateway key begins with."""


class Phase(enum.StrEnum):
    """When a policy runs: on what goes to the model, or on the complete answer."""

    INPUT = "input"
    OUTPUT = "output"


class Verdict(enum.StrEnum):
    """What one policy, or a whole chain, says of a text."""

    ALLOW = "allow"
    REDACT = "redact"
    BLOCK = "block"
    ESCALATE = "escalate"


class Delivery(enum.StrEnum):
    """How an answer reaches the client; decided when a chain is compiled (docs/life-of-a-request.md)."""

    PASS = "pass"  # noqa: S105 (no password)
    HOLD_DONE = "hold_done"
    GUARD = "guard"
    BUFFER = "buffer"


class FailMode(enum.StrEnum):
    """What an error inside a policy means for the request: refuse it, or let it go on."""

    BLOCK = "block"
    ALLOW = "allow"


class TextPart(msgspec.Struct, frozen=True, gc=False):
    """One text that reaches the model or comes back from it, as policies see it.

    `role` is the speaker (`system`, `developer`, `user`, `assistant`, `tool`); `kind` says what the text is
    (`message`, `instructions`, `tool_result`, `tool_arguments`, `tool_definition`, `input`, `refusal`, `reasoning`);
    `path` is where it stands in the body, as JSON path without the leading `$.` (`messages[2].content[0].text`).
    """

    text: str
    role: str = "user"
    kind: str = "message"
    path: str = ""


class Decision(msgspec.Struct, frozen=True, gc=False):
    """One policy's verdict on one exchange; it lands in the audit record and in the metrics.

    `reason` is a stable dotted code (`dlp-filter.term`), never text of the prompt. `detail` names what matched by the
    operator's own label, not by content.
    """

    policy: str
    phase: Phase
    verdict: Verdict
    reason: str = ""
    detail: str = ""
    microseconds: int = 0


class Subject(msgspec.Struct, frozen=True):
    """Who asks for what: all that a policy may know of an exchange besides its texts."""

    request_id: str
    key_id: str | None = None
    key_name: str | None = None
    team: str | None = None
    configuration_id: str = ""
    model: str = ""
    operation: str = ""


class Screening(msgspec.Struct, frozen=True):
    """What a whole chain says in one phase.

    `verdict` is the strictest of the decisions. `replacements` maps the index of a text part to the text that takes
    its place (redaction); empty unless `verdict` is REDACT, or ESCALATE, where it holds for what is approved. `message`
    is for the client, set on BLOCK and ESCALATE. `originals` maps placeholders in the replacements to the values that
    are to come back in the answer.
    """

    verdict: Verdict
    decisions: tuple[Decision, ...] = ()
    replacements: Mapping[int, str] = {}
    message: str = ""
    originals: Mapping[str, str] = {}

    @property
    def refusing(self) -> Decision | None:
        """The decision that stopped the chain, or None."""
        for decision in self.decisions:
            if decision.verdict is self.verdict and decision.verdict in (Verdict.BLOCK, Verdict.ESCALATE):
                return decision
        return None


ALLOWED = Screening(Verdict.ALLOW)


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Tokens of one exchange, as the provider counted them.

    `prompt` includes `cached` (read from the provider's prompt cache) and `written` (put into it, where that has a
    price of its own); `completion` includes `reasoning`.
    """

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    reasoning: int = 0
    written: int = 0

    @property
    def total(self) -> int:
        return self.prompt + self.completion


class Scope(msgspec.Struct, frozen=True, gc=False):
    """What one key, one team or one configuration (`kind`) may use altogether. `None` means: no such limit.

    `place` is its number in the tables that the workers of a machine share (`gateway.limits`). `budget` is in nano-USD
    per calendar month (UTC).
    """

    kind: str
    id: str
    name: str
    place: int
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_concurrency: int | None = None
    budget: int | None = None

    @property
    def limits_anything(self) -> bool:
        return not (
            self.requests_per_minute is None
            and self.tokens_per_minute is None
            and self.max_concurrency is None
            and self.budget is None
        )

    def __str__(self) -> str:
        return f"{'gateway key' if self.kind == 'key' else self.kind} {self.name!r}"


class GatewayKey(msgspec.Struct, frozen=True, gc=False):
    """One gateway key as a worker knows it: never the key itself, only its hash.

    Times are Unix seconds. `None` means: no such limit. `configuration_id` None means: the default configuration.
    `slot` is the key's place in the shared limit tables, unique among live keys.
    """

    id: str
    hash: bytes
    prefix: str
    name: str
    slot: int
    configuration_id: str | None = None
    team: str | None = None
    owner: str | None = None
    models: frozenset[str] | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_concurrency: int | None = None
    budget_usd_per_month: float | None = None
    created_at: float = 0.0
    expires_at: float | None = None
    revoked_at: float | None = None
    team_scope: Scope | None = None
    """What its team may use altogether, where that is limited."""


class Operation(enum.StrEnum):
    """What a client asks for, whatever the wire format it asks in."""

    CHAT = "chat"
    RESPONSES = "responses"
    MESSAGES = "messages"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"
    MODERATIONS = "moderations"
    SPEECH = "speech"
    TRANSCRIPTIONS = "transcriptions"
    TRANSLATIONS = "translations"
    IMAGES = "images"
    IMAGE_EDITS = "image_edits"
    IMAGE_VARIATIONS = "image_variations"
    COUNT_TOKENS = "count_tokens"
    REALTIME = "realtime"


class Origin(msgspec.Struct, frozen=True, cache_hash=True):
    """Where a connection goes: a TCP host and port, with TLS or without, or a Unix socket (`unix_path`)."""

    host: str
    port: int
    tls: bool = True
    unix_path: str | None = None

    def __str__(self) -> str:
        if self.unix_path is not None:
            return f"unix:{self.unix_path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"


class Timeouts(msgspec.Struct, frozen=True, cache_hash=True):
    """How long each wait on a provider may last, in seconds. `total_seconds` None: no bound on the whole exchange."""

    connect_seconds: float = 5.0
    first_byte_seconds: float = 120.0
    idle_seconds: float = 300.0
    total_seconds: float | None = None


class PoolSettings(msgspec.Struct, frozen=True, cache_hash=True):
    """Bounds of one connection pool. `queue_seconds` is how long a request may wait for a free connection."""

    max_connections: int = 512
    max_idle: int = 64
    max_queue: int = 1024
    queue_seconds: float = 5.0
    keepalive_seconds: float = 60.0
    warm: int = 0


class Destination(msgspec.Struct, frozen=True, cache_hash=True):
    """One pool's key and settings: the connections of one target to one origin."""

    name: str
    origin: Origin
    pool: PoolSettings = PoolSettings()
    timeouts: Timeouts = Timeouts()
    ca_file: str | None = None


class ResponseHead(msgspec.Struct):
    """A provider's response head.

    `raw` holds its fields as they came, each with its line end; `media` and `coding` are the content type and the
    content encoding in lower case. `chunked` says that the data which follows still carries its chunk framing;
    `content_length` is None for a chunked or close-delimited body. `passed` and `passed_limited` are what
    `response_fields.passed_on` makes of `raw`, where that is known already.
    """

    status: int
    reason: bytes
    raw: bytes
    media: bytes = b""
    chunked: bool = False
    content_length: int | None = None
    coding: bytes = b""
    passed: bytes | None = None
    passed_limited: bytes | None = None

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Names in lower case, and values, without hop-by-hop fields. Made anew at each call: for errors and
        translations."""
        pairs = [line.partition(b":") for line in self.raw.split(b"\r\n") if line]
        fields = [(name.lower(), value.strip(b" \t")) for name, _, value in pairs]
        return [field for field in fields if field[0] not in HOP_BY_HOP]

    def get(self, name: bytes) -> bytes | None:
        """The first value of a field, by its lower-case name, or None."""
        return next((value for key, value in self.headers if key == name), None)
