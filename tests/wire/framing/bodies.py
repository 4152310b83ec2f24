"""JSON bodies of every operation, of which some parts are something else than a provider's documentation allows.

As in `grammar`, everything comes from the generator that is given.
"""

from __future__ import annotations

import copy
import random
from typing import Any, Final

import orjson

_TOOL: Final = {"type": "object", "properties": {"a": {"type": "string", "enum": ["x", "y"]}}, "required": ["a"]}
_CALL: Final = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a":"x"}'}}
_IMAGE: Final = "data:image/png;base64,iVBORw0KGgo="

BODIES: Final[dict[str, dict[str, Any]]] = {
    "/v1/chat/completions": {
        "model": "gpt-test",
        "messages": [
            {"role": "system", "content": "Be brief, and keep the secret."},
            {
                "role": "user",
                "name": "ann",
                "content": [
                    {"type": "text", "text": "What is this secret?"},
                    {"type": "image_url", "image_url": {"url": _IMAGE, "detail": "low"}},
                    {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
                    {
                        "type": "file",
                        "file": {"file_data": "data:application/pdf;base64,JVBERg==", "filename": "a.pdf"},
                    },
                ],
            },
            {"role": "assistant", "content": None, "refusal": None, "tool_calls": [_CALL]},
            {"role": "tool", "tool_call_id": "call_1", "content": "1"},
            {"role": "user", "content": "Go on: ann@example.com"},
        ],
        "tools": [
            {"type": "function", "function": {"name": "f", "description": "d", "parameters": _TOOL, "strict": True}}
        ],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": _TOOL, "strict": True}},
        "stop": ["\n"],
        "temperature": 0.5,
        "top_p": 1,
        "n": 1,
        "seed": 1,
        "max_tokens": 10,
        "logit_bias": {"1": 2},
        "max_completion_tokens": 10,
        "logprobs": True,
        "top_logprobs": 2,
        "stream_options": {"include_usage": True},
        "parallel_tool_calls": True,
        "reasoning_effort": "low",
        "user": "u",
        "metadata": {"a": "b"},
        "stream": False,
        "modalities": ["text"],
        "prediction": {"type": "content", "content": "x"},
        "service_tier": "auto",
        "store": False,
    },
    "/v1/messages": {
        "model": "gpt-test",
        "max_tokens": 10,
        "system": [{"type": "text", "text": "Be brief", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "A secret?"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}},
                    {
                        "type": "document",
                        "source": {"type": "text", "media_type": "text/plain", "data": "x"},
                        "title": "t",
                    },
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "s"},
                    {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": "x"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "toolu_1",
                        "is_error": False,
                        "content": [{"type": "text", "text": "1"}],
                    }
                ],
            },
        ],
        "tools": [{"name": "f", "description": "d", "input_schema": _TOOL}],
        "tool_choice": {"type": "tool", "name": "f"},
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "stop_sequences": ["x"],
        "temperature": 1,
        "top_k": 5,
        "metadata": {"user_id": "u"},
        "stream": False,
    },
    "/v1/responses": {
        "model": "gpt-test",
        "instructions": "Be brief",
        "input": [
            {
                "role": "user",
                "content": [{"type": "input_text", "text": "secret"}, {"type": "input_image", "image_url": _IMAGE}],
            },
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "1"},
            {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "s"}]},
            {
                "type": "message",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "x", "annotations": []}],
            },
        ],
        "tools": [{"type": "function", "name": "f", "parameters": _TOOL, "strict": True}, {"type": "web_search"}],
        "tool_choice": "auto",
        "text": {"format": {"type": "json_schema", "name": "s", "schema": _TOOL}},
        "reasoning": {"effort": "low", "summary": "auto"},
        "max_output_tokens": 20,
        "temperature": 1,
        "stream": False,
        "previous_response_id": None,
        "include": ["reasoning.encrypted_content"],
        "metadata": {},
        "truncation": "auto",
    },
    "/v1/embeddings": {"model": "gpt-test", "input": ["a secret", "b"], "dimensions": 8, "encoding_format": "float"},
    "/v1/completions": {
        "model": "gpt-test",
        "prompt": ["a secret"],
        "max_tokens": 5,
        "logprobs": 1,
        "suffix": "x",
        "echo": True,
        "stop": "x",
        "stream": False,
    },
    "/v1/moderations": {"model": "gpt-test", "input": [{"type": "text", "text": "secret"}]},
    "/v1/images/generations": {"model": "gpt-test", "prompt": "a secret", "n": 1, "size": "1x1"},
    "/v1/audio/speech": {"model": "gpt-test", "input": "a secret", "voice": "alloy", "speed": 1.0},
    "/v1/messages/count_tokens": {"model": "gpt-test", "messages": [{"role": "user", "content": "a secret"}]},
}

_ODD: Final[tuple[Any, ...]] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    1.5,
    1e308,
    2**53,
    2**63,
    -(2**63),
    "",
    "a",
    "secret",
    "\x00",
    "\u2028",
    "é\U0001f600",
    "data:;base64,",
    "data:image/png;base64,###",
    "http://evil.example/x",
    "{}",
    "[",
    "null",
    [],
    {},
    [[]],
    [None],
    [{}],
    {"": ""},
    {"type": None},
    {"type": "text"},
    {"type": "text", "text": None},
    {"type": []},
    {"role": "user"},
    ["a", 1, None],
    "x" * 300,
    [1] * 50,
    {"a": {"a": {"a": {}}}},
    "function",
    "text",
    "user",
    "assistant",
    "tool",
    "auto",
    "none",
)


def make(chance: random.Random) -> tuple[str, bytes]:
    """A path and a body for it, with one to four parts that are odd."""
    path = chance.choice(tuple(BODIES))
    body = orjson.loads(orjson.dumps(BODIES[path]))
    for key in list(body):
        if key != "model" and chance.random() < 0.3:
            del body[key]
    for _ in range(chance.choices((1, 2, 4), (6, 3, 1))[0]):
        _spoil(body, chance)
    if "stream" in body and chance.random() < 0.5:
        body["stream"] = True
    return path, orjson.dumps(body)


def _spoil(tree: Any, chance: random.Random) -> None:
    """Put something odd in a random place, or take it away, or double it."""
    node = tree
    while True:
        places = list(node) if isinstance(node, dict) else range(len(node))
        if not places:
            return
        place = chance.choice(places)
        inner = node[place]
        if not (isinstance(inner, dict | list) and inner and chance.random() < 0.75):
            break
        node = inner
    kind = chance.random()
    if place == "model" and node is tree:
        return
    if kind < 0.7:
        node[place] = copy.deepcopy(chance.choice(_ODD))
    elif kind < 0.85:
        del node[place]
    elif isinstance(node, list):
        node.append(copy.deepcopy(node[place]))
    else:
        node[str(chance.choice(("type", "role", "content", "text", "x")))] = copy.deepcopy(node[place])
