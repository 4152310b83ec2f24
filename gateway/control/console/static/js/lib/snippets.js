// Ready-made calls: each works as it stands, once copied.

const shell = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** [name, words, text] for each language. */
export function snippets(base, key, model) {
  const body = JSON.stringify({ model, messages: [{ role: "user", content: "Hello" }] });
  return [
    ["curl", "curl", `curl ${shell(`${base}/chat/completions`)} \\
  -H ${shell(`Authorization: Bearer ${key}`)} \\
  -H 'Content-Type: application/json' \\
  -d ${shell(body)}`],
    ["python", "Python", `# pip install openai
from openai import OpenAI

client = OpenAI(
    base_url=${JSON.stringify(base)},
    api_key=${JSON.stringify(key)},
)
answer = client.chat.completions.create(
    model=${JSON.stringify(model)},
    messages=[{"role": "user", "content": "Hello"}],
)
print(answer.choices[0].message.content)`],
    ["node", "Node", `// npm install openai
import OpenAI from "openai";

const client = new OpenAI({
  baseURL: ${JSON.stringify(base)},
  apiKey: ${JSON.stringify(key)},
});
const answer = await client.chat.completions.create({
  model: ${JSON.stringify(model)},
  messages: [{ role: "user", content: "Hello" }],
});
console.log(answer.choices[0].message.content);`],
  ];
}
