import { at, listAt, nameAt, parse, textAt } from "./json";
import {
  emptyAnswer,
  type Continued,
  type Endpoint,
  type History,
  type PastTurn,
  type Prompt,
  type Reader,
  type Site,
  type SiteRequest,
} from "./site";
import { ServerSentEvents } from "./streams";

const HOST = String.raw`^https:\/\/chatgpt\.com\/backend-api\/`;

export const endpoints: Endpoint[] = [
  { method: "POST", url: new RegExp(HOST + String.raw`(f\/)?conversation$`), role: "turn" },
  { method: "POST", url: new RegExp(HOST + String.raw`f\/conversation\/resume$`), role: "rest" },
  { method: "GET", url: new RegExp(HOST + String.raw`f\/conversation\/resume$`), role: "rest" },
  { method: "GET", url: new RegExp(HOST + String.raw`conversation\/[\w-]+$`), role: "history" },
  { method: "WS", url: /^wss:\/\/ws\.chatgpt\.com\//, role: "rest" },
];

interface Message {
  id: string;
  parts: string[];
  finished: boolean;
  /** It was as long as an answer may be: its user may let it go on. */
  cut: boolean;
  /** Said to the user by the assistant: no reasoning, no tool call, nothing hidden. */
  visible: boolean;
}

const FIRST_PART = /^\/message\/content\/parts\/(\d+)$/;

function readMessage(message: unknown): Message | null {
  const id = nameAt(message, "id");
  if (!id) return null;
  return {
    id,
    parts: partsOf(message),
    finished: textAt(message, "status") === "finished_successfully",
    cut: isCut(textAt(message, "status"), at(message, "metadata", "finish_details")),
    visible: textAt(message, "author", "role") === "assistant" && isSaid(message),
  };
}

function isCut(status: unknown, details: unknown): boolean {
  return status === "finished_partial_completion" || textAt(details, "type") === "max_tokens";
}

/** An answer of several messages; one that was cut off goes on in the middle of a word. */
function joined(messages: Message[]): string {
  return messages.reduce((text, { parts }, n) => {
    const gap = n === 0 || messages[n - 1]!.cut ? "" : "\n\n";
    return text + gap + parts.join("");
  }, "");
}

function partsOf(message: unknown): string[] {
  return listAt(message, "content", "parts").map((part) =>
    typeof part === "string" ? part : (textAt(part, "text") ?? ""),
  );
}

function isSaid(message: unknown): boolean {
  const kind = textAt(message, "content", "content_type") ?? "text";
  return (
    (kind === "text" || kind === "multimodal_text") &&
    (textAt(message, "channel") ?? "final") === "final" &&
    (textAt(message, "recipient") ?? "all") === "all" &&
    at(message, "metadata", "is_visually_hidden_from_conversation") !== true
  );
}

/** Delta encoding v1: a frame without `p` or `o` repeats the last ones; older: whole snapshots. */
class ChatGPTReader implements Reader {
  readonly answer = emptyAnswer();
  #events = new ServerSentEvents();
  #messages = new Map<string, Message>();
  #current: Message | null = null;
  #path = "";
  #operation = "";
  #completed = false;
  #before = "";

  push(text: string): void {
    this.#take(this.#events.push(text));
  }

  close(): void {
    this.#take(this.#events.end());
    const last = this.#said().at(-1);
    if (last?.finished && !last.cut && !this.answer.elsewhere) this.answer.done = true;
  }

  reopen(): void {
    this.#events = new ServerSentEvents();
    this.answer.elsewhere = false;
  }

  extend(): void {
    this.reopen();
    this.#before = this.answer.text;
    this.#messages.clear();
    this.#current = null;
    this.#completed = this.answer.done = false;
  }

  #take(events: string[]): void {
    for (const data of events) {
      if (data === "[DONE]") this.#completed ||= !this.answer.elsewhere;
      else this.#frame(parse(data));
    }
    if (events.length > 0) this.#sum();
  }

  #frame(frame: unknown): void {
    this.answer.conversationId = nameAt(frame, "conversation_id") ?? this.answer.conversationId;
    const type = textAt(frame, "type");
    if (type !== undefined) this.#note(type, frame);
    else if (at(frame, "message") !== undefined) this.#snapshot(frame);
    else if (typeof frame === "object" && frame !== null) this.#apply(frame);
  }

  #note(type: string, frame: unknown): void {
    if (type === "stream_handoff") this.answer.elsewhere = true;
    if (type === "message_stream_complete") this.#completed = true;
    if (type === "title_generation") this.answer.title = nameAt(frame, "title");
    if (type === "input_message") this.answer.promptId ??= nameAt(frame, "input_message", "id");
  }

  #apply(frame: object): void {
    this.#path = textAt(frame, "p") ?? this.#path;
    this.#operation = textAt(frame, "o") ?? this.#operation;
    const value = at(frame, "v");
    if (Array.isArray(value) && this.#operation === "patch") {
      for (const inner of value) {
        if (typeof inner === "object" && inner !== null) this.#apply(inner);
      }
      this.#operation = "patch";
    } else if (at(value, "message") !== undefined) {
      this.answer.conversationId = nameAt(value, "conversation_id") ?? this.answer.conversationId;
      this.#snapshot(value);
    } else if (this.#current) {
      this.#change(this.#current, value);
    }
  }

  #change(message: Message, value: unknown): void {
    const part = FIRST_PART.exec(this.#path);
    if (part && typeof value === "string") {
      const n = Number(part[1]);
      const before = this.#operation === "replace" ? "" : (message.parts[n] ?? "");
      message.parts[n] = before + value;
    } else if (this.#path === "/message/status") {
      message.finished = value === "finished_successfully";
      message.cut = isCut(value, null);
    } else if (this.#path === "/message/metadata") {
      message.cut ||= isCut(null, at(value, "finish_details"));
    } else if (this.#path === "/message/metadata/finish_details") {
      message.cut ||= isCut(null, value);
    } else if (this.#path === "/message/metadata/model_slug" && typeof value === "string") {
      this.answer.model = value;
    }
  }

  #snapshot(holder: unknown): void {
    const raw = at(holder, "message");
    const message = readMessage(raw);
    if (!message) return;
    if (textAt(raw, "author", "role") === "user") this.answer.promptId = message.id;
    this.answer.model = nameAt(raw, "metadata", "model_slug") ?? this.answer.model;
    this.#current = message;
    this.#messages.set(message.id, message);
  }

  #said(): Message[] {
    return [...this.#messages.values()].filter((message) => message.visible);
  }

  #sum(): void {
    const said = this.#said().filter((message) => message.parts.join("") !== "");
    const text = joined(said);
    // Some streams begin anew with what was there.
    this.answer.text = text.startsWith(this.#before) ? text : this.#before + text;
    this.answer.messageId = said.at(-1)?.id ?? this.answer.messageId;
    // A turn that was handed off says DONE here and goes on elsewhere.
    const cut = said.at(-1)?.cut ?? false;
    this.answer.done = this.#completed && !this.answer.elsewhere && !cut;
  }
}

function prompt({ body, url }: SiteRequest): Prompt | null {
  const request = parse(body);
  const action = textAt(request, "action") ?? "next";
  const asked = listAt(request, "messages").filter(
    (message) => textAt(message, "author", "role") === "user" && isShown(message),
  );
  const message = asked.at(-1);
  const again = action === "variant";
  const continues = action === "continue";
  if (!again && !continues && (action !== "next" || !message)) return null;
  const parentId = nameAt(request, "parent_message_id");
  return {
    text: asked.map((one) => partsOf(one).filter(Boolean).join("\n")).join("\n\n"),
    // A variant names the prompt as the parent of the new answer.
    messageId: nameAt(message, "id") ?? (again ? parentId : undefined),
    conversationId: nameAt(request, "conversation_id"),
    parentId,
    model: nameAt(request, "model"),
    again,
    continues,
    temporary:
      at(request, "history_and_training_disabled") === true ||
      url.searchParams.get("temporary-chat") === "true",
    attachments: listAt(message, "metadata", "attachments").flatMap((file) => {
      const name = nameAt(file, "name");
      return name ? [name] : [];
    }),
  };
}

function isShown(message: unknown): boolean {
  return at(message, "metadata", "is_visually_hidden_from_conversation") !== true;
}

function continued({ body, url }: SiteRequest): Continued {
  return {
    conversationId:
      nameAt(parse(body), "conversation_id") ?? url.searchParams.get("conversation_id") ?? undefined,
  };
}

function frames(data: string): (Continued & { text: string })[] {
  const received = parse(data);
  return (Array.isArray(received) ? received : [received]).flatMap((frame) => {
    // The payload of a turn is sometimes wrapped once more.
    const outer = at(frame, "payload");
    const payload = at(outer, "payload") ?? outer;
    const text = textAt(payload, "encoded_item");
    if (text === undefined) return [];
    const conversationId =
      nameAt(payload, "conversation_id") ?? nameAt(outer, "conversation_id");
    return [{ text: text.endsWith("\n\n") ? text : `${text}\n\n`, conversationId }];
  });
}

function history({ url }: SiteRequest, body: string): History | null {
  const conversation = parse(body);
  const mapping = at(conversation, "mapping");
  if (typeof mapping !== "object" || mapping === null) return null;
  return {
    conversationId: nameAt(conversation, "conversation_id") ?? url.pathname.split("/").pop() ?? "",
    title: nameAt(conversation, "title"),
    turns: Object.keys(mapping).flatMap((id) => pastTurn(mapping, id)),
  };
}

/** Follow the newest branch below a user's message down to the next one. */
function pastTurn(mapping: object, id: string): PastTurn[] {
  const asked = at(mapping, id, "message");
  if (textAt(asked, "author", "role") !== "user" || !isShown(asked)) return [];
  const said: Message[] = [];
  let node = at(mapping, id);
  for (let steps = 0; steps < 1_000; steps++) {
    const child = listAt(node, "children").at(-1);
    node = typeof child === "string" ? at(mapping, child) : undefined;
    const raw = at(node, "message");
    if (node === undefined || textAt(raw, "author", "role") === "user") break;
    const message = readMessage(raw);
    if (message?.visible && message.parts.join("") !== "") said.push(message);
  }
  return [
    {
      promptId: nameAt(asked, "id") ?? id,
      prompt: partsOf(asked).filter(Boolean).join("\n"),
      answerId: said.at(-1)?.id,
      answer: joined(said),
      complete: said.at(-1)?.finished === true && !said.at(-1)!.cut,
    },
  ];
}

export const chatgpt: Site = {
  id: "chatgpt",
  provider: "chatgpt",
  name: "ChatGPT",
  matches: ["https://chatgpt.com/*"],
  endpoints,
  namesLate: false,
  prompt,
  reader: () => new ChatGPTReader(),
  continued,
  frames,
  history,
  conversationOf: (page) => /\/c\/([\w-]+)/.exec(page.pathname)?.[1],
  isTemporary: (page) => page.searchParams.get("temporary-chat") === "true",
  page: {
    composer: ["#prompt-textarea[contenteditable='true']", "form div.ProseMirror"],
    send: ["button[data-testid='send-button']", "#composer-submit-button"],
    userTurn: ["[data-message-author-role='user']"],
    assistantTurn: ["[data-message-author-role='assistant']"],
    busy: ["button[data-testid='stop-button']"],
  },
};
