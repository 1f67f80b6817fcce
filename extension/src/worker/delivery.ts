// Brings what waits in the outbox to the server: on every message, at start, on `online`, by alarm.

import { note, setNote } from "./database";
import { buried, delivered, deliveries, hurry, read, tried, type Delivery } from "./outbox";
import { hasCome, pause, verdict, type Reply } from "./rules";
import { call } from "./server";
import { change, settings, type Settings } from "./settings";

export const ALARM = "flush";
const SAFETY_MINUTES = 0.5;
/** While the worker lives, a timer is more punctual than an alarm. */
const TIMER_MS = 25_000;

/** Why the whole queue stands still, and until when. */
export interface Queue {
  failures: number;
  until: number;
  why: "away" | "busy" | "quota" | null;
}

const READY: Queue = { failures: 0, until: 0, why: null };

let running: Promise<void> | undefined;
let again = false;
let timer: ReturnType<typeof setTimeout> | undefined;

export async function queue(): Promise<Queue> {
  return (await note<Queue>("queue")) ?? READY;
}

/** Deliver what is due. Calls that overlap are one. */
export function flush(): Promise<void> {
  again = true;
  running ??= passes().finally(() => (running = undefined));
  return running;
}

/** Do not wait any longer: the user asks, or the network is back. */
export async function flushNow(): Promise<void> {
  const now = await queue();
  if (now.why !== "quota") await setNote("queue", { ...now, until: 0 });
  await hurry();
  await flush();
}

async function passes(): Promise<void> {
  while (again) {
    again = false;
    await pass();
  }
  await schedule();
}

/** Should the worker be ended in the middle of its work, this starts it again. */
export async function wakeLater(): Promise<void> {
  await chrome.alarms.create(ALARM, { delayInMinutes: SAFETY_MINUTES });
}

async function pass(): Promise<void> {
  const owner = await settings();
  if (!owner.account || owner.needsSignIn) return;
  if (!hasCome((await queue()).until, Date.now())) return;
  for (const delivery of await deliveries()) {
    if (!isDue(delivery, owner)) continue;
    await wakeLater();
    if (!(await deliver(delivery))) return;
  }
}

function isOurs({ account, server }: Delivery, owner: Settings): boolean {
  return account === owner.account?.id && server === owner.server;
}

function isDue(delivery: Delivery, owner: Settings): boolean {
  return !delivery.dead && hasCome(delivery.notBefore, Date.now()) && isOurs(delivery, owner);
}

/** Send one request; return whether the others may go on. */
async function deliver(delivery: Delivery): Promise<boolean> {
  const waiting = await read(delivery.key);
  if (!waiting) return true;
  await tried(delivery, delivery.notBefore);
  const { turn } = waiting;
  const body = JSON.parse(waiting.body) as Record<string, unknown>;
  const [path, name] =
    delivery.side === "prompt" ? ["/save-prompt", "id"] : ["/save-response", "memory_id"];
  const { reply, data } = await call("POST", path!, JSON.stringify({ ...body, [name!]: turn.id }));
  // Whoever answers without naming the memory has not saved it.
  const named = (data as { memory_id?: unknown } | null)?.memory_id === turn.id;
  return settle(delivery, reply.status < 300 && !named ? { ...reply, ours: false } : reply);
}

async function settle(delivery: Delivery, reply: Reply): Promise<boolean> {
  const before = await queue();
  const failures = reply.status === 500 ? delivery.attempts : before.failures;
  const decided = verdict(reply, failures, Date.now(), Math.random());
  switch (decided.do) {
    case "done":
      await delivered(delivery);
      if (before.failures > 0 || before.why) await setNote("queue", READY);
      return true;
    case "bury":
      await buried(delivery, decided.code, decided.message);
      return true;
    case "later":
      await tried(delivery, decided.until);
      return true;
    case "signIn":
      await change({ needsSignIn: true });
      return false;
    case "wait":
      if (decided.aside) {
        await tried(delivery, decided.until + pause(delivery.attempts, Math.random()));
      }
      await setNote("queue", {
        failures: before.failures + 1,
        until: decided.until,
        why: decided.why,
      } satisfies Queue);
      return false;
  }
}

/** Come back when the next request is due. */
async function schedule(): Promise<void> {
  const owner = await settings();
  clearTimeout(timer);
  const waiting = (await deliveries()).filter(
    (delivery) => !delivery.dead && isOurs(delivery, owner),
  );
  if (waiting.length === 0 || owner.needsSignIn) {
    await chrome.alarms.clear(ALARM);
    return;
  }
  const now = Date.now();
  const { until } = await queue();
  const times = waiting.map(({ notBefore }) => (hasCome(notBefore, now) ? now : notBefore));
  const when = Math.max(hasCome(until, now) ? now : until, Math.min(...times), now + 100);
  await chrome.alarms.create(ALARM, { when });
  if (when - now < TIMER_MS) timer = setTimeout(() => void flush(), when - now);
}
