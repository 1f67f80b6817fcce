import type { Status } from "../messages";
import { SITES } from "../sites/all";
import type { SiteId } from "../sites/site";
import { el } from "./dom";
import { problemIn, send } from "./worker";

const $ = <E extends HTMLElement = HTMLElement>(id: string): E =>
  document.getElementById(id) as E;
const valueOf = (id: string): string => $<HTMLInputElement>(id).value;
const AT_HOME = /^http:\/\/127\.0\.0\.1(:\d+)?$/;

let status: Status;

function say(id: string, text: string, isProblem: boolean): void {
  $(id).textContent = text;
  $(id).className = isProblem ? "problem" : "soft";
}

/** Do one step, say how it went beside it, and show how things stand now. */
async function step(said: string, message: Parameters<typeof send>[0], done: string): Promise<unknown> {
  say(said, "…", false);
  const answer = await send<unknown>(message).catch(() => ({ problem: "That has failed." }));
  const problem = problemIn(answer);
  say(said, problem ?? done, problem !== undefined);
  await refresh();
  return problem === undefined ? answer : undefined;
}

async function refresh(): Promise<void> {
  status = await send<Status>({ type: "status", tabId: null });
  const signedIn = status.account !== null && !status.needsSignIn;
  $("signed-in").hidden = !signedIn;
  $("signed-out").hidden = signedIn;
  $("who").textContent = status.account ?? "";
  $("goes-to").textContent = status.server;
  $("withdraw").hidden = !status.agreed;
  $("agree").hidden = status.agreed;
  $<HTMLInputElement>("incognito").checked = status.incognito;
  for (const site of status.sites) {
    // Before the agreement the boxes are a proposal of the user's, not a setting.
    if (status.agreed) $<HTMLInputElement>(`site-${site.id}`).checked = site.on;
  }
  $<HTMLButtonElement>("agree").disabled = chosen().length === 0;
  showState(signedIn);
}

function showState(signedIn: boolean): void {
  const on = status.sites.filter((site) => site.on).map(({ name }) => name);
  const saving = signedIn && status.agreed && on.length > 0;
  $("state").className = `card state ${saving ? "good" : "warn"}`;
  $("state").textContent = saving
    ? `Saving on ${on.join(", ")}. You can close this page.`
    : !signedIn
      ? "Nothing is saved yet: say where, and sign in."
      : !status.agreed
        ? "Nothing is saved yet: choose the sites below and agree."
        : "Nothing is saved: no site is switched on.";
}

function makeSites(): void {
  for (const { id, name } of SITES) {
    const box = el("input", { type: "checkbox", id: `site-${id}` });
    box.addEventListener("change", () => void toggle(id, box));
    const note = id === "xgrok" ? " (asks for permission on x.com)" : "";
    $("sites").append(el("label", { className: "check" }, box, name + note));
  }
}

async function toggle(id: SiteId, box: HTMLInputElement): Promise<void> {
  if (id === "xgrok" && box.checked) {
    const origins = SITES.find((site) => site.id === id)!.matches;
    box.checked = await chrome.permissions.request({ permissions: ["scripting"], origins });
  }
  if (status.agreed) await send({ type: "setSite", site: id, on: box.checked });
  await refresh();
}

function chosen(): SiteId[] {
  return SITES.map(({ id }) => id).filter((id) => $<HTMLInputElement>(`site-${id}`).checked);
}

/** The permission for exactly one host; the one at home comes with the extension. */
async function mayCall(address: string): Promise<boolean> {
  const url = new URL(address);
  if (AT_HOME.test(url.origin)) return true;
  return chrome.permissions.request({ origins: [`${url.protocol}//${url.hostname}/*`] });
}

function withScheme(address: string): string {
  return /^https?:\/\//i.test(address) ? address : `http://${address}`;
}

async function useServer(): Promise<void> {
  const address = withScheme(valueOf("server").trim());
  if (!URL.canParse(address)) return say("server-said", "That is no address of a server.", true);
  if (!(await mayCall(address))) {
    return say("server-said", "Without the permission nothing can be saved there.", true);
  }
  showOptions(await step("server-said", { type: "useServer", server: address }, "It answers."));
}

function showOptions(answer: unknown): void {
  const options = answer as { answers: boolean; services: string[] } | undefined;
  if (!options) return;
  $("supabase-form").hidden = options.answers;
  $("sign-in-form").hidden = !options.answers;
  $("services").replaceChildren(
    ...options.services.map((service) => {
      const button = el("button", { type: "button", textContent: `Continue with ${service}` });
      button.addEventListener("click", () => void signInWith(service));
      return button;
    }),
  );
}

async function signInWith(service: string): Promise<void> {
  if (await chrome.permissions.request({ permissions: ["identity"] })) {
    await step("account-said", { type: "signInWith", service }, "");
  }
}

async function useSupabase(): Promise<void> {
  const url = withScheme(valueOf("supabase-url").trim());
  if (!URL.canParse(url) || !(await mayCall(url))) return;
  const message = { type: "useSupabase", url, key: valueOf("supabase-key").trim() } as const;
  showOptions(await step("account-said", message, ""));
}

async function signIn(type: "signIn" | "signUp"): Promise<void> {
  if (!$<HTMLFormElement>("sign-in-form").reportValidity()) return;
  const credentials = { email: valueOf("email"), password: valueOf("password") };
  if (await step("account-said", { type, ...credentials }, "")) {
    $<HTMLInputElement>("password").value = "";
  }
}

function onSubmit(id: string, work: () => Promise<void>): void {
  $(id).addEventListener("submit", (event) => {
    event.preventDefault();
    void work();
  });
}

onSubmit("server-form", useServer);
onSubmit("supabase-form", useSupabase);
onSubmit("sign-in-form", () => signIn("signIn"));
onSubmit("token-form", async () => {
  await step("account-said", { type: "useToken", token: valueOf("token") }, "");
  $<HTMLInputElement>("token").value = "";
});
$("sign-up").addEventListener("click", () => void signIn("signUp"));
$("sign-out").addEventListener("click", () => void step("account-said", { type: "signOut" }, ""));
$("incognito").addEventListener("change", () => {
  void send({ type: "setIncognito", on: $<HTMLInputElement>("incognito").checked }).then(refresh);
});
$("agree").addEventListener("click", () => {
  void send({ type: "agree", sites: chosen() }).then(refresh);
});
$("withdraw").addEventListener("click", () => void send({ type: "withdraw" }).then(refresh));

makeSites();
void refresh().then(() => {
  $<HTMLInputElement>("server").value = status.server;
  if (!status.account) return useServerQuietly();
  return undefined;
});

/** The server at home is usually there already: then say so without being asked. */
async function useServerQuietly(): Promise<void> {
  if (AT_HOME.test(status.server)) await useServer();
}
