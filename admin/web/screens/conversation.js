import { notice } from "../../shared/dialog.js";
import { el, show as put } from "../../shared/dom.js";
import { badge, nameOf } from "../assistants.js";
import { dayKey, nameOfDay } from "../dates.js";
import { safe } from "../markdown.js";
import { pages } from "../pages.js";
import { turn } from "../turn.js";

const PAGE = 40;
export const keep = true;

/** #/conversation/assistant/id?at=…&memory=…: from the moment `at` on, at that memory. */
export async function show(context) {
  const { root, api, params, query, title, tools, signal } = context;
  const [provider, id] = params;
  const [after, memory] = [query.get("at"), query.get("memory")];
  const path = `/conversations/${encodeURIComponent(id ?? "")}`;
  const read = (cursor) => api.get(path, { provider, after, cursor, limit: PAGE }, { signal });
  const first = await read(null);
  const named = first.memories.find((one) => one.conversation_title);
  title(named?.conversation_title ?? "Conversation");
  const { url } = first.memories.findLast((one) => safe(one.url)) ?? {};
  tools.append(badge(provider), ...(url ? [el("a", { class: "button compact", href: safe(url), target: "_blank", rel: "noopener noreferrer" }, `Open at ${nameOf(provider)}`)] : []));

  const list = el("div", { class: "chat" });
  put(root, after && (await isLater(after)) ? earlierButton(after) : null, list);
  let last = null;
  pages({ list, first, read, signal, draw: ({ memories }) => (last = add(memories, last, (node) => list.append(node))) });
  if (memory) pointTo(list, memory);

  /** Ask for a single memory before: whether the conversation begins earlier. */
  async function isLater(before) {
    const { memories } = await api.get("/memories", { provider, conversation_id: id, before, limit: 1 }, { signal });
    return memories.length > 0;
  }

  function earlierButton(before) {
    let cursor = null;
    const button = el("button", { class: "button more", type: "button", on: { click: load } }, "Show what came before");
    return button;

    async function load() {
      button.disabled = true;
      try {
        const page = await api.get("/memories", { provider, conversation_id: id, before, cursor, limit: PAGE }, { signal });
        const anchor = list.firstElementChild;
        const from = anchor.getBoundingClientRect().top;
        const made = [];
        add(page.memories.toReversed(), null, (node) => made.push(node));
        list.prepend(...made);
        // What was being read stays where it is.
        scrollBy(0, anchor.getBoundingClientRect().top - from);
        cursor = page.next_cursor;
        button.hidden = cursor === null;
      } catch (error) {
        if (!signal.aborted) notice(error.message, { bad: true });
      }
      button.disabled = false;
    }
  }

  /** Add turns behind `before`, with a line where a new day begins; return the last. */
  function add(memories, before, append) {
    for (const one of memories) {
      const day = dayKey(one.occurred_at);
      if (!before || dayKey(before.occurred_at) !== day) append(el("h2", { class: "day-line" }, nameOfDay(day)));
      append(turn(one, context, { earlier: before }));
      before = one;
    }
    return before;
  }
}

function pointTo(list, memory) {
  const found = list.querySelector(`#memory-${CSS.escape(memory)}`);
  if (!found) return;
  found.classList.add("target");
  found.focus({ preventScroll: true });
  found.scrollIntoView({ block: "start" });
}
