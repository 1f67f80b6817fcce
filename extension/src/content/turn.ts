// One turn, as far as a page knows it, and how it is told to the worker.

import { wellFormed } from "../ids";
import { withoutContext } from "../marker";
import type { AnswerNews, CounterName, Facts, PromptNews, TurnNews } from "../messages";
import {
  emptyAnswer,
  type Answer,
  type Endpoint,
  type Prompt,
  type Reader,
  type Site,
  type SiteRequest,
} from "../sites/site";

export type Phase = "streaming" | "waiting" | "done";

export interface Turn {
  key: string;
  prompt: Prompt;
  text: string;
  replaces: string | undefined;
  again: boolean;
  capture: "network" | "dom";
  reader: Reader;
  phase: Phase;
  /** The site has refused it, or its user has stopped it: no page will show its answer. */
  refused: boolean;
  /** An earlier page began it. */
  adopted: boolean;
  startedAt: number;
  /** When anything was last heard of it. */
  heardAt: number;
  page: URL;
  conversationId: string | undefined;
  quietSince: number;
  doneAt: number | undefined;
  saidAt: number;
  said: string;
  saidName: string | undefined;
  promptSaid: boolean;
}

export interface World {
  now(): number;
  page(): URL;
  newKey(): string;
  isPaused(conversationId: string | undefined): boolean;
  send(news: PromptNews | AnswerNews): void;
  count(counter: CounterName, detail?: string): void;
}

export interface Stream {
  endpoint: Endpoint;
  request: SiteRequest;
  turn: Turn | undefined;
  decoder: TextDecoder;
  whole: string;
  status: number;
}

export function conversationOf(turn: Turn): string | undefined {
  return turn.reader.answer.conversationId ?? turn.conversationId;
}

/** The site's id that the memory's id is derived from, as soon as it is known. */
export function nameOf(turn: Turn): string | undefined {
  const { prompt, replaces, again, reader } = turn;
  const own = [prompt.messageId, reader.answer.promptId].find((id) => id && id !== replaces);
  if (own) return own;
  if (!again) return undefined;
  // Which of several messages is the answer is known at its end.
  return prompt.answerId ?? (turn.phase === "streaming" ? undefined : reader.answer.messageId);
}

export function mayBeNamed(site: Site, turn: Turn): boolean {
  return site.namesLate && nameOf(turn) === undefined;
}

export function newsOf(site: Site, turn: Turn, unnamed: boolean): TurnNews {
  return {
    key: turn.key,
    provider: site.provider,
    messageId: nameOf(turn),
    replacesMessageId: turn.replaces,
    unnamed,
    facts: factsOf(site, turn),
    occurredAt: new Date(turn.startedAt).toISOString(),
  };
}

export function answerOf(turn: Turn, status: "complete" | "partial", checkpoint: boolean) {
  const response = wellFormed(turn.reader.answer.text);
  return { type: "answer" as const, response, status, checkpoint };
}

function factsOf(site: Site, turn: Turn): Facts {
  const { answer } = turn.reader;
  const { attachments } = turn.prompt;
  return {
    model: short(answer.model ?? turn.prompt.model),
    conversation_id: short(conversationOf(turn) ?? site.conversationOf(turn.page)),
    conversation_title: short(answer.title),
    url: short(turn.page.origin + turn.page.pathname),
    metadata: {
      capture: turn.capture,
      ...(attachments.length > 0 && {
        attachments: attachments.slice(0, 20).map((name) => short(name)),
      }),
    },
  };
}

/** No stream has told the answer, or the one that began it has handed it over. */
export function isUntold(answer: Answer): boolean {
  return answer.elsewhere || answer.text === "";
}

export function textOf(prompt: Prompt): string {
  const text = wellFormed(withoutContext(prompt.text));
  // What was sent without a word is known by the names of its files.
  return text.trim() === "" ? wellFormed(prompt.attachments.join(", ")) : text;
}

export function silentReader(): Reader {
  return { answer: emptyAnswer(), push() {}, close() {}, reopen() {} };
}

/** Facts are bounded by the server; one that is too long is no reason to lose a turn. */
function short(text: string | undefined): string | undefined {
  return text && wellFormed(Array.from(text).slice(0, 500).join(""));
}

/** An address without what could tell a person: ids become `*`. */
export function pattern(url: string): string {
  const { host, pathname } = new URL(url);
  const steps = pathname.split("/").map((step) => (/\d|.{25}/.test(step) ? "*" : step));
  return (host + steps.join("/")).slice(0, 200);
}
