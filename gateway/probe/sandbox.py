"""A gateway of its own for a measurement: started as a user would start it, in a folder that is thrown away.

It runs the chain of the user's configuration with one target put in the place of all others, so that nothing leaves the
machine and no account is charged. Policies that ask somebody else (a moderation service, a person) are left out.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from gateway.config.load import LoadedConfiguration
from gateway.probe.client import Client, Place, ProbeError, get

START_SECONDS: Final = 20.0
STOP_SECONDS: Final = 10.0
ASKS_OTHERS: Final = ("external-moderation", "human-oversight")
"""Policy kinds that would wait for somebody outside of the measurement."""
_COMMAND: Final = "from gateway.commands.main import main; main()"


def configuration_text(
    target: Mapping[str, Any], loaded: LoadedConfiguration | None = None, *, with_chain: bool = True
) -> str:
    """A configuration with this target alone, and the chain of `loaded`, or just an audit log."""
    if loaded is None or not with_chain:
        chain, policy = ["audit-logger"], {"audit-logger": {"log_all_access": True}}
    else:
        document = yaml.safe_load(loaded.text)
        chain = [kind for kind in loaded.configuration.policies.chain if kind not in ASKS_OTHERS]
        policy = {kind: settings for kind, settings in (document.get("policy") or {}).items() if kind in chain}
    return yaml.safe_dump(
        {
            "pack": {"name": loaded.id if loaded else "bench"},
            "providers": {"targets": [dict(target)]},
            "policies": {"chain": chain},
            "policy": policy,
            "gateway": {"logging": {"level": "warning"}},
        },
        sort_keys=False,
    )


@contextlib.asynccontextmanager
async def running(text: str, *, workers: int = 1) -> AsyncIterator[Place]:
    """Run a gateway with this configuration while inside. Raises ProbeError when it does not come up."""
    with tempfile.TemporaryDirectory(prefix="kt-") as name:
        folder = Path(name)
        file = folder / "policy-config.yaml"
        file.write_text(text, encoding="utf-8")
        place = Place("127.0.0.1", free_port(), tls=False, prefix="")
        log = folder / "gateway.log"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", _COMMAND, "gateway", "run", "--policy-config", str(file)),
                *("--listen", f"127.0.0.1:{place.port}", "--workers", str(workers)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**_environment(), "KT_STATE_DIR": str(folder / "state")},
                start_new_session=True,
            )
        try:
            await _ready(process, place, log)
            yield place
        finally:
            await _stop(process)


def _environment() -> dict[str, str]:
    """Without what would send this gateway's state elsewhere."""
    return {name: value for name, value in os.environ.items() if not name.startswith("KT_")}


async def _ready(process: asyncio.subprocess.Process, place: Place, log: Path) -> None:
    deadline = asyncio.get_running_loop().time() + START_SECONDS
    while process.returncode is None and asyncio.get_running_loop().time() < deadline:
        with contextlib.suppress(ProbeError):
            client = await Client.open(place)
            try:
                if (await client.ask(get(place, "/readyz"))).status == 200:
                    return
            finally:
                client.close()
        await asyncio.sleep(0.02)
    raise ProbeError(f"The gateway to measure did not come up:\n{_last_lines(log)}")


def _last_lines(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-5:])


async def _stop(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def free_port() -> int:
    """A port of loopback that nothing uses, from below the kernel's range for outgoing connections."""
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise ProbeError("There is no free port between 20000 and 32000.")
