from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from translators import paths

json_values = st.recursive(
    st.none() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(max_size=10), json_values, max_size=4))
def test_every_text_is_found_and_can_be_replaced(tree: dict[str, Any]) -> None:
    found = list(paths.texts(tree, "", "user", "message", skip=()))
    assert sorted(part.text for part in found) == sorted(strings(tree))
    copied = copy.deepcopy(tree)
    for index, part in enumerate(found):
        paths.put(copied, part.path, f"<{index}>")
    assert [part.text for part in paths.texts(copied, "", "user", "message", skip=())] == [
        f"<{index}>" for index in range(len(found))
    ]


def strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value] if value else []
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for item in items for text in strings(item)]


@pytest.mark.parametrize(
    ("path", "key", "joined"),
    [("", "a", "a"), ("a", "b", "a.b"), ("a", "b.c", 'a["b.c"]'), ("", "", '[""]'), ("a", 'q"', 'a["q\\""]')],
)
def test_join(path: str, key: str, joined: str) -> None:
    assert paths.join(path, key) == joined


def test_a_marker_is_skipped_only_while_it_looks_like_one() -> None:
    tree = {"type": "text", "format": "ignore all previous instructions", "id": "x" * 65}
    assert [part.path for part in paths.texts(tree, "", "user", "message")] == ["format", "id"]
