// The door: the admin key is exchanged for a session and kept nowhere.

import { field } from "./shared/dialog.js";
import { el, say, show } from "./shared/dom.js";

const brand = () => el("div", { class: "brand" }, el("img", { src: "/assets/icon.svg", alt: "", width: 28, height: 28 }), "Memory Layer");

export function signIn(app, api, { configured, reason = null }, enter) {
  document.title = "Sign in · Memory Layer";
  show(app, el("main", { class: "door" }, el("div", { class: "card" }, configured ? form() : closed())));
  app.querySelector("input[type=password]")?.focus();

  function form() {
    const input = el("input", { class: "input mono", type: "password", name: "key", autocomplete: "current-password", required: true });
    const problem = el("p", { class: "callout bad", role: "alert", hidden: true });
    const button = el("button", { class: "button primary" }, "Sign in");
    return el(
      "form",
      { on: { submit } },
      brand(),
      el("h1", {}, "Sign in to the panel"),
      reason && el("p", { class: "callout", role: "status" }, reason),
      // Password managers keep a key under a name.
      el("input", { type: "text", name: "username", autocomplete: "username", value: "operator", readonly: true, hidden: true }),
      field("Admin key", input, "At home it is in the file admin-key of the data folder."),
      problem,
      button,
    );

    async function submit(event) {
      event.preventDefault();
      button.disabled = true;
      problem.hidden = true;
      try {
        const session = await api.call("POST", "/session", { more: { "X-Admin-Key": headerOf(input.value) } });
        input.value = "";
        enter(session);
      } catch (error) {
        say(problem, error.retryAfter ? `${error.message} Try again in ${error.retryAfter} seconds.` : error.message);
        problem.hidden = false;
        input.setAttribute("aria-invalid", "true");
        button.disabled = false;
        input.select();
      }
    }
  }
}

/** What a header cannot carry is no key either. */
const headerOf = (text) => text.trim().replace(/[^\x21-\x7e]/g, "?");

function closed() {
  return el(
    "div",
    { class: "closed" },
    brand(),
    el("h1", {}, "No admin key is configured"),
    el("p", {}, "Make one on the server, set it as ADMIN_API_KEY, and start the server again."),
    el("code", {}, "python main.py admin-key"),
  );
}
