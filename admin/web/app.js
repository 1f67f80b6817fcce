// The frame of the person's page: who is signed in, which screen is shown, and the theme.

import { makeApi } from "../shared/api.js";
import { loading, state } from "../shared/dialog.js";
import { el, show } from "../shared/dom.js";
import { address, placeOf, SCREENS } from "./screens.js";
import { makeSession, onOtherTab } from "./session.js";

const app = document.getElementById("app");
const bearer = (token) => (token ? { Authorization: `Bearer ${token}` } : {});
// What is asked by POST and changes nothing.
const QUESTIONS = ["/search", "/rag/query"];
const MOST_KEPT = 4;
const THEME_KEY = "memory-layer-theme";
const THEMES = { "": "Auto", light: "Light", dark: "Dark" };
const kept = new Map();
let visits = Date.now();
let about = null;
let session = null;
let frame = null;
let current = null;
let wasOpen = false;

const api = makeApi({
  headers: async () => bearer(await session.token()),
  renew: async ({ Authorization: refused = "" }) => (await session.token(refused.slice(7))) !== null,
  onDone: (method, path) => method !== "GET" && !QUESTIONS.includes(path) && forgetKept(),
  onSignedOut: () => {
    session.forget();
    if (frame) leave("Your session has ended. Sign in to go on.");
  },
});

async function start() {
  try {
    // Its modules are on their way while the server says what it is.
    fetchScreen(placeOf(location.hash).screen).catch(() => {});
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
  // Whoever it was before, nothing of theirs is left in memory.
  if (wasOpen) return location.reload();
  wasOpen = true;
  frame = makeFrame();
  show(app, frame.element);
  open();
}

async function leave(reason = null) {
  frame = null;
  current?.controller.abort();
  current = null;
  forgetKept();
  document.querySelector("dialog")?.close();
  const { askWho } = await import("./sign_in.js");
  askWho(app, { session, about, api, reason, enter });
}

async function signOut() {
  await session.signOut();
  history.replaceState(null, "", location.pathname);
  location.reload();
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

/** Light, dark, or as the system has it; theme.js applies it before the next page is painted. */
function themeSwitch() {
  const root = document.documentElement;
  const buttons = Object.entries(THEMES).map(([theme, text]) => el("button", { type: "button", "aria-pressed": String((root.dataset.theme ?? "") === theme), on: { click: () => choose(theme) } }, text));
  return el("div", { class: "segments", role: "group", "aria-label": "Theme" }, buttons);

  function choose(theme) {
    if (theme) root.dataset.theme = theme;
    else delete root.dataset.theme;
    localStorage.setItem(THEME_KEY, theme);
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.textContent === THEMES[theme]));
  }
}

/** Show the screen that the address names: as it was left, where one comes back to it. */
function open() {
  if (!frame) return;
  setAside();
  const { screen, params, query } = placeOf(location.hash);
  for (const link of frame.links) {
    if (link.dataset.screen === screen.name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  frame.close();
  const visit = history.state?.visit ?? (visits += 1);
  history.replaceState({ visit }, "");
  const left = kept.get(visit);
  kept.delete(visit);
  if (left) comeBack(left);
  else draw(screen, params, query, visit);
}

function setAside() {
  if (!current) return;
  current.scroll = scrollY;
  if (current.keep) kept.set(current.visit, current);
  else current.controller.abort();
  if (kept.size > MOST_KEPT) forget(kept.keys().next().value);
}

function forgetKept() {
  [...kept.keys()].forEach(forget);
}

function forget(visit) {
  kept.get(visit).controller.abort();
  kept.delete(visit);
}

function comeBack(left) {
  current = left;
  show(frame.main, left.nodes);
  document.title = left.title;
  left.heading.focus({ preventScroll: true });
  scrollTo(0, left.scroll);
}

async function draw(screen, params, query, visit) {
  const heading = el("h1", { tabindex: "-1" });
  const tools = el("div", { class: "row" });
  const root = el("div", { class: "screen", data: { screen: screen.name } });
  const nodes = [el("div", { class: "heading" }, el("div", { class: "name" }, heading), tools), root];
  const mine = { visit, heading, nodes, controller: new AbortController(), keep: false };
  const { signal } = mine.controller;
  current = mine;
  show(frame.main, nodes);
  title(screen.title);
  heading.focus({ preventScroll: true });
  scrollTo(0, 0);
  loading(root);

  try {
    const module = await fetchScreen(screen);
    await module.show({ root, tools, heading, title, api, session: facade(), about, params, query, address, go, rewrite, signal });
    mine.keep = module.keep === true && current === mine;
    root.removeAttribute("aria-busy");
  } catch (error) {
    if (signal.aborted) return;
    root.removeAttribute("aria-busy");
    state(root, error.status === 404 ? "Not found" : "This could not be loaded", error.message, open);
  }

  function title(text) {
    heading.textContent = text;
    mine.title = `${text} · Memory Layer`;
    if (current === mine) document.title = mine.title;
  }

  function rewrite(params, query) {
    if (current === mine) history.replaceState(history.state, "", address(screen.name, params, query));
  }
}

const fetchScreen = ({ name }) => import(`./screens/${name}.js`);

function facade() {
  const { kind, email = null } = session.kept;
  return { kind, email, token: () => session.token(), signOut };
}

function go(name, params, query) {
  location.hash = address(name, params, query);
}

/** A slash leads to the search, as it does elsewhere. */
function shortcut(event) {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || !frame) return;
  if (event.target.closest("input, textarea, select, dialog")) return;
  event.preventDefault();
  if (current?.nodes[1].dataset.screen === "search") current.nodes[1].querySelector("input")?.focus();
  else go("search");
}

history.scrollRestoration = "manual";
addEventListener("hashchange", open);
addEventListener("keydown", shortcut);
start();
