"""`kt gateway`: run the gateway."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec

from gateway import metrics
from gateway.commands.main import version
from gateway.commands.output import fail
from gateway.config.lint import lint
from gateway.config.load import LoadedConfiguration, kept_folder, load
from gateway.config.problems import ConfigurationInvalid
from gateway.config.schema import AuthMode, LogFormat
from gateway.downstream.certificate import CertificateInvalid, check
from gateway.folders import audit_folder, other_run_folder, run_folder, state_folder, store_url
from gateway.handover import Inheritance, Listeners, copy_windows, inherit, notify_manager
from gateway.logs import configure
from gateway.supervisor import (
    CannotStart,
    Options,
    Supervisor,
    effective_auth,
    is_loopback,
    lock_run_folder,
    reserve_port,
)
from gateway.types import FailMode
from gateway.upstream.egress import Egress


@click.group("gateway")
def group() -> None:
    """Run the gateway.

    \b
    Examples:
      kt gateway run --policy-config ./policy-config.yaml --port 41002
    """


@group.command()
@click.option(
    "--policy-config",
    "configurations",
    multiple=True,
    type=click.Path(exists=True),
    default=("policy-config.yaml",),
    show_default=True,
    help="A configuration file, or a folder of them. May be given several times; the first is the default.",
)
@click.option("--port", type=click.IntRange(1, 65535), help="Port on 127.0.0.1. Short for --listen 127.0.0.1:PORT.")
@click.option("--listen", metavar="HOST:PORT", help="Address to listen on.  [default: gateway.listen of the file]")
@click.option("--workers", type=click.IntRange(1, 512), help="Worker processes.  [default: gateway.workers]")
@click.option(
    "--fail-mode",
    type=click.Choice([mode.value for mode in FailMode]),
    help="What an error inside a policy means: refuse the request, or let it go on.  [default: gateway.fail_mode]",
)
@click.option("--store", metavar="URL", help="Where keys are kept.  [default: $KT_STORE_URL, else a file]")
def run(
    configurations: tuple[str, ...],
    port: int | None,
    listen: str | None,
    workers: int | None,
    fail_mode: str | None,
    store: str | None,
) -> None:
    """Run the gateway until it is told to stop.

    SIGTERM and Ctrl-C let requests in flight finish; SIGHUP, or a change of the file, reloads the configuration.

    \b
    Examples:
      kt gateway run --policy-config ./policy-config.yaml --port 41002
      kt gateway run --policy-config ./configurations/ --listen 0.0.0.0:41002 --workers 4
    """
    try:
        loaded = load(configurations)
    except ConfigurationInvalid as error:
        click.echo(str(error), err=True)
        sys.exit(2)
    for problem in lint(loaded, os.environ):
        click.echo(str(problem), err=True)
    try:
        Egress.from_environment(os.environ)
    except ValueError as error:
        # Every worker reads it; told here it is one sentence instead of a worker that cannot start.
        click.echo(f"{error} Or unset it, to reach providers directly.", err=True)
        sys.exit(2)
    settings = loaded[0].configuration.gateway
    host, number = _address(listen or settings.listen)
    if port is not None:
        host, number = ("127.0.0.1" if listen is None else host), port
    state = state_folder(os.environ)
    options = Options(
        configurations,
        host,
        number,
        workers or settings.workers,
        state,
        run_folder(state, number),
        audit_folder(state),
        store or store_url(state),
        FailMode(fail_mode) if fail_mode else None,
        version(),
    )
    try:
        # What the store keeps was left in the state folder by the last run; it holds from the first request on.
        loaded = load(configurations, kept=kept_folder(options.run_folder))
    except ConfigurationInvalid as error:
        click.echo(str(error), err=True)
        sys.exit(2)
    try:
        _run(options, loaded)
    except CannotStart as error:
        fail(str(error))


def _run(options: Options, loaded: Sequence[LoadedConfiguration]) -> None:
    try:
        check(loaded[0].configuration.gateway.tls)
    except CertificateInvalid as error:
        raise CannotStart(str(error)) from None
    options.state_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    inherited = inherit(os.environ)
    options, lock = _take_run_folder(options, inherited)
    reserved = reserve_port(options.host, options.port, shared=inherited is not None)
    listeners = Listeners(options.host, options.port, options.workers, inherited.sockets if inherited else ())
    for stale in ("keys.log", "control.sock", "workers.slots"):
        (options.run_folder / stale).unlink(missing_ok=True)
    metrics.discard(options.run_folder)
    counters = metrics.Metrics(options.run_folder, "supervisor")
    logging = loaded[0].configuration.gateway.logging
    form = LogFormat.TEXT if sys.stderr.isatty() else logging.format
    dropped = counters.counter(metrics.LOG_LINES_DROPPED)
    logs = configure(logging.level.value, form.value, sys.stderr, on_drop=dropped.inc)

    def on_ready() -> None:
        click.echo(banner(options, loaded))
        notify_manager(f"READY=1\nMAINPID={os.getpid()}")
        if inherited is not None:
            inherited.tell_ready()

    try:
        asyncio.run(Supervisor(options, loaded, counters, listeners).run(on_ready))
    finally:
        logs.close()
        counters.close()
        reserved.close()
        os.close(lock)


def _take_run_folder(options: Options, inherited: Inheritance | None) -> tuple[Options, int]:
    """The run folder that this gateway has to itself, and its lock.

    One that takes over has the folder that the one before has not, with its limits' windows. Raises CannotStart.
    """
    first, second = options.run_folder, other_run_folder(options.run_folder)
    if inherited is None:
        # What a worker that was killed has left is finished by the next one with its folder.
        chosen = second if _has_journals(second) and not _has_journals(first) else first
        return msgspec.structs.replace(options, run_folder=chosen), lock_run_folder(chosen)
    try:
        chosen, before = first, second
        lock = lock_run_folder(chosen)
    except CannotStart:
        chosen, before = second, first
        lock = lock_run_folder(chosen)
    copy_windows(before, chosen)
    return msgspec.structs.replace(options, run_folder=chosen), lock


def _has_journals(folder: Path) -> bool:
    return next(folder.glob("audit-*.journal"), None) is not None


def _address(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal():
        raise click.UsageError(f"--listen takes HOST:PORT, not {listen!r}.")
    host = host.strip("[]")
    return ("127.0.0.1" if host == "localhost" else host), int(port)


def banner(options: Options, loaded: Sequence[LoadedConfiguration]) -> str:
    """What a person needs once the gateway is up: where it is, how to make a key, and a call that works when pasted."""
    host = "localhost" if is_loopback(options.host) else options.host
    scheme = "http" if loaded[0].configuration.gateway.tls is None else "https"
    url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{options.port}"
    mode = effective_auth(loaded[0].configuration.gateway.auth, options.host)
    open_to_all = mode is AuthMode.AUTO
    key = "" if open_to_all else " -H 'authorization: Bearer kt_gk_…'"
    body = json.dumps({"model": _model_to_try(loaded), "messages": [{"role": "user", "content": "Hello"}]})
    names = ", ".join(one.configuration.pack.name for one in loaded)
    auth = {
        AuthMode.AUTO: "auto: this address is loopback, so requests without a key are served too",
        AuthMode.REQUIRED: "required: every request needs a gateway key",
        AuthMode.PASSTHROUGH: "passthrough: clients' own provider keys are forwarded",
    }[mode]
    return "\n".join(
        (
            f"Keeptrusts gateway {options.version} is ready at {url}",
            f"  configurations  {names}",
            f"  authentication  {auth}",
            f"  store           {_shown(options.store_url)}",
            "",
            f"Make a key:  kt gateway-key create --name my-first-key --configuration-id {loaded[0].id}",
            f"Call it:     curl {url}/v1/chat/completions -H 'content-type: application/json'{key} -d '{body}'",
            "",
        )
    )


def _model_to_try(loaded: Sequence[LoadedConfiguration]) -> str:
    targets = loaded[0].configuration.providers.targets
    return next((target.model for target in targets if target.provider == "mock"), targets[0].model)


def _shown(url: str) -> str:
    """A store's URL without its password, or its file's path."""
    if url.startswith("sqlite:///"):
        return str(Path(url.removeprefix("sqlite:///")))
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"
