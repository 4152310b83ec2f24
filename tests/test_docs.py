"""The documentation says all there is, and its examples run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from gateway import errors
from gateway.config.load import load_text
from translators.providers import PROVIDERS, Provider

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def headings(name: str, level: int) -> set[str]:
    return set(re.findall(rf"^{'#' * level} `?([^`\n]+?)`?$", (DOCS / name).read_text(), re.MULTILINE))


def error_classes(base: type[errors.GatewayError] = errors.GatewayError) -> Iterator[type[errors.GatewayError]]:
    for child in base.__subclasses__():
        yield child
        yield from error_classes(child)


def test_every_error_code_has_its_heading_and_no_heading_is_left_over() -> None:
    codes = {kind.code for kind in error_classes()}
    assert headings("errors.md", 3) == codes


def test_every_error_code_is_documented_with_its_status() -> None:
    text = (DOCS / "errors.md").read_text()
    for kind in error_classes():
        if kind in (errors.UpstreamStatus, errors.UpstreamError, errors.DownstreamError, errors.PolicyRefusal):
            continue
        section = text.split(f"### {kind.code}\n", 1)[1]
        assert section.startswith(f"{kind.status}."), kind


def pages(entry: object) -> Iterator[str]:
    """The files that a part of mkdocs' `nav` names."""
    if isinstance(entry, str):
        yield entry
    elif isinstance(entry, dict):
        for inner in entry.values():
            yield from pages(inner)
    elif isinstance(entry, list):
        for inner in entry:
            yield from pages(inner)


def test_every_page_stands_in_the_navigation_once() -> None:
    named = list(pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert sorted(named) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


def provider_row(provider: Provider) -> str:
    """What docs/provider-list.md says of a provider."""
    if provider.local:
        base = "answered by the gateway"
    elif provider.base_url:
        base = f"`{provider.base_url}`"
    else:
        base = "`base_url` must be set" if provider.place is None else "follows from the region"
    operations = dict.fromkeys(operation.value for operation in provider.endpoints)
    return f"| `{provider.name}` | {base} | {', '.join(operations)} |"


def test_every_provider_has_its_row_as_it_is() -> None:
    rows = re.findall(r"^\| `.*", (DOCS / "provider-list.md").read_text(), re.MULTILINE)
    assert rows == [provider_row(provider) for provider in PROVIDERS.values()]


def test_the_examples_of_providers_load() -> None:
    text = (DOCS / "provider-list.md").read_text()
    targets = "".join(re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    configuration = {"pack": {"name": "docs"}, "providers": {"targets": yaml.safe_load(targets)}}
    loaded = load_text(yaml.safe_dump(configuration), "provider-list.md").configuration
    assert len(loaded.providers.targets) == 8


def test_what_the_operations_page_names_is_there() -> None:
    text = (DOCS / "operations.md").read_text()
    named = re.findall(r"`(deploy/[^`]+)`", text)
    assert len(named) >= 6
    for path in named:
        assert (ROOT / path).exists(), path
