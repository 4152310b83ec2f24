// Before one is in: sign in, set the gateway up, accept an invitation.

import { api } from "../lib/api.js";
import { h, put, show } from "../lib/dom.js";
import { about, bones, failed, field, form, input, linkButton, notice } from "../lib/ui.js";

const token = () => new URLSearchParams(location.search).get("token") || "";

function password(words, param, autocomplete, hint) {
  const control = input({ type: "password", name: param, autocomplete, maxlength: 200 });
  return about(param, field(words, control, { hint, required: true }));
}

const value = (target, name) => target.elements[name].value;

export function signInPage({ done }) {
  document.title = "Sign in · Keeptrusts";
  const place = h("div", { class: "card" }, bones(3));
  load();
  return place;

  async function load() {
    try {
      build(await api.get("/auth/methods"));
    } catch (error) {
      show(place, failed(error, load));
    }
  }

  function build(methods) {
    const next = location.pathname.startsWith("/console/") ? location.pathname + location.search : "/console/";
    const email = about("email", field("E-mail address",
      input({ type: "email", name: "email", autocomplete: "username", autofocus: true }), { required: true }));
    const signIn = methods.password && form(
      [email, password("Password", "password", "current-password")],
      {
        submit: "Sign in", wide: true,
        onsubmit: async (target) => {
          await api.post("/auth/sign-in", { email: value(target, "email"), password: value(target, "password") });
          await done();
        },
      },
    );
    show(
      place,
      h("div", { class: "form" },
        h("div", {}, h("h1", {}, "Sign in"), h("p", { class: "soft" }, "to the gateway's console")),
        methods.setup_needed && notice("note", "Nobody has an account yet. Open the set-up link that the gateway printed when it started; ",
          h("code", {}, "kt user setup-link"), " prints a new one."),
        methods.oidc && linkButton(`Continue with ${methods.oidc.name}`, `${methods.oidc.start}?next=${encodeURIComponent(next)}`, { kind: methods.password ? "wide" : "main wide" }),
        methods.oidc && methods.password && h("div", { class: "or" }, "or"),
        signIn),
    );
    place.querySelector("input")?.focus();
  }
}

export function setupPage({ done }) {
  document.title = "Set up · Keeptrusts";
  const name = about("name", field("Your name", input({ name: "name", autocomplete: "name", maxlength: 200 }), { required: true }));
  const email = about("email", field("E-mail address", input({ type: "email", name: "email", autocomplete: "username" }), { required: true }));
  const place = h("div", { class: "card" });
  put(place, h("div", { class: "form" },
    h("div", {}, h("h1", {}, "Set up the gateway"), h("p", { class: "soft" }, "You are its first user, and its owner: you can invite the others.")),
    form([name, email, password("Password", "password", "new-password", "At least 10 characters.")], {
      submit: "Create the account", wide: true,
      onsubmit: async (target) => {
        const body = { token: token(), name: value(target, "name"), email: value(target, "email"), password: value(target, "password") };
        await api.post("/auth/setup", body);
        history.replaceState(null, "", "/console/overview");
        await done();
      },
    })));
  return place;
}

export function acceptPage({ done }) {
  document.title = "Invitation · Keeptrusts";
  return h("div", { class: "card" }, h("div", { class: "form" },
    h("div", {}, h("h1", {}, "Choose a password"), h("p", { class: "soft" }, "Then you are in.")),
    form([password("New password", "password", "new-password", "At least 10 characters.")], {
      submit: "Save and sign in", wide: true,
      onsubmit: async (target) => {
        await api.post("/auth/invitation", { token: token(), password: value(target, "password") });
        history.replaceState(null, "", "/console/overview");
        await done();
      },
    })));
}
