"""How Claude is asked, wherever it is served: thinking, sampling, schemas. What each model takes is in `claude_models`.

The Messages API and Bedrock's Converse wrap these in different fields; their meaning and their limits are the same.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from translators.canonical import Reasoning
from translators.claude_models import Claude, Sampling
from translators.notes import Notes

DEFAULT_MAX_TOKENS: Final = 32_000
"""Sent where the client gave no limit, since the field is required; or the model's own limit, if that is less."""

_MIN_BUDGET: Final = 1024
_BUDGETS: Final = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 24_576, "xhigh": 32_000, "max": 32_000}


class Thought(msgspec.Struct, frozen=True):
    """What to ask for: `thinking` as Claude takes it, an effort, and a limit that leaves room for both."""

    max_tokens: int
    config: dict[str, Any] | None = None
    effort: str | None = None


def thinking(
    reasoning: Reasoning, traits: Claude, limit: int, given_limit: int | None, lost: bool, notes: Notes
) -> Thought:
    """How much to think.

    `limit` is what will be sent as the limit on tokens, `given_limit` what the client said; `lost`: the conversation
    goes on after a tool call whose thinking the client did not keep, so that a budget would be refused.
    """
    if not traits.thinks:
        if not reasoning.off:
            notes.add("reasoning_effort", "this model does not think")
        return Thought(limit)
    if reasoning.off:
        if traits.off is None:
            notes.add("reasoning_effort", "thinking cannot be switched off for this model")
        return Thought(limit, {"type": traits.off} if traits.off is not None and traits.adaptive else None)
    if traits.adaptive and (reasoning.budget is None or not traits.budget):
        return Thought(limit, {"type": "adaptive"}, _effort(reasoning, traits, notes))
    return _budget(reasoning, traits, limit, given_limit, lost, notes)


def _effort(reasoning: Reasoning, traits: Claude, notes: Notes) -> str | None:
    if reasoning.budget is not None:
        notes.add("thinking.budget_tokens", "this model decides by itself how much to think")
    effort = reasoning.effort
    if effort is None or effort in traits.efforts:
        return effort
    known = {"minimal": "low", "xhigh": "high"}.get(effort)
    notes.add("reasoning_effort", f"{effort} is not known to this model; sent as {known or 'its default'}")
    return known


def _budget(
    reasoning: Reasoning, traits: Claude, limit: int, given_limit: int | None, lost: bool, notes: Notes
) -> Thought:
    """A budget must leave room for the answer and be at least 1,024 tokens."""
    wanted = reasoning.budget if reasoning.budget is not None else _BUDGETS.get(reasoning.effort or "", 8192)
    if given_limit is None:
        limit = min(limit + wanted, traits.max_output)
    if limit <= _MIN_BUDGET:
        notes.add("reasoning_effort", f"left out: max_tokens {limit} leaves no room for thinking")
        return Thought(limit)
    if lost:
        notes.add("reasoning_effort", "left out: the last tool call came without its thinking")
        return Thought(limit)
    budget = max(_MIN_BUDGET, min(wanted, limit // 2 if reasoning.budget is None else limit - 1))
    if budget < wanted:
        notes.add("reasoning_effort", f"a budget of {wanted} tokens was cut to {budget} by max_tokens {limit}")
    return Thought(limit, {"type": "enabled", "budget_tokens": budget})


_SAMPLING: Final = ("temperature", "top_p", "top_k")


def sampling(settings: dict[str, Any], traits: Claude, budgeted: bool, notes: Notes) -> dict[str, Any]:
    """`temperature`, `top_p` and `top_k`, taken out of `settings`, as far as the model and a budget allow them."""
    given: dict[str, Any] = {key: settings.pop(key) for key in _SAMPLING if key in settings}
    if traits.sampling is Sampling.NEITHER or budgeted:
        why = "this model" if traits.sampling is Sampling.NEITHER else "thinking"
        for key, value in given.items():
            if value != 1:
                notes.add(key, f"not supported with {why}")
        return {}
    if traits.sampling is Sampling.ONE and {"temperature", "top_p"} <= given.keys():
        del given["top_p"]
        notes.add("top_p", "not supported together with temperature")
    temperature = given.get("temperature")
    if isinstance(temperature, int | float) and temperature > 1:
        given["temperature"] = 1
        notes.add("temperature", f"{temperature} is above Claude's highest; sent as 1")
    return given


_NATIVE_KEYS: Final = frozenset(
    {"$defs", "$ref", "$schema", "additionalProperties", "allOf", "anyOf", "const", "default", "description", "enum"}
    | {"format", "items", "properties", "required", "title", "type"}
)


def is_native(schema: Any) -> bool:
    """Whether Claude's structured outputs take a schema as it is: closed objects, no bounds.

    https://platform.claude.com/docs/en/build-with-claude/structured-outputs#json-schema-limitations
    """
    if not isinstance(schema, dict) or not _NATIVE_KEYS.issuperset(schema):
        return False
    if schema.get("type") == "object" and schema.get("additionalProperties") is not False:
        return False
    inner = [*schema.get("properties", {}).values(), *schema.get("$defs", {}).values()]
    inner += [*schema.get("anyOf", ()), *schema.get("allOf", ())]
    if "items" in schema:
        inner.append(schema["items"])
    return all(map(is_native, inner))


def closed_schema(schema: Any) -> Any:
    """The schema as structured outputs take it: objects closed, what they do not know left out."""
    if isinstance(schema, list):
        return [closed_schema(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: value for key, value in schema.items() if key in _NATIVE_KEYS}
    for key in ("properties", "$defs"):
        if isinstance(closed.get(key), dict):
            closed[key] = {name: closed_schema(value) for name, value in closed[key].items()}
    for key in ("anyOf", "allOf", "items"):
        if key in closed:
            closed[key] = closed_schema(closed[key])
    return {**closed, "additionalProperties": False} if closed.get("type") == "object" else closed
