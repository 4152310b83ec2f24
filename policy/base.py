"""What a policy is: the seam between the gateway and a check.

A policy is one file, named as in the configuration (`dlp-filter` is `dlp_filter.py`). It is an ordinary class that *is*
the hooks it defines: `on_request` sees all texts that go to the model, `on_completion` all texts that came back. A chain
is compiled once into a `Pipeline`; a request only walks its tuples. Policies are pure: no socket, no clock, no
environment, and of the gateway they know only its nouns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from gateway.types import Delivery, Screening, Subject, TextPart


class Pipeline(Protocol):
    """A chain, compiled: immutable, shared by all keys that are bound to the configuration."""

    version: str
    delivery: Delivery
    reads_input: bool
    reads_output: bool
    audits: bool
    """`audit-logger` is in the chain."""

    def screen(self, subject: Subject, texts: Sequence[TextPart]) -> Screening:
        """The input phase. Never raises: an error inside a policy becomes what the fail mode says."""
        ...

    def review(self, subject: Subject, texts: Sequence[TextPart]) -> Screening:
        """The output phase, on the complete answer. Never raises."""
        ...
