// The JavaScript clients of the matrix: `node clients.js openai` or `node clients.js ai-sdk`. Prints one JSON line for
// each model and case. GATEWAY_URL and GATEWAY_KEY say where the gateway is, MODELS which models to ask.

import assert from "node:assert/strict";

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { createOpenAI } from "@ai-sdk/openai";
import { generateText, streamText, tool } from "ai";
import OpenAI from "openai";
import { z } from "zod";

const { GATEWAY_URL, GATEWAY_KEY, MODELS } = process.env;
const baseURL = `${GATEWAY_URL}/v1`;
const question = "How is the weather in Paris?";
const textOf = (model) => `Grüße, 世界 🦜 from ${model}`;
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const declared = { type: "function", function: { name: "get_weather", description: "The weather", parameters } };

function openai() {
  const client = new OpenAI({ apiKey: GATEWAY_KEY, baseURL, maxRetries: 0 });
  const messages = [{ role: "user", content: question }];
  return {
    async chat(model) {
      const answer = await client.chat.completions.create({ model, messages });
      assert.equal(answer.choices[0].message.content, textOf(model));
      assert.equal(answer.usage.completion_tokens, 5);
    },
    async stream(model) {
      const pieces = [];
      for await (const chunk of await client.chat.completions.create({ model, messages, stream: true }))
        if (chunk.choices[0]?.delta.content) pieces.push(chunk.choices[0].delta.content);
      assert.equal(pieces.join(""), textOf(model));
      assert.ok(pieces.length > 2);
    },
    async tools(model) {
      const answer = await client.chat.completions.create({ model, messages, tools: [declared] });
      const [call] = answer.choices[0].message.tool_calls;
      assert.deepEqual(JSON.parse(call.function.arguments), { city: "Paris" });
      const result = { role: "tool", tool_call_id: call.id, content: "sunny" };
      const history = [...messages, answer.choices[0].message, result];
      const last = await client.chat.completions.create({ model, messages: history, tools: [declared] });
      assert.equal(last.choices[0].message.content, textOf(model));
    },
    async "streamed tools"(model) {
      const stream = client.chat.completions.stream({ model, messages, tools: [declared] });
      const { message } = (await stream.finalChatCompletion()).choices[0];
      assert.deepEqual(JSON.parse(message.tool_calls[0].function.arguments), { city: "Paris" });
    },
    async errors(model) {
      const wrong = [{ role: "user", content: "provider-error" }];
      await assert.rejects(client.chat.completions.create({ model, messages: wrong }), OpenAI.RateLimitError);
    },
  };
}

function aiSdk() {
  const compatible = createOpenAICompatible({ name: "gateway", baseURL, apiKey: GATEWAY_KEY, includeUsage: true });
  const responses = createOpenAI({ baseURL, apiKey: GATEWAY_KEY });
  const weather = tool({ description: "The weather", inputSchema: z.object({ city: z.string() }) });
  const asked = (model) => ({ model: compatible(model), prompt: question, maxRetries: 0 });
  return {
    async chat(model) {
      const { text, usage } = await generateText(asked(model));
      assert.equal(text, textOf(model));
      assert.equal(usage.outputTokens, 5);
    },
    async stream(model) {
      const pieces = [];
      for await (const piece of streamText(asked(model)).textStream) pieces.push(piece);
      assert.equal(pieces.join(""), textOf(model));
    },
    async tools(model) {
      const { toolCalls } = await generateText({ ...asked(model), tools: { get_weather: weather } });
      assert.deepEqual(toolCalls.map((call) => [call.toolName, call.input]), [["get_weather", { city: "Paris" }]]);
    },
    async "streamed tools"(model) {
      const calls = await streamText({ ...asked(model), tools: { get_weather: weather } }).toolCalls;
      assert.deepEqual(calls.map((call) => [call.toolName, call.input]), [["get_weather", { city: "Paris" }]]);
    },
    async responses(model) {
      const { text } = await generateText({ model: responses(model), prompt: question, maxRetries: 0 });
      assert.equal(text, textOf(model));
    },
  };
}

for (const [name, run] of Object.entries({ openai, "ai-sdk": aiSdk }[process.argv[2]]()))
  for (const model of MODELS.split(",")) {
    let problem = "";
    try {
      await run(model);
    } catch (error) {
      problem = `${error.name}: ${error.message}`.slice(0, 500) || "failed";
    }
    console.log(JSON.stringify({ model, case: name, problem }));
  }
