// What a server's answer means for a capture that waits. Pure, so that every case is tested.

/** What came back: `code` and `resetAt` from the envelope, where there was one. */
export interface Reply {
  /** 0 when there was no answer at all. */
  status: number;
  /** An envelope of this service, and not the page of a proxy or a café's network. */
  ours: boolean;
  code: string | null;
  message: string;
  retryAfterSeconds: number | null;
  resetAt: string | null;
}

export type Verdict =
  | { do: "done" }
  /**
   * The whole queue waits: it is the server or the network that cannot. `aside`: it may be this
   * capture alone that is refused on the way, so another one is tried first.
   */
  | { do: "wait"; until: number; why: "away" | "busy" | "quota"; aside?: true }
  /** This one waits, others go on. */
  | { do: "later"; until: number }
  | { do: "signIn" }
  | { do: "bury"; code: string; message: string };

/** The server has read these and will never take them; trying again cannot help. */
const INVALID = new Set(["INVALID_INPUT", "TOO_LARGE", "CONFLICT"]);
const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 300_000;
const LONGEST_TOLD_MS = 24 * 3_600_000;
/** Refusals of one request, by a proxy or by a newer server, that another might not meet. */
const OF_THIS_ONE = new Set([400, 403, 404, 413, 414, 415, 422, 431]);

/** `failures` counts those in a row before this one; `random` is from 0 up to 1. */
export function verdict(reply: Reply, failures: number, now: number, random: number): Verdict {
  const { status, ours, code } = reply;
  if (ours && status >= 200 && status < 300) return { do: "done" };
  const told = toldTime(reply, now);
  const until = told ?? now + pause(failures, random);
  const aside = OF_THIS_ONE.has(status) ? { aside: true as const } : {};
  if (!ours) return { do: "wait", until, why: "away", ...aside };
  if (code !== null && INVALID.has(code)) return { do: "bury", code, message: reply.message };
  // A personal token that may not write is as good as none.
  if (status === 401 || code === "MISSING_SCOPE") return { do: "signIn" };
  if (code === "RATE_LIMIT_EXCEEDED") {
    const reset = Date.parse(reply.resetAt ?? "");
    const resetAt = Number.isNaN(reset) ? until : bounded(reset, now);
    return { do: "wait", until: resetAt, why: "quota" };
  }
  if (status === 429) return { do: "wait", until, why: "busy" };
  if (status === 500) return { do: "later", until };
  return { do: "wait", until, why: "away", ...aside };
}

/** Has that time come? Nothing waits for longer than a day, whatever became of the clock. */
export function hasCome(time: number, now: number): boolean {
  return time <= now || time > now + LONGEST_TOLD_MS + FIRST_PAUSE_MS + LONGEST_PAUSE_MS;
}

function toldTime({ retryAfterSeconds }: Reply, now: number): number | null {
  return retryAfterSeconds === null ? null : bounded(now + retryAfterSeconds * 1_000, now);
}

function bounded(time: number, now: number): number {
  return Math.min(Math.max(time, now + 1_000), now + LONGEST_TOLD_MS);
}

/** Exponential, with jitter over its upper half: many clients must not come back at once. */
export function pause(failures: number, random: number): number {
  const most = Math.min(FIRST_PAUSE_MS * 2 ** Math.min(failures, 20), LONGEST_PAUSE_MS);
  return most / 2 + (random * most) / 2;
}
