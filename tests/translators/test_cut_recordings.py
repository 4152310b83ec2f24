"""T1: every recorded stream comes out the same however it was cut.

Every recording of a dialect that is translated is cut at every byte at once, each byte a read of its own; and it is cut
in two at offsets that a hash of it draws, among them always one beside each kind of border: within a line end and
within a character of several bytes.

Every offset of events of each kind is cut in two by `test_every_pair.py`, every one of frames by
`tests/gateway/test_sse.py`, and every one of binary messages by `test_event_stream.py`.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Iterable

import pytest

from gateway.errors import GatewayError
from tests.recordings import Recording, load, providers
from translators.bridge import Bridge
from translators.plan import INBOUND, OUTBOUND
from translators.providers import row_of

HALVINGS = 4

DIALECTS = {
    r"/messages$": "anthropic_messages",
    r"/chat/completions$": "openai_chat",
    r"/responses$": "openai_responses",
    r":streamGenerateContent$": "gemini_generate",
    r"/converse-stream$": "bedrock_converse",
    r"^/v2/chat$": "cohere_chat",
    r"^/api/chat$": "ollama_chat",
}
ROWS = {
    "anthropic_messages": "anthropic",
    "bedrock_converse": "bedrock",
    "cohere_chat": "cohere",
    "gemini_generate": "gemini",
    "ollama_chat": "ollama",
    "openai_chat": "openai",
    "openai_responses": "openai",
}


def dialect_of(recording: Recording) -> str | None:
    return next((name for pattern, name in DIALECTS.items() if re.search(pattern, recording.path)), None)


def is_stream(recording: Recording) -> bool:
    media = recording.response_headers.get("content-type", "")
    return recording.status == 200 and (recording.streams or "eventstream" in media or "ndjson" in media)


STREAMS = [one for name in providers() for one in load(name) if is_stream(one) and dialect_of(one) is not None]


def passed(recording: Recording, pieces: Iterable[bytes]) -> bytes:
    """What a client of another format gets; where the stream ends in an error, its kind at the end."""
    dialect = dialect_of(recording)
    assert dialect is not None
    client = "anthropic_messages" if dialect.startswith("openai") else "openai_chat"
    bridge = Bridge(INBOUND[client], OUTBOUND[dialect], row_of(ROWS[dialect], None, "m"), lambda: 0.0)
    translator = bridge.stream("m", include_usage=True)
    out = []
    try:
        for piece in pieces:
            out.append(translator.feed(piece))  # noqa: PERF401 (what came before an error counts)
        out.append(translator.finish())
    except GatewayError as error:
        out.append(repr(error).encode())
    return b"".join(out)


def halvings(stream: bytes) -> list[int]:
    """Offsets at which the stream is cut in two."""
    draw = random.Random(zlib.crc32(stream))
    borders = [re.search(pattern, stream) for pattern in (rb"\n", rb"\r\n", rb"[\xc2-\xf4]")]
    return [draw.randrange(len(stream)) for _ in range(HALVINGS)] + [one.start() + 1 for one in borders if one]


def test_there_are_recordings_of_every_dialect() -> None:
    assert {dialect_of(one) for one in STREAMS} == set(ROWS)
    assert len(STREAMS) > 300


@pytest.mark.parametrize("dialect", ROWS)
def test_T1_every_recorded_stream_cut_at_every_byte(dialect: str) -> None:
    for recording in STREAMS:
        if dialect_of(recording) == dialect:
            stream = recording.response
            pieces = (stream[at : at + 1] for at in range(len(stream)))
            assert passed(recording, pieces) == passed(recording, [stream]), recording


@pytest.mark.parametrize("dialect", ROWS)
def test_T1_every_recorded_stream_cut_in_two(dialect: str) -> None:
    for recording in STREAMS:
        if dialect_of(recording) == dialect:
            stream = recording.response
            whole = passed(recording, [stream])
            for at in halvings(stream):
                assert passed(recording, [stream[:at], stream[at:]]) == whole, (recording, at)
