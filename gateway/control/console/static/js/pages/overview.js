// Overview: how much, how fast, how much was stopped, what it cost; kept up to date by the live stream.

import { api, query } from "../lib/api.js";
import { h, show } from "../lib/dom.js";
import { compact, duration, money, number, percent, plural } from "../lib/format.js";
import { watch } from "../lib/live.js";
import { gridOf, keyOf, plot, share } from "../lib/plot.js";
import { kept, keep } from "../lib/store.js";
import { card, choice, empty, filled, head, linkButton, notice, scrolled, status, table } from "../lib/ui.js";

const RANGES = [["1h", "1 h"], ["6h", "6 h"], ["24h", "24 h"], ["7d", "7 days"], ["30d", "30 days"]];
const SPANS = { "1h": "hour", "6h": "6 hours", "24h": "24 hours", "7d": "7 days", "30d": "30 days" };
const OUTCOMES = [
  { name: "completed", words: "Completed", look: "series-1" },
  { name: "refused", words: "Refused", look: "series-warn" },
  { name: "failed", words: "Failed", look: "series-bad" },
  { name: "cancelled", words: "Left by the client", look: "series-8" },
];

export function overviewPage(page, context) {
  let range = kept("range", "24h");
  let live = status("Connecting");
  const body = h("div", { class: "page" });
  const liveness = h("span", {}, live);
  let behind = false;
  const load = async () => {
    const data = await api.get(`/overview${query({ range })}`);
    behind = data.index.behind;
    return data;
  };

  async function refresh() {
    try {
      const data = await load();
      if (body.isConnected && !body.querySelector(".tip:not([hidden])")) show(body, render(data, range, context));
    } catch {
      // The next one may work; what is shown stays.
    }
  }

  const reload = () => filled(body, load, (data) => render(data, range, context), { lines: 8 });

  show(page, head("Overview", null, liveness, choice("Time", RANGES, range, (chosen) => {
    range = chosen;
    keep("range", chosen);
    reload();
  })), body);
  reload();
  const catchingUp = setInterval(() => behind && refresh(), 1500);
  context.leaving.push(() => clearInterval(catchingUp));

  // Figures are asked for again a moment after something has happened, at most every two seconds.
  let due = null;
  context.leaving.push(watch({}, {
    onevent: () => {
      due ||= setTimeout(() => {
        due = null;
        refresh();
      }, 2000);
    },
    onstate: (open) => {
      show(liveness, status(open ? "Live" : "Connecting", open ? "live" : ""));
    },
  }));
  context.leaving.push(() => clearTimeout(due));
}

function change(now, before) {
  if (!before) return now ? "none in the time before" : "";
  const share = Math.round((100 * Math.abs(now - before)) / before);
  if (share === 0) return "as many as before";
  if (share >= 1000) return "ten times as many as before, or more";
  return `${share} % ${now > before ? "more" : "fewer"} than before`;
}

const figure = (name, value, under) =>
  h("div", { class: "figure" }, h("dt", {}, name), h("dd", {}, value), h("dd", { class: "under" }, under));

function render(data, range, context) {
  const { total, before, latency } = data;
  if (!total.requests && !before.requests) return [alarms(data), nothing(context)];
  const added = latency.added;
  const grid = gridOf({ ...data, points: data.points.flatMap((point) => OUTCOMES.map((one) => ({ at: point.at, name: one.name, value: point[one.name] }))) },
    OUTCOMES.map((one) => one.name), "value");
  const shown = OUTCOMES.filter((one, index) => index === 0 || total[one.name] > 0);
  return [
    alarms(data),
    h("dl", { class: "figures" },
      figure("Requests", compact(total.requests), change(total.requests, before.requests)),
      figure("Added latency, median", duration(added.p50_ms), `99 % under ${duration(added.p99_ms)}`),
      figure("Blocked", compact(total.blocked), `${percent(total.blocked, total.requests)} of requests; ${number(total.redacted)} redacted`),
      figure("Spend", money(total.cost_usd), `${compact(total.prompt_tokens + total.completion_tokens)} tokens`)),
    card("Requests", h("div", { class: "body" },
      plot({
        grid, series: shown, format: compact, height: 220,
        label: `Requests in the last ${SPANS[range]}: ${plural(total.requests, "request")}, ${total.refused} refused, ${total.failed} failed`,
      }),
      keyOf(shown))),
    h("div", { class: "columns even" },
      card("Models", ranking(data.models, total, "Models by requests"), linkButton("Usage", "/console/usage", { kind: "quiet", small: true, icon: "right" })),
      card("Keys", ranking(data.keys, total, "Keys by requests", true), linkButton("All keys", "/console/keys", { kind: "quiet", small: true, icon: "right" }))),
    data.policies.length > 0 && card("Policies", policies(data.policies)),
  ];
}

function alarms(data) {
  return [
    data.index.fault && notice("bad", "Events cannot be indexed right now, so these figures are not up to date. The gateway's log says why; traffic is not touched."),
    data.index.behind && !data.index.fault && notice("note", "The audit log is still being read; figures may be behind."),
    data.index.records_missing > 0 && notice("warn", `The audit log has ${plural(data.index.records_missing, "gap")}: records are missing there. `, h("a", { href: "/console/audit" }, "See the audit log")),
  ];
}

function nothing(context) {
  return h("section", { class: "card" }, empty(
    "overview", "No requests yet",
    "Make a gateway key, and send a request with it: any OpenAI SDK does, with this gateway as its base URL. Requests show up here, under configurations that have audit-logger in their chain.",
    context.may("own_gateway_keys") || context.may("manage_gateway_keys")
      ? linkButton("Create a gateway key", "/console/keys?new", { icon: "plus", kind: "main" }) : null,
  ));
}

function ranking(rows, total, label, isKey = false) {
  if (!rows.length) return empty("usage", "Nothing yet");
  return scrolled(label, table([
    { title: isKey ? "Key" : "Model", cell: (row) => row.name ? h("a", { href: `/console/events?${new URLSearchParams({ [isKey ? "key" : "model"]: row.name })}` }, row.label) : h("span", { class: "faint" }, isKey ? "without a key" : "unknown") },
    { title: "Share", less: true, cell: (row) => share(row.requests, total.requests) },
    { title: "Requests", right: true, cell: (row) => compact(row.requests) },
    { title: "Tokens", right: true, less: true, cell: (row) => compact(row.prompt_tokens + row.completion_tokens) },
    { title: "Spend", right: true, less: true, cell: (row) => money(row.cost_usd) },
  ], rows, { caption: label, dense: true }));
}

function policies(rows) {
  return scrolled("Verdicts of policies", table([
    { title: "Policy", cell: (row) => h("a", { href: `/console/events?${new URLSearchParams({ policy: row.policy })}` }, row.policy) },
    { title: "Allowed", right: true, label: "allowed", cell: (row) => compact(row.allow) },
    { title: "Redacted", right: true, label: "redacted", cell: (row) => compact(row.redact) },
    { title: "Escalated", right: true, less: true, cell: (row) => compact(row.escalate) },
    { title: "Blocked", right: true, label: "blocked", cell: (row) => compact(row.block) },
  ], rows, { caption: "Verdicts of policies", dense: true }));
}
