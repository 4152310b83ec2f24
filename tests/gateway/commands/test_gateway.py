"""`kt gateway run` before anything is started: what is wrong is told in a sentence, and nothing is left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gateway.commands.conftest import Run
from tests.gateway_process import configuration


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("socks5://user:hush@proxy.test:1080", "HTTPS_PROXY must be an http:// proxy"),
        ("http://proxy.test:port", "HTTPS_PROXY is not a URL"),
    ],
)
def test_a_proxy_that_cannot_be_used(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, said: str
) -> None:
    file = tmp_path / "policy-config.yaml"
    file.write_text(configuration({"id": "mock", "provider": "mock", "model": "m"}))
    monkeypatch.setenv("HTTPS_PROXY", value)
    monkeypatch.delenv("https_proxy", raising=False)
    monkeypatch.setenv("KT_STATE_DIR", str(tmp_path / "state"))
    result = run("gateway", "run", "--policy-config", file)
    assert result.exit_code == 2
    assert said in result.output
    assert "Or unset it" in result.output
    assert "hush" not in result.output
    assert not (tmp_path / "state").exists()
