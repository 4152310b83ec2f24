"""`python -m loadtest.micro`: what the gateway's own code costs, without kernel and network.

Each case is timed in many short rounds, of which the fastest counts: on a shared machine the others measure the
neighbours. Beside every round runs a calibration loop of plain Python, and a case's *units* are its time over that
loop's, in the median of all rounds, so that CI's gate holds on machines of any speed. `--check` leaves with 1 when a
case costs more units than its gate allows; the gates are what was measured when they were set, times 1.4.
docs/performance.md has the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import uvloop

from loadtest.micro import translation
from loadtest.micro.driver import Driver, request

ROUNDS = 150
CONFIGURATION = """
pack: {name: micro}
providers:
  targets:
    - {id: target, provider: openai-compatible, model: gpt-4o, base_url: "http://127.0.0.1:1"}
policies: {chain: [%s]}
policy:
%s
"""
AUDIT = "  audit-logger: {log_all_access: true}\n"
SCAN = "  dlp-filter: {terms: [%s], action: block, phase: [%s]}\n"
TERMS = ", ".join(f"forbidden term {number}" for number in range(40))
BIRDS = ("falcon", "osprey", "merlin", "kestrel", "kite")
MANY_TERMS = ", ".join(f"{bird} {number}" for bird in BIRDS for number in range(200))
GUARD = (
    f"  dlp-filter: {{terms: [{MANY_TERMS}], action: redact, phase: [output], streaming: guard}}\n"
    "  pii-detector: {phase: [output], streaming: guard}\n"
)


class Case(NamedTuple):
    """One row: what is timed, and how many calibration units it may cost. `budget` is docs' cost budget in µs."""

    name: str
    chain: str
    policies: str
    limited: bool
    streams: bool
    gate: float
    budget: float


CASES = (
    Case("1 KB, nothing but routing", "", "  {}\n", False, False, 215, 9.0),
    Case("1 KB, key, limits, audit, metrics", "audit-logger", AUDIT, True, False, 350, 9.0),
    Case(
        "1 KB, the same and 40 terms",
        "dlp-filter, audit-logger",
        AUDIT + SCAN % (TERMS, "input"),
        True,
        False,
        330,
        11.5,
    ),
    Case("SSE event passed on", "audit-logger", AUDIT, True, True, 8.5, 0.5),
    Case(
        "SSE event passed on and decoded",
        "dlp-filter, audit-logger",
        AUDIT + SCAN % (TERMS, "output"),
        True,
        True,
        30,
        2.4,
    ),
    Case(
        "SSE event guarded, 1,000 terms and PII",
        "dlp-filter, pii-detector, audit-logger",
        AUDIT + GUARD,
        True,
        True,
        140,
        30.0,
    ),
)

_EVENT = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-4o",'
    b'"system_fingerprint":"fp_1",'
    b'"choices":[{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":null}],"usage":null}\n\n'
)
_ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "Hello " * 40}, "finish_reason": "stop"},
        ],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }
).encode()
_HEAD = (
    b"HTTP/1.1 200 OK\r\ndate: Tue, 24 Nov 2026 07:00:00 GMT\r\ncontent-type: %b\r\nx-request-id: req_1\r\n"
    b"openai-version: 2020-10-01\r\nserver: provider\r\n%b\r\n\r\n"
)
ANSWER = _HEAD % (b"application/json", b"content-length: %d" % len(_ANSWER)) + _ANSWER
STREAM = _HEAD % (b"text/event-stream", b"transfer-encoding: chunked")
EVENT = b"%x\r\n%b\r\n" % (len(_EVENT), _EVENT)
DONE = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


def chat(*, stream: bool) -> bytes:
    """A chat request of 1 KB."""
    messages = [{"role": "system", "content": "You are helpful."}, {"role": "user", "content": "word " * 180}]
    return request(json.dumps({"model": "gpt-4o", "messages": messages, "stream": stream}).encode())


def calibrate() -> float:
    """Microseconds of one turn of a loop that does what the gateway does: calls, dictionaries, bytes."""

    def work(table: dict[int, tuple[int, bytes]], number: int) -> None:
        table[number & 255] = (number, b"%d" % number)

    table: dict[int, tuple[int, bytes]] = {}
    began = time.thread_time()
    for number in range(2000):
        work(table, number)
    return (time.thread_time() - began) / 2000 * 1e6


def time_case(driver: Driver, case: Case) -> float:
    """Microseconds of one request, or of one event, in one round."""
    if not case.streams:
        sent = chat(stream=False)
        began = time.thread_time()
        for _ in range(100):
            driver.exchange(sent, ANSWER)
        return (time.thread_time() - began) / 100 * 1e6
    driver.exchange(chat(stream=True), STREAM, EVENT, EVENT)
    # Each read is an object of its own, as from a socket.
    events = [bytes(bytearray(EVENT)) for _ in range(500)]
    receive: Callable[[bytes], None] = driver.provider.data_received
    began = time.thread_time()
    for event in events:
        receive(event)
    taken = time.thread_time() - began
    receive(DONE)
    return taken / 500 * 1e6


async def measure(case: Case, rounds: int) -> tuple[float, float]:
    """The case's microseconds, and its units."""
    with tempfile.TemporaryDirectory() as folder:
        text = CONFIGURATION % (case.chain, case.policies)
        driver = Driver(asyncio.get_running_loop(), Path(folder), text, limited=case.limited)
        taken, calibration = [], []
        for _ in range(rounds):
            taken.append(time_case(driver, case))
            calibration.append(calibrate())
            await asyncio.sleep(0.002)  # the audit's writer gets its turn, as it does between a server's reads
        driver.close()
    return judged(taken, calibration)


def judged(taken: list[float], calibration: list[float]) -> tuple[float, float]:
    """The microseconds of the fastest round, and the units of the middle one."""
    ratios = [one / beside for one, beside in zip(taken, calibration, strict=True)]
    return min(taken), statistics.median(ratios)


def measure_translation(case: translation.TranslationCase, rounds: int) -> tuple[float, float]:
    """The same for a case without a gateway around it."""
    taken, calibration = [], []
    for _ in range(rounds):
        taken.append(case.run())
        calibration.append(calibrate())
    return judged(taken, calibration)


async def run(rounds: int) -> list[dict[str, object]]:
    """All cases."""
    rows: list[dict[str, object]] = []
    for case in (*CASES, *translation.CASES):
        gc.collect()
        gc.freeze()
        if isinstance(case, Case):
            microseconds, units = await measure(case, rounds)
        else:
            microseconds, units = measure_translation(case, rounds)
        rows.append(
            {
                "case": case.name,
                "µs": round(microseconds, 2),
                "budget µs": case.budget,
                "units": round(units, 1),
                "gate": case.gate,
                "held": units <= case.gate,
            }
        )
    return rows


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.micro", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="timed rounds of each case (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--check", action="store_true", help="leave with 1 if a gate is missed")
    options = parser.parse_args()
    rows = uvloop.run(run(options.rounds))
    if options.json:
        print(json.dumps(rows, ensure_ascii=False, indent=2))
    else:
        print(f"{'case':<36}{'µs':>8}{'budget µs':>11}{'units':>8}{'gate':>7}")
        for row in rows:
            mark = "" if row["held"] else "  missed"
            print(f"{row['case']:<36}{row['µs']:>8}{row['budget µs']:>11}{row['units']:>8}{row['gate']:>7}{mark}")
    return 1 if options.check and not all(row["held"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
