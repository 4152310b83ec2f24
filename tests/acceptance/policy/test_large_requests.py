"""A large request must not keep a worker from all the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest

from tests.acceptance.policy.loop import as_in_a_worker, least_block, with_threads
from tests.playbook import Play
from translators import anthropic_messages

COUNT = "/v1/messages/count_tokens"
MB = 1024 * 1024
BAR_SECONDS = 0.005


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    with as_in_a_worker():
        yield


def least(work: Callable[[], object]) -> float:
    found = []
    for _ in range(12):
        began = time.process_time()
        work()
        found.append(time.process_time() - began)
    return min(found)


def one_text() -> list[dict[str, Any]]:
    return [{"role": "user", "content": "lorem ipsum " * (5 * MB // 12)}]


def history() -> list[dict[str, Any]]:
    """What an agent sends: many small blocks, some 200,000 brackets and quotes."""
    call = {
        "type": "tool_use",
        "id": "toolu_1",
        "name": "bash",
        "input": {"command": 'ls "a b" | grep {x}[1]', "n": [1]},
    }
    result = {
        "type": "tool_result",
        "tool_use_id": "toolu_1",
        "content": [{"type": "text", "text": "def f(x):\n" * 40}],
    }
    turn = [{"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]
    return turn * (5 * MB // len(orjson.dumps(turn)))


@pytest.mark.parametrize("messages", [one_text, history])
async def test_C23_a_count_of_five_megabytes_leaves_the_loop_to_others(
    messages: Callable[[], list[dict[str, Any]]], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """The longest step is the decoder's, which no thread can interrupt: 2 to 4 ms for 5 MB. Nothing else comes near."""
    body = orjson.dumps({"model": "gpt-test", "messages": messages()})
    play = with_threads(Play(tmp_path))
    blocked = await least_block(lambda: play.ask(body, COUNT), lambda: play.client.over)
    assert orjson.loads(play.client.body)["input_tokens"] == pytest.approx(5 * MB / 4, rel=0.02)
    decoder = msgspec.json.Decoder(anthropic_messages.Head)
    decoding = least(lambda: decoder.decode(body))
    record_property("blocked_ms", blocked * 1000)
    record_property("decoding_ms", decoding * 1000)
    assert blocked < max(BAR_SECONDS, decoding * 1.5)
