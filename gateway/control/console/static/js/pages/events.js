// Events: the exchanges as they end, filters, and one decision in full.

import { api, query } from "../lib/api.js";
import { h, put, s, show } from "../lib/dom.js";
import { compact, exactTime, microseconds, moment, money, number } from "../lib/format.js";
import { icon } from "../lib/icons.js";
import { watch } from "../lib/live.js";
import { bones, button, copyable, dialog, empty, facts, failed, filled, head, mark, scrolled, searchField, select, status, table } from "../lib/ui.js";

const FIELDS = ["request", "key", "model", "provider", "team", "configuration", "verdict", "outcome", "status", "policy", "code"];
const MOST = 500;
const VERDICTS = { allow: ["allowed", "good"], redact: ["redacted", "note"], escalate: ["escalated", "warn"], block: ["blocked", "bad"] };
const OUTCOMES = {
  completed: "", refused: "warn", failed: "bad", cancelled: "", truncated: "bad", interrupted: "bad",
};

export const verdictMark = (verdict) => mark(...(VERDICTS[verdict] || [verdict, ""]));

export function eventsPage(page, context) {
  const address = new URLSearchParams(location.search);
  const filter = Object.fromEntries(FIELDS.map((name) => [name, address.get(name) || ""]));
  const filters = h("div", { class: "filters", role: "search", "aria-label": "Filter events" });
  const picks = h("div", { class: "picks" });
  const place = h("section", { class: "card", "aria-label": "Events" });
  const state = h("span", {});
  let paused = false;
  let stop = () => {};
  let list = null;
  const held = [];

  const pause = button("Pause", { icon: "pause", small: true, onclick: () => {
    paused = !paused;
    show(pause, icon(paused ? "start" : "pause", "small"), paused ? "Go on" : "Pause");
    if (!paused) add(held.splice(0));
    tell(true);
  } });
  show(page, head("Events", "Every request that went through the gateway, as the audit log has it.", state, pause), filters, place);
  context.leaving.push(() => stop());
  search();
  build();
  reload();
  if (address.get("event")) detail(address.get("event"));

  /** The field is there before the choices are, and stays when they come: somebody may be typing. */
  function search() {
    show(filters, searchField("Request id", filter.request, (text) => set("request", text)), picks);
  }

  async function build() {
    let names = {};
    try {
      names = await api.get("/events/names");
    } catch {
      // The list itself says what is wrong.
    }
    const pick = (name, words, options) => {
      const chosen = filter[name];
      const known = options.some(([value]) => value === chosen) || !chosen ? options : [...options, [chosen, chosen]];
      return select([["", words], ...known], chosen, {
        "aria-label": words.replace("Every", "Filter by"), name,
        onchange: (event) => set(name, event.target.value),
      });
    };
    const of = (name) => (names[name] || []).slice(0, 200).map((row) => [row.name, row.label]);
    const some = (name, words) => (of(name).length > 1 || filter[name]) && pick(name, words, of(name));
    show(
      picks,
      pick("verdict", "Every verdict", Object.entries(VERDICTS).map(([value, [words]]) => [value, words])),
      pick("outcome", "Every outcome", Object.keys(OUTCOMES).map((value) => [value, value])),
      pick("status", "Every status", [["2xx", "2xx"], ["4xx", "4xx"], ["5xx", "5xx"], ["401", "401"], ["409", "409"], ["429", "429"]]),
      pick("key", "Every key", of("key")),
      pick("model", "Every model", of("model")),
      some("provider", "Every provider"), some("team", "Every team"), some("configuration", "Every configuration"),
      pick("policy", "Every policy", of("policy")), some("code", "Every error code"),
    );
  }

  function set(name, value) {
    filter[name] = value;
    history.replaceState(null, "", `/console/events${query(filter)}`);
    reload();
  }

  function reload() {
    stop();
    list = null;
    held.length = 0;
    filled(place, () => api.get(`/events${query({ ...filter, limit: 50 })}`), render, { lines: 9 });
    stop = watch(filter, {
      onevent: (event) => (paused ? hold(event) : add([event])),
      onstate: tell,
    });
  }

  function tell(open) {
    show(state, status(paused ? `Paused${held.length ? `, ${held.length} new` : ""}` : open ? "Live" : "Connecting", open && !paused ? "live" : ""));
  }

  function hold(event) {
    held.push(event);
    if (held.length > MOST) held.shift();
    tell(true);
  }

  function add(events) {
    if (!list) return events.length && place.isConnected ? reload() : undefined;
    const seen = new Set([...list.body.children].map((row) => row.dataset.id));
    list.add(events.filter((event) => !seen.has(event.id)).reverse(), { first: true, fresh: true });
    while (list.body.children.length > MOST) list.body.lastElementChild.remove();
  }

  function render(found) {
    if (!found.data.length) {
      const filtered = FIELDS.some((name) => filter[name]);
      return filtered
        ? empty("search", "No event matches", "Other filters may find more.", button("Clear the filters", { onclick: clear }))
        : empty("events", "No events yet", "Requests show up here a moment after they have ended, under configurations that have audit-logger in their chain.");
    }
    list = table(columns(), found.data, { caption: "Events, newest first", dense: true, row: rowOf });
    return [scrolled("Events", list), more(found.next)];
  }

  function more(next) {
    if (!next) return null;
    const bar = h("div", { class: "more-rows" });
    put(bar, button("Show older", { onclick: async (event) => {
      event.target.disabled = true;
      try {
        const found = await api.get(`/events${query({ ...filter, limit: 100, cursor: next })}`);
        list.add(found.data);
        bar.replaceWith(more(found.next) || "");
      } catch (error) {
        show(bar, failed(error));
      }
    } }));
    return bar;
  }

  function clear() {
    for (const name of FIELDS) filter[name] = "";
    history.replaceState(null, "", "/console/events");
    search();
    build();
    reload();
  }

  function columns() {
    return [
      { title: "Time", cell: (row) => h("button", { type: "button", class: "row number", title: exactTime(row.at), onclick: (event) => { event.stopPropagation(); detail(row.id); } }, moment(row.at)) },
      { title: "Key", cell: (row) => row.key ? row.key_name || h("code", {}, row.key) : h("span", { class: "faint" }, "no key") },
      { title: "Model", wide: true, cell: (row) => [row.model || h("span", { class: "faint" }, "–"), row.target && row.target !== row.model && h("span", { class: "beside" }, row.target)] },
      { title: "Verdict", cell: (row) => [verdictMark(row.verdict), row.policy && h("span", { class: "beside" }, row.policy)] },
      { title: "Status", cell: (row) => h("span", { class: "status" }, h("span", { class: `dot ${OUTCOMES[row.outcome] || "good"}` }), h("span", { class: "number" }, row.status ?? "–"), h("span", { class: "faint" }, row.outcome === "completed" ? "" : row.outcome)) },
      { title: "Tokens", right: true, less: true, cell: (row) => compact(row.prompt_tokens + row.completion_tokens) },
      { title: "Spend", right: true, less: true, cell: (row) => (row.cost_usd === null ? "–" : money(row.cost_usd)) },
      { title: "Added", right: true, less: true, cell: (row) => microseconds(row.added_us) },
      { title: "Took", right: true, less: true, cell: (row) => microseconds(row.duration_us) },
    ];
  }

  function rowOf(row) {
    return { class: "link", "data-id": row.id, onclick: () => !String(getSelection()) && detail(row.id) };
  }
}

/** One event in full, in a panel at the side. */
export function detail(id) {
  const body = h("div", { class: "form" }, bones(8));
  dialog("Event", () => body, { panel: true });
  const load = async () => {
    try {
      show(body, whole(await api.get(`/events/${encodeURIComponent(id)}`)));
    } catch (error) {
      show(body, failed(error, load));
    }
  };
  load();
}

export function whole({ event, client, policy_version: version, attributes, bytes_sent: sent, decisions, notes, records }) {
  return [
    h("div", { class: "bar" }, verdictMark(event.verdict), mark(event.outcome, OUTCOMES[event.outcome] || "good"), event.status && mark(`HTTP ${event.status}`), event.code && mark(event.code)),
    timeline(event),
    section("Decisions", decisions.length
      ? steps(decisions)
      : h("p", { class: "soft" }, "No policy of the chain judged this request.")),
    notes.length > 0 && section("Translation notes", h("ul", {}, notes.map((note) => h("li", {}, note)))),
    section("Request", facts([
      ["Time", exactTime(event.at)],
      ["Request id", copyable(event.request_id)],
      ["The client's own id", attributes.client_request_id],
      ["Key", event.key && `${event.key_name || "deleted key"} (${event.key})`],
      ["Team", event.team], ["Configuration", event.configuration], ["Policy version", version && h("code", {}, version.slice(0, 12))],
      ["Operation", event.operation], ["Model", event.model],
      ["Target", event.target && `${event.target}${event.provider ? `, ${event.provider}` : ""}`],
      ["Attempts", event.attempts > 1 ? number(event.attempts) : null],
      ["Client", client],
      ["Tokens", `${number(event.prompt_tokens)} in${event.cached_tokens ? ` (${number(event.cached_tokens)} cached)` : ""}, ${number(event.completion_tokens)} out${event.reasoning_tokens ? ` (${number(event.reasoning_tokens)} reasoning)` : ""}`],
      ["Spend", event.cost_usd === null ? null : money(event.cost_usd)],
      ["Bytes sent", sent === null ? null : number(sent)],
    ])),
    records.length > 0 && h("details", { class: "more" }, h("summary", {}, "Audit records"), records.map((line) => [
      h("p", { class: "faint" }, `${line.segment}, line ${line.sequence}`),
      h("pre", { class: "record", tabindex: "0", role: "region", "aria-label": `Record ${line.sequence}` }, JSON.stringify(line.record, null, 2)),
      h("p", { class: "faint cut" }, "SHA-256 ", h("code", {}, line.hash)),
    ])),
  ];
}

const section = (title, ...inside) => h("section", { class: "form" }, h("h3", {}, title), inside);

const DOTS = { allow: "good", redact: "warn", escalate: "warn", block: "bad" };

/** Decisions, in the order in which they were made. */
export function steps(decisions) {
  return h("ol", { class: "steps" }, decisions.map((one) => h(
    "li", {},
    h("span", { class: `dot ${DOTS[one.verdict] || ""}` }),
    h("span", {}, h("strong", {}, one.policy), h("span", { class: "faint" }, ` ${one.phase}, ${(VERDICTS[one.verdict] || [one.verdict])[0]}`)),
    h("span", { class: "faint number" }, one.microseconds === undefined ? "" : microseconds(one.microseconds)),
    (one.reason || one.detail) && h("span", { class: "under" }, [one.reason, one.detail].filter(Boolean).join(": ")),
  )));
}

/** Where the time went: the gateway, the provider's silence, the answer. */
function timeline(event) {
  const total = event.duration_us;
  if (!total) return null;
  const first = event.first_byte_us ?? total;
  const parts = [
    ["Gateway", Math.min(event.added_us ?? total, total), "series-1"],
    ["Waiting for the provider", event.added_us === null ? 0 : Math.max(0, first - event.added_us), "series-2"],
    ["Answer", event.first_byte_us === null ? 0 : Math.max(0, total - first), "series-3"],
  ].filter(([, length]) => length > 0);
  let at = 0;
  const blocks = parts.map(([, length, look]) => {
    const block = s("rect", { class: `part ${look}`, x: (100 * at) / total, width: Math.max(0.6, (100 * length) / total), height: 6 });
    at += length;
    return block;
  });
  return h("div", {},
    s("svg", { class: "share", viewBox: "0 0 100 6", preserveAspectRatio: "none", "aria-hidden": "true" }, blocks),
    h("ul", { class: "key" }, parts.map(([words, length, look]) => h("li", {}, h("span", { class: `swatch ${look}` }), `${words} ${microseconds(length)}`))));
}
