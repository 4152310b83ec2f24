"""Audio and images: what is read of their answers, whole and streamed."""

from __future__ import annotations

import orjson
import pytest

from gateway.errors import InvalidJSON, InvalidRequest
from gateway.sse import frame_of
from gateway.types import Operation, Usage
from translators import openai_media
from translators.openai_media import EventsTap, read
from translators.paths import replace_texts
from translators.plan import bind
from translators.providers import row_of

USAGE = {"type": "tokens", "input_tokens": 14, "output_tokens": 5, "total_tokens": 19}


class TestSpeech:
    def test_what_is_spoken_is_text(self) -> None:
        body = orjson.dumps(
            {"model": "tts-1", "voice": "alloy", "input": "hello", "instructions": "softly", "speed": 1}
        )
        view = openai_media.speech_view(body)
        assert (view.model, view.stream) == ("tts-1", False)
        assert [(part.path, part.text) for part in view.texts()] == [("input", "hello"), ("instructions", "softly")]

    def test_text_hidden_in_a_voice(self) -> None:
        body = orjson.dumps({"model": "m", "voice": {"id": "x", "note": "a text"}, "input": "a"})
        assert "a text" in [part.text for part in openai_media.speech_view(body).texts()]

    def test_events_only_where_they_were_asked_for(self) -> None:
        assert openai_media.speech_view(b'{"model":"m","input":"a","stream_format":"sse"}').stream
        assert not openai_media.speech_view(b'{"model":"m","input":"a","stream_format":"audio"}').stream

    @pytest.mark.parametrize("body", [b"", b"[]", b'{"model":1}', b'{"input":"a","input":"b"}'])
    def test_a_bad_body(self, body: bytes) -> None:
        with pytest.raises((InvalidJSON, InvalidRequest)):
            openai_media.speech_view(body)

    def test_a_redaction_and_a_model(self) -> None:
        speech = bind(Operation.SPEECH, row_of("openai"))
        body = b'{"model":"tts-1","voice":"alloy","input":"secret"}'
        view = speech.view(body)
        made = speech.request(body, view, model="tts-2", replacements={0: "[x]"}, meter=True).body
        assert orjson.loads(made) == {"model": "tts-2", "voice": "alloy", "input": "[x]"}


class TestAnswers:
    def test_a_transcript(self) -> None:
        answer = read(orjson.dumps({"text": "hello", "usage": USAGE}))
        assert answer.usage == Usage(14, 5)
        assert [(part.path, part.text) for part in answer.texts] == [("text", "hello")]

    def test_one_that_is_counted_by_seconds(self) -> None:
        assert read(orjson.dumps({"text": "a", "usage": {"type": "duration", "seconds": 9}})).usage is None

    def test_segments_and_words(self) -> None:
        body = {"text": "a b", "segments": [{"id": 0, "text": " a"}], "words": [{"word": "b", "start": 0.1}]}
        assert [part.path for part in read(orjson.dumps(body)).texts] == ["text", "segments[0].text", "words[0].word"]

    def test_plain_text(self) -> None:
        body = b"1\n00:00:00,000 --> 00:00:01,000\nhello\n"
        answer = read(body)
        assert [part.text for part in answer.texts] == [body.decode()]
        assert replace_texts(body, answer.texts, {0: "[x]"}) == b"[x]"

    def test_images(self) -> None:
        body = orjson.dumps(
            {"data": [{"b64_json": "A" * 10_000, "revised_prompt": "a cat"}, {"url": "x"}], "usage": USAGE}
        )
        answer = read(body)
        assert answer.usage == Usage(14, 5)
        assert [(part.path, part.text) for part in answer.texts] == [("data[0].revised_prompt", "a cat")]

    @pytest.mark.parametrize("body", [b"[]", b"null", b'{"text":1}', b'{"data":{}}', b'{"usage":[]}', b"\xff"])
    def test_an_odd_one_never_raises(self, body: bytes) -> None:
        assert read(body).usage is None

    def test_a_sound_is_not_read(self) -> None:
        assert openai_media.SPEECH.read(b"\xff\xfb\x90\x00").texts == ()


class TestStreams:
    def test_a_transcript(self) -> None:
        tap = EventsTap()
        for delta in ("hel", "lo"):
            tap.feed(frame_of(orjson.dumps({"type": "transcript.text.delta", "delta": delta})))
        assert [part.text for part in tap.answer().texts] == ["hello"]
        tap.feed(frame_of(orjson.dumps({"type": "transcript.text.done", "text": "hello", "usage": USAGE})))
        assert tap.answer().usage == Usage(14, 5)
        assert [(part.path, part.text) for part in tap.answer().texts] == [("text", "hello")]

    @pytest.mark.parametrize("kind", ["speech.audio.done", "image_generation.completed", "image_edit.completed"])
    def test_usage(self, kind: str) -> None:
        tap = EventsTap()
        tap.feed(frame_of(orjson.dumps({"type": kind, "b64_json": "AAAA", "usage": USAGE})))
        assert tap.usage == Usage(14, 5)

    @pytest.mark.parametrize(
        "frame", [b"data: [DONE]\n\n", b"data: {}\n\n", b": x\n\n", b"data: \xff\n\n", b"data: 1\n\n"]
    )
    def test_an_odd_frame_never_raises(self, frame: bytes) -> None:
        tap = EventsTap()
        tap.feed(frame)
        assert tap.answer().texts == []
