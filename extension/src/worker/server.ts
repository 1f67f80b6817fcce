// Calls to the server of the user's choice. Only the worker makes them: it alone holds the token.

import { at, parse } from "../sites/json";
import { ServerSentEvents } from "../sites/streams";
import type { Reply } from "./rules";
import { accessToken } from "./session";
import { settings } from "./settings";

/** Chrome ends a worker whose request has had no answer for 30 s. */
const PATIENCE_MS = 20_000;

/** `data` is the envelope's. */
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

/** Ask for server-sent events: `take` gets the data of each as it comes, or of a plain answer. */
export async function stream(
  path: string,
  body: unknown,
  take: (event: unknown) => void,
  stopped: AbortSignal,
): Promise<Reply> {
  const { server } = await settings();
  for (const renew of [false, true]) {
    const held = await accessToken(renew);
    if (held === "away") return noAnswer();
    if (held === "none") return { ...noAnswer(), status: 401, ours: true };
    try {
      const response = await fetch(server + path, {
        method: "POST",
        headers: { "Content-Type": "application/json", Authorization: `Bearer ${held.token}` },
        body: JSON.stringify(body),
        redirect: "error",
        credentials: "omit",
        cache: "no-store",
        signal: stopped,
      });
      if (response.status === 401 && !renew) continue;
      return await readStream(response, take);
    } catch {
      return noAnswer();
    }
  }
  throw new Error("unreachable");
}

async function readStream(response: Response, take: (event: unknown) => void): Promise<Reply> {
  if (!response.body || !response.headers.get("content-type")?.startsWith("text/event-stream")) {
    const { reply, data } = envelope(response, await response.text());
    if (reply.ours && reply.status < 300) take(data);
    return reply;
  }
  const events = new ServerSentEvents();
  const decoder = new TextDecoder();
  const reader = response.body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    const texts = done ? events.end() : events.push(decoder.decode(value, { stream: true }));
    for (const event of texts.map(parse)) {
      if (at(event, "success") === false) return replyOf(response, event as Envelope, false);
      take(event);
    }
    if (done) return replyOf(response, { success: true }, true);
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
