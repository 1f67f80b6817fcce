// The way to the worker, which may be asleep, busy or gone. What is handed over stays here until
// the worker says that it has it on disk.

import type { FromPage } from "../messages";

/** A worker that is ended in the middle never answers; to tell it twice is harmless. */
const ANSWER_MS = 2_500;
const LONGEST_PAUSE_MS = 10_000;

export class Outbound {
  #waiting = new Set<FromPage>();
  #orphaned: () => void;

  constructor(orphaned: () => void) {
    this.#orphaned = orphaned;
  }

  /** Messages do not wait for one another: one that hangs must not hold up the others. */
  send(message: FromPage): void {
    this.#waiting.add(message);
    void this.#handOver(message);
  }

  /** The page is going away: hand over everything, without waiting for any word. */
  leave(): void {
    for (const message of this.#waiting) chrome.runtime?.sendMessage(message).catch(() => {});
  }

  async #handOver(message: FromPage): Promise<void> {
    for (let pause = 100; ; pause = Math.min(2 * pause, LONGEST_PAUSE_MS)) {
      const taken = await ask(message, ANSWER_MS).catch(() => undefined);
      if (taken !== undefined) break;
      if (!isAlive()) return this.#orphaned();
      await new Promise((done) => setTimeout(done, pause));
    }
    this.#waiting.delete(message);
  }
}

/** After an update or removal of the extension this page's script has no worker any more. */
export function isAlive(): boolean {
  return chrome.runtime?.id !== undefined;
}

export async function ask<T>(message: FromPage, patience = 15_000): Promise<T> {
  let timer: ReturnType<typeof setTimeout>;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error("no answer")), patience);
  });
  const answer = chrome.runtime.sendMessage<FromPage, T>(message);
  return Promise.race([answer, late]).finally(() => clearTimeout(timer));
}
