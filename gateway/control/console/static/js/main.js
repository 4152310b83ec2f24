// Where the console begins: who is here, the frame around the pages, and which page an address means.

import { api, configure } from "./lib/api.js";
import { h, put, show } from "./lib/dom.js";
import { brandMark, icon } from "./lib/icons.js";
import { keep } from "./lib/store.js";
import { button, empty, failed, linkButton } from "./lib/ui.js";
import { account } from "./pages/account.js";
import { auditPage } from "./pages/audit.js";
import { configurationPage, configurationsPage } from "./pages/configurations.js";
import { escalationsPage } from "./pages/escalations.js";
import { eventsPage } from "./pages/events.js";
import { acceptPage, setupPage, signInPage } from "./pages/gate.js";
import { keysPage } from "./pages/keys.js";
import { overviewPage } from "./pages/overview.js";
import { playgroundPage } from "./pages/playground.js";
import { teamPage, teamsPage } from "./pages/teams.js";
import { usagePage } from "./pages/usage.js";
import { usersPage } from "./pages/users.js";

const BASE = "/console";
const app = document.getElementById("app");

// [path, words, icon, one of these permissions, page]
const PLACES = [
  ["/overview", "Overview", "overview", ["read_events", "own_events"], overviewPage],
  ["/events", "Events", "events", ["read_events", "own_events"], eventsPage],
  ["/usage", "Usage", "usage", ["read_events", "own_events"], usagePage],
  ["/escalations", "Escalations", "hand", ["read_escalations"], escalationsPage],
  ["/playground", "Playground", "play", [], playgroundPage],
  ["/audit", "Audit log", "audit", ["read_changes", "read_events"], auditPage],
];
const SETTINGS = [
  ["/keys", "Gateway Keys", "key", ["own_gateway_keys", "read_gateway_keys"], keysPage],
  ["/teams", "Teams", "teams", ["own_teams", "read_teams"], teamsPage],
  ["/configurations", "Configurations", "configuration", ["read_configurations"], configurationsPage],
  ["/users", "Users", "users", ["read_users"], usersPage],
];
const OTHERS = [
  [/^\/teams\/([^/]+)$/, teamPage],
  [/^\/configurations\/([^/]+)$/, configurationPage],
  [/^\/account$/, account],
];

/** What pages are given: who is here, how to go elsewhere, and a place to say that they are left. */
const context = { me: null, go, leaving: [], may: (permission) => context.me?.permissions.includes(permission) };
const allowed = (needs) => needs.length === 0 || needs.some(context.may);

let content;
let places = new Map();

async function begin() {
  try {
    context.me = await api.get("/me");
    configure({ csrf: context.me.csrf_token, onSignedOut: signedOut });
    if (/^\/console\/(sign-in|setup|invitation)?$/.test(location.pathname)) history.replaceState(null, "", `${BASE}/overview`);
    frame();
    route();
  } catch (error) {
    if (error.status === 401) gate();
    else show(app, h("main", { class: "gate" }, h("div", { class: "card" }, failed(error, begin))));
  }
}

function signedOut() {
  if (!context.me) return;
  context.me = null;
  configure({ csrf: null });
  leave();
  for (const open of document.querySelectorAll("dialog")) open.close();
  gate();
}

/** The pages of somebody who has not signed in. */
function gate() {
  const pages = { "/console/setup": setupPage, "/console/invitation": acceptPage };
  const page = pages[location.pathname] || signInPage;
  const box = h("div", { class: "box" });
  show(app, h("main", { class: "gate" }, box));
  show(box, h("div", { class: "brand" }, brandMark(), "Keeptrusts"), page({ ...context, done: begin }));
}

function frame() {
  places = new Map();
  const link = ([path, words, symbol]) => {
    const element = h("a", { class: "place", href: BASE + path }, icon(symbol), words);
    places.set(path, element);
    return h("li", {}, element);
  };
  const shown = (list) => list.filter(([, , , needs]) => allowed(needs));
  const me = context.me;
  const side = h(
    "nav",
    { class: "side", "aria-label": "Main", id: "menu" },
    h("a", { class: "brand", href: `${BASE}/overview` }, brandMark(), "Keeptrusts"),
    h("ul", {}, shown(PLACES).map(link)),
    h("div", { class: "group", id: "settings-group" }, "Settings"),
    h("ul", { "aria-labelledby": "settings-group" }, shown(SETTINGS).map(link)),
    h(
      "div",
      { class: "foot" },
      h("a", { class: "who", href: `${BASE}/account` },
        h("strong", { class: "cut" }, me.user?.name || "API token"), h("span", { class: "faint" }, me.role)),
      themeButton(),
      button("Sign out", { icon: "leave", kind: "quiet", only: true, onclick: signOut }),
    ),
  );
  const menu = button("Menu", {
    icon: "menu", kind: "quiet", only: true, "aria-expanded": "false", "aria-controls": "menu", onclick: () => openMenu(true),
  });
  content = h("main", { id: "content", tabindex: "-1" });
  show(
    app,
    h("a", { class: "skip", href: "#content" }, "Skip to the content"),
    h("header", { class: "top" }, menu, h("a", { class: "brand", href: `${BASE}/overview` }, brandMark(), "Keeptrusts")),
    h("div", { class: "frame" }, side, content),
  );

  function openMenu(open) {
    document.body.classList.toggle("menu-open", open);
    menu.setAttribute("aria-expanded", String(open));
    document.querySelector(".veil")?.remove();
    if (open) {
      put(app, h("button", { class: "veil", "aria-label": "Close the menu", onclick: () => openMenu(false) }));
      side.querySelector("a")?.focus();
    }
  }
  context.closeMenu = () => openMenu(false);
  side.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && document.body.classList.contains("menu-open")) {
      openMenu(false);
      menu.focus();
    }
  });
  watchEscalations();
}

function themeButton() {
  const dark = () => document.documentElement.dataset.theme === "dark";
  const words = () => (dark() ? "Light theme" : "Dark theme");
  const control = button(words(), {
    icon: dark() ? "sun" : "moon", kind: "quiet", only: true,
    onclick: () => {
      const theme = dark() ? "light" : "dark";
      window.keeptrustsTheme(theme);
      keep("theme", theme);
      show(control, icon(dark() ? "sun" : "moon"));
      control.setAttribute("aria-label", words());
      control.title = words();
    },
  });
  return control;
}

/** How many requests wait for a person, beside the place where one decides. */
async function watchEscalations() {
  const place = places.get("/escalations");
  if (!place) return;
  try {
    const { data } = await api.get("/escalations?state=pending");
    place.querySelector(".count")?.remove();
    if (data.length) put(place, h("span", { class: "count" }, String(data.length), h("span", { class: "unseen" }, " waiting")));
  } catch {
    // The page itself says what is wrong.
  }
  setTimeout(() => context.me && place.isConnected && watchEscalations(), 15000);
}

async function signOut() {
  await api.post("/auth/sign-out").catch(() => {});
  history.replaceState(null, "", `${BASE}/`);
  signedOut();
}

/** Leave a page: what it has running ends. */
function leave() {
  for (const end of context.leaving.splice(0)) end();
}

function go(path) {
  history.pushState(null, "", BASE + path);
  route();
}

function route() {
  leave();
  const path = location.pathname.slice(BASE.length).replace(/\/$/, "") || "/overview";
  context.closeMenu?.();
  for (const [place, element] of places) {
    const here = path === place || path.startsWith(`${place}/`);
    if (here) element.setAttribute("aria-current", "page");
    else element.removeAttribute("aria-current");
  }
  const page = h("div", { class: "page" });
  show(content, page);
  window.scrollTo(0, 0);
  render(page, path);
  content.focus({ preventScroll: true });
}

function render(page, path) {
  const place = [...PLACES, ...SETTINGS].find(([one]) => one === path);
  if (place) {
    if (!allowed(place[3])) {
      show(page, empty("ban", "Not for your role", `Your role, ${context.me.role}, does not see this page.`));
      return;
    }
    place[4](page, context);
    return;
  }
  for (const [pattern, build] of OTHERS) {
    const match = pattern.exec(path);
    if (match) {
      build(page, context, ...match.slice(1).map(decodeURIComponent));
      return;
    }
  }
  document.title = "Not found · Keeptrusts";
  show(page, empty("search", "There is no such page", `Nothing is at ${path}.`, linkButton("Go to the overview", `${BASE}/overview`)));
}

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href]");
  if (!link || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const target = new URL(link.href);
  if (link.target || link.hasAttribute("download") || target.origin !== location.origin) return;
  if (!target.pathname.startsWith(`${BASE}/`) || target.hash || !context.me) return;
  event.preventDefault();
  history.pushState(null, "", target.pathname + target.search);
  route();
});
addEventListener("popstate", () => context.me && route());

begin();
