// Notices prompts that were sent while the tap saw none: a site has changed.

import type { Site } from "../sites/site";
import { firstOf, lastTextOf, textOf } from "./composer";

const UNTIL_MISSED_MS = 10_000;
/** Once the network has failed twice, the page is believed at once. */
const UNTIL_MISSED_IN_DOM_MODE_MS = 1_500;
const UNTIL_EMPTY_MS = 2_000;
const MISSES = 2;

export interface MissedPrompt {
  text: string;
  /** The last answer as the page showed it before. */
  before: string;
}

export class MissedTurns {
  #site: Site;
  #lastTurnAt: () => number;
  #report: (missed: MissedPrompt) => void;
  #misses = 0;
  #listening = new AbortController();

  constructor(site: Site, lastTurnAt: () => number, report: (missed: MissedPrompt) => void) {
    this.#site = site;
    this.#lastTurnAt = lastTurnAt;
    this.#report = report;
    const options = { capture: true, signal: this.#listening.signal };
    document.addEventListener("keydown", (event) => this.#key(event), options);
    document.addEventListener("click", (event) => this.#click(event), options);
  }

  get domMode(): boolean {
    return this.#misses >= MISSES;
  }

  stop(): void {
    this.#listening.abort();
  }

  #key(event: KeyboardEvent): void {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    const box = firstOf(this.#site.page.composer);
    if (box?.contains(event.target as Node)) void this.#maySend(box);
  }

  #click(event: MouseEvent): void {
    const target = event.target as Element;
    if (!this.#site.page.send.some((selector) => target.closest?.(selector))) return;
    const box = firstOf(this.#site.page.composer);
    if (box) void this.#maySend(box);
  }

  async #maySend(box: HTMLElement): Promise<void> {
    const text = textOf(box).trim();
    if (!text) return;
    const at = Date.now();
    const before = lastTextOf(this.#site.page.assistantTurn);
    if (!(await this.#emptied(at))) return;
    const wait = this.domMode ? UNTIL_MISSED_IN_DOM_MODE_MS : UNTIL_MISSED_MS;
    await new Promise((done) => setTimeout(done, at + wait - Date.now()));
    if (this.#lastTurnAt() >= at - 500) {
      this.#misses = 0;
    } else if (!this.#listening.signal.aborted) {
      this.#misses += 1;
      this.#report({ text, before });
    }
  }

  async #emptied(since: number): Promise<boolean> {
    while (Date.now() - since < UNTIL_EMPTY_MS) {
      await new Promise((done) => setTimeout(done, 100));
      const box = firstOf(this.#site.page.composer);
      if (!box || textOf(box).trim() === "") return true;
    }
    return false;
  }
}
