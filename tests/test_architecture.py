"""Who may import whom. Imports point one way; this test reads every import statement and says which one does not."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("gateway", "translators", "policy", "loadtest")
CONTRACTS = {"gateway.types", "gateway.errors", "gateway.sse"}


def modules() -> Iterator[tuple[str, Path]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), path


def imports(path: Path, *, at_run_time: bool = True) -> set[str]:
    """Modules of the project that a file imports; those under `if TYPE_CHECKING` only when not `at_run_time`."""
    tree = ast.parse(path.read_text())
    skipped: set[ast.AST] = set()
    if at_run_time:
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                skipped.update(inner for child in node.body for inner in ast.walk(child))
    found: set[str] = set()
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return {name for name in found if name.split(".")[0] in PACKAGES}


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


MODULES = dict(modules())


@pytest.mark.parametrize("name", [name for name in MODULES if within(name, "translators", "policy")])
def test_dialects_and_policies_are_pure(name: str) -> None:
    """They know of the gateway only its nouns, its errors and its frames, and nothing of each other."""
    own = name.split(".")[0]
    for imported in imports(MODULES[name], at_run_time=False):
        if within(imported, own) or imported == "gateway":
            continue
        assert within(imported, *CONTRACTS), f"{name} imports {imported}"
    source = MODULES[name].read_text()
    for forbidden in ("import socket", "import time", "from time", "os.environ", "import asyncio", "datetime.now"):
        assert forbidden not in source, f"{name}: {forbidden}"


@pytest.mark.parametrize("name", ["gateway.exchange", "gateway.relay", "gateway.routes", "gateway.authenticate"])
def test_the_life_of_a_request_knows_no_transport(name: str) -> None:
    for imported in imports(MODULES[name]):
        assert not within(imported, "gateway.upstream", "gateway.control", "gateway.worker", "gateway.supervisor")
        assert not within(imported, "gateway.downstream.http")


@pytest.mark.parametrize("name", [name for name in MODULES if within(name, "gateway")])
def test_the_two_sides_and_the_control_plane_do_not_know_each_other(name: str) -> None:
    sides = {"gateway.downstream", "gateway.upstream", "gateway.control"}
    own = next((side for side in sides if within(name, side)), None)
    if own is None:
        return
    for imported in imports(MODULES[name]):
        assert not within(imported, *(sides - {own})), f"{name} imports {imported}"


@pytest.mark.parametrize("name", [name for name in MODULES if within(name, "loadtest")])
def test_load_tests_see_only_the_wire(name: str) -> None:
    if within(name, "loadtest.micro"):
        return  # the micro benchmarks drive the data plane in-process: that is what they are for
    for imported in imports(MODULES[name]):
        assert within(imported, "loadtest"), f"{name} imports {imported}"


def test_the_workers_never_import_the_store() -> None:
    """A worker must start fast and never wait for a database, so it must not even load one."""
    seen: set[str] = set()
    todo = ["gateway.worker"]
    while todo:
        name = todo.pop()
        if name in seen or name not in MODULES:
            continue
        seen.add(name)
        todo.extend(imports(MODULES[name]))
    assert not {name for name in seen if within(name, "gateway.control", "gateway.commands", "gateway.supervisor")}
