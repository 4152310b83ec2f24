"""`kt gateway run` as a person meets it: what it prints, what it refuses, and with which exit code."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway_process import KT, PATIENCE, GatewayProcess, configuration, free_port, running_gateway
from tests.process.support import MOCK, answers, until


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    paid = {"id": "paid", "provider": "openai", "model": "gpt-4o", "secret_key_ref": {"env": "A_KEY_THAT_IS_NOT_SET"}}
    begun = time.monotonic()
    with running_gateway(tmp_path_factory.mktemp("start"), configuration(MOCK, paid, name="my-config")) as gateway:
        assert gateway.get("/v1/models")[0] == 200
        # Shown, not judged: a busy machine must not fail a test.
        print(f"\nfrom the command to the first answer: {time.monotonic() - begun:.2f} s")
        until(lambda: "Call it:" in gateway.log, "the banner")
        yield gateway


def kt(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "KT_STATE_DIR": str(folder / "state")}
    return subprocess.run([KT, *arguments], env=environment, capture_output=True, text=True, timeout=PATIENCE)


def test_the_banner_says_where_it_is_and_how_to_make_a_key(gateway: GatewayProcess) -> None:
    said = gateway.log
    assert f"is ready at http://localhost:{gateway.port}" in said
    [command] = re.findall(r"Make a key: +kt (.+)", said)
    made = gateway.kt(*command.split())
    assert re.fullmatch(r"kt_gk_\w+\n", made.stdout)


def test_the_call_of_the_banner_works_when_pasted(gateway: GatewayProcess) -> None:
    [line] = re.findall(r"Call it: +(curl .+)", gateway.log)
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=PATIENCE)
    answer = json.loads(done.stdout)
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"]["content"]


def test_a_missing_secret_is_a_warning_at_its_line(gateway: GatewayProcess) -> None:
    [line] = [line for line in gateway.log.splitlines() if "A_KEY_THAT_IS_NOT_SET" in line]
    assert re.match(rf"{re.escape(str(gateway.configuration_file()))}:\d+:\d+: warning: ", line)
    assert json.loads(gateway.get("/readyz")[1])["unavailable_targets"].keys() == {"paid"}


def test_a_second_gateway_on_the_same_run_folder_is_refused(gateway: GatewayProcess) -> None:
    file = str(gateway.configuration_file())
    done = gateway.kt("gateway", "run", "--policy-config", file, "--port", str(gateway.port), check=False)
    assert done.returncode == 1
    assert f"Another gateway (process {gateway.process.pid})" in done.stderr


def test_a_port_in_use_is_refused_and_another_one_proposed(gateway: GatewayProcess, tmp_path: Path) -> None:
    file = str(gateway.configuration_file())
    done = kt(tmp_path, "gateway", "run", "--policy-config", file, "--port", str(gateway.port))
    assert done.returncode == 1
    assert (
        f"Cannot listen on 127.0.0.1:{gateway.port}: Address already in use; choose another with --port" in done.stderr
    )


def test_a_broken_file_is_refused_with_every_problem_at_its_line(tmp_path: Path) -> None:
    text = configuration(MOCK).replace("provider: mock", "provider: mok").replace("model:", "modle:")
    file = tmp_path / "broken.yaml"
    file.write_text(text)
    done = kt(tmp_path, "gateway", "run", "--policy-config", str(file), "--port", str(free_port()))
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert all(re.match(rf"{re.escape(str(file))}:\d+:\d+: error: ", line) for line in lines)
    assert [line for line in lines if "did you mean `mock`?" in line]
    assert [line for line in lines if "did you mean `model`?" in line]
    assert done.stdout == ""


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    done = kt(tmp_path, "gateway", "run", "--policy-config", str(tmp_path / "none.yaml"))
    assert done.returncode == 2
    assert "none.yaml" in done.stderr


def test_without_its_store_a_gateway_waits_and_says_so(tmp_path: Path) -> None:
    """It cannot tell good keys from bad ones, so it serves nobody, and no client hears that its key is bad."""
    url = "sqlite:////proc/no/such/folder/keys.db"
    with running_gateway(tmp_path, configuration(MOCK), arguments=["--store", url], ready=False) as gateway:
        until(lambda: answers(gateway, "/healthz"), "it listens")
        status, body = gateway.get("/readyz")
        assert (status, json.loads(body)["ready"]) == (503, False)
        status, body = gateway.get("/v1/models", {"authorization": "Bearer kt_gk_anything"})
        assert (status, json.loads(body)["error"]["code"]) == (503, "overloaded")
        assert "/proc/no/such/folder" in gateway.log
        assert "is ready at" not in gateway.log
        assert gateway.stop() == 0


def test_the_help_has_examples(tmp_path: Path) -> None:
    for arguments in (["gateway"], ["gateway", "run"]):
        done = kt(tmp_path, *arguments, "--help")
        assert done.returncode == 0
        assert re.search(r"Examples:\n +kt gateway run --policy-config", done.stdout)
