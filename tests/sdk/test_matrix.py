"""The matrix of SDKs (`make sdk-matrix`): the README shows its table; its provider speaks what translators read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.sdk.matrix import provider
from tests.sdk.matrix.__main__ import CLIENTS, PROVIDERS, Row, table

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_the_readme_shows_every_client_and_every_provider() -> None:
    found = re.search(r"^\| client \|.*?\n\n", README, re.MULTILINE | re.DOTALL)
    assert found is not None
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in found[0].strip().splitlines()]
    assert rows[0] == ["client", *PROVIDERS]
    assert [row[0] for row in rows[2:]] == [client.name for client in CLIENTS]
    assert all(re.fullmatch(r"([3-9]) of \1", cell) for row in rows[2:] for cell in row[1:])


def test_every_provider_has_its_format() -> None:
    assert set(PROVIDERS) == set(provider.FORMATS) == set(provider._ERRORS)


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_stream_has_the_words_of_the_whole(name: str) -> None:
    assert "".join(provider.words(name)) == provider.text_of(name)
    pieces = provider.FORMATS[name]({"stream": True}, True)
    assert isinstance(pieces, list)
    assert len(pieces) >= len(provider.words(name))


def test_a_failed_case_is_counted() -> None:
    row = Row("a client")
    for problem in ("", "broken"):
        for model in PROVIDERS:
            row.take(f'{{"model": "{model}", "case": "case {len(problem)}", "problem": "{problem}"}}')
    row.take("[INFO] no JSON")
    assert table([row]).splitlines()[-1] == "| a client |" + " 1 of 2 |" * len(PROVIDERS)
