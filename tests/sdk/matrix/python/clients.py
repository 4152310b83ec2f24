"""The Python clients of the matrix. One argument chooses the client; prints one JSON line for each model and case.

GATEWAY_URL and GATEWAY_KEY say where the gateway is, MODELS which models to ask. Nothing of the gateway is imported:
this is what a user's program would be.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

URL, KEY = os.environ["GATEWAY_URL"], os.environ["GATEWAY_KEY"]
MODELS = os.environ["MODELS"].split(",")
QUESTION = "How is the weather in Paris?"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "get_weather", "description": "The weather", "parameters": SCHEMA}}

Case = Callable[[str], object]


def text_of(model: str) -> str:
    return f"Grüße, 世界 🦜 from {model}"


def equal(found: object, expected: object) -> None:
    if found != expected:
        raise AssertionError(f"{found!r} instead of {expected!r}")


def raises(kind: type[BaseException], call: Callable[[], object]) -> None:
    try:
        call()
    except kind:
        return
    raise AssertionError(f"{kind.__name__} was not raised")


def openai_cases(client: Any, openai: Any) -> Iterator[tuple[str, Case]]:
    messages = [{"role": "user", "content": QUESTION}]

    def chat(model: str) -> None:
        answer = client.chat.completions.create(model=model, messages=messages)
        equal(answer.choices[0].message.content, text_of(model))
        equal(answer.choices[0].finish_reason, "stop")
        equal((answer.usage.prompt_tokens, answer.usage.completion_tokens), (7, 5))

    def stream(model: str) -> None:
        chunks = list(client.chat.completions.create(model=model, messages=messages, stream=True))
        texts = [one.choices[0].delta.content or "" for one in chunks if one.choices]
        equal("".join(texts), text_of(model))
        equal(sum(map(bool, texts)) > 2, True)
        equal([one.choices[0].finish_reason for one in chunks if one.choices][-1], "stop")

    def tools(model: str) -> None:
        answer = client.chat.completions.create(model=model, messages=messages, tools=[TOOL])
        (call,) = answer.choices[0].message.tool_calls
        equal((call.function.name, json.loads(call.function.arguments)), ("get_weather", {"city": "Paris"}))
        equal(answer.choices[0].finish_reason, "tool_calls")
        history = [*messages, answer.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
        answer = client.chat.completions.create(model=model, messages=history, tools=[TOOL])
        equal(answer.choices[0].message.content, text_of(model))

    def streamed_tools(model: str) -> None:
        chunks = client.chat.completions.create(model=model, messages=messages, tools=[TOOL], stream=True)
        calls = [call for one in chunks if one.choices for call in one.choices[0].delta.tool_calls or ()]
        equal("".join(call.function.name or "" for call in calls), "get_weather")
        equal(json.loads("".join(call.function.arguments or "" for call in calls)), {"city": "Paris"})

    def errors(model: str) -> None:
        wrong = [{"role": "user", "content": "provider-error"}]
        raises(openai.RateLimitError, lambda: client.chat.completions.create(model=model, messages=wrong))

    yield from (("chat", chat), ("stream", stream), ("tools", tools), ("streamed tools", streamed_tools))
    yield "errors", errors


def openai_client() -> Iterator[tuple[str, Case]]:
    import openai

    client = openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0)
    yield from openai_cases(client, openai)

    def responses(model: str) -> None:
        equal(client.responses.create(model=model, input=QUESTION).output_text, text_of(model))
        events = client.responses.create(model=model, input=QUESTION, stream=True)
        equal("".join(one.delta for one in events if one.type == "response.output_text.delta"), text_of(model))

    yield "responses", responses


def azure_client() -> Iterator[tuple[str, Case]]:
    import openai

    client = openai.AzureOpenAI(azure_endpoint=URL, api_key=KEY, api_version="2024-10-21", max_retries=0)
    yield from openai_cases(client, openai)


def anthropic_client() -> Iterator[tuple[str, Case]]:
    import anthropic

    client = anthropic.Anthropic(base_url=URL, api_key=KEY, max_retries=0)
    messages: list[Any] = [{"role": "user", "content": QUESTION}]
    tool: Any = {"name": "get_weather", "description": "The weather", "input_schema": SCHEMA}

    def chat(model: str) -> None:
        answer = client.messages.create(model=model, max_tokens=100, messages=messages)
        equal("".join(block.text for block in answer.content if block.type == "text"), text_of(model))
        equal((answer.stop_reason, answer.usage.input_tokens, answer.usage.output_tokens), ("end_turn", 7, 5))

    def stream(model: str) -> None:
        with client.messages.stream(model=model, max_tokens=100, messages=messages) as events:
            pieces = list(events.text_stream)
            equal("".join(pieces), text_of(model))
            equal(len(pieces) > 2, True)
            equal(events.get_final_message().stop_reason, "end_turn")

    def tools(model: str) -> None:
        answer = client.messages.create(model=model, max_tokens=100, messages=messages, tools=[tool])
        (use,) = [block for block in answer.content if block.type == "tool_use"]
        equal((use.name, use.input, answer.stop_reason), ("get_weather", {"city": "Paris"}, "tool_use"))
        result = {"type": "tool_result", "tool_use_id": use.id, "content": "sunny"}
        history = [*messages, {"role": "assistant", "content": answer.content}, {"role": "user", "content": [result]}]
        answer = client.messages.create(model=model, max_tokens=100, messages=history, tools=[tool])
        equal("".join(block.text for block in answer.content if block.type == "text"), text_of(model))

    def streamed_tools(model: str) -> None:
        with client.messages.stream(model=model, max_tokens=100, messages=messages, tools=[tool]) as events:
            (use,) = [block for block in events.get_final_message().content if block.type == "tool_use"]
        equal((use.name, use.input), ("get_weather", {"city": "Paris"}))

    def errors(model: str) -> None:
        wrong: list[Any] = [{"role": "user", "content": "provider-error"}]
        raises(anthropic.RateLimitError, lambda: client.messages.create(model=model, max_tokens=9, messages=wrong))

    yield from (("chat", chat), ("stream", stream), ("tools", tools), ("streamed tools", streamed_tools))
    yield "errors", errors


def langchain_client() -> Iterator[tuple[str, Case]]:
    from langchain_openai import ChatOpenAI

    def client(model: str) -> Any:
        return ChatOpenAI(model=model, base_url=f"{URL}/v1", api_key=KEY, max_retries=0)  # type: ignore[arg-type]

    def chat(model: str) -> None:
        equal(client(model).invoke(QUESTION).content, text_of(model))

    def stream(model: str) -> None:
        pieces = [chunk.content for chunk in client(model).stream(QUESTION)]
        equal("".join(pieces), text_of(model))

    def tools(model: str) -> None:
        answer = client(model).bind_tools([TOOL]).invoke(QUESTION)
        equal([(call["name"], call["args"]) for call in answer.tool_calls], [("get_weather", {"city": "Paris"})])

    yield from (("chat", chat), ("stream", stream), ("tools", tools))


def llama_index_client() -> Iterator[tuple[str, Case]]:
    from llama_index.core.llms import ChatMessage
    from llama_index.core.tools import FunctionTool
    from llama_index.llms.openai_like import OpenAILike

    def client(model: str) -> Any:
        return OpenAILike(
            model=model,
            api_base=f"{URL}/v1",
            api_key=KEY,
            is_chat_model=True,
            is_function_calling_model=True,
            max_retries=0,
        )

    def get_weather(city: str) -> str:
        """The weather"""
        return "sunny"

    def chat(model: str) -> None:
        equal(client(model).chat([ChatMessage(role="user", content=QUESTION)]).message.content, text_of(model))

    def stream(model: str) -> None:
        *_, last = client(model).stream_chat([ChatMessage(role="user", content=QUESTION)])
        equal(last.message.content, text_of(model))

    def tools(model: str) -> None:
        llm = client(model)
        answer = llm.chat_with_tools([FunctionTool.from_defaults(get_weather)], user_msg=QUESTION)
        calls = llm.get_tool_calls_from_response(answer)
        equal([(call.tool_name, call.tool_kwargs) for call in calls], [("get_weather", {"city": "Paris"})])

    yield from (("chat", chat), ("stream", stream), ("tools", tools))


CLIENTS = {
    "openai": openai_client,
    "azure": azure_client,
    "anthropic": anthropic_client,
    "langchain": langchain_client,
    "llama-index": llama_index_client,
}


def main() -> None:
    for name, case in CLIENTS[sys.argv[1]]():
        for model in MODELS:
            problem = ""
            try:
                case(model)
            except Exception as error:
                problem = f"{type(error).__name__}: {error}"[:500]
            print(json.dumps({"model": model, "case": name, "problem": problem}), flush=True)


if __name__ == "__main__":
    main()
