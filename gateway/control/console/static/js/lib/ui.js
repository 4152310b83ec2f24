// The parts that pages share: buttons, fields, tables, dialogs, messages, and what stands where there is nothing yet.

import { h, put, show, unique } from "./dom.js";
import { icon } from "./icons.js";

/** A button; `name` gives it a symbol, `only` hides its words from sight but not from a screen reader. */
export function button(words, { icon: symbol, kind = "", small, only, type = "button", ...rest } = {}) {
  const classes = ["button", kind, small && "small", only && "only"].filter(Boolean).join(" ");
  return h(
    "button",
    { type, class: classes, ...(only ? { "aria-label": words, title: words } : {}), ...rest },
    symbol && icon(symbol, small ? "small" : ""),
    !only && words,
  );
}

/** A link that looks like a button. */
export function linkButton(words, href, { icon: symbol, kind = "", small } = {}) {
  return h("a", { class: ["button", kind, small && "small"].filter(Boolean).join(" "), href }, symbol && icon(symbol), words);
}

/** The head of a page. */
export function head(title, lead, ...actions) {
  document.title = `${title} · Keeptrusts`;
  return h(
    "header",
    { class: "head" },
    h("div", {}, h("h1", {}, title), lead && h("p", { class: "lead" }, lead)),
    actions.length > 0 && h("div", { class: "actions" }, actions),
  );
}

/** A surface with a title. */
export function card(title, body, ...actions) {
  const id = unique("card");
  return h(
    "section",
    { class: "card", "aria-labelledby": title ? id : null },
    title && h("header", {}, h("h2", { id }, title), actions.length > 0 && h("div", { class: "actions" }, actions)),
    body,
  );
}

/** A field: its label, its control, a hint, and a place where it is said what is wrong. */
export function field(words, control, { hint, required } = {}) {
  const id = control.id || unique("field");
  control.id = id;
  const about = h("span", { class: "hint", id: `${id}-hint` }, hint || "");
  const wrong = h("span", { class: "wrong", id: `${id}-wrong`, role: "alert" });
  about.hidden = !hint;
  control.setAttribute("aria-describedby", `${id}-hint ${id}-wrong`);
  if (required) control.setAttribute("required", "");
  const element = h("div", { class: "field" }, h("label", { for: id }, words), control, about, wrong);
  element.say = (text) => {
    wrong.textContent = text || "";
    control.setAttribute("aria-invalid", text ? "true" : "false");
  };
  return element;
}

export function input(properties = {}) {
  const { class: extra = "", ...rest } = properties;
  return h("input", { type: "text", autocomplete: "off", class: `input ${extra}`.trim(), ...rest });
}

/** A choice of one. `options`: [value, words] each. */
export function select(options, chosen, properties = {}) {
  return h(
    "select",
    { class: "input", ...properties },
    options.map(([value, words]) => h("option", { value, selected: value === chosen }, words)),
  );
}

export function checkbox(words, properties = {}) {
  return h("label", { class: "check" }, h("input", { type: "checkbox", ...properties }), h("span", {}, words));
}

/** Buttons of which one is pressed. */
export function choice(label, options, chosen, onchoose) {
  const group = h("div", { class: "choice", role: "group", "aria-label": label });
  for (const [value, words] of options) {
    put(group, h("button", {
      type: "button",
      "aria-pressed": String(value === chosen),
      onclick: (event) => {
        for (const other of group.children) other.setAttribute("aria-pressed", String(other === event.currentTarget));
        onchoose(value);
      },
    }, words));
  }
  return group;
}

/** A field to search by; `onsearch` hears what was typed a moment after it was. */
export function searchField(label, value, onsearch) {
  let timer;
  const control = input({
    type: "search", "aria-label": label, placeholder: label, value,
    oninput: (event) => {
      clearTimeout(timer);
      timer = setTimeout(() => onsearch(event.target.value.trim()), 220);
    },
  });
  return h("div", { class: "search" }, icon("search"), control);
}

/** A form that sends itself once at a time, and says what went wrong where it did. */
export function form(fields, { submit = "Save", onsubmit, oncancel, kind = "main", wide } = {}) {
  const failure = h("div");
  const send = button(submit, { type: "submit", kind: `${kind}${wide ? " wide" : ""}` });
  const named = Object.fromEntries(fields.filter((one) => one && one.param).map((one) => [one.param, one]));
  return h(
    "form",
    {
      class: "form",
      novalidate: true,
      onsubmit: async (event) => {
        event.preventDefault();
        for (const one of Object.values(named)) one.say("");
        show(failure);
        send.disabled = true;
        try {
          await onsubmit(event.target);
        } catch (error) {
          const place = named[error.param];
          if (place) {
            place.say(error.message);
            place.querySelector("input, select, textarea")?.focus();
          } else show(failure, notice("bad", error.message));
        } finally {
          send.disabled = false;
        }
      },
    },
    fields,
    failure,
    h("div", { class: wide ? "" : "ending" }, oncancel && button("Cancel", { kind: "quiet", onclick: oncancel }), send),
  );
}

/** Let a form tell which field an error of the API is about. */
export function about(param, element) {
  element.param = param;
  return element;
}

/** A small mark: `kind` is good, warn, bad, note or nothing. */
export const mark = (words, kind = "") => h("span", { class: `mark ${kind}`.trim() }, words);

export const status = (words, kind = "") => h("span", { class: "status" }, h("span", { class: `dot ${kind}` }), words);

const SYMBOLS = { bad: "warning", warn: "warning", good: "check", note: "info" };

/** Something that should be read. */
export function notice(kind, ...words) {
  return h("div", { class: `notice ${kind}`, role: kind === "bad" ? "alert" : null }, icon(SYMBOLS[kind] || "info"), h("div", {}, words));
}

/** What stands where there is nothing. */
export function empty(symbol, title, words, ...actions) {
  return h("div", { class: "empty" }, icon(symbol), h("h2", {}, title), words && h("p", {}, words), actions);
}

/** What stands where something is about to come. */
export function bones(count = 5) {
  return h(
    "div",
    { class: "bones", role: "status" },
    h("span", { class: "unseen" }, "Loading"),
    Array.from({ length: count }, () => h("div", { class: "bone" })),
  );
}

/** Fill a place with what `load` brings: bones first, then `render`'s elements, or what went wrong and a way to try again. */
export async function filled(place, load, render, { lines = 5 } = {}) {
  show(place, bones(lines));
  try {
    show(place, render(await load()));
  } catch (error) {
    if (error.name === "AbortError") return;
    if (error.status === undefined) console.error(error);
    show(place, failed(error, () => filled(place, load, render, { lines })));
  }
}

export function failed(error, again) {
  if (error.status === 403) return empty("ban", "Not for your role", error.message);
  return empty(
    "warning", "That did not work", error.message || "Something went wrong.",
    again && button("Try again", { icon: "rotate", onclick: again }),
  );
}

/** A table. Columns: {title, cell(row), right, tight, less, wide, label}. */
export function table(columns, rows, { caption, row: properties = () => ({}), dense } = {}) {
  const body = h("tbody");
  const element = h(
    "table",
    { class: `stack ${dense ? "dense" : ""}`.trim() },
    caption && h("caption", { class: "unseen" }, caption),
    h("thead", {}, h("tr", {}, columns.map((column) =>
      h("th", { scope: "col", class: column.right ? "right" : null },
        column.title || h("span", { class: "unseen" }, column.unseen || "Actions"))))),
    body,
  );
  element.line = (row) => h("tr", properties(row), columns.map((column) =>
    h("td", {
      class: ["right", "tight", "less", "wide"].filter((name) => column[name]).join(" ") || null,
      "data-label": column.label || null,
    }, column.cell(row))));
  element.add = (more, { first = false, fresh = false } = {}) => {
    const lines = more.map((row) => element.line(row));
    if (fresh) for (const line of lines) line.classList.add("fresh");
    if (first) body.prepend(...lines);
    else body.append(...lines);
  };
  element.add(rows);
  element.body = body;
  return element;
}

/** A table that can be scrolled sideways, also with the keyboard. */
export const scrolled = (label, element) => h("div", { class: "rows", tabindex: "0", role: "region", "aria-label": label }, element);

/** A dialog. `build(close)` gives what is inside; what is returned is resolved when it closes. */
export function dialog(title, build, { broad, panel, onclose } = {}) {
  const id = unique("dialog");
  const element = h("dialog", { class: panel ? "panel" : broad ? "broad" : null, "aria-labelledby": id });
  const close = () => element.close();
  put(
    element,
    h("div", { class: "title" }, h("h2", { id }, title), button("Close", { icon: "close", kind: "quiet", only: true, onclick: close })),
    h("div", { class: "inside" }, build(close)),
  );
  element.addEventListener("click", (event) => event.target === element && close());
  element.addEventListener("close", () => {
    element.remove();
    onclose?.();
  });
  document.body.append(element);
  element.showModal();
  element.querySelector("[autofocus]")?.focus();
  return element;
}

/** Ask before something that cannot be taken back. */
export function confirm(title, words, { action, onconfirm }) {
  return dialog(title, (close) => form([h("p", { class: "soft" }, words)], {
    submit: action,
    kind: "danger",
    oncancel: close,
    onsubmit: async () => {
      await onconfirm();
      close();
    },
  }));
}

/** A message that goes by itself. */
export function toast(words, symbol = "check") {
  const place = document.querySelector(".toasts");
  const element = h("div", { class: "toast" }, icon(symbol), words);
  put(place, element);
  setTimeout(() => element.remove(), 4500);
}

/** Put a text into the clipboard and say so on the button. */
async function copyText(text, control) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = h("textarea", { class: "unseen", value: text });
    (control.closest("dialog") || document.body).append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    control.focus();
  }
  const words = control.querySelector(".words");
  const before = words.textContent;
  show(words, "Copied");
  control.querySelector(".icon").replaceWith(icon("check", "small"));
  toast("Copied");
  setTimeout(() => {
    show(words, before);
    control.querySelector(".icon")?.replaceWith(icon("copy", "small"));
  }, 1800);
}

export function copyButton(text, words = "Copy", extra = "") {
  return h("button", { type: "button", class: `button small ${extra}`.trim(), onclick: (event) => copyText(text, event.currentTarget) },
    icon("copy", "small"), h("span", { class: "words" }, words));
}

/** A text with a button that copies it. */
export const copyable = (text, words = "Copy", properties = {}) =>
  h("div", { class: "copy", ...properties }, h("code", {}, text), copyButton(text, words));

export const snippet = (text, label) =>
  h("div", { class: "snippet" }, h("pre", { tabindex: "0", role: "region", "aria-label": label }, h("code", {}, text)), copyButton(text));

/** Facts: [name, value] each; those without a value are left out. */
export const facts = (pairs) =>
  h("dl", { class: "facts" }, pairs
    .filter(([, value]) => value !== null && value !== undefined && value !== "")
    .map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));

/** Panels of which one is seen: [name, words, element] each. */
export function tabs(label, panels) {
  const list = h("div", { class: "choice", role: "tablist", "aria-label": label });
  const places = panels.map(([name, words, element], index) => {
    const id = unique("tab");
    put(list, h("button", {
      type: "button", role: "tab", id, "aria-controls": `${id}-panel`, "aria-selected": String(index === 0),
      tabindex: index === 0 ? "0" : "-1", onclick: () => choose(index),
      onkeydown: (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (step) choose((index + step + panels.length) % panels.length, true);
      },
    }, words));
    return h("div", { role: "tabpanel", id: `${id}-panel`, "aria-labelledby": id, hidden: index > 0, "data-name": name }, element);
  });
  function choose(chosen, focus) {
    [...list.children].forEach((tab, index) => {
      tab.setAttribute("aria-selected", String(index === chosen));
      tab.tabIndex = index === chosen ? 0 : -1;
      places[index].hidden = index !== chosen;
      if (focus && index === chosen) tab.focus();
    });
  }
  return [list, ...places];
}
