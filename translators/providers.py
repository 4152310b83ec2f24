"""The providers: what each offers, where it lives and how it wants to be asked.

A provider that speaks a known dialect is one row of `PROVIDERS`, nothing else. A row is data; `upstream_of` joins it
with what the operator wrote for a target and gives an `Upstream`, which knows every path and every header field that
a request to that target needs, and no more: credentials are handed in when a request is sent.

Every row takes a static secret. The clouds (bedrock, vertex, azure-openai) know other ways too: keys that sign each
request, tokens that are fetched and renewed. Which it is for a target is decided outside, since it depends on the
machine (`gateway.upstream.credentials`).
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from gateway.types import Operation, Origin

Headers = tuple[tuple[bytes, bytes], ...]


class Auth(enum.StrEnum):
    """Where the secret goes."""

    BEARER = "bearer"
    API_KEY = "api-key"
    X_API_KEY = "x-api-key"
    X_GOOG_API_KEY = "x-goog-api-key"
    NONE = "none"


class Endpoint(msgspec.Struct, frozen=True):
    """One operation of a provider: the dialect of its bodies (a name in `plan`) and its path after the base.

    `{model}` in a path is the model's name; `stream_path` is for streams, where they have a path of their own.
    """

    dialect: str
    path: str
    stream_path: str | None = None


class Layout(enum.StrEnum):
    """How the path of a request is made from the base URL."""

    VERSIONED = "versioned"
    """Base URL, `/v1` unless the base has a version segment already (`/v1`, `/v4`, `/v1beta/openai`), then the path."""
    PLAIN = "plain"
    """Base URL, then the path."""
    AZURE = "azure"
    """Deployments of an Azure OpenAI resource, or its `/openai/v1` surface."""


class Where(msgspec.Struct, frozen=True):
    """Where in a cloud a target is, as far as its settings say so."""

    region: str | None = None
    project: str | None = None
    location: str | None = None


NOWHERE: Final = Where()


class Provider(msgspec.Struct, frozen=True):
    """One row. `base_url` None: the target must give one. `headers` go with every request."""

    name: str
    endpoints: Mapping[Operation, Endpoint]
    base_url: str | None = None
    auth: Auth = Auth.BEARER
    layout: Layout = Layout.VERSIONED
    headers: Headers = ()
    refuses: frozenset[str] = frozenset()
    """Fields of OpenAI's requests that the provider answers with an error, so they are left out and noted. With
    `stream_options` among them the provider counts every stream unasked."""
    takes: frozenset[str] = frozenset()
    """Fields beyond OpenAI's that the provider's chat takes (`top_k`, `reasoning_content` in messages)."""
    names_limit: bool = False
    """The name of the bound on an answer depends on the model (`translators.openai_limits`)."""
    local: bool = False
    """Answered by the gateway itself (`translators.mock`), without any connection."""
    place: Callable[[Where], tuple[str, str] | None] | None = None
    """For clouds: origin and path of the base URL in a place; None where the target does not say enough."""
    wants: str = ""
    """The setting that `place` needs."""
    sockets: Mapping[Operation, str] = {}
    """Operations that the provider offers over a WebSocket, with their paths after the base."""
    takes_query: bool = True
    """A client of the provider's own format may have a query string passed on (`?beta=true`)."""

    def with_chat_by(self, operation: Operation) -> Provider:
        """The row for a model that speaks only one of the provider's kinds of chat.

        Raises ValueError, in words for the operator, where the provider does not have that kind.
        """
        if operation not in self.endpoints:
            raise ValueError(f"provider {self.name} has no API of the kind {operation.value!r}")
        others = {kind: endpoint for kind, endpoint in self.endpoints.items() if kind not in _CHATS}
        return msgspec.structs.replace(self, endpoints={**others, operation: self.endpoints[operation]})

    def endpoint(self, operation: Operation) -> Endpoint | None:
        """Where an operation goes. A chat can be translated, so for any kind of chat another kind will do; so will it
        for a completion, and tokens are counted wherever there is a chat."""
        endpoint = self.endpoints.get(operation)
        if endpoint is None and operation in _LIKE_CHAT:
            endpoint = next((self.endpoints[kind] for kind in _CHATS if kind in self.endpoints), None)
        return endpoint


_CHATS: Final = (Operation.CHAT, Operation.MESSAGES, Operation.RESPONSES)
_LIKE_CHAT: Final = (*_CHATS, Operation.COMPLETIONS, Operation.COUNT_TOKENS)


_CHAT: Final = {Operation.CHAT: Endpoint("openai_chat", "/chat/completions")}
_EMBEDDINGS: Final = {Operation.EMBEDDINGS: Endpoint("openai_embeddings", "/embeddings")}
_COMPLETIONS: Final = {Operation.COMPLETIONS: Endpoint("openai_completions", "/completions")}
_RESPONSES: Final = {Operation.RESPONSES: Endpoint("openai_responses", "/responses")}
_MODERATIONS: Final = {Operation.MODERATIONS: Endpoint("openai_moderations", "/moderations")}
_IMAGES: Final = {Operation.IMAGES: Endpoint("openai_images", "/images/generations")}
_SPEECH: Final = {Operation.SPEECH: Endpoint("openai_speech", "/audio/speech")}
_TRANSCRIPTIONS: Final = {Operation.TRANSCRIPTIONS: Endpoint("openai_forms", "/audio/transcriptions")}
_TRANSLATIONS: Final = {Operation.TRANSLATIONS: Endpoint("openai_forms", "/audio/translations")}
_AUDIO: Final = {**_SPEECH, **_TRANSCRIPTIONS, **_TRANSLATIONS}
_EDITS: Final = {Operation.IMAGE_EDITS: Endpoint("openai_forms", "/images/edits")}
_VARIATIONS: Final = {Operation.IMAGE_VARIATIONS: Endpoint("openai_forms", "/images/variations")}
_ALL_IMAGES: Final = {**_IMAGES, **_EDITS, **_VARIATIONS}
_INPUT_TOKENS: Final = {Operation.COUNT_TOKENS: Endpoint("responses_count", "/responses/input_tokens")}

_REALTIME: Final = {Operation.REALTIME: "/realtime"}
_SOCKETS: Final = {**_REALTIME, Operation.RESPONSES: "/responses"}

_USUAL: Final = {**_CHAT, **_EMBEDDINGS, **_COMPLETIONS}
_OPENAI: Final = {**_USUAL, **_RESPONSES, **_MODERATIONS, **_ALL_IMAGES, **_AUDIO}
_MESSAGES: Final = {
    Operation.MESSAGES: Endpoint("anthropic_messages", "/messages"),
    Operation.COUNT_TOKENS: Endpoint("anthropic_count", "/messages/count_tokens"),
}
_BEDROCK: Final = {
    Operation.CHAT: Endpoint("bedrock_converse", "/model/{model}/converse", "/model/{model}/converse-stream"),
    Operation.COUNT_TOKENS: Endpoint("bedrock_count", "/model/{model}/count-tokens"),
    Operation.EMBEDDINGS: Endpoint("bedrock_embed", "/model/{model}/invoke"),
}
_COHERE: Final = {
    Operation.CHAT: Endpoint("cohere_chat", "/chat"),
    Operation.EMBEDDINGS: Endpoint("cohere_embed", "/embed"),
}
_GEMINI: Final = {
    Operation.CHAT: Endpoint(
        "gemini_generate", "/models/{model}:generateContent", "/models/{model}:streamGenerateContent?alt=sse"
    ),
    Operation.COUNT_TOKENS: Endpoint("gemini_count", "/models/{model}:countTokens"),
    Operation.EMBEDDINGS: Endpoint("gemini_embed", "/models/{model}:batchEmbedContents"),
}
_OLLAMA: Final = {Operation.CHAT: Endpoint("ollama_chat", "/api/chat")}
_LIMIT: Final = "max_completion_tokens"


def _bedrock_place(where: Where) -> tuple[str, str] | None:
    """https://docs.aws.amazon.com/general/latest/gr/bedrock.html"""
    if where.region is None:
        return None
    return f"https://bedrock-runtime.{where.region}.amazonaws.com{'.cn' if where.region.startswith('cn-') else ''}", ""


def _vertex_place(publisher: str) -> Callable[[Where], tuple[str, str] | None]:
    """https://docs.cloud.google.com/vertex-ai/generative-ai/docs/learn/locations"""

    def place(where: Where) -> tuple[str, str] | None:
        if where.project is None:
            return None
        location = where.location or "global"
        host = {
            "global": "aiplatform.googleapis.com",
            "us": "aiplatform.us.rep.googleapis.com",
            "eu": "aiplatform.eu.rep.googleapis.com",
        }.get(location, f"{location}-aiplatform.googleapis.com")
        return f"https://{host}", f"/v1/projects/{where.project}/locations/{location}/publishers/{publisher}"

    return place


_VERTEX: Final = {
    Operation.CHAT: _GEMINI[Operation.CHAT],
    Operation.COUNT_TOKENS: Endpoint("vertex_count", "/models/{model}:countTokens"),
    Operation.EMBEDDINGS: Endpoint("vertex_embed", "/models/{model}:predict"),
}

# Base URLs and operations as each provider's own documentation gives them.
_ROWS: Final = (
    Provider(
        "openai",
        {**_OPENAI, **_INPUT_TOKENS},
        "https://api.openai.com/v1",
        takes=frozenset({_LIMIT}),
        names_limit=True,
        sockets=_SOCKETS,
    ),
    Provider(
        "azure-openai",
        {**_USUAL, **_RESPONSES, **_IMAGES, **_EDITS, **_AUDIO},
        auth=Auth.API_KEY,
        layout=Layout.AZURE,
        takes=frozenset({_LIMIT}),
        names_limit=True,
        sockets=_SOCKETS,
    ),
    Provider("openai-compatible", _OPENAI, sockets=_SOCKETS),
    Provider(
        "anthropic",
        _MESSAGES,
        "https://api.anthropic.com/v1",
        auth=Auth.X_API_KEY,
        headers=((b"anthropic-version", b"2023-06-01"),),
    ),
    # A static secret is a Bedrock API key: https://docs.aws.amazon.com/bedrock/latest/userguide/api-keys.html.
    Provider("bedrock", _BEDROCK, layout=Layout.PLAIN, place=_bedrock_place, wants="aws_region"),
    Provider("cerebras", {**_CHAT, **_COMPLETIONS}, "https://api.cerebras.ai/v1"),
    # https://api.cloudflare.com/client/v4/accounts/<account>/ai/v1
    Provider("cloudflare", {**_CHAT, **_EMBEDDINGS}),
    Provider("cohere", _COHERE, "https://api.cohere.com/v2"),
    # https://<workspace>/serving-endpoints
    Provider("databricks", {**_CHAT, **_EMBEDDINGS, **_COMPLETIONS}, layout=Layout.PLAIN),
    # Both operations stand at the root; /v1, which its documentation also gives, is recorded for chat only.
    Provider(
        "deepseek",
        {**_CHAT, **_RESPONSES},
        "https://api.deepseek.com",
        layout=Layout.PLAIN,
        takes=frozenset({"reasoning_content"}),
    ),
    Provider(
        "fireworks",
        {**_USUAL, **_RESPONSES},
        "https://api.fireworks.ai/inference/v1",
        takes=frozenset({"reasoning_effort", "top_k"}),
    ),
    Provider("gemini", _GEMINI, "https://generativelanguage.googleapis.com/v1beta", auth=Auth.X_GOOG_API_KEY),
    Provider("groq", {**_CHAT, **_RESPONSES, **_AUDIO}, "https://api.groq.com/openai/v1", takes=frozenset({_LIMIT})),
    Provider("huggingface", _CHAT, "https://router.huggingface.co/v1"),
    Provider("lm-studio", {**_USUAL, **_RESPONSES}, "http://localhost:1234/v1"),
    # 422 "Extra inputs are not permitted": https://github.com/dnakov/anon-kode/issues/53
    Provider(
        "mistral",
        {**_CHAT, **_EMBEDDINGS, **_MODERATIONS, **_TRANSCRIPTIONS},
        "https://api.mistral.ai/v1",
        refuses=frozenset({"stream_options"}),
    ),
    Provider("moonshot", _CHAT, "https://api.moonshot.ai/v1", takes=frozenset({"reasoning_content"})),
    Provider("mock", {**_USUAL, **_RESPONSES, **_MODERATIONS}, auth=Auth.NONE, local=True),
    Provider("nvidia", _USUAL, "https://integrate.api.nvidia.com/v1"),
    Provider("ollama", _USUAL, "http://localhost:11434/v1"),
    Provider("ollama-native", _OLLAMA, "http://localhost:11434", layout=Layout.PLAIN),
    Provider(
        "openrouter",
        {**_USUAL, **_RESPONSES},
        "https://openrouter.ai/api/v1",
        takes=frozenset({"reasoning_effort", "top_k"}),
    ),
    Provider("perplexity", _CHAT, "https://api.perplexity.ai", layout=Layout.PLAIN),
    Provider("together", {**_USUAL, **_IMAGES, **_AUDIO}, "https://api.together.xyz/v1", takes=frozenset({"top_k"})),
    # Without a project it is express mode, which takes an API key.
    Provider(
        "vertex",
        _VERTEX,
        "https://aiplatform.googleapis.com/v1/publishers/google",
        auth=Auth.X_GOOG_API_KEY,
        layout=Layout.PLAIN,
        place=_vertex_place("google"),
    ),
    Provider(
        "vllm",
        {**_USUAL, **_RESPONSES, **_TRANSCRIPTIONS, **_TRANSLATIONS},
        "http://localhost:8000/v1",
        takes=frozenset({"top_k"}),
    ),
    # https://docs.x.ai/docs/guides/voice
    Provider("xai", {**_CHAT, **_RESPONSES, **_IMAGES}, "https://api.x.ai/v1", sockets=_REALTIME),
)

PROVIDERS: Final[Mapping[str, Provider]] = MappingProxyType({row.name: row for row in _ROWS})

# https://platform.claude.com/docs/en/build-with-claude/claude-on-vertex-ai
VERTEX_CLAUDE: Final = Provider(
    "vertex",
    {
        Operation.MESSAGES: Endpoint(
            "vertex_messages", "/models/{model}:rawPredict", "/models/{model}:streamRawPredict"
        ),
        Operation.COUNT_TOKENS: Endpoint("anthropic_count", "/models/count-tokens:rawPredict"),
    },
    auth=Auth.X_GOOG_API_KEY,
    layout=Layout.PLAIN,
    place=_vertex_place("anthropic"),
    wants="vertex_project",
    takes_query=False,
)
"""Claude on Vertex AI has another publisher and another format than Gemini."""


def row_of(name: str, api: str | None = None, model: str = "") -> Provider:
    """A provider's row, for a target whose model speaks only the chat `api` (an `Operation`), or any that the row has.

    `model` is what the provider is asked for; Vertex AI has two formats. Raises ValueError, in words for the operator,
    where the provider does not have that kind.
    """
    row = VERTEX_CLAUDE if name == "vertex" and model.startswith("claude") else PROVIDERS[name]
    return row if api is None else row.with_chat_by(Operation(api))


AZURE_API_VERSION: Final = "2024-10-21"
"""The newest version of the deployments API that is not a preview:
https://learn.microsoft.com/azure/ai-services/openai/api-version-lifecycle."""


class Asked(msgspec.Struct, frozen=True):
    """Whom a translated request is for: the model, by the provider's name for it, and the provider."""

    model: str
    provider: Provider


class Upstream(msgspec.Struct, frozen=True):
    """One target's address: an origin, and the paths and header fields of its requests."""

    provider: Provider
    origin: Origin
    base_path: str
    model: str
    headers: Headers = ()
    azure_deployment: str | None = None
    azure_api_version: str | None = None

    @property
    def auth(self) -> Auth:
        return self.provider.auth

    def path(self, operation: Operation, *, stream: bool, query: str = "") -> str:
        """The request target of an operation; `query` is sent on.

        Raises KeyError for an operation that the provider does not have (`plan.bind` tells first).
        """
        endpoint = self.provider.endpoint(operation)
        if endpoint is None:
            raise KeyError(operation)
        path = (stream and endpoint.stream_path) or endpoint.path
        if self.provider.layout is Layout.AZURE:
            path, version = self._azure_path(operation, path)
            query = "&".join(part for part in (version, query) if part)
        path = self.base_path + path.replace("{model}", quote(self.model, safe=""))
        return f"{path}{'&' if '?' in path else '?'}{query}" if query else path

    def _azure_path(self, operation: Operation, path: str) -> tuple[str, str]:
        version = f"api-version={quote(self.azure_api_version)}" if self.azure_api_version else ""
        if self.base_path.endswith("/v1") or operation in _AZURE_WITHOUT_DEPLOYMENT:
            return path, version
        return f"/deployments/{quote(self.azure_deployment or self.model, safe='')}{path}", version

    def socket_path(self, operation: Operation) -> str:
        """The request target of a WebSocket; one of the Realtime API names the model, one of Responses no model.

        https://platform.openai.com/docs/guides/realtime-websocket, and for Azure
        https://learn.microsoft.com/azure/foundry/openai/how-to/realtime-audio-websockets. Raises KeyError for an
        operation that the provider does not offer so.
        """
        path = self.base_path + self.provider.sockets[operation]
        query = {}
        if self.provider.layout is Layout.AZURE and not self.base_path.endswith("/v1"):
            query["api-version"] = self.azure_api_version or AZURE_API_VERSION
        if operation is Operation.REALTIME:
            query["deployment" if query else "model"] = self.azure_deployment or self.model
        return f"{path}?{urlencode(query)}" if query else path

    def auth_headers(self, secret: str) -> Headers:
        """The header fields that every request to the target carries, its credential among them.

        An empty secret gives no credential: a local server wants none.
        """
        if not secret or self.auth is Auth.NONE:
            return self.headers
        value = secret.encode("latin-1")
        if self.auth is Auth.BEARER:
            return ((b"authorization", b"Bearer " + value), *self.headers)
        return ((self.auth.value.encode(), value), *self.headers)


CREDENTIAL_FIELDS: Final = frozenset((b"authorization", b"api-key", b"x-api-key", b"x-goog-api-key"))
"""Header fields that carry a credential; an operator may set one in a target's `headers`."""

_AZURE_WITHOUT_DEPLOYMENT: Final = frozenset({Operation.RESPONSES})


def upstream_of(
    provider: Provider,
    *,
    base_url: str | None = None,
    azure_deployment: str | None = None,
    azure_api_version: str | None = None,
    model: str = "",
    extra_headers: Mapping[str, str] | None = None,
    where: Where = NOWHERE,
) -> Upstream:
    """Join a row with a target's own settings. Raises ValueError, in words for the operator."""
    if provider.local:
        return Upstream(provider, Origin(f"{provider.name}.invalid", 443), "/v1", model)
    url = _url(provider, base_url, where)
    origin, path = _parse(url)
    if provider.layout is Layout.AZURE:
        path = _azure_base(path)
        if not azure_api_version and not path.endswith("/v1"):
            azure_api_version = AZURE_API_VERSION
    elif provider.layout is Layout.VERSIONED and not _VERSION.search(path):
        path += "/v1"
    headers = _headers(provider.headers, extra_headers or {})
    return Upstream(provider, origin, path, model, headers, azure_deployment, azure_api_version)


def _url(provider: Provider, base_url: str | None, where: Where) -> str:
    """The base URL of a target. One that has no path of its own is another way to a cloud's place (a private
    endpoint)."""
    place = None if provider.place is None else provider.place(where)
    if place is not None:
        origin, path = place
        own = (base_url or "").rstrip("/")
        return f"{own or origin}{path}" if own.count("/") <= 2 else own
    url = base_url or provider.base_url
    if not url:
        raise ValueError(
            f"provider {provider.name} needs {f'{provider.wants} or ' if provider.wants else ''}a base_url"
        )
    return url


_VERSION: Final = re.compile(r"/v\d+(?:alpha|beta)?\d*(?:/|$)")
_HOST: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?\.?\Z|[0-9A-Fa-f:.]+\Z", re.ASCII)
_PATH: Final = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@/%-]*\Z", re.ASCII)
_AZURE_BASE: Final = re.compile(r"(?P<prefix>.*?)(?:/openai)?(?P<v1>/v1)?\Z")
_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z", re.ASCII)
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*\Z")
_NOT_YOURS: Final = frozenset({"host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer"})


def _parse(url: str) -> tuple[Origin, str]:
    """Origin and path of a base URL, the path without a slash at its end."""
    if not url.isascii() or not url.isprintable() or " " in url:  # urlsplit drops line ends and tabs in silence
        raise ValueError(f"base_url {url!r} has spaces, control characters or characters outside ASCII")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"base_url {url!r} must begin with https:// (or http:// for a server of your own network)")
    if parts.username is not None or parts.password is not None:
        raise ValueError("base_url must not carry a user or a password; use secret_key_ref")
    if parts.fragment or "#" in url:
        raise ValueError(f"base_url {url!r} must not have a fragment")
    if parts.query or "?" in url:
        raise ValueError(f"base_url {url!r} must not have a query (azure_api_version has its own setting)")
    host = parts.hostname or ""
    if not _HOST.match(host):
        raise ValueError(f"base_url {url!r} names no valid host")
    if not _PATH.match(parts.path):
        raise ValueError(f"base_url {url!r} has a path with characters that must be percent-encoded")
    try:
        port = parts.port
    except ValueError:
        raise ValueError(f"base_url {url!r} has no valid port") from None
    tls = parts.scheme == "https"
    return Origin(host, port or (443 if tls else 80), tls), parts.path.rstrip("/")


def _azure_base(path: str) -> str:
    """`…/openai` or `…/openai/v1`, whatever of it the operator wrote."""
    if "/deployments" in path:
        raise ValueError("base_url names a deployment; give the resource's address, and azure_deployment beside it")
    found = _AZURE_BASE.match(path)
    prefix, v1 = (found["prefix"], found["v1"]) if found else (path, None)
    return f"{prefix}/openai{v1 or ''}"


def _headers(own: Headers, extra: Mapping[str, str]) -> Headers:
    """The row's fields and the target's; the target's win."""
    added = []
    for name, value in extra.items():
        if not _NAME.match(name) or not _VALUE.match(value):
            raise ValueError(f"header {name!r} is not a valid HTTP field")
        if name.lower() in _NOT_YOURS:
            raise ValueError(f"header {name!r} is the gateway's own to set")
        added.append((name.lower().encode(), value.encode("latin-1")))
    names = {name for name, _ in added}
    return (*(field for field in own if field[0] not in names), *added)
