"""Retention: only whole sealed segments go, and the manifest says so before they do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gateway.audit.checkpoint import Notary, Position
from gateway.audit.layout import (
    MANIFEST,
    SECONDS_PER_DAY,
    Retired,
    SegmentName,
    SegmentState,
    microseconds,
    segments_of,
)
from gateway.audit.manifest import exclusive


def retire(folder: Path, retention_days: int, now: float, notary: Notary | None = None) -> list[str]:
    """Delete the segments that were sealed more than `retention_days` days ago, and say so in the manifest first.

    Of one writer only the oldest go: one that stays keeps all later ones. Returns the names. Raises OSError.
    """
    if not (folder / MANIFEST).exists():
        return []
    limit = microseconds(now - retention_days * SECONDS_PER_DAY)
    with exclusive(folder) as manifest:
        states = segments_of(manifest.entries())
        names = _expired(states, limit)
        if names:
            end = manifest.append(*(Retired(name, microseconds(now), retention_days) for name in names))
            if notary is not None:
                notary.sign([Position.of_manifest(end)], now)
        for name, state in states.items():
            if state.retired or name in names:
                (folder / name).unlink(missing_ok=True)
    return names


def _expired(states: Mapping[str, SegmentState], limit: int) -> list[str]:
    names: list[str] = []
    kept: set[str] = set()
    for text, state in states.items():
        name = SegmentName.parse(text)
        if name is None or state.retired:
            continue
        if state.sealed is None or state.sealed.at > limit or name.writer in kept:
            kept.add(name.writer)
        else:
            names.append(text)
    return names
