// Usage: requests, tokens and money over time, told apart by key, team, model and so on; as CSV too.

import { api, query } from "../lib/api.js";
import { h, show } from "../lib/dom.js";
import { compact, money, number, percent } from "../lib/format.js";
import { gridOf, keyOf, plot, share } from "../lib/plot.js";
import { kept, keep } from "../lib/store.js";
import { card, choice, empty, filled, head, linkButton, scrolled, select, table } from "../lib/ui.js";

const SPANS = [["1", "24 h"], ["7", "7 days"], ["30", "30 days"], ["90", "90 days"], ["365", "1 year"]];
const GROUPS = [["model", "Model"], ["key", "Key"], ["team", "Team"], ["provider", "Provider"], ["target", "Target"], ["configuration", "Configuration"], ["status", "Status"]];
const MEASURES = [["requests", "Requests"], ["tokens", "Tokens"], ["cost_usd", "Spend"], ["blocked", "Blocked"]];
const tokens = (row) => row.prompt_tokens + row.completion_tokens;
const valueOf = { requests: (row) => row.requests, tokens, cost_usd: (row) => row.cost_usd, blocked: (row) => row.blocked };

export function usagePage(page) {
  let days = kept("usage-days", "30");
  let by = kept("usage-by", "model");
  let measure = kept("usage-measure", "requests");
  let data = null;
  const body = h("div", { class: "page" });
  const download = h("span", {});

  const parameters = () => {
    const until = new Date();
    return { since: new Date(until - Number(days) * 86400000).toISOString(), until: until.toISOString(), by };
  };
  const load = async () => {
    const asked = parameters();
    show(download, linkButton("CSV", `/api/v1/usage${query({ ...asked, format: "csv" })}`, { icon: "download" }));
    download.firstChild.setAttribute("download", "usage.csv");
    data = await api.get(`/usage${query(asked)}`);
    return data;
  };
  const reload = () => filled(body, load, () => render(data, by, measure), { lines: 8 });

  show(
    page,
    head("Usage", "What was asked for, and what it cost, from the audit log.", download),
    h("div", { class: "bar" },
      choice("Time", SPANS, days, (chosen) => { days = chosen; keep("usage-days", chosen); reload(); }),
      choice("Figure", MEASURES, measure, (chosen) => { measure = chosen; keep("usage-measure", chosen); if (data) show(body, render(data, by, measure)); }),
      select(GROUPS.map(([value, words]) => [value, `By ${words.toLowerCase()}`]), by, {
        "aria-label": "Group by", onchange: (event) => { by = event.target.value; keep("usage-by", by); reload(); },
      })),
    body,
  );
  reload();
}

function render(data, by, measure) {
  const words = Object.fromEntries(GROUPS)[by];
  if (!data.total.requests) {
    return h("section", { class: "card" }, empty("usage", "No usage in this time", "Requests count here under configurations that have audit-logger in their chain."));
  }
  const value = valueOf[measure];
  const format = measure === "cost_usd" ? money : compact;
  const groups = [...data.groups].sort((one, other) => (one.name === null) - (other.name === null) || value(other) - value(one));
  const series = groups.map((group, index) => ({
    name: group.name, words: nameOf(group, by), look: group.name === null ? "series-8" : `series-${(index % 7) + 1}`,
  }));
  const grid = gridOf(data, series.map((one) => one.name), value);
  const all = value({ ...data.total });
  return [
    card(Object.fromEntries(MEASURES)[measure], h("div", { class: "body" },
      plot({
        grid, series, height: 240,
        format: (one, tick) => (measure === "cost_usd" && tick ? `$${compact(one)}` : format(one)),
        label: `${Object.fromEntries(MEASURES)[measure]} by ${words.toLowerCase()}: ${format(all)} altogether`,
      }),
      keyOf(series)), h("strong", { class: "number" }, `${format(all)} altogether`)),
    h("section", { class: "card", "aria-label": `Usage by ${words.toLowerCase()}` }, scrolled(`Usage by ${words.toLowerCase()}`, table([
      { title: words, wide: true, cell: (row) => h("span", { class: "swatched" }, h("span", { class: `swatch ${series[groups.indexOf(row)].look}` }), nameOf(row, by)) },
      { title: "Share", less: true, cell: (row) => share(value(row), all, series[groups.indexOf(row)].look) },
      { title: "Requests", right: true, label: "requests", cell: (row) => number(row.requests) },
      { title: "Failed", right: true, less: true, cell: (row) => percent(row.failed, row.requests) },
      { title: "Blocked", right: true, less: true, cell: (row) => number(row.blocked) },
      { title: "Tokens in", right: true, less: true, cell: (row) => compact(row.prompt_tokens) },
      { title: "Tokens out", right: true, less: true, cell: (row) => compact(row.completion_tokens) },
      { title: "Spend", right: true, label: "spend", cell: (row) => money(row.cost_usd) },
    ], groups, { caption: `Usage by ${words.toLowerCase()}` }))),
  ];
}

function nameOf(group, by) {
  if (group.name === null) return "All others";
  if (group.name) return group.label || group.name;
  return { key: "without a key", team: "without a team", model: "unknown model", status: "no status" }[by] || "none";
}
