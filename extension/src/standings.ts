// How things stand for each site, in the browser's own memory: there a page learns whether to keep its
// chat when the worker is too busy to say so, or gone.

import type { Known } from "./messages";
import type { SiteId } from "./sites/site";

const NAME = "standings";

export type Standings = Record<"usual" | "incognito", Record<string, Known>>;

export async function publish(standings: Standings): Promise<void> {
  await chrome.storage.session.set({ [NAME]: standings });
}

/** Undefined as long as no worker has run since the browser was started. */
export async function published(site: SiteId): Promise<Known | undefined> {
  try {
    const all = (await chrome.storage.session.get(NAME))[NAME] as Standings | undefined;
    return all?.[chrome.extension.inIncognitoContext ? "incognito" : "usual"][site];
  } catch {
    return undefined;
  }
}
