"""Whatever a body contains, it keeps the loop for 5 ms at most; and a policy that does not come back, not at all."""

from __future__ import annotations

import base64
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest

from gateway.exchange import SCREEN_SECONDS
from gateway.types import Subject
from policy.base import Ruling, View
from policy.dlp_filter import DlpFilter
from tests.acceptance.policy.loop import as_in_a_worker, least_block, slowness, until, with_threads
from tests.playbook import Play, configuration, dlp

KB = 1024
BAR_SECONDS = 0.005
NOISE = 2
"""What else a loaded machine does to the clock. The faults that this is to find took 25 ms and more."""
SIZES = (2 * KB - 100, 15 * KB, 47 * KB, 256 * KB)
CHAINS = {
    "patterns": "pii-detector, secret-detector, safety-filter",
    "prompt-injection": "pii-detector, secret-detector, prompt-injection",
}
LARGEST = {"patterns": 256 * KB, "prompt-injection": 47 * KB}
"""A regular expression of `re` that undoes an evasion may keep the interpreter for 20 ms in 256 KB of evasions."""
_random = random.Random(7)


def _number(digits: int) -> str:
    return str(_random.randrange(10 ** (digits - 1), 10**digits))


PIECES: dict[str, Callable[[], str]] = {
    "prose": lambda: "The quick brown fox jumps over the lazy dog. ",
    "addresses": lambda: f"a{_number(3)}@b{_number(2)}.example.com ",
    "telephone numbers": lambda: f"+1 415 {_number(3)} {_number(4)} ",
    "numbers": lambda: f"{_number(9)} ",
    "passwords": lambda: f"password={base64.b32encode(_random.randbytes(12)).decode()} ",
    "base64": lambda: base64.b64encode(_random.randbytes(24)).decode() + " ",
    "strikes": lambda: "i\u0336g\u0336n\u0336o\u0336r\u0336e\u0336 ",
    "zero width": lambda: "i\u200bg\u200bn\u200bo\u200br\u200be ",
    "at signs": lambda: "@",
    "one letter": lambda: "A",
    "backslashes": lambda: "\\",
    "threats": lambda: "kill bomb murder ",
}
SHAPES: dict[str, Callable[[int], bytes]] = {
    "objects": lambda size: b"[%b0]" % (b"{}," * (size // 3)),
    "texts": lambda size: b"[%b0]" % (b'"a b",' * (size // 6)),
    "nesting": lambda size: b"[%b0]" % (b"[[[[]]]]," * (size // 9)),
}


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    with as_in_a_worker():
        yield


def ended(play: Play) -> Callable[[], bool]:
    return lambda: play.client.over or bool(play.pool.providers)


async def blocked(play: Play, body: bytes) -> float:
    def act() -> None:
        play.pool.providers.clear()
        play.ask(body)

    seconds = await least_block(act, ended(play), times=3)
    for exchange in list(play.services.active):
        exchange.on_client_gone()
    return seconds


@pytest.mark.parametrize("chain", CHAINS)
async def test_no_text_keeps_the_loop(
    chain: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    play = with_threads(Play(tmp_path, configuration(chain=CHAINS[chain])))
    found = {}
    for name, piece in PIECES.items():
        for size in [size for size in SIZES if size <= LARGEST[chain]]:
            text = "".join(piece() for _ in range(size // len(piece()) + 1))[:size]
            body = orjson.dumps({"model": "gpt-test", "messages": [{"role": "user", "content": text}]})
            found[f"{size // KB} KB of {name}"] = await blocked(play, body)
    worst = max(found, key=lambda name: found[name])
    record_property(worst, found[worst] * 1000)
    assert found[worst] < BAR_SECONDS * NOISE * slowness(), worst


@pytest.mark.parametrize("shape", SHAPES)
async def test_no_shape_keeps_the_loop(shape: str, tmp_path: Path) -> None:
    play = with_threads(Play(tmp_path, configuration(chain=CHAINS["patterns"])))
    found = {}
    for size in SIZES[:3]:
        made = SHAPES[shape](size)
        body = (
            b'{"model":"gpt-test","\\u0078":"a@b.example","messages":[{"role":"user","content":"x"}],"tools":%b}' % made
        )
        found[size] = await blocked(play, body)
    assert max(found.values()) < BAR_SECONDS * NOISE * slowness(), found


@pytest.mark.parametrize("character", ["a", "@", "1", "\u0430"])
async def test_ten_megabytes_of_one_character(character: str, tmp_path: Path) -> None:
    """It is judged in the end; meanwhile others are served."""
    play = with_threads(Play(tmp_path, configuration(chain=CHAINS["prompt-injection"])))
    text = character * (10 * KB * KB // len(character.encode()))
    play.ask(orjson.dumps({"model": "gpt-test", "messages": [{"role": "user", "content": text}]}))
    large = play.client
    other = play.ask(orjson.dumps({"model": "gpt-test", "messages": [{"role": "user", "content": "hello"}]}))
    assert len(play.pool.providers) == 1
    await until(lambda: large.over or len(play.pool.providers) == 2)
    assert large.status in (0, 409)
    other.on_client_gone()
    for exchange in list(play.services.active):
        exchange.on_client_gone()


@pytest.mark.parametrize("fail_mode", ["block", "allow"])
async def test_policies_that_hang(fail_mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every thread of the worker is stuck in a policy: the fail mode speaks for it. Requests that need no thread are
    served meanwhile; those that do, by new threads as soon as the worker has noticed."""
    free, hangs = threading.Event(), True
    judge = DlpFilter.on_request

    def on_request(self: DlpFilter, subject: Subject, view: View) -> Ruling:
        if hangs:
            free.wait()
        return judge(self, subject, view)

    monkeypatch.setattr(DlpFilter, "on_request", on_request)
    monkeypatch.setattr(DlpFilter, "inline_bytes", 0)
    text = configuration(
        chain="audit-logger, dlp-filter", policies=dlp(), gateway=f"gateway: {{fail_mode: {fail_mode}}}"
    )
    play = with_threads(Play(tmp_path, text))
    stuck = {"model": "gpt-test", "messages": [{"role": "user", "content": "a secret"}]}
    clients = []
    for _ in range(3):
        play.ask(stuck)
        clients.append(play.client)
    try:
        play.ask({**stuck, "messages": [{"role": "user", "content": "nothing"}]})
        assert len(play.pool.providers) == 1
        play.advance(SCREEN_SECONDS + 1)
        play.faults.clear()
        assert len(play.pool.providers) == (1 if fail_mode == "block" else 4)
        assert [client.status for client in clients] == ([409] * 3 if fail_mode == "block" else [0] * 3)
        hangs = False
        play.ask({**stuck, "messages": [{"role": "user", "content": "a secret " + "x" * 20_000}]})
        await until(lambda: play.client.over, 20)
        assert play.client.status == 409
    finally:
        free.set()
    for exchange in list(play.services.active):
        exchange.on_client_gone()
