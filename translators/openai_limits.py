"""The bound on an answer under the name that the model knows: `max_tokens` or `max_completion_tokens`.

OpenAI's models that think refuse the first, Azure's older API versions do not know the second, and the others take
both. Clients send either, often without knowing which model is behind a name. So in front of OpenAI and Azure the name
is put right by what the target's model is (`upstream_model`, whatever clients or deployments are called); the value and
everything else stay as they came.

https://platform.openai.com/docs/api-reference/chat/create#chat-create-max_completion_tokens,
https://learn.microsoft.com/azure/ai-foundry/openai/how-to/reasoning,
https://learn.microsoft.com/azure/ai-foundry/openai/api-version-lifecycle.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import msgspec

from translators.dialect import RequestView, Translated
from translators.identity import Format, Identity
from translators.openai_requests_out import REASONING_MODEL

OLDER: Final = "max_tokens"
NEWER: Final = "max_completion_tokens"

FIRST_WITH_NEWER: Final = "2024-09-01"
"""Azure's first API version that knows `max_completion_tokens`."""

_FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def knows_newer(api_version: str | None) -> bool:
    """Whether an API knows the newer name; None is one without versions. Versions are dates."""
    return api_version is None or api_version >= FIRST_WITH_NEWER


@cache
def _thinks(model: str) -> bool:
    """Models are the operator's, so there are few."""
    return REASONING_MODEL.search(model) is not None


class LimitedIdentity(Identity):
    """The Translation of chat to itself, with the bound under the right name."""

    def __init__(self, format: Format, provider: str, *, newer: bool) -> None:
        """`newer`: the provider's API knows `max_completion_tokens`."""
        super().__init__(format, provider)
        self._newer = newer

    def request(
        self, body: bytes, view: RequestView, *, model: str, replacements: Mapping[int, str], meter: bool
    ) -> Translated:
        """The provider's request: the same bytes object, unless something must be another."""
        translated = super().request(body, view, model=model, replacements=replacements, meter=meter)
        if view.max_output_tokens is None:
            return translated
        if not self._newer:
            renamed = _renamed(translated.body, NEWER, OLDER)
        elif _thinks(model):
            renamed = _renamed(translated.body, OLDER, NEWER)
        else:
            return translated
        return translated if renamed is None else msgspec.structs.replace(translated, body=renamed)


def _renamed(body: bytes, old: str, new: str) -> bytes | None:
    """The body with a field under another name and every value's bytes kept; None where there is nothing to rename.
    Where the client gave both, the right one counts."""
    if body.find(b'"%b"' % old.encode()) < 0 and body.find(b"\\u00") < 0:
        return None
    fields: dict[str, Any] = _FIELDS.decode(body)
    if old not in fields:
        return None
    given = fields.get(new)
    if given is None or bytes(given) == b"null":
        given = fields[old]
    kept = {new if key == old else key: given if key in (old, new) else value for key, value in fields.items()}
    return msgspec.json.encode(kept)
