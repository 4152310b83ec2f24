// The live stream of events. The browser reconnects by itself; who watches hears whether it is connected.

import { query } from "./api.js";

/** Watch events that match. Returns how to stop. */
export function watch(filter, { onevent, onstate = () => {}, onmissed = () => {} }) {
  const source = new EventSource(`/api/v1/events/live${query(filter)}`);
  source.addEventListener("open", () => onstate(true));
  source.addEventListener("error", () => onstate(false));
  source.addEventListener("event", (message) => onevent(JSON.parse(message.data)));
  source.addEventListener("missed", (message) => onmissed(Number(message.data)));
  return () => source.close();
}
