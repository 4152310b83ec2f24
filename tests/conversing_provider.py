"""A provider of the Realtime API and of Responses over WebSockets, made from the documented events.

    with ConversingProvider() as provider:
        ...                                     # its address is `provider.url`, as a target's `base_url`
    provider.handshakes[-1].headers             # how it was asked
    provider.heard                              # every client event that has reached it, in order

It says what it is asked to: to a user's text `say: …` it answers with what follows, in deltas of three characters; to
any other text with `You said: …`. Whether it speaks or writes the session says (`output_modalities`). Each connection
is served in a thread of its own, in the order of its events, as the real one does.

Events and their order: https://platform.openai.com/docs/guides/realtime-conversations and
https://developers.openai.com/api/docs/guides/websocket-mode.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve
from websockets.typing import Subprotocol

PIECE = 3


@dataclass
class Handshake:
    """One handshake: the path, the query's parameters, and the header fields in lower case."""

    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]


class ConversingProvider:
    """See the top of this file."""

    def __init__(self) -> None:
        self.handshakes: list[Handshake] = []
        self.heard: list[dict[str, Any]] = []
        self.closed: list[int | None] = []
        self._server = serve(self._serve, "127.0.0.1", 0, compression=None, select_subprotocol=_choose)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> ConversingProvider:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()

    @property
    def url(self) -> str:
        """The `base_url` of a target."""
        return f"http://127.0.0.1:{self._server.socket.getsockname()[1]}/v1"

    def _serve(self, connection: ServerConnection) -> None:
        request = connection.request
        assert request is not None
        parts = urlsplit(request.path)
        headers = {name.lower(): value for name, value in request.headers.raw_items()}
        self.handshakes.append(Handshake(parts.path, parse_qs(parts.query), headers))
        one = _Realtime(connection) if parts.path.endswith("/realtime") else _Responses(connection)
        with contextlib.suppress(ConnectionClosed):
            one.begin(self.handshakes[-1])
            for message in connection:
                event = orjson.loads(message)
                self.heard.append(event)
                one.take(event)
        self.closed.append(connection.close_code)


def _choose(connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    return next((one for one in offered if one == "realtime"), None)


class _Side:
    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection
        self._numbers = itertools.count(1)

    def begin(self, handshake: Handshake) -> None:
        """What is said first."""

    def take(self, event: dict[str, Any]) -> None:
        """Answer an event."""

    def id(self, kind: str) -> str:
        return f"{kind}_{next(self._numbers)}"

    def say(self, event: dict[str, Any]) -> None:
        self._connection.send(orjson.dumps(event).decode())


def _pieces(text: str) -> Iterator[str]:
    return (text[at : at + PIECE] for at in range(0, len(text), PIECE))


def _reply(text: str) -> str:
    return text.removeprefix("say: ") if text.startswith("say: ") else f"You said: {text}"


class _Realtime(_Side):
    def begin(self, handshake: Handshake) -> None:
        self._session: dict[str, Any] = {
            "type": "realtime",
            "object": "realtime.session",
            "id": self.id("sess"),
            "model": handshake.query["model"][0],
            "output_modalities": ["audio"],
            "instructions": "Be helpful.",
            "tools": [],
        }
        self._latest = ""
        self._event("session.created", session=self._session)

    def _event(self, kind: str, **fields: Any) -> None:
        self.say({"type": kind, "event_id": self.id("event"), **fields})

    def take(self, event: dict[str, Any]) -> None:
        match event["type"]:
            case "session.update":
                self._session.update(event["session"])
                self._event("session.updated", session=self._session)
            case "conversation.item.create":
                self._add(event["item"])
            case "response.create":
                self._respond(event.get("response") or {})
            case "input_audio_buffer.append":
                pass
            case "input_audio_buffer.commit":
                item = {"id": self.id("item"), "type": "message", "role": "user", "status": "completed"}
                self._event("input_audio_buffer.committed", item_id=item["id"], previous_item_id=None)
                self._add({**item, "content": [{"type": "input_audio", "transcript": None}]})
            case _:
                fault = {"type": "invalid_request_error", "code": "invalid_value", "message": "unknown event"}
                self._event("error", error={**fault, "param": "type", "event_id": event.get("event_id")})

    def _add(self, item: dict[str, Any]) -> None:
        item = {"id": self.id("item"), "object": "realtime.item", "status": "completed", **item}
        texts = [part.get("text") for part in item.get("content", ()) if part.get("text")]
        if texts or "output" in item:
            self._latest = " ".join(texts) or item["output"]
        self._event("conversation.item.added", previous_item_id=None, item=item)
        self._event("conversation.item.done", previous_item_id=None, item=item)

    def _respond(self, asked: dict[str, Any]) -> None:
        text = _reply(self._latest)
        speaks = "audio" in (asked.get("output_modalities") or self._session["output_modalities"])
        response = {"object": "realtime.response", "id": self.id("resp"), "status": "in_progress", "output": []}
        self._event("response.created", response=response)
        item = {"id": self.id("item"), "object": "realtime.item", "type": "message", "role": "assistant"}
        kind, field = ("output_audio", "transcript") if speaks else ("output_text", "text")
        spoken = {**item, "status": "completed", "content": [{"type": kind, field: text}]}
        empty = {**item, "status": "in_progress", "content": []}
        whose = {"response_id": response["id"], "output_index": 0}
        place = {**whose, "item_id": item["id"], "content_index": 0}
        self._event("response.output_item.added", **whose, item=empty)
        self._event("conversation.item.added", previous_item_id=None, item=empty)
        self._event("response.content_part.added", **place, part={"type": "audio" if speaks else "text", field: ""})
        name = "response.output_audio_transcript" if speaks else "response.output_text"
        for piece in _pieces(text):
            self._event(f"{name}.delta", **place, delta=piece)
            if speaks:
                self._event("response.output_audio.delta", **place, delta="UklGRg==")
        if speaks:
            self._event("response.output_audio.done", **place)
        self._event(f"{name}.done", **place, **{field: text})
        self._event("response.content_part.done", **place, part={"type": "audio" if speaks else "text", field: text})
        self._event("conversation.item.done", previous_item_id=None, item=spoken)
        self._event("response.output_item.done", **whose, item=spoken)
        usage = {
            "total_tokens": 12,
            "input_tokens": 7,
            "output_tokens": 5,
            "input_token_details": {"text_tokens": 7, "audio_tokens": 0, "cached_tokens": 2},
            "output_token_details": {"text_tokens": 5, "audio_tokens": 0},
        }
        self._event("response.done", response={**response, "status": "completed", "output": [spoken], "usage": usage})


class _Responses(_Side):
    def take(self, event: dict[str, Any]) -> None:
        lane = {"stream_id": event["stream_id"]} if "stream_id" in event else {}
        if event["type"] != "response.create":
            fault = {"type": "invalid_request_error", "code": "unknown_event", "message": "unknown", "param": "type"}
            self.say({"type": "error", "status": 400, "error": fault, **lane})
            return
        numbers = itertools.count()
        text = _reply(event["input"] if isinstance(event["input"], str) else _last_text(event["input"]))
        response: dict[str, Any] = {
            "id": self.id("resp"),
            "object": "response",
            "created_at": 1_700_000_000,
            "model": event["model"],
            "output": [],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "status": "in_progress",
        }
        part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        item = {"id": self.id("msg"), "type": "message", "role": "assistant", "status": "completed", "content": [part]}
        place = {"item_id": item["id"], "output_index": 0, "content_index": 0}

        def tell(kind: str, **fields: Any) -> None:
            self.say({"type": f"response.{kind}", "sequence_number": next(numbers), **fields, **lane})

        tell("created", response=response)
        tell("in_progress", response=response)
        tell("output_item.added", output_index=0, item={**item, "status": "in_progress", "content": []})
        tell("content_part.added", **place, part={**part, "text": ""})
        for piece in _pieces(text):
            tell("output_text.delta", **place, delta=piece, logprobs=[])
        tell("output_text.done", **place, text=text, logprobs=[])
        tell("content_part.done", **place, part=part)
        tell("output_item.done", output_index=0, item=item)
        usage = {
            "input_tokens": 3,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 4,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 7,
        }
        tell("completed", response={**response, "status": "completed", "output": [item], "usage": usage})


def _last_text(items: list[dict[str, Any]]) -> str:
    content = items[-1]["content"]
    return content if isinstance(content, str) else " ".join(part["text"] for part in content if "text" in part)
