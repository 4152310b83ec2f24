"""`gateway.limits.json_depth`: how deep a request body may be nested, where the operator allows less than the usual.

The usual bound (`translators.strict.MAX_DEPTH`) is looked after by whoever decodes a body. A lower one is a walk before
that, which only those pay who have set it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import TYPE_CHECKING

from gateway.errors import InvalidJSON
from gateway.services import VIEWS
from gateway.types import Operation
from translators.strict import MAX_DEPTH, shallow

if TYPE_CHECKING:
    from translators.dialect import RequestView

View = Callable[[bytes], "RequestView"]


@cache
def views(levels: int) -> Mapping[Operation, View]:
    """What reads the bodies of each operation and refuses those that are nested deeper than `levels`. Made once for
    each number, in 10 ms; for a thread."""
    if levels >= MAX_DEPTH:
        return VIEWS
    return {operation: partial(_view, view, shallow(levels), levels) for operation, view in VIEWS.items()}


def _view(view: View, is_shallow: Callable[[bytes], object], levels: int, body: bytes) -> RequestView:
    found = view(body)
    # Only now, as the walk takes a body to be JSON.
    if not is_shallow(body):
        raise InvalidJSON(f"The request body is nested more than {levels} levels deep.")
    return found
