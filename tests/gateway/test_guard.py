"""Streams that policies change on their way, or see whole first: every format of clients, every cut."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from gateway.sse import FrameSplitter, data_of
from tests.gateway.test_exchange import CHAT, DONE, SSE_HEAD, STREAM, delta, events
from tests.playbook import KEY, Play, configuration, dlp, target
from tests.provider import LAST_CHUNK, chunk, respond

FINISH = b'data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'


def guarded(action: str, streaming: str = "guard", terms: str = "[falcon]") -> str:
    settings = dlp(action, "[output]", terms, f", streaming: {streaming}")
    return configuration(policies=settings, chain="audit-logger, dlp-filter")


def streamed(play: Play, *frames: bytes, ask: Any = STREAM, path: str = "/v1/chat/completions") -> bytes:
    """What the client has after a stream of the provider, one read a frame."""
    play.ask(ask, path)
    play.provider().says(SSE_HEAD, *map(chunk, frames))
    if not play.provider().gone:
        play.provider().says(LAST_CHUNK)
    return play.client.body


def content(body: bytes) -> str:
    return "".join(
        choice["delta"].get("content") or ""
        for event in events(body)
        if isinstance(event, dict)
        for choice in event.get("choices", ())
    )


def test_text_without_a_beginning_of_a_match_is_never_held(playbook: Callable[..., Play]) -> None:
    play = playbook(guarded("block"))
    play.ask(STREAM)
    play.provider().says(SSE_HEAD)
    for word in ("The ", "quick brown ", "dog jumps."):
        before = play.client.body
        play.provider().says(chunk(delta(word)))
        assert play.client.body == before + delta(word)
    play.provider().says(chunk(FINISH), chunk(DONE), LAST_CHUNK)
    assert play.client.body.endswith(FINISH + DONE)
    assert play.finish()["outcome"] == "completed"


def test_only_what_could_become_a_match_is_held(playbook: Callable[..., Play]) -> None:
    play = playbook(guarded("block"))
    play.ask(STREAM)
    play.provider().says(SSE_HEAD, chunk(delta("The fal")))
    assert content(play.client.body) == "The "
    play.provider().says(chunk(delta("low")))
    assert content(play.client.body) == "The fallow"
    play.provider().says(chunk(delta(" falco")), chunk(FINISH))
    assert content(play.client.body) == "The fallow falco"
    play.provider().says(chunk(DONE), LAST_CHUNK)
    assert events(play.client.body)[-1] == "[DONE]"


def test_a_block_ends_the_stream_before_the_match(playbook: Callable[..., Play]) -> None:
    play = playbook(guarded("block"))
    body = streamed(play, delta("Project fal"), delta("con flies"), delta(" high"), FINISH, DONE)
    assert content(body) == "Project "
    last = events(body)[-1]
    assert (last["error"]["code"], last["error"]["policy"]) == ("output_blocked", "dlp-filter")
    assert b"[DONE]" not in body
    assert b"falcon" not in body
    assert play.provider().gone
    finish = play.finish()
    assert (finish["outcome"], finish["code"]) == ("truncated", "output_blocked")
    assert [one["verdict"] for one in finish["decisions"]] == ["block"]


def test_a_redaction_is_made_in_flight(playbook: Callable[..., Play]) -> None:
    play = playbook(guarded("redact"))
    body = streamed(play, delta("A fal"), delta("con, a FAL"), delta("CON"), FINISH, DONE)
    assert content(body) == "A [REDACTED:term], a [REDACTED:term]"
    assert b"alcon" not in body.lower()
    finish = play.finish()
    assert finish["outcome"] == "completed"
    assert [one["verdict"] for one in finish["decisions"]] == ["redact"]


def test_a_match_that_is_the_very_end(playbook: Callable[..., Play]) -> None:
    play = playbook(guarded("block"))
    body = streamed(play, delta("A falcon"), DONE)
    assert content(body) == "A "
    assert events(body)[-1]["error"]["code"] == "output_blocked"


def test_a_stream_without_an_end_mark_loses_nothing(playbook: Callable[..., Play]) -> None:
    play = playbook(guarded("redact"))
    assert content(streamed(play, delta("A falco"))) == "A falco"


def test_arguments_of_tools_are_guarded_and_stay_json(playbook: Callable[..., Play]) -> None:
    settings = dlp("redact", "[output]", "[falcon]", ", streaming: guard, replacement: 'the \"bird\"'")
    play = playbook(configuration(policies=settings, chain="audit-logger, dlp-filter"))

    def call(arguments: str, **more: Any) -> bytes:
        piece = {"index": 0, **more, "function": {"arguments": arguments}}
        return b"data: %b\n\n" % orjson.dumps({"id": "c", "choices": [{"index": 0, "delta": {"tool_calls": [piece]}}]})

    body = streamed(play, call('{"q":"a fa', id="call_1"), call('lcon"}'), FINISH, DONE)
    pieces = [event["choices"][0]["delta"].get("tool_calls") for event in events(body) if isinstance(event, dict)]
    arguments = "".join(piece[0]["function"]["arguments"] for piece in pieces if piece)
    assert orjson.loads(arguments) == {"q": 'a the "bird"'}


def test_choices_are_texts_of_their_own(playbook: Callable[..., Play]) -> None:
    play = playbook(guarded("redact"))

    def say(number: int, text: str) -> bytes:
        return b"data: %b\n\n" % orjson.dumps({"choices": [{"index": number, "delta": {"content": text}}]})

    body = streamed(play, say(0, "fal"), say(1, "con fal"), say(0, "con"), say(1, "ter"), DONE)
    texts = ["", ""]
    for event in events(body):
        for choice in event["choices"] if isinstance(event, dict) else ():
            texts[choice["index"]] += choice["delta"]["content"]
    assert texts == ["[REDACTED:term]", "con falter"]


def test_log_probabilities_do_not_tell_what_is_held(playbook: Callable[..., Play]) -> None:
    play = playbook(guarded("redact"))
    tree = orjson.loads(delta("falcon")[6:])
    tree["choices"][0]["logprobs"] = {"content": [{"token": "falcon", "logprob": -0.1}]}
    body = streamed(play, b"data: %b\n\n" % orjson.dumps(tree), FINISH, DONE)
    assert b"falcon" not in body


def test_an_event_that_cannot_be_read_is_not_passed_on(playbook: Callable[..., Play]) -> None:
    play = playbook(guarded("redact"))
    body = streamed(play, delta("ok "), b"data: {falcon\n\n", DONE)
    assert b"falcon" not in body
    assert events(body)[-1]["error"]["code"] == "upstream_invalid"


def test_an_unfinished_event_at_the_end_is_not_passed_on(playbook: Callable[..., Play]) -> None:
    play = playbook(guarded("redact"))
    assert streamed(play, delta("ok"), delta("falcon")[:-2]) == delta("ok")


def test_hold_done_policies_still_have_the_last_word(playbook: Callable[..., Play]) -> None:
    policies = dlp("redact", "[output]", "[falcon]", ", streaming: guard") + "  language-validator: {deny: [de]}\n"
    policies = policies.replace("deny: [de]", "deny: [de], phase: [output]")
    play = playbook(configuration(policies=policies, chain="audit-logger, dlp-filter, language-validator"))
    german = "Das ist ein deutscher Satz, in dem der falcon nur ein Vogel unter vielen anderen Tieren ist. "
    body = streamed(play, delta(german), FINISH, DONE)
    assert content(body).count("[REDACTED:term]") == 1
    assert events(body)[-1]["error"]["policy"] == "language-validator"
    assert {one["policy"]: one["verdict"] for one in play.finish()["decisions"]} == {
        "dlp-filter": "redact",
        "language-validator": "block",
    }


# The other formats of clients

MESSAGES: dict[str, Any] = {**STREAM, "max_tokens": 100}


def anthropic(*texts: str) -> list[bytes]:
    def event(kind: str, **fields: Any) -> bytes:
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps({"type": kind, **fields}))

    deltas = [event("content_block_delta", index=0, delta={"type": "text_delta", "text": text}) for text in texts]
    return [
        event("message_start", message={"id": "m", "type": "message", "role": "assistant", "content": []}),
        event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        *deltas,
        event("content_block_stop", index=0),
        event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 3}),
        event("message_stop"),
    ]


def test_messages_of_anthropic(playbook: Callable[..., Play]) -> None:
    one = target(provider="anthropic")
    play = playbook(
        configuration(one, policies=dlp("redact", "[output]", "[falcon]", ", streaming: guard"), chain="dlp-filter")
    )
    frames = anthropic("A fal", "con and a fal")
    body = streamed(play, *frames, ask=MESSAGES, path="/v1/messages")
    found = [orjson.loads(data_of(frame) or b"") for frame in FrameSplitter().feed(body)]
    texts = [event["delta"]["text"] for event in found if event["type"] == "content_block_delta"]
    assert "".join(texts) == "A [REDACTED:term] and a fal"
    kinds = [event["type"] for event in found]
    assert kinds == ["message_start", "content_block_start", *["content_block_delta"] * 3, "content_block_stop",
                     "message_delta", "message_stop"]  # fmt: skip


def test_a_block_in_messages_is_an_error_event_of_that_format(playbook: Callable[..., Play]) -> None:
    one = target(provider="anthropic")
    play = playbook(
        configuration(one, policies=dlp("block", "[output]", "[falcon]", ", streaming: guard"), chain="dlp-filter")
    )
    body = streamed(play, *anthropic("A fal", "con!"), ask=MESSAGES, path="/v1/messages")
    last = FrameSplitter().feed(body)[-1]
    assert last.startswith(b"event: error\n")
    assert b"alcon" not in body


def test_a_translated_stream(playbook: Callable[..., Play]) -> None:
    one = target(provider="anthropic")
    play = playbook(
        configuration(one, policies=dlp("redact", "[output]", "[falcon]", ", streaming: guard"), chain="dlp-filter")
    )
    body = streamed(play, *anthropic("A fal", "con and a fal"))
    assert content(body) == "A [REDACTED:term] and a fal"
    assert events(body)[-1] == "[DONE]"


def responses(*texts: str) -> list[bytes]:
    number = iter(range(100))

    def event(kind: str, **fields: Any) -> bytes:
        data = {"type": f"response.{kind}", "sequence_number": next(number), **fields}
        return b"event: response.%b\ndata: %b\n\n" % (kind.encode(), orjson.dumps(data))

    whole = "".join(texts)
    part = {"type": "output_text", "text": whole, "annotations": []}
    item = {"id": "msg_1", "type": "message", "role": "assistant", "content": [part]}
    place = {"item_id": "msg_1", "output_index": 0}
    return [
        event("created", response={"id": "r", "output": []}),
        event("output_item.added", output_index=0, item={**item, "content": []}),
        event("content_part.added", **place, content_index=0, part={**part, "text": ""}),
        *[event("output_text.delta", **place, content_index=0, delta=text) for text in texts],
        event("output_text.done", **place, content_index=0, text=whole),
        event("content_part.done", **place, content_index=0, part=part),
        event("output_item.done", output_index=0, item=item),
        event("completed", response={"id": "r", "output": [item], "usage": {"input_tokens": 1, "output_tokens": 2}}),
    ]


@pytest.mark.parametrize("streaming", ["guard", "buffer"])
def test_responses_say_the_same_in_all_places(playbook: Callable[..., Play], streaming: str) -> None:
    play = playbook(guarded("redact", streaming))
    ask = {"model": "gpt-test", "input": "Hello", "stream": True}
    body = streamed(play, *responses("A fal", "con and a fal"), ask=ask, path="/v1/responses")
    found = [orjson.loads(data_of(frame) or b"") for frame in FrameSplitter().feed(body)]
    expected = "A [REDACTED:term] and a fal"
    assert "".join(one["delta"] for one in found if one["type"].endswith(".delta")) == expected
    by_type = {one["type"]: one for one in found}
    assert by_type["response.output_text.done"]["text"] == expected
    assert by_type["response.content_part.done"]["part"]["text"] == expected
    assert by_type["response.output_item.done"]["item"]["content"][0]["text"] == expected
    assert by_type["response.completed"]["response"]["output"][0]["content"][0]["text"] == expected
    assert [one["sequence_number"] for one in found] == list(range(len(found)))


def test_completions(playbook: Callable[..., Play]) -> None:
    play = playbook(guarded("redact"))

    def say(text: str, finish: str | None = None) -> bytes:
        choice = {"index": 0, "text": text, "finish_reason": finish}
        return b"data: %b\n\n" % orjson.dumps({"id": "c", "object": "text_completion", "choices": [choice]})

    ask = {"model": "gpt-test", "prompt": "Hello", "stream": True}
    body = streamed(play, say("A fal"), say("con and a fal", "stop"), DONE, ask=ask, path="/v1/completions")
    texts = [event["choices"][0]["text"] for event in events(body) if isinstance(event, dict)]
    assert "".join(texts) == "A [REDACTED:term] and a fal"


# Buffered


def test_a_buffered_stream_begins_when_it_has_been_judged(playbook: Callable[..., Play]) -> None:
    play = playbook(guarded("block", "buffer"))
    play.ask(STREAM)
    play.provider().says(SSE_HEAD, chunk(delta("Hello")), chunk(FINISH))
    assert play.client.transcript == []
    play.provider().says(chunk(DONE))
    assert play.client.body == delta("Hello") + FINISH + DONE
    assert play.client.headers["content-type"].startswith("text/event-stream")


def test_a_block_of_a_buffered_stream_is_an_ordinary_error(playbook: Callable[..., Play]) -> None:
    play = playbook(guarded("block", "buffer"))
    streamed(play, delta("A fal"), delta("con"), FINISH, DONE)
    assert play.client.transcript == ["refused: 409 output_blocked"]
    assert play.finish()["outcome"] == "refused"


def test_a_redaction_in_a_buffered_stream(playbook: Callable[..., Play]) -> None:
    play = playbook(guarded("redact", "buffer"))
    body = streamed(play, delta("A fal"), delta("con"), FINISH, DONE)
    assert content(body) == "A [REDACTED:term]"


# Values that come back

RESTORE = configuration(
    policies="\n  pii-detector: {entities: [email], restore: true}\n", chain="audit-logger, pii-detector"
)
MAIL = "Write to jane.doe@example.com and say <EMAIL_1>."


def asked(**more: Any) -> dict[str, Any]:
    return {**CHAT, "messages": [{"role": "user", "content": MAIL}], **more}


def test_values_leave_as_placeholders_and_come_back(playbook: Callable[..., Play]) -> None:
    play = playbook(RESTORE)
    play.ask(asked())
    assert play.provider().body["messages"][0]["content"] == "Write to <EMAIL_2> and say <EMAIL_1>."
    answer = {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "To <EMAIL_2>: <EMAIL_1> <EMAIL_3>"}}]
    }
    play.provider().says(respond(orjson.dumps(answer)))
    told = orjson.loads(play.client.writes[0])["choices"][0]["message"]["content"]
    assert told == "To jane.doe@example.com: <EMAIL_1> <EMAIL_3>"
    assert b"jane" not in b"".join(play.audit)


@pytest.mark.parametrize("cut", range(1, 20))
def test_values_come_back_in_streams_however_they_are_cut(playbook: Callable[..., Play], cut: int) -> None:
    play = playbook(RESTORE)
    text = "a <b <EMAIL_2>, <EMAIL_1> <EMAIL_"
    pieces = [text[place : place + cut] for place in range(0, len(text), cut)]
    body = streamed(play, *map(delta, pieces), FINISH, DONE, ask=asked(stream=True))
    assert content(body) == "a <b jane.doe@example.com, <EMAIL_1> <EMAIL_"


def test_a_request_without_values_passes_as_before(playbook: Callable[..., Play]) -> None:
    play = playbook(RESTORE)
    play.ask(STREAM)
    frame = chunk(delta("Hello <EMAIL_1>"))
    play.provider().says(SSE_HEAD, frame)
    assert play.client.writes[-1] == frame


# What large bodies cost the event loop


@pytest.mark.parametrize(("text", "threads"), [("word " * 8_000, 0), ("a falcon " * 4_000, 1), ("word " * 20_000, 1)])
def test_a_large_body_is_looked_at_closely_in_a_thread_only_if_need_be(
    playbook: Callable[..., Play], text: str, threads: int
) -> None:
    play = playbook(configuration(policies=dlp("redact", "[input]", "[falcon]"), chain="audit-logger, dlp-filter"))
    play.ask({**CHAT, "messages": [{"role": "user", "content": text}]})
    assert len(play.threads) == threads
    for _ in range(threads):
        play.work()
    assert b"falcon" not in play.provider().asked
    play.provider().says(respond(b"{}"))
    assert play.finish()["outcome"] == "completed"


@pytest.mark.parametrize(("fail_mode", "passes"), [("block", False), ("allow", True)])
def test_a_policy_that_hangs_is_what_the_fail_mode_says(
    playbook: Callable[..., Play], fail_mode: str, passes: bool
) -> None:
    policies = dlp("redact", "[input]", "[falcon]")
    gateway = f"gateway: {{fail_mode: {fail_mode}}}"
    play = playbook(configuration(policies=policies, chain="audit-logger, dlp-filter", gateway=gateway))
    play.ask({**CHAT, "messages": [{"role": "user", "content": "a falcon " * 4_000}]})
    play.advance(29)
    assert play.client.transcript == []
    play.advance(2)
    assert isinstance(play.faults.pop(), TimeoutError)
    if passes:
        play.provider().says(respond(b"{}"))
    else:
        assert play.client.transcript == ["refused: 409 input_blocked"]
    play.work()
    assert play.finish()["outcome"] == ("completed" if passes else "refused")
    assert len(play.pool.providers) == passes


# One text, one reading


@pytest.mark.parametrize("size", [0, 60_000])
def test_a_text_cannot_hide_behind_another_of_the_same_key(playbook: Callable[..., Play], size: int) -> None:
    play = playbook(configuration(policies=dlp("block", "[input]", "[falcon]"), chain="audit-logger, dlp-filter"))
    padding = b"x" * size
    play.ask(b'{"model":"gpt-test","messages":[{"role":"user","content":"a falcon","content":"hi %b"}]}' % padding)
    for _ in play.threads[:]:
        play.work()
    assert play.client.transcript == ["refused: 400 invalid_request"]
    assert not play.pool.providers


def test_a_body_that_is_clean_in_every_reading_passes(playbook: Callable[..., Play]) -> None:
    play = playbook(configuration(policies=dlp("block", "[input]", "[falcon]"), chain="audit-logger, dlp-filter"))
    body = b'{"model":"gpt-test","messages":[{"role":"user","content":"a","content":"b"}]}'
    play.ask(body)
    assert play.provider().asked.endswith(body)
    play.provider().says(respond(b"{}"))


def test_each_record_has_its_own_decisions(playbook: Callable[..., Play]) -> None:
    """Also from the second request of a connection on, whose record is filled into the first one's form."""
    play = playbook(configuration(policies=dlp("redact", "[input]", "[falcon]"), chain="audit-logger, dlp-filter"))
    connection, _ = play.connect()
    for text in (b"hello", b"hello again", b"a falcon", b"good bye"):
        body = b'{"model":"gpt-test","messages":[{"role":"user","content":"%b"}]}' % text
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost:41002\r\nauthorization: Bearer %b\r\n" % KEY
        connection.data_received(head + b"content-length: %d\r\n\r\n%b" % (len(body), body))
        play.provider().says(respond(b"{}"))
    starts = [record for record in play.records if record["kind"] == "start"]
    assert [[one["verdict"] for one in start["decisions"]] for start in starts] == [
        ["allow"],
        ["allow"],
        ["redact"],
        ["allow"],
    ]
