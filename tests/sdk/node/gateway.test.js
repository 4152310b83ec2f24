// The official Node SDK as a judge: `baseURL` and `apiKey` are changed, nothing else, and everything works.
//
// Run by tests/sdk/test_openai_node.py, which starts the gateway and names it and its keys in the environment:
// GATEWAY_URL, GATEWAY_KEY, GUARDED_KEY (its configuration blocks BLOCKED_TERM) and LIMITED_KEY (one request a minute).

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import OpenAI, { AzureOpenAI } from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const { GATEWAY_URL, GATEWAY_KEY, GUARDED_KEY, LIMITED_KEY, BLOCKED_TERM } = process.env;
const model = "mock-gpt";
const messages = [{ role: "user", content: "Say héllo, 世界 🦜" }];
const answer = "Mock answer to: Say héllo, 世界 🦜";
const weather = {
  type: "function",
  function: {
    name: "get_weather",
    parameters: {
      type: "object",
      properties: { city: { type: "string" }, days: { type: "integer" } },
      required: ["city", "days"],
      additionalProperties: false,
    },
  },
};

const clientOf = (apiKey, more = {}) => new OpenAI({ apiKey, baseURL: `${GATEWAY_URL}/v1`, maxRetries: 0, ...more });
const client = clientOf(GATEWAY_KEY);

// A `fetch` that counts, to see what the SDK tries again.
function counting() {
  const fetching = (...request) => {
    fetching.count += 1;
    return fetch(...request);
  };
  fetching.count = 0;
  return fetching;
}

async function textOf(stream) {
  let text = "";
  for await (const chunk of stream) text += chunk.choices[0].delta.content ?? "";
  return text;
}

describe("chat", () => {
  test("answers", async () => {
    const completion = await client.chat.completions.create({ model, messages });
    assert.equal(completion.choices[0].message.content, answer);
    assert.equal(completion.choices[0].finish_reason, "stop");
    assert.ok(completion._request_id);
  });

  test("streams, without the gateway's own usage chunk", async () => {
    const stream = await client.chat.completions.create({ model, messages, stream: true });
    const chunks = [];
    for await (const chunk of stream) chunks.push(chunk);
    assert.equal(chunks.map((chunk) => chunk.choices[0].delta.content ?? "").join(""), answer);
    assert.equal(chunks.at(-1).choices[0].finish_reason, "stop");
  });

  test("streams usage where it was asked for", async () => {
    const options = { model, messages, stream: true, stream_options: { include_usage: true } };
    let last;
    for await (const chunk of await client.chat.completions.create(options)) last = chunk;
    assert.deepEqual(last.choices, []);
    assert.ok(last.usage.total_tokens > 0);
  });

  test("the stream helper", async () => {
    const stream = client.chat.completions.stream({ model, messages });
    let text = "";
    stream.on("content", (delta) => (text += delta));
    const completion = await stream.finalChatCompletion();
    assert.equal(text, answer);
    assert.equal(completion.choices[0].message.content, answer);
  });

  test("a stream may be left", async () => {
    const stream = await client.chat.completions.create({ model, messages, stream: true });
    for await (const chunk of stream) {
      assert.equal(chunk.choices[0].delta.role, "assistant");
      break;
    }
    assert.ok((await client.chat.completions.create({ model, messages })).id);
  });

  test("a required tool, called and answered by the SDK's own loop", async () => {
    const called = [];
    const run = (args) => {
      called.push(args);
      return "sunny";
    };
    const tool = { ...weather, function: { ...weather.function, function: run, parse: JSON.parse } };
    const runner = client.chat.completions.runTools({ model, messages, tools: [tool], tool_choice: "required" });
    assert.equal(await runner.finalContent(), "The tool answered: sunny");
    assert.deepEqual(called.map((args) => Object.keys(args).sort()), [["city", "days"]]);
  });

  test("a tool call in a stream", async () => {
    const request = { model, messages, tools: [weather], tool_choice: "required" };
    const completion = await client.chat.completions.stream(request).finalChatCompletion();
    const [call] = completion.choices[0].message.tool_calls;
    assert.equal(call.function.name, "get_weather");
    assert.deepEqual(Object.keys(JSON.parse(call.function.arguments)).sort(), ["city", "days"]);
  });

  test("structured output", async () => {
    const Event = z.object({ name: z.string(), guests: z.array(z.string()) });
    const response_format = zodResponseFormat(Event, "event");
    const completion = await client.chat.completions.parse({ model, messages, response_format });
    assert.ok(Event.safeParse(completion.choices[0].message.parsed).success);
  });

  test("headers of the answer", async () => {
    const headers = { "x-request-id": "my-own-id" };
    const { response } = await client.chat.completions.create({ model, messages }, { headers }).withResponse();
    assert.equal(response.headers.get("x-request-id"), "my-own-id");
  });
});

describe("other operations", () => {
  test("embeddings, as the SDK asks for them, as numbers and as base64", async () => {
    const request = { model: "mock-embed", input: ["one", "two"], dimensions: 64 };
    const decoded = await client.embeddings.create(request);
    const floats = await client.embeddings.create({ ...request, encoding_format: "float" });
    const raw = await client.embeddings.create({ ...request, encoding_format: "base64" });
    for (const [index, { embedding }] of decoded.data.entries()) {
      assert.equal(embedding.length, 64);
      embedding.forEach((value, place) => assert.ok(Math.abs(value - floats.data[index].embedding[place]) < 1e-6));
    }
    assert.equal(typeof raw.data[0].embedding, "string");
  });

  test("models", async () => {
    const names = [];
    for await (const { id } of client.models.list()) names.push(id);
    assert.deepEqual(names, ["mock-gpt", "mock-embed", "scripted", "aliased", "codex"]);
    assert.equal((await client.models.retrieve(model)).owned_by, "mock");
  });

  test("completions and moderations", async () => {
    const completion = await client.completions.create({ model, prompt: "Hello" });
    assert.equal(completion.choices[0].text, "Mock answer to: Hello");
    assert.equal((await client.moderations.create({ model, input: "Hello" })).results[0].flagged, false);
  });

  test("responses", async () => {
    const response = await client.responses.create({ model, input: "Hello" });
    assert.equal(response.output_text, "Mock answer to: Hello");
    const kinds = [];
    for await (const { type } of await client.responses.create({ model, input: "Hello", stream: true })) kinds.push(type);
    assert.equal(kinds[0], "response.created");
    assert.equal(kinds.at(-1), "response.completed");
    const final = await client.responses.stream({ model, input: "Hello" }).finalResponse();
    assert.equal(final.output_text, "Mock answer to: Hello");
  });
});

describe("errors", () => {
  const is = (kind, status, code) => (error) => {
    assert.ok(error instanceof kind, `${error.constructor.name}: ${error.message}`);
    assert.deepEqual([error.status, error.code], [status, code]);
    assert.ok(error.requestID);
    return true;
  };

  test("wrong key", async () => {
    const wrong = clientOf("sk-something-else");
    const call = wrong.chat.completions.create({ model, messages });
    await assert.rejects(call, is(OpenAI.AuthenticationError, 401, "invalid_api_key"));
  });

  test("unknown model, in a stream too", async () => {
    for (const stream of [false, true]) {
      const call = client.chat.completions.create({ model: "none", messages, stream });
      await assert.rejects(call, is(OpenAI.NotFoundError, 404, "model_not_found"));
    }
  });

  test("wrong shape", async () => {
    const call = client.chat.completions.create({ model, messages: "Hello" });
    await assert.rejects(call, is(OpenAI.BadRequestError, 400, "invalid_request"));
  });

  test("a policy's refusal is a conflict, and not tried again", async () => {
    const fetching = counting();
    const guarded = clientOf(GUARDED_KEY, { maxRetries: 5, fetch: fetching });
    const call = guarded.chat.completions.create({ model, messages: [{ role: "user", content: BLOCKED_TERM }] });
    await assert.rejects(call, (error) => {
      assert.equal(error.error.policy, "dlp-filter");
      return is(OpenAI.ConflictError, 409, "input_blocked")(error);
    });
    assert.equal(fetching.count, 1);
  });

  test("a key's rate limit", async () => {
    const limited = clientOf(LIMITED_KEY);
    await limited.chat.completions.create({ model, messages });
    await assert.rejects(limited.chat.completions.create({ model, messages }), (error) => {
      assert.ok(Number(error.headers.get("retry-after")) > 0);
      assert.equal(error.headers.get("x-ratelimit-limit-requests"), "1");
      return is(OpenAI.RateLimitError, 429, "rate_limit_exceeded")(error);
    });
  });
});

describe("AzureOpenAI", () => {
  const options = { endpoint: GATEWAY_URL, apiVersion: "2024-10-21", maxRetries: 0 };
  const azure = new AzureOpenAI({ apiKey: GATEWAY_KEY, ...options });

  test("chat, whole and streamed", async () => {
    const completion = await azure.chat.completions.create({ model, messages });
    assert.equal(completion.choices[0].message.content, answer);
    assert.equal(await textOf(await azure.chat.completions.create({ model, messages, stream: true })), answer);
  });

  test("a deployment of the client's", async () => {
    const deployed = new AzureOpenAI({ apiKey: GATEWAY_KEY, deployment: model, ...options });
    const completion = await deployed.chat.completions.create({ model: "whatever", messages });
    assert.equal(completion.choices[0].message.content, answer);
  });

  test("embeddings, models and responses", async () => {
    assert.equal((await azure.embeddings.create({ model: "mock-embed", input: "one" })).data.length, 1);
    assert.equal((await azure.models.list()).data.length, 5);
    assert.equal((await azure.responses.create({ model, input: "Hello" })).output_text, "Mock answer to: Hello");
  });

  test("wrong key", async () => {
    const wrong = new AzureOpenAI({ apiKey: "wrong", ...options });
    await assert.rejects(wrong.chat.completions.create({ model, messages }), OpenAI.AuthenticationError);
  });
});
