"""What the audit of packages and the bill of materials may be believed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
SPEC = importlib.util.spec_from_file_location("supply_chain", ROOT / ".ci" / "supply_chain.py")
assert SPEC is not None
assert SPEC.loader is not None
supply_chain = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(supply_chain)

LOCKED = {"one": "1.0", "two-words": "2.0"}


def report(*dependencies: dict[str, Any]) -> dict[str, Any]:
    return {"dependencies": [{"vulns": [], **one} for one in dependencies]}


GOOD = ({"name": "one", "version": "1.0"}, {"name": "Two_Words", "version": "2.0"})
SKIPPED = ({"name": "one", "skip_reason": "not found"}, {"name": "two-words", "skip_reason": "not found"})


def test_what_is_locked() -> None:
    text = "one==1.0 \\\n    --hash=sha256:0\n# via x==9\nTwo_Words==2.0 ; python_version < '3.12' \\\n"
    assert supply_chain.locked(text) == LOCKED
    assert len(supply_chain.locked((ROOT / "requirements.lock").read_text())) > 20


@pytest.mark.parametrize("required", [False, True])
def test_nothing_is_known(required: bool) -> None:
    status, verdict = supply_chain.judge_audit(report(*GOOD), LOCKED, required=required)
    assert (status, verdict) == (0, "Audited 2 packages: no known vulnerabilities.")


def test_a_vulnerability() -> None:
    bad = {**GOOD[0], "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"]}]}
    status, verdict = supply_chain.judge_audit(report(bad, GOOD[1]), LOCKED, required=False)
    assert status == 1
    assert "one 1.0: PYSEC-1, mended in 1.1" in verdict


@pytest.mark.parametrize("required", [False, True])
def test_a_service_that_cannot_be_reached_is_no_good_news(required: bool) -> None:
    for skipped in (SKIPPED, (GOOD[0], SKIPPED[1])):
        status, verdict = supply_chain.judge_audit(report(*skipped), LOCKED, required=required)
        assert status == int(required)
        assert "NOT AUDITED" in verdict
        assert "no known" not in verdict


def test_a_package_that_was_left_out() -> None:
    assert supply_chain.judge_audit(report(GOOD[0]), LOCKED, required=False)[0] == 1


def bill(*components: dict[str, Any]) -> dict[str, Any]:
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "components": list(components)}


def test_the_bill_of_materials() -> None:
    hashed = {"externalReferences": [{"hashes": [{"alg": "SHA-256", "content": "0"}]}]}
    good = [{**one, **hashed} for one in GOOD]
    assert supply_chain.judge_bill(bill(*good), LOCKED)[0] == 0
    assert "two-words 2.0 is not in it" in supply_chain.judge_bill(bill(good[0]), LOCKED)[1]
    assert "one 1.0 has no digest" in supply_chain.judge_bill(bill(GOOD[0], good[1]), LOCKED)[1]
    assert supply_chain.judge_bill(bill({**good[0], "version": "0.9"}, good[1]), LOCKED)[0] == 1


def test_it_is_made_in_ci() -> None:
    assert "make audit sbom" in (ROOT / ".ci" / "run").read_text()
