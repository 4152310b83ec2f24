"""Which dialect meets which: one operation of a client bound to one provider.

Where both speak the same dialect the binding is an `Identity`, otherwise a translation through the canonical form. A
binding is made once, when a configuration is compiled, and shared by all requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Final

from gateway.errors import InvalidRequest
from gateway.types import Operation
from translators import openai_chat, openai_embeddings, openai_passthrough
from translators.dialect import Translation
from translators.identity import Format, Identity
from translators.providers import PROVIDERS, Provider

SPOKEN: Final[Mapping[Operation, str]] = {
    Operation.CHAT: "openai_chat",
    Operation.COMPLETIONS: "openai_completions",
    Operation.EMBEDDINGS: "openai_embeddings",
    Operation.IMAGES: "openai_images",
    Operation.MODERATIONS: "openai_moderations",
    Operation.RESPONSES: "openai_responses",
}
"""The dialect in which a client asks for an operation."""

FORMATS: Final[Mapping[str, Format]] = {
    "openai_chat": openai_chat.FORMAT,
    "openai_completions": openai_passthrough.COMPLETIONS,
    "openai_embeddings": openai_embeddings.FORMAT,
    "openai_images": openai_passthrough.PASSTHROUGH,
    "openai_moderations": openai_passthrough.PASSTHROUGH,
    "openai_responses": openai_passthrough.PASSTHROUGH,
}


def bind(operation: Operation, provider: Provider) -> Translation:
    """The translation between clients of `operation` and `provider`.

    Raises InvalidRequest, naming both, when the provider does not offer the operation.
    """
    return _bind(operation, provider.name) if PROVIDERS.get(provider.name) is provider else _make(operation, provider)


def _make(operation: Operation, provider: Provider) -> Translation:
    endpoint = provider.endpoints.get(operation)
    spoken = SPOKEN.get(operation)
    if endpoint is None or spoken is None or endpoint.dialect != spoken:
        raise InvalidRequest(f"The provider {provider.name} of this model does not offer {operation.value}.")
    return Identity(FORMATS[spoken], provider.name, provider.refuses)


@cache
def _bind(operation: Operation, name: str) -> Translation:
    return _make(operation, PROVIDERS[name])
