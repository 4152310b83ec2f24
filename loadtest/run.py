"""Runs Locust for a bounded time against a gateway and a paced provider that it starts itself.

python -m loadtest.run --seconds 60 --users 50
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from loadtest import stack

GRACE_SECONDS = 60
"""How long Locust may take beyond the time that was asked for: to start, to stop its users, to write the report."""


LIMITED_RPM = 30
"""Low enough to be reached by one user in seconds."""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtest.run", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--seconds", type=int, default=60, help="how long (default 60)")
    parser.add_argument("--users", type=int, default=50, help="simulated users at once (default 50)")
    parser.add_argument("--report", type=Path, default=Path("build/loadtest.html"), help="the HTML report")
    parser.add_argument("--ttft-ms", type=float, default=200, help="the provider's time to the first token")
    parser.add_argument("--gap-ms", type=float, default=20, help="the provider's time between tokens")
    parser.add_argument("--chunks", type=int, default=100, help="tokens in a stream")
    parser.add_argument("--workers", type=int, default=1, help="the gateway's workers")
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help="classes of loadtest/locustfile.py; none: all")
    return parser.parse_args()


def _spawn_rate(users: int, seconds: int) -> int:
    """Users a second, so that all are there after a tenth of the time."""
    return math.ceil(10 * users / seconds)


def _documents(port: int) -> dict[str, dict[str, Any]]:
    """The configurations that the scenarios use; each but the first gets a key."""
    all_ = stack.configurations({stack.MODEL: port})
    limited = {**all_["default"], "pack": {"name": "limited"}}
    return {**{name: all_[name] for name in ("bare", "default", "refusing")}, "limited": limited}


def _locust(arguments: argparse.Namespace, running: stack.Gateway) -> int:
    command = [
        *(sys.executable, "-m", "locust", "-f", str(Path(__file__).with_name("locustfile.py"))),
        *(
            "--headless",
            "--users",
            str(arguments.users),
            "--spawn-rate",
            str(_spawn_rate(arguments.users, arguments.seconds)),
        ),
        *("--run-time", f"{arguments.seconds}s", "--stop-timeout", "10", "--reset-stats"),
        *("--host", f"http://{stack.HOST}:{running.server.port}", "--html", str(arguments.report)),
        *arguments.scenarios,
    ]
    environ = {
        **os.environ,
        "LOADTEST_KEY": running.keys["default"],
        "LOADTEST_REFUSING_KEY": running.keys["refusing"],
        "LOADTEST_LIMITED_KEY": running.keys["limited"],
        "PYTHONPATH": str(Path(__file__).parent.parent),
    }
    return subprocess.run(command, env=environ, timeout=arguments.seconds + GRACE_SECONDS).returncode


def main() -> int:
    """Locust's exit code: 0 when every request went as expected."""
    arguments = _arguments()
    arguments.report.parent.mkdir(parents=True, exist_ok=True)
    pace = {"ttft_ms": arguments.ttft_ms, "gap_ms": arguments.gap_ms, "chunks": arguments.chunks}
    with tempfile.TemporaryDirectory(prefix="loadtest-") as name:
        folder = Path(name)
        try:
            with (
                stack.provider(folder, **pace) as upstream,
                stack.gateway(
                    folder,
                    {},
                    workers=arguments.workers,
                    documents=_documents(upstream.port),
                    rpm={"limited": LIMITED_RPM},
                ) as running,
            ):
                status = _locust(arguments, running)
        except stack.StartError as problem:
            print(problem, file=sys.stderr)
            return 1
    print(f"report: {arguments.report.resolve()}")
    return status


if __name__ == "__main__":
    sys.exit(main())
