"""The container image: the Dockerfile itself is built, on a clean Debian root that holds nothing but Python.

No Docker engine and no image registry are needed: debootstrap makes the base image from the distribution's packages,
and buildah (in its chroot isolation) follows the Dockerfile. What this cannot show: the published `python` base image.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtest.cpu import family
from loadtest.stack import HOST, free_port

ROOT = Path(__file__).parent.parent
CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.geteuid() != 0, reason="debootstrap needs root"),
    pytest.mark.skipif(not shutil.which("debootstrap"), reason="debootstrap is not installed"),
    pytest.mark.skipif(not shutil.which("buildah"), reason="buildah is not installed"),
]


def distribution() -> tuple[str, str]:
    """This machine's code name ("bookworm") and the address that its own packages come from."""
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    suite = release["VERSION_CODENAME"].strip('"')
    wanted = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", f"Codename: {suite}"]
    addresses = subprocess.run(wanted, check=True, capture_output=True, text=True).stdout.split()
    return suite, addresses[0]


class Builder:
    """buildah with a store of its own, so that nothing on the machine is read or left behind."""

    def __init__(self, folder: Path) -> None:
        self._options = ["--root", f"{folder}/store", "--runroot", f"{folder}/run", "--storage-driver", "vfs"]

    def __call__(self, *arguments: str | Path, timeout: float = 300) -> str:
        process = self.start(*arguments)
        output, problem = process.communicate(timeout=timeout)
        assert process.returncode == 0, f"{process.args!r}\n{output}\n{problem}"
        return output.strip()

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """A buildah that goes on running."""
        command = ["buildah", *self._options, *map(str, arguments)]
        environ = {**os.environ, "BUILDAH_ISOLATION": "chroot"}
        return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def buildah(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    folder = tmp_path_factory.mktemp("buildah")
    yield Builder(folder)
    shutil.rmtree(folder)  # hundreds of megabytes: not left to pytest's own clean-up of old runs


@pytest.fixture(scope="module")
def base_image(buildah: Builder, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The distribution's smallest root with Python, as an image."""
    root = tmp_path_factory.mktemp("base") / "root"
    suite, address = distribution()
    command = [
        "debootstrap",
        "--variant=minbase",
        "--include=python3,python3-venv,ca-certificates",
        suite,
        root,
        address,
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    # Whom this machine trusts, so that packages come from where this machine gets them.
    shutil.copy(f"/{CERTIFICATES}", root / CERTIFICATES)
    container = buildah("from", "scratch")
    buildah("add", "--quiet", container, root, "/")
    buildah("config", "--env", f"PIP_CERT=/{CERTIFICATES}", container)
    buildah("commit", "--quiet", "--rm", container, "localhost/base")
    shutil.rmtree(root)
    return "localhost/base"


@pytest.fixture(scope="module")
def image(buildah: Builder, base_image: str) -> str:
    buildah("bud", "--format", "docker", "--build-arg", f"BASE_IMAGE={base_image}", "--tag", "localhost/gateway", ROOT)
    return "localhost/gateway"


@pytest.fixture
def container(buildah: Builder, image: str) -> Iterator[str]:
    name = buildah("from", "--pull-never", image)
    yield name
    buildah("rm", name)


def test_kt_runs_as_its_own_user(buildah: Builder, container: str) -> None:
    assert buildah("run", container, "--", "id", "-u") == "10001"
    assert "0.1.0" in buildah("run", container, "--", "kt", "--version")


def test_only_the_state_folder_can_be_written(buildah: Builder, container: str) -> None:
    writable = "for d in / /etc/keeptrusts /opt/keeptrusts /var/lib/keeptrusts; do [ -w $d ] && echo $d; done; true"
    assert buildah("run", container, "--", "sh", "-c", writable) == "/var/lib/keeptrusts"


def test_no_installer_is_left_in_the_image(buildah: Builder, container: str) -> None:
    listing = buildah("run", container, "--", "ls", "/opt/keeptrusts/bin", "/opt/keeptrusts/lib")
    assert "pip" not in listing


def test_the_starter_configuration_is_valid_in_the_image(buildah: Builder, container: str) -> None:
    buildah("run", container, "--", "kt", "policy", "lint", "/etc/keeptrusts/policy-config.yaml")


def test_what_the_image_says_of_itself(buildah: Builder, image: str) -> None:
    config = json.loads(buildah("inspect", "--type", "image", image))["Docker"]["config"]
    assert config["User"] == "keeptrusts"
    assert config["Entrypoint"] == ["kt"]
    assert config["Cmd"][-2:] == ["--listen", "0.0.0.0:41002"]
    assert list(config["ExposedPorts"]) == ["41002/tcp"]
    assert list(config["Volumes"]) == ["/var/lib/keeptrusts"]
    assert config["Healthcheck"]["Test"] == ["CMD", "python", "/opt/keeptrusts/healthcheck.py"]


def test_the_gateway_serves_and_stops(buildah: Builder, container: str) -> None:
    """Started as its own user; its health check passes, a chat is answered by the mock provider, SIGTERM ends it."""
    port = free_port()
    serve = ["gateway", "run", "--policy-config", "/etc/keeptrusts/policy-config.yaml", "--listen", f"{HOST}:{port}"]
    process = buildah.start("run", container, "--", "kt", *serve)
    try:
        check = f"until KT_HEALTH_PORT={port} python /opt/keeptrusts/healthcheck.py; do :; done"
        buildah("run", container, "--", "sh", "-c", check, timeout=60)
        body = json.dumps({"model": "mock-gpt", "messages": [{"role": "user", "content": "Hello"}]}).encode()
        url = f"http://{HOST}:{port}/v1/chat/completions"
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert json.load(answer)["choices"][0]["message"]["content"]
    finally:
        for pid in reversed(family(process.pid)[1:]):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        process.communicate(timeout=60)
