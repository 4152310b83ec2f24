"""What a user gets before the first line of the gateway runs: lock files, make targets, the container image."""

import http.server
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

PYTHONS = ("3.11", "3.12", "3.13")
PLATFORMS = (("linux", "Linux", "x86_64"), ("linux", "Linux", "aarch64"), ("darwin", "Darwin", "arm64"))


def locked(name: str) -> dict[str, Version]:
    """The names and versions that a lock file pins."""
    # A pin may have a marker behind it, for what is not made for every platform.
    pins = re.findall(r"^([a-z0-9-]+)==(\S+)(?: ; [^\\\n]+)? \\$", (ROOT / name).read_text(), re.MULTILINE)
    return {pin: Version(version) for pin, version in pins}


def environment(python: str, platform: tuple[str, str, str]) -> dict[str, str]:
    """The values that requirement markers see on another interpreter and machine."""
    sys_platform, system, machine = platform
    return {
        **default_environment(),
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": sys_platform,
        "platform_system": system,
        "platform_machine": machine,
    }


def closure(requirements: list[Requirement], env: dict[str, str]) -> set[str]:
    """Every distribution that `requirements` bring with them in `env`, by the metadata of what is installed here."""
    found: set[str] = set()
    seen: set[tuple[str, str]] = set()
    waiting = [(requirement, extra) for requirement in requirements for extra in ("", *requirement.extras)]
    while waiting:
        requirement, extra = waiting.pop()
        name = canonicalize_name(requirement.name)
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        found.add(name)
        try:
            lines = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # its marker does not hold here; its name in the lock is what counts
            continue
        for needed in map(Requirement, lines):
            if needed.marker is None or needed.marker.evaluate({**env, "extra": extra}):
                waiting += [(needed, further) for further in ("", *needed.extras)]
    return found


@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda platform: "-".join(platform[1:]))
@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize(
    ("lock", "extras"), [("requirements.lock", ()), ("requirements-dev.lock", ("dev",))], ids=["runtime", "dev"]
)
def test_a_lock_file_is_complete_on_every_supported_python_and_platform(
    lock: str, extras: tuple[str, ...], python: str, platform: tuple[str, str, str]
) -> None:
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in PROJECT["optional-dependencies"][extra])]
    needed = closure([Requirement(line) for line in lines], environment(python, platform))
    assert needed - set(locked(lock)) == set()


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_a_lock_file_satisfies_pyproject(lock: str) -> None:
    pins = locked(lock)
    lines = list(PROJECT["dependencies"])
    if lock == "requirements-dev.lock":
        lines += PROJECT["optional-dependencies"]["dev"]
    for requirement in map(Requirement, lines):
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


def test_the_two_lock_files_agree() -> None:
    development = locked("requirements-dev.lock")
    for name, version in locked("requirements.lock").items():
        assert development[name] == version


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_a_lock_file_hashes_everything_and_names_no_host(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert "://" not in text
    for block in re.split(r"\n(?=[a-z0-9-]+==)", text)[1:]:
        assert "--hash=sha256:" in block


def test_node_lock_files_name_no_host() -> None:
    for lock in ROOT.glob("tests/sdk/*/package-lock.json"):
        packages = json.loads(lock.read_text())["packages"]
        assert not [name for name, package in packages.items() if "resolved" in package]
        assert all("integrity" in package for name, package in packages.items() if name)


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(["make", *arguments], cwd=folder, env=environ, capture_output=True, text=True, timeout=30)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with what `make` reads, and no environment yet."""
    for name in ("Makefile", "pyproject.toml", "requirements.lock", "requirements-dev.lock"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def interpreter(folder: Path, script: str) -> str:
    """A stand-in for `python3` on a machine that lacks something."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return f"PYTHON={path}"


def test_make_alone_lists_the_targets() -> None:
    listing = make(ROOT).stdout
    for target in ("setup", "run", "test", "lint", "types", "bench", "loadtest", "clean"):
        assert f"  make {target} " in listing


def test_an_old_python_is_named_with_the_next_step(clone: Path) -> None:
    result = make(clone, "setup", interpreter(clone, 'case "$2" in *version_info*) exit 1;; esac'))
    assert result.returncode != 0
    assert "Python 3.11 or newer is needed" in result.stderr
    assert "make setup PYTHON=python3.12" in result.stderr
    assert not (clone / ".venv").exists()


def test_a_missing_venv_module_is_named_with_the_next_step(clone: Path) -> None:
    result = make(clone, "run", interpreter(clone, 'case "$2" in *ensurepip*) exit 1;; esac'))
    assert result.returncode != 0
    assert "sudo apt-get install python3-venv" in result.stderr
    assert not (clone / ".venv").exists()


def test_setup_installs_with_hashes_once(clone: Path) -> None:
    (clone / ".venv/bin").mkdir(parents=True)
    calls = clone / "calls"
    python = clone / ".venv/bin/python"
    python.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    python.chmod(0o755)
    assert make(clone, "setup").returncode == 0
    first, second = calls.read_text().splitlines()
    assert first.endswith("--require-hashes -r requirements.lock")
    assert second.endswith("--no-deps --no-build-isolation --editable .")
    assert make(clone, "setup").returncode == 0
    assert len(calls.read_text().splitlines()) == 2


def test_the_ci_script_is_strict_and_executable() -> None:
    for name in (".ci/run", ".ci/setup-system"):
        path = ROOT / name
        assert os.access(path, os.X_OK)
        assert "set -euo pipefail" in path.read_text()
        subprocess.run(["bash", "-n", path], check=True)


@pytest.fixture
def health_endpoint() -> Iterator[http.server.HTTPServer]:
    class Handler(http.server.BaseHTTPRequestHandler):
        status = 200

        def do_GET(self) -> None:
            self.send_response(self.status if self.path == "/healthz" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def health_check(port: int) -> int:
    environ = {**os.environ, "KT_HEALTH_PORT": str(port)}
    return subprocess.run([sys.executable, ROOT / "deploy/image/healthcheck.py"], env=environ, timeout=30).returncode


def test_the_health_check_follows_healthz(health_endpoint: http.server.HTTPServer) -> None:
    port = health_endpoint.server_address[1]
    assert health_check(port) == 0
    health_endpoint.RequestHandlerClass.status = 503  # type: ignore[attr-defined]
    assert health_check(port) == 1


def test_the_health_check_fails_where_nothing_listens() -> None:
    with socket.socket() as bound:  # bound and never listening: the port is ours and refuses
        bound.bind(("127.0.0.1", 0))
        assert health_check(bound.getsockname()[1]) == 1
