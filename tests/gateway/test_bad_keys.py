"""All keys that are none are refused alike: the same answer, by the same instructions.

Time is not measured here: a clock tells of the machine. What a refusal costs is the byte codes that it runs, and those
are counted. A key is looked up by its SHA-256, in a dict, so that no comparison runs along the key itself; what a
dict's look-up costs depends on a hash that nobody can aim at.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import msgspec
import pytest

from gateway.authenticate import authenticate
from gateway.config.schema import AuthMode
from gateway.control import keys
from gateway.downstream.head import HeadLimits, RequestHead, parse_head
from gateway.errors import InvalidAPIKey, envelope
from tests.playbook import Play, gateway_key

GENUINE = keys.generate().reveal()
OTHER = keys.generate().reveal()
BAD = {
    "another key": OTHER,
    "the last character differs": GENUINE[:-1] + ("0" if GENUINE[-1] != "0" else "1"),
    "the first character differs": "kt_gk_" + ("0" if GENUINE[6] != "0" else "1") + GENUINE[7:],
    "the beginning of a genuine key": GENUINE[:20],
    "a genuine key and more": GENUINE + "0",
    "no checksum": "kt_gk_" + "x" * 38,
    "an access key in a gateway key's clothes": "kt_gk_" + keys.generate().reveal()[6:],
}


def head(key: str) -> RequestHead:
    text = f"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway.test\r\nAuthorization: Bearer {key}\r\n\r\n"
    return parse_head(text.encode(), HeadLimits())


def refuse(play: Play, key: str) -> InvalidAPIKey:
    with pytest.raises(InvalidAPIKey) as refused:
        authenticate(head(key), play.services.snapshot, AuthMode.REQUIRED, 1_700_000_000.0)
    return refused.value


def byte_codes(work: Callable[[], Any]) -> int:
    """How many instructions of Python `work` runs."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


@pytest.fixture
def play(playbook: Callable[..., Play]) -> Play:
    return playbook(
        mode=AuthMode.REQUIRED, key=msgspec.structs.replace(gateway_key(), hash=keys.hash_key(GENUINE.encode()))
    )


def test_the_genuine_one_is_good(play: Play) -> None:
    binding = authenticate(head(GENUINE), play.services.snapshot, AuthMode.REQUIRED, 1_700_000_000.0)
    assert binding.key is not None


def test_the_same_answer_for_each(play: Play) -> None:
    answers = {
        (error.status, envelope(error, "req_1"), error.headers) for error in (refuse(play, key) for key in BAD.values())
    }
    assert len(answers) == 1


def test_the_same_instructions_for_each(play: Play) -> None:
    snapshot = play.services.snapshot
    heads = {name: head(key) for name, key in BAD.items()}

    def attempt(request: RequestHead) -> None:
        try:
            authenticate(request, snapshot, AuthMode.REQUIRED, 1_700_000_000.0)
        except InvalidAPIKey:
            pass

    counts = {name: byte_codes(lambda request=request: attempt(request)) for name, request in heads.items()}  # type: ignore[misc]
    assert min(counts.values()) > 50
    assert len(set(counts.values())) == 1, counts


def test_the_message_names_no_key(play: Play) -> None:
    for key in BAD.values():
        assert key[6:12] not in refuse(play, key).message
