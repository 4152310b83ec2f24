// Your own account: name, password, access keys, where you are signed in.

import { api } from "../lib/api.js";
import { h, show } from "../lib/dom.js";
import { ago, date, time } from "../lib/format.js";
import { about, bones, button, card, confirm, copyable, dialog, empty, facts, field, filled, form, head, input, mark, notice, scrolled, select, table, toast } from "../lib/ui.js";

export function account(page, context) {
  const { me } = context;
  if (!me.user) {
    show(page, head("Account"), notice("note", "This is the machine's own API token: it belongs to no user."));
    return;
  }
  const keys = h("div", {}, bones(2));
  const sessions = h("div", {}, bones(2));
  show(
    page,
    head(me.user.name, `${me.user.email}, ${me.role}`),
    h("div", { class: "columns even" },
      card("You", h("div", { class: "body form" },
        form([about("name", field("Name", input({ name: "name", value: me.user.name, maxlength: 200, autocomplete: "name" })))], {
          onsubmit: async (target) => {
            me.user = await api.patch("/me", { name: target.elements.name.value });
            document.querySelector(".who strong").textContent = me.user.name;
            toast("Saved");
          },
        }),
        facts([["Teams", me.user.teams.map((team) => team.name).join(", ") || "none"], ["Since", date(me.user.created_at)]]))),
      me.user.has_password && card("Password", h("div", { class: "body" }, form([
        input({ type: "email", name: "email", autocomplete: "username", value: me.user.email, class: "unseen", tabindex: "-1", "aria-hidden": "true" }),
        about("current", field("Current password", input({ type: "password", name: "current", autocomplete: "current-password" }), { required: true })),
        about("new", field("New password", input({ type: "password", name: "new", autocomplete: "new-password" }), { hint: "At least 10 characters. All your other sessions end.", required: true })),
      ], {
        submit: "Change password",
        onsubmit: async (target) => {
          await api.post("/me/password", { current: target.elements.current.value, new: target.elements.new.value });
          target.reset();
          toast("The password is changed");
          loadSessions();
        },
      })))),
    card("Access keys", keys, button("Create access key", { icon: "plus", small: true, onclick: create })),
    card("Where you are signed in", sessions),
  );
  loadKeys();
  loadSessions();

  function loadKeys() {
    return filled(keys, () => api.get("/me/access-keys"), ({ data }) => (data.length
      ? scrolled("Access keys", table([
        { title: "Name", cell: (key) => [key.name, h("span", { class: "under mono" }, `${key.prefix}…`)] },
        { title: "Expires", label: "expires", cell: (key) => (key.expires_at ? ago(key.expires_at) : "never") },
        { title: "Last used", right: true, label: "used", cell: (key) => ago(key.last_used_at) },
        { title: "", tight: true, cell: (key) => button(`Delete ${key.name}`, { icon: "trash", kind: "quiet bad", small: true, only: true, onclick: () => remove(key) }) },
      ], data, { caption: "Access keys" }))
      : empty("key", "No access keys", "For scripts, CI and kt: what they may do is what you may do.")), { lines: 2 });
  }

  function loadSessions() {
    return filled(sessions, () => api.get("/me/sessions"), ({ data }) => scrolled("Sessions", table([
      { title: "Browser", wide: true, cell: (one) => [browser(one.agent), one.current && [" ", mark("this one", "good")], h("span", { class: "under" }, `${one.client}, by ${one.method}`)] },
      { title: "Since", label: "since", cell: (one) => time(one.created_at) },
      { title: "Seen", right: true, label: "seen", cell: (one) => ago(one.seen_at) },
      { title: "", tight: true, cell: (one) => !one.current && button("Sign out there", { small: true, onclick: async () => { await api.delete(`/me/sessions/${one.id}`); loadSessions(); } }) },
    ], data, { caption: "Sessions" })), { lines: 2 });
  }

  function create() {
    dialog("Create access key", (close) => form([
      about("name", field("Name", input({ name: "name", maxlength: 200, autofocus: true, placeholder: "deploy-pipeline" }), { required: true })),
      field("Expires after", select([["2592000", "30 days"], ["7776000", "90 days"], ["31536000", "1 year"], ["", "Never"]], "7776000", { name: "expiry" })),
    ], {
      submit: "Create key",
      oncancel: close,
      onsubmit: async (target) => {
        const seconds = target.elements.expiry.value;
        const made = await api.post("/me/access-keys", { name: target.elements.name.value.trim(), expires_in_seconds: seconds ? Number(seconds) : null });
        close();
        dialog("Your access key", (done) => [
          notice("warn", "Copy it now: it is shown this once."),
          copyable(made.key, "Copy key"),
          h("div", { class: "ending" }, button("Done", { kind: "main", onclick: done })),
        ], { onclose: loadKeys });
      },
    }));
  }

  function remove(key) {
    confirm(`Delete ${key.name}?`, "What uses it stops working at once.", {
      action: "Delete key",
      onconfirm: async () => {
        await api.delete(`/me/access-keys/${key.id}`);
        loadKeys();
      },
    });
  }
}

function browser(agent) {
  const name = ["Firefox", "Edg", "OPR", "Chrome", "Safari"].find((one) => agent.includes(one));
  const system = ["Android", "iPhone", "iPad", "Windows", "Mac OS X", "Linux"].find((one) => agent.includes(one));
  const words = { Edg: "Edge", OPR: "Opera", "Mac OS X": "macOS" };
  return name ? `${words[name] || name}${system ? ` on ${words[system] || system}` : ""}` : agent.slice(0, 60) || "unknown";
}
