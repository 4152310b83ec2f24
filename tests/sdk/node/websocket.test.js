// The WebSocket clients of the official openai package through the gateway, unchanged but for baseURL and apiKey; run by
// tests/acceptance/websocket/test_openai_node.py. These clients always speak TLS.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import OpenAI, { AzureOpenAI } from 'openai';
import { OpenAIRealtimeWS } from 'openai/realtime/ws';
import { OpenAIRealtimeWebSocket } from 'openai/realtime/websocket';
import { ResponsesWS } from 'openai/resources/responses/ws';
import { WebSocket } from 'ws';

const { GATEWAY_URL, GATEWAY_KEY, NARROW_KEY, BANNED, REDACTED, BLOCKED } = process.env;
const client = new OpenAI({ baseURL: `${GATEWAY_URL}/v1`, apiKey: GATEWAY_KEY });

// What a browser has, Node.js has since version 22.
globalThis.WebSocket ??= WebSocket;

const user = (text) => ({ type: 'message', role: 'user', content: [{ type: 'input_text', text }] });

// Collects events until one of a type has come.
function until(connection, type, error = null) {
  return new Promise((resolve, reject) => {
    const events = [];
    connection.on('event', (event) => {
      events.push(event);
      if (event.type === type) resolve(events);
    });
    connection.on('error', (fault) => (error === null ? reject(fault) : error(fault)));
  });
}

async function converse(connection, opened) {
  await new Promise((resolve) => opened(resolve));
  const done = until(connection, 'response.done');
  connection.send({ type: 'conversation.item.create', item: user(`say: It is a ${BANNED}, yes.`) });
  connection.send({ type: 'response.create' });
  const events = await done;
  const said = events.filter(({ type }) => type === 'response.output_audio_transcript.delta');
  assert.equal(said.map(({ delta }) => delta).join(''), `It is a ${REDACTED}, yes.`);
  assert.equal(events.at(-1).response.usage.total_tokens, 12);
}

test('OpenAIRealtimeWS', async () => {
  const connection = new OpenAIRealtimeWS({ model: 'spoken' }, client);
  await converse(connection, (resolve) => connection.socket.on('open', resolve));
  const closed = new Promise((resolve) => connection.socket.on('close', (code) => resolve(code)));
  connection.close();
  assert.equal(await closed, 1000);
});

test('OpenAIRealtimeWebSocket, with the key among the subprotocols', async () => {
  const connection = new OpenAIRealtimeWebSocket({ model: 'spoken', dangerouslyAllowBrowser: true }, client);
  await converse(connection, (resolve) => connection.socket.addEventListener('open', resolve));
  assert.equal(connection.socket.protocol, 'realtime');
  connection.close();
});

test('a refusal is an error event, and the connection stays', async () => {
  const narrow = new OpenAI({ baseURL: `${GATEWAY_URL}/v1`, apiKey: NARROW_KEY });
  const connection = new OpenAIRealtimeWS({ model: 'spoken' }, narrow);
  await new Promise((resolve) => connection.socket.on('open', resolve));
  const faults = [];
  const done = until(connection, 'response.done', (fault) => faults.push(fault));
  connection.send({ type: 'session.update', event_id: 'mine', session: { type: 'realtime', model: 'other' } });
  connection.send({ type: 'conversation.item.create', item: user(`Some ${BLOCKED} here`) });
  connection.send({ type: 'conversation.item.create', item: user('Hello') });
  connection.send({ type: 'response.create' });
  await done;
  assert.deepEqual(faults.map(({ error }) => error.code), ['model_not_allowed', 'input_blocked']);
  assert.equal(faults[0].error.event_id, 'mine');
  connection.close();
});

test('AzureOpenAI', async () => {
  const azure = new AzureOpenAI({ endpoint: GATEWAY_URL, apiKey: GATEWAY_KEY, apiVersion: '2024-10-01-preview' });
  const connection = await OpenAIRealtimeWS.azure(azure, { deploymentName: 'spoken' });
  await until(connection, 'session.created');
  connection.close();
});

test('ResponsesWS', async () => {
  const connection = new ResponsesWS(client);
  const done = until(connection, 'response.completed');
  connection.send({ type: 'response.create', model: 'spoken', input: `say: one ${BANNED} two` });
  const events = await done;
  const said = events.filter(({ type }) => type === 'response.output_text.delta');
  assert.equal(said.map(({ delta }) => delta).join(''), `one ${REDACTED} two`);
  connection.close();
});
