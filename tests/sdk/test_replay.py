"""Every recorded exchange through the gateway and directly: the SDK must not be able to tell which was which.

The official Python SDK makes each recorded request to the replaying provider itself, and through the gateway in each
manner in which the answer can be framed and cut. Equal must be: every chunk of a stream or the whole answer, with what
is set and unset in it; the class, status and body of an error; the header fields of the answer; what the provider was
asked. And what a client cannot see must be right in the audit log: the usage.

What is not replayed stands in `LEFT_OUT`, what must differ in `MAPPED`, each with the reason.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import openai
import pytest
from openai import AzureOpenAI, OpenAI

from gateway.audit.reader import Follower
from tests import recordings
from tests.gateway_process import PATIENCE, GatewayProcess, configuration, running_gateway
from tests.sdk.replay import (
    HEADER,
    OPERATIONS,
    Case,
    Manner,
    ReplayProvider,
    cases,
    is_counted,
    operation_of,
    usage_added,
)

PROVIDERS = (
    *("openai", "azure-openai", "cerebras", "deepseek", "groq", "mistral", "ollama", "openrouter", "together", "vllm"),
)
"""Those of the recorded providers that speak OpenAI's format."""

SET_SIZE = 80
SETS = [
    pytest.param(found[at : at + SET_SIZE], id=f"{name} {operation} {at}".replace("/", "."))
    for name in PROVIDERS
    for operation in OPERATIONS
    for found in [cases(name, operation)]
    for at in range(0, len(found), SET_SIZE)
]
"""The recordings, a provider and an operation at a time, in parts that two processes can share fairly."""

LEFT_OUT = {
    "openai GET /v1/responses/": "reads a stored response: not an endpoint of the gateway",
    "openai POST /v1/responses/compact": "not an endpoint of the gateway",
    "openai POST /v1/responses/input_tokens": "not an endpoint of the gateway",
    "cerebras GET /v1/models": "the gateway lists its own models",
    "ollama POST /api/": "Ollama's own format, not OpenAI's",
}
"""Beginnings of exchanges that are not replayed."""

MAPPED = {401: "the gateway's own secret was refused, which the client hears as 502 `upstream_auth_failed`"}
"""Statuses of recorded errors that must not reach the client as they are."""

ADDED = b',"stream_options":{"include_usage":true}'
COUNTED_IF_ASKED = ("chat/completions", "completions")
"""Operations whose streams have usage only when it is asked for."""
COUNTED_UNASKED = ("mistral",)
"""Providers that refuse `stream_options`."""
OWN_FIELDS = ("x-request-id", "cache-control", "content-length", "transfer-encoding", "date", "x-accel-buffering")
"""Fields of an answer that are the gateway's to set."""
DROPPED_FIELDS = (
    *("alt-svc", "strict-transport-security", "set-cookie", "nel", "report-to"),
    *("access-control-allow-origin", "access-control-allow-credentials", "access-control-expose-headers"),
)
"""Fields of a provider's answer that concern the provider's host, not the gateway's."""


@dataclass
class Stand:
    """The provider, the gateway before it, and for each the client to be compared."""

    provider: ReplayProvider
    gateway: GatewayProcess
    keys: dict[str, str] = field(default_factory=dict)
    rows: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """Of the audit log, by the client's request id."""

    def __post_init__(self) -> None:
        self.follower = Follower(self.gateway.state / "audit")

    def direct(self, provider: str, azure: bool) -> OpenAI:
        """A client of the provider itself."""
        base = f"{self.provider.url}/{provider}"
        return _client("sk-direct", base, azure) if azure else _client("sk-direct", f"{base}/v1", azure)

    def through(self, provider: str, azure: bool) -> OpenAI:
        """The same client, with another address and key."""
        if provider not in self.keys:
            self.keys[provider] = self.gateway.create_key(provider, configuration_id=provider)
        key = self.keys[provider]
        return _client(key, self.gateway.url if azure else self.gateway.api, azure)


def _client(key: str, url: str, azure: bool) -> OpenAI:
    if azure:
        return AzureOpenAI(api_key=key, azure_endpoint=url, api_version="2024-10-21", max_retries=0)
    return OpenAI(api_key=key, base_url=url, max_retries=0)


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    folder = tmp_path_factory.mktemp("gateway")
    with ReplayProvider().running() as provider:
        texts = [_configuration(name, provider.url) for name in PROVIDERS]
        with running_gateway(folder, *texts, environment={"PROVIDER_SECRET": "sk-of-the-gateway"}) as gateway:
            yield Stand(provider, gateway)


def _configuration(name: str, url: str) -> str:
    """A target for each model that recordings of this provider ask for."""
    found = [case for operation in OPERATIONS for case in cases(name, operation)]
    targets = [
        {
            "id": f"{name}-{index}",
            "provider": name,
            "model": model,
            "base_url": f"{url}/{name}" if name == "azure-openai" else f"{url}/{name}/v1",
            "secret_key_ref": {"env": "PROVIDER_SECRET"},
        }
        for index, model in enumerate(dict.fromkeys(case.request["model"] for case in found))
    ]
    return configuration(*targets, name=name, fallback={"circuit_breaker": {"enabled": False}})


@dataclass
class Outcome:
    """What the SDK made of an answer: for each chunk, or the whole, or the error, its class and what it holds."""

    items: list[tuple[type, Any]]
    usage: tuple[int, int] | None
    headers: Mapping[str, str]
    left: bool
    """The SDK left in the midst of a stream, since an event told of an error: what came after it, nobody knows."""


def _call(client: OpenAI, case: Case, manner: Manner, caller: str) -> Outcome:
    """The recorded request by the SDK's own method; what the method has no argument for goes as `extra_body`."""
    method = _method(client, case.operation)
    known = signature(method).parameters
    arguments = {name: value for name, value in case.request.items() if name in known}
    others = {name: value for name, value in case.request.items() if name not in known}
    header = case.header(manner, caller)
    items: list[tuple[type, Any]] = []
    usage, left = None, False
    headers: Mapping[str, str] = {}
    try:
        raw = method(**arguments, extra_body=others or None, extra_headers={HEADER: header, "x-request-id": header})
        headers, parsed = raw.headers, raw.parse()
        for part in parsed if isinstance(parsed, openai.Stream) else [parsed]:
            items.append((type(part), part.model_dump(exclude_unset=True, warnings=False)))
            usage = _usage(part) or usage
    except openai.APIStatusError as error:
        headers = error.response.headers
        items.append((type(error), {"status": error.status_code, "body": error.body, "message": str(error)}))
    except openai.APIError as error:
        left = True
        items.append((type(error), {"body": error.body, "message": str(error)}))
    except ValueError as error:
        # The answer is no JSON, and the SDK lets the parser say so.
        items.append((type(error), {"message": str(error)}))
    return Outcome(items, usage, headers, left)


def _method(client: OpenAI, operation: str) -> Callable[..., Any]:
    resource: Any = client
    for name in operation.split("/"):
        resource = getattr(resource, name)
    return resource.with_raw_response.create


def _usage(part: Any) -> tuple[int, int] | None:
    """Tokens in and out, as an answer or an event of a response tells them; Groq has a place of its own."""
    usage = getattr(getattr(part, "response", part), "usage", None)
    if usage is None:
        own = (getattr(part, "model_extra", None) or {}).get("x_groq", {}).get("usage")
        return (own["prompt_tokens"], own["completion_tokens"]) if own else None
    if hasattr(usage, "input_tokens"):
        return usage.input_tokens, usage.output_tokens
    return usage.prompt_tokens, getattr(usage, "completion_tokens", 0)


def _differences(case: Case, direct: Outcome, through: Outcome) -> Iterator[str]:
    """What the client could notice."""
    if case.recording.status in MAPPED:
        kind, what = through.items[0]
        if (kind, what["status"], what["body"]["code"]) != (openai.InternalServerError, 502, "upstream_auth_failed"):
            yield f"not mapped: {what}"
        return
    if len(direct.items) != len(through.items):
        yield f"{len(direct.items)} items directly, {len(through.items)} through the gateway"
    for index, (expected, got) in enumerate(zip(direct.items, through.items, strict=False)):
        if expected != got:
            yield f"item {index}: {_first_difference(expected, got)}"
            break
    for name, value in direct.headers.items():
        if name not in (*OWN_FIELDS, *DROPPED_FIELDS) and through.headers.get(name) != value:
            yield f"field {name}: directly {value!r}, through the gateway {through.headers.get(name)!r}"


def _first_difference(expected: Any, got: Any, path: str = "") -> str:
    """Where two items part, as a path into them."""
    if isinstance(expected, dict) and isinstance(got, dict):
        for key in expected | got:
            if expected.get(key, ...) != got.get(key, ...):
                return _first_difference(expected.get(key, ...), got.get(key, ...), f"{path}.{key}")
    if isinstance(expected, list | tuple) and isinstance(got, list | tuple) and len(expected) == len(got):
        for index, pair in enumerate(zip(expected, got, strict=True)):
            if pair[0] != pair[1]:
                return _first_difference(*pair, f"{path}[{index}]")
    return f"{path} is {str(expected)[:300]} directly, {str(got)[:300]} through the gateway"


def _differences_asked(stand: Stand, case: Case, direct: str, through: str) -> Iterator[str]:
    """What the provider could notice."""
    expected, got = stand.provider.seen[direct], stand.provider.seen[through]
    body = expected.body[:-1] + ADDED + b"}" if _asks_for_usage(case) else expected.body
    if got.body != body:
        yield f"the provider is asked directly {body[-300:]!r}, through the gateway {got.body[-300:]!r}"
    if got.target != expected.target:
        yield f"the provider is asked directly at {expected.target}, through the gateway at {got.target}"
    if "kt_gk_" in str(got.headers):
        yield "the provider sees the gateway key"
    lost = set(expected.headers) - set(got.headers) - {"connection", "api-key", "authorization"}
    if lost:
        yield f"fields that do not reach the provider: {sorted(lost)}"


def _asks_for_usage(case: Case) -> bool:
    """Whether the gateway has to add `stream_options`."""
    return bool(
        case.request.get("stream")
        and case.operation in COUNTED_IF_ASKED
        and case.recording.provider not in COUNTED_UNASKED
        and not (case.request.get("stream_options") or {}).get("include_usage")
    )


def _differences_counted(stand: Stand, expected: Mapping[str, tuple[int, int] | None]) -> Iterator[str]:
    """What the audit log says of the usage, against what it was. By request id."""
    rows = _audit_rows(stand, expected)
    for request_id, usage in expected.items():
        row = rows[request_id]
        found = row["prompt_tokens"], row["completion_tokens"]
        if found != (usage or (0, 0)):
            yield f"{request_id}: the usage was {usage}, the audit log has {found}"


def _audit_rows(stand: Stand, wanted: Iterable[str]) -> Mapping[str, Mapping[str, Any]]:
    """The finished exchanges by the client's request id, once these are in the log."""
    missing = set(wanted)
    deadline = time.monotonic() + PATIENCE
    while missing and time.monotonic() < deadline:
        for row in stand.follower.poll():
            if row["kind"] == "exchange" and row["finished_at"]:
                stand.rows[row["attributes"].get("client_request_id", "")] = row  # type: ignore[attr-defined]
        missing -= set(stand.rows)
    assert not missing, f"not in the audit log: {sorted(missing)[:5]} and others, {len(missing)} in all"
    return stand.rows


@pytest.mark.parametrize("chosen", SETS)
def test_equal(stand: Stand, chosen: list[Case]) -> None:
    provider = chosen[0].recording.provider
    azure = provider == "azure-openai"
    differences: list[str] = []
    usages: dict[str, tuple[int, int] | None] = {}
    with stand.direct(provider, azure) as direct_client, stand.through(provider, azure) as client:
        for case in chosen:
            direct = _call(direct_client, case, Manner.WHOLE, "direct")
            for manner in case.manners:
                through = _call(client, case, manner, "through")
                header = case.header(manner, "through")
                if not direct.left:
                    usages[header] = usage_added(case.index) if _gets_usage(case) else direct.usage
                found = [
                    *_differences(case, direct, through),
                    *_differences_asked(stand, case, case.header(Manner.WHOLE, "direct"), header),
                ]
                differences += [f"{case}, {manner}: {difference}" for difference in found]
    differences += _differences_counted(stand, usages)
    assert not differences, "\n".join([f"{len(differences)} differences", *differences[:20]])


def _gets_usage(case: Case) -> bool:
    """Whether the provider adds usage that the client does not see."""
    return case.recording.streams and _asks_for_usage(case) and not is_counted(case.recording)


def test_connections_are_kept(stand: Stand) -> None:
    """No answer, however it is framed and cut, costs a connection to the provider, though the SDK closes its own.

    There are two models, so two pools; each may need another connection while an answer that has had its `[DONE]` has
    not had its last chunk yet.
    """
    before = stand.provider.connections
    calls = 0
    with stand.through("vllm", False) as client:
        for case in cases("vllm", "completions") * 4:
            for manner in case.manners:
                _call(client, case, manner, "kept")
                calls += 1
    assert calls > 40
    assert stand.provider.connections <= before + 4


def test_nothing_is_left_out_unnoticed() -> None:
    found = Counter(
        f"{item.provider} {item.method} {item.path}"
        for name in PROVIDERS
        for item in recordings.load(name)
        if operation_of(item) is None
    )
    unexplained = [name for name in found if not name.startswith(tuple(LEFT_OUT))]
    assert not unexplained
    assert [prefix for prefix in LEFT_OUT if not any(name.startswith(prefix) for name in found)] == []
    assert sum(len(cases(name, operation)) for name in PROVIDERS for operation in OPERATIONS) == 664
