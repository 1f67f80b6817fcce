// Whether a page's chats are saved, and telling the pages when that changes.

import type { Known, Standing, ToPage } from "../messages";
import { SITES } from "../sites/all";
import type { Site, SiteId } from "../sites/site";
import { publish } from "../standings";
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

export function knownOf(site: Site, incognito: boolean, now: Settings): Known {
  const paused = now.paused
    .filter(({ provider }) => provider === site.provider)
    .map(({ conversationId }) => conversationId);
  const standing = standingFor(site, incognito, now);
  return { standing, account: now.account?.id ?? null, paused };
}

/** Write down how things stand, for pages that begin while no worker answers. */
export async function writeDown(): Promise<Settings> {
  const now = await settings();
  const all = (incognito: boolean): Record<string, Known> =>
    Object.fromEntries(SITES.map((site) => [site.id, knownOf(site, incognito, now)]));
  await publish({ usual: all(false), incognito: all(true) });
  return now;
}

/** Tell every page of ours how things stand now. */
export async function announce(): Promise<void> {
  const now = await writeDown();
  for (const tab of await chrome.tabs.query({})) {
    if (tab.id === undefined) continue;
    const where = await tell<{ site: SiteId }>(tab.id, { type: "where" });
    const site = SITES.find(({ id }) => id === where?.site);
    if (!site) continue;
    await tell(tab.id, { type: "standing", ...knownOf(site, tab.incognito, now) });
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
