// Calls to the server of the user's choice. Only the worker makes them: it alone holds the token.

import type { Reply } from "./rules";
import { accessToken } from "./session";
import { settings } from "./settings";

/** Chrome ends a worker whose request has had no answer for 30 s. */
const PATIENCE_MS = 20_000;

export interface Called {
  reply: Reply;
  data: unknown;
}

/** Call the server as the signed-in user; a refused token is renewed once. */
export async function call(method: string, path: string, body?: string): Promise<Called> {
  const { server } = await settings();
  for (const renew of [false, true]) {
    const held = await accessToken(renew);
    if (held === "away") return { reply: noAnswer(), data: null };
    if (held === "none") return { reply: { ...noAnswer(), status: 401, ours: true }, data: null };
    const called = await fetchEnvelope(server + path, method, body, held.token);
    if (called.reply.status !== 401 || renew) return called;
  }
  throw new Error("unreachable");
}

/** Call and return the data, or throw the server's own sentence. */
export async function data(method: string, path: string, body?: unknown): Promise<unknown> {
  const text = body === undefined ? undefined : JSON.stringify(body);
  const { reply, data } = await call(method, path, text);
  if (reply.ours && reply.status < 300) return data;
  throw new Problem(sentence(reply));
}

/** Something that can be said to the user as it is. */
export class Problem extends Error {}

function sentence(reply: Reply): string {
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
      signal: AbortSignal.timeout(PATIENCE_MS),
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
  let body: Envelope | null = null;
  try {
    body = JSON.parse(text) as Envelope | null;
  } catch {
    // Then it is not ours.
  }
  const told = Number(response.headers.get("retry-after") ?? NaN);
  const resetAt = body?.details?.reset_at;
  const reply: Reply = {
    status: response.status,
    ours: typeof body === "object" && body?.success === response.ok,
    code: typeof body?.error_code === "string" ? body.error_code : null,
    message: typeof body?.error === "string" ? body.error : "",
    retryAfterSeconds: Number.isFinite(told) && told >= 0 ? told : null,
    resetAt: typeof resetAt === "string" ? resetAt : null,
  };
  return { reply, data: body?.data ?? null };
}
