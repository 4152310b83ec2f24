"""`kt doctor`: is everything in place, and what does the gateway add on this machine?"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import click
import msgspec
import uvloop

from gateway.commands.output import EXIT_FAILURE, EXIT_OK, EXIT_USAGE, show_json
from gateway.config.load import LoadedConfiguration
from gateway.folders import state_folder, store_url
from gateway.probe import checks, overhead, provider, sandbox, spread
from gateway.probe.checks import Finding, Status
from gateway.probe.client import Client, Place, ProbeError, get, place_of
from gateway.probe.overhead import Overhead

_COLOURS: Final = {Status.OK: "green", Status.WARNING: "yellow", Status.FAILED: "red", Status.NOTE: "cyan"}
_BUFFERING: Final = (
    "nginx: `proxy_buffering off; proxy_http_version 1.1; gzip off;` for the gateway's location;"
    " elsewhere look for response buffering, compression, or a cache"
)


@click.command("doctor")
@click.option(
    "--policy-config",
    "configurations",
    multiple=True,
    type=click.Path(),
    default=("policy-config.yaml",),
    show_default=True,
    help="A configuration file, or a folder of them. May be given several times; the first is the default.",
)
@click.option("--listen", metavar="HOST:PORT", help="Where the gateway is to listen.  [default: gateway.listen]")
@click.option("--store", metavar="URL", help="Where keys are kept.  [default: $KT_STORE_URL, else a file]")
@click.option(
    "--url", metavar="URL", help="A deployed gateway: look at it, and for buffering on the way, and at nothing else."
)
@click.option("--key", envvar="KT_GATEWAY_KEY", help="Its gateway key.  [default: $KT_GATEWAY_KEY]")
@click.option("--model", default="mock-gpt", show_default=True, help="With --url: a model that a mock target offers.")
@click.option("--no-measure", is_flag=True, help="Do not start a gateway to measure what it adds (about 8 s).")
@click.option("--offline", is_flag=True, help="Do not connect to providers.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    configurations: tuple[str, ...],
    listen: str | None,
    store: str | None,
    url: str | None,
    key: str | None,
    model: str,
    no_measure: bool,
    offline: bool,
    as_json: bool,
) -> None:
    """Check configuration, secrets, providers, state files, store, port and clock; measure what the gateway adds.

    What is measured: added time to the first event, added time per event, and how soon the provider is told that a
    client has left. A gateway of its own is started for that with your first configuration's chain; nothing is sent to
    a provider. With --url a stream of the mock provider is watched through a deployed gateway: whether its events come
    one by one, or some proxy on the way holds them back.

    Exit code 0: nothing has failed, perhaps with warnings. 1: something has. 2: a configuration is invalid.

    \b
    Examples:
      kt doctor --policy-config policy-config.yaml
      kt doctor --no-measure --offline --json | jq '.findings[] | select(.status != "ok")'
      kt doctor --url https://gateway.example.com --key kt_gk_…
    """
    # What the modules below have to log is in the findings, too.
    logging.getLogger("gateway").addHandler(logging.NullHandler())
    measured: Overhead | None = None
    if url:
        findings = uvloop.run(_remote(url, key or "", model))
    else:
        loaded, findings = checks.configuration(configurations, os.environ)
        findings += uvloop.run(_local(loaded, listen, store, offline))
        if loaded and not no_measure:
            measured, said = uvloop.run(_measure(loaded[0], as_json))
            findings += said
    _report(findings, measured, as_json)
    sys.exit(_exit_code(findings))


def _exit_code(findings: Sequence[Finding]) -> int:
    failed = {finding.area for finding in findings if finding.status is Status.FAILED}
    if "configuration" in failed:
        return EXIT_USAGE
    return EXIT_FAILURE if failed else EXIT_OK


async def _local(
    loaded: Sequence[LoadedConfiguration], listen: str | None, store: str | None, offline: bool
) -> list[Finding]:
    state = state_folder(os.environ)
    findings = [*checks.secrets(loaded, os.environ), *checks.state_files(state)]
    findings.append(await checks.store(store or store_url(state)))
    address = listen or (loaded[0].configuration.gateway.listen if loaded else "")
    host, _, number = address.rpartition(":")
    if host and number.isdecimal():
        findings.append(checks.port(host.strip("[]"), int(number)))
    findings += [checks.descriptors(), checks.clock()]
    if loaded and not offline:
        findings += await checks.targets(loaded, os.environ)
    return findings


async def _measure(loaded: LoadedConfiguration, quiet: bool) -> tuple[Overhead | None, list[Finding]]:
    """What the gateway adds with the user's chain, or without it where the chain refuses the test request."""
    model = loaded.configuration.providers.targets[0].model
    said: list[Finding] = []
    with _progress("measuring", overhead.steps(), quiet) as advance:
        async with provider.serving() as upstream:
            target = {"id": "measured", "provider": "openai-compatible", "model": model, "base_url": upstream.url}
            for with_chain in (True, False):
                text = sandbox.configuration_text(target, loaded, with_chain=with_chain)
                try:
                    async with sandbox.running(text) as via:
                        return await overhead.measure(upstream, via, model, advance), said
                except ProbeError as error:
                    status = Status.NOTE if with_chain else Status.FAILED
                    step = "measured without the chain" if with_chain else ""
                    said.append(Finding("measurement", status, str(error), step))
    return None, said


@contextmanager
def _progress(what: str, total: int, quiet: bool) -> Iterator[Callable[[], object]]:
    if quiet:
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task)


async def _remote(url: str, key: str, model: str) -> list[Finding]:
    """What can be told of a gateway from outside."""
    try:
        place = place_of(url)
        findings = [await _health(place)]
        findings += [await _spread(place, model, key)]
    except ProbeError as error:
        return [Finding("gateway", Status.FAILED, str(error))]
    return findings


async def _health(place: Place) -> Finding:
    client = await Client.open(place)
    try:
        reply = await client.ask(get(place, "/readyz"))
    finally:
        client.close()
    if reply.status == 200:
        return Finding("gateway", Status.OK, f"{place} is ready, answered in {reply.total_us / 1000:.1f} ms")
    return Finding("gateway", Status.FAILED, f"{place}/readyz answers {reply.status}", "see the gateway's log")


async def _spread(place: Place, model: str, key: str) -> Finding:
    area = "buffering"
    try:
        seen = await spread.watch(place, model, key)
    except ProbeError as error:
        step = "name a model that a target with `provider: mock` offers, and a key that may use it"
        return Finding(area, Status.FAILED, str(error), step)
    shape = (
        f"{seen.events} events with {seen.gap_ms:.0f} ms between them came with {seen.median_gap_ms:.1f} ms,"
        f" at most {seen.heap} together, the first after {seen.first_ms:.0f} ms"
    )
    if not seen.bunched:
        return Finding(area, Status.OK, shape)
    signs = f" (on the way: {', '.join(seen.signs)})" if seen.signs else ""
    return Finding(area, Status.FAILED, f"something holds events back: {shape}{signs}", _BUFFERING)


def _report(findings: Sequence[Finding], measured: Overhead | None, as_json: bool) -> None:
    if as_json:
        show_json({"findings": msgspec.to_builtins(list(findings)), "measured": _figures(measured)})
        return
    width = max(len(finding.area) for finding in findings)
    for finding in findings:
        mark = click.style(f"{finding.status.value:<7}", fg=_COLOURS[finding.status])
        click.echo(f"{mark}  {finding.area:<{width}}  {finding.found}")
        if finding.next_step:
            click.echo(f"{'':<7}  {'':<{width}}  {click.style('→ ' + finding.next_step, dim=True)}")
    if measured is not None:
        click.echo()
        for line in _told(measured):
            click.echo(line)


def _figures(measured: Overhead | None) -> dict[str, Any] | None:
    if measured is None:
        return None
    return {
        "added_ttft_us": {"p50": measured.first_event.p50, "p99": measured.first_event.p99},
        "added_per_event_us": {"p50": measured.event.p50, "p99": measured.event.p99},
        "cancel_us": {"p50": measured.cancel_p50, "p99": measured.cancel_p99},
        "direct_ttft_us": {"p50": measured.first_event.direct_p50, "p99": measured.first_event.direct_p99},
        "direct_per_event_us": {"p50": measured.event.direct_p50, "p99": measured.event.direct_p99},
        "streams": measured.streams,
        "events": measured.events,
    }


def _told(measured: Overhead) -> Iterator[str]:
    sample = f"{measured.streams} streams, {measured.events} events"
    yield f"On this machine, one stream at a time ({sample}), the gateway adds"
    rows = (
        ("to the first event (TTFT)", measured.first_event.p50, measured.first_event.p99),
        ("to each event", measured.event.p50, measured.event.p99),
        ("until a provider is told that the client left", measured.cancel_p50, measured.cancel_p99),
    )
    for label, p50, p99 in rows:
        yield f"  {label:<46}  {p50 / 1000:7.3f} ms in the middle, {p99 / 1000:7.3f} ms at the 99th percentile"
