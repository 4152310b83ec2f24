"""Every setting of `policy-config.yaml`, once: its type, its bounds, its default and what it means.

The loader, the JSON Schema for editors and `docs/configuration.md` are all read from these structs, so none of them
can say something else. Policies' own settings stand beside their code (`policy/<kind>.py`) and join in through the
`policy` section. Units stand in names (`_seconds`, `_days`, `_bytes`). This module knows no file, no YAML and no
environment.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

from gateway.prices import Rates
from gateway.types import FailMode, PoolSettings, Timeouts

CHOICES: Final = "x-choices"
"""Schema keyword: the text must be one of a registry's names (`PROVIDERS` or `KINDS`)."""
SETTINGS_OF: Final = "x-settings-of"
"""Schema keyword: a mapping from names of a registry to the settings that each of them defines."""
UNIQUE_BY: Final = "x-unique-by"
"""Schema keyword: no two items of the list may share this field's value."""
KINDS: Final = "policy kind"
PROVIDERS: Final = "provider"

_DEFAULT_TIMEOUTS = Timeouts()
_DEFAULT_POOL = PoolSettings()

Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Identifier = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=128)]
# No control character, which would break a log line, a metric's label or a header in two.
_ONE_LINE: Final = r"^[^\x00-\x1f\x7f]*$"
Name = Annotated[str, Meta(min_length=1, max_length=256, pattern=_ONE_LINE)]
Path = Annotated[str, Meta(min_length=1, max_length=4096, pattern=_ONE_LINE)]
Address = Annotated[
    str,
    Meta(
        pattern=r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):[0-9]{1,5}$",
        extra_json_schema={"format": "host-port", "examples": ["127.0.0.1:41002", "[::1]:41002"]},
    ),
]
# These become part of a host name or a path.
Region = Annotated[
    str, Meta(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=63, extra_json_schema={"examples": ["eu-central-1"]})
]
Place = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9.:_-]*$", max_length=128)]
# `writeOnly`, here and below: a secret may stand there by mistake, so no message repeats the value.
BaseURL = Annotated[
    str,
    Meta(
        pattern=r"^https?://[^\s/?#@\\]+(/[^\s?#\\]*)?$",
        extra_json_schema={
            "format": "base-url",
            "examples": ["https://my-resource.openai.azure.com"],
            "writeOnly": True,
        },
    ),
]
# RFC 9110, sections 5.1 and 5.5: a token; visible characters, spaces and tabs. Anything else could smuggle a header.
HeaderName = Annotated[
    str,
    Meta(
        pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$",
        max_length=128,
        extra_json_schema={"format": "header-name", "examples": ["x-team"]},
    ),
]
HeaderValue = Annotated[
    str,
    Meta(pattern=r"^[\t\x20-\x7e]*$", max_length=4096, extra_json_schema={"examples": ["research"], "writeOnly": True}),
]
EnvironmentName = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        max_length=256,
        extra_json_schema={"examples": ["OPENAI_API_KEY"], "writeOnly": True},
    ),
]
Network = Annotated[
    str,
    Meta(
        pattern=r"^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$",
        extra_json_schema={"format": "ip-network", "examples": ["10.0.0.0/8", "::1"]},
    ),
]

PageOrigin = Annotated[
    str,
    Meta(
        pattern=r"^(\*|[A-Za-z][A-Za-z0-9+.-]*://[^\s/?#@,\\]+)$",
        max_length=256,
        extra_json_schema={"examples": ["https://app.example.com", "http://localhost:3000"]},
    ),
]

# Fields that frame a message or belong to one connection; an operator's header must not contradict the gateway's own.
_FRAMING_HEADERS = frozenset(
    (
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)


def _check_port(address: str) -> None:
    if int(address.rpartition(":")[2]) > 65_535:
        raise ValueError("the port is over 65535")


def _check_base_url(url: str) -> None:
    if (port := urlsplit(url).port) == 0:
        raise ValueError(f"no provider listens on port {port}")


def _check_header_name(name: str) -> None:
    if name.lower() in _FRAMING_HEADERS:
        raise ValueError(f"`{name}` is set by the gateway itself and cannot be given here")


FORMATS: Final[Mapping[str, Callable[[str], object]]] = {
    "host-port": _check_port,
    "base-url": _check_base_url,
    "header-name": _check_header_name,
    "ip-network": ipaddress.ip_network,
}
"""What a pattern cannot say of a text, by the value of its `format` keyword; each raises ValueError."""


class Section(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A closed group of settings."""


class RoutingStrategy(enum.StrEnum):
    """In which order the targets that offer one model are tried."""

    ORDERED = "ordered"
    ROUND_ROBIN = "round_robin"
    WEIGHTED = "weighted"
    LOWEST_LATENCY = "lowest_latency"
    LEAST_BUSY = "least_busy"


class ChatAPI(enum.StrEnum):
    """The kinds of chat that OpenAI's providers have."""

    CHAT = "chat"
    RESPONSES = "responses"


class UserRole(enum.StrEnum):
    """What somebody is in this gateway. `control/identity/roles.py` says what each may do."""

    OWNER = "owner"
    """Everything, other owners included."""
    ADMIN = "admin"
    """Everything but making or changing owners."""
    DEVELOPER = "developer"
    """Their own keys, within what their teams allow."""
    AUDITOR = "auditor"
    """Sees everything and changes nothing."""


class FallbackTrigger(enum.StrEnum):
    """What makes the gateway try the next target."""

    RATE_LIMIT = "rate_limit"
    SERVER_ERROR = "server_error"
    TIMEOUT = "timeout"
    CONNECTION = "connection"


class AuthMode(enum.StrEnum):
    """Whether a client must show a gateway key."""

    AUTO = "auto"
    REQUIRED = "required"
    PASSTHROUGH = "passthrough"


class LogLevel(enum.StrEnum):
    """The least severe line that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(enum.StrEnum):
    """How a log line looks."""

    JSON = "json"
    TEXT = "text"


class TLSVersion(enum.StrEnum):
    """A version of TLS."""

    V1_2 = "TLSv1.2"
    V1_3 = "TLSv1.3"


class Pack(Section, frozen=True):
    """Names the configuration."""

    name: Annotated[
        Identifier,
        Meta(
            description="The configuration's id: `kt gateway-key create --configuration-id` binds a key to it.",
            extra_json_schema={"examples": ["my-config"]},
        ),
    ]
    version: Annotated[
        Name, Meta(description="The author's own version of this file. It is shown and recorded, never compared.")
    ] = "1.0.0"
    description: Annotated[str, Meta(max_length=2000, description="What this configuration is for.")] = ""
    enabled: Annotated[
        bool, Meta(description="`false`: the file is checked but not served, and it is never the default.")
    ] = True


class SecretRef(Section, frozen=True):
    """Where a secret is found. Exactly one of the three is set; the secret itself never stands in this file."""

    env: Annotated[
        EnvironmentName | None,
        Meta(description="Name of an environment variable."),
    ] = None
    file: Annotated[
        Path | None, Meta(description="Path of a file that holds nothing but the secret; a last line break is dropped.")
    ] = None
    store: Annotated[Name | None, Meta(description="Name of a secret in the gateway's own store.")] = None

    def __post_init__(self) -> None:
        if sum(source is not None for source in (self.env, self.file, self.store)) != 1:
            raise ValueError("set exactly one of `env`, `file` and `store`")

    def __str__(self) -> str:
        return next(f"{source}: {value}" for source in ("env", "file", "store") if (value := getattr(self, source)))


class TargetTimeouts(Section, frozen=True):
    """How long each wait on this target's provider may last. What is not set is as in `gateway.timeouts`."""

    connect_seconds: Annotated[
        Seconds | None, Meta(description="For a connection to be open, TLS handshake included.")
    ] = None
    first_byte_seconds: Annotated[
        Seconds | None, Meta(description="From the request sent to the first byte of the answer.")
    ] = None
    idle_seconds: Annotated[Seconds | None, Meta(description="Between two reads of an answer that has begun.")] = None
    total_seconds: Annotated[Seconds | None, Meta(description="For the whole exchange with the provider.")] = None

    def over(self, base: Timeouts) -> Timeouts:
        """These timeouts, with those of `base` where none is set."""
        own = {field: value for field, value in msgspec.structs.asdict(self).items() if value is not None}
        return msgspec.structs.replace(base, **own)


USD = Annotated[float, Meta(ge=0, le=1_000_000)]


class TokenPrice(Section, frozen=True):
    """What a target's tokens cost, in USD per million tokens, in place of the published price."""

    input: Annotated[USD, Meta(description="Tokens of the prompt.")]
    output: Annotated[USD, Meta(description="Tokens of the answer.")] = 0.0
    cached_input: Annotated[
        USD | None, Meta(description="Tokens of the prompt that came from the provider's cache. Not set: as `input`.")
    ] = None
    cache_write: Annotated[
        USD | None, Meta(description="Tokens of the prompt that were put into the cache. Not set: as `input`.")
    ] = None
    reasoning: Annotated[
        USD | None, Meta(description="Tokens of the answer that were spent on reasoning. Not set: as `output`.")
    ] = None

    def rates(self) -> Rates:
        """The same as the noun that prices are made of."""
        return Rates(self.input, self.output, self.cached_input, self.cache_write, self.reasoning)


class Target(Section, frozen=True):
    """A provider and a model: one place where a request can be sent."""

    id: Annotated[
        Identifier,
        Meta(
            description="Unique in the file. A client may ask for the target by it, in place of a model.",
            extra_json_schema={"examples": ["openai-gpt4o"]},
        ),
    ]
    provider: Annotated[
        str,
        Meta(
            description="Who answers: decides the wire format, the URL and how the secret is sent.",
            extra_json_schema={CHOICES: PROVIDERS},
        ),
    ]
    model: Annotated[
        Name, Meta(description="What clients ask for. Several targets may offer one model; see `providers.routing`.")
    ]
    upstream_model: Annotated[
        Name | None, Meta(description="What the provider is asked for. Not set: the same as `model`.")
    ] = None
    api: Annotated[
        ChatAPI | None,
        Meta(
            description="The only kind of chat that this model speaks, where its provider has several: `chat` (Chat"
            " Completions) or `responses`. Clients of every kind are translated to it. Not set: each client's own kind"
            " where the provider has it."
        ),
    ] = None
    base_url: Annotated[
        BaseURL | None,
        Meta(description="The provider's URL, with or without a trailing `/v1`. Not set: the provider's public one."),
    ] = None
    secret_key_ref: Annotated[
        SecretRef | None,
        Meta(
            description="Where the provider's API key is found. If it is missing at start-up, this target is"
            " unavailable and the others serve.",
            extra_json_schema={"minProperties": 1, "maxProperties": 1},
        ),
    ] = None
    price: Annotated[
        TokenPrice | None,
        Meta(description="What its tokens cost. Not set: as published, where the price table knows the model."),
    ] = None
    weight: Annotated[
        int, Meta(ge=1, le=1000, description="Share of the requests with `strategy: weighted`, relative to the others.")
    ] = 1
    headers: Annotated[
        dict[HeaderName, HeaderValue],
        Meta(description="Sent to the provider with every request, over what the client sent by the same name."),
    ] = {}
    timeouts: Annotated[TargetTimeouts, Meta(description="Waits on this target, where they differ.")] = TargetTimeouts()
    max_concurrency: Annotated[
        Count | None,
        Meta(description="Requests in flight to this target in one worker; further ones wait. Not set: no bound."),
    ] = None
    ca_file: Annotated[
        Path | None, Meta(description="PEM file of the authorities to trust for this target, in place of the usual.")
    ] = None
    azure_deployment: Annotated[
        Name | None, Meta(description="Azure OpenAI: name of the deployment. Not set: `upstream_model`.")
    ] = None
    azure_api_version: Annotated[
        Name | None,
        Meta(description="Azure OpenAI: value of `api-version`. Not set: the newest that is not a preview."),
    ] = None
    azure_tenant_id: Annotated[
        Name | None,
        Meta(
            description="Azure OpenAI with Microsoft Entra ID: the tenant. With it, `secret_key_ref` leads to the"
            " application's client secret instead of an API key."
        ),
    ] = None
    azure_client_id: Annotated[
        Name | None,
        Meta(
            description="Azure OpenAI with Microsoft Entra ID: the application, or the managed identity where the"
            " machine has several."
        ),
    ] = None
    aws_region: Annotated[
        Region | None, Meta(description="Amazon Bedrock: the region. Not set: the one that `base_url` shows.")
    ] = None
    aws_profile: Annotated[
        Name | None,
        Meta(description="Amazon Bedrock without `secret_key_ref`: the profile of AWS' shared files to use."),
    ] = None
    vertex_project: Annotated[
        Place | None,
        Meta(description="Google Vertex AI: the project. Not set: requests go without one (express mode, an API key)."),
    ] = None
    vertex_location: Annotated[
        Region | None, Meta(description="Google Vertex AI: the location of the project's requests. Not set: `global`.")
    ] = None


class Routing(Section, frozen=True):
    """Which target serves a model that several offer."""

    strategy: Annotated[
        RoutingStrategy,
        Meta(
            description="`ordered`: as they stand in the file. `round_robin`: in turn. `weighted`: at random by"
            " `weight`. `lowest_latency`: the one whose first byte came soonest lately. `least_busy`: the one with the"
            " fewest requests in flight."
        ),
    ] = RoutingStrategy.ORDERED


class CircuitBreaker(Section, frozen=True):
    """When a failing target is left alone for a while."""

    enabled: Annotated[bool, Meta(description="`false`: a target is tried however often it failed.")] = True
    failure_threshold: Annotated[
        int, Meta(ge=1, le=1000, description="Failures in a row after which the target is left alone.")
    ] = 5
    open_seconds: Annotated[
        Seconds, Meta(description="How long it is left alone; then one request tries it again.")
    ] = 30.0


class CommitWindow(Section, frozen=True):
    """How much of a stream is held back, so that a provider that fails in it can be replaced unseen."""

    events: Annotated[
        int, Meta(ge=1, le=1000, description="The stream goes on when it has this many events, comments not counted.")
    ] = 3
    seconds: Annotated[
        float,
        Meta(gt=0, le=60, description="The stream goes on this long after its first event, however few there are."),
    ] = 0.5


class Fallback(Section, frozen=True):
    """When the next target is tried. Only before the first byte of an answer has gone to the client."""

    triggers: Annotated[
        tuple[FallbackTrigger, ...],
        Meta(
            description="What makes the gateway try the next target: `rate_limit` (429; 402, an empty account),"
            " `server_error` (5xx), `timeout`, `connection` (refused, reset, no TLS). An empty list turns fallback"
            " off.",
            extra_json_schema={"uniqueItems": True},
        ),
    ] = tuple(FallbackTrigger)
    max_attempts: Annotated[
        int, Meta(ge=1, le=20, description="Targets tried for one request, the first included.")
    ] = 3
    circuit_breaker: Annotated[CircuitBreaker, Meta(description="Per target and worker.")] = CircuitBreaker()
    commit_window: Annotated[
        CommitWindow | None,
        Meta(
            description="Hold the beginning of each stream back where another target offers the model. Not set: the"
            " first event goes to the client at once, and what breaks after it breaks for the client."
        ),
    ] = None


class Providers(Section, frozen=True):
    """Where requests can go."""

    targets: Annotated[
        tuple[Target, ...],
        Meta(
            min_length=1,
            max_length=1000,
            description="In the order in which they are tried with `strategy: ordered`.",
            extra_json_schema={UNIQUE_BY: "id"},
        ),
    ]
    routing: Annotated[Routing, Meta(description="Choice among the targets of one model.")] = Routing()
    fallback: Annotated[Fallback, Meta(description="What happens when a target fails.")] = Fallback()


class ShadowPolicies(Section, frozen=True):
    """Another configuration's chain, which judges beside the live one and decides nothing."""

    configuration: Annotated[
        str,
        Meta(
            min_length=1,
            description="The configuration (its `pack.name`) whose chain judges. It must be loaded too; with "
            "`pack.enabled: false` it does nothing else.",
        ),
    ]
    sample: Annotated[float, Meta(gt=0.0, le=1.0, description="The share of the exchanges that it judges.")] = 0.1


class Policies(Section, frozen=True):
    """Which checks run."""

    chain: Annotated[
        tuple[Annotated[str, Meta(extra_json_schema={CHOICES: KINDS})], ...],
        Meta(
            description="Policy kinds, in the order in which they run. A block stops the chain.",
            extra_json_schema={"uniqueItems": True},
        ),
    ] = ()
    shadow: Annotated[
        ShadowPolicies | None,
        Meta(description="A configuration to be tried on live traffic: what it says is recorded and compared."),
    ] = None


class GatewayTimeouts(Section, frozen=True):
    """How long each wait on a provider may last, for targets that do not say otherwise."""

    connect_seconds: Annotated[Seconds, Meta(description="For a connection to be open, TLS handshake included.")] = (
        _DEFAULT_TIMEOUTS.connect_seconds
    )
    first_byte_seconds: Annotated[
        Seconds, Meta(description="From the request sent to the first byte of the answer.")
    ] = _DEFAULT_TIMEOUTS.first_byte_seconds
    idle_seconds: Annotated[Seconds, Meta(description="Between two reads of an answer that has begun.")] = (
        _DEFAULT_TIMEOUTS.idle_seconds
    )
    total_seconds: Annotated[
        Seconds | None, Meta(description="For the whole exchange with the provider. Not set: no bound.")
    ] = _DEFAULT_TIMEOUTS.total_seconds

    def settings(self) -> Timeouts:
        """The same as the noun that the pools take."""
        return Timeouts(**msgspec.structs.asdict(self))


class ConnectionPool(Section, frozen=True):
    """Connections to providers: one pool per worker, target and origin."""

    max_connections: Annotated[Count, Meta(description="Open connections of one pool.")] = _DEFAULT_POOL.max_connections
    max_idle: Annotated[
        int, Meta(ge=0, le=1_000_000, description="Idle connections kept open for the next request.")
    ] = _DEFAULT_POOL.max_idle
    max_queue: Annotated[
        int,
        Meta(ge=0, le=1_000_000, description="Requests that may wait for a connection; further ones are answered 503."),
    ] = _DEFAULT_POOL.max_queue
    queue_seconds: Annotated[Seconds, Meta(description="How long a request may wait for a connection.")] = (
        _DEFAULT_POOL.queue_seconds
    )
    keepalive_seconds: Annotated[Seconds, Meta(description="How long an idle connection is kept.")] = (
        _DEFAULT_POOL.keepalive_seconds
    )
    warm: Annotated[
        int, Meta(ge=0, le=1000, description="Connections opened ahead of the first request and kept ready.")
    ] = _DEFAULT_POOL.warm

    def settings(self) -> PoolSettings:
        """The same as the noun that the pools take."""
        return PoolSettings(**msgspec.structs.asdict(self))


class WebSocket(Section, frozen=True):
    """The WebSocket proxy on `/v1/realtime` and `/v1/responses`."""

    enabled: Annotated[bool, Meta(description="`false`: an upgrade is answered 404.")] = True
    max_message_size_bytes: Annotated[
        int, Meta(ge=1024, le=1 << 30, description="Largest message, fragments joined; a larger one closes with 1009.")
    ] = 1_048_576
    idle_timeout_seconds: Annotated[
        Seconds, Meta(description="Silence of both sides after which the connection closes with 1001.")
    ] = 300.0


class TLS(Section, frozen=True):
    """TLS between clients and the gateway. Not set: plain HTTP. The files are read again when they change; a pair that
    does not fit leaves the old one in use."""

    cert_file: Annotated[Path, Meta(description="PEM file of the certificate and its chain.")]
    key_file: Annotated[Path, Meta(description="PEM file of the certificate's private key.")]
    min_version: Annotated[TLSVersion, Meta(description="Oldest version that is accepted.")] = TLSVersion.V1_2


class Logging(Section, frozen=True):
    """The log on standard error. It never holds a secret or a prompt."""

    level: Annotated[LogLevel, Meta(description="The least severe line that is logged.")] = LogLevel.INFO
    format: Annotated[LogFormat, Meta(description="`json`: one object a line. `text`: for a person's eyes.")] = (
        LogFormat.JSON
    )


class OTLP(Section, frozen=True):
    """Traces and metrics to an OpenTelemetry collector, as OTLP over HTTP. The extra `otel` must be installed."""

    endpoint: Annotated[
        BaseURL,
        Meta(
            description="The collector's base URL; `/v1/traces` and `/v1/metrics` are added.",
            extra_json_schema={"examples": ["http://localhost:4318"]},
        ),
    ]
    headers: Annotated[
        dict[HeaderName, SecretRef],
        Meta(description="Sent with every export; each value is a secret, as `authorization: {env: OTLP_TOKEN}`."),
    ] = {}
    interval_seconds: Annotated[
        float, Meta(ge=1, le=3600, description="Between two exports of what has ended meanwhile.")
    ] = 10.0
    service_name: Annotated[Name, Meta(description="`service.name` of the resource.")] = "keeptrusts-gateway"


class Telemetry(Section, frozen=True):
    """What is told of exchanges beyond log, metrics and audit log. Made from the audit log, beside the traffic."""

    otlp: Annotated[
        OTLP | None,
        Meta(
            description="A span for each exchange that the audit log has, under the client's own where it sends a"
            " `traceparent`, and the metrics of the GenAI conventions. Not set: nothing is exported."
        ),
    ] = None


class Limits(Section, frozen=True):
    """Bounds on what a client may send. What exceeds one is refused with its own error code."""

    request_head_bytes: Annotated[
        int, Meta(ge=1024, le=1 << 20, description="Request line and headers together (431).")
    ] = 32 * 1024
    request_headers: Annotated[int, Meta(ge=10, le=1000, description="Number of headers (431).")] = 100
    request_target_bytes: Annotated[int, Meta(ge=256, le=1 << 16, description="Path and query (414).")] = 8 * 1024
    chunk_overhead_bytes: Annotated[
        int, Meta(ge=256, le=1 << 16, description="Chunk extensions, and trailers, of one message (400).")
    ] = 8 * 1024
    json_depth: Annotated[
        int, Meta(ge=8, le=256, description="Nesting of a JSON body (400). JSON libraries on the way bear no more.")
    ] = 256
    head_seconds: Annotated[Seconds, Meta(description="For a request head to be complete (408).")] = 10.0
    body_idle_seconds: Annotated[Seconds, Meta(description="Between two reads of a request body (408).")] = 30.0
    keepalive_seconds: Annotated[
        Seconds, Meta(description="How long a client's connection without a request is kept open.")
    ] = 75.0
    write_idle_seconds: Annotated[
        Seconds, Meta(description="How long a client may take nothing of its answer before it is cut off.")
    ] = 300.0
    buffered_bytes: Annotated[
        int,
        Meta(
            ge=1 << 20,
            le=1 << 40,
            description="Request bodies that one worker holds at once; further ones are answered 503.",
        ),
    ] = 1 << 30


class CORS(Section, frozen=True):
    """Which web pages may call the gateway from a browser. Not set: none."""

    allowed_origins: Annotated[
        tuple[PageOrigin, ...],
        Meta(
            description="Origins, each as `https://host` or `https://host:port`, as browsers send them. `*` allows"
            " every page. Operator paths can never be called so, and a page needs a gateway key of its own.",
            extra_json_schema={"uniqueItems": True},
        ),
    ] = ()
    max_age_seconds: Annotated[
        int, Meta(ge=0, le=86_400, description="How long a browser may keep the answer to a preflight request.")
    ] = 600


class OIDC(Section, frozen=True):
    """Signing in through an OpenID provider: authorization code with PKCE. Not set: by password only."""

    issuer: Annotated[
        BaseURL, Meta(description="The provider's issuer URL; its discovery document is below `/.well-known/`.")
    ]
    client_id: Annotated[Name, Meta(description="The client that the gateway is at the provider.")]
    client_secret_ref: Annotated[
        SecretRef | None,
        Meta(
            description="Where the client's secret is found. Not set: a public client, by PKCE alone.",
            extra_json_schema={"minProperties": 1, "maxProperties": 1},
        ),
    ] = None
    name: Annotated[Name, Meta(description="What the button to sign in says.")] = "Single sign-on"
    scopes: Annotated[tuple[Name, ...], Meta(description="Asked of the provider.")] = ("openid", "email", "profile")
    groups_claim: Annotated[Name, Meta(description="The claim of the ID token that lists the user's groups.")] = (
        "groups"
    )
    roles: Annotated[
        dict[Name, UserRole],
        Meta(description="Role by group, taken at every sign-in; of several the highest. Empty: roles are given here."),
    ] = {}
    teams: Annotated[
        dict[Name, Name],
        Meta(description="Team by group, taken at every sign-in. Teams that no group leads to are given here."),
    ] = {}
    default_role: Annotated[
        UserRole | None,
        Meta(description="The role of who has none by `roles`. Not set: they may not sign in."),
    ] = None
    allowed_domains: Annotated[
        tuple[Name, ...],
        Meta(
            description="Domains of e-mail addresses that may sign in. Empty: all.",
            extra_json_schema={"uniqueItems": True},
        ),
    ] = ()
    password_too: Annotated[bool, Meta(description="`false`: nobody signs in by password any more.")] = True


class Identity(Section, frozen=True):
    """Who may sign in to the console and the API."""

    public_url: Annotated[
        BaseURL | None,
        Meta(description="Where people's browsers reach the gateway. Not set: `http://localhost` and its port."),
    ] = None
    session_hours: Annotated[float, Meta(gt=0, le=720, description="How long somebody stays signed in at most.")] = 12.0
    session_idle_minutes: Annotated[
        float, Meta(ge=2, le=43_200, description="How long somebody who does nothing stays signed in.")
    ] = 120.0
    oidc: Annotated[OIDC | None, Meta(description="Signing in through an OpenID provider.")] = None


Rate = Annotated[int, Meta(ge=1, le=1_000_000_000_000)]


class Use(Section, frozen=True):
    """What all requests under this configuration together may use. What is not set is not limited."""

    requests_per_minute: Annotated[Rate | None, Meta(description="Requests in any 60 seconds.")] = None
    tokens_per_minute: Annotated[
        Rate | None, Meta(description="Tokens, of prompts and answers, in any 60 seconds.")
    ] = None
    max_concurrency: Annotated[Count | None, Meta(description="Requests at the same time, streams included.")] = None
    budget_usd_per_month: Annotated[USD | None, Meta(description="What they may cost in a calendar month (UTC).")] = (
        None
    )


class WhenAway(enum.StrEnum):
    """What holds for limits that are to be shared, while Redis cannot be reached."""

    LOCAL = "local"
    ALLOW = "allow"
    REFUSE = "refuse"


class Redis(Section, frozen=True):
    """Redis or Valkey, through which the gateways of several machines share limits."""

    url_ref: Annotated[
        SecretRef,
        Meta(
            description="Where its URL is found: `redis://user:password@host:6379/0`, or `rediss://` for TLS.",
            extra_json_schema={"minProperties": 1, "maxProperties": 1},
        ),
    ]
    when_away: Annotated[
        WhenAway,
        Meta(
            description="What holds while it cannot be reached. `local`: each machine counts for itself. `allow`: rates"
            " and concurrency are not limited, budgets are. `refuse`: requests with limits are refused with 429."
        ),
    ] = WhenAway.LOCAL
    key_prefix: Annotated[Identifier, Meta(description="How its keys begin; gateways that share have the same.")] = (
        "keeptrusts"
    )


class Gateway(Section, frozen=True):
    """The server itself. With several configurations, the first one's section counts for all."""

    listen: Annotated[
        Address, Meta(description="Where clients connect, as `host:port`. `--port` and `--listen` win.")
    ] = "127.0.0.1:41002"
    admin_listen: Annotated[
        Address | None,
        Meta(
            description="Where `/console/`, `/api/` and `/metrics` are served, and nowhere else; by TLS if that is set."
            " Not set: on `listen`, beside the models."
        ),
    ] = None
    auth: Annotated[
        AuthMode,
        Meta(
            description="`auto`: on a loopback address a request without a key is served under the default"
            " configuration, on any other address a key is required. `required`: always a key. `passthrough`: the"
            " client's own provider key is forwarded."
        ),
    ] = AuthMode.AUTO
    workers: Annotated[
        int, Meta(ge=1, le=512, description="Worker processes that share the port; one per core is sensible.")
    ] = 1
    timeouts: Annotated[GatewayTimeouts, Meta(description="Waits on providers.")] = GatewayTimeouts()
    connection_pool: Annotated[ConnectionPool, Meta(description="Connections to providers.")] = ConnectionPool()
    websocket: Annotated[WebSocket, Meta(description="The WebSocket proxy.")] = WebSocket()
    tls: Annotated[TLS | None, Meta(description="TLS between clients and the gateway.")] = None
    logging: Annotated[Logging, Meta(description="The log.")] = Logging()
    telemetry: Annotated[Telemetry, Meta(description="OpenTelemetry.")] = Telemetry()
    server_timing: Annotated[
        bool,
        Meta(description="Answers say where their time went, as far as it is known when they begin (`Server-Timing`)."),
    ] = True
    max_body_bytes: Annotated[
        int, Meta(ge=1024, le=1 << 31, description="Largest request body, also after decompression (413).")
    ] = 32 * 1024 * 1024
    limits: Annotated[Limits, Meta(description="Bounds on requests.")] = Limits()
    redis: Annotated[
        Redis | None, Meta(description="Where limits are shared with other machines. Not set: they are not.")
    ] = None
    cors: Annotated[CORS, Meta(description="Calls from web pages.")] = CORS()
    ip_allowlist: Annotated[
        tuple[Network, ...],
        Meta(
            description="Addresses and networks that may connect, those of health checks included; behind a proxy of"
            " `trusted_proxies`, its clients'. Empty: all.",
            extra_json_schema={"uniqueItems": True},
        ),
    ] = ()
    trusted_proxies: Annotated[
        tuple[Network, ...],
        Meta(
            description="Addresses and networks whose `x-forwarded-for` is believed. Empty: none.",
            extra_json_schema={"uniqueItems": True},
        ),
    ] = ()
    identity: Annotated[Identity, Meta(description="Signing in to the console and the API.")] = Identity()
    drain_seconds: Annotated[
        Seconds, Meta(description="How long requests in flight may go on after SIGTERM before they are cut.")
    ] = 30.0
    fail_mode: Annotated[
        FailMode,
        Meta(
            description="What an error inside a policy means: `block` refuses the request, `allow` lets it go on."
            " `--fail-mode` wins."
        ),
    ] = FailMode.BLOCK
    strict_translation: Annotated[
        bool,
        Meta(
            description="`true`: a request that the provider's format cannot express whole is refused with 400"
            " instead of being sent without the part."
        ),
    ] = False


class Configuration(Section, frozen=True):
    """One `policy-config.yaml`."""

    pack: Annotated[Pack, Meta(description="Names the configuration.")]
    providers: Annotated[Providers, Meta(description="Where requests can go.")]
    policies: Annotated[Policies, Meta(description="Which checks run.")] = Policies()
    policy: Annotated[
        dict[str, Any],
        Meta(
            description="Settings of each policy, by its kind. A kind that has none here has its defaults.",
            extra_json_schema={SETTINGS_OF: KINDS},
        ),
    ] = {}
    limits: Annotated[Use, Meta(description="What all requests under this configuration together may use.")] = Use()
    gateway: Annotated[Gateway, Meta(description="The server itself.")] = Gateway()
