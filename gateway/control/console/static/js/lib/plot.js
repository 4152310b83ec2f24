// Plots over time: stacked bars or a line with its ground, drawn as SVG to the width that there is. A pointer or the arrow
// keys show the figures of one step. What a plot says is in its label too, and in the table beside it.

import { h, s, show } from "./dom.js";
import { clockTime, dayName, time } from "./format.js";

const STEPS = { minute: 60, hour: 3600, day: 86400 };
const MARGIN = { top: 10, right: 4, bottom: 22, left: 44 };

/** The points of every series at every step from since to until, with 0 where there is nothing. */
export function gridOf({ since, until, step, points }, names, measure) {
  const length = STEPS[step];
  const first = Math.floor(Date.parse(since) / 1000 / length) * length;
  const count = Math.max(1, Math.ceil((Date.parse(until) / 1000 - first) / length));
  const values = new Map(names.map((name) => [name, new Array(count).fill(0)]));
  for (const point of points) {
    const index = Math.round((Date.parse(point.at) / 1000 - first) / length);
    const row = values.get(point.name);
    if (row && index >= 0 && index < count) row[index] += typeof measure === "function" ? measure(point) : point[measure];
  }
  const times = Array.from({ length: count }, (_, index) => new Date((first + index * length) * 1000));
  return { times, values, step };
}

/** Sums of neighbours, so that there are no more columns than can be seen. */
function thinned(grid, most) {
  const every = Math.ceil(grid.times.length / most);
  if (every <= 1) return grid;
  const cut = (row) => Array.from({ length: Math.ceil(row.length / every) }, (_, index) =>
    row.slice(index * every, (index + 1) * every).reduce((sum, one) => sum + one, 0));
  return {
    step: grid.step,
    times: grid.times.filter((_, index) => index % every === 0),
    values: new Map([...grid.values].map(([name, row]) => [name, cut(row)])),
  };
}

/** A round number at or above the highest value, and the lines on the way. */
function scaleOf(highest) {
  if (highest <= 0) return { top: 1, ticks: [0, 1] };
  const power = 10 ** Math.floor(Math.log10(highest));
  const unit = [0.5, 1, 2, 2.5, 5, 10].map((one) => one * power).find((one) => highest / one <= 4) || power * 10;
  const count = Math.max(1, Math.ceil(highest / unit - 1e-9));
  return { top: count * unit, ticks: Array.from({ length: count + 1 }, (_, index) => index * unit) };
}

function labelOf(at, step) {
  return step === "day" ? dayName(at) : clockTime(at);
}

/**
 * A plot. `series`: {name, words, look} each, `look` being a class of css/pages.css; `format` writes a value.
 * `kind` is "bars" (stacked) or "line".
 */
export function plot({ grid, series, format, label, height = 200, kind = "bars" }) {
  const place = h("div", { class: "plot" });
  const tip = h("div", { class: "tip", hidden: true });
  let width = 0;
  let chosen = null;

  function draw() {
    if (!width) return;
    const most = kind === "bars" ? Math.max(8, Math.floor((width - MARGIN.left) / 5)) : Math.floor((width - MARGIN.left) / 3);
    const data = thinned(grid, most);
    const count = data.times.length;
    const sums = data.times.map((_, index) => series.reduce((sum, one) => sum + data.values.get(one.name)[index], 0));
    const tops = kind === "bars" ? sums : data.times.map((_, index) => Math.max(...series.map((one) => data.values.get(one.name)[index])));
    const scale = scaleOf(Math.max(...tops));
    const inner = { width: width - MARGIN.left - MARGIN.right, height: height - MARGIN.top - MARGIN.bottom };
    const x = (index) => MARGIN.left + (inner.width * index) / count;
    const y = (value) => MARGIN.top + inner.height * (1 - value / scale.top);
    const slot = inner.width / count;
    const marks = [];
    for (const tick of scale.ticks) {
      marks.push(s("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y(tick), y2: y(tick) }));
      marks.push(s("text", { class: "axis", x: MARGIN.left - 8, y: y(tick) + 4, "text-anchor": "end" }, format(tick, true)));
    }
    const every = Math.max(1, Math.ceil(count / Math.max(2, Math.floor(inner.width / 76))));
    for (let index = 0; index < count; index += every) {
      if (x(index) + 24 > width) break;
      marks.push(s("text", { class: "axis", x: x(index) + (kind === "bars" ? slot / 2 : 0), y: height - 5, "text-anchor": index ? "middle" : "start" },
        labelOf(data.times[index], data.step)));
    }
    marks.push(...(kind === "bars" ? bars() : lines()));
    const cursor = s("line", { class: "cursor", y1: MARGIN.top, y2: MARGIN.top + inner.height, visibility: "hidden" });

    function bars() {
      const gap = slot > 6 ? Math.min(4, slot * 0.22) : slot > 3 ? 1 : 0;
      const found = [];
      for (let index = 0; index < count; index += 1) {
        let base = 0;
        for (const one of series) {
          const value = data.values.get(one.name)[index];
          if (value > 0) {
            const tall = Math.max(1, (inner.height * value) / scale.top);
            found.push(s("rect", {
              class: `block ${one.look}`, x: x(index) + gap / 2, width: Math.max(1, slot - gap),
              y: y(base) - tall, height: tall, rx: slot > 8 ? 1.5 : 0,
            }));
          }
          base += value;
        }
      }
      return found;
    }

    function lines() {
      return series.flatMap((one) => {
        const row = data.values.get(one.name);
        const middle = (index) => x(index) + slot / 2;
        const path = row.map((value, index) => `${index ? "L" : "M"}${middle(index).toFixed(1)} ${y(value).toFixed(1)}`).join("");
        const ground = `${path}L${middle(count - 1)} ${y(0)}L${middle(0)} ${y(0)}Z`;
        return [s("path", { class: `area ${one.look}`, d: ground }), s("path", { class: `stroke ${one.look}`, d: path })];
      });
    }

    function point(index) {
      chosen = index;
      if (index === null) {
        tip.hidden = true;
        cursor.setAttribute("visibility", "hidden");
        return;
      }
      const at = x(index) + slot / 2;
      cursor.setAttribute("x1", at);
      cursor.setAttribute("x2", at);
      cursor.setAttribute("visibility", "visible");
      show(
        tip,
        h("div", { class: "faint" }, data.step === "day" ? dayName(data.times[index]) : time(data.times[index])),
        series.map((one) => [one, data.values.get(one.name)[index]])
          .filter(([, value]) => value > 0 || series.length < 4)
          .map(([one, value]) => h("div", { class: "line" },
            h("span", { class: `swatch ${one.look}` }), one.words, h("span", { class: "number" }, format(value)))),
      );
      tip.hidden = false;
      const left = at + 14 + tip.offsetWidth > width ? at - tip.offsetWidth - 14 : at + 14;
      tip.style.left = `${Math.max(0, left)}px`;
    }

    const picture = s(
      "svg",
      {
        viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label, tabindex: "0",
        onpointermove: (event) => {
          const box = picture.getBoundingClientRect();
          const index = Math.floor((event.clientX - box.left - MARGIN.left) / slot);
          point(index >= 0 && index < count ? index : null);
        },
        onpointerleave: () => point(null),
        onblur: () => point(null),
        onkeydown: (event) => {
          const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
          if (event.key === "Escape") point(null);
          if (!step) return;
          event.preventDefault();
          point(Math.min(count - 1, Math.max(0, (chosen ?? (step > 0 ? -1 : count)) + step)));
        },
      },
      marks,
      cursor,
    );
    show(place, picture, tip);
  }

  new ResizeObserver(([entry]) => {
    const now = Math.round(entry.contentRect.width);
    if (now && now !== width) {
      width = now;
      draw();
    }
  }).observe(place);
  return place;
}

/** What the colours of a plot mean. */
export const keyOf = (series) =>
  h("ul", { class: "key" }, series.map((one) => h("li", {}, h("span", { class: `swatch ${one.look}` }), one.words)));

/** A bar that shows a share. */
export function share(part, all, look = "series-1") {
  const width = all > 0 ? (100 * part) / all : 0;
  return s(
    "svg",
    { class: `share ${look}`, viewBox: "0 0 100 6", preserveAspectRatio: "none", "aria-hidden": "true" },
    s("rect", { class: "ground", width: 100, height: 6 }),
    s("rect", { class: "part", width: width.toFixed(2), height: 6 }),
  );
}
