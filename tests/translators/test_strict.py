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


SHALLOW = [strict.shallow(levels) for levels in range(6)]


@given(json_values, st.booleans(), st.sampled_from([None, 1]))
def test_what_is_too_deep_is_told_exactly(value: object, ascii_only: bool, indent: int | None) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    assert [bool(at_most(body)) for at_most in SHALLOW] == [true_depth(value) <= levels for levels in range(6)]


def test_no_nesting_costs_more_than_another() -> None:
    """Peeling brackets off level by level took 158 ms for this one."""
    comb = b"[%b]" % b",".join([b"[" * 255 + b"]" * 255] * 500)
    assert strict.decode(DECODER, b'{"model":"a","x":%b}' % comb[1:-1].partition(b",")[0]).model == "a"
    with pytest.raises(InvalidJSON, match="nested"):
        strict.decode(DECODER, b'{"model":"a","x":%b}' % comb)


@pytest.mark.parametrize("levels", [255, 256])
def test_large_bodies_are_looked_at_too(levels: int) -> None:
    body = nested(levels, '"' + "x" * 600_000 + '"')
    if levels == 255:
        assert strict.decode(DECODER, body).model == "a"
    else:
        with pytest.raises(InvalidJSON, match="nested"):
            strict.decode(DECODER, body)


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
        b'{"messages":[1],"model":{"model":1},"x":[{"model":2}],"model" : "a"}',
        b'{"mess\\u0061ges" :[1],"model":"a","\\u006Dodel":1}',
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


keys = st.sampled_from(["model", "mod\\u0065l", "\\u006dod\\u0065L", "messages", "x", 'model\\"', "\\\\model"])
members = st.recursive(
    st.sampled_from(['"model"', '"messages"', "1", '"a:b"', '"\\""', "[]"]),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{','.join(items)}]")
        | st.lists(st.tuples(keys, inner), max_size=3).map(
            lambda items: "{" + " , ".join(f'"{key}" :{value}' for key, value in items) + "}"
        )
    ),
    max_leaves=8,
)


@given(st.lists(st.tuples(keys, members), max_size=4))
def test_every_spelling_of_model_counts_at_the_top_and_nowhere_else(pairs: list[tuple[str, str]]) -> None:
    body = "{" + ",".join(f'"{key}":{value}' for key, value in pairs) + "}"
    names = [json.loads(f'"{key}"') for key, _ in pairs]
    if names.count("model") > 1:
        with pytest.raises(InvalidRequest):
            strict.check_model(body.encode())
    else:
        strict.check_model(body.encode())


def test_many_keys_of_which_the_last_stands_twice() -> None:
    """Counting each name among all took the square of their number: 10 s for 256 KB."""
    body = b"{%b}" % b",".join([b'"%d":1' % number for number in [*range(30_000), 29_999]])
    with pytest.raises(InvalidRequest, match="29999"):
        strict.refuse_duplicate_keys(body)


def test_a_number_with_many_digits_is_no_error() -> None:
    strict.refuse_duplicate_keys(b'{"a":%b}' % (b"1" * 5000))
