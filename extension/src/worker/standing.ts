// Whether a page's chats are saved, and telling the pages when that changes.

import type { Standing, ToPage } from "../messages";
import { SITES } from "../sites/all";
import type { Site, SiteId } from "../sites/site";
import { deliveries, wasFull } from "./outbox";
import { settings, type Settings } from "./settings";

const AMBER = "#b26a00";
const SOON_MS = 60_000;

export function standingFor(site: Site, incognito: boolean, now: Settings): Standing {
  if (!now.agreedAt) return "notSetUp";
  if (!now.account) return "signedOut";
  if (incognito && !now.incognito) return "incognito";
  return now.sites.includes(site.id) ? "saving" : "off";
}

export function pausedOn(site: Site, now: Settings): string[] {
  return now.paused
    .filter(({ provider }) => provider === site.provider)
    .map(({ conversationId }) => conversationId);
}

/** Tell every page of ours how things stand now. */
export async function announce(): Promise<void> {
  const now = await settings();
  for (const tab of await chrome.tabs.query({})) {
    if (tab.id === undefined) continue;
    const where = await tell<{ site: SiteId }>(tab.id, { type: "where" });
    const site = SITES.find(({ id }) => id === where?.site);
    if (!site) continue;
    const standing = standingFor(site, tab.incognito, now);
    const account = now.account?.id ?? null;
    await tell(tab.id, { type: "standing", standing, account, paused: pausedOn(site, now) });
  }
  await showBadge();
}

/** Ask a page; undefined where none of ours listens. */
export async function tell<T>(tabId: number, message: ToPage): Promise<T | undefined> {
  try {
    return await chrome.tabs.sendMessage<ToPage, T>(tabId, message);
  } catch {
    return undefined;
  }
}

/** Nothing while all is well; how many wait, or a mark when somebody has to do something. */
export async function showBadge(): Promise<void> {
  const now = await settings();
  const all = await deliveries();
  const stuck = all.filter(({ createdAt }) => Date.now() - createdAt > SOON_MS).length;
  const signedOut = now.agreedAt !== null && isSignedOut(now);
  const wrong = signedOut || all.some(({ dead }) => dead) || (await wasFull());
  await chrome.action.setBadgeBackgroundColor({ color: AMBER });
  await chrome.action.setBadgeText({ text: wrong ? "!" : stuck > 0 ? String(stuck) : "" });
}

function isSignedOut(now: Settings): boolean {
  return now.needsSignIn || !now.account;
}

export async function markDomMode(tabId: number, on: boolean): Promise<void> {
  await chrome.action.setBadgeText({ tabId, text: on ? "!" : null } as { tabId: number });
}
