// Numbers and times as people read them, in the browser's language and time zone.

const whole = new Intl.NumberFormat();
const short = new Intl.NumberFormat(undefined, { notation: "compact", maximumFractionDigits: 1 });
const dateTime = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long" });
const day = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });
const fullDay = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const seconds = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
});
const relative = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });

export const number = (value) => (value === null || value === undefined ? "–" : whole.format(value));
export const compact = (value) => (Math.abs(value) < 10000 ? whole.format(value) : short.format(value));

/** US dollars; small sums keep the digits that tell them apart. */
export function money(value) {
  if (value === null || value === undefined) return "–";
  const digits = value === 0 || Math.abs(value) >= 1 ? 2 : Math.abs(value) >= 0.01 ? 3 : 5;
  return `$${value.toLocaleString(undefined, { minimumFractionDigits: 2, maximumFractionDigits: digits })}`;
}

export function percent(part, all) {
  if (!all) return "–";
  const share = (100 * part) / all;
  return `${share > 0 && share < 1 ? share.toFixed(1) : Math.round(share)} %`;
}

/** A duration given in milliseconds. */
export function duration(milliseconds) {
  if (milliseconds === null || milliseconds === undefined) return "–";
  if (milliseconds < 1) return `${Math.round(milliseconds * 1000)} µs`;
  if (milliseconds < 10) return `${milliseconds.toFixed(1)} ms`;
  if (milliseconds < 1000) return `${Math.round(milliseconds)} ms`;
  if (milliseconds < 60000) return `${(milliseconds / 1000).toFixed(1)} s`;
  return `${Math.floor(milliseconds / 60000)} min ${Math.round((milliseconds % 60000) / 1000)} s`;
}

export const microseconds = (value) => duration(value === null || value === undefined ? null : value / 1000);

export const date = (text) => (text ? fullDay.format(new Date(text)) : "–");
export const time = (text) => (text ? dateTime.format(new Date(text)) : "–");
export const exactTime = (text) => (text ? exact.format(new Date(text)) : "–");
export const clockTime = (text) => clock.format(new Date(text));
export const dayName = (text) => day.format(new Date(text));

/** The time of day today, else the day too. */
export function moment(text) {
  const at = new Date(text);
  const today = at.toDateString() === new Date().toDateString();
  return today ? seconds.format(at) : `${day.format(at)}, ${seconds.format(at)}`;
}

const UNITS = [["year", 31536000], ["month", 2592000], ["week", 604800], ["day", 86400], ["hour", 3600], ["minute", 60]];

/** “3 days ago”, “in 2 months”. */
export function ago(text) {
  if (!text) return "never";
  const distance = (new Date(text) - Date.now()) / 1000;
  for (const [unit, length] of UNITS) {
    if (Math.abs(distance) >= length) return relative.format(Math.trunc(distance / length), unit);
  }
  return distance > 0 ? "in a moment" : "just now";
}

/** A span in words: 7776000 is “90 days”. */
export function span(value) {
  for (const [unit, length] of [["day", 86400], ["hour", 3600], ["minute", 60]]) {
    if (value >= length && value % length === 0) {
      const count = value / length;
      return `${whole.format(count)} ${unit}${count === 1 ? "" : "s"}`;
    }
  }
  return `${whole.format(value)} seconds`;
}

export const plural = (count, word) => `${whole.format(count)} ${word}${count === 1 ? "" : "s"}`;
