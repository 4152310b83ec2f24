"""Ids of Gemini's calls.

Gemini gives most calls no id, and wants the signature of the thought behind a call back with it. Clients keep a call's
id faithfully and drop fields that they do not know. So the signature travels within the id, behind a mark.
"""

from __future__ import annotations

import base64
import binascii

_MARK = "__ts_"


def make(call_id: str, signature: str | None) -> str:
    """The id that the client gets."""
    if signature is None:
        return call_id
    return call_id + _MARK + base64.urlsafe_b64encode(signature.encode()).decode().rstrip("=")


def signature_of(call_id: str) -> str | None:
    """The signature within an id, or None."""
    _, mark, packed = call_id.partition(_MARK)
    if not mark:
        return None
    try:
        return base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4)).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
