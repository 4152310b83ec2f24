// Settings → Users: who may sign in, with which role.

import { all, api, query } from "../lib/api.js";
import { h, put, show } from "../lib/dom.js";
import { ago, date } from "../lib/format.js";
import { about, button, checkbox, confirm, copyable, dialog, empty, facts, field, filled, form, head, input, mark, notice, scrolled, searchField, select, table, toast } from "../lib/ui.js";

const ROLES = [
  ["developer", "Developer: own keys, own events"],
  ["auditor", "Auditor: sees everything, changes nothing"],
  ["admin", "Admin: everything but owners"],
  ["owner", "Owner: everything"],
];

export function usersPage(page, context) {
  const manages = context.may("manage_users");
  const roles = ROLES.filter(([role]) => role !== "owner" || context.may("manage_owners"));
  const place = h("section", { class: "card", "aria-label": "Users" });
  let search = "";
  const reload = () => filled(place, () => api.get(`/users${query({ search })}`), render);
  show(
    page,
    head("Users", "People who may sign in to this console and the API.", manages && button("Invite user", { icon: "plus", kind: "main", onclick: invite })),
    h("div", { class: "bar" }, searchField("Search by name or e-mail", "", (text) => { search = text; reload(); })),
    place,
  );
  reload();

  function render(found) {
    if (!found.data.length) return empty("search", "Nobody matches");
    const list = table([
      { title: "Name", cell: (user) => [h("button", { type: "button", class: "row", onclick: (event) => { event.stopPropagation(); detail(user); } }, user.name), h("span", { class: "under" }, user.email)] },
      { title: "Role", cell: (user) => mark(user.role, user.role === "owner" || user.role === "admin" ? "note" : "") },
      { title: "Teams", less: true, cell: (user) => user.teams.map((team) => team.name).join(", ") || h("span", { class: "faint" }, "none") },
      { title: "State", cell: (user) => (user.active ? mark(user.has_password || user.has_provider ? "active" : "invited", user.has_password || user.has_provider ? "good" : "warn") : mark("inactive")) },
      { title: "Last signed in", right: true, label: "signed in", cell: (user) => ago(user.last_sign_in_at) },
    ], found.data, { caption: "Users, newest first", row: (user) => ({ class: "link", onclick: () => !String(getSelection()) && detail(user) }) });
    return [scrolled("Users", list), more(found.next, list)];
  }

  function more(next, list) {
    if (!next) return null;
    const bar = h("div", { class: "more-rows" });
    put(bar, button("Show more", { onclick: async () => {
      const found = await api.get(`/users${query({ search, cursor: next })}`);
      list.add(found.data);
      bar.replaceWith(more(found.next, list) || "");
    } }));
    return bar;
  }

  async function invite() {
    const teams = await all("/teams").catch(() => []);
    dialog("Invite user", (close) => form([
      about("email", field("E-mail address", input({ type: "email", name: "email", autofocus: true }), { required: true })),
      about("name", field("Name", input({ name: "name", maxlength: 200 }), { required: true })),
      about("role", field("Role", select(roles, "developer", { name: "role" }))),
      teams.length > 0 && h("fieldset", { class: "field" }, h("legend", {}, "Teams"), h("div", { class: "fields" }, teams.map((team) => checkbox(team.name, { name: "team", value: team.id })))),
    ].filter(Boolean), {
      submit: "Make an invitation link",
      oncancel: close,
      onsubmit: async (target) => {
        const made = await api.post("/users", {
          email: target.elements.email.value, name: target.elements.name.value, role: target.elements.role.value,
          teams: [...target.querySelectorAll("[name=team]:checked")].map((box) => box.value),
        });
        close();
        link(made);
        reload();
      },
    }));
  }

  function link(made) {
    dialog(`An invitation for ${made.user.name}`, (close) => [
      notice("note", `Send this link to ${made.user.email}. It works once, until ${date(made.expires_at)}, and is not shown again.`),
      copyable(made.link, "Copy link"),
      h("div", { class: "ending" }, button("Done", { kind: "main", onclick: close })),
    ]);
  }

  function detail(user) {
    const mayChange = manages && (user.role !== "owner" || context.may("manage_owners"));
    dialog(user.name, (close) => [
      facts([
        ["E-mail address", user.email], ["Id", h("code", {}, user.id)], ["Teams", user.teams.map((team) => team.name).join(", ")],
        ["Signs in by", [user.has_password && "password", user.has_provider && "single sign-on"].filter(Boolean).join(", ") || "nothing yet"],
        ["Created", date(user.created_at)], ["Last signed in", ago(user.last_sign_in_at)],
      ]),
      mayChange && form([
        about("name", field("Name", input({ name: "name", value: user.name, maxlength: 200 }))),
        about("role", field("Role", select(roles, user.role, { name: "role" }))),
        checkbox("Active: may sign in", { name: "active", checked: user.active }),
      ], {
        submit: "Save",
        onsubmit: async (target) => {
          await api.patch(`/users/${user.id}`, { name: target.elements.name.value, role: target.elements.role.value, active: target.elements.active.checked });
          toast("Saved");
          close();
          reload();
        },
      }),
      mayChange && h("div", { class: "bar" },
        button("New invitation link", { small: true, onclick: async () => { close(); link(await api.post(`/users/${user.id}/invitation`)); } }),
        button("Sign out everywhere", { small: true, onclick: async () => { await api.delete(`/users/${user.id}/sessions`); toast("Signed out everywhere"); } }),
        button("Delete", { small: true, kind: "quiet bad", icon: "trash", onclick: () => { close(); remove(user); } })),
    ]);
  }

  function remove(user) {
    confirm(`Delete ${user.name}?`, "They are signed out, and their gateway keys are revoked.", {
      action: "Delete user",
      onconfirm: async () => {
        await api.delete(`/users/${user.id}`);
        toast("Deleted");
        reload();
      },
    });
  }
}
