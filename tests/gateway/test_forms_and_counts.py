"""What is read with its head (forms), and what is answered without a provider (counts of tokens)."""

from __future__ import annotations

from collections.abc import Callable

import orjson
import pytest

from tests.playbook import Play, configuration, dlp, gateway_key, target

COUNT = "/v1/messages/count_tokens"
TRANSCRIBE = "/v1/audio/transcriptions"
BODY = {"model": "gpt-test", "messages": [{"role": "user", "content": "word " * 400}]}
KIND = "Content-Type: multipart/form-data; boundary=b"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n"


def form(model: str = "gpt-test", sound: bytes = b"RIFF" * 10, prompt: str = "") -> bytes:
    fields = {"model": model.encode(), "prompt": prompt.encode()}
    parts = [
        b'--b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (name.encode(), value)
        for name, value in fields.items()
    ]
    file = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n%b\r\n' % sound
    return b"".join([*parts, file, b"--b--\r\n"])


def says(play: Play, body: bytes, media: bytes = b"application/json") -> None:
    play.provider().says(HEAD % (media, len(body)) + body)


class TestCounts:
    def test_the_gateway_answers_by_itself(self, play: Play) -> None:
        for _ in range(2):
            play.ask(BODY, COUNT)
            assert play.client.status == 200
            assert 500 <= orjson.loads(play.client.body)["input_tokens"] <= 550
            assert play.client.headers["content-type"] == "application/json"
            assert "estimated" in play.client.headers["x-kt-translation-notes"]
            finish = play.finish()
            assert (finish["outcome"], finish["target"]) == ("completed", "one")
            assert "estimated" in finish["notes"][0]
        assert play.pool.providers == []

    def test_it_costs_a_key_no_tokens(self, playbook: Callable[..., Play]) -> None:
        play = playbook(key=gateway_key(tokens_per_minute=1000))
        for _ in range(5):
            play.ask(BODY, COUNT)
            assert play.client.status == 200

    def test_policies_read_what_would_be_sent(self, playbook: Callable[..., Play]) -> None:
        play = playbook(configuration(policies=dlp(), chain="audit-logger, dlp-filter"))
        play.ask({**BODY, "system": "a secret"}, COUNT)
        assert play.client.status == 409
        assert orjson.loads(play.client.body)["type"] == "error"

    def test_a_providers_own_counter(self, playbook: Callable[..., Play]) -> None:
        play = playbook(configuration(target(provider="gemini")))
        play.ask(BODY, COUNT)
        assert play.provider().asked.startswith(b"POST /v1/models/gpt-test:countTokens HTTP/1.1\r\n")
        says(play, b'{"totalTokens":402}')
        assert play.client.body == b'{"input_tokens":402}'

    def test_anthropic_is_asked_as_it_is(self, playbook: Callable[..., Play]) -> None:
        play = playbook(configuration(target(provider="anthropic")))
        play.ask(BODY, COUNT)
        assert play.provider().asked.startswith(b"POST /v1/messages/count_tokens HTTP/1.1\r\n")
        assert play.provider().body == BODY
        says(play, b'{"input_tokens":402}')
        assert play.client.body == b'{"input_tokens":402}'


class TestForms:
    def test_the_same_bytes_go_on(self, play: Play) -> None:
        for sound in (b"one", b"two" * 1000):  # the second request has the head of the first
            play.ask(form(sound=sound), TRANSCRIBE, headers=[KIND])
            assert play.provider().asked.partition(b"\r\n\r\n")[2] == form(sound=sound)
            assert play.provider().headers["content-type"] == KIND.partition(": ")[2]
            says(play, b'{"text":"hello","usage":{"type":"tokens","input_tokens":3,"output_tokens":4}}')
            assert orjson.loads(play.client.body)["text"] == "hello"
            assert play.finish()["prompt_tokens"] == 3

    @pytest.mark.parametrize(
        "headers", [[], [KIND, KIND], ["Content-Type: text/plain"], [KIND.replace("=b", "=other")], [KIND + "\t; x=1"]]
    )
    def test_a_head_that_leaves_a_doubt(self, play: Play, headers: list[str]) -> None:
        play.ask(form(), TRANSCRIBE, headers=headers)
        assert play.client.transcript == ["refused: 400 invalid_request"]

    def test_the_model_is_the_forms(self, play: Play) -> None:
        play.ask(form(model="other"), TRANSCRIBE, headers=[KIND])
        assert play.client.status == 404

    def test_a_sound_is_not_counted_as_text(self, playbook: Callable[..., Play]) -> None:
        play = playbook(key=gateway_key(tokens_per_minute=1000))
        play.ask(form(sound=bytes(100_000)), TRANSCRIBE, headers=[KIND])
        assert play.pool.providers

    def test_a_redacted_prompt(self, playbook: Callable[..., Play]) -> None:
        play = playbook(configuration(policies=dlp("redact"), chain="audit-logger, dlp-filter"))
        play.ask(form(prompt="a secret"), TRANSCRIBE, headers=[KIND])
        sent = play.provider().asked.partition(b"\r\n\r\n")[2]
        assert b"secret" not in sent
        assert sent.startswith(form(prompt="a ").partition(b"a \r\n")[0])

    def test_a_transcript_in_plain_text_is_reviewed(self, playbook: Callable[..., Play]) -> None:
        play = playbook(configuration(policies=dlp("redact", "[output]"), chain="audit-logger, dlp-filter"))
        play.ask(form(), TRANSCRIBE, headers=[KIND])
        says(play, b"this is secret\n", b"text/plain")
        assert play.client.status == 200
        assert b"secret" not in play.client.body
        assert play.client.body.startswith(b"this is ")

    def test_a_sound_flows_as_it_comes(self, play: Play) -> None:
        play.ask({"model": "gpt-test", "voice": "alloy", "input": "hello"}, "/v1/audio/speech")
        head = b"HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ntransfer-encoding: chunked\r\n\r\n"
        play.provider().says(head + b"3\r\n\xff\xfb\x90\r\n")
        assert play.client.body == b"\xff\xfb\x90"
        play.provider().says(b"1\r\n\x00\r\n0\r\n\r\n")
        assert play.client.body == b"\xff\xfb\x90\x00"
        assert play.finish()["outcome"] == "completed"


def test_C18_a_clients_flags_stay_with_their_format(playbook: Callable[..., Play]) -> None:
    play = playbook(configuration(target(model="a"), target("two", "b", "anthropic")))
    body = {"max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    for model, flags in (("a", None), ("b", "one,two")):
        play.ask({**body, "model": model}, "/v1/messages", headers=["Anthropic-Beta: one,two"])
        assert play.provider().headers.get("anthropic-beta") == flags
