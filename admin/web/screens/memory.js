import { el, show as put } from "../../shared/dom.js";
import { badge, nameOf } from "../assistants.js";
import { safe } from "../markdown.js";
import { turn } from "../turn.js";

export async function show(context) {
  const { root, api, params, address, title, tools, signal } = context;
  const memory = await api.get(`/memories/${encodeURIComponent(params[0] ?? "")}`, {}, { signal });
  const { provider, conversation_id: id, conversation_title: name, occurred_at: at, url } = memory;
  if (name) title(name);
  tools.append(badge(provider));
  put(
    root,
    el("div", { class: "chat" }, turn(memory, context, { alone: true })),
    el(
      "p",
      { class: "row" },
      id && el("a", { class: "button compact", href: address("conversation", [provider, id], { at, memory: memory.id }) }, "In its conversation"),
      safe(url) && el("a", { class: "button compact", href: safe(url), target: "_blank", rel: "noopener noreferrer" }, `Open at ${nameOf(provider)}`),
    ),
  );
}
