"""Whole files: the ones that must load, the ones that must not, and several together."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.load import LoadedConfiguration, check, load, load_file, load_text
from gateway.config.problems import ConfigurationInvalid, Problem, Severity
from gateway.config.registry import Registry
from gateway.config.schema import (
    AuthMode,
    FallbackTrigger,
    RoutingStrategy,
    SecretRef,
    Target,
    WebSocket,
)
from policy.compile import KINDS

# The product's contract: these two load exactly as they stand here.
CONTRACT = """\
pack:
  name: developer-experience-providers-1
  version: 1.0.0
  enabled: true
providers:
  targets:
    - id: openai-gpt4o
      provider: openai
      model: gpt-4o
      secret_key_ref:
        env: OPENAI_API_KEY
    - id: anthropic-sonnet
      provider: anthropic
      model: claude-sonnet-4-20250514
      secret_key_ref:
        env: ANTHROPIC_API_KEY
    - id: azure-gpt4o
      provider: azure-openai
      model: gpt-4o
      base_url: https://my-resource.openai.azure.com
      secret_key_ref:
        env: AZURE_OPENAI_KEY
policies:
  chain:
    - audit-logger
policy:
  audit-logger:
    immutable: true
    retention_days: 365
    log_all_access: true
"""
CONTRACT_WEBSOCKET = """\
gateway:
  websocket:
    enabled: true
    max_message_size_bytes: 1048576
    idle_timeout_seconds: 300
"""

SMALL = """\
pack: {name: small}
providers:
  targets:
    - {id: a, provider: mock, model: m}
"""


def problems_of(text: str | bytes, registry: Registry | None = None) -> list[str]:
    with pytest.raises(ConfigurationInvalid) as caught:
        load_text(text, "f", registry=registry)
    return [str(problem) for problem in caught.value.problems]


def test_the_contract_loads_as_written() -> None:
    loaded = load_text(CONTRACT, "policy-config.yaml")
    configuration = loaded.configuration
    assert loaded.id == "developer-experience-providers-1"
    assert configuration.pack.version == "1.0.0"
    assert configuration.providers.targets == (
        Target(id="openai-gpt4o", provider="openai", model="gpt-4o", secret_key_ref=SecretRef(env="OPENAI_API_KEY")),
        Target(
            id="anthropic-sonnet",
            provider="anthropic",
            model="claude-sonnet-4-20250514",
            secret_key_ref=SecretRef(env="ANTHROPIC_API_KEY"),
        ),
        Target(
            id="azure-gpt4o",
            provider="azure-openai",
            model="gpt-4o",
            base_url="https://my-resource.openai.azure.com",
            secret_key_ref=SecretRef(env="AZURE_OPENAI_KEY"),
        ),
    )
    assert configuration.policies.chain == ("audit-logger",)
    settings = KINDS["audit-logger"].Settings
    assert configuration.policy == {"audit-logger": settings(immutable=True, retention_days=365, log_all_access=True)}


def test_the_contracts_websocket_section_loads_as_written() -> None:
    loaded = load_text(CONTRACT + CONTRACT_WEBSOCKET, "policy-config.yaml")
    assert loaded.configuration.gateway.websocket == WebSocket(
        enabled=True, max_message_size_bytes=1048576, idle_timeout_seconds=300
    )


def test_defaults(registry: Registry) -> None:
    configuration = load_text(SMALL, "f", registry=registry).configuration
    assert configuration.policies.chain == ()
    assert configuration.providers.routing.strategy is RoutingStrategy.ORDERED
    assert configuration.providers.fallback.triggers == tuple(FallbackTrigger)
    gateway = configuration.gateway
    assert (gateway.listen, gateway.auth, gateway.max_body_bytes) == ("127.0.0.1:41002", AuthMode.AUTO, 32 * 1024**2)
    limits = gateway.limits
    assert (limits.request_head_bytes, limits.request_headers, limits.request_target_bytes) == (32768, 100, 8192)
    assert (limits.chunk_overhead_bytes, limits.json_depth) == (8192, 256)
    assert (limits.head_seconds, limits.body_idle_seconds, gateway.drain_seconds) == (10, 30, 30)
    timeouts = gateway.timeouts.settings()
    assert (timeouts.connect_seconds, timeouts.first_byte_seconds, timeouts.idle_seconds) == (5, 120, 300)
    assert timeouts.total_seconds is None


def test_a_targets_timeouts_lie_over_the_gateways(registry: Registry) -> None:
    text = SMALL.replace("model: m", "model: m, timeouts: {connect_seconds: 1, total_seconds: 60}")
    loaded = load_text(text + "gateway: {timeouts: {connect_seconds: 2, idle_seconds: 9}}", "f", registry=registry)
    gateway, (target,) = loaded.configuration.gateway, loaded.configuration.providers.targets
    timeouts = target.timeouts.over(gateway.timeouts.settings())
    assert (timeouts.connect_seconds, timeouts.first_byte_seconds) == (1, 120)
    assert (timeouts.idle_seconds, timeouts.total_seconds) == (9, 60)


BROKEN = """\
pack:
  nmae: x
  version: 1.0
  enabled: yes
providers:
  targets:
    - id: a
      provider: opnai
      model: no
      secret_key_ref: {env: A, file: b}
      headers: {Host: x, "x y": z, ok: "a\\nb"}
      timeout: {}
    - id: a
      id: b
      model: gpt
      provider: hosted
    - id: a
      model: gpt
      provider: openai
      weight: 0o10
      base_url: https://me:hunter2@example.com
  routing: {strategy: round-robin}
  fallback: {triggers: [rate_limit, timeouts]}
policies:
  chain: [word-list, wordlist, word-list]
policy:
  word-list: {words: [two words], share: 1}
  region: {}
  word_list: {}
gateway:
  listen: 127.0.0.1
  ip_allowlist: [10.0.0.1/8]
  websocket:
"""

BROKEN_PROBLEMS = """\
f:2:3: error: pack.nmae: unknown key `nmae` (did you mean `name`?)
f:2:3: error: pack: the required key `name` is missing
f:3:12: error: pack.version: expected text, got a number: `1.0` (put it in quotes: "1.0")
f:4:12: error: pack.enabled: expected true or false, got a switch: `yes` (write `true`)
f:8:17: error: providers.targets[0].provider: unknown provider `opnai` (did you mean `openai`?)
f:9:14: error: providers.targets[0].model: expected text, got a switch: `no` (put it in quotes: "no")
f:10:23: error: providers.targets[0].secret_key_ref: set exactly one of `env`, `file` and `store`
f:11:17: error: providers.targets[0].headers.Host: `Host` is set by the gateway itself and cannot be given here
f:11:26: error: providers.targets[0].headers.x y: `x y` does not have the right form (like `x-team`)
f:11:40: error: providers.targets[0].headers.ok: the value does not have the right form (like `research`)
f:12:7: error: providers.targets[0].timeout: unknown key `timeout` (did you mean `timeouts`?)
f:13:7: error: providers.targets[1]: provider hosted needs a base_url
f:13:11: error: providers.targets[1].id: duplicate id `a`: `providers.targets[0]` on line 7 has it too
f:14:7: error: providers.targets[1].id: the key `id` stands twice (first on line 13)
f:17:11: error: providers.targets[2].id: duplicate id `a`: `providers.targets[0]` on line 7 has it too
f:20:15: error: providers.targets[2].weight: expected a whole number, got text (write plain decimal digits)
f:21:17: error: providers.targets[2].base_url: the value does not have the right form\
 (like `https://my-resource.openai.azure.com`)
f:22:23: error: providers.routing.strategy: unknown value `round-robin` (did you mean `round_robin`?)
f:23:37: error: providers.fallback.triggers[1]: unknown value `timeouts` (did you mean `timeout`?)
f:25:22: error: policies.chain[1]: unknown policy kind `wordlist` (did you mean `word-list`?)
f:25:32: error: policies.chain[2]: duplicate `word-list`: `policies.chain[0]` on line 25 has it too
f:27:42: error: policy.word-list.share: 1 is out of range: it must be less than 1
f:28:11: error: policy.region: the required key `region` is missing
f:29:3: error: policy.word_list: unknown policy kind `word_list` (did you mean `word-list`?)
f:31:11: error: gateway.listen: `127.0.0.1` does not have the right form (like `127.0.0.1:41002` or `[::1]:41002`)
f:32:18: error: gateway.ip_allowlist[0]: 10.0.0.1/8 has host bits set
f:33:13: error: gateway.websocket: expected a mapping, got nothing (give it a value or remove the key)
"""


def test_every_problem_of_a_file_is_reported_at_its_place(registry: Registry) -> None:
    assert problems_of(BROKEN, registry) == BROKEN_PROBLEMS.splitlines()


def test_a_policy_looks_over_its_own_settings(registry: Registry) -> None:
    text = SMALL + "policies: {chain: [word-list]}\npolicy:\n  word-list:\n    words: [fine, not fine]\n"
    assert problems_of(text, registry) == ["f:8:19: error: policy.word-list.words[1]: must be one word"]


def test_a_kind_of_the_chain_without_a_section_has_its_defaults(registry: Registry) -> None:
    loaded = load_text(SMALL + "policies: {chain: [word-list]}", "f", registry=registry)
    assert loaded.configuration.policy["word-list"].share == 0.5


def test_a_kind_of_the_chain_must_have_a_section_where_a_setting_has_no_default(registry: Registry) -> None:
    text = SMALL + "policies: {chain: [word-list, region]}\n"
    assert problems_of(text, registry) == ["f:5:31: error: policy.region: the required key `region` is missing"]


def test_a_provider_looks_over_its_own_targets() -> None:
    text = SMALL.replace("provider: mock", "provider: azure-openai")
    assert problems_of(text) == ["f:4:7: error: providers.targets[0]: provider azure-openai needs a base_url"]


@pytest.mark.parametrize("control", ["\\n", "\\0", "\\x7f", "\\r"])
def test_a_name_is_one_line(control: str, registry: Registry) -> None:
    (problem,) = problems_of(SMALL.replace("model: m", f'model: "m{control}"'), registry)
    assert "providers.targets[0].model: `m\\" in problem


def test_settings_that_are_in_the_file_have_a_place(registry: Registry) -> None:
    loaded = load_text(SMALL, "f", registry=registry)
    assert loaded.places["providers.targets[0].model"] == (4, 38)
    assert str(loaded.problem("providers.targets[0].weight", "odd")) == (
        "f:4:7: warning: providers.targets[0].weight: odd"
    )
    assert loaded.problem("gateway.tls.cert_file", "odd").place == "f:1:1"


def test_the_version_says_whether_two_texts_are_the_same(registry: Registry) -> None:
    one, same, other = (load_text(text, "f", registry=registry) for text in (SMALL, SMALL.encode(), SMALL + "#"))
    assert one.version == same.version != other.version


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "f: error: the file is empty (`kt init` writes a first one)"),
        ("# only a comment", "f: error: the file is empty (`kt init` writes a first one)"),
        ("hello", "f:1:1: error: expected a mapping, got text"),
        ("[]", "f:1:1: error: expected a mapping, got a list"),
    ],
)
def test_no_configuration_at_all(text: str, expected: str) -> None:
    assert problems_of(text) == [expected]


def write(folder: Path, name: str, id: str, more: str = "") -> Path:
    file = folder / name
    file.write_text(SMALL.replace("small", id) + more, encoding="utf-8")
    return file


def ids(loaded: list[LoadedConfiguration]) -> list[str]:
    return [one.id for one in loaded]


def test_files_load_in_the_order_given_and_folders_in_the_order_of_names(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    last = write(tmp_path, "a.yaml", "first")
    write(folder, "2.yaml", "third")
    write(folder, "1.yml", "second")
    write(folder, "3.txt", "not-yaml")
    write(folder, ".2.yaml", "hidden")
    (folder / "4.yaml").mkdir()
    assert ids(load([last, folder])) == ["first", "second", "third"]
    assert ids(load([str(folder), str(last)])) == ["second", "third", "first"]


def test_a_link_to_a_file_is_followed(tmp_path: Path) -> None:
    """As Kubernetes mounts a ConfigMap: every name is a link into a hidden folder."""
    hidden = tmp_path / "..data"
    hidden.mkdir()
    write(hidden, "policy-config.yaml", "mounted")
    (tmp_path / "policy-config.yaml").symlink_to("..data/policy-config.yaml")
    assert ids(load([tmp_path])) == ["mounted"]


def test_two_files_cannot_share_an_id(tmp_path: Path) -> None:
    first, second = write(tmp_path, "a.yaml", "same"), write(tmp_path, "b.yaml", "same")
    with pytest.raises(ConfigurationInvalid) as caught:
        load([first, second])
    assert str(caught.value) == (
        f"{second}:1:14: error: pack.name: the id `same` is taken by {first} (give each configuration its own name)"
    )


def test_the_problems_of_all_files_are_reported(tmp_path: Path) -> None:
    good, bad = write(tmp_path, "good.yaml", "good"), write(tmp_path, "bad.yaml", "bad", "gatway: {}")
    missing, empty = tmp_path / "missing.yaml", tmp_path / "empty"
    empty.mkdir()
    loaded, problems = check([bad, missing, empty, good])
    assert ids(loaded) == ["good"]
    assert [str(problem) for problem in problems] == [
        f"{bad}:5:1: error: gatway: unknown key `gatway` (did you mean `gateway`?)",
        f"{missing}: error: cannot be read: No such file or directory",
        f"{empty}: error: the folder has no *.yaml or *.yml",
    ]
    with pytest.raises(ConfigurationInvalid) as caught:
        load([bad, missing, empty, good])
    assert list(caught.value.problems) == problems


def test_a_disabled_configuration_is_checked_and_left_out(tmp_path: Path) -> None:
    off = write(tmp_path, "off.yaml", "idle, enabled: false")
    on = write(tmp_path, "on.yaml", "live")
    assert ids(load([off, on])) == ["live"]
    assert load_file(off).configuration.pack.enabled is False
    with pytest.raises(ConfigurationInvalid, match="no configuration that is enabled"):
        load([off])
    off.write_text(off.read_text() + "what: 1")
    with pytest.raises(ConfigurationInvalid, match="unknown key `what`"):
        load([off, on])


def test_nothing_given_is_no_configuration() -> None:
    with pytest.raises(ConfigurationInvalid, match="no configuration that is enabled"):
        load([])


@given(st.data())
def test_a_damaged_file_is_refused_or_loads_but_never_breaks_the_loader(data: st.DataObject) -> None:
    text = CONTRACT + CONTRACT_WEBSOCKET
    start = data.draw(st.integers(0, len(text)))
    stop = data.draw(st.integers(start, min(len(text), start + 40)))
    damage = data.draw(st.text("abz019:-[]{}#&*!|>'\"%@`~<, \n\t\x00é", max_size=8))
    problems: tuple[Problem, ...] | None = None
    try:
        load_text(text[:start] + damage + text[stop:], "f")
    except ConfigurationInvalid as error:
        problems = error.problems
    assert problems is None or any(problem.severity is Severity.ERROR for problem in problems)


def test_a_shadow_is_loaded_last_even_where_it_is_not_served(tmp_path: Path) -> None:
    targets = "providers: {targets: [{id: a, provider: mock, model: m}]}\n"
    (tmp_path / "1.yaml").write_text(f"pack: {{name: next, enabled: false}}\n{targets}")
    (tmp_path / "2.yaml").write_text(f"pack: {{name: live}}\n{targets}policies: {{shadow: {{configuration: next}}}}\n")
    (tmp_path / "3.yaml").write_text(f"pack: {{name: idle, enabled: false}}\n{targets}")
    assert [one.id for one in load([tmp_path])] == ["live", "next"]
    (tmp_path / "1.yaml").unlink()
    with pytest.raises(ConfigurationInvalid, match="no configuration `next` is loaded"):
        load([tmp_path])
