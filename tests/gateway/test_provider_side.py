"""What a provider says in a conversation: forwarded where nobody has to read it, guarded, kept, judged as a whole."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.playbook import configuration, dlp, target
from tests.talk import Talk
from tests.talk_events import CREATE, GUARDED, answer, created, delta, done, heard, item, responses, shown, wish

# What a provider says


def test_an_unguarded_answer_is_forwarded_and_recorded(talks: Callable[..., Talk]) -> None:
    talk = talks()
    talk.join()
    talk.says(item("hello"), CREATE)
    assert [one["kind"] for one in talk.records] == ["start", "start"]
    events = answer("Hi ", "there")
    talk.socket.says(*events)
    assert talk.hears() == events
    assert len(talk.client_socket.forwarded) == len(events)
    (turn,) = talk.turns
    assert (turn["outcome"], turn["status"], turn["target"]) == ("completed", 200, "one")
    assert (turn["prompt_tokens"], turn["completion_tokens"], turn["cached_tokens"]) == (7, 5, 2)
    assert turn["start"]["operation"] == "realtime"
    assert turn["start"]["attributes"]["socket"] == talk.records[0]["id"]
    assert talk.metric("keeptrusts_llm_tokens_total") == 12
    assert turn["bytes_sent"] == sum(len(orjson.dumps(event)) for event in events)
    assert talk.metric("keeptrusts_gateway_websocket_messages_total") == 2 + len(events)


def test_a_phrase_over_ten_deltas_is_redacted_everywhere(talks: Callable[..., Talk]) -> None:
    talk = talks(GUARDED)
    talk.join()
    talk.says(CREATE)
    pieces = ["A b", "a", "n", "n", "e", "d ", "ph", "ra", "s", "e, and more"]
    talk.socket.says(*answer(*pieces))
    heard = talk.hears()
    expected = "A [REDACTED:term], and more"
    assert "".join(one["delta"] for one in heard if one["type"].endswith(".delta")) == expected
    by_type = {one["type"]: one for one in heard}
    assert by_type["response.output_audio_transcript.done"]["transcript"] == expected
    assert by_type["response.content_part.done"]["part"]["transcript"] == expected
    assert by_type["conversation.item.done"]["item"]["content"][0]["transcript"] == expected
    assert by_type["response.output_item.done"]["item"]["content"][0]["transcript"] == expected
    assert by_type["response.done"]["response"]["output"][0]["content"][0]["transcript"] == expected
    assert [one["verdict"] for one in talk.turns[0]["decisions"]] == ["redact"]


def test_what_stays_as_it_is_goes_on_as_the_bytes_it_was(talks: Callable[..., Talk]) -> None:
    talk = talks(GUARDED)
    talk.join()
    talk.says(CREATE)
    events = answer("Quite ", "harmless")
    talk.socket.says(*events)
    assert talk.hears() == events
    assert len(talk.client_socket.forwarded) == len(events)


@pytest.mark.parametrize("name", ["response.text", "response.output_text", "response.function_call_arguments",
                                  "response.audio_transcript", "response.mcp_call_arguments"])  # fmt: skip
def test_texts_of_all_names_are_guarded(talks: Callable[..., Talk], name: str) -> None:
    talk = talks(GUARDED)
    talk.join()
    talk.says(CREATE)
    talk.socket.says(created(), delta("a banned ", type=f"{name}.delta"), delta("phrase", type=f"{name}.delta"))
    assert b"banned" not in b"".join(talk.client_socket.sent[1:])


def test_audio_is_forwarded_unread(talks: Callable[..., Talk]) -> None:
    talk = talks(GUARDED)
    talk.join()
    talk.says(CREATE)
    audio = b'{"type":"response.output_audio.delta","response_id":"resp_1","item_id":"item_1","delta":"AAAA"}'
    talk.socket.says(created(), audio)
    assert talk.client_socket.forwarded[-1].data == audio


def test_a_blocked_answer_is_cancelled_and_fails(talks: Callable[..., Talk]) -> None:
    talk = talks(GUARDED.replace("redact", "block"))
    talk.join()
    talk.says(CREATE)
    talk.told()
    talk.socket.says(created(), delta("A banned "), delta("phrase"), delta(" and more"))
    heard = talk.hears()
    assert "".join(one.get("delta", "") for one in heard) == "A "
    assert heard[-1]["error"]["code"] == "output_blocked"
    assert talk.told() == [{"type": "response.cancel", "response_id": "resp_1"}]
    talk.socket.says(
        b'{"type":"response.output_audio.delta","response_id":"resp_1","delta":"AAAA"}', done("A banned phrase")
    )
    (last,) = talk.hears()
    assert last["type"] == "response.done"
    assert last["response"]["status"] == "failed"
    assert last["response"]["output"] == []
    turn = talk.turns[0]
    assert (turn["outcome"], turn["code"], turn["completion_tokens"]) == ("truncated", "output_blocked", 5)
    talk.says(CREATE)
    talk.socket.says(created("resp_2"), done("fine", "resp_2"))
    assert talk.hears()[-1]["response"]["status"] == "completed"


def test_hold_done_has_the_last_word(talks: Callable[..., Talk]) -> None:
    talk = talks(configuration(policies=dlp("block", "[output]", "[falcon]"), chain="audit-logger, dlp-filter"))
    talk.join()
    talk.says(CREATE)
    events = answer("A fal", "con")
    talk.socket.says(*events)
    heard = talk.hears()
    assert heard[: len(events) - 1] == events[:-1]
    assert heard[-2]["error"]["code"] == "output_blocked"
    assert heard[-1]["response"]["status"] == "failed"
    assert talk.told() == [CREATE]


def test_buffered_answers_come_when_they_have_been_judged(talks: Callable[..., Talk]) -> None:
    policies = dlp("redact", "[output]", "[falcon]", ", streaming: buffer")
    talk = talks(configuration(policies=policies, chain="dlp-filter"))
    talk.join()
    talk.says(CREATE)
    events = answer("A fal", "con")
    talk.socket.says(*events[:-1])
    assert talk.hears() == []
    talk.socket.says(events[-1])
    heard = talk.hears()
    assert "".join(one["delta"] for one in heard if one["type"].endswith(".delta")) == "A [REDACTED:term]"
    assert heard[-1]["response"]["output"][0]["content"][0]["transcript"] == "A [REDACTED:term]"


def test_a_long_answer_is_reviewed_in_a_thread_and_nothing_overtakes_it(talks: Callable[..., Talk]) -> None:
    talk = talks(configuration(policies=dlp("block", "[output]", "[falcon]"), chain="dlp-filter"))
    talk.join()
    talk.says(CREATE)
    talk.socket.says(created(), done("long " * 10_000))
    assert talk.socket.pauses == {"review"}
    assert [one["type"] for one in talk.hears()] == ["response.created"]
    talk.work()
    assert talk.socket.pauses == set()
    assert [one["type"] for one in talk.hears()] == ["response.done"]


def test_what_a_user_was_heard_to_say_is_guarded(talks: Callable[..., Talk]) -> None:
    talk = talks(GUARDED)
    talk.join()
    place = {"item_id": "item_9", "content_index": 0}
    name = "conversation.item.input_audio_transcription"
    talk.socket.says(
        {"type": f"{name}.delta", **place, "delta": "my banned "},
        {"type": f"{name}.delta", **place, "delta": "phrase."},
        {"type": f"{name}.completed", **place, "transcript": "my banned phrase."},
    )
    heard = talk.hears()
    assert "".join(one.get("delta", "") for one in heard) == "my [REDACTED:term]."
    assert heard[-1]["transcript"] == "my [REDACTED:term]."


def test_a_response_that_nobody_asked_for_is_a_turn_as_well(talks: Callable[..., Talk]) -> None:
    talk = talks()
    talk.join()
    talk.socket.says(*answer("I heard you stop"))
    (turn,) = talk.turns
    assert (turn["outcome"], turn["completion_tokens"]) == ("completed", 5)


@pytest.mark.parametrize(
    ("status", "outcome"), [("failed", "failed"), ("cancelled", "cancelled"), ("incomplete", "completed")]
)
def test_how_a_response_ends(talks: Callable[..., Talk], status: str, outcome: str) -> None:
    talk = talks()
    talk.join()
    talk.says(CREATE)
    talk.socket.says(created(), done("", status=status))
    assert talk.turns[0]["outcome"] == outcome


def test_an_error_about_a_wish_ends_it(talks: Callable[..., Talk]) -> None:
    talk = talks()
    talk.join()
    talk.says({**CREATE, "event_id": "one"}, {**CREATE, "event_id": "two"})
    talk.socket.says({"type": "error", "event_id": "e", "error": {"code": "x", "event_id": "two"}})
    assert [one["outcome"] for one in talk.turns] == ["failed"]
    talk.socket.says(created(), done("fine"))
    assert [one["outcome"] for one in talk.turns] == ["failed", "completed"]


# Speech


def test_speech_that_is_refused_is_taken_out_and_not_answered(talks: Callable[..., Talk]) -> None:
    talk = talks(configuration(policies=dlp(), chain="audit-logger, dlp-filter"))
    talk.join()
    talk.socket.says(created(), heard("tell me the secret"))
    assert talk.told() == [
        {"type": "conversation.item.delete", "item_id": "item_9"},
        {"type": "response.cancel", "response_id": "resp_1"},
    ]
    kinds = [one["type"] for one in talk.hears()]
    assert kinds == ["response.created", "error", "error", heard("")["type"]]
    talk.socket.says(delta("The secret is"), done("The secret is", status="cancelled"))
    (last,) = talk.hears()
    assert (last["type"], last["response"]["status"], last["response"]["output"]) == ("response.done", "failed", [])
    assert [turn["code"] for turn in talk.turns] == ["input_blocked", "input_blocked"]


def test_speech_that_is_fine_is_recorded_with_the_next_response(talks: Callable[..., Talk]) -> None:
    talk = talks(configuration(policies=dlp("redact"), chain="audit-logger, dlp-filter"))
    talk.join()
    talk.socket.says(heard("the secret"), heard("more", "item_10"), *answer("fine"))
    assert talk.told() == []
    assert [one["verdict"] for one in talk.turns[0]["start"]["decisions"]] == ["redact"]


# Silence, and what comes too late


def test_a_provider_that_does_not_begin_in_time(talks: Callable[..., Talk]) -> None:
    talk = talks(configuration(target(timeouts="{first_byte_seconds: 5, idle_seconds: 20}")))
    talk.join()
    talk.advance(100)
    talk.says({**CREATE, "event_id": "mine"})
    talk.advance(4)
    assert talk.hears() == []
    talk.advance(2)
    (error,) = talk.hears()
    assert (error["error"]["code"], error["error"]["event_id"]) == ("upstream_timeout", "mine")
    assert (talk.turns[0]["outcome"], talk.turns[0]["status"]) == ("failed", 504)
    assert talk.client_socket.is_open


def test_a_provider_that_stops_in_the_middle(talks: Callable[..., Talk]) -> None:
    talk = talks(configuration(target(timeouts="{first_byte_seconds: 5, idle_seconds: 20}")))
    talk.join("/v1/responses")
    talk.says(wish())
    talk.socket.accepts()
    talk.socket.says(responses("x")[0])
    talk.hears()
    talk.advance(19)
    assert talk.hears() == []
    talk.advance(2)
    assert talk.hears()[0]["error"]["code"] == "upstream_timeout"


@pytest.mark.parametrize("path", ["/v1/realtime?model=gpt-test", "/v1/responses"])
def test_an_answer_without_its_beginning_is_guarded_all_the_same(talks: Callable[..., Talk], path: str) -> None:
    talk = talks(GUARDED)
    talk.join(path)
    if talk.upgrade.kind.value == "responses":
        talk.says(wish(stream_id="other"))
        talk.socket.accepts()
        events = responses("A banned ", "phrase, and")[1:]
    else:
        events = answer("A banned ", "phrase, and")[4:]
    talk.socket.says(*events)
    heard_events = talk.hears()
    assert "".join(one.get("delta", "") for one in heard_events) == "A [REDACTED:term], and"
    assert b"banned" not in b"".join(orjson.dumps(one) for one in heard_events)


def test_a_piece_without_any_name_is_guarded_all_the_same(talks: Callable[..., Talk]) -> None:
    talk = talks(GUARDED)
    talk.join()
    talk.socket.says({"type": "response.output_text.done", "text": "a banned phrase"})
    assert talk.hears()[0]["text"] == "a [REDACTED:term]"


def test_a_clients_own_words_are_shown_to_it_as_it_wrote_them(talks: Callable[..., Talk]) -> None:
    talk = talks(GUARDED.replace("redact", "block"))
    talk.join()
    echo = shown([{"type": "input_text", "text": "a banned phrase"}])
    talk.socket.says(echo)
    assert talk.hears() == [echo]
    talk.socket.says(shown([{"type": "input_audio", "transcript": "a banned phrase"}]))
    assert talk.hears()[0]["error"]["code"] == "output_blocked"
    talk.socket.says(shown([{"type": "output_text", "text": "a banned phrase"}], role="assistant"))
    assert talk.hears()[0]["error"]["code"] == "output_blocked"


def test_a_clients_own_words_are_shown_with_its_values(talks: Callable[..., Talk]) -> None:
    policies = "\n  pii-detector: {entities: [email], restore: true}\n"
    talk = talks(configuration(policies=policies, chain="pii-detector"))
    talk.join()
    talk.says(item("I am a@example.com"))
    talk.socket.says(shown(talk.told()[0]["item"]["content"]))
    assert talk.hears()[0]["item"]["content"][0]["text"] == "I am a@example.com"


# Whatever comes

_WORDS = st.lists(st.sampled_from(["banned phrase", "banned", "phrase", " ", "x", "ban", ", "]), max_size=12)


def test_however_an_answer_is_cut_nothing_banned_leaves(talks: Callable[..., Talk]) -> None:
    talk = talks(GUARDED)
    talk.join()

    @settings(max_examples=40, deadline=None)
    @given(_WORDS.map("".join), st.data())
    def cut(text: str, data: st.DataObject) -> None:
        cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=8).map(sorted))
        pieces = [piece for piece in (text[a:b] for a, b in pairwise([0, *cuts, len(text)])) if piece]
        talk.says(CREATE)
        talk.socket.says(*answer(*pieces))
        heard_events = talk.hears()
        said = "".join(one["delta"] for one in heard_events if one["type"].endswith(".delta"))
        assert said == re.sub(r"\bbanned phrase\b", "[REDACTED:term]", text)
        assert heard_events[-1]["response"]["output"][0]["content"][0]["transcript"] == said

    cut()


_TYPES = [
    "session.update", "conversation.item.create", "response.create", "response.cancel", "response.steer", "error",
    "session.created", "response.created", "response.done", "response.completed", "response.failed", "response.x.delta",
    "response.output_item.added", "response.output_text.delta", "response.output_text.done", "conversation.item.done",
    "response.content_part.done", "conversation.item.input_audio_transcription.delta",
    "conversation.item.input_audio_transcription.completed", "response.output_audio.delta", "of.tomorrow",
]  # fmt: skip
_LEAVES = st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "x", "banned phrase", "gpt-test", "a"])
_ANY = st.recursive(
    _LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "id", "text", "content", "output", "model", "usage", "item"]), inner)
    ),
    max_leaves=6,
)
_EVENTS = st.fixed_dictionaries(
    {"type": st.sampled_from(_TYPES) | _ANY},
    optional={
        name: _ANY | st.sampled_from(["a", "resp_1"])
        for name in ("response", "response_id", "item", "item_id", "delta", "text", "transcript", "part", "session",
                     "output_index", "content_index", "stream_id", "event_id", "error", "model", "input", "audio")
    },
)  # fmt: skip


@pytest.mark.parametrize("streaming", ["hold_done", "guard", "buffer"])
@pytest.mark.parametrize("path", ["/v1/realtime?model=gpt-test", "/v1/responses"])
def test_whatever_is_said_is_no_fault_of_the_gateway(talks: Callable[..., Talk], path: str, streaming: str) -> None:
    text = GUARDED.replace("streaming: guard", f"streaming: {streaming}").replace("[output]", "[input, output]")

    @settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(st.tuples(st.booleans(), _EVENTS), max_size=12))
    def converse(said: list[tuple[bool, dict[str, Any]]]) -> None:
        talk.join(path)
        if talk.upgrade.kind.value == "responses":
            talk.says(wish())
            talk.socket.accepts()
        for by_client, event in said:
            if not talk.client_socket.is_open:
                break
            (talk.client_socket if by_client else talk.socket).says(event)
        talk.leave()
        talk.check()

    talk = talks(text)
    converse()
