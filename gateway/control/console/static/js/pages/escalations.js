// Escalations: requests that a policy has put before a person. Approve one, and it may be sent again, once.

import { api, query } from "../lib/api.js";
import { h, show } from "../lib/dom.js";
import { ago, time } from "../lib/format.js";
import { button, choice, dialog, empty, facts, field, filled, form, head, mark, scrolled, table, toast } from "../lib/ui.js";

const STATES = { pending: "warn", approved: "good", refused: "bad", used: "good", expired: "" };

export function escalationsPage(page, context) {
  const decides = context.may("decide_escalations");
  const place = h("section", { class: "card", "aria-label": "Escalations" });
  let state = "pending";
  const reload = () => filled(place, () => api.get(`/escalations${query({ state })}`), render);
  show(
    page,
    head("Escalations", "Requests that a policy does not decide alone. Who sent one has been told to wait, and may send it again once it is approved."),
    h("div", { class: "bar" }, choice("State", [["pending", "Waiting"], ["approved", "Approved"], ["refused", "Refused"], ["used", "Used"], ["", "All"]], state, (chosen) => { state = chosen; reload(); })),
    place,
  );
  reload();
  const timer = setInterval(() => state === "pending" && !document.querySelector("dialog") && quietly(), 5000);
  context.leaving.push(() => clearInterval(timer));

  async function quietly() {
    try {
      show(place, render(await api.get(`/escalations${query({ state })}`)));
    } catch {
      // What is shown stays; the next try may work.
    }
  }

  function render({ data }) {
    if (!data.length) return empty("hand", state === "pending" ? "Nothing waits" : "None", state === "pending" ? "Policies that escalate, such as human-oversight, put requests here." : null);
    return scrolled("Escalations", table([
      { title: "Request", wide: true, cell: (one) => [h("button", { type: "button", class: "row", onclick: (event) => { event.stopPropagation(); detail(one); } }, `${one.model}, ${one.operation}`), h("span", { class: "under" }, [one.policy, one.detail || one.reason].filter(Boolean).join(": "))] },
      { title: "Key", label: "key", cell: (one) => [one.key_name || "no key", one.team && h("span", { class: "under" }, one.team)] },
      { title: "State", cell: (one) => mark(one.state === "pending" ? "waiting" : one.state, STATES[one.state]) },
      { title: "Since", right: true, label: "since", cell: (one) => ago(one.created_at) },
      { title: "", tight: true, wide: true, cell: (one) => decides && one.state === "pending" && h("div", { class: "actions" }, button("Approve", { small: true, icon: "check", onclick: (event) => { event.stopPropagation(); decide(one, true); } }), button("Refuse", { small: true, kind: "quiet bad", icon: "ban", onclick: (event) => { event.stopPropagation(); decide(one, false); } })) },
    ], data, { caption: "Escalations, newest first", row: (one) => ({ class: "link", onclick: () => !String(getSelection()) && detail(one) }) }));
  }

  function detail(one) {
    dialog("Escalation", (close) => [
      facts([
        ["State", mark(one.state === "pending" ? "waiting" : one.state, STATES[one.state])], ["Policy", one.policy], ["Reason", one.reason], ["Detail", one.detail],
        ["Model", one.model], ["Operation", one.operation], ["Key", one.key_name], ["Team", one.team], ["Configuration", one.configuration_id],
        ["Request id", h("code", {}, one.request_id)], ["Since", time(one.created_at)], ["Until", time(one.expires_at)],
        ["Decided", one.decided_at && `${time(one.decided_at)} by ${one.decided_by}`], ["Note", one.note], ["Used", one.used_at && time(one.used_at)],
      ]),
      one.text && h("pre", { class: "record", tabindex: "0", role: "region", "aria-label": "Text" }, one.text),
      decides && one.state === "pending" && h("div", { class: "ending" },
        button("Refuse", { icon: "ban", kind: "danger", onclick: () => { close(); decide(one, false); } }),
        button("Approve", { icon: "check", kind: "main", onclick: () => { close(); decide(one, true); } })),
    ]);
  }

  function decide(one, approve) {
    dialog(approve ? "Approve this request?" : "Refuse this request?", (close) => form([
      h("p", { class: "soft" }, approve ? "The very same request is let through when it is sent again, once." : "It is refused when it is sent again, too."),
      field("Note", h("textarea", { class: "input", name: "note", maxlength: 2000 }), { hint: "Kept with the decision." }),
    ], {
      submit: approve ? "Approve" : "Refuse", kind: approve ? "main" : "danger", oncancel: close,
      onsubmit: async (target) => {
        const note = target.elements.note.value.trim();
        await api.post(`/escalations/${one.id}/${approve ? "approve" : "refuse"}`, note ? { note } : {});
        close();
        toast(approve ? "Approved" : "Refused");
        reload();
      },
    }));
  }
}
