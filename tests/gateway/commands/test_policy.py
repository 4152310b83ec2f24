"""`kt policy`: problems for people and for programs, and the JSON Schema."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.config.jsonschema import render
from tests.gateway.commands.conftest import Run

GOOD = """\
pack: {name: %s}
providers:
  targets:
    - {id: a, provider: mock, model: m}
"""


@pytest.fixture
def good(tmp_path: Path) -> Path:
    file = tmp_path / "good.yaml"
    file.write_text(GOOD % "good")
    return file


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    file = tmp_path / "bad.yaml"
    file.write_text(GOOD % "bad" + "policies: {chain: [dlp-fliter]}\npolicy: {audit-logger: {}}\n")
    return file


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    file = tmp_path / "odd.yaml"
    file.write_text(GOOD % "odd" + "policy: {audit-logger: {}}\n")
    return file


def test_a_good_file(run: Run, good: Path) -> None:
    result = run("policy", "lint", good)
    assert (result.exit_code, result.output) == (0, "0 errors, 0 warnings, 1 usable configuration\n")


def test_a_warning_is_no_failure(run: Run, odd: Path) -> None:
    result = run("policy", "lint", odd)
    assert result.exit_code == 0
    assert result.output == (
        f"{odd}:5:24: warning: policy.audit-logger: not in `policies.chain`, so it never runs (add it to the chain)\n"
        "0 errors, 1 warning, 1 usable configuration\n"
    )


def test_an_error_ends_with_2(run: Run, good: Path, bad: Path) -> None:
    result = run("policy", "lint", good, bad)
    assert result.exit_code == 2
    assert result.output == (
        f"{bad}:5:20: error: policies.chain[0]: unknown policy kind `dlp-fliter` (did you mean `dlp-filter`?)\n"
        "1 error, 0 warnings, 1 usable configuration\n"
    )


def test_json(run: Run, bad: Path, odd: Path) -> None:
    result = run("policy", "lint", bad, odd, "--json")
    assert result.exit_code == 2
    error, warning = json.loads(result.output)
    assert error == {
        "file": str(bad),
        "line": 5,
        "column": 20,
        "path": "policies.chain[0]",
        "message": "unknown policy kind `dlp-fliter`",
        "hint": "did you mean `dlp-filter`?",
        "severity": "error",
    }
    assert (warning["severity"], warning["path"]) == ("warning", "policy.audit-logger")
    assert json.loads(run("policy", "lint", odd, "--json").output)[0]["severity"] == "warning"


def test_a_folder(run: Run, good: Path, odd: Path) -> None:
    result = run("policy", "lint", good.parent)
    assert result.exit_code == 0
    assert result.output.endswith("0 errors, 1 warning, 2 usable configurations\n")


def test_a_file_that_is_not_there(run: Run, tmp_path: Path) -> None:
    result = run("policy", "lint", tmp_path / "none.yaml")
    assert result.exit_code == 2
    assert f"{tmp_path}/none.yaml: error: cannot be read: No such file or directory\n" in result.output


def test_no_file_is_wrong_usage(run: Run) -> None:
    assert run("policy", "lint").exit_code == 2


def test_the_schema_goes_to_standard_output_or_a_file(run: Run, tmp_path: Path) -> None:
    result = run("policy", "schema")
    assert (result.exit_code, result.output) == (0, render())
    file = tmp_path / "schema.json"
    result = run("policy", "schema", "--output", file)
    assert (result.exit_code, result.output, file.read_text(encoding="utf-8")) == (0, "", render())


# Trying chains

CHAIN = """\
pack: {name: %s}
providers:
  targets:
    - {id: a, provider: mock, model: m}
policies: {chain: [dlp-filter]}
policy:
  dlp-filter: {terms: [%s], action: %s, phase: [input, output]}
"""

CASES = """\
- name: a clean text
  texts: [hello]
  expect: allow
- name: a term
  texts: [{text: a falcon, role: tool}]
  expect: {verdict: redact, policy: dlp-filter, reason: dlp-filter.term, texts: ["a [REDACTED:term]"]}
- name: an answer that the client has already
  phase: output
  delivered: true
  texts: [a falcon]
  expect: block
"""


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    file = tmp_path / "chain.yaml"
    file.write_text(CHAIN % ("chain", "falcon", "redact"))
    return file


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    file = tmp_path / "cases.yaml"
    file.write_text(CASES)
    return file


def test_cases_that_hold(run: Run, chain: Path, cases: Path) -> None:
    result = run("policy", "test", chain, "--cases", cases)
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        "passed  a clean text",
        "passed  a term",
        "passed  an answer that the client has already",
        "3 passed, 0 failed",
    ]


def test_cases_that_do_not_hold(run: Run, tmp_path: Path, cases: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(CHAIN % ("other", "eagle", "block"))
    result = run("policy", "test", other, "--cases", cases, "--json")
    assert result.exit_code == 1
    outcomes = json.loads(result.output)
    assert [one["passed"] for one in outcomes] == [True, False, False]
    assert outcomes[1]["differences"]["verdict"] == {"expected": "redact", "actual": "allow"}
    shown = run("policy", "test", other, "--cases", cases)
    assert "verdict: expected redact, got allow" in shown.output
    assert shown.output.endswith("1 passed, 2 failed\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- name: x\n", "missing required field `texts`"),
        ("- {", "while parsing"),
        ("- {nam: x}", "unknown field `nam`"),
    ],
)
def test_cases_that_cannot_be_read(run: Run, chain: Path, cases: Path, text: str, said: str) -> None:
    cases.write_text(text)
    result = run("policy", "test", chain, "--cases", cases)
    assert result.exit_code == 2
    assert said in result.output


def test_a_configuration_that_is_wrong_is_not_tried(run: Run, bad: Path, cases: Path) -> None:
    result = run("policy", "test", bad, "--cases", cases)
    assert result.exit_code == 2
    assert "dlp-filter" in result.output


CORPUS = """\
hello

{"text": "an eagle"}
{"texts": ["hi", {"text": "a falcon", "role": "tool"}]}
{"messages": [{"role": "user", "content": "hello"}, {"role": "user", "content": [{"type": "image_url"}]}]}
"""


def test_a_comparison_of_two_chains(run: Run, tmp_path: Path, chain: Path) -> None:
    after, corpus = tmp_path / "after.yaml", tmp_path / "corpus.jsonl"
    after.write_text(CHAIN % ("after", "eagle", "block"))
    corpus.write_text(CORPUS)
    result = run("policy", "diff", chain, after, "--corpus", corpus, "--json")
    assert result.exit_code == 1
    found = json.loads(result.output)
    assert found["texts"] == 4
    assert found["changed"] == [
        {"line": 3, "before": "allow", "after": "block (dlp-filter.term)"},
        {"line": 4, "before": "redact (dlp-filter.term)", "after": "allow"},
    ]
    assert found["added_us"] == pytest.approx(found["after_us"] - found["before_us"])
    shown = run("policy", "diff", chain, after, "--corpus", corpus).output
    assert f"{corpus}:3: allow -> block (dlp-filter.term)\n" in shown
    assert "2 of 4 texts changed; median " in shown


def test_a_comparison_of_a_chain_with_itself(run: Run, tmp_path: Path, chain: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text(CORPUS)
    assert run("policy", "diff", chain, chain, "--corpus", corpus).exit_code == 0


@pytest.mark.parametrize("text", ["{broken", '{"other": 1}', "\n", '{"messages": 3}'])
def test_a_corpus_that_cannot_be_read(run: Run, tmp_path: Path, chain: Path, text: str) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text(text)
    assert run("policy", "diff", chain, chain, "--corpus", corpus).exit_code == 2
