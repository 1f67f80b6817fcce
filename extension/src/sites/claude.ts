import { at, listAt, nameAt, parse, textAt } from "./json";
import {
  emptyAnswer,
  type Endpoint,
  type History,
  type Prompt,
  type Reader,
  type Site,
  type SiteRequest,
} from "./site";
import { ServerSentEvents } from "./streams";

const CHAT = String.raw`^https:\/\/claude\.ai\/api\/organizations\/[\w-]+\/chat_conversations\/`;

export const endpoints: Endpoint[] = [
  {
    method: "POST",
    url: new RegExp(CHAT + String.raw`[\w-]+\/(retry_)?completion$`),
    role: "turn",
  },
  { method: "GET", url: new RegExp(CHAT + String.raw`[\w-]+$`), role: "history" },
];

/** Events of the Messages API; only text blocks are the answer. */
class ClaudeReader implements Reader {
  readonly answer = emptyAnswer();
  #events = new ServerSentEvents();
  #blocks = new Map<number, string>();
  #legacy = "";

  push(text: string): void {
    this.#take(this.#events.push(text));
  }

  close(): void {
    this.#take(this.#events.end());
  }

  reopen(): void {
    this.#events = new ServerSentEvents();
  }

  #take(events: string[]): void {
    for (const data of events) this.#event(parse(data));
    if (events.length > 0) {
      this.answer.text = this.#legacy + [...this.#blocks.values()].filter(Boolean).join("\n\n");
    }
  }

  #event(event: unknown): void {
    switch (textAt(event, "type")) {
      case "message_start":
        this.answer.messageId = nameAt(event, "message", "uuid") ?? nameAt(event, "message", "id");
        this.answer.promptId = nameAt(event, "message", "parent_uuid");
        this.answer.model = nameAt(event, "message", "model") ?? this.answer.model;
        break;
      case "content_block_start":
        if (textAt(event, "content_block", "type") === "text") {
          this.#blocks.set(indexOf(event), textAt(event, "content_block", "text") ?? "");
        }
        break;
      case "content_block_delta":
        this.#delta(indexOf(event), textAt(event, "delta", "text"));
        break;
      case "completion":
        this.#legacy += textAt(event, "completion") ?? "";
        if (textAt(event, "stop_reason")) this.answer.done = true;
        break;
      case "conversation_title":
        this.answer.title = nameAt(event, "title");
        break;
      case "message_stop":
        this.answer.done = true;
    }
  }

  #delta(index: number, text: string | undefined): void {
    const block = this.#blocks.get(index);
    if (block !== undefined && text !== undefined) this.#blocks.set(index, block + text);
  }
}

function indexOf(event: unknown): number {
  const index = at(event, "index");
  return typeof index === "number" ? index : 0;
}

function conversationIn(url: URL): string | undefined {
  return /\/chat_conversations\/([\w-]+)/.exec(url.pathname)?.[1];
}

function prompt({ body, url }: SiteRequest): Prompt | null {
  const request = parse(body);
  const text = textAt(request, "prompt");
  const again = url.pathname.endsWith("/retry_completion");
  if (text === undefined && !again) return null;
  const parentId = nameAt(request, "parent_message_uuid");
  const files = [...listAt(request, "attachments"), ...listAt(request, "files")];
  return {
    text: text ?? "",
    // A retry answers the message that it names as its parent.
    messageId: again
      ? parentId
      : nameAt(request, "turn_message_uuids", "human_message_uuid"),
    answerId: nameAt(request, "turn_message_uuids", "assistant_message_uuid"),
    conversationId: conversationIn(url),
    parentId,
    model: nameAt(request, "model"),
    again,
    temporary: at(request, "create_conversation_params", "is_temporary") === true,
    attachments: files.flatMap((file) => nameAt(file, "file_name") ?? []),
  };
}

function history(_: SiteRequest, body: string): History | null {
  const conversation = parse(body);
  const conversationId = nameAt(conversation, "uuid");
  const messages = listAt(conversation, "chat_messages");
  if (!conversationId || messages.length === 0) return null;
  return {
    conversationId,
    title: nameAt(conversation, "name"),
    turns: messages.flatMap((message) => {
      const promptId = nameAt(message, "uuid");
      if (textAt(message, "sender") !== "human" || !promptId) return [];
      // The newest answer stands last.
      const answer = messages.findLast(
        (other) =>
          textAt(other, "sender") === "assistant" &&
          textAt(other, "parent_message_uuid") === promptId,
      );
      return [
        {
          promptId,
          prompt: writtenIn(message),
          answerId: nameAt(answer, "uuid"),
          answer: writtenIn(answer),
          complete: answer !== undefined && textAt(answer, "stop_reason") !== "user_canceled",
        },
      ];
    }),
  };
}

function writtenIn(message: unknown): string {
  const blocks = listAt(message, "content").filter((block) => textAt(block, "type") === "text");
  const texts = blocks.map((block) => textAt(block, "text") ?? "").filter(Boolean);
  return texts.join("\n\n") || (textAt(message, "text") ?? "");
}

export const claude: Site = {
  id: "claude",
  provider: "claude",
  name: "Claude",
  matches: ["https://claude.ai/*"],
  endpoints,
  namesLate: true,
  prompt,
  reader: () => new ClaudeReader(),
  continued: ({ url }) => ({ conversationId: conversationIn(url) }),
  history,
  conversationOf: (page) => /\/chat\/([\w-]+)/.exec(page.pathname)?.[1],
  isTemporary: (page) => page.searchParams.has("incognito"),
  page: {
    composer: [
      "div[data-testid='chat-input'][contenteditable='true']",
      "div.ProseMirror[contenteditable='true']",
    ],
    send: ["button[aria-label='Send message']", "button[data-testid='send-button']"],
    userTurn: ["[data-testid='user-message']"],
    assistantTurn: [".font-claude-response", ".font-claude-message"],
    busy: ["[data-is-streaming='true']"],
  },
};
