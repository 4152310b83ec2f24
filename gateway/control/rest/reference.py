"""The tables of `docs/api.md`, made from the routes and the roles: `python -m gateway.control.rest.reference FILE`.

What stands between the two marks in the file is replaced; the rest is written by hand.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from gateway.control.identity.roles import GRANTS, Permission
from gateway.control.rest.call import Route
from gateway.control.rest.table import PREFIX, ROUTES

BEGIN: Final = "<!-- routes: made by gateway.control.rest.reference -->"
END: Final = "<!-- end of routes -->"


def reference(routes: Sequence[Route] = ROUTES) -> str:
    """The tables."""
    return "\n".join(line for tag, group in groupby(routes, key=lambda route: route.tag) for line in _table(tag, group))


def _table(tag: str, routes: Iterator[Route]) -> Iterator[str]:
    yield f"### {tag}"
    yield ""
    yield "| | | In | Out | Who |"
    yield "| --- | --- | --- | --- | --- |"
    for route in routes:
        called = " and ".join(_name(one) for one in (route.body, route.query) if one is not None)
        out = _name(route.answer) if route.answer is not None else str(route.status)
        yield f"| `{route.method} {PREFIX}{route.path}` | {route.summary} | {called} | {out} | {_who(route)} |"
    yield ""


def _name(kind: Any) -> str:
    return f"`{kind.__name__}`" if getattr(kind, "__struct_fields__", None) is not None else "object"


def _who(route: Route) -> str:
    if not route.needs:
        return "anybody"
    return ", ".join(role.value for role, granted in GRANTS.items() if granted & route.needs)


def roles() -> str:
    """What each role may do."""
    lines = [f"| Permission | {' | '.join(GRANTS)} |", f"| --- |{' --- |' * len(GRANTS)}"]
    for permission in Permission:
        marks = " | ".join("yes" if permission in granted else "" for granted in GRANTS.values())
        lines.append(f"| `{permission.value}` | {marks} |")
    return "\n".join(lines)


def replaced(text: str, made: str) -> str:
    """A page with what is between its marks made anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{made.strip()}\n\n{END}{after}"


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(replaced(page.read_text(), roles() if page.name == "identity.md" else reference()))
