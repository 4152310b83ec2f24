"""Load as a team would put it on before a rollout: chats, streams, sockets, refusals, and limits that are reached.

`make loadtest` starts a paced provider and a gateway and runs this for a minute. To aim it at a gateway of your own:

    export LOADTEST_KEY=kt_gk_…            # a key for ordinary requests; leave unset where none is needed
    export LOADTEST_REFUSING_KEY=kt_gk_…   # a key whose chain blocks the words in LOADTEST_BLOCKED_TERM
    export LOADTEST_LIMITED_KEY=kt_gk_…    # a key with a low limit (--rpm 30)
    locust -f loadtest/locustfile.py --headless -u 50 -r 10 -t 60s --host http://localhost:41002 --html report.html

Each class of users is a scenario; all together are the mix. One can be run by itself: `locust … LongStream`. The last
two keys leave their scenarios out where they are not set.

Beside requests, two figures of streams stand in Locust's tables and plots, over HTTP (`SSE`) and WebSockets (`WS`):
`TTFT`, from sending the request to the first event, and `gap`, between two events. What a scenario expects is success,
also where that is a refusal; anything else is a failure, and Locust ends with 1.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from locust import FastHttpUser, User, between, task
from locust.env import Environment

from loadtest.stack import BLOCKED_TERM, prompt

# Locust puts this folder at the head of the path, where `loadtest.websocket` would hide the package of that name.
sys.path[:] = [place for place in sys.path if Path(place).resolve() != Path(__file__).parent]
websocket = importlib.import_module("websocket")

PATH = "/v1/chat/completions"
KEY = os.environ.get("LOADTEST_KEY", "")
REFUSING_KEY = os.environ.get("LOADTEST_REFUSING_KEY", "")
LIMITED_KEY = os.environ.get("LOADTEST_LIMITED_KEY", "")
SHORT = prompt(1024).decode()
LARGE = prompt(32 * 1024).decode()
LONG = prompt(4096, stream=True).decode()
REFUSED = prompt(1024, text=f"What do we know about {os.environ.get('LOADTEST_BLOCKED_TERM', BLOCKED_TERM)}?").decode()
ANSWER_SECONDS = 60
"""After which a WebSocket's answer is a failure."""


def _headers(key: str) -> dict[str, str]:
    authorization = {"Authorization": f"Bearer {key}"} if key else {}
    return {"Content-Type": "application/json", **authorization}


class StreamClock:
    """Notes TTFT, gaps and the whole of one stream in Locust's statistics."""

    def __init__(self, environment: Environment, kind: str) -> None:
        self._environment = environment
        self._kind = kind
        self._begin = self._previous = time.perf_counter()
        self._first = True

    def event(self, size: int) -> None:
        """One event has come."""
        now = time.perf_counter()
        self._note("TTFT" if self._first else "gap", now - self._previous, size)
        self._first, self._previous = False, now

    def end(self, problem: Exception | None = None) -> None:
        """The stream is over, or something went wrong with it."""
        self._note("whole", time.perf_counter() - self._begin, 0, problem)

    def _note(self, metric: str, seconds: float, size: int, problem: Exception | None = None) -> None:
        self._environment.events.request.fire(  # type: ignore[no-untyped-call]
            request_type=self._kind,
            name=metric,
            response_time=seconds * 1000,
            response_length=size,
            exception=problem,
            context={},
        )


class ShortChat(FastHttpUser):
    """Asks something small and reads the whole answer."""

    weight = 6
    wait_time = between(0.05, 0.25)

    @task
    def ask(self) -> None:
        """One exchange."""
        self.client.post(PATH, data=SHORT, headers=_headers(KEY), name="short chat")


class LargePrompt(FastHttpUser):
    """Sends 32 KB, a long document or a long conversation."""

    weight = 2
    wait_time = between(0.1, 0.5)

    @task
    def ask(self) -> None:
        """One exchange."""
        self.client.post(PATH, data=LARGE, headers=_headers(KEY), name="32 KB prompt")


class LongStream(FastHttpUser):
    """Reads a stream event by event to its `[DONE]`."""

    weight = 3
    wait_time = between(0.2, 1.0)

    @task
    def read(self) -> None:
        """One stream; a stream that ends without `[DONE]` is a failure."""
        clock = StreamClock(self.environment, "SSE")
        with self.client.post(
            PATH, data=LONG, headers=_headers(KEY), name="long stream (head)", stream=True, catch_response=True
        ) as response:
            if response.status_code != 200:
                response.failure(f"status {response.status_code}")
                return
            done = False
            while not done and (event := response.stream.readline(b"\n\n")):
                done = event.startswith(b"data: [DONE]")
                if not done:
                    clock.event(len(event))
            response.stream.read()
        clock.end(None if done else EOFError("the stream ended without [DONE]"))


class SocketSession(User):
    """Keeps one WebSocket and asks again and again over it; each answer is a stream of messages."""

    weight = 1
    wait_time = between(0.2, 1.0)

    def on_start(self) -> None:
        """Open the socket."""
        address = urlsplit(self.host or "")
        scheme = "wss" if address.scheme == "https" else "ws"
        fields = [f"Authorization: Bearer {KEY}"] if KEY else []
        self._socket = websocket.create_connection(
            f"{scheme}://{address.netloc}{PATH}", header=fields, timeout=ANSWER_SECONDS, suppress_origin=True
        )

    def on_stop(self) -> None:
        """Close it."""
        self._socket.close()

    @task
    def ask(self) -> None:
        """One answer; an error message, or a socket that closes, is a failure."""
        clock = StreamClock(self.environment, "WS")
        try:
            self._socket.send(LONG)
            while (message := self._socket.recv()) != "[DONE]":
                if not message or "choices" not in json.loads(message):
                    raise EOFError(f"instead of an event came {message[:300]!r}")
                clock.event(len(message))
        except (OSError, EOFError, ValueError, websocket.WebSocketException) as problem:
            clock.end(problem)
            self.on_start()
        else:
            clock.end()


class Refused(FastHttpUser):
    """Sends what a policy must refuse."""

    weight = 1 if REFUSING_KEY else 0
    wait_time = between(0.1, 0.5)

    @task
    def ask(self) -> None:
        """Expects 409 `input_blocked`."""
        with self.client.post(
            PATH, data=REFUSED, headers=_headers(REFUSING_KEY), name="refused by policy", catch_response=True
        ) as response:
            code = _error_code(response.text)
            if response.status_code == 409 and code == "input_blocked":
                response.success()
            else:
                response.failure(f"expected 409 input_blocked, got {response.status_code} {code}")


class OverLimit(FastHttpUser):
    """Asks more often than its key may."""

    weight = 1 if LIMITED_KEY else 0
    wait_time = between(0.1, 0.5)

    @task
    def ask(self) -> None:
        """Expects an answer, or 429 `rate_limit_exceeded` that says when to come again."""
        with self.client.post(
            PATH, data=SHORT, headers=_headers(LIMITED_KEY), name="over limit", catch_response=True
        ) as response:
            code = _error_code(response.text)
            limited = response.status_code == 429 and code == "rate_limit_exceeded"
            if response.status_code == 200 or (limited and response.headers.get("retry-after")):
                response.success()
            else:
                response.failure(f"expected 200 or 429 with Retry-After, got {response.status_code} {code}")


def _error_code(text: str | None) -> str:
    try:
        return str(json.loads(text or "")["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return "without an error code"
