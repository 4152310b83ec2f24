"""Requests that repeat the head of the one before, as every SDK sends them on its connection.

What the first of them found out is remembered, and nothing that may have changed since: each test sends the same head
again and looks whether the world as it is now counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from gateway.config.load import load_text
from gateway.downstream.http import DownstreamConnection
from gateway.errors import AuditUnavailable
from gateway.exchange import Exchange, State
from gateway.snapshot import Compiler, Snapshot
from gateway.types import GatewayKey
from tests.gateway.downstream.support import answers
from tests.playbook import KEY, Play, Transport, configuration, dlp, gateway_key, target
from tests.provider import LAST_CHUNK, chunk, head, respond

ANSWER = b'{"id":"c","choices":[{"message":{"content":"Hi"}}],"usage":{"prompt_tokens":9,"completion_tokens":3}}'
DONE = b"data: [DONE]\n\n"
DELTA = b'data: {"choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3}}\n\n'


class Talk:
    """One client, one connection, the same head every time."""

    def __init__(self, play: Play, *lines: str) -> None:
        self.play = play
        self.connection: DownstreamConnection
        self.transport: Transport
        self.connection, self.transport = play.connect()
        self._lines = "".join(f"{line}\r\n" for line in lines)

    def asks(self, text: str = "Hello", model: str = "gpt-test", **more: Any) -> None:
        body = orjson.dumps({"model": model, "messages": [{"role": "user", "content": text}], **more})
        lines = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY.decode()}\r\n{self._lines}"
        )
        self.connection.data_received(b"%bContent-Length: %d\r\n\r\n%b" % (lines.encode(), len(body), body))

    def is_answered(self, *reads: bytes) -> None:
        self.play.provider().says(*reads or (respond(ANSWER),))

    @property
    def heard(self) -> list[tuple[int, bytes]]:
        return answers(self.transport.written)

    @property
    def codes(self) -> list[Any]:
        """Of each answer, its status, or the code of its error."""
        return [status if status == 200 else orjson.loads(body)["error"]["code"] for status, body in self.heard]

    @property
    def exchange(self) -> Exchange:
        last = self.play.opened[-1]
        assert isinstance(last, Exchange)
        return last


def another(play: Play, text: str, key: GatewayKey) -> Snapshot:
    """The snapshot of another configuration file, or of the same with another key."""
    compiler = Compiler(
        play.metrics,
        fail_mode=None,
        clock=lambda: 0,
        on_policy_error=lambda kind, error: None,
        environment={"PROVIDER_KEY": "sk-provider"},
    )
    return compiler.compile([load_text(text, "play.yaml")], {key.hash: key}.get)


def test_it_is_remembered(play: Play) -> None:
    """Or else the other tests would say nothing."""
    talk = Talk(play)
    courses = []
    for _ in range(3):
        talk.asks()
        courses.append(talk.exchange.request.course)
        talk.is_answered()
    assert courses[0] is not None
    assert courses[0] is courses[1] is courses[2]


def test_the_same_request_is_sent_and_recorded_alike(play: Play) -> None:
    talk = Talk(play, "X-Custom: a", "traceparent: 00-0-0-01")
    requests = []
    for _ in range(3):
        talk.asks()
        own_id = talk.exchange.id.encode()
        requests.append(play.provider().asked.replace(own_id, b"ID"))
        talk.is_answered()
    assert len(set(requests)) == 1
    assert talk.heard == [(200, ANSWER)] * 3
    first, *others = [{**record, "id": "", "at": 0} for record in play.records if record["kind"] == "start"]
    assert others == [first, first]
    first, *others = [{**record, "id": "", "at": 0} for record in play.records if record["kind"] == "finish"]
    assert others == [first, first]
    ids = [record["id"] for record in play.records]
    assert ids == [id for id in dict.fromkeys(ids) for _ in range(2)]


def test_a_clients_own_id_goes_on_every_time(play: Play) -> None:
    talk = Talk(play, "X-Request-Id: mine")
    for _ in range(3):
        talk.asks()
        assert play.provider().headers["x-request-id"] == "mine"
        talk.is_answered()
    assert talk.transport.written.count(b"\r\nx-request-id: mine\r\n") == 3
    starts = [record for record in play.records if record["kind"] == "start"]
    assert [record["attributes"] for record in starts] == [{"client_request_id": "mine"}] * 3


def test_a_stream_after_json_and_json_after_a_stream(play: Play) -> None:
    talk = Talk(play)
    sse = head(200, ("content-type", "text/event-stream"), chunked=True)
    for _ in range(2):
        talk.asks()
        talk.is_answered()
        talk.asks(stream=True)
        assert play.provider().body["stream_options"] == {"include_usage": True}
        talk.is_answered(sse, chunk(DELTA), chunk(USAGE), chunk(DONE) + LAST_CHUNK)
    assert [body for _, body in talk.heard] == [ANSWER, DELTA + DONE] * 2
    assert [record["completion_tokens"] for record in play.records if record["kind"] == "finish"] == [3] * 4


def test_another_model(playbook: Callable[..., Play]) -> None:
    play = playbook(
        configuration(target("a", "m", upstream_model="m-1"), target("b", "n", upstream_model="n-1")),
        key=gateway_key(models=frozenset({"m", "n"})),
    )
    talk = Talk(play)
    for model in ("m", "m", "n", "n", "a", "m"):
        talk.asks(model=model)
        assert play.provider().body["model"] == ("m-1" if model == "a" else f"{model}-1")
        talk.is_answered()
    talk.asks(model="nothing")
    assert talk.codes == [200, 200, 200, 200, 200, 200, "model_not_found"]


def test_a_model_that_the_key_does_not_allow(playbook: Callable[..., Play]) -> None:
    play = playbook(configuration(target("a", "m"), target("b", "n")), key=gateway_key(models=frozenset({"m"})))
    talk = Talk(play)
    for model in ("m", "m", "n", "m"):
        talk.asks(model=model)
        if model == "m":
            talk.is_answered()
    assert talk.codes == [200, 200, "model_not_allowed", 200]


@pytest.mark.parametrize("strategy", ["round_robin", "ordered"])
def test_several_targets(playbook: Callable[..., Play], strategy: str) -> None:
    play = playbook(configuration(target("a"), target("b"), providers=f"  routing: {{strategy: {strategy}}}"))
    talk = Talk(play)
    seen = []
    for _ in range(4):
        talk.asks()
        seen.append(play.provider().destination.name)
        talk.is_answered()
    assert "".join(seen) == ("abab" if strategy == "round_robin" else "aaaa")


def test_a_body_that_cannot_be_served(play: Play) -> None:
    talk = Talk(play)
    for _ in range(2):
        talk.asks()
        talk.is_answered()
    talk.asks(stream="yes")
    assert talk.codes == [200, 200, "invalid_request"]
    assert talk.exchange.state is State.ENDED


def test_policies_see_every_request(playbook: Callable[..., Play]) -> None:
    play = playbook(configuration(chain="audit-logger, dlp-filter", policies=dlp()))
    talk = Talk(play)
    for text in ("fine", "fine", "a secret", "fine"):
        talk.asks(text)
        if text == "fine":
            talk.is_answered()
    assert talk.codes == [200, 200, "input_blocked", 200]
    starts = [record for record in play.records if record["kind"] == "start"]
    assert [record["decisions"][0]["verdict"] for record in starts] == ["allow", "allow", "block", "allow"]


def test_policies_redact_every_request(playbook: Callable[..., Play]) -> None:
    play = playbook(configuration(chain="dlp-filter", policies=dlp("redact")))
    talk = Talk(play)
    for text, sent in (("fine", "fine"), ("a secret", "a [REDACTED:term]"), ("secret", "[REDACTED:term]"), ("x", "x")):
        talk.asks(text)
        assert play.provider().body["messages"][0]["content"] == sent
        talk.is_answered()


def test_policies_review_every_answer(playbook: Callable[..., Play]) -> None:
    play = playbook(configuration(chain="dlp-filter", policies=dlp(phase="[output]")))
    talk = Talk(play)
    for text in (b"Hi", b"Hi", b"a secret", b"Hi"):
        talk.asks()
        talk.is_answered(respond(ANSWER.replace(b'"Hi"', b'"%b"' % text)))
    assert talk.codes == [200, 200, "output_blocked", 200]


def test_a_large_prompt_goes_to_a_thread(playbook: Callable[..., Play]) -> None:
    play = playbook(configuration(chain="dlp-filter", policies=dlp()))
    talk = Talk(play)
    for text in ("fine", "fine", "x " * 150_000, "fine"):
        talk.asks(text)
        while play.threads:
            assert talk.exchange.state is State.SCREENING
            play.work()
        talk.is_answered()
    assert talk.codes == [200] * 4


def test_limits_hold(playbook: Callable[..., Play]) -> None:
    play = playbook(key=gateway_key(requests_per_minute=3))
    talk = Talk(play)
    for _ in range(3):
        talk.asks()
        talk.is_answered()
    talk.asks()
    assert talk.codes == [200, 200, 200, "rate_limit_exceeded"]
    remaining = [line for line in talk.transport.written.split(b"\r\n") if line.startswith(b"x-ratelimit-remaining")]
    assert [line[-1:] for line in remaining] == [b"2", b"1", b"0", b"0"]


def test_a_key_that_expires(playbook: Callable[..., Play]) -> None:
    play = playbook(key=gateway_key(expires_at=1_700_000_060.0))
    talk = Talk(play)
    for seconds in (0, 30, 31):
        play.advance(seconds)
        talk.asks()
        if len(talk.codes) < 2:
            talk.is_answered()
    assert talk.codes == [200, 200, "invalid_api_key"]


def test_a_key_that_will_be_revoked(playbook: Callable[..., Play]) -> None:
    """Rotation leaves the old key an overlap."""
    play = playbook(key=gateway_key(revoked_at=1_700_000_060.0))
    talk = Talk(play)
    for seconds in (0, 30, 31):
        play.advance(seconds)
        talk.asks()
        if len(talk.codes) < 2:
            talk.is_answered()
    assert talk.codes == [200, 200, "invalid_api_key"]


def test_a_key_that_is_revoked(play: Play) -> None:
    keys = {gateway_key().hash: gateway_key()}
    play.services.snapshot.find_key = keys.get
    talk = Talk(play)
    for _ in range(2):
        talk.asks()
        talk.is_answered()
    play.services.snapshot.forget([keys.pop(gateway_key().hash)])
    talk.asks()
    assert talk.codes == [200, 200, "invalid_api_key"]


def test_a_key_whose_limits_change(play: Play) -> None:
    keys = {gateway_key().hash: gateway_key()}
    play.services.snapshot.find_key = keys.get
    talk = Talk(play)
    for _ in range(3):
        talk.asks()
        talk.is_answered()
    keys[gateway_key().hash] = gateway_key(requests_per_minute=1, models=frozenset({"gpt-test"}))
    play.services.snapshot.forget([gateway_key()])
    talk.asks()
    talk.is_answered()
    talk.asks()
    keys[gateway_key().hash] = gateway_key(models=frozenset({"other"}))
    play.services.snapshot.forget([gateway_key()])
    talk.asks()
    assert talk.codes == [200] * 4 + ["rate_limit_exceeded", "model_not_allowed"]


def test_a_configuration_that_is_replaced(play: Play) -> None:
    talk = Talk(play)
    for _ in range(2):
        talk.asks()
        talk.is_answered()
    old = play.services.snapshot
    play.services.snapshot = another(
        play, configuration(target("new", upstream_model="gpt-5"), chain="dlp-filter", policies=dlp()), gateway_key()
    )
    talk.asks()
    assert play.provider().destination.name == "new"
    assert play.provider().body["model"] == "gpt-5"
    talk.is_answered()
    talk.asks("a secret")
    assert talk.codes == [200, 200, 200, "input_blocked"]
    assert not any(one.in_flight for one in old.targets)
    assert len([record for record in play.records if record["kind"] == "start"]) == 2  # the new one has no audit-logger


def test_a_target_that_fails_is_left_alone(play: Play) -> None:
    talk = Talk(play)
    talk.asks()
    talk.is_answered()
    for _ in range(5):
        talk.asks()
        talk.is_answered(respond(b'{"error":{"code":"down"}}', 500))
    talk.asks()
    assert talk.codes == [200, *["down"] * 5, "upstream_unavailable"]
    play.advance(31)
    talk.asks()
    talk.is_answered()
    talk.asks()
    talk.is_answered()
    assert talk.codes[-2:] == [200, 200]


def test_no_connection_is_free(play: Play) -> None:
    talk = Talk(play)
    talk.asks()
    talk.is_answered()
    play.pool.idle = False
    talk.asks()
    assert talk.exchange.state is State.CONNECTING
    play.pool.connect()
    talk.is_answered()
    talk.asks()
    talk.connection.eof_received()
    assert play.pool.tickets[-1].state == "cancelled"
    assert talk.codes == [200, 200]


def test_the_log_is_full(play: Play) -> None:
    talk = Talk(play)
    for _ in range(2):
        talk.asks()
        talk.is_answered()
    play.audit_error = AuditUnavailable()
    asked = len(play.pool.providers)
    talk.asks()
    assert talk.codes == [200, 200, "audit_unavailable"]
    assert len(play.pool.providers) == asked
    play.audit_error = None
    talk.asks()
    talk.is_answered()
    assert talk.codes[-1] == 200


def test_the_worker_drains(play: Play) -> None:
    talk = Talk(play)
    talk.asks()
    talk.is_answered()
    play.services.draining = True
    talk.asks()
    assert talk.codes == [200, "draining"]


def test_keys_are_not_known(play: Play) -> None:
    talk = Talk(play)
    talk.asks()
    talk.is_answered()
    play.services.keys_known = False
    talk.asks()
    assert talk.codes == [200, "overloaded"]


def test_the_total_bound(playbook: Callable[..., Play]) -> None:
    play = playbook(configuration(target(timeouts="{total_seconds: 10}")))
    talk = Talk(play)
    talk.asks()
    talk.is_answered()
    talk.asks()
    play.advance(10.1)
    assert talk.codes == [200, "upstream_timeout"]


def test_the_operators_fields_still_win(playbook: Callable[..., Play]) -> None:
    play = playbook(configuration(target(headers="{X-Team: platform}")))
    talk = Talk(play, "X-Team: mine")
    for _ in range(3):
        talk.asks()
        assert play.provider().asked.lower().count(b"x-team:") == 1
        assert b"x-team: platform\r\n" in play.provider().asked.lower()
        talk.is_answered()


@pytest.mark.parametrize("answer", [respond(b"{}", 201), respond(b"", 200), head(204), respond(b"x" * 100_000, 200)])
def test_odd_answers(play: Play, answer: bytes) -> None:
    talk = Talk(play)
    for _ in range(3):
        talk.asks()
        talk.is_answered(answer)
    assert len(talk.heard) == 3


def test_an_answer_in_chunks(play: Play) -> None:
    talk = Talk(play)
    for _ in range(3):
        talk.asks()
        start = head(200, ("content-type", "application/json"), chunked=True)
        talk.is_answered(start + chunk(ANSWER[:9]) + chunk(ANSWER[9:]) + LAST_CHUNK)
    assert talk.heard == [(200, ANSWER)] * 3


def test_two_clients_do_not_share_what_is_remembered(play: Play) -> None:
    first, second = Talk(play, "X-Custom: 1"), Talk(play, "X-Custom: 2")
    for _ in range(2):
        for talk, value in ((first, "1"), (second, "2")):
            talk.asks()
            assert play.provider().headers["x-custom"] == value
            talk.is_answered()


def test_a_fault_leaves_the_connection_sound(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk(play)
    for _ in range(2):
        talk.asks()
        talk.is_answered()
    with monkeypatch.context() as patch:
        patch.setattr(play.pool, "take", lambda destination: 1 / 0)
        talk.asks()
    talk.asks()
    talk.is_answered()
    assert talk.codes == [200, 200, "internal_error", 200]
    assert len(play.faults) == 1
    play.faults.clear()
