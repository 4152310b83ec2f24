"""The keys log: how the control process tells workers of gateway keys, line by line.

A file of JSON lines in the run folder, written by one control process and read by every worker. Its first line is a
`Header`; then comes every key there is as a `Put`, and a `Mark`; from there on it grows by what changes, each batch
ending with a `Mark`. Now and then a new generation is made beside it and renamed over it. Only hashes of keys stand in
it. This module is the format; who writes is `gateway.control.feed`, who reads `gateway.keyring`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from gateway.types import GatewayKey


class Header(msgspec.Struct, frozen=True, tag="header", tag_field="op"):
    """The first line of a generation.

    `store` is the store's id and `revision` the one that the snapshot stands at. `snapshot_bytes` lie between this line
    and the first change. `continues` is set when this generation says in less space what the one of that number said:
    who has read that to its end may skip the snapshot.
    """

    generation: int
    revision: int
    store: str
    snapshot_bytes: int
    continues: int | None = None


class Put(msgspec.Struct, frozen=True, tag="put", tag_field="op"):
    """A key as it is now."""

    key: GatewayKey


class Delete(msgspec.Struct, frozen=True, tag="delete", tag_field="op"):
    """There is no such key any more."""

    id: str


class Mark(msgspec.Struct, frozen=True, tag="mark", tag_field="op"):
    """All that the store held at this revision has been said."""

    revision: int


Line = Put | Delete | Mark

_decoder: Final[msgspec.json.Decoder[Line]] = msgspec.json.Decoder(Line)
decode_line: Final = _decoder.decode
"""One line after the first. Raises msgspec.DecodeError (a ValueError is no promise)."""

encode_lines: Final = msgspec.json.Encoder().encode_lines
"""Lines as bytes, each with its line feed."""

_decode_header = msgspec.json.Decoder(Header).decode


def log_path(run_folder: Path) -> Path:
    """Where the log is."""
    return run_folder / "keys.log"


def read_header(path: Path) -> Header | None:
    """The header of the log as it is now, or None where there is none that we understand."""
    try:
        with path.open("rb") as file:
            return _decode_header(file.readline(4096))
    except (OSError, msgspec.DecodeError):
        return None


def decode_header(line: bytes) -> Header:
    """A first line. Raises msgspec.DecodeError."""
    return _decode_header(line)
