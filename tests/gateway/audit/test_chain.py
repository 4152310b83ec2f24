from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.audit.chain import GENESIS, Chain, Malformed, Unlinked, parse


def test_a_line_can_be_checked_with_nothing_but_sha_256() -> None:
    _, lines = Chain().extend([b'{"a":1}', b'{"b":2}'])
    previous = bytes(32)
    for number, line in enumerate(lines.splitlines()):
        fields = json.loads(line)
        record = line[line.index(b'"record":') + 9 : -1]
        previous = hashlib.sha256(previous + number.to_bytes(8, "big") + record).digest()
        assert fields == {"seq": number, "hash": previous.hex(), "record": json.loads(record)}


@given(st.lists(st.lists(st.integers())))
def test_batches_make_no_difference(batches: list[list[int]]) -> None:
    records = [b'{"n":%d}' % number for batch in batches for number in batch]
    whole, expected = Chain().extend(records)
    chain, lines = Chain(), b""
    for batch in batches:
        chain, more = chain.extend([b'{"n":%d}' % number for number in batch])
        lines += more
    assert (chain, lines) == (whole, expected)


@given(st.lists(st.binary().filter(lambda value: b"\n" not in value)))
def test_what_was_written_can_be_followed(records: list[bytes]) -> None:
    records = [b"{%b}" % record for record in records]
    end, lines = Chain(7, b"x" * 32).extend(records)
    chain, read = Chain(7, b"x" * 32), []
    for line in lines.split(b"\n")[:-1]:
        chain, record = chain.step(line)
        read.append(record)
    assert (chain, read) == (end, records)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b'{"seq":01,"hash":"' + b"0" * 64 + b'","record":{}}',
        b'{"seq":-1,"hash":"' + b"0" * 64 + b'","record":{}}',
        b'{"seq":1,"hash":"' + b"A" * 64 + b'","record":{}}',
        b'{"seq":1,"hash":"' + b"0" * 63 + b'","record":{}}',
        b'{"seq":1, "hash":"' + b"0" * 64 + b'","record":{}}',
        b'{"seq":1,"hash":"' + b"0" * 64 + b'","record":{}} ',
        b'{"seq":1,"hash":"' + b"0" * 64 + b'","record":[]}',
    ],
)
def test_there_is_one_way_to_write_a_line(line: bytes) -> None:
    with pytest.raises(Malformed):
        parse(line)


def test_a_line_that_does_not_follow_is_named() -> None:
    chain, lines = Chain().extend([b"{}", b"{}"])
    first, second = lines.splitlines()
    with pytest.raises(Unlinked, match="line number 1"):
        Chain().step(second)
    with pytest.raises(Unlinked) as caught:
        chain.step(first)
    assert caught.value.link.sequence == 0
    with pytest.raises(Unlinked):
        Chain(0, b"y" * 32).step(first)
    assert Chain(0, GENESIS).step(first)[0].step(second)[0] == chain
