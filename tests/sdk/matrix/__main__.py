"""`make sdk-matrix`: makes every client's environment, runs each against every provider's format, prints the table.

    python -m tests.sdk.matrix                     all clients whose toolchain is here
    python -m tests.sdk.matrix --client openai     one of them; may be repeated

A client whose toolchain is missing is left out with a word, in CI (`CI=true`) that is a failure. Leaves with 1 when a
case failed. Environments are kept in `.sdk-matrix/` beside the sources and are made again when a lock file is newer.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.gateway_process import configuration, running_gateway
from tests.sdk.matrix import provider

ROOT = Path(__file__).parents[3]
FOLDER = Path(__file__).parent
MADE = ROOT / ".sdk-matrix"
PROVIDERS = {
    "openai": "openai",
    "anthropic": "anthropic",
    "gemini": "gemini",
    "bedrock": "bedrock",
    "cohere": "cohere",
    "ollama": "ollama-native",
}
"""Models of the matrix, each with the kind of target that offers it: one for every chat format."""
SECONDS = 300


@dataclass(frozen=True)
class Client:
    """One client: its name in the table, what it needs, and how it is made and run."""

    name: str
    tool: str
    make: Callable[[], Sequence[Sequence[str]]]
    command: Sequence[str]
    folder: Path


def _python() -> Sequence[Sequence[str]]:
    lock = FOLDER / "python" / "requirements.lock"
    python = MADE / "python"
    if _fresh(python / "made", lock):
        return []
    return [
        [sys.executable, "-m", "venv", str(python)],
        [str(python / "bin/python"), "-m", "pip", "install", "--quiet", "--require-hashes", "-r", str(lock)],
        ["touch", str(python / "made")],
    ]


def _node() -> Sequence[Sequence[str]]:
    folder = FOLDER / "node"
    if _fresh(folder / "node_modules/.package-lock.json", folder / "package-lock.json"):
        return []
    return [["npm", "ci", "--prefix", str(folder), "--ignore-scripts", "--no-audit", "--no-fund"]]


def _go() -> Sequence[Sequence[str]]:
    binary = MADE / "go-clients"
    if _fresh(binary, FOLDER / "go/go.sum") and _fresh(binary, FOLDER / "go/main.go"):
        return []
    # Unoptimised, it takes half the time to build.
    return [["go", "build", "-gcflags=all=-N -l", "-o", str(binary), "."]]


def _java() -> Sequence[Sequence[str]]:
    return [["mvn", "-q", "-B", "compile"]]


def _fresh(made: Path, source: Path) -> bool:
    return made.exists() and made.stat().st_mtime >= source.stat().st_mtime


def _python_client(name: str, argument: str) -> Client:
    command = [str(MADE / "python/bin/python"), str(FOLDER / "python/clients.py"), argument]
    return Client(name, sys.executable, _python, command, FOLDER / "python")


CLIENTS = (
    _python_client("openai (Python)", "openai"),
    _python_client("AzureOpenAI (Python)", "azure"),
    _python_client("anthropic (Python)", "anthropic"),
    _python_client("LangChain", "langchain"),
    _python_client("LlamaIndex", "llama-index"),
    Client("openai (Node)", "npm", _node, ["node", str(FOLDER / "node/clients.js"), "openai"], FOLDER / "node"),
    Client("Vercel AI SDK", "npm", _node, ["node", str(FOLDER / "node/clients.js"), "ai-sdk"], FOLDER / "node"),
    Client("openai-java", "mvn", _java, ["mvn", "-q", "-B", "exec:java"], FOLDER / "java"),
    Client("openai-go", "go", _go, [str(MADE / "go-clients"), "openai-go"], FOLDER / "go"),
    Client("go-openai", "go", _go, [str(MADE / "go-clients"), "go-openai"], FOLDER / "go"),
)


@dataclass
class Row:
    """What one client showed: for each model the cases that ran, and what went wrong."""

    client: str
    cases: dict[str, set[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def take(self, line: str) -> None:
        """One line of a client's output; other lines are the toolchain's own."""
        try:
            said = json.loads(line)
        except ValueError:
            return
        self.cases.setdefault(said["model"], set()).add(said["case"])
        if said["problem"]:
            self.problems.append(f"{self.client}, {said['model']}, {said['case']}: {said['problem']}")

    def cell(self, model: str) -> str:
        """How many cases passed, out of how many."""
        ran = len(self.cases.get(model, ()))
        failed = sum(problem.startswith(f"{self.client}, {model}, ") for problem in self.problems)
        return f"{ran - failed} of {ran}"


def make(client: Client) -> None:
    """Make what the client needs; raises CalledProcessError."""
    MADE.mkdir(exist_ok=True)
    for command in client.make():
        subprocess.run(command, cwd=client.folder, check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr)


def run(client: Client, environment: Mapping[str, str]) -> Row:
    """Run the client against all models."""
    done = subprocess.run(
        client.command,
        cwd=client.folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    row = Row(client.name)
    for line in done.stdout.splitlines():
        row.take(line[line.find("{") :])
    missing = [model for model in PROVIDERS if model not in row.cases]
    if missing or done.returncode:
        row.problems.append(f"{client.name}: ended with {done.returncode}, without {missing}\n{done.stderr[-2000:]}")
    return row


def matrix(clients: Sequence[Client]) -> list[Row]:
    """All of them against one gateway, whose targets are the scripted provider in each of its formats."""
    with provider.running() as url, tempfile.TemporaryDirectory() as folder:
        targets = [
            {
                "id": model,
                "provider": kind,
                "model": model,
                "base_url": f"{url}/{model}{'/v1' if model == 'openai' else ''}",
                "secret_key_ref": {"env": "PROVIDER_SECRET"},
            }
            for model, kind in PROVIDERS.items()
        ]
        text = configuration(*targets, fallback={"circuit_breaker": {"enabled": False}})
        with running_gateway(Path(folder), text, environment={"PROVIDER_SECRET": "sk-of-the-provider"}) as gateway:
            environment = {
                "GATEWAY_URL": gateway.url,
                "GATEWAY_KEY": gateway.create_key("sdk-matrix"),
                "MODELS": ",".join(PROVIDERS),
            }
            rows = []
            for client in clients:
                print(f"{client.name} …", file=sys.stderr, flush=True)
                rows.append(run(client, environment))
            return rows


def table(rows: Sequence[Row]) -> str:
    """In Markdown."""
    lines = ["| client | " + " | ".join(PROVIDERS) + " |", "| --- |" + " --- |" * len(PROVIDERS)]
    lines += [f"| {row.client} | " + " | ".join(map(row.cell, PROVIDERS)) + " |" for row in rows]
    return "\n".join(lines)


def main() -> int:
    """Parse the command line, run, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.sdk.matrix", description=__doc__.splitlines()[0])
    parser.add_argument("--client", action="append", choices=[client.name for client in CLIENTS], metavar="NAME")
    arguments = parser.parse_args()
    chosen = [client for client in CLIENTS if not arguments.client or client.name in arguments.client]
    here = [client for client in chosen if shutil.which(client.tool)]
    left_out = [f"{client.name} is left out: {client.tool} is not installed" for client in chosen if client not in here]
    for client in here:
        make(client)
    rows = matrix(here)
    problems = [problem for row in rows for problem in row.problems]
    print(table(rows))
    print("\n".join([*left_out, *problems]), file=sys.stderr)
    return 1 if problems or (left_out and os.environ.get("CI") == "true") else 0


if __name__ == "__main__":
    sys.exit(main())
