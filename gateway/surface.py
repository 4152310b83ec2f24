"""Which path is which endpoint: the public surface of the gateway as one table.

OpenAI's paths, Anthropic's, and both under Azure's two spellings, so that Azure's SDKs work unchanged. Paths are
compared as they came: nothing is decoded or normalised, so there is one spelling of each.
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from gateway.errors import MethodNotAllowed, NotFound, Wire
from gateway.socket_ports import SocketKind
from gateway.types import Operation


class Place(enum.Enum):
    """Who serves an endpoint."""

    PROVIDER = "a provider, through an exchange"
    MODELS = "the worker: the models of a configuration"
    HEALTH = "the worker: is it alive"
    READY = "the worker: can it serve"
    CONTROL = "the control process, by relay"
    SOCKET = "a conversation, over a WebSocket"


class Endpoint(msgspec.Struct, frozen=True):
    """One path of the surface. `model` is what the path names (Azure's deployment, `/v1/models/{id}`), if it does;
    `takes_form` says that a body is `multipart/form-data`, which can be read only with its head."""

    place: Place
    methods: tuple[bytes, ...]
    operation: Operation | None = None
    wire: Wire = Wire.OPENAI
    model: str | None = None
    takes_form: bool = False


def _post(operation: Operation, wire: Wire = Wire.OPENAI, *, takes_form: bool = False) -> Endpoint:
    return Endpoint(Place.PROVIDER, (b"POST",), operation, wire, takes_form=takes_form)


_GET: Final = (b"GET", b"HEAD")
_OPERATIONS: Final = {
    b"chat/completions": _post(Operation.CHAT),
    b"embeddings": _post(Operation.EMBEDDINGS),
    b"responses": _post(Operation.RESPONSES),
    b"completions": _post(Operation.COMPLETIONS),
    b"moderations": _post(Operation.MODERATIONS),
    b"images/generations": _post(Operation.IMAGES),
    b"images/edits": _post(Operation.IMAGE_EDITS, takes_form=True),
    b"images/variations": _post(Operation.IMAGE_VARIATIONS, takes_form=True),
    b"audio/speech": _post(Operation.SPEECH),
    b"audio/transcriptions": _post(Operation.TRANSCRIPTIONS, takes_form=True),
    b"audio/translations": _post(Operation.TRANSLATIONS, takes_form=True),
}
_MODELS: Final = Endpoint(Place.MODELS, _GET)
_EXACT: Final = {
    **{b"/v1/" + path: endpoint for path, endpoint in _OPERATIONS.items()},
    **{b"/openai/v1/" + path: endpoint for path, endpoint in _OPERATIONS.items()},
    # Azure's older surface names no deployment here: the model stands in the body.
    b"/openai/responses": _OPERATIONS[b"responses"],
    b"/v1/messages": _post(Operation.MESSAGES, Wire.ANTHROPIC),
    b"/v1/messages/count_tokens": _post(Operation.COUNT_TOKENS, Wire.ANTHROPIC),
    b"/v1/models": _MODELS,
    b"/openai/v1/models": _MODELS,
    b"/openai/models": _MODELS,
    b"/healthz": Endpoint(Place.HEALTH, _GET),
    b"/readyz": Endpoint(Place.READY, _GET),
    b"/metrics": Endpoint(Place.CONTROL, _GET),
}
# What a GET with `Upgrade: websocket` may ask for. Realtime is served in no other way.
_SOCKETS: Final = {
    b"realtime": SocketKind.REALTIME,
    b"responses": SocketKind.RESPONSES,
    b"chat/completions": SocketKind.CHAT,
}
_SOCKET_PREFIXES: Final = (b"/v1/", b"/openai/v1/", b"/openai/")
_CONTROL: Final = Endpoint(Place.CONTROL, (b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE"))
_MODEL_PREFIXES: Final = (b"/v1/models/", b"/openai/v1/models/", b"/openai/models/")
_DEPLOYMENTS: Final = b"/openai/deployments/"


def find(method: bytes, path: bytes) -> Endpoint:
    """The endpoint of a request. Raises NotFound or MethodNotAllowed (with `Allow`)."""
    endpoint = _EXACT.get(path) or _find_prefixed(path)
    if method not in endpoint.methods:
        allowed = b", ".join(endpoint.methods)
        raise MethodNotAllowed(
            f"{method.decode('latin-1')} is not allowed here; use {allowed.decode()}.", headers=((b"allow", allowed),)
        )
    return endpoint


def find_socket(path: bytes) -> tuple[SocketKind, str | None] | None:
    """What a WebSocket on this path speaks, and the model that the path names, if it does. None: there is none."""
    if path.startswith(_DEPLOYMENTS):
        deployment, _, name = path[len(_DEPLOYMENTS) :].partition(b"/")
        kind = _SOCKETS.get(name)
        return None if kind is None or not deployment else (kind, _name(deployment))
    for prefix in _SOCKET_PREFIXES:
        if path.startswith(prefix) and (kind := _SOCKETS.get(path[len(prefix) :])) is not None:
            return kind, None
    return None


def _find_prefixed(path: bytes) -> Endpoint:
    if path.startswith(_DEPLOYMENTS):
        # https://learn.microsoft.com/azure/ai-services/openai/reference: /openai/deployments/{deployment}/{operation}
        deployment, _, operation = path[len(_DEPLOYMENTS) :].partition(b"/")
        if deployment and (endpoint := _OPERATIONS.get(operation)) is not None:
            return msgspec.structs.replace(endpoint, model=_name(deployment))
    for prefix in _MODEL_PREFIXES:
        if path.startswith(prefix) and len(path) > len(prefix):
            return msgspec.structs.replace(_MODELS, model=_name(path[len(prefix) :]))
    if path.startswith((b"/api/v1/", b"/console/")) or path == b"/console":
        return _CONTROL
    shown = path[:100].decode("latin-1")
    raise NotFound(f"There is nothing at {shown}. The OpenAI-compatible endpoint is at /v1.")


def _name(raw: bytes) -> str:
    from urllib.parse import unquote_to_bytes

    return unquote_to_bytes(raw).decode("utf-8", "replace")
