// Settings → Gateway Keys: list, search, create, rotate, revoke. A key is shown once, with what one needs to use it.

import { all, api, query } from "../lib/api.js";
import { h, put, show } from "../lib/dom.js";
import { ago, compact, date, money, number } from "../lib/format.js";
import { about, button, checkbox, choice, confirm, copyable, dialog, empty, facts, failed, field, filled, form, head, input, linkButton, mark, notice, scrolled, searchField, select, snippet, table, tabs, toast } from "../lib/ui.js";
import { snippets } from "../lib/snippets.js";

const STATES = { active: "good", expired: "", revoked: "bad" };
const LIFETIMES = [["2592000", "30 days"], ["7776000", "90 days"], ["31536000", "1 year"], ["", "Never"]];

export function keysPage(page, context) {
  const address = new URLSearchParams(location.search);
  const wanted = { search: address.get("search") || "", state: address.get("state") || "active", mine: "" };
  const place = h("section", { class: "card", "aria-label": "Gateway keys" });
  const mayCreate = context.may("manage_gateway_keys") || context.may("own_gateway_keys");
  const reads = context.may("read_gateway_keys");
  const reload = () => filled(place, () => api.get(`/gateway-keys${query({ ...wanted, state: wanted.state === "all" ? "" : wanted.state })}`), render);

  show(
    page,
    head(
      "Gateway Keys",
      "A key is what an application sends instead of a provider's. It says which configuration counts, and how much may be used.",
      button("Check a leaked key", { kind: "quiet", icon: "search", onclick: identify }),
      mayCreate && button("Create gateway key", { icon: "plus", kind: "main", onclick: () => create(context, reload) }),
    ),
    h("div", { class: "bar" },
      searchField("Search by name, prefix or owner", wanted.search, (text) => { wanted.search = text; reload(); }),
      choice("State", [["active", "Active"], ["expired", "Expired"], ["revoked", "Revoked"], ["all", "All"]], wanted.state, (state) => { wanted.state = state; reload(); }),
      reads && context.me.user && choice("Whose", [["", "Everybody’s"], ["true", "Mine"]], "", (mine) => { wanted.mine = mine; reload(); })),
    place,
  );
  reload();
  if (address.has("new") && mayCreate) {
    history.replaceState(null, "", "/console/keys");
    create(context, reload);
  }

  function render(found) {
    if (!found.data.length) {
      if (wanted.search || wanted.state !== "active") return empty("search", "No key matches", "Other words or another state may find more.");
      return empty("key", "No gateway keys yet", "Create one, and put it where the provider's key was.",
        mayCreate && button("Create gateway key", { icon: "plus", kind: "main", onclick: () => create(context, reload) }));
    }
    const list = table(columns(), found.data, { caption: "Gateway keys, newest first", row: (key) => ({ class: "link", onclick: () => !String(getSelection()) && detail(key) }) });
    return [scrolled("Gateway keys", list), more(found.next, list)];
  }

  function more(next, list) {
    if (!next) return null;
    const bar = h("div", { class: "more-rows" });
    put(bar, button("Show more", { onclick: async () => {
      const found = await api.get(`/gateway-keys${query({ ...wanted, state: wanted.state === "all" ? "" : wanted.state, cursor: next })}`);
      list.add(found.data);
      bar.replaceWith(more(found.next, list) || "");
    } }));
    return bar;
  }

  function columns() {
    return [
      { title: "Name", cell: (key) => [h("button", { type: "button", class: "row", onclick: (event) => { event.stopPropagation(); detail(key); } }, key.name), h("span", { class: "under mono" }, `${key.prefix}…`)] },
      { title: "State", cell: (key) => mark(key.rotated_to && key.state === "active" ? "being replaced" : key.state, key.rotated_to && key.state === "active" ? "warn" : STATES[key.state]) },
      { title: "Owner", less: true, cell: (key) => [key.owner || h("span", { class: "faint" }, "nobody"), key.team && h("span", { class: "under" }, key.team)] },
      { title: "Configuration", less: true, cell: (key) => key.configuration_id || h("span", { class: "faint" }, "default") },
      { title: "Limits", less: true, cell: (key) => limits(key) || h("span", { class: "faint" }, "none") },
      { title: "Expires", label: "expires", cell: (key) => (key.expires_at ? h("span", { title: date(key.expires_at) }, ago(key.expires_at)) : "never") },
      { title: "Last used", right: true, label: "used", cell: (key) => ago(key.last_used_at) },
    ];
  }

  function detail(key) {
    const mayChange = context.may("manage_gateway_keys") || (context.may("own_gateway_keys") && key.yours);
    dialog(key.name, (close) => [
      facts([
        ["State", mark(key.state, STATES[key.state])],
        ["Prefix", h("code", {}, `${key.prefix}…`)], ["Id", h("code", {}, key.id)],
        ["Owner", key.owner], ["Team", key.team], ["Configuration", key.configuration_id || "the default one"],
        ["Models", key.models ? key.models.join(", ") : "all of the configuration"],
        ["Requests per minute", key.requests_per_minute && number(key.requests_per_minute)],
        ["Tokens per minute", key.tokens_per_minute && number(key.tokens_per_minute)],
        ["At the same time", key.max_concurrency && number(key.max_concurrency)],
        ["Budget per month", key.budget_usd_per_month && money(key.budget_usd_per_month)],
        ["Created", `${date(key.created_at)}${key.created_by ? ` by ${key.created_by}` : ""}`],
        ["Expires", key.expires_at ? `${date(key.expires_at)}, ${ago(key.expires_at)}` : "never"],
        ["Revoked", key.revoked_at && date(key.revoked_at)],
        ["Last used", ago(key.last_used_at)], ["Requests", number(key.request_count)],
      ]),
      h("div", { class: "ending" },
        linkButton("Events", `/console/events?key=${encodeURIComponent(key.id)}`, { icon: "events" }),
        mayChange && key.state === "active" && !key.rotated_to && button("Rotate", { icon: "rotate", onclick: () => { close(); rotate(key, context, reload); } }),
        mayChange && key.state === "active" && button("Revoke", { icon: "ban", kind: "danger", onclick: () => { close(); revoke(key); } }),
        mayChange && key.state !== "active" && button("Delete", { icon: "trash", kind: "danger", onclick: () => { close(); remove(key); } })),
    ]);
  }

  function revoke(key) {
    confirm(`Revoke ${key.name}?`, "Requests with this key are refused within a second, and those under way are ended. This cannot be taken back.", {
      action: "Revoke key",
      onconfirm: async () => {
        const { rollout } = await api.post(`/gateway-keys/${key.id}/revoke`);
        toast(rollout.in_force ? "Revoked; every worker knows" : "Revoked; some workers do not know yet", rollout.in_force ? "check" : "warning");
        reload();
      },
    });
  }

  function remove(key) {
    confirm(`Delete ${key.name}?`, "It disappears from this list. Events keep its id.", {
      action: "Delete key",
      onconfirm: async () => {
        await api.delete(`/gateway-keys/${key.id}`);
        toast("Deleted");
        reload();
      },
    });
  }
}

const limits = (key) => [
  key.requests_per_minute && `${compact(key.requests_per_minute)} req/min`,
  key.tokens_per_minute && `${compact(key.tokens_per_minute)} tok/min`,
  key.budget_usd_per_month && `${money(key.budget_usd_per_month)}/month`,
].filter(Boolean).join(", ");

/** A number out of a field: null where it is empty. */
function numeric(target, name) {
  const text = target.elements[name].value.trim();
  return text === "" ? null : Number(text);
}

async function create(context, done) {
  const [configurations, teams] = await Promise.all([
    api.get("/configurations").then((found) => found.data, () => []), all("/teams").catch(() => []),
  ]);
  const manages = context.may("manage_gateway_keys");
  const name = about("name", field("Name", input({ name: "name", maxlength: 200, autofocus: true, placeholder: "billing-service" }), { hint: "Where it is used. People see it in events and usage.", required: true }));
  const expiry = about("expires_in_seconds", field("Expires after", select(LIFETIMES, "7776000", { name: "expiry" })));
  const configuration = about("configuration_id", field("Configuration",
    select([["", "Default"], ...configurations.map((one) => [one.id, one.default ? `${one.id} (default)` : one.id])], "", { name: "configuration", onchange: () => offer() })));
  const team = about("team", field("Team",
    select([...(manages ? [["", "None"]] : []), ...teams.map((one) => [one.name, one.name])], "", { name: "team" }), { hint: manages ? null : "Its rules bind the key." }));
  const models = h("div", { class: "fields" });
  const modelField = h("fieldset", { class: "field" }, h("legend", {}, "Models"), h("span", { class: "hint" }, "None chosen: all of the configuration."), models);
  const limit = (param, words, hint, step = "1") => about(param, field(words, input({ name: param, type: "number", min: step, step, inputmode: "decimal", placeholder: "No limit" }), { hint }));

  function chosenConfiguration() {
    const id = configuration.querySelector("select").value;
    return configurations.find((one) => one.id === id) || configurations.find((one) => one.default) || configurations[0];
  }

  function offer() {
    show(models, (chosenConfiguration()?.models || []).map((model) => checkbox(model, { name: "model", value: model })));
  }
  offer();

  dialog("Create gateway key", (close) => form([
    name,
    h("div", { class: "fields" }, expiry, configurations.length > 0 && configuration, teams.length > 0 && team),
    expiry, configuration, team,
    h("details", { class: "more" }, h("summary", {}, "Limits"), h("div", { class: "form" },
      h("div", { class: "fields" },
        limit("requests_per_minute", "Requests per minute"), limit("tokens_per_minute", "Tokens per minute"),
        limit("max_concurrency", "Requests at the same time"), limit("budget_usd_per_month", "Budget per month, US$", null, "0.01")),
      modelField)),
  ].filter((one) => ![expiry, configuration, team].includes(one)), {
    submit: "Create key",
    oncancel: close,
    onsubmit: async (target) => {
      const body = { name: target.elements.name.value.trim() };
      const set = (field, value) => { if (value !== null && value !== undefined && value !== "") body[field] = value; };
      set("expires_in_seconds", numeric(target, "expiry"));
      set("configuration_id", target.elements.configuration?.value);
      set("team", target.elements.team?.value);
      for (const field of ["requests_per_minute", "tokens_per_minute", "max_concurrency", "budget_usd_per_month"]) set(field, numeric(target, field));
      const picked = [...target.querySelectorAll("[name=model]:checked")].map((one) => one.value);
      if (picked.length) body.models = picked;
      if (!body.name) throw Object.assign(new Error("Give the key a name."), { param: "name" });
      const made = await api.post("/gateway-keys", body);
      const model = picked[0] || chosenConfiguration()?.models[0] || "gpt-4o";
      close();
      reveal(made, model, context, done);
    },
  }));
}

/** The key, this once, and how to use it. */
function reveal(made, model, context, done, old = null) {
  const base = `${location.origin}/v1`;
  const code = snippets(base, made.key, model);
  dialog(old ? "The new key" : "Your gateway key", (close) => [
    notice("warn", "Copy it now: it is shown this once. Only a hash of it is kept."),
    copyable(made.key, "Copy key", { "data-key": true }),
    !made.rollout.in_force && notice("warn", "Some workers do not know it yet; give them a moment."),
    old && h("p", { class: "soft" }, `The old key, ${old.prefix}…, goes on until ${date(old.expires_at)}.`),
    h("h3", {}, "Use it"),
    tabs("Examples", code.map(([name, words, text]) => [name, words, snippet(text, `${words} example`)])),
    h("div", { class: "ending" },
      button("Try in the playground", { icon: "play", onclick: () => { close(); context.playground = { key: made.key, model }; context.go("/playground"); } }),
      button("Done", { kind: "main", onclick: close })),
  ], { broad: true, onclose: done });
}

function rotate(key, context, done) {
  const overlap = field("The old key goes on for", select([["0", "not at all"], ["3600", "1 hour"], ["86400", "24 hours"], ["604800", "7 days"]], "86400", { name: "overlap" }), { hint: "So that applications can be moved over one after the other." });
  dialog(`Rotate ${key.name}`, (close) => form([
    h("p", { class: "soft" }, "A new key with the same name, limits and configuration takes its place."), overlap,
  ], {
    submit: "Rotate key",
    oncancel: close,
    onsubmit: async (target) => {
      const made = await api.post(`/gateway-keys/${key.id}/rotate`, { overlap_seconds: Number(target.elements.overlap.value) });
      close();
      reveal(made, key.models?.[0] || "gpt-4o", context, done, made.old);
    },
  }));
}

function identify() {
  const place = h("div");
  dialog("Check a leaked key", () => form([
    h("p", { class: "soft" }, "Paste a key, or the text in which one was found: a log, a commit, a message."),
    field("Text", h("textarea", { class: "input mono", name: "text", maxlength: 20000, autofocus: true, spellcheck: "false", autocomplete: "off" })),
    place,
  ], {
    submit: "Check",
    onsubmit: async (target) => {
      try {
        const { data } = await api.post("/identify-keys", { text: target.elements.text.value });
        show(place, data.length
          ? data.map((one) => one.known
            ? notice("warn", h("code", {}, `${one.prefix}…`), one.gateway_key ? ` is ${one.gateway_key.name}${one.gateway_key.owner ? ` of ${one.gateway_key.owner}` : ""}, and ${one.gateway_key.state}.` : " is an access key in use.", one.gateway_key && h("p", {}, h("a", { href: `/console/keys?state=all&search=${encodeURIComponent(one.gateway_key.id)}` }, "Find it in the list")))
            : notice("note", h("code", {}, `${one.prefix}…`), " is a whole key that this gateway does not know."))
          : notice("note", "There is no key in this text, or none that was copied whole."));
      } catch (error) {
        show(place, failed(error));
      }
    },
  }));
}

