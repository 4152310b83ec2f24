"""Load as a team would put it on before a rollout: short chats, long streams, and requests that a policy refuses.

`make loadtest` starts a paced provider and a gateway and runs this for a minute. To aim it at a gateway of your own:

    export LOADTEST_KEY=kt_gk_…            # a key for ordinary requests; leave unset where none is needed
    export LOADTEST_REFUSING_KEY=kt_gk_…   # a key whose chain blocks the words in LOADTEST_BLOCKED_TERM
    locust -f loadtest/locustfile.py --headless -u 50 -r 10 -t 60s --host http://localhost:41002 --html report.html

Beside requests, two figures of streams stand in Locust's tables: `TTFT`, from sending the request to the first event,
and `gap`, between two events. A user class can be left out by naming the others: `locust … ShortChat LongStream`.
"""

from __future__ import annotations

import json
import os
import time

from locust import FastHttpUser, between, task

from loadtest.stack import BLOCKED_TERM, prompt

PATH = "/v1/chat/completions"
KEY = os.environ.get("LOADTEST_KEY", "")
REFUSING_KEY = os.environ.get("LOADTEST_REFUSING_KEY", "")
SHORT = prompt(1024).decode()
LONG = prompt(4096, stream=True).decode()
REFUSED = prompt(1024, text=f"What do we know about {os.environ.get('LOADTEST_BLOCKED_TERM', BLOCKED_TERM)}?").decode()


def _headers(key: str) -> dict[str, str]:
    authorization = {"Authorization": f"Bearer {key}"} if key else {}
    return {"Content-Type": "application/json", **authorization}


class ShortChat(FastHttpUser):
    """Asks something small and reads the whole answer."""

    weight = 6
    wait_time = between(0.05, 0.25)

    @task
    def ask(self) -> None:
        """One exchange."""
        self.client.post(PATH, data=SHORT, headers=_headers(KEY), name="short chat")


class LongStream(FastHttpUser):
    """Reads a stream event by event to its `[DONE]`."""

    weight = 3
    wait_time = between(0.2, 1.0)

    @task
    def read(self) -> None:
        """One stream; a stream that ends without `[DONE]` is a failure."""
        begin = previous = time.perf_counter()
        with self.client.post(
            PATH, data=LONG, headers=_headers(KEY), name="long stream (head)", stream=True, catch_response=True
        ) as response:
            if response.status_code != 200:
                response.failure(f"status {response.status_code}")
                return
            metric, done = "TTFT", False
            while event := response.stream.readline(b"\n\n"):
                now = time.perf_counter()
                if done := event.startswith(b"data: [DONE]"):
                    break
                self._note(metric, now - previous, len(event))
                metric, previous = "gap", now
            response.stream.read()
        problem = None if done else EOFError("the stream ended without [DONE]")
        self._note("whole", time.perf_counter() - begin, 0, problem)

    def _note(self, metric: str, seconds: float, size: int, problem: Exception | None = None) -> None:
        self.environment.events.request.fire(
            request_type="SSE",
            name=metric,
            response_time=seconds * 1000,
            response_length=size,
            exception=problem,
            context={},
        )


class Refused(FastHttpUser):
    """Sends what a policy must refuse. The refusal is the success; anything else is a failure."""

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


def _error_code(text: str | None) -> str:
    try:
        return str(json.loads(text or "")["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return "without an error code"
