"""`kt escalation` on a real store."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner, Result

from gateway.commands.main import kt
from gateway.control.store.store import Store
from gateway.oversight import Answer, Referral

TOLD = Referral(
    fingerprint="f1", valid_seconds=3600, request_id="req_1", key_name="dev", model="gpt-4o", text="[user] Hello"
)


class Cli:
    """Runs the command on one store."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __call__(self, *arguments: str) -> Result:
        return CliRunner().invoke(kt, ["escalation", *arguments, "--store", self.url])

    def refer(self) -> Answer:
        async def work() -> Answer:
            store = await Store.open(self.url)
            try:
                return await store.escalations.refer(TOLD)
            finally:
                await store.close()

        return asyncio.run(work())


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(f"sqlite:///{tmp_path}/gateway.db")


def of(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return orjson.loads(result.stdout)


def test_the_whole_way(cli: Cli) -> None:
    id = cli.refer().id
    (row,) = of(cli("list", "--json"))
    assert (row["id"], row["state"], row["key_name"], row["model"]) == (id, "pending", "dev", "gpt-4o")
    assert of(cli("show", id, "--json"))["text"] == "[user] Hello"
    approved = cli("approve", id, "--note", "fine")
    assert (approved.exit_code, approved.stdout) == (0, f"Escalation {id} is approved.\n")
    assert of(cli("list", "--json")) == []
    assert cli.refer() == Answer("approved", id)
    assert [row["state"] for row in of(cli("list", "--state", "all", "--json"))] == ["used"]


def test_refusing(cli: Cli) -> None:
    id = cli.refer().id
    assert of(cli("refuse", id, "--json"))["state"] == "refused"
    assert cli.refer() == Answer("refused", id)
    late = cli("approve", id)
    assert (late.exit_code, "refused already" in late.stderr) == (1, True)


def test_tables_for_people(cli: Cli) -> None:
    id = cli.refer().id
    assert id in cli("list").stdout
    assert "[user] Hello" in cli("show", id).stdout


def test_what_there_is_not(cli: Cli) -> None:
    missing = cli("list")
    assert missing.exit_code == 1
    cli.refer()
    unknown = cli("show", "esc_none")
    assert (unknown.exit_code, "kt escalation list" in unknown.stderr) == (1, True)
