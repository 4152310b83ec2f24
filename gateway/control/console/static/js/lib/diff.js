// What differs between two texts, line by line (Myers' greedy algorithm, as in his paper of 1986).

import { h } from "./dom.js";

/** Steps from one list of lines to another: ["same" | "removed" | "added", line] each. */
export function steps(before, after) {
  const [n, m] = [before.length, after.length];
  const trace = [];
  let reached = new Map([[1, 0]]);
  for (let d = 0; d <= n + m; d += 1) {
    trace.push(new Map(reached));
    for (let k = -d; k <= d; k += 2) {
      const down = k === -d || (k !== d && (reached.get(k - 1) ?? -1) < (reached.get(k + 1) ?? -1));
      let x = down ? reached.get(k + 1) ?? 0 : (reached.get(k - 1) ?? 0) + 1;
      while (x < n && x - k < m && before[x] === after[x - k]) x += 1;
      reached.set(k, x);
      if (x >= n && x - k >= m) return backwards(trace, before, after);
    }
  }
  return [];
}

function backwards(trace, before, after) {
  const found = [];
  let [x, y] = [before.length, after.length];
  for (let d = trace.length - 1; d >= 0; d -= 1) {
    const reached = trace[d];
    const k = x - y;
    const down = k === -d || (k !== d && (reached.get(k - 1) ?? -1) < (reached.get(k + 1) ?? -1));
    const previous = down ? k + 1 : k - 1;
    const fromX = d === 0 ? 0 : reached.get(previous) ?? 0;
    const fromY = d === 0 ? 0 : fromX - previous;
    while (x > fromX && y > fromY) {
      found.push(["same", before[x - 1]]);
      x -= 1;
      y -= 1;
    }
    if (d > 0) {
      found.push(down ? ["added", after[y - 1]] : ["removed", before[x - 1]]);
      if (down) y -= 1;
      else x -= 1;
    }
  }
  return found.reverse();
}

const AROUND = 3;

/** Two texts beside each other, with a few lines around what differs. */
export function difference(before, after) {
  const all = steps(before.split("\n"), after.split("\n"));
  if (all.every(([kind]) => kind === "same")) return h("p", { class: "soft" }, "They are the same.");
  const near = new Set();
  all.forEach(([kind], index) => {
    if (kind !== "same") for (let at = index - AROUND; at <= index + AROUND; at += 1) near.add(at);
  });
  const rows = [];
  let [left, right, skipping] = [0, 0, false];
  all.forEach(([kind, line], index) => {
    if (kind !== "added") left += 1;
    if (kind !== "removed") right += 1;
    if (!near.has(index)) {
      if (!skipping) rows.push(h("div", { class: "skipped" }, "…"));
      skipping = true;
      return;
    }
    skipping = false;
    const sign = { same: "", added: "+", removed: "−" }[kind];
    rows.push(h("div", { class: kind },
      h("span", { class: "at" }, kind === "added" ? "" : left), h("span", { class: "at" }, kind === "removed" ? "" : right),
      h("span", { "aria-hidden": "true" }, sign),
      h("span", {}, kind !== "same" && h("span", { class: "unseen" }, `${kind}: `), line)));
  });
  return h("div", { class: "diff", tabindex: "0", role: "region", "aria-label": "Differences" }, rows);
}
