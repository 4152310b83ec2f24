"""Claude on Google's Vertex AI: Anthropic's messages, with two fields in other places.

The model stands in the path and not in the body, and the version stands in the body and not in a header. Everything
else, streams included, is Anthropic's own format, so a client that speaks it gets its bytes as they are.

Source: https://platform.claude.com/docs/en/build-with-claude/claude-on-vertex-ai.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from translators import anthropic_requests_out
from translators.bridge import Outbound
from translators.canonical import ChatRequest
from translators.dialect import RequestView, Translated
from translators.identity import Identity
from translators.notes import Notes
from translators.providers import Asked

VERSION: Final = "vertex-2023-10-16"
_FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


class RawPredict(Identity):
    """The Translation of Anthropic's messages for Vertex AI."""

    def request(
        self, body: bytes, view: RequestView, *, model: str, replacements: Mapping[int, str], meter: bool
    ) -> Translated:
        """The same request with its two fields moved; every other value keeps its bytes."""
        translated = super().request(body, view, model=view.model, replacements=replacements, meter=meter)
        return msgspec.structs.replace(translated, body=for_vertex(translated.body))


def for_vertex(body: bytes) -> bytes:
    """A request to Anthropic as Vertex AI takes it."""
    fields: dict[str, Any] = _FIELDS.decode(body)
    fields.pop("model", None)
    return msgspec.json.encode({"anthropic_version": VERSION, **fields})


def encode(request: ChatRequest, asked: Asked, notes: Notes) -> bytes:
    """A request of a client with another format."""
    return for_vertex(anthropic_requests_out.encode(request, asked, notes))


def outbound(anthropic: Outbound) -> Outbound:
    """Anthropic's dialect, with this way to write requests."""
    return msgspec.structs.replace(anthropic, encode=encode)
