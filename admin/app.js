// The panel's frame: who is signed in, which screen is shown, and when it is asked for anew.

import { makeApi } from "./shared/api.js";
import { loading, notice, state } from "./shared/dialog.js";
import { el, say, show } from "./shared/dom.js";
import { clockOf } from "./shared/format.js";

// Each is a module of its own, fetched when it is first shown.
const SCREENS = { overview: "Overview", users: "Users", limits: "Limits", system: "System", audit: "Audit" };

const app = document.getElementById("app");
const api = makeApi({ base: "/admin/api", onSignedOut: () => frame && leave("Your session has ended. Sign in to go on.") });
let frame = null;
let showing = 0;
let timer = null;

async function start() {
  try {
    const session = await api.get("/session");
    if (session.signed_in) enter(session);
    else await askForKey(session);
  } catch (error) {
    state(app, "The panel cannot be opened", error.message, start);
  }
}

function enter(session) {
  frame = makeFrame(session);
  show(app, frame.element);
  open();
}

async function askForKey(session) {
  const { signIn } = await import("./sign_in.js");
  signIn(app, api, session, enter);
}

function leave(reason = null) {
  frame = null;
  stop();
  document.querySelector("dialog")?.close();
  return askForKey({ configured: true, reason });
}

function makeFrame(session) {
  const links = Object.entries(SCREENS).map(([name, title]) => el("a", { href: `#/${name}`, data: { screen: name } }, title));
  const main = el("main", { id: "main" });
  const element = el(
    "div",
    { class: "frame" },
    el("a", { class: "skip-link", href: "#main", on: { click: skip } }, "Skip to content"),
    el(
      "header",
      { class: "side" },
      el("div", { class: "brand" }, el("img", { src: "/assets/icon.svg", alt: "", width: 26, height: 26 }), "Memory Layer"),
      el("nav", { "aria-label": "Screens" }, el("ul", {}, links.map((link) => el("li", {}, link)))),
      el(
        "div",
        { class: "session" },
        el("p", { class: "muted small" }, `Signed in until ${clockOf(session.expires_at)}`),
        el("button", { class: "button compact", type: "button", on: { click: signOut } }, "Sign out"),
      ),
    ),
    main,
  );
  return { element, links, main };

  function skip(event) {
    event.preventDefault();
    main.querySelector("h1")?.focus();
  }
}

async function signOut() {
  try {
    await api.delete("/session");
    await leave();
  } catch (error) {
    if (error.status !== 401) notice(error.message, { bad: true });
  }
}

function stop() {
  showing += 1;
  clearTimeout(timer);
}

/** Show the screen that the address names. */
async function open() {
  if (!frame) return;
  stop();
  const mine = showing;
  const [name, id] = location.hash.replace(/^#\/?/, "").split("/");
  const known = name in SCREENS ? name : "overview";
  const title = SCREENS[known];
  for (const link of frame.links) {
    if (link.dataset.screen === known) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const heading = el("h1", { tabindex: "-1" }, title);
  const tools = el("div", { class: "row" });
  const fresh = el("span", { class: "badge" });
  const body = el("div", { class: "screen" });
  tools.append(fresh);
  fresh.hidden = true;
  show(frame.main, el("div", { class: "heading" }, el("div", {}, heading), tools), body);
  document.title = `${title} · Memory Layer`;
  heading.focus({ preventScroll: true });
  scrollTo(0, 0);
  loading(body);

  try {
    const screen = await import(`./views/${known === "users" && id ? "user" : known}.js`);
    const view = await screen.open({ api, heading, tools, body, id: id && decodeURIComponent(id) });
    if (mine === showing && view?.refresh) keepFresh(view, fresh, mine);
  } catch (error) {
    if (mine !== showing) return;
    body.removeAttribute("aria-busy");
    state(body, error.status === 404 ? "Not found" : "This could not be loaded", error.message, open);
  }
}

/** Ask again every few seconds, but not for a tab that nobody sees. */
function keepFresh(view, badge, mine) {
  badge.hidden = false;
  mark(null);

  function mark(problem) {
    badge.className = problem ? "badge warn dot" : "badge good dot";
    say(badge, problem ? "Not up to date: the server does not answer" : "Live");
  }

  function later() {
    timer = setTimeout(turn, view.every);
  }

  async function turn() {
    if (mine !== showing) return;
    if (!document.hidden) {
      try {
        await view.refresh();
        if (mine === showing) mark(null);
      } catch (error) {
        if (mine === showing) mark(error);
      }
    }
    if (mine === showing) later();
  }

  later();
}

addEventListener("hashchange", open);
start();
