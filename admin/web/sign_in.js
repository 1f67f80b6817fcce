// The door: sign in, make an account, or come with a personal token.

import { field } from "../shared/dialog.js";
import { el, say, show } from "../shared/dom.js";

const WAYS = {
  signIn: { title: "Welcome back", action: "Sign in", password: "current-password" },
  signUp: { title: "Make your account", action: "Create account", password: "new-password" },
  token: { title: "Use a personal token", action: "Go on" },
};

/** Show the door in `app`; `enter` is called when somebody is signed in. */
export function askWho(app, { session, about, api, reason = null, enter }) {
  const { auth } = about;
  draw(auth.can_sign_in ? "signIn" : "token");

  function draw(way) {
    const { title, action, password } = WAYS[way];
    const problem = el("p", { class: "callout bad", role: "alert", hidden: true });
    const told = el("p", { class: "callout", role: "status", hidden: !reason }, reason);
    const button = el("button", { class: "button primary" }, action);
    const stay = el("input", { type: "checkbox", name: "stay", checked: true });
    const first = way === "token" ? tokenField() : el("input", { class: "input", type: "email", name: "email", autocomplete: "username", required: true, maxlength: 320 });
    const secret = password && el("input", { class: "input", type: "password", name: "password", autocomplete: password, required: true, minlength: way === "signUp" ? 8 : null });
    const form = el(
      "form",
      { on: { submit } },
      el("div", { class: "brand" }, el("img", { src: "/assets/icon.svg", alt: "", width: 28, height: 28 }), "Memory Layer"),
      el("div", {}, el("h1", {}, title), el("p", { class: "muted" }, introduction(way, auth))),
      told,
      field(way === "token" ? "Token" : "E-mail", first),
      secret && field("Password", secret, way === "signUp" ? "At least 8 characters." : null),
      el("label", { class: "check" }, stay, "Keep me signed in on this device"),
      problem,
      button,
      el("div", { class: "ways" }, ways(way)),
    );
    document.title = `${action} · Memory Layer`;
    show(app, el("main", { class: "door" }, el("div", { class: "card" }, form)));
    first.focus();

    async function submit(event) {
      event.preventDefault();
      button.disabled = true;
      problem.hidden = true;
      try {
        const keep = { stay: stay.checked };
        if (way === "token") await tryToken(first.value, keep);
        else if (!(await session[way](first.value.trim(), secret.value, keep) ?? true)) return confirmMail(first.value);
        enter();
      } catch (error) {
        say(problem, error.retryAfter ? `${error.message} Try again in ${error.retryAfter} seconds.` : error.message);
        problem.hidden = false;
        button.disabled = false;
        (secret ?? first).select();
      }
    }
  }

  async function tryToken(token, keep) {
    session.useToken(token.replace(/[^\x21-\x7e]/g, ""), keep);
    try {
      await api.get("/usage");
    } catch (error) {
      session.forget();
      throw error;
    }
  }

  function confirmMail(email) {
    reason = `A mail is on its way to ${email}. Open the link in it, then sign in here.`;
    draw("signIn");
  }

  function ways(way) {
    const offered = [
      way !== "signIn" && auth.can_sign_in && ["signIn", "I have an account"],
      way !== "signUp" && auth.can_sign_in && auth.can_sign_up && ["signUp", "Make an account"],
      way !== "token" && ["token", "Use a personal token"],
    ];
    return offered.filter(Boolean).map(([to, text]) => el("button", { class: "button quiet compact", type: "button", on: { click: () => turn(to) } }, text));
  }

  function turn(way) {
    reason = null;
    draw(way);
  }
}

function tokenField() {
  return el("input", { class: "input mono", type: "password", name: "token", autocomplete: "off", required: true, placeholder: "ml_…" });
}

function introduction(way, auth) {
  if (way === "token") return auth.can_sign_in ? "It shows what its scopes allow." : "This server has not been told how people sign in; a token works all the same.";
  if (auth.kind === "local") return way === "signUp" ? "It stays on this server. Nothing is mailed, so keep the password well." : "Your chats, word for word, in one place.";
  return "Your chats, word for word, in one place.";
}
