"""What the doctor finds, on real files, ports and providers."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml

from gateway.config.load import LoadedConfiguration, load_text
from gateway.control.store.store import Store
from gateway.probe import checks, sandbox
from gateway.probe.checks import Finding, Status
from tests.provider import RESET, ScriptedProvider, head


def configuration(*targets: dict[str, object], chain: tuple[str, ...] = ("audit-logger",)) -> LoadedConfiguration:
    document = {"pack": {"name": "c"}, "providers": {"targets": list(targets)}, "policies": {"chain": list(chain)}}
    return load_text(yaml.safe_dump(document), "c.yaml")


def told(findings: Iterable[Finding]) -> list[tuple[str, str]]:
    return [(finding.status.value, finding.found) for finding in findings]


MOCK: dict[str, object] = {"id": "mock", "provider": "mock", "model": "m"}
KEYED: dict[str, object] = {
    "id": "keyed",
    "provider": "openai",
    "model": "gpt",
    "secret_key_ref": {"env": "A_KEY"},
    "base_url": "http://127.0.0.1:1",
}


def test_a_broken_file_is_told_at_its_line(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("pack: {name: c}\nproviders: {targets: []}\npolicy: {audit-loger: {}}\n")
    loaded, findings = checks.configuration([str(file)], {})
    assert loaded == []
    assert {finding.status for finding in findings} == {Status.FAILED}
    assert any(f"{file}:3:" in finding.found for finding in findings)


def test_a_good_file_is_read_and_its_missing_secret_is_told_once(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(configuration(MOCK, KEYED).text)
    loaded, findings = checks.configuration([str(file)], {})
    assert told(findings) == [("ok", "1 read: c")]
    assert told(checks.secrets(loaded, {})) == [("warning", "keyed: the environment variable `A_KEY` is not set")]
    assert told(checks.secrets(loaded, {"A_KEY": "k"})) == [("ok", "found for keyed")]


def test_a_state_folder_that_others_can_read_is_found(tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert told(checks.state_files(state)) == [("note", f"{state} is not there yet; the gateway makes it")]
    state.mkdir(mode=0o700)
    (state / "gateway.db").touch(mode=0o600)
    (finding,) = checks.state_files(state)
    assert finding.status in (Status.OK, Status.WARNING)  # a test machine's disk may be nearly full
    (state / "gateway.db").chmod(0o644)
    assert ("failed", f"{state}/gateway.db can be read by everybody (0644)") in told(checks.state_files(state))
    (state / "gateway.db").chmod(0o660)
    state.chmod(0o770)
    assert ("warning", f"{state}/gateway.db can be read by its group (0660)") in told(checks.state_files(state))
    (state / "gateway.db").chmod(0o600)
    assert {finding.status for finding in checks.state_files(state)} <= {Status.OK, Status.WARNING}
    state.chmod(0o755)
    assert ("failed", f"{state} can be read by everybody (0755)") in told(checks.state_files(state))


async def test_the_store_is_opened_and_not_made(tmp_path: Path) -> None:
    file = tmp_path / "gateway.db"
    assert (await checks.store(str(file))).status is Status.NOTE
    assert not file.exists()
    await (await Store.open(str(file))).close()
    assert (await checks.store(str(file))).found == f"{file} opens"
    file.write_bytes(b"not a database, whatever its name says")
    assert (await checks.store(str(file))).status is Status.FAILED


def test_a_port_that_another_program_holds() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        number = other.getsockname()[1]
        assert told([checks.port("127.0.0.1", number)]) == [
            ("failed", f"127.0.0.1:{number} is held by another program")
        ]
    assert told([checks.port("127.0.0.1", number)]) == [("ok", f"127.0.0.1:{number} is free")]


def test_few_descriptors_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1024, 4096))
    assert told([checks.descriptors()]) == [("warning", "1,024 for a process (at most 4,096)")]


def test_the_kernel_is_asked_about_its_clock() -> None:
    assert checks.clock().area == "clock"
    assert checks.clock().status in (Status.OK, Status.WARNING, Status.NOTE)


DATE = "Tue, 15 Nov 1994 08:12:31 GMT"
THEN = 784887151.0


@pytest.mark.parametrize(("off", "said"), [(0, ""), (29, ""), (-29, ""), (301, "301 s ahead of"), (-60, "60 s behind")])
def test_a_providers_date_tells_a_wrong_clock(off: float, said: str) -> None:
    found = checks.clock_against("https://provider", DATE, THEN + off)
    assert said in (found[0].found if found else "")
    assert len(found) == (1 if said else 0)
    assert checks.clock_against("https://provider", "yesterday", THEN) == []


async def test_each_target_is_reached_and_its_clock_compared() -> None:
    answer = head(404, ("date", DATE), ("content-length", "0"))
    async with ScriptedProvider(answer) as provider:
        found = await checks.targets([configuration(MOCK, {**KEYED, "base_url": provider.url})], {"A_KEY": "k"})
        request = provider.requests[0]
    assert (request.method, "authorization" in request.headers) == ("HEAD", False)
    assert [finding.area for finding in found] == ["targets", "clock", "targets"]
    assert found[0].found.startswith(f"keyed: {provider.url} reached in")
    assert (found[1].status, " ahead of that of " in found[1].found) == (Status.FAILED, True)
    assert ("ok", "mock: answers by itself") in told(found)


async def test_a_provider_that_takes_no_request_is_reached_all_the_same() -> None:
    async with ScriptedProvider([RESET]) as provider:
        (finding,) = await checks.targets([configuration({**KEYED, "base_url": provider.url})], {"A_KEY": "k"})
    assert finding.status is Status.OK


async def test_a_target_that_cannot_be_reached() -> None:
    async with ScriptedProvider(b"") as gone:
        url = gone.url
    (finding,) = await checks.targets([configuration({**KEYED, "base_url": url})], {"A_KEY": "k"})
    assert finding.status is Status.FAILED
    assert finding.found.startswith(f"keyed: {url} cannot be reached")


def test_what_is_measured_keeps_the_chain_but_for_what_asks_others() -> None:
    one = configuration(MOCK, chain=("human-oversight", "prompt-injection", "audit-logger"))
    text = sandbox.configuration_text({"id": "t", "provider": "mock", "model": "m"}, one)
    measured = load_text(text, "m.yaml").configuration
    assert measured.policies.chain == ("prompt-injection", "audit-logger")
    assert [target.id for target in measured.providers.targets] == ["t"]
    bare = load_text(sandbox.configuration_text({"id": "t", "provider": "mock", "model": "m"}), "b.yaml")
    assert bare.configuration.policies.chain == ("audit-logger",)


def test_the_users_own_surroundings_do_not_reach_the_gateway_that_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KT_STORE_URL", "postgresql://production/keys")
    assert not [name for name in sandbox._environment() if name.startswith("KT_")]
    assert os.environ["PATH"] == sandbox._environment()["PATH"]
