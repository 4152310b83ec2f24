"""What is read of a client's events, and by which bytes audio is told from everything else."""

from __future__ import annotations

import base64
import os
from typing import Any

import orjson
import pytest

from gateway.errors import GatewayError, InvalidJSON, InvalidRequest
from translators.realtime import is_audio, read

AUDIO = base64.b64encode(os.urandom(6000))


def texts(event: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    return [(part.role, part.kind, part.path, part.text) for part in read(orjson.dumps(event)).texts()]


@pytest.mark.parametrize(
    "message",
    [
        b'{"type":"input_audio_buffer.append","audio":"%b"}' % AUDIO,
        b'{"type": "input_audio_buffer.append", "audio": "%b"}' % AUDIO,
        b'{"audio":"%b","type":"input_audio_buffer.append"}' % AUDIO,
        b'{\n  "event_id": "event_12-a.b:c",\n  "type": "input_audio_buffer.append",\n  "audio": "%b"\n}' % AUDIO,
        b'{"type":"input_audio_buffer.append","audio":"%b","event_id":"e"}' % AUDIO,
        b'{"type":"input_audio_buffer.append","audio":""}',
    ],
)
def test_audio(message: bytes) -> None:
    assert is_audio(message)
    assert read(message).texts() == []


@pytest.mark.parametrize(
    "message",
    [
        b'{"type":"input_audio_buffer.append","audio":"AA","text":"x"}',
        b'{"type":"input_audio_buffer.append","audio":"AA","audio":"x"}',
        b'{"type":"conversation.item.create","audio":"AA"}',
        b'{"type":"input_audio_buffer.append","type":"response.create","audio":"AA"}',
        b'{"type":"input_audio_buffer.append","event_id":"a sentence is no id","audio":"AA"}',
        b'{"type":"input_audio_buffer.append","event_id":"\\u0061","audio":"AA"}',
        b'{"type":"input_audio_buffer.append","audio":"A\\"A"}',
        b'{"type":"input_audio_buffer.append","audio":"AA"}{"type":"response.create"}',
        b'{"type":"input_audio_buffer.append","audio":["AA"]}',
        b'{"item":{"type":"input_audio_buffer.append","audio":"AA"},"type":"conversation.item.create"}',
        b'{"x":"' + b"y" * 2000 + b'","type":"input_audio_buffer.append","audio":"AA"}',
        b'{"type":"input_audio_buffer.append","audio":"AA"',
        b'{"type":"input_audio_buffer.append"}',
        b"",
    ],
)
def test_what_only_looks_like_audio(message: bytes) -> None:
    assert not is_audio(message)


def test_roles_and_kinds_of_a_session() -> None:
    session = {
        "type": "realtime",
        "model": "gpt-realtime",
        "voice": "marin",
        "instructions": "Be kind.",
        "tools": [{"type": "function", "name": "look", "description": "Looks.", "parameters": {"type": "object"}}],
        "audio": {
            "input": {
                "format": {"type": "audio/pcm", "rate": 24000},
                "transcription": {"model": "whisper-1", "language": "en", "prompt": "Names: Ada"},
                "turn_detection": {"type": "semantic_vad", "eagerness": "auto"},
            },
            "output": {"voice": "marin", "speed": 1.0},
        },
    }
    assert texts({"type": "session.update", "session": session}) == [
        ("system", "instructions", "session.instructions", "Be kind."),
        ("system", "tool_definition", "session.tools[0].name", "look"),
        ("system", "tool_definition", "session.tools[0].description", "Looks."),
        ("system", "instructions", "session.audio.input.transcription.prompt", "Names: Ada"),
    ]


def test_the_betas_session() -> None:
    session = {
        "modalities": ["text", "audio"],
        "input_audio_format": "pcm16",
        "input_audio_transcription": {"model": "whisper-1", "prompt": "expect Ada"},
        "turn_detection": {"type": "server_vad"},
    }
    (only,) = texts({"type": "session.update", "session": session})
    assert only[2:] == ("session.input_audio_transcription.prompt", "expect Ada")


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (
            {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "x"}]},
            [("system", "message", "item.content[0].text", "x")],
        ),
        (
            {
                "type": "message",
                "role": "user",
                "content": [
                    {"type": "input_image", "image_url": "data:image/png;base64,AAAA"},
                    {"type": "input_audio", "audio": "AAAA", "transcript": "y"},
                ],
            },
            [("user", "message", "item.content[1].transcript", "y")],
        ),
        (
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "z"}]},
            [("assistant", "message", "item.content[0].text", "z")],
        ),
        (
            {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"},
            [
                ("assistant", "tool_arguments", "item.name", "look"),
                ("assistant", "tool_arguments", "item.arguments", "{}"),
            ],
        ),
        (
            {"type": "function_call_output", "call_id": "c", "output": "found"},
            [("tool", "tool_result", "item.output", "found")],
        ),
    ],
)
def test_items(item: dict[str, Any], expected: list[tuple[str, str, str, str]]) -> None:
    assert texts({"type": "conversation.item.create", "previous_item_id": "root", "item": item}) == expected


def test_a_response_of_the_realtime_api() -> None:
    response = {
        "conversation": "none",
        "metadata": {"topic": "a b"},
        "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "later"}]}],
        "instructions": "first",
        "max_output_tokens": 40,
    }
    event = {"type": "response.create", "event_id": "e", "response": response}
    assert [one[3] for one in texts(event)] == ["first", "later"]
    read_event = read(orjson.dumps(event))
    assert (read_event.creates, read_event.event_id, read_event.max_output_tokens) == (True, "e", 40)


def test_a_response_of_responses() -> None:
    event = {
        "type": "response.create",
        "model": "gpt-5",
        "stream_id": "lane",
        "previous_response_id": "resp_1",
        "store": False,
        "generate": True,
        "instructions": "first",
        "input": [{"role": "user", "content": [{"type": "input_text", "text": "second"}]}],
        "tools": [{"type": "function", "name": "look", "parameters": {}}],
        "max_output_tokens": 9,
    }
    assert [one[3] for one in texts(event)] == ["first", "look", "second"]
    read_event = read(orjson.dumps(event))
    assert read_event.models == {"model": "gpt-5"}
    assert (read_event.stream_id, read_event.response_id, read_event.max_output_tokens) == ("lane", "resp_1", 9)
    assert [tool.name for tool in read_event.tools or ()] == ["look"]


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"type": "input_audio_buffer.commit", "event_id": "a b"}, []),
        ({"type": "conversation.item.truncate", "item_id": "i", "content_index": 0, "audio_end_ms": 5}, []),
        ({"type": "response.cancel", "response_id": "r"}, []),
        ({"type": "response.steer", "previous_response_id": "r", "input": "turn left"}, ["turn left"]),
        ({"type": "of.tomorrow", "novel": {"deep": ["a text"]}}, ["a text"]),
        ({"type": "session.update", "session": "just text"}, ["just text"]),
        ({"type": "session.update", "session": {"novel": "some text"}}, ["some text"]),
        ({"type": "session.update", "session": {"audio": {"novel": "some hidden text"}}}, ["some hidden text"]),
    ],
)
def test_texts_of_other_events(event: dict[str, Any], expected: list[str]) -> None:
    assert [one[3] for one in texts(event)] == expected


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"session": {"model": "a"}}, {"session.model": "a"}),
        (
            {"session": {"audio": {"input": {"transcription": {"model": "b"}}}}},
            {"session.audio.input.transcription.model": "b"},
        ),
        ({"session": {"input_audio_transcription": {"model": "c"}}}, {"session.input_audio_transcription.model": "c"}),
        ({"response": {"model": "d"}, "model": "e"}, {"model": "e", "response.model": "d"}),
        ({"session": {"model": None}}, {}),
        ({"session": []}, {}),
    ],
)
def test_models(event: dict[str, Any], expected: dict[str, str]) -> None:
    assert read(orjson.dumps({"type": "x", **event})).models == expected


def test_a_models_name_is_a_string() -> None:
    with pytest.raises(InvalidRequest):
        _ = read(b'{"type":"session.update","session":{"model":["gpt-5"]}}').models


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (b"", InvalidJSON),
        (b"{", InvalidJSON),
        (b'{"type":"x"} ', None),
        (b'{"type":"x","type":"y"}', InvalidRequest),
        (b'{"type":"x","item":{"text":"a","te\\u0078t":"b"}}', InvalidRequest),
        (b'{"type":"x","text":"\\ud800"}', InvalidJSON),
        (b'{"type":"x","text":"\xff"}', InvalidJSON),
        (b'{"type":7}', InvalidRequest),
        (b"{}", InvalidRequest),
        (b'{"type":"x","a":' + b"[" * 300 + b"]" * 300 + b"}", InvalidJSON),
    ],
)
def test_one_text_one_meaning(message: bytes, error: type[GatewayError] | None) -> None:
    if error is None:
        read(message)
        return
    with pytest.raises(error):
        read(message)
