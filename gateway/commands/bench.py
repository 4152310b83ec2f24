"""`kt bench`: how much a gateway does, and how long its answers take, measured in seconds on this machine."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import click
import uvloop

from gateway.commands.output import EXIT_FAILURE, fail, show, show_json, warn
from gateway.config.load import LoadedConfiguration, load
from gateway.probe import load as probe_load
from gateway.probe import overhead, sandbox
from gateway.probe.client import Place, ProbeError, place_of
from gateway.probe.load import Tally

MODEL: Final = "mock-gpt"
REMOTE_REQUESTS: Final = 200
"""Requests that are sent to somebody's gateway unless more are asked for: each may cost money there."""
_WARM_UP_SECONDS: Final = 0.3


@click.command("bench")
@click.option("--url", metavar="URL", help="A running gateway.  [default: one that is started for the measurement]")
@click.option("--key", envvar="KT_GATEWAY_KEY", help="Its gateway key.  [default: $KT_GATEWAY_KEY]")
@click.option("--model", help="The model to ask for.  [default: mock-gpt]")
@click.option(
    "--policy-config",
    "configuration",
    type=click.Path(exists=True),
    help="Measure this configuration's chain, with the mock provider in place of its targets.",
)
@click.option("--seconds", type=click.FloatRange(0.5, 300), default=10.0, show_default=True, help="How long, in all.")
@click.option("--connections", type=click.IntRange(1, 1000), default=16, show_default=True, help="Busy at one time.")
@click.option(
    "--requests", type=click.IntRange(1), help="Stop after so many.  [default: 200 with --url, else no bound]"
)
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Of the gateway it starts.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    url: str | None,
    key: str | None,
    model: str | None,
    configuration: str | None,
    seconds: float,
    connections: int,
    requests: int | None,
    workers: int,
    as_json: bool,
) -> None:
    """Measure a gateway: answers a second, latency, time to the first event, gap between events.

    Half of the time goes to whole answers, half to streams. Without --url a gateway is started for it with the mock
    provider, which is asked nothing of and costs nothing. With --url the requests are real.

    \b
    Examples:
      kt bench
      kt bench --policy-config policy-config.yaml --seconds 30
      kt bench --url https://gateway.example.com --model gpt-4o-mini --requests 50
    """
    if url and configuration:
        raise click.UsageError("--policy-config is for the gateway that is started here, --url for one that runs.")
    loaded = load([configuration])[0] if configuration else None
    if url and requests is None:
        requests = REMOTE_REQUESTS
    plan = _Plan(seconds / 2, connections, requests, workers, as_json)
    try:
        tallies = uvloop.run(_bench(url, key or "", model or _model(loaded), loaded, plan))
    except ProbeError as error:
        fail(str(error))
    _print(tallies, as_json)
    if not all(tally.answers for tally in tallies.values()):
        sys.exit(EXIT_FAILURE)


class _Plan:
    def __init__(self, seconds: float, connections: int, requests: int | None, workers: int, quiet: bool) -> None:
        self.seconds = seconds
        self.connections = connections
        self.requests = requests
        self.workers = workers
        self.quiet = quiet


def _model(loaded: LoadedConfiguration | None) -> str:
    return loaded.configuration.providers.targets[0].model if loaded else MODEL


async def _bench(
    url: str | None, key: str, model: str, loaded: LoadedConfiguration | None, plan: _Plan
) -> dict[str, Tally]:
    if url:
        return await _both(place_of(url), key, model, plan)
    text = sandbox.configuration_text({"id": "mock", "provider": "mock", "model": model}, loaded)
    async with sandbox.running(text, workers=plan.workers) as place:
        return await _both(place, key, model, plan)


async def _both(place: Place, key: str, model: str, plan: _Plan) -> dict[str, Tally]:
    """Whole answers, then streams."""
    tallies = {}
    shares = {"answers": None if plan.requests is None else (plan.requests + 1) // 2}
    shares["streams"] = None if plan.requests is None else max(1, plan.requests // 2)
    for what, requests in shares.items():
        document = overhead.body(model, stream=what == "streams")
        if plan.requests is None:
            await probe_load.run(place, document, key=key, connections=1, seconds=_WARM_UP_SECONDS)
        with _progress(f"{what} from {place}", plan, requests) as note:
            tallies[what] = await probe_load.run(
                place,
                document,
                key=key,
                connections=plan.connections,
                seconds=plan.seconds,
                requests=requests,
                on_answer=note,
            )
    return tallies


@contextmanager
def _progress(what: str, plan: _Plan, requests: int | None) -> Iterator[Any]:
    """A bar on standard error: of the time, or of the requests where they are bounded."""
    if plan.quiet:
        yield lambda tally: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[done]}"), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=requests or plan.seconds, done="")
        loop = asyncio.get_running_loop()
        begin = shown = loop.time()

        def note(tally: Tally) -> None:
            nonlocal shown
            now = loop.time()
            if now - shown > 0.1 or tally.answers == requests:
                shown = now
                done = tally.answers if requests else now - begin
                progress.update(task, completed=done, done=f"{tally.answers:,} answered")

        yield note
        progress.update(task, completed=requests or plan.seconds)


def _print(tallies: Mapping[str, Tally], as_json: bool) -> None:
    figures = {what: tally.figures() for what, tally in tallies.items()}
    for what, tally in tallies.items():
        for refusal, count in tally.refused.items():
            warn(f"{count} {what} were refused: {refusal}")
        if tally.busy > probe_load.BUSY:
            warn(f"{what}: the client itself was {100 * tally.busy:.0f} % busy; the gateway can do more than it shows")
    if as_json:
        show_json(figures)
        return
    rows = [{"figure": label, **{what: _cell(told, name) for what, told in figures.items()}} for name, label in _ROWS]
    show(rows, ("figure", *figures), as_json=False)


_ROWS: Final[Sequence[tuple[str, str]]] = (
    ("answers", "answered"),
    ("refused", "refused"),
    ("answers_per_second", "answers a second"),
    ("events_per_second", "events a second"),
    *(
        (f"{name}_p{share}_ms", f"{label}, p{share} (ms)")
        for name, label in (("latency", "whole answer"), ("ttft", "first event (TTFT)"), ("gap", "gap between events"))
        for share in (50, 95, 99)
    ),
    ("client_busy", "client busy"),
)


def _cell(told: Mapping[str, float], name: str) -> str | None:
    value = told.get(name)
    if value is None:
        return None
    if name in ("answers", "refused") or name.endswith("per_second"):
        return f"{value:,.0f}"
    return f"{100 * value:.0f} %" if name == "client_busy" else f"{value:.3f}"
