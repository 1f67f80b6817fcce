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
  /** The whole queue waits: it is the server or the network that cannot. */
  | { do: "wait"; until: number; why: "away" | "busy" | "quota" }
  /** This one waits, others go on. */
  | { do: "later"; until: number }
  | { do: "signIn" }
  | { do: "bury"; code: string; message: string };

/** The server has read these and will never take them; trying again cannot help. */
const INVALID = new Set(["INVALID_INPUT", "TOO_LARGE", "CONFLICT"]);
const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 300_000;
const LONGEST_TOLD_MS = 24 * 3_600_000;

/** `failures` counts those in a row before this one; `random` is from 0 up to 1. */
export function verdict(reply: Reply, failures: number, now: number, random: number): Verdict {
  const { status, ours, code } = reply;
  if (ours && status >= 200 && status < 300) return { do: "done" };
  const told = toldTime(reply, now);
  const until = told ?? now + pause(failures, random);
  if (!ours) return { do: "wait", until, why: "away" };
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
  return { do: "wait", until, why: "away" };
}

function toldTime({ retryAfterSeconds }: Reply, now: number): number | null {
  return retryAfterSeconds === null ? null : bounded(now + retryAfterSeconds * 1_000, now);
}

function bounded(time: number, now: number): number {
  return Math.min(Math.max(time, now + 1_000), now + LONGEST_TOLD_MS);
}

/** Exponential, with jitter over its upper half: many clients must not come back at once. */
function pause(failures: number, random: number): number {
  const most = Math.min(FIRST_PAUSE_MS * 2 ** Math.min(failures, 20), LONGEST_PAUSE_MS);
  return most / 2 + (random * most) / 2;
}
