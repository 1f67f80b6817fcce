// What the parts of the extension say to one another.

import type { Provider, SiteId } from "./sites/site";

/** From the page-world tap to the content script; the page could send such things too. */
export type Tapped =
  | { k: "request"; n: number; method: string; url: string; body: string }
  | { k: "head"; n: number; status: number }
  | { k: "data"; n: number; data: string | Uint8Array }
  | { k: "end"; n: number; reason: "done" | "aborted" | "failed" }
  | { k: "odd"; url: string };

/** Facts about a turn, in the names of the server's API. */
export interface Facts {
  model?: string | undefined;
  conversation_id?: string | undefined;
  conversation_title?: string | undefined;
  url?: string | undefined;
  metadata: Record<string, unknown>;
}

/** One turn as a content script knows it. `key` is its own name for it. */
export interface TurnNews {
  key: string;
  provider: Provider;
  /** The site's id that the memory's id is derived from; a random one where there is none. */
  messageId?: string | undefined;
  /** The id of the prompt to which this is another answer. */
  replacesMessageId?: string | undefined;
  /** `messageId` may still come, for a moment. */
  unnamed: boolean;
  facts: Facts;
  occurredAt: string;
}

export interface PromptNews extends TurnNews {
  type: "prompt";
  prompt: string;
}

export interface AnswerNews extends TurnNews {
  type: "answer";
  response: string;
  status: "complete" | "partial";
  /** More is expected at once: it is sent only if nothing more comes. */
  checkpoint: boolean;
}

export type CounterName =
  | "network"
  | "dom"
  | "missed"
  | "complete"
  | "partial"
  | "empty"
  | "handoff"
  | "unreadable"
  | "odd"
  | "noTap"
  | "noComposer"
  | "inserted"
  | "insertFailed";

export type Standing = "saving" | "off" | "incognito" | "signedOut" | "notSetUp";

/** A turn that another page of the site has left without a complete answer. */
export interface OpenTurn {
  key: string;
  messageId: string;
  conversationId?: string | undefined;
}

/** What a page has to know before it keeps anything. */
export interface Known {
  standing: Standing;
  /** The id of who is signed in. */
  account: string | null;
  /** Ids of this site's conversations that are not to be saved. */
  paused: string[];
}

export interface HelloAnswer extends Known {
  open: OpenTurn[];
}

export interface Found {
  id: string;
  prompt: string | null;
  response: string | null;
  provider: string;
  conversationId: string | null;
  title: string | null;
  occurredAt: string;
  relevant: boolean;
  snippet: { text: string; match: boolean }[];
}

export type FromPage =
  | { type: "hello" }
  | PromptNews
  | AnswerNews
  | { type: "pauseConversation"; conversationId: string }
  | { type: "count"; counter: CounterName; detail?: string | undefined }
  | { type: "domMode"; on: boolean }
  | { type: "search"; query: string };

export interface SearchFilters {
  provider?: string;
  after?: string;
  before?: string;
}

/** From popup, side panel and welcome page; the worker takes these from no web page. */
export type FromUi =
  | { type: "status"; tabId: number | null }
  | { type: "find"; query: string; filters: SearchFilters }
  | { type: "conversation"; provider: string; conversationId: string | null; id: string }
  | { type: "insert"; tabId: number; found: Found[] }
  | { type: "undo"; key: string }
  | { type: "setPause"; tabId: number; paused: boolean }
  | { type: "setSite"; site: SiteId; on: boolean }
  | { type: "setIncognito"; on: boolean }
  | { type: "agree"; sites: SiteId[] }
  | { type: "withdraw" }
  | { type: "useServer"; server: string }
  | { type: "signIn"; email: string; password: string }
  | { type: "signUp"; email: string; password: string }
  | { type: "signInWith"; service: string }
  | { type: "useToken"; token: string }
  | { type: "useSupabase"; url: string; key: string }
  | { type: "signOut" }
  | { type: "retryDead"; key: string }
  | { type: "discardDead"; key: string }
  | { type: "retryNow" }
  | { type: "diagnostics" };

/** From the worker to a content script. */
export type ToPage =
  | ({ type: "standing" } & Known)
  | { type: "where" }
  | { type: "pauseHere"; paused: boolean }
  | { type: "insert"; text: string }
  | { type: "openMemories" };

export interface Where {
  site: SiteId;
  provider: Provider;
  conversationId?: string | undefined;
  pausedHere: boolean;
  domMode: boolean;
  tapped: boolean;
}

export interface Dead {
  key: string;
  label: string;
  code: string;
  message: string;
  text: string;
}

/** Everything the popup shows. */
export interface Status {
  server: string;
  account: string | null;
  needsSignIn: boolean;
  agreed: boolean;
  incognito: boolean;
  sites: { id: SiteId; name: string; on: boolean; optional: boolean }[];
  /** Null where the tab shows no site of ours. */
  here: (Where & { standing: Standing; paused: boolean; saved: number; all: number }) | null;
  waiting: number;
  /** Captures that wait for another account to sign in again. */
  others: number;
  until: number | null;
  why: "away" | "busy" | "quota" | null;
  full: boolean;
  dead: Dead[];
  last: { key: string; label: string; provider: Provider; at: number } | null;
}

export type Outcome = { ok: true } | { problem: string };
export type FoundAnswer = { found: Found[] } | { problem: string };

/** What comes, bit by bit, through a port of this name to which a question was posted. */
export const ASK = "ask";
export type AskNews =
  | { sources: Found[] }
  | { text: string }
  /** The last word: the whole answer, or null where the server has no model. */
  | { answer: string | null; sources: Found[] }
  | { problem: string };
