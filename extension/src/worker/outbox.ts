// Everything captured goes through here, and is on disk before any network is touched.

import { memoryId } from "../ids";
import type { AnswerNews, PromptNews, TurnNews } from "../messages";
import type { Provider } from "../sites/site";
import { got, note, transaction } from "./database";
import type { Settings } from "./settings";

export const MOST_BYTES = 50 * 1024 * 1024;
/** A site that names the prompt late does so within this time, or never. */
const NAMING_MS = 2_000;
/** An answer that grows is sent as partial only when it has stopped growing. */
const CHECKPOINT_MS = 15_000;
const FULL_FOR_MS = 3_600_000;

export type Side = "prompt" | "response";
/** `lost`: the outbox had no room for it. */
export type Progress = "none" | "waiting" | "partial" | "saved" | "dead" | "lost";

/** What happened to a turn. `id` is the memory's; `named` when it is derived from the site's. */
export interface Turn {
  key: string;
  id: string;
  named: boolean;
  account: string;
  server: string;
  provider: Provider;
  messageId: string | null;
  conversationId: string | null;
  prompt: Progress;
  response: Progress;
  undone: boolean;
  label: string;
  createdAt: number;
  changedAt: number;
}

/** One request that the server has not acknowledged yet; its body lies in `bodies`. */
export interface Delivery {
  key: string;
  turn: string;
  side: Side;
  account: string;
  server: string;
  bytes: number;
  createdAt: number;
  notBefore: number;
  attempts: number;
  /** Counts the texts that were put under this key: a later one must not be lost. */
  revision: number;
  status: "complete" | "partial" | null;
  dead: { code: string; message: string } | null;
}

export class OutboxFull extends Error {}

export async function takePrompt(news: PromptNews, owner: Settings): Promise<void> {
  const body = { ...factsOf(news), prompt: news.prompt, source: "extension" };
  await put(news, owner, "prompt", body, null, news.unnamed ? Date.now() + NAMING_MS : 0);
}

export async function takeAnswer(news: AnswerNews, owner: Settings): Promise<void> {
  const { response, status, checkpoint } = news;
  const body = { ...factsOf(news), response, status, source: "extension" };
  const notBefore = checkpoint ? Date.now() + CHECKPOINT_MS : 0;
  await put(news, owner, "response", body, status, notBefore);
}

function factsOf(news: TurnNews): Record<string, unknown> {
  return { ...news.facts, provider: news.provider, occurred_at: news.occurredAt };
}

async function put(
  news: TurnNews,
  owner: Settings,
  side: Side,
  body: Record<string, unknown>,
  status: "complete" | "partial" | null,
  notBefore: number,
): Promise<void> {
  const account = owner.account!.id;
  // Hashing is done before the transaction, which waits for nothing else.
  const derived = news.messageId && (await memoryId(account, news.provider, news.messageId));
  const replaced = news.replacesMessageId;
  const replaces = replaced && (await memoryId(account, news.provider, replaced));
  if (replaces) body["metadata"] = { ...news.facts.metadata, replaces };
  const text = JSON.stringify(body);
  // Texts are stored as UTF-16 at most.
  const bytes = 2 * text.length;
  const stores = ["turns", "deliveries", "bodies"] as const;
  await transaction([...stores], "readwrite", async (store) => {
    const known = await got(store("turns").get(news.key) as IDBRequest<Turn | undefined>);
    const waiting = await got(store("deliveries").getAll() as IDBRequest<Delivery[]>);
    const mine = waiting.filter((delivery) => delivery.turn === news.key);
    const before = mine.find((delivery) => delivery.side === side);
    const turn = known ?? newTurn(news, owner, derived ?? crypto.randomUUID(), !!derived);
    if (turn.undone || turn[side] === "saved" || isOvertaken(before, status, bytes)) return;
    rename(turn, mine, derived, news);
    const twins = await got(store("turns").index("byId").getAll(turn.id) as IDBRequest<Turn[]>);
    if (twins.some((twin) => twin.key !== turn.key && twin[side] === "saved")) {
      // Another tab shows the same turn, and has told it.
      store("turns").put({ ...turn, [side]: "saved" });
      return;
    }
    const used = waiting.reduce((sum, delivery) => sum + delivery.bytes, 0);
    if (used - (before?.bytes ?? 0) + bytes > MOST_BYTES) throw new OutboxFull();
    bring(turn, news, side, body);
    store("turns").put(turn);
    store("bodies").put(text, `${news.key}/${side}`);
    store("deliveries").put({
      key: `${news.key}/${side}`,
      turn: news.key,
      side,
      account: turn.account,
      server: turn.server,
      bytes,
      createdAt: before?.createdAt ?? Date.now(),
      notBefore,
      // What may have been sent keeps its id, so it must not look untried.
      attempts: before?.attempts ?? 0,
      revision: (before?.revision ?? 0) + 1,
      status,
      dead: null,
    } satisfies Delivery);
    if (side === "response") await release(store("deliveries"), mine);
  }).catch(async (error: unknown) => {
    const full = error instanceof OutboxFull || (error as Error).name === "QuotaExceededError";
    if (!full) throw error;
    await noteLoss(news, owner, side).catch(() => {});
    throw new OutboxFull();
  });
}

/** A turn that cannot be kept is still counted, so that its user sees it missing. */
async function noteLoss(news: TurnNews, owner: Settings, side: Side): Promise<void> {
  await transaction(["turns", "notes"], "readwrite", async (store) => {
    store("notes").put(Date.now(), "full");
    const known = await got(store("turns").get(news.key) as IDBRequest<Turn | undefined>);
    const turn = known ?? newTurn(news, owner, crypto.randomUUID(), false);
    const conversationId = news.facts.conversation_id ?? turn.conversationId;
    if (turn[side] === "none") store("turns").put({ ...turn, conversationId, [side]: "lost" });
  });
}

/** Messages may overtake one another: what has grown is not replaced by what it grew from. */
function isOvertaken(before: Delivery | undefined, status: string | null, bytes: number): boolean {
  if (!before || status !== "partial") return false;
  return before.status === "complete" || before.bytes > bytes;
}

function newTurn(news: TurnNews, owner: Settings, id: string, named: boolean): Turn {
  return {
    key: news.key,
    id,
    named,
    account: owner.account!.id,
    server: owner.server,
    provider: news.provider,
    messageId: news.messageId ?? null,
    conversationId: news.facts.conversation_id ?? null,
    prompt: "none",
    response: "none",
    undone: false,
    label: "",
    createdAt: Date.now(),
    changedAt: Date.now(),
  };
}

/** A late name is taken while nothing of the turn has been sent under another id. */
function rename(turn: Turn, mine: Delivery[], derived: string | undefined, news: TurnNews): void {
  const told = turn.prompt === "saved" || mine.some(({ attempts }) => attempts > 0);
  if (turn.named || !derived || told) return;
  turn.id = derived;
  turn.named = true;
  turn.messageId = news.messageId ?? null;
}

function bring(turn: Turn, news: TurnNews, side: Side, body: Record<string, unknown>): void {
  if (["none", "dead", "lost"].includes(turn[side])) turn[side] = "waiting";
  turn.conversationId = news.facts.conversation_id ?? turn.conversationId;
  turn.changedAt = Date.now();
  if (side === "prompt") turn.label = String(body["prompt"]).slice(0, 80);
}

/** Once the answer is there, its prompt need not wait for a name any longer. */
async function release(deliveries: IDBObjectStore, mine: Delivery[]): Promise<void> {
  const prompt = mine.find(({ side, attempts }) => side === "prompt" && attempts === 0);
  if (prompt && prompt.notBefore > 0) deliveries.put({ ...prompt, notBefore: 0 });
}

/** Has this turn begun to be saved? */
export async function knows(key: string): Promise<boolean> {
  return transaction(
    ["turns"],
    "readonly",
    async (store) => (await got(store("turns").count(key))) > 0,
  );
}

/** Was there no room for something within the last hour? */
export async function wasFull(): Promise<boolean> {
  return Date.now() - ((await note<number>("full")) ?? 0) < FULL_FOR_MS;
}

export async function deliveries(): Promise<Delivery[]> {
  const all = await transaction(["deliveries"], "readonly", (store) =>
    got(store("deliveries").getAll() as IDBRequest<Delivery[]>),
  );
  // What was tried less often goes first: one that is refused again and again must not stand before
  // the others. Then prompts before answers, and the oldest first.
  return all.sort(
    (a, b) =>
      a.attempts - b.attempts || a.createdAt - b.createdAt || a.key.localeCompare(b.key),
  );
}

export async function read(key: string): Promise<{ turn: Turn; body: string } | undefined> {
  return transaction(["deliveries", "turns", "bodies"], "readonly", async (store) => {
    const delivery = await got(store("deliveries").get(key) as IDBRequest<Delivery | undefined>);
    if (!delivery) return undefined;
    const turn = await got(store("turns").get(delivery.turn) as IDBRequest<Turn>);
    const body = await got(store("bodies").get(key) as IDBRequest<string>);
    return { turn, body };
  });
}

/** The request has been tried: remember it, so that its id stays, and when to try again. */
export async function tried(delivery: Delivery, notBefore: number): Promise<void> {
  await changeDelivery(delivery.key, (standing) => {
    standing.attempts += 1;
    if (standing.revision === delivery.revision) standing.notBefore = notBefore;
  });
}

async function changeDelivery(key: string, edit: (delivery: Delivery) => void): Promise<void> {
  await transaction(["deliveries"], "readwrite", async (store) => {
    const standing = await got(store("deliveries").get(key) as IDBRequest<Delivery | undefined>);
    if (!standing) return;
    edit(standing);
    store("deliveries").put(standing);
  });
}

/** The server has it: take the request out, unless a later text has come in the meantime. */
export async function delivered(delivery: Delivery): Promise<void> {
  await transaction(["deliveries", "turns", "bodies"], "readwrite", async (store) => {
    const { key, revision, side, status } = delivery;
    const standing = await got(store("deliveries").get(key) as IDBRequest<Delivery | undefined>);
    const turn = await got(store("turns").get(delivery.turn) as IDBRequest<Turn | undefined>);
    if (turn) {
      turn[side] = status === "partial" ? "partial" : "saved";
      turn.changedAt = Date.now();
      store("turns").put(turn);
    }
    if (standing?.revision !== revision) return;
    store("deliveries").delete(key);
    store("bodies").delete(key);
  });
}

/** The server calls it invalid: keep it, visibly, until its owner decides. */
export async function buried(delivery: Delivery, code: string, message: string): Promise<void> {
  await transaction(["deliveries", "turns"], "readwrite", async (store) => {
    const { key } = delivery;
    const standing = await got(store("deliveries").get(key) as IDBRequest<Delivery | undefined>);
    const turn = await got(store("turns").get(delivery.turn) as IDBRequest<Turn | undefined>);
    if (standing?.revision !== delivery.revision) return;
    store("deliveries").put({ ...standing, dead: { code, message } });
    if (turn) store("turns").put({ ...turn, [delivery.side]: "dead" });
  });
}

export async function revive(key: string): Promise<void> {
  await changeDelivery(key, (delivery) => {
    delivery.dead = null;
    delivery.notBefore = 0;
  });
}

export async function discard(key: string): Promise<void> {
  await transaction(["deliveries", "bodies"], "readwrite", async (store) => {
    store("deliveries").delete(key);
    store("bodies").delete(key);
  });
}

/** Try everything again as soon as possible. */
export async function hurry(): Promise<void> {
  await transaction(["deliveries"], "readwrite", async (store) => {
    for (const delivery of await got(store("deliveries").getAll() as IDBRequest<Delivery[]>)) {
      if (!delivery.dead && delivery.attempts > 0) {
        store("deliveries").put({ ...delivery, notBefore: 0 });
      }
    }
  });
}

export async function undo(key: string): Promise<void> {
  await transaction(["turns", "deliveries", "bodies"], "readwrite", async (store) => {
    const turn = await got(store("turns").get(key) as IDBRequest<Turn | undefined>);
    if (!turn) return;
    store("turns").put({ ...turn, undone: true, label: "" });
    for (const side of ["prompt", "response"]) {
      store("deliveries").delete(`${key}/${side}`);
      store("bodies").delete(`${key}/${side}`);
    }
  });
}
