// Content-free counters by site and day, so that a site's change shows: here, in what the user can
// copy, and at the user's own server.

import type { CounterName } from "../messages";
import type { SiteId } from "../sites/site";
import { got, note, setNote, transaction } from "./database";
import { call } from "./server";
import { installation, settings } from "./settings";

export const ALARM = "health";
const KEPT_DAYS = 14;
const REPORTED_DAYS = 7;
const MOST_DETAILS = 20;

export interface Row {
  day: string;
  site: SiteId;
  counts: Partial<Record<CounterName, number>>;
  details: Record<string, number>;
}

export async function count(site: SiteId, counter: CounterName, detail?: string): Promise<void> {
  const day = new Date().toISOString().slice(0, 10);
  const key = `${day} ${site}`;
  await transaction(["health"], "readwrite", async (store) => {
    const standing = await got(store("health").get(key) as IDBRequest<Row | undefined>);
    const row = standing ?? { day, site, counts: {}, details: {} };
    row.counts[counter] = (row.counts[counter] ?? 0) + 1;
    const name = `${counter} ${detail ?? ""}`.slice(0, 250);
    const known = name in row.details || Object.keys(row.details).length < MOST_DETAILS;
    if (detail && known) row.details[name] = (row.details[name] ?? 0) + 1;
    store("health").put(row, key);
  });
  if (!(await chrome.alarms.get(ALARM))) await chrome.alarms.create(ALARM, { delayInMinutes: 0.5 });
}

export async function rows(): Promise<Row[]> {
  return transaction(["health"], "readonly", (store) =>
    got(store("health").getAll() as IDBRequest<Row[]>),
  );
}

/** Send the last days' counters; they are totals, so that to send them twice changes nothing. */
export async function report(): Promise<void> {
  const now = await settings();
  const all = await rows();
  const state = JSON.stringify(all);
  if (!now.account || now.needsSignIn || (await note("reported")) === state) return;
  const since = daysAgo(REPORTED_DAYS);
  const days = all
    .filter(({ day }) => day > since)
    .map(({ day, site, counts }) => ({
      day,
      site,
      network: counts.network ?? 0,
      dom: counts.dom ?? 0,
      missed: counts.missed ?? 0,
      partial: counts.partial ?? 0,
      empty: counts.empty ?? 0,
      unreadable: counts.unreadable ?? 0,
      unknown_streams: counts.odd ?? 0,
    }));
  const { version } = chrome.runtime.getManifest();
  const body = JSON.stringify({ installation: await installation(), version, days });
  const { reply } = await call("POST", "/capture-health", body);
  if (reply.ours && reply.status < 300) await setNote("reported", state);
}

export async function forgetOld(): Promise<void> {
  const oldest = IDBKeyRange.upperBound(daysAgo(KEPT_DAYS));
  await transaction(["health"], "readwrite", async (store) => {
    store("health").delete(oldest);
  });
}

function daysAgo(days: number): string {
  return new Date(Date.now() - days * 86_400_000).toISOString().slice(0, 10);
}
