// The frame of the person's page: who is signed in, which screen is shown, and the theme.

import { makeApi } from "../shared/api.js";
import { loading, state } from "../shared/dialog.js";
import { el, show } from "../shared/dom.js";
import { address, placeOf, SCREENS } from "./screens.js";
import { makeSession, onOtherTab } from "./session.js";
import { themeSwitch } from "./theme_switch.js";

const app = document.getElementById("app");
const bearer = (token) => (token ? { Authorization: `Bearer ${token}` } : {});
let about = null;
let session = null;
let frame = null;
let showing = new AbortController();

const api = makeApi({
  headers: async () => bearer(await session.token()),
  renew: async ({ Authorization: refused = "" }) => (await session.token(refused.slice(7))) !== null,
  onSignedOut: () => {
    session.forget();
    if (frame) leave("Your session has ended. Sign in to go on.");
  },
});

async function start() {
  try {
    about = await makeApi().get("/about");
    session = makeSession(about.auth);
    onOtherTab(() => location.reload());
    if (session.kept) enter();
    else await leave();
  } catch (error) {
    state(app, "The page cannot be opened", error.message, start);
  }
}

function enter() {
  frame = makeFrame();
  show(app, frame.element);
  open();
}

async function leave(reason = null) {
  frame = null;
  showing.abort();
  document.querySelector("dialog")?.close();
  const { askWho } = await import("./sign_in.js");
  askWho(app, { session, about, api, reason, enter });
}

async function signOut() {
  await session.signOut();
  location.hash = "";
  await leave();
}

function makeFrame() {
  const main = el("main", { id: "main" });
  const { element: menu, links, toggle, close } = makeMenu();
  const element = el(
    "div",
    { class: "frame web" },
    el("a", { class: "skip-link", href: "#main", on: { click: skip } }, "Skip to content"),
    el(
      "header",
      { class: "side" },
      el("a", { class: "brand", href: address("timeline") }, el("img", { src: "/assets/icon.svg", alt: "", width: 26, height: 26 }), "Memory Layer"),
      toggle,
      menu,
    ),
    main,
  );
  return { element, links, main, close };

  function skip(event) {
    event.preventDefault();
    main.querySelector("h1")?.focus();
  }
}

function makeMenu() {
  const links = [];
  const groups = [...new Set(SCREENS.map((screen) => screen.group))].filter(Boolean);
  const lists = groups.map((group) => {
    const entries = SCREENS.filter((screen) => screen.group === group).map(({ name, title }) => {
      const link = el("a", { href: address(name), data: { screen: name } }, title);
      links.push(link);
      return el("li", {}, link);
    });
    return el("div", { class: "group" }, el("p", { class: "label" }, group), el("ul", { "aria-label": group }, entries));
  });
  const nav = el("nav", { "aria-label": "Screens" }, lists);
  const element = el("div", { class: "menu", id: "menu" }, nav, who());
  const toggle = el("button", { class: "button compact toggle", type: "button", "aria-expanded": "false", "aria-controls": "menu", on: { click: () => turn(!element.classList.contains("open")) } }, "Menu");
  element.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !element.classList.contains("open")) return;
    turn(false);
    toggle.focus();
  });
  return { element, links, toggle, close: () => turn(false) };

  function turn(open) {
    element.classList.toggle("open", open);
    toggle.setAttribute("aria-expanded", String(open));
  }
}

function who() {
  const { kind, email } = session.kept;
  return el(
    "div",
    { class: "session" },
    themeSwitch(),
    el("p", { class: "muted small who" }, kind === "token" ? "By a personal token" : email),
    el("button", { class: "button compact", type: "button", on: { click: signOut } }, "Sign out"),
  );
}

/** Show the screen that the address names. */
async function open() {
  if (!frame) return;
  showing.abort();
  showing = new AbortController();
  const { signal } = showing;
  const { screen, params, query } = placeOf(location.hash);
  for (const link of frame.links) {
    if (link.dataset.screen === screen.name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  frame.close();
  const heading = el("h1", { tabindex: "-1" });
  const tools = el("div", { class: "row" });
  const root = el("div", { class: "screen", data: { screen: screen.name } });
  show(frame.main, el("div", { class: "heading" }, el("div", { class: "name" }, heading), tools), root);
  title(screen.title);
  heading.focus({ preventScroll: true });
  scrollTo(0, 0);
  loading(root);
  const context = { root, tools, heading, title, api, session: facade(), about, params, query, address, go, signal };

  try {
    const { show: draw } = await import(`./screens/${screen.name}.js`);
    await draw(context);
    root.removeAttribute("aria-busy");
  } catch (error) {
    if (signal.aborted) return;
    root.removeAttribute("aria-busy");
    state(root, error.status === 404 ? "Not found" : "This could not be loaded", error.message, open);
  }

  function title(text) {
    if (signal.aborted) return;
    heading.textContent = text;
    document.title = `${text} · Memory Layer`;
  }
}

function facade() {
  const { kind, email = null } = session.kept;
  return { kind, email, token: () => session.token(), signOut };
}

function go(name, params, query) {
  location.hash = address(name, params, query);
}

addEventListener("hashchange", open);
start();
