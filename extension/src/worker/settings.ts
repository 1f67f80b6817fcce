// What the user has chosen, in chrome.storage.local, which only our own pages and worker can read.

import type { Provider, SiteId } from "../sites/site";

export const DEFAULT_SERVER = "http://127.0.0.1:8000";
const MOST_PAUSED = 1_000;

export interface Account {
  /** Whose memories they are: everything captured is tied to this id. */
  id: string;
  label: string;
  kind: "session" | "token";
}

export interface Settings {
  server: string;
  /** Where accounts live, when that is not the server itself. */
  supabase: { url: string; key: string } | null;
  account: Account | null;
  token: string | null;
  /** The server no longer takes what we hold: somebody must sign in again. */
  needsSignIn: boolean;
  agreedAt: string | null;
  /** The sites whose chats are saved. */
  sites: SiteId[];
  incognito: boolean;
  paused: { provider: Provider; conversationId: string }[];
  installation: string;
}

const DEFAULTS: Settings = {
  server: DEFAULT_SERVER,
  supabase: null,
  account: null,
  token: null,
  needsSignIn: false,
  agreedAt: null,
  sites: [],
  incognito: false,
  paused: [],
  installation: "",
};

export async function settings(): Promise<Settings> {
  const stored = await chrome.storage.local.get(DEFAULTS as unknown as Record<string, unknown>);
  return stored as unknown as Settings;
}

export async function change(changes: Partial<Settings>): Promise<void> {
  await chrome.storage.local.set(changes);
}

/** A random name for this browser, by which the server keeps its counters apart from others'. */
export async function installation(): Promise<string> {
  const known = (await settings()).installation;
  if (known) return known;
  const made = crypto.randomUUID();
  await change({ installation: made });
  return made;
}

export async function pauseConversation(
  provider: Provider,
  conversationId: string,
  paused: boolean,
): Promise<void> {
  const { paused: before } = await settings();
  const others = before.filter(
    (one) => one.provider !== provider || one.conversationId !== conversationId,
  );
  const now = paused ? [...others, { provider, conversationId }] : others;
  await change({ paused: now.slice(-MOST_PAUSED) });
}
