// What an adapter says about its site. Adapters are pure: no document, no chrome.*, no network.

export type Provider = "chatgpt" | "claude" | "gemini" | "grok";

/**
 * `turn` carries a prompt and its answer, `rest` the remainder of an answer that began in
 * another request, `history` a whole conversation as JSON. `url` is matched without the query.
 */
export interface Endpoint {
  method: "GET" | "POST" | "WS";
  url: RegExp;
  role: "turn" | "rest" | "history";
}

export interface SiteRequest {
  url: URL;
  body: string;
}

export interface Prompt {
  text: string;
  /** The site's id of the user's message, where the request has it. */
  messageId?: string | undefined;
  /** The site's id of the answer that is to come, where the request has it. */
  answerId?: string | undefined;
  conversationId?: string | undefined;
  parentId?: string | undefined;
  model?: string | undefined;
  /** Another answer to a prompt that was answered before; `text` may be empty then. */
  again: boolean;
  /** No prompt: the answer that `parentId` names is to go on where it was cut off. */
  continues?: boolean;
  temporary: boolean;
  attachments: string[];
}

/** What is known of an answer so far. `elsewhere`: the site goes on in another stream. */
export interface Answer {
  text: string;
  promptId?: string | undefined;
  messageId?: string | undefined;
  conversationId?: string | undefined;
  title?: string | undefined;
  model?: string | undefined;
  done: boolean;
  elsewhere: boolean;
}

export interface Reader {
  readonly answer: Answer;
  push(text: string): void;
  /** The stream has ended, `clean` if the server said so: read what is left. */
  close(clean: boolean): void;
  /** Another stream goes on with this answer. */
  reopen(): void;
  /** Another stream adds to what the answer holds. */
  extend?(): void;
}

/** Which open answer a `rest` request goes on with; an empty object fits the only open one. */
export interface Continued {
  conversationId?: string | undefined;
  answerId?: string | undefined;
}

export interface PastTurn {
  promptId: string;
  prompt: string;
  answerId?: string | undefined;
  answer: string;
  complete: boolean;
}

export interface History {
  conversationId: string;
  title?: string | undefined;
  turns: PastTurn[];
}

/** CSS selectors, tried in order. They serve insertion, the missed-turn check and the fallback. */
export interface PageParts {
  composer: string[];
  send: string[];
  userTurn: string[];
  assistantTurn: string[];
  busy: string[];
}

export type SiteId = Provider | "xgrok";

export interface Site {
  id: SiteId;
  /** Who answers; the name under which its memories are kept. */
  provider: Provider;
  name: string;
  /** Match patterns of the pages on which the content scripts run. */
  matches: string[];
  endpoints: Endpoint[];
  /** Where the request does not name the user's message, the stream does. */
  namesLate: boolean;
  prompt(request: SiteRequest): Prompt | null;
  reader(): Reader;
  continued(request: SiteRequest): Continued;
  /** Take a WebSocket frame apart into pieces of streams. */
  frames?(data: string): (Continued & { text: string })[];
  history?(request: SiteRequest, body: string): History | null;
  conversationOf(page: URL): string | undefined;
  isTemporary(page: URL): boolean;
  page: PageParts;
}

export function emptyAnswer(): Answer {
  return { text: "", done: false, elsewhere: false };
}

export function endpointFor(
  endpoints: Endpoint[],
  method: string,
  url: string,
): Endpoint | undefined {
  const bare = url.split(/[?#]/, 1)[0] ?? "";
  return endpoints.find((endpoint) => endpoint.method === method && endpoint.url.test(bare));
}
