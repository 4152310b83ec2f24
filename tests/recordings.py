"""Real exchanges with providers, as fixtures; `tests/fixtures/README.md` says where they come from."""

from __future__ import annotations

import base64
import gzip
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import orjson

FOLDER = Path(__file__).parent / "fixtures" / "recordings"


class Recording(msgspec.Struct, frozen=True):
    """One exchange. `request_body` is None for a GET; `response_body` is text unless its encoding says base64."""

    name: str
    provider: str
    path: str
    status: int
    response_body: str
    method: str = "POST"
    query: Any = None
    request_headers: dict[str, str] = {}
    request_body: Any = None
    response_headers: dict[str, str] = {}
    response_body_encoding: str | None = None
    source_repo: str = ""
    source_path: str = ""
    notes: Any = None

    @property
    def request(self) -> bytes:
        """The request's body, written anew as compact JSON."""
        return b"" if self.request_body is None else orjson.dumps(self.request_body)

    @property
    def response(self) -> bytes:
        """The answer's body as bytes."""
        if self.response_body_encoding == "base64":
            return base64.b64decode(self.response_body)
        return self.response_body.encode()

    @property
    def streams(self) -> bool:
        """The answer is an event stream."""
        return self.response_body.lstrip("\ufeff\r\n ").startswith(("data:", "event:", ": ", ":"))

    def __str__(self) -> str:
        return f"{self.provider}/{self.name}"


@cache
def providers() -> tuple[str, ...]:
    """All providers that have recordings."""
    return tuple(sorted(path.name.removesuffix(".jsonl.gz") for path in FOLDER.glob("*.jsonl.gz")))


@cache
def load(provider: str) -> tuple[Recording, ...]:
    """All exchanges with one provider, in a fixed order."""
    lines = gzip.decompress((FOLDER / f"{provider}.jsonl.gz").read_bytes()).splitlines()
    return tuple(msgspec.json.decode(line, type=Recording) for line in lines)


def select(*names: str, suffix: str) -> list[Recording]:
    """The exchanges of these providers (all, if none is named) whose path ends with `suffix`."""
    return [item for name in names or providers() for item in load(name) if item.path.endswith(suffix)]
