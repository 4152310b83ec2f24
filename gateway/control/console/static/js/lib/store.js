// What the browser keeps for this person: the theme, and which page of the past they like. No secret is ever kept.

const NAME = "keeptrusts-console";

function read() {
  try {
    return JSON.parse(localStorage.getItem(NAME)) || {};
  } catch {
    return {};
  }
}

export const kept = (name, otherwise) => read()[name] ?? otherwise;

export function keep(name, value) {
  try {
    localStorage.setItem(NAME, JSON.stringify({ ...read(), [name]: value }));
  } catch {
    // A browser that keeps nothing: the page works without.
  }
}
