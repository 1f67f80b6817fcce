import type { Dead, Status } from "../messages";
import { el, siteName } from "./dom";
import { problemIn, send, tabBeside } from "./worker";

const REFRESH_MS = 1_000;

const $ = (id: string): HTMLElement => document.getElementById(id)!;
let tabId: number | null = null;
let shown = "";
let failures = 0;

interface Said {
  kind: "good" | "warn" | "bad" | "";
  state: string;
  detail: string;
  actions: (HTMLElement | false)[];
}

function action(text: string, work: () => Promise<unknown>, main = false): HTMLElement {
  const button = el("button", { type: "button", textContent: text, className: main ? "main" : "" });
  button.addEventListener("click", () => {
    button.disabled = true;
    void work().then(refresh);
  });
  return button;
}

const openSettings = () => chrome.tabs.create({ url: "welcome.html" });

function say(status: Status): Said {
  if (!status.agreed || !status.account) {
    const state = status.agreed ? "Signed out: nothing is saved" : "Not set up: nothing is saved";
    const detail = waitingText(status);
    return { kind: "warn", state, detail, actions: [action("Set up", openSettings, true)] };
  }
  if (status.needsSignIn) {
    const detail = `The server asks for a new sign-in. ${status.waiting} waiting here, safely.`;
    return { kind: "bad", state: "Sign in again", detail, actions: [action("Sign in", openSettings, true)] };
  }
  const here = sayHere(status);
  const trouble = sayTrouble(status);
  return trouble ? { ...trouble, actions: [...trouble.actions, ...here.actions] } : here;
}

/** What keeps captures from reaching the server counts more than what this page does. */
function sayTrouble(status: Status): Said | null {
  const retry = action("Try now", () => send({ type: "retryNow" }));
  if (status.full) {
    const detail = "New turns are not kept until the server takes some of what waits.";
    return { kind: "bad", state: "The outbox is full", detail, actions: [retry] };
  }
  if (status.waiting === 0 || !status.why) return null;
  const until = status.until ? new Date(status.until).toLocaleTimeString() : "";
  const why = {
    away: `The server at ${status.server} does not answer.`,
    busy: "The server asks for patience.",
    quota: `Today's requests are spent. Saving goes on at ${until}.`,
  }[status.why];
  const actions = status.why === "quota" ? [] : [retry];
  return { kind: "warn", state: `${status.waiting} waiting`, detail: `${why} Nothing is lost.`, actions };
}

function sayHere(status: Status): Said {
  const { here } = status;
  if (!here) {
    const state = status.waiting > 0 ? `${status.waiting} waiting` : "Ready";
    const names = status.sites.filter(({ on }) => on).map(({ name }) => name);
    const detail = names.length > 0 ? `Saving on ${names.join(", ")}.` : "No site is switched on.";
    return { kind: names.length > 0 ? "good" : "warn", state, detail, actions: [] };
  }
  const site = status.sites.find(({ id }) => id === here.site)!;
  const on = action(`Save on ${site.name}`, () => send({ type: "setSite", site: site.id, on: true }), true);
  const off = action(`Pause on ${site.name}`, () => send({ type: "setSite", site: site.id, on: false }));
  if (here.standing === "off") {
    return { kind: "warn", state: `Paused on ${site.name}`, detail: "", actions: [on] };
  }
  if (here.standing === "incognito") {
    return { kind: "", state: "Not saving: a private window", detail: "", actions: [] };
  }
  const pause = (paused: boolean) => () => send({ type: "setPause", tabId: tabId!, paused });
  if (here.paused) {
    const actions = [action("Save this conversation again", pause(false), true)];
    return { kind: "warn", state: "This conversation is paused", detail: "", actions };
  }
  const actions = [action("Pause this conversation", pause(true)), off];
  const detail = counted(here.saved, here.all);
  if (status.dead.length > 0) {
    const state = `Saving on ${site.name}, with ${status.dead.length} not accepted`;
    return { kind: "warn", state, detail, actions };
  }
  if (here.domMode || !here.tapped) {
    const state = `${site.name} has changed: saving what the page shows`;
    return { kind: "warn", state, detail, actions };
  }
  return { kind: "good", state: `Saving on ${site.name}`, detail, actions };
}

function counted(saved: number, all: number): string {
  if (all === 0) return "No turn of this conversation yet.";
  return `${saved} of ${all} turn${all === 1 ? "" : "s"} of this conversation saved.`;
}

function waitingText({ others }: Status): string {
  return others > 0 ? `${others} waiting for the account under which they were captured.` : "";
}

function show(status: Status): void {
  // What has focus must not be replaced under it while nothing has changed.
  const now = JSON.stringify(status);
  if (now === shown) return;
  shown = now;
  const { kind, state, detail, actions } = say(status);
  $("state").textContent = state;
  $("state").className = `state ${kind}`;
  $("detail").textContent = [detail, status.account ? waitingText(status) : ""].filter(Boolean).join(" ");
  $("actions").replaceChildren(...actions.filter((one) => one !== false));
  $("who").textContent = status.account ?? "";
  $("who").title = status.server;
  showLast(status);
  $("dead").hidden = status.dead.length === 0;
  $("dead-list").replaceChildren(...status.dead.map(deadItem));
}

function showLast({ last }: Status): void {
  $("last").hidden = !last;
  if (!last) return;
  const time = new Date(last.at).toLocaleTimeString(undefined, { timeStyle: "short" });
  $("last-when").textContent = `Last saved · ${siteName(last.provider)} · ${time}`;
  $("last-label").textContent = last.label;
  $("undo").onclick = async () => {
    const problem = problemIn(await send({ type: "undo", key: last.key }));
    await refresh();
    if (problem) $("detail").textContent = problem;
  };
}

function deadItem(dead: Dead): HTMLElement {
  const buttons = el(
    "div",
    { className: "row" },
    action("Try again", () => send({ type: "retryDead", key: dead.key })),
    action("Copy text", () => navigator.clipboard.writeText(dead.text)),
    action("Discard", () => send({ type: "discardDead", key: dead.key })),
  );
  const label = el("div", { className: "one-line", textContent: dead.label || dead.text });
  return el("li", {}, label, el("small", { textContent: `${dead.code}: ${dead.message}` }), buttons);
}

async function refresh(): Promise<void> {
  const status = await send<Status | undefined>({ type: "status", tabId }).catch(() => undefined);
  failures = status ? 0 : failures + 1;
  if (status) show(status);
  // A worker that was ended in the middle answers the next time.
  else if (failures > 2) sayBroken();
}

/** The worker cannot even say how things stand. */
function sayBroken(): void {
  shown = "";
  $("state").textContent = "Memory Layer does not work";
  $("state").className = "state bad";
  $("detail").textContent = "It cannot read what it keeps in this browser: is the disk full? Restart the browser.";
  $("actions").replaceChildren();
}

async function openPanel(query: string): Promise<void> {
  const { id } = await chrome.windows.getCurrent();
  await chrome.storage.local.set({ query });
  // A browser without a side panel shows it in a tab.
  if (!chrome.sidePanel?.open) await chrome.tabs.create({ url: "panel.html" });
  else if (id !== undefined) await chrome.sidePanel.open({ windowId: id });
}

$("search").addEventListener("submit", (event) => {
  event.preventDefault();
  void openPanel(($("query") as HTMLInputElement).value);
});
$("set-up").addEventListener("click", () => void openSettings());
$("copy").addEventListener("click", () => {
  void send<string>({ type: "diagnostics" })
    .then((text) => navigator.clipboard.writeText(text))
    .then(() => ($("copy").textContent = "Copied"));
});
void tabBeside().then(async (id) => {
  tabId = id;
  await refresh();
  setInterval(() => void refresh(), REFRESH_MS);
});
