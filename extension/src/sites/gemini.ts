import { at, listAt, nameAt, parse, textAt } from "./json";
import {
  emptyAnswer,
  type Endpoint,
  type Prompt,
  type Reader,
  type Site,
  type SiteRequest,
} from "./site";
import { Lines } from "./streams";

const SERVICE = String.raw`\/data\/assistant\.lamda\.BardFrontendService\/StreamGenerate$`;

export const endpoints: Endpoint[] = [
  {
    method: "POST",
    url: new RegExp(String.raw`^https:\/\/gemini\.google\.com(\/u\/\d+)?\/_\/BardChatUi` + SERVICE),
    role: "turn",
  },
];

// Places in the arrays of a request and of an answer.
const REQUEST_ID = 59;
const TEMPORARY = 45;
const TITLE = "11";
const END = "44";

/**
 * `)]}'`, then frames: a line with a length in UTF-16 units, line breaks included, and that much
 * JSON. A frame holds the whole text so far, so the last one counts.
 */
class GeminiReader implements Reader {
  readonly answer = emptyAnswer();
  #lines = new Lines();
  #frame = "";
  #expected = 0;

  push(text: string): void {
    for (const line of this.#lines.push(text)) this.#line(line);
  }

  close(clean: boolean): void {
    for (const line of this.#lines.end()) this.#line(line);
    if (clean && this.answer.text !== "") this.answer.done = true;
  }

  reopen(): void {
    this.#lines = new Lines();
    this.#frame = "";
  }

  #line(line: string): void {
    if (this.#frame === "" && /^\d+$/.test(line)) {
      this.#expected = Number(line);
      return;
    }
    if (this.#frame === "" && !line.startsWith("[")) return;
    this.#frame += (this.#frame === "" ? "" : "\n") + line;
    const rows = parse(this.#frame);
    // A frame ends with its line, unless its JSON itself has line breaks.
    if (rows !== undefined || this.#frame.length >= this.#expected) this.#frame = "";
    for (const row of Array.isArray(rows) ? rows : []) this.#row(row);
  }

  #row(row: unknown): void {
    const packed = textAt(row, 2);
    if (textAt(row, 0) !== "wrb.fr" || packed === undefined) return;
    const inner = parse(packed);
    this.answer.conversationId = nameAt(inner, 1, 0) ?? this.answer.conversationId;
    // Only the first candidate is shown.
    this.answer.messageId = nameAt(inner, 4, 0, 0) ?? this.answer.messageId;
    this.answer.text = textAt(inner, 4, 0, 1, 0) ?? this.answer.text;
    this.answer.title = nameAt(inner, 2, TITLE, 0) ?? this.answer.title;
    if (at(inner, 2, END) !== undefined) this.answer.done = true;
  }
}

function prompt({ body }: SiteRequest): Prompt | null {
  const packed = new URLSearchParams(body).get("f.req");
  const inner = parse(textAt(parse(packed ?? ""), 1) ?? "");
  const text = textAt(inner, 0, 0);
  if (text === undefined) return null;
  return {
    text,
    messageId: nameAt(inner, REQUEST_ID),
    conversationId: nameAt(inner, 2, 0),
    parentId: nameAt(inner, 2, 1),
    again: false,
    temporary: at(inner, TEMPORARY) === 1,
    attachments: listAt(inner, 0, 3).flatMap((file) => nameAt(file, 1) ?? []),
  };
}

export const gemini: Site = {
  id: "gemini",
  provider: "gemini",
  name: "Gemini",
  matches: ["https://gemini.google.com/*"],
  endpoints,
  namesLate: false,
  prompt,
  reader: () => new GeminiReader(),
  continued: () => ({}),
  conversationOf(page) {
    const id = /\/app\/(\w+)/.exec(page.pathname)?.[1];
    return id && `c_${id}`;
  },
  isTemporary: () => false,
  page: {
    composer: ["rich-textarea div.ql-editor[contenteditable='true']"],
    send: ["button.send-button"],
    userTurn: ["user-query"],
    assistantTurn: ["model-response", "[aria-label='Gemini response']"],
    busy: ["button.send-button.stop", "[aria-label*='Stop']"],
  },
};
