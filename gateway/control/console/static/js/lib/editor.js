// An editor for YAML: a text area over its own coloured picture, line numbers, and problems marked in the gutter.

import { h, show } from "./dom.js";
import { coloured } from "./yaml.js";

/** `oninput` hears the text a moment after it has changed. The element has `text`, `mark(problems)` and `go(line)`. */
export function editor(text, { label, readonly, oninput }) {
  const gutter = h("div", { class: "gutter", "aria-hidden": "true" });
  const picture = h("pre", { "aria-hidden": "true" });
  const area = h("textarea", {
    "aria-label": label, spellcheck: "false", autocapitalize: "off", autocomplete: "off", wrap: "off", readonly: readonly || false, value: text,
  });
  const element = h("div", { class: "editor" }, gutter, h("div", { class: "well" }, picture, area));
  let problems = [];
  let timer;

  function draw() {
    const lines = area.value.split("\n");
    const worst = new Map();
    for (const one of problems) {
      if (one.severity === "error" || !worst.has(one.line)) worst.set(one.line, one.severity === "error" ? "wrong" : "doubtful");
    }
    show(gutter, lines.map((_, index) => [h("span", { class: worst.get(index + 1) || null }, index + 1), "\n"]));
    show(picture, lines.map((line, index) => [worst.get(index + 1) === "wrong" ? h("span", { class: "line-wrong" }, coloured(line)) : coloured(line), "\n"]));
    follow();
  }

  function follow() {
    picture.scrollTop = area.scrollTop;
    picture.scrollLeft = area.scrollLeft;
    gutter.scrollTop = area.scrollTop;
  }

  area.addEventListener("scroll", follow);
  area.addEventListener("input", () => {
    draw();
    clearTimeout(timer);
    timer = setTimeout(() => oninput?.(area.value), 350);
  });
  // Tab indents, as one expects of an editor; Escape first lets it leave, so that the keyboard is not caught.
  let leaving = false;
  area.addEventListener("keydown", (event) => {
    if (event.key === "Escape") leaving = true;
    else if (event.key === "Tab" && !leaving && !event.shiftKey && !readonly) {
      event.preventDefault();
      area.setRangeText("  ", area.selectionStart, area.selectionEnd, "end");
      area.dispatchEvent(new Event("input"));
    } else if (event.key !== "Tab" && event.key !== "Shift") leaving = false;
  });
  area.addEventListener("blur", () => { leaving = false; });

  Object.defineProperty(element, "text", {
    get: () => area.value,
    set: (value) => {
      area.value = value;
      draw();
    },
  });
  element.mark = (found) => {
    problems = found;
    area.setAttribute("aria-invalid", String(found.some((one) => one.severity === "error")));
    draw();
  };
  element.go = (line) => {
    const lines = area.value.split("\n");
    const start = lines.slice(0, line - 1).reduce((sum, one) => sum + one.length + 1, 0);
    area.focus();
    area.setSelectionRange(start, start + (lines[line - 1] || "").length);
    area.scrollTop = Math.max(0, (line - 6) * 20);
  };
  draw();
  return element;
}
