"""The documentation says all there is, and its examples run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from gateway import errors

DOCS = Path(__file__).parent.parent / "docs"


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
