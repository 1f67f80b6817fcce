// A page without a browser: what the tap would report goes in, what would be saved comes out.

import type { World } from "../src/content/turn";
import { Turns } from "../src/content/turns";
import type { AnswerNews, PromptNews } from "../src/messages";
import type { Site } from "../src/sites/site";

export class Page {
  news: (PromptNews | AnswerNews)[] = [];
  counted: string[] = [];
  time = 1_000_000;
  paused = "a paused one";
  turns: Turns;
  #keys = 0;
  #requests = 0;

  constructor(
    site: Site,
    public url = site.matches[0]!.replace("*", ""),
  ) {
    const world: World = {
      now: () => this.time,
      page: () => new URL(this.url),
      isPaused: (conversationId) => conversationId === this.paused,
      newKey: () => `key-${++this.#keys}`,
      send: (news) => this.news.push(structuredClone(news)),
      count: (counter) => this.counted.push(counter),
    };
    this.turns = new Turns(site, world);
  }

  ask(url: string, body: unknown, method = "POST"): number {
    const n = ++this.#requests;
    const text = typeof body === "string" ? body : JSON.stringify(body);
    this.turns.take({ k: "request", n, method, url, body: text });
    return n;
  }

  receive(n: number, stream: string | Uint8Array, ...cuts: number[]): void {
    const bytes = typeof stream === "string" ? new TextEncoder().encode(stream) : stream;
    let start = 0;
    for (const cut of [...cuts, bytes.length]) {
      this.turns.take({ k: "data", n, data: bytes.slice(start, cut) });
      start = cut;
    }
  }

  end(n: number, reason: "done" | "aborted" | "failed" = "done"): void {
    this.turns.take({ k: "end", n, reason });
  }

  get prompts(): PromptNews[] {
    return this.news.filter((one) => one.type === "prompt");
  }

  get answers(): AnswerNews[] {
    return this.news.filter((one) => one.type === "answer");
  }

  get answer(): AnswerNews {
    return this.answers.at(-1)!;
  }
}
