"""Who converses, and which models the conversation may name: that of its path, and those in any of its messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.errors import (
    EscalationRequired,
    InputBlocked,
    InvalidRequest,
    ModelNotAllowed,
    ModelNotFound,
    PolicyRefusal,
)
from gateway.types import Screening, Subject, Verdict
from translators.realtime import transcribes

if TYPE_CHECKING:
    from gateway.routes import Route, Target
    from gateway.snapshot import Binding
    from translators.realtime import ClientEvent


def subject_of(binding: Binding, id: str, model: str, operation: str) -> Subject:
    """Who asks for what, as policies see it; `id` is that of the record."""
    key = binding.key
    return Subject(
        id,
        key.id if key else None,
        key.name if key else None,
        key.team if key else None,
        binding.configuration.id,
        model,
        operation,
    )


def refusal_of(screening: Screening) -> PolicyRefusal:
    """What the client is told of a screening that lets nothing through."""
    refusing = screening.refusing
    kind = EscalationRequired if screening.verdict is Verdict.ESCALATE else InputBlocked
    return kind(screening.message, policy=refusing.policy if refusing else "unknown")


def route_of(binding: Binding, model: str) -> Route:
    """The targets of a model that the key may use. Raises ModelNotFound and ModelNotAllowed."""
    route = binding.configuration.routes.get(model)
    if route is None:
        raise ModelNotFound(
            f"No target of configuration {binding.configuration.id} offers the model {model[:200]!r}; "
            "GET /v1/models lists what it offers.",
            param="model",
        )
    allowed = None if binding.key is None else binding.key.models
    if not (allowed is None or model in allowed or all(one.model in allowed for one in route.targets)):
        raise _not_allowed(model, "model")
    return route


def names_for(binding: Binding, event: ClientEvent, target: Target) -> dict[str, str]:
    """What stands in the places of models' names for the target that a message goes to, by their paths.

    What writes down a user's speech comes with the session: it need not be a target, but a key that has a list must
    have it there. Raises GatewayError for a model that may not be used here.
    """
    names = {}
    for path, model in event.models.items():
        if transcribes(path):
            allowed = None if binding.key is None else binding.key.models
            if allowed is not None and model not in allowed:
                raise _not_allowed(model, path)
        elif all(one.id != target.id for one in route_of(binding, model).targets):
            raise InvalidRequest(
                f"This connection is one of the model {target.model!r}; open another one for {model[:200]!r}.",
                param=path,
            )
        elif target.upstream_model != model:
            names[path] = target.upstream_model
    return names


def _not_allowed(model: str, param: str) -> ModelNotAllowed:
    return ModelNotAllowed(f"This key does not allow the model {model[:200]!r}; ask its owner to add it.", param=param)
