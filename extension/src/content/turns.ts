// The turns of one page: what the tap reports becomes prompts and answers to be saved. It knows
// no document and no chrome.*, so that all of it runs in Node too.

import { wellFormed } from "../ids";
import { withoutContext } from "../marker";
import type {
  AnswerNews,
  CounterName,
  Facts,
  OpenTurn,
  PromptNews,
  Tapped,
  TurnNews,
} from "../messages";
import {
  emptyAnswer,
  endpointFor,
  type Answer,
  type Continued,
  type Endpoint,
  type History,
  type Prompt,
  type Reader,
  type Site,
  type SiteRequest,
} from "../sites/site";

export interface World {
  now(): number;
  page(): URL;
  newKey(): string;
  isPaused(conversationId: string | undefined): boolean;
  send(news: PromptNews | AnswerNews): void;
  count(counter: CounterName, detail?: string): void;
}

const CHECKPOINT_MS = 3_000;
/** A title may come right after the end of an answer. */
const TITLE_MS = 1_000;
const GIVE_UP_MS = 15 * 60_000;
const MOST_REMEMBERED = 500;

type Phase = "streaming" | "waiting" | "done";

interface Turn {
  key: string;
  prompt: Prompt;
  text: string;
  replaces: string | undefined;
  again: boolean;
  capture: "network" | "dom";
  reader: Reader;
  phase: Phase;
  /** The site has refused it, or its user has stopped it: no page will show its answer. */
  refused: boolean;
  /** An earlier page began it. */
  adopted: boolean;
  startedAt: number;
  page: URL;
  conversationId: string | undefined;
  quietSince: number;
  doneAt: number | undefined;
  saidAt: number;
  said: string;
  saidName: string | undefined;
  promptSaid: boolean;
}

interface Stream {
  endpoint: Endpoint;
  request: SiteRequest;
  turn: Turn | undefined;
  decoder: TextDecoder;
  whole: string;
  status: number;
}

export class Turns {
  /** When a request with a prompt was last read, also one that is not to be saved. */
  lastTurnAt = -Infinity;
  #site: Site;
  #world: World;
  #streams = new Map<number, Stream>();
  #open = new Set<Turn>();
  #past: Turn[] = [];
  #texts = new Map<string, string>();

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
    for (const left of open) {
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
      else if (now - turn.startedAt >= GIVE_UP_MS) this.#giveUp(turn);
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
    const turn = this.#newTurn(prompt, this.#world.newKey(), "streaming");
    this.#world.count("network");
    this.#open.add(turn);
    this.#remember(turn);
    // Another answer has an id once it is there; its prompt is safe already.
    if (!turn.again || this.#nameOf(turn)) this.#sayPrompt(turn, this.#mayBeNamed(turn));
    return turn;
  }

  #newTurn(prompt: Prompt, key: string, phase: Phase): Turn {
    const now = this.#world.now();
    const sibling = this.#siblingOf(prompt);
    const text = textOf(prompt);
    const again = prompt.again || (sibling !== undefined && sibling.text === text);
    const replaces = prompt.again ? prompt.messageId : sibling?.prompt.messageId;
    return {
      key,
      prompt,
      text: text || (again && replaces ? (this.#texts.get(replaces) ?? "") : ""),
      replaces: replaces ?? sibling?.saidName,
      again,
      capture: "network",
      reader: this.#site.reader(),
      phase,
      refused: false,
      adopted: false,
      startedAt: now,
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

  /** A turn that took the same place: the new one is its edit, or asks for another answer. */
  #siblingOf({ parentId, conversationId, messageId }: Prompt): Turn | undefined {
    if (!parentId || !conversationId) return undefined;
    return this.#past.findLast(
      (turn) =>
        turn.prompt.parentId === parentId &&
        turn.conversationId === conversationId &&
        (turn.prompt.messageId === undefined || turn.prompt.messageId !== messageId),
    );
  }

  #remember(turn: Turn): void {
    this.#past.push(turn);
    if (this.#past.length > MOST_REMEMBERED) this.#past.shift();
    if (turn.prompt.messageId && turn.text && !turn.again) {
      this.#rememberText(turn.prompt.messageId, turn.text);
    }
  }

  #rememberText(messageId: string, text: string): void {
    this.#texts.set(messageId, text);
    if (this.#texts.size > MOST_REMEMBERED) this.#texts.delete(this.#texts.keys().next().value!);
  }

  #waitingFor({ conversationId, answerId }: Continued): Turn | undefined {
    const waiting = [...this.#open].filter((turn) => turn.phase === "waiting");
    const fitting = waiting.filter(
      (turn) =>
        (answerId !== undefined && turn.reader.answer.messageId === answerId) ||
        (conversationId !== undefined && this.#conversationOf(turn) === conversationId),
    );
    if (fitting.length > 0) return fitting.at(-1);
    // Nothing tells which: then it can only be the one that waits, of this page before others.
    const own = waiting.filter((turn) => !turn.adopted);
    const [only, ...others] = own.length > 0 ? own : waiting;
    const unknown =
      only && (conversationId === undefined || this.#conversationOf(only) === undefined);
    return unknown && others.length === 0 ? only : undefined;
  }

  #conversationOf(turn: Turn): string | undefined {
    return turn.reader.answer.conversationId ?? turn.conversationId;
  }

  #goOn(turn: Turn): void {
    turn.reader.reopen();
    turn.phase = "streaming";
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
          this.#conversationOf(turn) === whose.conversationId,
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
    const named = this.#nameOf(turn);
    turn.reader.push(text);
    const now = this.#world.now();
    const { answer } = turn.reader;
    if (!turn.again && !named && this.#nameOf(turn)) this.#sayPrompt(turn, false);
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
      this.#rememberText(past.promptId, past.prompt);
      for (const turn of this.#open) {
        if (turn.phase !== "waiting" || past.answer === "") continue;
        const id = this.#nameOf(turn);
        if (turn.again ? past.answerId !== id || !id : past.promptId !== id) continue;
        const { answer } = turn.reader;
        answer.text = past.answer;
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
    this.#world.send({ ...this.#news(turn, false), ...this.#answer(turn, "complete", false) });
  }

  #giveUp(turn: Turn): void {
    this.#sayWhatIsThere(turn);
    this.#open.delete(turn);
    turn.phase = "done";
  }

  #nameOf(turn: Turn): string | undefined {
    const { prompt, replaces, again, reader } = turn;
    const own = [prompt.messageId, reader.answer.promptId].find((id) => id && id !== replaces);
    if (own) return own;
    if (!again) return undefined;
    // Which of several messages is the answer is known at its end.
    return prompt.answerId ?? (turn.phase === "streaming" ? undefined : reader.answer.messageId);
  }

  #mayBeNamed(turn: Turn): boolean {
    return this.#site.namesLate && this.#nameOf(turn) === undefined;
  }

  #sayPrompt(turn: Turn, unnamed: boolean): void {
    turn.promptSaid = true;
    const news = this.#news(turn, unnamed);
    turn.saidName = news.messageId;
    if (turn.text.trim() !== "") this.#world.send({ ...news, type: "prompt", prompt: turn.text });
  }

  #sayAnswer(turn: Turn, checkpoint: boolean): void {
    const { text } = turn.reader.answer;
    if (text.trim() === "" || (text === turn.said && checkpoint)) return;
    turn.said = text;
    turn.saidAt = this.#world.now();
    const news = this.#news(turn, this.#mayBeNamed(turn) && checkpoint);
    this.#world.send({ ...news, ...this.#answer(turn, "partial", checkpoint) });
  }

  #answer(turn: Turn, status: "complete" | "partial", checkpoint: boolean) {
    const response = wellFormed(turn.reader.answer.text);
    return { type: "answer" as const, response, status, checkpoint };
  }

  #news(turn: Turn, unnamed: boolean): TurnNews {
    return {
      key: turn.key,
      provider: this.#site.provider,
      messageId: this.#nameOf(turn),
      replacesMessageId: turn.replaces,
      unnamed,
      facts: this.#facts(turn),
      occurredAt: new Date(turn.startedAt).toISOString(),
    };
  }

  #facts(turn: Turn): Facts {
    const { answer } = turn.reader;
    const { attachments } = turn.prompt;
    return {
      model: short(answer.model ?? turn.prompt.model),
      conversation_id: short(
        this.#conversationOf(turn) ?? this.#site.conversationOf(turn.page),
      ),
      conversation_title: short(answer.title),
      url: short(turn.page.origin + turn.page.pathname),
      metadata: {
        capture: turn.capture,
        ...(attachments.length > 0 && {
          attachments: attachments.slice(0, 20).map((name) => short(name)),
        }),
      },
    };
  }
}

/** No stream has told the answer, or the one that began it has handed it over. */
function isUntold(answer: Answer): boolean {
  return answer.elsewhere || answer.text === "";
}

function textOf(prompt: Prompt): string {
  const text = wellFormed(withoutContext(prompt.text));
  // What was sent without a word is known by the names of its files.
  return text.trim() === "" ? wellFormed(prompt.attachments.join(", ")) : text;
}

function silentReader(): Reader {
  return { answer: emptyAnswer(), push() {}, close() {}, reopen() {} };
}

/** Facts are bounded by the server; one that is too long is no reason to lose a turn. */
function short(text: string | undefined): string | undefined {
  return text && wellFormed(Array.from(text).slice(0, 500).join(""));
}

/** An address without what could tell a person: ids become `*`. */
function pattern(url: string): string {
  const { host, pathname } = new URL(url);
  const steps = pathname.split("/").map((step) => (/\d|.{25}/.test(step) ? "*" : step));
  return (host + steps.join("/")).slice(0, 200);
}
