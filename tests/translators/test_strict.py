"""One text, one meaning: what is refused, and that nothing else is."""

from __future__ import annotations

import json

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import InvalidJSON, InvalidRequest
from translators import strict


class Body(msgspec.Struct):
    model: str
    max_tokens: int | None = None
    messages: msgspec.Raw = msgspec.Raw(b"null")


DECODER = msgspec.json.Decoder(Body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"model":"a"} x',
        b'{"model":"a",}',
        b'{"model":"a","x":NaN}',
        b'{"model":"a","x":01}',
        b'{"model":"a","x":"\x01"}',
        b'\xef\xbb\xbf{"model":"a"}',
        b'{"model":"a","x":"\xff"}',
        b'{"model":"a","x":"\xed\xa0\x80"}',
        b'{"model":"a","messages":["\xc3"]}',
        b'{"model":"a","x":"\\ud800"}',
        b'{"model":"a","x":"\\ud800\\n"}',
        b'{"model":"a","x":"\\udc00"}',
        b'{"model":"\\ud800x"}',
    ],
)
def test_not_json(body: bytes) -> None:
    with pytest.raises(InvalidJSON):
        strict.decode(DECODER, body)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"[]", None),
        (b"{}", "model"),
        (b'{"model":1}', "model"),
        (b'{"model":"a","max_tokens":"many"}', "max_tokens"),
    ],
)
def test_wrong_shape_names_the_field(body: bytes, param: str | None) -> None:
    with pytest.raises(InvalidRequest) as caught:
        strict.decode(DECODER, body)
    assert caught.value.param == param


def nested(levels: int, filler: str = "") -> bytes:
    return b'{"model":"a","x":%b%b%b}' % (b"[" * levels, filler.encode(), b"]" * levels)


@pytest.mark.parametrize("levels", [1, 200, 255])
def test_deep_but_allowed(levels: int) -> None:
    assert strict.decode(DECODER, nested(levels)).model == "a"


@pytest.mark.parametrize("levels", [256, 257, 400, 3000, 100_000])
def test_too_deep(levels: int) -> None:
    with pytest.raises(InvalidJSON, match="nested"):
        strict.decode(DECODER, nested(levels))


def test_many_objects_side_by_side_are_not_deep() -> None:
    body = orjson.dumps({"model": "a", "messages": [{"content": [{"text": '"[{\\"'}]}] * 500})
    assert strict.decode(DECODER, body).model == "a"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=25,
)


def true_depth(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(true_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(true_depth, value), default=0)
    return 0


@given(json_values, st.booleans())
def test_depth_is_exact(value: object, ascii_only: bool) -> None:
    assert strict.depth(json.dumps(value, ensure_ascii=ascii_only).encode()) == true_depth(value)


@given(st.binary(max_size=12))
def test_agrees_with_orjson_on_strings(raw: bytes) -> None:
    body = b'{"model":"a","x":"' + raw + b'"}'
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        with pytest.raises((InvalidJSON, InvalidRequest)):
            strict.decode(DECODER, body)
    else:
        strict.decode(DECODER, body)


def unique(body: bytes) -> None:
    strict.check_unique(body, b'"messages"', bytes(strict.decode(DECODER, body).messages))


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"a","messages":[],"model":"b"}',
        b'{"model":"a","messages":[1],"messages":[2]}',
        b'{"messages":[1],"model":"a","messages":[1]}',
        b'{"model":"a","messages":[1],"mess\\u0061ges":[2]}',
        b'{"m\\u006fdel":"b","model":"a","messages":[1]}',
        b'{"messages":[1],"model":"a","x":{"y":1,"y":2},"model":"a"}',
    ],
)
def test_a_key_that_stands_twice_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        unique(body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"a","messages":[{"role":"user","content":"\\"model\\" and \\"messages\\""}]}',
        b'{"messages" : [{"model":1}, {"model":2}], "model" : "a", "metadata":{"model":"x","messages":[]}}',
        b'{"x":"messages","messages":[],"model":"a"}',
        b'{"x":"\\u0061","messages":[],"model":"a"}',
        b'{"model":"a"}',
    ],
)
def test_the_same_word_elsewhere_is_no_duplicate(body: bytes) -> None:
    unique(body)
