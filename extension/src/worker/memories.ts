// What popup, side panel and the button in the page read from the server.

import { at, listAt, nameAt, textAt } from "../sites/json";
import type { Found, SearchFilters } from "../messages";
import { data } from "./server";

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

export async function ask(question: string): Promise<{ answer: string; sources: Found[] }> {
  const said = await data("POST", "/rag/query", { question });
  const sources = listAt(said, "sources").map((source) => memory(at(source, "memory") ?? source));
  return { answer: textAt(said, "answer") ?? "", sources };
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
