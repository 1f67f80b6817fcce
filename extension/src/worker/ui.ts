// Answers to popup, side panel and welcome page.

import { contextBlock } from "../marker";
import type { Dead, FromUi, Outcome, Status, ToPage, Where } from "../messages";
import { SITES } from "../sites/all";
import { textAt, parse } from "../sites/json";
import type { SiteId } from "../sites/site";
import { flush, flushNow, queue } from "./delivery";
import { rows } from "./health";
import * as ledger from "./ledger";
import { ask, conversation, search } from "./memories";
import * as outbox from "./outbox";
import type { Reply } from "./rules";
import { call, fetchEnvelope, Problem, sentence } from "./server";
import { signIn, signInOptions, signInWith, signOut, useToken } from "./session";
import { change, pauseConversation, settings } from "./settings";
import { announce, standingFor, tell } from "./standing";

const OPTIONAL = new Set<SiteId>(["xgrok"]);

export async function answerUi(message: FromUi): Promise<unknown> {
  try {
    return await answer(message);
  } catch (error) {
    if (error instanceof Problem) return { problem: error.message };
    throw error;
  }
}

async function answer(message: FromUi): Promise<unknown> {
  switch (message.type) {
    case "status":
      return status(message.tabId);
    case "find":
      return { found: await search(message.query, 20, message.filters) };
    case "conversation":
      return { found: await conversation(message.provider, message.conversationId) };
    case "ask":
      return ask(message.question);
    case "insert":
      return insert(message.tabId, { type: "insert", text: contextBlock(message.found) });
    case "undo":
      return undo(message.key);
    case "diagnostics":
      return diagnostics();
    case "retryNow":
      return done(flushNow());
    case "retryDead":
      return done(outbox.revive(message.key).then(flush));
    case "discardDead":
      return done(outbox.discard(message.key));
    default:
      return arrange(message);
  }
}

async function done(work: Promise<unknown>): Promise<Outcome> {
  await work;
  return { ok: true };
}

type Arranging = Extract<
  FromUi,
  {
    type:
      | "setPause" | "setSite" | "setIncognito" | "agree" | "withdraw" | "useServer"
      | "signIn" | "signUp" | "signInWith" | "useToken" | "useSupabase" | "signOut";
  }
>;

/** What changes whether and where something is saved: every page hears of it. */
async function arrange(message: Arranging): Promise<unknown> {
  const outcome = await arranged(message);
  await announce();
  await flush();
  return outcome ?? { ok: true };
}

async function arranged(message: Arranging): Promise<unknown> {
  switch (message.type) {
    case "setPause":
      return setPause(message.tabId, message.paused);
    case "setSite":
      return setSite(message.site, message.on);
    case "setIncognito":
      return change({ incognito: message.on });
    case "agree":
      for (const site of message.sites) await setSite(site, true);
      return change({ agreedAt: new Date().toISOString() });
    case "withdraw":
      return change({ agreedAt: null, sites: [] });
    case "useServer":
      return useServer(message.server);
    case "useSupabase":
      await change({ supabase: { url: origin(message.url), key: message.key } });
      return signInOptions();
    case "signIn":
      return signIn(message.email, message.password, false);
    case "signUp":
      return signIn(message.email, message.password, true);
    case "signInWith":
      return signInWith(message.service);
    case "useToken":
      return useToken(message.token.trim());
    case "signOut":
      return signOut();
  }
}

async function useServer(address: string): Promise<unknown> {
  const server = origin(address);
  const { reply } = await fetchEnvelope(`${server}/healthz`, "GET");
  if (reply.status === 0) throw new Problem(`Nothing answers at ${server}. Is the server running?`);
  if (!reply.ours) throw new Problem(`What answers at ${server} is no Memory Layer server.`);
  const before = await settings();
  if (before.server !== server) {
    if (before.account) await signOut();
    await change({ server, supabase: null });
  }
  return signInOptions();
}

function origin(address: string): string {
  const text = address.trim();
  try {
    return new URL(/^https?:\/\//i.test(text) ? text : `http://${text}`).origin;
  } catch {
    throw new Problem("That is no address of a server.");
  }
}

async function setSite(id: SiteId, on: boolean): Promise<void> {
  const { sites } = await settings();
  const others = sites.filter((one) => one !== id);
  await change({ sites: on ? [...others, id] : others });
  if (OPTIONAL.has(id)) await registerOptional(id, on);
}

/** Sites that are not in the manifest run their scripts once their permission was granted. */
export async function registerOptionalSites(): Promise<void> {
  const { sites } = await settings();
  for (const id of sites) if (OPTIONAL.has(id)) await registerOptional(id, true);
}

async function registerOptional(id: SiteId, on: boolean): Promise<void> {
  const site = SITES.find((one) => one.id === id)!;
  const granted = await chrome.permissions.contains({
    permissions: ["scripting"],
    origins: site.matches,
  });
  if (!granted) return;
  const ids = [`${id}-tap`, `${id}-content`];
  const known = await chrome.scripting.getRegisteredContentScripts({ ids });
  if (known.length > 0) await chrome.scripting.unregisterContentScripts({ ids });
  if (!on) return;
  const common = { matches: site.matches, runAt: "document_start" as const };
  await chrome.scripting.registerContentScripts([
    { ...common, id: ids[0]!, js: ["tap.js"], world: "MAIN" },
    { ...common, id: ids[1]!, js: ["content.js"] },
  ]);
}

async function setPause(tabId: number, paused: boolean): Promise<void> {
  const where = await tell<Where>(tabId, { type: "where" });
  if (!where) return;
  if (where.conversationId) await pauseConversation(where.provider, where.conversationId, paused);
  else await tell(tabId, { type: "pauseHere", paused });
}

async function insert(tabId: number, message: ToPage): Promise<Outcome> {
  const said = await tell<string>(tabId, message);
  if (said === undefined) throw new Problem("Open a chat in the tab beside this panel first.");
  return said === "" ? { ok: true } : { problem: said };
}

async function undo(key: string): Promise<Outcome> {
  const turn = await ledger.turn(key);
  if (!turn) return { ok: true };
  // The server first: what it still has must not look undone here.
  const { reply } = await call("DELETE", `/memories/${turn.id}`);
  if (!isGone(reply)) throw new Problem(sentence(reply));
  await outbox.undo(key);
  return { ok: true };
}

function isGone({ ours, status }: Reply): boolean {
  return ours && (status < 300 || status === 404);
}

async function status(tabId: number | null): Promise<Status> {
  const now = await settings();
  const all = await outbox.deliveries();
  const alive = all.filter(({ dead }) => !dead);
  const ours = alive.filter(({ account }) => account === now.account?.id);
  const { until, why } = await queue();
  const last = now.account && (await ledger.lastSaved(now.account.id));
  return {
    server: now.server,
    account: now.account?.label ?? null,
    needsSignIn: now.needsSignIn,
    agreed: now.agreedAt !== null,
    incognito: now.incognito,
    sites: SITES.map(({ id, name }) => ({
      id,
      name,
      on: now.sites.includes(id),
      optional: OPTIONAL.has(id),
    })),
    here: await here(tabId),
    waiting: ours.length,
    others: alive.length - ours.length,
    until: until > Date.now() ? until : null,
    why: until > Date.now() ? why : null,
    full: await outbox.wasFull(),
    dead: await Promise.all(all.filter(({ dead }) => dead).map(described)),
    last: last
      ? { key: last.key, label: last.label, provider: last.provider, at: last.createdAt }
      : null,
  };
}

async function described(delivery: outbox.Delivery): Promise<Dead> {
  const kept = await outbox.read(delivery.key);
  const body = parse(kept?.body ?? "");
  return {
    key: delivery.key,
    label: kept?.turn.label ?? "",
    code: delivery.dead?.code ?? "",
    message: delivery.dead?.message ?? "",
    text: textAt(body, "prompt") ?? textAt(body, "response") ?? "",
  };
}

async function here(tabId: number | null): Promise<Status["here"]> {
  const where = tabId === null ? undefined : await tell<Where>(tabId, { type: "where" });
  const site = SITES.find(({ id }) => id === where?.site);
  if (tabId === null || !where || !site) return null;
  const now = await settings();
  const tab = await chrome.tabs.get(tabId);
  const counted =
    now.account && where.conversationId
      ? await ledger.countTurns(now.account.id, site.provider, where.conversationId)
      : { saved: 0, all: 0 };
  const paused = now.paused.some(
    ({ provider, conversationId }) =>
      provider === site.provider && conversationId === where.conversationId,
  );
  const standing = standingFor(site, tab.incognito, now);
  return { ...where, ...counted, standing, paused: paused || where.pausedHere };
}

/** What helps to find a fault, without a word of what anybody wrote. */
async function diagnostics(): Promise<string> {
  const now = await settings();
  const all = await outbox.deliveries();
  const oldest = Math.min(...all.map(({ createdAt }) => createdAt));
  return JSON.stringify(
    {
      version: chrome.runtime.getManifest().version,
      browser: navigator.userAgent,
      ownServer: /^http:\/\/(127\.0\.0\.1|localhost)/.test(now.server),
      account: now.account?.kind ?? null,
      needsSignIn: now.needsSignIn,
      sites: now.sites,
      outbox: {
        waiting: all.length,
        dead: all.flatMap(({ dead }) => dead?.code ?? []),
        oldestSeconds: all.length > 0 ? Math.round((Date.now() - oldest) / 1000) : null,
        queue: await queue(),
      },
      counters: await rows(),
    },
    null,
    2,
  );
}
