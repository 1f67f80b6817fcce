// The way to the worker, which may be asleep, busy or gone. What is handed over stays here until
// the worker says that it has it on disk.

import type { FromPage } from "../messages";

const ANSWER_MS = 15_000;
const LONGEST_PAUSE_MS = 10_000;

export class Outbound {
  #waiting: FromPage[] = [];
  #sending = false;
  #orphaned: () => void;

  constructor(orphaned: () => void) {
    this.#orphaned = orphaned;
  }

  send(message: FromPage): void {
    this.#waiting.push(message);
    if (!this.#sending) void this.#sendAll();
  }

  /** The page is going away: hand over everything, without waiting for any word. */
  leave(): void {
    for (const message of this.#waiting) chrome.runtime?.sendMessage(message).catch(() => {});
  }

  async #sendAll(): Promise<void> {
    this.#sending = true;
    for (let pause = 200; this.#waiting.length > 0; ) {
      const taken = await ask(this.#waiting[0]!).catch(() => undefined);
      if (taken !== undefined) {
        this.#waiting.shift();
        pause = 200;
      } else if (!isAlive()) {
        this.#orphaned();
        break;
      } else {
        await new Promise((done) => setTimeout(done, pause));
        pause = Math.min(pause * 2, LONGEST_PAUSE_MS);
      }
    }
    this.#sending = false;
  }
}

/** After an update or removal of the extension this page's script has no worker any more. */
export function isAlive(): boolean {
  return chrome.runtime?.id !== undefined;
}

export async function ask<T>(message: FromPage): Promise<T> {
  let timer: ReturnType<typeof setTimeout>;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error("no answer")), ANSWER_MS);
  });
  const answer = chrome.runtime.sendMessage<FromPage, T>(message);
  return Promise.race([answer, late]).finally(() => clearTimeout(timer));
}
