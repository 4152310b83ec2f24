"""The immutable state that a worker serves from, and how it is made.

Everything that a request needs and that can be known beforehand is made here, off the event loop: routes, rendered
credentials, translations, the pipeline of policies. A `Snapshot` is swapped whole; exchanges in flight keep the one
they began with. Only keys change within a snapshot, one at a time, each by a single dictionary operation.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from gateway import metrics
from gateway.config import schema
from gateway.config.load import LoadedConfiguration
from gateway.errors import InvalidRequest
from gateway.http1 import header_lines
from gateway.limits import configuration_scope, scopes_of
from gateway.moderation import Moderator, moderator_of
from gateway.places import ConfigurationPlaces
from gateway.prices import Price, price_of
from gateway.routes import Breaker, Lane, Route, SocketLane, Target
from gateway.secrets import Secret, read_secret
from gateway.shadow import Shadow
from gateway.types import Destination, FailMode, GatewayKey, Operation, Origin, Scope
from gateway.upstream.credentials.choose import Chosen, choose
from gateway.upstream.credentials.source import CredentialError
from policy.compile import compile_chain
from translators.client_headers import keep_for
from translators.plan import bind
from translators.providers import CREDENTIAL_FIELDS, Layout, Provider, Upstream, Where, row_of, upstream_of
from translators.sigv4 import SIGNED_FIELDS
from translators.strictness import Strict

if TYPE_CHECKING:
    from policy.base import Pipeline

MOCK_ORIGIN: Final = Origin("mock", 0, tls=False)
"""Where `provider: mock` lives: in the worker itself."""


class Configuration:
    """One configuration, compiled."""

    __slots__ = (
        "audits_everything",
        "id",
        "max_body_bytes",
        "models",
        "moderator",
        "pipeline",
        "routes",
        "scope",
        "shadow",
        "targets",
        "version",
    )

    def __init__(
        self,
        id: str,
        version: str,
        routes: Mapping[str, Route],
        targets: Sequence[Target],
        pipeline: Pipeline,
        moderator: Moderator | None = None,
        *,
        max_body_bytes: int = schema.Gateway().max_body_bytes,
        scope: Scope | None = None,
        shadow: Shadow | None = None,
    ) -> None:
        """`scope`: what all its requests together may use."""
        self.scope = scope
        self.shadow = shadow
        self.id = id
        self.version = version
        self.routes = routes
        self.targets = tuple(targets)
        self.pipeline = pipeline
        self.moderator = moderator
        self.max_body_bytes = max_body_bytes
        self.audits_everything = pipeline.audit is not None and pipeline.audit.log_all_access
        self.models = tuple(dict.fromkeys(target.model for target in targets))

    def __repr__(self) -> str:
        return f"<Configuration {self.id} {self.version[:12]}, {len(self.targets)} targets>"


class Binding:
    """A key bound to its configuration: what one look-up must give a request. `key` None: a request without a key.

    `credential` is the client's own, as a header line, where it is passed through to the provider. `good_until`: from
    then on, in Unix seconds, the key has expired or is revoked.
    """

    __slots__ = ("configuration", "credential", "expires_at", "good_until", "key", "limited", "scopes")

    def __init__(
        self,
        key: GatewayKey | None,
        configuration: Configuration,
        *,
        credential: bytes = b"",
        scopes: Sequence[Scope] | None = None,
    ) -> None:
        """`scopes` are those that limit it, where another object for the same scope must not be made (`Snapshot`)."""
        self.key = key
        self.configuration = configuration
        self.credential = credential
        self.scopes = tuple(scopes_of(key, configuration.scope) if scopes is None else scopes)
        self.limited = bool(self.scopes)
        self.expires_at = float("inf") if key is None or key.expires_at is None else key.expires_at
        revoked_at = float("inf") if key is None or key.revoked_at is None else key.revoked_at
        self.good_until = min(self.expires_at, revoked_at)


class Snapshot:
    """All configurations of a worker, and the keys that were used under them."""

    __slots__ = ("_scopes", "anonymous", "bindings", "configurations", "default", "find_key", "version")

    def __init__(
        self,
        version: str,
        configurations: Sequence[Configuration],
        find_key: Callable[[bytes], GatewayKey | None],
    ) -> None:
        """`configurations` must not be empty; the first is the default. `find_key` looks a key's hash up in memory."""
        self.version = version
        self.configurations = {configuration.id: configuration for configuration in configurations}
        self.default = configurations[0]
        self.anonymous = Binding(None, self.default)
        self.bindings: dict[bytes, Binding] = {}
        self._scopes: dict[Scope, Scope] = {}
        self.find_key = find_key

    def __repr__(self) -> str:
        return f"<Snapshot {self.version[:12]} of {', '.join(self.configurations)}>"

    def bind(self, digest: bytes) -> Binding | None:
        """The binding of a key's first request; None for an unknown key, or one whose configuration is not served."""
        key = self.find_key(digest)
        if key is None:
            return None
        configuration = self.default if key.configuration_id is None else self.configurations.get(key.configuration_id)
        if configuration is None:
            return None
        # The limits know a scope by its identity: all keys of a team have the same one.
        scopes = [self._scopes.setdefault(scope, scope) for scope in scopes_of(key, configuration.scope)]
        binding = self.bindings[digest] = Binding(key, configuration, scopes=scopes)
        return binding

    def renewed(self, binding: Binding, now: float) -> Binding | None:
        """The binding of the same key, or of requests without one, as it is at a time in Unix seconds; None: the key is
        known no longer, revoked or has expired."""
        if binding.key is not None:
            found = self.bindings.get(binding.key.hash) or self.bind(binding.key.hash)
            return None if found is None or found.good_until <= now else found
        if binding.configuration is self.default:
            return binding
        if not binding.credential:
            return self.anonymous
        return Binding(None, self.default, credential=binding.credential)

    def forget(self, keys: Iterable[GatewayKey]) -> None:
        """These keys have changed: they are looked up anew."""
        for key in keys:
            self.bindings.pop(key.hash, None)

    @property
    def targets(self) -> list[Target]:
        """The targets of all configurations."""
        return [target for configuration in self.configurations.values() for target in configuration.targets]


class Compiler:
    """Makes snapshots. What a worker's compilations share: its metrics, its secrets, its fail mode."""

    def __init__(
        self,
        counters: metrics.Metrics,
        *,
        fail_mode: FailMode | None,
        clock: Callable[[], int],
        on_policy_error: Callable[[str, Exception], None],
        environment: Mapping[str, str] = os.environ,
        place_of: Callable[[str], int] | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`fail_mode` None: as each configuration says. `clock` gives nanoseconds, for the policies' own times; `wall`
        Unix seconds. `place_of` gives a configuration's place in the tables that workers share."""
        self._metrics = counters
        self._fail_mode = fail_mode
        self._clock = clock
        self._on_policy_error = on_policy_error
        self._environment = environment
        self._place_of = place_of or ConfigurationPlaces()
        self._wall = wall

    def compile(
        self, loaded: Sequence[LoadedConfiguration], find_key: Callable[[bytes], GatewayKey | None]
    ) -> Snapshot:
        """A snapshot of all enabled configurations. Slow (files, patterns): call it in a thread."""
        enabled = [one for one in loaded if one.configuration.pack.enabled]
        if not enabled:
            raise ValueError("no configuration is enabled; set `pack.enabled: true` in one of them")
        gateway = enabled[0].configuration.gateway
        chains = {one.configuration.pack.name: one.configuration for one in loaded}
        compiled = [self._configuration(one, gateway, chains) for one in enabled]
        version = hashlib.sha256("".join(one.version for one in compiled).encode()).hexdigest()
        return Snapshot(version, compiled, find_key)

    def _pipeline(self, configuration: schema.Configuration, gateway: schema.Gateway) -> Pipeline:
        return compile_chain(
            configuration.policies.chain,
            configuration.policy,
            fail_mode=self._fail_mode or gateway.fail_mode,
            configuration_id=configuration.pack.name,
            clock=self._clock,
            on_error=self._on_policy_error,
        )

    def _shadow(
        self, asked: schema.ShadowPolicies | None, gateway: schema.Gateway, chains: Mapping[str, schema.Configuration]
    ) -> Shadow | None:
        if asked is None:
            return None
        other = chains.get(asked.configuration)
        if other is None:
            raise ValueError(f"policies.shadow.configuration: no configuration {asked.configuration!r} is loaded")
        return Shadow(asked.configuration, self._pipeline(other, gateway), asked.sample)

    def _configuration(
        self, loaded: LoadedConfiguration, gateway: schema.Gateway, chains: Mapping[str, schema.Configuration]
    ) -> Configuration:
        """`chains` are all configurations that were loaded, enabled or not, by their names."""
        configuration = loaded.configuration
        pipeline = self._pipeline(configuration, gateway)
        providers = configuration.providers
        targets = [self._target(target, providers.fallback, gateway) for target in providers.targets]
        routes = _routes(targets, providers)
        moderator = moderator_of(pipeline.moderation, configuration.pack.name, self._environment)
        return Configuration(
            configuration.pack.name,
            loaded.version,
            routes,
            targets,
            pipeline,
            moderator,
            max_body_bytes=gateway.max_body_bytes,
            scope=configuration_scope(configuration.pack.name, configuration.limits, self._place_of),
            shadow=self._shadow(configuration.policies.shadow, gateway, chains),
        )

    def _target(self, target: schema.Target, fallback: schema.Fallback, gateway: schema.Gateway) -> Target:
        upstream_model = target.upstream_model or target.model
        provider = row_of(target.provider, target.api, upstream_model)
        upstream = upstream_of(
            provider,
            base_url=target.base_url,
            azure_deployment=target.azure_deployment,
            azure_api_version=target.azure_api_version,
            model=upstream_model,
            extra_headers=target.headers,
            where=Where(target.aws_region, target.vertex_project, target.vertex_location),
        )
        chosen, fault = self._credential(target, upstream)
        pool = gateway.connection_pool.settings()
        if target.max_concurrency is not None:
            # HTTP/1.1 carries one request per connection, so the bound on one is the bound on the other.
            pool = msgspec.structs.replace(pool, max_connections=min(pool.max_connections, target.max_concurrency))
        compiled = Target(
            target.id,
            target.provider,
            target.model,
            upstream_model,
            destination=Destination(
                target.id,
                MOCK_ORIGIN if provider.local else upstream.origin,
                pool,
                target.timeouts.over(gateway.timeouts.settings()),
                target.ca_file,
            ),
            lanes=_lanes(provider, upstream, chosen, strict=gateway.strict_translation),
            breaker=Breaker(fallback.circuit_breaker),
            weight=target.weight,
            own_fields=frozenset(name for name, _ in upstream.headers)
            | (SIGNED_FIELDS if chosen.signs else frozenset()),
            fault=fault or None,
            grant=chosen.grant,
            price=self._price(target, upstream_model),
            sockets=_socket_lanes(provider, upstream, chosen),
        )
        self._give_metrics(compiled)
        return compiled

    def _price(self, target: schema.Target, upstream_model: str) -> Price | None:
        """The operator's own price of a target, else the published one; None: nobody knows."""
        if target.price is not None:
            return Price(target.price.rates())
        return price_of(target.provider, upstream_model, self._wall())

    def _credential(self, target: schema.Target, upstream: Upstream) -> tuple[Chosen, str]:
        """What a target's requests are authenticated with, and why there is nothing, or an empty string."""
        secret = Secret("")
        if target.secret_key_ref is not None:
            secret, fault = read_secret(target.secret_key_ref, self._environment)
            if fault:
                return Chosen(plain=secret), fault
        if any(name in CREDENTIAL_FIELDS for name, _ in upstream.headers):
            return Chosen(plain=secret), ""  # the operator has one of their own in `headers`
        host = _host(upstream.origin).decode()
        try:
            return choose(target, secret, self._environment, upstream.origin, host), ""
        except CredentialError as error:
            return Chosen(plain=Secret("")), str(error)

    def _give_metrics(self, target: Target) -> None:
        labels = {"provider": target.provider, "model": target.model}
        target.requests = self._metrics.counters(metrics.REQUESTS, **labels)
        target.duration = self._metrics.histogram(metrics.REQUEST_DURATION, provider=target.provider)
        target.first_byte = self._metrics.histogram(metrics.FIRST_BYTE, provider=target.provider)
        target.tokens_in = self._metrics.counter(metrics.LLM_TOKENS, direction="input", **labels)
        target.tokens_out = self._metrics.counter(metrics.LLM_TOKENS, direction="output", **labels)
        if target.price is not None:
            target.cost = self._metrics.counter(metrics.LLM_COST, **labels)
        target.retries = self._metrics.counter(metrics.UPSTREAM_RETRIES, target=target.id)


def _lanes(provider: Provider, upstream: Upstream, chosen: Chosen, *, strict: bool) -> dict[Operation, Lane]:
    credential = _rendered(upstream, chosen)
    fields = header_lines(((b"host", _host(upstream.origin)), (b"accept-encoding", b"identity"), *upstream.headers))
    lanes = {}
    for operation in Operation:
        try:
            translation = bind(operation, provider, now=time.time, api_version=upstream.azure_api_version)
        except InvalidRequest:
            continue
        if strict and not translation.identity and operation is not Operation.COUNT_TOKENS:
            translation = Strict(translation)  # a count may be an estimate: nothing is lost by it
        lanes[operation] = Lane(
            translation,
            path=upstream.path(operation, stream=False).encode(),
            stream_path=upstream.path(operation, stream=True).encode(),
            fields=fields,
            credential=credential,
            query=_query_for(upstream) if translation.identity else _no_query,
            keep=keep_for(operation, provider, identity=translation.identity),
            sign=chosen.sign,
            lasting=chosen.sign is None and chosen.grant is None,
        )
    return lanes


def _socket_lanes(provider: Provider, upstream: Upstream, chosen: Chosen) -> dict[Operation, SocketLane]:
    fields = header_lines(((b"host", _host(upstream.origin)), *upstream.headers))
    return {
        operation: SocketLane(
            path=upstream.socket_path(operation).encode(), fields=fields, credential=_rendered(upstream, chosen)
        )
        for operation in provider.sockets
        # A target whose model speaks one kind of chat only (`api`) has no others over a WebSocket either.
        if operation is Operation.REALTIME or operation in provider.endpoints
    }


def _rendered(upstream: Upstream, chosen: Chosen) -> bytes:
    """The credential as a header line; the operator's own field of the same name wins."""
    if chosen.plain is None:
        return b""
    own = {name for name, _ in upstream.headers}
    return header_lines(field for field in upstream.auth_headers(chosen.plain.reveal()) if field[0] not in own)


def _query_for(upstream: Upstream) -> Callable[[bytes], bytes]:
    """What of a client's query string goes to a provider of the client's own format.

    An Azure SDK always names an API version. It means nothing to a provider that is not Azure, and a target that has
    its own says so in its path.
    """
    if upstream.azure_api_version is not None or not upstream.provider.takes_query:
        return _no_query
    return bytes if upstream.provider.layout is Layout.AZURE else _without_api_version


def _no_query(query: bytes) -> bytes:
    return b""


def _without_api_version(query: bytes) -> bytes:
    return b"&".join([part for part in query.split(b"&") if not part.startswith(b"api-version=")])


def _host(origin: Origin) -> bytes:
    usual = 443 if origin.tls else 80
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    return host.encode() if origin.port == usual else f"{host}:{origin.port}".encode()


def _routes(targets: Sequence[Target], providers: schema.Providers) -> dict[str, Route]:
    """By what clients may ask for: a model, `provider/model`, or a target's id where no model has that name."""
    offers: dict[str, list[Target]] = {}
    for target in targets:
        offers.setdefault(target.model, []).append(target)
        offers.setdefault(f"{target.provider}/{target.model}", []).append(target)
    offers.update({target.id: [target] for target in targets if target.id not in offers})
    strategy = providers.routing.strategy
    return {name: Route(found, strategy, providers.fallback) for name, found in offers.items()}
