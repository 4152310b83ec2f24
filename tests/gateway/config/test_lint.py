"""Warnings: a file that is right, and likely not what its author wants."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.lint import NOT_IN_FORCE, lint, missing_secret
from gateway.config.load import load_text
from gateway.config.reference import reference
from gateway.config.registry import Registry, installed
from gateway.config.schema import SecretRef
from gateway.secrets import read_secret

HEAD = "pack: {name: a}\n"
TARGET = "providers:\n  targets:\n    - {id: t, provider: openai, model: m%s}\n"


def warnings(registry: Registry, *texts: str, **environ: str) -> list[str]:
    loaded = [load_text(text, f"f{index}", registry=registry) for index, text in enumerate(texts)]
    return [str(problem) for problem in lint(loaded, environ)]


def test_a_plain_file_has_no_warning(registry: Registry) -> None:
    assert warnings(registry, HEAD + TARGET % "") == []


def test_a_missing_secret_is_a_warning(registry: Registry) -> None:
    text = HEAD + TARGET % ", secret_key_ref: {env: KEY}"
    expected = (
        "f0:4:59: warning: providers.targets[0].secret_key_ref: the environment variable `KEY` is not set"
        " (the target `t` is unavailable until it is there)"
    )
    assert warnings(registry, text) == [expected]
    assert warnings(registry, text, KEY=" ") == [expected.replace("not set", "empty")]
    assert warnings(registry, text, KEY="sk-1") == []


def test_a_budget_wants_prices(registry: Registry) -> None:
    budget = "limits: {budget_usd_per_month: 5}\n"
    (warning,) = warnings(registry, HEAD + budget + TARGET % "")
    assert "no price is known for `m`: no budget sees its cost (give it a `price`)" in warning
    assert warnings(registry, HEAD + budget + TARGET % ", price: {input: 0}") == []
    assert warnings(registry, HEAD + budget + TARGET % ", upstream_model: gpt-4o") == []
    assert warnings(registry, HEAD + "limits: {requests_per_minute: 5}\n" + TARGET % "") == []


def test_a_redis_that_cannot_be_found_is_a_warning(registry: Registry) -> None:
    text = HEAD + TARGET % "" + "gateway: {redis: {url_ref: {env: REDIS}}}\n"
    (warning,) = warnings(registry, text)
    assert "gateway.redis.url_ref: the environment variable `REDIS` is not set" in warning
    assert warnings(registry, text, REDIS="redis://localhost") == []


def test_what_is_in_the_store_is_not_known() -> None:
    assert missing_secret(SecretRef(store="openai"), {}) == ""


def test_a_secret_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    reference = SecretRef(file=str(file))
    assert missing_secret(reference, {}) == f"the file `{file}` cannot be read: No such file or directory"
    file.write_text("\n")
    assert missing_secret(reference, {}) == f"the file `{file}` is empty"
    file.write_bytes(b"\xff")
    assert "cannot be read" in missing_secret(reference, {})
    file.write_text("sk-1\nx-admin: yes\n")
    assert missing_secret(reference, {}) == f"the file `{file}` holds more than one line of plain ASCII"
    file.write_text("sk-1\n")
    assert missing_secret(reference, {}) == ""
    file.write_text('{\n  "type": "service_account",\n  "client_email": "é"\n}\n')
    assert missing_secret(reference, {}) == ""
    assert read_secret(reference, {})[0].reveal() == '{"type":"service_account","client_email":"\\u00e9"}'
    file.write_text("{\nx-admin: yes\n}")
    assert missing_secret(reference, {}) == f"the file `{file}` holds more than one line of plain ASCII"


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("http://models.internal", True),
        ("http://localhost:11434", False),
        ("http://127.0.0.1:11434/v1", False),
        ('"http://[::1]:11434"', False),
        ("https://models.internal", False),
    ],
)
def test_a_secret_in_clear_text(url: str, warned: bool, registry: Registry) -> None:
    text = HEAD + TARGET % f", secret_key_ref: {{env: KEY}}, base_url: {url}"
    found = warnings(registry, text, KEY="sk-1")
    assert [("clear text" in warning) for warning in found] == [True] * warned


def test_a_fetched_token_in_clear_text() -> None:
    cloud = "providers:\n  targets:\n    - {id: t, provider: vertex, model: m, base_url: %s}\n"
    loaded = [load_text(HEAD + cloud % url, "f") for url in ("http://vertex.internal", "https://vertex.internal")]
    (found,) = lint(loaded[:1], {})
    assert "clear text" in str(found)
    assert lint(loaded[1:], {}) == []


def test_a_certificate_that_cannot_be_used(tmp_path: Path, registry: Registry) -> None:
    files = f"cert_file: {tmp_path}/c.pem, key_file: {tmp_path}/k.pem"
    (found,) = warnings(registry, HEAD + TARGET % "" + f"gateway:\n  tls: {{{files}}}\n")
    assert found.startswith("f0:6:8: warning: gateway.tls: ")
    assert found.endswith("cannot be read: No such file or directory (the gateway would not start)")


def test_settings_of_a_policy_that_never_runs(registry: Registry) -> None:
    text = HEAD + TARGET % "" + "policy:\n  word-list: {}\n"
    assert warnings(registry, text) == [
        "f0:6:14: warning: policy.word-list: not in `policies.chain`, so it never runs (add it to the chain)"
    ]


def test_a_configuration_that_is_not_served(registry: Registry) -> None:
    text = "pack: {name: a, enabled: false}\n" + TARGET % ""
    assert warnings(registry, text) == ["f0:1:26: warning: pack.enabled: this configuration is not served"]


def test_the_servers_settings_are_those_of_the_first_configuration(registry: Registry) -> None:
    first, second = HEAD + TARGET % "", "pack: {name: b}\n" + TARGET % "" + "gateway:\n  workers: 2\n"
    assert warnings(registry, first, first.replace("name: a", "name: c")) == []
    assert warnings(registry, first, second) == [
        "f1:6:3: warning: gateway: ignored: the server's settings are those of the default configuration `a`"
    ]


@pytest.mark.parametrize("path", NOT_IN_FORCE)
def test_a_setting_that_is_not_in_force_exists_and_is_marked_in_the_reference(path: str, registry: Registry) -> None:
    headings = reference(registry).split("\n#")
    (section,) = [text for text in headings if f"# `{path}`\n" in text]
    assert "not in force yet" in section


def test_a_setting_that_is_not_in_force_is_a_warning_where_it_stands(registry: Registry) -> None:
    text = HEAD + TARGET % "" + "gateway:\n  websocket:\n    enabled: true\n  cors: {}\n"
    found = warnings(registry, text)
    assert [warning.split(" (")[0] for warning in found] == [
        f"f0:{line}: warning: gateway.{name}: not in force yet"
        for line, name in (("7:5", "websocket"), ("8:9", "cors"))
        if f"gateway.{name}" in NOT_IN_FORCE
    ]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://m.test", []),
        ("http://127.0.0.1:8080/x", []),
        ("http://m.test", ["f0:9:10: warning: policy.external-moderation.url: all texts travel in clear (use https)"]),
    ],
)
def test_a_moderation_service_in_clear_text(url: str, said: list[str]) -> None:
    assert warnings(installed(), MODERATED + f"    url: {url}\n") == said


def test_the_key_of_a_moderation_service() -> None:
    text = MODERATED + "    url: https://m.test\n    secret_key_ref: {env: KEY}\n"
    (found,) = warnings(installed(), text)
    assert "policy.external-moderation.secret_key_ref: the environment variable `KEY` is not set" in found
    assert "(without it nobody is asked, and `fail_mode: block` holds)" in found
    assert warnings(installed(), text, KEY="k") == []


MODERATED = HEAD + TARGET % "" + "policies:\n  chain: [external-moderation]\npolicy:\n  external-moderation:\n"


def test_a_shadow_that_is_not_loaded(registry: Registry) -> None:
    text = HEAD + TARGET % "" + "policies: {shadow: {configuration: next}}\n"
    assert warnings(registry, text) == [
        "f0:5:36: warning: policies.shadow.configuration: no configuration `next` is loaded with this one "
        "(name its file in another --policy-config)"
    ]
    assert warnings(registry, text, "pack: {name: next}\n" + TARGET % "") == []
