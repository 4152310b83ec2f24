"""Which of a route's targets the policies of a chain let a request go to, and in which order they are tried."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gateway.errors import InputBlocked
from policy.base import Candidate

if TYPE_CHECKING:
    from gateway.routes import Target
    from gateway.types import Decision, Subject
    from policy.base import Pipeline


def narrowed(
    pipeline: Pipeline, subject: Subject, targets: Sequence[Target]
) -> tuple[tuple[Target, ...], tuple[Decision, ...], InputBlocked | None]:
    """The targets that are left, what policies have said of them, and the refusal where none is left."""
    told = pipeline.narrow(subject, [Candidate(one.id, one.provider, one.model) for one in targets])
    kept = tuple([targets[number] for number in told.kept])
    refusal = None if kept else InputBlocked(told.message, policy=told.decisions[-1].policy)
    return kept, told.decisions, refusal
