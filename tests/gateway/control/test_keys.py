"""Gateway keys as text: generated, recognised, hashed."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.control import keys
from gateway.control.keys import ALPHABET, KeyState
from gateway.types import GatewayKey

KEY = "kt_gk_0123456789ABCDEFGHIJKLMNOPQRSTUV2pL2E9"
"""Fixed for ever: scanners in the field rely on it."""


def independent_checksum(body: str) -> str:
    """The checksum as docs/gateway-keys.md tells others to compute it."""
    number, digits = crc32(body.encode()), ""
    for _ in range(6):
        number, digit = divmod(number, 62)
        digits = ALPHABET[digit] + digits
    return digits


def test_the_format_never_changes() -> None:
    assert keys.checksum_ok(KEY)
    assert KEY[:38] + independent_checksum(KEY[:38]) == KEY


def test_the_documented_way_to_recognise_a_key_works() -> None:
    text = (Path(__file__).parents[3] / "docs" / "gateway-keys.md").read_text()
    names: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0], names)
    recognised = names["is_gateway_key"]
    assert KEY in text
    assert recognised(KEY)
    assert recognised(keys.generate().reveal())
    assert not recognised(KEY[:-1] + "8")


def test_a_generated_key_is_recognised_and_unlike_any_other() -> None:
    made = {keys.generate().reveal() for _ in range(100)}
    assert len(made) == 100
    for key in made:
        assert re.fullmatch(r"kt_gk_[0-9A-Za-z]{38}", key)
        assert keys.checksum_ok(key)
        assert keys.checksum_ok(key.encode())
        assert key[38:] == independent_checksum(key[:38])


def test_a_generated_key_does_not_print() -> None:
    assert str(keys.generate()) == "[secret]"


@given(st.text(ALPHABET, min_size=32, max_size=32))
def test_the_checksum_agrees_with_the_documented_way(random_part: str) -> None:
    body = "kt_gk_" + random_part
    assert keys.checksum_ok(body + independent_checksum(body))


@given(st.integers(0, 43), st.characters())
def test_one_wrong_character_is_noticed(position: int, character: str) -> None:
    wrong = KEY[:position] + character + KEY[position + 1 :]
    assert keys.checksum_ok(wrong) == (wrong == KEY)


@given(st.one_of(st.text(), st.binary()))
def test_nothing_else_is_a_key(text: str | bytes) -> None:
    assert not keys.checksum_ok(text)


@given(st.binary(min_size=32, max_size=32))
def test_a_right_checksum_over_foreign_bytes_is_no_key(random_part: bytes) -> None:
    body = b"kt_gk_" + random_part
    assert keys.checksum_ok(body + keys.checksum(body)) == (random_part.isalnum())


@pytest.mark.parametrize("cut", [0, 1, 6, 37, 43])
def test_a_key_that_was_not_copied_whole_is_noticed(cut: int) -> None:
    assert not keys.checksum_ok(KEY[:cut])


def test_what_is_kept_is_the_digest_and_twelve_characters() -> None:
    assert keys.hash_key(KEY.encode()) == hashlib.sha256(KEY.encode()).digest()
    assert keys.shown_prefix(KEY) == "kt_gk_012345"
    assert keys.shown_prefix("a-long-name-of-a-key") == "a-long-name-of-a-key"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("15m", 900), ("12h", 43_200), ("90d", 7_776_000), ("2w", 1_209_600), (" 1Y ", 31_536_000)],
)
def test_durations(text: str, seconds: int) -> None:
    assert keys.parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "90", "d", "0d", "-1d", "+1d", "1.5h", "1d12h", "٣d", "1_0d", "90 d", "101y", "9" * 30 + "d"]
)
def test_what_is_no_duration_says_what_is(text: str) -> None:
    with pytest.raises(ValueError, match=r"90d|100y"):
        keys.parse_duration(text)


@pytest.mark.parametrize(
    ("expires_at", "revoked_at", "state"),
    [
        (None, None, KeyState.ACTIVE),
        (101.0, None, KeyState.ACTIVE),
        (100.0, None, KeyState.EXPIRED),
        (None, 100.0, KeyState.REVOKED),
        (50.0, 60.0, KeyState.REVOKED),
    ],
)
def test_the_state_of_a_key(expires_at: float | None, revoked_at: float | None, state: KeyState) -> None:
    key = GatewayKey("gk_1", b"", "kt_gk_012345", "a", 0, expires_at=expires_at, revoked_at=revoked_at)
    assert keys.state_of(key, 100.0) is state
