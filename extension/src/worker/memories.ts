// What popup, side panel and the button in the page read from the server.

import { at, listAt, nameAt, textAt } from "../sites/json";
import type { AskNews, Found, SearchFilters } from "../messages";
import { data, Problem, sentence, stream } from "./server";

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

/** A conversation from its beginning, or the one memory that belongs to none. */
export async function conversation(
  provider: string,
  id: string | null,
  memoryId: string,
): Promise<Found[]> {
  if (id === null) return [memory(await data("GET", `/memories/${encodeURIComponent(memoryId)}`))];
  const path = `/conversations/${encodeURIComponent(id)}`;
  const query = new URLSearchParams({ limit: "100", provider });
  const page = await data("GET", `${path}?${query}`);
  return listAt(page, "memories").map((one) => memory(one));
}

/** Ask for an answer from the memories; throw the server's own sentence where there is none. */
export async function ask(
  question: string,
  tell: (news: AskNews) => void,
  stopped: AbortSignal,
): Promise<void> {
  const body = { question: question.slice(0, 20_000), stream: true };
  let sources: Found[] = [];
  const take = (event: unknown): void => {
    const text = textAt(event, "text");
    const answer = at(event, "answer");
    const listed = listAt(event, "sources");
    // The last event does not repeat them.
    if (listed.length > 0) sources = listed.map((one) => memory(one));
    if (text !== undefined) tell({ text });
    else if (answer !== undefined) tell({ answer: textAt(event, "answer") ?? null, sources });
    else if (listed.length > 0) tell({ sources });
  };
  const reply = await stream("/rag/query", body, take, stopped);
  if (!reply.ours || reply.status >= 300) throw new Problem(sentence(reply));
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
