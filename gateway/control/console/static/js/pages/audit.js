// Audit: whether the log is whole, what it consists of, and who changed what in the gateway.

import { api, query } from "../lib/api.js";
import { h, put, show } from "../lib/dom.js";
import { ago, number, plural, time } from "../lib/format.js";
import { icon } from "../lib/icons.js";
import { button, card, dialog, empty, facts, failed, filled, head, notice, scrolled, table } from "../lib/ui.js";

export function auditPage(page, context) {
  const reads = context.may("read_events");
  const verdict = h("div", { role: "status" });
  const log = h("div", { class: "form" });
  const changes = h("div");
  const verifying = button("Verify the log", { icon: "audit", kind: "main", onclick: verify });
  show(
    page,
    head("Audit log", "Each exchange leaves two records, chained by SHA-256. A record that was altered, removed or moved is found, and its place is named.", reads && verifying),
    verdict,
    reads && card("The log", h("div", { class: "body" }, log)),
    context.may("read_changes") && card("Who changed what", changes),
  );
  if (reads) filled(log, () => api.get("/audit"), shape, { lines: 3 });
  if (context.may("read_changes")) filled(changes, () => api.get("/changes?limit=50"), list, { lines: 5 });

  async function verify() {
    verifying.disabled = true;
    show(verdict, notice("note", "Every record is being read and hashed."));
    const begun = performance.now();
    try {
      const report = await api.post("/audit/verify");
      const took = ((performance.now() - begun) / 1000).toFixed(1);
      show(verdict, report.whole
        ? notice("good", h("strong", {}, "The log is whole. "), `${plural(report.records, "record")} in ${plural(report.segments, "segment")}${report.signed === null ? ", without signed checkpoints to compare with" : `, ${number(report.signed)} under signed checkpoints`}, read in ${took} s.`)
        : notice("bad", h("strong", {}, "The log is not whole. "), `${plural(report.faults.length, "place")}:`, h("ul", {}, report.faults.map((one) => h("li", {}, `${one.fault}: ${one.file}${one.line === null ? "" : `, line ${one.line}`}. ${one.message}`)))));
    } catch (error) {
      show(verdict, failed(error, verify));
    } finally {
      verifying.disabled = false;
    }
  }

  function shape(told) {
    if (!told.segments) return h("p", { class: "soft" }, "There is no log yet. It begins with the first request under a configuration with audit-logger.");
    return [
      told.gaps.length > 0 && notice("warn", `${plural(told.gaps.length, "gap")}: `, told.gaps.slice(0, 3).map((gap) => `${time(gap.at)}, ${gap.reason.replaceAll("_", " ")}${gap.records === null ? "" : `, ${plural(gap.records, "record")}`}`).join("; ")),
      facts([
        ["Segments", `${number(told.segments)}, of which ${number(told.open)} open`],
        ["Writers", number(told.writers)],
        ["On disk", `${(told.bytes / 1e6).toLocaleString(undefined, { maximumFractionDigits: 1 })} MB`],
        ["Since", told.since],
        ["Checkpoints", told.checkpoints ? number(told.checkpoints) : "none yet"],
        ["Public key", told.key && h("code", {}, told.key)],
      ]),
      h("p", { class: "faint" }, "Checkpoints prove the past only where they, and the public key, are kept elsewhere too: ", h("code", {}, "kt audit verify --public-key"), "."),
    ];
  }

  function list({ data, next }) {
    if (!data.length) return empty("changes", "No changes yet");
    const rows = table([
      { title: "When", cell: (one) => h("button", { type: "button", class: "row", title: time(one.at), onclick: (event) => { event.stopPropagation(); detail(one); } }, ago(one.at)) },
      { title: "Who", cell: (one) => [one.actor, h("span", { class: "under" }, one.via.replaceAll("_", " "))] },
      { title: "What", wide: true, cell: (one) => h("code", {}, one.action) },
      { title: "Which", wide: true, cell: (one) => one.object_name || one.object_id },
    ], data, { caption: "Changes, newest first", dense: true, row: (one) => ({ class: "link", onclick: () => !String(getSelection()) && detail(one) }) });
    return [scrolled("Changes", rows), more(next, rows)];
  }

  function more(next, rows) {
    if (!next) return null;
    const bar = h("div", { class: "more-rows" });
    put(bar, button("Show more", { onclick: async () => {
      const found = await api.get(`/changes${query({ limit: 50, cursor: next })}`);
      rows.add(found.data);
      bar.replaceWith(more(found.next, rows) || "");
    } }));
    return bar;
  }

  function detail(one) {
    const names = [...new Set([...Object.keys(one.before), ...Object.keys(one.after)])];
    const shown = (value) => (value === undefined || value === null ? h("span", { class: "faint" }, "–") : typeof value === "object" ? JSON.stringify(value) : String(value));
    dialog(one.action, () => [
      facts([["When", time(one.at)], ["Who", `${one.actor}, ${one.via.replaceAll("_", " ")}`], ["From", one.client], ["Which", `${one.object_name} (${one.object_id})`], ["Request id", one.request_id && h("code", {}, one.request_id)]]),
      names.length > 0 && scrolled("Before and after", table([
        { title: "Field", cell: (name) => name },
        { title: "Before", cell: (name) => shown(one.before[name]) },
        { title: "After", cell: (name) => shown(one.after[name]) },
      ], names, { caption: "Before and after", dense: true })),
    ], { broad: true });
  }
}
