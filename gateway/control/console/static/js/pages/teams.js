// Settings → Teams: who is in them, and what keys their members may make.

import { all, api, query } from "../lib/api.js";
import { h, show } from "../lib/dom.js";
import { compact, money, number, plural, span } from "../lib/format.js";
import { about, button, card, checkbox, confirm, dialog, empty, facts, field, filled, form, head, input, linkButton, scrolled, searchField, select, table, toast } from "../lib/ui.js";

const LIFETIMES = [["", "Any"], ["2592000", "30 days"], ["7776000", "90 days"], ["31536000", "1 year"]];

export function teamsPage(page, context) {
  const manages = context.may("manage_teams");
  const place = h("section", { class: "card", "aria-label": "Teams" });
  let search = "";
  const reload = () => filled(place, () => api.get(`/teams${query({ search, limit: 200 })}`), render);
  const add = () => edit(null, (team) => context.go(`/teams/${team.id}`));
  show(
    page,
    head("Teams", "A team says what keys its members may make for themselves: models, limits, how long they last.",
      manages && button("Create team", { icon: "plus", kind: "main", onclick: add })),
    h("div", { class: "bar" }, searchField("Search teams", "", (text) => { search = text; reload(); })),
    place,
  );
  reload();

  function render({ data }) {
    if (!data.length) {
      return search ? empty("search", "No team matches")
        : empty("teams", "No teams yet", manages ? "Create one, put people into it, and they can make their own keys." : "You are in no team yet; ask an admin to put you into one.",
          manages && button("Create team", { icon: "plus", kind: "main", onclick: add }));
    }
    return scrolled("Teams", table([
      { title: "Team", wide: true, cell: (team) => [h("a", { href: `/console/teams/${team.id}` }, team.name), team.description && h("span", { class: "under" }, team.description)] },
      { title: "Members", right: true, label: "members", cell: (team) => number(team.members) },
      { title: "Keys", right: true, label: "keys", cell: (team) => number(team.keys) },
      { title: "A member's key has at most", less: true, cell: (team) => rules(team.key_rules) || h("span", { class: "faint" }, "no rules") },
    ], data, { caption: "Teams", row: (team) => ({ class: "link", onclick: (event) => !event.target.closest("a") && context.go(`/teams/${team.id}`) }) }));
  }
}

const rules = (one) => [
  one.requests_per_minute && `${compact(one.requests_per_minute)} req/min`,
  one.tokens_per_minute && `${compact(one.tokens_per_minute)} tok/min`,
  one.budget_usd_per_month && `${money(one.budget_usd_per_month)}/month`,
  one.expires_in_seconds && span(one.expires_in_seconds),
  one.models && plural(one.models.length, "model"),
].filter(Boolean).join(", ");

export function teamPage(page, context, id) {
  const manages = context.may("manage_teams");
  const reload = () => filled(page, async () => {
    const [team, members] = await Promise.all([api.get(`/teams/${encodeURIComponent(id)}`), all(`/teams/${encodeURIComponent(id)}/members`)]);
    return { team, members };
  }, render, { lines: 7 });
  reload();

  function render({ team, members }) {
    const one = team.key_rules;
    return [
      head(team.name, team.description || null,
        linkButton("Keys", `/console/keys?state=all&search=${encodeURIComponent(team.name)}`, { icon: "key" }),
        manages && button("Edit", { icon: "edit", onclick: () => edit(team, reload) }),
        manages && button("Delete", { icon: "trash", kind: "quiet bad", onclick: () => remove(team) })),
      h("div", { class: "columns" },
        card("Members", members.length
          ? scrolled("Members", table([
            { title: "Name", cell: (user) => [user.name, h("span", { class: "under" }, user.email)] },
            { title: "Role", cell: (user) => user.role },
            { title: "", tight: true, cell: (user) => manages && button(`Take ${user.name} out`, { icon: "close", kind: "quiet bad", small: true, only: true, onclick: () => take(team, user) }) },
          ], members, { caption: "Members" }))
          : empty("users", "Nobody yet", manages ? "Put people in, and they can make keys within the team's rules." : null),
        manages && button("Add member", { icon: "plus", small: true, onclick: () => put(team, members) })),
        card("A member's key has at most", h("div", { class: "body" }, rules(one) || one.configurations
          ? facts([
            ["Models", one.models?.join(", ")], ["Configurations", one.configurations?.join(", ")],
            ["Requests per minute", one.requests_per_minute && number(one.requests_per_minute)],
            ["Tokens per minute", one.tokens_per_minute && number(one.tokens_per_minute)],
            ["At the same time", one.max_concurrency && number(one.max_concurrency)],
            ["Budget per month", one.budget_usd_per_month && money(one.budget_usd_per_month)],
            ["Lifetime", one.expires_in_seconds && span(one.expires_in_seconds)],
          ])
          : h("p", { class: "soft" }, "No rules: members make keys as they like.")))),
    ];
  }

  async function put(team, members) {
    const users = (await all("/users")).filter((user) => !members.some((one) => one.id === user.id));
    dialog(`Add to ${team.name}`, (close) => users.length ? form([
      field("User", select(users.map((user) => [user.id, `${user.name} (${user.email})`]), users[0].id, { name: "user" })),
    ], {
      submit: "Add", oncancel: close,
      onsubmit: async (target) => {
        await api.put(`/teams/${team.id}/members/${target.elements.user.value}`);
        close();
        reload();
      },
    }) : h("p", { class: "soft" }, "Everybody is in it already."));
  }

  function take(team, user) {
    confirm(`Take ${user.name} out of ${team.name}?`, "Their keys stay as they are; they cannot make new ones in this team.", {
      action: "Take out",
      onconfirm: async () => {
        await api.delete(`/teams/${team.id}/members/${user.id}`);
        reload();
      },
    });
  }

  function remove(team) {
    confirm(`Delete ${team.name}?`, "Only a team without keys can be deleted.", {
      action: "Delete team",
      onconfirm: async () => {
        await api.delete(`/teams/${team.id}`);
        toast("Deleted");
        context.go("/teams");
      },
    });
  }
}

async function edit(team, done) {
  const configurations = await api.get("/configurations").then((found) => found.data, () => []);
  const known = [...new Set(configurations.flatMap((one) => one.models))].sort();
  const one = team?.key_rules || {};
  const limit = (param, words, step = "1") => about(`key_rules.${param}`, field(words, input({ name: param, type: "number", min: step, step, value: one[param] ?? "", placeholder: "No limit" })));
  const boxes = (name, values, chosen) => h("div", { class: "fields" }, values.map((value) => checkbox(value, { name, value, checked: chosen?.includes(value) || false })));
  const picked = (target, name) => {
    const values = [...target.querySelectorAll(`[name=${name}]:checked`)].map((box) => box.value);
    return values.length ? values : null;
  };
  dialog(team ? `Edit ${team.name}` : "Create team", (close) => form([
    about("name", field("Name", input({ name: "name", maxlength: 200, value: team?.name || "", autofocus: true }), { required: true })),
    about("description", field("Description", input({ name: "description", maxlength: 2000, value: team?.description || "" }))),
    h("h3", {}, "A member's key has at most"),
    h("div", { class: "fields" },
      limit("requests_per_minute", "Requests per minute"), limit("tokens_per_minute", "Tokens per minute"),
      limit("max_concurrency", "Requests at the same time"), limit("budget_usd_per_month", "Budget per month, US$", "0.01"),
      field("Lifetime", select(LIFETIMES, String(one.expires_in_seconds ?? ""), { name: "lifetime" }))),
    known.length > 0 && h("fieldset", { class: "field" }, h("legend", {}, "Models"), h("span", { class: "hint" }, "None chosen: all."), boxes("model", known, one.models)),
    configurations.length > 1 && h("fieldset", { class: "field" }, h("legend", {}, "Configurations"), h("span", { class: "hint" }, "None chosen: all."), boxes("configuration", configurations.map((each) => each.id), one.configurations)),
  ].filter(Boolean), {
    submit: team ? "Save" : "Create team",
    oncancel: close,
    onsubmit: async (target) => {
      const value = (name) => (target.elements[name].value.trim() === "" ? null : Number(target.elements[name].value));
      const rules = {
        models: picked(target, "model"), configurations: picked(target, "configuration"),
        requests_per_minute: value("requests_per_minute"), tokens_per_minute: value("tokens_per_minute"),
        max_concurrency: value("max_concurrency"), budget_usd_per_month: value("budget_usd_per_month"),
        expires_in_seconds: value("lifetime"),
      };
      const body = { name: target.elements.name.value.trim(), description: target.elements.description.value, key_rules: rules };
      const saved = team ? await api.patch(`/teams/${team.id}`, body) : await api.post("/teams", body);
      close();
      done(saved);
    },
  }), { broad: true });
}
