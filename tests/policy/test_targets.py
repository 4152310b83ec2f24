"""Policies choose among targets: whose, in which order, and what an error in one of them means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest

from gateway.types import FailMode, Phase, Subject, Verdict
from policy.base import Candidate, Choice, Pipeline, Policy
from policy.compile import KINDS, compile_chain

Build = Callable[..., Pipeline]
EU, US, MOCK = Candidate("eu", "azure-openai", "m"), Candidate("us", "openai", "m"), Candidate("test", "mock", "m")
TARGETS = [EU, US, MOCK]
ASKED = Subject("req-1", "key_1", "ci", "research", "test", "m", "chat")


def kept(pipeline: Pipeline, subject: Subject = ASKED) -> list[str]:
    return [TARGETS[number].id for number in pipeline.narrow(subject, TARGETS).kept]


@pytest.mark.parametrize(
    ("settings", "ids"),
    [
        ({"targets": ["eu"]}, ["eu"]),
        ({"targets": ["openai", "mock"]}, ["us", "test"]),
        ({"deny_targets": ["*openai"]}, ["test"]),
        ({"targets": ["eu", "us"], "deny_targets": ["us"]}, ["eu"]),
        ({"prefer_targets": ["test", "u?"]}, ["test", "us", "eu"]),
        ({"targets": ["eu"], "action": "warn"}, ["eu", "us", "test"]),
        ({"targets": ["eu"], "mode": "monitor"}, ["eu", "us", "test"]),
        ({"targets": ["none"]}, []),
        ({"targets": ["none"], "action": "escalate"}, []),
    ],
)
def test_model_access(build: Build, settings: dict[str, Any], ids: list[str]) -> None:
    pipeline = build({"model-access": settings})
    assert pipeline.narrows
    assert kept(pipeline) == ids


@pytest.mark.parametrize(
    ("roles", "ids"),
    [
        ([{"name": "a", "everyone": True, "targets": ["mock"]}], ["test"]),
        (
            [{"name": "a", "everyone": True, "targets": ["mock"]}, {"name": "b", "teams": ["research"]}],
            ["eu", "us", "test"],
        ),
        ([{"name": "a", "everyone": True, "targets": ["mock"]}, {"name": "b", "teams": ["other"]}], ["test"]),
        (
            [{"name": "a", "keys": ["ci"], "models": ["other"]}, {"name": "b", "keys": ["ci"], "targets": ["us"]}],
            ["us"],
        ),
        (
            [{"name": "a", "keys": ["ci"], "operations": ["images"]}, {"name": "b", "keys": ["ci"], "targets": ["eu"]}],
            ["eu"],
        ),
        ([{"name": "a", "teams": ["other"], "targets": ["us"]}], ["eu", "us", "test"]),  # refused by `on_request`
    ],
)
def test_rbac(build: Build, roles: list[dict[str, Any]], ids: list[str]) -> None:
    assert kept(build({"rbac": {"roles": roles}})) == ids


def test_who_names_no_targets_is_not_asked(build: Build) -> None:
    assert not build({"model-access": {"deny": ["x"]}, "rbac": {"roles": [{"name": "a", "everyone": True}]}}).narrows


def test_what_is_said_of_it(build: Build) -> None:
    told = build({"model-access": {"targets": ["eu"]}}).narrow(ASKED, TARGETS)
    (decision,) = told.decisions
    assert (decision.policy, decision.phase, decision.verdict) == ("model-access", Phase.INPUT, Verdict.ALLOW)
    assert (decision.reason, decision.detail) == ("model-access.target", "us, test")
    assert build({"model-access": {"prefer_targets": ["us"]}}).narrow(ASKED, TARGETS).decisions == ()
    told = build({"model-access": {"targets": ["none"], "message": "Ask us."}}).narrow(ASKED, TARGETS)
    assert (told.decisions[0].verdict, told.message) == (Verdict.BLOCK, "Ask us.")


def test_each_chooses_among_what_the_one_before_has_left(build: Build) -> None:
    roles = [{"name": "a", "everyone": True, "targets": ["openai", "azure-openai"]}]
    chain = {"model-access": {"prefer_targets": ["mock", "openai"]}, "rbac": {"roles": roles}}
    assert kept(build(chain)) == ["us", "eu"]


class NoSettings(msgspec.Struct, frozen=True):
    """A scripted policy takes none."""


def choosing(
    monkeypatch: pytest.MonkeyPatch,
    choose: Callable[[Sequence[Candidate]], Choice],
    fail_mode: FailMode,
    heard: list[Any],
) -> Pipeline:
    members = {"kind": "own", "Settings": NoSettings, "on_targets": lambda self, subject, targets: choose(targets)}
    monkeypatch.setitem(KINDS, "own", type("Own", (Policy,), members))
    return compile_chain(
        ["own"], {}, fail_mode=fail_mode, configuration_id="t", on_error=lambda kind, error: heard.append((kind, error))
    )


def failing(targets: Sequence[Candidate]) -> Choice:
    raise LookupError


@pytest.mark.parametrize(
    "choose", [failing, lambda targets: Choice((0, 0)), lambda targets: Choice((3,)), lambda targets: Choice((-1,))]
)
@pytest.mark.parametrize("fail_mode", FailMode)
def test_an_error_means_what_the_fail_mode_says(
    choose: Callable[[Sequence[Candidate]], Choice], fail_mode: FailMode, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[Any] = []
    told = choosing(monkeypatch, choose, fail_mode, heard).narrow(ASKED, TARGETS)
    assert told.kept == ((0, 1, 2) if fail_mode is FailMode.ALLOW else ())
    assert told.decisions[0].reason == "own.error"
    assert [kind for kind, _ in heard] == ["own"]


def test_a_choice_of_none_refuses_even_without_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    told = choosing(monkeypatch, lambda targets: Choice(()), FailMode.ALLOW, []).narrow(ASKED, TARGETS)
    assert (told.kept, told.decisions[-1].verdict) == ((), Verdict.BLOCK)
    assert "own" in told.message
