import { at, listAt, nameAt, parse, textAt } from "./json";
import {
  emptyAnswer,
  type Continued,
  type Endpoint,
  type History,
  type Prompt,
  type Reader,
  type Site,
  type SiteRequest,
} from "./site";
import { Lines } from "./streams";

const CHATS = String.raw`^https:\/\/grok\.com\/rest\/app-chat\/conversations\/`;
const RECONNECT = "reconnect-response-v2";

export const endpoints: Endpoint[] = [
  { method: "POST", url: new RegExp(`${CHATS}new$`), role: "turn" },
  { method: "POST", url: new RegExp(CHATS + String.raw`[\w-]+\/responses$`), role: "turn" },
  { method: "GET", url: new RegExp(CHATS + RECONNECT + String.raw`\/[\w-]+$`), role: "rest" },
  {
    method: "POST",
    url: new RegExp(CHATS + String.raw`[\w-]+\/load-responses$`),
    role: "history",
  },
];

/** One JSON object a line; the first turn nests deeper than later ones, x.com is flat. */
export class GrokReader implements Reader {
  readonly answer = emptyAnswer();
  #lines = new Lines();
  #tokens = "";

  push(text: string): void {
    for (const line of this.#lines.push(text)) this.#line(line);
  }

  close(clean: boolean): void {
    for (const line of this.#lines.end()) this.#line(line);
    if (clean && this.answer.text !== "") this.answer.done = true;
  }

  reopen(): void {
    this.#lines = new Lines();
    // A reconnected stream begins anew.
    this.#tokens = "";
  }

  #line(line: string): void {
    const event = parse(line.replace(/^data:\s*/, ""));
    const result = at(event, "result") ?? event;
    const response = at(result, "response") ?? result;
    this.#name(event, result, response);
    this.#say(response);
    const whole = at(response, "modelResponse");
    const message = textAt(whole, "message");
    if (message) {
      this.#tokens = this.answer.text = message;
      if (at(whole, "partial") !== true) this.answer.done = true;
    }
    if (at(response, "isSoftStop") === true) this.answer.done = true;
  }

  #name(event: unknown, result: unknown, response: unknown): void {
    const { answer } = this;
    answer.conversationId =
      nameAt(result, "conversation", "conversationId") ??
      nameAt(event, "conversationId") ??
      answer.conversationId;
    answer.title =
      nameAt(result, "title", "newTitle") ??
      nameAt(result, "conversation", "title") ??
      answer.title;
    answer.promptId =
      nameAt(response, "userResponse", "responseId") ??
      nameAt(event, "userChatItemId") ??
      answer.promptId;
    answer.messageId =
      nameAt(response, "modelResponse", "responseId") ??
      nameAt(response, "responseId") ??
      nameAt(event, "agentChatItemId") ??
      answer.messageId;
    answer.model = nameAt(response, "modelResponse", "model") ?? answer.model;
  }

  #say(response: unknown): void {
    const tag = textAt(response, "messageTag");
    const said = textAt(response, "token") ?? (tag ? textAt(response, "message") : undefined);
    const thinking = at(response, "isThinking") === true;
    if (!said || thinking || (tag ?? "final") !== "final") return;
    this.#tokens += said;
    this.answer.text = this.#tokens;
  }
}

function prompt({ body, url }: SiteRequest): Prompt | null {
  const request = parse(body);
  const text = textAt(request, "message");
  if (text === undefined) return null;
  const conversation = /\/conversations\/([\w-]+)\/responses$/.exec(url.pathname)?.[1];
  const files = [...listAt(request, "fileAttachments"), ...listAt(request, "imageAttachments")];
  return {
    text,
    conversationId: conversation,
    parentId: nameAt(request, "parentResponseId"),
    model: nameAt(request, "modelName") ?? nameAt(request, "modeId"),
    again: at(request, "isRegenRequest") === true,
    temporary: at(request, "temporary") === true,
    attachments: files.flatMap((file) =>
      typeof file === "string" ? [file] : (nameAt(file, "fileName") ?? []),
    ),
  };
}

function continued({ url }: SiteRequest): Continued {
  return { answerId: url.pathname.split("/").pop() };
}

function history({ url }: SiteRequest, body: string): History | null {
  const responses = listAt(parse(body), "responses");
  const conversationId = /\/conversations\/([\w-]+)\//.exec(url.pathname)?.[1];
  if (!conversationId || responses.length === 0) return null;
  const turns = responses.flatMap((asked) => {
    const promptId = nameAt(asked, "responseId");
    if (textAt(asked, "sender")?.toLowerCase() !== "human" || !promptId) return [];
    const answer = responses.findLast(
      (other) => other !== asked && textAt(other, "parentResponseId") === promptId,
    );
    return [
      {
        promptId,
        prompt: textAt(asked, "message") ?? "",
        answerId: nameAt(answer, "responseId"),
        answer: textAt(answer, "message") ?? "",
        complete: answer !== undefined && at(answer, "partial") !== true,
      },
    ];
  });
  return { conversationId, turns };
}

export const grok: Site = {
  id: "grok",
  provider: "grok",
  name: "Grok",
  matches: ["https://grok.com/*"],
  endpoints,
  namesLate: true,
  prompt,
  reader: () => new GrokReader(),
  continued,
  history,
  conversationOf: (page) => /\/c\/([\w-]+)/.exec(page.pathname)?.[1],
  isTemporary: (page) => page.hash === "#private",
  page: {
    composer: [
      "div.tiptap.ProseMirror[contenteditable='true']",
      "textarea[aria-label='Ask Grok anything']",
    ],
    send: ["[data-testid='chat-submit']", "button[aria-label='Submit']"],
    userTurn: [".items-end .message-bubble"],
    assistantTurn: [".items-start .response-content-markdown", ".items-start .message-bubble"],
    busy: ["button[aria-label='Stop generating']", "button[aria-label='Stop']"],
  },
};
