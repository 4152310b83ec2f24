"""What the gateway is made of, and what is known to be wrong with it: `make sbom` and `make audit`.

    python .ci/supply_chain.py audit requirements.lock …     known vulnerabilities of what is locked, by pip-audit
    python .ci/supply_chain.py sbom requirements.lock FILE   a CycloneDX bill of materials of it, by cyclonedx-py

Both tools say less than they seem to when something is amiss, so their word is checked. pip-audit leaves with 0 where
the service that knows vulnerabilities cannot be reached, having looked at nothing: that is told as what it is, and is a
failure where `AUDIT_REQUIRED` is set. A bill of materials that lacks a locked package, or its digests, fails.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

_LOCKED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)


def locked(text: str) -> dict[str, str]:
    """Name (normalised, PEP 503) and version of every package in a lock file."""
    return {normalised(name): version for name, version in _LOCKED.findall(text)}


def normalised(name: str) -> str:
    """A package's one spelling."""
    return re.sub(r"[-_.]+", "-", name).lower()


def judge_audit(report: dict[str, Any], expected: dict[str, str], *, required: bool) -> tuple[int, str]:
    """Exit status and verdict for a report of pip-audit about these packages."""
    found = {normalised(one["name"]): one for one in report["dependencies"]}
    missing = sorted(set(expected) - set(found))
    if missing:
        return 1, f"The audit left out {', '.join(missing)}."
    faults = [
        f"{name} {one['version']}: {fault['id']}, mended in {', '.join(fault['fix_versions']) or 'no version yet'}"
        for name, one in sorted(found.items())
        for fault in one.get("vulns", ())
    ]
    if faults:
        return 1, "\n".join(["Known vulnerabilities:", *faults])
    skipped = sorted(name for name, one in found.items() if "skip_reason" in one)
    if len(skipped) == len(found):
        return int(required), f"NOT AUDITED: the vulnerability service knows none of {len(found)} packages from here."
    if skipped:
        return int(required), f"Audited {len(found) - len(skipped)}; NOT AUDITED: {', '.join(skipped)}."
    return 0, f"Audited {len(found)} packages: no known vulnerabilities."


def judge_bill(bill: dict[str, Any], expected: dict[str, str]) -> tuple[int, str]:
    """The same for a bill of materials."""
    found = {normalised(one["name"]): one for one in bill.get("components", ())}
    faults = []
    for name, version in sorted(expected.items()):
        component = found.get(name)
        if component is None or component.get("version") != version:
            faults.append(f"{name} {version} is not in it")
        elif not any(one.get("hashes") for one in component.get("externalReferences", ())) and not component.get(
            "hashes"
        ):
            faults.append(f"{name} {version} has no digest")
    if faults:
        return 1, "\n".join(["The bill of materials is not whole:", *faults])
    return 0, f"{bill['bomFormat']} {bill['specVersion']} with {len(found)} components."


def _audit(files: list[str]) -> int:
    required = bool(os.environ.get("AUDIT_REQUIRED"))
    worst = 0
    for file in files:
        command = [
            "pip-audit",
            "--disable-pip",
            "--require-hashes",
            "--format=json",
            "--progress-spinner=off",
            "-r",
            file,
        ]
        done = _run(command)
        if not done.stdout.startswith("{"):
            status, verdict = int(required), f"NOT AUDITED: {done.stderr.strip().splitlines()[-1:]}"
        else:
            expected = locked(Path(file).read_text())
            status, verdict = judge_audit(json.loads(done.stdout), expected, required=required)
        print(f"{file}: {verdict}")
        worst = max(worst, status)
    return worst


def _bill(file: str, target: str) -> int:
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    done = _run(
        [
            "cyclonedx-py",
            "requirements",
            "--pyproject=pyproject.toml",
            "--output-reproducible",
            "--of=JSON",
            "-o",
            target,
            file,
        ]
    )
    if done.returncode:
        print(done.stderr)
        return 1
    status, verdict = judge_bill(json.loads(Path(target).read_text()), locked(Path(file).read_text()))
    print(f"{target}: {verdict}")
    return status


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    tool = str(Path(sys.executable).with_name(command[0]))
    return subprocess.run([tool, *command[1:]], capture_output=True, text=True, check=False)


if __name__ == "__main__":
    kind, *arguments = sys.argv[1:]
    sys.exit(_audit(arguments) if kind == "audit" else _bill(*arguments))
