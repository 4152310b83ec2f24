"""`kt explain` on configuration files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner, Result

from gateway.commands.main import kt
from tests.playbook import configuration, target

CHAT: dict[str, Any] = {"model": "gpt-test", "messages": [{"role": "user", "content": "Hello"}], "seed": 7}
TEXT = configuration(target("claude", provider="anthropic", upstream_model="claude-sonnet-4-5"), target("gpt"))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("PROVIDER_KEY", "sk-provider")
    (tmp_path / "policy-config.yaml").write_text(TEXT)
    (tmp_path / "request.json").write_bytes(orjson.dumps(CHAT))
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: str, stdin: bytes | None = None) -> Result:
        return CliRunner().invoke(kt, ["explain", *arguments], input=stdin)

    return invoke


def test_a_table_for_people(run: Any) -> None:
    result = run("request.json")
    assert result.exit_code == 0, result.output
    assert "sent to claude" in result.stdout
    assert "1. claude (anthropic, claude-sonnet-4-5)" in result.stdout
    assert "POST http://claude.test/v1/messages" in result.stdout
    assert "x-api-key: [secret]" in result.stdout
    assert "note: seed: " in result.stdout
    assert '"seed": 7' in result.stdout, "the second target takes it"
    assert "sk-provider" not in result.output


def test_json_for_programs(run: Any) -> None:
    result = run("-", "--json", stdin=orjson.dumps(CHAT))
    assert result.exit_code == 0, result.output
    told = orjson.loads(result.stdout)
    assert told["outcome"]["target"] == "claude"
    assert told["targets"][0]["body"]["model"] == "claude-sonnet-4-5"


def test_another_path_with_a_header(run: Any, tmp_path: Path) -> None:
    (tmp_path / "request.json").write_bytes(orjson.dumps({**CHAT, "max_tokens": 9}))
    result = run("request.json", "--path", "/v1/messages", "--header", "Anthropic-Beta: new-thing", "--json")
    told = orjson.loads(result.stdout)
    assert told["operation"] == "messages"
    assert told["targets"][0]["headers"]["anthropic-beta"] == "new-thing"
    assert "anthropic-beta" not in told["targets"][1]["headers"]


def test_a_request_that_would_be_refused_is_a_failure(run: Any, tmp_path: Path) -> None:
    (tmp_path / "request.json").write_bytes(orjson.dumps({**CHAT, "model": "none"}))
    result = run("request.json")
    assert result.exit_code == 1
    assert "404 model_not_found" in result.stdout


def test_a_body_that_cannot_be_read_is_said_on_standard_error(run: Any, tmp_path: Path) -> None:
    (tmp_path / "request.json").write_bytes(b"{")
    result = run("request.json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "400 invalid_json" in result.stderr


def test_wrong_usage(run: Any) -> None:
    assert run("request.json", "--header", "no colon").exit_code == 2
    assert run("absent.json").exit_code == 2


def test_its_help_has_examples(run: Any) -> None:
    assert "kt explain request.json" in run("--help").output
