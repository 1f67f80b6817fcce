// Turns on their way to the worker, in the browser's own memory: they outlive the page and the worker,
// should both end before the worker has them on disk.

import type { AnswerNews, PromptNews } from "./messages";
import type { SiteId } from "./sites/site";

export type Told = PromptNews | AnswerNews;

/** What a page has handed over, or was about to. */
export interface Spooled {
  site: SiteId;
  /** Who was signed in then: nobody else may have it. */
  account: string | null;
  incognito: boolean;
  news: Told;
}

const PREFIX = "turn/";
/** The browser gives ten megabytes to all pages together. */
const MOST_CHARACTERS = 3_000_000;

/** Keep a turn until `drop`; return its name there. */
export function keep(spooled: Spooled): string {
  const name = PREFIX + crypto.randomUUID();
  const { news } = spooled;
  const text = news.type === "prompt" ? news.prompt : news.response;
  // What does not fit is still handed over, as long as the page lives.
  if (text.length <= MOST_CHARACTERS) void quietly(() => chrome.storage.session.set({ [name]: spooled }));
  return name;
}

export function drop(name: string): Promise<void> {
  return quietly(() => chrome.storage.session.remove(name));
}

/** What pages have left, by name, the oldest turn first and prompts before answers. */
export async function all(): Promise<[string, Spooled][]> {
  const stored = (await chrome.storage.session.get(null)) as Record<string, Spooled>;
  return Object.entries(stored)
    .filter(([name]) => name.startsWith(PREFIX))
    .sort(([, { news: a }], [, { news: b }]) =>
      a.occurredAt.localeCompare(b.occurredAt) || b.type.localeCompare(a.type),
    );
}

async function quietly(work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch {
    // No room, or the extension has just been replaced: the page itself still has the turn.
  }
}
