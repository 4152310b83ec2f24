// Colours for YAML: just enough to tell keys, texts, numbers and comments apart. It parses nothing.

import { h } from "./dom.js";

const LINE = /^(\s*(?:-\s+)*)([^\s#:"'][^:#]*|"[^"]*"|'[^']*')(:)(?=\s|$)/;
const VALUE = /("(?:[^"\\]|\\.)*"|'(?:[^']|'')*')|(\s#.*$|^#.*$)|(?<![\w.-])(-?\d[\d_]*(?:\.\d+)?|true|false|null|~)(?![\w.-])/g;

/** One line as elements. */
export function coloured(line) {
  const parts = [];
  let rest = line;
  const key = LINE.exec(line);
  if (key) {
    parts.push(key[1], h("span", { class: "y-key" }, key[2]), key[3]);
    rest = line.slice(key[0].length);
  }
  let at = 0;
  for (const match of rest.matchAll(VALUE)) {
    parts.push(rest.slice(at, match.index));
    const look = match[1] ? "y-text" : match[2] ? "y-comment" : "y-number";
    parts.push(h("span", { class: look }, match[0]));
    at = match.index + match[0].length;
  }
  parts.push(rest.slice(at));
  return parts;
}
