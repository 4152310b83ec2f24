// Settings → Configurations: edit with the checks of the gateway itself, versions, compare, roll back, and how far a
// change has come.

import { all, api } from "../lib/api.js";
import { h, show } from "../lib/dom.js";
import { difference } from "../lib/diff.js";
import { editor } from "../lib/editor.js";
import { ago, time } from "../lib/format.js";
import { icon } from "../lib/icons.js";
import { button, card, confirm, dialog, empty, field, filled, form, head, input, mark, notice, scrolled, status, table, toast } from "../lib/ui.js";

export function configurationsPage(page, context) {
  const place = h("section", { class: "card", "aria-label": "Configurations" });
  show(page, head("Configurations", "What a key is bound to: targets, policies and their settings. A configuration comes from a file, or from here; what is changed here is kept with all its versions."), place);
  filled(place, () => api.get("/configurations"), ({ data, error }) => [
    error && notice("bad", "A newer state of the files is not in force: ", error),
    data.length ? scrolled("Configurations", table([
      { title: "Configuration", wide: true, cell: (one) => [h("a", { href: `/console/configurations/${encodeURIComponent(one.id)}` }, one.id), one.default && [" ", mark("default", "note")]] },
      { title: "From", label: "from", cell: (one) => (one.source === "file" ? "a file" : `here, version ${one.number}`) },
      { title: "Models", less: true, cell: (one) => summary(one.models) },
      { title: "Policies", less: true, cell: (one) => summary(one.policies) },
      { title: "State", right: true, cell: (one) => status(one.in_force ? "in force" : "on its way", one.in_force ? "good" : "warn") },
    ], data, { caption: "Configurations", row: (one) => ({ class: "link", onclick: (event) => !event.target.closest("a") && context.go(`/configurations/${encodeURIComponent(one.id)}`) }) }))
      : empty("configuration", "No configuration is in force yet"),
  ]);
}

const summary = (names) => (names.length > 3 ? `${names.slice(0, 3).join(", ")} and ${names.length - 3} more` : names.join(", ") || "none");

export function configurationPage(page, context, id) {
  const manages = context.may("manage_configurations");
  const path = `/configurations/${encodeURIComponent(id)}`;
  filled(page, () => api.get(path), render, { lines: 10 });
  return;

  function render({ configuration, text }) {
    let base = text;
    let number = configuration.number;
    const match = () => ({ "If-Match": `"${number}"` });
    const findings = h("div", { role: "status" }, h("span", { class: "soft" }, "Being checked."));
    const versions = h("div");
    const state = h("span", {}, inForce(configuration));
    const origin = h("span", {}, originOf(configuration));
    const giveBack = button("Give back to the file", { kind: "quiet", hidden: configuration.source === "file", onclick: release });
    const area = editor(text, { label: `Text of ${id}`, readonly: !manages, oninput: check });
    const save = button("Save and bring into force", { kind: "main", disabled: true, onclick: ask });
    const compare = button("Compare", { disabled: true, onclick: () => dialog("What would change", () => difference(base, area.text), { broad: true }) });
    const discard = button("Discard", { kind: "quiet", disabled: true, onclick: () => { area.text = base; check(); } });
    let latest = 0;
    const leave = (event) => area.text !== base && event.preventDefault();
    addEventListener("beforeunload", leave);
    context.leaving.push(() => removeEventListener("beforeunload", leave));
    check();
    loadVersions();

    return [
      head(id, h("span", {}, origin, " ", state), manages && giveBack),
      h("div", { class: "columns" },
        h("div", { class: "form" }, area, manages && h("div", { class: "bar" }, save, compare, discard, h("span", { class: "faint grow" }, "Esc, then Tab leaves the editor"))),
        h("div", { class: "form" }, card("Checks", h("div", { class: "body" }, findings)), card("Versions", versions))),
    ];

    async function check() {
      const own = (latest += 1);
      const changed = area.text !== base;
      compare.disabled = discard.disabled = !changed;
      save.disabled = true;
      try {
        const found = await api.post("/check-configuration", { text: area.text });
        if (own !== latest) return;
        area.mark(found.problems);
        save.disabled = !(changed && found.valid);
        show(findings, found.problems.length ? listOf(found.problems) : status("Nothing is wrong with it", "good"));
      } catch (error) {
        if (own === latest) show(findings, notice("bad", error.message));
      }
    }

    function listOf(problems) {
      return h("ul", { class: "problems" }, problems.map((one) => h("li", { class: one.severity === "error" ? "wrong" : "doubtful" },
        h("button", { type: "button", onclick: () => one.line && area.go(one.line) },
          icon("warning"),
          h("span", { class: "faint number" }, h("span", { class: "unseen" }, `${one.severity}, `), one.line ? `line ${one.line}` : "whole"),
          h("span", {}, one.path && [h("code", {}, one.path), " "], worded(one.message), one.hint && h("span", { class: "faint" }, " ", worded(one.hint)))))));
    }

    function ask() {
      dialog("Bring this into force?", (close) => form([
        h("p", { class: "soft" }, "Every worker compiles it; when all can, all take it, and requests in flight finish under the old one."),
        difference(base, area.text),
        field("Note", input({ name: "note", maxlength: 2000, placeholder: "Why" })),
      ], {
        submit: "Bring into force", oncancel: close,
        onsubmit: async (target) => {
          const wanted = area.text;
          let now;
          try {
            now = await api.put(path, { text: wanted, note: target.elements.note.value }, match());
          } catch (error) {
            if (error.problems.length) {
              area.mark(error.problems);
              show(findings, listOf(error.problems));
            }
            if (error.status === 412) error.message = "Somebody else has changed it meanwhile. Copy your text, load the page again, and compare.";
            throw error;
          }
          close();
          settled(now, wanted);
        },
      }), { broad: true });
    }

    function settled(now, wanted) {
      base = wanted;
      area.text = wanted;
      number = now.number;
      giveBack.hidden = false;
      show(origin, originOf(now));
      show(state, inForce(now));
      toast(now.in_force ? "In force in every worker" : "Saved; the workers take it in a moment");
      check();
      loadVersions();
      if (!now.in_force) rollout(20);
    }

    async function rollout(tries) {
      if (!tries || !state.isConnected) return;
      const { data } = await api.get("/configurations").catch(() => ({ data: [] }));
      const now = data.find((one) => one.id === id);
      if (now) show(state, inForce(now));
      if (!now?.in_force) setTimeout(() => rollout(tries - 1), 500);
    }

    function loadVersions() {
      return filled(versions, () => all(`${path}/versions`), (rows) => (rows.length
        ? scrolled("Versions", table([
          { title: "Version", wide: true, cell: (one) => [`${one.number}`, one.in_force && [" ", mark("in force", "good")], h("span", { class: "under" }, [one.note, one.author].filter(Boolean).join(", by "))] },
          { title: "When", label: "", cell: (one) => h("span", { title: time(one.created_at) }, ago(one.created_at)) },
          { title: "", tight: true, cell: (one) => h("div", { class: "actions" },
            button("Compare", { small: true, kind: "quiet", onclick: () => against(one) }),
            manages && !one.in_force && button("Roll back", { small: true, icon: "rotate", onclick: () => rollBack(one) })) },
        ], rows, { caption: "Versions, newest first", dense: true }))
        : empty("changes", "No versions yet", "The first change that is saved here makes one.")), { lines: 2 });
    }

    async function against(one) {
      const place = h("div");
      dialog(`Version ${one.number} and the text in the editor`, () => place, { broad: true });
      filled(place, () => api.get(`${path}/versions/${one.number}`), (found) => difference(found.text, area.text), { lines: 6 });
    }

    function rollBack(one) {
      confirm(`Roll back to version ${one.number}?`, `It was made ${ago(one.created_at)} by ${one.author}. What is in the editor is replaced.`, {
        action: "Roll back",
        onconfirm: async () => {
          const now = await api.post(`${path}/roll-back`, { number: one.number }, match());
          const found = await api.get(`${path}/versions/${one.number}`);
          settled(now, found.text);
        },
      });
    }

    function release() {
      confirm("Give it back to its file?", "The file counts again, from now on. The versions stay, and can be rolled back to.", {
        action: "Give back",
        onconfirm: async () => {
          await api.delete(path, match());
          toast("The file counts again");
          show(page);
          filled(page, () => api.get(path), render, { lines: 10 });
        },
      });
    }
  }
}

/** What stands between backticks, as code. */
const worded = (text) => text.split("`").map((part, index) => (index % 2 ? h("code", {}, part) : part));

const originOf = (one) => (one.source === "file"
  ? "From a file. What is saved here takes its place, and the file can be given back its say."
  : `Kept here, version ${one.number}.`);

const inForce = (one) => status(one.in_force ? "in force in every worker" : "on its way to the workers", one.in_force ? "good" : "warn");
