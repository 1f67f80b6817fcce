// Runs beside the page, in a world of its own: joins the tap, the turns, the page and the worker.

import { contextBlock } from "../marker";
import type {
  CounterName,
  Found,
  HelloAnswer,
  Known,
  OpenTurn,
  Standing,
  Tapped,
  ToPage,
  Where,
} from "../messages";
import { siteOf } from "../sites/all";
import type { Site } from "../sites/site";
import { published } from "../standings";
import { firstOf, insert, lastTextOf, textOf } from "./composer";
import { MemoriesButton } from "./memories";
import { takeUp } from "./left";
import { MissedTurns } from "./missed";
import { ask, isAlive, Outbound } from "./outbound";
import { Turns } from "./turns";

const TICK_MS = 500;
const QUIET_MS = 1_500;
const SELF_CHECK_MS = 10_000;
const HELLO_MS = 1_500;

class Content {
  #site: Site;
  #port: MessagePort | undefined;
  #outbound: Outbound;
  #turns: Turns;
  #missed: MissedTurns | undefined;
  #button: MemoriesButton | undefined;
  #standing: Standing = "off";
  #begun = false;
  /** What the page says before it is known whether to keep it. */
  #early: Tapped[] = [];
  /** How things stand, as far as it has been told. */
  #known: Known | undefined;
  #paused = new Set<string>();
  #pausedHere = false;
  #toldToReload = false;
  /** What the page showed as its last answer when a turn began, by the turn's key. */
  #before = new Map<string, string>();
  #busyAt = Date.now();
  #shown = "";

  constructor(site: Site) {
    this.#site = site;
    this.#outbound = new Outbound(site.id, () => this.#orphaned());
    this.#turns = new Turns(site, {
      now: () => Date.now(),
      page: () => new URL(location.href),
      newKey: () => crypto.randomUUID(),
      isPaused: (id) => this.#pausedHere || (id !== undefined && this.#paused.has(id)),
      send: (news) => {
        if (news.type === "prompt" && !this.#before.has(news.key)) {
          this.#before.set(news.key, lastTextOf(site.page.assistantTurn));
        }
        this.#outbound.send(news);
      },
      count: (counter, detail) => this.#count(counter, detail),
    });
  }

  start(): void {
    addEventListener("message", (event) => this.#meetTap(event), { capture: true });
    addEventListener("pagehide", () => {
      if (!this.#begun && this.#known) this.#begin(this.#known);
      this.#turns.leave();
      this.#outbound.leave();
    });
    chrome.runtime.onMessage.addListener((message: ToPage, _sender, reply) =>
      this.#fromWorker(message, reply),
    );
    setInterval(() => this.#tick(), TICK_MS);
    setTimeout(() => this.#checkSelf(), SELF_CHECK_MS);
    void this.#introduce();
  }

  #meetTap(event: MessageEvent<unknown>): void {
    if (this.#port || event.source !== window || event.ports.length !== 1) return;
    // No script of the page has been able to listen before this one.
    event.stopImmediatePropagation();
    this.#port = event.ports[0]!;
    this.#port.onmessage = ({ data }: MessageEvent<unknown>) => {
      if (isTapped(data)) this.#tapped(data);
    };
    if (this.#known) this.#tellTap();
  }

  #tapped(message: Tapped): void {
    if (!this.#begun) this.#early.push(message);
    // A turn that began before a pause is brought to its end; a socket is no turn.
    else if (this.#standing === "saving" || isOngoing(message)) this.#turns.take(message);
  }

  async #introduce(): Promise<void> {
    this.#known ??= await published(this.#site.id);
    for (let pause = 100; isAlive(); pause = Math.min(2 * pause, 5_000)) {
      const answer = await ask<HelloAnswer>({ type: "hello" }, HELLO_MS).catch(() => undefined);
      if (answer) return this.#begin(answer, answer.open);
      // A busy worker must not keep a chat from being kept; it is asked on for what others left.
      if (!this.#begun && this.#known) this.#begin(this.#known);
      await new Promise((done) => setTimeout(done, pause));
    }
  }

  #begin(known: Known, open: OpenTurn[] = []): void {
    this.#setStanding(known);
    this.#begun = true;
    if (known.standing === "saving") this.#turns.adopt(open);
    for (const message of this.#early.splice(0)) this.#tapped(message);
    for (const news of takeUp()) this.#outbound.send(news);
  }

  #setStanding(known: Known): void {
    const { standing, account, paused } = known;
    this.#known = known;
    this.#standing = standing;
    this.#outbound.account = account;
    this.#paused = new Set(paused);
    this.#tellTap();
    const saving = standing === "saving";
    if (saving && !this.#missed) this.#missed = this.#watch();
    if (!saving) {
      this.#missed?.stop();
      this.#missed = undefined;
    }
    // Memories can be used where nothing is saved, once somebody is signed in.
    const useful = saving || standing === "off";
    if (useful) this.#button ??= this.#makeButton();
    else {
      this.#button?.remove();
      this.#button = undefined;
    }
  }

  #tellTap(): void {
    this.#port?.postMessage(this.#standing === "saving");
  }

  #watch(): MissedTurns {
    return new MissedTurns(
      this.#site,
      () => this.#turns.lastTurnAt,
      ({ text, before }) => {
        const page = new URL(location.href);
        const conversation = this.#site.conversationOf(page);
        if (this.#site.isTemporary(page) || this.#pausedHere) return;
        if (conversation && this.#paused.has(conversation)) return;
        this.#count("missed");
        const key = this.#turns.fromPage(text);
        this.#before.set(key, before);
        if (this.#missed?.domMode) this.#outbound.send({ type: "domMode", on: true });
      },
    );
  }

  #makeButton(): MemoriesButton {
    return new MemoriesButton({
      composer: () => firstOf(this.#site.page.composer),
      draft: () => {
        const box = firstOf(this.#site.page.composer);
        return box ? textOf(box) : "";
      },
      search: (query) =>
        ask<{ found: Found[] } | { problem: string }>({ type: "search", query }).catch(() => ({
          problem: "Memory Layer does not answer. Reload this page.",
        })),
      insert: (found) => this.#insert(contextBlock(found)),
    });
  }

  /** Return what to tell the user, or nothing when the text stands in the box. */
  async #insert(text: string): Promise<string> {
    const box = firstOf(this.#site.page.composer);
    const technique = box ? await insert(box, text) : null;
    this.#count(technique ? "inserted" : "insertFailed", technique ?? undefined);
    if (technique === null) return "This page has no prompt box that could be written to.";
    return technique === "copied" ? "Copied: paste it into the prompt box." : "";
  }

  #fromWorker(message: ToPage, reply: (answer: unknown) => void): boolean {
    switch (message.type) {
      case "standing":
        this.#setStanding(message);
        reply(true);
        return false;
      case "where":
        reply(this.#where());
        return false;
      case "pauseHere":
        this.#pausedHere = message.paused;
        reply(true);
        return false;
      case "insert":
        void this.#insert(message.text).then(reply);
        return true;
      case "openMemories":
        this.#button?.open();
        reply(true);
        return false;
    }
  }

  #where(): Where {
    return {
      site: this.#site.id,
      provider: this.#site.provider,
      conversationId: this.#site.conversationOf(new URL(location.href)),
      pausedHere: this.#pausedHere,
      domMode: this.#missed?.domMode ?? false,
      tapped: this.#port !== undefined,
    };
  }

  #tick(): void {
    this.#turns.tick();
    if (!isAlive()) return this.#orphaned();
    this.#rememberPause();
    const starving = this.#turns.starving();
    if (starving.length > 0) this.#readPage(starving);
  }

  /** A new chat was paused before it had an id. */
  #rememberPause(): void {
    const conversationId = this.#site.conversationOf(new URL(location.href));
    if (!this.#pausedHere || !conversationId) return;
    this.#pausedHere = false;
    this.#paused.add(conversationId);
    this.#outbound.send({ type: "pauseConversation", conversationId });
  }

  /** The last resort: the newest answer as the page shows it, once the page has come to rest. */
  #readPage(starving: { key: string; since: number }[]): void {
    const now = Date.now();
    const text = lastTextOf(this.#site.page.assistantTurn);
    if (text !== this.#shown || firstOf(this.#site.page.busy)) this.#busyAt = now;
    this.#shown = text;
    for (const { key, since } of starving) {
      const before = this.#before.get(key);
      const resting = now - Math.max(this.#busyAt, since) >= QUIET_MS;
      if (resting && before !== undefined && text !== before && text.trim() !== "") {
        this.#turns.supply(key, text);
      }
    }
  }

  #checkSelf(): void {
    if (this.#standing !== "saving" || document.hidden) return;
    if (!this.#port) this.#count("noTap");
    if (!firstOf(this.#site.page.composer)) this.#count("noComposer");
  }

  #count(counter: CounterName, detail?: string): void {
    this.#outbound.send({ type: "count", counter, detail });
  }

  #orphaned(): void {
    if (this.#toldToReload || this.#standing !== "saving") return;
    this.#toldToReload = true;
    this.#port?.postMessage(false);
    this.#missed?.stop();
    this.#button ??= this.#makeButton();
    this.#button.tell(
      "Memory Layer was updated or switched off: nothing more is saved here. Reload this page.",
    );
  }
}

function isOngoing(message: Tapped): boolean {
  return message.k !== "request" || message.method === "WS";
}

/** What comes through the port is believed only in shape. */
function isTapped(data: unknown): data is Tapped {
  const kind = (data as { k?: unknown } | null)?.k;
  return typeof data === "object" && typeof kind === "string";
}

const site = siteOf(new URL(location.href));
if (site) new Content(site).start();
