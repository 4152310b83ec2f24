"""Which dialect meets which: one operation of a client bound to one provider.

Where both speak the same dialect the binding is an `Identity`, otherwise a translation through the canonical form. A
binding is made once, when a configuration is compiled, and shared by all requests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from gateway.errors import InvalidRequest
from gateway.types import Operation
from translators import (
    anthropic_answers_in,
    anthropic_answers_out,
    anthropic_messages,
    anthropic_requests_in,
    anthropic_requests_out,
    bedrock_answers_in,
    bedrock_requests_out,
    cohere_answers_in,
    cohere_requests_out,
    embedders,
    gemini_answers_in,
    gemini_requests_out,
    ollama_answers_in,
    ollama_requests_out,
    openai_answers_in,
    openai_answers_out,
    openai_chat,
    openai_completions,
    openai_embeddings,
    openai_limits,
    openai_media,
    openai_passthrough,
    openai_requests_in,
    openai_requests_out,
    responses_answers_in,
    responses_answers_out,
    responses_requests_in,
    responses_requests_out,
    token_counts,
    vertex_claude,
)
from translators.bridge import Bridge, Inbound, Outbound
from translators.dialect import Translation
from translators.embeddings_bridge import Embedder, EmbeddingsBridge
from translators.identity import Format, Identity
from translators.openai_limits import LimitedIdentity
from translators.openai_media import FormIdentity
from translators.providers import Provider
from translators.token_counts import CountBridge, Counter, counters
from translators.vertex_claude import RawPredict

SPOKEN: Final[Mapping[Operation, str]] = {
    Operation.CHAT: "openai_chat",
    Operation.COMPLETIONS: "openai_completions",
    Operation.COUNT_TOKENS: "anthropic_count",
    Operation.EMBEDDINGS: "openai_embeddings",
    Operation.IMAGES: "openai_images",
    Operation.IMAGE_EDITS: "openai_forms",
    Operation.IMAGE_VARIATIONS: "openai_forms",
    Operation.MESSAGES: "anthropic_messages",
    Operation.MODERATIONS: "openai_moderations",
    Operation.RESPONSES: "openai_responses",
    Operation.SPEECH: "openai_speech",
    Operation.TRANSCRIPTIONS: "openai_forms",
    Operation.TRANSLATIONS: "openai_forms",
}
"""The dialect in which a client asks for an operation."""

FORMATS: Final[Mapping[str, Format]] = {
    "anthropic_count": token_counts.FORMAT,
    "anthropic_messages": anthropic_messages.FORMAT,
    "openai_chat": openai_chat.FORMAT,
    "openai_completions": openai_passthrough.COMPLETIONS,
    "openai_embeddings": openai_embeddings.FORMAT,
    "openai_forms": openai_media.FORMS,
    "openai_images": openai_media.IMAGES,
    "openai_moderations": openai_passthrough.PASSTHROUGH,
    "openai_responses": openai_passthrough.RESPONSES,
    "openai_speech": openai_media.SPEECH,
}


INBOUND: Final[Mapping[str, Inbound]] = {
    "anthropic_messages": Inbound(
        anthropic_messages.FORMAT,
        anthropic_requests_in.decode,
        anthropic_answers_out.encode,
        anthropic_answers_out.Writer,
    ),
    "openai_chat": Inbound(
        openai_chat.FORMAT, openai_requests_in.decode, openai_answers_out.encode, openai_answers_out.Writer
    ),
    "openai_completions": Inbound(
        openai_passthrough.COMPLETIONS,
        openai_completions.decode,
        openai_completions.encode,
        openai_completions.Writer,
        openai_completions.echo,
    ),
    "openai_responses": Inbound(
        openai_passthrough.RESPONSES,
        responses_requests_in.decode,
        responses_answers_out.encode,
        responses_answers_out.Writer,
        responses_requests_in.echo,
    ),
}
"""Dialects in which a client may speak to a provider that chats in another."""

_ANTHROPIC: Final = Outbound(
    anthropic_requests_out.encode,
    anthropic_answers_in.decode,
    anthropic_answers_in.Reader,
    anthropic_requests_out.NAMES,
)
OUTBOUND: Final[Mapping[str, Outbound]] = {
    "anthropic_messages": _ANTHROPIC,
    "bedrock_converse": Outbound(
        bedrock_requests_out.encode,
        bedrock_answers_in.decode,
        bedrock_answers_in.Reader,
        bedrock_requests_out.NAMES,
        stream_media=b"application/vnd.amazon.eventstream",
    ),
    "cohere_chat": Outbound(
        cohere_requests_out.encode, cohere_answers_in.decode, cohere_answers_in.Reader, cohere_requests_out.NAMES
    ),
    "gemini_generate": Outbound(
        gemini_requests_out.encode, gemini_answers_in.decode, gemini_answers_in.Reader, gemini_requests_out.NAMES
    ),
    "ollama_chat": Outbound(
        ollama_requests_out.encode,
        ollama_answers_in.decode,
        ollama_answers_in.Reader,
        ollama_requests_out.NAMES,
        stream_media=b"application/x-ndjson",
    ),
    "openai_chat": Outbound(
        openai_requests_out.encode,
        openai_answers_in.decode,
        openai_answers_in.Reader,
        openai_requests_out.NAMES,
        asks_usage=True,
    ),
    "openai_responses": Outbound(
        responses_requests_out.encode,
        responses_answers_in.decode,
        responses_answers_in.Reader,
        responses_requests_out.NAMES,
    ),
    "vertex_messages": vertex_claude.outbound(_ANTHROPIC),
}
"""Chat dialects in which a provider may be spoken to by a client of another."""


COUNTERS: Final[Mapping[str, Counter]] = counters(OUTBOUND)
"""Counters of tokens other than Anthropic's."""

EMBEDDERS: Final[Mapping[str, Embedder]] = {
    "bedrock_embed": embedders.BEDROCK,
    "cohere_embed": embedders.COHERE,
    "gemini_embed": embedders.GEMINI,
    "vertex_embed": embedders.VERTEX,
}
"""Formats of embeddings other than OpenAI's."""


def bind(
    operation: Operation,
    provider: Provider,
    *,
    now: Callable[[], float] = lambda: 0.0,
    api_version: str | None = None,
) -> Translation:
    """The translation between clients of `operation` and `provider`.

    `now` gives Unix seconds for `created`, where the provider does not tell: dialects have no clock of their own.
    `api_version` is Azure's, where the target has one.

    Raises InvalidRequest, naming both, when the provider does not offer the operation.
    """
    endpoint = provider.endpoint(operation)
    spoken = SPOKEN.get(operation)
    if endpoint is not None and spoken is not None:
        newer = openai_limits.knows_newer(api_version)
        if not newer:
            provider = msgspec.structs.replace(provider, takes=provider.takes - {openai_limits.NEWER})
        if endpoint.dialect == spoken:
            if operation is Operation.CHAT and provider.names_limit:
                return LimitedIdentity(FORMATS[spoken], provider.name, newer=newer)
            kind = FormIdentity if spoken == "openai_forms" else Identity
            return kind(FORMATS[spoken], provider.name, provider.refuses)
        if operation is Operation.MESSAGES and endpoint.dialect == "vertex_messages":
            return RawPredict(FORMATS[spoken], provider.name)
        if spoken in INBOUND and endpoint.dialect in OUTBOUND:
            return Bridge(INBOUND[spoken], OUTBOUND[endpoint.dialect], provider, now)
        if operation is Operation.COUNT_TOKENS:
            return CountBridge(COUNTERS.get(endpoint.dialect), provider)
        if operation is Operation.EMBEDDINGS and endpoint.dialect in EMBEDDERS:
            return EmbeddingsBridge(EMBEDDERS[endpoint.dialect], provider)
    raise InvalidRequest(f"The provider {provider.name} of this model does not offer {operation.value}.")
