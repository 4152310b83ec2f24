"""The warm path must come to the same as an exchange: each scene is played on both ways, and all that can be seen of it
compared: what the provider got, what the client got, audit records, metrics, limits, and what is still held."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway import warm_path
from gateway.errors import AuditUnavailable, InvalidAPIKey
from gateway.warm_path import MAX_STRAYS, WarmPath
from loadtest.micro.driver import KEY, Driver
from translators import openai_chat

CONFIGURATION = """
pack: {name: warm}
providers:
  targets:
    - {id: target, provider: openai-compatible, model: gpt-4o, base_url: "http://127.0.0.1:1"}
policies: {chain: [dlp-filter, audit-logger]}
policy:
  dlp-filter: {terms: [forbidden], action: redact}
  audit-logger: {log_all_access: true}
"""
BODY = (
    b'{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":3},'
    b'"completion_tokens_details":{"reasoning_tokens":2}}}'
)


def answer(body: bytes = BODY, status: bytes = b"200 OK", more: bytes = b"") -> bytes:
    head = b"HTTP/1.1 %b\r\ndate: now\r\ncontent-type: application/json\r\nx-request-id: theirs\r\n%b"
    return head % (status, more) + b"content-length: %d\r\n\r\n%b" % (len(body), body)


def request(body: bytes | None = None, *, more: bytes = b"", **fields: object) -> bytes:
    whole = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}], **fields}
    body = json.dumps(whole).encode() if body is None else body
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\nX-Mine: yes\r\n%b"
    return head % (KEY, more) + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


class Stage:
    """A driver whose every effect is noted."""

    def __init__(self, folder: Path, *, limited: bool = True) -> None:
        folder.mkdir(exist_ok=True)
        self.driver = Driver(asyncio.get_running_loop(), folder, CONFIGURATION, limited=limited)
        self.services = self.driver.services
        self.services.wall = lambda: 1_800_000_000.25  # both ways are played in the same second
        self.notes: list[object] = []
        self._watch(self.driver.client_transport, "client")
        self._watch(self.driver.provider_transport, "provider")
        for name in ("audit", "conclude"):
            setattr(self.services, name, self._noting(getattr(self.services, name)))

    def _watch(self, transport: Any, who: str) -> None:
        transport.write = lambda data: self.notes.append((who, _without_moment(bytes(data))))
        transport.writelines = lambda pieces: self.notes.append((who, _without_moment(b"".join(pieces))))
        transport.abort = lambda: self.notes.append((who, "abort"))
        transport.close = lambda: self.notes.append((who, "close"))

    def _noting(self, write: Callable[[bytes], None]) -> Callable[[bytes], None]:
        def note(record: bytes) -> None:
            write(record)
            fields = json.loads(record)
            took = fields.get("duration_us") or 0
            for moment in ("id", "at", "duration_us", "first_byte_us", "sent_us"):
                if isinstance(fields.get(moment), int | str):
                    fields[moment] = type(fields[moment])()
            stages = fields.pop("stages_us", {})
            assert abs(sum(stages.values()) - took) <= 0.5 * len(stages) + 1
            for decision in fields.get("decisions", ()):
                decision["microseconds"] = 0
            self.notes.append(fields)

        return note

    def asks(self, sent: bytes | None = None) -> None:
        self.driver.client.data_received(request() if sent is None else sent)

    def says(self, *reads: bytes) -> None:
        for data in reads:
            self.driver.provider.data_received(data)

    def warm_up(self, **more: bytes) -> None:
        for _ in range(4):
            self.asks(request(**more))
            self.says(answer())

    @property
    def serving(self) -> object:
        """What serves the one request that is under way."""
        (active,) = self.services.active
        return active

    def transcript(self) -> list[object]:
        """All that was seen, and what is held in the end."""
        target = self.services.snapshot.targets[0]
        counted = {status: counter.value for status, counter in target.requests.items()}
        tokens = target.tokens_in.value, target.tokens_out.value
        observed = [
            sum(one.cells[one.index : one.index + len(one.bounds) + 1]) for one in (target.duration, target.first_byte)
        ]
        verdicts = {key: counter.value for key, counter in self.services._verdicts.items()}
        row = next(iter(self.services.limits._rows.values()), None)
        held = None if row is None else (row.requests, row.tokens, row.running)
        return [*self.notes, counted, tokens, observed, verdicts, held, target.in_flight, len(self.services.active)]


def _without_moment(data: bytes) -> bytes:
    data = re.sub(rb"(reset-\w+|date|server-timing): [^\r]*", rb"\1", data)
    return re.sub(rb"req_[0-9a-f]+", b"ID", data)


def ordinary(stage: Stage) -> None:
    """Nothing happens that is not ordinary."""
    for _ in range(3):
        stage.asks()
        stage.says(answer())


def tokens_are_counted(stage: Stage) -> None:
    for fields in ({"max_tokens": 50}, {"max_completion_tokens": 70, "max_tokens": 3}, {"max_tokens": -1}):
        stage.asks(request(**fields))
        stage.says(answer())


def usage_is_unknown(stage: Stage) -> None:
    for body in (b"{}", b"[", b'{"usage":null}', b'{"usage":{"prompt_tokens":"many"}}'):
        stage.asks()
        stage.says(answer(body))


def answer_in_two_reads(stage: Stage) -> None:
    for cut in (1, 60, len(answer()) - len(BODY), len(answer()) - 1):
        stage.asks()
        stage.says(answer()[:cut], answer()[cut:])


def answer_byte_by_byte(stage: Stage) -> None:
    stage.asks()
    stage.says(*(bytes([byte]) for byte in answer()))


def chunked_answer(stage: Stage) -> None:
    stage.asks()
    stage.says(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY))


def coded_answer(stage: Stage) -> None:
    for _ in range(3):
        stage.asks()
        stage.says(answer(b"not gzip", more=b"content-encoding: gzip\r\n"))


def provider_refuses(stage: Stage) -> None:
    for status in (b"400 Bad Request", b"429 Too Many Requests", b"500 Internal Server Error", b"401 Unauthorized"):
        for _ in range(2):
            stage.asks()
            stage.says(answer(b'{"error":{"message":"no","type":"t","code":"c"}}', status))


def provider_says_more_than_it_announced(stage: Stage) -> None:
    stage.asks()
    stage.says(answer() + b"HTTP/1.1 200 OK\r\n")


def provider_resets(stage: Stage) -> None:
    stage.asks()
    stage.driver.provider.connection_lost(ConnectionResetError())


def provider_ends(stage: Stage) -> None:
    stage.asks()
    stage.driver.provider.eof_received()


def provider_talks_nonsense(stage: Stage) -> None:
    stage.asks()
    stage.says(b"SSH-2.0-OpenSSH_9\r\n\r\n")


def client_leaves(stage: Stage) -> None:
    stage.asks()
    stage.driver.client.eof_received()


def client_pauses(stage: Stage) -> None:
    stage.asks()
    stage.driver.client.pause_writing()
    stage.says(answer())
    stage.driver.client.resume_writing()
    stage.asks()
    stage.says(answer())


def client_pipelines(stage: Stage) -> None:
    stage.asks()
    stage.asks()
    stage.says(answer())
    stage.says(answer())


def key_is_revoked_meanwhile(stage: Stage) -> None:
    stage.asks()
    (active,) = stage.services.active
    active.end_early(InvalidAPIKey("This gateway key was revoked or has expired."))


def provider_is_silent(stage: Stage) -> None:
    stage.asks()
    (active,) = stage.services.active
    active.on_deadline(active.deadline + 1)


def nothing_can_be_recorded(stage: Stage) -> None:
    noting = stage.services.audit

    def refuse(record: bytes) -> None:
        raise AuditUnavailable("full")

    stage.services.audit = refuse
    stage.asks()
    stage.services.audit = noting


def worker_drains(stage: Stage) -> None:
    stage.services.draining = True
    stage.asks()


def key_has_expired(stage: Stage) -> None:
    stage.services.wall = lambda: 1e12
    _replace_key(stage, expires_at=1e11)
    stage.asks()


def key_lost_its_model(stage: Stage) -> None:
    _replace_key(stage, models=frozenset({"other"}))
    stage.asks()


def limit_is_reached(stage: Stage) -> None:
    _replace_key(stage, requests_per_minute=6)
    stage.warm_up()
    for _ in range(3):
        stage.asks()
        stage.says(*([answer()] if stage.services.active else []))


def odd_bodies(stage: Stage) -> None:
    for body in (
        b"",
        b"{",
        b'{"model":"gpt-4o","messages":[{"role":"user","content":"a forbidden thing"}]}',
        b'{"model":"gpt-4o","model":"gpt-4o","messages":[]}',
        b'{"model":"gpt-4o","messages":[],"mod\\u0065l":"other"}',
        b'{"model":"gpt-4o","messages":[],"messages":[1]}',
        b'{"model":"gpt-4o","messages":[{"role":"user","content":"\xc3\xa9"}]}',
        b'{"model":"gpt-4o","messages":[{"role":"user","content":"\xff"}]}',
        b'{"model":"gpt-4o","messages":' + b"[" * 300 + b"]" * 300 + b"}",
        b'{"model":"other","messages":[]}',
        b'{"model":"target","messages":[]}',
        b'{"model":"gpt-4o","messages":[],"max_tokens":"many"}',
        b'{"model":"gpt-4o","messages":[],"stream_options":null}',
        b'{"model":"gpt-4o","messages":[{"role":"user","content":"' + b"x" * 300_000 + b'"}]}',
    ):
        stage.asks(request(body))
        if stage.services.active:
            stage.says(answer())


def _replace_key(stage: Stage, **fields: Any) -> None:
    snapshot = stage.services.snapshot
    ((digest, binding),) = snapshot.bindings.items()
    assert binding.key is not None
    snapshot.bindings[digest] = type(binding)(msgspec.structs.replace(binding.key, **fields), binding.configuration)


SCENES = [
    ordinary, tokens_are_counted, usage_is_unknown, answer_in_two_reads, answer_byte_by_byte, chunked_answer,
    coded_answer, provider_refuses, provider_says_more_than_it_announced, provider_resets, provider_ends,
    provider_talks_nonsense, client_leaves, client_pauses, client_pipelines, key_is_revoked_meanwhile,
    provider_is_silent, nothing_can_be_recorded, worker_drains, key_has_expired, key_lost_its_model, limit_is_reached,
    odd_bodies,
]  # fmt: skip


@pytest.mark.parametrize("limited", [True, False], ids=["limited", "unlimited"])
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
async def test_both_ways_come_to_the_same(
    scene: Callable[[Stage], None], limited: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transcripts = []
    for way in ("warm", "exchange"):
        stage = Stage(tmp_path / way, limited=limited)
        if way == "exchange":
            monkeypatch.setattr(warm_path, "prepared", lambda *arguments: None)
        stage.warm_up()
        scene(stage)
        transcripts.append(stage.transcript())
        stage.driver.close()
    assert transcripts[0] == transcripts[1]


async def test_it_serves_what_is_ordinary(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.warm_up()
    stage.asks()
    assert isinstance(stage.serving, WarmPath)
    assert re.fullmatch(r"<WarmPath chat request req_[0-9a-f]+ to target>", repr(stage.serving))
    stage.says(answer())
    assert not stage.services.active
    stage.asks(request(stream=True))
    assert not isinstance(stage.serving, WarmPath)
    stage.driver.close()


async def test_a_provider_that_is_never_ordinary_is_left_to_exchanges(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.warm_up()
    for _ in range(MAX_STRAYS + 1):
        stage.asks()
        assert isinstance(stage.serving, WarmPath)
        stage.says(answer()[:-1], answer()[-1:])
    stage.asks()
    assert not isinstance(stage.serving, WarmPath)
    stage.driver.close()


async def test_a_bug_is_answered_and_counted(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.warm_up()
    stage.asks()
    warm = stage.serving
    assert isinstance(warm, WarmPath)

    def broken(body: bytes) -> None:
        raise ZeroDivisionError

    warm._usage = broken
    stage.says(answer())
    assert any(b" 500 " in note[1] for note in stage.notes[-2:] if isinstance(note, tuple))
    assert stage.services._faults.value == 1
    assert not stage.services.active
    stage.driver.close()


@pytest.mark.parametrize("body", [b'{"model":"m","messages":["\\"model\\""]}', b'{"messages":[],"model":"m"}'])
def test_plain_requests_are_recognised(body: bytes) -> None:
    assert openai_chat.plain(body, "m") == 0
    assert openai_chat.plain(body, "n") is None
