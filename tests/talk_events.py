"""Events of the Realtime API and of Responses for tests, and a chain that guards answers."""

from __future__ import annotations

from typing import Any

from tests.playbook import configuration, dlp

CREATE: dict[str, Any] = {"type": "response.create"}


def item(text: str, **more: Any) -> dict[str, Any]:
    content = [{"type": "input_text", "text": text}]
    return {"type": "conversation.item.create", "item": {"type": "message", "role": "user", "content": content}, **more}


def created(id: str = "resp_1") -> dict[str, Any]:
    return {"type": "response.created", "event_id": "event_1", "response": {"id": id, "status": "in_progress"}}


PLACE: dict[str, Any] = {"response_id": "resp_1", "item_id": "item_1", "output_index": 0, "content_index": 0}


def delta(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "response.output_audio_transcript.delta", "event_id": "event_2", **PLACE, "delta": text, **more}


def done(text: str, id: str = "resp_1", status: str = "completed") -> dict[str, Any]:
    part = {"type": "output_audio", "transcript": text}
    output = [{"id": "item_1", "type": "message", "role": "assistant", "content": [part]}]
    usage = {"input_tokens": 7, "output_tokens": 5, "input_token_details": {"cached_tokens": 2}}
    return {"type": "response.done", "response": {"id": id, "status": status, "output": output, "usage": usage}}


def answer(*pieces: str) -> list[dict[str, Any]]:
    """All events of a response with a transcript, in the order of the documentation."""
    whole = "".join(pieces)
    part = {"type": "audio", "transcript": whole}
    content = [{"type": "output_audio", "transcript": whole}]
    spoken = {"id": "item_1", "type": "message", "role": "assistant", "content": content}
    empty = {**spoken, "content": []}
    added = {"type": "response.output_item.added", "response_id": "resp_1", "output_index": 0, "item": empty}
    return [
        created(),
        added,
        {"type": "conversation.item.added", "item": empty},
        {"type": "response.content_part.added", **PLACE, "part": {"type": "audio", "transcript": ""}},
        *[delta(piece) for piece in pieces],
        {"type": "response.output_audio_transcript.done", **PLACE, "transcript": whole},
        {"type": "response.content_part.done", **PLACE, "part": part},
        {"type": "conversation.item.done", "item": spoken},
        {"type": "response.output_item.done", "response_id": "resp_1", "output_index": 0, "item": spoken},
        done(whole),
    ]


def heard(text: str, item_id: str = "item_9") -> dict[str, Any]:
    kind = "conversation.item.input_audio_transcription.completed"
    return {"type": kind, "item_id": item_id, "content_index": 0, "transcript": text}


def shown(content: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    one = {"id": "item_7", "type": "message", "role": "user", "content": content, **more}
    return {"type": "conversation.item.done", "item": one}


def wish(text: str = "hello", model: str = "gpt-test", **more: Any) -> dict[str, Any]:
    return {"type": "response.create", "model": model, "input": text, **more}


def responses(*pieces: str, id: str = "resp_1", **more: Any) -> list[dict[str, Any]]:
    whole = "".join(pieces)
    part = {"type": "output_text", "text": whole, "annotations": []}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "content": [part]}
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    usage = {"input_tokens": 3, "output_tokens": 4}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": {"id": id, "output": []}},
        *[{"type": "response.output_text.delta", **place, "delta": piece} for piece in pieces],
        {"type": "response.output_text.done", **place, "text": whole},
        {"type": "response.completed", "response": {"id": id, "output": [message], "usage": usage}},
    ]
    return [{**event, "sequence_number": number, **more} for number, event in enumerate(events)]


GUARDED = configuration(
    policies=dlp("redact", "[output]", "['banned phrase']", ", streaming: guard"), chain="audit-logger, dlp-filter"
)
