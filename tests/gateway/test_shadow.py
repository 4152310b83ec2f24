"""A shadow configuration: what it says is counted and recorded, and comes to nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway import shadow as shadows
from gateway.audit.reader import Joiner
from gateway.config.load import load_text
from gateway.snapshot import Compiler
from tests.playbook import Play, configuration, dlp, gateway_key

CHAT = {"model": "gpt-test", "messages": [{"role": "user", "content": "a secret plan"}]}
ANSWER = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "a secret answer"}}]}
EVALUATIONS = "keeptrusts_gateway_shadow_evaluations_total"
DROPPED = "keeptrusts_gateway_shadow_dropped_total"


def live(*, chain: str = "audit-logger", policies: str = "", shadow: str = "{configuration: next, sample: 1}") -> str:
    text = configuration(chain=chain, policies=policies)
    return text.replace(f"policies: {{chain: [{chain}]}}", f"policies: {{chain: [{chain}], shadow: {shadow}}}")


def next_(chain: str = "dlp-filter", policies: str = "", *, enabled: bool = False) -> str:
    text = configuration(chain=chain, policies=policies or dlp(phase="[input, output]"))
    return text.replace("{name: play,", f"{{name: next, enabled: {str(enabled).lower()},")


class Shadowed(Play):
    """A play with two configurations; the work of shadows waits for `judge`."""

    def __init__(self, folder: Path, *texts: str) -> None:
        super().__init__(folder)
        compiler = Compiler(
            self.metrics,
            fail_mode=None,
            clock=lambda: 0,
            on_policy_error=lambda kind, error: self.faults.append(error),
            environment={"PROVIDER_KEY": "sk-provider"},
        )
        key = gateway_key()
        loaded = [load_text(text, f"{number}.yaml") for number, text in enumerate(texts)]
        self.services.snapshot = compiler.compile(loaded, {key.hash: key}.get)
        self.waiting: list[tuple[Callable[[], Any], Callable[[Any], None]]] = []
        self.services.shadows._threads.run = lambda work, then: self.waiting.append((work, then))  # type: ignore[method-assign]

    def judge(self) -> None:
        work, then = self.waiting.pop(0)
        try:
            result = work()
        except Exception as error:
            result = error
        then(result)

    def exchange(self, body: Any = CHAT, answer: Any = ANSWER) -> None:
        self.ask(body)
        data = orjson.dumps(answer)
        if not self.client.over:
            head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(data)
            self.provider().says(head + data)

    def recorded(self) -> dict[str, Any]:
        return [one for one in self.records if one["kind"] == "shadow"][-1]

    def count(self, name: str) -> float:
        return self.metric(name)


def test_what_it_would_have_refused_goes_through(tmp_path: Path) -> None:
    play = Shadowed(tmp_path, live(), next_())
    for count in (1, 2):  # the second one knows its way
        play.exchange()
        assert play.client.status == 200
        assert len(play.waiting) == 1
        play.judge()
        assert play.count(EVALUATIONS) == count
    record, finish = play.recorded(), play.finish()
    assert record["id"] == finish["id"]
    assert (record["configuration"], record["live"], record["verdicts"]) == (
        "next",
        {"input": "allow"},
        {"input": "block"},
    )
    assert record["decisions"][0]["reason"] == "dlp-filter.term"
    assert "shadow" not in play.client.body.decode()


def test_what_the_live_chain_refused(tmp_path: Path) -> None:
    play = Shadowed(tmp_path, live(chain="audit-logger, dlp-filter", policies=dlp()), next_(policies=dlp("redact")))
    play.exchange()
    assert play.client.status == 409
    play.judge()
    record = play.recorded()
    assert (record["live"], record["verdicts"]) == ({"input": "block"}, {"input": "redact"})


def test_answers_that_the_live_chain_reads_are_judged_too(tmp_path: Path) -> None:
    chain = live(chain="audit-logger, dlp-filter", policies=dlp(phase="[output]", terms="[other]"))
    play = Shadowed(tmp_path, chain, next_())
    play.exchange({**CHAT, "messages": [{"role": "user", "content": "hello"}]})
    assert play.client.status == 200
    play.judge()
    record = play.recorded()
    assert record["live"] == {"input": "allow", "output": "allow"}
    assert record["verdicts"] == {"input": "allow", "output": "block"}
    assert play.count(EVALUATIONS) == 2


def test_only_a_sample_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play = Shadowed(tmp_path, live(shadow="{configuration: next, sample: 0.25}"), next_())
    for value in (0.1, 0.25, 0.24, 0.9):
        monkeypatch.setattr(shadows, "random", lambda value=value: value)
        play.exchange()
    assert (len(play.waiting), play.count(DROPPED)) == (2, 0)


def test_it_is_the_first_to_go(tmp_path: Path) -> None:
    play = Shadowed(tmp_path, live(), next_())
    for _ in range(shadows.MAX_WAITING + 3):
        play.exchange()
    assert (len(play.waiting), play.count(DROPPED)) == (shadows.MAX_WAITING, 3)
    play.judge()
    play.exchange({**CHAT, "messages": [{"role": "user", "content": "x" * shadows.MAX_BYTES}]})
    play.work()
    play.provider().says(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
    assert play.count(DROPPED) == 4
    play.advance(0.1)
    play.exchange()
    assert (len(play.waiting), play.count(DROPPED)) == (shadows.MAX_WAITING, 4)
    play.judge()
    play.advance(0.3)  # a sweep that comes late: the worker has too much to do
    play.exchange()
    assert play.count(DROPPED) == 5
    play.advance(0.1)
    play.exchange()
    assert play.count(DROPPED) == 5


def test_a_fault_in_it_is_a_fault_and_nothing_else(tmp_path: Path) -> None:
    play = Shadowed(tmp_path, live(), next_())
    play.exchange()
    _, then = play.waiting.pop()
    then(ZeroDivisionError())
    assert play.client.status == 200
    assert isinstance(play.faults.pop(), ZeroDivisionError)
    assert play.count(EVALUATIONS) == 0


def test_without_an_audit_log_it_is_only_counted(tmp_path: Path) -> None:
    play = Shadowed(tmp_path, live(chain="dlp-filter", policies=dlp(more=", mode: monitor")), next_())
    play.exchange()
    play.judge()
    assert play.count(EVALUATIONS) == 1
    assert play.records == []


def test_a_request_that_was_never_read_has_no_shadow(tmp_path: Path) -> None:
    play = Shadowed(tmp_path, live(), next_())
    play.ask(b"{")
    assert play.client.status == 400
    assert play.waiting == []


def test_a_shadow_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'next' is loaded"):
        Shadowed(tmp_path, live())


def test_it_may_serve_keys_of_its_own(tmp_path: Path) -> None:
    play = Shadowed(tmp_path, live(), next_(enabled=True))
    assert sorted(play.services.snapshot.configurations) == ["next", "play"]


def test_its_record_is_a_row(tmp_path: Path) -> None:
    play = Shadowed(tmp_path, live(), next_())
    play.exchange()
    play.judge()
    record = next(one for one in play.audit if b'"kind":"shadow"' in one)
    row = Joiner().feed(b'{"seq":0,"hash":"%b","record":%b}' % (b"0" * 64, record))
    assert row is not None
    assert (row["kind"], row["verdicts"], row["configuration"]) == ("shadow", {"input": "block"}, "next")


async def test_with_a_thread(tmp_path: Path) -> None:
    play = Shadowed(tmp_path, live(), next_())
    del play.services.shadows._threads.run
    play.services.loop = asyncio.get_running_loop()
    play.exchange()
    async with asyncio.timeout(20):
        while not play.count(EVALUATIONS):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    assert play.recorded()["verdicts"] == {"input": "block"}
    play.services.close()
