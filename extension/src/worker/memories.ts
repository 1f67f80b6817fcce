// What popup, side panel and the button in the page read from the server.

import { at, listAt, nameAt, textAt } from "../sites/json";
import type { Found, SearchFilters } from "../messages";
import { data } from "./server";

const THINKING_MS = 180_000;

/** Without a provider of models there is no answer, but sources. */
export interface Asked {
  answer: string | null;
  sources: Found[];
}

export async function search(
  query: string,
  limit: number,
  filters: SearchFilters = {},
): Promise<Found[]> {
  const found = await data("POST", "/search", { query: query.slice(0, 20_000), limit, ...filters });
  return listAt(found, "hits").map((hit) => ({
    ...memory(at(hit, "memory")),
    relevant: at(hit, "relevant") === true,
    snippet: listAt(hit, "snippet").map((segment) => ({
      text: textAt(segment, "text") ?? "",
      match: at(segment, "match") === true,
    })),
  }));
}

export async function conversation(provider: string, id: string): Promise<Found[]> {
  const path = `/conversations/${encodeURIComponent(id)}`;
  const query = new URLSearchParams({ limit: "100", provider });
  const page = await data("GET", `${path}?${query}`);
  return listAt(page, "memories").map((one) => memory(one));
}

/** As a stream, since a model may think for longer than Chrome lets a worker wait in silence. */
export async function ask(question: string): Promise<Asked> {
  const body = { question: question.slice(0, 20_000), stream: true };
  const said = await data("POST", "/rag/query", body, THINKING_MS);
  const events = Array.isArray(said) ? said : [said];
  const answer = events.map((event) => textAt(event, "answer") ?? "").join("");
  const told = events.map((event) => textAt(event, "text") ?? "").join("");
  const sources = events.flatMap((event) => listAt(event, "sources")).map((one) => memory(one));
  return { answer: answer || told || null, sources };
}

function memory(raw: unknown): Found {
  return {
    id: nameAt(raw, "id") ?? nameAt(raw, "memory_id") ?? "",
    prompt: textAt(raw, "prompt") ?? null,
    response: textAt(raw, "response") ?? null,
    provider: textAt(raw, "provider") ?? "",
    conversationId: nameAt(raw, "conversation_id") ?? null,
    title: nameAt(raw, "conversation_title") ?? null,
    occurredAt: textAt(raw, "occurred_at") ?? "",
    relevant: true,
    snippet: [],
  };
}
