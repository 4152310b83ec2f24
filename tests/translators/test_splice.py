"""Other strings in a JSON text, every other byte as it was."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from translators import paths
from translators.splice import spliced


@pytest.mark.parametrize(
    ("body", "values", "expected"),
    [
        (b'{"a":"x"}', {"a": "y"}, b'{"a":"y"}'),
        (b'{ "a" : 1.50, "b" :\n"x" }', {"b": 'q"'}, b'{ "a" : 1.50, "b" :\n"q\\"" }'),
        (b'{"a":[1,"x",{"b":"y"}],"c":"z"}', {"a[2].b": "B", "c": "C"}, b'{"a":[1,"x",{"b":"B"}],"c":"C"}'),
        (b'{"a":["x","x"]}', {"a[1]": "y"}, b'{"a":["x","y"]}'),
        (b'{"a":"a\\\\","b":"\\"x\\""}', {"b": "y"}, b'{"a":"a\\\\","b":"y"}'),
        (b'{"\\u0061":"x"}', {"a": "y"}, b'{"\\u0061":"y"}'),
        (b'{"a.b":{"":"x"}}', {'["a.b"][""]': "y"}, b'{"a.b":{"":"y"}}'),
        (b'{"a":{},"b":[],"c":"x"}', {"c": "y"}, b'{"a":{},"b":[],"c":"y"}'),
        (b'[["x"],"y"]', {"[0][0]": "z"}, b'[["z"],"y"]'),
        (b'{"a":"{\\"b\\":\\"x\\"}","b":"x"}', {"b": "y"}, b'{"a":"{\\"b\\":\\"x\\"}","b":"y"}'),
        ('{"ä":"ö"}'.encode(), {'["ä"]': "é"}, '{"ä":"é"}'.encode()),
    ],
)
def test_examples(body: bytes, values: dict[str, str], expected: bytes) -> None:
    values = {paths.join("", "ä") if path == '["ä"]' else path: text for path, text in values.items()}
    assert spliced(body, values) == expected


def test_a_path_without_a_string_is_a_fault() -> None:
    with pytest.raises(KeyError):
        spliced(b'{"a":1}', {"a": "x"})


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.text(max_size=5), _VALUES, min_size=1), st.booleans(), st.booleans(), st.data())
def test_it_is_what_writing_the_tree_anew_would_be(
    tree: dict[str, Any], spaced: bool, escaped: bool, data: st.DataObject
) -> None:
    places = [part.path for part in paths.texts(tree, "", "user", "message", skip=())]
    chosen = data.draw(st.lists(st.sampled_from(places), unique=True)) if places else []
    values = {path: data.draw(st.text(max_size=5)) for path in chosen}
    text = json.dumps(tree, ensure_ascii=escaped, indent=1 if spaced else None)
    changed = spliced(text.encode(), values)
    for path, value in values.items():
        paths.put(tree, path, value)
    assert orjson.loads(changed) == tree
