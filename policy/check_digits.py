"""Check digits of numbers, by `python-stdnum`.

The library is loaded when the first chain is compiled that looks for personal data (`load`): it takes 3 MB, which every
worker without such a chain would pay for nothing.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any, Final

KINDS: Final = ("luhn", "verhoeff", "iban", "fr.nir", "es.dni", "es.nie", "it.codicefiscale", "br.cpf")
"""Modules of the library: the algorithms, IBAN, and personal numbers of some countries."""


def load() -> None:
    """Load what `is_valid` needs, off the path of any request."""
    for kind in KINDS:
        _module(kind)


def is_valid(kind: str, number: str, **options: Any) -> bool:
    """Whether the number is one of this kind, check digits included."""
    return bool(_module(kind).is_valid(number, **options))


@functools.cache
def _module(kind: str) -> Any:
    return importlib.import_module(f"stdnum.{kind}")
