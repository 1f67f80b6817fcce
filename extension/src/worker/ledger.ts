// What became of the turns: for the popup, and for pages that go on where others left off.

import type { OpenTurn } from "../messages";
import type { Provider } from "../sites/site";
import { got, transaction } from "./database";
import type { Delivery, Progress, Turn } from "./outbox";

const OPEN_FOR_MS = 24 * 3_600_000;
const KEEP_FOR_MS = 30 * 24 * 3_600_000;
const OPEN = new Set<Progress>(["waiting", "dead", "lost"]);

export async function turn(key: string): Promise<Turn | undefined> {
  return transaction(["turns"], "readonly", (store) =>
    got(store("turns").get(key) as IDBRequest<Turn | undefined>),
  );
}

export async function lastSaved(account: string): Promise<Turn | undefined> {
  return transaction(["turns"], "readonly", async (store) => {
    const walk = store("turns").index("byTime").openCursor(null, "prev");
    for (let cursor = await got(walk); cursor; ) {
      const turn = cursor.value as Turn;
      if (turn.account === account && !turn.undone && turn.prompt === "saved") return turn;
      cursor.continue();
      cursor = await got(walk as unknown as IDBRequest<IDBCursorWithValue | null>);
    }
    return undefined;
  });
}

/** How many turns of a conversation there are, and how many of them the server has. */
export async function countTurns(
  account: string,
  provider: Provider,
  conversationId: string,
): Promise<{ saved: number; all: number }> {
  const turns = await transaction(["turns"], "readonly", (store) =>
    got(
      store("turns")
        .index("byConversation")
        .getAll([provider, conversationId]) as IDBRequest<Turn[]>,
    ),
  );
  const mine = new Map<string, Turn[]>();
  for (const turn of turns) {
    if (turn.account === account && !turn.undone) {
      mine.set(turn.id, [...(mine.get(turn.id) ?? []), turn]);
    }
  }
  const all = [...mine.values()];
  return { all: all.length, saved: all.filter((same) => same.every(isSaved)).length };
}

function isSaved(turn: Turn): boolean {
  const done = (progress: Progress): boolean => !OPEN.has(progress);
  return done(turn.prompt) && done(turn.response);
}

/** Turns that a page has left without a complete answer. */
export async function openTurns(account: string, provider: Provider): Promise<OpenTurn[]> {
  const since = IDBKeyRange.lowerBound(Date.now() - OPEN_FOR_MS);
  const turns = await transaction(["turns"], "readonly", (store) =>
    got(store("turns").index("byTime").getAll(since) as IDBRequest<Turn[]>),
  );
  return turns
    .filter((turn) => turn.account === account && turn.provider === provider && !turn.undone)
    .filter((turn) => turn.response !== "saved" && turn.messageId !== null && turn.named)
    .slice(-50)
    .map(({ key, messageId, conversationId }) => ({
      key,
      messageId: messageId!,
      conversationId: conversationId ?? undefined,
    }));
}

/** Forget what happened to turns long ago; what was not delivered is never forgotten. */
export async function tidy(): Promise<void> {
  const old = IDBKeyRange.upperBound(Date.now() - KEEP_FOR_MS);
  await transaction(["turns", "deliveries"], "readwrite", async (store) => {
    const waiting = await got(store("deliveries").getAll() as IDBRequest<Delivery[]>);
    const needed = new Set(waiting.map(({ turn }) => turn));
    for (const key of await got(store("turns").index("byTime").getAllKeys(old))) {
      if (!needed.has(String(key))) store("turns").delete(key);
    }
  });
}
