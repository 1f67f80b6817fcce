// Grok within X: an optional site. X is one page, so the scripts run on all of it and stay inert.

import { GrokReader } from "./grok";
import { at, listAt, nameAt, parse, textAt } from "./json";
import type { Endpoint, Prompt, Site, SiteRequest } from "./site";

export const endpoints: Endpoint[] = [
  {
    method: "POST",
    url: /^https:\/\/(grok\.x|api\.x|x)\.com\/2\/grok\/add_response\.json$/,
    role: "turn",
  },
];

function prompt({ body }: SiteRequest): Prompt | null {
  const request = parse(body);
  const asked = listAt(request, "responses").findLast((one) => at(one, "sender") === 1);
  const text = textAt(asked, "message");
  if (text === undefined) return null;
  return {
    text,
    conversationId: nameAt(request, "conversationId"),
    model: nameAt(request, "grokModelOptionId"),
    again: false,
    temporary: at(request, "isTemporaryChat") === true,
    attachments: listAt(asked, "fileAttachments").flatMap((file) => nameAt(file, "fileName") ?? []),
  };
}

export const xgrok: Site = {
  id: "xgrok",
  provider: "grok",
  name: "Grok in X",
  matches: ["https://x.com/*"],
  endpoints,
  namesLate: true,
  prompt,
  reader: () => new GrokReader(),
  continued: () => ({}),
  conversationOf: (page) =>
    page.pathname.startsWith("/i/grok")
      ? (page.searchParams.get("conversation") ?? undefined)
      : undefined,
  isTemporary: () => false,
  page: {
    composer: ["textarea[placeholder*='Ask' i]"],
    send: [],
    userTurn: [],
    assistantTurn: [],
    busy: [],
  },
};
