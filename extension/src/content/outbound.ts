// The way to the worker, which may be asleep, busy or gone. What is handed over stays here, and where
// it outlives this page, until the worker says that it has it on disk.

import type { FromPage } from "../messages";
import type { SiteId } from "../sites/site";
import * as spool from "../spool";
import { leaveBehind } from "./left";

/** A worker that is ended in the middle never answers; to tell it twice is harmless. */
const ANSWER_MS = 2_500;
const LONGEST_PAUSE_MS = 10_000;

export class Outbound {
  #site: SiteId;
  account: string | null = null;
  #waiting = new Set<FromPage>();
  #orphaned: () => void;

  constructor(site: SiteId, orphaned: () => void) {
    this.#site = site;
    this.#orphaned = orphaned;
  }

  /** Messages do not wait for one another: one that hangs must not hold up the others. */
  send(message: FromPage): void {
    this.#waiting.add(message);
    const name = isTurn(message) && isAlive() ? this.#spool(message) : undefined;
    void this.#handOver(message).then((taken) => {
      this.#waiting.delete(message);
      if (taken && name !== undefined) void spool.drop(name);
    });
  }

  /** The page is going away: hand over everything, without waiting for any word. */
  leave(): void {
    if (!isAlive()) return;
    for (const message of this.#waiting) void ask(message).catch(() => {});
  }

  #spool(news: spool.Told): string {
    const incognito = chrome.extension.inIncognitoContext;
    return spool.keep({ site: this.#site, account: this.account, incognito, news });
  }

  /** Return false where there is no worker any more. */
  async #handOver(message: FromPage): Promise<boolean> {
    for (let pause = 100; ; pause = Math.min(2 * pause, LONGEST_PAUSE_MS)) {
      const taken = await ask(message, ANSWER_MS).catch(() => undefined);
      if (taken !== undefined) return true;
      if (!isAlive()) break;
      await new Promise((done) => setTimeout(done, pause));
    }
    if (isTurn(message)) leaveBehind(message);
    this.#orphaned();
    return false;
  }
}

/** What is lost with the page, unless it is kept elsewhere; of an answer that grows more will come. */
function isTurn(message: FromPage): message is spool.Told {
  return message.type === "prompt" || (message.type === "answer" && !message.checkpoint);
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
