"""What would become of a request: its route, what policies say, and what each target would be sent. Nothing is sent.

It goes through the very code that serves requests: surface, view, pipeline, routes and translations. What only happens
on the way is told as such: rates and keys are not looked at, nobody else is asked (moderation services, people), and
health is a worker's own, so every target counts as well. Credentials are masked; the request itself is shown as it
would go out, so who may ask for an explanation may read what they ask about, and nothing else.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import orjson

from gateway import metrics
from gateway.config.load import LoadedConfiguration
from gateway.config.schema import RoutingStrategy
from gateway.downstream.head import HeadLimits, RequestHead, parse_head
from gateway.errors import GatewayError, InputBlocked, InvalidRequest, ModelNotFound, UpstreamUnavailable
from gateway.routes import Lane, Target
from gateway.secrets import MASK
from gateway.services import VIEWS
from gateway.snapshot import Compiler, Configuration, Snapshot
from gateway.surface import Endpoint, Place, find
from gateway.types import ALLOWED, Screening, Subject, Verdict
from translators.dialect import RequestView
from translators.providers import CREDENTIAL_FIELDS

REQUEST_ID: Final = "explained"
_ORDERS: Final = {
    RoutingStrategy.ORDERED: "in the order of the configuration",
    RoutingStrategy.ROUND_ROBIN: "each request begins one further",
    RoutingStrategy.WEIGHTED: "drawn by weight for each request",
    RoutingStrategy.LOWEST_LATENCY: "the fastest to its first byte first, as each worker measured",
    RoutingStrategy.LEAST_BUSY: "the least busy first, by requests in flight and weight",
}
_SECRET_WORDS: Final = (b"auth", b"key", b"token", b"secret", b"cookie", b"password")
"""A header field of the operator's whose name has one of these is taken for a credential."""

log = logging.getLogger("gateway.explain")


class Question(msgspec.Struct, forbid_unknown_fields=True):
    """What is to be explained: a request as a client would send it. `configuration` None: the default one."""

    request: msgspec.Raw
    path: str = "/v1/chat/completions"
    headers: dict[str, str] = {}
    configuration: str | None = None


def compile_apart(loaded: Sequence[LoadedConfiguration], environment: Mapping[str, str]) -> Snapshot:
    """A snapshot that serves nobody and counts nothing. Slow (files, patterns)."""
    with tempfile.TemporaryDirectory() as folder:
        counters = metrics.Metrics(Path(folder), "explain")
        try:
            compiler = Compiler(
                counters,
                fail_mode=None,
                clock=time.perf_counter_ns,
                on_policy_error=lambda kind, error: log.error("policy failed", extra={"policy": kind}, exc_info=error),
                environment=environment,
            )
            return compiler.compile(loaded, lambda digest: None)
        finally:
            counters.close()


def explain(snapshot: Snapshot, question: Question) -> dict[str, Any]:
    """The whole explanation, ready to be JSON.

    Raises GatewayError where there is nothing to explain: a path that is no provider's, a configuration that is not
    there, a body that cannot be read. That the request would be refused later is part of the explanation.
    """
    configuration = _configuration(snapshot, question.configuration)
    head = _head(question)
    endpoint = find(head.method, head.path)
    if endpoint.place is not Place.PROVIDER or endpoint.operation is None or endpoint.takes_form:
        raise InvalidRequest("Only JSON requests that go to a provider can be explained.", param="path")
    body = bytes(question.request)
    view = VIEWS[endpoint.operation](body)
    model = endpoint.model or view.model
    told: dict[str, Any] = {
        "configuration": configuration.id,
        "operation": endpoint.operation.value,
        "model": model,
        "stream": view.stream,
    }
    screening = _screening(configuration, endpoint, model, view)
    told["policies"] = _policies(configuration, screening)
    targets: list[dict[str, Any]] = []
    try:
        if (route := configuration.routes.get(model)) is None:
            raise ModelNotFound(f"No target of configuration {configuration.id} offers the model {model!r}.")
        told["strategy"] = {"name": route.strategy.value, "order": _ORDERS[route.strategy]}
        replacements = dict(screening.replacements)
        targets += [_target(target, endpoint, view, body, replacements, head) for target in route.targets]
        told["outcome"] = _outcome(screening, targets)
    except GatewayError as error:
        told["outcome"] = _refused(error)
    told["targets"] = targets
    return told


def _configuration(snapshot: Snapshot, id: str | None) -> Configuration:
    if id is None:
        return snapshot.default
    if id not in snapshot.configurations:
        raise InvalidRequest(
            f"There is no configuration {id!r}, only {', '.join(snapshot.configurations)}.", param="configuration"
        )
    return snapshot.configurations[id]


def _head(question: Question) -> RequestHead:
    """The head that a client would have sent, by the parser that reads them all."""
    fields = [f"{name}: {value}" for name, value in {"Host": "localhost", **question.headers}.items()]
    if any(character in line for line in (question.path, *fields) for character in "\r\n"):
        raise InvalidRequest("A path or a header field has no line ends.")
    text = "\r\n".join((f"POST {question.path} HTTP/1.1", *fields, "", ""))
    return parse_head(text.encode("latin-1", "replace"), HeadLimits())


def _screening(configuration: Configuration, endpoint: Endpoint, model: str, view: RequestView) -> Screening:
    if not configuration.pipeline.reads_input:
        return ALLOWED
    subject = Subject(
        REQUEST_ID,
        configuration_id=configuration.id,
        model=model,
        operation=endpoint.operation.value if endpoint.operation else "",
    )
    return configuration.pipeline.screen(subject, view.texts())


def _policies(configuration: Configuration, screening: Screening) -> dict[str, Any]:
    pipeline = configuration.pipeline
    others = {"external-moderation": pipeline.moderation, "human-oversight": pipeline.oversight}
    decisions: list[dict[str, Any]] = msgspec.to_builtins(screening.decisions)
    for decision in decisions:
        decision.pop("microseconds")
    return {
        "verdict": screening.verdict.value,
        "message": screening.message,
        "decisions": decisions,
        "redacted_texts": len(screening.replacements),
        "not_asked": [kind for kind, settings in others.items() if settings is not None],
        "reads_answers": pipeline.reads_output,
    }


def _target(
    target: Target,
    endpoint: Endpoint,
    view: RequestView,
    body: bytes,
    replacements: Mapping[int, str],
    head: RequestHead,
) -> dict[str, Any]:
    """What one target would be sent, or why it would not."""
    told: dict[str, Any] = {
        "id": target.id,
        "provider": target.provider,
        "upstream_model": target.upstream_model,
        "weight": target.weight,
        "refusal": None,
    }
    assert endpoint.operation is not None
    lane = target.lanes.get(endpoint.operation)
    if lane is None:
        return {**told, "refusal": f"{target.provider} does not offer {endpoint.operation.value}"}
    try:
        translated = lane.translation.request(
            body, view, model=target.upstream_model, replacements=replacements, meter=True
        )
    except InvalidRequest as error:
        return {**told, "refusal": error.message, "param": error.param}
    told |= {
        "refusal": target.fault,
        "translated": not lane.translation.identity,
        "url": _url(target, lane, head, stream=view.stream),
        "headers": _headers(target, lane, head, stream=view.stream),
        "body": orjson.loads(translated.body) if translated.local is None else None,
        "notes": list(translated.notes),
    }
    if translated.local is not None:
        told["answered_here"] = orjson.loads(translated.local)
    return told


def _url(target: Target, lane: Lane, head: RequestHead, *, stream: bool) -> str:
    origin = target.destination.origin
    scheme = "https" if origin.tls else "http"
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    usual = 443 if origin.tls else 80
    port = "" if origin.port in (0, usual) else f":{origin.port}"
    line = lane.head(head.query, (), frozenset(), b"", stream=stream).partition(b"\r\n")[0]
    return f"{scheme}://{host}{port}{line.split(b' ')[1].decode('latin-1')}"


def _headers(target: Target, lane: Lane, head: RequestHead, *, stream: bool) -> dict[str, str]:
    """The provider's fields, credentials masked: those of the target, and what operators put into `headers`."""
    credential = [line.partition(b":")[0].lower() for line in lane.credential.split(b"\r\n") if line]
    secret = CREDENTIAL_FIELDS | frozenset(credential)
    lines = lane.head(head.query, head.lines, target.own_fields, lane.credential, stream=stream).split(b"\r\n")[1:-1]
    told = {}
    for line in lines:
        name, _, value = line.partition(b":")
        name = name.lower()
        masked = name in secret or (name in target.own_fields and any(word in name for word in _SECRET_WORDS))
        told[name.decode("latin-1")] = MASK if masked else value.strip().decode("latin-1")
    if lane.sign is not None or target.grant is not None:
        told["authorization"] = MASK
    return told


def _outcome(screening: Screening, targets: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the client would meet first."""
    if screening.verdict is Verdict.BLOCK:
        refusing = screening.refusing
        raise InputBlocked(screening.message, policy=refusing.policy if refusing else "unknown")
    if screening.verdict is Verdict.ESCALATE:
        return {"status": 409, "code": "escalation_required", "message": screening.message, "target": None}
    able = [target for target in targets if target["refusal"] is None]
    if able:
        return {"status": None, "code": None, "message": f"sent to {able[0]['id']}", "target": able[0]["id"]}
    reasons = "; ".join(f"{target['id']}: {target['refusal']}" for target in targets)
    if any("param" in target for target in targets):
        raise InvalidRequest(reasons)
    raise UpstreamUnavailable(f"No target can be used: {reasons}")


def _refused(error: GatewayError) -> dict[str, Any]:
    return {"status": error.status, "code": error.code, "message": error.message, "target": None}
