// The service worker. It is ended and started at any moment: every listener is registered here, at
// once, and nothing that matters lives in a variable.

import { ASK, type FromPage, type FromUi, type HelloAnswer } from "../messages";
import { SITES, siteOf } from "../sites/all";
import type { Site } from "../sites/site";
import * as delivery from "./delivery";
import * as health from "./health";
import * as ledger from "./ledger";
import { search } from "./memories";
import * as outbox from "./outbox";
import * as spool from "../spool";
import { Problem } from "./server";
import { pauseConversation, settings } from "./settings";
import {
  announce,
  knownOf,
  markDomMode,
  showBadge,
  standingFor,
  tell,
  writeDown,
} from "./standing";
import { answerAsk, answerUi, registerOptionalSites } from "./ui";

const MOST_SUGGESTED = 5;

chrome.runtime.onInstalled.addListener(({ reason }) => void installed(reason));
chrome.runtime.onStartup.addListener(() => void started());
chrome.runtime.onMessage.addListener((message: unknown, sender, reply) => {
  void answer(message, sender).then(reply, () => reply(undefined));
  return true;
});
chrome.runtime.onConnect.addListener((port) => {
  const own = port.sender?.url?.startsWith(chrome.runtime.getURL(""));
  if (port.name === ASK && own) answerAsk(port);
});
chrome.alarms.onAlarm.addListener(({ name }) => {
  if (name === delivery.ALARM) void collect().then(deliver);
  if (name === health.ALARM) void health.report();
});
chrome.commands.onCommand.addListener((command, tab) => {
  if (command === "open-memories" && tab?.id !== undefined) {
    void tell(tab.id, { type: "openMemories" });
  }
});
chrome.permissions.onAdded.addListener(() => void registerOptionalSites());
self.addEventListener("online", () => void delivery.flushNow());

// Web pages' scripts, ours included, must not read the session.
void chrome.storage.local.setAccessLevel?.({ accessLevel: "TRUSTED_CONTEXTS" });
// They leave there what must outlive them; nothing else is kept in it.
void chrome.storage.session.setAccessLevel?.({
  accessLevel: "TRUSTED_AND_UNTRUSTED_CONTEXTS",
});
void writeDown();
void collect().then(deliver);

async function deliver(): Promise<void> {
  await delivery.flush();
  await showBadge();
}

/** Take what pages had no time to hand over. */
async function collect(): Promise<void> {
  const { account } = await settings();
  for (const [name, { site: id, account: owner, incognito, news }] of await spool.all()) {
    if (owner !== (account?.id ?? null)) continue; // its owner may sign in again
    const site = SITES.find((one) => one.id === id);
    const taken = site ? capture(news, site, incognito) : Promise.resolve();
    // What cannot be taken now stays there, and holds up nothing else.
    await taken.then(() => spool.drop(name)).catch(() => {});
  }
}

async function installed(reason: string): Promise<void> {
  if (reason === "install") await chrome.tabs.create({ url: "welcome.html" });
}

async function started(): Promise<void> {
  await ledger.tidy();
  await health.forgetOld();
  await delivery.flushNow();
  await showBadge();
}

async function answer(message: unknown, sender: chrome.runtime.MessageSender): Promise<unknown> {
  if (sender.id !== chrome.runtime.id || typeof message !== "object" || message === null) {
    return undefined;
  }
  if (sender.url?.startsWith(chrome.runtime.getURL(""))) {
    const asked = message as FromUi;
    // What pages have left belongs to whoever is signed in until now.
    if (asked.type !== "status") await collect().catch(() => {});
    return answerUi(asked);
  }
  const site = sender.frameId === 0 && sender.url ? siteOf(new URL(sender.url)) : undefined;
  return site && answerPage(message as FromPage, site, sender.tab);
}

async function answerPage(
  message: FromPage,
  site: Site,
  tab: chrome.tabs.Tab | undefined,
): Promise<unknown> {
  switch (message.type) {
    case "hello":
      return hello(site, tab?.incognito ?? false);
    case "prompt":
    case "answer":
      return capture(message, site, tab?.incognito ?? false);
    case "count":
      await health.count(site.id, message.counter, message.detail);
      return true;
    case "domMode":
      if (tab?.id !== undefined) await markDomMode(tab.id, message.on);
      return true;
    case "pauseConversation":
      await pauseConversation(site.provider, message.conversationId, true);
      await announce();
      return true;
    case "search":
      return suggest(message.query);
  }
}

async function hello(site: Site, incognito: boolean): Promise<HelloAnswer> {
  const now = await settings();
  const known = knownOf(site, incognito, now);
  // Without it nothing is lost but what another page has left.
  const left = () => ledger.openTurns(now.account!.id, site.provider).catch(() => []);
  return { ...known, open: known.standing === "saving" ? await left() : [] };
}

/** Return true once it is on disk; what may not be kept is taken and dropped. */
async function capture(
  news: Extract<FromPage, { type: "prompt" | "answer" }>,
  site: Site,
  incognito: boolean,
): Promise<true> {
  const now = await settings();
  if (news.provider !== site.provider) return true;
  const standing = standingFor(site, incognito, now);
  const ends = standing === "off" && news.type === "answer" && (await outbox.knows(news.key));
  if (standing !== "saving" && !ends) return true;
  await delivery.wakeLater();
  try {
    await (news.type === "prompt" ? outbox.takePrompt(news, now) : outbox.takeAnswer(news, now));
  } catch (error) {
    if (!(error instanceof outbox.OutboxFull)) throw error;
  }
  void deliver();
  return true;
}

async function suggest(query: string): Promise<unknown> {
  try {
    const found = await search(query, MOST_SUGGESTED);
    return { found: found.filter(({ relevant }) => relevant) };
  } catch (error) {
    return { problem: error instanceof Problem ? error.message : "The search has failed." };
  }
}
