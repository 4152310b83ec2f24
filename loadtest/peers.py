"""Other gateways, measured in the same run, where they install from the package registries.

LiteLLM's proxy comes from PyPI and Portkey's gateway from npm, each into a folder of its own (`.peers`, made once by
`python -m loadtest.peers`), at the versions below. Both are started as their documentation shows, with one worker and
with what costs them least: no database, no logging, no key store. So they do less than our default, not more.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from loadtest import stack

FOLDER: Final = Path(__file__).parent.parent / ".peers"
LITELLM: Final = "1.108.7"
PORTKEY: Final = "1.15.2"
KEY: Final = "sk-loadtest"


@dataclass(frozen=True)
class Peer:
    """A running peer: its server, and the header lines that a request to it carries besides the usual ones."""

    server: stack.Server
    fields: str = ""


def install() -> None:
    """Install both. Raises StartError with what the installer said last."""
    FOLDER.mkdir(exist_ok=True)
    venv = FOLDER / "litellm"
    if not (venv / "bin" / "litellm").exists():
        _run([sys.executable, "-m", "venv", str(venv)])
        _run([str(venv / "bin" / "pip"), "install", "--quiet", f"litellm[proxy]=={LITELLM}"])
    if not _portkey().exists():
        npm = shutil.which("npm")
        if npm is None:
            raise stack.StartError("npm is not installed. Next step: make setup-system")
        prefix = str(FOLDER / "portkey")
        _run([npm, "install", "--prefix", prefix, "--no-audit", "--no-fund", f"@portkey-ai/gateway@{PORTKEY}"])


def installed() -> bool:
    """Both are there."""
    return (FOLDER / "litellm" / "bin" / "litellm").exists() and _portkey().exists()


def _portkey() -> Path:
    return FOLDER / "portkey" / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    if done.returncode:
        raise stack.StartError(f"{' '.join(command[:3])} … failed:\n{done.stderr[-2000:]}")


@contextlib.contextmanager
def litellm(folder: Path, upstreams: dict[str, int], cores: set[int]) -> Iterator[Peer]:
    """LiteLLM's proxy with the models of `upstreams`, each at its port."""
    port = stack.free_port()
    models = [
        {
            "model_name": model,
            "litellm_params": {
                "model": f"openai/{model}",
                "api_base": f"http://{stack.HOST}:{at}/v1",
                "api_key": KEY,
            },
        }
        for model, at in upstreams.items()
    ]
    path = folder / "litellm.yaml"
    settings = {"litellm_settings": {"num_retries": 0, "turn_off_message_logging": True, "telemetry": False}}
    path.write_text(json.dumps({"model_list": models, "general_settings": {"master_key": KEY}, **settings}))
    command = [str(FOLDER / "litellm" / "bin" / "litellm"), "--config", str(path), "--port", str(port)]
    environ = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "DISABLE_ADMIN_UI": "True"}
    arguments = [*command, "--host", stack.HOST, "--num_workers", "1"]
    with stack.running("litellm", arguments, port, folder, cores=cores, environ=environ, patience=120) as server:
        yield Peer(server)


@contextlib.contextmanager
def portkey(folder: Path, upstream: int, cores: set[int], name: str = "portkey") -> Iterator[Peer]:
    """Portkey's gateway; each request names the provider's address itself."""
    node = shutil.which("node")
    if node is None:
        raise stack.StartError("Node.js is not installed. Next step: make setup-system")
    port = stack.free_port()
    command = [node, str(_portkey()), f"--port={port}", "--headless"]
    fields = f"x-portkey-provider: openai\r\nx-portkey-custom-host: http://{stack.HOST}:{upstream}/v1\r\n"
    # Its SSRF guard refuses loopback unless it is named.
    environ = {"TRUSTED_CUSTOM_HOSTS": f"{stack.HOST},localhost", "NODE_ENV": "production"}
    with stack.running(name, command, port, folder, cores=cores, environ=environ, patience=60) as server:
        yield Peer(server, fields)


if __name__ == "__main__":
    try:
        install()
    except stack.StartError as problem:
        sys.exit(str(problem))
    print(f"LiteLLM {LITELLM} and Portkey {PORTKEY} are in {FOLDER.name}/; next: make bench BENCH_ARGS=--peers")
