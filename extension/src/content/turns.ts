// The turns of one page: what the tap reports becomes prompts and answers to be saved. It knows
// no document and no chrome.*, so that all of it runs in Node too.

import type { OpenTurn, Tapped } from "../messages";
import {
  endpointFor,
  type Continued,
  type History,
  type PastTurn,
  type Prompt,
  type Site,
  type SiteRequest,
} from "../sites/site";
import { PastTurns } from "./past";
import {
  answerOf,
  conversationOf,
  isUntold,
  mayBeNamed,
  nameOf,
  newsOf,
  pattern,
  silentReader,
  textOf,
  type Phase,
  type Stream,
  type Turn,
  type World,
} from "./turn";

const CHECKPOINT_MS = 3_000;
/** A title may come right after the end of an answer. */
const TITLE_MS = 1_000;
/** Some models think for half an hour without a word. */
const GIVE_UP_MS = 60 * 60_000;

export class Turns {
  /** When a request with a prompt was last read, also one that is not to be saved. */
  lastTurnAt = -Infinity;
  #site: Site;
  #world: World;
  #streams = new Map<number, Stream>();
  #open = new Set<Turn>();
  #past = new PastTurns();
  /** The keys of all turns that were ever open here. */
  #keys = new Set<string>();

  constructor(site: Site, world: World) {
    this.#site = site;
    this.#world = world;
  }

  get busy(): boolean {
    return this.#open.size > 0;
  }

  take(message: Tapped): void {
    if (message.k === "request") this.#request(message.n, message.method, message.url, message.body);
    else if (message.k === "odd") this.#world.count("odd", pattern(message.url));
    else {
      const stream = this.#streams.get(message.n);
      if (!stream) return;
      if (message.k === "head") stream.status = message.status;
      else if (message.k === "data") this.#data(stream, message.data);
      else this.#end(message.n, stream, message.reason === "done", message.reason);
    }
  }

  /** Turns that an earlier page left unfinished, in case this one shows their answers. */
  adopt(open: OpenTurn[]): void {
    for (const left of open.filter(({ key }) => !this.#keys.has(key))) {
      const prompt: Prompt = {
        text: "",
        messageId: left.messageId,
        conversationId: left.conversationId,
        again: false,
        temporary: false,
        attachments: [],
      };
      const turn = this.#newTurn(prompt, left.key, "waiting");
      turn.promptSaid = turn.adopted = true;
      turn.saidName = left.messageId;
      this.#open.add(turn);
    }
  }

  /** A prompt that only the page itself showed. */
  fromPage(text: string): string {
    const conversationId = this.#site.conversationOf(this.#world.page());
    const prompt = { text, conversationId, again: false, temporary: false, attachments: [] };
    const turn = this.#newTurn(prompt, this.#world.newKey(), "waiting");
    turn.capture = "dom";
    turn.reader = silentReader();
    this.#world.count("dom");
    this.#open.add(turn);
    this.#sayPrompt(turn, false);
    return turn.key;
  }

  /** Turns whose answer no stream brings, so that the page must be read. */
  starving(): { key: string; since: number }[] {
    return [...this.#open]
      .filter((turn) => turn.phase === "waiting" && !turn.refused && !turn.adopted && isUntold(turn.reader.answer))
      .map(({ key, quietSince }) => ({ key, since: quietSince }));
  }

  /** The answer as the page shows it. */
  supply(key: string, text: string): void {
    for (const turn of this.#open) {
      if (turn.key !== key) continue;
      if (turn.capture === "network") this.#world.count("dom");
      turn.capture = "dom";
      turn.reader.answer.text = text;
      this.#finish(turn);
    }
  }

  /** Call this about every half second while `busy`. */
  tick(): void {
    const now = this.#world.now();
    for (const turn of this.#open) {
      if (turn.doneAt !== undefined && now - turn.doneAt >= TITLE_MS) this.#finish(turn);
      else if (now - turn.heardAt >= GIVE_UP_MS) this.#giveUp(turn);
    }
  }

  /** The page is going away: what is there so far is all there will be. */
  leave(): void {
    for (const turn of this.#open) this.#sayWhatIsThere(turn);
  }

  #request(n: number, method: string, url: string, body: string): void {
    const endpoint = endpointFor(this.#site.endpoints, method, url);
    if (!endpoint) return;
    const request = { url: new URL(url), body };
    const turn =
      endpoint.role === "turn"
        ? this.#begin(request)
        : endpoint.role === "rest" && method !== "WS"
          ? this.#waitingFor(this.#site.continued(request))
          : undefined;
    if (endpoint.role === "rest" && turn) this.#goOn(turn);
    const decoder = new TextDecoder();
    this.#streams.set(n, { endpoint, request, turn, decoder, whole: "", status: 200 });
  }

  #begin(request: SiteRequest): Turn | undefined {
    const prompt = this.#site.prompt(request);
    if (!prompt) {
      this.#world.count("unreadable", pattern(request.url.href));
      return undefined;
    }
    this.lastTurnAt = this.#world.now();
    const page = this.#world.page();
    if (prompt.temporary || this.#site.isTemporary(page)) return undefined;
    if (this.#world.isPaused(prompt.conversationId ?? this.#site.conversationOf(page))) {
      return undefined;
    }
    if (prompt.continues) return this.#extend(prompt, request.url.href);
    const turn = this.#newTurn(prompt, this.#world.newKey(), "streaming");
    this.#world.count("network");
    // The site tries again what has failed: the new try alone has an answer to wait for.
    for (const old of this.#open) {
      if (old.phase === "waiting" && nameOf(old) !== undefined && nameOf(old) === nameOf(turn)) {
        this.#open.delete(old);
      }
    }
    this.#open.add(turn);
    this.#past.remember(turn);
    // Another answer has an id once it is there; its prompt is safe already.
    if (!turn.again || nameOf(turn)) this.#sayPrompt(turn, mayBeNamed(this.#site, turn));
    return turn;
  }

  /** The answer that was cut off goes on: in the same memory, while that is not complete. */
  #extend(prompt: Prompt, url: string): Turn | undefined {
    const { parentId, conversationId } = prompt;
    const known = this.#past.answeredBy(parentId) ?? this.#waitingFor({ answerId: parentId, conversationId });
    const told = this.#past.toldOf(parentId);
    const turn = known && known.phase !== "done" ? known : this.#afresh(prompt, known, told);
    if (!turn) {
      this.#world.count("unreadable", pattern(url));
      return undefined;
    }
    // The first part has named it.
    if (turn.again && turn === known) turn.prompt.answerId ??= turn.reader.answer.messageId;
    this.#past.remember(turn);
    this.#open.add(turn);
    turn.reader.extend?.();
    turn.phase = "streaming";
    turn.heardAt = this.#world.now();
    return turn;
  }

  /** What a page goes on with that is complete elsewhere, or that another page has begun. */
  #afresh({ conversationId }: Prompt, known?: Turn, told?: PastTurn): Turn | undefined {
    if (!known && !told) return undefined;
    const prompt: Prompt = known
      ? { ...known.prompt, text: known.text, again: true }
      : { text: told!.prompt, messageId: told!.promptId, again: false, temporary: false, attachments: [] };
    const turn = this.#newTurn({ ...prompt, conversationId }, this.#world.newKey(), "streaming");
    turn.reader.answer.text = known?.reader.answer.text ?? told!.answer;
    if (!turn.again) this.#sayPrompt(turn, false);
    return turn;
  }

  #newTurn(prompt: Prompt, key: string, phase: Phase): Turn {
    this.#keys.add(key);
    const now = this.#world.now();
    const sibling = this.#past.siblingOf(prompt) ?? this.#past.askedAgain(prompt);
    const text = textOf(prompt);
    const again = prompt.again || (sibling !== undefined && sibling.text === text);
    const replaces = (prompt.again && prompt.messageId) || (sibling && nameOf(sibling));
    return {
      key,
      prompt,
      text: text || (again && replaces ? this.#past.textOf(replaces) || (sibling?.text ?? "") : ""),
      replaces,
      again,
      capture: "network",
      reader: this.#site.reader(),
      phase,
      refused: false,
      adopted: false,
      startedAt: now,
      heardAt: now,
      page: this.#world.page(),
      conversationId: prompt.conversationId,
      quietSince: now,
      doneAt: undefined,
      saidAt: now,
      said: "",
      saidName: undefined,
      promptSaid: false,
    };
  }

  #waitingFor({ conversationId, answerId }: Continued): Turn | undefined {
    const waiting = [...this.#open].filter((turn) => turn.phase === "waiting");
    const fitting = waiting.filter(
      (turn) =>
        (answerId !== undefined && turn.reader.answer.messageId === answerId) ||
        (conversationId !== undefined && conversationOf(turn) === conversationId),
    );
    if (fitting.length > 0) return fitting.at(-1);
    // Nothing tells which: then it can only be the one that waits, of this page before others.
    const own = waiting.filter((turn) => !turn.adopted);
    const [only, ...others] = own.length > 0 ? own : waiting;
    const unknown =
      only && (conversationId === undefined || conversationOf(only) === undefined);
    return unknown && others.length === 0 ? only : undefined;
  }

  #goOn(turn: Turn): void {
    turn.reader.reopen();
    turn.phase = "streaming";
    turn.heardAt = this.#world.now();
  }

  #data(stream: Stream, data: string | Uint8Array): void {
    const text = typeof data === "string" ? data : stream.decoder.decode(data, { stream: true });
    if (stream.endpoint.role === "history") stream.whole += text;
    else if (stream.endpoint.method === "WS") this.#frames(text);
    else if (stream.turn && stream.status < 400) this.#feed(stream.turn, text);
  }

  #frames(data: string): void {
    for (const { text, ...whose } of this.#site.frames?.(data) ?? []) {
      const streaming = [...this.#open].find(
        (turn) =>
          turn.phase === "streaming" &&
          turn.quietSince === Infinity &&
          conversationOf(turn) === whose.conversationId,
      );
      const turn = streaming ?? this.#waitingFor(whose);
      if (!turn) continue;
      if (turn.phase === "waiting") this.#goOn(turn);
      turn.quietSince = Infinity;
      this.#feed(turn, text);
      if (turn.doneAt !== undefined) this.#finish(turn);
    }
  }

  #feed(turn: Turn, text: string): void {
    if (turn.phase === "done") return;
    const named = nameOf(turn);
    turn.reader.push(text);
    const now = this.#world.now();
    turn.heardAt = now;
    this.#open.add(turn);
    const { answer } = turn.reader;
    if (!turn.again && !named && nameOf(turn)) this.#sayPrompt(turn, false);
    if (answer.done) turn.doneAt ??= now;
    else if (now - turn.saidAt >= CHECKPOINT_MS && !turn.again) this.#sayAnswer(turn, true);
  }

  #end(n: number, stream: Stream, clean: boolean, reason: string): void {
    this.#streams.delete(n);
    const { turn, endpoint, request } = stream;
    if (endpoint.role === "history") {
      stream.whole += stream.decoder.decode();
      const history = this.#site.history?.(request, stream.whole);
      if (history) this.#learn(history);
    }
    if (!turn || turn.phase === "done" || endpoint.method === "WS") return;
    this.#feed(turn, stream.decoder.decode());
    turn.reader.close(clean);
    turn.phase = "waiting";
    turn.quietSince = this.#world.now();
    turn.refused = stream.status >= 400 || reason === "aborted";
    this.#settle(turn);
  }

  /** A stream has ended: say what it brought; only a complete answer ends the turn. */
  #settle(turn: Turn): void {
    const { answer } = turn.reader;
    if (answer.done && answer.text !== "") return this.#finish(turn);
    if (answer.elsewhere) this.#world.count("handoff");
    else this.#world.count(answer.text === "" ? "empty" : "partial");
    this.#sayWhatIsThere(turn);
  }

  #sayWhatIsThere(turn: Turn): void {
    if (turn.doneAt !== undefined) this.#finish(turn);
    else {
      if (!turn.promptSaid || turn.saidName === undefined) this.#sayPrompt(turn, false);
      this.#sayAnswer(turn, false);
    }
  }

  #learn(history: History): void {
    for (const past of history.turns) {
      this.#past.rememberTold(past);
      for (const turn of this.#open) {
        if (turn.phase !== "waiting" || past.answer === "") continue;
        const id = nameOf(turn);
        if (turn.again ? past.answerId !== id || !id : past.promptId !== id) continue;
        const { answer } = turn.reader;
        answer.text = past.answer;
        answer.messageId ??= past.answerId;
        answer.conversationId ??= history.conversationId;
        answer.title ??= history.title;
        if (past.complete) this.#finish(turn);
      }
    }
  }

  #finish(turn: Turn): void {
    turn.phase = "done";
    this.#open.delete(turn);
    if (!turn.promptSaid || (turn.saidName === undefined && this.#site.namesLate)) {
      this.#sayPrompt(turn, false);
    }
    if (turn.reader.answer.text.trim() === "") return this.#world.count("empty");
    this.#world.count("complete");
    this.#world.send({ ...newsOf(this.#site, turn, false), ...answerOf(turn, "complete", false) });
  }

  #giveUp(turn: Turn): void {
    // Should its stream say something yet, it is taken up again.
    this.#open.delete(turn);
    this.#sayWhatIsThere(turn);
  }

  #sayPrompt(turn: Turn, unnamed: boolean): void {
    turn.promptSaid = true;
    const news = newsOf(this.#site, turn, unnamed);
    turn.saidName = news.messageId;
    if (turn.text.trim() !== "") this.#world.send({ ...news, type: "prompt", prompt: turn.text });
  }

  #sayAnswer(turn: Turn, checkpoint: boolean): void {
    const { text } = turn.reader.answer;
    if (text.trim() === "" || (text === turn.said && checkpoint)) return;
    turn.said = text;
    turn.saidAt = this.#world.now();
    const news = newsOf(this.#site, turn, mayBeNamed(this.#site, turn) && checkpoint);
    this.#world.send({ ...news, ...answerOf(turn, "partial", checkpoint) });
  }
}
