"""The JSON Schema: current, valid, and of the loader's opinion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from gateway.config.jsonschema import json_schema, render
from gateway.config.load import load_text
from gateway.config.problems import ConfigurationInvalid
from gateway.config.registry import Registry
from tests.gateway.config.test_load import CONTRACT, CONTRACT_WEBSOCKET

ROOT = Path(__file__).parents[3]

TARGET = "{id: a, provider: mock, model: m%s}"
FILE = "pack: {name: small%s}\nproviders: {targets: [%s]%s}\n"


def text(*, pack: str = "", target: str = "", providers: str = "", rest: str = "") -> str:
    return FILE % (pack, TARGET % target, providers) + rest


ACCEPTED = {
    "the contract": CONTRACT + CONTRACT_WEBSOCKET,
    "the least": text(),
    "a whole target": text(
        target=", upstream_model: n, base_url: 'https://h/v1', secret_key_ref: {env: K}, weight: 2,"
        " headers: {x-a: b}, timeouts: {connect_seconds: 1}, max_concurrency: 3, ca_file: /ca"
    ),
    "null where nothing is meant": text(target=", upstream_model: ~", rest="gateway: {tls: ~}"),
    "fallback": text(providers=", fallback: {triggers: [], circuit_breaker: {open_seconds: 0.5}}"),
    "a chain": text(rest="policies: {chain: [audit-logger, dlp-filter]}\npolicy: {dlp-filter: {terms: [x]}}"),
    "the server": text(rest="gateway: {listen: '[::1]:1', ip_allowlist: [10.0.0.0/8], fail_mode: allow}"),
    "TLS": text(rest="gateway: {tls: {cert_file: a, key_file: b, min_version: TLSv1.3}}"),
}
REFUSED = {
    "nothing": "{}",
    "a list": "[]",
    "no targets": "pack: {name: a}\nproviders: {targets: []}",
    "an unknown section": text(rest="gatway: {}"),
    "an unknown key deep down": text(providers=", fallback: {circuit_breaker: {open: 1}}"),
    "an unknown kind in the chain": text(rest="policies: {chain: [audit]}"),
    "a kind twice": text(rest="policies: {chain: [audit-logger, audit-logger]}"),
    "settings of an unknown kind": text(rest="policy: {audit: {}}"),
    "an unknown setting of a policy": text(rest="policy: {audit-logger: {days: 1}}"),
    "a setting of a policy out of range": text(rest="policy: {audit-logger: {retention_days: 0}}"),
    "an unknown provider": text().replace("mock", "mick"),
    "no model": text().replace(", model: m", ""),
    "two places for one secret": text(target=", secret_key_ref: {env: A, file: b}"),
    "no place for a secret": text(target=", secret_key_ref: {}"),
    "an odd name for a variable": text(target=", secret_key_ref: {env: 'sk-1'}"),
    "a number for a name": text(pack=", version: 1"),
    "text for a number": text(target=", weight: '1'"),
    "a number out of range": text(target=", weight: 0"),
    "text for a switch": text(pack=", enabled: 'yes'"),
    "an unknown word": text(providers=", routing: {strategy: first}"),
    "a URL without a scheme": text(target=", base_url: example.com"),
    "a URL with a password": text(target=", base_url: 'https://me:pw@example.com'"),
    "a header with a space": text(target=", headers: {'x a': b}"),
    "a header value of two lines": text(target=', headers: {x-a: "b\\nc"}'),
    "an address without a port": text(rest="gateway: {listen: localhost}"),
    "nothing for a section": text(rest="gateway: ~"),
    "a list for a section": text(rest="gateway: []"),
    "half of TLS": text(rest="gateway: {tls: {cert_file: a}}"),
}


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    return Draft202012Validator(json_schema())


def test_the_schema_is_valid() -> None:
    Draft202012Validator.check_schema(json_schema())


def test_the_file_in_examples_is_current() -> None:
    """Renew it with `kt policy schema --output examples/policy-config.schema.json`."""
    assert (ROOT / "examples" / "policy-config.schema.json").read_text(encoding="utf-8") == render()


@pytest.mark.parametrize("case", ACCEPTED)
def test_loader_and_schema_accept(case: str, validator: Draft202012Validator) -> None:
    load_text(ACCEPTED[case], case)
    assert list(validator.iter_errors(yaml.safe_load(ACCEPTED[case]))) == []


@pytest.mark.parametrize("case", REFUSED)
def test_loader_and_schema_refuse(case: str, validator: Draft202012Validator) -> None:
    with pytest.raises(ConfigurationInvalid):
        load_text(REFUSED[case], case)
    assert not validator.is_valid(yaml.safe_load(REFUSED[case]))


@pytest.mark.parametrize("file", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda file: file.name)
def test_the_schema_accepts_the_examples(file: Path, validator: Draft202012Validator) -> None:
    assert list(validator.iter_errors(yaml.safe_load(file.read_text(encoding="utf-8")))) == []


def objects(node: Any) -> list[dict[str, Any]]:
    found = [node] if isinstance(node, dict) and node.get("type") == "object" else []
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else []
    return found + [item for child in children for item in objects(child)]


def test_no_object_is_open(registry: Registry) -> None:
    for schema in (json_schema(), json_schema(registry)):
        assert [item for item in objects(schema) if item.get("additionalProperties", True) is True] == []


def test_no_keyword_of_our_own_is_left(registry: Registry) -> None:
    assert '"x-' not in render(registry).replace('"x-team"', "")
