"""What a configuration becomes: names, targets, lanes, secrets, bindings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.config.load import load_text
from gateway.metrics import Metrics
from gateway.routes import Target
from gateway.snapshot import MOCK_ORIGIN, Binding, Compiler, Snapshot
from gateway.types import GatewayKey, Operation, Origin
from tests.playbook import configuration, gateway_key, target

Compile = Callable[..., Snapshot]


@pytest.fixture
def compile(tmp_path: Path) -> Iterator[Compile]:
    counters = Metrics(tmp_path, 0)

    def make(*texts: str, environment: dict[str, str] | None = None, key: GatewayKey | None = None) -> Snapshot:
        compiler = Compiler(
            counters,
            fail_mode=None,
            clock=lambda: 0,
            on_policy_error=lambda kind, error: None,
            environment={"PROVIDER_KEY": "sk-provider"} if environment is None else environment,
        )
        loaded = [load_text(text, f"{number}.yaml") for number, text in enumerate(texts)]
        return compiler.compile(loaded, {key.hash: key}.get if key else lambda digest: None)

    yield make
    counters.close()


def named(name: str, *targets: str) -> str:
    return configuration(*targets).replace("name: play", f"name: {name}")


def lone(snapshot: Snapshot) -> Target:
    (only,) = snapshot.targets
    return only


def test_a_target(compile: Compile) -> None:
    one = lone(compile(configuration(target(upstream_model="gpt-4o-2024", weight=3))))
    assert (one.id, one.model, one.upstream_model, one.weight, one.fault) == ("one", "gpt-test", "gpt-4o-2024", 3, None)
    assert one.destination.origin == Origin("one.test", 80, tls=False)
    lane = one.lanes[Operation.CHAT]
    assert lane.path == lane.stream_path == b"/v1/chat/completions"
    assert lane.credential == b"authorization: Bearer sk-provider\r\n"
    assert lane.fields == b"host: one.test\r\naccept-encoding: identity\r\n"


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://one.test/v1", b"one.test"),
        ("http://one.test:80/v1", b"one.test"),
        ("http://one.test:8080/v1", b"one.test:8080"),
        ("https://one.test", b"one.test"),
        ("https://one.test:8443", b"one.test:8443"),
        ("http://[::1]:8000/v1", b"[::1]:8000"),
    ],
)
def test_the_host_field(compile: Compile, url: str, host: bytes) -> None:
    one = lone(compile(configuration(target().replace("http://one.test/v1", url))))
    assert one.lanes[Operation.CHAT].fields.startswith(b"host: %b\r\n" % host)


def test_azure(compile: Compile) -> None:
    text = target(provider="azure-openai", azure_deployment="my-gpt", azure_api_version="2024-10-21")
    one = lone(compile(configuration(text.replace("http://one.test/v1", "https://my.openai.azure.com"))))
    lane = one.lanes[Operation.CHAT]
    assert lane.path == b"/openai/deployments/my-gpt/chat/completions?api-version=2024-10-21"
    assert lane.credential == b"api-key: sk-provider\r\n"


def test_the_operators_fields(compile: Compile) -> None:
    one = lone(compile(configuration(target(headers="{X-Team: platform, Authorization: Custom x}"))))
    lane = one.lanes[Operation.CHAT]
    assert b"x-team: platform\r\n" in lane.fields.lower()
    assert lane.credential == b""  # the operator's own credential wins
    assert {b"x-team", b"authorization"} <= {name.lower() for name in one.own_fields}


def test_the_mock_lives_in_the_worker(compile: Compile) -> None:
    one = lone(compile(configuration("\n    - {id: mock, provider: mock, model: m}\n")))
    assert one.destination.origin == MOCK_ORIGIN
    assert one.lanes[Operation.CHAT].credential == b""


def test_what_bounds_a_target_bounds_its_pool(compile: Compile) -> None:
    one = lone(compile(configuration(target(max_concurrency=7, timeouts="{connect_seconds: 1.5, total_seconds: 60}"))))
    assert one.destination.pool.max_connections == 7
    timeouts = one.destination.timeouts
    assert (timeouts.connect_seconds, timeouts.first_byte_seconds, timeouts.total_seconds) == (1.5, 120.0, 60.0)


def test_the_same_text_compiles_to_the_same_destinations(compile: Compile) -> None:
    """So that a reload keeps the connections of what has not changed."""
    first, second = (lone(compile(configuration())) for _ in range(2))
    assert first.destination == second.destination
    assert hash(first.destination) == hash(second.destination)


@pytest.mark.parametrize("environment", [{}, {"PROVIDER_KEY": ""}, {"PROVIDER_KEY": "  "}, {"PROVIDER_KEY": "a\nb"}])
def test_without_its_secret_a_target_is_unavailable(compile: Compile, environment: dict[str, str]) -> None:
    snapshot = compile(configuration(), environment=environment)
    one = lone(snapshot)
    assert one.fault is not None
    assert "PROVIDER_KEY" in one.fault
    assert not one.usable(0.0)


def test_no_secret_is_shown(compile: Compile) -> None:
    snapshot = compile(configuration())
    assert "sk-provider" not in repr(snapshot) + repr(snapshot.targets) + repr(snapshot.default)


# Names


def test_a_model_of_several_targets(compile: Compile) -> None:
    snapshot = compile(configuration(target("a", "m"), target("b", "m", "deepseek"), target("c", "n")))
    routes = snapshot.default.routes
    assert {name: [one.id for one in route.targets] for name, route in routes.items()} == {
        "m": ["a", "b"],
        "n": ["c"],
        "openai-compatible/m": ["a"],
        "deepseek/m": ["b"],
        "openai-compatible/n": ["c"],
        "a": ["a"],
        "b": ["b"],
        "c": ["c"],
    }
    assert snapshot.default.models == ("m", "n")


def test_a_model_wins_over_a_target_of_its_name(compile: Compile) -> None:
    """Or else naming one target `gpt-4o` would take the model's other targets out of its fallback."""
    snapshot = compile(configuration(target("m", "m"), target("b", "m")))
    assert [one.id for one in snapshot.default.routes["m"].targets] == ["m", "b"]


def test_an_embedding_model_of_a_chat_provider(compile: Compile) -> None:
    one = lone(compile(configuration(target(provider="deepseek"))))
    assert Operation.CHAT in one.lanes
    assert Operation.IMAGES not in one.lanes


# Configurations and keys


def test_the_first_configuration_is_the_default(compile: Compile) -> None:
    snapshot = compile(named("a", target("x", "m")), named("b", target("y", "n")))
    assert snapshot.default.id == "a"
    assert snapshot.anonymous.configuration is snapshot.default
    assert list(snapshot.configurations) == ["a", "b"]
    assert [one.id for one in snapshot.targets] == ["x", "y"]


def test_a_configuration_that_is_not_enabled(compile: Compile) -> None:
    off = named("a").replace("version: 1.0.0", "version: 1.0.0, enabled: false")
    assert compile(off, named("b")).default.id == "b"
    with pytest.raises(ValueError, match="no configuration is enabled"):
        compile(off)


def test_the_version_tells_configurations_apart(compile: Compile) -> None:
    first, same, other = compile(configuration()), compile(configuration()), compile(configuration(target("two")))
    assert first.version == same.version != other.version


@pytest.mark.parametrize(("bound_to", "found"), [(None, "a"), ("a", "a"), ("b", "b"), ("c", None)])
def test_a_key_is_bound_to_its_configuration(compile: Compile, bound_to: str | None, found: str | None) -> None:
    key = gateway_key(configuration_id=bound_to)
    binding = compile(named("a"), named("b"), key=key).bind(key.hash)
    assert (binding.configuration.id if binding else None) == found


def test_a_binding_is_made_once(compile: Compile) -> None:
    key = gateway_key(requests_per_minute=1, expires_at=5.0)
    snapshot = compile(configuration(), key=key)
    assert snapshot.bind(b"unknown") is None
    binding = snapshot.bind(key.hash)
    assert binding is not None
    assert snapshot.bindings[key.hash] is binding
    assert (binding.limited, binding.expires_at) == (True, 5.0)
    snapshot.forget([key])
    assert snapshot.bindings == {}
    snapshot.forget([key])


def test_a_key_without_limits(compile: Compile) -> None:
    key = gateway_key()
    binding = compile(configuration(), key=key).bind(key.hash)
    assert binding is not None
    assert (binding.limited, binding.expires_at) == (False, float("inf"))


def test_sockets_of_a_target(compile: Compile) -> None:
    sockets = lone(compile(configuration(target(upstream_model="gpt-realtime", headers="{x-own: '1'}")))).sockets
    assert set(sockets) == {Operation.REALTIME, Operation.RESPONSES}
    lane = sockets[Operation.REALTIME]
    assert lane.fields == b"host: one.test\r\nx-own: 1\r\n"
    assert lane.credential == b"authorization: Bearer sk-provider\r\n"
    assert lane.target(b"") == b"/v1/realtime?model=gpt-realtime"
    assert lane.target(b"model=mine&deployment=x&api-version=1&intent=y") == b"/v1/realtime?model=gpt-realtime&intent=y"
    assert sockets[Operation.RESPONSES].target(b"a=b") == b"/v1/responses?a=b"


def test_a_target_of_one_kind_of_chat_has_no_other_over_a_websocket(compile: Compile) -> None:
    assert set(lone(compile(configuration(target(api="chat")))).sockets) == {Operation.REALTIME}


def test_a_binding_is_renewed(compile: Compile) -> None:
    key = gateway_key()
    older, newer = compile(configuration(), key=key), compile(configuration(target("two")), key=key)
    binding = older.bind(key.hash)
    assert binding is not None
    assert older.renewed(binding, 0.0) is binding
    renewed = newer.renewed(binding, 0.0)
    assert renewed is newer.bindings[key.hash]
    assert newer.renewed(older.anonymous, 0.0) is newer.anonymous
    passed = Binding(None, older.default, credential=b"authorization: Bearer sk-own\r\n")
    again = newer.renewed(passed, 0.0)
    assert again is not None
    assert (again.configuration, again.credential) == (newer.default, passed.credential)
    assert compile(configuration(), key=gateway_key(configuration_id="gone")).renewed(binding, 0.0) is None
    expiring = compile(configuration(), key=gateway_key(expires_at=5.0))
    assert expiring.renewed(binding, 4.9) is not None
    assert expiring.renewed(binding, 5.0) is None
