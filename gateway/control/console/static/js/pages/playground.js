// Playground: talk to a model through the gateway, as an application would, and see beside the answer what the policies
// decided. The key stays in this page's memory: it is kept nowhere.

import { api } from "../lib/api.js";
import { h, show } from "../lib/dom.js";
import { duration, microseconds, money, number } from "../lib/format.js";
import { dataOf } from "../lib/sse.js";
import { button, card, empty, facts, field, head, input, linkButton, mark, notice, select, tabs, snippet } from "../lib/ui.js";
import { snippets } from "../lib/snippets.js";
import { steps, verdictMark } from "./events.js";

const TRIES = 16;

export function playgroundPage(page, context) {
  const given = context.playground || {};
  const memory = (context.playground = { key: given.key || "", model: given.model || "", messages: given.messages || [] });
  const key = input({ type: "password", class: "mono", placeholder: "kt_gk_…", autocomplete: "off", "data-1p-ignore": true, value: memory.key, oninput: (event) => { memory.key = event.target.value.trim(); loadModels(); } });
  const talk = h("div", { class: "talk", tabindex: "0", role: "log", "aria-label": "Conversation" });
  const words = h("textarea", {
    class: "input", "aria-label": "Message", placeholder: "Say something", rows: 3,
    onkeydown: (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        send();
      }
    },
  });
  const sending = button("Send", { icon: "send", kind: "main", onclick: send });
  const stopping = button("Stop", { icon: "stop", hidden: true, onclick: () => running?.abort() });
  const side = h("div", { class: "form" });
  let running = null;
  let modelTimer;
  context.leaving.push(() => running?.abort());

  show(
    page,
    head("Playground", "What a model answers through the gateway, and what the policies say to it.", button("Start over", { icon: "rotate", onclick: startOver })),
    h("div", { class: "play" },
      h("section", { class: "card", "aria-label": "Conversation" }, talk,
        h("div", { class: "compose" }, words,
          h("div", { class: "bar" }, h("span", { class: "faint" }, h("kbd", {}, "Enter"), " sends, ", h("kbd", {}, "Shift"), " ", h("kbd", {}, "Enter"), " begins a line"), h("span", { class: "grow" }), stopping, sending))),
      h("div", { class: "form" },
        card("With", h("div", { class: "body form" }, field("Gateway key", key, { hint: "Stays in this page. On this machine it can be left out." }), field("Model", modelSelect([])))),
        side)),
  );
  const modelField = page.querySelectorAll(".play .field")[1];
  draw();
  loadModels();
  words.focus();

  function modelSelect(names) {
    const control = names.length
      ? select(names.map((name) => [name, name]), memory.model, { onchange: (event) => { memory.model = event.target.value; } })
      : input({ value: memory.model, placeholder: "gpt-4o", oninput: (event) => { memory.model = event.target.value.trim(); } });
    return control;
  }

  function loadModels() {
    clearTimeout(modelTimer);
    modelTimer = setTimeout(async () => {
      let names = [];
      let wrong = "";
      try {
        const response = await fetch("/v1/models", { headers: authorization(), credentials: "omit" });
        const told = await response.json();
        if (response.ok) names = told.data.map((one) => one.id);
        else wrong = told.error?.message || "";
      } catch {
        wrong = "The gateway cannot be reached.";
      }
      if (names.length && !names.includes(memory.model)) [memory.model] = names;
      const old = modelField.querySelector("input, select");
      const control = modelSelect(names);
      control.id = old.id;
      control.setAttribute("aria-describedby", old.getAttribute("aria-describedby"));
      old.replaceWith(control);
      page.querySelector(".play .field").say(wrong && (memory.key ? wrong : "Give a gateway key to begin."));
    }, 250);
  }

  const authorization = () => (memory.key ? { Authorization: `Bearer ${memory.key}` } : {});

  function startOver() {
    running?.abort();
    memory.messages = [];
    draw();
    words.focus();
  }

  function draw() {
    if (memory.messages.length) show(talk, memory.messages.map(said));
    else show(talk, empty("play", "Say something", "The answer streams, as it would to your application."));
    talk.scrollTop = talk.scrollHeight;
  }

  function said(message) {
    const mine = message.role === "user";
    return h("div", { class: `said ${mine ? "mine" : ""} ${message.refused ? "refused" : ""}` },
      h("span", { class: "who" }, mine ? "You" : message.refused ? "The gateway" : message.model || "Answer"),
      h("div", { class: "words" }, message.content || (message.done ? "(nothing)" : "…")));
  }

  async function send() {
    const text = words.value.trim();
    if (!text || running) return;
    words.value = "";
    memory.messages.push({ role: "user", content: text });
    const answer = { role: "assistant", content: "", model: memory.model };
    const sent = memory.messages.filter((one) => !one.refused).map(({ role, content }) => ({ role, content }));
    memory.messages.push(answer);
    draw();
    show(side);
    const element = talk.lastElementChild;
    running = new AbortController();
    sending.hidden = true;
    stopping.hidden = false;
    const begun = performance.now();
    let first = null;
    let id = null;
    try {
      const response = await fetch("/v1/chat/completions", {
        method: "POST",
        headers: { "Content-Type": "application/json", ...authorization() },
        body: JSON.stringify({ model: memory.model, messages: sent, stream: true }),
        signal: running.signal,
        credentials: "omit",
      });
      id = response.headers.get("x-request-id");
      if (!response.ok) refuse((await response.json().catch(() => ({}))).error, response.status);
      else {
        for await (const data of dataOf(response.body)) {
          if (data === "[DONE]") break;
          const chunk = JSON.parse(data);
          if (chunk.error) {
            refuse(chunk.error);
            break;
          }
          const piece = chunk.choices?.[0]?.delta?.content;
          if (piece) {
            first ??= performance.now() - begun;
            answer.content += piece;
            const near = talk.scrollHeight - talk.scrollTop - talk.clientHeight < 60;
            show(element.querySelector(".words"), answer.content);
            if (near) talk.scrollTop = talk.scrollHeight;
          }
        }
      }
    } catch (error) {
      if (error.name !== "AbortError") refuse({ message: "The connection broke off." });
    }
    answer.done = true;
    running = null;
    sending.hidden = false;
    stopping.hidden = true;
    draw();
    words.focus();
    decided(id, { first, total: performance.now() - begun });

    function refuse(error, code) {
      answer.refused = true;
      answer.content = `${answer.content ? `${answer.content}\n\n` : ""}${error?.message || "The request was refused."}${error?.code ? ` (${code ? `${code} ` : ""}${error.code})` : ""}`;
    }
  }

  /** The event is in the index a moment after the exchange has ended. */
  async function decided(id, times) {
    if (!id) return;
    const place = h("div", { class: "form" });
    show(side, card("Decisions", h("div", { class: "body" }, place)), code());
    show(place, h("p", { class: "soft", role: "status" }, "Waiting for the record."));
    if (!context.may("read_events") && !context.may("own_events")) return;
    for (let attempt = 0; attempt < TRIES && place.isConnected; attempt += 1) {
      try {
        const { event, decisions, notes } = await api.get(`/events/${encodeURIComponent(id)}`);
        show(place,
          h("div", { class: "bar" }, verdictMark(event.verdict), event.status && mark(`HTTP ${event.status}`)),
          decisions.length ? steps(decisions) : h("p", { class: "soft" }, "No policy of the chain judged this request."),
          notes.length > 0 && [h("h3", {}, "Translation notes"), h("ul", {}, notes.map((note) => h("li", {}, note)))],
          facts([
            ["Target", event.target], ["First words after", times.first === null ? null : duration(times.first)], ["Took", duration(times.total)],
            ["The gateway added", event.added_us === null ? null : microseconds(event.added_us)],
            ["Tokens", `${number(event.prompt_tokens)} in, ${number(event.completion_tokens)} out`],
            ["Spend", event.cost_usd === null ? null : money(event.cost_usd)],
          ]),
          linkButton("The whole event", `/console/events?event=${encodeURIComponent(event.id)}`, { small: true, icon: "events" }));
        return;
      } catch (error) {
        if (error.status !== 404) {
          show(place, notice("bad", error.message));
          return;
        }
        await new Promise((resolve) => setTimeout(resolve, 250));
      }
    }
    show(place, h("p", { class: "soft" }, "There is no record: this configuration has no audit-logger in its chain, or the event is somebody else's."));
  }

  function code() {
    const shown = snippets(`${location.origin}/v1`, "YOUR_GATEWAY_KEY", memory.model);
    return card("As code", h("div", { class: "body form" }, tabs("Examples", shown.map(([name, label, text]) => [name, label, snippet(text, `${label} example`)]))));
  }
}
