"""The load-test tools: they measure others, so they are held to the truth themselves. Real servers, small counts."""

import asyncio
import json
import math
import os
import subprocess
import sys
import threading
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import openai
import pytest
import yaml

from loadtest import client, cpu, stack
from loadtest.gates import Gate, Scenario, judge
from loadtest.slices import Side, Slice, closed_slice, find_worker, open_slice, stream_slice

ROOT = Path(__file__).parent.parent

needs_nginx = pytest.mark.skipif(
    stack.nginx_command() is None and not os.environ.get("CI"), reason="nginx is not installed (make setup-system)"
)


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[stack.Server]:
    with stack.provider(tmp_path_factory.mktemp("provider"), chunks=5, gap_ms=1, body_bytes=900) as server:
        yield server


def url(server: stack.Server) -> str:
    return f"http://{stack.HOST}:{server.port}"


def stats(server: stack.Server) -> dict[str, int]:
    return httpx.get(f"{url(server)}/stats").json()


@pytest.fixture
def sdk(provider: stack.Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url(provider)}/v1", api_key="sk-test", max_retries=0) as made:
        yield made


class TestProvider:
    def test_answers_the_sdk_whole(self, sdk: openai.OpenAI) -> None:
        answer = sdk.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "hello"}])
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage is not None
        assert answer.usage.total_tokens == 21

    def test_answers_the_sdk_with_a_stream(self, sdk: openai.OpenAI) -> None:
        messages = [{"role": "user", "content": "hello"}]
        chunks = list(
            sdk.chat.completions.create(
                model="gpt-4o", messages=messages, stream=True, stream_options={"include_usage": True}
            )
        )
        texts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
        assert [bool(text) for text in texts] == [True] * 5 + [False]
        assert chunks[0].choices[0].delta.role == "assistant"
        assert chunks[-2].choices[0].finish_reason == "stop"
        assert chunks[-1].usage.completion_tokens == 5

    def test_a_stream_without_usage_ends_with_its_finish_reason(self, sdk: openai.OpenAI) -> None:
        messages = [{"role": "user", "content": 'say "stream": true'}]
        chunks = list(sdk.chat.completions.create(model="gpt-4o", messages=messages, stream=True))
        assert chunks[-1].choices[0].finish_reason == "stop"

    def test_a_prompt_that_speaks_of_streams_is_not_one(self, sdk: openai.OpenAI) -> None:
        messages = [{"role": "user", "content": '{"stream": true}'}]
        answer = sdk.chat.completions.create(model="gpt-4o", messages=messages, stream=False)
        assert answer.object == "chat.completion"

    def test_lists_its_model(self, sdk: openai.OpenAI) -> None:
        assert [model.id for model in sdk.models.list()] == ["gpt-4o"]

    def test_sizes_are_as_asked(self, provider: stack.Server) -> None:
        answer = httpx.post(f"{url(provider)}/v1/chat/completions", content=stack.prompt(1024))
        assert int(answer.headers["content-length"]) == 900

    def test_time_stamps_rise(self, provider: stack.Server) -> None:
        answer = httpx.post(f"{url(provider)}/v1/chat/completions", content=stack.prompt(1024, stream=True))
        events = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: {")]
        contents = [json.loads(event)["choices"][0]["delta"].get("content") for event in events]
        stamps = [int(content[1:20]) for content in contents if content]
        assert len(stamps) == 5
        assert stamps == sorted(stamps)

    def test_a_client_that_leaves_is_counted(self, tmp_path: Path) -> None:
        with stack.provider(tmp_path, gap_ms=1, chunks=100_000) as server:
            body = stack.prompt(1024, stream=True)
            with (
                httpx.Client() as web,
                web.stream("POST", f"{url(server)}/v1/chat/completions", content=body) as answer,
            ):
                parts = answer.iter_bytes()
                next(parts)
                assert stats(server)["streams_open"] == 1
            while (seen := stats(server))["streams_open"]:
                pass
            assert seen["streams_cancelled"] == 1

    def test_a_reader_that_does_not_read_stops_the_stream(self, tmp_path: Path) -> None:
        """With no gap the provider is as fast as its reader, and no faster: it keeps next to nothing in memory."""
        with stack.provider(tmp_path, chunks=800, chunk_bytes=50_000) as server:
            before = cpu.resident_bytes(server.pid)
            body = stack.prompt(1024, stream=True)
            with (
                httpx.Client() as web,
                web.stream("POST", f"{url(server)}/v1/chat/completions", content=body) as answer,
            ):
                parts = answer.iter_bytes()
                next(parts)
                assert stats(server)["streams_open"] == 1
                assert cpu.resident_bytes(server.pid) - before < 10 * 1024 * 1024
                assert sum(map(len, parts)) > 800 * 50_000 - 50_000

    def test_workers_share_the_port(self, tmp_path: Path) -> None:
        with stack.provider(tmp_path, workers=2) as server:
            assert len(cpu.family(server.pid)) == 2
            assert stats(server)["requests"] == 1
        assert cpu.family(server.pid) == [server.pid]


class TestReaders:
    HEAD = b"HTTP/1.1 200 OK\r\ncontent-Length: 5\r\n\r\n"

    @pytest.mark.parametrize("size", [1, 2, 7, 1000])
    def test_a_sized_answer_is_complete_at_its_last_byte(self, size: int) -> None:
        samples = client.Samples()
        reader = client.WholeReader(samples)
        for due in (100, 200):
            reader.begin(due)
            assert feed(reader, self.HEAD + b"hello", size) == [True]
        assert list(samples.latency) == [900, 800]

    def test_a_chunked_answer_is_complete_at_its_last_chunk(self) -> None:
        samples = client.Samples()
        reader = client.WholeReader(samples)
        reader.begin(0)
        data = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"
        assert not reader.feed(data, 1)
        assert reader.feed(b"0\r\n\r\n", 2)

    @pytest.mark.parametrize("size", [12, 13, 29, 64, 1000])
    def test_every_event_is_counted_once_however_it_is_cut(self, size: int) -> None:
        events = b"".join(b'data: {"content":" %019d"}\n\n' % stamp for stamp in (400, 500, 600))
        data = b"HTTP/1.1 200 OK\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(events), events)
        samples = client.Samples()
        calls: list[str] = []
        reader = client.EventReader(samples, lambda: calls.append("first"), lambda: calls.append("last"))
        reader.begin(100)
        assert feed(reader, data, size) == [True]
        assert list(samples.transit) == [600, 500, 400]
        assert list(samples.first_event) == [900]
        assert calls == ["first", "last"]

    @pytest.mark.parametrize("make", [client.WholeReader, lambda samples: client.EventReader(samples, int, int)])
    def test_another_status_is_an_error(self, make: Callable[[client.Samples], client.Reader]) -> None:
        reader = make(client.Samples())
        reader.begin(0)
        with pytest.raises(client.LoadError, match="429 Too Many"):
            reader.feed(b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n", 1)


def feed(reader: client.Reader, data: bytes, size: int) -> list[bool]:
    """Feed pieces of `size` bytes at time 1000; every answer that was not "not yet"."""
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    return [complete for piece in pieces if (complete := reader.feed(piece, 1000))]


@pytest.mark.parametrize(
    ("values", "share", "microseconds"),
    [([1000], 0.5, 1), ([3000, 1000, 2000], 0.5, 2), (range(1000, 101_000, 1000), 0.99, 99), ([1000, 9000], 1.0, 9)],
)
def test_percentiles_are_exact(values: list[int], share: float, microseconds: float) -> None:
    assert client.percentile(array("q", values), share) == microseconds


def test_there_is_no_percentile_of_nothing() -> None:
    assert math.isnan(client.percentile(array("q"), 0.5))


class TestClient:
    def test_closed_loop_reuses_its_connections(self, tmp_path: Path) -> None:
        with stack.provider(tmp_path) as server:
            message = client.request(stack.prompt(1024), host=stack.HOST)
            samples = client.closed_loop((stack.HOST, server.port), message, connections=3, seconds=0.1)
            seen = stats(server)
        assert samples.requests == seen["requests"] - 1
        assert samples.requests > 3
        assert seen["connections"] <= 3 + 2  # the one that awaited the port, and the one that asked for these figures

    def test_open_loop_sends_what_is_due_and_no_more(self, provider: stack.Server) -> None:
        message = client.request(stack.prompt(1024), host=stack.HOST)
        before = stats(provider)["requests"]
        samples = client.open_loop((stack.HOST, provider.port), message, connections=8, rate=500, seconds=0.1)
        assert samples.requests == 50
        assert stats(provider)["requests"] - before == 51
        assert samples.seconds >= 49 / 500

    def test_a_stall_shows_in_every_request_that_was_due_meanwhile(self) -> None:
        """One connection, an answer only after 100 ms, ten requests due within 9 ms: the last waits for all others."""
        with Slow(answers_after=0.1) as server:
            message = client.request(b"{}", host=stack.HOST)
            samples = client.open_loop(server.address, message, connections=1, rate=1000, seconds=0.01)
        assert [
            latency / 1e9 >= 0.1 * (index + 1) - 0.001 * index for index, latency in enumerate(samples.latency)
        ] == [True] * 10

    def test_a_server_that_hangs_up_is_an_error(self) -> None:
        with Slow(answers_after=0.0, answer=b"") as server:
            message = client.request(b"{}", host=stack.HOST)
            with pytest.raises(client.LoadError, match="closed a connection"):
                client.closed_loop(server.address, message, connections=1, seconds=0.1)

    def test_streams_mark_the_time_in_which_all_flow(self, provider: stack.Server) -> None:
        message = client.request(stack.prompt(1024, stream=True), host=stack.HOST)
        marks: list[int] = []
        samples = client.streams(
            (stack.HOST, provider.port),
            message,
            count=4,
            rate=4000,
            on_all_flowing=lambda seen: marks.append(seen.events),
            on_first_done=lambda seen: marks.append(seen.events),
        )
        assert samples.requests == len(samples.first_event) == 4
        assert samples.events == 20
        assert marks == sorted(marks)


class Slow:
    """A server on a thread that answers each request after a while, or hangs up if the answer is empty."""

    def __init__(
        self, *, answers_after: float, answer: bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
    ) -> None:
        self._after = answers_after
        self._answer = answer
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> "Slow":
        self._thread.start()
        start = asyncio.start_server(self._serve, stack.HOST, 0)
        self._server = asyncio.run_coroutine_threadsafe(start, self._loop).result()
        self.address = self._server.sockets[0].getsockname()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _stop(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            await asyncio.sleep(self._after)
            writer.write(self._answer)
            if not self._answer:
                break
        writer.close()


class TestCpu:
    def test_a_process_that_works_is_seen_to(self) -> None:
        spin = "n = 0\nwhile n < 1_000_000: n += 1\nprint(flush=True)\ninput()"
        with subprocess.Popen([sys.executable, "-c", spin], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            used = cpu.usage(process.pid)
            process.communicate(b"\n")
        assert used.main > 1_000_000
        assert used.threads >= used.main

    def test_a_family_has_its_grandchildren(self) -> None:
        with subprocess.Popen(
            ["sh", "-c", "sh -c 'echo; read x; :'; :"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            members = cpu.family(process.pid)
            process.communicate(b"\n")
        assert members[0] == process.pid
        assert len(members) == 2


def test_prompts_have_the_size_asked_for_and_are_json() -> None:
    for size in (1024, 32 * 1024, 256 * 1024):
        body = stack.prompt(size, stream=True)
        assert size - 10 <= len(body) <= size
        assert json.loads(body)["stream"] is True
    assert stack.BLOCKED_TERM in json.loads(stack.prompt(1024, text=stack.BLOCKED_TERM))["messages"][1]["content"]


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory, provider: stack.Server) -> Iterator[Side]:
    with stack.nginx(tmp_path_factory.mktemp("nginx"), provider.port) as server:
        side = Side("nginx", server.port, server.pid)
        worker = find_worker(side, stack.prompt(1024))
        yield Side("nginx", server.port, server.pid, worker=worker)


@needs_nginx
class TestSlices:
    def test_the_worker_is_not_the_master(self, nginx: Side) -> None:
        assert nginx.worker in cpu.family(nginx.pid)[1:]

    def test_a_closed_slice(self, nginx: Side) -> None:
        piece = closed_slice(nginx, stack.prompt(1024), connections=4, seconds=0.1)
        assert 0 < piece.cpu_main <= piece.cpu <= piece.cpu_all
        assert 0 < piece.busy <= 1.1
        assert piece.p50 <= piece.p99

    def test_an_open_slice(self, nginx: Side) -> None:
        piece = open_slice(nginx, stack.prompt(32 * 1024), rate=200, seconds=0.1)
        assert piece.units == 20
        assert piece.cpu > 0

    def test_direct_has_latency_and_no_cpu(self, provider: stack.Server) -> None:
        piece = closed_slice(Side("direct", provider.port), stack.prompt(1024), connections=4, seconds=0.1)
        assert piece.p50 > 0
        assert math.isnan(piece.cpu)

    def test_a_stream_slice(self, nginx: Side, tmp_path: Path) -> None:
        with (
            stack.provider(tmp_path, chunks=30, gap_ms=10, ttft_ms=10) as paced,
            stack.nginx(tmp_path, paced.port) as server,
        ):
            worker = find_worker(Side("nginx", server.port, server.pid), stack.prompt(1024))
            side = Side("nginx", server.port, server.pid, worker=worker)
            piece = stream_slice(side, stack.prompt(1024, stream=True), count=5, rate=1000)
        assert 0 < piece.units < 5 * 30
        assert piece.cpu > 0
        assert piece.first_p50 > 5_000  # of the provider's 10 ms; timers round by as much as 1 ms


def slices(*cpus: float) -> list[Slice]:
    return [Slice(units=1, per_second=1.0, cpu=value, p50=10 * value) for value in cpus]


class TestGates:
    GATE = Gate("small", "1 KB", "gateway", gate=1.8, aim=1.5)

    def scenario(self, *gateway: float) -> dict[str, Scenario]:
        sides = {"direct": slices(1, 1, 1), "nginx": slices(10, 20, 10), "gateway": slices(*gateway)}
        return {"1 KB": Scenario("1 KB", "request", [], lambda side: slices(1)[0], sides)}

    @pytest.mark.parametrize(
        ("gateway", "ratio", "word"),
        [((15, 20, 15), 1.5, "aim"), ((17, 36, 18), 1.8, "gate"), ((19, 36, 20), 1.9, "missed")],
    )
    def test_a_ratio_is_taken_within_a_round(self, gateway: tuple[float, ...], ratio: float, word: str) -> None:
        verdict = judge(self.GATE, self.scenario(*gateway))
        assert verdict.measured == pytest.approx(ratio)
        assert verdict.word == word

    def test_an_absolute_gate_needs_no_yardstick(self) -> None:
        gate = Gate("large", "1 KB", "gateway", gate=150, aim=120, absolute=True)
        verdict = judge(gate, self.scenario(110, 130, 140))
        assert (verdict.low, verdict.measured, verdict.high, verdict.word) == (110, 130, 140, "gate")

    def test_what_was_not_measured_is_not_passed(self) -> None:
        assert judge(self.GATE, {}).word == "not measured"

    def test_added_latency_is_over_direct(self) -> None:
        assert self.scenario(15, 20, 16)["1 KB"].added("gateway", "p50") == 150

    def test_an_added_latency_is_compared_with_what_nginx_adds(self) -> None:
        gate = Gate("added", "1 KB", "gateway", gate=1.5, aim=1.25, what="p50")
        verdict = judge(gate, self.scenario(15, 30, 16))
        assert (verdict.measured, verdict.word) == (pytest.approx(140 / 90), "missed")

    def test_sides_take_turns(self) -> None:
        order: list[str] = []

        def measure(side: Side) -> Slice:
            order.append(side.name)
            return slices(1)[0]

        scenario = Scenario("x", "request", [Side("a", 1), Side("b", 2), Side("c", 3)], measure)
        for number in range(3):
            scenario.round(number)
        assert "".join(order) == "abcbcacab"


@needs_nginx
def test_compare_measures_every_side_and_saves_nothing_unless_asked() -> None:
    saved = set((ROOT / "loadtest/results").iterdir())
    options = [
        "--quick",
        "--rounds=1",
        "--seconds=0.1",
        "--only=1 KB",
        "--only=stream",
        "--streams=20",
        "--chunks=30",
        "--no-save",
        "--json",
    ]
    command = [sys.executable, "-m", "loadtest.compare", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=55)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    whole, streamed = document["scenarios"]["1 KB"], document["scenarios"]["stream"]
    assert set(whole) == {"direct", "nginx", "gateway bare", "gateway default", "gateway scan", "gateway six"}
    assert set(streamed) == {"direct", "nginx", "gateway bare", "gateway default", "gateway decode", "gateway six"}
    assert all(side["slices"][0]["p99"] > 0 for side in streamed.values())
    by_cpu = {gate["name"] for gate in document["gates"] if gate["measured"] and gate["what"] == "cpu"}
    asked = [gate for gate in document["gates"] if gate["scenario"] in ("1 KB", "stream")]
    assert by_cpu == {gate["name"] for gate in asked if gate["what"] == "cpu"}
    assert document["machine"]["nginx"]
    assert document["machine"]["loop_ms"] > 0
    assert set((ROOT / "loadtest/results").iterdir()) == saved


def test_every_configuration_of_the_load_test_is_valid(tmp_path: Path) -> None:
    for name, document in stack.configurations({stack.MODEL: 1234}).items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(document))
    command = [stack.kt_command() or "kt", "policy", "lint", str(tmp_path)]
    environ = {**os.environ, "LOADTEST_PROVIDER_KEY": "sk-test"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 errors, 0 warnings" in done.stdout + done.stderr


def test_locust_runs_every_scenario_against_the_gateway(tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    options = ["--seconds=4", "--users=10", "--ttft-ms=5", "--gap-ms=2", "--chunks=20", f"--report={report}"]
    command = [sys.executable, "-m", "loadtest.run", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=55)
    assert done.returncode == 0, done.stdout + done.stderr
    for line in ("short chat", "refused by policy", "long stream (head)", "TTFT", "gap", "whole"):
        assert line in done.stderr + done.stdout
    assert f"report: {report}" in done.stdout
    assert "TTFT" in report.read_text()
