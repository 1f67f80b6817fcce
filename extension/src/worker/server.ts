// Calls to the server of the user's choice. Only the worker makes them: it alone holds the token.

import { parse } from "../sites/json";
import { ServerSentEvents } from "../sites/streams";
import type { Reply } from "./rules";
import { accessToken } from "./session";
import { settings } from "./settings";

/** Chrome ends a worker whose request has had no answer for 30 s. */
const PATIENCE_MS = 20_000;

/** `data` is the envelope's, or of a streamed answer the data of its events. */
export interface Called {
  reply: Reply;
  data: unknown;
}

/** Call the server as the signed-in user; a refused token is renewed once. */
export async function call(
  method: string,
  path: string,
  body?: string,
  patience = PATIENCE_MS,
): Promise<Called> {
  const { server } = await settings();
  for (const renew of [false, true]) {
    const held = await accessToken(renew);
    if (held === "away") return { reply: noAnswer(), data: null };
    if (held === "none") return { reply: { ...noAnswer(), status: 401, ours: true }, data: null };
    const called = await fetchEnvelope(server + path, method, body, held.token, patience);
    if (called.reply.status !== 401 || renew) return called;
  }
  throw new Error("unreachable");
}

/** Call and return the data, or throw the server's own sentence. */
export async function data(
  method: string,
  path: string,
  body?: unknown,
  patience?: number,
): Promise<unknown> {
  const text = body === undefined ? undefined : JSON.stringify(body);
  const { reply, data } = await call(method, path, text, patience);
  if (reply.ours && reply.status < 300) return data;
  throw new Problem(sentence(reply));
}

/** Something that can be said to the user as it is. */
export class Problem extends Error {}

/** What to say to the user of a call that has failed. */
export function sentence(reply: Reply): string {
  if (reply.status === 0) return "The server does not answer.";
  if (reply.status === 401) return "Sign in again to use your memories.";
  if (!reply.ours) return "What answers at this address is no Memory Layer server.";
  return reply.message;
}

export async function fetchEnvelope(
  url: string,
  method: string,
  body?: string,
  token?: string,
  patience = PATIENCE_MS,
): Promise<Called> {
  const headers: Record<string, string> = {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (token !== undefined) headers["Authorization"] = `Bearer ${token}`;
  try {
    const response = await fetch(url, {
      method,
      headers,
      body: body ?? null,
      // A redirect would carry what people wrote to wherever it leads.
      redirect: "error",
      credentials: "omit",
      cache: "no-store",
      signal: AbortSignal.timeout(patience),
    });
    return envelope(response, await response.text());
  } catch {
    return { reply: noAnswer(), data: null };
  }
}

function noAnswer(): Reply {
  return {
    status: 0,
    ours: false,
    code: null,
    message: "",
    retryAfterSeconds: null,
    resetAt: null,
  };
}

interface Envelope {
  success?: unknown;
  data?: unknown;
  error?: unknown;
  error_code?: unknown;
  details?: { reset_at?: unknown };
}

function envelope(response: Response, text: string): Called {
  if (response.headers.get("content-type")?.startsWith("text/event-stream")) {
    const reader = new ServerSentEvents();
    const events = [...reader.push(text), ...reader.end()].map(parse) as Envelope[];
    const failure = events.find((event) => event?.success === false);
    return { reply: replyOf(response, failure ?? { success: true }, !failure), data: events };
  }
  const body = parse(text) as Envelope | null | undefined;
  return { reply: replyOf(response, body, response.ok), data: body?.data ?? null };
}

function replyOf(response: Response, body: Envelope | null | undefined, good: boolean): Reply {
  const told = Number(response.headers.get("retry-after") ?? NaN);
  const resetAt = body?.details?.reset_at;
  return {
    // What fails in mid-stream fails after a 200.
    status: response.ok && !good ? 502 : response.status,
    ours: typeof body === "object" && body?.success === good,
    code: typeof body?.error_code === "string" ? body.error_code : null,
    message: typeof body?.error === "string" ? body.error : "",
    retryAfterSeconds: Number.isFinite(told) && told >= 0 ? told : null,
    resetAt: typeof resetAt === "string" ? resetAt : null,
  };
}
